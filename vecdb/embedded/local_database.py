"""LocalDatabase: the backend of an embedded `Database`. One directory, one writing process, any number of reading ones.

    store, committer (commit thread), maintenance (thread)      one each
    LocalCollection                                             one for each collection in use

Threads: every method from any thread. Processes: a forked child must open its own; an inherited one refuses every call.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Generic

from vecdb import limits
from vecdb.api.backend import C, Progress
from vecdb.commit.committer import Committer
from vecdb.embedded.backup import write_backup
from vecdb.embedded.check import check_database
from vecdb.embedded.create_drop import CreateCollection, DropCollection
from vecdb.embedded.directory import check_folders, lock_as_reader, prepare_directory
from vecdb.embedded.local_collection import LocalCollection
from vecdb.errors import NotFound, Unavailable
from vecdb.maintenance.garbage import collect_garbage
from vecdb.maintenance.index_jobs import IndexMaintenance
from vecdb.maintenance.scheduler import MaintenanceScheduler
from vecdb.schema import CollectionConfig
from vecdb.storage.disk import filesystem, manifest
from vecdb.storage.kv import catalog, keys
from vecdb.storage.kv.store import LMDB_FORMAT, Store
from vecdb.validate.not_found import collection_not_found


class LocalDatabase(Generic[C]):
    """An open directory: its lock, store, committer, maintenance, and the collections in use.

    make_collection : what users hold of a collection.
    """

    def __init__(
        self,
        path: Path,
        make_collection: Callable[[LocalCollection, CollectionConfig], C],
        *,
        durability: str,
        read_only: bool = False,
        temporary: tempfile.TemporaryDirectory[str] | None = None,
        maintenance: bool = True,
        map_bytes: int = limits.lmdb_map_bytes,
        memory_budget_bytes: int | None = None,
        upgrading: bool = False,
    ) -> None:
        self.path = path
        self.read_only = read_only
        self.durability = durability
        self._make_collection = make_collection
        self._temporary = temporary
        self._memory_budget_bytes = memory_budget_bytes
        self._pid = os.getpid()
        self._closing = self._closed = self.upgraded = False
        self._open_lock = threading.RLock()
        self._collections: dict[str, LocalCollection] = {}
        self._committer: Committer | None = None
        self._maintenance: MaintenanceScheduler | None = None
        self._lock_fd = None if read_only else prepare_directory(path, durable=durability != "none")
        try:
            if read_only and not filesystem.exists(path / manifest.NAME):
                raise NotFound(f"no database at {path}; open it without read_only=True to create one")
            self.manifest = manifest.read(path, LMDB_FORMAT, upgrading=upgrading)
            check_folders(path)
            if read_only:
                self._lock_fd = lock_as_reader(path)
            self.store = Store(path / "lmdb", read_only=read_only, durability=durability, map_bytes=map_bytes)
        except BaseException:
            self._unlock()
            raise
        if not read_only:
            try:
                found, self.manifest = self.manifest, manifest.upgrade(path, self.manifest)
                self.upgraded = found != self.manifest
                self._committer = Committer(self.store, _last_sequence(self.store))
                collect_garbage(path, self.store, self._committer.submit)
            except BaseException:
                self.close()
                raise
            self._maintenance = MaintenanceScheduler(self.store, self._open_jobs, enabled=maintenance)

    # -- collections -------------------------------------------------------------------------------

    def create_collection(self, config: CollectionConfig, exist_ok: bool) -> C:
        self._check_usable()
        committer = self._writer()
        committer.submit(CreateCollection(self.path, config, exist_ok, durable=self.durability != "none"))
        return self.collection(config.name)

    def collection(self, name: str) -> C:
        collection = self._opened(name)
        return self._make_collection(collection, collection.config())

    def _opened(self, name: str) -> LocalCollection:
        """The collection of that name, opened where it is not in use yet. Raises NotFound."""
        self._check_usable()
        with self._open_lock:
            collection = self._collections.get(name)
            if collection is not None and self.read_only:
                with contextlib.suppress(NotFound):  # dropped by the writer, which may have made another of this name
                    collection.state.current()
            if collection is None or collection.state.dropped:
                if collection is not None and self.read_only:
                    del self._collections[name]
                    collection.state.release()
                with filesystem.raising_vecdb_errors(f"opening collection {name!r}"):
                    collection = self._open(name)
                self._collections[name] = collection
        return collection

    def _open(self, name: str) -> LocalCollection:
        with self.store.read() as txn:
            raw = txn.get(name.encode(), db=self.store.catalog)
        if raw is None:
            raise collection_not_found(name)
        entry = catalog.decode_entry(raw, name)
        wake = self._maintenance.wake if self._maintenance is not None else _no_op
        collection = LocalCollection(
            self.path,
            self.store,
            entry,
            self._committer,
            durable=self.durability != "none",
            check_usable=self._check_usable,
            wake_maintenance=wake,
            memory_budget_bytes=self._memory_budget_bytes,
        )
        wake()
        return collection

    def collections(self) -> list[str]:
        self._check_usable()
        with self.store.read() as txn:
            return [catalog.decode_name(key) for key in txn.cursor(db=self.store.catalog).iternext(values=False)]

    def drop_collection(self, name: str) -> None:
        self._check_usable()
        with self._open_lock:  # so that no other call opens the collection now, or makes another of its name
            collection = self._collections.get(name)
            request = DropCollection(name, collection.state if collection is not None else None)
            uid = self._writer().submit(request)
            self._collections.pop(name, None)
        if collection is not None:
            collection.jobs.wait_idle()
            collection.state.release()
        with filesystem.raising_vecdb_errors("removing the files of a dropped collection"):
            collect_garbage(self.path, self.store, self._writer().submit, only_uid=uid)

    def _open_jobs(self) -> list[IndexMaintenance]:
        with self._open_lock:
            return [collection.jobs for collection in self._collections.values()]

    # -- long work ---------------------------------------------------------------------------------

    def stats(self) -> dict[str, Any]:
        self._check_usable()
        return {
            "path": str(self.path),
            "collections": len(self.collections()),
            "sequence": _last_sequence(self.store),
            "durability": self.durability,
            "read_only": self.read_only,
            "commits": self._committer.commits if self._committer else 0,
            "requests": self._committer.requests if self._committer else 0,
            "bytes_disk": filesystem.disk_bytes(self.path),
            "lmdb": self.store.info(),
        }

    def vacuum(self, progress: Progress) -> None:
        for name in self.collections():
            self._opened(name).vacuum(progress)

    def check(self) -> list[str]:
        self._check_usable()
        return check_database((name, lambda name=name: self._opened(name).check()) for name in self.collections())  # type: ignore[misc]

    def backup(self, path: str, progress: Progress) -> None:
        self._check_usable()
        with filesystem.raising_vecdb_errors("backing up"):
            write_backup(
                self.path, self.store, self.manifest, self._maintenance_locks(), Path(os.path.abspath(path)), progress
            )

    def _maintenance_locks(self) -> Iterator[AbstractContextManager[Any]]:
        """The lock of each collection that there is when the first is asked for: while it is held, no file of the
        collection is replaced.
        """
        for name in self.collections():
            yield self._opened(name).jobs.lock

    def close(self) -> None:
        if self._closed or os.getpid() != self._pid:
            return
        with self._open_lock:
            if self._closing:
                return
            self._closing = True
        if self._maintenance is not None:
            self._maintenance.close()
        if self._committer is not None:
            self._committer.close()
        self._closed = True
        with self._open_lock:
            for collection in self._collections.values():
                collection.state.close()
            self._collections.clear()
        self.store.close()
        self._unlock()
        if self._temporary is not None:
            self._temporary.cleanup()

    def __del__(self) -> None:
        try:
            self.close()
        except Exception:  # at interpreter exit half of what close needs may be missing; the lock ends with the process
            return

    @property
    def closed(self) -> bool:
        return self._closed

    # -- internal ----------------------------------------------------------------------------------

    def _check_usable(self) -> None:
        """Refuse calls on a closed database, and in a forked child (LMDB would read it without any error)."""
        if self._closed:
            raise Unavailable(f"database {self.path} is closed; open it again")
        if os.getpid() != self._pid:
            raise Unavailable(
                f"database {self.path} was opened by process {self._pid} and inherited by a fork; "
                f"open it anew in process {os.getpid()}"
            )

    def _writer(self) -> Committer:
        if self._committer is None:
            raise Unavailable(f"database {self.path} is open for reading only; open it without read_only=True to write")
        return self._committer

    def _unlock(self) -> None:
        if self._lock_fd is not None:
            filesystem.unlock(self._lock_fd)
            self._lock_fd = None


def _no_op() -> None:
    """A reading process has no maintenance to wake."""


def _last_sequence(store: Store) -> int:
    with store.read() as txn:
        raw = txn.get(keys.SEQUENCE, db=store.state)
    return int.from_bytes(raw, "little") if raw else 0
