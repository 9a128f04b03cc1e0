"""Database: what users hold. Checks what they pass, and hands it to a backend, in this process or at a server.

Every method may be called from any thread.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

from vecdb import limits, validate
from vecdb.api.backend import DatabaseBackend
from vecdb.api.collection import Collection
from vecdb.api.embedding import Embedder, attached
from vecdb.api.progress import Wanted, reporter
from vecdb.errors import InvalidArgument
from vecdb.schema import IndexConfig


def check_path(path: Any, wanted: str) -> None:
    """Refuse what can be no path. wanted : what it must be, for the message."""
    if not isinstance(path, (str, os.PathLike)) or not str(path) or "\0" in str(path):
        raise InvalidArgument(f"path must be {wanted}, got {path!r}")
    if any("\ud800" <= letter <= "\udfff" for letter in str(path)):
        raise InvalidArgument(f"path must be {wanted} whose name is UTF-8, got {path!r}")


def refuse_options(path: object, given: dict[str, Any]) -> None:
    """Raise InvalidArgument for options that say nothing of what is opened."""
    for name, value in given.items():
        if value is not None and value is not False:
            raise InvalidArgument(f"{name} is no option of {path!r}; leave it out")


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
        dim: int | None = None,
        metric: str = "cosine",
        index: IndexConfig | None = None,
        dtype: str = "float32",
        *,
        exist_ok: bool = False,
        metadata: dict[str, Any] | None = None,
        zero_vectors: str = "refuse",
        embed: Any = None,
    ) -> Collection:
        """Create a collection, durable when it returns.

        dim : numbers of a vector. None: the first write that brings vectors gives it; searches before find nothing.
        metric : "cosine" (1 - cosine), "l2" (squared) or "ip" (minus the inner product); smaller is closer. Of vectors
            of bits "hamming" (bits that differ) or "jaccard" (1 - bits that both have / bits that either has).
        index : `Hnsw(...)`, `Spann(...)`, `Curator(...)`, `Flat()`, or None to let size decide.
        dtype : how vectors are stored, whatever the type in which they are written: float32, float16, int8, uint8 or
            bits. Of bits `dim` is how many, a multiple of 8; vectors and queries are bytes of eight, as
            `numpy.packbits` makes them, or `dim` times True or False. They are kept, and returned, as bytes. Their
            index is `Flat()` or `Hnsw(...)`.
        exist_ok : return the collection of that name where dim, metric, dtype and zero_vectors agree, instead of
            raising AlreadyExists. It keeps its index and metadata.
        metadata : what to note about it: see `Collection.set_metadata`.
        zero_vectors : what becomes of vectors and queries of zeros under cosine: "refuse" raises InvalidArgument, "far"
            takes them, with similarity 0 (distance 1) to everything. l2 and ip take them always.
        embed : the model that makes vectors of texts for `upsert(texts=)` and `search(text=)`: a function from a list
            of texts to vectors, a model of sentence-transformers, LangChain or Chroma, or an `Embedder`, which says
            more. Its name, dim and prefixes are noted in the metadata, as "embedding".
        """
        embedder = Embedder.of(embed)
        if embedder is not None:
            embedder = embedder.measured()
            dim, metadata = dim or embedder.dim, embedder.noted_in(metadata)
        config = validate.collection_config(name, dim, metric, index, dtype, metadata, zero_vectors)
        found = self._backend.create_collection(config, validate.flag(exist_ok, "exist_ok"))
        return found if embedder is None else attached(found, embedder)

    def collection(self, name: str, *, embed: Any = None) -> Collection:
        """The collection of that name or alias. Raises NotFound.

        embed : as in `create_collection`. Raises InvalidArgument, by name, where the collection notes another model.

        `docs.name` is the name that was asked for, `docs.config.name` the collection's own. Where an alias is switched
        later, a collection of a server that was opened by the alias follows it, an embedded one stays what it is.
        """
        embedder = Embedder.of(embed)
        found = self._backend.collection(validate.collection_name(name))
        return found if embedder is None else attached(found, embedder)

    def __getitem__(self, name: str) -> Collection:
        return self.collection(name)

    def __contains__(self, name: object) -> bool:
        return name in self.collections()

    def collections(self, *, tenant: str | None = None) -> list[str]:
        """Names, sorted; aliases are not among them. tenant : those of collections that have a tenant of this name;
        None for all.
        """
        return self._backend.collections(None if tenant is None else validate.tenant_name(tenant))

    def drop_collection(self, name: str) -> None:
        """Delete a collection with all its records, and its aliases. Raises NotFound where there is none,
        InvalidArgument for an alias.
        """
        return self._backend.drop_collection(validate.collection_name(name))

    def rename_collection(self, old: str, new: str) -> None:
        """Give a collection another name, in one commit; its aliases lead to the new one. Nothing is copied.

        What was opened embedded goes on under the new name; a server is asked for the name that was opened, which is
        not there any more. Raises NotFound, AlreadyExists where `new` is a collection's name or an alias.
        """
        return self._backend.rename_collection(validate.collection_name(old), validate.collection_name(new))

    def set_alias(self, alias: str, collection: str) -> None:
        """Let `alias` stand for a collection wherever one is opened: a new alias, or one that is switched. Whoever
        opens it finds the collection of before or the new one, and never neither: build `docs_v2`, then
        `set_alias("docs", "docs_v2")`.

        Raises NotFound where there is no such collection, AlreadyExists where `alias` is a collection's own name.
        """
        return self._backend.set_alias(validate.collection_name(alias), validate.collection_name(collection))

    def drop_alias(self, alias: str) -> None:
        """Forget an alias; its collection stays. Raises NotFound."""
        return self._backend.drop_alias(validate.collection_name(alias))

    def aliases(self) -> dict[str, str]:
        """The collection's name by alias, sorted."""
        return self._backend.aliases()

    # -- care --------------------------------------------------------------------------------------

    def stats(self, *, disk: bool = True) -> dict[str, Any]:
        """collections, sequence, bytes_disk, lmdb (its own figures); and of the process that has the database open:
        commits, requests, commit_times, recall, and open: live, rows and tail_rows of each collection in use.

        commit_times : {"bounds_s": upper bounds in seconds, "counts": commits up to each, and beyond, "seconds": all}.
        disk : False leaves bytes_disk out, for which every file is looked at: for who asks often.
        """
        return self._backend.stats(validate.flag(disk, "disk"))

    def sequence(self) -> Any:
        """Number of the newest commit that reads find here. After a write it is that of the write, or of a later one:
        `copy.wait_for(db.sequence())` lets whoever wrote read it on a copy. Of a cluster a dict with the number of each
        shard, which its `wait_for` takes.
        """
        return self._backend.sequence()

    def wait_for(self, sequence: Any, *, timeout: float = 10.0) -> None:
        """Return once every read here finds the commit of that number: of a copy that follows a log (`follow=`), of a
        server's, or of a database that another process writes. timeout : seconds. Raises Unavailable past them.
        """
        return self._backend.wait_for(sequence, validate.seconds(timeout))

    def vacuum(self, *, progress: Wanted = None) -> None:
        """Give back the space of deleted and replaced records in every collection."""
        return self._backend.vacuum(reporter(progress, "vacuum"))

    def check(self) -> list[str]:
        """Problems found anywhere in this database; empty when all is well. Reads every byte, repairs nothing."""
        return self._backend.check()

    def backup(self, path: Any, *, keep: int | None = None, progress: Wanted = None) -> None:
        """Copy the database, as it is at one commit, into the new directory `path`, with checksums; or into a bucket,
        of which `path` is the URL: s3://bucket/prefix, gs://, az:// or file:///folder. There it sends what has changed
        since the backups that are there already, and goes on where an interrupted one ended. Reads and writes go on.
        Of a server's database `path` is the name of a directory, which it makes in its folder for backups.

        keep : once the new one is whole, remove older backups of this same database beside it, but for the newest, so
            that so many are left, from 1 on. None: remove none. Nothing else in the folder is touched.
        progress : True for a bar, or called with what is done and what there is, in collections, or in bytes where
            `path` is a URL.

        Of a bucket it raises NotFound where there is none, PermissionDenied where the keys in the environment do not
        open it, Unavailable where it does not answer or knows no conditional writes.
        """
        check_path(path, "a new directory, or the URL of a bucket")
        kept = None if keep is None else validate.integer(keep, "keep", 1, limits.backups_kept_max)
        return self._backend.backup(os.fspath(path), kept, reporter(progress, "backup"))

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
