"""The calls of the public API that can take long, one row each: what is called in the middle of a database, and how it
may be found by whoever interrupts it.

A row is named by its owner and method, and behind a comma by what is special about it. `SHORT` has all others, each
with the reason why nobody waits for them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import vecdb
from tests.reliability.harness import DIM, NAME, vectors_of
from vecdb.embedded.open import open_database

N = 400  # records of the collection
OTHERS = list(range(N, N + 60))
QUERIES = vectors_of(range(40), [9] * 40)
FILTER = "n < 200"


@dataclass
class Stage:
    """Where a call is made. path : of the database; place : an empty folder for what else it makes."""

    path: Path
    place: Path
    made: Path  # what lay ready before: "backup" of the database, "bucket" with another, "log" and "copy"
    db: Any = None

    @property
    def docs(self) -> Any:
        return self.db[NAME]


@dataclass(frozen=True)
class Row:
    """call(stage) : what is interrupted; its answer is the same each time. opened : the stage has an open database.

    partly : each record may be as before or as after; else all are as before, or all as after.
    again : it can be made again where it had happened.
    """

    call: Callable[[Stage], Any]
    opened: bool = True
    partly: bool = False
    again: bool = True


def _embed(texts: list[str]) -> Any:
    return [vectors_of([len(text)], [3])[0] for text in texts]


def _texts(stage: Stage) -> int:
    docs = stage.db.collection(NAME, embed=vecdb.Embedder(_embed, name="length", dim=DIM, batch=4))
    return int(docs.upsert(OTHERS, texts=["x" * (i % 7 + 1) for i in OTHERS]))


def _pages(stage: Stage, **options: Any) -> list[Any]:
    return [[record.id for record in page] for page in stage.docs.iter(50, **options)]


def _open_new(stage: Stage) -> list[str]:
    with open_database(stage.place / "new", maintenance=False) as db:
        return [*db.collections(), *db.check()]


def _open(stage: Stage, **options: Any) -> Any:
    with open_database(stage.path, maintenance=False, **options) as db:
        return db[NAME].search(QUERIES[:4], 3).to_list()


def _caught_up(stage: Stage) -> Any:
    """By a reader that begins before a write and asks again after it."""
    with open_database(stage.path, read_only=True) as reader:
        reader[NAME].search(QUERIES[:1], 3)
        _write("upsert")(stage)
        stage.docs.delete(range(100, 120))
        stage.docs.grant(range(120, 140), "t2")
        return [reader[NAME].search(QUERIES, 5).to_list(), reader[NAME].count(tenant="t2")]


def _close(stage: Stage) -> None:
    db = open_database(stage.path, maintenance=False)
    db[NAME].upsert(OTHERS, vectors_of(OTHERS, [5] * len(OTHERS)))
    db.close()


def _restored(stage: Stage, source: str, **options: Any) -> int:
    target = stage.place / "restored"
    vecdb.restore(source, target, **options)
    with open_database(target, maintenance=False) as db:
        return len(db[NAME]) + 1_000 * len(db.check())


def _backup(stage: Stage, target: str) -> None:
    stage.db.backup(target)


def _awaited(stage: Stage, call: Callable[[Any], Any]) -> Any:
    async def run() -> Any:
        async with vecdb.aio.open(stage.path) as db:
            return await call(await db.collection(NAME))

    return asyncio.run(run())


def _write(do: str, **options: Any) -> Callable[[Stage], Any]:
    vectors = vectors_of(OTHERS, [4] * len(OTHERS))

    def call(stage: Stage) -> Any:
        named = {"fields": [{"n": i} for i in OTHERS], "tenants": ["t1", "fresh"], **options}
        return getattr(stage.docs, do)(OTHERS, vectors, **named)

    return call


HALF = list(range(0, N, 2))

ROWS: dict[str, Row] = {
    "Collection.upsert": Row(_write("upsert")),
    "Collection.upsert, in parts": Row(_write("upsert", atomic=False), partly=True),
    "Collection.upsert, of texts": Row(_texts, partly=True),
    "Collection.insert": Row(_write("insert"), again=False),
    "Collection.insert, that passes over": Row(_write("insert", on_conflict="skip")),
    "Collection.add": Row(lambda s: list(s.docs.add(vectors_of(OTHERS, [4] * len(OTHERS)))), again=False),
    "Collection.prepare": Row(lambda s: s.docs.prepare(OTHERS, vectors_of(OTHERS, [4] * len(OTHERS)))()),
    "Collection.update": Row(lambda s: s.docs.update(HALF, vectors_of(HALF, [6] * len(HALF)), {"n": HALF})),
    "Collection.update, of a filter": Row(lambda s: s.docs.update(filter=FILTER, fields={"seen": True})),
    "Collection.delete": Row(lambda s: s.docs.delete(HALF), again=False),
    "Collection.delete, of a filter": Row(lambda s: s.docs.delete(filter=FILTER), again=False),
    "Collection.clear": Row(lambda s: s.docs.clear(), again=False),
    "Collection.grant": Row(lambda s: s.docs.grant(HALF, {"t2", "other"}), again=False),
    "Collection.revoke": Row(lambda s: s.docs.revoke(HALF, "all"), again=False),
    "Collection.tenants": Row(lambda s: list(s.docs.tenants())),
    "Collection.create_tenant": Row(lambda s: s.docs.create_tenant([f"n{i}" for i in range(300)]), again=False),
    "Collection.drop_tenant": Row(lambda s: s.docs.drop_tenant("all"), again=False),
    "Collection.drop_tenant, with records": Row(
        lambda s: s.docs.drop_tenant("mine", records=True), partly=True, again=False
    ),
    "Collection.search": Row(lambda s: s.docs.search(QUERIES, 5).to_list()),
    "Collection.search, exact": Row(lambda s: s.docs.search(QUERIES, 5, params={"exact": True}).to_list()),
    "Collection.search, of a filter": Row(lambda s: s.docs.search(QUERIES, 5, filter=FILTER).to_list()),
    "Collection.search, of a tenant": Row(lambda s: s.docs.search(QUERIES, 5, tenant="t1").to_list()),
    "Collection.search, of a reader that catches up": Row(_caught_up, partly=True),
    "Collection.search_stream": Row(lambda s: [hits.to_list() for hits in s.docs.search_stream(QUERIES, 5)]),
    "Collection.search_mixture": Row(lambda s: s.docs.search_mixture(HALF[:60], 20).to_list()),
    "Collection.get": Row(lambda s: [record.id for record in s.docs.get(HALF, include_vectors=True)]),
    "Collection.get, of a filter": Row(lambda s: [record.id for record in s.docs.get(filter=FILTER)]),
    "Collection.count": Row(lambda s: s.docs.count(filter=FILTER, tenant="t1")),
    "Collection.iter": Row(_pages),
    "Collection.iter, in an order": Row(lambda s: _pages(s, order_by="n", descending=True, filter=FILTER)),
    "Collection.head": Row(lambda s: [record.id for record in s.docs.head(200)]),
    "Collection.to_pandas": Row(lambda s: s.docs.to_pandas(include_vectors=True)["id"].tolist()),
    "Collection.to_arrow": Row(lambda s: s.docs.to_arrow(include_vectors=True)["id"].to_pylist()),
    "Collection.facets": Row(lambda s: dict(s.docs.facets("kind", FILTER))),
    "Collection.distinct": Row(lambda s: s.docs.distinct("kind")),
    "Collection.min": Row(lambda s: s.docs.min("n", FILTER)),
    "Collection.max": Row(lambda s: s.docs.max("n")),
    "Collection.fields": Row(lambda s: s.docs.fields()),
    "Collection.reindex": Row(lambda s: s.docs.reindex(vecdb.Hnsw(m=6))),
    "Collection.reindex, to lists": Row(lambda s: s.docs.reindex(vecdb.Spann(head_ratio=0.1, nprobe=8))),
    "Collection.reindex, to a tree": Row(lambda s: s.docs.reindex(vecdb.Curator(leaf_rows=8))),
    "Collection.optimize": Row(lambda s: s.docs.optimize()),
    "Collection.evaluate": Row(lambda s: s.docs.evaluate(QUERIES, 5)["queries"]),
    "Collection.tune": Row(lambda s: len(s.docs.tune(QUERIES, 0.9, 5)) > 0),
    "Collection.stats": Row(lambda s: s.docs.stats()["live"]),
    "Collection.vacuum": Row(lambda s: s.docs.vacuum()),
    "Collection.check": Row(lambda s: s.docs.check()),
    "Database.create_collection": Row(lambda s: s.db.create_collection("made", 4).name, again=False),
    "Database.create_collection, of a model": Row(
        lambda s: s.db.create_collection("made", embed=_embed).name, again=False
    ),
    "Database.drop_collection": Row(lambda s: s.db.drop_collection(NAME), again=False),
    "Database.stats": Row(lambda s: s.db.stats()["collections"]),
    "Database.wait_for": Row(lambda s: s.db.wait_for(s.db.sequence())),
    "Database.vacuum": Row(lambda s: s.db.vacuum()),
    "Database.check": Row(lambda s: s.db.check()),
    "Database.backup": Row(lambda s: _backup(s, str(s.place / "backup")), again=False),
    "Database.backup, to a bucket": Row(lambda s: _backup(s, f"file://{s.place}/bucket")),
    "Database.close": Row(_close, opened=False),
    "vecdb.open, of a new directory": Row(_open_new, opened=False),
    "vecdb.open": Row(_open, opened=False),
    "vecdb.open, to read": Row(lambda s: _open(s, read_only=True), opened=False),
    "vecdb.open, into a log": Row(lambda s: _open(s, log=f"file://{s.place}/log"), opened=False),
    "vecdb.restore": Row(lambda s: _restored(s, str(s.made / "backup")), opened=False, again=False),
    "vecdb.restore, of a bucket": Row(lambda s: _restored(s, f"file://{s.made}/bucket"), opened=False, again=False),
    "vecdb.backups": Row(lambda s: len(vecdb.backups(f"file://{s.made}/bucket")), opened=False),
    "vecdb.upgrade": Row(lambda s: vecdb.upgrade(s.path), opened=False),
    "vecdb.warm_up": Row(lambda s: vecdb.warm_up(DIM, "l2"), opened=False),
    "vecdb.aio, a search": Row(
        lambda s: _awaited(s, lambda docs: docs.search(QUERIES, 5)).to_list(), opened=False
    ),
    "vecdb.aio, a write": Row(
        lambda s: _awaited(s, lambda docs: docs.upsert(OTHERS, vectors_of(OTHERS, [4] * 60))), opened=False
    ),
    "vecdb.aio, a build": Row(lambda s: _awaited(s, lambda docs: docs.optimize()), opened=False),
}  # fmt: skip

SHORT: dict[str, str] = {
    "Collection.with_timeout": "makes a handle",
    "Collection.set_metadata": "one small commit",
    "Database.collection": "loads no records",
    "Database.collections": "a list of names",
    "Database.rename_collection": "one small commit",
    "Database.set_alias": "one small commit",
    "Database.drop_alias": "one small commit",
    "Database.aliases": "a list of names",
    "Database.sequence": "one number",
    "vecdb.promote": "tests/replication/test_failover.py",
}  # fmt: skip


def names_of_calls() -> set[str]:
    """Every call of the public API, by owner and name."""
    found = {
        f"{one.__name__}.{name}"
        for one in (vecdb.Collection, vecdb.Database)
        for name, value in vars(one).items()
        if not name.startswith("_") and callable(value)
    }
    functions = {name for name in vecdb.__all__ if callable(getattr(vecdb, name)) and name.islower()}
    return found | {f"vecdb.{name}" for name in functions | {"aio"}}
