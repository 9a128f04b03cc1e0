"""What a bucket keeps of a database: which backups stay and which pieces go, whatever others do meanwhile; histories
are not mixed; and what is damaged is named, not restored.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

import vecdb
from tests.support.corpus import clustered
from tests.support.replication.buckets import Sent, bytes_of, once_before
from tests.support.replication.same_database import answers
from vecdb import limits
from vecdb.embedded.open import open_database
from vecdb.errors import AlreadyExists, Corruption, InvalidArgument, NotFound, Unavailable
from vecdb.replication.backups import backup_folder, remote_restore
from vecdb.replication.backups.backup_folder import BackupFolder, all_backups, read_manifest
from vecdb.replication.backups.remote_backup import RemoteBackup
from vecdb.replication.bucket import open_bucket
from vecdb.replication.folder_bucket import FolderBucket


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"file://{tmp_path}/bucket"


def write(database: Path, url: str | None = None, *, first: int = 0, rows: int = 40, keep: int | None = None) -> None:
    """Write records, each time others; then back up."""
    with open_database(database, maintenance=False) as db:
        docs = db.create_collection("docs", 8, "l2", vecdb.Hnsw(), exist_ok=True)
        docs.upsert(range(first, first + rows), clustered(rows, 8, first), [{"n": first}] * rows)
        if url is not None:
            db.backup(url, keep=keep)


def state_of(database: Path) -> Any:
    with open_database(database, maintenance=False) as db:
        return answers(db)


def restored(url: str, folder: Path, **at: Any) -> Any:
    shutil.rmtree(folder, ignore_errors=True)
    vecdb.restore(url, folder, **at)
    return state_of(folder)


def objects(tmp_path: Path, folder: str) -> set[str]:
    return {path.name for path in (tmp_path / "bucket").rglob(f"backups/{folder}/*/*")}


# -- histories -----------------------------------------------------------------------------------


def test_another_history_under_the_same_uuid_is_not_mixed_in(tmp_path: Path, url: str) -> None:
    """Restored from an older backup and written on: the same files, lengths and commits, with other rows."""
    a, b = tmp_path / "a", tmp_path / "b"
    write(a, url)
    write(a, url, first=1_000)
    after = state_of(a)
    vecdb.restore(url, b, at=2)
    write(b, first=2_000)
    write(b, url, first=3_000, rows=10)
    assert restored(url, tmp_path / "new") == state_of(b) != after
    write(a, url, first=4_000, rows=10)  # the first goes on, too
    assert restored(url, tmp_path / "new") == state_of(a)
    with open_database(b, maintenance=False) as db:
        db.backup(url)
    assert restored(url, tmp_path / "new") == state_of(b)


def test_two_copies_of_a_directory_are_not_mixed(tmp_path: Path, url: str) -> None:
    write(tmp_path / "a", url)
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    for turn in range(2):
        for name, first in (("a", 1_000), ("b", 2_000)):
            write(tmp_path / name, url, first=first + 100 * turn)
            assert restored(url, tmp_path / "new") == state_of(tmp_path / name)


def test_an_index_file_that_was_written_again_under_its_name_is_read_again(
    tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "flat_rows_max", 10)
    database = tmp_path / "db"
    with open_database(database, maintenance=False) as db:
        docs = db.create_collection("docs", 8, "l2", vecdb.Hnsw())
        docs.upsert(range(200), clustered(200, 8))
        docs.optimize()
    [sealed] = (database / "collections").rglob("hnsw.*")
    whole = sealed.read_bytes()
    sealed.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with open_database(database, maintenance=False) as db:
        db.backup(url)
    sealed.unlink()
    sealed.write_bytes(whole)
    with open_database(database, maintenance=False) as db:
        db.backup(url)
    vecdb.restore(url, tmp_path / "new")
    [found] = (tmp_path / "new" / "collections").rglob("hnsw.*")
    assert found.read_bytes() == whole


# -- which stay ----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["file", pytest.param("s3", marks=pytest.mark.slow)])
def test_the_newest_stay_with_all_that_they_need(kind: str, tmp_path: Path, url_of: Callable[[str], str]) -> None:
    url, states = url_of(kind), []
    for first in range(0, 300, 100):
        write(tmp_path / "db", url, first=first)
        states.append(state_of(tmp_path / "db"))
    bucket = open_bucket(url)
    before, backups = dict(bucket.list("backups/pieces")), all_backups(bucket)
    assert len(backups) == 3
    with open_database(tmp_path / "db", maintenance=False) as db:
        db["docs"].vacuum()
        db.backup(url, keep=2)
        last = answers(db)
    left = all_backups(bucket)
    assert left[0] == backups[-1] and len(left) == 2
    named: set[str] = set()
    for one in left:
        found = read_manifest(bucket, one)
        assert found is not None
        named |= found.pieces().keys()
    now = dict(bucket.list("backups/pieces"))
    assert {key.rpartition("/")[2] for key in now} == named and before.keys() - now.keys()
    assert [key for folder in ("intents", "condemned") for key, _ in bucket.list(f"backups/{folder}")] == []
    assert restored(url, tmp_path / "new") == last
    assert restored(url, tmp_path / "new", at=left[0].sequence) == states[-1]
    with pytest.raises(NotFound, match="no backup that is not later than 2; there is commit"):
        vecdb.restore(url, tmp_path / "none", at=2)


def test_what_an_interrupted_backup_left_goes_after_a_day(tmp_path: Path, url: str) -> None:
    write(tmp_path / "db", url, keep=1)
    [folder] = (tmp_path / "bucket" / "backups" / "pieces").iterdir()
    old, young = (folder / f"{digit * 64}-{digit * 16}" for digit in "ab")
    intent = folder.parents[1] / "intents" / folder.name / "dead"
    intent.parent.mkdir(exist_ok=True)
    shutil.copy(next((folder.parents[1] / "manifests").rglob("*Z-*")), intent)
    for path in (old, young):
        path.write_bytes(b"1")
    for path in (old, intent):
        os.utime(path, (0, 0))
    write(tmp_path / "db", url, first=100, keep=1)
    assert not old.exists() and young.exists() and not intent.exists()
    assert restored(url, tmp_path / "new") == state_of(tmp_path / "db")


@pytest.mark.parametrize("step", ["sent", "finished", "listed", "named"])
def test_a_backup_that_relies_on_what_is_just_removed_is_whole(
    step: str, tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its pieces are of a backup that goes while it is on its way."""
    a, b = tmp_path / "a", tmp_path / "b"
    write(a, url)
    shutil.copytree(a, b)

    def remove() -> None:
        with open_database(b, maintenance=False) as db:
            db["docs"].clear()
            db["docs"].vacuum()
            db.backup(url, keep=1)

    create = FolderBucket.create

    def creating(bucket: Any, key: str, data: bytes) -> str:
        if step == "listed" and "/intents/" in key and not happened:
            happened.append(True)
            once_before(monkeypatch, BackupFolder, "_pieces", remove)
        if step == "named" and "/manifests/" in key and not happened:
            happened.append(True)
            remove()
        return create(bucket, key, data)

    happened: list[bool] = []
    with open_database(a, maintenance=False) as db:
        if step == "sent":
            happened = once_before(monkeypatch, RemoteBackup, "_sent", remove)
        elif step == "finished":
            happened = once_before(monkeypatch, BackupFolder, "finish", remove)
        else:
            monkeypatch.setattr(FolderBucket, "create", creating)
        db.backup(url)
        assert happened
        here = answers(db)
    assert restored(url, tmp_path / "new", at=2) == here


def test_who_removes_leaves_what_is_about_to_be_a_backup(
    tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another backup becomes whole between the list of what goes and its removal."""
    a, b = tmp_path / "a", tmp_path / "b"
    write(a, url)
    shutil.copytree(a, b)
    with open_database(b, maintenance=False) as other, open_database(a, maintenance=False) as db:
        db["docs"].clear()
        db["docs"].vacuum()
        create = FolderBucket.create

        def creating(bucket: Any, key: str, data: bytes) -> str:
            if "condemned" in key and not done:
                done.append(True)
                other.backup(url)  # names the pieces that are about to be condemned
            return create(bucket, key, data)

        done: list[bool] = []
        monkeypatch.setattr(FolderBucket, "create", creating)
        db.backup(url, keep=1)
        assert done
        here = answers(other)
    assert restored(url, tmp_path / "new") == here


def test_who_stood_still_removes_nothing_that_is_needed_by_then(
    tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between its last look at the manifests and its deletions another backup begins and ends."""
    a, b = tmp_path / "a", tmp_path / "b"
    write(a, url)
    shutil.copytree(a, b)
    with open_database(b, maintenance=False) as other, open_database(a, maintenance=False) as db:
        db["docs"].clear()
        db["docs"].vacuum()
        delete = FolderBucket.delete

        def deleting(bucket: Any, keys: Any) -> None:
            keys = list(keys)
            if any("/pieces/" in key for key in keys) and not done:
                done.append(True)
                BackupFolder(bucket, db._backend.manifest.uuid)._remove_left_lists()  # type: ignore[attr-defined]
                other.backup(url)
                other.backup(url, keep=2)  # and tidies, too
            delete(bucket, keys)

        done: list[bool] = []
        monkeypatch.setattr(FolderBucket, "delete", deleting)
        db.backup(url, keep=1)
        assert done
        here = answers(other)
    assert restored(url, tmp_path / "new") == here


def test_a_list_of_somebody_who_died_is_obeyed_until_nothing_of_it_is_left(
    tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent = Sent(monkeypatch)
    write(tmp_path / "db", url)
    bucket, [name] = open_bucket(url), {path.parent.name for path in (tmp_path / "bucket").rglob("backups/pieces/*/*")}
    pieces = objects(tmp_path, "pieces")
    bucket.create(f"backups/condemned/{name}/dead", "\n".join(pieces).encode())
    whole = bytes_of(sent.take(), "/pieces/")
    write(tmp_path / "db", url, rows=0, keep=1)
    assert bytes_of(sent.take(), "/pieces/") >= whole  # nothing of it was relied on
    assert objects(tmp_path, "pieces").isdisjoint(pieces) and objects(tmp_path, "condemned") == set()
    assert restored(url, tmp_path / "new") == state_of(tmp_path / "db")


# -- which one -----------------------------------------------------------------------------------


def test_the_newest_that_is_not_later_is_taken(tmp_path: Path, url: str) -> None:
    states = []
    for first in (0, 100, 200):
        write(tmp_path / "db", url, first=first)
        states.append(state_of(tmp_path / "db"))
    times = [(one.time, one.sequence) for one in all_backups(open_bucket(url))]
    assert times == sorted(times) and len({time for time, _ in times}) == 3
    for (time, sequence), state in zip(times, states, strict=True):
        for at in (time, time.astimezone(), time + timedelta(microseconds=500), sequence):
            assert restored(url, tmp_path / "new", at=at) == state
    assert restored(url, tmp_path / "new", at=datetime.now(UTC)) == states[-1]
    assert restored(url, tmp_path / "new", at=times[1][1] + 10**6) == states[-1]
    for at, wanted in ((times[0][0] - timedelta(seconds=1), NotFound), (0, NotFound)):
        with pytest.raises(wanted, match="there is commit 2"):
            vecdb.restore(url, tmp_path / "none", at=at)
    for at in (True, "2026", 1.5):
        with pytest.raises(InvalidArgument, match="number of a commit, or a datetime"):
            vecdb.restore(url, tmp_path / "none", at=at)  # type: ignore[arg-type]
    with pytest.raises(InvalidArgument, match="no time zone"):
        vecdb.restore(url, tmp_path / "none", at=datetime.now())
    with pytest.raises(InvalidArgument, match="one backup"):
        vecdb.restore(tmp_path / "db", tmp_path / "none", at=3)
    with pytest.raises(AlreadyExists):
        vecdb.restore(url, tmp_path / "new")
    assert not (tmp_path / "none").exists()


def test_of_several_databases_one_is_named(tmp_path: Path, url: str) -> None:
    for name in ("a", "b"):
        write(tmp_path / name, url, first=ord(name))
    with pytest.raises(InvalidArgument, match="backups of 2 databases"):
        vecdb.restore(url, tmp_path / "none")
    found = {one.database for one in all_backups(open_bucket(url))}
    states = [restored(f"{url}/{name}", tmp_path / "new") for name in sorted(found)]
    assert all(state in (state_of(tmp_path / "a"), state_of(tmp_path / "b")) for state in states)
    assert states[0] != states[1]
    with pytest.raises(NotFound, match="no backups"):
        vecdb.restore(f"file://{tmp_path}/nothing", tmp_path / "none")


# -- damage --------------------------------------------------------------------------------------


@pytest.fixture
def kept(tmp_path: Path, url: str) -> list[Path]:
    """A backup of small pieces. Returns these."""
    write(tmp_path / "db", url)
    return sorted((tmp_path / "bucket").rglob("backups/pieces/*/*"))


def test_a_piece_that_is_damaged_or_missing_is_named_and_nothing_restored(
    tmp_path: Path, url: str, kept: list[Path]
) -> None:
    assert len(kept) >= 2
    before = sorted(path.name for path in tmp_path.iterdir())
    rng = np.random.default_rng(5)
    for piece in kept:
        whole = piece.read_bytes()
        at = int(rng.integers(len(whole)))
        for damaged in (whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :], whole[:-1], whole + b"x", b"", None):
            piece.unlink()
            if damaged is not None:
                piece.write_bytes(damaged)
            with pytest.raises(Corruption, match=piece.name):
                vecdb.restore(url, tmp_path / "new")
            piece.write_bytes(whole)
    assert sorted(path.name for path in tmp_path.iterdir()) == before
    vecdb.restore(url, tmp_path / "new")


def changed_manifest(tmp_path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    [path] = (tmp_path / "bucket").rglob("backups/manifests/*/*")
    body = msgspec.json.decode(path.read_bytes().partition(b"\n")[2])
    change(body)
    raw = msgspec.json.encode(body)
    path.write_bytes(hashlib.sha256(raw).hexdigest().encode() + b"\n" + raw)


def _rename(files: dict[str, Any], old: str, new: str) -> None:
    files[new] = files.pop(next(name for name in files if name.startswith(old)))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda body: body["files"].pop("lmdb/data.mdb"), "does not name lmdb"),
        (lambda body: _rename(body["files"], "collections", "../../evil"), "no file of a backup"),
        (lambda body: _rename(body["files"], "collections", "collections/00000001/rows.9"), "the database in the"),
        (lambda body: body["files"].update({"collections/00000007/x": {"bytes": 0, "pieces": []}}), "the database in"),
        (lambda body: body["files"]["lmdb/data.mdb"].update(bytes=5), "do not have 5 bytes"),
        (lambda body: body["files"]["lmdb/data.mdb"].update(pieces=[["../x", 5]], bytes=5), "cannot be"),
        (
            lambda body: body["files"]["lmdb/data.mdb"].update(pieces=[["a" * 64 + "-" + "b" * 16, 1 << 40]]),
            "cannot be",
        ),
        (lambda body: body.update(sequence=99), "another backup"),
        (lambda body: body.pop("files"), "not the manifest"),
        (lambda body: body.update(format="x"), "not the manifest"),
    ],
)
def test_a_manifest_that_says_what_cannot_be_is_refused(
    tmp_path: Path, url: str, kept: list[Path], change: Callable[[dict[str, Any]], None], said: str
) -> None:
    changed_manifest(tmp_path, change)
    with pytest.raises(Corruption, match=said):
        vecdb.restore(url, tmp_path / "new")
    assert not (tmp_path / "new").exists() and not (tmp_path / "evil").exists()


def test_a_damaged_manifest_and_one_of_a_later_version(tmp_path: Path, url: str, kept: list[Path]) -> None:
    [path] = (tmp_path / "bucket").rglob("backups/manifests/*/*")
    whole = path.read_bytes()
    for damaged in (whole[:-1], b"", whole.replace(b"rows", b"rowz"), b"\xff" * 100):
        path.write_bytes(damaged)
        with pytest.raises(Corruption, match=path.name):
            vecdb.restore(url, tmp_path / "new")
    write(tmp_path / "db", url, first=100)  # begins anew beside it
    assert restored(url, tmp_path / "new") == state_of(tmp_path / "db")
    path.write_bytes(whole)
    with pytest.raises(AlreadyExists):
        vecdb.restore(url, tmp_path / "new")
    newest = sorted((tmp_path / "bucket").rglob("backups/manifests/*/*"))[-1]
    newest.unlink()
    changed_manifest(tmp_path, lambda body: body.update(format=backup_folder.FORMAT + 1))
    with pytest.raises(Unavailable, match="upgrade vecdb"):
        vecdb.restore(url, tmp_path / "newer")


def test_a_backup_that_goes_while_it_is_restored_is_not_called_damaged(
    tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "db", url)

    def remove() -> None:
        write(tmp_path / "db")
        with open_database(tmp_path / "db", maintenance=False) as db:
            db["docs"].clear()
            db["docs"].vacuum()
            db.backup(url, keep=1)

    once_before(monkeypatch, remote_restore, "_fetch_piece", remove)
    with pytest.raises(Unavailable, match="was removed while"):
        vecdb.restore(url, tmp_path / "new")
    assert not (tmp_path / "new").exists()


@pytest.mark.slow
@pytest.mark.parametrize("step", ["pwrite", "fsync", "sync_dir", "rename", "sync_parent"])
def test_a_restore_that_is_killed_leaves_all_or_nothing(tmp_path: Path, url: str, kept: list[Path], step: str) -> None:
    """At the last call of each kind, and at one in the middle."""
    code = (
        "import os, signal, sys, vecdb\nfrom vecdb.storage.disk import filesystem\n"
        "call, left = getattr(filesystem, sys.argv[1]), int(sys.argv[2])\n"
        "def calling(*values):\n    global left\n    left -= 1\n"
        "    if left == 0:\n        os.kill(os.getpid(), signal.SIGKILL)\n    return call(*values)\n"
        "setattr(filesystem, sys.argv[1], calling)\nvecdb.restore(sys.argv[3], sys.argv[4])"
    )
    state, killed = state_of(tmp_path / "db"), 0
    for nth in (1, 3):
        target = tmp_path / f"new{nth}"
        done = subprocess.run([sys.executable, "-c", code, step, str(nth), url, str(target)], check=False)
        killed += done.returncode == -9
        if not target.exists():
            vecdb.restore(url, target)
        assert state_of(target) == state
        assert not list(tmp_path.glob("new*tmp*"))
    assert killed


def test_no_room_is_said_before_anything_is_written(
    tmp_path: Path, url: str, kept: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    from vecdb.storage.disk import filesystem

    monkeypatch.setattr(filesystem, "free_bytes", lambda _: 1_000)
    with pytest.raises(Unavailable, match="no space left while restoring"):
        vecdb.restore(url, tmp_path / "new")
