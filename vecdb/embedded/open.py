"""Opens a database directory: checks the options, makes the backend in this process, returns a `Database` over it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from vecdb import limits, validate
from vecdb.api.collection import Collection
from vecdb.api.database import Database, check_path
from vecdb.embedded import open_here
from vecdb.embedded.local_database import LocalDatabase
from vecdb.embedded.undisturbed import undisturbed
from vecdb.errors import InvalidArgument, Locked, NotFound
from vecdb.replication.backups.temporary import TemporaryFolder
from vecdb.replication.log.link import STALENESS_S, LogUse, log_use
from vecdb.schema import Hnsw, IndexConfig, SearchParams
from vecdb.storage.disk import filesystem, manifest
from vecdb.validate.directories import absolute

DURABILITIES = ("full", "relaxed", "remote")
_WARM_ROWS = 5_000  # enough for an index to have a structure
_WARM_GROUPS = 20
_MANY = 32  # queries that are answered together by products, as learning has them answered


def open_database(
    path: Any,
    *,
    read_only: bool = False,
    durability: str = "full",
    memory_budget_bytes: int | None = None,
    maintenance: bool = True,
    map_bytes: int = limits.lmdb_map_bytes,
    log: str | None = None,
    follow: str | None = None,
    staleness_s: float | None = STALENESS_S,
    lease: bool = False,
) -> Database:
    """Open a database, creating it where there is none.

    path : a directory, or ":memory:" for a temporary one that is never synced and goes when it is closed.
    read_only : look at a database that another process may be writing to; each call sees the newest commit.
    durability : "full", an acknowledged write survives any crash; "relaxed", a power cut may cost the last commit;
        "remote", which takes a log, an acknowledged write survives the loss of the machine.
    memory_budget_bytes : refuse (Unavailable) to load a collection that would take more memory.
    maintenance : False leaves indexing, sealing and vacuum to explicit calls (`optimize`, `vacuum`).
    map_bytes : address space reserved for LMDB, sparse; the most that ids, fields and bookkeeping can grow to.

    log : the URL of a bucket, where each commit becomes an object, which copies follow.
    follow : make and keep `path` a copy of the database whose log is there; reads only.
    staleness_s : of a copy: it answers only while it knew the end of the log so lately; None: always. Of a database
        with a log: the most that its copies have: a revoke returns so long after it is in the log, when no copy shows
        any more what was revoked; None: it does not wait for them.
    lease : with `log`, for a writer that another may replace: it answers reads only while it knew within `staleness_s`
        that nobody has, so that one that is cut off from the bucket stops as its copies do. None for that: no lease.

    A directory that this process has open for writing already is shared: the database is closed with its last handle.

    Raises Locked where another process has it open for writing, or this one with other options; Corruption where its
    files are damaged, NotFound where `read_only` finds nothing.
    """
    if durability not in DURABILITIES:
        raise InvalidArgument(f"durability must be one of {', '.join(DURABILITIES)}, got {durability!r}")
    if memory_budget_bytes is not None and (not isinstance(memory_budget_bytes, int) or memory_budget_bytes <= 0):
        raise InvalidArgument(f"memory_budget_bytes must be a positive number of bytes, got {memory_budget_bytes!r}")
    check_path(path, "a directory or ':memory:'")
    read_only = validate.flag(read_only, "read_only")
    options: dict[str, Any] = {
        "maintenance": validate.flag(maintenance, "maintenance"),
        "map_bytes": map_bytes,
        "memory_budget_bytes": memory_budget_bytes,
        "log": log_use(log, follow, staleness_s, remote=durability == "remote", lease=validate.flag(lease, "lease")),
    }
    if durability == "remote":
        if log is None:
            raise InvalidArgument("durability='remote' is for a database with a log: give log='s3://bucket/prefix'")
        durability = "full"
    if str(path) == ":memory:":
        if options["log"] is not None:
            raise InvalidArgument(
                "':memory:' goes when it is closed, so it has no log and is no copy; give a directory"
            )
        if read_only:
            raise InvalidArgument("':memory:' is always new, so read_only=True would open nothing; leave it out")
        return undisturbed(lambda: _open_temporary(options), Database.close)
    folder = absolute(path)
    if read_only and log is not None:
        raise InvalidArgument("log= is for the process that writes; leave read_only or log out")
    options["durability"] = durability
    try:
        if read_only or follow is not None:
            return undisturbed(lambda: _open_for_reading(folder, options), Database.close)
        return undisturbed(lambda: _open_for_writing(folder, options), Database.close)
    except OSError as error:
        raise filesystem.to_vecdb_error(error, f"opening {path}") from error


def _open_temporary(options: dict[str, Any]) -> Database:
    temporary = TemporaryFolder.for_database()
    return _handle_of(LocalDatabase(temporary.database, Collection, durability="none", temporary=temporary, **options))


def _open_for_reading(folder: Path, options: dict[str, Any]) -> Database:
    return _handle_of(LocalDatabase(folder, Collection, read_only=True, **options))


def _open_for_writing(folder: Path, options: dict[str, Any]) -> Database:
    with open_here.opening:
        while (database := open_here.writer_of(folder)) is not None:
            _check_same(database, options)
            if (handle := database.new_handle()) is not None:
                return handle  # type: ignore[no-any-return]
            database.wait_closed()
        return _handle_of(LocalDatabase(folder, Collection, **options))


def _handle_of(database: LocalDatabase[Collection]) -> Database:
    """The first handle of a database that was just opened."""
    handle = database.new_handle()
    assert handle is not None
    return handle


def _check_same(database: LocalDatabase[Collection], options: dict[str, Any]) -> None:
    """A second handle takes the database as it is."""
    for name, value in options.items():
        if database.options[name] != value:
            raise Locked(
                f"database {database.path} is open in this process already, with {name}={database.options[name]!r}; "
                f"close it there, or open it here with the same, got {value!r}"
            )


def promote(path: Any, log: str) -> int:
    """Make the copy at `path` the database that is written: apply the log to its end, and end it there for whoever
    wrote it before, who is refused at the next commit. Open it with `log` from then on. Returns the number of the
    newest commit.

    Raises NotFound where there is no log, Locked while another process has the copy open, Unavailable where the bucket
    does not answer.
    """
    check_path(path, "the directory of a copy")
    folder, use = absolute(path), log_use(None, log, None)
    if not filesystem.exists(folder / manifest.NAME):
        raise NotFound(f"no copy at {folder}; vecdb.open(path, follow=log) makes one")
    with filesystem.raising_vecdb_errors(f"promoting {folder}"):
        return undisturbed(lambda: _promote(folder, use))


def _promote(folder: Path, log: LogUse | None) -> int:
    database = LocalDatabase(folder, Collection, read_only=True, durability="full", maintenance=False, log=log)
    try:
        return database.promote()
    finally:
        database.close()


def warm_up(dim: int, metric: str = "cosine", dtype: str = "float32", index: IndexConfig | None = None) -> None:
    """Load the kernels of collections of this shape, compiling those that no process has compiled before: the first
    build and search of this process are as fast then as later ones. Takes seconds where machine code is cached already,
    a minute or two where it is not.

    dim, metric, dtype, index : as `create_collection` takes them; index=None warms those of `Hnsw`.

    Raises InvalidArgument for what `create_collection` would refuse.
    """
    with open_database(":memory:", maintenance=False) as database:
        docs = database.create_collection(
            "warm", validate.integer(dim, "dim", 1, limits.dim_max), metric, Hnsw() if index is None else index, dtype
        )
        rng, elements = np.random.default_rng(0), docs.config.elements
        # in groups: of rows without structure maintenance may warn that no width of an index is enough
        numbers = rng.normal(size=(_WARM_GROUPS, elements))[rng.integers(_WARM_GROUPS, size=_WARM_ROWS)]
        numbers += 0.3 * rng.normal(size=numbers.shape)
        whole = not docs.dtype.startswith("float")
        vectors = (1 + 99 * np.abs(np.tanh(numbers)) if whole else numbers).astype(docs.config.element_type)
        docs.upsert(range(_WARM_ROWS), vectors)
        docs.optimize()
        docs.delete(range(0, _WARM_ROWS, 50))
        docs.optimize()
        docs.search(vectors[0], limit=10)
        docs.search(vectors[:_MANY], limit=10, params=SearchParams(exact=True))


def upgrade(path: str | os.PathLike[str]) -> bool:
    """Bring the database at `path` from the format of the version before to this one's, which older versions cannot
    open. Returns whether it had another. A kill leaves it in one format or the other.

    Raises NotFound where there is no database, Locked while another process writes to it, Unavailable where its format
    is newer, or older by more than one, Corruption where its manifest is damaged.
    """
    check_path(path, "the directory of a database")
    folder = absolute(path)
    if not filesystem.exists(folder / manifest.NAME):
        raise NotFound(f"no database at {folder}")
    with filesystem.raising_vecdb_errors(f"upgrading {folder}"):
        return undisturbed(lambda: _upgrade(folder))


def _upgrade(folder: Path) -> bool:
    database = LocalDatabase(folder, Collection, durability="full", maintenance=False, upgrading=True)
    database.close()
    return database.upgraded
