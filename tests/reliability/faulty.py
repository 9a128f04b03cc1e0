"""A faulty twin of `os` for vecdb.storage.disk.filesystem and mapped_memory, and the worker that runs under it.

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

from tests.reliability.forked.records import SCRIPT, index_of, perform
from tests.reliability.harness import DIM, NAME, Expected, LedgerWriter, read_ledger, vectors_of
from vecdb import SearchParams, limits
from vecdb.embedded.open import open_database
from vecdb.errors import Poisoned, Unavailable, VecdbError
from vecdb.maintenance import index_jobs
from vecdb.storage.disk import batch_read, filesystem, mapped_memory


class FaultyOs:
    """`os`, but for the N-th call of one function: that one fails, or from then on all do."""

    def __init__(self, call: str, fault: str, at: int, onward: bool) -> None:
        self._call, self._fault, self._at, self._onward = call, fault, at, onward
        self._lock = threading.Lock()
        self.count = 0
        self.faults = 0
        self.hurt: list[str] = []  # names of the files whose calls failed, where the call says

    def __getattr__(self, name: str) -> Any:
        real = getattr(os, name)
        if name != self._call:
            return real

        def twin(*arguments: Any, **named: Any) -> Any:
            with self._lock:
                self.count += 1
                hit = self.count == self._at or (self._onward and self.count > self._at)
                self.faults += hit
                if hit and arguments and isinstance(arguments[0], int):
                    self.hurt.append(os.path.basename(os.readlink(f"/proc/self/fd/{arguments[0]}")))
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


def faults(path: str, ledger: str, plan: dict[str, Any], index: str = "auto") -> dict[str, Any]:
    """The script with a faulty `os`. What raised Unavailable must not have happened; what raised Poisoned may have.

    Returns the errors seen. Untyped errors, and writes that go on after a failed sync, go into the ledger as errors.
    """
    limits.flat_rows_max = 32
    index_jobs._SEAL_AT_CLOSE_ROWS = 8
    book = LedgerWriter(Path(ledger), sync=False)
    db = open_database(path, maintenance=False)
    c = db.create_collection(NAME, DIM, "l2", index_of(index), exist_ok=True)
    twin = FaultyOs(**plan)
    filesystem.os = twin  # type: ignore[attr-defined]
    mapped_memory.os = twin  # type: ignore[attr-defined]
    seen, poisoned = attempt(db, c, book)
    _reads_go_on(c, book, ledger)
    try:
        db.close()
    except VecdbError as error:
        seen.append(f"close: {type(error).__name__}: {error}")
    return {"seen": seen, "faults": twin.faults, "calls": twin.count, "poisoned": poisoned, "hurt": twin.hurt}


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
        c.search(right, 5)  # through the index, whatever state the fault left it in
    except (VecdbError, OSError) as error:
        if isinstance(error, Poisoned) and "LMDB" in str(error):
            return  # its meta page could not be written: LMDB itself refuses even reads until it is opened again
        book.line(error=f"a read failed after the fault: {type(error).__name__}: {error}")


def full_disk(path: str, ledger: str, limit_bytes: int | None, index: str = "auto") -> dict[str, Any]:
    """Fill the disk (or, with limit_bytes, reach the largest file that this process may write), then read and
    delete."""
    import resource
    import signal

    book = LedgerWriter(Path(ledger), sync=False)
    db = open_database(path)
    c = db.create_collection(NAME, DIM, "l2", index_of(index), exist_ok=True)
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


class FaultyRing(batch_read.ReadBatch):
    """A ring whose reads of one file fail while `left` lasts, and leave nothing of use in `out`."""

    file = ""  # how its name begins
    fault = "EIO"  # errno name, or "short"
    left = 0  # submissions that still fail
    hits = 0

    def submit(self, fd: int, offsets: Any, lengths: Any, out: Any, places: Any) -> None:
        name = os.path.basename(os.readlink(f"/proc/self/fd/{fd}"))
        mine = bool(FaultyRing.file) and name.startswith(FaultyRing.file) and len(offsets) > 0
        self._batch = (lengths, out, places) if mine and FaultyRing.left > 0 else None
        super().submit(fd, offsets, lengths, out, places)

    def arrived(self, least: int) -> Any:
        """A read that fails never comes in whole."""
        early = super().arrived(least)
        return early if self._batch is None else early[~np.isin(early, self._failing())]

    def _failing(self) -> list[int]:
        """The first and the last read."""
        assert self._batch is not None
        return [0, len(self._batch[0]) - 1]

    def wait(self) -> Any:
        counts = super().wait()
        if self._batch is None:
            return counts
        lengths, out, places = self._batch
        FaultyRing.left -= 1
        FaultyRing.hits += 1
        for at in self._failing():
            kept = 16 if FaultyRing.fault == "short" else 0
            out[int(places[at]) + kept : int(places[at]) + int(lengths[at])] = 0xA5
            counts[at] = kept or -getattr(errno, FaultyRing.fault)
        return counts


FOR_EVER = 1 << 30


def ring_faults(path: str, index: str, file: str, fault: str, thorough: bool) -> dict[str, Any]:
    """Reads of the list file ("lists") or the row file ("rows") fail: once, then for a while, in each call that reads.

    What must hold after each call goes into "wrong" where it does not.
    """
    limits.flat_rows_max = 256
    batch_read.ReadBatch = FaultyRing  # type: ignore[misc]
    FaultyRing.file, FaultyRing.fault = file, fault
    wrong: list[str] = []
    hits: dict[str, int] = {}
    ids = list(range(600))
    queries = vectors_of(ids[::9], [3] * len(ids[::9]))

    def asked(c: Any, **how: Any) -> tuple[list[Any], str]:
        found = c.search(queries, 5, params=SearchParams(**how), explain=True)
        return found.ids.tolist(), found.explain["plan"]

    def trouble(what: str, db: Any, call: Any, left: int, typed: bool) -> None:
        """Make a call while reads fail. Where `typed`, it must raise a vecdb error, else none at all."""
        FaultyRing.left, FaultyRing.hits = left, 0
        try:
            call()
        except VecdbError as error:
            if not typed:
                wrong.append(f"{what}: {type(error).__name__}: {error}")
        except BaseException as error:
            wrong.append(f"{what}: untyped {type(error).__name__}: {error}")
        else:
            if typed and FaultyRing.hits:
                wrong.append(f"{what}: went on after a failed read of the row file")
        FaultyRing.left = 0
        hits[what] = FaultyRing.hits

    def fresh(name: str) -> Any:
        """A database of its own with lists, dead rows, and a tail but for "learn"."""
        db = open_database(Path(path) / name, maintenance=False, durability="relaxed")
        c = db.create_collection(NAME, DIM, "l2", index_of(index))
        c.upsert(ids[:500], vectors_of(ids[:500], [1] * 500))
        c.optimize()
        c.upsert(ids[450:], vectors_of(ids[450:], [2] * 150))
        c.delete(ids[:40])
        if name.startswith("learn"):
            c.optimize()
        return db, c

    def whole(what: str, db: Any, c: Any, truth: list[Any], mend: bool) -> None:
        """Fine again: at once, or after `optimize`."""
        if asked(c)[0] != truth and asked(c)[1] == "exact":
            wrong.append(f"{what}: other answers than the exact ones")
        if mend:
            c.optimize()
        problems, state = db.check(), c.stats()["index_state"]
        if problems or state != "ready" or asked(c)[1] != "lists" or asked(c, exact=True)[0] != truth:
            wrong.append(f"{what}: state {state}, plan {asked(c)[1]}, check {problems[:2]}")

    lists = file == "lists"
    calls: dict[str, Any] = {
        "search": lambda db, c: asked(c),
        "one query": lambda db, c: c.search(queries[0], 5),
        "threads": lambda db, c: c.search(queries, 5, params=SearchParams(threads=2)),
    }
    if lists:
        calls |= {
            "optimize": lambda db, c: c.optimize(),
            "learn": lambda db, c: c.optimize(),  # with no tail to place first
            "vacuum": lambda db, c: c.vacuum(),
            "check": lambda db, c: db.check(),
        }
    if not thorough:
        del calls["one query"], calls["threads"]
    for name, call in calls.items():
        for left in (1, FOR_EVER) if name in ("search", "optimize", "learn") and thorough else (1,):
            what = f"{name}, {left}"
            db, c = fresh(what)
            truth = asked(c, exact=True)[0]
            before = asked(c)
            if before[1] != "lists":
                wrong.append(f"{what}: plan {before[1]} before any fault")
            trouble(what, db, lambda call=call, db=db, c=c: call(db, c), left, typed=not lists)
            if lists and name in ("search", "one query", "threads") and asked(c) != (truth, "exact"):
                wrong.append(f"{what}: answers are not exact after the fault")
            if lists and left == 1 and name in ("optimize", "learn") and c.stats()["index_state"] != "ready":
                wrong.append(f"{what}: one failed read, and the index is {c.stats()['index_state']} after optimize")
            if not lists and asked(c) != before:
                wrong.append(f"{what}: other answers after the fault")
            whole(what, db, c, asked(c, exact=True)[0], mend=lists)
            db.close()
            with open_database(Path(path) / what, maintenance=False) as again:
                whole(f"{what}, opened again", again, again[NAME], truth, mend=False)
    # what a process meets while it opens, and a reading process; the writer's own search must give the same
    db, c = fresh("open")
    truth = asked(c, exact=True)[0]
    db.close()
    for read_only in (True, False):
        what = f"open, read_only={read_only}"
        FaultyRing.left, FaultyRing.hits = FOR_EVER, 0
        with open_database(Path(path) / "open", maintenance=False, read_only=read_only) as db:
            c = db[NAME]
            trouble(
                what, db, lambda c=c: asked(c) == (truth, "exact") or wrong.append("not exact"), FOR_EVER, not lists
            )
            if asked(c, exact=True)[0] != truth:
                wrong.append(f"{what}: exact answers differ")
            if not read_only:
                whole(what, db, c, truth, mend=lists)
    return {"wrong": wrong, "hits": hits}
