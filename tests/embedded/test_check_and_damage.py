"""Damage on disk is repaired or a typed error, and check finds it; a collection over its budget is refused at open."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vecdb
from tests.support.corpus import GRAPH, clustered
from tests.support.planner_costs import set_planner_costs
from vecdb import limits
from vecdb.api.database import Database
from vecdb.embedded.open import open_database
from vecdb.errors import Corruption
from vecdb.storage.kv import keys


def test_a_damaged_sealed_index_is_rebuilt_and_answers_stay_exact(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "flat_rows_max", 10)
    set_planner_costs(monkeypatch, scan_share=1e9)
    vectors = clustered(300, 8)
    with open_database(tmp_path / "db", maintenance=False) as db:
        docs = db.create_collection("docs", 8, "l2", GRAPH)
        docs.upsert(range(300), vectors)
        docs.optimize()
    [sealed] = (tmp_path / "db" / "collections").rglob("hnsw.*")
    whole = bytearray(sealed.read_bytes())
    for damage in ("flipped", "cut", "gone"):
        bad = bytes(whole[: len(whole) // 2]) if damage == "cut" else bytes(whole)
        if damage == "flipped":
            at = len(whole) * 2 // 3
            bad = bytes(whole[:at]) + bytes((whole[at] ^ 1,)) + bytes(whole[at + 1 :])
        [sealed] = (tmp_path / "db" / "collections").rglob("hnsw.*")
        whole = bytearray(sealed.read_bytes())
        sealed.unlink() if damage == "gone" else sealed.write_bytes(bad)
        with open_database(tmp_path / "db", maintenance=False) as db:
            docs = db["docs"]
            assert docs.stats()["index_state"] == "rebuilding"
            assert docs.search(vectors, 1).ids[:, 0].tolist() == list(range(300))
            assert any("rebuilt" in line for line in db.check())
            docs.optimize()
            assert docs.stats()["index_state"] == "ready" and db.check() == []
        whole = bytearray(next((tmp_path / "db" / "collections").rglob("hnsw.*")).read_bytes())


def test_a_damaged_vector_is_corruption_where_it_is_scored_and_in_check(tmp_path: Path) -> None:
    with open_database(tmp_path / "db", maintenance=False) as db:
        db.create_collection("docs", 4, "l2").upsert(range(50), clustered(50, 4))
        db.create_collection("sound", 4, "l2").upsert(range(50), clustered(50, 4))
    [file] = (tmp_path / "db" / "collections" / "00000001").glob("rows.*")
    raw = bytearray(file.read_bytes())
    raw[4096 + 16 * 31 + 5] ^= 4
    file.write_bytes(raw)
    with open_database(tmp_path / "db", maintenance=False) as db:
        with pytest.raises(Corruption, match="row 31"):
            db["docs"].search([1, 1, 1, 1])
        with pytest.raises(Corruption, match="row 31"):
            db["docs"].get(31, include_vectors=True)
        assert db["docs"].get(30, include_vectors=True) is not None
        assert [line for line in db.check() if "row 31" in line]
        assert len(db["sound"].search([1, 1, 1, 1])) == 10, "other collections stay up"


@pytest.mark.parametrize("index", [None, vecdb.Curator()], ids=["auto", "curator"])
def test_a_collection_over_its_memory_budget_is_refused_at_open(tmp_path: Path, index: Any) -> None:
    with vecdb.open(tmp_path / "db") as db:
        db.create_collection("docs", 8, "l2", index).upsert(range(1000), clustered(1000, 8))
    with (
        vecdb.open(tmp_path / "db", memory_budget_bytes=75_000) as db,
        pytest.raises(vecdb.Unavailable, match="memory_budget_bytes is 75,000"),
    ):
        db.collection("docs")
    with vecdb.open(tmp_path / "db", memory_budget_bytes=10_000_000) as db:
        assert db.collection("docs").count() == 1000


def test_nothing_beside_the_database_is_touched(tmp_path: Path) -> None:
    beside = [tmp_path / "db.tmp-4194305-0badcafe", tmp_path / f"db.tmp-{os.getpid()}-0badcafe", tmp_path / "db.tmp"]
    for folder in beside:
        (folder / "lmdb").mkdir(parents=True)
    vecdb.open(tmp_path / "db").close()
    assert all((folder / "lmdb").exists() for folder in beside)
    assert len(list(tmp_path.iterdir())) == 4, "a database is made in its place"


def test_a_key_that_leads_to_another_record_is_corruption_not_an_answer(db: Database) -> None:
    docs = db.create_collection("docs", 4, "l2")
    docs.upsert(["a", "b"], clustered(2, 4))
    prefix = keys.owner_prefix(docs._backend.state.snapshot.generation.prefix, b"")
    txn = db._backend.store.begin_write()
    txn.put(prefix + b"a", (1).to_bytes(8, "little"), db=db._backend.store.ids)
    txn.commit()
    assert docs.get("b").id == "b"
    with pytest.raises(vecdb.Corruption, match="leads to record 'b'"):
        docs.get("a")


@pytest.mark.parametrize("metric", ["l2", "cosine", "ip"])
@pytest.mark.parametrize("same_norms", [True, False])
def test_check_reads_the_codes_of_a_graph_of_each_metric(
    db: Database, monkeypatch: pytest.MonkeyPatch, metric: str, same_norms: bool
) -> None:
    monkeypatch.setattr(limits, "flat_rows_max", 100)
    vectors = clustered(400)
    if same_norms:  # under which inner products need no |x|^2 beside the codes
        vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    docs = db.create_collection("docs", 32, metric, vecdb.Hnsw(m=6, ef_construction=40))
    docs.upsert(range(400), vectors)
    docs._backend.jobs.index_tail(1, all_rows=True)
    graph = docs._backend.state.snapshot.generation.index._current().graph
    assert (len(graph.bias) > 0) == (metric == "l2" or (metric == "ip" and not same_norms))
    assert db.check() == []
    graph.codes[0] ^= 1
    assert any("codes that differ" in problem for problem in db.check())
