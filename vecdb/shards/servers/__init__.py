"""The servers of a cluster, each kept by a process that looks at the placement.

member.py           the loop
roles.py            what the server has to be
directories.py      what its directory holds, and how that becomes what it must be
server_process.py   `vecdb serve`
ports.py            where it listens
"""
