"""Searches that can be cancelled: a batch of queries runs in chunks, and between two chunks the caller may stop it.

    queries -> chunk -> stop? -> chunk -> stop? -> ... -> the chunks' results joined

A kernel call cannot be interrupted, so a chunk is how long a cancelled search goes on. A caller without `stop` can
still press Ctrl-C: chunks are longer then, so that a batch costs no more than in one piece, and it ends with one of
them.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from vecdb.errors import Unavailable
from vecdb.index.contract import Candidates, Neighbors
from vecdb.kernels.primitives.float_products import COLUMNS
from vecdb.query.planner import Plan

_FIRST_QUERIES = 8
_CHUNK_S = 0.010  # what a chunk should take: long enough that kernels work in batches, short enough to stop soon
_QUIET_QUERIES, _QUIET_CHUNK_S = 64, 0.2  # the same where only a signal can stop it
_QUIET_PRODUCTS = 1 << 28  # of two numbers, in the first chunk of an exact scan: about 0.1 s
# Places of beams in the first chunk of a walk through a graph, about 80 ms. After a first chunk of 64 queries two
# threads took a tenth longer for 1,000: at the end of each chunk one waits for the other.
_QUIET_PLACES = 1 << 17
_GROWTH_MAX, _QUIET_GROWTH_MAX = 4.0, 16.0
# An exact scan compares so many queries at once, at the cost of a third of them one by one (index/exact/scan.py): they
# are not separated where that takes a fifth of a second at most.
_TOGETHER, _TOGETHER_PRODUCTS = COLUMNS, 1 << 33

Search = Callable[[NDArray[np.float32]], tuple[Neighbors, Plan]]


def search_in_chunks(
    search: Search, queries: NDArray[np.float32], stop: Callable[[], bool] | None, scanned_rows: int = 0,
    beam: int = 0,
) -> tuple[Neighbors, Plan]:  # fmt: skip
    """What `search` finds for all queries (float32[nq, dim], nq > 0). Chunks grow and shrink to take about 10 ms each,
    or 200 ms where there is no `stop`; those of an exact scan have some queries in any case.

    scanned_rows : that each query is compared with, where it is answered by a scan.   beam : of each query, where it
    is answered by a graph.
    Raises Unavailable once `stop` returns True.
    """
    parts: list[Neighbors] = []
    wanted_s, growth = (_CHUNK_S, _GROWTH_MAX) if stop is not None else (_QUIET_CHUNK_S, _QUIET_GROWTH_MAX)
    size, first = _FIRST_QUERIES, 0
    if stop is None:
        size = max(1, min(_QUIET_QUERIES, _QUIET_PRODUCTS // max(1, scanned_rows * queries.shape[1])))
        size = max(size, _QUIET_PLACES // beam if beam else 0)
    together = _TOGETHER if 0 < _TOGETHER * scanned_rows * queries.shape[1] <= _TOGETHER_PRODUCTS else 1
    size = max(size, together)
    if stop is None and len(queries) <= size:
        return search(queries)
    while True:
        if stop is not None and stop():
            raise Unavailable(f"the search was cancelled after {first:,} of {len(queries):,} queries")
        started = time.perf_counter()
        found, plan = search(queries[first : first + size])
        parts.append(found)
        first += size
        if first >= len(queries):
            return joined(parts), plan
        taken_s = max(time.perf_counter() - started, 1e-6)
        size = max(together, int(size * min(growth, wanted_s / taken_s)))


def find_in_chunks(
    find: Callable[[NDArray[np.float32]], Neighbors], queries: NDArray[np.float32], scanned_rows: int = 0,
    stop: Callable[[], bool] | None = None,
) -> Neighbors:  # fmt: skip
    """The same of an index, for long work that Ctrl-C or `stop` must end: what `find` finds for all queries."""
    plan = Plan("exact", 0, "")  # no part of the answer
    return search_in_chunks(lambda part: (find(part), plan), queries, stop, scanned_rows)[0]


def joined(parts: list[Neighbors]) -> Neighbors:
    """Answers to queries, one after the other. parts : at least one."""
    if len(parts) == 1:
        return parts[0]
    made = Neighbors(
        np.concatenate([part.rows for part in parts]),
        np.concatenate([part.distances for part in parts]),
        np.concatenate([part.counts for part in parts]),
        # where the index turned out to be damaged the rest was scanned, whose counters are others
        np.sum([part.work for part in parts if len(part.work) == len(parts[-1].work)], axis=0),
    )
    margins = [part.margins for part in parts if isinstance(part, Candidates)]
    if not margins:
        return made
    return Candidates(made.rows, made.distances, made.counts, made.work, np.concatenate(margins))
