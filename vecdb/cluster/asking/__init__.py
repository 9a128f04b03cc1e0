"""Asking shards: which server of a shard is asked, what happens where it fails or is slow, and waiting for answers."""
