"""A backup in a bucket is one commit, whole, whatever happens meanwhile, and costs what has changed."""

from __future__ import annotations

import shutil
import subprocess
import sys
import threading
from bisect import bisect_right
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vecdb
from tests.model.driver import SEED
from tests.support.corpus import clustered
from tests.support.replication.buckets import Sent, bytes_of, once_before
from tests.support.replication.same_database import answers, change, fill
from vecdb import limits
from vecdb.embedded.open import open_database
from vecdb.errors import InvalidArgument, NotFound, PermissionDenied, Unavailable, VecdbError
from vecdb.maintenance.disk_room import give_back_deleted_rows
from vecdb.replication.backups import remote_backup, taking
from vecdb.replication.backups.backup_folder import PIECE_BYTES_MAX, BackupFolder
from vecdb.replication.backups.remote_backup import pieces_to_keep
from vecdb.replication.backups.taking import TakenFile
from vecdb.storage.disk import filesystem


def restored(url: str, folder: Path, at: Any = None) -> dict[str, Any]:
    """All that the restored backup answers."""
    shutil.rmtree(folder, ignore_errors=True)
    vecdb.restore(url, folder, at=at)
    with open_database(folder, maintenance=False) as db:
        return answers(db)


@pytest.fixture(autouse=True)
def small_indexes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "flat_rows_max", 10)


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> Sent:
    return Sent(monkeypatch)


@pytest.mark.parametrize("kind", ["s3", pytest.param("file", marks=pytest.mark.slow)])
def test_everything_comes_back_and_only_changes_are_sent(
    kind: str, url_of: Callable[[str], str], tmp_path: Path, sent: Sent, monkeypatch: pytest.MonkeyPatch
) -> None:
    url, reported = url_of(kind), []
    with open_database(tmp_path / "db", maintenance=False) as db:
        fill(db)
        kinds = {path.name.split(".")[0] for path in (tmp_path / "db" / "collections").rglob("*.*")}
        assert kinds == {"rows", "hnsw", "spann", "lists", "curator", "columns"}
        db.backup(url, progress=lambda done, whole: reported.append((done, whole)))
        first, before, sequence = sent.take(), answers(db), db.stats()["sequence"]
        assert reported[-1][0] == reported[-1][1] >= bytes_of(first, "pieces") and sorted(reported) == reported
        with monkeypatch.context() as unread:
            unread.setattr(TakenFile, "read", None)  # nobody looks at a file
            db.backup(url)
        second = sent.take()
        assert bytes_of(second, "pieces") == 0 and bytes_of(second) < 20_000 < bytes_of(first) / 10
        for name in ("flat", "graph", "lists", "tree"):
            change(db, name, 1)
        db["graph"].vacuum()
        db.drop_collection("empty")
        db.backup(url)
        assert bytes_of(sent.take()) < bytes_of(first)
        after = answers(db)
    assert restored(url, tmp_path / "new") == after != before
    assert restored(url, tmp_path / "new", sequence) == before


def test_the_pieces_of_a_growing_file_stay_few_and_are_sent_seldom() -> None:
    rng = np.random.default_rng(3)
    for step_bytes in (1_000, 300_000, 5_000_000, 20_000_000):
        pieces: list[tuple[str, int]] = []
        length = sent_bytes = 0
        for _ in range(300):
            length += int(rng.integers(0, step_bytes))
            kept = pieces_to_keep(pieces, length)
            first = sum(size for _, size in kept)
            assert kept == pieces[: len(kept)] and first <= length
            new = [("x", min(PIECE_BYTES_MAX, length - at)) for at in range(first, length, PIECE_BYTES_MAX)]
            pieces = [*kept, *new]
            sent_bytes += length - first
        short = [size for _, size in pieces if size < PIECE_BYTES_MAX]
        assert sum(size for _, size in pieces) == length and len(short) <= 24 and sent_bytes < 12 * length
        assert pieces_to_keep(pieces, length) == pieces


def test_writes_vacuum_clear_and_drop_go_on_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, url_of: Callable[[str], str]
) -> None:
    url = url_of("file")
    with open_database(tmp_path / "db", maintenance=False) as db:
        fill(db)
        before, failed = answers(db), []

        def much() -> None:
            try:
                for name in ("flat", "graph", "lists", "tree"):
                    change(db, name, 2)
                    db[name].optimize()
                    db[name].vacuum()
                db["flat"].clear()
                db.drop_collection("tree")
                db["notes"].upsert(["q"], [[1, 2, 3]])
            except BaseException as error:
                failed.append(error)

        def from_another_thread() -> None:  # this one has the locks that a backup holds
            thread = threading.Thread(target=much)
            thread.start()
            thread.join(60)
            assert not thread.is_alive(), "maintenance waits for the whole backup"

        happened = once_before(monkeypatch, BackupFolder, "put_piece", from_another_thread)
        db.backup(url)
        assert happened and not failed
        after = answers(db)
        assert restored(url, tmp_path / "new") == before
        db.backup(url)
    assert restored(url, tmp_path / "new") == after


def test_rows_that_die_meanwhile_are_not_given_back_to_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, url_of: Callable[[str], str]
) -> None:
    with open_database(tmp_path / "db", maintenance=False) as db:
        docs = db.create_collection("docs", 256, "l2", vecdb.Flat())
        docs.upsert(range(500), clustered(500, 256))
        state = docs._backend.state
        freed: list[int] = []

        def give_back() -> None:
            docs.delete(range(400))
            freed.append(give_back_deleted_rows(state))

        once_before(monkeypatch, TakenFile, "read", give_back)
        db.backup(url_of("file"))
        vecdb.restore(url_of("file"), tmp_path / "new")
        assert freed == [0] and give_back_deleted_rows(state) > 0  # not on a file system that cannot
    with open_database(tmp_path / "new") as new:
        assert new.check() == [] and new["docs"].count() == 500
        assert np.array_equal(new["docs"].get(7, include_vectors=True).vector, clustered(500, 256)[7])


@pytest.mark.parametrize("kind", ["file", pytest.param("s3", marks=pytest.mark.slow)])
def test_what_is_restored_is_one_of_the_commits(kind: str, tmp_path: Path, url_of: Callable[[str], str]) -> None:
    """One record a commit, written while backups are made: commit and content must belong together."""
    url, states, stop = url_of(kind), {}, threading.Event()
    with open_database(tmp_path / "db", maintenance=False) as db:
        docs = db.create_collection("docs", 8, "l2", vecdb.Hnsw())
        docs.upsert(range(50), clustered(50, 8), [{"n": 0}] * 50)
        live = dict.fromkeys(range(50), 0)
        states[db.stats()["sequence"]] = dict(live)
        rng = np.random.default_rng(1)

        def write() -> None:
            value = 0
            while not stop.is_set():
                value += 1
                one = int(rng.integers(0, 80))
                if value % 40 == 0:
                    docs.optimize()
                elif value % 5 == 0 and one in live:
                    docs.delete(one)
                    live.pop(one)
                else:
                    docs.upsert(one, clustered(1, 8, value)[0], {"n": value})
                    live[one] = value
                states.update({at: dict(live) for at in range(max(states) + 1, db.stats()["sequence"] + 1)})

        writer = threading.Thread(target=write)
        writer.start()
        made = []
        for _ in range(6):
            db.backup(url)
            made.append(db.stats()["sequence"])
        stop.set()
        writer.join()
    for at in (None, made[0], made[3]):
        shutil.rmtree(tmp_path / "new", ignore_errors=True)
        vecdb.restore(url, tmp_path / "new", at=at)
        with open_database(tmp_path / "new", maintenance=False) as new:
            assert new.check() == []
            found = {one.id: one.fields["n"] for page in new["docs"].iter() for one in page}
            assert found == states[new.stats()["sequence"]]


@pytest.mark.slow
def test_random_commits_and_times_lead_to_exactly_their_states(tmp_path: Path, url_of: Callable[[str], str]) -> None:
    """All kinds of indexes, changed at random; a backup now and then. A commit or a moment means the newest backup that
    is not later.
    """
    print(f"VECDB_SEED={SEED}")
    url, rng, made, restores = url_of("file"), np.random.default_rng(SEED), [], 20
    with open_database(tmp_path / "db", maintenance=False) as db:
        fill(db)
        while len(made) < restores:
            for step in range(int(rng.integers(1, 4))):
                change(db, str(rng.choice(["flat", "graph", "lists", "tree"])), 10 * len(made) + step)
            if rng.random() < 0.2:
                db[str(rng.choice(["flat", "graph", "lists", "tree"]))].vacuum()
            db.backup(url)
            made.append((db.stats()["sequence"], datetime.now(UTC), answers(db)))
        last = db.stats()["sequence"]
    firsts, times = [one[0] for one in made], [one[1] for one in made]
    for number in rng.integers(firsts[0], last + 1, restores).tolist():
        state = made[bisect_right(firsts, number) - 1][2]
        assert restored(url, tmp_path / "new", number) == state
    for _ in range(restores):
        moment = times[0] + (times[-1] - times[0]) * float(rng.random())
        known = [one["time"] for one in vecdb.backups(url)]
        state = made[sum(one <= moment for one in sorted(known)) - 1][2]
        assert restored(url, tmp_path / "new", moment) == state


def test_a_commit_between_the_pages_and_the_look_at_them_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, url_of: Callable[[str], str]
) -> None:
    with open_database(tmp_path / "db", maintenance=False) as db:
        docs = db.create_collection("docs", 4, "l2")
        read = taking._Copy.read

        def late(copy: Any, view: memoryview) -> int:
            done = read(copy, view)
            if view.nbytes == 2 * filesystem.PAGE and docs.count() < 3:
                docs.upsert(docs.count(), [1, 2, 3, 4])
            return done

        monkeypatch.setattr(taking._Copy, "read", late)
        db.backup(url_of("file"))
        vecdb.restore(url_of("file"), tmp_path / "new")
    with open_database(tmp_path / "new") as new:
        assert new.check() == [] and new["docs"].count() == 3


def test_a_reading_process_begins_anew_where_the_writer_has_removed_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, url_of: Callable[[str], str]
) -> None:
    with open_database(tmp_path / "db", maintenance=False) as db:
        fill(db)
        with open_database(tmp_path / "db", read_only=True) as reading:
            for owner, name in ((taking, "files_at"), (TakenFile, "read")):
                monkeypatch.setattr(filesystem, "open_files_max", lambda wanted: 1)  # nearly all are opened late
                happened = once_before(monkeypatch, owner, name, db["graph"].vacuum)
                change(db, "graph", 3)
                reading.backup(url_of("file"))
                assert happened and restored(url_of("file"), tmp_path / "new") == answers(db)
            monkeypatch.setattr(taking, "files_at", lambda *_: {1: {"rows.77": 4096}})
            with pytest.raises(Unavailable, match="files were replaced"):
                reading.backup(url_of("file"))


@pytest.mark.slow
def test_with_few_descriptors_the_rest_waits_for_its_locks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, url_of: Callable[[str], str]
) -> None:
    with open_database(tmp_path / "db", maintenance=False) as db:
        fill(db)
        monkeypatch.setattr(filesystem, "open_files_max", lambda wanted: 2)
        thread = threading.Thread(target=db["tree"].vacuum)
        once_before(monkeypatch, TakenFile, "read", thread.start)
        db.backup(url_of("file"))
        thread.join()
        assert restored(url_of("file"), tmp_path / "new") == answers(db)


_KILLED = """
import os, signal, sys, vecdb
from vecdb.replication.backups import backup_folder, remote_backup
from vecdb.replication.folder_bucket import FolderBucket
backup_folder.PIECE_BYTES_MAX = remote_backup.PIECE_BYTES_MAX = 200_000
write, left = FolderBucket._write, int(sys.argv[1])
def writing(*values):
    global left
    left -= 1
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    write(*values)
FolderBucket._write = writing
vecdb.open(sys.argv[2], read_only=True).backup(sys.argv[3])
"""


@pytest.mark.parametrize("stops", [(7,), pytest.param((1, 4, 4, 3, 3, 2), marks=pytest.mark.slow)])
def test_a_killed_backup_goes_on_where_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stops: tuple[int, ...]
) -> None:
    """stops : before which object each process is killed."""
    url, database, pieces = f"file://{tmp_path}/bucket", tmp_path / "db", set[str]()
    with open_database(database, maintenance=False) as db:
        docs = db.create_collection("docs", 64, "l2", vecdb.Flat())
        docs.upsert(range(10_000), clustered(10_000, 64))
    for stop in stops:
        done = subprocess.run([sys.executable, "-c", _KILLED, str(stop), str(database), url], check=False)
        now = {path.name for path in (tmp_path / "bucket").rglob("backups/pieces/*/*")}
        assert done.returncode == -9 and pieces <= now and len(now) >= min(14, len(pieces) + stop - 3)
        pieces = now
        with pytest.raises(NotFound, match="no backups"):
            vecdb.restore(url, tmp_path / "new")
    monkeypatch.setattr(remote_backup, "PIECE_BYTES_MAX", 200_000)
    with open_database(database, read_only=True) as db:
        db.backup(url)
    whole = {path.name for path in (tmp_path / "bucket").rglob("backups/pieces/*/*")}
    assert pieces <= whole and len({name[:64] for name in whole}) == len(whole)  # none was sent twice
    vecdb.restore(url, tmp_path / "new")
    with open_database(tmp_path / "new") as new:
        assert new.check() == [] and new["docs"].count() == 10_000


def test_what_cannot_be_reached_is_an_error_and_nothing_is_left(
    s3: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_database(tmp_path / "db", maintenance=False) as db:
        with pytest.raises(NotFound, match="no such bucket"):
            db.backup("s3://nobody-has-this/x")
        for url in ("s3://", "file://x/y", "s3://me:secret@b/x"):
            with pytest.raises(InvalidArgument):
                db.backup(url)
        with pytest.raises(InvalidArgument, match="within the database"):
            db.backup(f"file://{tmp_path}/db/backups")
        with monkeypatch.context() as refusing:

            def refuse(*_: Any) -> None:
                raise PermissionDenied("no")

            refusing.setattr(BackupFolder, "put_piece", refuse)
            with pytest.raises(PermissionDenied):
                db.backup(s3)
        with monkeypatch.context() as without:
            without.setitem(sys.modules, "obstore", None)
            without.setitem(sys.modules, "obstore.store", None)
            with pytest.raises(VecdbError, match=r"vecdb-engine\[remote\]"):
                db.backup(s3)
        db.backup(s3)
        assert sorted(path.name for path in (tmp_path / "db").iterdir()) == [
            "COMMITTED", "LOCK", "READERS", "collections", "lmdb", "manifest.json",
        ]  # fmt: skip
    assert remote_backup._THREADS * PIECE_BYTES_MAX <= 32 << 20  # what a backup holds in memory
