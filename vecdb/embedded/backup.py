"""Backup into a directory: a consistent copy of a database that is in use. (In a bucket: replication/backups/.)

    BACKUP/  as a database directory, without LOCK, and its owner's alone
             checksums.json    {"format": 1, "files": {"lmdb/data.mdb": [bytes, "sha256"], ...}}   written last: no
             file, no backup

LMDB's own copy fixes the commit; row files are append-only, so their first rows as counted by that commit are what
it saw.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, suppress
from pathlib import Path
from typing import Any

import msgspec

from vecdb.api.backend import Progress
from vecdb.errors import AlreadyExists, InvalidArgument, VecdbError
from vecdb.replication.backups.contents import files_of_collections, lies_within, whole_directory
from vecdb.storage.disk import filesystem, manifest
from vecdb.storage.disk.paths import collection_folder
from vecdb.storage.kv.store import LMDB_FORMAT, Store

CHECKSUMS = "checksums.json"
FORMAT = 1
_CHUNK_BYTES = 4 << 20


def write_backup(
    path: Path,
    store: Store,
    locks: Iterable[AbstractContextManager[Any]],
    target: Path,
    progress: Progress,
) -> None:
    """Copy the database at `path` into `target`, which must not exist. A crash leaves a folder whose name begins with
    `target`.tmp-, never half a backup; the next backup of that name removes it.

    locks : one for each collection; while it is held no vacuum or seal replaces a file that the copy names.
    """
    if filesystem.kind_of(target) != "nothing":
        raise AlreadyExists(f"{target} exists; give a new directory for the backup")
    if lies_within(target, path):
        raise InvalidArgument(f"{target} lies within the database {path}; give a directory outside of it")
    with whole_directory(target) as temporary:
        filesystem.make_dir(temporary / "lmdb")
        with ExitStack() as held:
            for lock in locks:
                held.enter_context(lock)
            store.copy(temporary / "lmdb")
            made = manifest.read(
                path, LMDB_FORMAT
            )  # after the copy: whoever raises the format does it before the commit
            _sync(temporary / "lmdb" / "data.mdb")
            copied = Store(temporary / "lmdb", read_only=True, durability="full", alone=True)
            try:
                _copy_collections(path, temporary, copied, progress)
            finally:
                copied.close()
        manifest.write(temporary, made)
        _write_checksums(temporary)
        for folder in (temporary / "collections", temporary / "lmdb", temporary):
            filesystem.sync_dir(folder)


def remove_older_backups(newest: Path, made: manifest.Manifest, keep: int) -> None:
    """Of the backups of one database beside `newest`, that one among them, leave the `keep` newest."""
    found = []
    for name in filesystem.list_dir(newest.parent):
        folder = newest.parent / name
        if filesystem.kind_of(folder) == "folder" and filesystem.kind_of(folder / CHECKSUMS) == "file":
            with suppress(VecdbError, OSError):  # of another format, or none of ours
                if manifest.read(folder, LMDB_FORMAT).uuid == made.uuid:
                    found.append((folder != newest, -os.lstat(folder / CHECKSUMS).st_mtime_ns, name))
    for _, _, name in sorted(found)[keep:]:
        filesystem.remove(newest.parent / name / CHECKSUMS)  # without it no backup, should the rest stay behind
        filesystem.remove_tree(newest.parent / name)


def _copy_collections(source: Path, target: Path, store: Store, progress: Progress) -> None:
    wanted = files_of_collections(store)
    filesystem.make_dir(target / "collections")
    for done, (uid, files) in enumerate(wanted.items()):
        from_folder, to_folder = collection_folder(source, uid), collection_folder(target, uid)
        filesystem.make_dir(to_folder)
        for name, length in files.items():
            copy_file(from_folder / name, to_folder, length)
        filesystem.sync_dir(to_folder)
        if progress is not None:
            progress(done + 1, len(wanted))


def copy_file(source: Path, folder: Path, length: int) -> None:
    reading = filesystem.open_read(source)
    try:
        writing = filesystem.open_append(folder / source.name, create=True)
        try:
            filesystem.copy_range(reading, writing, length)
            filesystem.fsync(writing)
        finally:
            filesystem.close(writing)
    finally:
        filesystem.close(reading)


def _sync(file: Path) -> None:
    fd = filesystem.open_append(file)
    try:
        filesystem.fsync(fd)
    finally:
        filesystem.close(fd)


def _write_checksums(folder: Path) -> None:
    files = [file for file in filesystem.walk_files(folder) if file.parent != folder or file.name == manifest.NAME]
    sums = {str(file.relative_to(folder)): digest(file) for file in files}
    filesystem.write_atomic(
        folder / CHECKSUMS, [msgspec.json.format(msgspec.json.encode({"format": FORMAT, "files": sums}))]
    )


def digest(file: Path) -> tuple[int, str]:
    digest, size = hashlib.sha256(), 0
    for chunk in _chunks(file):
        digest.update(chunk)
        size += len(chunk)
    return size, digest.hexdigest()


def _chunks(file: Path) -> Iterator[bytes]:
    fd = filesystem.open_read(file)
    try:
        offset = 0
        while chunk := filesystem.pread(fd, _CHUNK_BYTES, offset):
            yield chunk
            offset += len(chunk)
    finally:
        filesystem.close(fd)
