"""What other libraries and databases keep, read as they left it.

recognise.py     what is this directory, or this file?              rows.py      what the readers below share
chroma.py        a directory of Chroma 1.x, by chromadb             lance.py     a table of Lance or LanceDB, by pylance
qdrant.py        a directory of qdrant-client's local mode, without any package: plain_pickle.py
faiss_index.py   an index that faiss wrote, by faiss                usearch_index.py   the same of usearch
qdrant_snapshot.py  a snapshot of a Qdrant server, by qdrant-edge-py
copy_text.py     the text of PostgreSQL's COPY, where pgvector's columns lie

Each package is imported when a source of its kind is opened, and is an extra of its own.
"""
