"""Recall and latency of a cluster's searches, measured from here: what a client sees."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from vecdb import limits
from vecdb.api.hits import Hits
from vecdb.errors import Unavailable
from vecdb.schema import SearchParams
from vecdb.validate import IdBatch


class Search(Protocol):
    def __call__(
        self, some: NDArray[np.float32], params: SearchParams, *, single: bool, explain: bool = False
    ) -> Hits: ...


def evaluate(
    search: Search,
    queries: NDArray[np.float32],
    limit: int,
    params: SearchParams,
    *,
    truth: IdBatch | None,
    stop: Callable[[], bool] | None,
) -> dict[str, Any]:
    """What `Collection.evaluate` returns; queries are asked one at a time."""
    nq = len(queries)
    if nq == 0:
        search(queries, params, single=False)  # which raises what is wrong with a filter or a tenant
        return {"queries": 0, "limit": limit, "recall": None}
    exact = None
    if truth is None:
        exact = search(queries, SearchParams(exact=True, threads=params.threads), single=False)
    took, recalls = np.empty(nq), np.empty(nq)
    for at in range(nq):
        if stop is not None and stop():
            raise Unavailable(f"the evaluation was cancelled after {at:,} of {nq:,} queries")
        started = time.perf_counter()
        found = search(queries[at], params, single=True)
        took[at] = time.perf_counter() - started
        recalls[at] = _recall(found, exact[at]) if exact is not None else _recall_of_ids(found, truth, at, nq, limit)
    matches = bool(exact.counts.any()) if exact is not None else truth is not None and truth.n > 0
    plan = search(queries[-1], params, single=True, explain=True).explain or {}
    p50, p95, p99 = (float(value) for value in np.percentile(took * 1e3, (50, 95, 99)))
    return {
        "queries": nq,
        "limit": limit,
        "recall": float(recalls.mean()) if matches else None,
        "recall_p1": float(np.percentile(recalls, 1)) if matches else None,
        "plan": plan.get("plan"),
        "ef": plan.get("ef"),
        "nprobe": plan.get("nprobe"),
        "queries_per_second": float(nq / took.sum()),
        "latency_ms_mean": float(took.mean() * 1e3),
        "latency_ms_p50": p50,
        "latency_ms_p95": p95,
        "latency_ms_p99": p99,
    }


def _named(hits: Hits) -> list[tuple[Any, str]]:
    owners = [""] * len(hits.ids) if hits.owners is None else hits.owners.tolist()
    return list(zip(hits.ids.tolist(), owners, strict=True))


def _recall(found: Hits, exact: Hits) -> float:
    """A hit as near as the last true one counts as found."""
    if not len(exact.ids):
        return 1.0
    last = float(exact.distances[-1])
    near = found.distances <= last + limits.tie_share * abs(last)
    true = set(_named(exact))
    hit = np.array([one in true for one in _named(found)], bool) | near
    return min(1.0, float(hit.sum()) / len(exact.ids))


def _recall_of_ids(found: Hits, truth: IdBatch | None, at: int, queries: int, limit: int) -> float:
    assert truth is not None
    each = truth.n // queries
    true = truth.take(np.arange(at * each, at * each + min(each, limit)))
    wanted = {*(true.ints.tolist() if true.ints is not None else [key.decode() for key in true.keys])}
    return len(wanted & {*found.ids.tolist()}) / max(1, len(wanted))
