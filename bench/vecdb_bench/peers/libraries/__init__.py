"""Libraries that keep an index in memory, one file each."""
