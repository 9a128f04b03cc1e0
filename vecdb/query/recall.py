"""Recall of searches against exact search, and their latency.

recall@k = |returned and true| / min(k, matches); a result as near as the k-th true one counts (ties).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vecdb import limits
from vecdb.errors import Unavailable
from vecdb.filters.tree import Node
from vecdb.index.contract import Neighbors
from vecdb.query.cancellation import find_in_chunks
from vecdb.query.filtering import with_vectors
from vecdb.query.searcher import Searcher
from vecdb.schema import SearchParams
from vecdb.validate import IdBatch


def recall_of(found: Neighbors, truth: Neighbors, limit: int) -> NDArray[np.float64]:
    """float64[nq]: recall of each query, ties at the k-th distance counted as found."""
    out = np.ones(len(truth.counts))
    for q, count in enumerate(np.minimum(truth.counts, limit).tolist()):
        if count == 0:
            continue
        last = float(truth.distances[q, count - 1])
        got = found.rows[q, : min(limit, int(found.counts[q]))]
        near = found.distances[q, : len(got)] <= last + limits.tie_share * abs(last)
        hit = np.isin(got, truth.rows[q, :count]) | near
        out[q] = min(1.0, hit.sum() / count)
    return out


def recall_of_ids(ids: NDArray[Any], counts: NDArray[np.int64], known: IdBatch, limit: int) -> NDArray[np.float64]:
    """float64[nq]: how many of each query's first `limit` true ids are among the ids that were found, as a share."""
    nq = len(ids)
    true = known.ints if known.ints is not None else np.array([key.decode() for key in known.keys], object)
    true = true.reshape(nq, -1)[:, :limit]
    hits = [len({*ids[q, : counts[q]].tolist()} & {*true[q].tolist()}) for q in range(nq)]
    wanted = [len({*row.tolist()}) for row in true]
    return np.array(hits, np.float64) / np.maximum(wanted, 1)


def evaluate(
    searcher: Searcher,
    queries: NDArray[np.float32],
    limit: int,
    params: SearchParams,
    tenants: tuple[str, ...] = (),
    known: IdBatch | None = None,
    node: Node | None = None,
    stop: Callable[[], bool] | None = None,
) -> dict[str, Any]:
    """Recall (None where there is nothing to find), and latency of one query at a time through planner and index, in
    milliseconds. tenants : among whose records; () for everybody's. known : the true ids of each query, as many of
    each, one query's after another's; None: what exact search finds. node : a filter. Raises
    Unavailable once `stop` returns True.
    """
    nq = len(queries)
    snapshot, allowed = searcher.rows_for(tenants, node)
    allowed = with_vectors(snapshot, allowed)
    if nq == 0:
        return {"queries": 0, "limit": limit, "recall": None}
    exact = SearchParams(exact=True, threads=params.threads)
    truth = None
    if known is None:
        truth = find_in_chunks(
            lambda part: snapshot.generation.index.search(part, limit, snapshot.visibility, exact, allowed),
            queries,
            snapshot.visibility.row_count if allowed is None else len(allowed),
            stop,
        )
    rows, distances, counts = [], [], []
    took = np.empty(nq)
    for q in range(nq):
        if stop is not None and stop():
            raise Unavailable(f"the evaluation was cancelled after {q:,} of {nq:,} queries")
        started = time.perf_counter()
        found, plan = searcher.search_snapshot(snapshot, queries[q : q + 1], limit, params, allowed)
        took[q] = time.perf_counter() - started
        rows.append(found.rows)
        distances.append(found.distances)
        counts.append(found.counts)
    found.rows, found.distances, found.counts = np.concatenate(rows), np.concatenate(distances), np.concatenate(counts)
    if truth is None:
        assert known is not None
        ids = snapshot.generation.ids.take(found.rows, padded=True)
        recalls, matches = recall_of_ids(ids, found.counts, known, limit), known.n > 0
    else:
        recalls, matches = recall_of(found, truth, limit), bool(truth.counts.any())
    p50, p95, p99 = (float(value) for value in np.percentile(took * 1e3, (50, 95, 99)))
    return {
        "queries": nq,
        "limit": limit,
        "recall": float(recalls.mean()) if matches else None,
        "recall_p1": float(np.percentile(recalls, 1)) if matches else None,
        "plan": plan.strategy,
        "ef": plan.ef,
        "nprobe": plan.nprobe,
        "queries_per_second": float(nq / took.sum()),
        "latency_ms_mean": float(took.mean() * 1e3),
        "latency_ms_p50": p50,
        "latency_ms_p95": p95,
        "latency_ms_p99": p99,
    }
