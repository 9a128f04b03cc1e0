"""A worker on a small disk: it fills it, then makes every call, deletes, vacuums and writes again."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import vecdb
from tests.reliability.forked.records import index_of
from tests.reliability.harness import NAME, vectors_of
from vecdb import limits
from vecdb.embedded.open import open_database
from vecdb.errors import Unavailable, VecdbError

DIM = 64


def free_bytes(disk: Path) -> int:
    found = os.statvfs(disk)
    return found.f_bavail * found.f_frsize


def leave_free(disk: Path, kib: int) -> None:
    """A file takes what is free but for so much."""
    taken = free_bytes(disk) - (kib << 10)
    if taken > 0:
        fd = os.open(disk / "filler", os.O_CREAT | os.O_WRONLY)
        os.posix_fallocate(fd, os.fstat(fd).st_size, taken)
        os.close(fd)


def room_on_a_full_disk(disk: str, backup: str, index: str, free_kib: int) -> dict[str, Any]:
    """Calls that ended otherwise than they may, in words; and what the row file takes after the vacuum."""
    place, wrong = Path(disk), list[str]()
    limits.flat_rows_max = 500
    chosen = index_of(index)
    live: list[int] = []
    with open_database(place / "db", maintenance=False) as db:
        docs = db.create_collection(NAME, DIM, "l2", chosen)

        def add(first: int, count: int) -> None:
            ids = list(range(first, first + count))
            docs.upsert(ids, vectors_of(ids, [1] * count, DIM), fields=[{"t": "x" * 60}] * count)
            live.extend(ids)

        add(0, 2_000)
        docs.optimize()
        for count in (2_000, 100):
            refused = 0
            while refused < 2:
                try:
                    add(len(live), count)
                except Unavailable as error:
                    refused += 1
                    if "space" not in str(error):
                        wrong.append(f"upsert: {error}")
        leave_free(place, free_kib)

        def attempt(name: str, call: Any) -> None:
            try:
                call()
            except Unavailable as error:
                if "space" not in str(error):
                    wrong.append(f"{name}: {error}")
            except BaseException as error:
                wrong.append(f"{name} raised {type(error).__name__}: {error}")

        for name, call in {
            "upsert": lambda: docs.upsert([0], vectors_of([0], [1], DIM)),
            "backup": lambda: db.backup(place / "backup"),
            "restore": lambda: vecdb.restore(backup, place / "restored"),
            "create": lambda: db.create_collection("other", 4, exist_ok=True).upsert([1], [[1, 2, 3, 4]]),
            "optimize": docs.optimize,
            "reindex": lambda: docs.reindex(chosen),
            "tenant": lambda: docs.create_tenant("a", exist_ok=True),
        }.items():
            attempt(name, call)
        wrong += all_there(db, live)
    for read_only in (True, False):
        try:
            with open_database(place / "db", read_only=read_only, maintenance=False) as db:
                wrong += all_there(db, live)
        except BaseException as error:
            wrong.append(f"open, read_only={read_only}, raised {type(error).__name__}: {error}")
    with open_database(place / "db", maintenance=False) as db:
        docs = db[NAME]
        gone, rest = live[: 2 * len(live) // 3], live[2 * len(live) // 3 :]
        for start in range(0, len(gone), 400):
            docs.delete(gone[start : start + 400])
        docs.vacuum()
        wrong += all_there(db, rest)
        rows = (place / "db" / "collections" / "00000001" / f"rows.{docs.stats()['generation']}").stat()
        new = list(range(1_000_000, 1_000_500))
        docs.upsert(new, vectors_of(new, [2] * 500, DIM))
    with open_database(place / "db", maintenance=False) as db:
        wrong += all_there(db, rest, 500)
    return {"wrong": wrong, "row_bytes": rows.st_blocks * 512, "live": len(live)}


def looked_at_where_pages_were_given_back(disk: str, index: str) -> dict[str, Any]:
    """A vacuum gives back the pages of deleted rows, others take them; then everything is read, and built upon."""
    place, live, wrong = Path(disk), list[int](), list[str]()
    with open_database(place / "db", maintenance=False) as db:
        limits.flat_rows_max, full = 500, False
        docs = db.create_collection(NAME, DIM, "l2", index_of(index))
        while not full:
            ids = list(range(len(live), len(live) + 1_000))
            try:
                docs.upsert(ids, vectors_of(ids, [1] * 1_000, DIM))
                live += ids
                if len(live) == 4_000:
                    docs.optimize()
            except Unavailable:
                full = True
        docs.delete(live[:400])
        try:
            docs.vacuum()
            wrong.append("the vacuum had room for a copy")
        except Unavailable as error:
            if "were given back" not in str(error):
                wrong.append(f"vacuum: {error}")
        leave_free(place, 0)
        wrong += all_there(db, live[400:])
        for work in (docs.optimize, lambda: docs.reindex(index_of(index))):
            wrong += without_room(work) + all_there(db, live[400:])
    with open_database(place / "db", maintenance=False) as db:
        leave_free(place, 0)
        wrong += all_there(db, live[400:])
        wrong += without_room(lambda: db[NAME].reindex(index_of(index))) + all_there(db, live[400:])
    return {"wrong": wrong, "live": len(live)}


def without_room(work: Callable[[], object]) -> list[str]:
    """What is wrong with how it ends: it may, or say that there is no space."""
    try:
        work()
    except Unavailable as error:
        return [] if "no space left" in str(error) else [str(error)]
    return []


def all_there(db: Any, ids: list[int], more: int = 0) -> list[str]:
    try:
        docs, wrong = db[NAME], db.check()
        some = ids[:: max(1, len(ids) // 100)]
        queries = vectors_of(some, [1] * len(some), DIM)
        if docs.count() != len(ids) + more:
            wrong.append(f"{docs.count()} records, expected {len(ids) + more}")
        if docs.search(queries, 1, params=vecdb.SearchParams(exact=True)).ids[:, 0].tolist() != some:
            wrong.append("an exact search misses records")
        if (docs.search(queries, 5).counts != 5).any():
            wrong.append("a search came short")
        found = docs.get(some, include_vectors=True)
        if not np.array_equal(np.stack([record.vector for record in found]), queries):
            wrong.append("a get gives other vectors")
        return wrong
    except VecdbError as error:
        return [f"reading raised {type(error).__name__}: {error}"]
