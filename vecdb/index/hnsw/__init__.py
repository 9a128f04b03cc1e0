"""HNSW: a graph in memory (Malkov and Yashunin, 2016)."""
