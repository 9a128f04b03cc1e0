"""Databases, collections and the long work on them, the same whichever way the database is opened."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vecdb
from tests.support.answers.ways import LONG_WAYS
from vecdb.storage.disk import filesystem

RNG = np.random.default_rng(7)
DIM = 8


def filled(db: Any, rows: int = 6_000, **settings: Any) -> tuple[Any, np.ndarray]:
    docs = db.create_collection("docs", DIM, "l2", **settings)
    vectors = RNG.normal(size=(rows, DIM)).astype(np.float32)
    docs.upsert(range(rows), vectors)
    return docs, vectors


def test_a_database_near_or_far_is_of_the_same_classes(db: Any, way: str) -> None:
    docs, _ = filled(db, 1)
    if way in ("aio", "threads"):
        assert isinstance(db.far, vecdb.aio.Database) and isinstance(docs.far, vecdb.aio.Collection)
    else:
        assert isinstance(db, vecdb.Database) and isinstance(docs, vecdb.Collection)
    assert repr(docs) == "<Collection 'docs': dim 8, l2, float32>" and repr(db).startswith("<Database ")
    assert not db.read_only and str(db.path) in repr(db)


@pytest.mark.parametrize(
    "index",
    [
        None, vecdb.Flat(), vecdb.Hnsw(m=8, ef_construction=50, ef=40, quantization=None), vecdb.Hnsw(),
        vecdb.Spann(4, replicas=2, head_ratio=0.05, nprobe=9, rerank=50, memory_budget_bytes=0, posting_bytes_max=8192),
        vecdb.Curator(leaf_rows=32, shortlist_max=8, scan_max=100, nprobe=5), vecdb.Spann(), vecdb.Curator(),
    ],
    ids=repr,
)  # fmt: skip
def test_collections_come_and_go_with_every_kind_of_index(db: Any, index: Any) -> None:
    docs = db.create_collection("docs", 7, "ip", index, "float16")
    assert docs.config == vecdb.api.collection.CollectionConfig("docs", 7, "ip", "float16", index)
    again = db.create_collection("docs", 7, "ip", index, "float16", exist_ok=True)
    assert again.config == docs.config == db.collection("docs").config == db["docs"].config
    assert docs.config.id_kind is None
    docs.upsert(3, [1] * 7)
    assert docs.config.id_kind == again.config.id_kind == "int"
    db.create_collection("a ü", 1)
    assert db.collections() == ["a ü", "docs"] and "docs" in db and "none" not in db
    db.drop_collection("a ü")
    assert db.collections() == ["docs"]


@pytest.mark.parametrize("way", LONG_WAYS)
def test_long_work_says_how_far_it_is(db: Any) -> None:
    docs, vectors = filled(db)
    for work in (
        lambda tell: docs.optimize(threads=1, progress=tell),
        lambda tell: docs.reindex(vecdb.Hnsw(m=8), progress=tell),
        lambda tell: docs.vacuum(progress=tell),
        lambda tell: db.vacuum(progress=tell),
    ):
        seen: list[tuple[int, int]] = []
        docs.delete(range(len(seen), 100))
        docs.upsert(range(100), vectors[:100])
        assert work(lambda done, total, seen=seen: seen.append((done, total))) is None
        assert seen and all(0 <= done <= total for done, total in seen) and seen[-1][1] > 0
        assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    assert docs.config.index == vecdb.Hnsw(m=8)
    assert docs.optimize() is None and docs.vacuum() is None and docs.reindex() is None and db.vacuum() is None
    assert docs.check() == db.check() == []


def test_a_callback_that_raises_ends_the_work_and_its_error_is_seen(db: Any) -> None:
    docs, _ = filled(db, 20_000)

    def tell(done: int, total: int) -> None:
        raise KeyError("enough")

    with pytest.raises(KeyError, match="enough"):
        docs.reindex(vecdb.Hnsw(m=8), progress=tell)
    assert docs.count() == 20_000


def test_facts_are_the_same_facts(db: Any, twin: Any) -> None:
    for one in (db, twin):
        filled(one, 100)
    docs, here = db.collection("docs"), twin.collection("docs")
    assert set(docs.stats()) == set(here.stats()) and set(db.stats()) == set(twin.stats())
    for name in ("name", "dim", "metric", "dtype", "live", "deleted", "rows", "index", "index_state", "bytes_raw"):
        assert docs.stats()[name] == here.stats()[name], name
    assert db.stats()["collections"] == 1


@pytest.mark.parametrize("way", LONG_WAYS)
def test_recall_is_measured_and_tuned(db: Any) -> None:
    docs, vectors = filled(db)
    docs.optimize()
    report = docs.evaluate(vectors[:50], 5, params=vecdb.SearchParams(exact=True))
    assert docs.evaluate(vectors[:0])["recall"] is None, "nothing was asked"
    docs.create_tenant("idle")
    empty = db.create_collection("empty", docs.dim)
    for report_of_none in (docs.evaluate(vectors[:9], tenant="idle"), empty.evaluate(vectors[:9])):
        assert (report_of_none["queries"], report_of_none["recall"], report_of_none["recall_p1"]) == (9, None, None)
    assert report["recall"] == 1.0 and isinstance(docs.evaluate(vectors[:10])["recall"], float)
    curve = docs.tune(vectors[:50], 0.9, 5)
    assert curve and {"ef", "recall", "queries_per_second"} <= set(curve[0]) and docs.stats()["tuned_ef"] is not None


def test_a_backup_is_made(db: Any, way: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    _, vectors = filled(db, 100)
    seen: list[tuple[int, int]] = []
    if way in ("disk", "memory", "threads"):
        place: Any = tmp_path / "copy"
        db.backup(place, progress=lambda *args: seen.append(args))
    else:
        name = f"copy-{way}"
        place = Path(request.getfixturevalue("server").server.config.backups) / name
        db.backup(name, progress=lambda *args: seen.append(args))
    assert seen[-1] == (1, 1)
    vecdb.restore(place, tmp_path / "restored")
    with vecdb.open(tmp_path / "restored") as again:
        assert again.collection("docs").search(vectors[3], 1).ids.tolist() == [3]


def test_it_is_closed_by_with(opening: Callable[[], Any]) -> None:
    with opening() as db:
        db.collections()
    with pytest.raises(vecdb.Unavailable, match="closed"):
        db.collections()


def test_older_backups_are_removed_and_nothing_else(
    db: Any, way: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    filled(db, 3)
    far = way in ("grpc", "aio")
    folder = Path(request.getfixturevalue("server").server.config.backups) if far else tmp_path / "backups"
    for name in ("b-1", "b-2", "b-3", "b-4"):
        db.backup(name if far else folder / name)
    (folder / "mine").mkdir()
    (folder / "mine" / "checksums.json").write_text("{}")
    with vecdb.open(":memory:") as other:
        other.backup(folder / "other")
    db.backup("a-5" if far else folder / "a-5", keep=2)
    ours = {path.name for path in folder.iterdir()} - {one for one in os.listdir(folder) if one.startswith("copy-")}
    assert ours == {"a-5", "b-4", "mine", "other"}
    db.backup("c-6" if far else folder / "c-6", keep=1)
    assert {"a-5", "b-4"} & set(os.listdir(folder)) == set()
    for bad in (0, -1, 1.5, True):
        with pytest.raises(vecdb.InvalidArgument, match="keep"):
            db.backup("never" if far else folder / "never", keep=bad)
    assert not (folder / "never").exists()
    shutil.rmtree(folder)


def test_a_database_tells_of_itself_without_looking_at_its_files(db: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    docs, _ = filled(db, 30)
    docs.delete(3)
    assert db.stats()["bytes_disk"] > 0
    monkeypatch.setattr(filesystem, "walk_files", None)
    found = db.stats(disk=False)
    assert "bytes_disk" not in found
    facts = found["open"]["docs"]
    assert (facts["live"], facts["rows"]) == (29, 30) and 0 <= facts["tail_rows"] <= 30
    times = found["commit_times"]
    assert len(times["counts"]) == len(times["bounds_s"]) + 1 and times["seconds"] > 0
    assert 2 <= sum(times["counts"]) <= found["commits"]


def test_recall_is_measured_against_a_truth_of_ones_own(db: Any) -> None:
    for name, ids in (("ints", list(range(100, 150))), ("strings", [f"s{n}" for n in range(50)])):
        docs = db.create_collection(name, DIM, "l2")
        vectors = RNG.normal(size=(50, DIM)).astype(np.float32)
        docs.upsert(ids, vectors)
        order = ((vectors[:, None] - vectors[None]) ** 2).sum(-1).argsort(1)[:, :12]
        truth = np.array(ids, object)[order] if name == "strings" else np.array(ids)[order]
        for known in (truth, truth.tolist()):
            assert docs.evaluate(vectors, 10, truth=known)["recall"] == 1.0
        wrong = truth.copy()
        wrong[:, 0] = "none" if name == "strings" else 7
        found = docs.evaluate(vectors, 10, truth=wrong)
        assert found["recall"] == pytest.approx(0.9) and found["recall_p1"] == pytest.approx(0.9)
        assert docs.evaluate(vectors[0], 5, truth=truth[0])["recall"] == 1.0
        assert {key for key in found if f"`{key}`" not in (vecdb.Collection.evaluate.__doc__ or "")} == set()
        for bad in (truth[:, :9], truth[:7], truth[0], [[1]], 3, [["a"] * 10] * 50 if name == "ints" else order):
            with pytest.raises(vecdb.InvalidArgument, match=r"truth|ids"):
                docs.evaluate(vectors, 10, truth=bad)


def test_params_may_be_a_dict(db: Any) -> None:
    docs, vectors = filled(db, 30)
    assert docs.search(vectors[3], 5, params={"exact": True}, explain=True).explain["plan"] == "exact"
    assert docs.search(vectors[3], 5, params={"recall": 0.95}).ids[0] == 3
    with pytest.raises(vecdb.InvalidArgument, match="params has no 'efs'; there are ef, nprobe, recall"):
        docs.search(vectors[3], 5, params={"efs": 3})
    with pytest.raises(vecdb.InvalidArgument, match="recall"):
        docs.search(vectors[3], 5, params={"recall": 3})


def test_stats_tell_how_long_a_build_took_and_the_most_memory(db: Any) -> None:
    docs, _ = filled(db, 30)
    assert docs.stats()["build_seconds"] is None
    docs.reindex(vecdb.Flat())
    stats = docs.stats()
    assert stats["build_seconds"] > 0 and stats["bytes_ram_peak"] > 1 << 20
