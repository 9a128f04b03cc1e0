"""Which peers there are, by name."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from vecdb_bench.name_check import refuse_unknown
from vecdb_bench.peers.contract import Peer
from vecdb_bench.peers.databases.qdrant_edge import QdrantEdge
from vecdb_bench.peers.databases.vecdb_collection import Vecdb
from vecdb_bench.peers.databases.zvec import Zvec
from vecdb_bench.peers.libraries.faiss import Faiss
from vecdb_bench.peers.libraries.glass import Glass
from vecdb_bench.peers.libraries.hnswlib import Hnswlib
from vecdb_bench.peers.libraries.lorann import Lorann
from vecdb_bench.peers.libraries.ngt import Ngt
from vecdb_bench.peers.libraries.svs import Svs
from vecdb_bench.peers.libraries.usearch import Usearch
from vecdb_bench.peers.libraries.vsag import Vsag

ALL = "all"  # in the place of a name: every peer
PEERS: dict[str, Callable[[int, int], Peer]] = {  # of m and ef_construction
    "vecdb": lambda m, ef: Vecdb(m, ef),
    "vecdb-f32": lambda m, ef: Vecdb(m, ef, quantization=None, name="vecdb-f32"),
    "hnswlib": lambda m, ef: Hnswlib(m, ef),
    "faiss": lambda m, ef: Faiss(m, ef),
    "faiss-sq8": lambda m, ef: Faiss(m, ef, codes=True),
    "usearch": lambda m, ef: Usearch(m, ef),
    "svs": lambda m, ef: Svs(m, ef),
    "glass-sq8u": lambda m, ef: Glass(m, ef, bits=8),
    "glass-sq4u": lambda m, ef: Glass(m, ef, bits=4),
    "vsag": lambda m, ef: Vsag(m, ef),
    "vsag-sq8": lambda m, ef: Vsag(m, ef, codes=True),
    "ngt-anng": lambda m, ef: Ngt(m, ef, onng=False),
    "ngt-onng": lambda m, ef: Ngt(m, ef, onng=True),
    "zvec-hnsw": lambda m, ef: Zvec(m, ef),
    "qdrant-edge": lambda m, ef: QdrantEdge(m, ef),
    "lorann": lambda m, ef: Lorann(m, ef),
}


def chosen(words: Sequence[str]) -> tuple[str, ...]:
    """The names that a user's words stand for, each once, vecdb first."""
    names = ["vecdb", *(PEERS if ALL in words else ()), *(word for word in words if word != ALL)]
    return tuple(dict.fromkeys(names))


def make_peers(names: Sequence[str], m: int, ef_construction: int) -> tuple[list[Peer], dict[str, str]]:
    """Peers by name; and those that are absent, with why. Unknown names are refused before anything is built."""
    refuse_unknown(names, tuple(PEERS), "peer")
    peers, absent = [], {}
    for name in names:
        peer = PEERS[name](m, ef_construction)
        if why := peer.missing():
            absent[name] = why
        else:
            peers.append(peer)
    return peers, absent
