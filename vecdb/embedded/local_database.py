"""Home: what an embedded `Database` stands on. One directory, one writing process, any number of reading ones.

    DB/  LOCK             flock by the writing process; holds its pid
         READERS          flock, shared, by each reading process
         manifest.json    format (manifest.py)
         lmdb/            what is true (store.py, keys.py)
         collections/<uid>/   row files and sealed indexes

Threads: every method from any thread. Processes: a forked child must open its own; an inherited one refuses every call.
"""

from __future__ import annotations

import contextlib
import datetime
import os
import tempfile
import threading
import uuid
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from vecdb import limits
from vecdb.api.collection import Collection
from vecdb.commit.committer import Committer
from vecdb.embedded.create_drop import CreateCollection, DropCollection
from vecdb.embedded.local_collection import LocalCollection
from vecdb.errors import InvalidArgument, NotFound, Unavailable
from vecdb.maintenance.garbage import collect_garbage
from vecdb.maintenance.scheduler import MaintenanceScheduler
from vecdb.schema import CollectionConfig
from vecdb.storage.disk import filesystem, manifest
from vecdb.storage.kv import catalog, keys
from vecdb.storage.kv.store import LMDB_FORMAT, READERS, Store
from vecdb.validate.not_found import collection_not_found


class LocalDatabase:
    """An open directory: its lock, store, committer, maintenance, and an engine for each collection in use."""

    def __init__(
        self,
        path: Path,
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
        self._temporary = temporary
        self._memory_budget_bytes = memory_budget_bytes
        self._pid = os.getpid()
        self._closing = self._closed = self.upgraded = False
        self._open_lock = threading.RLock()
        self._engines: dict[str, LocalCollection] = {}
        self._committer: Committer | None = None
        self._maintenance: MaintenanceScheduler | None = None
        self._lock_fd = None if read_only else _prepare(path, durable=durability != "none")
        try:
            if read_only and not filesystem.exists(path / manifest.NAME):
                raise NotFound(f"no database at {path}; open it without read_only=True to create one")
            self.manifest = manifest.read(path, LMDB_FORMAT, upgrading=upgrading)
            if read_only:
                self._lock_fd = _hold_as_reader(path)
            self._store = Store(path / "lmdb", read_only=read_only, durability=durability, map_bytes=map_bytes)
        except BaseException:
            self._unlock()
            raise
        if not read_only:
            try:
                found, self.manifest = self.manifest, manifest.upgrade(path, self.manifest)
                self.upgraded = found != self.manifest
                self._committer = Committer(self._store, _last_sequence(self._store))
                collect_garbage(path, self._store, self._committer)
            except BaseException:
                self.close()
                raise
            self._maintenance = MaintenanceScheduler(self._store, self._writable_engines, enabled=maintenance)

    # -- collections -------------------------------------------------------------------------------

    def create_collection(self, config: CollectionConfig, exist_ok: bool) -> Collection:
        self._guard()
        committer = self._writer()
        committer.submit(CreateCollection(self.path, config, exist_ok, durable=self.durability != "none"))
        return self.collection(config.name)

    def collection(self, name: str) -> Collection:
        self._guard()
        with self._open_lock:
            engine = self._engines.get(name)
            if engine is not None and not engine.writable:
                with contextlib.suppress(NotFound):  # dropped by the writer, who may have made another of this name
                    engine.current()
            if engine is None or engine.dropped:
                if engine is not None and not engine.writable:
                    del self._engines[name]
                    engine.forget()
                with filesystem.raising_vecdb_errors(f"opening collection {name!r}"):
                    engine = self._open_engine(name)
                self._engines[name] = engine
        return Collection(engine, engine.config())

    def collections(self) -> list[str]:
        self._guard()
        with self._store.read() as txn:
            return [catalog.decode_name(key) for key in txn.cursor(db=self._store.catalog).iternext(values=False)]

    def drop_collection(self, name: str) -> None:
        self._guard()
        with self._open_lock:  # else a call beside this one opens what goes, or loses what it has just made anew
            engine = self._engines.get(name)
            uid = self._writer().submit(DropCollection(name, engine))
            self._engines.pop(name, None)
        if engine is not None:
            self._forget(engine)
        with filesystem.raising_vecdb_errors("removing the files of a dropped collection"):
            collect_garbage(self.path, self._store, self._writer(), only_uid=uid)

    def _forget(self, engine: LocalCollection) -> None:
        if self._maintenance is not None:
            self._maintenance.wait_idle(engine)
        engine.forget()

    def _open_engine(self, name: str) -> LocalCollection:
        with self._store.read() as txn:
            raw = txn.get(name.encode(), db=self._store.catalog)
        if raw is None:
            raise collection_not_found(name)
        entry = catalog.decode_entry(raw, name)
        wake = self._maintenance.wake if self._maintenance is not None else _nothing
        engine = LocalCollection(
            self.path,
            self._store,
            entry,
            self._committer,
            durable=self.durability != "none",
            guard=self._guard,
            wake_maintenance=wake,
            memory_budget_bytes=self._memory_budget_bytes,
        )
        wake()
        return engine

    def _writable_engines(self) -> list[LocalCollection]:
        with self._open_lock:
            return list(self._engines.values())

    # -- care --------------------------------------------------------------------------------------

    def stats(self) -> dict[str, Any]:
        self._guard()
        return {
            "path": str(self.path),
            "collections": len(self.collections()),
            "sequence": _last_sequence(self._store),
            "durability": self.durability,
            "read_only": self.read_only,
            "commits": self._committer.commits if self._committer else 0,
            "requests": self._committer.requests if self._committer else 0,
            "bytes_disk": filesystem.disk_bytes(self.path),
            "lmdb": self._store.info(),
        }

    def vacuum(self, progress: Callable[[int, int], None] | None) -> None:
        for name in self.collections():
            self.collection(name).vacuum(progress=progress)

    def check(self) -> list[str]:
        from vecdb.embedded.check import check_database

        self._guard()
        return check_database(self)

    def backup(self, path: str, progress: Callable[[int, int], None] | None) -> None:
        from vecdb.embedded.backup import write_backup

        self._guard()
        with filesystem.raising_vecdb_errors("backing up"):
            write_backup(self, Path(os.path.abspath(path)), progress)

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
            for engine in self._engines.values():
                engine.close()
            self._engines.clear()
        self._store.close()
        self._unlock()
        if self._temporary is not None:
            self._temporary.cleanup()

    def __del__(self) -> None:
        try:
            self.close()
        except Exception:  # at interpreter exit half of what close needs may be gone; the lock goes with the process
            return

    @property
    def closed(self) -> bool:
        return self._closed

    # -- within ------------------------------------------------------------------------------------

    @property
    def store(self) -> Store:
        """For check and backup."""
        return self._store

    def upkeep_lock(self, name: str) -> AbstractContextManager[Any]:
        """While it is held, no file of that collection is replaced."""
        self.collection(name)
        return self._engines[name].upkeep.lock

    def _guard(self) -> None:
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
            filesystem.close(self._lock_fd)
            self._lock_fd = None


def _nothing() -> None:
    """Maintenance of a reading process: none."""


def _hold_as_reader(path: Path) -> int | None:
    """Tell the writing process that somebody reads; None where the file is missing, as no process ever wrote here."""
    try:
        return filesystem.lock_shared(path / READERS)
    except OSError:
        return None


def _last_sequence(store: Store) -> int:
    with store.read() as txn:
        raw = txn.get(keys.SEQUENCE, db=store.state)
    return int.from_bytes(raw, "little") if raw else 0


def _prepare(path: Path, *, durable: bool) -> int:
    """Make the directory a database where it is none yet, and take its lock. Returns the lock's descriptor.

    A new database is made whole in `path.tmp` and renamed, so that a crash leaves none or all of it.
    """
    if not filesystem.exists(path / manifest.NAME):
        if filesystem.exists(path) and (
            not path.is_dir() or [name for name in filesystem.list_dir(path) if name != "LOCK"]
        ):
            raise InvalidArgument(f"{path} exists and is no vecdb database; give a new or empty directory")
        _create(path, durable=durable)
    try:
        lock_fd = filesystem.lock_directory(path)
        filesystem.touch(path / READERS)
        return lock_fd
    except FileNotFoundError:
        raise Unavailable(f"{path} went away while it was being opened") from None


def _clear_torn_creations(path: Path) -> None:
    """Folders of creations whose process died before the rename; one that is at work names a living process."""
    head = f"{path.name}.tmp-"
    for name in filesystem.list_dir(path.parent):
        pid = name.removeprefix(head).split("-")[0]
        if name.startswith(head) and pid.isdigit() and not filesystem.process_lives(int(pid)):
            filesystem.remove_tree(path.parent / name)


def _create(path: Path, *, durable: bool) -> None:
    filesystem.make_dir(path.parent)
    _clear_torn_creations(path)
    temporary = path.with_name(f"{path.name}.tmp-{os.getpid()}-{uuid.uuid4().hex[:8]}")
    filesystem.make_dir(temporary / "lmdb")
    filesystem.make_dir(temporary / "collections")
    try:
        Store(temporary / "lmdb", read_only=False, durability="full" if durable else "none").close()
        created = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        manifest.write(temporary, manifest.Manifest(manifest.FORMAT_VERSION, LMDB_FORMAT, str(uuid.uuid4()), created))
        if filesystem.exists(path):
            filesystem.remove(path / "LOCK")
            path.rmdir()
        if durable:
            filesystem.sync_dir(temporary / "lmdb")
            filesystem.sync_dir(temporary)
        try:
            temporary.rename(path)
        except OSError:
            if not filesystem.exists(
                path / manifest.NAME
            ):  # else another process created it just now: theirs is as good
                raise
            filesystem.remove_tree(temporary)
        if durable:
            filesystem.sync_dir(path.parent)
    except BaseException:
        filesystem.remove_tree(temporary)
        raise
