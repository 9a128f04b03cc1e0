"""Goal: a tree gets a graph beside it when somebody sees much of many rows, and answers stay what they were for all."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vecdb
from tests.support.corpus import EXACT, clustered
from tests.support.planner_costs import set_planner_costs
from vecdb import limits
from vecdb.api.database import Database
from vecdb.embedded.open import open_database
from vecdb.index.curator.companion_graph import CompanionGraph
from vecdb.index.curator.curator_index import CuratorIndex

N = 1_200
VECTORS = clustered(N + 400, 16)
QUERIES = clustered(30, 16, seed=9)
WHO = (None, "most", "some")


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    set_planner_costs(monkeypatch, graph_live_min=500, graph_rows=300)
    monkeypatch.setattr(limits, "flat_rows_max", 100)
    monkeypatch.setattr(limits, "index_step_rows", 64)
    monkeypatch.setattr(limits, "seal_rows_min", 64)


def lists(first: int, stop: int) -> list[list[str]]:
    return [["most"] * (one % 4 != 0) + ["some"] * (one % 12 == 1) for one in range(first, stop)]


def filled(db: Database) -> Any:
    docs = db.create_collection("docs", 16, "l2", vecdb.Curator(leaf_rows=16))
    docs.upsert(range(N), VECTORS[:N], tenants=lists(0, N))
    docs.optimize()
    return docs


def plan_of(docs: Any, tenant: str | None, **params: Any) -> str:
    return str(docs.search(QUERIES[0], 10, tenant=tenant, params=vecdb.SearchParams(**params), explain=True).plan)


def grown(db: Database) -> Any:
    docs = filled(db)
    assert plan_of(docs, "most") == "tree"  # who asks is not kept waiting
    docs.optimize()
    return docs


def agrees(docs: Any, among: range = range(N), least: float = 0.97) -> None:
    """Each tenant finds its own records, nearly all of the nearest; least : mean share of them."""
    for tenant in WHO:
        found = docs.search(QUERIES, 10, tenant=tenant)
        exact = docs.search(QUERIES, 10, tenant=tenant, params=EXACT)
        assert set(found.ids.ravel().tolist()) <= set(among)
        if tenant is not None:
            mine = set(docs.search(QUERIES[0], len(among), tenant=tenant, params=EXACT).ids.tolist())
            assert set(found.ids.ravel().tolist()) <= mine
        shared = [len(np.intersect1d(a, b)) for a, b in zip(found.ids, exact.ids, strict=True)]
        assert np.mean(shared) / 10 >= least, tenant


def test_who_sees_much_of_many_rows_goes_by_the_graph_and_others_by_the_tree(db: Database) -> None:
    docs = grown(db)
    assert [plan_of(docs, tenant) for tenant in WHO] == ["graph", "graph", "tree"]
    assert plan_of(docs, "most", nprobe=4) == "tree" and plan_of(docs, "most", exact=True) == "rows"
    assert docs.search(QUERIES[0], 10, params=vecdb.SearchParams(ef=123), explain=True).explain["ef"] == 123
    wide, narrow = (
        docs.search(QUERIES[0], 10, params=vecdb.SearchParams(recall=wanted), explain=True).explain["ef"]
        for wanted in (1.0, 0.1)
    )
    assert wide >= 64 >= narrow and wide > narrow
    assert docs.stats()["index_stats"]["graph"]["indexed_rows"] == N
    agrees(docs)
    assert docs.check() == []


def test_nobody_who_has_not_asked_has_one(db: Database) -> None:
    docs = filled(db)
    plan_of(docs, "some")
    plan_of(docs, "most", nprobe=4)
    docs.optimize()
    assert docs.stats()["index_stats"]["graph"] is None


def test_what_changes_is_seen_before_the_graph_has_it_and_after(db: Database) -> None:
    docs = grown(db)
    docs.upsert(range(N, N + 100), VECTORS[N : N + 100], tenants=lists(N, N + 100))
    docs.delete(range(300))
    docs.revoke(range(301, 400, 2), "most")
    there = range(300, N + 100)
    for _ in range(2):
        agrees(docs, there)
        assert docs.check() == []
        own = docs.search(VECTORS[N : N + 100], 1)
        assert np.array_equal(own.ids[:, 0], np.arange(N, N + 100)) and plan_of(docs, None) == "graph"
        assert not set(docs.search(QUERIES, 200, tenant="most").ids.ravel().tolist()) & set(range(301, 400, 2))
        docs.optimize()
    docs.vacuum()
    agrees(docs, there)
    assert docs.check() == []
    assert plan_of(docs, None) == "graph"


def test_it_is_sealed_beside_the_tree_and_opened_with_it(tmp_path: Path) -> None:
    with open_database(tmp_path / "db", maintenance=False) as db:
        answers = grown(db).search(QUERIES, 10)
    with open_database(tmp_path / "db", read_only=True) as reader:
        again = reader.collection("docs")
        assert plan_of(again, "most") == "graph"
        assert np.array_equal(again.search(QUERIES, 10).ids, answers.ids)
    with open_database(tmp_path / "db", maintenance=False) as db:
        docs = db.collection("docs")
        assert plan_of(docs, None) == "graph"
        agrees(docs)
        assert docs.check() == []
        db.backup(tmp_path / "copy")
        docs.upsert(range(N, N + 400), VECTORS[N:], tenants=lists(N, N + 400))
        docs.optimize()
        names = sorted(path.name.partition(".")[0] for path in (tmp_path / "db" / "collections").glob("*/*"))
        assert names == ["curator", "graph", "rows"], "and the files before it are gone"
    with open_database(tmp_path / "copy", read_only=True) as copy:
        assert plan_of(copy.collection("docs"), None) == "graph"
        agrees(copy.collection("docs"))


@pytest.mark.parametrize("damage", ["gone", "flipped"])
def test_a_damaged_file_of_it_costs_speed_and_no_answer(tmp_path: Path, damage: str) -> None:
    with open_database(tmp_path / "db", maintenance=False) as db:
        grown(db)
    (file,) = (tmp_path / "db" / "collections").glob("*/graph.*")
    if damage == "gone":
        file.unlink()
    else:
        torn = bytearray(file.read_bytes())
        torn[len(torn) // 2] ^= 8
        file.write_bytes(bytes(torn))
    with open_database(tmp_path / "db", maintenance=False) as db:
        docs = db.collection("docs")
        agrees(docs, least=1.0)
        docs.optimize()
        assert plan_of(docs, "most") == "tree"
        docs.optimize()
        assert plan_of(docs, "most") == "graph"
        agrees(docs)
        assert docs.check() == []


def test_maintenance_grows_it_a_step_at_a_time_and_seals_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    steps: list[int] = []
    sealed = threading.Event()
    grow, seal = CuratorIndex.grow_companion, CompanionGraph.seal

    def noted(index: CuratorIndex, threads: int = 1) -> None:
        grow(index, threads)
        assert index.companion.graph is not None
        steps.append(index.companion.graph.indexed_rows)

    def told(companion: CompanionGraph, beside: Path) -> Any:
        found = seal(companion, beside)
        if found is not None:
            sealed.set()
        return found

    monkeypatch.setattr(CuratorIndex, "grow_companion", noted)
    monkeypatch.setattr(CompanionGraph, "seal", told)
    with open_database(tmp_path / "db") as db:
        docs = filled(db)
        plan_of(docs, None)
        assert sealed.wait(60)
        assert steps[-1] > N - 64 and len(steps) > 2
        assert plan_of(docs, "most") == "graph"
        agrees(docs)
        assert docs.check() == []
