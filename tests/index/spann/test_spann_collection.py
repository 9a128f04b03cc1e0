"""Goal: a collection over posting lists answers in full and near the truth through churn, vacuum, reindexing, threads,
other processes and damage; it keeps the memory that it was given, and says what it did.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vecdb
from tests.support.corpus import EXACT, clustered, sound
from tests.support.threads import together
from vecdb import limits
from vecdb.api.database import Database
from vecdb.embedded import local_collection
from vecdb.embedded.open import open_database
from vecdb.errors import InvalidArgument, LimitExceeded, NotFound
from vecdb.index.spann import bulk_build
from vecdb.index.spann.spann_index import SpannIndex
from vecdb.maintenance import scheduler as maintenance_module
from vecdb.maintenance import vacuum as vacuum_module
from vecdb.maintenance.index_jobs import IndexMaintenance
from vecdb.query import planner, searcher
from vecdb.schema import SearchParams, Spann
from vecdb.state import collection_state

DIM = 32
KINDS = {"memory": Spann(), "disk": Spann(memory_budget_bytes=0), "both": Spann(memory_budget_bytes=6_000)}


@pytest.fixture(autouse=True)
def lists_are_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also in collections that a scan would serve better."""
    monkeypatch.setattr(limits, "flat_rows_max", 64)
    monkeypatch.setattr(limits, "index_step_rows", 32)


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> Spann:
    """Codes in memory, on disk, and the hottest of them in memory."""
    return KINDS[request.param]


def index_of(docs: Any) -> SpannIndex:
    index = docs._backend.state.snapshot.generation.index
    assert isinstance(index, SpannIndex)
    return index


def lengths_of(docs: Any) -> np.ndarray:
    snapshot = index_of(docs).lists.view
    assert snapshot is not None
    return snapshot.lengths


def held_bytes(docs: Any) -> int:
    """Bytes of codes in memory."""
    snapshot = index_of(docs).lists.view
    assert snapshot is not None
    return int(snapshot.body_bytes()[snapshot.body_offsets >= 0].sum())


def care(docs: Any) -> None:
    """What maintenance would come to do."""
    jobs = docs._backend.jobs
    jobs.index_tail(2, all_rows=True)
    jobs.repair(2)


def recall(docs: Any, queries: np.ndarray, params: SearchParams | None, limit: int = 10) -> float:
    near, true = docs.search(queries, limit, params=params), docs.search(queries, limit, params=EXACT)
    last = true.distances[:, -1:]
    return float((near.distances <= last + 1e-5 * np.maximum(1, np.abs(last))).mean())


def exact(docs: Any, queries: np.ndarray, limit: int = 10) -> bool:
    """Whether the answers of a plain search are those of an exact one."""
    near, true = docs.search(queries, limit), docs.search(queries, limit, params=EXACT)
    return bool(np.array_equal(near.ids, true.ids) and np.array_equal(near.distances, true.distances))


# -- churn -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["memory", "disk", pytest.param("both", marks=pytest.mark.slow)])
def test_recall_lengths_and_size_are_those_of_a_fresh_build_after_sixty_rounds_of_churn(
    tmp_path: Path, name: str
) -> None:
    """Each round replaces 1 % of the rows; new ones lie in a part of the data that wanders: lists grow there and empty
    elsewhere.
    """
    kind, n, step, wide = KINDS[name], 2_000, 20, SearchParams(nprobe=20)
    pool, queries = clustered(3 * n, DIM), clustered(400, DIM, seed=2)
    pool[n:] = pool[n:][np.argsort(pool[n:, 0] + 0.5 * clustered(2 * n, 1, seed=3)[:, 0], kind="stable")]
    rng = np.random.default_rng(4)
    current = dict(enumerate(pool[:n]))
    with open_database(tmp_path / "churned", maintenance=False, durability="relaxed") as db:
        docs = db.create_collection("docs", DIM, "l2", kind)
        docs.upsert(range(n), pool[:n])
        docs.optimize()
        for round in range(60):
            ids = rng.permutation(n)[:step]
            new = pool[n + round * 2 * step :][:step]
            docs.upsert(ids, new)
            current.update(zip(ids.tolist(), new, strict=True))
            care(docs)
            assert lengths_of(docs).max() <= index_of(docs).ceiling
            if kind.memory_budget_bytes is not None:
                assert held_bytes(docs) <= kind.memory_budget_bytes
            if round % 10 == 9:
                docs._backend.jobs.seal(2)
                assert index_of(docs).check() == []
                sound(docs.search(queries[:10], 20), set(range(n)), 20)
        docs.vacuum()
        assert db.check() == [] and docs.stats()["rows"] == n
        churned, heads = recall(docs, queries, wide), len(lengths_of(docs))
        docs.reindex(kind)
        fresh, fresh_heads = recall(docs, queries, wide), len(lengths_of(docs))
        print(f"recall churned {churned:.4f}, fresh {fresh:.4f}; lists {heads}, fresh {fresh_heads}")
        assert fresh > 0.9 and churned >= fresh - 0.01
        docs.upsert(ids, new)  # as large as before the vacuum
        docs.vacuum()
    with open_database(tmp_path / "churned", maintenance=False) as db:
        sound(db["docs"].search(queries[:20], 10), set(range(n)), 10)
        used = db["docs"].stats()["bytes_disk"]
    with open_database(tmp_path / "fresh", maintenance=False, durability="relaxed") as db:
        docs = db.create_collection("docs", DIM, "l2", kind)
        docs.upsert(list(current), np.stack(list(current.values())))
        docs.optimize()
    with open_database(tmp_path / "fresh", maintenance=False) as db:
        fresh_used = db["docs"].stats()["bytes_disk"]
    print(f"bytes {used} of {fresh_used}")
    assert used <= 1.3 * fresh_used


def test_the_files_of_a_collection_stay_bounded_without_a_vacuum(tmp_path: Path) -> None:
    """Lists that change get new extents: the old ones are let go of before they outweigh what is in use."""
    with open_database(tmp_path / "db", maintenance=False, durability="relaxed") as db:
        docs = db.create_collection("docs", DIM, "l2", KINDS["disk"])
        docs.upsert(range(1_500), clustered(1_500))
        docs.optimize()
        sizes = []
        for round in range(30):
            docs.upsert(range(1_500 + 40 * round, 1_540 + 40 * round), clustered(40, seed=round))
            docs.delete(range(40 * round, 40 * round + 40))
            care(docs)
            docs._backend.jobs.seal(2)
            stats = docs.stats()["index_stats"]
            assert stats["list_file_garbage_bytes"] <= 0.5 * stats["list_file_bytes"] + 64 * 4096
            sizes.append(stats["list_file_bytes"])
            files = {path.name for path in docs._backend.state.folder.iterdir()}
            assert len(files) == 3, files  # rows, lists, and what is sealed
        assert sizes != sorted(sizes), "it was written anew"
        assert index_of(docs).check() == []


# -- full answers ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("metric", "name"), [("l2", "memory"), ("cosine", "disk"), ("ip", "both")])
@pytest.mark.parametrize("cared", [False, True], ids=["as deleted", "cared for"])
def test_answers_are_full_whatever_share_is_deleted(
    db: Database, metric: str, name: str, cared: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "flat_rows_max", 0)
    n = 400
    vectors, queries = clustered(n, 16), clustered(6, 16, seed=2)
    order = np.random.default_rng(3).permutation(n)
    docs = db.create_collection("docs", 16, metric, KINDS[name])
    docs.upsert(range(n), vectors)
    docs.optimize()
    live = set(range(n))
    for share in (0, 50, 95, 99.5, 100):
        gone = [one for one in order[: int(n * share / 100)].tolist() if one in live]
        docs.delete(gone)
        live -= set(gone)
        if cared:
            care(docs)
            assert index_of(docs).check() == []
        for limit in (1, 10, len(live) or 1, n + 1, limits.limit_max):
            hits = docs.search(queries, limit, params=SearchParams(nprobe=2), explain=True)
            assert hits.plan == "lists"
            sound(hits, live, limit)
    assert docs.count() == 0
    docs.upsert(7, vectors[7])
    sound(docs.search(queries, 3), {7}, 3)
    docs.optimize()
    docs.vacuum()
    assert docs.search(vectors[7], 3).ids.tolist() == [7] and db.check() == []


@pytest.mark.parametrize(("metric", "name"), [("l2", "memory"), ("cosine", "disk"), ("ip", "both")])
def test_what_is_found_before_after_and_between_reopenings_is_the_same(tmp_path: Path, metric: str, name: str) -> None:
    vectors, queries = clustered(1_500), clustered(100, seed=2)
    wide = SearchParams(nprobe=24)
    with open_database(tmp_path / "db", maintenance=False, durability="relaxed") as db:
        docs = db.create_collection("docs", DIM, metric, KINDS[name])
        docs.upsert(range(1_400), vectors[:1_400])
        docs.optimize()
        docs.upsert(range(1_400, 1_500), vectors[1_400:])  # the tail
        docs.delete(range(0, 1_500, 9))
        before = docs.search(queries, 10, params=wide)
        assert recall(docs, queries, wide) > 0.9
        expected = docs.search(queries, 10, params=EXACT)
        same = {one: at for at, one in enumerate(expected.ids[0].tolist())}
        for one, distance in zip(before.ids[0].tolist(), before.distances[0].tolist(), strict=True):
            assert one not in same or distance == expected.distances[0, same[one]]
    with open_database(tmp_path / "db", maintenance=False) as db:
        docs = db["docs"]
        assert docs.stats()["sealed_rows"] == 1_400 and docs.config.index == KINDS[name]
        again = docs.search(queries, 10, params=wide)
        assert np.array_equal(before.ids, again.ids) and np.array_equal(before.distances, again.distances)
        docs.optimize()
        assert docs.stats()["tail_rows"] == 0 and recall(docs, queries, wide) > 0.9 and db.check() == []


# -- threads ---------------------------------------------------------------------------------------


def test_searches_beside_writes_vacuum_and_reindexing_are_full_and_true_until_the_drop(
    tmp_path: Path, kind: Spann, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The vector of an id never changes, so every distance can be computed again; ids are deleted in ascending order,
    and what was acknowledged as deleted before a search began is in none of its answers.
    """
    monkeypatch.setattr(limits, "seal_rows_min", 128)
    monkeypatch.setattr(vacuum_module, "_PIECE_ROWS", 256)
    n, more = 900, 500
    vectors, queries = clustered(n + more, 16), clustered(40, 16, seed=2)
    kept = n - 300
    deleted, calls, dropping = [0], [0], threading.Event()
    with open_database(tmp_path / "db", durability="relaxed") as db:
        docs = db.create_collection("docs", 16, "l2", kind)
        docs.upsert(range(n), vectors[:n])
        docs.optimize()

        def write() -> None:
            for at in range(30):
                docs.delete(range(10 * at, 10 * at + 10))
                deleted[0] = 10 * at + 10
                docs.upsert(range(n + 16 * at, n + 16 * at + 16), vectors[n + 16 * at :][:16])
                again = np.random.default_rng(at).integers(300, n, 30)
                docs.upsert(again, vectors[again])

        def move() -> None:
            others = [vecdb.Flat(), kind, vecdb.Hnsw(m=4, ef_construction=24), replace(kind, bits=4), kind]
            for other in others:
                docs.vacuum()
                docs.reindex(other)

        def change() -> None:
            try:
                together(write, move)
                docs.vacuum()
                assert db.check() == [] and docs.count() == kept + 480
            finally:
                dropping.set()
                db.drop_collection("docs")

        def search(seed: int) -> None:
            rng = np.random.default_rng(seed)
            while True:
                gone, which = deleted[0], rng.integers(0, 40, int(rng.choice([1, 3, 20])))
                limit = int(rng.choice([1, 10, 200, kept]))
                try:
                    hits = docs.search(queries[which], limit, params=SearchParams(nprobe=int(rng.choice([1, 8, 64]))))
                except NotFound:
                    assert dropping.is_set()
                    return
                assert (hits.counts == limit).all()
                truth = ((vectors[hits.ids].astype(np.float64) - queries[which][:, None]) ** 2).sum(2)
                assert np.allclose(hits.distances, truth, rtol=1e-4, atol=1e-4)
                assert (np.diff(hits.distances, axis=1) >= 0).all() and hits.ids.min() >= gone
                assert all(len(set(line)) == limit for line in hits.ids.tolist())
                calls[0] += 1

        together(change, lambda: search(1), lambda: search(2))
        assert calls[0] > 20 and "docs" not in db.collections()


# -- parameters ------------------------------------------------------------------------------------

BAD = [
    {"bits": 3}, {"bits": 0}, {"bits": 16}, {"bits": "2"}, {"bits": True}, {"bits": 2.0}, {"bits": None},
    {"replicas": 0}, {"replicas": 9}, {"replicas": 1.5}, {"replicas": True},
    {"head_ratio": 0}, {"head_ratio": 0.0005}, {"head_ratio": 0.3}, {"head_ratio": float("nan")},
    {"head_ratio": float("inf")}, {"head_ratio": "0.1"}, {"head_ratio": None}, {"head_ratio": True},
    {"nprobe": 0}, {"nprobe": -1}, {"nprobe": 65_537}, {"nprobe": 3.0}, {"nprobe": "many"},
    {"rerank": 0}, {"rerank": 65_537}, {"rerank": [40]},
    {"memory_budget_bytes": -1}, {"memory_budget_bytes": 1.5}, {"memory_budget_bytes": 1 << 63},
    {"posting_bytes_max": 4_095}, {"posting_bytes_max": (1 << 24) + 1}, {"posting_bytes_max": "8 KiB"},
]  # fmt: skip


@pytest.mark.parametrize("bad", BAD, ids=[str(one) for one in BAD])
def test_a_bad_parameter_is_refused_and_nothing_is_written(db: Database, docs: Any, bad: dict[str, Any]) -> None:
    before, state = docs.stats(), db.stats()["commits"]
    name = next(iter(bad))
    for call in (lambda: db.create_collection("other", 4, "l2", Spann(**bad)), lambda: docs.reindex(Spann(**bad))):
        with pytest.raises(InvalidArgument, match=name):
            call()
    assert db.collections() == ["docs"] and docs.stats() == before and db.stats()["commits"] == state


def test_bounds_of_a_parameter_are_taken_and_kept(tmp_path: Path) -> None:
    least = Spann(1, 1, limits.head_ratio_min, 1, 1, 0, limits.posting_bytes_min)
    most = Spann(8, 8, limits.head_ratio_max, limits.nprobe_max, limits.rerank_max, 1 << 40, limits.posting_bytes_max)
    with open_database(tmp_path / "db", maintenance=False, durability="relaxed") as db:
        for name, index in (("least", least), ("most", most)):
            docs = db.create_collection(name, 16, "l2", index)
            docs.upsert(range(600), clustered(600, 16))
            docs.optimize()
            sound(docs.search(clustered(4, 16, seed=2), 700), set(range(600)), 700)
    with open_database(tmp_path / "db", maintenance=False) as db:
        assert db["least"].config.index == least and db["most"].config.index == most
        assert recall(db["most"], clustered(50, 16, seed=2), None) > 0.98 and db.check() == []


@pytest.mark.parametrize("nprobe", [0, -1, 1.5, True, "8", limits.nprobe_max + 1])
def test_a_bad_nprobe_of_a_search_is_refused(db: Database, nprobe: Any) -> None:
    docs = db.create_collection("docs", 4, "l2", Spann())
    with pytest.raises(InvalidArgument, match="nprobe"):
        docs.search(np.ones(4), 3, params=SearchParams(nprobe=nprobe))
    with pytest.raises(InvalidArgument, match="not both"):
        docs.search(np.ones(4), 3, params=SearchParams(nprobe=4, recall=0.9))
    assert issubclass(LimitExceeded, InvalidArgument)


# -- what it says ----------------------------------------------------------------------------------


@pytest.fixture
def corpus(db: Database) -> Any:
    """collection(index, n=, metric=) -> docs in which n clustered rows are indexed."""

    def one(index: Spann, n: int = 2_000, metric: str = "l2") -> Any:
        docs = db.create_collection("docs", DIM, metric, index)
        docs.upsert(range(n), clustered(n))
        docs.optimize()
        return docs

    return one


def test_explain_counts_probes_rows_reads_and_bytes(corpus: Any, kind: Spann) -> None:
    docs = corpus(kind)
    docs.upsert(range(2_000, 2_010), clustered(10, seed=3))
    heads = len(lengths_of(docs))
    reports = {}
    for nprobe in (1, 8, heads):
        docs._backend.state.snapshot.generation.index._context = None
        report = docs.search(clustered(1, seed=2)[0], 10, params=SearchParams(nprobe=nprobe), explain=True).explain
        assert (report["plan"], report["nprobe"], report["ef"]) == ("lists", nprobe, None)
        assert (report["reason"], report["index_state"], report["tail_rows"]) == ("nprobe given", "ready", 10)
        assert 1 <= report["probes"] <= heads and report["heads_compared"] >= report["probes"]
        assert 0 < report["rows_scanned"] <= lengths_of(docs).sum()
        assert report["bytes_read"] % 4096 == 0 and report["bytes_read"] >= 4096 * report["reads"] > 0
        assert 10 <= report["reranked"] <= 60
        assert all(report[name] >= 0 for name in ("heads_ms", "scan_ms", "read_ms", "rerank_ms"))
        parts = sum(report[name] for name in ("heads_ms", "scan_ms", "read_ms", "rerank_ms"))
        assert parts <= report["search_ms"] <= report["total_ms"]
        reports[nprobe] = report
    assert reports[1]["rows_scanned"] < reports[8]["rows_scanned"] <= reports[heads]["rows_scanned"]
    assert reports[heads]["rows_scanned"] > 0.3 * lengths_of(docs).sum()
    if kind.memory_budget_bytes is None:
        assert all(report["reads"] <= report["reranked"] for report in reports.values()), "vectors alone are read"
    if kind.memory_budget_bytes == 0:
        assert all(report["reads"] > report["probes"] for report in reports.values()), "lists are read as well"
    true = docs.search(clustered(1, seed=2)[0], 10, params=EXACT, explain=True).explain
    assert true["plan"] == "exact" and true["nprobe"] is None and "probes" not in true


def test_work_of_a_batch_is_that_of_its_queries_whatever_the_threads(corpus: Any, kind: Spann) -> None:
    docs = corpus(replace(kind, memory_budget_bytes=0) if kind.memory_budget_bytes else kind)
    queries = clustered(50, seed=2)
    single = [docs.search(query, 10, params=SearchParams(nprobe=8), explain=True) for query in queries]
    for threads in (1, 3):
        batch = docs.search(queries, 10, params=SearchParams(nprobe=8, threads=threads), explain=True)
        for name in ("probes", "heads_compared", "rows_scanned", "reranked"):
            assert batch.explain[name] == sum(one.explain[name] for one in single), name
        assert np.array_equal(batch.ids, np.stack([one.ids for one in single]))
        assert batch.explain["reads"] <= sum(one.explain["reads"] for one in single), "a slice reads a list once"


def test_stats_say_what_lists_there_are_and_what_they_take(corpus: Any, kind: Spann) -> None:
    docs = corpus(kind)
    stats, index = docs.stats(), docs.stats()["index_stats"]
    names = {
        "kind", "bits", "replicas", "indexed_rows", "heads", "groups", "entries", "list_length", "ceiling",
        "pending_splits", "lists_in_memory", "far_rows", "list_file_bytes", "list_file_garbage_bytes",
        "removed_sequence", "bytes_ram",
    }  # fmt: skip
    assert names <= set(index)
    lengths, replicas = lengths_of(docs), 4 if kind.memory_budget_bytes == 0 else 1
    assert (index["kind"], index["bits"], index["replicas"], index["indexed_rows"]) == ("spann", 2, replicas, 2_000)
    assert index["heads"] == len(lengths) >= 0.01 * 2_000 and 1 <= index["groups"] <= index["heads"]
    assert 2_000 <= index["entries"] == lengths.sum() <= 2_000 * replicas
    length = index["list_length"]
    assert length["p1"] <= length["p50"] <= length["p99"] <= length["max"] == lengths.max() <= index["ceiling"]
    assert length["mean"] == pytest.approx(index["entries"] / index["heads"])
    assert index["pending_splits"] == 0 and 0 <= index["far_rows"] < 20
    assert index["list_file_bytes"] % 4096 == 0 and index["list_file_bytes"] >= held_bytes(docs)
    assert 0 <= index["list_file_garbage_bytes"] < index["list_file_bytes"]
    in_memory = {None: index["heads"], 0: int((lengths == 0).sum())}.get(kind.memory_budget_bytes)
    if in_memory is None:
        assert 0 < index["lists_in_memory"] < index["heads"] and held_bytes(docs) <= 6_000
    else:
        assert index["lists_in_memory"] == in_memory
    assert stats["index"]["kind"] == "spann" and stats["bytes_ram"] > index["bytes_ram"] > held_bytes(docs)
    assert stats["bytes_disk"] >= index["list_file_bytes"] + 2_000 * DIM * 4
    assert (stats["sealed_rows"], stats["tail_rows"], stats["index_state"]) == (2_000, 0, "ready")
    docs.delete(range(100))
    care(docs)
    assert docs.stats()["index_stats"]["removed_sequence"] == docs._backend.state.snapshot.visibility.sequence


# -- how many lists are looked at -----------------------------------------------------------------


def nprobe_of(docs: Any, params: SearchParams | None = None, limit: int = 10) -> tuple[int, str]:
    report = docs.search(clustered(1, seed=2)[0], limit, params=params, explain=True).explain
    assert report["plan"] == "lists"
    return report["nprobe"], report["reason"]


def test_nprobe_comes_from_the_call_then_from_what_was_tuned_then_from_the_index(db: Database) -> None:
    docs = db.create_collection("docs", DIM, "l2", Spann(nprobe=5))
    docs.upsert(range(2_000), clustered(2_000))
    care(docs)
    assert nprobe_of(docs) == (5, "default of the index")
    assert nprobe_of(docs, SearchParams(nprobe=3)) == (3, "nprobe given")
    with pytest.raises(InvalidArgument, match="optimize"):
        docs.search(clustered(1)[0], 10, params=SearchParams(recall=0.9))
    docs.optimize()
    assert nprobe_of(docs) == (5, "default of the index"), "the user's own number is left alone by optimize"
    curve = docs.tune(clustered(200, seed=2), recall=0.9)
    assert all(set(point) == {"nprobe", "recall", "queries_per_second"} for point in curve)
    assert [point["nprobe"] for point in curve] == sorted({point["nprobe"] for point in curve}) and len(curve) > 1
    chosen = next(point["nprobe"] for point in curve if point["recall"] >= 0.9)
    assert nprobe_of(docs) == (chosen, "tuned")
    docs.optimize()
    assert nprobe_of(docs) == (chosen, "tuned"), "what the user tuned, optimize leaves alone"
    assert nprobe_of(docs, SearchParams(nprobe=3)) == (3, "nprobe given")
    docs.reindex(Spann())
    assert nprobe_of(docs) == (planner.NPROBE, "default of the index"), "another index forgets what was learned"


@pytest.mark.parametrize(
    ("metric", "name"), [("l2", "memory"), ("cosine", "memory"), ("ip", "memory"), ("cosine", "disk"), ("ip", "disk")]
)
def test_a_recall_that_was_asked_for_is_reached_by_queries_that_are_not_stored(
    corpus: Any, metric: str, name: str
) -> None:
    docs = corpus(KINDS[name], 2_000, metric)
    assert nprobe_of(docs)[1] == "tuned", "optimize chose where the index says nothing"
    queries, widths = clustered(300, seed=2), []
    for wanted in (0.8, 0.95, 0.99):
        report = docs.evaluate(queries, 10, params=SearchParams(recall=wanted))
        print(metric, wanted, report["recall"], report["nprobe"])
        assert report["plan"] == "lists" and report["recall"] >= min(wanted, 0.98)
        widths.append(report["nprobe"])
    assert widths == sorted(widths) and widths[-1] >= 10
    assert recall(docs, queries, None) >= 0.93


# -- memory ----------------------------------------------------------------------------------------


def test_a_budget_of_the_database_keeps_codes_on_disk(tmp_path: Path) -> None:
    budget, vectors, queries = 8_000, clustered(3_000), clustered(60, seed=2)
    wide = SearchParams(nprobe=24)
    with open_database(tmp_path / "db", maintenance=False, durability="relaxed") as db:
        docs = db.create_collection("docs", DIM, "l2", Spann())
        docs.upsert(range(3_000), vectors)
        care(docs)
        docs._backend.jobs.seal(2)
        all_bytes = held_bytes(docs)
        reached = recall(docs, queries, wide)
    assert all_bytes > 4 * budget
    with open_database(tmp_path / "db", maintenance=False, memory_budget_bytes=budget) as db:
        docs = db["docs"]
        assert held_bytes(docs) <= budget and docs.config.index == Spann()
        again = docs.search(queries, 10, params=wide, explain=True)
        assert recall(docs, queries, wide) >= reached - 0.005 and again.explain["reads"] > again.explain["probes"] / 60
        for round in range(6):
            docs.upsert(range(3_000 + 200 * round, 3_200 + 200 * round), clustered(200, seed=10 + round))
            docs.delete(range(100 * round, 100 * round + 100))
            care(docs)
            docs.search(queries, 10, params=wide)
            assert held_bytes(docs) <= budget
        docs.vacuum()
        assert held_bytes(docs) <= budget and db.check() == []
        docs.reindex(Spann(bits=4))
        assert held_bytes(docs) <= budget
        docs.reindex(Spann(memory_budget_bytes=1 << 30))
        assert held_bytes(docs) > budget, "a budget of the collection's own counts before the database's"
    with open_database(tmp_path / "db", maintenance=False) as db:
        index = db["docs"]._backend.state.snapshot.generation.index
        assert held_bytes(db["docs"]) == index.lists.view.body_bytes().sum()


# -- other processes -------------------------------------------------------------------------------

_FOLLOWER = """
import json, sys
import vecdb
from vecdb import limits
limits.flat_rows_max = 64
db = vecdb.open(sys.argv[1], read_only=True)
docs = db.collection("docs")
for line in sys.stdin:
    query, limit, nprobe = json.loads(line)
    near = docs.search(query, limit, params=vecdb.SearchParams(nprobe=nprobe), explain=True)
    true = docs.search(query, limit, params=vecdb.SearchParams(exact=True))
    print(json.dumps({
        "count": docs.count(), "near": near.ids.tolist(), "true": true.ids.tolist(), "plan": near.explain["plan"],
        "distances": near.distances.tolist(), "truth": true.distances.tolist(), "sequence": near.sequence,
        "indexed": near.explain["indexed_rows"], "state": docs.stats()["index_state"],
        "kind": docs.stats()["index"]["kind"], "sealed": docs.stats()["sealed_rows"],
    }), flush=True)
db.close()
"""


class Follower:
    """A process that has the database open for reading."""

    def __init__(self, path: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", _FOLLOWER, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env={**os.environ, "PYTHONPATH": str(Path(vecdb.__file__).parent.parent)},
        )  # fmt: skip

    def ask(self, queries: np.ndarray, limit: int, nprobe: int) -> dict[str, Any]:
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(json.dumps([queries.tolist(), limit, nprobe]) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        assert line, "the reading process died"
        return dict(json.loads(line))


@contextmanager
def following(path: Path) -> Iterator[Follower]:
    follower = Follower(path)
    try:
        yield follower
    finally:
        assert follower.process.stdin is not None and follower.process.stdout is not None
        follower.process.stdin.close()
        assert follower.process.wait(60) == 0
        follower.process.stdout.close()


@pytest.mark.parametrize(
    "name", ["disk", pytest.param("memory", marks=pytest.mark.slow), pytest.param("both", marks=pytest.mark.slow)]
)
def test_a_reading_process_follows_a_writer_that_seals_splits_vacuums_and_reindexes(tmp_path: Path, name: str) -> None:
    kind, vectors, queries = KINDS[name], clustered(3_000), clustered(20, seed=2)
    live: set[int] = set()
    with open_database(tmp_path / "db", maintenance=False, durability="relaxed") as db:
        docs = db.create_collection("docs", DIM, "l2", kind)
        with following(tmp_path / "db") as follower:

            def look(plan: str, indexed: int) -> None:
                got = follower.ask(queries, 10, 1 << 15)
                assert (got["plan"], got["indexed"], got["count"]) == (plan, indexed, len(live))
                assert got["sequence"] == docs._backend.state.snapshot.visibility.sequence
                assert {one for line in got["near"] for one in line} <= live
                true = docs.search(queries, 10, params=EXACT)
                assert got["true"] == true.ids.tolist()
                near = np.array(got["distances"])
                assert (near <= true.distances[:, -1:] * (1 + 1e-5)).mean() > 0.9 and near.shape == (20, 10)

            def write(first: int, stop: int) -> None:
                docs.upsert(range(first, stop), vectors[first:stop])
                live.update(range(first, stop))

            write(0, 800)
            look("exact", 0)
            care(docs)
            docs._backend.jobs.seal(2)
            heads = len(lengths_of(docs))
            look("lists", 800)
            write(800, 1_400)
            look("lists", 800)  # the rest is its tail
            care(docs)
            look("lists", 800)  # what the writer has placed but not sealed is its own
            docs._backend.jobs.seal(2)
            look("lists", 1_400)
            for stop in range(1_800, 3_001, 400):
                docs.delete(range(stop - 1_800, stop - 1_500))
                live.difference_update(range(stop - 1_800, stop - 1_500))
                write(stop - 400, stop)
                care(docs)
                docs._backend.jobs.seal(2)
                look("lists", stop)
            assert len(lengths_of(docs)) > heads, "lists were split"
            docs.vacuum()
            look("lists", len(live))
            docs.reindex(vecdb.Flat())
            look("exact", len(live))
            docs.reindex(replace(kind, bits=8))
            look("lists", len(live))
            docs.delete(sorted(live)[:50])
            live.difference_update(sorted(live)[:50])
            look("lists", len(live) + 50)


# -- a bulk load -----------------------------------------------------------------------------------


def test_a_bulk_load_is_indexed_once_it_pauses_or_somebody_searches_or_asks(
    db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    serve = db._backend._maintenance._serve  # type: ignore[union-attr]
    monkeypatch.setattr(collection_state, "_WRITTEN_S", 1e9)  # the load goes on
    monkeypatch.setattr(searcher, "_SEARCHED_S", 0.0)  # nobody searches
    docs = db.create_collection("docs", DIM, "l2", Spann())
    jobs = docs._backend.jobs
    for first in range(0, 800, 200):
        docs.upsert(range(first, first + 200), clustered(200, seed=first))
        serve(jobs)
        assert jobs.writes.is_loading() and jobs.tail_is_deferred() and not jobs.tail_is_due()
        assert docs.stats()["indexed_rows"] == 0
    with monkeypatch.context() as patch:
        patch.setattr(collection_state, "_WRITTEN_S", 0.0)
        assert jobs.tail_is_due() and not jobs.tail_is_deferred()
        serve(jobs)
        assert docs.stats()["tail_rows"] < limits.index_step_rows
    docs.upsert(range(800, 1_000), clustered(200, seed=8))
    serve(jobs)
    assert docs.stats()["tail_rows"] >= 200 and jobs.tail_is_deferred(), "it waits beside what is indexed, too"
    with monkeypatch.context() as patch:
        patch.setattr(limits, "tail_rows_bulk_max", 300)
        assert jobs.tail_is_due(), "but not until writers would have to wait for it"
    with monkeypatch.context() as patch:
        patch.setattr(searcher, "_SEARCHED_S", 1e9)
        docs.search(np.ones(DIM), 3)
        assert jobs.tail_is_due() and not jobs.tail_is_deferred()
        serve(jobs)
        assert docs.stats()["tail_rows"] < limits.index_step_rows
    docs.upsert(range(1_000, 1_200), clustered(200, seed=9))
    serve(jobs)
    assert docs.stats()["tail_rows"] >= 200
    docs.optimize()
    assert docs.stats()["tail_rows"] == 0 and jobs.tail_is_deferred() is False and db.check() == []
    graph = db.create_collection("graph", DIM, "l2", vecdb.Hnsw(m=4, ef_construction=24))
    graph.upsert(range(200), clustered(200))
    assert graph._backend.jobs.tail_is_due(), "a graph is built a row at a time and gains nothing by waiting"


def test_maintenance_looks_again_by_itself_whether_a_load_has_paused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(collection_state, "_WRITTEN_S", 1e9)
    monkeypatch.setattr(searcher, "_SEARCHED_S", 0.0)
    monkeypatch.setattr(maintenance_module, "_LOAD_CHECK_S", 0.01)
    looked, indexed = threading.Semaphore(0), threading.Event()
    waits, index_tail = IndexMaintenance.tail_is_deferred, IndexMaintenance.index_tail

    def tail_is_deferred(self: IndexMaintenance) -> bool:
        looked.release()
        return waits(self)

    def tail_indexed(self: IndexMaintenance, *arguments: Any, **named: Any) -> None:
        index_tail(self, *arguments, **named)
        indexed.set()

    monkeypatch.setattr(IndexMaintenance, "tail_is_deferred", tail_is_deferred)
    monkeypatch.setattr(IndexMaintenance, "index_tail", tail_indexed)
    with open_database(":memory:") as db:
        docs = db.create_collection("docs", DIM, "l2", Spann())
        docs.upsert(range(400), clustered(400))
        for _ in range(8):
            assert looked.acquire(timeout=60)
        assert not indexed.is_set() and docs.stats()["indexed_rows"] == 0
        monkeypatch.setattr(collection_state, "_WRITTEN_S", 0.0)  # nothing is committed from here on
        assert indexed.wait(60)
        assert docs.stats()["indexed_rows"] >= 400 - limits.index_step_rows


# -- a build that is stopped -----------------------------------------------------------------------


class Stopped(Exception):
    pass


def stopped_build(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A closed database whose one bulk build ended once all rows had found their lists."""
    monkeypatch.setattr(limits, "saved_build_rows_min", 256)

    def stop(*_: Any, **__: Any) -> None:
        raise Stopped

    with monkeypatch.context() as patch, open_database(folder, maintenance=False, durability="relaxed") as db:
        docs = db.create_collection("docs", DIM, "l2", KINDS["disk"])
        docs.upsert(range(1_500), clustered(1_500))
        patch.setattr(bulk_build, "_bodies", stop)
        with pytest.raises(Stopped):
            docs.optimize()


def left_by_a_build(docs: Any) -> dict[str, bytes]:
    return {
        path.name: path.read_bytes()
        for path in docs._backend.state.folder.iterdir()
        if path.name[:4] in ("tree", "entr")
    }


def test_an_open_keeps_what_the_next_build_can_use_and_the_seal_ends_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stopped_build(tmp_path / "db", monkeypatch)
    with open_database(tmp_path / "db", maintenance=False) as db:
        docs = db["docs"]
        left = left_by_a_build(docs)
        assert len(left) == 2
        with monkeypatch.context() as patch:
            patch.setattr(bulk_build, "grow_tree", None)
            docs.optimize()
        assert docs.stats()["index_state"] == "ready" and left_by_a_build(docs) == {}
        assert recall(docs, clustered(20, seed=2), None) > 0.9 and db.check() == []
        folder = docs._backend.state.folder
    for name, raw in left.items():
        (folder / name).write_bytes(raw)  # as after a crash between the commit of a seal and the removal of these
    with open_database(tmp_path / "db", maintenance=False) as db:
        assert left_by_a_build(db["docs"]) == {}, "the index has been sealed since"


def test_a_vacuum_and_a_drop_leave_nothing_of_a_stopped_build(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stopped_build(tmp_path / "db", monkeypatch)
    with open_database(tmp_path / "db", maintenance=False) as db:
        docs = db["docs"]
        docs.delete(range(100))
        docs.vacuum()
        assert left_by_a_build(docs) == {} and docs.count() == 1_400
        docs.optimize()
        assert docs.stats()["tail_rows"] == 0 and db.check() == []
        folder = docs._backend.state.folder
        db.drop_collection("docs")
        assert not folder.exists()


def test_progress_of_optimize_counts_learning_and_ends_with_the_last_row(
    db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    docs = db.create_collection("docs", DIM, "l2", Spann())
    docs.upsert(range(1_500), clustered(1_500))
    reports: list[tuple[int, int]] = []
    before: list[int] = []
    learn_recall_curve = local_collection.learn_recall_curve
    monkeypatch.setattr(
        local_collection,
        "learn_recall_curve",
        lambda snapshot: (before.append(reports[-1][0]), learn_recall_curve(snapshot))[1],
    )
    docs.optimize(progress=lambda done, total: reports.append((done, total)))
    assert reports[0] == (0, 1_500) and reports[-1] == (1_500, 1_500)
    assert 1_000 < before[0] < 1_500
    assert [done for done, _ in reports] == sorted({done for done, _ in reports})


# -- damage ----------------------------------------------------------------------------------------


def damage_lists(folder: Path) -> None:
    """Flip a bit in the first page of every extent of the list file."""
    (path,) = folder.glob("collections/*/lists.*")
    raw = bytearray(path.read_bytes())
    for place in range(4096, len(raw), 4096):
        if raw[place + 4 : place + 8] == b"VEXT":
            raw[place + 100] ^= 4
    path.write_bytes(raw)


def damaged(folder: Path, kind: Spann, *, reindexed: bool = False) -> None:
    """A closed database of 1,500 rows whose lists are damaged on disk."""
    with open_database(folder, maintenance=False, durability="relaxed") as db:
        docs = db.create_collection("docs", DIM, "l2", kind)
        docs.upsert(range(1_500), clustered(1_500))
        if reindexed:
            docs.reindex(kind)
        docs.optimize()
        assert docs.stats()["sealed_rows"] >= 1_500 - limits.index_step_rows
    damage_lists(folder)


def test_a_damaged_extent_gives_exact_answers_at_once_and_is_built_anew_by_optimize(
    tmp_path: Path, kind: Spann, caplog: pytest.LogCaptureFixture
) -> None:
    """Lists in memory are found out at the open, those on disk by the search that reads one."""
    damaged(tmp_path / "db", kind)
    queries = clustered(20, seed=2)
    with open_database(tmp_path / "db", maintenance=False) as db:
        docs = db["docs"]
        if kind.memory_budget_bytes == 0:
            assert docs.stats()["index_state"] == "ready", "nobody has looked"
            assert any("extent" in problem for problem in docs._backend.check())
            assert docs.search(queries[0], 10, explain=True).plan == "exact"
        assert exact(docs, queries)
        stats = docs.stats()
        assert stats["index_state"] == "rebuilding" and "extent" in stats["index_error"]
        assert any("index damaged, rebuilding" in record.message for record in caplog.records)
        docs.upsert(2_000, np.full(DIM, 9))
        docs.delete(3)
        assert docs.search(np.full(DIM, 9), 1).ids.tolist() == [2_000] and docs.get(3) is None
        assert exact(docs, queries)
        docs.optimize()
        stats = docs.stats()
        assert (stats["index_state"], stats["index_error"], stats["tail_rows"]) == ("ready", None, 0)
        hits = docs.search(queries, 10, explain=True)
        assert hits.plan == "lists" and recall(docs, queries, None) > 0.9 and db.check() == []
    with open_database(tmp_path / "db", maintenance=False) as db:
        assert db["docs"].search(queries, 10, explain=True).plan == "lists" and db.check() == []
        assert len(list(db["docs"]._backend.state.folder.iterdir())) == 3, "the damaged file is gone"


@pytest.mark.parametrize("step", ["optimize", "vacuum", "reindex", "index_tail", "repair", "seal"])
def test_every_step_of_care_that_meets_damage_ends_with_a_sound_index(tmp_path: Path, step: str) -> None:
    damaged(tmp_path / "db", KINDS["disk"])
    queries = clustered(20, seed=2)
    with open_database(tmp_path / "db", maintenance=False) as db:
        docs = db["docs"]
        docs.delete(range(200))
        docs.upsert(range(1_500, 1_700), clustered(200, seed=5))
        jobs = docs._backend.jobs
        steps = {
            "optimize": docs.optimize,
            "vacuum": docs.vacuum,
            "reindex": lambda: docs.reindex(replace(KINDS["disk"], bits=4)),
            "index_tail": lambda: jobs.index_tail(2, all_rows=True),
            "repair": lambda: jobs.repair(2),
            "seal": lambda: jobs.seal(2),
        }
        steps[step]()
        sound(docs.search(queries, 10), set(range(200, 1_700)), 10)
        docs.optimize()
        assert docs.stats()["index_state"] == "ready" and docs.count() == 1_500
        assert docs.search(queries, 10, explain=True).plan == "lists" and recall(docs, queries, None) > 0.9
        assert db.check() == []


@pytest.mark.parametrize("name", ["disk", pytest.param("memory", marks=pytest.mark.slow)])
def test_a_reading_process_answers_exactly_from_damaged_lists_until_the_writer_has_sealed_others(
    tmp_path: Path, name: str
) -> None:
    damaged(tmp_path / "db", KINDS[name])
    queries = clustered(20, seed=2)
    with following(tmp_path / "db") as follower:
        for _ in range(2):
            got = follower.ask(queries, 10, 8)
            assert (got["plan"], got["state"], got["count"]) == ("exact", "rebuilding", 1_500)
            assert got["near"] == got["true"]
        with open_database(tmp_path / "db", maintenance=False, durability="relaxed") as db:
            docs = db["docs"]
            docs.search(queries, 10)
            docs.delete(range(10))
            got = follower.ask(queries, 10, 8)
            assert got["near"] == got["true"] and got["count"] == 1_490
            docs.optimize()
            got = follower.ask(queries, 10, 1 << 15)
            assert (got["plan"], got["state"], got["indexed"]) == ("lists", "ready", 1_500)


@pytest.mark.parametrize("index", [Spann(), vecdb.Hnsw(m=4, ef_construction=24)], ids=["spann", "hnsw"])
def test_what_maintenance_built_in_the_place_of_a_damaged_index_is_sealed_although_it_is_a_little_shorter(
    tmp_path: Path, index: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Maintenance indexes whole steps, optimize to the last row: the new one must not wait for the rows in between, or
    every open builds it again.
    """
    monkeypatch.setattr(collection_state, "_WRITTEN_S", 0.0)
    with open_database(tmp_path / "db", maintenance=False, durability="relaxed") as db:
        docs = db.create_collection("docs", DIM, "l2", index)
        docs.upsert(range(1_519), clustered(1_519))
        docs.optimize()
        sealed = docs._backend.state.folder / docs._backend.state.snapshot.state.sealed.file
    raw = bytearray(sealed.read_bytes())
    raw[len(raw) // 2] ^= 4
    sealed.write_bytes(raw)
    with open_database(tmp_path / "db", maintenance=False) as db:
        docs = db["docs"]
        assert docs.stats()["index_state"] == "rebuilding"
        while docs._backend.jobs.tail_is_due():  # a graph takes one bounded step a round
            db._backend._maintenance._serve(docs._backend.jobs)  # type: ignore[union-attr]
        db._backend._maintenance._serve(docs._backend.jobs)  # type: ignore[union-attr]
        assert docs.stats()["index_state"] == "ready"
    with open_database(tmp_path / "db", maintenance=False) as db:
        assert db["docs"].stats()["index_state"] == "ready" and db.check() == []


def test_a_damaged_index_of_a_collection_that_is_small_is_built_anew_by_optimize(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Reindexing may have built lists for fewer rows than are worth it."""
    monkeypatch.setattr(limits, "flat_rows_max", 4_096)
    damaged(tmp_path / "db", KINDS["memory"], reindexed=True)
    with open_database(tmp_path / "db", maintenance=False) as db:
        docs = db["docs"]
        assert docs.stats()["index_state"] == "rebuilding"
        docs.optimize()
        assert docs.stats()["index_state"] == "ready" and docs.stats()["index_error"] is None
