"""Goal: tune, evaluate, explain, stats, backup and restore do what the public page says."""

from __future__ import annotations

import hashlib
import os
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vecdb
from tests.support.corpus import EXACT, GRAPH, clustered
from vecdb import limits
from vecdb.api.database import Database
from vecdb.embedded.backup import CHECKSUMS
from vecdb.embedded.open import open_database
from vecdb.errors import AlreadyExists, Corruption, InvalidArgument, NotFound
from vecdb.query import planner
from vecdb.storage.kv import keys

N, DIM = 3_000, 32


@pytest.fixture
def graph(db: Database, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(planner, "_SCAN_SHARE", 1e9)
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
    with pytest.raises(InvalidArgument, match="optimize"):
        docs.search(QUERIES[0], 10, params=vecdb.SearchParams(recall=0.95))
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


def digests(folder: Path) -> dict[str, str]:
    return {
        str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in folder.rglob("*")
        if file.is_file()
    }


@pytest.fixture
def copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(limits, "flat_rows_max", 10)
    with open_database(tmp_path / "db", maintenance=False) as db:
        docs = db.create_collection("docs", 4, "l2", GRAPH)
        docs.upsert(range(200), clustered(200, 4), [{"n": n} for n in range(200)])
        docs.delete(range(20))
        docs.optimize()
        db.create_collection("empty", 3)
        db.backup(tmp_path / "backup")
    return tmp_path / "backup"


def test_a_backup_restores_to_the_same_answers(copied: Path, tmp_path: Path) -> None:
    vecdb.restore(copied, tmp_path / "restored")
    with open_database(tmp_path / "db", read_only=True) as old, open_database(tmp_path / "restored") as new:
        assert new.check() == [] and new.collections() == ["docs", "empty"]
        for params in (None, EXACT):
            a, b = (one["docs"].search(np.ones((3, 4)), 200, params=params) for one in (old, new))
            assert np.array_equal(a.ids, b.ids) and np.array_equal(a.distances, b.distances) and a.fields == b.fields
        new["docs"].upsert(1, [1, 1, 1, 1])
        assert old["docs"].count() == 180 and new["docs"].count() == 181
    with pytest.raises(AlreadyExists, match="exists"):
        vecdb.restore(copied, tmp_path / "restored")
    with open_database(tmp_path / "db") as db, pytest.raises(AlreadyExists, match="exists"):
        db.backup(copied)


def test_one_damaged_byte_anywhere_is_corruption_and_no_target(copied: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(11)
    before = digests(copied)
    assert len(before) >= 6
    for name in before:
        file = copied / name
        whole = file.read_bytes()
        if name == CHECKSUMS:
            places = [at for at, byte in enumerate(whole) if chr(byte).isalnum()]
        else:
            places = list(range(len(whole)))
        for at in {places[0], places[-1], *rng.choice(places, 4).tolist()}:
            file.write_bytes(whole[:at] + bytes((whole[at] ^ 1,)) + whole[at + 1 :])
            with pytest.raises(Corruption, match=r"(?s).*"):
                vecdb.restore(copied, tmp_path / "restored")
            assert not (tmp_path / "restored").exists() and not (tmp_path / "restored.tmp").exists(), name
        for cut in (whole[:-1], whole + b"\0"):
            file.write_bytes(cut)
            if name != CHECKSUMS:
                with pytest.raises(Corruption):
                    vecdb.restore(copied, tmp_path / "restored")
        if name != CHECKSUMS:
            file.unlink()
            with pytest.raises(Corruption, match="missing"):
                vecdb.restore(copied, tmp_path / "restored")
        file.write_bytes(whole)
    assert digests(copied) == before
    vecdb.restore(copied, tmp_path / "restored")
    (copied / CHECKSUMS).unlink()
    with pytest.raises(NotFound, match="no backup"):
        vecdb.restore(copied, tmp_path / "other")


def test_a_backup_taken_while_writing_is_the_state_of_one_commit(tmp_path: Path) -> None:
    done = threading.Event()
    with open_database(tmp_path / "db", durability="relaxed") as db:
        docs = db.create_collection("docs", 4, "l2")
        docs.upsert([0, 1], [[0, 1, 1, 1]] * 2, [{"n": 0}] * 2)

        def write() -> None:
            n = 1
            while not done.is_set():
                docs.upsert([0, 1, n + 1], [[n, 1, 1, 1]] * 3, [{"n": n}] * 3)  # 0 and 1 always carry the same n
                n += 1

        thread = threading.Thread(target=write)
        thread.start()
        try:
            acknowledged = []
            for at in range(4):
                acknowledged.append(docs.get(0).fields["n"])
                db.backup(tmp_path / f"backup-{at}")
        finally:
            done.set()
            thread.join()
    for at in range(4):
        vecdb.restore(tmp_path / f"backup-{at}", tmp_path / f"restored-{at}")
        with open_database(tmp_path / f"restored-{at}") as db:
            assert db.check() == []
            zero, one = db["docs"].get([0, 1])
            n = zero.fields["n"]
            assert zero.fields == one.fields and n >= acknowledged[at]
            assert db["docs"].count() == n + 2 and db["docs"].search([n, 1, 1, 1], 1).distances[0] == 0


def test_a_damaged_sealed_index_is_rebuilt_and_answers_stay_exact(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "flat_rows_max", 10)
    monkeypatch.setattr(planner, "_SCAN_SHARE", 1e9)
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


def test_what_a_killed_creation_left_beside_the_database_goes_with_the_next(tmp_path: Path) -> None:
    torn = tmp_path / "db.tmp-4194305-0badcafe"  # past the largest number that Linux gives a process
    (torn / "lmdb").mkdir(parents=True)
    at_work = tmp_path / f"db.tmp-{os.getpid()}-0badcafe"
    at_work.mkdir()
    vecdb.open(tmp_path / "db").close()
    assert not torn.exists() and at_work.exists()


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
    docs = db.create_collection("docs", DIM, metric, vecdb.Hnsw(m=6, ef_construction=40))
    docs.upsert(range(400), vectors)
    docs._backend.jobs.index_tail(1, all_rows=True)
    graph = docs._backend.state.snapshot.generation.index._current().graph
    assert (len(graph.bias) > 0) == (metric == "l2" or (metric == "ip" and not same_norms))
    assert db.check() == []
    graph.codes[0] ^= 1
    assert any("codes that differ" in problem for problem in db.check())
