"""What a collection finds out by itself: how wide its searches must be, and what recall its default searches have.

    queries beside stored rows, and those that were asked -> exact answers -> recall of growing widths -> default width
                                           -> recall of searches that name nothing -> a scan where no width is enough

Nothing is changed here: the caller commits what is returned. The width follows what is learned wherever the user has
left it open, and has not tuned; recall is measured in any case.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace

import msgspec
import numpy as np
from numpy.typing import NDArray

from vecdb.index.contract import Neighbors
from vecdb.query import planner
from vecdb.query.learning import unseen_queries
from vecdb.query.learning.width_tuning import (
    Changes,
    Check,
    Curve,
    CurveExtent,
    QuerySample,
    cautious_recall,
    curve_points,
    lowest_recall,
    measured_curve,
    measured_scan,
    replaced,
    smallest_width,
)
from vecdb.query.planner import PlannerCosts
from vecdb.schema import SearchParams
from vecdb.state.index_factory import kind_of
from vecdb.state.plan_cache import PlanCache
from vecdb.state.snapshot import Snapshot
from vecdb.storage.kv.catalog import MeasuredRecall, RecallCheck

# Queries that are made from stored rows. A sample of fewer says so little that its recall counts as .05 lower
# (`cautious_recall`): ten million rows were scanned by searches whose lists had .97 and more.
_QUERIES_MAX, _QUERIES_MIN = 200, 120
_THIN, _FEW_MIN = 4, 25  # one query out of so many, where as many are left: for widths far from the learned one
_THIN_LARGE = 2  # the same for a hundred neighbours, of which each query says ten times as much
_PRODUCTS = 1 << 35  # of two numbers that the exact answers may take, which bounds the queries
RECALL_FLOOR = 0.95  # default searches are kept at it
_SCAN_BELOW = 0.96  # measured recall: what is measured of so few queries may be too high
_LIMIT, _LARGE_LIMIT = planner.LEARNED_LIMIT, planner.LARGE_LIMIT
_LARGE_ROWS_MIN = 10 * _LARGE_LIMIT  # of fewer rows a hundred are looked for in much of them in any case
_WIDTH_RECALL = 0.975  # the default width is the first that reaches it, since what is measured is a sample
_WIDTH_GAIN = 0.005  # where none does, the first that reaches the best but for so much
_BEAM_MIN = 32  # of a graph: queries that are unlike stored rows need more than rows do
_SCAN_QUERIES = 25
_NEWEST_PART = 10  # the newest rows are the last tenth
_CHECK_GROWTH, _CHECK_GROWTH_LARGE, _LARGE_ROWS = 1.1, 1.5, 65_536

Search = Callable[..., tuple[Neighbors, planner.Plan]]  # (snapshot, queries, limit, params), `Searcher.search_snapshot`


def check_is_due(snapshot: Snapshot) -> bool:
    """Whether rows have come, or gone, since recall was measured, so that it may be another."""
    rows = snapshot.generation.index.indexed_rows
    if kind_of(snapshot.config).width_parameter is None or rows == 0:
        return False
    check = snapshot.state.recall_check
    if check is None:
        return True
    growth = _CHECK_GROWTH if check.rows < _LARGE_ROWS else _CHECK_GROWTH_LARGE
    return rows >= growth * check.rows or growth * rows <= check.rows


def learn_recall(
    snapshot: Snapshot,
    metric: str,
    search: Search,
    costs: PlannerCosts,
    asked: NDArray[np.float32],
    threads: int = 1,
    check: Check = lambda: None,
    *,
    time_scans: bool = True,
) -> Changes:
    """Measure the curve of widths and the recall of default searches. Empty where there is nothing to measure.

    search : `Searcher.search_snapshot`.   asked : float32[any, dim], queries of users, besides stored rows.
    check : called between steps; ends the work by raising.   time_scans : measure how long scans of tenants take, which
    needs a machine that does little else.
    """
    index, kind = snapshot.generation.index, kind_of(snapshot.config)
    if kind.width_parameter is None or index.indexed_rows == 0:
        return {}
    live = snapshot.generation.live_vectors(snapshot.visibility)
    if len(live) <= _LIMIT:
        return {}
    rng = np.random.default_rng(snapshot.visibility.row_count)
    count = max(_QUERIES_MIN, min(_QUERIES_MAX, _PRODUCTS // (len(live) * snapshot.generation.rows.dim)))
    depth = _LARGE_LIMIT if len(live) >= _LARGE_ROWS_MIN else _LIMIT
    samples = unseen_queries.samples(snapshot, metric, live, count, _LIMIT, depth, rng, threads, check)
    if len(asked):
        samples.append(QuerySample.of(snapshot, asked[:count], _LIMIT, threads, depth=depth, check=check))
    changes, recall = _learned(snapshot, samples, search, costs, len(asked), threads, check, time_scans=time_scans)
    # Where data drift, the newest rows may have a low recall beside a good one of all. They count only where they are
    # below the floor: of two samples the lower one is too low by chance, and every width would grow.
    last = live[-max(_LIMIT, len(live) // _NEWEST_PART) :]
    # As many queries as of all rows: of 50 one that found nothing made searches of a million rows compare all vectors.
    newest = unseen_queries.samples(snapshot, metric, last, count, _LIMIT, _LIMIT, rng, threads, check)
    of_newest = _default_recall(snapshot, changes, newest, search, threads)
    if of_newest >= _SCAN_BELOW:
        recall = min(recall, of_newest)
    else:
        samples += [one.deeper(snapshot, depth, threads, check) for one in newest]
        changes, recall = _learned(snapshot, samples, search, costs, len(asked), threads, check, time_scans=time_scans)
    if _width_is_open(snapshot):
        changes |= _of_a_hundred(snapshot, samples, changes, depth, costs, len(asked), threads, check)
    changes["recall_check"] = RecallCheck(recall, _LIMIT, time.time(), index.indexed_rows, len(asked))
    return changes


def _learned(
    snapshot: Snapshot, samples: list[QuerySample], search: Search, costs: PlannerCosts, asked: int, threads: int,
    check: Callable[[], None], *, time_scans: bool,
) -> tuple[Changes, float]:  # fmt: skip
    """The curve of widths with the default that follows from it, and the recall of default searches after that; both
    the lowest of the samples'. asked : how many queries of users are among them.
    """
    kind = kind_of(snapshot.config)
    curve = measured_curve(snapshot, samples, _WIDTH_RECALL, costs, threads, check, cautious_recall, few_of(samples))
    points = curve_points(snapshot, curve, _LIMIT)
    changes: Changes = {"recall_curve": replaced(snapshot.state.recall_curve, points)}
    is_open = _width_is_open(snapshot)
    if is_open:
        changes |= _default_width(snapshot, curve)
        if _earlier_queries_taught(snapshot, asked):
            changes["default_width"] = max(changes["default_width"], snapshot.state.default_width or 0)
            changes["default_scan"] |= snapshot.state.default_scan
    if time_scans and kind.scan_limit_parameter is not None:
        nodes = planner.idle_nodes_max(points, costs)
        live = snapshot.generation.live_vectors(snapshot.visibility)
        scan_rows = measured_scan(snapshot, samples[0].queries[:_SCAN_QUERIES], live, nodes, costs)
        if scan_rows is not None:
            changes["tenant_scan_rows_max"] = scan_rows
    recall = _default_recall(snapshot, changes, samples, search, threads)
    if is_open:
        recall = _proven(changes, points, recall, lambda: _default_recall(snapshot, changes, samples, search, threads))
    return changes, recall


def _width_is_open(snapshot: Snapshot) -> bool:
    """Whether the user has left it to us how wide default searches are."""
    return kind_of(snapshot.config).width_of(snapshot.config) is None and not snapshot.state.tuned_by_user


def _default_width(snapshot: Snapshot, curve: Curve) -> Changes:
    """The width of default searches that follows from a curve, and whether none is wide enough."""
    best, width = _chosen_width(snapshot, curve)
    if kind_of(snapshot.config).width_parameter == "ef":
        width = max(_BEAM_MIN, width)
    return {"default_width": width, "default_scan": best < _SCAN_BELOW}


def _of_a_hundred(
    snapshot: Snapshot, samples: list[QuerySample], changes: Changes, depth: int, costs: PlannerCosts, asked: int,
    threads: int, check: Check,
) -> Changes:  # fmt: skip
    """The width of default searches for a hundred neighbours, with its curve: from the width on that is enough for ten,
    to where it is enough for a hundred. changes : what was learned of ten.   depth : of the samples' exact answers.
    """
    if depth < _LARGE_LIMIT or changes["default_scan"]:
        return {"hundred_width": None}
    large = [one._replace(limit=_LARGE_LIMIT) for one in _thinned(samples, _THIN_LARGE)]
    ten, strategy = changes["default_width"], kind_of(snapshot.config).strategy
    if strategy == "graph":
        extent = CurveExtent((ten,), _WIDTH_RECALL)
    else:
        # From disk a hundred neighbours take six times as long as ten, and most of it is the same for any width: a few
        # coarse steps are enough.
        extent = CurveExtent((ten, planner.wider_for(strategy, ten, _LARGE_LIMIT, _LIMIT)), _WIDTH_RECALL, halvings=0)
    curve = measured_curve(
        snapshot, large, _WIDTH_RECALL, costs, threads, check, cautious_recall, few_of(large), extent
    )
    width = _chosen_width(snapshot, curve)[1]
    if _earlier_queries_taught(snapshot, asked):
        width = max(width, snapshot.state.hundred_width or 0)
    points = curve_points(snapshot, curve, _LARGE_LIMIT)
    return {"hundred_width": width, "recall_curve": replaced(changes["recall_curve"], points)}


def _proven(changes: Changes, points: Sequence[MeasuredRecall], recall: float, measured: Callable[[], float]) -> float:
    """Widen the default until its recall, as `measured` of all queries, is enough; where no width is, searches compare
    all vectors. Returns the recall of default searches. recall : before. What few queries said of a width may be too
    much.
    """
    for width in sorted(point.width for point in points if point.width > changes["default_width"]):
        if recall >= _SCAN_BELOW:
            return recall
        changes["default_width"] = width
        recall = measured()
    if recall < _SCAN_BELOW and not changes["default_scan"]:
        changes["default_scan"], recall = True, 1.0
    return recall


def _chosen_width(snapshot: Snapshot, curve: Curve) -> tuple[float, int]:
    """The best recall of a curve, and the width of default searches."""
    best = max(point["recall"] for point in curve)
    return best, smallest_width(snapshot, curve, min(_WIDTH_RECALL, best - _WIDTH_GAIN))


def few_of(samples: list[QuerySample]) -> list[QuerySample]:
    """A part of each sample that has many queries, and the others whole: the one that is found worst may be small."""
    return _thinned(samples, _THIN)


def _thinned(samples: list[QuerySample], every: int) -> list[QuerySample]:
    """One query out of so many of each sample of which enough are left, and the others whole."""
    few = [one.thinned(every) if len(one.queries) >= every * _FEW_MIN else one for one in samples]
    return samples if all(one is other for one, other in zip(few, samples, strict=True)) else few


def _earlier_queries_taught(snapshot: Snapshot, asked: int) -> bool:
    """Whether there is no sample of asked queries, as after a restart, but was one: widths that it called for stay."""
    before = snapshot.state.recall_check
    return not asked and before is not None and bool(before.asked)


def _default_recall(
    snapshot: Snapshot, changes: Changes, samples: list[QuerySample], search: Search, threads: int
) -> float:
    """Recall of searches that name nothing, once `changes` are committed: the lowest of the samples'."""
    if changes.get("default_scan"):
        return 1.0
    state = msgspec.structs.replace(snapshot.state, **changes, recall_check=None)  # these widths are of its rows
    changed = replace(snapshot, state=state, prepared=PlanCache())
    params = SearchParams(threads=threads)
    found = [search(changed, one.queries, one.limit, params, may_ask=False)[0] for one in samples]
    return lowest_recall(samples, found)
