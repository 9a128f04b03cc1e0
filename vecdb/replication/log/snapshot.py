"""Snapshots of a log: what a copy begins with, written while the database is in use.

    snapshot/<epoch>/<sequence>/part.<n>    all entries of LMDB at that commit, in order (entry.SnapshotPart)
                               /manifest    JSON, written last: no manifest, no snapshot
    file/<epoch>/<sequence>.<n>             ranges of files that neither an earlier snapshot nor the log has

A read transaction of LMDB fixes the commit. Files are opened at its beginning, so that a seal or a vacuum may remove
their names meanwhile; files never change where a state counts them, so ranges that an earlier snapshot has are named
again, and not sent.

A new snapshot is begun when the log since the last one is as long as it, and each hour. Two are kept; log and files
from before the older one go, a while after that was announced (epochs.note_trimmed).
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from vecdb import limits
from vecdb.errors import AlreadyExists, Corruption, Unavailable, VecdbError
from vecdb.replication.counted_files import files_of, row_bytes_of
from vecdb.replication.log import entry, epochs
from vecdb.replication.log.entry import PUT, FileRange, Operation, Position, SnapshotPart
from vecdb.replication.log.recording import DATABASE_NAMES, OpenedFile
from vecdb.replication.objects import Bucket
from vecdb.storage.disk import filesystem, manifest
from vecdb.storage.disk.paths import collection_folder
from vecdb.storage.kv import catalog, counters, keys
from vecdb.storage.kv.store import LMDB_FORMAT, Store, Txn

_FORMAT = 1
_OPEN_TRIES = 20
_RETRY_S = 2.0
_RANGE_BYTES = 1 << 30  # of one object at most
_log = logging.getLogger("vecdb")


class SnapshotManifest(msgspec.Struct, frozen=True):
    """position : (epoch, sequence, object) in the log.   manifest : of the directory.   files : ranges by path, in
    order, without a gap.   parts : keys.
    """

    format: int
    database: str
    position: tuple[int, int, int]
    time_ns: int
    manifest: manifest.Manifest
    parts: tuple[str, ...]
    files: dict[str, tuple[FileRange, ...]]
    bytes: int


class StoreClosing(Exception):
    """The database closes, or another has taken over: a snapshot that was begun is given up."""


@dataclass(slots=True)
class _Moment:
    """One commit: what a snapshot is to hold of files."""

    sequence: int
    files: list[tuple[str, OpenedFile, int]] = field(default_factory=list)  # path, file, bytes that count


def snapshot_key(epoch: int, sequence: int, name: str) -> str:
    return f"{entry.SNAPSHOTS}/{epoch:08d}/{sequence:016d}/{name}"


def read_manifest(bucket: Bucket, epoch: int, sequence: int) -> SnapshotManifest | None:
    """None where it was removed meanwhile. Raises Corruption."""
    key = snapshot_key(epoch, sequence, entry.MANIFEST)
    raw = bucket.get(key)
    if raw is None:
        return None
    try:
        found = msgspec.json.decode(raw, type=SnapshotManifest)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise Corruption(f"{bucket.url}: {key} is damaged ({error})") from None
    if found.format != _FORMAT or found.position[:2] != (epoch, sequence):
        raise Corruption(f"{bucket.url}: {key} is of format {found.format}, position {found.position}")
    for path, ranges in found.files.items():
        offset = 0
        for one in ranges:
            entry.check_range(one, f"{bucket.url}: {key}")
            if one.path != path or one.offset != offset or not one.key:
                raise Corruption(f"{bucket.url}: {key}: {path} has no bytes at {offset}")
            offset += one.length
    return found


class SnapshotKeeper:
    """Makes snapshots of one database, one at a time, each in a thread of its own; removes what they make needless.

    reached(epoch, sequence) : waits until that commit is in the log, and returns its position.
    """

    def __init__(
        self, bucket: Bucket, path: Path, store: Store, database: str, reached: Callable[[int, int], Position]
    ) -> None:
        self._bucket = bucket
        self._path = path
        self._store = store
        self._database = database
        self._reached = reached
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._epoch = 0
        self._due = False  # without one, a copy cannot begin, or not go on
        self._log_bytes = self._last_bytes = 0
        self._begun_at = time.monotonic()
        self._known: dict[str, list[FileRange]] | None = None  # in the bucket, by path; None: not read yet
        self._sure: set[str] = set()  # keys of ranges that were compared, or made, by this process
        self._sent: list[FileRange] = []  # by the log since
        self.newest_here: int | None = None

    @staticmethod
    def newest(bucket: Bucket) -> tuple[int, int] | None:
        found = epochs.snapshots(bucket)
        return found[-1] if found else None

    # -- when --------------------------------------------------------------------------------------

    def begin(self, position: Position, *, due: bool) -> None:
        """An epoch begins."""
        with self._lock:
            self._epoch = position.epoch
            self._due = self._due or due
        self._start_if_due()

    def wrote(self, position: Position, log_bytes: int) -> None:
        """The log has grown, by an object: to read one takes as long as to read some bytes of a snapshot."""
        with self._lock:
            self._epoch = position.epoch
            self._log_bytes += max(log_bytes, limits.snapshot_log_bytes // limits.snapshot_log_objects)
        self._start_if_due()

    def uploaded(self, made: FileRange) -> None:
        """The log has sent a range of a file as an object."""
        with self._lock:
            self._sent.append(made)

    def _start_if_due(self) -> None:
        with self._lock:
            long = self._log_bytes >= max(limits.snapshot_log_bytes, self._last_bytes)
            old = self._log_bytes > 0 and time.monotonic() - self._begun_at >= limits.snapshot_age_s
            if self._thread is not None or not (self._due or long or old) or self._stop.is_set():
                return
            self._thread = threading.Thread(target=self._run, name="vecdb-snapshot", daemon=True)
            self._thread.start()

    def close(self, wait_s: float) -> None:
        """Stop. A snapshot without which no copy can begin is finished, as long as `wait_s` allows."""
        with self._lock:
            thread, due = self._thread, self._due
        if thread is not None and due:
            thread.join(max(0.0, wait_s))
        self._stop.set()
        if thread is not None:
            thread.join()

    def wait(self) -> None:
        """Until no snapshot is being made."""
        with self._lock:
            thread = self._thread
        if thread is not None:
            thread.join()

    # -- one snapshot ------------------------------------------------------------------------------

    def _run(self) -> None:
        told = ""
        try:
            while True:
                try:
                    self._make()
                    break
                except (VecdbError, OSError) as error:
                    if str(error) != told:
                        _log.warning("a snapshot of %s waits: %s", self._path, error)
                    told = str(error)
                if self._stop.wait(_RETRY_S):
                    break
        except StoreClosing:
            pass
        except Exception:
            _log.exception("a snapshot of %s failed", self._path)
        finally:
            with self._lock:
                self._thread = None

    def _make(self) -> None:
        with self._lock:
            epoch, log_bytes = self._epoch, self._log_bytes
            self._begun_at = time.monotonic()
        known = self._known_ranges()
        moment, parts, size = self._send_moment(epoch)
        files = self._send_files(known, epoch, moment)
        size += sum(length for _, _, length in moment.files)
        position = self._reached(epoch, moment.sequence)
        at = (position.epoch, position.sequence, position.object)
        found = manifest.read(self._path, LMDB_FORMAT)
        made = SnapshotManifest(_FORMAT, self._database, at, time.time_ns(), found, parts, files, size)
        with suppress(AlreadyExists):  # of an attempt whose answer was lost
            self._bucket.create(snapshot_key(epoch, moment.sequence, entry.MANIFEST), msgspec.json.encode(made))
        with self._lock:
            self._known = {path: list(ranges) for path, ranges in files.items()}
            self._last_bytes, self.newest_here = size, moment.sequence
            self._log_bytes -= log_bytes
            if self._epoch == epoch:
                self._due = False
        trim(self._bucket)

    def _send_moment(self, epoch: int) -> tuple[_Moment, tuple[str, ...], int]:
        """Take a commit, with its files open, and write its entries of LMDB."""
        for _ in range(_OPEN_TRIES):
            with suppress(FileNotFoundError), self._store.read_all() as txn:  # a vacuum or a seal was faster
                moment = self._moment(txn)
                return moment, *self._send_entries(txn, epoch, moment.sequence)
        raise Unavailable(f"files of {self._path} were replaced {_OPEN_TRIES} times in a row")

    def _moment(self, txn: Txn) -> _Moment:
        """What the transaction sees, with its files open. Raises FileNotFoundError where a vacuum has come since."""
        store = self._store
        found = _Moment(counters.read(store, txn).sequence)
        for name, raw in txn.cursor(db=store.catalog):
            one = catalog.decode_entry(bytes(raw), catalog.decode_name(name))
            state = catalog.decode_state(txn.get(keys.uid(one.uid), db=store.state), one.name)
            folder = collection_folder(self._path, one.uid)
            for file, length in files_of(state, row_bytes_of(one)).items():
                path = (folder / file).relative_to(self._path).as_posix()
                found.files.append((path, OpenedFile(folder / file), length))
        return found

    def _send_entries(self, txn: Txn, epoch: int, sequence: int) -> tuple[tuple[str, ...], int]:
        """Write LMDB's entries. Returns the keys of the objects, and their bytes."""
        sent: list[str] = []
        size = 0
        for operations in _cut(self._store, txn):
            self._check_stop()
            key = snapshot_key(epoch, sequence, f"part.{len(sent)}")
            data = entry.encode(SnapshotPart(self._database, DATABASE_NAMES, operations))
            self._bucket.put(key, data)
            sent.append(key)
            size += len(data)
        return tuple(sent), size

    def _send_files(
        self, known: dict[str, list[FileRange]], epoch: int, moment: _Moment
    ) -> dict[str, tuple[FileRange, ...]]:
        files, number = {}, 0
        for path, file, length in moment.files:
            ranges = self._usable(known.get(path, []), file, length)
            offset = sum(one.length for one in ranges)
            while offset < length:
                self._check_stop()
                count = min(_RANGE_BYTES, length - offset)
                key = entry.file_key(epoch, moment.sequence, f"s{number}")
                crc = filesystem.crc_of(file.fd, offset, count)
                self._bucket.upload(key, file.fd, offset, count)
                ranges.append(FileRange(path, offset, count, crc, b"", key))
                self._sure.add(key)
                offset, number = offset + count, number + 1
            files[path] = tuple(ranges)
        return files

    def _usable(self, known: list[FileRange], file: OpenedFile, length: int) -> list[FileRange]:
        """Of the ranges that the bucket has, those of which the file has the same bytes: the directory may have been
        put back to another state since.
        """
        found: list[FileRange] = []
        for one in known:
            if one.offset + one.length > length:
                break
            if one.key not in self._sure:
                self._check_stop()
                if filesystem.crc_of(file.fd, one.offset, one.length) != one.crc:
                    break
                self._sure.add(one.key)
            found.append(one)
        return found

    def _known_ranges(self) -> dict[str, list[FileRange]]:
        """What the bucket has of files: of the newest snapshot, and what the log has sent since and goes on from it."""
        known = self._known
        if known is None:
            newest = self.newest(self._bucket)
            found = None if newest is None else read_manifest(self._bucket, *newest)
            same = found is not None and found.database == self._database
            known = {path: list(ranges) for path, ranges in found.files.items()} if found is not None and same else {}
        with self._lock:
            sent, self._sent = self._sent, []
        for one in sent:
            ranges = known.setdefault(one.path, [])
            if one.offset == sum(range_.length for range_ in ranges):
                ranges.append(one)
                self._sure.add(one.key)
        self._known = known
        return known

    def _check_stop(self) -> None:
        if self._stop.is_set():
            raise StoreClosing


def _cut(store: Store, txn: Txn) -> Iterator[list[Operation]]:
    """All entries of LMDB, in parts of about `limits.snapshot_part_bytes`; at least one part."""
    part: list[Operation] = []
    size = 0
    for number, database in enumerate(store.databases.values()):
        pairs: list[bytes] = []
        for key, value in txn.cursor(db=database):
            if key == epochs.FOLLOWED and database is store.state:
                continue
            pairs += (key, value)
            size += len(key) + len(value)
            if size >= limits.snapshot_part_bytes:
                part.append((PUT, number, pairs))
                yield part
                part, pairs, size = [], [], 0
        if pairs:
            part.append((PUT, number, pairs))
    yield part


# -- what lies before ------------------------------------------------------------------------------


def trim(bucket: Bucket) -> None:
    """Remove snapshots but the newest, and log and files from before them once that was announced for a while."""
    whole = epochs.snapshots(bucket)
    kept = [found for one in whole[-limits.snapshots_kept :] if (found := read_manifest(bucket, *one)) is not None]
    if not kept:
        return
    mark, oldest = epochs.trimmed(bucket), Position(*kept[0].position)
    if mark is not None and mark < oldest:
        noted, newest = epochs.trimmed_at(bucket), _made_at(bucket, kept[-1])
        if noted is None or newest - noted < limits.log_trim_age_s:
            return
        _remove_before(bucket, mark, {one.key for found in kept for ranges in found.files.values() for one in ranges})
    if mark is None or mark < oldest:
        epochs.note_trimmed(bucket, oldest)


def _made_at(bucket: Bucket, snapshot: SnapshotManifest) -> float:
    """By the clock of the store, in seconds since 1970."""
    folder = snapshot_key(snapshot.position[0], snapshot.position[1], "").rstrip("/")
    return max(one.modified for one in bucket.entries(folder))


def _remove_before(bucket: Bucket, mark: Position, wanted: set[str]) -> None:
    """Remove what lies before the mark, oldest first, but for the objects that a snapshot names."""
    for folder, last in ((entry.LOG, (mark.epoch, mark.object)), (entry.FILES, (mark.epoch, mark.sequence))):
        gone = []
        for key, _ in bucket.list(folder):
            if entry.split_key(key) >= last:
                break
            if key not in wanted:
                gone.append(key)
        bucket.delete(gone)
    old: dict[tuple[int, int], list[str]] = {}
    for key, _ in bucket.list(entry.SNAPSHOTS):
        if entry.split_key(key) < (mark.epoch, mark.sequence):
            old.setdefault(entry.split_key(key), []).append(key)
    for found in old.values():  # the manifest first: without it no snapshot
        bucket.delete([key for key in found if key.endswith("/" + entry.MANIFEST)])
        bucket.delete(found)
