"""A database directory: made whole by one rename, and locked by the process that opens it.

DB/  LOCK             flock by the writing process; holds its pid
     READERS          flock, shared, by each reading process
     manifest.json    format (manifest.py)
     lmdb/            the committed state (store.py, keys.py)
     collections/<uid>/   row files and sealed indexes
"""

from __future__ import annotations

import datetime
import os
import uuid
from pathlib import Path

from vecdb.errors import InvalidArgument, Unavailable
from vecdb.storage.disk import filesystem, manifest
from vecdb.storage.kv.store import LMDB_FORMAT, READERS, Store


def prepare_directory(path: Path, *, durable: bool) -> int:
    """Make the directory a database where it is none yet, and take its lock. Returns the lock's descriptor.

    A new database is made whole in `path.tmp` and renamed, so that a crash leaves none or all of it.
    """
    if not filesystem.exists(path / manifest.NAME):
        if filesystem.exists(path) and (
            not path.is_dir() or [name for name in filesystem.list_dir(path) if name != "LOCK"]
        ):
            raise InvalidArgument(f"{path} exists and is no vecdb database; give a new or empty directory")
        _create_directory(path, durable=durable)
    try:
        lock_fd = filesystem.lock_directory(path)
        filesystem.touch(path / READERS)
        return lock_fd
    except FileNotFoundError:
        raise Unavailable(f"{path} went away while it was being opened") from None


def _remove_torn_creations(path: Path) -> None:
    """Folders of creations whose process died before the rename; one that is at work names a living process."""
    head = f"{path.name}.tmp-"
    for name in filesystem.list_dir(path.parent):
        pid = name.removeprefix(head).split("-")[0]
        if name.startswith(head) and pid.isdigit() and not filesystem.process_lives(int(pid)):
            filesystem.remove_tree(path.parent / name)


def _create_directory(path: Path, *, durable: bool) -> None:
    filesystem.make_dir(path.parent)
    _remove_torn_creations(path)
    temporary = path.with_name(f"{path.name}.tmp-{os.getpid()}-{uuid.uuid4().hex[:8]}")
    filesystem.make_dir(temporary / "lmdb")
    filesystem.make_dir(temporary / "collections")
    try:
        Store(temporary / "lmdb", read_only=False, durability="full" if durable else "none").close()
        created = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        manifest.write(temporary, manifest.Manifest(manifest.FORMAT_VERSION, LMDB_FORMAT, str(uuid.uuid4()), created))
        if filesystem.exists(path):
            filesystem.remove(path / "LOCK")
            path.rmdir()
        if durable:
            filesystem.sync_dir(temporary / "lmdb")
            filesystem.sync_dir(temporary)
        try:
            temporary.rename(path)
        except OSError:
            if not filesystem.exists(
                path / manifest.NAME
            ):  # else another process created it just now: theirs is as good
                raise
            filesystem.remove_tree(temporary)
        if durable:
            filesystem.sync_dir(path.parent)
    except BaseException:
        filesystem.remove_tree(temporary)
        raise


def lock_as_reader(path: Path) -> int | None:
    """Tell the writing process that this one reads. None where the file is missing: no process has written here yet."""
    try:
        return filesystem.lock_shared(path / READERS)
    except OSError:
        return None
