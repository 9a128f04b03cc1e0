"""The planner chooses between a scan of a tenant's rows and the index, and how far a search goes, from counts alone."""

from __future__ import annotations

from typing import Any

import vecdb
from vecdb.query import planner
from vecdb.schema import Visibility
from vecdb.state.index_factory import kind_of
from vecdb.storage.kv.catalog import CommittedState, MeasuredRecall, RecallCheck


def facts_of(config: Any, curve: tuple[MeasuredRecall, ...], scan_rows: int | None = None) -> planner.IndexFacts:
    """Of an index over 100,000 rows."""
    learned = CommittedState(recall_curve=curve, tenant_scan_rows_max=scan_rows)
    return planner.IndexFacts(kind_of(config), config, learned, 100_000)


def test_the_planner_scans_a_tenants_rows_until_meeting_them_is_cheaper() -> None:
    visibility = Visibility(1, 100_000, 100_000)

    def plan(config: Any, matching: int | None, **asked: Any) -> planner.Plan:
        facts = facts_of(config, (MeasuredRecall(10, 50, 0.99),))
        return planner.plan(facts, visibility, 10, vecdb.SearchParams(**asked), matching)

    for config, strategy in ((vecdb.Hnsw(), "graph"), (vecdb.Spann(), "lists")):
        assert plan(config, None).strategy == strategy
        few = "codes" if strategy == "graph" else "rows"
        assert [plan(config, n).strategy for n in (0, 1, 1_000, 50_000)] == ["rows", "rows", few, strategy]
        assert plan(config, 50_000, exact=True).strategy == "rows" and plan(config, 50_000, exact=True).width == 0
        first = next(n for n in range(0, 100_000, 100) if plan(config, n).strategy == strategy)
        assert all(plan(config, n).strategy == strategy for n in range(first, 100_000, 5_000)), "one threshold"
        assert plan(config, 50_000, recall=0.9).width == (50 if strategy == "graph" else 100)
    assert plan(vecdb.Spann(), 50_000, nprobe=128).width == 256, "half of what is met counts: twice as much is read"
    assert plan(vecdb.Flat(), 50_000).strategy == "rows"


def test_a_large_tenants_walk_along_the_tree_is_as_long_as_the_recall_asked_for_takes() -> None:
    visibility, config = Visibility(1, 100_000, 100_000), vecdb.Curator(scan_max=1_000)
    learned = (MeasuredRecall(10, 93, 0.90), MeasuredRecall(10, 145, 0.95), MeasuredRecall(10, 435, 0.99))

    def width(matching: int, known: tuple[MeasuredRecall, ...] = learned, **asked: Any) -> int:
        return planner.plan(facts_of(config, known), visibility, 10, vecdb.SearchParams(**asked), matching).width

    patience = planner.COSTS.idle_nodes_max
    assert width(1_000, recall=0.99) == width(1_000, nprobe=7) == 0, "all its rows"
    assert width(1_001) == patience
    assert width(1_001, ()) == patience * 100_000 // planner.COSTS.idle_nodes_rows, "nothing is learned of so many rows"
    assert width(1_001, (MeasuredRecall(10, 290, 0.95),)) == 2 * patience, "what the data needs"
    assert width(1_001, recall=0.95) == patience and width(1_001, recall=0.99) == 3 * patience
    for measured, most in ((None, planner.COSTS.tenant_scan_rows), (500, 500)):
        for told, rows in ((vecdb.Curator(), most), (config, 1_000)):
            given = facts_of(told, learned, measured), visibility, 10, vecdb.SearchParams()
            widths = [planner.plan(*given, n).width for n in (rows, rows + 1)]
            assert widths == [0, patience], "what somebody said goes before what was measured"
    assert 0 < width(1_001, recall=0.8) < patience and width(1_001, nprobe=7) == 7
    unknown = planner.plan(facts_of(config, ()), visibility, 10, vecdb.SearchParams(recall=0.99), 1_001)
    assert unknown.strategy == "rows" and "nothing is measured yet" in unknown.reason


def test_a_learned_beam_grows_with_the_neighbours_asked_for_and_a_tuned_one_does_not() -> None:
    visibility = Visibility(1, 100_000, 100_000)

    def width(limit: int, *, tuned: bool, learned_width: int = 40, index: Any = None) -> int:
        index = index or vecdb.Hnsw()
        learned = CommittedState(default_width=learned_width, tuned_by_user=tuned)
        facts = planner.IndexFacts(kind_of(index), index, learned, 100_000)
        return planner.plan(facts, visibility, limit, vecdb.SearchParams()).width

    assert [width(limit, tuned=False) for limit in (1, 10, 11, 20, 100)] == [40, 40, 40, 80, 240]
    assert [width(limit, tuned=False, learned_width=300) for limit in (10, 20, 100)] == [300, 340, 500]
    assert [width(limit, tuned=True) for limit in (1, 10, 100)] == [40, 40, 100]
    for lists in (vecdb.Spann(), vecdb.Curator()):
        assert [width(limit, tuned=False, index=lists) for limit in (1, 10, 100, 5_000)] == [40, 40, 60, 120]
        assert width(100, tuned=True, index=lists) == 40


def test_the_width_of_a_hundred_neighbours_is_learned_too() -> None:
    def width(limit: int, config: Any, ten: int = 40, **asked: Any) -> int:
        curve = tuple(MeasuredRecall(k, ef, recall) for k, ef, recall in ((10, 40, 0.98), (100, 130, 0.98)))
        learned = CommittedState(recall_curve=curve, default_width=ten, hundred_width=130)
        facts = planner.IndexFacts(kind_of(config), config, learned, 100_000)
        return planner.plan(facts, Visibility(1, 100_000, 100_000), limit, vecdb.SearchParams(**asked)).width

    for config in (vecdb.Hnsw(), vecdb.Spann(), vecdb.Curator()):
        for asked in ({}, {"recall": 0.97}):
            assert [width(limit, config, **asked) for limit in (1, 10, 11, 55, 100)] == [40, 40, 41, 85, 130]
    assert [width(limit, vecdb.Hnsw()) for limit in (101, 200, 1_000)] == [130, 260, 1_300]
    assert [width(limit, vecdb.Spann()) for limit in (280, 5_000)] == [260, 390]
    assert width(250, vecdb.Hnsw(), recall=0.97) == 390
    assert width(100, vecdb.Spann(), ten=200) == 200, "more neighbours never need less"


def test_a_hundred_neighbours_need_as_much_more_for_a_higher_recall_as_ten_do() -> None:
    ten = [MeasuredRecall(10, width, recall) for width, recall in ((64, 0.94), (96, 0.975), (192, 0.99))]
    hundred = [MeasuredRecall(100, width, recall) for width, recall in ((128, 0.95), (200, 0.976))]
    assert planner.width_for_recall(0.95, 100, ten + hundred) == 128
    assert planner.width_for_recall(0.99, 100, ten + hundred) == 400
    assert planner.width_for_recall(0.999, 100, ten + hundred) == 800
    assert planner.width_for_recall(0.99, 100, hundred) == 400
    assert planner.width_for_recall(0.99, 55, ten + hundred) == (192 + 400) // 2


def test_what_was_learned_of_fewer_rows_is_widened_with_leaves_and_lists_until_it_is_learned_anew() -> None:
    def width(
        config: Any, measured: int | None, *, tuned: bool = False, learned: int | None = 40,
        matching: int | None = None, **asked: Any,
    ) -> int:  # fmt: skip
        check = None if measured is None else RecallCheck(0.97, 10, 0.0, measured)
        state = CommittedState(
            recall_curve=(MeasuredRecall(10, 20, 0.9),), default_width=learned, tuned_by_user=tuned, recall_check=check
        )
        facts = planner.IndexFacts(kind_of(config), config, state, 100_000)
        return planner.plan(facts, Visibility(1, 100_000, 100_000), 10, vecdb.SearchParams(**asked), matching).width

    tree, most = vecdb.Curator(scan_max=1_000), planner.COSTS.unmeasured_rows
    for config in (vecdb.Spann(), tree):
        assert [width(config, rows) for rows in (None, 0, 50_000, 80_000, 100_000, 200_000)] == [40, 40, 80, 50, 40, 40]
        assert [width(config, rows) for rows in (40_000, 25_000, 10_000)] == [125, 320, 800], "other rows, perhaps"
        assert width(config, 10_000, recall=0.9) == 400 and width(config, 10_000, tuned=True) == 40
        assert width(config, 10_000, nprobe=7) == 7
    at_once = width(tree, 100_000, matching=2_000)
    assert width(tree, 10_000, matching=2_000) == 20 * at_once, "the walk among a large tenant's rows"
    assert width(vecdb.Hnsw(), 10_000) == 40
    assert width(vecdb.Spann(nprobe=9), 10_000, learned=None) == 9
    assert width(vecdb.Spann(), None, learned=None) == -(-planner.COSTS.lists_nprobe * 100_000 // most)
