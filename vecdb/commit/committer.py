"""The single writer: one thread, one LMDB write transaction at a time, shared by every call that waits for it.

    caller -> submit(request) -> queue -> [ group: apply each, sync row files, commit ] -> publish -> caller wakes

- Acknowledge after durability: `submit` returns once the transaction that holds the request is committed and
  published.
- A request raises a VecdbError before it changes anything; then only it fails, and the rest of its group goes on.
- Anything else that fails aborts the group: none of its requests happened.
- A commit that cannot be shown here is on disk; who waits for it is told, and writes are refused from then on.
- After a failed sync nobody knows what is on disk (the kernel may have dropped the pages): the database refuses
  writes until it is reopened.
- A database whose directory was removed acknowledges nothing.
- A commit that waits for the log for long (`durability="remote"`) goes on waiting, so that this process knows how it
  ended; callers who write records do not wait with it, and are told that its outcome is unknown. New requests are
  refused meanwhile.
- Sequence numbers count commits, per database, without gaps.
"""

from __future__ import annotations

import errno
import logging
import threading
import time
from bisect import bisect_left
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

from vecdb import limits
from vecdb.errors import Poisoned, Unavailable, VecdbError
from vecdb.storage.disk import filesystem
from vecdb.storage.disk.row_file import OpenRowFiles
from vecdb.storage.kv import counters
from vecdb.storage.kv.counters import Counters
from vecdb.storage.kv.history import HistoryWriter
from vecdb.storage.kv.store import CompactedCopy, MapFullError, Store, StoreError, store_error

_log = logging.getLogger("vecdb")

# Entries written or deleted in one stretch of bytecode, about 200 us; then the interpreter lock is offered to searches.
SLICE_ENTRIES = 256


class Request(Protocol):
    """Something to do inside the write transaction."""

    @property
    def size_bytes(self) -> int:
        """What it will write, roughly: bounds the group."""

    @property
    def exclusive(self) -> bool:
        """Whether it wants a group of its own."""

    def apply(self, group: CommitGroup) -> Any:
        """Change `group`; returns what `submit` returns. Raises VecdbError only before the first change."""


class Participant(Protocol):
    """Changes of one collection that wait for the end of the group."""

    def finish(self, group: CommitGroup) -> None:
        """Write what is left to write, and sync the row file: all that must be on disk before the commit."""

    def publish(self) -> None:
        """After the commit: let searches see it."""


class CommitGroup:
    """One write transaction being filled. Lives on the commit thread."""

    def __init__(
        self, store: Store, sequence: int, uid_next: int, open_rows: OpenRowFiles, history: HistoryWriter
    ) -> None:
        """uid_next : of the next collection that is created.   open_rows : row files that stay open."""
        self.store = store
        self.sequence = sequence
        self.uid_next = uid_next
        self.open_rows = open_rows
        self._history = history
        self.txn = store.begin_write()
        self.participants: dict[Any, Participant] = {}
        self.published: list[Callable[[], None]] = []
        self.changed = False
        self.answered = 0  # requests whose answers are stored (idempotency.py)

    def finish(self) -> None:
        for participant in self.participants.values():
            participant.finish(self)
        counters.write(self.store, self.txn, Counters(self.sequence, self.uid_next))
        self._history.note(self.store, self.txn, self.sequence)

    def publish(self) -> None:
        for participant in self.participants.values():
            participant.publish()
        for callback in self.published:
            callback()


@dataclass
class SwapLmdbFile:
    """Not a change: asks the commit thread, between groups, for `Store.swap_for`. Its result: whether it was done."""

    copy: CompactedCopy
    size_bytes: ClassVar[int] = 0
    exclusive: ClassVar[bool] = True

    def apply(self, group: CommitGroup) -> Any:
        raise AssertionError("the commit thread runs it outside of groups")


class _QueuedRequest:
    """done : a lock that is held until then. Ctrl-C may break into the methods of an event, with a lock of its own."""

    __slots__ = ("done", "error", "request", "result")

    def __init__(self, request: Request) -> None:
        self.request = request
        self.done = threading.Lock()
        self.done.acquire()
        self.result: Any = None
        self.error: BaseException | None = None


class CommitTimes:
    """How long commits took, from their first request to their publication. Written by the commit thread."""

    bounds_s = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)

    def __init__(self) -> None:
        self.seconds = 0.0
        self._counts = [0] * (len(self.bounds_s) + 1)

    def count(self, seconds: float) -> None:
        self.seconds += seconds
        self._counts[bisect_left(self.bounds_s, seconds)] += 1

    def figures(self) -> dict[str, Any]:
        """counts : commits up to each bound that no smaller one holds, and those beyond."""
        return {"bounds_s": list(self.bounds_s), "counts": list(self._counts), "seconds": self.seconds}


class SyncFailed(Exception):
    """A sync failed; carries the OSError. Poisons the database."""

    def __init__(self, error: OSError) -> None:
        super().__init__(str(error))
        self.error = error


class Committer:
    """Owns the commit thread. `submit` from any thread."""

    def __init__(self, store: Store, known: Counters, committed: Callable[[int], None]) -> None:
        """known : the counters as they are stored.
        committed : called with the number of each commit, before it is acknowledged.
        """
        self._store = store
        self._committed = committed
        self.sequence, self._uid_next = known
        self._open_rows = OpenRowFiles()
        self._history = HistoryWriter(store)
        self.commits = 0
        self.requests = 0
        self.times = CommitTimes()
        self.poisoned: str | None = None
        self._queue: deque[_QueuedRequest] = deque()
        self._wake_lock = threading.RLock()  # entered by itself: Ctrl-C may break into `__enter__` of a condition
        self._wake = threading.Condition(self._wake_lock)
        self._closing = False
        self._running: list[_QueuedRequest] = []  # of the group that is being committed, whose callers wait
        self._held_up: str | None = None  # why that takes long
        if store.log is not None:
            store.log.held_up = self._set_held_up
        self._thread = threading.Thread(target=self._run, name="vecdb-commit", daemon=True)
        self._thread.start()

    def submit(self, request: Request) -> Any:
        """Run `request` in a commit and wait until it is durable. Returns what its `apply` returned, or raises what
        failed.
        """
        job = _QueuedRequest(request)
        with self._wake_lock:
            self._admit()
            self._queue.append(job)
            self._wake.notify()
        job.done.acquire()
        if job.error is not None:
            raise job.error
        return job.result

    def _admit(self) -> None:
        if self.poisoned is not None:
            raise Poisoned(f"writes are refused since {self.poisoned}; close the database and open it again")
        if self._closing:
            raise self._store.is_closed()
        if self._held_up is not None:
            raise Unavailable(f"{self._held_up}; nothing of this was written")
        if len(self._queue) >= limits.queue_calls_max:
            raise Unavailable(f"{limits.queue_calls_max} writes are waiting already; try again when some have finished")

    def is_this_thread(self) -> bool:
        """Whether the caller runs on the commit thread."""
        return threading.current_thread() is self._thread

    def close(self) -> None:
        """Commit what is queued, then stop."""
        with self._wake_lock:
            self._closing = True
            self._wake.notify()
        self._thread.join()

    # -- the commit thread -------------------------------------------------------------------------

    def _run(self) -> None:
        while True:
            jobs = self._take()
            if not jobs:
                return
            self._running = list(jobs)
            try:
                self._commit(jobs)
            finally:
                _release(self._running)
                self._running = []  # while it waits it keeps nothing of the last group alive, which may be 256 MiB
            del jobs

    def _set_held_up(self, reason: str | None) -> None:
        """Within a commit: it waits for the log for long, or (None) no longer. Who writes records may be told so and
        leave, since nothing is undone where that fails; other callers would remove files that the commit names.
        """
        with self._wake_lock:
            self._held_up = reason
            waiting = [] if reason is None else list(self._queue)
            if waiting:
                self._queue.clear()
        if reason is None:
            return
        leaving = [job for job in self._running if hasattr(job.request, "kind")]
        self._running = [job for job in self._running if not hasattr(job.request, "kind")]
        for job in leaving:
            job.error = Unavailable(f"{reason}; it may or may not come to that: repeat it, best with a request_id")
        _fail(waiting, Unavailable(f"{reason}; nothing of this was written"))
        _release(leaving + waiting)

    def _take(self) -> list[_QueuedRequest]:
        """The next group: what has queued up, within the bounds of a group. Empty means: stop."""
        with self._wake_lock:
            while not self._queue and not self._closing:
                self._wake.wait()
            jobs: list[_QueuedRequest] = []
            size_bytes = 0
            while self._queue and len(jobs) < limits.group_calls_max:
                size_bytes += self._queue[0].request.size_bytes
                exclusive = self._queue[0].request.exclusive
                if jobs and (exclusive or size_bytes > limits.group_bytes_max):
                    break
                jobs.append(self._queue.popleft())
                if exclusive:
                    break
            return jobs

    def _commit(self, jobs: list[_QueuedRequest]) -> None:
        if self.poisoned is not None:
            _fail(jobs, Poisoned(f"writes are refused since {self.poisoned}; close the database and open it again"))
            return
        try:
            self._store.check_there()
        except Unavailable as error:
            _fail(jobs, error)
            return
        if isinstance(jobs[0].request, SwapLmdbFile):
            self._swap_file(jobs[0], jobs[0].request.copy)
            return
        group: CommitGroup | None = None
        started = time.perf_counter()
        try:
            group = CommitGroup(self._store, self.sequence + 1, self._uid_next, self._open_rows, self._history)
            for job in jobs:
                try:
                    job.result = job.request.apply(group)
                except VecdbError as error:
                    job.error = error
            if not group.changed:
                group.txn.abort()
                return
            self._store.check_there()
            group.finish()
            _commit_transaction(group)
        except BaseException as error:
            if group is not None:
                group.txn.abort()
            _fail(jobs, self._explain(error))
            return
        self.sequence, self._uid_next = group.sequence, group.uid_next
        self.commits += 1
        self.requests += len(jobs)
        try:
            self._committed(self.sequence)
            group.publish()
        except BaseException as error:  # committed, but this process can no longer be trusted to show it
            _log.exception("commit %d is on disk and could not be published", self.sequence)
            self.poisoned = f"a committed write could not be published ({error!r})"
            _fail(jobs, Poisoned(f"{self.poisoned}: it is on disk; close the database and open it again"))
            return
        self.times.count(time.perf_counter() - started)

    def _swap_file(self, job: _QueuedRequest, copy: CompactedCopy) -> None:
        try:
            job.result = self._store.swap_for(copy)
        except OSError as error:
            job.error = filesystem.to_vecdb_error(error, "shrinking LMDB's file", "nothing was lost")
        except (StoreError, VecdbError) as error:  # the next use of the store tells whether it is open again
            job.error = Unavailable(f"shrinking LMDB's file failed: {error}; nothing was lost")

    def _explain(self, error: BaseException) -> BaseException:
        """The error that callers get; decides whether the database is poisoned."""
        if isinstance(error, SyncFailed):
            self.poisoned = f"a sync failed ({error.error.strerror or error.error})"
            return Poisoned(
                f"{self.poisoned}: this write may or may not be on disk; close the database and open it again"
            )
        if isinstance(error, MapFullError):
            return Unavailable("the reserved LMDB map is full; open the database with a larger map_bytes")
        if isinstance(error, OSError):
            return filesystem.to_vecdb_error(error, "committing")
        if isinstance(error, StoreError):
            return store_error(error, "committing")
        return error


def _commit_transaction(group: CommitGroup) -> None:
    try:
        group.txn.commit()
    except (StoreError, OSError) as error:
        if isinstance(error, MapFullError):
            raise
        if not group.store.is_poisoned() and ("No space" in str(error) or group.store.is_full()):
            raise OSError(errno.ENOSPC, "no space left", str(group.store.path)) from error
        raise SyncFailed(OSError(errno.EIO, str(error))) from error


def _fail(jobs: list[_QueuedRequest], error: BaseException) -> None:
    for job in jobs:
        if job.error is None:
            job.error = error


def _release(jobs: list[_QueuedRequest]) -> None:
    for job in jobs:
        job.done.release()
