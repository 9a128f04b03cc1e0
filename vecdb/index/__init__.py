"""Indexes: which rows are near a query? contract.py says what every kind does; importing a kind imports the kernels.

contract    Index, Neighbors, SealedFile      row_set     rows that a search may return
flat        exact scan                        hnsw        a graph in memory
spann       posting lists on disk             curator     codes in the order of a tree, for many tenants
clustering  trees of centroids                common      what several kinds share
"""
