"""A database directory: how it is made in its place, and locked by the process that opens it.

DB/  LOCK             flock by the writing process; holds its pid. Made once, removed by nobody
     READERS          flock, shared, by each reading process
     NEW              there while the database is being made: nothing in it counts yet
     manifest.json    format (manifest.py); with it the database exists
     COMMITTED        number of the newest commit (commit_mark.py)
     LOG, FOLLOWS     who writes the log; this is a copy that follows one (replication/log/applying.py)
     lmdb/            the committed state (store.py, keys.py)
     collections/<uid>/   row files and sealed indexes

    lock LOCK -> NEW -> lmdb/, collections/ -> manifest.json, by one rename -> NEW goes

Whoever makes or opens a database for writing holds LOCK from its first step on, so there is one at any time, and
others are told `Locked`. The directory itself is neither renamed nor replaced: it may be a mount point, the working
directory, or lie in a folder in which nothing may be made. A process that dies before the rename leaves NEW behind;
the next one begins anew.
"""

from __future__ import annotations

import datetime
import uuid
from pathlib import Path

from vecdb.errors import Corruption, InvalidArgument, Unavailable
from vecdb.replication.log.applying import FOLLOWS, NOTE
from vecdb.storage.disk import commit_mark, filesystem, manifest
from vecdb.storage.kv.store import LMDB_FORMAT, READERS, Store

LOCK, NEW = "LOCK", "NEW"
_MADE = ("lmdb", "collections", f"{manifest.NAME}.tmp")  # what a creation that died may leave beside NEW
_OURS = {LOCK, READERS, NEW, NOTE, FOLLOWS, manifest.NAME, commit_mark.NAME, *_MADE}
_SHOWN = 3  # names that a message gives


def prepare_directory(path: Path, *, durable: bool) -> int:
    """Make the directory a database where it is none yet, and take its lock. Returns the lock's descriptor.

    Raises Locked where another holds it, InvalidArgument where something else lies there.
    """
    if not filesystem.exists(path / manifest.NAME):
        _make_directory(path, durable=durable)
        _refuse_other_things(path)
    try:
        lock_fd = filesystem.lock_directory(path)
    except FileNotFoundError:
        raise Unavailable(f"{path} went away while it was being opened") from None
    try:
        if not filesystem.exists(path / manifest.NAME):
            _create(path, durable=durable)
        elif filesystem.exists(path / NEW):  # whoever made it died just before its last step
            filesystem.remove(path / NEW)
            if durable:
                filesystem.sync_dir(path)
        filesystem.touch(path / READERS)
        return lock_fd
    except BaseException:
        filesystem.unlock(lock_fd)
        raise


def check_folders(path: Path) -> None:
    """Raise Corruption where the folders of a database are none, or lead elsewhere."""
    for name in ("lmdb", "collections"):
        filesystem.require_folder(path / name)


def _make_directory(path: Path, *, durable: bool) -> None:
    kind = filesystem.kind_of(path)
    if kind == "link" and not filesystem.exists(path):
        raise InvalidArgument(f"{path} is a link to a place that is not there; make or mount it first")
    if kind not in ("nothing", "folder", "link") or (kind == "link" and not path.is_dir()):
        raise InvalidArgument(f"{path} exists and is no vecdb database; give a new or empty directory")
    if filesystem.make_private_dir(path) and durable:
        filesystem.sync_parent(path)


def _refuse_other_things(path: Path) -> None:
    """A new database begins in a directory that is empty but for what file systems and tools keep there: hidden names
    and lost+found stay as they are. Nothing is made where something else lies.
    """
    names = filesystem.list_dir(path)
    others = [name for name in names if name not in _OURS and not name.startswith(".") and name != "lost+found"]
    torn = [name for name in names if name in _MADE]
    if torn and not filesystem.exists(path / LOCK):  # whoever makes a database holds LOCK before anything is there
        others += torn
    if others:
        shown = ", ".join(repr(name) for name in others[:_SHOWN]) + (", ..." if len(others) > _SHOWN else "")
        raise InvalidArgument(
            f"{path} exists and is no vecdb database: there is {shown} in it; give a new or empty directory"
        )


def _create(path: Path, *, durable: bool) -> None:
    """Under the lock: make all that a database has, and last its manifest."""
    there = [name for name in filesystem.list_dir(path) if name in _MADE]
    if there and not filesystem.exists(path / NEW):
        raise Corruption(
            f"{path / manifest.NAME} is missing, {there[0]!r} is there; restore the database from a backup"
        )
    filesystem.touch(path / NEW)
    if durable:
        filesystem.sync_dir(path)  # before anything that could be taken for a database without its manifest
    filesystem.remove(path / commit_mark.NAME)
    for name in ("lmdb", "collections"):
        filesystem.remove_tree(path / name)
        filesystem.make_private_dir(path / name)
    Store(path / "lmdb", read_only=False, durability="full" if durable else "none").close()
    if durable:
        filesystem.sync_dir(path / "lmdb")
        filesystem.sync_dir(path)
    created = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    filesystem.touch(path / READERS)
    for name in (LOCK, READERS):
        filesystem.make_private(path / name)
    manifest.write(path, manifest.Manifest(manifest.FORMAT_VERSION, LMDB_FORMAT, str(uuid.uuid4()), created))
    filesystem.make_private(path / manifest.NAME)
    filesystem.remove(path / NEW)
    if durable:
        filesystem.sync_dir(path)


def lock_as_reader(path: Path) -> int | None:
    """Tell the writing process that this one reads. None where the file is missing: no process has written here yet."""
    try:
        return filesystem.lock_shared(path / READERS)
    except OSError:
        return None
