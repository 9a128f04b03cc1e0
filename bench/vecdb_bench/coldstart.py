"""coldstart: how long a new process takes to its first answer, counted from the start of the process.

    import     `import vecdb`, and nothing else
    first use  create, upsert, search in a new database     with an empty cache of machine code, then the next process
    open       open a database with a graph, search once         likewise

Each step is a process of its own, with a cache folder of its own. When it is done it prints the monotonic clock, which
all processes share. So every figure includes the time to load the interpreter.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from vecdb_bench.reporting import machine

Say = Callable[[str], None]

NOTHING = "pass"
IMPORT = "import vecdb"
BUILD = """
import numpy as np, vecdb
rng = np.random.default_rng(1)
vectors = rng.normal(size=({rows}, {dim})).astype(np.float32)
with vecdb.open({path!r}) as db:
    docs = db.create_collection("docs", dim={dim}, metric="cosine", index=vecdb.Hnsw())
    docs.upsert(np.arange({rows}), vectors)
    docs.optimize()
"""
OPEN = """
import numpy as np, vecdb
db = vecdb.open({path!r})
hits = db.collection("docs").search(np.ones({dim}, np.float32), limit=10)
assert len(hits.ids) == 10
"""
FIRST_USE = """
import numpy as np, vecdb
db = vecdb.open({path!r})
docs = db.create_collection("docs", dim={dim}, metric="cosine")
docs.upsert(np.arange(100), np.random.default_rng(1).normal(size=(100, {dim})).astype(np.float32))
assert len(docs.search(np.ones({dim}, np.float32), limit=10).ids) == 10
"""
PRINT_CLOCK = "\nimport sys, time; print(time.monotonic(), 'numba' in sys.modules, flush=True)\n"
EXIT = "\nimport os; os._exit(0)\n"  # closing is not part of a start


def coldstart(*, rows: int = 20_000, dim: int = 50, rounds: int = 3, say: Say = lambda text: None) -> dict[str, Any]:
    """Measure the best of `rounds` of each step. Each round begins with an empty cache."""
    with tempfile.TemporaryDirectory(prefix="vecdb-bench-") as made:
        folder = Path(made)
        graph = str(folder / "graph")
        say(f"building a graph of {rows:,} x {dim}")
        _run(BUILD.format(path=graph, rows=rows, dim=dim), folder / "cache-build")
        seconds: dict[str, list[float]] = {}
        numba_imported = False
        for at in range(rounds):
            say(f"round {at + 1}")
            cache = folder / f"cache-{at}"
            steps = {
                "interpreter alone": NOTHING,
                "import vecdb": IMPORT,
                "open and search, empty cache": OPEN.format(path=graph, dim=dim),
                "open and search, next process": OPEN.format(path=graph, dim=dim),
                "first use of a new database, next process": FIRST_USE.format(path=str(folder / f"new-{at}"), dim=dim),
            }
            for name, code in steps.items():
                took, imported = _run(code, cache)
                seconds.setdefault(name, []).append(took)
                numba_imported |= imported and name == "import vecdb"
            name = "first use of a new database, empty cache"
            took, _ = _run(FIRST_USE.format(path=str(folder / f"newest-{at}"), dim=dim), folder / f"cache-new-{at}")
            seconds.setdefault(name, []).append(took)
    return {
        "benchmark": "coldstart",
        "plan": {"rows": rows, "dim": dim, "rounds": rounds},
        "machine": machine.facts(),
        "seconds": seconds,
        "import_loads_numba": numba_imported,
        "tables": {
            "seconds from the start of the process": [
                {"step": name, "best": min(each), "worst": max(each)} for name, each in seconds.items()
            ]
        },
    }


def _run(code: str, cache: Path) -> tuple[float, bool]:
    """Seconds from the start of a process to the end of `code`, and whether it has loaded numba by then."""
    environment = {name: value for name, value in os.environ.items() if name != "NUMBA_CACHE_DIR"}
    environment |= {"XDG_CACHE_HOME": str(cache), "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    started = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", code + PRINT_CLOCK + EXIT], env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise RuntimeError(f"a cold start failed: {done.stderr.strip()}")
    clock, numba = done.stdout.split()[-2:]
    return float(clock) - started, numba == "True"
