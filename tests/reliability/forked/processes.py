"""Workers that share a database with other processes: a reader, a second writer, a forked child, cycles of opening."""

from __future__ import annotations

import gc
import json
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np

import vecdb
from tests.reliability.forked.records import put
from tests.reliability.harness import DIM, NAME, vectors_of
from vecdb.embedded.open import open_database


def reader(path: str, questions: str, replies: str) -> None:
    """Answer questions about a database that another process writes, one line each, until there are no more."""
    with open(questions) as asked, open(replies, "w", buffering=1) as answering, vecdb.open(path, read_only=True) as db:
        for line in asked:
            question = json.loads(line)
            answer: dict[str, Any] = {}
            try:
                c = db.collection(NAME)
                if "search" in question:
                    queries = np.array(question["search"], np.float32)
                    hits = c.search(queries, question["limit"], params=vecdb.SearchParams(exact=True))
                    answer.update(ids=hits.ids.tolist(), distances=hits.distances.tolist())
                if "get" in question:
                    answer["fields"] = [None if r is None else r.fields for r in c.get(question["get"])]
                if "check" in question:
                    answer["problems"] = db.check()
                if "resources" in question:
                    answer.update(resources(None))
                if "hold" in question:
                    held = c.iter(1)
                    next(held)
                answer["count"] = c.count()
            except vecdb.VecdbError as error:
                answer = {"error": type(error).__name__}
            answering.write(json.dumps(answer) + "\n")


def refused(path: str) -> dict[str, Any]:
    try:
        vecdb.open(path).close()
    except vecdb.VecdbError as error:
        return {"error": type(error).__name__, "text": str(error)}
    return {"error": None, "text": ""}


def forked(path: str) -> dict[str, Any]:
    """Every call in a child that inherited an open database; then the parent goes on."""
    db = vecdb.open(path)
    c = db.create_collection(NAME, DIM, "l2")
    put(c, [1], [1])
    seen, told = os.pipe()
    pid = os.fork()
    if pid == 0:
        errors = []
        for call in (
            lambda: c.count(),
            lambda: c.get(1),
            lambda: c.search(vectors_of([1], [1])[0], 1),
            lambda: put(c, [2], [1]),
            lambda: db.collections(),
        ):
            try:
                call()
                errors.append("nothing")
            except Exception as error:
                errors.append(type(error).__name__)
        db.close()  # no error, and it closes nothing of the parent's
        os.write(told, json.dumps(errors).encode())
        os._exit(0)
    os.waitpid(pid, 0)
    put(c, [1], [2])
    count = c.count()
    db.close()
    return {"errors": json.loads(os.read(seen, 10_000)), "parent": count}


def resources(path: str | None) -> dict[str, int]:
    """What this process holds; files below `path`."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return {
        "descriptors": len(os.listdir("/proc/self/fd")),
        "threads": len(os.listdir("/proc/self/task")),
        "mappings": len(Path("/proc/self/maps").read_text().splitlines()),
        "resident_bytes": pages * 4_096,
        "files": sum(len(names) for _, _, names in os.walk(path)) if path else 0,
    }


def cycles(path: str, cycles: int) -> dict[str, Any]:
    """Open and close, create and drop, over and over. What the process held after some cycles and after the last."""
    before = {}
    for number in range(cycles):
        if number == max(10, cycles // 10):
            before = resources(path)
        with vecdb.open(path) as db:
            c = db.create_collection(f"c{number}", DIM, "l2")
            put(c, list(range(300)), [number] * 300)
            c.search(vectors_of([1, 2], [1, 1]), 3)
            if number % 5 == 0:
                c.optimize()
                c.vacuum()
            db.drop_collection(f"c{number}")
    return {"before": before, "after": resources(path)}


def forked_opens(path: str, case: str) -> dict[str, Any]:
    """A child forked beside an open database, with threads at work: what it opens itself, and what its parent has."""
    db = open_database(path)
    docs = db["docs"]
    docs.upsert([2], [[1, 2]])
    iterator = docs.iter(1)
    next(iterator)  # a read transaction of the parent is open
    pid = os.fork()
    if pid == 0:
        os._exit(_in_child(path, case, db))
    if case == "keeps":  # a child that never touches the database, and lives on
        db.close()
        again = open_database(path)
        again["docs"].upsert([3], [[1, 2]])
        fine = again["docs"].count() == 3
        again.close()
        os.kill(pid, 9)
        os.waitpid(pid, 0)
        return {"child": 0, "parent": fine}
    if case == "writes":
        iterator.close()
        db.close()
    child = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if case == "writes":
        with open_database(path, read_only=True) as mine:
            return {"child": child, "parent": mine["docs"].count() == 3 and mine.check() == []}
    for n in range(20):  # the page that the iterator reads must not be used again
        docs.upsert([10 + n], [[1, n]])
    rest = [record.id for batch in iterator for record in batch]
    fine = rest == [2] and docs.count() == 22 and db.check() == []
    db.close()
    return {"child": child, "parent": fine}


def _in_child(path: str, case: str, inherited: Any) -> int:
    if case == "keeps":
        while True:
            signal.pause()
    try:
        inherited.collections()
        return 2
    except vecdb.Unavailable:
        pass
    if case == "closes":
        inherited.close()
    if case == "writes":
        while True:  # until the parent has closed its own
            try:
                mine = open_database(path)
                break
            except vecdb.Locked:
                os.sched_yield()
        mine["docs"].upsert([3], [[1, 2]])
        mine.close()
        return 0
    with open_database(path, read_only=True) as mine:
        return 0 if mine["docs"].count() == 2 and mine.check() == [] else 3
