"""LocalDatabase: the backend of an embedded `Database`. One directory, one writing process, any number of reading ones.

    store, committer (commit thread), maintenance (thread)      one each; the store shared with others of this process
    LocalCollection                                             one for each collection in use

A handle (`Database`) and what came from it hold the database; nothing that it holds holds it, so it closes itself as
soon as nobody uses it any more. Of collections that nobody holds, the least recently used give way.

Threads: every method from any thread. Processes: a forked child must open its own; an inherited one refuses every call.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
import weakref
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any, Generic

from vecdb import limits
from vecdb.api.backend import C, Progress
from vecdb.api.database import Database
from vecdb.commit.committer import Committer
from vecdb.embedded import open_here
from vecdb.embedded.backup import remove_older_backups, write_backup
from vecdb.embedded.check import check_database
from vecdb.embedded.create_drop import CreateCollection, DropAlias, DropCollection, RenameCollection, SetAlias
from vecdb.embedded.directory import LOCK, check_folders, lock_as_reader, prepare_directory
from vecdb.embedded.local_collection import LocalCollection
from vecdb.embedded.undisturbed import undisturbed
from vecdb.errors import Corruption, DiskFull, NotFound, Unavailable
from vecdb.maintenance.garbage import collect_garbage
from vecdb.maintenance.index_jobs import CollectionMaintenance
from vecdb.maintenance.scheduler import MaintenanceScheduler
from vecdb.replication.backups.remote_backup import back_up_to
from vecdb.replication.backups.temporary import TemporaryFolder
from vecdb.replication.bucket import is_url
from vecdb.replication.log.epochs import fingerprint
from vecdb.replication.log.following import LogFollower
from vecdb.replication.log.link import LogUse, refuse_copy
from vecdb.replication.log.shipping import LogWriter
from vecdb.schema import CollectionConfig
from vecdb.storage.disk import commit_mark, filesystem, manifest
from vecdb.storage.disk.paths import collection_folder
from vecdb.storage.kv import aliases, catalog, counters
from vecdb.storage.kv.store import LMDB_FORMAT
from vecdb.tenancy import tenant_names
from vecdb.validate import commit_number
from vecdb.validate.directories import absolute
from vecdb.validate.not_found import collection_not_found

_COMMIT_POLL_S = 0.005  # how often a reading process looks for a commit that it waits for


class LocalDatabase(Generic[C]):
    """An open directory: its lock, store, committer, maintenance, and the collections in use.

    make_collection(collection, config, self) : what users hold of a collection; it keeps the database open.
    options : with which it was opened.
    """

    def __init__(
        self,
        path: Path,
        make_collection: Callable[[LocalCollection, CollectionConfig, object], C],
        *,
        durability: str,
        read_only: bool = False,
        temporary: TemporaryFolder | None = None,
        maintenance: bool = True,
        map_bytes: int = limits.lmdb_map_bytes,
        memory_budget_bytes: int | None = None,
        upgrading: bool = False,
        log: LogUse | None = None,
    ) -> None:
        self.path = path
        self.read_only = read_only
        self.durability = durability
        self.options = {
            "durability": durability,
            "maintenance": maintenance,
            "map_bytes": map_bytes,
            "memory_budget_bytes": memory_budget_bytes,
            "log": log,
        }
        self._make_collection = make_collection
        self._temporary = temporary
        self._memory_budget_bytes = memory_budget_bytes
        self._usable = open_here.Usable(path)
        self._closing = self._ending = self._is_garbage = self.upgraded = False
        self._ended = threading.Event()
        self._open_lock = threading.RLock()
        self._collections: weakref.WeakValueDictionary[int, LocalCollection] = weakref.WeakValueDictionary()  # by uid
        self._recent: OrderedDict[int, LocalCollection] = OrderedDict()  # kept although nobody may hold them
        self._maintained: list[LocalCollection] = []  # kept while maintenance may be at work on them
        self._job_locks: dict[int, threading.RLock] = {}  # by uid
        self._handles: weakref.WeakSet[Database] = weakref.WeakSet()
        self._handles_made = self._handles_closed = 0
        self._held: weakref.WeakSet[C] = weakref.WeakSet()  # collections that users have
        self._committer: Committer | None = None
        self._mark: commit_mark.CommitMark | None = None
        self._log: LogWriter | LogFollower | None = None
        self._maintenance: MaintenanceScheduler | None = None
        self._locks = [] if temporary is None else [open_here.hold(temporary.lock_fd)]
        try:
            self._enter(upgrading=upgrading)
            self.store = open_here.open_store(
                path / "lmdb", read_only=read_only and log is None, durability=durability, map_bytes=map_bytes
            )
        except BaseException:
            self._unlock()
            raise
        try:
            if read_only:
                self._begin_reading(log)
            else:
                self._begin_writing(maintenance, log)
        except BaseException:
            self.close()
            raise

    def _enter(self, *, upgrading: bool) -> None:
        """Take the locks, make the directory where there is none, and read its manifest."""
        path = self.path
        if not self.read_only or self.options["log"] is not None:
            self._locks.append(open_here.hold(prepare_directory(path, durable=self.durability != "none")))
        if self.read_only and not filesystem.exists(path / manifest.NAME):
            raise NotFound(f"no database at {path}; open it without read_only=True to create one")
        self.manifest = manifest.read(path, LMDB_FORMAT, upgrading=upgrading)
        check_folders(path)
        if self.read_only and (reading := lock_as_reader(path)) is not None:
            self._locks.append(open_here.hold(reading))

    def _begin_reading(self, log: LogUse | None) -> None:
        """What was acknowledged before LMDB is looked at must be in it."""
        if log is not None:
            self._log = follower = log.follow(self.path, self.store, durable=self.durability != "none")
            self.manifest = manifest.read(self.path, LMDB_FORMAT)
            self._usable.fresh = self._usable.takes_changes = follower.fresh
        marked = commit_mark.read(self.path)
        commit_mark.compare(self.path, marked, self._last_sequence())

    def _begin_writing(self, maintenance: bool, log: LogUse | None) -> None:
        refuse_copy(self.path, self.store)
        found, self.manifest = self.manifest, manifest.upgrade(self.path, self.manifest)
        self.upgraded = found != self.manifest
        commit_mark.compare(self.path, commit_mark.read(self.path), self._last_sequence())
        if log is not None:
            self._log = writer = log.write(self.path, self.store, durable=self.durability != "none")
            self._usable.fresh, self._usable.takes_changes = writer.fresh, writer.check_not_replaced
        known = self._counters()
        sequence = known.sequence
        if self.durability != "none":
            self._mark = commit_mark.CommitMark(self.path, sequence, lag=self.durability == "relaxed")
        mark = self._mark.write if self._mark is not None else _no_mark
        self.store.check_there = _check_of(self.path, self._locks[-1])
        self._committer = Committer(self.store, known, mark)
        with contextlib.suppress(DiskFull):  # it is harmless, and who opens a full disk wants to delete
            collect_garbage(self.path, self.store, self._committer.submit)
        database = weakref.ref(self)
        self._maintenance = MaintenanceScheduler(
            self.store, lambda: [] if (here := database()) is None else here._open_jobs(), enabled=maintenance
        )
        open_here.set_writer(self.store, self)

    # -- handles -----------------------------------------------------------------------------------

    def new_handle(self) -> Database | None:
        """One more handle for a user; None where the database is about to close (see `wait_closed`)."""
        handle = Database(self, self._leave)  # type: ignore[arg-type]
        with self._open_lock:
            if self._closing or self._ending:
                return None
            self._handles.add(handle)
            self._handles_made += 1
        return handle

    def wait_closed(self) -> None:
        """Return when another thread has closed it."""
        self._ended.wait()

    def _leave(self, handle: Database) -> ClosedHandle | None:
        """A user closes a handle. The database goes on while others are open, or were dropped but for collections."""
        with self._open_lock:
            if handle not in self._handles:
                return None
            self._handles.discard(handle)
            self._handles_closed += 1
            dropped = self._handles_made - self._handles_closed - len(self._handles)
            goes_on = bool(self._handles) or (dropped > 0 and bool(self._held))
            self._ending = not goes_on
            return ClosedHandle(self.path, self.read_only) if goes_on else None

    # -- collections -------------------------------------------------------------------------------

    def create_collection(self, config: CollectionConfig, exist_ok: bool) -> C:
        self._usable.for_changes()
        committer = self._writer()
        committer.submit(CreateCollection(self.path, config, exist_ok, durable=self.durability != "none"))
        return self._handed_out(config.name, self._opened(config.name, self._usable.for_changes))

    def collection(self, name: str) -> C:
        return self._handed_out(name, self._opened(name))

    def _handed_out(self, name: str, collection: LocalCollection) -> C:
        made = self._make_collection(collection, replace(collection.config(), name=name), self)
        self._held.add(made)
        return made

    def _opened(self, name: str, check: Callable[[], None] | None = None) -> LocalCollection:
        """The collection of that name or alias, opened where it is not in use yet. Raises NotFound. check : whether it
        may be used, other than for reads.
        """
        check = self._usable if check is None else check
        check()
        with self._open_lock:
            check()
            entry = self._entry_of(name)
            if self.read_only:
                self._release_dropped(name, entry)
            if entry is None:
                raise collection_not_found(name)
            collection = self._collections.get(entry.uid)
            if collection is None or collection.state.dropped:
                self._make_room()
                with filesystem.raising_vecdb_errors(f"opening collection {name!r}"):
                    collection = self._open(entry)
                self._collections[entry.uid] = collection
            collection.renamed(entry.name)  # perhaps, by another process
            self._recent[entry.uid] = collection
            self._recent.move_to_end(entry.uid)
        return collection

    def _entry_of(self, name: str) -> catalog.CollectionEntry | None:
        with self.store.read() as txn:
            return catalog.find_entry(self.store, txn, name)

    def _release_dropped(self, name: str, entry: catalog.CollectionEntry | None) -> None:
        """In a reading process: let go of the collection that had the name, where the writer has dropped it."""
        for uid, collection in list(self._collections.items()):
            if collection.state.entry.name == name and (entry is None or entry.uid != uid):
                with contextlib.suppress(NotFound):
                    collection.state.current()
                if collection.state.dropped:
                    self._forget(uid)
                    collection.state.release()

    def _forget(self, uid: int) -> None:
        self._recent.pop(uid, None)
        self._collections.pop(uid, None)

    def _make_room(self) -> None:
        """Of the collections in use the least recently used are kept no longer: those that nobody holds close."""
        while len(self._recent) >= filesystem.open_files_max(limits.collections_open_max):
            _, collection = self._recent.popitem(last=False)
            if self._maintenance is not None and collection.jobs.lock.acquire(blocking=False):
                try:
                    self._maintenance.settle(collection.jobs)
                finally:
                    collection.jobs.lock.release()

    def _open(self, entry: catalog.CollectionEntry) -> LocalCollection:
        filesystem.refuse_other_than_folder(collection_folder(self.path, entry.uid))
        wake = self._maintenance.wake if self._maintenance is not None else _no_op
        collection = LocalCollection(
            self.path,
            self.store,
            entry,
            self._committer,
            durable=self.durability != "none",
            usable=self._usable,
            wake_maintenance=wake,
            job_lock=self._job_lock(entry.uid),
            memory_budget_bytes=self._memory_budget_bytes,
        )
        wake()
        return collection

    def collections(self, tenant: bytes | None = None) -> list[str]:
        self._check_usable()
        with self.store.read() as txn:
            if tenant is None:
                return [catalog.decode_name(key) for key in txn.cursor(db=self.store.catalog).iternext(values=False)]
            found = [(catalog.decode_name(key), bytes(raw)) for key, raw in txn.cursor(db=self.store.catalog)]
            uids = [catalog.decode_entry(raw, name).uid for name, raw in found]
            known = [tenant_names.number_of(self.store, txn, uid, tenant) is not None for uid in uids]
            return [name for (name, _), has in zip(found, known, strict=True) if has]

    def drop_collection(self, name: str) -> None:
        self._usable.for_changes()
        with self._open_lock:  # so that no other call opens the collection now, or makes another of its name
            entry = self._entry_of(name)
            collection = None if entry is None else self._collections.get(entry.uid)
            request = DropCollection(name, collection.state if collection is not None else None)
            uid = self._writer().submit(request)
            self._forget(uid)
        if collection is not None:
            collection.jobs.wait_idle()
            collection.state.release()
        with filesystem.raising_vecdb_errors("removing the files of a dropped collection"):
            collect_garbage(self.path, self.store, self._writer().submit, only_uid=uid)

    def rename_collection(self, old: str, new: str) -> None:
        self._usable.for_changes()
        with self._open_lock:
            uid = self._writer().submit(RenameCollection(old, new))
            collection = self._collections.get(uid)
            if collection is not None:
                collection.renamed(new)

    def set_alias(self, alias: str, collection: str) -> None:
        self._usable.for_changes()
        self._writer().submit(SetAlias(alias, collection))

    def drop_alias(self, alias: str) -> None:
        self._usable.for_changes()
        self._writer().submit(DropAlias(alias))

    def aliases(self) -> dict[str, str]:
        self._check_usable()
        with self.store.read() as txn:
            return aliases.read(self.store, txn)

    def _open_jobs(self) -> list[CollectionMaintenance]:
        with self._open_lock:
            self._maintained = list(self._collections.values())
            return [collection.jobs for collection in self._maintained]

    def _job_lock(self, uid: int) -> threading.RLock:
        with self._open_lock:
            return self._job_locks.setdefault(uid, threading.RLock())

    # -- long work ---------------------------------------------------------------------------------

    def stats(self, disk: bool) -> dict[str, Any]:
        self._usable.check_open()
        log = {} if self._log is None else {"log": self._log.facts()}
        on_disk = {"bytes_disk": filesystem.disk_bytes(self.path)} if disk else {}
        return {
            "path": str(self.path),
            "collections": self._collection_count(),
            "sequence": self._last_sequence(),
            "durability": self._durability_of_writes(),
            "read_only": self.read_only,
            "commits": self._committer.commits if self._committer else 0,
            "requests": self._committer.requests if self._committer else 0,
            "commit_times": self._committer.times.figures() if self._committer else None,
            **on_disk,
            **log,
            "recall": self.measured_recalls(),
            "open": self._open_figures(),
            "lmdb": self.store.info(),
            "processes": [{"pid": os.getpid(), "role": "embedded"}],
        }

    def _durability_of_writes(self) -> str:
        use = self.options["log"]
        return "remote" if isinstance(use, LogUse) and use.remote else self.durability

    def _collection_count(self) -> int:
        with self.store.read() as txn:
            return int(txn.stat(self.store.catalog)["entries"])

    def measured_recalls(self) -> dict[str, float]:
        """What was measured last of searches that name nothing, of each collection that is open and was measured."""
        with self._open_lock:
            opened = list(self._collections.values())
        checks = {
            one.state.entry.name: one.state.snapshot.state.recall_check for one in opened if not one.state.dropped
        }
        return {name: check.recall for name, check in checks.items() if check is not None}

    def _open_figures(self) -> dict[str, dict[str, int]]:
        """Of each collection in use, what costs nothing to tell."""
        with self._open_lock:
            opened = list(self._collections.values())
        found = {}
        for one in opened:
            if not one.state.dropped:
                seen = one.state.snapshot.visibility
                tail = seen.row_count - one.state.snapshot.generation.index.indexed_rows
                found[one.state.entry.name] = {
                    "live": one.state.snapshot.state.live_count, "rows": seen.row_count, "tail_rows": max(0, tail),
                }  # fmt: skip
        return found

    def promote(self) -> int:
        """A copy becomes a database of its own: see open.py."""
        assert isinstance(self._log, LogFollower)

        def mark() -> int:
            with self.store.read_all() as txn:
                return fingerprint(self.store, txn)

        return self._log.promote(mark)

    def sequence(self) -> int:
        self._usable.check_open()
        if isinstance(self._log, LogFollower):
            return self._log.sequence
        return self._committer.sequence if self._committer is not None else self._last_sequence()

    def wait_for(self, sequence: Any, timeout_s: float) -> None:
        sequence = commit_number(sequence)
        ends = time.monotonic() + timeout_s
        if isinstance(self._log, LogFollower):
            self._log.wait_for(sequence, timeout_s)
        while (newest := self.sequence()) < sequence:
            if time.monotonic() >= ends:
                raise Unavailable(f"{self.path} has commit {newest}, commit {sequence} did not come in {timeout_s:g} s")
            time.sleep(_COMMIT_POLL_S)  # another process writes it

    def vacuum(self, progress: Progress) -> None:
        for name in self.collections():
            self._opened(name).vacuum(progress)

    def check(self) -> list[str]:
        self._check_usable()
        try:
            self._last_sequence()
        except Corruption as error:
            return [str(error)]
        names, problems = self.collections(), []
        try:
            for alias, target in self.aliases().items():
                if target not in names or alias in names:
                    problems.append(f"alias {alias!r} leads to {target!r}, which cannot be")
        except Corruption as error:
            problems.append(str(error))
        return problems + check_database((name, lambda name=name: self._opened(name).check()) for name in names)  # type: ignore[misc]

    def backup(self, path: str, keep: int | None, progress: Progress) -> None:
        self._usable.for_changes()
        if is_url(path):
            with filesystem.raising_vecdb_errors("backing up"):
                back_up_to(path, self.path, self.store, self._locks_by_uid, self.manifest.uuid, keep, progress)
            return
        target = absolute(path)
        with filesystem.raising_vecdb_errors("backing up"):
            write_backup(self.path, self.store, self._maintenance_locks(), target, progress)
        if keep is not None:
            with filesystem.raising_vecdb_errors("removing older backups"):
                remove_older_backups(target, self.manifest, keep)

    def _maintenance_locks(self) -> Iterator[AbstractContextManager[Any]]:
        """The lock of each collection that there is when the first is asked for: while it is held, no file of the
        collection is replaced.
        """
        for _, lock in self._locks_by_uid():
            yield lock

    def _locks_by_uid(self) -> Iterator[tuple[int, AbstractContextManager[Any]]]:
        with self.store.read() as txn:
            uids = [catalog.decode_entry(bytes(raw), str(name)).uid for name, raw in txn.cursor(db=self.store.catalog)]
        for uid in uids:
            yield uid, self._job_lock(uid)

    def close(self) -> None:
        if self.closed or not self._usable.is_mine:
            return
        with self._open_lock:
            if self._closing:
                return
            self._closing = True
        if sys.is_finalizing() or self._is_garbage:  # other threads may be gone, or wait for what this one holds
            self._close(threading.get_ident())
        else:
            caller = threading.get_ident()
            undisturbed(lambda: self._close(caller))

    def _close(self, caller: int) -> None:
        """caller : the thread that waits for it."""
        self._usable.end(self._closing_threads())
        if isinstance(self._log, LogWriter):
            self._log.leave()
        try:
            self._end_all(caller)
        finally:
            self._ended.set()

    def _closing_threads(self) -> Callable[[], bool]:
        """Whether a thread is one of those that still keep what would be lost: that which closes, and its own."""
        closer = threading.get_ident()
        own = [one for one in (self._committer, self._maintenance) if one is not None]
        return lambda: threading.get_ident() == closer or any(one.is_this_thread() for one in own)

    def _end_all(self, caller: int) -> None:
        if self._maintenance is not None:
            self._maintenance.close()
        if self._committer is not None:
            self._committer.close()
        if self._log is not None:
            self._log.close()
            self.store.log = None
        if self._mark is not None:
            self._mark.close()
        self._usable.closed = True
        with self._open_lock:
            for collection in list(self._collections.values()):
                collection.state.release(self._usable.closed_error())  # whoever still holds it holds no files
            self._collections.clear()
            self._recent.clear()
            self._maintained.clear()
        if not self.read_only:
            open_here.set_writer(self.store, None)
        open_here.close_store(self.store, caller)
        self._unlock()
        if self._temporary is not None:
            self._temporary.remove()

    def __del__(self) -> None:
        if sys.is_finalizing():  # its threads may be gone already; the locks end with the process
            return
        if not hasattr(self, "store") or self.closed or not self._usable.is_mine:
            return
        with self._open_lock:
            self._is_garbage = True
            self._ending = True  # whoever finds it by its weak reference, and opens it, waits until it is closed
        own = [one for one in (self._committer, self._maintenance) if one is not None and one.is_this_thread()]
        with contextlib.suppress(Exception):  # nobody is there to hear of it
            if own:  # this thread found it to be garbage, and cannot wait for its own end
                threading.Thread(target=self.close, name="vecdb-close").start()
            else:
                self.close()

    @property
    def closed(self) -> bool:
        return self._usable.closed

    # -- internal ----------------------------------------------------------------------------------

    def _check_usable(self) -> None:
        self._usable()

    def _writer(self) -> Committer:
        if self._committer is None:
            raise Unavailable(f"database {self.path} is open for reading only; open it without read_only=True to write")
        return self._committer

    def _counters(self) -> counters.Counters:
        with self.store.read() as txn:
            return counters.read(self.store, txn)

    def _last_sequence(self) -> int:
        return self._counters().sequence

    def _unlock(self) -> None:
        while self._locks:
            open_here.let_go(self._locks.pop())


class ClosedHandle:
    """Behind a handle that was closed while others of the same directory are open: every call is refused."""

    closed = True

    def __init__(self, path: Path, read_only: bool) -> None:
        self.path = path
        self.read_only = read_only

    def close(self) -> None:
        """It is closed."""

    def __getattr__(self, name: str) -> Any:
        raise Unavailable(f"database {self.path} is closed; open it again")


def _check_of(path: Path, lock_fd: int) -> Callable[[], None]:
    """What tells whether the directory is still there: whoever removes or moves it takes LOCK away. It is asked before
    anything is made or removed by its path, where another database may lie by now.
    """

    def check() -> None:
        if not filesystem.is_at(lock_fd, path / LOCK):
            raise Unavailable(
                f"database {path} is gone: its directory, or LOCK in it, was removed or moved; nothing was written. "
                "Close it, then open it again"
            )

    return check


def _no_mark(sequence: int) -> None:
    """A temporary database needs no mark of what is committed."""


def _no_op() -> None:
    """A reading process has no maintenance to wake."""
