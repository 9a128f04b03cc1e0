"""Searches that can be cancelled: a batch of queries runs in chunks, and between two chunks the caller may stop it.

    queries -> chunk -> stop? -> chunk -> stop? -> ... -> the chunks' results joined

A kernel call cannot be interrupted, so a chunk is how long a cancelled search goes on.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from vecdb.errors import Unavailable
from vecdb.index.contract import Neighbors
from vecdb.query.planner import Plan

_FIRST_QUERIES = 8
_CHUNK_S = 0.010  # what a chunk should take: long enough that kernels work in batches, short enough to stop soon

Search = Callable[[NDArray[np.float32]], tuple[Neighbors, Plan]]


def search_in_chunks(search: Search, queries: NDArray[np.float32], stop: Callable[[], bool]) -> tuple[Neighbors, Plan]:
    """What `search` finds for all queries (float32[nq, dim], nq > 0). Chunks grow and shrink to take about 10 ms each.

    Raises Unavailable once `stop` returns True.
    """
    parts: list[Neighbors] = []
    size, first = _FIRST_QUERIES, 0
    while True:
        if stop():
            raise Unavailable(f"the search was cancelled after {first:,} of {len(queries):,} queries")
        started = time.perf_counter()
        found, plan = search(queries[first : first + size])
        parts.append(found)
        first += size
        if first >= len(queries):
            return _joined(parts), plan
        taken_s = max(time.perf_counter() - started, 1e-6)
        size = max(1, int(size * min(4.0, _CHUNK_S / taken_s)))


def _joined(parts: list[Neighbors]) -> Neighbors:
    if len(parts) == 1:
        return parts[0]
    return Neighbors(
        np.concatenate([part.rows for part in parts]),
        np.concatenate([part.distances for part in parts]),
        np.concatenate([part.counts for part in parts]),
        np.sum([part.work for part in parts], axis=0),
    )
