"""Database: one directory, one writing process, any number of reading ones.

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
from types import TracebackType
from typing import Any

from vecdb import catalog, limits, validate
from vecdb.collection import Collection
from vecdb.commit import Committer
from vecdb.debris import purge_debris
from vecdb.engine import Engine
from vecdb.errors import InvalidArgument, NotFound, Unavailable
from vecdb.lifecycle import CreateCollection, DropCollection
from vecdb.maintenance import Maintenance
from vecdb.schema import IndexConfig
from vecdb.storage import files, keys, manifest
from vecdb.storage.store import LMDB_FORMAT, READERS, Store

DURABILITIES = ("full", "relaxed")


def open_database(
    path: Any,
    *,
    read_only: bool = False,
    durability: str = "full",
    memory_budget_bytes: int | None = None,
    maintenance: bool = True,
    map_bytes: int = limits.lmdb_map_bytes,
) -> Database:
    """Open a database, creating it where there is none.

    path : a directory, or ":memory:" for a temporary one that is never synced and goes when it is closed.
    read_only : look at a database that another process may be writing to; each call sees the newest commit.
    durability : "full", an acknowledged write survives any crash; "relaxed", a power cut may cost the last commit.
    memory_budget_bytes : refuse (Unavailable) to load a collection that would take more memory.
    maintenance : False leaves indexing, sealing and vacuum to explicit calls (`optimize`, `vacuum`).
    map_bytes : address space reserved for LMDB, sparse; the most that ids, fields and bookkeeping can grow to.

    Raises Locked where another process has it open for writing, Corruption where its files are damaged, NotFound
    where `read_only` finds nothing.
    """
    if durability not in DURABILITIES:
        raise InvalidArgument(f"durability must be one of {', '.join(DURABILITIES)}, got {durability!r}")
    if memory_budget_bytes is not None and (not isinstance(memory_budget_bytes, int) or memory_budget_bytes <= 0):
        raise InvalidArgument(f"memory_budget_bytes must be a positive number of bytes, got {memory_budget_bytes!r}")
    _check_path(path, "a directory or ':memory:'")
    options: dict[str, Any] = {
        "maintenance": maintenance,
        "map_bytes": map_bytes,
        "memory_budget_bytes": memory_budget_bytes,
    }
    if str(path) == ":memory:":
        if read_only:
            raise InvalidArgument("':memory:' is always new, so read_only=True would open nothing; leave it out")
        temporary = tempfile.TemporaryDirectory(prefix="vecdb-")
        return Database(Path(temporary.name) / "db", durability="none", temporary=temporary, **options)
    try:
        return Database(Path(os.path.abspath(path)), read_only=read_only, durability=durability, **options)
    except OSError as error:
        raise files.translate(error, f"opening {path}") from error


def _check_path(path: Any, wanted: str) -> None:
    if not isinstance(path, (str, os.PathLike)) or not str(path) or "\0" in str(path):
        raise InvalidArgument(f"path must be {wanted}, got {path!r}")


class Database:
    """An open database. Close it, or use it in a `with` block."""

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
    ) -> None:
        self.path = path
        self.read_only = read_only
        self.durability = durability
        self._temporary = temporary
        self._memory_budget_bytes = memory_budget_bytes
        self._pid = os.getpid()
        self._closing = self._closed = False
        self._open_lock = threading.RLock()
        self._engines: dict[str, Engine] = {}
        self._committer: Committer | None = None
        self._maintenance: Maintenance | None = None
        self._lock_fd = None if read_only else _prepare(path, durable=durability != "none")
        try:
            if read_only and not files.exists(path / manifest.NAME):
                raise NotFound(f"no database at {path}; open it without read_only=True to create one")
            self.manifest = manifest.read(path, LMDB_FORMAT, read_only=read_only)
            if read_only:
                self._lock_fd = _hold_as_reader(path)
            self._store = Store(path / "lmdb", read_only=read_only, durability=durability, map_bytes=map_bytes)
        except BaseException:
            self._unlock()
            raise
        if not read_only:
            try:
                self.manifest = manifest.upgrade(path, self.manifest)  # before anything is committed
                self._committer = Committer(self._store, _last_sequence(self._store))
                purge_debris(path, self._store, self._committer)
            except BaseException:
                self.close()
                raise
            self._maintenance = Maintenance(self._store, self._writable_engines, enabled=maintenance)

    # -- collections -------------------------------------------------------------------------------

    def create_collection(
        self,
        name: str,
        dim: int,
        metric: str = "cosine",
        index: IndexConfig | None = None,
        dtype: str = "float32",
        *,
        exist_ok: bool = False,
    ) -> Collection:
        """Create a collection, durable when it returns.

        metric : "cosine" (1 - cosine), "l2" (squared) or "ip" (minus the inner product); smaller is closer.
        index : `Hnsw(...)`, `Flat()`, or None to let size decide.
        dtype : how vectors are stored: float32, float16, int8 or uint8.
        exist_ok : return the collection of that name where dim, metric and dtype agree, instead of raising
            AlreadyExists.
        """
        config = validate.collection_config(name, dim, metric, index, dtype)
        self._guard()
        committer = self._writer()
        committer.submit(CreateCollection(self.path, config, exist_ok, durable=self.durability != "none"))
        return self.collection(config.name)

    def collection(self, name: str) -> Collection:
        """The collection of that name. Raises NotFound, naming those that exist."""
        self._guard()
        checked = validate.collection_name(name)
        with self._open_lock:
            engine = self._engines.get(checked)
            if engine is not None and not engine.writable:
                with contextlib.suppress(NotFound):  # dropped by the writer, who may have made another of this name
                    engine.current()
            if engine is None or engine.dropped:
                if engine is not None and not engine.writable:
                    engine.close()
                with files.typed(f"opening collection {checked!r}"):
                    engine = self._open_engine(checked)
                self._engines[checked] = engine
        return Collection(engine)

    def __getitem__(self, name: str) -> Collection:
        return self.collection(name)

    def __contains__(self, name: object) -> bool:
        return name in self.collections()

    def collections(self) -> list[str]:
        """Names, sorted."""
        self._guard()
        with self._store.read() as txn:
            return [catalog.decode_name(key) for key in txn.cursor(db=self._store.catalog).iternext(values=False)]

    def drop_collection(self, name: str) -> None:
        """Delete a collection with all its records. Raises NotFound where there is none."""
        checked = validate.collection_name(name)
        self._guard()
        with self._open_lock:  # else a call beside this one opens what goes, or loses what it has just made anew
            engine = self._engines.get(checked)
            uid = self._writer().submit(DropCollection(checked, engine))
            self._engines.pop(checked, None)
        if engine is not None:
            self._forget(engine)
        with files.typed("removing the files of a dropped collection"):
            purge_debris(self.path, self._store, self._writer(), only_uid=uid)

    def _forget(self, engine: Engine) -> None:
        if self._maintenance is not None:
            self._maintenance.wait_idle(engine)
        engine.close()

    def _open_engine(self, name: str) -> Engine:
        with self._store.read() as txn:
            raw = txn.get(name.encode(), db=self._store.catalog)
        if raw is None:
            known = self.collections()
            there = f"there are {', '.join(map(repr, known[:8]))}" if known else "there are none yet"
            raise NotFound(f"no collection {name!r} in {self.path}; {there}")
        entry = catalog.decode_entry(raw, name)
        wake = self._maintenance.wake if self._maintenance is not None else _nothing
        engine = Engine(
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

    def _writable_engines(self) -> list[Engine]:
        with self._open_lock:
            return list(self._engines.values())

    # -- care --------------------------------------------------------------------------------------

    def stats(self) -> dict[str, Any]:
        """collections, sequence, commits and requests of this process, bytes on disk, LMDB's own figures."""
        self._guard()
        return {
            "path": str(self.path),
            "collections": len(self.collections()),
            "sequence": _last_sequence(self._store),
            "durability": self.durability,
            "read_only": self.read_only,
            "commits": self._committer.commits if self._committer else 0,
            "requests": self._committer.requests if self._committer else 0,
            "bytes_disk": files.disk_bytes(self.path),
            "lmdb": self._store.info(),
        }

    def vacuum(self, *, progress: Callable[[int, int], None] | None = None) -> None:
        """Give back the space of deleted and replaced records in every collection."""
        for name in self.collections():
            self.collection(name).vacuum(progress=progress)

    def check(self) -> list[str]:
        """Problems found anywhere in this database; empty when all is well. Reads every byte, repairs nothing."""
        from vecdb.check import check_database

        self._guard()
        return check_database(self)

    def backup(self, path: Any, *, progress: Callable[[int, int], None] | None = None) -> None:
        """Copy the database, as it is at one commit, into the new directory `path`, with checksums. Reads and writes
        go on.
        """
        from vecdb.backup import write_backup

        self._guard()
        _check_path(path, "a new directory")
        with files.typed("backing up"):
            write_backup(self, Path(os.path.abspath(path)), progress)

    def close(self) -> None:
        """Commit what is queued, seal what is worth it, release the lock. Closing twice is no error."""
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

    def __enter__(self) -> Database:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        try:
            self.close()
        except Exception:  # at interpreter exit half of what close needs may be gone; the lock goes with the process
            return

    def __repr__(self) -> str:
        return f"<Database {self.path}{', closed' if self._closed else ', read only' if self.read_only else ''}>"

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
            files.close(self._lock_fd)
            self._lock_fd = None


def _nothing() -> None:
    """Maintenance of a reading process: none."""


def _hold_as_reader(path: Path) -> int | None:
    """Tell the writing process that somebody reads; None where the file is missing, as no process ever wrote here."""
    try:
        return files.lock_shared(path / READERS)
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
    if not files.exists(path / manifest.NAME):
        if files.exists(path) and (not path.is_dir() or [name for name in files.list_dir(path) if name != "LOCK"]):
            raise InvalidArgument(f"{path} exists and is no vecdb database; give a new or empty directory")
        _create(path, durable=durable)
    try:
        lock_fd = files.lock_directory(path)
        files.touch(path / READERS)
        return lock_fd
    except FileNotFoundError:
        raise Unavailable(f"{path} went away while it was being opened") from None


def _clear_torn_creations(path: Path) -> None:
    """Folders of creations whose process died before the rename; one that is at work names a living process."""
    head = f"{path.name}.tmp-"
    for name in files.list_dir(path.parent):
        pid = name.removeprefix(head).split("-")[0]
        if name.startswith(head) and pid.isdigit() and not files.process_lives(int(pid)):
            files.remove_tree(path.parent / name)


def _create(path: Path, *, durable: bool) -> None:
    files.make_dir(path.parent)
    _clear_torn_creations(path)
    temporary = path.with_name(f"{path.name}.tmp-{os.getpid()}-{uuid.uuid4().hex[:8]}")
    files.make_dir(temporary / "lmdb")
    files.make_dir(temporary / "collections")
    try:
        Store(temporary / "lmdb", read_only=False, durability="full" if durable else "none").close()
        created = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        manifest.write(temporary, manifest.Manifest(manifest.FORMAT_VERSION, LMDB_FORMAT, str(uuid.uuid4()), created))
        if files.exists(path):
            files.remove(path / "LOCK")
            path.rmdir()
        if durable:
            files.sync_dir(temporary / "lmdb")
            files.sync_dir(temporary)
        try:
            temporary.rename(path)
        except OSError:
            if not files.exists(path / manifest.NAME):  # else another process created it just now: theirs is as good
                raise
            files.remove_tree(temporary)
        if durable:
            files.sync_dir(path.parent)
    except BaseException:
        files.remove_tree(temporary)
        raise
