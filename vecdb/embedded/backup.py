"""Backup: a consistent copy of a database while it works. Restore: verify every byte, then one rename.

    BACKUP/  as a database directory, without LOCK
             checksums.json    {"format": 1, "files": {"lmdb/data.mdb": [bytes, "sha256"], ...}}   written last: no
             file, no backup

LMDB's own copy fixes the commit; row files are append-only, so their first rows as counted by that commit are what
it saw.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from vecdb.errors import AlreadyExists, Corruption, InvalidArgument, NotFound, Unavailable
from vecdb.storage.disk import filesystem, manifest, row_format
from vecdb.storage.disk.paths import collection_folder, row_file_name
from vecdb.storage.kv import catalog, keys
from vecdb.storage.kv.store import READERS, Store

if TYPE_CHECKING:
    from vecdb.embedded.local_database import LocalDatabase

CHECKSUMS = "checksums.json"
_FORMAT = 1
_CHUNK_BYTES = 4 << 20
Progress = Callable[[int, int], None] | None


def write_backup(home: LocalDatabase, target: Path, progress: Progress) -> None:
    """Copy the database into `target`, which must not exist. A crash leaves `target`.tmp, never half a backup."""
    if filesystem.exists(target):
        raise AlreadyExists(f"{target} exists; give a new directory for the backup")
    with _whole(target) as temporary:
        filesystem.make_dir(temporary / "lmdb")
        with ExitStack() as held:
            for name in home.collections():
                held.enter_context(home.upkeep_lock(name))  # no vacuum or seal: files that the copy names stay there
            home.store.copy(temporary / "lmdb")
            _sync(temporary / "lmdb" / "data.mdb")
            copied = Store(temporary / "lmdb", read_only=True, durability="full")
            try:
                _copy_collections(home.path, temporary, copied, progress)
            finally:
                copied.close()
        filesystem.remove(temporary / "lmdb" / "lock.mdb")
        manifest.write(temporary, home.manifest)
        _write_checksums(temporary)
        for folder in (temporary / "collections", temporary / "lmdb", temporary):
            filesystem.sync_dir(folder)


@contextmanager
def _whole(target: Path) -> Iterator[Path]:
    """The name of a directory to make and fill, which becomes `target` at the end by one rename, or goes."""
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
        there, here = collection_folder(source, entry.uid), collection_folder(target, entry.uid)
        filesystem.make_dir(here)
        row_bytes = entry.dim * {"float32": 4, "float16": 2}.get(entry.dtype, 1)
        _copy(there / row_file_name(state.generation), here, row_format.HEADER_BYTES + state.row_count * row_bytes)
        if state.sealed is not None:
            for name, length in ((state.sealed.file, state.sealed.file_bytes), *state.sealed.parts):
                _copy(there / name, here, length)
        filesystem.sync_dir(here)
        if progress is not None:
            progress(done + 1, len(entries))


def _copy(source: Path, folder: Path, length: int) -> None:
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
    sums = {str(file.relative_to(folder)): _digest(file) for file in filesystem.walk_files(folder)}
    filesystem.write_atomic(
        folder / CHECKSUMS, [msgspec.json.format(msgspec.json.encode({"format": _FORMAT, "files": sums}))]
    )


def _digest(file: Path) -> tuple[int, str]:
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


def restore(source: Any, target: Any) -> None:
    """Put the backup `source` back as the new database directory `target`.

    Every file is compared with its checksum before `target` appears, whole, by one rename. Raises Corruption naming
    the first file that differs, NotFound where `source` is no backup, AlreadyExists where `target` is there.
    """
    for value in (source, target):
        if not isinstance(value, (str, os.PathLike)) or not str(value):
            raise InvalidArgument(f"restore takes two directories, got {value!r}")
    here, there = Path(os.path.abspath(source)), Path(os.path.abspath(target))
    if filesystem.exists(there):
        raise AlreadyExists(f"{there} exists; restore into a new directory, then swap the two")
    if not filesystem.exists(here / CHECKSUMS):
        raise NotFound(f"{here} is no backup: it has no {CHECKSUMS}")
    with filesystem.raising_vecdb_errors("restoring"):
        _restore(here, there)


def _restore(here: Path, there: Path) -> None:
    sums = _read_checksums(here)
    with _whole(there) as temporary:
        for name, (size, expected) in sums.items():
            place = temporary / name
            filesystem.make_dir(place.parent)
            if not filesystem.exists(here / name):
                raise Corruption(f"{here / name}: missing from the backup")
            actual_size, actual = _digest(here / name)
            if (actual_size, actual) != (size, expected):
                raise Corruption(
                    f"{here / name}: {actual_size} bytes with sha256 {actual[:16]}..., "
                    f"expected {size} bytes with {expected[:16]}..."
                )
            _copy(here / name, place.parent, size)
            if _digest(place) != (size, expected):
                raise Corruption(f"{place}: the copy differs from the backup; check the disk")
        filesystem.touch(temporary / READERS)  # so that the first process to read can say that it does
        folders = {(temporary / name).parent for name in sums} | {temporary / "collections", temporary}
        for folder in sorted(filter(filesystem.exists, folders), reverse=True):
            filesystem.sync_dir(folder)


def _read_checksums(folder: Path) -> dict[str, tuple[int, str]]:
    path = folder / CHECKSUMS
    try:
        raw = msgspec.json.decode(filesystem.read_bytes(path), type=dict[str, Any])
        version = msgspec.convert(raw["format"], int)
        sums = msgspec.convert(raw["files"], dict[str, tuple[int, str]])
    except (msgspec.MsgspecError, KeyError, UnicodeDecodeError) as error:
        raise Corruption(f"{path}: not a list of checksums ({error})") from None
    if version > _FORMAT:
        raise Unavailable(f"{folder} is a backup of format {version}, this vecdb reads {_FORMAT}; upgrade vecdb")
    if version != _FORMAT:
        raise Corruption(f"{path}: format {version}, expected {_FORMAT}")
    for name in sums:
        if Path(name).is_absolute() or ".." in Path(name).parts:
            raise Corruption(f"{path}: names {name!r}, which lies outside the backup")
    return sums
