"""What this process has open, by directory: one Store each, shared by all its handles; and what a forked child must do.

    open_store(path) --device, inode of the folder--> the Store that is open already | a new one
    writer_of(path)                                -> the LocalDatabase that writes there, if it is in this process
    hold(lock), let_go(lock)                          the locks of directories that this process holds

A forked child forgets all of it: it leaves the parent's environments as they are, closes its copies of the locks, so
that they go with the parent, and opens what it needs anew.

Threads: any. `opening` lets one thread at a time open for writing; the other lock is held for a moment only, since the
end of a database may come while the interpreter collects garbage in any thread.
"""

from __future__ import annotations

import contextlib
import os
import threading
import weakref
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vecdb.errors import Unavailable
from vecdb.storage.disk import filesystem
from vecdb.storage.kv.store import Store


@dataclass(eq=False)
class _Open:
    """One Store of this process. users : handles that have it. ended : set once it is closed."""

    store: Store
    users: int = 0
    writer: weakref.ref[Any] | None = None
    ended: threading.Event = field(default_factory=threading.Event)


class Usable:
    """Called before each use of a database: refuses one that is closed, or that a forked child has inherited.

    ending : the database is about to close: calls are refused, long work is given up, but for what `end` lets go on.
    fresh : of a database with a log, raises where it may not answer reads by now; None: it always may.
    takes_changes : the same for changes.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.ending = self.closed = False
        self._goes_on: Callable[[], bool] = lambda: False
        self.fresh: Callable[[], None] | None = None
        self.takes_changes: Callable[[], None] | None = None
        self._pid = os.getpid()

    @property
    def is_mine(self) -> bool:
        """Whether this process opened it."""
        return os.getpid() == self._pid

    def end(self, goes_on: Callable[[], bool]) -> None:
        """The database begins to close. goes_on() : whether the calling thread is one that closes it."""
        self._goes_on, self.ending = goes_on, True

    def closed_error(self) -> Unavailable:
        return Unavailable(f"database {self.path} is closed; open it again")

    def __call__(self) -> None:
        self.check_open()
        if self.fresh is not None:
            self.fresh()

    def for_changes(self) -> None:
        """The same before something is changed, or kept in order."""
        self.check_open()
        if self.takes_changes is not None:
            self.takes_changes()

    def check_open(self) -> None:
        """The same for what a copy tells at any time."""
        if self.closed or (self.ending and not self._goes_on()):
            raise self.closed_error()
        if os.getpid() != self._pid:
            raise Unavailable(
                f"database {self.path} was opened by process {self._pid} and inherited by a fork; "
                f"open it anew in process {os.getpid()}"
            )


_open: dict[tuple[int, int], _Open] = {}
_locks: set[int] = set()
_guard = threading.RLock()
opening = threading.RLock()


def open_store(path: Path, *, read_only: bool, durability: str, map_bytes: int) -> Store:
    """The environment in the folder `path`, for one more user of this process, who calls `close_store` at the end."""
    while True:
        key = filesystem.identity(path)
        with _guard:
            entry = _open.get(key)
            if entry is None:
                store = Store(path, read_only=read_only, durability=durability, map_bytes=map_bytes)
                _open[key] = _Open(store, users=1)
                return store
            if entry.users:
                entry.store.join(read_only=read_only, durability=durability)
                entry.users += 1
                return entry.store
        entry.ended.wait()  # its last user is about to close it


def close_store(store: Store, caller: int) -> None:
    """The user of a store has ended; with the last one it closes. caller : see `Store.close`."""
    with _guard:
        key, entry = next((key, entry) for key, entry in _entries() if entry.store is store and entry.users)
        entry.users -= 1
        if entry.users:
            return
    try:
        store.close(caller)
    finally:
        with _guard:
            del _open[key]
        entry.ended.set()


def set_writer(store: Store, database: Any) -> None:
    """Say which database of this process writes to the store; None: none any more."""
    with _guard:
        entry = next(entry for _, entry in _entries() if entry.store is store)
        entry.writer = None if database is None else weakref.ref(database)


def _entries() -> list[tuple[tuple[int, int], _Open]]:
    """Of a copy, since another database may end, and change `_open`, whenever memory is asked for."""
    return list(_open.copy().items())


def writer_of(path: Path) -> Any:
    """The database of this process that writes to the directory `path`, or None."""
    with contextlib.suppress(FileNotFoundError, NotADirectoryError), _guard:
        entry = _open.get(filesystem.identity(path / "lmdb"))
        return entry.writer() if entry is not None and entry.writer is not None else None
    return None


def hold(lock_fd: int) -> int:
    """Keep a lock until `let_go`. Returns it."""
    with _guard:
        _locks.add(lock_fd)
    return lock_fd


def let_go(lock_fd: int) -> None:
    """Release a lock and close its descriptor."""
    with _guard:
        _locks.discard(lock_fd)
        filesystem.unlock(lock_fd)


def _after_fork_in_child() -> None:
    global _guard, opening
    _guard, opening = threading.RLock(), threading.RLock()  # another thread of the parent may hold them
    for lock_fd in _locks:
        with contextlib.suppress(OSError):
            filesystem.close(lock_fd)  # the lock itself stays with the parent
    for entry in _open.values():
        entry.store.abandon()
    _locks.clear()
    _open.clear()


os.register_at_fork(after_in_child=_after_fork_in_child)
