"""The plan: which data, which conditions, which kinds of index, which peers."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace

from vecdb_bench.engines.engine_process import CLOCKS
from vecdb_bench.name_check import refuse_unknown

MEASURES = ("cells", "peers", "bitmaps")
KINDS = ("flat", "hnsw", "spann", "curator")
CORRELATIONS = ("independent", "near", "far")
SHAPES = ("keyword", "two keywords", "range", "list")
PARTS = (1, 2, 5, 10, 25, 100, 1_000, 10_000)  # a condition matches one of so many equal parts of the rows
PEERS: dict[str, str] = {  # and the package of each
    "hnswlib": "hnswlib",
    "faiss-hnsw": "faiss-cpu",
    "faiss-flat": "faiss-cpu",
    "lancedb": "lancedb",
    "zvec": "zvec",
    "qdrant-edge": "qdrant-edge-py",
    "qdrant-edge-acorn": "qdrant-edge-py",
}


@dataclass(frozen=True, slots=True)
class Plan:
    """What to measure. widths : of vecdb's graph; the fastest search is sought among them.   peer_widths : each peer
    takes the smallest that reaches `recall`.   budget : seconds of a peer's turn; where it would take longer, fewer
    queries are asked, and after four times as many no larger width is tried.   bitmap_rows : records over which filters
    are evaluated.   clock : of searches, "wall", or "cpu", which is processor time.   kept : folder of the indexes, for
    the next run with the same data.
    """

    dataset: str = "glove-50"
    folder: str | None = None
    rows: int | None = 100_000
    queries: int = 20
    limits: tuple[int, ...] = (1, 10, 100)
    kinds: tuple[str, ...] = KINDS
    parts: tuple[int, ...] = PARTS
    peers: tuple[str, ...] = tuple(PEERS)
    peer_parts: tuple[int, ...] = (2, 5, 10, 25, 100, 1_000)
    measures: tuple[str, ...] = MEASURES
    recall: float = 0.95
    widths: tuple[int, ...] = (16, 32, 64, 128, 256, 512)
    peer_widths: tuple[int, ...] = (16, 32, 64, 128, 256, 512, 1_024, 2_048, 4_096)
    rounds: int = 3
    budget: float = 1.5
    bitmap_rows: int = 1_000_000
    m: int = 16
    ef_construction: int = 200
    threads: int = os.cpu_count() or 1
    seed: int = 1
    clock: str = "wall"
    kept: str | None = None
    path: str | None = None

    def quick(self) -> Plan:
        """The same plan at small sizes: its results have the right form, but say nothing of speed."""
        return replace(
            self, queries=3, limits=(1, 10), parts=(1, 10, 1_000), peer_parts=(10,), widths=(64,),
            peer_widths=(64, 512), rounds=1, bitmap_rows=3_000,
        )  # fmt: skip

    def check(self) -> None:
        """Refuse unknown names before anything is built."""
        refuse_unknown(self.measures, MEASURES, "measure")
        refuse_unknown(self.kinds, KINDS, "kind of index")
        refuse_unknown(self.peers, tuple(PEERS), "peer")
        refuse_unknown([self.clock], tuple(CLOCKS), "clock")
