"""Engines, each in a process of its own: `vecdb bench disk` and `vecdb bench tenants` start these scripts.

    disk/  filters/         and tenants/: one script for each engine
    engine_process.py       what every engine does: answer lines, time single searches, measure its memory
    shared_process.py       several engines in one process
    serving_milvus.py       a server for `vecdb bench serve`
    length_prefixed.py      messages in a file
    zvec_graph.py           HNSW of zvec, and
    qdrant_shard.py         of qdrant-edge: filters/ and the peers of `vecdb bench run` measure the same

    parent --JSON line--> engine      {"do": "build"} | {"do": "open"} | {"do": "sweep", "value": 64} | ...
    parent <--JSON line-- engine      seconds, memory, answers

They import nothing of this package by its name, because each runs under the interpreter that has its engine: this
folder is on their import path (vecdb_bench/child_process.py).
"""
