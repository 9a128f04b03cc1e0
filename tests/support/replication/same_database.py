"""A database with everything that a backup must carry, and an oracle: all that it answers, to compare with a copy."""

from __future__ import annotations

from typing import Any

import numpy as np

import vecdb
from tests.support.corpus import EXACT, clustered
from vecdb import F

DIM, ROWS = 16, 300
INDEXES: dict[str, Any] = {
    "flat": vecdb.Flat(),
    "graph": vecdb.Hnsw(m=8, ef_construction=40, ef=32),
    "lists": vecdb.Spann(),
    "tree": vecdb.Curator(),
}


def fill(db: Any, rows: int = ROWS) -> None:
    """A collection of each kind of index, with tenants, fields, deletions and changes; one without a dim, one whose
    records partly have no vector, one of strings and bytes; aliases and metadata.
    """
    for number, (name, index) in enumerate(INDEXES.items()):
        docs = db.create_collection(name, DIM, "l2", index)
        tenants = [["a"] if n % 3 else ["a", "b"] for n in range(rows)] if name in ("flat", "tree") else None
        fields = [{"n": n, "even": n % 2 == 0, "word": f"w{n % 7}"} for n in range(rows)]
        docs.upsert(range(rows), clustered(rows, DIM, number + 1), fields, tenants=tenants)
        docs.optimize()
        jobs = docs._backend.jobs
        jobs.columns.extend()
        jobs.columns.seal()
        change(db, name, rows=rows)
    notes = db.create_collection("notes", metric="l2")
    notes.upsert(["x", "y", "z"], fields=[{"n": 1}, {"n": 2}, {}])
    some = db.create_collection("some", 3, "cosine", dtype="float16", metadata={"model": "m1"})
    some.upsert(["a", "b"], [[1, 2, 3], [3, 2, 1]])
    some.upsert(["c"], fields=[{"bare": True}])
    db.create_collection("empty", 5)
    db.set_alias("today", "graph")


def change(db: Any, name: str, seed: int = 0, rows: int = ROWS) -> None:
    """Replace, delete and add records, and change fields alone."""
    docs = db[name]
    rng = np.random.default_rng(seed)
    dead = rng.choice(rows, rows // 10, replace=False)
    docs.delete(dead)
    docs.upsert(rng.choice(rows, 20, replace=False), clustered(20, DIM, seed + 50), [{"n": -n} for n in range(20)])
    docs.upsert(range(rows + 100 * seed, rows + 100 * seed + 30), clustered(30, DIM, seed + 70))
    there = [one.id for one in docs.head(10)]
    docs.update(there, fields=[{"n": 1000 + n} for n in range(len(there))])


def answers(db: Any) -> dict[str, Any]:
    """Every record with its vector, fields, owner and tenants, and what searches of all sorts answer."""
    assert db.check() == []
    found: dict[str, Any] = {"aliases": db.aliases(), "collections": db.collections()}
    for name in db.collections():
        docs = db[name]
        found[name] = {
            "config": docs.config,
            "metadata": docs.metadata,
            "count": docs.count(),
            "records": [
                (
                    one.id,
                    one.owner,
                    one.tenants,
                    one.fields,
                    None if one.vector is None else np.asarray(one.vector).tolist(),
                )
                for page in docs.iter(include_vectors=True)
                for one in page
            ],
            "tenants": list(docs.tenants()),
            "of tenants": {
                who: sorted(one.id for page in docs.iter(tenant=who) for one in page) for who in docs.tenants()
            },
            "even": docs.count(filter=F.even == True),  # noqa: E712 - a filter
        }
        if docs.dim:
            found[name]["searches"] = list(_searches(docs))
    return found


def _searches(docs: Any) -> Any:
    queries = clustered(2, docs.dim, 99)
    for more in ({}, {"params": EXACT}, {"filter": F.n < 100}, *({"tenant": one} for one in docs.tenants())):
        hits = docs.search(queries, 10, **more)
        yield hits.ids.tolist(), hits.distances.tolist(), hits.fields
