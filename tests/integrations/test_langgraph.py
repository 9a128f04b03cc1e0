"""LangGraph's store over a collection does what its own InMemoryStore does, and keeps it; and what expires goes."""

from __future__ import annotations

import asyncio
import datetime as dt
import random
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import vecdb
from tests.support.server.process import Process

pytest.importorskip("langgraph.store.base")

from langgraph.store.base import GetOp, ListNamespacesOp, MatchCondition, PutOp, SearchOp
from langgraph.store.memory import InMemoryStore

from vecdb.integrations.langgraph import VecdbStore

LETTERS = "abcdefgh"


def letters(texts: Any) -> list[list[float]]:
    """How often each of eight letters is in a text."""
    return [[text.count(letter) + 0.001 * (at + 1) for at, letter in enumerate(LETTERS)] for text in texts]


INDEX: Any = {"dims": len(LETTERS), "embed": letters, "fields": ["text", "more[*]"]}


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("served")
    with Process(folder / "db", folder) as server:
        yield f"grpc://{server.address}"


@pytest.fixture(params=["memory", "grpc"])
def path(request: pytest.FixtureRequest) -> Any:
    return ":memory:" if request.param == "memory" else request.getfixturevalue("served")


class Clock:
    def __init__(self) -> None:
        self.now = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)

    def __call__(self) -> dt.datetime:
        return self.now

    def pass_minutes(self, minutes: float) -> None:
        self.now += dt.timedelta(minutes=minutes)


@pytest.fixture
def store(path: Any, request: pytest.FixtureRequest) -> Iterator[VecdbStore]:
    with vecdb.open(path) as db:
        docs = db.create_collection(request.node.originalname)
        yield VecdbStore(docs, index=INDEX)
        db.drop_collection(request.node.originalname)


def plain(item: Any) -> Any:
    return None if item is None else (item.namespace, item.key, item.value)


def scored(items: Any) -> Any:
    return [(*plain(one), None if one.score is None else round(one.score, 4)) for one in items]


def test_the_flow_of_the_documentation(store: VecdbStore) -> None:
    store.put(("users", "1"), "likes", {"text": "cab", "year": 2020})
    store.put(("users", "1"), "works", {"text": "bead", "year": 2024})
    store.put(("users", "12"), "likes", {"text": "face", "year": 2022})
    store.put(("docs",), "a", {"text": "hhh"}, index=False)
    item = store.get(("users", "1"), "likes")
    assert item is not None and item.value == {"text": "cab", "year": 2020} and item.key == "likes"
    assert item.namespace == ("users", "1") and item.created_at == item.updated_at
    assert store.get(("users",), "likes") is None and store.get(("users", "1"), "nobody") is None
    assert [one.key for one in store.search(("users", "1"))] == ["likes", "works"]
    found = store.search(("users",), query="aaa", filter={"year": {"$gte": 2021}}, limit=2)
    assert [one.value["year"] for one in found] == [2022, 2024] and found[0].score > found[1].score > 0
    assert store.list_namespaces(prefix=("users",)) == [("users", "1"), ("users", "12")]
    assert store.list_namespaces(max_depth=1) == [("docs",), ("users",)]
    assert store.list_namespaces(suffix=("1",)) == [("users", "1")]
    assert store.list_namespaces(prefix=("*", "12")) == [("users", "12")]
    assert store.list_namespaces(limit=1, offset=1) == [("users", "1")]
    store.put(("users", "1"), "likes", {"text": "cab again"})
    again = store.get(("users", "1"), "likes")
    assert again is not None and again.created_at == item.created_at < again.updated_at
    store.delete(("users", "1"), "likes")
    store.delete(("users", "1"), "nobody")
    assert store.get(("users", "1"), "likes") is None and len(store.search(())) == 3


def test_random_batches_leave_what_the_store_in_memory_has(store: VecdbStore) -> None:
    rng, twin = random.Random(5), InMemoryStore(index=INDEX)
    spaces = [("a",), ("a", "b"), ("a", "bc"), ("d", "e", "f"), ("*",)]

    def value() -> dict[str, Any]:
        words = ["".join(rng.choices(LETTERS, k=4)) for _ in range(5)]
        made: dict[str, Any] = {"n": rng.randrange(5), "deep": {"lang": rng.choice(["en", "de"]), "x": 1.5}}
        if rng.random() < 0.8:
            made["text"] = words[0]
        if rng.random() < 0.5:
            made["more"] = words[1 : rng.randrange(1, 5)]
        return made

    def operation() -> Any:
        space, key = rng.choice(spaces), rng.choice("pqrs")
        kind = rng.randrange(8)
        if kind < 4:
            index: Any = rng.choice([None, None, False, ["text"]])
            return PutOp(space, key, value(), index)
        if kind == 4:
            return PutOp(space, key, None)
        return GetOp(space, key)

    filters: list[Any] = [None, {"n": 2}, {"n": {"$gt": 1, "$lte": 3}}, {"deep": {"lang": "en"}}, {"n": {"$ne": 0}}]
    for _ in range(40):
        ops = [operation() for _ in range(rng.randrange(1, 6))]
        # the one in memory keeps vectors of what was replaced: those of a value that has gone
        for op in ops:
            if isinstance(op, PutOp):
                twin._vectors[op.namespace].pop(op.key, None)
        assert [plain(one) for one in store.batch(ops)] == [plain(one) for one in twin.batch(ops)]
        prefix, wanted, text = rng.choice([(), *spaces]), rng.choice(filters), "".join(rng.choices(LETTERS, k=3))
        everything = SearchOp(prefix, wanted, 100)
        assert sorted(map(str, map(plain, store.batch([everything])[0]))) == sorted(
            map(str, map(plain, twin.batch([everything])[0]))
        )
        asked = SearchOp(prefix, wanted, 100, 0, text)
        ours, theirs = scored(store.batch([asked])[0]), scored(twin.batch([asked])[0])
        assert [one[3] for one in ours] == [one[3] for one in theirs]
        assert sorted(map(str, ours)) == sorted(map(str, theirs))
        page = store.batch([SearchOp(prefix, wanted, 3, 2, text)])[0]
        assert scored(page) == ours[2:5]
        listed = ListNamespacesOp((MatchCondition("prefix", ("a", "*")),))
        empty = {one for one in twin._data if not twin._data[one]}
        assert store.batch([listed])[0] == [one for one in twin.batch([listed])[0] if one not in empty]


def test_what_is_awaited_is_the_same(path: Any) -> None:
    async def use(store: VecdbStore) -> None:
        await store.aput(("u",), "k", {"text": "aab", "more": ["ccc", "ddd"]})
        await store.aput(("u",), "l", {"text": "hgh"})
        item = await store.aget(("u",), "k")
        assert item is not None and item.value["text"] == "aab"
        assert [one.key for one in await store.asearch(("u",), query="ddd")] == ["k", "l"]
        assert await store.alist_namespaces() == [("u",)]
        await store.adelete(("u",), "k")
        assert [one.key for one in await store.asearch(("u",))] == ["l"]
        assert await store.asweep_ttl() == 0

    async def embed(texts: Any) -> list[list[float]]:
        return letters(texts)

    async def awaited() -> None:
        store = VecdbStore.open(path, "awaited", index={**INDEX, "embed": embed})
        await use(store)
        await store.aclose()
        async with vecdb.aio.open(path) as db:
            await use(VecdbStore(await db.create_collection("far"), index={**INDEX, "embed": embed}))

    asyncio.run(awaited())


def test_what_expires_is_swept_and_reading_renews(path: Any) -> None:
    clock = Clock()
    with vecdb.open(path) as db:
        docs = db.create_collection("expiring")
        store = VecdbStore(docs, index=INDEX, clock=clock)
        store.put(("t",), "short", {"text": "a", "more": ["b", "c"]}, ttl=10)
        store.put(("t",), "long", {"text": "b"}, ttl=100)
        store.put(("t",), "forever", {"text": "c"})
        assert docs.count() == 5
        clock.pass_minutes(9)
        assert store.get(("t",), "short", refresh_ttl=False) is not None and store.get(("t",), "long") is not None
        clock.pass_minutes(2)
        assert [one.key for one in store.search(("t",), refresh_ttl=False)] == ["short", "long", "forever"]
        omitting = VecdbStore(docs, index=INDEX, ttl={"omit_expired": True, "default_ttl": 1}, clock=clock)
        assert omitting.get(("t",), "short") is None
        for query in (None, "abc"):
            shown = [one.key for one in omitting.search(("t",), query=query, refresh_ttl=False)]
            assert sorted(shown) == ["forever", "long"]
        assert store.sweep_ttl() == 1 and store.sweep_ttl() == 0 and docs.count() == 2
        omitting.put(("only",), "x", {"text": "d"})
        clock.pass_minutes(96)  # the long one was read in between
        assert omitting.list_namespaces() == [("t",)] and store.list_namespaces() == [("only",), ("t",)]
        assert store.get(("t",), "long") is not None and store.sweep_ttl() == 1
        clock.pass_minutes(99)
        assert store.search(("t",), query="b")[0].key == "long" and store.sweep_ttl() == 0
        clock.pass_minutes(101)
        assert store.sweep_ttl() == 1 and [one.key for one in store.search(())] == ["forever"]
        db.drop_collection("expiring")


def test_the_sweeper_sweeps_until_it_is_stopped(tmp_path: Path) -> None:
    clock, swept = Clock(), threading.Event()

    class Telling(VecdbStore):
        def sweep_ttl(self) -> int:
            found = super().sweep_ttl()
            swept.set()
            return found

    store = Telling.open(tmp_path / "db", ttl={"default_ttl": 5})
    store._clock = clock
    store.put(("t",), "k", {"text": "a"})
    clock.pass_minutes(6)
    store.start_ttl_sweeper(0.0001)
    assert swept.wait(60) and store.get(("t",), "k", refresh_ttl=False) is None
    assert store.stop_ttl_sweeper() and store._sweeper is None
    store.start_ttl_sweeper(60)
    store.close()
    with vecdb.open(tmp_path / "db") as db:
        assert db.collection("langgraph").count() == 0


def test_items_are_kept_and_long_names_too(tmp_path: Path) -> None:
    long = "k" * 700
    store = VecdbStore.open(tmp_path / "db", index=INDEX)
    store.put(("n" * 300, "m"), long, {"text": "ab", "more": ["c", "d"]})
    store.close()
    store = VecdbStore.open(tmp_path / "db", index=INDEX)
    item = store.get(("n" * 300, "m"), long)
    assert item is not None and item.key == long and store.search((), query="d")[0].key == long
    store.delete(("n" * 300, "m"), long)
    assert store.search(()) == []
    store.close()


def test_a_value_that_shrinks_leaves_nothing_behind(store: VecdbStore) -> None:
    store.put(("s",), "k", {"text": "aaa", "more": ["bbb", "ccc"]})
    store.put(("s",), "k", {"text": "aaa"})
    assert store._docs.near.count() == 1
    # a write that was cut short before it deleted what was too many
    store.put(("s",), "k", {"text": "aaa", "more": ["bbb"]})
    store._docs.near.update(next(iter(store._docs.near.iter()))[0].id, fields={"parts": 1})
    assert [one.key for one in store.search(("s",), query="bbb")] == []
    store.put(("s",), "l", {"n": 1})
    assert store.search(("s",), query="bbb")[0].key == "l"


def test_what_is_wrong_is_said(store: VecdbStore) -> None:
    store.put(("s",), "k", {"n": 1})
    for wrong in (
        lambda: store.search(("s",), filter={"n": {"$about": 1}}),
        lambda: store.search(("s",), filter={"n": [1]}),
        lambda: store.search(("s",), limit=0),
        lambda: store.batch([PutOp(("a.b",), "k", {"n": 1})]),
        lambda: store.batch(["get"]),  # type: ignore[list-item]
        lambda: store.put(("s",), "k", {"n": {1, 2}}),
    ):
        with pytest.raises(vecdb.InvalidArgument):
            wrong()
    assert store.get(("s",), "k").value == {"n": 1}  # type: ignore[union-attr]


def test_an_index_of_another_dim_is_refused() -> None:
    with (
        vecdb.open(":memory:") as db,
        pytest.raises(vecdb.InvalidArgument, match="has dim 9, the index of the store 8"),
    ):
        VecdbStore(db.create_collection("nine", 9), index=INDEX)


def test_without_an_index_nothing_is_embedded_and_a_models_collection_is_one() -> None:
    with vecdb.open(":memory:") as db:
        store = VecdbStore.open(db)
        store.put(("s",), "k", {"text": "a"})
        assert [(one.key, one.score) for one in store.search(("s",), query="a")] == [("k", None)]
        embedding = VecdbStore(db.create_collection("model", embed=vecdb.Embedder(letters, name="letters")))
        embedding.put(("s",), "k", {"text": "abc"})
        assert embedding.search(("s",), query="abc")[0].score > 0.5  # type: ignore[operator]


def test_a_models_collection_embeds_queries_as_queries() -> None:
    asked: list[str] = []

    def noting(texts: list[str]) -> list[list[float]]:
        asked.extend(texts)
        return letters(texts)

    model = vecdb.Embedder(noting, name="noting", dim=len(LETTERS), document_prefix="d: ", query_prefix="q: ")
    with vecdb.open(":memory:") as db:
        store = VecdbStore(db.create_collection("model", embed=model))
        store.put(("s",), "k", {"text": "abc"}, index=["text"])
        store.search(("s",), query="ab")
        asyncio.run(store.asearch(("s",), query="cd"))
    assert asked == ["d: abc", "q: ab", "q: cd"]


def test_the_sweeper_outlives_an_error(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    clock, swept = Clock(), threading.Event()
    store = VecdbStore.open(tmp_path / "db", ttl={"default_ttl": 5})
    store._clock = clock
    store.put(("t",), "k", {"text": "a"})
    clock.pass_minutes(6)
    handle, turns = store._docs, iter([vecdb.Unavailable("away for a moment"), OSError("and again")])

    class FailsOnce:
        @property
        def near(self) -> vecdb.Collection:
            for error in turns:
                raise error
            if handle.near.count() == 0:
                swept.set()
            return handle.near

    store._docs = FailsOnce()  # type: ignore[assignment]
    store.start_ttl_sweeper(0.0001)
    assert swept.wait(60) and store.stop_ttl_sweeper()
    assert "away for a moment" in caplog.text and "and again" in caplog.text
    handle.close()


def test_items_whose_names_have_the_separator_are_apart() -> None:
    apart = "\x1f"
    names = [
        (("a",), f"b{apart}1"), (("a",), "b"), (("a",), f"{apart}b"), ((f"a{apart}b",), "c"),
        (("a",), f"b.{apart}c"), ((f"a.{apart}b".replace(".", ""),), "d"), ((f"a{apart}", "b"), "c"),
    ]  # fmt: skip
    with vecdb.open(":memory:") as db:
        store = VecdbStore(db.create_collection("names"), index=INDEX)
        store.batch([PutOp(space, key, {"text": "a", "more": ["b"], "n": at}) for at, (space, key) in enumerate(names)])
        for at, (space, key) in enumerate(names):
            item = store.get(space, key)
            assert item is not None and item.value["n"] == at and (item.namespace, item.key) == (space, key)
        found = store.search((), query="b", limit=50)
        assert sorted(one.value["n"] for one in found) == list(range(len(names)))
        store.delete(*names[0])
        assert len(store.search((), limit=50)) == len(names) - 1
