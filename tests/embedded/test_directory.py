"""Goal: any directory that a user may write becomes a database in its place, and one that somebody prepared harms no
file elsewhere, and no call waits for it for ever.
"""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import vecdb
from vecdb import limits
from vecdb.embedded.open import open_database
from vecdb.errors import Corruption, InvalidArgument, Locked, Unavailable, VecdbError
from vecdb.replication.bucket import is_url


def works(path: Path | str) -> None:
    """It becomes a database, and is one when it is opened again."""
    with open_database(path, maintenance=False) as db:
        db.create_collection("docs", 2, "l2").upsert([1], [[1, 2]])
    with open_database(path, maintenance=False) as db:
        assert db["docs"].count() == 1 and db.check() == []


@pytest.fixture
def mounted(tmp_path: Path) -> Iterator[Path]:
    place = tmp_path / "volume"
    place.mkdir()
    if (
        os.geteuid()
        or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=32m", "tmpfs", place], check=False).returncode
    ):
        pytest.skip("mounting is not allowed here")
    yield place
    subprocess.run(["umount", place], check=True)


def test_a_mount_point_becomes_a_database(mounted: Path) -> None:
    inode = os.stat(mounted).st_ino
    works(mounted)
    assert os.stat(mounted).st_ino == inode


@pytest.mark.parametrize("kept", ["lost+found/", ".gitkeep", ".DS_Store", ".nfs000000000001", ".snapshot/", ".git/"])
def test_what_file_systems_and_tools_keep_in_a_directory_is_left_there(tmp_path: Path, kept: str) -> None:
    place = tmp_path / kept
    place.mkdir() if kept.endswith("/") else place.write_text("mine")
    works(tmp_path)
    assert place.is_dir() if kept.endswith("/") else place.read_text() == "mine"


def test_what_is_in_the_way_is_named(tmp_path: Path) -> None:
    for name in "abcd":
        (tmp_path / name).write_text("mine")
    with pytest.raises(InvalidArgument, match=r"there is 'a', 'b', 'c', \.\.\. in it"):
        vecdb.open(tmp_path)
    assert sorted(os.listdir(tmp_path)) == list("abcd")


def test_folders_named_like_ours_are_not_taken(tmp_path: Path) -> None:
    (tmp_path / "collections").mkdir()
    (tmp_path / "collections" / "mine").write_text("mine")
    with pytest.raises(InvalidArgument, match="'collections'"):
        vecdb.open(tmp_path)
    assert [str(file.relative_to(tmp_path)) for file in tmp_path.rglob("*")] == ["collections", "collections/mine"]


def test_a_database_that_lost_its_manifest_is_not_made_anew(tmp_path: Path) -> None:
    works(tmp_path)
    (tmp_path / "manifest.json").unlink()
    with pytest.raises(Corruption, match=r"manifest\.json is missing"):
        vecdb.open(tmp_path)
    assert (tmp_path / "collections" / "00000001" / "rows.0").exists()


def test_links_to_a_directory_are_followed_and_those_to_nowhere_refused(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "data").symlink_to(tmp_path / "disk")
    works(tmp_path / "data")
    assert (tmp_path / "data").is_symlink() and (tmp_path / "disk" / "manifest.json").exists()
    (tmp_path / "lost").symlink_to(tmp_path / "unmounted")
    with pytest.raises(InvalidArgument, match="not there; make or mount it first"):
        vecdb.open(tmp_path / "lost")
    assert not (tmp_path / "unmounted").exists()


def test_the_working_directory_stays_where_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    works(".")
    assert Path.cwd() == tmp_path
    Path("notes").write_text("still here")


def test_a_parent_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(Unavailable, match="file/db failed: Not a directory"):
        vecdb.open(tmp_path / "file" / "db")


ADDRESSES = [
    "s3://bucket/db", "http://localhost:7711", "localhost:7711", "GRPC://localhost:7711", "grpc:/localhost",
    "[::1]:7711",
    "file:///tmp/db", "10.0.0.1:80/", Path("s3://bucket/db"), "unix:/run/vecdb",
]  # fmt: skip


@pytest.mark.parametrize("address", ADDRESSES, ids=str)
def test_an_address_becomes_no_directory(address: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    socket = str(address).startswith("unix:")  # a server's, of which none is there
    refused = (Unavailable, "cannot be reached") if socket else (InvalidArgument, "is an address")
    with pytest.raises(refused[0], match=refused[1]):
        vecdb.open(address)
    with open_database("here", maintenance=False) as db:
        if not is_url(address):  # a bucket, into which a backup may go: tests/replication
            with pytest.raises(InvalidArgument, match="is an address"):
                db.backup(address)
    with pytest.raises(InvalidArgument, match="is an address"):
        vecdb.restore("here", address)
    assert os.listdir() == ["here"]
    open_database("./a:1", maintenance=False).close()
    assert Path("a:1").is_dir()


def test_a_tilde_is_the_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    with open_database("~/db", maintenance=False) as db:
        assert db.path == tmp_path / "db"
        db.backup("~/backup")
    vecdb.restore("~/backup", "~/restored")
    assert sorted(os.listdir()) == ["backup", "db", "restored"]


def test_a_name_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match="whose name is UTF-8"):
        vecdb.open(tmp_path / "\udcff")


# -- who may read it ---------------------------------------------------------------------------------


@pytest.mark.parametrize("there", [False, True], ids=["new", "in a directory that everybody may read"])
def test_nobody_else_may_read_a_database(tmp_path: Path, there: bool) -> None:
    path = tmp_path / "db"
    if there:
        path.mkdir(mode=0o755)
    old = os.umask(0o022)
    try:
        with open_database(path, maintenance=False) as db:
            docs = db.create_collection("docs", 2, "l2", vecdb.Hnsw())
            docs.upsert(range(500), [[1, n] for n in range(500)])
            docs.optimize()
            docs.vacuum()
            db.backup(tmp_path / "backup")
        vecdb.restore(tmp_path / "backup", tmp_path / "restored")
    finally:
        os.umask(old)
    for base in (path, tmp_path / "backup", tmp_path / "restored"):
        tops = [] if there and base == path else [base]
        for one in (*tops, *base.rglob("*")):
            assert not stat.S_IMODE(os.stat(one).st_mode) & 0o077, one


def test_what_is_made_in_a_shared_database_is_shared(tmp_path: Path) -> None:
    path = tmp_path / "db"
    works(path)
    for one in (path, *path.rglob("*")):
        os.chmod(one, 0o750 if one.is_dir() else 0o640)
    with open_database(path, maintenance=False) as db:
        db.create_collection("more", 2)
    assert stat.S_IMODE(os.stat(path / "collections" / "00000002").st_mode) == 0o750
    assert stat.S_IMODE(os.stat(path / "collections" / "00000002" / "rows.0").st_mode) == 0o640


# -- what others have prepared -----------------------------------------------------------------------


def a_link_to(victim: Path) -> Callable[[Path], None]:
    return lambda place: place.symlink_to(victim)


PLACES = [
    "LOCK", "READERS", "manifest.json", "lmdb/data.mdb", "lmdb/lock.mdb", "lmdb", "collections",
    "collections/00000001", "collections/00000001/rows.0", "collections/00000001/SEALED",
]  # fmt: skip
KINDS: dict[str, Callable[[Path], None]] = {
    "pipe": os.mkfifo,
    "link": a_link_to(Path("/dev/null")),
    "link elsewhere": lambda place: place.symlink_to(place.parent.parent / "victim"),
    "folder": lambda place: place.mkdir(),
}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database with a sealed index, to be copied."""
    path = tmp_path_factory.mktemp("whole") / "db"
    old, limits.flat_rows_max = limits.flat_rows_max, 10
    try:
        with open_database(path, maintenance=False) as db:
            docs = db.create_collection("docs", 2, "l2", vecdb.Hnsw())
            docs.upsert(range(50), [[1, n] for n in range(50)])
            docs.optimize()
    finally:
        limits.flat_rows_max = old
    return path


def prepared(whole: Path, base: Path, place: str, kind: str) -> tuple[Path, Path]:
    """A database in which something else lies at `place`, and a file outside to which links lead."""
    path = base / "db"
    shutil.copytree(whole, path)
    sealed = next(file.name for file in (path / "collections" / "00000001").iterdir() if file.name.startswith("hnsw"))
    at = path / place.replace("SEALED", sealed)
    victim = base / "victim"
    victim.write_text("keep me")
    if at.is_dir():
        at.rename(base / "victim.d")
        at.symlink_to(base / "victim.d")
    else:
        at.unlink()
        at.symlink_to(victim) if kind == "link elsewhere" else KINDS[kind](at)
    return path, victim


@pytest.mark.parametrize("place", PLACES)
def test_a_database_that_holds_other_things_than_files_harms_nobody(whole: Path, tmp_path: Path, place: str) -> None:
    for n, kind in enumerate(KINDS):
        base = tmp_path / str(n)
        base.mkdir()
        path, victim = prepared(whole, base, place, kind)
        for read_only in (True, False):
            try:
                with open_database(path, read_only=read_only, maintenance=False) as db:
                    assert db["docs"].count() == 50
            except Corruption as error:
                assert str(path) in str(error) or "docs" in str(error)
            else:
                # a reader needs no LOCK, and a sealed index is derived
                assert place.endswith("SEALED") or (read_only and place in ("LOCK", "READERS")), (place, kind)
        assert victim.read_text() == "keep me"


def test_a_lock_that_is_another_name_of_a_file_is_not_overwritten(tmp_path: Path) -> None:
    works(tmp_path / "db")
    victim = tmp_path / "victim"
    victim.write_text("something that somebody needs, longer than a number")
    (tmp_path / "db" / "LOCK").unlink()
    (tmp_path / "db" / "LOCK").hardlink_to(victim)
    with pytest.raises(Corruption, match="LOCK"):
        vecdb.open(tmp_path / "db")
    assert victim.read_text().startswith("something")


def test_a_manifest_without_end_is_not_read(tmp_path: Path) -> None:
    works(tmp_path / "db")
    with open(tmp_path / "db" / "manifest.json", "wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(Corruption, match=r"manifest\.json: 1,099,511,627,776 bytes, expected at most"):
        vecdb.open(tmp_path / "db")
    (tmp_path / "db" / "manifest.json").write_bytes(b'{"a":' + b"[" * 30_000 + b"]" * 30_000 + b"}")
    with pytest.raises(VecdbError):
        vecdb.open(tmp_path / "db")


def test_a_directory_that_is_made_anew_while_it_is_locked_is_locked_anew(tmp_path: Path) -> None:
    """What counts is the file that has the name LOCK, not the one that was opened."""
    from vecdb.storage.disk import filesystem

    first = filesystem.lock_directory(tmp_path)
    (tmp_path / "LOCK").unlink()
    second = filesystem.lock_directory(tmp_path)
    with pytest.raises(Locked):
        filesystem.lock_directory(tmp_path)
    filesystem.unlock(first)
    with pytest.raises(Locked):
        filesystem.lock_directory(tmp_path)
    filesystem.unlock(second)
