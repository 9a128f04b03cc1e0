"""HNSW: a graph in memory (Malkov and Yashunin, 2016).

hnsw_index  the index      graph       arrays and views     construction  threads over the building kernels
state       as a value     graph_file  to a file and back   graph_codes   codes of rows
invariants  what must hold of a view                        scratch       buffers of kernel calls
"""
