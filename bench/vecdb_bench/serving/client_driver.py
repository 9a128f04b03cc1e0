"""A user's program: opens a database, embedded (a path) or remote (a URL), and searches it or writes to it.

Arguments: path or URL, queries.npy. Both run the same code, so what is compared is what a user sees.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

import vecdb
from vecdb_bench.child_process import answer_lines
from vecdb_bench.ingest import unit_vectors
from vecdb_bench.runner import latencies_ms

COLLECTION = "bench"
TENANTS = 100

# what a bulk upsert has besides ids and vectors
EXTRAS: dict[str, Callable[[int], dict[str, Any]]] = {
    "vectors": lambda rows: {},
    "fields": lambda rows: {"fields": [{"n": n, "lang": "en", "title": f"the title of page {n}"} for n in range(rows)]},
    "tenants": lambda rows: {"tenants": [[f"tenant-{n % TENANTS}"] for n in range(rows)]},
}


class ClientDriver:
    def __init__(self, where: str, queries: str) -> None:
        self._db: Any = vecdb.open(where)
        self._docs = self._db.collection(COLLECTION)
        self._queries = np.load(queries)
        self._vectors = np.empty((0, 0), np.float32)

    def search(self, limit: int, seconds: float) -> dict[str, Any]:
        """One query a call, one thread, for `seconds`."""
        order = iter(np.resize(np.arange(len(self._queries)), 1 << 22).tolist())
        for _ in range(50):
            self._docs.search(self._queries[next(order)], limit)
        times: list[float] = []
        cpu, ends = time.process_time(), time.perf_counter() + seconds
        while (started := time.perf_counter()) < ends:
            self._docs.search(self._queries[next(order)], limit)
            times.append(time.perf_counter() - started)
        marks = latencies_ms(times)
        return {"cpu_us": (time.process_time() - cpu) / len(times) * 1e6, "n": len(times)} | {
            f"{name}_us": 1e3 * marks[name] for name in ("p50", "p99", "p99_9")
        }

    def batch(self, limit: int) -> dict[str, Any]:
        """All queries in one call: the time of a query is almost only that of its kernel."""
        started = time.perf_counter()
        self._docs.search(self._queries, limit)
        return {"us": (time.perf_counter() - started) / len(self._queries) * 1e6}

    def ingest(self, name: str, rows: int, dim: int, extra: str) -> dict[str, Any]:
        """`rows` vectors, and what `EXTRAS` says, in one call into a collection of its own, dropped again."""
        if self._vectors.shape != (rows, dim):
            self._vectors = unit_vectors(rows, dim, seed=1)
        brought = EXTRAS[extra](rows)
        docs = self._db.create_collection(name, dim=dim, metric="cosine")
        started = time.perf_counter()
        docs.upsert(np.arange(rows), self._vectors, atomic=False, **brought)
        took = time.perf_counter() - started
        found = docs.count()
        self._db.drop_collection(name)
        return {"rows_per_second": rows / took, "count": found}


if __name__ == "__main__":
    driver = ClientDriver(*sys.argv[1:])
    answer_lines({name: getattr(driver, name) for name in ("search", "batch", "ingest")})
