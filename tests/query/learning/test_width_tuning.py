"""Goal: what is measured of a machine follows from what the machine did."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import vecdb
from tests.support.corpus import clustered
from tests.support.planner_costs import set_planner_costs
from vecdb import limits
from vecdb.api.database import Database
from vecdb.index.contract import Neighbors
from vecdb.query import planner
from vecdb.query.learning import recall_learning, width_tuning
from vecdb.schema import SearchParams


class Clockwork:
    """An index that takes as long as it is told: a scan so much a row, a walk so much in all."""

    def __init__(self, row: float, walk: float) -> None:
        self.now, self._row, self._walk = 0.0, row, walk

    def search(self, queries: Any, limit: int, visibility: Any, params: SearchParams, allow: Any) -> None:
        self.now += self._walk if params.nprobe else self._row * len(allow)


@pytest.mark.parametrize(
    ("row", "walk", "wanted"),
    [
        (1.0, 3e4, 30_000),
        (1.0, 1e4, 10_000),
        (1e-3, 1e3, 4 * planner.COSTS.tenant_scan_rows),
        (1.0, 1.0, planner.COSTS.tenant_scan_rows // 4),
    ],
)
def test_a_scan_ends_where_a_walk_takes_as_long(
    row: float, walk: float, wanted: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = Clockwork(row, walk)
    monkeypatch.setattr(width_tuning, "time", SimpleNamespace(perf_counter=lambda: index.now))
    snapshot: Any = SimpleNamespace(generation=SimpleNamespace(index=index), visibility=None)
    queries = np.zeros((3, 4), np.float32)
    live = np.arange(200_000)
    assert width_tuning.measured_scan(snapshot, queries, live, 80) == pytest.approx(wanted, rel=0.001)
    assert width_tuning.measured_scan(snapshot, queries, live[:20_000], 80) == pytest.approx(
        min(wanted, 20_000), rel=0.001
    )
    assert width_tuning.measured_scan(snapshot, queries, live[:1_000], 80) is None, "nothing to choose"


def test_optimize_remembers_it_for_the_planner(db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    set_planner_costs(monkeypatch, tenant_scan_rows=64)
    monkeypatch.setattr(limits, "flat_rows_max", 100)
    vectors = clustered(600, 8)
    docs = db.create_collection("docs", 8, "l2", vecdb.Curator(leaf_rows=8))
    docs.upsert(range(600), vectors, tenants="all")
    docs.optimize()
    known = docs._backend.state.snapshot.state.tenant_scan_rows_max
    assert 16 <= known <= 256
    assert docs.search(vectors[0], 5, tenant="all", explain=True).explain["nprobe"] == planner.idle_nodes_max(
        docs._backend.state.snapshot.state.recall_curve
    )
    docs.grant(range(known), "some")
    assert docs.search(vectors[0], 5, tenant="some", explain=True).explain["nprobe"] == 0
    assert docs.search(vectors[0], 5, explain=True).explain["nprobe"] > 0, "all are more than are scanned"
    docs.reindex(index=vecdb.Curator(leaf_rows=8, scan_max=600))
    assert docs._backend.state.snapshot.state.tenant_scan_rows_max is None
    docs.optimize()
    assert docs.search(vectors[0], 5, tenant="all", explain=True).explain["nprobe"] == 0
    everything = docs.search(vectors[0], 5, explain=True)
    assert everything.explain["nprobe"] == 0 and everything.explain["reason"] == "the codes of all rows"
    assert docs.search(vectors[0], 5, params=vecdb.SearchParams(nprobe=3), explain=True).explain["nprobe"] == 3


def test_nothing_is_measured_while_an_index_gives_way_to_one_without_a_width(db: Database) -> None:
    # a commit that names another kind is published a moment before that index is in its place
    vectors = clustered(600, 8)
    docs = db.create_collection("docs", 8, "l2", vecdb.Curator(leaf_rows=8))
    docs.upsert(range(600), vectors)
    docs.optimize()
    between = replace(docs._backend.state.snapshot, config=vecdb.Flat())
    assert width_tuning.tune(between, vectors[:5], 5, 0.9) == ([], {})
    find = docs._backend.searcher.search_snapshot
    assert recall_learning.learn_recall(between, "l2", find, planner.COSTS, vectors[:0]) == {}


class Plateau:
    """Lists of which 16 find four fifths, and 5,000 the rest."""

    def __init__(self) -> None:
        self.widest = 0

    def search(self, queries: Any, limit: int, visibility: Any, params: SearchParams, allow: Any) -> Neighbors:
        assert params.nprobe is not None
        self.widest = max(self.widest, params.nprobe)
        found: Neighbors = found_of([0.8 if params.nprobe < 5_000 else 1.0] * len(queries))[1]
        return found

    def stats(self) -> dict[str, int]:
        return {"heads": 200_000}


def test_lists_that_find_no_more_for_a_while_are_followed_to_many(monkeypatch: pytest.MonkeyPatch) -> None:
    index = Plateau()
    snapshot: Any = SimpleNamespace(
        generation=SimpleNamespace(index=index), visibility=SimpleNamespace(live_count=10_000_000), config=vecdb.Spann()
    )
    samples = [found_of([1.0] * 30)[0]]
    curve = width_tuning.measured_curve(snapshot, samples, 0.975, planner.COSTS)
    assert 5_000 <= width_tuning.smallest_width(snapshot, curve, 0.975) <= 6_144
    assert index.widest == 8_192, "and no further than it takes"
    hopeless = width_tuning.measured_curve(snapshot, samples, 1.1, planner.COSTS)
    assert hopeless[-1]["nprobe"] == 32_768


def found_of(shares: list[float]) -> Any:
    """A sample of ten neighbours each of which so many are found, and what is found."""
    rows = np.tile(np.arange(10), (len(shares), 1))
    distances, counts = np.tile(np.arange(10, dtype=np.float32), (len(shares), 1)), np.full(len(shares), 10)
    truth = Neighbors(rows, distances, counts, np.zeros(1, np.int64))
    missed = np.arange(10) >= np.array(shares)[:, None] * 10
    found = Neighbors(np.where(missed, 99, rows), distances + 100 * missed, counts, truth.work)
    return width_tuning.QuerySample(np.zeros((len(shares), 4), np.float32), truth, 10), found


def test_a_sample_whose_queries_find_all_or_nothing_counts_as_lower() -> None:
    alike, found_alike = found_of([0.9, 1.0] * 100)
    assert width_tuning.lowest_recall([alike], [found_alike]) == pytest.approx(0.95)
    assert width_tuning.cautious_recall([alike], [found_alike]) == pytest.approx(0.95), "the error is .0035"
    split, found_split = found_of([0.0] * 10 + [1.0] * 190)
    error = 0.05**0.5 * 0.95**0.5 / 200**0.5
    assert width_tuning.lowest_recall([split], [found_split]) == pytest.approx(0.95)
    assert width_tuning.cautious_recall([split], [found_split]) == pytest.approx(0.95 - 2 * error + 0.025)
    assert width_tuning.cautious_recall([alike, split], [found_alike, found_split]) < 0.95
    assert len(split.thinned(4).queries) == 50 and len(split.thinned(4).truth.rows) == 50


def test_no_sample_is_missing_among_the_few_queries_that_are_searched_first() -> None:
    """Of the newest rows there are few queries: without them a width was chosen at which they miss a tenth, and since
    they do, searches compared all vectors, though wider ones would have found everything.
    """
    many, fewer = (
        width_tuning.QuerySample(
            np.zeros((n, 4), np.float32), Neighbors(*[np.zeros((n, 3))] * 2, np.zeros(n), np.zeros(1)), 3
        )
        for n in (200, 50)
    )
    assert [len(one.queries) for one in recall_learning.few_of([many, fewer])] == [50, 50]


def test_widths_far_from_the_wanted_recall_are_measured_on_few_queries(db: Database) -> None:
    vectors = np.random.default_rng(3).normal(size=(3_000, 24)).astype(np.float32)
    docs = db.create_collection("docs", 24, "l2", vecdb.Hnsw(m=6, ef_construction=40))
    docs.upsert(range(3_000), vectors)
    docs._backend.jobs.index_tail(2, all_rows=True)
    snapshot = docs._backend.state.current()
    queries = np.random.default_rng(4).normal(size=(200, 24)).astype(np.float32)
    sample = width_tuning.QuerySample.of(snapshot, queries, 10)
    asked: list[int] = []
    judged = lambda samples, found: asked.append(len(samples[0].queries)) or width_tuning.lowest_recall(samples, found)  # noqa: E731
    curve = width_tuning.measured_curve(snapshot, [sample], 0.97, planner.COSTS, judged=judged, few=[sample.thinned(4)])
    whole = width_tuning.measured_curve(snapshot, [sample], 0.97, planner.COSTS)
    near = [point for point in whole if 0.93 < point["recall"] < 0.97]
    assert near and [point for point in curve if point["ef"] in {one["ef"] for one in near}] != []
    for point in near:
        assert point["recall"] in [one["recall"] for one in curve if one["ef"] == point["ef"]], "on all queries"
    assert asked.count(50) > asked.count(200) > 0, "few first, all only near what is wanted"


@pytest.mark.parametrize("misses", [1.0, 50.0])
def test_what_few_queries_say_is_not_enough_to_give_up(misses: float, db: Database) -> None:
    """misses : of the few queries, times as many; so one that finds nothing, for whatever reason, counts for many."""
    vectors = np.random.default_rng(3).normal(size=(2_000, 8)).astype(np.float32)
    docs = db.create_collection("docs", 8, "l2", vecdb.Hnsw(m=6, ef_construction=40))
    docs.upsert(range(2_000), vectors)
    docs._backend.jobs.index_tail(2, all_rows=True)
    snapshot = docs._backend.state.current()
    queries = np.random.default_rng(4).normal(size=(100, 8)).astype(np.float32)
    sample = width_tuning.QuerySample.of(snapshot, queries, 10)
    few = [sample.thinned(4)._replace(misses=misses)]
    judged = lambda samples, found: (  # noqa: E731
        0.5 if len(samples[0].queries) == 25 else width_tuning.lowest_recall(samples, found)
    )
    curve = width_tuning.measured_curve(snapshot, [sample], 0.97, planner.COSTS, judged=judged, few=few)
    assert max(point["recall"] for point in curve) >= 0.97


def test_a_width_that_proves_too_narrow_gives_way_to_wider_ones_before_a_scan(
    db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "flat_rows_max", 100)
    vectors = np.random.default_rng(3).normal(size=(3_000, 24)).astype(np.float32)
    docs = db.create_collection("docs", 24, "l2", vecdb.Hnsw(m=6, ef_construction=40))
    docs.upsert(range(3_000), vectors)
    hopeful = [{"ef": width, "recall": 0.99, "queries_per_second": 1.0} for width in (10, 48, 512)]
    monkeypatch.setattr(recall_learning, "measured_curve", lambda *_, **__: hopeful)
    docs.optimize()
    explained = docs.search(vectors[0], 5, explain=True).explain
    assert explained["plan"] == "graph" and explained["ef"] == 512
    assert docs.stats()["recall"]["measured"] > 0.96
