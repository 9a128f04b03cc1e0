"""Restoring from a bucket: the newest backup that is not later than asked for becomes a database directory.

As with a backup in a directory, nothing of it is believed: names and lengths are looked at before anything is read,
each piece is compared with its hash and length, what the manifest lists with what the database in it needs, and the
directory appears by one rename. Memory holds a few pieces.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec

from vecdb.errors import Corruption, InvalidArgument, NotFound, Unavailable
from vecdb.replication.backups.backup_folder import (
    PIECE_BYTES_MAX,
    BackedUpFile,
    BackupFolder,
    BackupKey,
    BackupManifest,
    all_backups,
    read_manifest,
    sha256_of,
)
from vecdb.replication.backups.contents import LMDB_FILE, check_list, check_room, complete_directory, whole_directory
from vecdb.replication.bucket import open_bucket
from vecdb.replication.objects import Bucket
from vecdb.storage.disk import filesystem, manifest

At = int | datetime | None

_THREADS = 4  # each holds a piece
_NAME = re.compile(r"collections/[0-9a-f]{8}/[A-Za-z0-9_.+-]+")
_SHOWN = 8  # backups that a message names
_DATABASE = re.compile(r"/([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})/?$")


def find_backups(url: str) -> tuple[Bucket, list[BackupKey]]:
    """The backups at a URL, the oldest first. It may end in the uuid of a database: of that one, then."""
    match = _DATABASE.search(url)
    bucket = open_bucket(url[: match.start()] if match else url)
    return bucket, [one for one in all_backups(bucket) if match is None or one.database == match[1]]


def list_backups(url: str) -> list[dict[str, Any]]:
    """Those that are there, with time, sequence, bytes and database: see `vecdb.backups`."""
    bucket, found = find_backups(url)
    manifests = ((one, read_manifest(bucket, one)) for one in found)
    return [
        {"time": one.time, "sequence": one.sequence, "bytes": made.bytes, "database": one.database}
        for one, made in manifests
        if made is not None  # not removed meanwhile
    ]


def restore_from(bucket: Bucket, chosen: BackupKey, url: str, target: Path) -> None:
    """Put a backup into the new directory `target`. url : where it is, for messages.

    Raises Corruption naming what differs from what was written.
    """
    try:
        found = read_manifest(bucket, chosen)
        if found is None:
            raise _gone(url, chosen)
        _restore(bucket, found, f"{url}: {chosen}", target)
    except Corruption:
        if bucket.size(chosen.key) is None:
            raise _gone(url, chosen) from None
        raise


def _gone(url: str, chosen: BackupKey) -> Unavailable:
    return Unavailable(f"{url}: {chosen} was removed while it was being restored; restore a newer one")


def choose(url: str, backups: list[BackupKey], at: At) -> BackupKey:
    """The newest of the backups at `url` that is not later than `at` (a commit, a time, None: the newest).

    Raises NotFound where there is none, InvalidArgument where there are several databases.
    """
    if isinstance(at, datetime) and at.tzinfo is None:
        raise InvalidArgument(f"at={at!r} says no time zone; give one, such as at.astimezone() for this machine's")
    if not backups:
        raise NotFound(f"{url} has no backups")
    databases = sorted({one.database for one in backups})
    if len(databases) > 1:
        raise InvalidArgument(
            f"{url} has backups of {len(databases)} databases; say which, by one of these behind the URL: "
            + ", ".join(f"/{name}" for name in databases[:_SHOWN])
        )
    if at is None:
        return backups[-1]
    if isinstance(at, datetime):
        fitting = [one for one in backups if one.time <= at]
    else:
        fitting = sorted((one for one in backups if one.sequence <= at), key=lambda one: (one.sequence, one.time))
    if not fitting:
        there = ", ".join(map(str, backups[:_SHOWN])) + (", ..." if len(backups) > _SHOWN else "")
        raise NotFound(f"{url} has no backup that is not later than {at}; there is {there}")
    return fitting[-1]


def _restore(bucket: Bucket, found: BackupManifest, where: str, target: Path) -> None:
    _check_names(found, where)
    check_room(target, found.bytes)
    folder = BackupFolder(bucket, found.database)
    with whole_directory(target) as temporary, _workers() as workers:
        text = msgspec.json.format(msgspec.json.encode(found.manifest)) + b"\n"
        filesystem.write_atomic(temporary / manifest.NAME, [text])
        _fetch(folder, workers, LMDB_FILE, found.files[LMDB_FILE], temporary)
        others = {name: file for name, file in found.files.items() if name != LMDB_FILE}
        check_list({name: file.bytes for name, file in others.items()}, temporary, where)
        for name, file in others.items():
            _fetch(folder, workers, name, file, temporary)
        complete_directory(temporary, set(found.files))


def _check_names(found: BackupManifest, where: str) -> None:
    if LMDB_FILE not in found.files:
        raise Corruption(f"{where}: does not name {LMDB_FILE}, which every backup has")
    for name, file in found.files.items():
        if name != LMDB_FILE and not _NAME.fullmatch(name):
            raise Corruption(f"{where}: names {name!r}, which is no file of a backup")
        for piece, size in file.pieces:
            if sha256_of(piece) is None or not 0 < size <= PIECE_BYTES_MAX:
                raise Corruption(f"{where}: {name} has the piece {piece[:100]!r} of {size} bytes, which cannot be")
        if sum(size for _, size in file.pieces) != file.bytes:
            raise Corruption(f"{where}: the pieces of {name} do not have {file.bytes} bytes together")


def _fetch(folder: BackupFolder, workers: ThreadPoolExecutor, name: str, file: BackedUpFile, target: Path) -> None:
    place = target / name
    filesystem.make_dir(place.parent)
    fd = filesystem.open_append(place, create=True)
    jobs: list[Future[None]] = []
    try:
        offset = 0
        for piece, size in file.pieces:
            jobs.append(workers.submit(_fetch_piece, folder, piece, size, fd, offset, name))
            offset += size
        for job in jobs:
            job.result()
        filesystem.fsync(fd)
    finally:
        for job in jobs:
            job.cancel()
        wait(jobs)  # none writes to the descriptor any more
        filesystem.close(fd)


def _fetch_piece(folder: BackupFolder, piece: str, size: int, fd: int, offset: int, name: str) -> None:
    key = folder.piece_key(piece)
    try:
        data = folder.bucket.read_range(key, 0, size + 1)
    except NotFound:
        raise Corruption(f"{folder.bucket.url}: {key}, part of {name}, is missing") from None
    if len(data) != size or hashlib.sha256(data).hexdigest() != sha256_of(piece):
        raise Corruption(f"{folder.bucket.url}: {key}, part of {name}, is not what was written")
    filesystem.pwrite(fd, data, offset)


@contextlib.contextmanager
def _workers() -> Iterator[ThreadPoolExecutor]:
    executor = ThreadPoolExecutor(_THREADS, "vecdb-restore")
    try:
        yield executor
    finally:
        executor.shutdown(cancel_futures=True)
