"""Storage: bytes on disk. Knows nothing of kernels, indexes or callers' values.

disk/  filesystem.py       the only module that calls the operating system
       paths.py            names of a collection's folder and files
       row_file.py         the append-only file of full vectors, and the arrays aligned with it (row_format.py draws it)
       id_column.py        row -> id
       growable_arrays.py  where arrays aligned with rows live: memory, or an unlinked file
       list_file.py        extents, one per posting list
       batch_read.py       many small reads at once
       manifest.py         format and id of the database
kv/    store.py            the one LMDB environment: what is true
       keys.py             LMDB databases and their keys
       record_format.py    layouts of the values
       catalog.py          entry and state of a collection
"""
