"""Buffers that a kernel call works in, kept between calls so that a search allocates nothing large.

A list under the interpreter lock is the pool: `pop` and `append` are atomic. The visited set covers the whole capacity
of the link array, because a search may meet rows that joined the graph after it looked.
"""

from __future__ import annotations

import numpy as np

from vecdb.index.hnsw.graph import Graph
from vecdb.kernels.array_table import ArrayTable
from vecdb.kernels.search.beam_search import BeamScratch
from vecdb.kernels.search.graph_search import GraphScratch, GraphWork
from vecdb.storage.disk import mapped_memory

_TRAIL = 1 << 16  # rows met by one search that are cleared one by one; after more the whole visited set is
SCRATCHES_MAX = 64  # that are kept between calls


class ScratchBuffers:
    """Buffers of one kernel call, as the table of a GraphScratch, and what they have room for."""

    __slots__ = (
        "blocks",
        "capacity",
        "code_format",
        "count",
        "keys",
        "pool",
        "stride",
        "table",
        "user",
        "width",
        "work",
    )

    def __init__(self, graph: Graph, pool: int, keys: int) -> None:
        capacity, stride = graph.links.shape
        self.capacity = capacity
        self.stride = stride
        self.pool = pool
        self.keys = keys
        self.code_format = graph.quantiser.code_format
        self.width = graph.codes.shape[1]
        self.blocks = graph.blocks
        self.user: object = None  # what had it last: it fits that without a look
        self.count = np.zeros(1, np.int64)  # of an answer to one query
        self.work = np.zeros(len(GraphWork), np.int64)
        self.table = ArrayTable(
            GraphScratch(
                beam=BeamScratch(
                    pool=np.empty(pool, np.int64),
                    visited=mapped_memory.reserve_memory(capacity // 32 + 1, np.uint32),
                    trail=np.empty(_TRAIL, np.int32),
                ),
                keys=np.empty(keys, np.int64),
                kept=np.empty(stride + 1, np.int64),
                query8=np.zeros(self.width, np.int8),
                query16=np.zeros(2 * self.width, np.int16),
            )
        )

    def fits(self, graph: Graph, width: int, rerank: int) -> bool:
        """Whether a search of `graph` with this beam and so many candidates has room in it."""
        return (
            self.capacity >= len(graph.links)
            and 4 * width + 2 <= self.pool
            and rerank < self.keys
            and self.stride >= graph.links.shape[1]
            and self.code_format == graph.quantiser.code_format
            and self.width == graph.codes.shape[1]
        )


class ScratchPool:
    """The pool of one index. Any thread may take and give."""

    def __init__(self) -> None:
        self._free: list[ScratchBuffers] = []

    @property
    def free(self) -> list[ScratchBuffers]:
        """The pool itself, for who cannot spare a call: to be popped from and, below `SCRATCHES_MAX`, appended to."""
        return self._free

    def take(self, graph: Graph, width: int, rerank: int) -> ScratchBuffers:
        try:
            scratch = self._free.pop()
        except IndexError:
            pass
        else:
            if scratch.fits(graph, width, rerank):
                return scratch
        return ScratchBuffers(graph, max(1024, 4 * width + 2), max(256, rerank + 1))

    def give(self, scratch: ScratchBuffers) -> None:
        if len(self._free) < SCRATCHES_MAX:
            self._free.append(scratch)
