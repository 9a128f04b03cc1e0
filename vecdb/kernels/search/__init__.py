"""Whole queries: over a graph, lists, a tree, or all vectors."""
