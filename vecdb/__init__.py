"""vecdb: an embedded vector database.

    import vecdb

    db = vecdb.open("./data")
    docs = db.create_collection("docs", dim=384, metric="cosine")
    docs.upsert(ids, vectors, fields=rows)
    hits = docs.search(query, limit=10)

Every public name is listed in `__all__`; whatever is not may change without notice. A name is imported when it
is first used (PEP 562), so that `import vecdb` loads neither numpy nor the compiler.
"""

from __future__ import annotations

import importlib
from os import PathLike
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from vecdb.api.collection import Collection
    from vecdb.api.database import Database
    from vecdb.api.embedding import Embedder
    from vecdb.api.hits import Hits
    from vecdb.embedded.open import promote, upgrade, warm_up
    from vecdb.embedded.restore import backups, restore
    from vecdb.filters.expression import F

    from . import aio
    from .errors import (
        AlreadyExists,
        Corruption,
        InvalidArgument,
        LimitExceeded,
        Locked,
        NotFound,
        PermissionDenied,
        Poisoned,
        Unavailable,
        VecdbError,
    )
    from .schema import Curator, DType, Flat, Hnsw, Metric, Record, SearchParams, Spann

__version__ = "0.1.0"

__all__ = [
    "AlreadyExists",
    "Collection",
    "Corruption",
    "Curator",
    "DType",
    "Database",
    "Embedder",
    "F",
    "Flat",
    "Hits",
    "Hnsw",
    "InvalidArgument",
    "LimitExceeded",
    "Locked",
    "Metric",
    "NotFound",
    "PermissionDenied",
    "Poisoned",
    "Record",
    "SearchParams",
    "Spann",
    "Unavailable",
    "VecdbError",
    "__version__",
    "aio",
    "backups",
    "open",
    "promote",
    "restore",
    "upgrade",
    "warm_up",
]

_home = {
    "embedded.restore": ("backups", "restore"),
    "api.collection": ("Collection",),
    "api.database": ("Database",),
    "api.embedding": ("Embedder",),
    "embedded.open": ("promote", "upgrade", "warm_up"),
    "errors": (
        "AlreadyExists",
        "Corruption",
        "InvalidArgument",
        "LimitExceeded",
        "Locked",
        "NotFound",
        "PermissionDenied",
        "Poisoned",
        "Unavailable",
        "VecdbError",
    ),
    "api.hits": ("Hits",),
    "filters.expression": ("F",),
    "schema": ("Curator", "DType", "Flat", "Hnsw", "Metric", "Record", "SearchParams", "Spann"),
}


def open(
    path: str | PathLike[str],
    *,
    read_only: bool = False,
    durability: Literal["full", "relaxed", "remote"] = "full",
    memory_budget_bytes: int | None = None,
    maintenance: bool = True,
    log: str | None = None,
    follow: str | None = None,
    staleness_s: float | None = 1.0,
    lease: bool = False,
    token: str | None = None,
    tls: bool | str | PathLike[str] | tuple[Any, Any, Any] | None = None,
    insecure: bool = False,
    timeout: float | None = None,
    allow_partial: bool = False,
) -> Database:
    """Open the database at `path`, making it if it is not there; or that of a server, "grpc://host:port", or of several
    servers, "cluster://...". To await its calls: `vecdb.aio.open`, with the same arguments.

    Parameters
    ----------
    path : a directory; ":memory:" for a temporary one that is never synced and goes when it is closed; grpc://host:port
        for a server's, grpcs://host:port with TLS, unix:/path/of/socket on this machine. Without a port: 7711.
        cluster://s3/bucket/prefix (gs, az), or cluster:///folder, for that of the servers that are placed there.

    Of a directory
        read_only : read beside the process that writes; every commit of it is visible to the next call.
        durability : "full": what was acknowledged survives any crash; "relaxed": all but at most the last commit does;
            "remote", with `log`: what was acknowledged is in the bucket, and survives the loss of this machine.
        memory_budget_bytes : bound on what one collection's index may keep in memory; None: no bound.
        maintenance : False leaves indexing, sealing and vacuum to explicit calls (`optimize`, `reindex`, `vacuum`), as
            for a build that is timed or weighed: no thread works in the background.
        log : the URL of a bucket ("s3://bucket/prefix", gs://, az://, file:///folder) into which every commit goes,
            soon after it was acknowledged. One process writes there at a time: who takes over ends who was before.
        follow : the URL of such a log: `path` is made, and kept, a copy of its database, for reading. The directory is
            the copy's own; other processes may open it with `read_only`.
        staleness_s : of a copy: how long ago it may have known the end of the log, in seconds, for it to answer; past
            that it raises Unavailable. None: it always answers.
        lease : with `log`, for a writer that another may replace: reads raise Unavailable once it has not known for
            `staleness_s` that nobody has. False: it answers them also while it cannot reach its bucket.

    Of a server, or of all servers of a cluster
        token : who asks; it is not sent in plain text to another machine, unless `insecure`.
        tls : True for certificates that the system trusts, the path of a CA's, or (CA, certificate, key) where the
            server wants to know who connects: paths of PEM files, the CA None for the system's.
        timeout : seconds that a call may take; None: 30 s, writes 90 s, builds and the like as long as they take.

    Of a cluster
        allow_partial : searches answer where a shard cannot be reached, with what the others have; `hits.missing` has
            its number. False: they raise Unavailable, as all else does.

    Raises
    ------
    Locked : another process writes to this database, or to its log at this moment.
    NotFound : `read_only`, and there is no database at `path`.
    Corruption : the files are damaged.
    Unavailable : they are of another format (see `upgrade`); the server cannot be reached.
    PermissionDenied : the server does not know the token.
    """
    from vecdb.api.database import Database, refuse_options
    from vecdb.wire.addresses import is_cluster, is_remote

    local: dict[str, Any] = {"read_only": read_only, "memory_budget_bytes": memory_budget_bytes}
    if is_remote(path):
        refuse_options(path, local | {"log": log, "follow": follow, "staleness_s": staleness_s != 1.0, "lease": lease})
        refuse_options(path, {"durability": durability != "full", "maintenance": maintenance is not True})
        from vecdb.api.collection import Collection

        if is_cluster(path):
            from vecdb.cluster.cluster_database import connect_cluster

            return Database(connect_cluster(str(path), token, tls, insecure, timeout, allow_partial, Collection))
        refuse_options(path, {"allow_partial": allow_partial})
        from vecdb.client import connect

        return Database(connect(path, token, tls, insecure, timeout, Collection))
    refuse_options(path, {"token": token, "tls": tls, "insecure": insecure, "timeout": timeout})
    refuse_options(path, {"allow_partial": allow_partial})
    from vecdb.embedded.open import open_database

    local |= {"log": log, "follow": follow, "staleness_s": staleness_s, "lease": lease}
    return open_database(path, durability=durability, maintenance=maintenance, **local)


def __getattr__(name: str) -> Any:
    if name == "aio":
        return importlib.import_module(f"{__name__}.aio")
    for module, names in _home.items():
        if name in names:
            value = getattr(importlib.import_module(f"{__name__}.{module}"), name)
            globals()[name] = value
            return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
