"""Backup: a consistent copy of a database that is in use.

    BACKUP/  as a database directory, without LOCK
             checksums.json    {"format": 1, "files": {"lmdb/data.mdb": [bytes, "sha256"], ...}}   written last: no
             file, no backup

LMDB's own copy fixes the commit; row files are append-only, so their first rows as counted by that commit are what
it saw.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Any

import msgspec

from vecdb.api.backend import Progress
from vecdb.errors import AlreadyExists
from vecdb.storage.disk import filesystem, manifest, row_format
from vecdb.storage.disk.paths import collection_folder, row_file_name
from vecdb.storage.kv import catalog, keys
from vecdb.storage.kv.store import Store

CHECKSUMS = "checksums.json"
FORMAT = 1
_CHUNK_BYTES = 4 << 20


def write_backup(
    path: Path,
    store: Store,
    made: manifest.Manifest,
    locks: Iterable[AbstractContextManager[Any]],
    target: Path,
    progress: Progress,
) -> None:
    """Copy the database at `path` into `target`, which must not exist. A crash leaves `target`.tmp, never half a
    backup.

    locks : one for each collection; while it is held no vacuum or seal replaces a file that the copy names.
    """
    if filesystem.exists(target):
        raise AlreadyExists(f"{target} exists; give a new directory for the backup")
    with whole_directory(target) as temporary:
        filesystem.make_dir(temporary / "lmdb")
        with ExitStack() as held:
            for lock in locks:
                held.enter_context(lock)
            store.copy(temporary / "lmdb")
            _sync(temporary / "lmdb" / "data.mdb")
            copied = Store(temporary / "lmdb", read_only=True, durability="full")
            try:
                _copy_collections(path, temporary, copied, progress)
            finally:
                copied.close()
        filesystem.remove(temporary / "lmdb" / "lock.mdb")
        manifest.write(temporary, made)
        _write_checksums(temporary)
        for folder in (temporary / "collections", temporary / "lmdb", temporary):
            filesystem.sync_dir(folder)


@contextmanager
def whole_directory(target: Path) -> Iterator[Path]:
    """A directory to fill, which becomes `target` at the end by one rename; on an error it is removed."""
    temporary = target.with_name(target.name + ".tmp")
    filesystem.remove_tree(temporary)
    try:
        yield temporary
        filesystem.rename(temporary, target)
        filesystem.sync_dir(target.parent)
    except BaseException:
        filesystem.remove_tree(temporary)
        raise


def _copy_collections(source: Path, target: Path, store: Store, progress: Progress) -> None:
    entries: list[tuple[catalog.CollectionEntry, catalog.CommittedState]] = []
    with store.read() as txn:
        for name, raw in txn.cursor(db=store.catalog):
            entry = catalog.decode_entry(raw, catalog.decode_name(name))
            entries.append((entry, catalog.decode_state(txn.get(keys.uid(entry.uid), db=store.state), entry.name)))
    filesystem.make_dir(target / "collections")
    for done, (entry, state) in enumerate(entries):
        from_folder, to_folder = collection_folder(source, entry.uid), collection_folder(target, entry.uid)
        filesystem.make_dir(to_folder)
        row_bytes = entry.dim * {"float32": 4, "float16": 2}.get(entry.dtype, 1)
        row_file = from_folder / row_file_name(state.generation)
        copy_file(row_file, to_folder, row_format.HEADER_BYTES + state.row_count * row_bytes)
        if state.sealed is not None:
            for name, length in ((state.sealed.file, state.sealed.file_bytes), *state.sealed.parts):
                copy_file(from_folder / name, to_folder, length)
        filesystem.sync_dir(to_folder)
        if progress is not None:
            progress(done + 1, len(entries))


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
    sums = {str(file.relative_to(folder)): digest(file) for file in filesystem.walk_files(folder)}
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
