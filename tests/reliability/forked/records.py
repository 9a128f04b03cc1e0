"""What runs in forked children: each function is one worker, named by `ForkServer.fork`. Arguments and results
are JSON. Here: what all workers share, and those that write records until they are killed or a script ends.
"""

from __future__ import annotations

import os
import random
import threading
import traceback
from pathlib import Path
from typing import Any

import vecdb
from tests.reliability.harness import DIM, NAME, Expected, LedgerWriter, read_ledger, tenants_of, vectors_of, verify
from vecdb import limits
from vecdb.api.database import Database
from vecdb.embedded.open import open_database
from vecdb.maintenance import index_jobs, vacuum

THREADS = 3  # writers of the crash worker; an id belongs to the thread of its number modulo this


def index_of(kind: str) -> Any:
    """The index of a collection under test, in lists so small that hundreds of records split them."""
    return {
        "auto": None,
        "spann": vecdb.Spann(head_ratio=0.1, nprobe=8),
        "spann-disk": vecdb.Spann(head_ratio=0.1, nprobe=8, memory_budget_bytes=0),
        "curator": vecdb.Curator(leaf_rows=8, nprobe=24, scan_max=32, shortlist_max=12),
    }[kind]


def shrink() -> None:
    """Small bounds, so that small workloads index, repair, seal and vacuum as large ones do."""
    limits.flat_rows_max = 256
    limits.seal_rows_min = 256
    limits.block_rows_max = 64
    limits.tail_rows_max = 4_096
    limits.index_step_rows = 64
    limits.journal_pairs, limits.journal_entry_pairs, limits.merge_pairs = 192, 96, 16
    index_jobs._REPAIR_ROWS_MIN = 32
    index_jobs._SEAL_AT_CLOSE_ROWS = 64
    vacuum._PIECE_ROWS = 256


def warm() -> None:
    """Compile or load every kernel that workers use."""
    shrink()
    for kind in ("auto", "spann", "spann-disk", "curator"):
        _warm(kind)


def _warm(kind: str) -> None:
    db = vecdb.open(":memory:")
    c = db.create_collection(NAME, DIM, "l2", index_of(kind))
    ids = list(range(700))
    put(c, ids, [1] * 700)
    c.optimize()
    c.delete(ids[:300])
    c.update(ids[300:310], vectors=vectors_of(ids[300:310], [2] * 10))
    c.vacuum()
    c.search(vectors_of(ids[:20], [1] * 20), 10)
    c.search(vectors_of([1], [1])[0], 10)
    c.search(vectors_of(ids[:20], [1] * 20), 1, params=vecdb.SearchParams(exact=True))
    c.get(ids[400:402], include_vectors=True)
    put(c, ids, [3] * 700)
    c.optimize()
    assert db.check() == []
    db.close()


def put(c: Any, ids: list[int], versions: list[int]) -> None:
    fields, tenants = [{"f": v} for v in versions], [tenants_of(i) for i in ids]
    c.upsert(ids, vectors_of(ids, versions), fields=fields, tenants=tenants)


def perform(c: Any, do: str, n: int, ids: list[int]) -> None:
    """One call as the ledger describes it."""
    if do in ("upsert", "load"):
        put(c, ids, [n] * len(ids))
    elif do == "vectors":
        c.update(ids, vectors=vectors_of(ids, [n] * len(ids)))
    elif do == "fields":
        c.update(ids, fields=[{"f": n}] * len(ids))
    elif do == "delete":
        c.delete(ids)
    else:
        raise AssertionError(do)


def said(ledger: LedgerWriter, c: Any, do: str, n: int, ids: list[int]) -> None:
    """Intent, call, acknowledgement."""
    ledger.line(n=n, do=do, ids=ids)
    perform(c, do, n, ids)
    ledger.line(ack=n)


# -- crash -------------------------------------------------------------------------------------------


def crash(path: str, ledger: str, seed: int, live_min: int, broken: bool = False, index: str = "auto") -> None:
    """Write from several threads, with upkeep, until killed. Goes on where the ledger ends."""
    if broken:
        acknowledge_before_commit()
    book = LedgerWriter(Path(ledger))
    db = open_database(path)
    expected = Expected.of(read_ledger(Path(ledger)))
    n = max([0, *(line.get("n", 0) for line in read_ledger(Path(ledger)))]) + 1
    c = db.create_collection(NAME, DIM, "l2", index_of(index), exist_ok=True)
    if len(expected.kept) < live_min:
        fresh = [i for i in range(2 * live_min) if i not in expected.kept][: live_min + 200 - len(expected.kept)]
        said(book, c, "load", n, fresh)
        expected = Expected.of(read_ledger(Path(ledger)))
        n += 1
    book.line(ready=True)
    live = [[i for i in expected.kept if i % THREADS == t] for t in range(THREADS)]
    for t in range(THREADS):
        arguments = (book, c, random.Random(seed * THREADS + t), t, n + (t - n) % THREADS, live[t], live_min)
        threading.Thread(target=guarded, args=(book, _writer, *arguments), daemon=True).start()
    guarded(book, _caretaker, db, c, random.Random(seed))


def guarded(book: LedgerWriter, run: Any, *arguments: Any) -> None:
    try:
        run(*arguments)
    except BaseException:
        book.line(error=traceback.format_exc()[-800:])
        traceback.print_exc()
        os._exit(4)


def _writer(book: LedgerWriter, c: Any, rng: random.Random, t: int, n: int, live: list[int], live_min: int) -> None:
    known = set(live)
    while True:
        n += THREADS
        kind = rng.choices(["new", "over", "mixed", "vectors", "fields", "delete"], [3, 3, 4, 2, 2, 3])[0]
        size = rng.choice([1, 1, 1, 3, 20, 90])
        present = sorted(known)
        if kind == "delete" and len(present) * THREADS < live_min + 300:
            kind = "new"
        if kind in ("new", "mixed"):
            fresh = [i for i in (rng.randrange(1 << 20) * THREADS + t for _ in range(size)) if i not in known]
            ids = sorted(set(fresh + (rng.sample(present, min(size, len(present))) if kind == "mixed" else [])))
            do = "upsert"
        else:
            ids = rng.sample(present, min(size, len(present)))
            do = {"over": "upsert"}.get(kind, kind)
        if not ids:
            continue
        said(book, c, do, n, ids)
        known = known - set(ids) if do == "delete" else known | set(ids)


def _caretaker(db: Database, c: Any, rng: random.Random) -> None:
    """The calls that are no writes, at random, for ever."""
    while True:
        kind = rng.choice(["optimize", "vacuum", "search", "search", "seal", "check"])
        if kind == "optimize":
            c.optimize()
        elif kind == "vacuum":
            c.vacuum()
        elif kind == "seal":
            c._backend.jobs.seal(1)
        elif kind == "check":
            problems = db.check()
            assert not problems, problems
        else:
            c.search(vectors_of(range(20), range(20)), 5)


def acknowledge_before_commit() -> None:
    """The broken build: a write returns as soon as it is queued."""
    from vecdb.commit import committer, record_requests

    def submit(self: Any, request: Any) -> Any:
        if not isinstance(
            request, (record_requests.UpsertRecords, record_requests.UpdateRecords, record_requests.DeleteRecords)
        ):
            return honest(self, request)
        job = committer._QueuedRequest(request)
        with self._wake:
            self._queue.append(job)
            self._wake.notify()
        return len(request.ids.keys)

    honest = committer.Committer.submit
    committer.Committer.submit = submit  # type: ignore[method-assign]


def verdict(path: str, ledger: str, losable: int = 0, lines: int | None = None) -> dict[str, Any]:
    """`verify` in a child, so that even a signal is only a result."""
    expected = Expected.of(read_ledger(Path(ledger))[:lines], losable=losable)
    found = verify(Path(path), expected, maintenance=False)
    return {"checked": found.checked, "happened": found.happened, "void": found.void}


# -- a short script: each kind of call once or a few times -------------------------------------------


def script(
    path: str, ledger: str, durability: str = "full", broken: bool = False, index: str = "auto"
) -> dict[str, Any]:
    """Everything that writes, in one thread, in few system calls. `broken`: commits do not sync the vectors
    that they count."""
    limits.flat_rows_max = 32
    index_jobs._SEAL_AT_CLOSE_ROWS = 8
    if broken:
        from vecdb.storage.disk.row_file import Rows

        Rows.sync = lambda self: None  # type: ignore[method-assign]
    book = LedgerWriter(Path(ledger))
    db = open_database(path, maintenance=False, durability=durability)
    c = db.create_collection(NAME, DIM, "l2", index_of(index), exist_ok=True)
    for n, (do, ids) in enumerate(SCRIPT, 1):
        if do == "optimize":
            c.optimize()
        elif do == "vacuum":
            c.vacuum()
        elif do == "other":
            other = db.create_collection("other", 4, "ip", exist_ok=True)
            other.upsert([1, 2], vectors_of([1, 2], [n, n], 4))
            db.drop_collection("other")
        else:
            said(book, c, do, n, ids)
    db.close()
    return {"calls": len(SCRIPT)}


SCRIPT: list[tuple[str, list[int]]] = [
    ("upsert", list(range(48))),
    ("upsert", [3, 5, 100]),
    ("delete", [0, 1, 2]),
    ("vectors", [10, 11]),
    ("optimize", []),
    ("fields", [12, 13, 14]),
    ("upsert", [200]),
    ("fields", [14, 22, 40, 41]),
    ("delete", list(range(20, 40))),
    ("vacuum", []),
    ("fields", [41, 42]),
    ("upsert", [20, 21, 3]),
    ("other", []),
    ("delete", [21]),
    ("upsert", list(range(300, 310))),
]


def settled(path: str, ledger: str) -> dict[str, Any]:
    """`optimize` after a kill, then the verdict: the index holds every row."""
    limits.flat_rows_max = 32
    with open_database(path, maintenance=False) as db:
        if NAME in db.collections():
            db[NAME].optimize()
            stats = db[NAME].stats()
            assert stats["rows"] < limits.flat_rows_max or stats["tail_rows"] == 0, stats
            assert stats["index_state"] == "ready", stats
    return verdict(path, ledger)


def verdicts(paths: list[str], ledger: str, lines: list[int], losable: int = 0) -> dict[str, Any]:
    """`verify` for many images of one run: {"wrong": [[at, text]...], "checked": live records compared}."""
    wrong, checked = [], 0
    book = read_ledger(Path(ledger))
    for at, (path, count) in enumerate(zip(paths, lines, strict=True)):
        try:
            checked += verify(Path(path), Expected.of(book[:count], losable=losable), maintenance=False).checked
        except BaseException as error:
            wrong.append([at, f"{type(error).__name__}: {error}"])
    return {"wrong": wrong, "checked": checked}
