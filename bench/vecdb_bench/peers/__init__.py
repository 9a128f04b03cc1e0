"""Peers of `vecdb bench run`: vecdb and the libraries that it is compared with, behind the same few methods.

contract.py     what a peer does                registry.py     which there are, by name
databases/      those with records on disk      libraries/      those with an index in memory: one file for each
"""

from vecdb_bench.peers.contract import Peer
from vecdb_bench.peers.registry import PEERS, chosen, make_peers

__all__ = ["PEERS", "Peer", "chosen", "make_peers"]
