"""ingest: the speed of durable writes.

    singles    16 threads, one record a call: group commit syncs once for many of them
    batches    1,000 x 384 float32 a call, until acknowledged; so few that the graph need not keep up
    sustained  many more batches: writers wait where the graph falls behind; and the time until the graph has every row

Every write is acknowledged under durability "full". Choose a folder on the disk to be measured: --path.
"""

from __future__ import annotations

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

Say = Callable[[str], None]


def ingest(
    *,
    path: Path | None = None,
    dim: int = 384,
    threads: int = 16,
    seconds: float = 5.0,
    batch_rows: int = 1_000,
    batches: int = 30,
    sustained_batches: int = 100,
    rounds: int = 3,
    seed: int = 1,
    say: Say = lambda text: None,
) -> dict[str, Any]:
    """Measure. The result has every round of singles and batches, the table the best."""
    vectors = unit_vectors(batch_rows * 8, dim, seed)
    with tempfile.TemporaryDirectory(prefix="vecdb-bench-", dir=path) as folder:
        with vecdb.open(Path(folder) / "db") as db:
            _warm(db, vectors)
            singles, bursts = [], []
            for at in range(rounds):
                say(f"round {at + 1}: {threads} threads, one record a call")
                singles.append(_singles(db, vectors, threads, seconds, f"singles{at}"))
                say(f"round {at + 1}: {batches} batches of {batch_rows}")
                bursts.append(_batches(db, vectors, batch_rows, batches, f"batches{at}"))
            say(f"{sustained_batches} batches of {batch_rows}, and the graph")
            sustained = _batches(db, vectors, batch_rows, sustained_batches, "sustained")
            disk = db.stats()["bytes_disk"]
    best = {
        "one record a call": max(singles, key=lambda round_: round_["rows_per_second"]),
        "batches": max(bursts, key=lambda round_: round_["rows_per_second"]),
        "batches, the graph keeping up": sustained,
    }
    return {
        "benchmark": "ingest",
        "plan": {
            "dim": dim,
            "threads": threads,
            "batch_rows": batch_rows,
            "batches": batches,
            "sustained_batches": sustained_batches,
            "seed": seed,
        },
        "machine": machine.facts(),
        "singles": singles,
        "batches": bursts,
        "sustained": sustained,
        "disk_bytes": disk,
        "tables": {name: [figures] for name, figures in best.items()},
    }


def _singles(db: vecdb.Database, vectors: Any, threads: int, seconds: float, name: str) -> dict[str, float]:
    docs = db.create_collection(name, dim=vectors.shape[1], metric="cosine")
    counts = [0] * threads
    waits: list[list[float]] = [[] for _ in range(threads)]
    gate = threading.Barrier(threads + 1)
    stop = threading.Event()

    def write(worker: int) -> None:
        gate.wait()
        while not stop.is_set():
            at = counts[worker]
            started = time.perf_counter()
            docs.upsert([worker * 10_000_000 + at], vectors[at % len(vectors)][None])
            waits[worker].append(time.perf_counter() - started)
            counts[worker] = at + 1

    workers = [threading.Thread(target=write, args=(worker,)) for worker in range(threads)]
    for worker in workers:
        worker.start()
    commits = db.stats()["commits"]
    gate.wait()
    started = time.perf_counter()
    stop.wait(seconds)
    stop.set()
    for worker in workers:
        worker.join()
    took = time.perf_counter() - started
    commits = db.stats()["commits"] - commits
    rows = sum(counts)
    assert docs.count() == rows, "an acknowledged row is missing"
    wait = latencies_ms([each for worker in waits for each in worker])
    return {
        "rows_per_second": rows / took,
        "commits_per_second": commits / took,
        "rows_per_commit": rows / max(1, commits),
        "ack_ms_p50": wait["p50"],
        "ack_ms_p99": wait["p99"],
    }


def _batches(db: vecdb.Database, vectors: Any, batch_rows: int, batches: int, name: str) -> dict[str, float]:
    docs = db.create_collection(name, dim=vectors.shape[1], metric="cosine", index=vecdb.Hnsw())
    waits = []
    started = time.perf_counter()
    for at in range(batches):
        first = at * batch_rows % len(vectors)
        ids = np.arange(at * batch_rows, (at + 1) * batch_rows)
        called = time.perf_counter()
        docs.upsert(ids, vectors[first : first + batch_rows])
        waits.append(time.perf_counter() - called)
    acknowledged = time.perf_counter() - started
    docs.optimize()
    indexed = time.perf_counter() - started
    rows = batch_rows * batches
    assert docs.count() == rows, "an acknowledged row is missing"
    wait = latencies_ms(waits)
    return {
        "rows_per_second": rows / acknowledged,
        "mib_per_second": rows * vectors[:1].nbytes / acknowledged / 2**20,
        "ack_ms_p50": wait["p50"],
        "ack_ms_p99": wait["p99"],
        "rows_per_second_with_graph": rows / indexed,
    }


def unit_vectors(rows: int, dim: int, seed: int) -> Any:
    """Unit vectors around a thousand centres: more like embeddings than noise is."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(1_000, dim)).astype(np.float32)
    vectors = centres[rng.integers(0, len(centres), rows)] + 0.5 * rng.normal(size=(rows, dim)).astype(np.float32)
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), np.float32)


def _warm(db: vecdb.Database, vectors: Any) -> None:
    """Compile the kernels that the measured calls use."""
    docs = db.create_collection("warm", dim=vectors.shape[1], metric="cosine", index=vecdb.Hnsw())
    docs.upsert(np.arange(len(vectors)), vectors)
    docs.upsert([0], vectors[:1])
    docs.optimize()
    docs.search(vectors[0])
    db.drop_collection("warm")
