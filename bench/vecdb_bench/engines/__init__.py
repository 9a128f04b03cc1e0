"""Engines, each in a process of its own: `vecdb bench disk` and `vecdb bench tenants` start the files of this folder.

    parent --json line--> contestant      {"do": "build"} | {"do": "open"} | {"do": "sweep", "value": 64} | ...
    parent <--json line-- contestant      seconds, memory, answers

They import nothing of vecdb's own (engine_process.py included), because each runs under the interpreter that has its
engine.
"""
