"""How good are the answers, and how wide must the beam be? `evaluate`, `tune`, and what `optimize` learns by itself.

recall@k = |returned and true| / min(k, matches); a result as near as the k-th true one counts (ties).
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from vecdb import limits
from vecdb.commit.record_requests import PatchState
from vecdb.index.row_set import RowSet
from vecdb.query import planner
from vecdb.schema import Curator, Flat, SearchParams, Spann
from vecdb.storage.kv.catalog import MeasuredRecall

if TYPE_CHECKING:
    from vecdb.embedded.local_collection import LocalCollection
    from vecdb.index.contract import Neighbors
    from vecdb.state.generation import Snapshot

_LADDER = (10, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 1536, 2048, 4096)
_LEARN_QUERIES = 200
_LEARN_LIMIT = 10
_LEARN_RECALL = 0.95
_UNSEEN_QUERY_FACTOR = (
    1.25  # a query that is not stored misses this many times as often (measured on GloVe: 1.1 to 1.2)
)
_RECALL_SATURATED = 0.995  # the curve is not followed past this recall
_SCAN_QUERIES, _SCAN_ROUNDS = 25, 3
_TIE = 1e-5  # distances this close, relatively, are the same distance


def recall_of(found: Neighbors, truth: Neighbors, limit: int) -> NDArray[np.float64]:
    """float64[nq]: recall of each query, ties at the k-th distance counted as found."""
    out = np.ones(len(truth.counts))
    for q, count in enumerate(np.minimum(truth.counts, limit).tolist()):
        if count == 0:
            continue
        last = float(truth.distances[q, count - 1])
        got = found.rows[q, : min(limit, int(found.counts[q]))]
        near = found.distances[q, : len(got)] <= last + _TIE * max(1.0, abs(last))
        hit = np.isin(got, truth.rows[q, :count]) | near
        out[q] = min(1.0, hit.sum() / count)
    return out


def evaluate(
    engine: LocalCollection,
    queries: NDArray[np.float32],
    limit: int,
    params: SearchParams,
    tenants: tuple[str, ...] = (),
) -> dict[str, Any]:
    """Recall (None where there is nothing to find), and latency of one query at a time through the whole engine, in
    milliseconds. tenants : among whose records; () for everybody's.
    """
    nq = len(queries)
    if nq == 0:
        engine.current_for(tenants) if tenants else engine.current()
        return {"queries": 0, "limit": limit, "recall": None}
    snapshot, allowed = engine.current_for(tenants) if tenants else (engine.current(), None)
    truth = snapshot.generation.index.search(
        queries, limit, snapshot.visibility, SearchParams(exact=True, threads=params.threads), allowed
    )
    rows, distances, counts = [], [], []
    took = np.empty(nq)
    for q in range(nq):
        started = time.perf_counter()
        found, plan = engine.find(snapshot, queries[q : q + 1], limit, params, allowed)
        took[q] = time.perf_counter() - started
        rows.append(found.rows)
        distances.append(found.distances)
        counts.append(found.counts)
    found.rows, found.distances, found.counts = np.concatenate(rows), np.concatenate(distances), np.concatenate(counts)
    recalls, matches = recall_of(found, truth, limit), bool(truth.counts.any())
    p50, p95, p99 = (float(value) for value in np.percentile(took * 1e3, (50, 95, 99)))
    return {
        "queries": nq,
        "limit": limit,
        "recall": float(recalls.mean()) if matches else None,
        "recall_p1": float(np.percentile(recalls, 1)) if matches else None,
        "plan": plan.strategy,
        "ef": plan.width if plan.strategy == "graph" else None,
        "nprobe": plan.width if plan.strategy in ("lists", "tree") else None,
        "queries_per_second": float(nq / took.sum()),
        "latency_ms_mean": float(took.mean() * 1e3),
        "latency_ms_p50": p50,
        "latency_ms_p95": p95,
        "latency_ms_p99": p99,
    }


def tune(engine: LocalCollection, queries: NDArray[np.float32], limit: int, recall: float) -> list[dict[str, float]]:
    """Measure the curve, remember it, and make the narrowest search that reaches `recall` the default."""
    snapshot = engine.current()
    if isinstance(snapshot.config, Flat) or snapshot.generation.index.indexed_rows == 0 or len(queries) == 0:
        return []
    truth = snapshot.generation.index.search(queries, limit, snapshot.visibility, SearchParams(exact=True))
    curve = _curve(snapshot, queries, truth, limit, recall, skip_first=False)
    _remember(engine, snapshot, curve, limit, _smallest_width(snapshot, curve, recall))
    return curve


def learn_recall_curve(engine: LocalCollection) -> None:
    """Without queries of the user's: stored vectors stand in for them, and do not count themselves as found.

    The default beam follows what is learned only where the user left the index to us (`index=None`) and has not tuned.
    """
    snapshot = engine.current()
    if isinstance(snapshot.config, Flat) or snapshot.generation.index.indexed_rows == 0:
        return
    live = snapshot.generation.live_rows(snapshot.visibility)
    if len(live) <= _LEARN_LIMIT:
        return
    rng = np.random.default_rng(snapshot.visibility.row_count)
    rows = np.sort(rng.choice(live, min(_LEARN_QUERIES, len(live)), replace=False))
    queries = np.ascontiguousarray(snapshot.generation.rows.arrays.vectors[rows], np.float32)
    limit = _LEARN_LIMIT + 1
    truth = snapshot.generation.index.search(queries, limit, snapshot.visibility, SearchParams(exact=True))
    curve = _curve(snapshot, queries, truth, limit, _LEARN_RECALL, skip_first=True)
    chosen = _smallest_width(snapshot, curve, _LEARN_RECALL)
    # an index that was chosen by size, or whose width was left open, is searched as wide as its data wants it
    open_width = snapshot.state.index is None or (
        isinstance(snapshot.config, (Spann, Curator)) and snapshot.config.nprobe is None
    )
    automatic = open_width and not snapshot.state.tuned_by_user
    _remember(
        engine,
        snapshot,
        curve,
        _LEARN_LIMIT,
        chosen if automatic else snapshot.state.tuned_ef,
        by_user=snapshot.state.tuned_by_user,
        scan_rows=_scan_rows(snapshot, queries, live, curve) if isinstance(snapshot.config, Curator) else None,
    )


def _scan_rows(
    snapshot: Snapshot, queries: NDArray[np.float32], live: NDArray[np.int64], curve: list[dict[str, float]]
) -> int | None:
    return measured_scan(
        snapshot, queries[:_SCAN_QUERIES], live, planner.idle_nodes_max(_points(snapshot, curve, _LEARN_LIMIT))
    )


def measured_scan(
    snapshot: Snapshot, queries: NDArray[np.float32], live: NDArray[np.int64], idle_nodes_max: int
) -> int | None:
    """Rows of a tenant that are looked at as fast as the tree is walked among them, on this machine and with this data;
    None where there are too few to tell. Either way is timed on random rows, and the walk takes about as long for some
    more or fewer, while a scan takes as long as it has rows.

    queries : float32[nq, dim].   live : rows, ascending.   patience : of the walk.
    """
    index, rng, n = snapshot.generation.index, np.random.default_rng(len(live)), min(len(live), planner.SCAN_ROWS)
    if n < planner.SCAN_ROWS // 2:
        return None
    ways = (SearchParams(), SearchParams(nprobe=idle_nodes_max))
    for _ in range(_SCAN_ROUNDS):
        allowed = RowSet(np.sort(rng.choice(live, n, replace=False)).astype(np.uint32))
        took = np.empty((len(queries), 2))
        for q, way in np.ndindex(took.shape):
            started = time.perf_counter()
            index.search(queries[q : q + 1], _LEARN_LIMIT, snapshot.visibility, ways[way], allowed)
            took[q, way] = time.perf_counter() - started
        scan, walk = np.median(took, axis=0)
        n = int(np.clip(n * walk / scan, planner.SCAN_ROWS // 4, min(len(live), 4 * planner.SCAN_ROWS)))
    return n


def _width_parameter(snapshot: Snapshot) -> str:
    return "nprobe" if isinstance(snapshot.config, (Spann, Curator)) else "ef"


def _smallest_width(snapshot: Snapshot, curve: list[dict[str, float]], recall: float) -> int:
    """Width of the first point that reaches `recall`, else of the last."""
    knob = _width_parameter(snapshot)
    return next((int(point[knob]) for point in curve if point["recall"] >= recall), int(curve[-1][knob]))


def _curve(
    snapshot: Snapshot, queries: NDArray[np.float32], truth: Neighbors, limit: int, recall: float, *, skip_first: bool
) -> list[dict[str, float]]:
    """Points of growing ef, or nprobe, until recall is more than enough; then the gap in which `recall` is passed is
    halved twice.
    """
    points: dict[int, dict[str, float]] = {}
    knob = _width_parameter(snapshot)
    first = limit if knob == "ef" else 1
    most = snapshot.visibility.row_count if knob == "ef" else int(snapshot.generation.index.stats()["heads"])

    def measure(ef: int) -> float:
        started = time.perf_counter()
        params = SearchParams(nprobe=ef) if knob == "nprobe" else SearchParams(ef=ef)
        found = snapshot.generation.index.search(queries, limit, snapshot.visibility, params)
        took = time.perf_counter() - started
        reached = recall_of(found, truth, limit)
        if skip_first:  # each query is a stored vector: its own row is one of the `limit`, found for free
            reached = 1 - _UNSEEN_QUERY_FACTOR * (1 - (reached * limit - 1) / (limit - 1))
        points[ef] = {knob: ef, "recall": float(reached.mean()), "queries_per_second": len(queries) / took}
        return points[ef]["recall"]

    below, above = 0, 0
    for ef in sorted({max(first, step) for step in _LADDER if step <= limits.ef_max}):
        reached = measure(ef)
        if reached < recall:
            below = ef
        elif not above:
            above = ef
        if reached >= max(_RECALL_SATURATED, recall) or ef >= most:
            break
    for _ in range(2):
        middle = (below + above) // 2
        if not below or not above or middle in (below, above):
            break
        if measure(middle) < recall:
            below = middle
        else:
            above = middle
    return [points[ef] for ef in sorted(points)]


def _points(snapshot: Snapshot, curve: list[dict[str, float]], limit: int) -> list[MeasuredRecall]:
    return [MeasuredRecall(limit, int(point[_width_parameter(snapshot)]), point["recall"]) for point in curve]


def _remember(
    engine: LocalCollection,
    snapshot: Snapshot,
    curve: list[dict[str, float]],
    limit: int,
    ef: int | None,
    *,
    by_user: bool = True,
    scan_rows: int | None = None,
) -> None:
    others = [point for point in snapshot.state.tuned if point.limit != limit]
    changes = {"tuned": (*others, *_points(snapshot, curve, limit)), "tuned_ef": ef, "tuned_by_user": by_user}
    if scan_rows is not None:
        changes["scan_rows"] = scan_rows
    engine.submit(PatchState(engine, snapshot.generation.number, changes))
