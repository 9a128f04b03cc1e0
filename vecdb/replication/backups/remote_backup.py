"""A backup into a bucket: what is not there yet is sent, and a manifest names it all.

    newest backup of the same history + pieces that are there        what need not be sent
    taking.py                                                        the commit
    pieces of at most 8 MiB, a few at a time, at low priority        sent
    sizes compared, manifest created (backup_folder.py)              whole

Row files and list files only grow, and what a commit has counted of them stays as it is; index and column files never
change. So of a backup of the same history (storage/kv/history.py: its very commit is one of ours) their pieces are
taken over without a look at the files. The history matters: a directory that was restored from an older backup, or a
second copy of it, goes on under the same uuid and the same file names with other rows. Index and column files must have
the same inode and time as well, since a damaged one is written again under its name. Everything else is read, hashed,
and sent if no piece has that hash.

The last piece of a growing file is short. It is read again with what came behind it when that is as long, so that a
file consists of few pieces however often it is backed up, and a byte is sent about as often as the logarithm of that.

An interrupted backup has left pieces and nothing else: the next finds them by their hashes.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import os
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from vecdb.api.backend import Progress
from vecdb.errors import Corruption, InvalidArgument, Unavailable
from vecdb.replication.backups.backup_folder import (
    FORMAT,
    PIECE_BYTES_MAX,
    BackedUpFile,
    BackupFolder,
    BackupKey,
    BackupManifest,
    later_than,
    read_manifest,
)
from vecdb.replication.backups.contents import LMDB_FILE, lies_within
from vecdb.replication.backups.taking import (
    LMDB_PIECE_BYTES,
    FilesMoved,
    LmdbPiece,
    Locks,
    TakenDatabase,
    TakenFile,
    taken,
)
from vecdb.replication.bucket import open_bucket
from vecdb.replication.folder_bucket import FolderBucket
from vecdb.storage.kv.history import History
from vecdb.storage.kv.store import Store
from vecdb.validate.arguments import cores

_GROWING = ("rows.", "lists.")  # files that only grow
# Each holds a piece. They wait for the network; into a folder they hash and copy, and where they take every core the
# slowest hundredth of exact searches took 2.2 times as long; with one thread for two cores 1.1 times, at the same rate.
_THREADS = 3
_NICE = 10  # less urgent than searches
_TRIES = 10
_LOOKED_AT = 20  # backups, from the newest on, for one of this history

Piece = tuple[str, int]  # name, bytes


def back_up_to(
    url: str, path: Path, store: Store, locks: Locks, database: str, keep: int | None, progress: Progress
) -> BackupKey:
    """Back up the database at `path` into the bucket, and leave the `keep` newest (None: all).

    database : its uuid.   progress : in bytes.
    Raises what open_bucket raises; Unavailable where others keep removing what it relies on.
    """
    bucket = open_bucket(url, conditional=True)
    if isinstance(bucket, FolderBucket) and lies_within(bucket.folder, path):
        raise InvalidArgument(f"{url} lies within the database {path}; give a folder outside of it")
    folder = BackupFolder(bucket, database)
    with _workers(1) as worker:  # a thread of its own, which may be less urgent than the caller's
        return worker.submit(_back_up, folder, path, store, locks, keep, progress).result()


def _back_up(
    folder: BackupFolder, path: Path, store: Store, locks: Locks, keep: int | None, progress: Progress
) -> BackupKey:
    for _ in range(_TRIES):
        with contextlib.suppress(FilesMoved):
            made = RemoteBackup(folder, path, store, progress).make(locks)
            if made is not None:
                if keep is not None:
                    folder.keep_newest(keep)
                return made
    raise Unavailable(
        f"backing up to {folder.bucket.url}: files were replaced, or pieces removed, {_TRIES} times in a row; try "
        "again later, or in the process that writes"
    )


class RemoteBackup:
    """One try."""

    def __init__(self, folder: BackupFolder, path: Path, store: Store, progress: Progress) -> None:
        self._folder = folder
        self._path = path
        self._store = store
        self._progress = progress
        self._backups = folder.backups()
        self._there = folder.pieces()
        self._by_hash = {name.partition("-")[0]: name for name in self._there}
        self._lock = threading.Lock()
        self._buffers = threading.local()
        self._done_bytes = self._whole_bytes = 0

    def make(self, locks: Locks) -> BackupKey | None:
        """None where others have removed what it relies on."""
        with taken(self._path, self._store, locks, self._is_there) as database:
            made = self._sent(database, self._of_same_history(database.history))
        return self._folder.finish(made)

    def _is_there(self, sha256: str, size: int) -> bool:
        name = self._by_hash.get(sha256)
        return name is not None and self._there[name] == size

    def _of_same_history(self, mine: History) -> dict[str, BackedUpFile]:
        """The files of the newest backup whose last commit is one of ours."""
        for backup in self._backups[: -_LOOKED_AT - 1 : -1]:
            if mine.token_of(backup.sequence) is not None:
                with contextlib.suppress(Corruption, Unavailable):
                    found = read_manifest(self._folder.bucket, backup)
                    theirs = None if found is None else found.history.token_of(found.sequence)
                    if found is not None and theirs == mine.token_of(found.sequence):
                        return found.files
        return {}

    def _sent(self, database: TakenDatabase, before: dict[str, BackedUpFile]) -> BackupManifest:
        time = later_than(self._backups)  # of the commit, which is fixed by now
        self._whole_bytes = sum(piece.size for piece in database.lmdb)
        self._whole_bytes += sum(file.length for file in database.files.values())
        into_folder = isinstance(self._folder.bucket, FolderBucket)
        with _workers(min(_THREADS, max(1, cores() - 1)) if into_folder else _THREADS) as workers:
            pieces: dict[str, list[Piece | Future[Piece]]] = {
                path: self._pieces_of(workers, path, file, before.get(path)) for path, file in database.files.items()
            }
            pieces[LMDB_FILE] = [workers.submit(self._send_lmdb, database, piece) for piece in database.lmdb]
            found = {
                path: tuple(one if isinstance(one, tuple) else one.result() for one in some)
                for path, some in pieces.items()
            }
        files = {
            path: BackedUpFile(sum(size for _, size in some), some, database.witness_of(path))
            for path, some in found.items()
        }
        return BackupManifest(
            FORMAT,
            self._folder.database,
            database.sequence,
            time.isoformat(),
            database.history,
            database.manifest,
            files,
        )

    def _pieces_of(
        self, workers: ThreadPoolExecutor, path: str, file: TakenFile, before: BackedUpFile | None
    ) -> list[Piece | Future[Piece]]:
        """Those that an earlier backup has, and the rest, which is being read and sent."""
        kept: list[Piece] = []
        if before is not None and _may_keep(path, file, before):
            there = itertools.takewhile(lambda one: self._there.get(one[0]) == one[1], before.pieces)
            kept = pieces_to_keep(list(there), file.length)
        first = sum(size for _, size in kept)
        self._report(first)
        ranges = [
            (offset, min(PIECE_BYTES_MAX, file.length - offset))
            for offset in range(first, file.length, PIECE_BYTES_MAX)
        ]
        return [*kept, *(workers.submit(self._send_range, file, *one) for one in ranges)]

    def _send_range(self, file: TakenFile, offset: int, length: int) -> Piece:
        data = self._buffer(length)
        file.read(offset, data)
        return self._send(data, hashlib.sha256(data).hexdigest())

    def _send_lmdb(self, database: TakenDatabase, piece: LmdbPiece) -> Piece:
        if piece.spooled < 0:
            self._report(piece.size)
            return self._by_hash[piece.sha256], piece.size
        data = self._buffer(piece.size)
        database.read_spooled(piece, data)
        return self._send(data, piece.sha256)

    def _buffer(self, length: int) -> memoryview:
        """The buffer of this thread: to free a large one takes a while, in which no search gets the interpreter."""
        if not hasattr(self._buffers, "whole"):
            self._buffers.whole = memoryview(bytearray(max(PIECE_BYTES_MAX, LMDB_PIECE_BYTES)))
        whole: memoryview = self._buffers.whole
        return whole[:length]

    def _send(self, data: memoryview, sha256: str) -> Piece:
        if not self._is_there(sha256, len(data)):
            name = self._folder.put_piece(data, sha256)
            self._there[name] = len(data)
            self._by_hash[sha256] = name
        self._report(len(data))
        return self._by_hash[sha256], len(data)

    def _report(self, done: int) -> None:
        with self._lock:
            self._done_bytes += done
            if self._progress is not None:
                self._progress(self._done_bytes, self._whole_bytes)


def _may_keep(path: str, file: TakenFile, before: BackedUpFile) -> bool:
    if path.rpartition("/")[2].startswith(_GROWING):
        return before.bytes <= file.length
    return before.witness == file.witness and before.bytes == file.length


def pieces_to_keep(pieces: list[Piece], length: int) -> list[Piece]:
    """Of the pieces that a growing file begins with those that stay, now that it has `length` bytes: short ones at the
    end become one with what came behind them, where that is as long.
    """
    kept, rest = list(pieces), length - sum(size for _, size in pieces)
    while rest and kept and kept[-1][1] < PIECE_BYTES_MAX and kept[-1][1] <= rest:
        rest += kept.pop()[1]
    return kept


@contextlib.contextmanager
def _workers(threads: int) -> Iterator[ThreadPoolExecutor]:
    executor = ThreadPoolExecutor(threads, "vecdb-backup", initializer=_be_less_urgent)
    try:
        yield executor
    finally:
        executor.shutdown(cancel_futures=True)


def _be_less_urgent() -> None:
    with contextlib.suppress(OSError):  # not allowed here: searches share the cores with it on equal terms
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICE)
