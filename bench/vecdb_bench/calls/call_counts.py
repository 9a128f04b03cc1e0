"""call_counts: how many Python calls one search or one write makes, and how often control moves between files.

    a call    a Python function of vecdb that is entered; functions of NumPy, LMDB and the kernels do not count
    a move    a call that enters another file than the one that the caller's frame is in

    search   hnsw and spann, 5 hits with fields; curator, the records of one tenant      caller's thread
    upsert   one record that exists, which moves from one searched tenant to another     caller's and commit thread

Each call is repeated before it is counted, so that caches are warm. Timings vary with the machine, these counts do
not: they show what a change of the code adds to the path of a single call.

    python -m vecdb_bench.calls.call_counts [--files]      --files: the calls of each file, too
"""

from __future__ import annotations

import sys
import threading
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np

import vecdb

ROWS, DIM, LIMIT = 6_000, 64, 5
_PACKAGE = str(Path(vecdb.__file__).parent)
_COMMIT = "vecdb-commit"  # the thread that writes


class Calls:
    """Counts what happens on each thread between `start` and `stop`."""

    def __init__(self) -> None:
        self.counting = False
        self.by_function: dict[str, Counter[str]] = {}
        self.moves: Counter[str] = Counter()
        self._names: dict[int, str] = {}

    def install(self) -> None:
        """For this thread and all that are started from now on."""
        threading.setprofile(self._profile)
        sys.setprofile(self._profile)

    def uninstall(self) -> None:
        threading.setprofile(None)
        sys.setprofile(None)

    def of(self, call: Callable[[], Any]) -> None:
        self.by_function.clear()
        self.moves.clear()
        self.counting = True
        call()
        self.counting = False

    def _profile(self, frame: FrameType, event: str, arg: Any) -> None:
        if event != "call" or not self.counting:
            return
        code = frame.f_code
        if not code.co_filename.startswith(_PACKAGE):
            return
        number = threading.get_ident()
        if number not in self._names:
            self._names[number] = threading.current_thread().name
        name = self._names[number]
        where = code.co_filename[len(_PACKAGE) + 1 :]
        self.by_function.setdefault(name, Counter())[f"{where} {code.co_qualname}"] += 1
        back = frame.f_back
        if back is not None and back.f_code.co_filename != code.co_filename:
            self.moves[name] += 1

    def lines(self, what: str, *, files: bool) -> list[str]:
        out = []
        for name, functions in sorted(self.by_function.items()):
            if name not in (threading.current_thread().name, _COMMIT):
                continue
            by_file: Counter[str] = Counter()
            for function, count in functions.items():
                by_file[function.split()[0]] += count
            thread = "commit thread" if name == _COMMIT else "caller"
            out.append(f"{what:42} {thread:14} {functions.total():5} {len(by_file):6} {self.moves[name]:6}")
            if files:
                out += [f"    {count:4}  {where}" for where, count in by_file.most_common()]
        return out


def call_counts(folder: str = ":memory:", *, files: bool = False) -> list[str]:
    """One line a call and thread."""
    calls = Calls()
    calls.install()
    try:
        return [f"{'call':42} {'thread':14} {'calls':>5} {'files':>6} {'moves':>6}", *_measure(calls, folder, files)]
    finally:
        calls.uninstall()


def _measure(calls: Calls, folder: str, files: bool) -> list[str]:
    rng = np.random.default_rng(1)
    vectors = rng.normal(size=(ROWS, DIM)).astype(np.float32)
    fields = [{"n": row, "text": f"record {row}"} for row in range(ROWS)]
    tenants = [[f"tenant {row % 3}"] for row in range(ROWS)]
    lines = []
    with vecdb.open(folder, maintenance=False) as db:  # which would change snapshots in between
        for kind in (vecdb.Hnsw(), vecdb.Spann(), vecdb.Curator()):
            name = type(kind).__name__.lower()
            docs = db.create_collection(name, dim=DIM, metric="l2", index=kind)
            docs.upsert(np.arange(ROWS), vectors, fields, tenants=tenants)
            docs.optimize()
            tenant: dict[str, Any] = {"tenant": "tenant 1", "fields": []} if name == "curator" else {}
            what = f"{name} search" + (" of a tenant, no fields" if tenant else " with fields")
            search = partial(docs.search, vectors[7], limit=LIMIT, **tenant)
            for _ in range(3):
                search()
            calls.of(search)
            lines += calls.lines(what, files=files)
            if name == "hnsw":
                upsert = partial(docs.upsert, vectors=vectors[7:8], fields=fields[7:8], tenants=[["tenant 2"]])
                upsert([10])
                for searched in ("tenant 1", "tenant 2"):
                    docs.search(vectors[7], limit=LIMIT, tenant=searched)
                calls.of(partial(upsert, [7]))
                lines += calls.lines("hnsw upsert of one record, one tenant", files=files)
    return lines


if __name__ == "__main__":
    print("\n".join(call_counts(files="--files" in sys.argv)))
