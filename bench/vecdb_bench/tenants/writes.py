"""The cost of durable writes of records with tenants, and of a million idle tenants.

Every write is acknowledged under durability "full"; bytes are what the process wrote to the disk meanwhile. Maintenance
that a kind of write causes is finished before the next kind begins. It is not in the figures, except where the name
says "tables included".
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

import vecdb
from vecdb_bench.child_process import EngineProcess
from vecdb_bench.engines.engine_process import process_io
from vecdb_bench.runner import latencies_ms
from vecdb_bench.tenants.plan import Plan
from vecdb_bench.tenants.workload import Workload

Call = Callable[[], Any]


def writes(plan: Plan, workload: Workload, folder: Path, say: Callable[[str], None]) -> dict[str, dict[str, float]]:
    """Insert, grant, revoke, delete in batches; create tenants."""
    found: dict[str, dict[str, float]] = {}
    rng = np.random.default_rng([plan.seed, 8])
    size = min(plan.batch_rows, len(workload.base) // 4)
    n = len(workload.base) - len(workload.base) % size  # whole batches
    lists = _lists(plan, workload, rng)
    starts = range(0, n - size + 1, size)
    order = rng.permutation(n)
    runs = [np.arange(a, a + size) for a in starts][: plan.batches]
    scattered = [order[a : a + size] for a in starts][: plan.batches]
    pairs = _pairs(rng, order, size, workload, plan.batches)
    # enough to fill the journal of access lists several times, so that merging it into its tables is counted here
    lasting = _pairs(rng, order[size * len(scattered) :], size, workload, 10 * plan.batches)
    kind = getattr(vecdb, plan.index.capitalize())(**plan.options)
    with vecdb.open(folder / "writes") as db:
        _warm(db, workload, kind)
        docs = db.create_collection("bench", dim=workload.base.shape[1], metric=workload.metric, index=kind)
        docs.create_tenant(workload.names)

        def measure(what: str, items: int, calls: list[Call]) -> None:
            say(what)
            found[what] = _timed(calls, items)
            docs.optimize(threads=plan.threads)

        inserts = [(np.arange(a, a + size), workload.base[a : a + size], None, lists[a : a + size]) for a in starts]
        measure(f"insert, {plan.degree} tenants a record", size, [partial(docs.insert, *each) for each in inserts])
        measure("grant to one tenant, consecutive rows", size, [partial(docs.grant, rows, "run") for rows in runs])
        measure("grant to one tenant, scattered rows", size, [partial(docs.grant, rows, "far") for rows in scattered])
        measure("revoke of one tenant, consecutive rows", size, [partial(docs.revoke, rows, "run") for rows in runs])
        measure("revoke of one tenant, scattered rows", size, [partial(docs.revoke, rows, "far") for rows in scattered])
        measure("grant of random pairs", size, [partial(docs.grant, *each) for each in pairs])
        measure("revoke of random pairs", size, [partial(docs.revoke, *each) for each in pairs])
        measure("delete", size, [partial(docs.delete, rows) for rows in scattered])
        measure("grant of random pairs, tables included", size, [partial(docs.grant, *each) for each in lasting])
        measure("create_tenant", 1, [partial(docs.create_tenant, f"one-{at}") for at in range(10 * plan.batches)])
        problems = docs.check()
        if problems:
            raise vecdb.Corruption(f"after the writes: {problems[0]}")
    return found


def many(plan: Plan, folder: Path, say: Callable[[str], None]) -> dict[str, float]:
    """A database of many tenants: time to create and open it, and memory while nobody searches."""
    many_folder = folder / "many"
    many_folder.mkdir()
    vectors = np.random.default_rng([plan.seed, 9]).standard_normal((1_000, 8), np.float32)
    np.save(many_folder / "base.npy", vectors)
    np.save(many_folder / "queries.npy", vectors[:10])
    figures = []
    singles = 10 * plan.batches
    for name, count in (("many", plan.many), ("few", 10)):
        say(f"{count:,} tenants")
        spec = {"tenants": count, "singles": singles}
        with EngineProcess(name, "tenants/tenant_million.py", many_folder, spec) as process:
            built = process.ask(do="build")
        with EngineProcess(name, "tenants/tenant_million.py", many_folder, spec) as process:
            opened = process.ask(do="open")["seconds"]
            at_rest = process.ask(do="memory")["anonymous_bytes"]
            (first,) = process.ask(do="turn", of=[None, "queries", 0, 1, 0])["seconds"]
            figures.append(built | {"open_seconds": opened, "bytes": at_rest, "first_search_seconds": first})
    large, small = figures
    return {
        "tenants": plan.many,
        "create_us": 1e6 * large["create_seconds"] / plan.many,
        "create_one_ms": 1e3 * large["create_one_seconds"],
        "open_ms": 1e3 * large["open_seconds"],
        "first_search_ms": 1e3 * large["first_search_seconds"],
        "anonymous_bytes_by_tenant": (large["bytes"] - small["bytes"]) / plan.many,
        "disk_bytes_by_tenant": (large["disk_bytes"] - small["disk_bytes"]) / plan.many,
    }


def _pairs(rng: np.random.Generator, rows: Any, size: int, workload: Workload, batches: int) -> list[tuple[Any, Any]]:
    """Batches of (rows, one tenant for each); a row is at most once in a batch."""
    return [
        (
            rng.choice(rows, size, replace=False),
            [[workload.names[t]] for t in rng.integers(0, len(workload.names), size).tolist()],
        )
        for _ in range(batches)
    ]


def _timed(calls: list[Call], items: int) -> dict[str, float]:
    """items : in each call."""
    waits = []
    before = process_io("write_bytes")
    for call in calls:
        started = time.perf_counter()
        call()
        waits.append(time.perf_counter() - started)
    written = process_io("write_bytes") - before
    marks = latencies_ms(waits)
    total = items * len(calls)
    return {
        "items": total,
        "us_each": 1e6 * sum(waits) / total,
        "per_second": total / sum(waits),
        "call_ms_p50": marks["p50"],
        "call_ms_max": marks["max"],
        "bytes_each": written / total,
    }


def _lists(plan: Plan, workload: Workload, rng: np.random.Generator) -> list[list[str]]:
    """`degree` distinct tenants for each row, drawn by size."""
    weights = np.log(np.array([1.0 + len(rows) for rows in workload.members]))
    degree = min(plan.degree, len(workload.names))
    found = []
    for start in range(0, len(workload.base), 1_000):
        keys = weights + rng.gumbel(size=(min(1_000, len(workload.base) - start), len(weights)))
        for few in np.argpartition(-keys, degree - 1, axis=1)[:, :degree].tolist():
            found.append([workload.names[number] for number in few])
    return found


def _warm(db: vecdb.Database, workload: Workload, kind: Any) -> None:
    """Compile the kernels that the measured calls use."""
    docs = db.create_collection("warm", dim=workload.base.shape[1], metric=workload.metric, index=kind)
    few = min(len(workload.base), 2_000)
    docs.insert(np.arange(few), workload.base[:few], tenants=["a", "b"])
    docs.optimize()
    docs.grant(np.arange(10), "c")
    docs.revoke(np.arange(10), "c")
    docs.delete(np.arange(10))
    docs.optimize()
    db.drop_collection("warm")
