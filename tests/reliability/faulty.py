"""A faulty twin of `os` for vecdb.storage.files, and the worker that runs under it.

files.os = FaultyOs(plan)   plan: {"call": "pwrite", "fault": errno name or "short", "at": N, "onward": bool,
"where": part of a path}
"""

from __future__ import annotations

import errno
import os
import threading
from pathlib import Path
from typing import Any

import numpy as np

from tests.reliability.harness import DIM, NAME, Expected, LedgerWriter, read_ledger, vectors_of
from tests.reliability.workers import SCRIPT, perform
from vecdb import SearchParams, limits, upkeep
from vecdb.database import open_database
from vecdb.errors import Poisoned, Unavailable, VecdbError
from vecdb.storage import files


class FaultyOs:
    """`os`, but for the N-th call of one function: that one fails, or from then on all do."""

    def __init__(self, call: str, fault: str, at: int, onward: bool) -> None:
        self._call, self._fault, self._at, self._onward = call, fault, at, onward
        self._lock = threading.Lock()
        self.count = 0
        self.faults = 0

    def __getattr__(self, name: str) -> Any:
        real = getattr(os, name)
        if name != self._call:
            return real

        def twin(*arguments: Any, **named: Any) -> Any:
            with self._lock:
                self.count += 1
                hit = self.count == self._at or (self._onward and self.count > self._at)
                self.faults += hit
            if not hit:
                return real(*arguments, **named)
            if self._fault == "short":
                if name == "pwrite":
                    fd, data, offset = arguments
                    return real(fd, memoryview(data)[: max(1, len(data) // 3)], offset)
                fd, length, offset = arguments
                return real(fd, max(1, length // 3), offset)
            code = getattr(errno, self._fault)
            raise OSError(code, os.strerror(code))

        return twin


def faults(path: str, ledger: str, plan: dict[str, Any]) -> dict[str, Any]:
    """The script with a faulty `os`. What raised Unavailable must not have happened; what raised Poisoned may have.

    Returns the errors seen. Untyped errors, and writes that go on after a failed sync, go into the ledger as errors.
    """
    limits.flat_rows_max = 32
    upkeep._SEAL_AT_CLOSE_ROWS = 8
    book = LedgerWriter(Path(ledger), sync=False)
    db = open_database(path, maintenance=False)
    c = db.create_collection(NAME, DIM, "l2", exist_ok=True)
    twin = FaultyOs(**plan)
    files.os = twin  # type: ignore[attr-defined]
    seen, poisoned = attempt(db, c, book)
    _reads_go_on(c, book, ledger)
    try:
        db.close()
    except VecdbError as error:
        seen.append(f"close: {type(error).__name__}: {error}")
    return {"seen": seen, "faults": twin.faults, "calls": twin.count, "poisoned": poisoned}


def attempt(db: Any, c: Any, book: LedgerWriter, script: Any = SCRIPT) -> tuple[list[str], bool]:
    """Run the script past its errors. Returns them, and whether the database was poisoned."""
    seen: list[str] = []
    poisoned = False
    for n, (do, ids) in enumerate(script, 1):
        writes = do not in ("optimize", "vacuum", "other")
        if writes:
            book.line(n=n, do=do, ids=ids)
        try:
            if do == "optimize":
                c.optimize()
            elif do == "vacuum":
                c.vacuum()
            elif do == "other":
                db.create_collection("other", 4, "ip", exist_ok=True).upsert([1, 2], vectors_of([1, 2], [n, n], 4))
                db.drop_collection("other")
            else:
                perform(c, do, n, ids)
        except Poisoned as error:
            seen.append(f"{do}: Poisoned: {error}")
            if poisoned and writes:
                book.line(void=n)  # refused at once
            poisoned = True
        except VecdbError as error:
            seen.append(f"{do}: {type(error).__name__}: {error}")
            if writes:
                book.line(void=n)
        except BaseException as error:
            book.line(error=f"{do} raised {type(error).__name__}: {error}")
        else:
            if writes:
                book.line(ack=n)
                if poisoned:
                    book.line(error=f"{do} was accepted by a poisoned database")
    return seen, poisoned


def _reads_go_on(c: Any, book: LedgerWriter, ledger: str) -> None:
    """Every record whose state is certain is still found."""
    expected = Expected.of(read_ledger(Path(ledger)))
    unsure = {i for op in expected.open for i in op.ids}
    ids = sorted(i for i in expected.kept if i not in unsure)
    ids = ids[:: max(1, len(ids) // 500)]
    if not ids:
        return
    try:
        right = vectors_of(ids, [expected.kept[i].vector for i in ids])
        found = c.get(ids, include_vectors=True)
        if any(r is None or not np.array_equal(r.vector, v) for r, v in zip(found, right, strict=True)):
            book.line(error="a get went wrong after the fault")
        hits = c.search(right, 1, params=SearchParams(exact=True))
        if hits.ids[:, 0].tolist() != ids:
            book.line(error="a search went wrong after the fault")
    except (VecdbError, OSError) as error:
        if isinstance(error, Poisoned) and "LMDB" in str(error):
            return  # its meta page could not be written: LMDB itself refuses even reads until it is opened again
        book.line(error=f"a read failed after the fault: {type(error).__name__}: {error}")


def full_disk(path: str, ledger: str, limit_bytes: int | None) -> dict[str, Any]:
    """Fill the disk (or, with limit_bytes, reach the largest file that this process may write), then read and
    delete."""
    import resource
    import signal

    book = LedgerWriter(Path(ledger), sync=False)
    db = open_database(path)
    c = db.create_collection(NAME, DIM, "l2", exist_ok=True)
    if limit_bytes is not None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit_bytes, limit_bytes))
    refused: list[str] = []
    n, deleted, live = 0, 0, []
    while len(refused) < 5 and n < 400:
        n += 1
        ids = list(range(1_000 * n, 1_000 * n + (50 if refused else 1_000)))
        book.line(n=n, do="upsert", ids=ids)
        try:
            perform(c, "upsert", n, ids)
        except Unavailable as error:
            book.line(void=n)
            refused.append(str(error))
        except BaseException as error:
            book.line(error=f"an upsert on a full disk raised {type(error).__name__}: {error}")
            break
        else:
            book.line(ack=n)
            live += ids
    _reads_go_on(c, book, ledger)
    for start in range(0, min(len(live), 400), 20):
        n += 1
        ids = live[start : start + 20]
        book.line(n=n, do="delete", ids=ids)
        try:
            deleted += c.delete(ids)
            book.line(ack=n)
        except VecdbError as error:
            book.line(error=f"a delete on a full disk raised {type(error).__name__}: {error}")
            break
    _reads_go_on(c, book, ledger)
    db.close()
    return {"refused": refused, "deleted": deleted, "live": len(live), "calls": n}
