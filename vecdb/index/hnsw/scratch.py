"""Buffers that a kernel call works in, kept between calls so that a search allocates nothing large.

A list under the interpreter lock is the pool: `pop` and `append` are atomic. The visited set covers the whole capacity
of the link array, because a search may meet rows that joined the graph after it looked.
"""

from __future__ import annotations

import numpy as np

from vecdb.index.hnsw.graph import Graph
from vecdb.kernels.array_table import ArrayTable
from vecdb.kernels.search.beam_search import BeamScratch
from vecdb.kernels.search.graph_search import GraphScratch
from vecdb.storage.disk import filesystem

_TRAIL = 1 << 16  # rows met by one search that are cleared one by one; after more the whole visited set is
_SCRATCHES_MAX = 64  # that are kept between calls


class ScratchBuffers:
    """Buffers of one kernel call, as the table of a GraphScratch, and what they have room for."""

    __slots__ = ("blocks", "capacity", "keys", "pool", "stride", "table")

    def __init__(self, capacity: int, stride: int, pool: int, keys: int, blocks: int) -> None:
        self.capacity = capacity
        self.stride = stride
        self.pool = pool
        self.keys = keys
        self.blocks = (0,) * blocks
        self.table = ArrayTable(
            GraphScratch(
                beam=BeamScratch(
                    pool=np.empty(pool, np.int64),
                    visited=filesystem.reserve_memory(capacity // 32 + 1, np.uint32),
                    trail=np.empty(_TRAIL, np.int32),
                ),
                keys=np.empty(keys, np.int64),
                kept=np.empty(stride + 1, np.int64),
                query8=np.zeros(64 * blocks, np.int8),
                query16=np.zeros(64 * blocks, np.int16),
            )
        )


class ScratchPool:
    """The pool of one index. Any thread may take and give."""

    def __init__(self, blocks: int) -> None:
        self.blocks = blocks
        self._free: list[ScratchBuffers] = []

    def take(self, graph: Graph, width: int, rerank: int) -> ScratchBuffers:
        try:
            scratch = self._free.pop()
        except IndexError:
            pass
        else:
            if (
                scratch.capacity >= len(graph.links)
                and 4 * width + 2 <= scratch.pool
                and rerank < scratch.keys
                and scratch.stride >= graph.links.shape[1]
            ):
                return scratch
        pool = max(1024, 4 * width + 2)
        return ScratchBuffers(len(graph.links), graph.links.shape[1], pool, max(256, rerank + 1), self.blocks)

    def give(self, scratch: ScratchBuffers) -> None:
        if len(self._free) < _SCRATCHES_MAX:
            self._free.append(scratch)
