"""Workers that build and change posting lists, and kill themselves at a chosen moment of it."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import vecdb
from tests.reliability.forked.records import index_of, put, said
from tests.reliability.harness import DIM, NAME, LedgerWriter, vectors_of
from vecdb import limits
from vecdb.embedded.open import open_database
from vecdb.maintenance import index_jobs

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
        snapshot = c._backend.state.snapshot.generation.index.lists.view  # type: ignore[attr-defined]
        hits = c.search(vectors_of(rows[:100], [2] * 100), 10, params=vecdb.SearchParams(nprobe=3))
        return {
            "met": met,
            "grown": grown,
            "lists": [zlib.crc32(snapshot.heads.codes.tobytes()), zlib.crc32(snapshot.lengths.tobytes())],
            "ids": hits.ids.tolist(),
            "files": sorted({file.name.partition(".")[0] for file in c._backend.state.folder.iterdir()}),
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
    wrap(index_jobs, "PatchState", before=lambda *a: ["seal: written"] if a[2].get("sealed") else [])
    wrap(index_jobs.CollectionMaintenance, "_remove_files", before=lambda *_: ["seal: committed"])
    wrap(list_updates, "renumbered_lists", after=lambda *_: ["vacuum: renumbered"])
    return met
