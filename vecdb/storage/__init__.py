"""Storage: bytes on disk. Knows nothing of kernels, indexes or callers' values.

filesystem.py     the seam to the operating system
record_format.py     layouts of our own files and LMDB values
keys.py      names and keys inside the LMDB environment
store.py     the one LMDB environment: what is true
row_file.py      the append-only row file of full vectors, and the arrays aligned with it
id_column.py  row -> id
growable_arrays.py   where arrays aligned with rows live: memory, or an unlinked file
list_file.py     the list file: sealed extents, one per posting list
batch_read.py many small reads at once
manifest.py  what this directory is
"""
