"""Goal: a graph whose links were chosen by codes that collapsed is built anew, by `optimize` and in the background."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vecdb
from tests.support import awkward
from tests.support.corpus import EXACT
from tests.support.planner_costs import set_planner_costs
from vecdb import limits
from vecdb.api.database import Database

DIM = 32
FIRST = awkward.shape("gauss", 2_000, DIM)
TIGHT = awkward.shape("clusters .001", 2_500, DIM, seed=2)


@pytest.fixture(autouse=True)
def graphs_are_walked(monkeypatch: pytest.MonkeyPatch) -> None:
    set_planner_costs(monkeypatch, scan_share=1e9)
    monkeypatch.setattr(limits, "flat_rows_max", 1)


def found(docs: Any) -> float:
    """Recall of the default search, on both kinds of records."""
    queries = np.concatenate([awkward.near(FIRST, 40), awkward.near(TIGHT, 40)])
    near, true = docs.search(queries, 10), docs.search(queries, 10, params=EXACT)
    return float((near.distances <= true.distances[:, -1:] * (1 + 1e-5)).mean())


def index_of(docs: Any) -> Any:
    return docs._backend.state.snapshot.generation.index


@pytest.mark.parametrize("kind", ["hnsw", "curator"])
def test_optimize_builds_it_anew(db: Database, kind: str) -> None:
    config = vecdb.Hnsw() if kind == "hnsw" else vecdb.Curator()
    docs = db.create_collection("docs", DIM, "l2", config)
    docs.upsert(range(2_000), FIRST)
    docs.optimize()
    if kind == "curator":
        assert index_of(docs).ask_for_graph()
        docs.optimize()
    docs.upsert(range(2_000, 4_500), TIGHT)
    docs.optimize()
    index = index_of(docs)
    graph = index if kind == "hnsw" else index.companion.graph
    assert graph.stats()["codes"] == "16 bit rotated" and graph.indexed_rows == 4_500 and not graph.is_spoiled
    if kind == "hnsw":
        assert docs.stats()["index_stats"]["codes_recall"] == 1.0
        assert found(docs) >= 0.95
    assert docs.check() == []


def test_maintenance_finds_it_due_and_a_reopened_database_keeps_the_format(tmp_path: Path) -> None:
    with vecdb.open(tmp_path / "db") as db:
        docs = db.create_collection("docs", DIM, "l2", vecdb.Hnsw())
        jobs = docs._backend.jobs  # type: ignore[attr-defined]
        with jobs.lock:  # the background waits
            docs.upsert(range(2_000), FIRST)
            jobs.index_tail(2, all_rows=True)
            assert not jobs.rebuild_is_due()
            docs.upsert(range(2_000, 4_500), TIGHT)
            jobs.index_tail(2, all_rows=True)
            assert index_of(docs).is_spoiled and jobs.rebuild_is_due()
            jobs.rebuild(2)
            assert not index_of(docs).is_spoiled and not jobs.rebuild_is_due()
            jobs.index_tail(2, all_rows=True)
            jobs.seal(2)
        assert found(docs) >= 0.95 and docs.check() == []
    with vecdb.open(tmp_path / "db", read_only=True) as db:
        docs = db["docs"]
        assert docs.stats()["index_stats"]["codes"] == "16 bit rotated"
        assert found(docs) >= 0.95 and docs.check() == []


def test_a_rebuild_ends_while_writers_wait_for_the_present_index(db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "index_step_rows", 64)
    docs = db.create_collection("docs", DIM, "l2", vecdb.Hnsw(m=8, ef_construction=40))
    jobs = docs._backend.jobs  # type: ignore[attr-defined]
    rows = awkward.shape("gauss", 64, DIM)
    index_tail, written = jobs.index_tail, [1_024]

    def write() -> None:
        docs.upsert(range(written[0], written[0] + 64), rows)
        written[0] += 64
        assert written[0] < 4_096, "it would never end"

    def and_writers_go_on(*args: Any) -> None:
        index_tail(*args)
        write()  # what waited for room

    with jobs.lock:  # the background waits
        docs.upsert(range(1_024), np.concatenate([rows + i for i in range(16)]))
        while jobs.tail_is_due() and index_of(docs).indexed_rows < 512:
            index_tail(1)
        monkeypatch.setattr(type(jobs), "index_tail", lambda _, *args: and_writers_go_on(*args))
        for _ in range(4):
            write()
        jobs.rebuild(1)
        monkeypatch.undo()
    assert written[0] > 1_280 and index_of(docs).indexed_rows >= 1_280
    assert docs.count() == written[0] and docs.check() == []
    docs.optimize()
    found = docs.search(rows + 3, 1, params=EXACT)
    assert (found.ids[:, 0] == np.arange(192, 256)).all()
