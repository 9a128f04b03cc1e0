"""vecdb in VectorDBBench: client.py what its runners call, register.py how it becomes known, command.py how it starts,
own_sets.py how a set of one's own comes into cases that look sets up by name.

VectorDBBench has no point where plug-ins come in: `register` adds a member to its list of databases, before its models
are made from that list. Its processes are spawned, so each of them imports command.py again, which registers again.
"""
