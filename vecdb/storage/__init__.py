"""Storage: bytes on disk. Knows nothing of kernels, indexes or callers' values.

files.py     the seam to the operating system
codec.py     layouts of our own files and LMDB values
keys.py      names and keys inside the LMDB environment
store.py     the one LMDB environment: what is true
rows.py      the append-only row file of full vectors, and the arrays aligned with it
idcolumn.py  row -> id
backing.py   where arrays aligned with rows live: memory, or an unlinked file
pages.py     the list file: sealed extents, one per posting list
read_many.py many small reads at once
manifest.py  what this directory is
"""
