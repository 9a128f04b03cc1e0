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
    from .backup import restore
    from .collection import Collection
    from .database import Database
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
    from .hits import Hits
    from .schema import Curator, DType, Flat, Hnsw, Metric, Record, SearchParams, Spann

__version__ = "0.1.0"

__all__ = [
    "AlreadyExists",
    "Collection",
    "Corruption",
    "Curator",
    "DType",
    "Database",
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
    "open",
    "restore",
]

_home = {
    "backup": ("restore",),
    "collection": ("Collection",),
    "database": ("Database",),
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
    "hits": ("Hits",),
    "schema": ("Curator", "DType", "Flat", "Hnsw", "Metric", "Record", "SearchParams", "Spann"),
}


def open(
    path: str | PathLike[str],
    *,
    read_only: bool = False,
    durability: Literal["full", "relaxed"] = "full",
    memory_budget_bytes: int | None = None,
) -> Database:
    """Open the database at `path`, making it if it is not there.

    Parameters
    ----------
    path : a directory, or ":memory:" for a temporary one that is never synced and goes when it is closed.
    read_only : read beside the process that writes; every commit of it is visible to the next call.
    durability : "full": what was acknowledged survives any crash; "relaxed": all but at most the last commit does.
    memory_budget_bytes : bound on what one collection's index may keep in memory; None: no bound.

    Raises
    ------
    Locked : another process writes to this database.
    NotFound : `read_only`, and there is no database at `path`.
    Corruption : the files are damaged, or of a newer format.
    """
    from .database import open_database

    return open_database(path, read_only=read_only, durability=durability, memory_budget_bytes=memory_budget_bytes)


def __getattr__(name: str) -> Any:
    for module, names in _home.items():
        if name in names:
            value = getattr(importlib.import_module(f"{__name__}.{module}"), name)
            globals()[name] = value
            return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
