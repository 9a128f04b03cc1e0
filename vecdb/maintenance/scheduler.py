"""The thread that looks after a writing database: bounded steps, one at a time, woken by commits.

    fold the journal -> index the tail -> repair -> vacuum -> rebuild -> seal, for each collection, then sleep until a
    commit; dead LMDB readers each minute

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

from vecdb.embedded.local_collection import LocalCollection
from vecdb.errors import NotFound, Poisoned, Unavailable
from vecdb.maintenance.vacuum import vacuum
from vecdb.storage.kv.store import Store
from vecdb.validate import threads

_READER_CHECK_S = 60.0
_PATIENCE_S = 1.0  # how often a bulk load is looked at whether it has paused
_NICE = 10
_log = logging.getLogger("vecdb")


class MaintenanceScheduler:
    """Owns the maintenance thread of one database."""

    def __init__(self, store: Store, engines: Callable[[], list[LocalCollection]], *, enabled: bool) -> None:
        self._store = store
        self._engines = engines
        self._wake = threading.Event()
        self._closing = False
        self._cores = threads(None)
        self._thread = threading.Thread(target=self._run, name="vecdb-maintenance", daemon=True) if enabled else None
        if self._thread is not None:
            self._thread.start()

    def wake(self) -> None:
        """Something was committed. Cheap; from any thread."""
        self._wake.set()

    def wait_idle(self, engine: LocalCollection) -> None:
        """Return when no step on `engine` is running."""
        with engine.upkeep.lock:
            return

    def close(self) -> None:
        """Stop after the present step, then seal what is worth it."""
        self._closing = True
        self._wake.set()
        if self._thread is not None:
            self._thread.join()
        for engine in self._engines():
            self._guarded(engine, engine.upkeep.close)

    def _run(self) -> None:
        with contextlib.suppress(OSError):  # not allowed here: searches share the cores with it on equal terms
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICE)
        while not self._closing:
            waiting = any(self._waits(engine) for engine in self._engines())
            if not self._wake.wait(_PATIENCE_S if waiting else _READER_CHECK_S) and not waiting:
                self._store.clear_dead_readers()
                continue
            self._wake.clear()
            for engine in self._engines():
                self._guarded(engine, lambda engine=engine: self._serve(engine))  # type: ignore[misc]

    def _waits(self, engine: LocalCollection) -> bool:
        try:
            return not engine.dropped and engine.upkeep.tail_is_deferred()
        except NotFound:  # dropped between the two looks
            return False

    def _serve(self, engine: LocalCollection) -> None:
        """One round of steps; asks for another round where more is due."""
        upkeep = engine.upkeep
        if engine.dropped:
            return
        width = max(1, self._cores - 1) if engine.is_searched() else self._cores
        if upkeep.fold_is_due():
            upkeep.fold()
        if upkeep.tail_is_due():
            upkeep.index_tail(width)
            self._wake.set()
        if upkeep.repair_is_due():
            upkeep.repair(width)
        if not self._closing and upkeep.companion_is_due():
            upkeep.grow_companion(width)
            self._wake.set()
        if not self._closing and upkeep.vacuum_is_due():
            vacuum(engine)
        if not self._closing and upkeep.rebuild_is_due():
            upkeep.rebuild(width)
        if not self._closing and upkeep.seal_is_due():
            upkeep.seal(width)

    def _guarded(self, engine: LocalCollection, step: Callable[[], None]) -> None:
        """Run a step. One that fails is logged and tried again after the next commit: derived data can wait,
        searches go on.
        """
        try:
            step()
        except (NotFound, Unavailable, Poisoned):
            return  # dropped, closed or poisoned meanwhile: whoever did that knows
        except Exception:
            _log.exception("maintenance of collection %r failed", engine.entry.name)
