"""Measures how wide a search must be: `tune` on the user's queries, `optimize` on stored vectors.

    queries -> recall of growing widths (ef, or nprobe) -> curve, default width -> changes of the committed state

Nothing is changed here: the caller commits what is returned.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vecdb import limits
from vecdb.index.contract import Neighbors
from vecdb.index.row_set import RowSet
from vecdb.query import planner
from vecdb.query.planner import COSTS, PlannerCosts
from vecdb.query.recall import recall_of
from vecdb.schema import SearchParams
from vecdb.state.index_factory import kind_of
from vecdb.state.snapshot import Snapshot
from vecdb.storage.kv.catalog import MeasuredRecall

_LADDER = (10, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 1536, 2048, 4096)
_LEARN_QUERIES = 200
_LEARN_LIMIT = 10
_LEARN_RECALL = 0.95
# A query that is not stored misses this many times as often (measured on GloVe: 1.1 to 1.2).
_UNSEEN_QUERY_FACTOR = 1.25
_RECALL_SATURATED = 0.995  # the curve is not followed past this recall
_SCAN_QUERIES, _SCAN_ROUNDS = 25, 3


Curve = list[dict[str, float]]  # one point for each width: ef or nprobe, recall, queries_per_second
Changes = dict[str, Any]  # fields of the committed state and their new values


def tune(snapshot: Snapshot, queries: NDArray[np.float32], limit: int, recall: float) -> tuple[Curve, Changes]:
    """Measure the curve; the narrowest search that reaches `recall` becomes the default. Both are empty where there is
    nothing to measure.
    """
    index = snapshot.generation.index
    if kind_of(snapshot.config).width_parameter is None or index.indexed_rows == 0 or len(queries) == 0:
        return [], {}
    truth = index.search(queries, limit, snapshot.visibility, SearchParams(exact=True))
    curve = _curve(snapshot, queries, truth, limit, recall, skip_first=False)
    changes = {
        "recall_curve": _with_points(snapshot, curve, limit),
        "default_width": _smallest_width(snapshot, curve, recall),
        "tuned_by_user": True,
    }
    return curve, changes


def learn_recall_curve(snapshot: Snapshot, costs: PlannerCosts) -> Changes:
    """Measure the curve without queries of the user's: stored vectors stand in for them, and do not count themselves
    as found. Empty where there is nothing to measure.

    The default width follows what is learned only where the user left the index to us (`index=None`) and has not tuned.
    """
    index, kind = snapshot.generation.index, kind_of(snapshot.config)
    if kind_of(snapshot.config).width_parameter is None or index.indexed_rows == 0:
        return {}
    live = snapshot.generation.live_rows(snapshot.visibility)
    if len(live) <= _LEARN_LIMIT:
        return {}
    rng = np.random.default_rng(snapshot.visibility.row_count)
    rows = np.sort(rng.choice(live, min(_LEARN_QUERIES, len(live)), replace=False))
    queries = np.ascontiguousarray(snapshot.generation.rows.arrays.vectors[rows], np.float32)
    limit = _LEARN_LIMIT + 1
    truth = index.search(queries, limit, snapshot.visibility, SearchParams(exact=True))
    curve = _curve(snapshot, queries, truth, limit, _LEARN_RECALL, skip_first=True)
    changes: Changes = {"recall_curve": _with_points(snapshot, curve, _LEARN_LIMIT)}
    # an index that was chosen by size, or whose width was left open, is searched as wide as its data wants it
    open_width = snapshot.state.index is None or (kind.learns_open_width and kind.width_of(snapshot.config) is None)
    if open_width and not snapshot.state.tuned_by_user:
        changes["default_width"] = _smallest_width(snapshot, curve, _LEARN_RECALL)
    if kind.scan_limit_parameter is not None:
        nodes = planner.idle_nodes_max(_points(snapshot, curve, _LEARN_LIMIT), costs)
        scan_rows = measured_scan(snapshot, queries[:_SCAN_QUERIES], live, nodes, costs)
        if scan_rows is not None:
            changes["tenant_scan_rows_max"] = scan_rows
    return changes


def measured_scan(
    snapshot: Snapshot,
    queries: NDArray[np.float32],
    live: NDArray[np.int64],
    idle_nodes_max: int,
    costs: PlannerCosts = COSTS,
) -> int | None:
    """Rows of a tenant that are looked at as fast as the tree is walked among them, on this machine and with this data;
    None where there are too few to tell. Both are timed on random rows: the walk takes about as long for some more or
    fewer, while a scan takes as long as it has rows.

    queries : float32[nq, dim].   live : rows, ascending.   idle_nodes_max : of the walk.
    """
    expected, index, rng = costs.tenant_scan_rows, snapshot.generation.index, np.random.default_rng(len(live))
    n = min(len(live), expected)
    if n < expected // 2:
        return None
    scan_or_walk = (SearchParams(), SearchParams(nprobe=idle_nodes_max))
    for _ in range(_SCAN_ROUNDS):
        allowed = RowSet(np.sort(rng.choice(live, n, replace=False)).astype(np.uint32))
        took = np.empty((len(queries), 2))
        for q, which in np.ndindex(took.shape):
            started = time.perf_counter()
            index.search(queries[q : q + 1], _LEARN_LIMIT, snapshot.visibility, scan_or_walk[which], allowed)
            took[q, which] = time.perf_counter() - started
        scan, walk = np.median(took, axis=0)
        n = int(np.clip(n * walk / scan, expected // 4, min(len(live), 4 * expected)))
    return n


def _width_parameter(snapshot: Snapshot) -> str:
    parameter = kind_of(snapshot.config).width_parameter
    assert parameter is not None, snapshot.config
    return parameter


def _smallest_width(snapshot: Snapshot, curve: Curve, recall: float) -> int:
    """Width of the first point that reaches `recall`, else of the last."""
    width = _width_parameter(snapshot)
    return next((int(point[width]) for point in curve if point["recall"] >= recall), int(curve[-1][width]))


def _curve(
    snapshot: Snapshot, queries: NDArray[np.float32], truth: Neighbors, limit: int, recall: float, *, skip_first: bool
) -> Curve:
    """Points of growing ef, or nprobe, until recall is more than enough; then the gap in which `recall` is passed is
    halved twice.
    """
    points: dict[int, dict[str, float]] = {}
    parameter = _width_parameter(snapshot)
    first = limit if parameter == "ef" else 1
    most = snapshot.visibility.row_count if parameter == "ef" else int(snapshot.generation.index.stats()["heads"])

    def measure(width: int) -> float:
        started = time.perf_counter()
        params = SearchParams(nprobe=width) if parameter == "nprobe" else SearchParams(ef=width)
        found = snapshot.generation.index.search(queries, limit, snapshot.visibility, params)
        took = time.perf_counter() - started
        reached = recall_of(found, truth, limit)
        if skip_first:  # each query is a stored vector: its own row is one of the `limit`, found for free
            reached = 1 - _UNSEEN_QUERY_FACTOR * (1 - (reached * limit - 1) / (limit - 1))
        points[width] = {parameter: width, "recall": float(reached.mean()), "queries_per_second": len(queries) / took}
        return points[width]["recall"]

    below, above = 0, 0
    for width in sorted({max(first, step) for step in _LADDER if step <= limits.ef_max}):
        reached = measure(width)
        if reached < recall:
            below = width
        elif not above:
            above = width
        if reached >= max(_RECALL_SATURATED, recall) or width >= most:
            break
    for _ in range(2):
        middle = (below + above) // 2
        if not below or not above or middle in (below, above):
            break
        if measure(middle) < recall:
            below = middle
        else:
            above = middle
    return [points[width] for width in sorted(points)]


def _points(snapshot: Snapshot, curve: Curve, limit: int) -> tuple[MeasuredRecall, ...]:
    return tuple(MeasuredRecall(limit, int(point[_width_parameter(snapshot)]), point["recall"]) for point in curve)


def _with_points(snapshot: Snapshot, curve: Curve, limit: int) -> tuple[MeasuredRecall, ...]:
    """What was measured at other limits, and this curve."""
    others = [point for point in snapshot.state.recall_curve if point.limit != limit]
    return (*others, *_points(snapshot, curve, limit))
