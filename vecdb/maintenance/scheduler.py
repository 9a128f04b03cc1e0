"""The maintenance thread of a writing database: bounded steps, one at a time, woken by commits.

    merge the journal -> index the tail -> repair -> companion graph -> vacuum -> rebuild -> seal -> columns of fields
    -> learn, for each collection, then sleep until a commit; dead LMDB readers each minute

It can be switched off, and nothing is wrong then, only slower: tails grow until writers wait, which `optimize`
resolves. It runs at a lower priority than searches, and while there are any on as many threads as leave one core to
them.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
from collections.abc import Callable

from vecdb.errors import DiskFull, NotFound, Poisoned, Unavailable
from vecdb.maintenance.index_jobs import CollectionMaintenance
from vecdb.storage.disk import filesystem
from vecdb.storage.kv.store import Store
from vecdb.validate import threads

_READER_CHECK_S = 60.0
_LOAD_CHECK_S = 1.0  # how often a bulk load is looked at whether it has paused
_NICE = 10
_log = logging.getLogger("vecdb")


class MaintenanceScheduler:
    """Owns the maintenance thread of one database."""

    def __init__(self, store: Store, open_jobs: Callable[[], list[CollectionMaintenance]], *, enabled: bool) -> None:
        """open_jobs : those of the collections that are open now."""
        self._store = store
        self._open_jobs = open_jobs
        self._wake = threading.Event()
        self._closing = False
        self._told = ""
        self._cores = threads(None)
        self._thread = threading.Thread(target=self._run, name="vecdb-maintenance", daemon=True) if enabled else None
        if self._thread is not None:
            self._thread.start()

    def wake(self) -> None:
        """Something was committed. Cheap; from any thread."""
        self._wake.set()

    def close(self) -> None:
        """Stop after the present step, then seal what is worth it."""
        self._closing = True
        self._wake.set()
        if self._thread is not None:
            self._thread.join()
        for jobs in self._open_jobs():
            self.settle(jobs)

    def is_this_thread(self) -> bool:
        """Whether the caller runs on the maintenance thread."""
        return threading.current_thread() is self._thread

    def settle(self, jobs: CollectionMaintenance) -> None:
        """Before a collection is let go: seal what is worth it."""
        self._guarded(jobs, jobs.close)

    def _run(self) -> None:
        with contextlib.suppress(OSError):  # not allowed here: searches share the cores with it on equal terms
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICE)
        while not self._closing:
            waiting = any(self._waits(jobs) for jobs in self._open_jobs())
            if not self._wake.wait(_LOAD_CHECK_S if waiting else _READER_CHECK_S) and not waiting:
                self._store.clear_dead_readers()
                continue
            self._wake.clear()
            for jobs in self._open_jobs():
                self._guarded(jobs, lambda jobs=jobs: self._serve(jobs))  # type: ignore[misc]

    def _waits(self, jobs: CollectionMaintenance) -> bool:
        try:
            return not jobs.state.dropped and jobs.waits_for_pause()
        except NotFound:  # dropped between the two looks
            return False

    def _serve(self, jobs: CollectionMaintenance) -> None:
        """One round of steps; asks for another round where more is due."""
        if jobs.state.dropped:
            return
        jobs.state.store.check_there()
        width = max(1, self._cores - 1) if jobs.writes.is_searched() else self._cores
        if jobs.merge_is_due():
            jobs.writes.merge_journal()
        if jobs.tail_is_due():
            jobs.index_tail(width)
            self._wake.set()
        if jobs.repair_is_due():
            jobs.repair(width)
        if not self._closing and jobs.companion_is_due():
            jobs.grow_companion(width)
            self._wake.set()
        if not self._closing and jobs.vacuum_is_due():
            jobs.vacuum()
        with jobs.lock:  # the user's `optimize` may be doing it
            if not self._closing and jobs.rebuild_is_due():
                jobs.rebuild(width)
        if not self._closing and jobs.seal_is_due():
            jobs.seal(width)
        with jobs.lock:
            if not self._closing and jobs.columns.is_due():
                jobs.columns.extend()
            if not self._closing and jobs.columns.seal_is_due():
                jobs.columns.seal()
        with jobs.lock:
            if not self._closing and jobs.learning_is_due():
                jobs.learn(width, rests=True)

    def _tell_once(self, text: str) -> None:
        """Log a line, unless the line before said the same: a disk stays full for long."""
        if text != self._told:
            _log.warning(text)
        self._told = text

    def _guarded(self, jobs: CollectionMaintenance, step: Callable[[], None]) -> None:
        """Run a step. One that fails is logged and tried again after the next commit: derived data can wait,
        searches go on.
        """
        try:
            step()
        except DiskFull as error:
            self._tell_once(f"maintenance of collection {jobs.state.entry.name!r} waits: {error}")
        except OSError as error:
            told = filesystem.to_vecdb_error(error, "working in the background", "no record changed")
            self._tell_once(f"maintenance of collection {jobs.state.entry.name!r} waits: {told}")
        except (NotFound, Unavailable, Poisoned):
            return  # dropped, closed or poisoned meanwhile: callers are told by their own calls
        except Exception:
            _log.exception("maintenance of collection %r failed", jobs.state.entry.name)
