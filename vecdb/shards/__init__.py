"""Whole shards of a cluster: the servers that keep them, and what is done to them where they lie."""
