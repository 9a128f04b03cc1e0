"""Restore: a backup becomes a database directory; every byte is verified, then one rename makes it appear.

A backup may come from anybody. Before a file of it is read, its name, kind and size are compared with the list, and the
list with what the database in it needs: nothing outside the backup is read, nothing that has no end, nothing that the
disk has no room for.
"""

from __future__ import annotations

import os
import re
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec

from vecdb.embedded.backup import CHECKSUMS, FORMAT, copy_file, digest
from vecdb.errors import AlreadyExists, Corruption, InvalidArgument, NotFound, Unavailable
from vecdb.replication.backups.contents import (
    LMDB_FILE,
    check_list,
    check_room,
    complete_directory,
    whole_directory,
)
from vecdb.replication.backups.remote_restore import choose, find_backups, list_backups, restore_from
from vecdb.replication.bucket import is_url
from vecdb.replication.log.replaying import holds_log, restore_from_log
from vecdb.storage.disk import filesystem, manifest
from vecdb.validate.directories import absolute

_LIST_BYTES_MAX = 64 << 20  # of the list of checksums
_NAME = re.compile(r"collections/[0-9a-f]{8}/[A-Za-z0-9_.+-]+")

Sums = dict[str, tuple[int, str]]  # path inside the backup -> bytes, sha256


def backups(url: Any) -> list[dict[str, Any]]:
    """The backups at a URL, the oldest first, as `Database.backup` wrote them: of each its time (a datetime, UTC), the
    sequence that it is of, the bytes of the database, and the uuid of the database.

    Raises InvalidArgument, PermissionDenied, Unavailable.
    """
    if not is_url(url):
        raise InvalidArgument(f"backups are listed by a URL, such as s3://bucket/prefix, got {url!r}")
    return list_backups(url)


def restore(source: Any, target: Any, *, at: int | datetime | None = None) -> None:
    """Put the backup `source` back as the new database directory `target`: a directory that `backup` wrote, or a URL
    into which it wrote, of which the newest backup is taken; or the URL of a log, of which all commits are.

    at : of a URL: the newest backup that is not later than this, the number of a commit (`stats()["sequence"]`) or a
        time with its zone; of a log the commits that are not later.

    Every file is compared with its checksum before `target` appears, whole, by one rename. Raises Corruption naming
    the first file that differs, NotFound where `source` is no backup or has none so old, AlreadyExists where `target`
    exists.
    """
    for value in (source, target):
        if not isinstance(value, (str, os.PathLike)) or not str(value):
            raise InvalidArgument(f"restore takes two directories, or a URL and a directory, got {value!r}")
    if at is not None and (isinstance(at, bool) or not isinstance(at, (int, datetime))):
        raise InvalidArgument(f"at must be the number of a commit, or a datetime, got {at!r}")
    backup, database = source if is_url(source) else absolute(source), absolute(target)
    if filesystem.kind_of(database) != "nothing":
        raise AlreadyExists(f"{database} exists; restore into a new directory, then swap the two")
    if isinstance(backup, str):
        with filesystem.raising_vecdb_errors("restoring"):
            bucket, backups = find_backups(backup)
            if not backups and holds_log(backup):
                restore_from_log(backup, database, at)
            else:
                restore_from(bucket, choose(backup, backups, at), backup, database)
        return
    if at is not None:
        raise InvalidArgument(f"at= chooses among backups at a URL; {backup} is one backup: leave it out")
    if not filesystem.exists(backup / CHECKSUMS):
        raise NotFound(f"{backup} is no backup: it has no {CHECKSUMS}")
    with filesystem.raising_vecdb_errors("restoring"):
        _restore(backup, database)


def _restore(backup: Path, database: Path) -> None:
    sums = _read_checksums(backup)
    _check_kinds(backup, sums)
    check_room(database, sum(size for size, _ in sums.values()))
    with whole_directory(database) as temporary:
        for name in (manifest.NAME, LMDB_FILE):
            _copy_verified(backup, temporary, name, sums)
        listed = {name: size for name, (size, _) in sums.items() if name not in (manifest.NAME, LMDB_FILE)}
        check_list(listed, temporary, str(backup / CHECKSUMS))
        for name in sums.keys() - {manifest.NAME, LMDB_FILE}:
            _copy_verified(backup, temporary, name, sums)
        complete_directory(temporary, set(sums))


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
        if name not in (manifest.NAME, LMDB_FILE) and not _NAME.fullmatch(name):
            raise Corruption(f"{path}: names {name!r}, which is no file of a backup")
    for name in (manifest.NAME, LMDB_FILE):
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
