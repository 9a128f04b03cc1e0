"""What searches of every kind of index share: slices of queries over threads, and no answer shorter than it must be.

    as_float32_queries -> empty -> map_query_slices(answer) -> complete_short_answers

An index brings `answer`, which answers one slice of queries in place.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vecdb.index.common.thread_pool import ThreadPool
from vecdb.index.contract import Neighbors
from vecdb.index.row_set import RowSet
from vecdb.kernels.search.graph_search import GraphWork
from vecdb.schema import Visibility

_I64, _F32 = np.dtype(np.int64), np.dtype(np.float32)  # numpy takes 0.2 us longer to understand their types
Exactly = Callable[[NDArray[np.float32], int, Visibility, RowSet | None, int], Neighbors]
_SLICE_MIN = 32  # queries
SCORED = GraphWork.VECTOR_DISTANCES  # where `work` of an exact scan, too, counts vectors that were scored


def as_float32_queries(queries: NDArray[Any]) -> NDArray[np.float32]:
    """float32, C-contiguous, writable type; copies only where it must."""
    if queries.dtype != np.float32 or not queries.flags.carray:
        return np.array(queries, np.float32, order="C")
    return queries


def empty_result(nq: int, limit: int, counters: int = 3) -> Neighbors:
    """Room for the answers of nq queries, nothing done yet."""
    return Neighbors(
        np.empty((nq, limit), _I64), np.empty((nq, limit), _F32), np.zeros(nq, _I64), np.zeros(counters, _I64)
    )


def map_query_slices(
    answer: Callable[[NDArray[np.float32], Any], None],
    queries: NDArray[np.float32],
    found: Neighbors,
    most: int,
    threads: int,
    workers: ThreadPool,
) -> None:
    """Call `answer` for slices of at most `most` queries, each with its part of `found` to fill. `work` is added up."""
    parts = _query_slices(len(queries), most, max(1, threads))
    if len(parts) == 1:
        answer(queries, found)
        return
    works = np.zeros((len(parts), len(found.work)), np.int64)

    def one(i: int) -> None:
        answer(queries[parts[i]], found.part(parts[i], works[i]))

    workers.map(one, range(len(parts)), threads)
    found.work[:] = works.sum(axis=0)


def _query_slices(nq: int, most: int, threads: int) -> list[slice]:
    """Of several threads the last slices are small, so that none waits long for another: with slices of 64 two threads
    waited for .9 of 13 ms. One slice, which may be empty, at the least.
    """
    if nq <= 1:
        return [slice(0, nq)]
    least = most if threads == 1 else min(most, _SLICE_MIN, -(-nq // threads))
    parts, at = [], 0
    while at < nq:
        step = max(least, min(most, -(-(nq - at) // (2 * threads))))
        parts.append(slice(at, min(nq, at + step)))
        at += step
    return parts


def complete_short_answers(
    found: Neighbors,
    queries: NDArray[np.float32],
    limit: int,
    visibility: Visibility,
    allow: RowSet | None,
    threads: int,
    exactly: Exactly,
    scored: int = SCORED,
) -> None:
    """A search never returns fewer rows than there are: queries that an index could not fill are answered by `exactly`,
    in place. scored : the place in `work` of the rows that it scores.
    """
    if (found.counts.item() if len(queries) == 1 else found.counts.min(initial=limit)) == limit:
        return
    matching = visibility.live_count if allow is None else len(allow)
    short = np.flatnonzero(found.counts < min(limit, matching))
    if len(short) == 0:
        return
    exact = exactly(queries[short], limit, visibility, allow, threads)
    found.put(short, exact)
    found.work[scored] += exact.work[SCORED]


def explain_scan(work: NDArray[np.int64]) -> dict[str, Any]:
    """work : int64[3], counted by GraphWork. The keys are the counters' names."""
    return {counter.name.lower(): int(work[counter]) for counter in GraphWork}
