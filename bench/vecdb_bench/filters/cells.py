"""Cells: every condition and limit on every kind of index. Are answers whole and right, how near, how long?

    default        no parameter                  exact     every match is compared on its full vector
    scan           of Hnsw: a beam so wide that its rule scans the codes of all matches, up to half a million or so
    ef 16 ... 512  of Hnsw: the rule from this beam

The best of exact, scan and widths that reach the recall is what the default is compared with: all of them search in
turns, one call for each query. "fresh" are searches whose filter was never asked before; else filters repeat.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

import vecdb
from vecdb_bench.engines.engine_process import CLOCKS
from vecdb_bench.filters.conditions import Condition, Data, filter_of
from vecdb_bench.filters.plan import Plan

Say = Callable[[str], None]
_TOP = 128  # of the distances of matches that are kept for one query, at least the largest limit
_SCAN_EF = 4_096  # a wider beam than this makes the planner compare full vectors
_numbers = itertools.count()  # of fresh filters


class Truth:
    """What one condition's answers are judged by. distances : float64[nq, n], of every row."""

    def __init__(self, data: Data, distances: NDArray[np.float64], condition: Condition) -> None:
        self.distances = distances
        self.masks = [data.mask(terms) for terms in condition.terms]
        self.matches = [int(mask.sum()) for mask in self.masks]
        self._best = [self._nearest(at, mask) for at, mask in enumerate(self.masks)]

    def _nearest(self, query: int, mask: NDArray[np.bool_]) -> NDArray[np.float64]:
        among = self.distances[query][mask]
        return np.sort(np.partition(among, _TOP)[:_TOP] if len(among) > _TOP else among)

    def recall(self, query: int, ids: Sequence[int], limit: int) -> float:
        """Share of the nearest matches that were found; a row as near as the last of them counts as one of them."""
        wanted = min(limit, self.matches[query])
        if not wanted:
            return 1.0
        last = self._best[query][wanted - 1]
        rows = np.unique(np.asarray(ids, np.int64)[:limit])
        good = self.masks[query][rows] & (self.distances[query][rows] <= last + 1e-6 * max(1.0, abs(last)))
        return min(wanted, int(good.sum())) / wanted

    def faults(self, query: int, hits: Any, limit: int) -> int:
        """1 where an answer is not exactly min(limit, matches) different matches at their true distances, in order."""
        ids, distances = np.asarray(hits.ids), np.asarray(hits.distances, np.float64)
        whole = len(ids) == len(set(ids.tolist())) == min(limit, self.matches[query])
        right = whole and bool(self.masks[query][ids].all()) and bool((np.diff(distances) >= 0).all())
        true = self.distances[query][ids]
        return int(
            not (right and np.allclose(distances, true, rtol=1e-4, atol=1e-5 * max(1.0, np.abs(true).max(initial=0))))
        )


def measure(
    plan: Plan, data: Data, collections: Mapping[str, Any], conditions: Sequence[Condition], say: Say
) -> list[dict[str, Any]]:
    """A point for each kind, condition, limit and way to search."""
    distances = data.distances()
    points = []
    for condition in conditions:
        truth = Truth(data, distances, condition)
        filters = [filter_of(terms) for terms in condition.terms]
        for kind, docs in collections.items():
            for limit in plan.limits:
                points += _cell(plan, data, docs, kind, condition, filters, truth, limit)
        best = [p for p in points if p["parts"] == condition.parts and p["kind"] == "hnsw" and p["way"] == "default"]
        say(f"{condition.name}: " + ", ".join(f"{p['us']:.0f} us" for p in best[-len(plan.limits) :]))
    return points


def ways_of(kind: str, plan: Plan, limit: int) -> dict[str, vecdb.SearchParams | None]:
    """The ways to search that are compared."""
    found: dict[str, vecdb.SearchParams | None] = {"default": None}
    if kind == "hnsw":
        found |= {"exact": vecdb.SearchParams(exact=True), "scan": vecdb.SearchParams(ef=_SCAN_EF)}
        found |= {f"ef {ef}": vecdb.SearchParams(ef=ef) for ef in plan.widths if ef >= limit}
    return found


def _cell(
    plan: Plan, data: Data, docs: Any, kind: str, condition: Condition, filters: list[Any], truth: Truth, limit: int
) -> list[dict[str, Any]]:
    ways = ways_of(kind, plan, limit)
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    fresh: list[float] = []
    answers = {
        way: [
            docs.search(query, limit, filter=one, params=params)
            for query, one in zip(data.queries, filters, strict=True)
        ]
        for way, params in ways.items()
    }
    for round_ in range(plan.rounds):
        names = list(ways)
        for way in names[round_ % len(names) :] + names[: round_ % len(names)]:
            seconds[way] += timed(docs, data.queries, limit, filters, ways[way], plan.clock)
        if round_ == 0:
            fresh = timed(docs, data.queries, limit, fresh_filters(condition), None, plan.clock)
    about = {
        "kind": kind, "correlation": condition.correlation, "shape": condition.shape, "parts": condition.parts,
        "percent": condition.percent, "limit": limit, "matches": float(np.mean(truth.matches)),
    }  # fmt: skip
    return [
        about | {
            "way": way,
            "recall": float(np.mean([truth.recall(at, hits.ids, limit) for at, hits in enumerate(answers[way])])),
            "faults": sum(truth.faults(at, hits, limit) for at, hits in enumerate(answers[way])),
            "us": 1e6 * float(np.median(seconds[way])),
            "fresh_us": 1e6 * float(np.median(fresh)) if way == "default" else None,
        }
        for way in ways
    ]  # fmt: skip


def fresh_filters(condition: Condition) -> list[Any]:
    """For each query a filter that was never asked before."""
    return [filter_of(terms, next(_numbers)) for terms in condition.terms]


def timed(
    docs: Any, queries: Any, limit: int, filters: Sequence[Any], params: Any, clock_name: str = "wall"
) -> list[float]:
    """Seconds of single calls. Of hits no fields are asked for, as peers give ids and distances."""
    seconds, clock = [], CLOCKS[clock_name]
    for query, one in zip(queries, filters, strict=True):
        started = clock()
        docs.search(query, limit, filter=one, params=params, fields=[])
        seconds.append(clock() - started)
    return seconds
