"""Searches of a graph among matching rows: a walk, or a scan of their codes, whichever is sooner.

    few match --------------------> scan
    many ---> walk --gives up, or finds too few--> scan

What a scan and a beam cost, in ns on one core: measured at 59,000 x 384, 399,000 x 50 and 1,000,000 x 128, where the
rule took 1.0 to 1.2 times the better of the two on average. Only their ratio counts.
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from vecdb import limits
from vecdb.index.common.batching import empty_result, map_query_slices
from vecdb.index.common.thread_pool import ThreadPool
from vecdb.index.contract import Neighbors, corrupt_row_error
from vecdb.index.hnsw.graph import GraphView
from vecdb.index.hnsw.scratch import ScratchPool
from vecdb.index.row_set import RowSet
from vecdb.kernels.search import filtered_search
from vecdb.kernels.search.filtered_search import GAVE_UP
from vecdb.schema import Visibility

_BEAM_NS = 900.0  # of a walk, for each place in the beam
_SCAN_NS, _SCAN_NS_PER_BYTE = 9.0, 0.042  # of a scan, a row, and a byte of its code
_SCAN_AT_ONCE = 1.5  # a scan this many times as dear as the walk of a wholly matching graph is still begun with
_BEAM_GROWTH = 16  # a beam widens to so many times the one that it began with
_SCORED_PER_RESULT, _SCORED_MIN = 4, 40  # matches scored on their vectors


def scans_at_once(matching: int, width: int, code_bytes: int) -> bool:
    """Whether so few rows match that a walk with this beam is not worth its beginning."""
    return scan_ns(matching, code_bytes) <= _SCAN_AT_ONCE * _BEAM_NS * width


def scan_ns(matching: int, code_bytes: int) -> float:
    return (_SCAN_NS + _SCAN_NS_PER_BYTE * code_bytes) * matching


class Matching(NamedTuple):
    """What one search among matching rows is of."""

    view: GraphView
    allow: RowSet
    visibility: Visibility
    width: int


def search(
    queries: NDArray[np.float32],
    limit: int,
    of: Matching,
    threads: int,
    workers: ThreadPool,
    scratches: ScratchPool,
    slice_queries: int,
) -> Neighbors:
    """The nearest matching rows: by codes of all of them, or of those that a walk met.

    slice_queries : the most queries of one kernel call.
    """
    found = empty_result(len(queries), limit)
    wanted = min(limit, len(of.allow))
    rerank = max(_SCORED_MIN, _SCORED_PER_RESULT * limit)
    scan = partial(_scan, of, rerank, scratches)
    code_bytes = of.view.graph.codes.shape[1]
    if of.view.entry < 0 or scans_at_once(len(of.allow), of.width, code_bytes):
        map_query_slices(scan, queries, found, slice_queries, threads, workers)
        return found
    map_query_slices(partial(_walk, of, rerank, scratches), queries, found, slice_queries, threads, workers)
    short = np.flatnonzero(found.counts < wanted)
    if len(short):
        again = empty_result(len(short), limit)
        map_query_slices(scan, queries[short], again, slice_queries, threads, workers)
        found.rows[short], found.distances[short], found.counts[short] = again.rows, again.distances, again.counts
        found.work += again.work
    return found


def _walk(of: Matching, rerank: int, scratches: ScratchPool, queries: NDArray[np.float32], found: Neighbors) -> None:
    view, visibility, matching = of.view, of.visibility, len(of.allow)
    width = max(of.width, found.rows.shape[1])
    most = min(_BEAM_GROWTH * width, limits.ef_max * _BEAM_GROWTH)
    rule = np.array((matching / visibility.live_count, scan_ns(matching, view.graph.codes.shape[1]), _BEAM_NS, most))
    scratch = scratches.take(view.graph, -(-most // 4), 2 * rerank + 2)
    bad = filtered_search.walk_matching(
        queries, found.rows, found.distances, found.counts, found.work, width, rerank, _snapshot(visibility),
        of.allow.bitmap(visibility.row_count), rule, view.table.table, view.vectors, scratch.table.table,
        scratch.blocks,
    )  # fmt: skip
    scratches.give(scratch)
    if bad >= 0:
        raise corrupt_row_error(bad, view.arrays)


def _scan(of: Matching, rerank: int, scratches: ScratchPool, queries: NDArray[np.float32], found: Neighbors) -> None:
    view = of.view
    scratch = scratches.take(view.graph, 1, 2 * rerank + 2)
    bad = filtered_search.scan_matching(
        queries, found.rows, found.distances, found.counts, found.work, rerank, _snapshot(of.visibility),
        of.allow.rows, of.allow.bitmap(of.visibility.row_count), view.table.table, view.vectors, scratch.table.table,
        scratch.blocks,
    )  # fmt: skip
    scratches.give(scratch)
    if bad >= 0:
        raise corrupt_row_error(bad, view.arrays)


def _snapshot(visibility: Visibility) -> NDArray[np.int64]:
    return np.array((visibility.row_count, visibility.sequence), np.int64)


assert GAVE_UP < 0, "a query that was given up counts as too short"
