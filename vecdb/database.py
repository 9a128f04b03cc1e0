"""Database: what users hold. Checks what they pass at the one gate, and hands it to a home, in this process or far.

Every method may be called from any thread.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

from vecdb import contracts, limits, validate
from vecdb.collection import Collection
from vecdb.errors import InvalidArgument, NotFound
from vecdb.home import Home
from vecdb.schema import IndexConfig
from vecdb.storage import files, manifest

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
        return Database(Home(Path(temporary.name) / "db", durability="none", temporary=temporary, **options))
    try:
        return Database(Home(Path(os.path.abspath(path)), read_only=read_only, durability=durability, **options))
    except OSError as error:
        raise files.translate(error, f"opening {path}") from error


def upgrade(path: str | os.PathLike[str]) -> bool:
    """Bring the database at `path` from the format of the version before to this one's, which older versions cannot
    open. Returns whether it had another. A kill leaves it in one format or the other.

    Raises NotFound where there is no database, Locked while another process writes to it, Unavailable where its format
    is newer, or older by more than one, Corruption where its manifest is damaged.
    """
    _check_path(path, "the directory of a database")
    folder = Path(os.path.abspath(path))
    if not files.exists(folder / manifest.NAME):
        raise NotFound(f"no database at {folder}")
    with files.typed(f"upgrading {folder}"):
        home = Home(folder, durability="full", maintenance=False, upgrading=True)
        home.close()
    return home.upgraded


def _check_path(path: Any, wanted: str) -> None:
    if not isinstance(path, (str, os.PathLike)) or not str(path) or "\0" in str(path):
        raise InvalidArgument(f"path must be {wanted}, got {path!r}")


class Database:
    """An open database. Close it, or use it in a `with` block."""

    __slots__ = ("_home",)

    def __init__(self, home: contracts.Home) -> None:
        self._home = home

    @property
    def path(self) -> Path | str:
        """The directory, or the address of a server."""
        return self._home.path

    @property
    def read_only(self) -> bool:
        return self._home.read_only

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
        return self._home.create_collection(config, validate.flag(exist_ok, "exist_ok"))

    def collection(self, name: str) -> Collection:
        """The collection of that name. Raises NotFound."""
        return self._home.collection(validate.collection_name(name))

    def __getitem__(self, name: str) -> Collection:
        return self.collection(name)

    def __contains__(self, name: object) -> bool:
        return name in self.collections()

    def collections(self) -> list[str]:
        """Names, sorted."""
        return self._home.collections()

    def drop_collection(self, name: str) -> None:
        """Delete a collection with all its records. Raises NotFound where there is none."""
        return self._home.drop_collection(validate.collection_name(name))

    # -- care --------------------------------------------------------------------------------------

    def stats(self) -> dict[str, Any]:
        """collections, sequence, commits and requests of the process that has the database open, bytes on disk, LMDB's
        own figures.
        """
        return self._home.stats()

    def vacuum(self, *, progress: Callable[[int, int], None] | None = None) -> None:
        """Give back the space of deleted and replaced records in every collection."""
        return self._home.vacuum(progress)

    def check(self) -> list[str]:
        """Problems found anywhere in this database; empty when all is well. Reads every byte, repairs nothing."""
        return self._home.check()

    def backup(self, path: Any, *, progress: Callable[[int, int], None] | None = None) -> None:
        """Copy the database, as it is at one commit, into the new directory `path`, with checksums. Reads and writes
        go on. Of a server's database `path` is the name of a directory, which it makes in its folder for backups.
        """
        _check_path(path, "a new directory")
        return self._home.backup(os.fspath(path), progress)

    def close(self) -> None:
        """Commit what is queued, seal what is worth it, release the lock; or end the connection. Closing twice is no
        error.
        """
        return self._home.close()

    def __enter__(self) -> Database:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        state = ", closed" if self._home.closed else ", read only" if self.read_only else ""
        return f"<Database {self.path}{state}>"
