"""Database: what users hold. Checks what they pass, and hands it to a backend, in this process or at a server.

Every method may be called from any thread.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

from vecdb import validate
from vecdb.api.backend import DatabaseBackend
from vecdb.api.collection import Collection
from vecdb.errors import InvalidArgument
from vecdb.schema import IndexConfig


def check_path(path: Any, wanted: str) -> None:
    """Refuse what can be no path. wanted : what it must be, for the message."""
    if not isinstance(path, (str, os.PathLike)) or not str(path) or "\0" in str(path):
        raise InvalidArgument(f"path must be {wanted}, got {path!r}")
    if any("\ud800" <= letter <= "\udfff" for letter in str(path)):
        raise InvalidArgument(f"path must be {wanted} whose name is UTF-8, got {path!r}")


class Database:
    """An open database. Close it, or use it in a `with` block."""

    __slots__ = ("__weakref__", "_backend", "_leave")

    def __init__(
        self,
        backend: DatabaseBackend[Collection],
        leave: Callable[[Database], DatabaseBackend[Collection] | None] | None = None,
    ) -> None:
        """leave(self) : what stands behind this handle once it is closed while others of the same backend are open;
        None where it is the last one. leave=None: it is the only one.
        """
        self._backend = backend
        self._leave = leave

    @property
    def path(self) -> Path | str:
        """The directory, or the address of a server."""
        return self._backend.path

    @property
    def read_only(self) -> bool:
        return self._backend.read_only

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
        index : `Hnsw(...)`, `Spann(...)`, `Curator(...)`, `Flat()`, or None to let size decide.
        dtype : how vectors are stored: float32, float16, int8 or uint8.
        exist_ok : return the collection of that name where dim, metric and dtype agree, instead of raising
            AlreadyExists.
        """
        config = validate.collection_config(name, dim, metric, index, dtype)
        return self._backend.create_collection(config, validate.flag(exist_ok, "exist_ok"))

    def collection(self, name: str) -> Collection:
        """The collection of that name. Raises NotFound."""
        return self._backend.collection(validate.collection_name(name))

    def __getitem__(self, name: str) -> Collection:
        return self.collection(name)

    def __contains__(self, name: object) -> bool:
        return name in self.collections()

    def collections(self, *, tenant: str | None = None) -> list[str]:
        """Names, sorted. tenant : of those collections that have a tenant of this name; None for all."""
        return self._backend.collections(None if tenant is None else validate.tenant_name(tenant))

    def drop_collection(self, name: str) -> None:
        """Delete a collection with all its records. Raises NotFound where there is none."""
        return self._backend.drop_collection(validate.collection_name(name))

    # -- care --------------------------------------------------------------------------------------

    def stats(self) -> dict[str, Any]:
        """collections, sequence, commits and requests of the process that has the database open, bytes on disk, LMDB's
        own figures.
        """
        return self._backend.stats()

    def vacuum(self, *, progress: Callable[[int, int], None] | None = None) -> None:
        """Give back the space of deleted and replaced records in every collection."""
        return self._backend.vacuum(progress)

    def check(self) -> list[str]:
        """Problems found anywhere in this database; empty when all is well. Reads every byte, repairs nothing."""
        return self._backend.check()

    def backup(self, path: Any, *, progress: Callable[[int, int], None] | None = None) -> None:
        """Copy the database, as it is at one commit, into the new directory `path`, with checksums. Reads and writes
        go on. Of a server's database `path` is the name of a directory, which it makes in its folder for backups.
        """
        check_path(path, "a new directory")
        return self._backend.backup(os.fspath(path), progress)

    def close(self) -> None:
        """Commit what is queued, seal what is worth it, release the lock; or end the connection. Closing twice is no
        error. Of several handles of one directory in this process the last one does it.
        """
        left = None if self._leave is None else self._leave(self)
        if left is not None:
            self._backend = left
        return self._backend.close()

    def __enter__(self) -> Database:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        state = ", closed" if self._backend.closed else ", read only" if self.read_only else ""
        return f"<Database {self.path}{state}>"
