"""Restore: a backup becomes a database directory; every byte is verified, then one rename makes it appear."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import msgspec

from vecdb.embedded.backup import CHECKSUMS, FORMAT, copy_file, digest, whole_directory
from vecdb.errors import AlreadyExists, Corruption, InvalidArgument, NotFound, Unavailable
from vecdb.storage.disk import filesystem
from vecdb.storage.kv.store import READERS

_LIST_BYTES_MAX = 64 << 20  # of the list of checksums


def restore(source: Any, target: Any) -> None:
    """Put the backup `source` back as the new database directory `target`.

    Every file is compared with its checksum before `target` appears, whole, by one rename. Raises Corruption naming
    the first file that differs, NotFound where `source` is no backup, AlreadyExists where `target` exists.
    """
    for value in (source, target):
        if not isinstance(value, (str, os.PathLike)) or not str(value):
            raise InvalidArgument(f"restore takes two directories, got {value!r}")
    backup, database = Path(os.path.abspath(source)), Path(os.path.abspath(target))
    if filesystem.exists(database):
        raise AlreadyExists(f"{database} exists; restore into a new directory, then swap the two")
    if not filesystem.exists(backup / CHECKSUMS):
        raise NotFound(f"{backup} is no backup: it has no {CHECKSUMS}")
    with filesystem.raising_vecdb_errors("restoring"):
        _restore(backup, database)


def _restore(backup: Path, database: Path) -> None:
    sums = _read_checksums(backup)
    with whole_directory(database) as temporary:
        for name, (size, expected) in sums.items():
            place = temporary / name
            filesystem.make_dir(place.parent)
            if not filesystem.exists(backup / name):
                raise Corruption(f"{backup / name}: missing from the backup")
            actual_size, actual = digest(backup / name)
            if (actual_size, actual) != (size, expected):
                raise Corruption(
                    f"{backup / name}: {actual_size} bytes with sha256 {actual[:16]}..., "
                    f"expected {size} bytes with {expected[:16]}..."
                )
            copy_file(backup / name, place.parent, size)
            if digest(place) != (size, expected):
                raise Corruption(f"{place}: the copy differs from the backup; check the disk")
        filesystem.touch(temporary / READERS)  # the first process that reads locks it
        folders = {(temporary / name).parent for name in sums} | {temporary / "collections", temporary}
        for folder in sorted(filter(filesystem.exists, folders), reverse=True):
            filesystem.sync_dir(folder)


def _read_checksums(folder: Path) -> dict[str, tuple[int, str]]:
    path = folder / CHECKSUMS
    try:
        raw = msgspec.json.decode(filesystem.read_bytes(path, _LIST_BYTES_MAX), type=dict[str, Any])
        version = msgspec.convert(raw["format"], int)
        sums = msgspec.convert(raw["files"], dict[str, tuple[int, str]])
    except (msgspec.MsgspecError, KeyError, UnicodeDecodeError) as error:
        raise Corruption(f"{path}: not a list of checksums ({error})") from None
    if version > FORMAT:
        raise Unavailable(f"{folder} is a backup of format {version}, this vecdb reads {FORMAT}; upgrade vecdb")
    if version != FORMAT:
        raise Corruption(f"{path}: format {version}, expected {FORMAT}")
    for name in sums:
        if Path(name).is_absolute() or ".." in Path(name).parts:
            raise Corruption(f"{path}: names {name!r}, which lies outside the backup")
    return sums
