"""Workers that may do less than others: another user, few descriptors, little address space; and one that is killed."""

from __future__ import annotations

import os
import resource
import tempfile
from pathlib import Path
from typing import Any

import vecdb
from vecdb.embedded.open import open_database

NOBODY = 65534


def as_nobody(path: str, read_only: bool) -> dict[str, Any]:
    """Open as a user who owns nothing but what lies at `path`."""
    os.setgid(NOBODY)
    os.setuid(NOBODY)
    try:
        with open_database(path, read_only=read_only, maintenance=False) as db:
            if not read_only:
                db.create_collection("docs", 2).upsert([1], [[1, 2]])
            return {"count": db["docs"].count()}
    except vecdb.VecdbError as error:
        return {"error": type(error).__name__, "text": str(error)}


def with_little_address_space(path: str, limit_bytes: int) -> list[int]:
    """Counts after each of two openings."""
    resource.setrlimit(resource.RLIMIT_AS, (limit_bytes, limit_bytes))
    counts = []
    for n in range(2):
        with open_database(path, maintenance=False) as db:
            docs = db.create_collection("docs", 2, exist_ok=True)
            docs.upsert([n], [[1, n + 1]])
            counts.append(docs.count())
    return counts


def with_few_descriptors(path: str, collections: int, limit: int, held: bool) -> list[str]:
    """Use more collections than there are descriptors, and say what was wrong."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
    wrong = []
    keep = []
    with open_database(path, durability="relaxed") as db:
        for n in range(collections):
            docs = db.create_collection(f"u{n}", 2, "l2")
            docs.upsert([n], [[1, n]])
            if held:
                keep.append(docs)
    for read_only in (False, True):
        keep.clear()
        with open_database(path, durability="relaxed", read_only=read_only) as db:
            for n in [*range(collections), *range(0, collections, 7)]:
                docs = db[f"u{n}"]
                if docs.count() != 1 or docs.search([1.0, n]).ids.tolist() != [n]:
                    wrong.append(f"collection {n}, read_only={read_only}")
                if not read_only:
                    docs.upsert([n], [[1, n]])
                if held:
                    keep.append(docs)
    return wrong


def killed_in_memory(folder: str, number: int) -> None:
    """Be killed by a signal while a database in ":memory:" is open, whose folder lies in `folder`."""
    tempfile.tempdir = folder
    db = open_database(":memory:", maintenance=False)
    db.create_collection("x", 2).upsert(range(100), [[1, n] for n in range(100)])
    (Path(folder) / "name").write_text(str(db.path))
    os.kill(os.getpid(), number)


def open_in_memory(folder: str) -> None:
    tempfile.tempdir = folder
    open_database(":memory:", maintenance=False).close()
