"""Compiles the kernels that most tests use, before the processes start that share the tests: each of them would compile
the same. Run as a program, with the number of a part as argument; machine code that is cached already is only loaded.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
DTYPES = ("float32", "uint8", "float16", "int8")
# Kinds of index, and shapes of data that need codes of other formats, or more than one block of codes. A minute of
# processor time each; what both parts need comes early in one and late in the other.
PARTS: tuple[tuple[str | tuple[str, int], ...], ...] = (
    ("flat", "hnsw", ("wide x60", 32), ("clusters .001", 32), ("clusters .00001", 32)),
    ("curator", "spann", "spann-disk", ("gauss", 100)),
)


def warm_in_processes() -> None:
    """All parts at the same time, each in a process. A failure is not reported here: the tests will show it."""
    commands = [[sys.executable, "-m", "tests.support.warm_kernels", str(part)] for part in range(len(PARTS))]
    started = [subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL) for command in commands]
    for process in started:
        process.wait()


def warm(kind: str, dtype: Any) -> None:
    """Write, build, search, delete, repair and vacuum a small collection in memory."""
    import numpy as np

    import vecdb

    index: Any = {
        "flat": vecdb.Flat(),
        "hnsw": vecdb.Hnsw(m=4, ef_construction=24),
        "curator": vecdb.Curator(leaf_rows=8, scan_max=32, shortlist_max=12),
        "spann": vecdb.Spann(head_ratio=0.1),
        "spann-disk": vecdb.Spann(head_ratio=0.1, memory_budget_bytes=0),
    }[kind]
    vectors = np.random.default_rng(1).integers(1, 100, (700, 8)).astype(dtype)
    with vecdb.open(":memory:") as db:
        docs = db.create_collection("warm", 8, "l2", index, dtype=dtype)
        docs.upsert(range(700), vectors, tenants=["a"])
        docs.optimize()
        docs.delete(range(300))
        docs.optimize()
        docs.vacuum()
        docs.search(vectors[:20], 10)
        docs.search(vectors[0], 10, tenant="a")
        docs.search(vectors[:20], 1, params=vecdb.SearchParams(exact=True))


def warm_codes(shape: str, dim: int) -> None:
    """The same with a graph on codes that such data need."""
    import vecdb
    from tests.support import awkward

    vectors = awkward.shape(shape, 600, dim)
    with vecdb.open(":memory:") as db:
        docs = db.create_collection("warm", dim, "l2", vecdb.Hnsw(m=4, ef_construction=24))
        docs.upsert(range(600), vectors)
        docs.optimize()
        docs.delete(range(200))
        docs.optimize()
        docs.search(vectors[:20], 10)


if __name__ == "__main__":
    from vecdb import limits

    limits.flat_rows_max = 32
    for part in PARTS[int(sys.argv[1])]:
        if isinstance(part, tuple):
            warm_codes(*part)
            continue
        for dtype in DTYPES:
            warm(part, dtype)
