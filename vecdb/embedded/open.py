"""Opens a database directory: checks the options, makes the backend in this process, returns a `Database` over it."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

from vecdb import limits, validate
from vecdb.api.collection import Collection
from vecdb.api.database import Database, check_path
from vecdb.embedded.local_database import LocalDatabase
from vecdb.errors import InvalidArgument, NotFound
from vecdb.storage.disk import filesystem, manifest

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
    check_path(path, "a directory or ':memory:'")
    read_only = validate.flag(read_only, "read_only")
    options: dict[str, Any] = {
        "maintenance": validate.flag(maintenance, "maintenance"),
        "map_bytes": map_bytes,
        "memory_budget_bytes": memory_budget_bytes,
    }
    if str(path) == ":memory:":
        if read_only:
            raise InvalidArgument("':memory:' is always new, so read_only=True would open nothing; leave it out")
        temporary = tempfile.TemporaryDirectory(prefix="vecdb-")
        folder = Path(temporary.name) / "db"
        return Database(LocalDatabase(folder, Collection, durability="none", temporary=temporary, **options))
    folder = Path(os.path.abspath(path))
    try:
        return Database(LocalDatabase(folder, Collection, read_only=read_only, durability=durability, **options))
    except OSError as error:
        raise filesystem.to_vecdb_error(error, f"opening {path}") from error


def upgrade(path: str | os.PathLike[str]) -> bool:
    """Bring the database at `path` from the format of the version before to this one's, which older versions cannot
    open. Returns whether it had another. A kill leaves it in one format or the other.

    Raises NotFound where there is no database, Locked while another process writes to it, Unavailable where its format
    is newer, or older by more than one, Corruption where its manifest is damaged.
    """
    check_path(path, "the directory of a database")
    folder = Path(os.path.abspath(path))
    if not filesystem.exists(folder / manifest.NAME):
        raise NotFound(f"no database at {folder}")
    with filesystem.raising_vecdb_errors(f"upgrading {folder}"):
        database = LocalDatabase(folder, Collection, durability="full", maintenance=False, upgrading=True)
        database.close()
    return database.upgraded
