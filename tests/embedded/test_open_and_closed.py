"""A database that is closed, opened for reading or in a bad place, and a dropped collection: every call says so."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vecdb
from vecdb import limits
from vecdb.api.database import Database
from vecdb.embedded.open import open_database
from vecdb.errors import InvalidArgument, NotFound, Unavailable
from vecdb.maintenance import index_jobs

GOOD = [1.0, 2.0, 3.0, 4.0]


def calls(db: Any, docs: Any, folder: Path) -> dict[str, Callable[[], Any]]:
    """Every call that a database and a collection have."""
    return {
        "search": lambda: docs.search(GOOD),
        "get": lambda: docs.get(1),
        "get none": lambda: docs.get([]),
        "count": docs.count,
        "iter": lambda: list(docs.iter()),
        "stats": docs.stats,
        "check": docs.check,
        "evaluate": lambda: docs.evaluate([GOOD]),
        "upsert": lambda: docs.upsert(1, GOOD),
        "insert": lambda: docs.insert(99, GOOD),
        "update": lambda: docs.update(1, GOOD),
        "delete": lambda: docs.delete(1),
        "delete none": lambda: docs.delete([]),
        "optimize": docs.optimize,
        "vacuum": docs.vacuum,
        "reindex": lambda: docs.reindex(vecdb.Flat()),
        "tune": lambda: docs.tune([GOOD]),
        "collections": db.collections,
        "collection": lambda: db["docs"],
        "in": lambda: "docs" in db,
        "db.stats": db.stats,
        "db.check": db.check,
        "create": lambda: db.create_collection("new", 3),
        "drop": lambda: db.drop_collection("docs"),
        "db.vacuum": db.vacuum,
        "backup": lambda: db.backup(folder / "backup"),
    }


READS = {
    "search",
    "get",
    "get none",
    "count",
    "iter",
    "stats",
    "check",
    "evaluate",
    "collections",
    "collection",
    "in",
} | {
    "db.stats",
    "db.check",
    "backup",
    "delete none",  # deleting nothing writes nothing
}


def test_a_closed_database_says_so_whatever_is_called(docs: Any, db: Database, tmp_path: Path) -> None:
    table = calls(db, docs, tmp_path)
    db.close()
    db.close()
    for name, call in table.items():
        with pytest.raises(Unavailable, match="closed; open it again"):
            call()
            pytest.fail(name)


def test_calls_that_begin_while_a_database_closes_are_refused(docs: Any, db: Database, tmp_path: Path) -> None:
    """What it closes behind waits for the calls that are under way: were others let in, that might take for ever."""
    table = calls(db, docs, tmp_path)
    committer, closing, refused = db._backend._committer, threading.Event(), threading.Event()
    end = committer.close

    def wait_and_end() -> None:
        closing.set()
        refused.wait(60)
        end()

    committer.close = wait_and_end
    thread = threading.Thread(target=db.close)
    thread.start()
    try:
        assert closing.wait(60) and not db._backend.closed
        for name, call in table.items():
            with pytest.raises(Unavailable, match="closed; open it again"):
                call()
                pytest.fail(name)
    finally:
        refused.set()
        thread.join()


@pytest.mark.parametrize("maintenance", [True, False])
def test_closing_keeps_what_would_take_long_to_make_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, maintenance: bool
) -> None:
    monkeypatch.setattr(limits, "flat_rows_max", 32)
    monkeypatch.setattr(index_jobs, "_SEAL_AT_CLOSE_ROWS", 64)
    vectors = np.random.default_rng(0).normal(size=(300, 8)).astype(np.float32)
    with open_database(tmp_path / "db", maintenance=maintenance) as db:
        docs = db.create_collection("docs", 8, "l2", vecdb.Hnsw(m=4, ef_construction=24))
        docs.upsert(range(300), vectors, [{"n": n} for n in range(300)])
        docs._backend.jobs.index_tail(1, all_rows=True)
        assert docs.count(filter="n < 10") == 10
    with open_database(tmp_path / "db", maintenance=False) as db:
        state = db["docs"]._backend.state.snapshot.state
        assert state.sealed is not None and state.columns is not None


def test_a_dropped_collection_says_so_whatever_is_called(docs: Any, db: Database, tmp_path: Path) -> None:
    table = calls(db, docs, tmp_path)
    db.drop_collection("docs")
    for name in READS - {"collections", "in", "db.stats", "db.check", "backup"} | {
        "upsert",
        "delete",
        "vacuum",
        "optimize",
        "reindex",
    }:
        with pytest.raises(NotFound, match="docs"):
            table[name]()
            pytest.fail(name)


@pytest.mark.parametrize(
    "index", [vecdb.Flat(), vecdb.Hnsw(), vecdb.Curator(), vecdb.Spann()], ids=lambda one: type(one).__name__
)
def test_a_dropped_collection_holds_nothing_whoever_still_has_it(tmp_path: Path, index: Any) -> None:
    """Neither its files, whose space comes back only when nobody maps them, nor threads of its index."""
    vectors = np.random.default_rng(0).normal(size=(6_000, 8)).astype(np.float32)
    gc.disable()  # nothing of it shall wait for a cycle to be found
    try:
        with open_database(tmp_path / "db") as db:
            docs = db.create_collection("docs", 8, "l2", index)
            docs.upsert(range(6_000), vectors, tenants=["a"])
            docs.optimize()
            docs.search(vectors[0], tenant="a")
            assert "collections/" in Path("/proc/self/maps").read_text()
            db.drop_collection("docs")
            folder = f"{tmp_path}/db/collections"
            ends = time.monotonic() + 20
            while folder in Path("/proc/self/maps").read_text():  # maintenance may just be looking at it
                assert time.monotonic() < ends
            assert not [one for one in Path("/proc/self/fd").iterdir() if folder in os.path.realpath(one)]
            with pytest.raises(NotFound, match="docs"):
                docs.search(vectors[0])
    finally:
        gc.enable()


READER = """
import sys, vecdb
with vecdb.open(sys.argv[1], read_only=True) as db:
    docs = db.collection("docs")
    print(docs.count(), flush=True)
    for line in sys.stdin:
        for ask in (lambda: db.collection("docs").count(), docs.count):
            try:
                print(ask(), flush=True)
            except vecdb.NotFound:
                print("NotFound", flush=True)
print("closed", flush=True)
"""


def test_a_reader_of_a_dropped_collection_is_told_each_time_and_closes(db: Database) -> None:
    db.create_collection("docs", 4, "l2").upsert(1, GOOD)
    command = [sys.executable, "-c", READER, str(db.path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as reader:
        assert reader.stdin is not None and reader.stdout is not None

        def told() -> list[str]:
            reader.stdin.write("\n")
            reader.stdin.flush()
            return [reader.stdout.readline().strip() for _ in range(2)]

        assert reader.stdout.readline().strip() == "1"
        db.drop_collection("docs")
        assert told() == told() == ["NotFound", "NotFound"]
        db.create_collection("docs", 4, "l2").upsert([1, 2], [GOOD, GOOD])
        assert told() == ["2", "NotFound"], "the new one is another"
        db.drop_collection("docs")
        assert told() == ["NotFound", "NotFound"]
        reader.stdin.close()
        assert reader.stdout.readline().strip() == "closed"


def test_a_database_opened_for_reading_reads_and_refuses_to_write(tmp_path: Path) -> None:
    path = tmp_path / "db"
    with open_database(path) as db:
        db.create_collection("docs", 4, "l2").upsert([1, 2], [GOOD, GOOD])

    def contents() -> dict[str, bytes]:
        found = sorted(file for file in path.rglob("*") if file.is_file() and file.name not in ("LOCK", "lock.mdb"))
        return {str(file): file.read_bytes() for file in found}

    before = contents()
    with open_database(path, read_only=True) as db:
        for name, call in calls(db, db["docs"], tmp_path).items():
            if name in READS:
                call()
            else:
                with pytest.raises(Unavailable, match="without read_only=True"):
                    call()
                    pytest.fail(name)
    assert contents() == before


BAD_PATHS = ["", "a\0b", None, 3, b"bytes"]


@pytest.mark.parametrize("path", BAD_PATHS, ids=repr)
def test_a_path_that_is_none_is_refused(path: Any, docs: Any, db: Database) -> None:
    with pytest.raises(InvalidArgument, match="path must be"):
        vecdb.open(path)
    with pytest.raises(InvalidArgument, match="path must be"):
        db.backup(path)


def test_a_place_that_cannot_be_a_database_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").write_text("mine")
    for name in ("file", "full"):
        with pytest.raises(InvalidArgument, match="no vecdb database"):
            vecdb.open(tmp_path / name)
    with pytest.raises(Unavailable, match="opening"):
        vecdb.open(tmp_path / "file" / "below")
    with pytest.raises(NotFound, match="no database"):
        vecdb.open(tmp_path / "absent", read_only=True)
    assert sorted(str(file.relative_to(tmp_path)) for file in tmp_path.rglob("*")) == ["file", "full", "full/mine"]
