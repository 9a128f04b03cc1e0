"""What runs in forked children: each function is one worker, named by `ForkServer.fork`. Arguments and results
are JSON."""

from __future__ import annotations

import gc
import json
import os
import random
import signal
import threading
import traceback
from pathlib import Path
from typing import Any

import numpy as np

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
    limits.journal_pairs, limits.journal_entry_pairs, limits.fold_pairs = 192, 96, 16
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
        threading.Thread(target=_guarded, args=(book, _writer, *arguments), daemon=True).start()
    _guarded(book, _caretaker, db, c, random.Random(seed))


def _guarded(book: LedgerWriter, run: Any, *arguments: Any) -> None:
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
            c._engine.upkeep.seal(1)
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
    ("delete", list(range(20, 40))),
    ("vacuum", []),
    ("upsert", [20, 21, 3]),
    ("other", []),
    ("delete", [21]),
    ("upsert", list(range(300, 310))),
]


LISTS_SCRIPT: list[tuple[str, list[int]]] = [
    ("upsert", list(range(160))),
    ("optimize", []),  # a bulk build
    ("upsert", list(range(160, 360))),
    ("delete", list(range(5, 15))),
    ("upsert", list(range(360, 560))),
    ("optimize", []),  # lists pass their ceiling
    *(("delete", list(range(start, start + 150))) for start in (20, 170, 320)),
    ("upsert", list(range(540, 550))),
    ("optimize", []),  # lists are nearly empty
    ("vacuum", []),
    ("upsert", list(range(600, 620))),
]


def lists_script(path: str, ledger: str, index: str, kill: str = "", number: int = 1) -> dict[str, Any]:
    """What writes lists: a bulk build with entries in a file, splits, merges, seals, a vacuum. `kill` : the moment of
    LISTS_MOMENTS, met for the `number`-th time, at which the process kills itself; how often each was met.
    """
    from vecdb.index.spann import bulk_build

    limits.flat_rows_max = 32
    limits.index_step_rows = 64
    index_jobs._SEAL_AT_CLOSE_ROWS = 8
    _build_in_small_steps(bulk_build)
    book = LedgerWriter(Path(ledger))
    met = _watch_lists(book, kill, number)
    db = open_database(path, maintenance=False)
    c = db.create_collection(NAME, DIM, "l2", index_of(index), exist_ok=True)
    for n, (do, ids) in enumerate(LISTS_SCRIPT, 1):
        if do == "optimize":
            c.optimize()
        elif do == "vacuum":
            c.vacuum()
        else:
            said(book, c, do, n, ids)
    db.close()
    return {"met": met}


def _build_in_small_steps(bulk: Any) -> None:
    """Builds of a few hundred rows leave what large ones do, in many pieces."""
    limits.saved_build_rows_min = 64
    bulk._BUCKET_BYTES = 1_024
    bulk._CHUNK_BYTES = 4 * DIM * 256


def build_lists(path: str, ledger: str, index: str, kill: str = "", number: int = 1) -> dict[str, Any]:
    """One bulk build of 2,000 rows, which are there from the first call on. Killed as `lists_script` is; else what the
    lists are, what they answer, how many trees were grown, and what files are left.
    """
    import zlib

    from vecdb.index.spann import bulk_build

    _build_in_small_steps(bulk_build)
    met = _watch_lists(LedgerWriter(Path(ledger)), kill, number)
    grown = 0
    grow_tree = bulk_build.grow_tree

    def counted(*arguments: Any) -> Any:
        nonlocal grown
        grown += 1
        return grow_tree(*arguments)

    bulk_build.grow_tree = counted
    rows = list(range(2_000))
    with open_database(path, maintenance=False) as db:
        c = db.create_collection(NAME, DIM, "l2", index_of(index), exist_ok=True)
        if c.count() == 0:
            put(c, rows, [1] * len(rows))
        c.optimize()
        snapshot = c._engine.snapshot.generation.index.lists.view  # type: ignore[attr-defined]
        hits = c.search(vectors_of(rows[:100], [2] * 100), 10, params=vecdb.SearchParams(nprobe=3))
        return {
            "met": met,
            "grown": grown,
            "lists": [zlib.crc32(snapshot.heads.codes.tobytes()), zlib.crc32(snapshot.lengths.tobytes())],
            "ids": hits.ids.tolist(),
            "files": sorted({file.name.partition(".")[0] for file in c._engine.folder.iterdir()}),
            "problems": db.check(),
        }


LISTS_MOMENTS = [
    "bulk: tree half written", "bulk: tree saved", "bulk: half spilt", "bulk: spilt", "bulk: laid out",
    "split: chosen", "split: done", "merge: done", "list: half written", "seal: lists", "seal: half written",
    "seal: written", "seal: committed", "vacuum: renumbered",
]  # fmt: skip


_HALF_WRITTEN = {
    "lists": "list: half written",
    "spann": "seal: half written",
    "tree": "bulk: tree half written",
    "entries": "bulk: half spilt",
}


def _watch_lists(book: LedgerWriter, kill: str, number: int) -> dict[str, int]:
    """Count the moments, and end the process by SIGKILL at one of them, said in the ledger before."""
    from vecdb.index.spann import build_checkpoint, bulk_build, list_updates
    from vecdb.index.spann.entry_spool import EntrySpool
    from vecdb.storage.disk import filesystem, list_file

    met = dict.fromkeys(LISTS_MOMENTS, 0)

    def moment(name: str) -> bool:
        met[name] += 1
        return name == kill and met[name] == number

    def die() -> None:
        book.line(killed=kill)
        os.kill(os.getpid(), signal.SIGKILL)

    def wrap(place: Any, name: str, before: Any = None, after: Any = None) -> None:
        real = getattr(place, name)

        def twin(*arguments: Any, **named: Any) -> Any:
            if before is not None and any(moment(what) for what in before(*arguments)):
                die()
            value = real(*arguments, **named)
            if after is not None and any(moment(what) for what in after(*arguments)):
                die()
            return value

        setattr(place, name, twin)

    def pwrite(fd: int, data: Any, offset: int) -> None:
        name = os.path.basename(os.readlink(f"/proc/self/fd/{fd}"))
        what = next((what for start, what in _HALF_WRITTEN.items() if name.startswith(start)), "")
        if what and moment(what):
            real_pwrite(fd, memoryview(data).cast("B")[: memoryview(data).nbytes // 2 + 1], offset)
            die()
        real_pwrite(fd, data, offset)

    real_pwrite, filesystem.pwrite = filesystem.pwrite, pwrite
    wrap(build_checkpoint, "save", after=lambda *_: ["bulk: tree saved"])
    wrap(EntrySpool, "add", after=lambda waiting, *_: ["bulk: spilt"] if waiting.fd >= 0 else [])
    wrap(bulk_build, "_bodies", after=lambda *_: ["bulk: laid out"])
    wrap(list_updates, "_split_all", after=lambda *a: ["split: chosen"] if len(a[4]) else [])
    wrap(
        list_updates, "_restructure",
        after=lambda _, over, small, *__: ["split: done"] * bool(len(over)) + ["merge: done"] * bool(len(small)),
    )  # fmt: skip
    wrap(list_file.ListFile, "sync", after=lambda *_: ["seal: lists"])
    wrap(index_jobs, "PatchState", before=lambda *a: ["seal: written"] if "sealed" in a[2] else [])
    wrap(index_jobs.IndexMaintenance, "_remove_files", before=lambda *_: ["seal: committed"])
    wrap(list_updates, "renumbered_lists", after=lambda *_: ["vacuum: renumbered"])
    return met


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


# -- collections, backups and restores come and go ---------------------------------------------------


def lifecycle(path: str, ledger: str, seed: int) -> None:
    """Create, fill, vacuum, back up, restore and drop, for ever. Each collection holds ids 0..39 of its own number."""
    rng = random.Random(seed)
    book = LedgerWriter(Path(ledger))
    _guarded(book, _lifecycle, path, book, rng)


def _lifecycle(path: str, book: LedgerWriter, rng: random.Random) -> None:
    db = open_database(path)
    book.line(ready=True)
    while True:
        number = rng.randrange(1 << 40)
        there = db.collections()
        kind = rng.choice(["create", "create", "drop", "backup", "vacuum", "restore"])
        if kind == "create" or len(there) < 3:
            name = f"c{number}"
            book.line(begin="create", name=name, number=number)
            c = db.create_collection(name, DIM, "l2")
            book.line(end="create", name=name)
            ids = list(range(40))
            book.line(begin="fill", name=name)
            put(c, ids, [number % (1 << 32)] * 40)
            book.line(end="fill", name=name)
        elif kind == "drop":
            name = rng.choice(there)
            book.line(begin="drop", name=name)
            db.drop_collection(name)
            book.line(end="drop", name=name)
        elif kind == "vacuum":
            c = db[rng.choice(there)]
            ids = [i for i in range(0, 40, 2) if c.get(i) is not None]
            if ids:
                version = int(c.get(ids[0]).fields["f"])
                put(c, ids, [version] * len(ids))  # the same records in new rows
            c.vacuum()
        else:
            target = f"{path}.backup{number}"
            book.line(begin="backup", name=target)
            db.backup(target)
            book.line(end="backup", name=target)
            if kind == "restore":
                book.line(begin="restore", name=f"{path}.restored{number}")
                vecdb.restore(target, f"{path}.restored{number}")
                book.line(end="restore", name=f"{path}.restored{number}")


def large_deletion(path: str) -> dict[str, Any]:
    """One call deletes so many records that their marks fill pages of LMDB; then whatever copies its file."""
    with open_database(path, maintenance=False) as db:
        kept, passing = (db.create_collection(name, DIM, "l2", vecdb.Flat()) for name in (NAME, "passing"))
        ids = list(range(4_000))
        put(kept, ids, [1] * len(ids))
        put(passing, ids, [1] * len(ids))
        kept.delete(ids[:900])
        db.backup(path + ".backup")
        passing.delete(ids[:2_000])
        passing.vacuum()
        counts = [kept.count(), passing.count()]
        problems = db.check()
    vecdb.restore(path + ".backup", path + ".restored")
    for place in (path, path + ".restored"):
        with open_database(place, maintenance=False) as db:
            counts.append(db[NAME].count())
            problems += db.check()
    return {"counts": counts, "problems": problems}


def lifecycle_verdict(path: str, ledger: str) -> dict[str, Any]:
    """Compare collections, backups and restored databases with the ledger."""
    begun: dict[tuple[str, str], dict[str, Any]] = {}
    ended: set[tuple[str, str]] = set()
    numbers: dict[str, int] = {}
    wrong: list[str] = []
    for line in read_ledger(Path(ledger)):
        if "begin" in line:
            begun[line["begin"], line["name"]] = line
            numbers.setdefault(line["name"], line.get("number", 0))
        elif "end" in line:
            ended.add((line["end"], line["name"]))
        elif "error" in line:
            wrong.append(line["error"])

    def state(name: str) -> set[bool]:
        """Whether a collection may exist."""
        if ("drop", name) in ended or ("create", name) not in begun:
            return {False}
        if ("drop", name) in begun or ("create", name) not in ended:
            return {True, False}
        return {True}

    def look(place: str, *, partial: bool) -> None:
        with open_database(place, maintenance=False) as db:
            wrong.extend(f"{place}: {problem}" for problem in db.check())
            there = set(db.collections())
            for name in {name for _, name in begun if not name.startswith("/")} if not partial else there:
                allowed = state(name) if not partial else {True}
                if (name in there) not in allowed:
                    wrong.append(f"{place}: collection {name} exists: {name in there}, allowed {allowed}")
                if name in there:
                    looked.append(name)
                    version = numbers[name] % (1 << 32)
                    records = [r for batch in db[name].iter(100, include_vectors=True) for r in batch]
                    if len(records) not in ({40} if ("fill", name) in ended and not partial else {0, 40}):
                        wrong.append(f"{place}: {name} has {len(records)} records")
                    right = vectors_of([r.id for r in records], [version] * len(records))
                    if records and not all((r.vector == v).all() for r, v in zip(records, right, strict=True)):
                        wrong.append(f"{place}: {name} holds other vectors")

    looked: list[str] = []
    look(path, partial=False)
    copies = 0
    for kind in ("backup", "restore"):
        for what, name in list(begun):
            if what != kind:
                continue
            if not Path(name).exists():
                if (kind, name) in ended:
                    wrong.append(f"{name} was acknowledged and is gone")
                continue
            copies += 1
            if kind == "backup":
                vecdb.restore(name, name + ".verify")
                look(name + ".verify", partial=True)
                import shutil

                shutil.rmtree(name + ".verify")
            else:
                look(name, partial=True)
    return {"wrong": wrong, "collections": len(looked), "copies": copies}


# -- other processes ---------------------------------------------------------------------------------


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
