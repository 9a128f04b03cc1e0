"""Goal: a database lives as long as somebody in this process uses it, whoever forgets to close it, and not longer;
several handles of one directory share it.
"""

from __future__ import annotations

import contextlib
import gc
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vecdb
from tests.support.threads import together
from vecdb.commit.committer import CommitGroup
from vecdb.embedded.open import open_database
from vecdb.errors import Locked, NotFound, Unavailable

GOOD = [1.0, 2.0]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    with open_database(tmp_path / "db", maintenance=False) as db:
        db.create_collection("docs", 2, "l2").upsert([1], [GOOD])
    return tmp_path / "db"


@pytest.fixture
def no_collector() -> Iterator[None]:
    """Nothing shall wait for a cycle to be found."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def held() -> tuple[int, int]:
    return threading.active_count(), len(os.listdir("/proc/self/fd"))


def settles_at(before: tuple[int, int]) -> bool:
    """Whether no more is held than before, once what closes by itself has closed: its last user may be a thread of the
    database, which ends a little later.
    """
    ends = time.monotonic() + 30
    while any(now > then for now, then in zip(held(), before, strict=True)) and time.monotonic() < ends:
        os.sched_yield()
    return all(now <= then for now, then in zip(held(), before, strict=True))


# -- forgotten ---------------------------------------------------------------------------------------


@pytest.mark.usefixtures("no_collector")
@pytest.mark.parametrize("where", ["directory", ":memory:", "read_only"])
def test_a_database_that_nobody_uses_any_more_is_closed(path: Path, where: str) -> None:
    def use() -> None:
        db = vecdb.open(":memory:" if where == ":memory:" else path, read_only=where == "read_only")
        if where != "read_only":
            docs = db.create_collection("docs", 2, "l2", exist_ok=True)
            docs.upsert([1], [GOOD])
            docs.search(GOOD)
        assert db["docs"].count() == 1

    use()
    before = held()
    for _ in range(40):
        use()
    assert settles_at(before)


@pytest.mark.usefixtures("no_collector")
def test_a_collection_keeps_its_database_open(path: Path) -> None:
    docs = vecdb.open(path)["docs"]
    assert docs.upsert([2], [GOOD]) == 1
    with pytest.raises(Locked):
        open_database(path, maintenance=False)  # another kind of handle: it must be open
    records = vecdb.open(path)["docs"].iter(1)
    del docs
    assert [record.id for batch in records for record in batch] == [1, 2]
    del records
    open_database(path, maintenance=False).close()


def test_a_database_that_its_own_thread_finds_to_be_garbage_is_closed(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The collector runs in any thread: in that of its maintenance, too."""
    ready, dropped, collected = threading.Event(), threading.Event(), threading.Event()

    def serve(self: Any, jobs: Any) -> None:
        ready.set()
        dropped.wait()
        gc.collect()
        collected.set()

    monkeypatch.setattr("vecdb.maintenance.scheduler.MaintenanceScheduler._serve", serve)
    gc.collect()
    gc.disable()
    before = held()
    try:
        cycle: list[Any] = [vecdb.open(path)]
        cycle.append(cycle)
        cycle[0]["docs"].upsert([2], [GOOD])
        ready.wait()
        del cycle
        dropped.set()
        collected.wait()
        assert settles_at(before)
    finally:
        gc.enable()
    with open_database(path, maintenance=False) as db:
        assert db["docs"].count() == 2


def test_a_thousand_databases_that_nobody_closes_leave_nothing(tmp_path: Path) -> None:
    def use(n: int) -> None:
        open_database(tmp_path / str(n % 10), maintenance=bool(n % 2)).create_collection("x", 2, exist_ok=True)

    for n in range(20):
        use(n)
    before = held()
    for n in range(200):
        use(n)
    gc.collect()
    assert settles_at(before)


# -- shared ------------------------------------------------------------------------------------------


def test_handles_of_one_directory_share_it(path: Path) -> None:
    one, two = vecdb.open(path), vecdb.open(path)
    one["docs"].upsert([2], [GOOD])
    assert two["docs"].count() == 2
    mine = one["docs"]
    one.close()
    one.close()
    for call in (one.collections, lambda: one["docs"], one.stats):
        with pytest.raises(Unavailable, match="is closed; open it again"):
            call()
    assert two["docs"].upsert([3], [GOOD]) == 1, "the other goes on"
    assert repr(one).endswith("closed>") and not repr(two).endswith("closed>")
    two.close()
    with pytest.raises(Unavailable, match="is closed; open it again"):
        mine.count()
    with pytest.raises(Unavailable, match="is closed; open it again"):
        two.collections()
    with vecdb.open(path) as again:
        assert again["docs"].count() == 3 and again.check() == []


def test_a_handle_that_was_dropped_counts_while_its_collection_is_in_use(path: Path) -> None:
    docs = vecdb.open(path)["docs"]
    with vecdb.open(path) as other:
        other["docs"].upsert([2], [GOOD])
    assert docs.count() == 2 and docs.upsert([3], [GOOD]) == 1
    del docs, other
    open_database(path, maintenance=False).close()


def test_a_second_handle_with_other_options_is_refused(path: Path) -> None:
    with vecdb.open(path) as one:
        with pytest.raises(Locked, match="this process already, with durability='full'; close it there"):
            vecdb.open(path, durability="relaxed")
        assert one["docs"].count() == 1


@pytest.mark.parametrize("link", [False, True])
def test_readers_stand_beside_a_writer_of_the_same_process(path: Path, tmp_path: Path, link: bool) -> None:
    other = tmp_path / "link"
    other.symlink_to(path)
    with vecdb.open(path) as writer, vecdb.open(other if link else path, read_only=True) as reader:
        writer["docs"].upsert([2], [GOOD])
        assert reader["docs"].count() == 2
        with pytest.raises(Unavailable, match="without read_only=True"):
            reader["docs"].upsert([3], [GOOD])
        writer["docs"].delete([1])
        writer["docs"].vacuum()
        assert reader["docs"].count() == 1 and reader.check() == []


@pytest.mark.parametrize("durability", ["full", "relaxed"])
def test_a_writer_comes_and_goes_beside_readers_of_the_same_process(path: Path, durability: Any) -> None:
    with vecdb.open(path, read_only=True) as one, vecdb.open(path, read_only=True) as two:
        for n in range(2, 5):
            with vecdb.open(path, durability=durability if n % 2 else "full") as writer:
                writer["docs"].upsert([n], [GOOD])
                assert one["docs"].count() == two["docs"].count() == n
            assert one["docs"].count() == n
        found = subprocess.run(
            [sys.executable, "-c", f"import vecdb; vecdb.open({str(path)!r}).close(); print('free')"],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert found.stdout == "free\n", found.stderr


def test_threads_that_open_and_close_one_directory_all_get_it(path: Path) -> None:
    errors: list[BaseException] = []

    def use(n: int) -> None:
        try:
            for _ in range(15):
                with open_database(path, maintenance=False) as db:
                    db["docs"].upsert([n], [GOOD])
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=use, args=(n,)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    with open_database(path, maintenance=False) as db:
        assert db["docs"].count() == 6 and db.check() == []


@pytest.mark.usefixtures("no_collector")
@pytest.mark.parametrize("index", [vecdb.Flat(), vecdb.Hnsw(), vecdb.Spann()], ids=lambda one: type(one).__name__)
def test_a_closed_database_maps_no_files_whoever_still_has_a_collection(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, index: Any
) -> None:
    """So that its disk can be taken out, and its space comes back."""
    monkeypatch.setattr(vecdb.limits, "flat_rows_max", 100)
    vectors = np.random.default_rng(0).normal(size=(1_000, 8)).astype(np.float32)
    db = open_database(tmp_path / "db", maintenance=False)
    docs = db.create_collection("docs", 8, "l2", index)
    docs.upsert(range(1_000), vectors)
    docs.optimize()
    docs.search(vectors[0])
    assert f"{tmp_path}/db" in Path("/proc/self/maps").read_text()
    db.close()
    assert f"{tmp_path}/db" not in Path("/proc/self/maps").read_text()
    with pytest.raises(Unavailable, match="is closed; open it again"):
        docs.search(vectors[0])


# -- a fork ------------------------------------------------------------------------------------------


ENDS = """
import os, sys, vecdb
from vecdb.embedded.open import open_database
db = open_database(sys.argv[1], maintenance=False)
docs = db["docs"]
docs.upsert(range(2, 50), [[1, n] for n in range(2, 50)])
iterator = docs.iter(1)
next(iterator)
for _ in range(5):
    docs.count()
pid = os.fork()
if pid:
    os.waitpid(pid, 0)
    for n in range(300):
        docs.delete([n]) if n < 50 else docs.upsert([n], [[1, n]])
    seen = [record.id for batch in iterator for record in batch]
    print(seen == list(range(2, 50)), db.check(), db._backend.store.info()["readers"] > 0)
"""  # the child ends as an interpreter does, which frees all that it inherited


def test_the_end_of_a_forked_child_frees_nothing_of_its_parent(path: Path) -> None:
    told = subprocess.run([sys.executable, "-c", ENDS, str(path)], capture_output=True, text=True, check=False)
    assert told.stdout == "True [] True\n", told.stderr


# -- the directory is removed ------------------------------------------------------------------------

WRITES: dict[str, Callable[[Any, Any], Any]] = {
    "upsert": lambda db, docs: docs.upsert([1], [GOOD]),
    "update": lambda db, docs: docs.update([1], fields=[{"a": 1}]),
    "delete": lambda db, docs: docs.delete([1]),
    "grant": lambda db, docs: docs.grant([1], "a"),
    "create_tenant": lambda db, docs: docs.create_tenant("b"),
    "create": lambda db, docs: db.create_collection("new", 2),
    "drop": lambda db, docs: db.drop_collection("docs"),
}


def moved(path: Path) -> Path:
    """What comes of a directory in whose place another is to be put."""
    return path.rename(path.with_name("before"))


@pytest.mark.parametrize("take_away", [shutil.rmtree, moved])
@pytest.mark.parametrize("anew", [False, True])
@pytest.mark.parametrize("name", WRITES)
def test_a_directory_that_was_taken_away_acknowledges_nothing(
    path: Path, name: str, anew: bool, take_away: Callable[[Path], Any]
) -> None:
    with open_database(path, maintenance=False) as db:
        docs = db["docs"]
        take_away(path)
        if anew:
            with open_database(path, maintenance=False) as new:
                new.create_collection("docs", 2, "l2")
        with pytest.raises(Unavailable, match=r"removed|went away|No such file"):
            WRITES[name](db, docs)
    if anew:
        with open_database(path, maintenance=False) as new:
            assert new.collections() == ["docs"] and new["docs"].count() == 0 and new.check() == []
    if take_away is moved:
        with open_database(path.with_name("before"), maintenance=False) as old:
            assert old.collections() == ["docs"] and old["docs"].count() == 1 and old.check() == []


MAINTENANCE: dict[str, Callable[[Any, Any], Any]] = {
    "create": WRITES["create"],
    "vacuum": lambda db, docs: docs.vacuum(),
    "clear": lambda db, docs: docs.clear(),
    "optimize": lambda db, docs: docs.optimize(),
    "reindex": lambda db, docs: docs.reindex(vecdb.Spann()),
    "background": lambda db, docs: db._backend._maintenance._serve(docs._backend.jobs),
    "garbage": lambda db, docs: docs._backend.jobs._collect_garbage(),
    "close": lambda db, docs: None,
}


@pytest.mark.parametrize("take_away", [shutil.rmtree, moved])
@pytest.mark.parametrize("name", MAINTENANCE)
def test_a_stale_handle_spoils_no_file_of_a_database_that_took_its_place(
    path: Path, name: str, take_away: Callable[[Path], Any]
) -> None:
    """Both have files of the same names."""
    vectors = np.random.default_rng(0).normal(size=(600, 2)).astype(np.float32)
    with open_database(path, maintenance=False) as db:
        docs = db["docs"]
        docs.reindex(vecdb.Hnsw())
        docs.upsert(range(300), vectors[:300])
        docs.optimize()
        docs.delete(range(200))
        docs.upsert([1], [GOOD])
        take_away(path)
        with open_database(path, maintenance=False) as new:
            for one in ("docs", "others"):
                made = new.create_collection(one, 2, "l2", vecdb.Hnsw())
                made.upsert(range(600), vectors)
                if one == "docs":
                    made.delete(range(100))
                    made.vacuum()
                made.optimize()
            before = files_of(path)
            with (
                contextlib.nullcontext()  # closing says nothing, and so few rows have no graph to optimize
                if name in ("close", "optimize")
                else pytest.raises(Unavailable, match="is gone: its directory")
            ):
                MAINTENANCE[name](db, docs)
            db.close()
            assert files_of(path) == before
    with open_database(path, maintenance=False) as new:
        assert [new[one].count() for one in ("docs", "others")] == [500, 600] and new.check() == []
        assert new["docs"].search(vectors[150], 1).ids.tolist() == [150]


def files_of(path: Path) -> dict[str, bytes]:
    return {str(one): one.read_bytes() for one in sorted(path.rglob("*")) if one.is_file() and one.name != "lock.mdb"}


def test_a_removed_directory_does_not_come_back(path: Path) -> None:
    with open_database(path, maintenance=False) as db:
        docs = db["docs"]
        shutil.rmtree(path)
        for name, call in (WRITES | MAINTENANCE).items():
            if name not in ("close", "optimize"):  # there is nothing to optimize
                with contextlib.suppress(Unavailable):
                    call(db, docs)
            assert not path.exists(), name
    assert not path.exists()


# -- descriptors -------------------------------------------------------------------------------------


def test_a_collection_that_gave_way_is_the_same_when_it_comes_back(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vecdb.limits, "collections_open_max", 2)
    exact = vecdb.SearchParams(exact=True)
    vectors = np.random.default_rng(0).normal(size=(5_000, 8)).astype(np.float32)
    with open_database(path) as db:
        db.create_collection("big", 8, "l2", vecdb.Hnsw()).upsert(range(5_000), vectors)
        iterator = db["big"].iter(100)
        first = next(iterator)
        for n in range(6):
            db.create_collection(f"other{n}", 2)
            assert db["big"].search(vectors[n], 1, params=exact).ids.tolist() == [n]
            db["big"].upsert([n], vectors[n : n + 1])
        db["big"].vacuum()
        assert len(first) + sum(map(len, iterator)) == 5_000
        assert db["big"].count() == 5_000 and db.check() == []
        with pytest.raises(NotFound):
            db["absent"]


def test_a_reader_that_opens_while_the_writer_commits_leaves_its_transaction_alone(tmp_path: Path) -> None:
    """Whatever durability the reader names: it writes nothing."""
    begun, opened = threading.Event(), threading.Event()

    class Waiting:
        size_bytes = 0
        exclusive = False

        def apply(self, group: CommitGroup) -> int:
            begun.set()
            assert opened.wait(60)
            return int(group.txn.stat(group.store.state)["entries"])

    with open_database(tmp_path / "db", durability="relaxed", maintenance=False) as db:
        docs = db.create_collection("docs", 4)

        def read() -> None:
            assert begun.wait(60)
            try:
                with open_database(tmp_path / "db", read_only=True, durability="full") as reader:
                    assert reader["docs"].count() == 0
            finally:
                opened.set()

        together(lambda: docs._backend.writes.submit(Waiting()), read)
        docs.upsert([1], [[1, 0, 0, 0]])
        assert docs.count() == 1
