"""The writer's side of the log: commits become objects, in order, soon after they were acknowledged.

    commit thread --taken--> waiting commits --thread "vecdb-log"--> log/<epoch>/<sequence>, and objects of files
                                             --thread "vecdb-snapshot"--> snapshot, and what lies before it goes

A commit does not wait for the store. What comes within `limits.log_wait_s` shares an object, up to
`limits.log_object_bytes`. While the store is away commits wait in memory, up to `limits.log_waiting_bytes`; past that
they are let go, and once it is back the log goes on with a new epoch and a snapshot: those bytes lie in the directory
already, and writing them a second time to the same disk would make every commit dearer for the sake of a rare hour.

A writer that finds another's object in the place of its next one has been replaced: it refuses every write from then
on, and every read but where copies may be of any age, and what it committed since stays in its directory. It looks
there each `limits.log_look_s`, so that one that nobody writes to learns it, too. One that is cut off cannot learn it:
with a lease (lease.py) it stops answering reads until it can.

With "remote" a commit whose object may or may not lie there is neither made nor given up while the database is open:
the store is asked until it tells, for which its callers do not wait (commit/committer.py).

Threads: `taken` and `check` on the commit thread; `flush`, `close` and `facts` from any.
"""

from __future__ import annotations

import logging
import threading
import time
import zlib
from collections import deque
from collections.abc import Callable
from pathlib import Path
from time import sleep as wait
from typing import Any

from vecdb import limits
from vecdb.errors import AlreadyExists, InvalidArgument, Unavailable, VecdbError
from vecdb.replication.log import entry, epochs, lease
from vecdb.replication.log.applying import note_writer, take_own_tail
from vecdb.replication.log.entry import Commit, Commits, EpochBegin, EpochEnd, FileRange, Position
from vecdb.replication.log.recording import DATABASE_NAMES, NewBytes, RecordedCommit, Recorder
from vecdb.replication.log.snapshot import SnapshotKeeper, StoreClosing
from vecdb.replication.objects import Bucket
from vecdb.storage.disk import filesystem, manifest
from vecdb.storage.kv import counters
from vecdb.storage.kv.store import LMDB_FORMAT, Store

_EPOCHS_MAX = 16  # since a snapshot: whoever opens the log reads an object of each
_RETRY_FIRST_S, _RETRY_LAST_S = 0.1, 5.0
_log = logging.getLogger("vecdb")


class LogWriter:
    """Writes the log of one open directory. Made before the first commit; raises what keeps it from being written."""

    def __init__(
        self,
        bucket: Bucket,
        path: Path,
        store: Store,
        *,
        remote: bool,
        durable: bool,
        staleness_s: float | None,
        asked_by_lease: Bucket | None = None,
    ) -> None:
        """remote : a commit is in the log before it is acknowledged.   durable : the directory is synced.
        staleness_s : the most that copies have; None: nothing waits for copies.   asked_by_lease : the same bucket, on
        connections of its own: reads need a lease; None, or without `staleness_s`: they need none.

        Raises InvalidArgument where the log is another database's, or its newest commits are not here; Locked where
        another process begins to write it at the same moment.
        """
        self.bucket = bucket
        self._remote = remote
        self._staleness_s = staleness_s
        self._writer = epochs.new_writer()
        self._path = path
        self._database = manifest.read(path, LMDB_FORMAT).uuid
        self._changed = threading.Condition()
        self._waiting: deque[RecordedCommit] = deque()
        self._waiting_bytes = self._waiting_memory = self._waiting_files = 0
        self._closing = False
        self._lost = False  # commits were let go: a new epoch is due
        self._stop = threading.Event()
        self._leaving = threading.Event()  # the database is about to close
        self._fenced: str | None = None  # why nothing may be written any more
        self._replaced: str | None = None  # the same, where another has taken over
        self._ended = False
        self._trouble = ""
        self._next_at = 0.0
        self._objects: list[int] = []  # numbers of this epoch's objects, ascending
        self._recorder: Recorder | None = None
        self._sequence, end, snapshot_due, asked = self._begin(store, durable)
        self._end = end
        self.lease: lease.Lease | None = None
        if asked_by_lease is not None and staleness_s is not None:
            self.lease = lease.Lease(bucket.url, staleness_s, asked, lambda: self._look_for_lease(asked_by_lease))
        self.snapshots = SnapshotKeeper(bucket, path, store, self._database, self._reached)
        self.snapshots.begin(end, due=snapshot_due)
        store.log = self._recorder = Recorder(
            path, store, self._ship_ahead, self._taken, self._not_made, self._check, self.wait_for_copies
        )
        self._thread = threading.Thread(target=self._run, name="vecdb-log", daemon=True)
        self._thread.start()
        if self.lease is not None:
            self.lease.begin()

    def _begin(self, store: Store, durable: bool) -> tuple[int, Position, bool, float]:
        """Begin an epoch. Returns the number of the newest commit, where the log is, whether it needs a snapshot, and
        since when it is this writer's, or a moment before.
        """
        end = epochs.find_end(self.bucket)
        if end is not None and end.database == self._database:
            take_own_tail(self.bucket, self._path, store, end, durable=durable)
        with store.read_all() as txn:
            sequence = counters.read(store, txn).sequence
            mark = epochs.fingerprint(store, txn)
            continues = end is not None and end.position.sequence == sequence and epochs.is_newest(store, txn, end.last)
            parted = end is not None and epochs.has_parted(store, txn, end)
        if end is not None:
            self._refuse_other(end, sequence, parted)
        note_writer(self._path, self._writer, durable=durable)
        asked = lease.now()
        begun = epochs.begin_epoch(
            self.bucket, self._database, sequence, mark, end, continues=continues, writer=self._writer
        )
        self._objects = [begun.object]
        has_snapshot = end is not None and continues and self._has_snapshot(end)
        return sequence, begun, not has_snapshot, asked

    def _has_snapshot(self, end: epochs.LogEnd) -> bool:
        """Whether a copy can begin with one, and needs to look at few epochs then."""
        newest = SnapshotKeeper.newest(self.bucket)
        return newest is not None and newest >= end.complete_from and end.epochs < _EPOCHS_MAX

    def _held_up(self, reason: str | None) -> None:
        if self._recorder is not None:
            self._recorder.held_up(reason)

    def _refuse_other(self, end: epochs.LogEnd, sequence: int, parted: bool) -> None:
        if end.database != self._database:
            raise InvalidArgument(
                f"{self.bucket.url} is the log of another database ({end.database}, this is {self._database}); give "
                "this one a prefix of its own"
            )
        if parted:
            raise InvalidArgument(
                f"the log {self.bucket.url} and {self._path} have parted: commit {end.position.sequence} of the one is "
                "not that of the other, as where a directory was put back and written since. Give this one a prefix of "
                "its own"
            )
        if end.position.sequence > sequence:
            raise InvalidArgument(
                f"the log {self.bucket.url} ends with commit {end.position.sequence}, {self._path} with commit "
                f"{sequence}: another directory has gone on. Follow the log to get its commits, or give another prefix"
            )

    # -- the commit thread -------------------------------------------------------------------------

    def _check(self) -> None:
        if self._fenced is not None:
            raise Unavailable(self._fenced)

    def _taken(self, sequence: int, commit: RecordedCommit | None) -> None:
        with self._changed:
            self._sequence = sequence
            if self._fenced is not None or self._lost or self._end.sequence >= sequence:
                return
            if commit is None:
                self._let_go()
                return
            self._waiting.append(commit)
            self._waiting_bytes += _cost(commit)
            self._waiting_memory += commit.cost_bytes
            self._waiting_files += _files(commit)
            too_much = self._waiting_memory > limits.log_waiting_bytes or self._waiting_files > limits.log_files_waiting
            if too_much:
                self._let_go()
            self._changed.notify_all()

    def _ship_ahead(self, sequence: int, commit: RecordedCommit | None) -> None:
        """With "remote": put a commit into the log before it is made. Raises Unavailable, and then it is not made."""
        if not self._remote:
            return
        if commit is None or not self.flush(limits.log_ahead_s):
            self._check()
            raise Unavailable(f"the log {self.bucket.url} is behind ({self._trouble or 'files'}); nothing was written")
        try:
            self._ship_until_known(sequence, commit)
        finally:
            self._held_up(None)

    def _ship_until_known(self, sequence: int, commit: RecordedCommit) -> None:
        ends, delay, told = time.monotonic() + limits.log_ahead_s, _RETRY_FIRST_S, False
        while True:
            try:
                self._ship([commit])
                self._trouble = ""
                return
            except _Fenced as fenced:
                self._set_replaced(str(fenced))
                raise Unavailable(str(fenced)) from None
            except (VecdbError, OSError) as error:
                self._trouble = str(error)
            where = f"commit {sequence} may or may not be in the log {self.bucket.url} ({self._trouble})"
            late = time.monotonic() >= ends
            if late and self._leaving.is_set():
                self._refuse(f"{where}; open the database again, which tells")
            if late and not told:
                _log.warning("the log of %s: %s; it is asked until it tells", self._path, where)
                self._held_up(f"the log does not answer: {where}, and is asked until it tells")
                told = True
            if not self._leaving.wait(delay):
                delay = min(2 * delay, _RETRY_LAST_S)
            elif not late:
                time.sleep(_RETRY_FIRST_S)

    def _not_made(self, sequence: int) -> None:
        """A commit failed on this machine's disk."""
        if self._end.sequence >= sequence:
            with self._changed:
                self._fenced = (
                    f"commit {sequence} is in the log {self.bucket.url} and failed here; close the database and open "
                    "it again, which completes it"
                )

    def _set_replaced(self, reason: str) -> None:
        with self._changed:
            self._fenced = self._replaced = reason
            self._let_go()
        if self.lease is not None:
            self.lease.end()

    def _refuse(self, reason: str) -> None:
        with self._changed:
            self._fenced = reason
            self._let_go()
        raise Unavailable(reason)

    def _let_go(self) -> None:
        """Under the lock: commits that wait are not to be shipped any more; a snapshot takes their place."""
        self._lost = True
        self._waiting.clear()
        self._waiting_bytes = self._waiting_memory = self._waiting_files = 0
        self._changed.notify_all()

    # -- from any thread ---------------------------------------------------------------------------

    def flush(self, timeout_s: float | None = None) -> bool:
        """Wait until all that is committed now is in the log. Returns whether it is."""
        with self._changed:
            wanted = self._sequence
            return self._changed.wait_for(
                lambda: self._fenced is not None or self._ended or self._shipped(wanted), timeout_s
            ) and self._shipped(wanted)

    def wait_for_copies(self) -> None:
        """Wait until no copy answers without what is committed now: a copy that has not looked at the log since then
        has stopped, and so has a writer that this one has replaced, if it has a lease: the end of its epoch is in the
        log since before this one began. Raises Unavailable where the log does not get it.
        """
        if self._staleness_s is None:
            return
        if not self.flush(limits.log_copies_s):
            why = self._fenced or self._trouble or "it is behind"
            raise Unavailable(
                f"this is committed here, and not in the log {self.bucket.url} ({why}): copies may still "
                "answer without it; repeat the call, which waits for them again"
            )
        wait(self._staleness_s)

    def _shipped(self, sequence: int) -> bool:
        return self._end.sequence >= sequence

    def fresh(self) -> None:
        """Raise Unavailable where another has taken over, or may have as far as the lease says, since what is read here
        is from the past then.
        """
        self.check_not_replaced()
        if self.lease is not None:
            self.lease.check()

    def check_not_replaced(self) -> None:
        """The same for what changes something, which needs no lease: the log itself refuses it."""
        if self._replaced is not None and self._staleness_s is not None:
            raise Unavailable(self._replaced)

    def _answers(self) -> bool:
        replaced = self._replaced is not None and self._staleness_s is not None
        return not replaced and (self.lease is None or self.lease.is_held)

    def leave(self) -> None:
        """The database is about to close: a commit that waits for the store waits no longer than its callers."""
        self._leaving.set()

    def facts(self) -> dict[str, Any]:
        """For `stats()`. replaced : whether another has taken over.   answers, writes : whether reads are answered, and
        writes taken, as far as is known.   lease : since when nobody has taken over, where reads need that.
        """
        with self._changed:
            trouble = self._trouble or (self.lease.trouble if self.lease else "")
            return {
                "url": self.bucket.url,
                "epoch": self._end.epoch,
                "sequence": self._end.sequence,
                "waiting": self._sequence - self._end.sequence,
                "trouble": self._fenced or trouble or None,
                "replaced": self._replaced is not None,
                "answers": self._answers(),
                "writes": self._fenced is None and not (self._remote and trouble),
                "lease": None if self.lease is None else self.lease.facts(),
                "snapshot": self.snapshots.newest_here,
            }

    def close(self) -> None:
        """After the last commit: ship what waits, as long as `limits.log_close_s` allows, and stop."""
        ends = time.monotonic() + limits.log_close_s
        if self.lease is not None:
            self.lease.end()
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        self._thread.join(limits.log_close_s)
        if self._thread.is_alive():  # the store is away
            with self._changed:
                self._stop.set()
                self._changed.notify_all()
            self._thread.join()
        self.snapshots.close(ends - time.monotonic())
        if self.lease is not None:
            self.lease.close()

    # -- the thread that ships ---------------------------------------------------------------------

    def _run(self) -> None:
        try:
            while not self._stop.is_set():
                commits = self._next_group()
                if self._fenced is not None:
                    return
                if self._lost:
                    self._repeat(self._begin_anew)
                elif not commits and not self._closing:
                    self._look()
                elif not commits:
                    return
                else:
                    self._repeat(lambda commits=commits: self._ship(commits))  # type: ignore[misc]
        except _Fenced as fenced:
            self._set_replaced(str(fenced))
            _log.error("the log of %s: %s", self._path, fenced)
        except _Stopped:
            pass
        except Exception:
            _log.exception("the log of %s ended; its copies stand still until the database is opened again", self._path)
            with self._changed:
                self._trouble = "the thread that writes it has ended by an error, which was logged"
        finally:
            with self._changed:
                self._ended = True
                self._changed.notify_all()

    def _next_group(self) -> list[RecordedCommit]:
        """Commits that share an object; none where all is shipped and the database closes, or some were let go, or
        none came for `limits.log_look_s`.
        """
        with self._changed:
            if not self._changed.wait_for(lambda: self._waiting or self._closing or self._lost, limits.log_look_s):
                return []
            while (rest := self._next_at - time.monotonic()) > 0 and not self._closing and not self._lost:
                if self._waiting_bytes >= limits.log_object_bytes:
                    break
                self._changed.wait(rest)
            self._next_at = time.monotonic() + limits.log_wait_s
            group: list[RecordedCommit] = []
            cost = 0
            while self._waiting and (not group or cost + _cost(self._waiting[0]) <= limits.log_object_bytes):
                commit = self._waiting.popleft()
                cost += _cost(commit)
                self._waiting_memory -= commit.cost_bytes
                self._waiting_files -= _files(commit)
                group.append(commit)
            self._waiting_bytes -= cost
            return group

    def _repeat(self, step: Callable[[], None]) -> None:
        """Do a step until it succeeds. Raises _Stopped where the database closes and the store is away."""
        delay = _RETRY_FIRST_S
        while True:
            try:
                step()
                self._trouble = ""
                return
            except _Fenced:
                raise
            except (VecdbError, OSError) as error:
                if not self._trouble:
                    _log.warning("the log of %s waits: %s", self._path, error)
                self._trouble = str(error)
            if self._stop.wait(delay):
                raise _Stopped
            delay = min(2 * delay, _RETRY_LAST_S)

    def _ship(self, group: list[RecordedCommit]) -> None:
        version = manifest.read(self._path, LMDB_FORMAT).format_version
        made = [Commit(one.sequence, one.time_ns, version, one.operations, self._ranges(one)) for one in group]
        first, last = group[0].sequence, group[-1].sequence
        data = entry.encode(Commits(self._database, self._end.epoch, DATABASE_NAMES, tuple(made), self._writer))
        self._create(entry.log_key(self._end.epoch, first), data)
        with self._changed:
            self._end = Position(self._end.epoch, last, first)
            self._objects.append(first)
            self._changed.notify_all()
        self.snapshots.wrote(self._end, len(data) + sum(one.file_bytes for one in group))

    def _create(self, key: str, data: bytes) -> None:
        asked = lease.now()
        try:
            self.bucket.create(key, data)
        except AlreadyExists:
            if self.bucket.get(key) != data:
                raise self._taken_over() from None
            return  # of an attempt before: another may have taken over behind it since
        if self.lease is not None:
            self.lease.confirm(asked)

    def _taken_over(self) -> _Fenced:
        return _Fenced(
            f"fenced: another writer has taken over the log {self.bucket.url} after commit {self._end.sequence}. "
            "This directory is written no more, and read only with read_only: copy from it what it alone has, then let "
            "it follow the log"
        )

    def _look(self) -> None:
        """Nothing was written for a while. Raises _Fenced where another has taken over."""
        try:
            self._nobody_has_taken_over(self.bucket)
        except (VecdbError, OSError) as error:
            self._trouble = str(error)
            return
        self._trouble = ""

    def _look_for_lease(self, bucket: Bucket) -> bool:
        """In the thread of the lease: whether nobody had taken over when the bucket was asked, as far as it tells."""
        try:
            return self._nobody_has_taken_over(bucket)
        except _Fenced as fenced:
            if self._replaced is None:
                _log.error("the log of %s: %s", self._path, fenced)
            self._set_replaced(str(fenced))
            return False

    def _nobody_has_taken_over(self, bucket: Bucket) -> bool:
        """Look at the next object. False where it is this writer's own, which comes just now: another's may lie behind
        it. Raises _Fenced where it is another's; VecdbError, OSError where the bucket does not tell.
        """
        key = self._end.next_key
        raw = bucket.get(key)
        if raw is None:
            return True
        found = entry.decode(raw, f"{bucket.url}: {key}")
        if not isinstance(found, (Commits, EpochEnd)) or found.writer != self._writer:
            raise self._taken_over()
        return False

    def _ranges(self, commit: RecordedCommit) -> tuple[FileRange, ...]:
        return tuple(self._range(commit.sequence, number, one) for number, one in enumerate(commit.ranges))

    def _range(self, sequence: int, number: int, one: NewBytes) -> FileRange:
        if one.length <= limits.log_inline_bytes:
            data = filesystem.pread(one.file.fd, one.length, one.offset)
            if len(data) != one.length:
                raise Unavailable(f"{one.path} ends before byte {one.offset + one.length}, which a commit counts")
            return FileRange(one.path, one.offset, one.length, zlib.crc32(data), data)
        key = entry.file_key(self._end.epoch, sequence, f"l{number}")
        crc = filesystem.crc_of(one.file.fd, one.offset, one.length)
        self.bucket.upload(key, one.file.fd, one.offset, one.length)
        made = FileRange(one.path, one.offset, one.length, crc, b"", key)
        self.snapshots.uploaded(made)
        return made

    def _begin_anew(self) -> None:
        """After commits were let go: another epoch, which begins where recording begins again."""
        end = epochs.find_end(self.bucket)
        if end is None or (end.position != self._end and not self._has_begun(end)):
            raise _Fenced(
                f"fenced: another writer has taken over the log {self.bucket.url}, or removed it, after commit "
                f"{self._end.sequence}"
            )
        with self._changed:
            after, self._lost = self._sequence, False
        try:
            begun = epochs.begin_epoch(self.bucket, self._database, after, 0, end, continues=False, writer=self._writer)
        except BaseException:
            with self._changed:
                self._let_go()
            raise
        with self._changed:
            self._end, self._objects = begun, [begun.object]
            self._changed.notify_all()
        self.snapshots.begin(begun, due=True)

    def _has_begun(self, end: epochs.LogEnd) -> bool:
        """Whether the log ends with an epoch that this writer has begun, in an attempt whose answer was lost."""
        return isinstance(end.last, EpochBegin) and end.last.writer == self._writer

    def _reached(self, epoch: int, sequence: int) -> Position:
        """The position of a commit of an epoch, once it is in the log. Raises StoreClosing where it will not be."""
        with self._changed:
            self._changed.wait_for(
                lambda: self._stop.is_set() or self._ended or self._end.epoch != epoch or self._end.sequence >= sequence
            )
            if self._end.epoch != epoch or self._end.sequence < sequence:
                raise StoreClosing
            return Position(epoch, sequence, max(one for one in self._objects if one <= sequence))


def _cost(commit: RecordedCommit) -> int:
    """Bytes of the object that a commit becomes, roughly."""
    return commit.cost_bytes + sum(one.length for one in commit.ranges if one.length <= limits.log_inline_bytes)


def _files(commit: RecordedCommit) -> int:
    """Files that are open for this commit alone."""
    return sum(not one.grows for one in commit.ranges)


class _Fenced(Exception):
    """Another writer has taken over."""


class _Stopped(Exception):
    """The database closes."""
