"""Buffers that a kernel call works in, kept between calls so that a search allocates nothing large.

A list under the interpreter lock is the pool: `pop` and `append` are atomic. The visited set covers the whole capacity
of the link array, because a search may meet rows that joined the graph after it looked.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from vecdb.index.hnsw.graph import Graph
from vecdb.storage.disk import filesystem

_TRAIL = 1 << 16
_KEPT_MAX = 64


class Scratch:
    """Buffers of one kernel call; kernels.search.search_graph says what each is for."""

    __slots__ = (
        "capacity",
        "kept",
        "keys",
        "pool",
        "query8",
        "query16",
        "search_args",
        "stride",
        "trail",
        "visited",
    )

    def __init__(self, capacity: int, stride: int, pool: int, keys: int, blocks: int) -> None:
        self.capacity = capacity
        self.stride = stride
        self.pool = np.empty(pool, np.int64)
        self.keys = np.empty(keys, np.int64)
        self.kept = np.empty(stride + 1, np.int64)
        self.visited = filesystem.reserve_memory(capacity // 32 + 1, np.uint32)
        self.trail = np.empty(_TRAIL, np.int32)
        self.query8 = np.zeros(64 * blocks, np.int8)
        self.query16 = np.zeros(64 * blocks, np.int16)
        self.search_args: tuple[Any, ...] = (
            self.pool, self.keys, self.visited, self.trail, self.query8, self.query16, (0,) * blocks
        )  # fmt: skip


class ScratchPool:
    """The pool of one index. Any thread may take and give."""

    def __init__(self, blocks: int) -> None:
        self.blocks = blocks
        self._free: list[Scratch] = []

    def take(self, graph: Graph, width: int, rerank: int) -> Scratch:
        try:
            scratch = self._free.pop()
        except IndexError:
            pass
        else:
            if (
                scratch.capacity >= len(graph.links)
                and 4 * width + 2 <= len(scratch.pool)
                and rerank < len(scratch.keys)
                and scratch.stride >= graph.links.shape[1]
            ):
                return scratch
        pool = max(1024, 4 * width + 2)
        return Scratch(len(graph.links), graph.links.shape[1], pool, max(256, rerank + 1), self.blocks)

    def give(self, scratch: Scratch) -> None:
        if len(self._free) < _KEPT_MAX:
            self._free.append(scratch)
