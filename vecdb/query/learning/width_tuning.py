"""Measures how wide a search must be for a recall: `tune` on the user's queries; recall_learning.py on its own.

    queries -> exact answers -> recall of growing widths (ef, or nprobe) -> curve, default width

Nothing is changed here: the caller commits what is returned.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vecdb.index.contract import Neighbors
from vecdb.index.row_set import RowSet
from vecdb.query.cancellation import find_in_chunks, joined
from vecdb.query.planner import COSTS, PlannerCosts
from vecdb.query.recall import recall_of
from vecdb.schema import SearchParams
from vecdb.state.index_factory import kind_of
from vecdb.state.snapshot import Snapshot
from vecdb.storage.kv.catalog import MeasuredRecall

_LADDER = (10, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 1536, 2048, 4096)
_MORE_LISTS = (8_192, 16_384, 32_768)  # or leaves, of ten million rows; so wide a beam costs more than a scan
_RECALL_SATURATED = 0.995  # the curve is not followed past this recall
_FLAT_STEPS = 4  # nor past so many steps that all together gain no more than this: wider searches find nothing new
_FLAT_STEPS_REACHED = 2  # the same where the recall that is wanted was reached
_FLAT_GAIN = 0.002
_FLAT_SHARE = 1 / 8  # of all lists or leaves
_SCAN_ROUNDS, _SCAN_LIMIT = 3, 10
_NEAR_BELOW, _NEAR_ABOVE = 0.075, 0.01  # of the recall that is wanted: so near all queries of a sample are searched for
_ERRORS, _ERRORS_FREE = 2.0, 0.025  # standard errors that a cautious recall takes off, less what a width leaves anyway
# Queries that are compared with all rows in one pass, which nothing interrupts: a second, for rows that are in memory
_PASS_MIN, _PASS_MAX, _PASS_PRODUCTS = 8, 64, 1 << 31


Curve = list[dict[str, float]]  # one point for each width: ef or nprobe, recall, queries_per_second
Changes = dict[str, Any]  # fields of the committed state and their new values
Check = Callable[[], None]


class CurveExtent(NamedTuple):
    """How far a curve is followed, and how finely.

    first : the widths to begin with, ascending; those of the ladder that are wider follow.   enough : past this recall
    it is not followed, if the recall that is wanted was reached.   halvings : of the gap in which that is passed.
    """

    first: tuple[int, ...] = ()
    enough: float = _RECALL_SATURATED
    halvings: int = 2


_WHOLE = CurveExtent()


class QuerySample(NamedTuple):
    """Queries with their exact answers.

    truth : `limit` neighbours of each query, or more.   limit : neighbours to ask for.   misses : queries of users miss
    this many times as often.   allowed : rows that may be found, None: all.
    """

    queries: NDArray[np.float32]
    truth: Neighbors
    limit: int
    misses: float = 1.0
    allowed: RowSet | None = None

    def thinned(self, every: int) -> QuerySample:
        """The sample with one query out of so many."""
        some = slice(None, None, every)
        return self._replace(queries=self.queries[some], truth=self.truth.part(some, self.truth.work))

    @staticmethod
    def of(
        snapshot: Snapshot,
        queries: NDArray[np.float32],
        limit: int,
        threads: int = 1,
        *,
        depth: int = 0,
        misses: float = 1.0,
        check: Check = lambda: None,
        allowed: RowSet | None = None,
    ) -> QuerySample:
        """The sample for `limit` neighbours of each query.

        depth : so many are found by the exact search, where that is more: the same sample may ask for them, too.
        check : called between passes over the rows; what it raises ends the work.
        """
        exact = SearchParams(exact=True, threads=threads)
        index, visibility = snapshot.generation.index, snapshot.visibility
        size = max(_PASS_MIN, min(_PASS_MAX, _PASS_PRODUCTS // (visibility.row_count * queries.shape[1])))
        parts = []
        for first in range(0, len(queries), size):
            check()
            parts.append(index.search(queries[first : first + size], max(limit, depth), visibility, exact, allowed))
        return QuerySample(queries, joined(parts), limit, misses, allowed)

    def deeper(self, snapshot: Snapshot, depth: int, threads: int, check: Check) -> QuerySample:
        """The sample with at least `depth` true neighbours of each query."""
        if self.truth.rows.shape[1] >= depth:
            return self
        return self.of(
            snapshot, self.queries, self.limit, threads,
            depth=depth, misses=self.misses, check=check, allowed=self.allowed,
        )  # fmt: skip

    def recall(self, found: Neighbors) -> NDArray[np.float64]:
        """float64[nq]: recall of each query."""
        return 1 - self.misses * (1 - recall_of(found, self.truth, self.limit))


def lowest_recall(samples: list[QuerySample], found: list[Neighbors]) -> float:
    """Of the samples' mean recalls; 0 at least, which `misses` could pass."""
    return max(0.0, min(float(one.recall(hits).mean()) for one, hits in zip(samples, found, strict=True)))


def cautious_recall(samples: list[QuerySample], found: list[Neighbors]) -> float:
    """The lowest of the samples' mean recalls, where a sample counts as lower if its queries differ so widely that
    others may do worse. Most samples have a standard error of .005, which takes nothing off. Two far groups under ip,
    where a query finds all or nothing: .974 of 200 queries, .873 of 100 others.
    """

    def low(recalls: NDArray[np.float64]) -> float:
        error = float(recalls.std() / np.sqrt(len(recalls)))
        return float(recalls.mean()) - max(0.0, _ERRORS * error - _ERRORS_FREE)

    return max(0.0, min(low(one.recall(hits)) for one, hits in zip(samples, found, strict=True)))


def tune(
    snapshot: Snapshot, queries: NDArray[np.float32], limit: int, recall: float, allowed: RowSet | None = None
) -> tuple[Curve, Changes]:
    """Measure the curve; the narrowest search that reaches `recall` becomes the default. Both are empty where there is
    nothing to measure. allowed : rows that may be found, None: all.
    """
    index = snapshot.generation.index
    if kind_of(snapshot.config).width_parameter is None or index.indexed_rows == 0 or len(queries) == 0:
        return [], {}
    curve = measured_curve(snapshot, [QuerySample.of(snapshot, queries, limit, allowed=allowed)], recall, COSTS)
    changes = {
        "recall_curve": replaced(snapshot.state.recall_curve, curve_points(snapshot, curve, limit)),
        "default_width": smallest_width(snapshot, curve, recall),
        "default_scan": False,
        "tuned_by_user": True,
    }
    return curve, changes


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
            index.search(queries[q : q + 1], _SCAN_LIMIT, snapshot.visibility, scan_or_walk[which], allowed)
            took[q, which] = time.perf_counter() - started
        scan, walk = np.median(took, axis=0)
        n = int(np.clip(n * walk / scan, expected // 4, min(len(live), 4 * expected)))
    return n


def _width_parameter(snapshot: Snapshot) -> str:
    parameter = kind_of(snapshot.config).width_parameter
    assert parameter is not None, snapshot.config
    return parameter


def smallest_width(snapshot: Snapshot, curve: Curve, recall: float) -> int:
    """Width of the first point that reaches `recall`, else of the last."""
    width = _width_parameter(snapshot)
    return next((int(point[width]) for point in curve if point["recall"] >= recall), int(curve[-1][width]))


def _found(snapshot: Snapshot, sample: QuerySample, params: SearchParams) -> Neighbors:
    index, visibility = snapshot.generation.index, snapshot.visibility
    return find_in_chunks(
        lambda part: index.search(part, sample.limit, visibility, params, sample.allowed), sample.queries
    )


def measured_curve(
    snapshot: Snapshot,
    samples: list[QuerySample],
    recall: float,
    costs: PlannerCosts,
    threads: int = 1,
    check: Check = lambda: None,
    judged: Callable[[list[QuerySample], list[Neighbors]], float] = lowest_recall,
    few: list[QuerySample] | None = None,
    extent: CurveExtent = _WHOLE,
) -> Curve:
    """Points of growing ef, or nprobe, until recall, as `judged` of the samples, is more than enough or grows no more;
    then the gap in which `recall` is passed is halved.

    few : samples of fewer queries, which are enough for widths whose recall is far from `recall`; None: no such.
    """
    points: dict[int, dict[str, float]] = {}
    parameter = _width_parameter(snapshot)
    least = max(sample.limit for sample in samples) if parameter == "ef" else 1
    # a wider beam is not used: the planner scans
    scan = max(least, int(costs.scan_share * snapshot.visibility.live_count))
    most = scan if parameter == "ef" else int(snapshot.generation.index.stats()["heads"])

    def measure(width: int, begin_with: list[QuerySample] | None = few) -> float:
        params = SearchParams(**{parameter: width}, threads=threads)  # type: ignore[arg-type]
        for some in (begin_with or samples, samples):
            check()
            started = time.perf_counter()
            found = [_found(snapshot, one, params) for one in some]
            took = time.perf_counter() - started
            reached = judged(some, found)
            # of few queries one that finds nothing weighs much: caution would put every width far below
            far_below = lowest_recall(some, found) <= recall - _NEAR_BELOW
            if some is samples or far_below or reached >= recall + _NEAR_ABOVE:
                break
        rate = sum(len(one.queries) for one in some) / took
        points[width] = {parameter: width, "recall": reached, "queries_per_second": rate}
        return reached

    below, above, reached = 0, 0, []
    ladder = _LADDER if parameter == "ef" else _LADDER + _MORE_LISTS
    wider = tuple(step for step in ladder if step > max(extent.first, default=0))
    for width in sorted({max(least, step) for step in extent.first + wider}):
        reached.append(measure(width))
        if reached[-1] < recall:
            below = width
        elif not above:
            above = width
        steps = _FLAT_STEPS_REACHED if above else _FLAT_STEPS
        # few lists say nothing about many: where a tenth of the rows was one cluster, 128 to 512 of 31,000 lists found
        # next to nothing more, and 1,024 found what was missing
        may_be_flat = parameter == "ef" or above or width >= _FLAT_SHARE * most
        is_flat = may_be_flat and len(reached) > steps and reached[-1] - reached[-1 - steps] <= _FLAT_GAIN
        if reached[-1] >= max(extent.enough, recall) or width >= most or is_flat:
            break
    if few and not above and measure(below, None) >= recall:  # what few queries say is not enough to give up
        above, below = below, max((width for width in points if width < below), default=0)
    for _ in range(extent.halvings):
        middle = (below + above) // 2
        if not below or not above or middle in (below, above):
            break
        if measure(middle) < recall:
            below = middle
        else:
            above = middle
    return [points[width] for width in sorted(points)]


def curve_points(snapshot: Snapshot, curve: Curve, limit: int) -> tuple[MeasuredRecall, ...]:
    """The curve as it is stored."""
    return tuple(MeasuredRecall(limit, int(point[_width_parameter(snapshot)]), point["recall"]) for point in curve)


def replaced(known: Sequence[MeasuredRecall], points: Sequence[MeasuredRecall]) -> tuple[MeasuredRecall, ...]:
    """What is known of other limits, and these points."""
    limits = {point.limit for point in points}
    return (*(point for point in known if point.limit not in limits), *points)
