"""Bitmaps: how long a filter over many records takes where it was never asked before, and what it adds when it repeats.

`count(filter=...)` evaluates the filter over all records and counts the bits, nothing else. What a repeated filter adds
is the time of a search with one that every record matches, less that without, over a few records that are all compared.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np

import vecdb
from vecdb_bench.filters.plan import Plan

F = vecdb.F
_STEP = 50_000
_CALLS = 41
_FEW = 200


def filters() -> dict[str, Callable[[int], Any]]:
    """name : of a number, a filter that was not asked before."""
    return {
        "equality of a keyword": lambda i: F.author == f"author {i}",
        "range of an int": lambda i: F.score.between(1_000 * i, 1_000 * i + 100_000),
        "range of a float": lambda i: F.price > i / _CALLS,
        "three terms, and": lambda i: (F.lang == "en") & (F.year >= 2000) & (F.score < 1_000 * (i + 1)),
        "three terms, or": lambda i: (F.lang == "fr") | (F.year < 1990) | (F.score < 1_000 * (i + 1)),
    }


def measure(plan: Plan, say: Callable[[str], None]) -> dict[str, Any]:
    """Milliseconds of each filter over `bitmap_rows` records, bytes of the columns, and us that a repeated one adds."""
    rng = np.random.default_rng(plan.seed)
    with vecdb.open(":memory:") as db:
        docs = db.create_collection("many", dim=2, metric="l2", index=vecdb.Flat())
        say(f"storing {plan.bitmap_rows:,} records with five fields")
        for start in range(0, plan.bitmap_rows, _STEP):
            n = min(_STEP, plan.bitmap_rows - start)
            docs.upsert(np.arange(start, start + n), rng.random((n, 2), np.float32), fields=_records(rng, n))
        docs.count(filter=F.lang == "none")  # columns are made by now
        found = [{"filter": name} | _cold(docs, make) for name, make in filters().items()]
        few = db.create_collection("few", dim=2, metric="l2", index=vecdb.Flat())
        few.upsert(np.arange(_FEW), rng.random((_FEW, 2), np.float32), fields=_records(rng, _FEW))
        return {"rows": plan.bitmap_rows, "cold": found, "repeated_adds_us": _repeated(few)}


def _records(rng: np.random.Generator, n: int) -> dict[str, list[Any]]:
    return {
        "lang": [("en", "de", "fr", "es")[i] for i in rng.integers(0, 4, n)],
        "author": [f"author {i}" for i in rng.integers(0, 1_000, n)],
        "year": rng.integers(1980, 2026, n).tolist(),
        "score": rng.integers(0, 1_000_000, n).tolist(),
        "price": rng.random(n).tolist(),
    }


def _cold(docs: Any, make: Callable[[int], Any]) -> dict[str, float]:
    docs.count(filter=make(_CALLS))
    seconds, matches = [], 0
    for i in range(_CALLS):
        one = make(i)
        started = time.perf_counter()
        matches += docs.count(filter=one)
        seconds.append(time.perf_counter() - started)
    ms = 1e3 * np.array(seconds)
    return {"ms": float(np.median(ms)), "least_ms": float(ms.min()), "matches": matches / _CALLS}


def _repeated(docs: Any) -> float:
    query, every = np.zeros(2, np.float32), F.year > 0
    plain: list[float] = []
    filtered: list[float] = []
    for _ in range(20 * _CALLS):
        for seconds, one in ((plain, None), (filtered, every)):
            started = time.perf_counter()
            docs.search(query, 1, filter=one)
            seconds.append(time.perf_counter() - started)
    return 1e6 * float(np.median(filtered) - np.median(plain))
