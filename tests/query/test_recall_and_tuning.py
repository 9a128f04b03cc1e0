"""Tune measures a curve and remembers it, evaluate reports recall and latency, explain and stats say what was done."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import vecdb
from tests.support.corpus import EXACT, clustered
from tests.support.planner_costs import set_planner_costs
from vecdb import limits
from vecdb.api.database import Database

N, DIM = 3_000, 32


@pytest.fixture
def graph(db: Database, monkeypatch: pytest.MonkeyPatch) -> Any:
    set_planner_costs(monkeypatch, scan_share=1e9)
    monkeypatch.setattr(limits, "flat_rows_max", 100)
    docs = db.create_collection("docs", DIM, "l2", vecdb.Hnsw(m=6, ef_construction=40, ef=64))
    docs.upsert(range(N), clustered(N))
    return docs


QUERIES = clustered(100, seed=2)


def test_tune_measures_a_curve_and_remembers_the_narrowest_beam(graph: Any) -> None:
    docs = graph
    assert docs.tune(QUERIES) == [], "nothing to tune before there is a graph"
    docs._backend.jobs.index_tail(1, all_rows=True)
    curve = docs.tune(QUERIES, recall=0.9, limit=10)
    efs = [point["ef"] for point in curve]
    assert efs == sorted(set(efs)) and len(efs) >= 2
    assert all(set(point) == {"ef", "recall", "queries_per_second"} and 0 <= point["recall"] <= 1 for point in curve)
    chosen = docs.stats()["tuned_ef"]
    assert chosen == next(point["ef"] for point in curve if point["recall"] >= 0.9)
    hits = docs.search(QUERIES[0], 10, explain=True)
    assert (hits.explain["plan"], hits.explain["ef"], hits.explain["reason"]) == ("graph", chosen, "tuned")
    reached = next(point["recall"] for point in curve if point["ef"] == chosen)
    assert docs.evaluate(QUERIES, 10)["recall"] == pytest.approx(reached, abs=0.005)
    docs.optimize()
    assert docs.stats()["tuned_ef"] == chosen, "what the user tuned, optimize leaves alone"


def test_a_recall_that_was_asked_for_is_reached(graph: Any) -> None:
    docs = graph
    assert docs.search(QUERIES[0], 10, params=vecdb.SearchParams(recall=0.95), explain=True).plan == "exact"
    docs._backend.jobs.index_tail(1, all_rows=True)
    unmeasured = docs.search(QUERIES[0], 10, params=vecdb.SearchParams(recall=0.95), explain=True)
    assert unmeasured.plan == "exact" and "nothing is measured yet" in unmeasured.explain["reason"]
    docs.optimize()
    widths = []
    for recall in (0.7, 0.9, 0.99):
        report = docs.evaluate(clustered(200, seed=1)[:200], 10, params=vecdb.SearchParams(recall=recall))
        assert report["recall"] >= recall - 0.03, (recall, report)
        assert report["plan"] == "graph"
        widths.append(report["ef"])
    assert widths == sorted(widths) and widths[0] < widths[-1]


def test_evaluate_reports_recall_and_latency(graph: Any) -> None:
    exact = graph.evaluate(QUERIES, 10, params=EXACT)
    assert exact["recall"] == 1.0 and exact["queries"] == 100 and exact["plan"] == "exact"
    graph.optimize()
    report = graph.evaluate(QUERIES, 10, params=vecdb.SearchParams(ef=10))
    assert 0.3 < report["recall"] < 1.0 and report["ef"] == 10
    assert 0 < report["latency_ms_p50"] <= report["latency_ms_p95"] <= report["latency_ms_p99"]
    near, true = (graph.search(QUERIES, 10, params=params) for params in (vecdb.SearchParams(ef=10), EXACT))
    shares = [len(set(a) & set(b)) / 10 for a, b in zip(near.ids.tolist(), true.ids.tolist(), strict=True)]
    assert report["recall"] == pytest.approx(np.mean(shares), abs=0.01)


def test_explain_says_what_was_done(graph: Any) -> None:
    graph.optimize()
    graph.upsert(range(N, N + 10), clustered(10, seed=3))
    keys = {
        "plan",
        "reason",
        "ef",
        "index_state",
        "indexed_rows",
        "tail_rows",
        "code_distances",
        "vector_distances",
        "walked_again",
    }
    near = graph.search(QUERIES[0], 10, explain=True).explain
    true = graph.search(QUERIES[0], 10, params=EXACT, explain=True).explain
    for report in (near, true):
        assert keys | {"search_ms", "fetch_ms", "total_ms"} <= set(report)
        assert report["total_ms"] >= report["search_ms"] >= 0
    assert near["plan"] == "graph" and near["tail_rows"] == 10 and near["indexed_rows"] == N
    assert 0 < near["vector_distances"] < 200 and 10 < near["code_distances"] < N + 10
    assert true["plan"] == "exact" and true["vector_distances"] == N + 10 and true["reason"] == "asked for"
    assert graph.search(QUERIES[0], 10).explain is None


def test_stats_name_what_the_public_page_promises(graph: Any) -> None:
    graph.delete(range(100))
    before = graph.stats()
    assert {"live", "deleted", "bytes_ram", "bytes_disk", "index_state", "index", "sequence"} <= set(before)
    assert (before["live"], before["deleted"], before["rows"]) == (N - 100, 100, N)
    assert before["bytes_disk"] >= N * DIM * 4 and before["bytes_raw"] == (N - 100) * DIM * 4
    graph.optimize()
    after = graph.stats()
    assert after["index_state"] == "ready" and after["tail_rows"] == 0 and after["sealed_rows"] == N
    assert after["bytes_ram"] > before["bytes_ram"] and after["index"] == {
        "kind": "hnsw",
        "m": 6,
        "ef_construction": 40,
        "ef": 64,
        "quantization": "sq8",
    }
    graph.vacuum()
    assert (graph.stats()["deleted"], graph.stats()["rows"]) == (0, N - 100)
