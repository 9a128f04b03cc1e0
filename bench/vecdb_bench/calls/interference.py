"""interference: the latency of searches in one thread while another thread upserts batches.

    for round in rounds:  idle seconds, then busy seconds        the writer runs in the busy seconds only

The ratio compares each round's busy p99 with the same round's idle p99; the summary gives the best and the median.
"""

from __future__ import annotations

import statistics
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import vecdb
from vecdb_bench.reporting import machine
from vecdb_bench.runner import latencies_ms
from vecdb_datasets import load

Say = Callable[[str], None]


def interference(
    *,
    path: Path | None = None,
    dataset: str = "glove-50",
    folder: str | None = None,
    rows: int = 100_000,
    batch_rows: int = 1_000,
    seconds: float = 5.0,
    rounds: int = 3,
    limit: int = 10,
    say: Say = lambda text: None,
) -> dict[str, Any]:
    """Measure. The writer upserts the rows of the data set beyond `rows`, or the first ones again."""
    data = load(dataset, folder)
    loaded = data.base[:rows]
    spare = data.base[rows:] if len(data.base) >= rows + batch_rows else loaded
    found: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="vecdb-bench-", dir=path) as made:
        with vecdb.open(Path(made) / "db") as db:
            docs = db.create_collection(
                "bench", dim=data.dim, metric=data.metric, dtype=str(data.base.dtype), index=vecdb.Hnsw()
            )
            say(f"loading {len(loaded):,} rows")
            step = 20_000
            for start in range(0, len(loaded), step):
                stop = min(start + step, len(loaded))
                docs.upsert(np.arange(start, stop), loaded[start:stop])
            docs.optimize()
            writer = Writer(docs, spare, batch_rows, first_id=len(loaded))
            for at in range(rounds):
                say(f"round {at + 1}: idle")
                idle = latencies_ms(_search_for(docs, data.queries, limit, seconds))
                say(f"round {at + 1}: beside a writer")
                with writer:
                    busy = latencies_ms(_search_for(docs, data.queries, limit, seconds))
                found.append({"idle": idle, "busy": busy, "ratio_p99": busy["p99"] / idle["p99"]} | writer.figures())
                docs.optimize()
    ratios = [round_["ratio_p99"] for round_ in found]
    rows_shown = [
        {
            "round": at + 1,
            "idle p50 ms": round_["idle"]["p50"],
            "idle p99 ms": round_["idle"]["p99"],
            "busy p50 ms": round_["busy"]["p50"],
            "busy p99 ms": round_["busy"]["p99"],
            "p99 ratio": round_["ratio_p99"],
            "written rows/s": round_["rows_per_second"],
        }
        for at, round_ in enumerate(found)
    ]
    return {
        "benchmark": "interference",
        "plan": {"dataset": dataset, "rows": len(loaded), "batch_rows": batch_rows, "seconds": seconds, "limit": limit},
        "machine": machine.facts(),
        "rounds": found,
        "ratio_p99_best": min(ratios),
        "ratio_p99_median": statistics.median(ratios),
        "tables": {"one searching thread, without and with a writing one": rows_shown},
    }


def _search_for(docs: vecdb.Collection, queries: Any, limit: int, seconds: float) -> list[float]:
    for query in queries[:50]:
        docs.search(query, limit=limit)
    times = []
    ends = time.perf_counter() + seconds
    at = 0
    while (started := time.perf_counter()) < ends:
        docs.search(queries[at % len(queries)], limit=limit)
        times.append(time.perf_counter() - started)
        at += 1
    return times


class Writer:
    """A thread that upserts batches without a pause within a `with` block."""

    def __init__(self, docs: vecdb.Collection, vectors: Any, batch_rows: int, first_id: int) -> None:
        self._docs, self._vectors, self._batch_rows = docs, vectors, batch_rows
        self._next_id = first_id
        self._error: BaseException | None = None

    def __enter__(self) -> Writer:
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._began, self._first = time.perf_counter(), self._next_id
        self._thread.start()
        return self

    def __exit__(self, *of: object) -> None:
        self._stop.set()
        self._thread.join()
        self._took = time.perf_counter() - self._began
        if self._error is not None:
            raise self._error

    def figures(self) -> dict[str, float]:
        return {"rows_per_second": (self._next_id - self._first) / self._took}

    def _run(self) -> None:
        try:
            while not self._stop.is_set():
                at = self._next_id % max(1, len(self._vectors) - self._batch_rows)
                ids = np.arange(self._next_id, self._next_id + self._batch_rows)
                self._docs.upsert(ids, self._vectors[at : at + self._batch_rows])
                self._next_id += self._batch_rows
        except BaseException as error:  # raised in the thread that measures
            self._error = error
