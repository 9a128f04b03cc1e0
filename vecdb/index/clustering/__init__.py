"""Balanced clusters: the tree, nearest centres, partitions."""
