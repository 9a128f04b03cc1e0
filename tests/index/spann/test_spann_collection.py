"""Goal: a collection over posting lists answers in full and near the truth through churn, reindexing, threads and bulk
loads, and keeps the memory that it was given.
"""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vecdb
from tests.support.corpus import EXACT, clustered, sound
from tests.support.spann.collection import DIM, KINDS, care, held_bytes, index_of, lengths_of, recall
from tests.support.threads import together
from vecdb import limits
from vecdb.api.database import Database
from vecdb.embedded.open import open_database
from vecdb.errors import NotFound
from vecdb.maintenance import scheduler as maintenance_module
from vecdb.maintenance import vacuum as vacuum_module
from vecdb.maintenance.index_jobs import CollectionMaintenance
from vecdb.query import searcher
from vecdb.schema import SearchParams, Spann
from vecdb.state import collection_state

pytestmark = pytest.mark.usefixtures("lists_are_used")

# -- churn -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(  # slow: three seconds each
    "name", ["disk", *(pytest.param(name, marks=pytest.mark.slow) for name in ("memory", "both"))]
)
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


@pytest.mark.parametrize(  # slow: five seconds each; with a budget codes are read from both places
    "kind", [*(pytest.param(name, marks=pytest.mark.slow) for name in ("memory", "disk")), "both"], indirect=True
)
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
    waits, index_tail = CollectionMaintenance.tail_is_deferred, CollectionMaintenance.index_tail

    def tail_is_deferred(self: CollectionMaintenance) -> bool:
        looked.release()
        return waits(self)

    def tail_indexed(self: CollectionMaintenance, *arguments: Any, **named: Any) -> None:
        index_tail(self, *arguments, **named)
        indexed.set()

    monkeypatch.setattr(CollectionMaintenance, "tail_is_deferred", tail_is_deferred)
    monkeypatch.setattr(CollectionMaintenance, "index_tail", tail_indexed)
    with open_database(":memory:") as db:
        docs = db.create_collection("docs", DIM, "l2", Spann())
        docs.upsert(range(400), clustered(400))
        for _ in range(8):
            assert looked.acquire(timeout=60)
        assert not indexed.is_set() and docs.stats()["indexed_rows"] == 0
        monkeypatch.setattr(collection_state, "_WRITTEN_S", 0.0)  # nothing is committed from here on
        assert indexed.wait(60)
        assert docs.stats()["indexed_rows"] >= 400 - limits.index_step_rows
