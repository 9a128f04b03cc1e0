"""How long a call is tried: until its own time is up, as long as another try may help; and reads that need several."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from concurrent import futures
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

import vecdb
from tests.support.server.driver import Running, token
from vecdb.client import remote_collection, retry
from vecdb.client.channel import MESSAGE_BYTES_MAX
from vecdb.v1 import admin_pb2, admin_pb2_grpc, collections_pb2, collections_pb2_grpc, records_pb2, records_pb2_grpc
from vecdb_server.config import Config
from vecdb_server.status_errors import exhausted, status_of

DIM = 16


class Played(
    admin_pb2_grpc.AdminServiceServicer, collections_pb2_grpc.CollectionServiceServicer,
    records_pb2_grpc.RecordServiceServicer,
):  # type: ignore[misc]  # fmt: skip
    """What happens at each call of any rpc that is not the beginning, the last again and again."""

    def __init__(self) -> None:
        self.steps: list[Callable[[Any], Any]] = []
        self.calls = 0

    def _play(self, request: Any, context: Any) -> Any:
        self.calls += 1
        return (self.steps.pop(0) if len(self.steps) > 1 else self.steps[0])(context)

    def GetServerInfo(self, request: Any, context: Any) -> Any:
        return admin_pb2.GetServerInfoResponse()

    def GetCollection(self, request: Any, context: Any) -> Any:
        made = collections_pb2.Collection(name=request.name, dim=DIM, dtype=1)
        return collections_pb2.GetCollectionResponse(collection=made)

    Count = Write = DropCollection = _play

    def List(self, request: Any, context: Any) -> Any:
        yield self._play(request, context)

    def Backup(self, request: Any, context: Any) -> Any:
        yield self._play(request, context)


@pytest.fixture
def played() -> Iterator[tuple[Played, str]]:
    made = Played()
    running = grpc.server(futures.ThreadPoolExecutor(8))
    admin_pb2_grpc.add_AdminServiceServicer_to_server(made, running)
    collections_pb2_grpc.add_CollectionServiceServicer_to_server(made, running)
    records_pb2_grpc.add_RecordServiceServicer_to_server(made, running)
    port = running.add_insecure_port("127.0.0.1:0")
    running.start()
    yield made, f"grpc://localhost:{port}"
    running.stop(None).wait()


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retry, "_FIRST_WAIT_S", 0.001)
    monkeypatch.setattr(retry, "_WAIT_MAX_S", 0.001)


def lost(context: Any) -> Any:
    context.abort(grpc.StatusCode.UNAVAILABLE, "lost")


def full(retry_s: float) -> Callable[[Any], Any]:
    """Refused as the server itself does it."""

    def refuse(context: Any) -> Any:
        code, message, trailing = status_of(exhausted("no room", retry_s), "")
        context.set_trailing_metadata(trailing)
        context.abort(code, message)

    return refuse


def asked(url: str, call: Callable[[Any], Any], asynchronous: bool, **options: Any) -> Any:
    """What a call on a database gives; an iterator is read to its end."""
    if not asynchronous:
        with vecdb.open(url, **options) as db:
            found = call(db)
            return list(found) if hasattr(found, "__next__") else found

    async def far() -> Any:
        async with vecdb.aio.open(url, **options) as db:
            found = call(db)
            return [one async for one in found] if hasattr(found, "__anext__") else await found

    return asyncio.run(far())


class Later:
    """docs, opened where it is needed: near at once, far when it is awaited."""

    def __init__(self, name: str, *args: Any) -> None:
        self.name, self.args = name, args

    def __call__(self, db: Any) -> Any:
        if isinstance(db, vecdb.Database):
            return getattr(db.collection("docs"), self.name)(*self.args)
        return self._each(db) if self.name == "iter" else self._one(db)

    async def _one(self, db: Any) -> Any:
        return await getattr(await db.collection("docs"), self.name)(*self.args)

    async def _each(self, db: Any) -> Any:
        async for one in (await db.collection("docs")).iter(*self.args):
            yield one


@pytest.mark.parametrize("asynchronous", [False, True])
@pytest.mark.usefixtures("quick")
def test_reads_and_writes_go_on_until_their_time_is_up(played: tuple[Played, str], asynchronous: bool) -> None:
    """gRPC's own repeats end after five attempts."""
    script, url = played
    for call, answer, found in (
        (Later("count"), records_pb2.CountResponse(count=5), 5),
        (Later("upsert", 1, np.ones(DIM)), records_pb2.WriteResponse(count=1), 1),
        (Later("iter"), records_pb2.ListResponse(), []),
    ):
        script.steps, script.calls = [lost] * 40 + [lambda context, answer=answer: answer], 0
        assert asked(url, call, asynchronous) == found and script.calls == 41
    script.steps = [lost]
    with pytest.raises(vecdb.Unavailable, match=r"grpc://localhost:\d+ cannot be reached: lost"):
        asked(url, Later("count"), asynchronous, timeout=0.2)


@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_call_that_finds_no_room_waits_as_long_as_the_server_says(
    played: tuple[Played, str], asynchronous: bool
) -> None:
    """Whatever the call is: nothing of it was done."""
    script, url = played
    for call, answer in (
        (Later("count"), records_pb2.CountResponse(count=5)),
        (lambda db: db.drop_collection("docs"), collections_pb2.DropCollectionResponse()),
        (lambda db: db.backup("b"), admin_pb2.BackupResponse()),
    ):
        script.steps, script.calls = [full(0.001)] * 9 + [lambda context, answer=answer: answer], 0
        asked(url, call, asynchronous)
        assert script.calls == 10
    script.steps, script.calls = [full(500.0)], 0
    for call in (Later("count"), Later("iter"), lambda db: db.drop_collection("docs")):
        with pytest.raises(vecdb.Unavailable, match=r"no room \(try again in 500 s\)") as caught:
            asked(url, call, asynchronous, timeout=9)
        assert caught.value.retry_after == 500.0
    assert script.calls == 3 and vecdb.Unavailable("x").retry_after is None


@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_call_that_waits_ends_where_its_database_is_closed_or_its_caller_says_so(
    played: tuple[Played, str], asynchronous: bool
) -> None:
    script, url = played
    script.steps = [full(0.05)]

    def near() -> None:
        db = vecdb.open(url)
        docs = db.collection("docs")
        threading.Timer(0.01, db.close).start()
        with pytest.raises(vecdb.Unavailable, match="is closed"):
            docs.count()

    async def far() -> None:
        db = await vecdb.aio.open(url)
        docs = await db.collection("docs")
        waiting = asyncio.ensure_future(docs.count())
        while not script.calls:  # the server has refused it
            await asyncio.sleep(0.001)
        await db.close()
        with pytest.raises(vecdb.Unavailable, match="is closed"):
            await waiting

    asyncio.run(far()) if asynchronous else near()


@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_timeout_of_one_call(played: tuple[Played, str], asynchronous: bool) -> None:
    script, url = played
    held = threading.Event()
    script.steps = [lambda context: held.wait(60)]

    async def far() -> None:
        async with vecdb.aio.open(url) as db:
            docs = (await db.collection("docs")).with_timeout(0.2)
            await docs.count()

    try:
        with pytest.raises(vecdb.Unavailable, match=r"did not answer within 0.2 s"):
            if asynchronous:
                asyncio.run(far())
            else:
                with vecdb.open(url) as db:
                    db.collection("docs").with_timeout(0.2).count()
    finally:
        held.set()
    with vecdb.open(":memory:") as db:
        docs = db.create_collection("docs", DIM)
        for bad in (0, -1, "1", True, float("inf")):
            with pytest.raises(vecdb.InvalidArgument, match="timeout must be a number of seconds above 0"):
                docs.with_timeout(bad)  # type: ignore[arg-type]
        with pytest.raises(vecdb.InvalidArgument, match="no timeout"):
            docs.with_timeout(1)


# -- with a server ---------------------------------------------------------------------------------


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Running]:
    running = Running(Config(path=str(tmp_path / "db"), listen="127.0.0.1:0", durability="relaxed", grace_s=5.0))
    yield running
    running.close()


def test_a_token_with_a_rate_waits_for_its_turn(tmp_path: Path) -> None:
    tokens = tmp_path / "tokens.json"
    secret = token(tokens, "limited", "admin", rate=20.0)
    running = Running(Config(path=":memory:", listen="127.0.0.1:0", tokens=str(tokens), grace_s=5.0))
    try:
        with vecdb.open(f"grpc://{running.address}", token=secret) as db:
            docs = db.create_collection("docs", DIM, "l2")
            docs.upsert(1, np.ones(DIM))
            assert [len(docs.search(np.ones(DIM))) for _ in range(30)] == [1] * 30
            hits = docs.search_stream([np.ones(DIM)] * 5)
            assert [len(one) for one in hits] == [1] * 5
    finally:
        running.close()


@pytest.mark.parametrize("asynchronous", [False, True])
def test_what_has_no_room_in_one_answer_is_read_in_several(
    server: Running, monkeypatch: pytest.MonkeyPatch, asynchronous: bool
) -> None:
    context = server.server.context
    url = f"grpc://{server.address}"
    with vecdb.open(url) as db:
        docs = db.create_collection("docs", DIM, "l2")
        vectors = np.random.default_rng(3).normal(size=(1_000, DIM)).astype(np.float32)
        docs.upsert(range(1_000), vectors, [{"n": n} for n in range(1_000)])
    monkeypatch.setattr(context, "answer_bytes_max", 50 * 4 * DIM)
    ids = [*range(0, 1_000, 3), 5_000, 7]

    async def far(ids: Any) -> Any:
        async with vecdb.aio.open(url) as db:
            return await (await db.collection("docs")).get(ids, include_vectors=True)

    def read(ids: Any) -> Any:
        if asynchronous:
            return asyncio.run(far(ids))
        with vecdb.open(url) as db:
            return db.collection("docs").get(ids, include_vectors=True)

    found = read(ids)
    assert [None if one is None else one.id for one in found] == [*ids[:-2], None, 7]
    assert np.array_equal([one.vector for one in found if one is not None], vectors[[*ids[:-2], 7]])
    assert read(7).fields == {"n": 7} and read([]) == []
    monkeypatch.setattr(remote_collection, "_GET_IDS", 100)
    assert [one.id for one in read(range(1_000))] == [*range(1_000)]
    monkeypatch.setattr(context, "answer_bytes_max", 10)
    with pytest.raises(vecdb.LimitExceeded, match="several calls"):
        read([1, 2])


def test_an_atomic_call_larger_than_a_message_says_what_to_do(server: Running) -> None:
    with vecdb.open(f"grpc://{server.address}") as db:
        docs = db.create_collection("docs", 8_192, "l2", vecdb.Flat())
        rows = MESSAGE_BYTES_MAX // (4 * 8_192) + 1
        vectors = np.ones((rows, 8_192), np.float32)
        with pytest.raises(vecdb.LimitExceeded, match="atomic=False") as caught:
            docs.upsert(range(rows), vectors)
        assert caught.value.code == "LIMIT_EXCEEDED" and docs.count() == 0
        assert docs.upsert(range(rows), vectors, atomic=False) == rows == docs.count()
        with pytest.raises(vecdb.LimitExceeded, match="several calls"):
            docs.search(vectors[:1], 2_049, include_vectors=True)
