"""Restore: a backup becomes a database directory; every byte is verified, then one rename makes it appear.

A backup may come from anybody. Before a file of it is read, its name, kind and size are compared with the list, and the
list with what the database in it needs: nothing outside the backup is read, nothing that has no end, nothing that the
disk has no room for.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import msgspec

from vecdb.embedded.backup import CHECKSUMS, FORMAT, copy_file, digest, files_of_collections, whole_directory
from vecdb.embedded.directory import absolute
from vecdb.errors import AlreadyExists, Corruption, InvalidArgument, NotFound, Unavailable
from vecdb.storage.disk import filesystem, manifest
from vecdb.storage.disk.paths import collection_folder
from vecdb.storage.kv.store import LMDB_FORMAT, READERS, Store

_LIST_BYTES_MAX = 64 << 20  # of the list of checksums
_LMDB = "lmdb/data.mdb"
_NAME = re.compile(r"collections/[0-9a-f]{8}/[A-Za-z0-9_.+-]+")

Sums = dict[str, tuple[int, str]]  # path inside the backup -> bytes, sha256


def restore(source: Any, target: Any) -> None:
    """Put the backup `source` back as the new database directory `target`.

    Every file is compared with its checksum before `target` appears, whole, by one rename. Raises Corruption naming
    the first file that differs, NotFound where `source` is no backup, AlreadyExists where `target` exists.
    """
    for value in (source, target):
        if not isinstance(value, (str, os.PathLike)) or not str(value):
            raise InvalidArgument(f"restore takes two directories, got {value!r}")
    backup, database = absolute(source), absolute(target)
    if filesystem.kind_of(database) != "nothing":
        raise AlreadyExists(f"{database} exists; restore into a new directory, then swap the two")
    if not filesystem.exists(backup / CHECKSUMS):
        raise NotFound(f"{backup} is no backup: it has no {CHECKSUMS}")
    with filesystem.raising_vecdb_errors("restoring"):
        _restore(backup, database)


def _restore(backup: Path, database: Path) -> None:
    sums = _read_checksums(backup)
    _check_kinds(backup, sums)
    _check_room(database, sum(size for size, _ in sums.values()))
    with whole_directory(database) as temporary:
        for name in (manifest.NAME, _LMDB):
            _copy_verified(backup, temporary, name, sums)
        _check_list(backup, temporary, sums)
        for name in sums.keys() - {manifest.NAME, _LMDB}:
            _copy_verified(backup, temporary, name, sums)
        filesystem.make_dir(temporary / "collections")
        filesystem.touch(temporary / READERS)  # the first process that reads locks it
        folders = {(temporary / name).parent for name in sums} | {temporary / "collections", temporary}
        for folder in sorted(folders, reverse=True):
            filesystem.sync_dir(folder)


def _read_checksums(folder: Path) -> Sums:
    path = folder / CHECKSUMS
    try:
        raw = msgspec.json.decode(filesystem.read_bytes(path, _LIST_BYTES_MAX), type=dict[str, Any])
        version = msgspec.convert(raw["format"], int)
        sums = msgspec.convert(raw["files"], Sums)
    except (msgspec.MsgspecError, KeyError, UnicodeDecodeError, RecursionError) as error:
        raise Corruption(f"{path}: not a list of checksums ({error})") from None
    if version > FORMAT:
        raise Unavailable(f"{folder} is a backup of format {version}, this vecdb reads {FORMAT}; upgrade vecdb")
    if version != FORMAT:
        raise Corruption(f"{path}: format {version}, expected {FORMAT}")
    for name in sums:
        if Path(name).is_absolute() or ".." in Path(name).parts:
            raise Corruption(f"{path}: names {name!r}, which lies outside the backup")
        if name not in (manifest.NAME, _LMDB) and not _NAME.fullmatch(name):
            raise Corruption(f"{path}: names {name!r}, which is no file of a backup")
    for name in (manifest.NAME, _LMDB):
        if name not in sums:
            raise Corruption(f"{path}: does not name {name}, which every backup has")
    return sums


def _check_kinds(backup: Path, sums: Sums) -> None:
    """Every file is there, regular, and as long as the list says; nothing of it is read."""
    for name, (size, expected) in sums.items():
        file = backup / name
        for folder in file.relative_to(backup).parents:
            if folder != Path():
                filesystem.refuse_other_than_folder(backup / folder)
        if filesystem.kind_of(file) == "nothing":
            raise Corruption(f"{file}: missing from the backup")
        fd = filesystem.open_read(file)
        actual = filesystem.size(fd)
        filesystem.close(fd)
        if actual != size:
            raise Corruption(f"{file}: {actual} bytes, expected {size} bytes with sha256 {expected[:16]}...")


def _check_room(database: Path, wanted: int) -> None:
    """Refuse what does not fit before anything is written. A file may claim to be longer than any disk."""
    there = next(folder for folder in database.parents if filesystem.exists(folder))
    free = filesystem.free_bytes(there)
    if wanted > free:
        raise Unavailable(
            f"no space left while restoring: the backup has {wanted:,} bytes, the disk of {there} has {free:,} left; "
            "free space, or restore to another disk"
        )


def _check_list(backup: Path, copied: Path, sums: Sums) -> None:
    """The list must name what the database in it needs, no more and no less. copied : the backup's manifest and LMDB
    file, verified.
    """
    if manifest.read(copied, LMDB_FORMAT, upgrading=True).format_version < manifest.FORMAT_VERSION:
        return  # LMDB holds other tables then; `upgrade` looks at them
    store = Store(copied / "lmdb", read_only=True, durability="none", alone=True)
    try:
        wanted = {
            str((collection_folder(copied, uid) / name).relative_to(copied)): length
            for uid, files in files_of_collections(store).items()
            for name, length in files.items()
        }
    finally:
        store.close()
    listed = {name: size for name, (size, _) in sums.items() if name not in (manifest.NAME, _LMDB)}
    for name in sorted(wanted.keys() | listed.keys()):
        if wanted.get(name) != listed.get(name):
            raise Corruption(
                f"{backup / CHECKSUMS}: {name} has {listed.get(name, 'no')} bytes in the list, the database in the "
                f"backup needs {wanted.get(name, 'none')}"
            )


def _copy_verified(backup: Path, target: Path, name: str, sums: Sums) -> None:
    size, expected = sums[name]
    place = target / name
    filesystem.make_dir(place.parent)
    actual_size, actual = digest(backup / name)
    if (actual_size, actual) != (size, expected):
        raise Corruption(
            f"{backup / name}: {actual_size} bytes with sha256 {actual[:16]}..., "
            f"expected {size} bytes with {expected[:16]}..."
        )
    copy_file(backup / name, place.parent, size)
    if digest(place) != (size, expected):
        raise Corruption(f"{place}: the copy differs from the backup; check the disk")
