"""Distances, dot products, checksums: what the other kernels are made of."""
