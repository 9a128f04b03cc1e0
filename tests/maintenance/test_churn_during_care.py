"""Goal: records that change while an index is built anew, or copied, cost no recall."""

from __future__ import annotations

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
ROWS = awkward.shape("gauss", 7_000, DIM)
QUERIES = awkward.near(ROWS[4_000:], 60)


@pytest.fixture(autouse=True)
def graphs_are_walked(monkeypatch: pytest.MonkeyPatch) -> None:
    set_planner_costs(monkeypatch, scan_share=1e9)
    monkeypatch.setattr(limits, "flat_rows_max", 1)


def filled(db: Database, count: int) -> Any:
    docs = db.create_collection("docs", DIM, "l2", vecdb.Hnsw())
    docs.upsert(range(count), ROWS[:count])
    docs._backend.jobs.index_tail(2, all_rows=True)
    return docs


def recall(docs: Any) -> float:
    near = docs.search(QUERIES, 10, params=vecdb.SearchParams(ef=100))
    true = docs.search(QUERIES, 10, params=EXACT)
    return float((near.distances <= true.distances[:, -1:] * (1 + 1e-5)).mean())


def links_of_the_living(docs: Any) -> float:
    """Links to living rows that a living row of the graph has on average."""
    snapshot = docs._backend.state.snapshot
    view = snapshot.generation.index._view
    dead = snapshot.generation.rows.arrays.deleted[: view.indexed] != 0
    links = view.graph.links[: view.indexed]
    return float(((links >= 0) & ~dead[links]).sum(axis=1)[~dead].mean())


def once_at(row: int, change: Any) -> Any:
    """A `progress` that makes a change when so many rows are done."""
    left = [change]

    def progress(done: int, whole: int) -> None:
        if done >= row and left:
            left.pop()()

    return progress


@pytest.mark.parametrize("dead", [1_000, 3_900])
def test_the_first_rows_of_a_graph_die_before_others_are_linked(db: Database, dead: int) -> None:
    docs = filled(db, 7_000)
    jobs = docs._backend.jobs
    links = links_of_the_living(docs)
    jobs.rebuild(2, once_at(500, lambda: docs.delete(range(dead))))
    assert recall(docs) >= 0.95
    jobs.repair(2)
    assert recall(docs) >= 0.95 and links_of_the_living(docs) >= 0.8 * links
    assert docs.check() == []


def test_the_first_rows_are_left_out_of_a_graph_that_is_built_anew(db: Database) -> None:
    docs = filled(db, 7_000)
    links = links_of_the_living(docs)
    docs.delete(range(4_000))
    docs._backend.jobs.rebuild(2)
    assert recall(docs) >= 0.95 and links_of_the_living(docs) >= 0.9 * links


def test_most_records_of_a_graph_die_while_a_vacuum_copies_it(db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vecdb.maintenance.vacuum._PIECE_ROWS", 500)
    docs = filled(db, 7_000)
    links = links_of_the_living(docs)
    docs.delete(range(10))
    gone = np.setdiff1d(np.arange(4_000, 7_000), np.arange(4_000, 7_000, 4))
    docs._backend.jobs.vacuum(2, once_at(1_000, lambda: docs.delete(gone)))
    assert links_of_the_living(docs) >= 0.8 * links
    assert recall(docs) >= 0.95 and docs.check() == []
