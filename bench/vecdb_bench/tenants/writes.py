"""What durable writes cost where records have tenants, and what a million tenants cost that are idle.

Every write is acknowledged under durability "full"; bytes are what the process had sent to the disk meanwhile. What a
kind of write leaves to maintenance is finished before the next kind begins, and is not in its figures, but for those
whose tables are said to be included.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

import vecdb
from vecdb_bench.child_process import Process
from vecdb_bench.engines.engine_process import process_io
from vecdb_bench.tenants.plan import Plan

from ..runner import latencies_ms
from .workload import Workload

Call = Callable[[], Any]


def writes(plan: Plan, of: Workload, folder: Path, say: Callable[[str], None]) -> dict[str, dict[str, float]]:
    """Insert, grant, revoke, delete in batches; create tenants."""
    found: dict[str, dict[str, float]] = {}
    rng = np.random.default_rng([plan.seed, 8])
    size = min(plan.batch_rows, len(of.base) // 4)
    n = len(of.base) - len(of.base) % size  # whole batches
    lists = _lists(plan, of, rng)
    starts = range(0, n - size + 1, size)
    order = rng.permutation(n)
    runs = [np.arange(a, a + size) for a in starts][: plan.batches]
    scattered = [order[a : a + size] for a in starts][: plan.batches]
    pairs = _pairs(rng, order, size, of, plan.batches)
    # as many as the journal of access lists takes several times over: what it puts off is done and counted here
    lasting = _pairs(rng, order[size * len(scattered) :], size, of, 10 * plan.batches)
    kind = getattr(vecdb, plan.index.capitalize())(**plan.options)
    with vecdb.open(folder / "writes") as db:
        _warm(db, of, kind)
        docs = db.create_collection("bench", dim=of.base.shape[1], metric=of.metric, index=kind)
        docs.create_tenant(of.names)

        def measure(what: str, items: int, calls: list[Call]) -> None:
            say(what)
            found[what] = _timed(calls, items)
            docs.optimize(threads=plan.threads)

        inserts = [(np.arange(a, a + size), of.base[a : a + size], None, lists[a : a + size]) for a in starts]
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
    """A database of many tenants: create, open, memory when nobody searches."""
    home = folder / "many"
    home.mkdir()
    vectors = np.random.default_rng([plan.seed, 9]).standard_normal((1_000, 8), np.float32)
    np.save(home / "base.npy", vectors)
    np.save(home / "queries.npy", vectors[:10])
    figures = []
    singles = 10 * plan.batches
    for name, count in (("many", plan.many), ("few", 10)):
        say(f"{count:,} tenants")
        spec = {"tenants": count, "singles": singles}
        with Process(name, "tenant_million.py", home, spec) as process:
            built = process.ask(do="build")
        with Process(name, "tenant_million.py", home, spec) as process:
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


def _pairs(rng: np.random.Generator, rows: Any, size: int, of: Workload, batches: int) -> list[tuple[Any, Any]]:
    """Batches of some of the rows, each once in a batch, with a tenant each."""
    return [
        (rng.choice(rows, size, replace=False), [[of.names[t]] for t in rng.integers(0, len(of.names), size).tolist()])
        for _ in range(batches)
    ]


def _timed(calls: list[Call], items: int) -> dict[str, float]:
    """items : of each call."""
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


def _lists(plan: Plan, of: Workload, rng: np.random.Generator) -> list[list[str]]:
    """`degree` distinct tenants a row, drawn by size."""
    weights = np.log(np.array([1.0 + len(rows) for rows in of.members]))
    degree = min(plan.degree, len(of.names))
    found = []
    for start in range(0, len(of.base), 1_000):
        keys = weights + rng.gumbel(size=(min(1_000, len(of.base) - start), len(weights)))
        for few in np.argpartition(-keys, degree - 1, axis=1)[:, :degree].tolist():
            found.append([of.names[number] for number in few])
    return found


def _warm(db: vecdb.Database, of: Workload, kind: Any) -> None:
    """Compile what the measured calls use."""
    docs = db.create_collection("warm", dim=of.base.shape[1], metric=of.metric, index=kind)
    few = min(len(of.base), 2_000)
    docs.insert(np.arange(few), of.base[:few], tenants=["a", "b"])
    docs.optimize()
    docs.grant(np.arange(10), "c")
    docs.revoke(np.arange(10), "c")
    docs.delete(np.arange(10))
    docs.optimize()
    db.drop_collection("warm")
