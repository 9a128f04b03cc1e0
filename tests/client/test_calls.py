"""Calls that fail on the way, take too long, or are too large: repeated where that is safe, clear errors where not."""

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
from tests.support.server.driver import Running
from tests.support.server.process import Process
from vecdb.client import channel, connection, remote_collection, retry
from vecdb.client.streams import bulk_ingest
from vecdb.errors import Stale
from vecdb.v1 import (
    admin_pb2,
    admin_pb2_grpc,
    collections_pb2,
    collections_pb2_grpc,
    records_pb2,
    records_pb2_grpc,
    search_pb2,
    search_pb2_grpc,
)
from vecdb_server.config import Config
from vecdb_server.status_errors import status_of

DIM = 16


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Running]:
    running = Running(Config(path=str(tmp_path / "db"), listen="127.0.0.1:0", durability="relaxed", grace_s=5.0))
    yield running
    running.close()


class Scripted(
    admin_pb2_grpc.AdminServiceServicer,
    collections_pb2_grpc.CollectionServiceServicer,
    records_pb2_grpc.RecordServiceServicer,
    search_pb2_grpc.SearchServiceServicer,
):  # type: ignore[misc]
    """Does as a test says: `script` holds, by rpc, what happens at each call, the last again and again."""

    def __init__(self) -> None:
        self.script: dict[str, list[Callable[[Any], Any]]] = {}
        self.asked: dict[str, list[Any]] = {}

    def _play(self, rpc: str, request: Any, context: Any) -> Any:
        self.asked.setdefault(rpc, []).append(request)
        steps = self.script[rpc]
        return (steps.pop(0) if len(steps) > 1 else steps[0])(context)

    def GetServerInfo(self, request: Any, context: Any) -> Any:
        return admin_pb2.GetServerInfoResponse()

    def GetCollection(self, request: Any, context: Any) -> Any:
        return collections_pb2.GetCollectionResponse(
            collection=collections_pb2.Collection(name=request.name, dim=DIM, dtype=1)
        )

    def CreateCollection(self, request: Any, context: Any) -> Any:
        return self._play("CreateCollection", request, context)

    def Write(self, request: Any, context: Any) -> Any:
        return self._play("Write", request, context)

    def Count(self, request: Any, context: Any) -> Any:
        return self._play("Count", request, context)

    def Search(self, request: Any, context: Any) -> Any:
        return self._play("Search", request, context)

    def StreamSearch(self, requests: Any, context: Any) -> Any:
        """script: for each stream, how many queries are answered before it is lost."""
        answered, end = self.script["StreamSearch"].pop(0)(context)
        for at, request in enumerate(requests):
            query = np.frombuffer(request.search.vectors.data, "<f4")[0]
            self.asked.setdefault("StreamSearch", []).append(int(query))
            if at == answered:
                end(context)
                return
            hits = search_pb2.SearchResponse(counts=[1], distances=[0.0])
            hits.ids.ints.values.append(int(query))
            yield search_pb2.StreamSearchResponse(hits=hits)

    def Ingest(self, requests: Any, context: Any) -> Any:
        """script: for each stream, at which batch it is lost, how many of those before are answered."""
        lost_at, answered = self.script["Ingest"].pop(0)(context)
        for at, request in enumerate(requests):
            self.asked.setdefault("Ingest", []).append((request.batch, request.write.request_id))
            if at == lost_at:
                context.abort(grpc.StatusCode.UNAVAILABLE, "lost")
            if at < answered:
                yield records_pb2.IngestResponse(batch=request.batch, count=len(request.write.ids.ints.values))


def fail(code: grpc.StatusCode, text: str = "lost") -> Callable[[Any], Any]:
    return lambda context: context.abort(code, text)


def give(answer: Any) -> Callable[[Any], Any]:
    return lambda context: answer


@pytest.fixture
def scripted() -> Iterator[tuple[Scripted, str]]:
    made = Scripted()
    running = grpc.server(futures.ThreadPoolExecutor(8))
    admin_pb2_grpc.add_AdminServiceServicer_to_server(made, running)
    collections_pb2_grpc.add_CollectionServiceServicer_to_server(made, running)
    records_pb2_grpc.add_RecordServiceServicer_to_server(made, running)
    search_pb2_grpc.add_SearchServiceServicer_to_server(made, running)
    port = running.add_insecure_port("127.0.0.1:0")
    running.start()
    yield made, f"grpc://localhost:{port}"
    running.stop(None).wait()


LOST = fail(grpc.StatusCode.UNAVAILABLE)


def test_reads_are_repeated_and_so_are_writes_under_one_request_id(scripted: tuple[Scripted, str]) -> None:
    script, url = scripted
    script.script = {
        "Count": [LOST, fail(grpc.StatusCode.CANCELLED, "ended"), give(records_pb2.CountResponse(count=5))],
        "Write": [LOST, give(records_pb2.WriteResponse(count=1))],
    }
    with vecdb.open(url) as db:
        docs = db.collection("docs")
        assert docs.count() == 5 and docs.upsert(1, np.ones(DIM)) == 1 and docs.upsert(1, np.ones(DIM)) == 1
    assert len(script.asked["Count"]) == 3
    first, again, other = [one.request_id for one in script.asked["Write"]]
    assert first == again != other and len(first) == 32


def test_what_would_happen_twice_is_not_repeated(scripted: tuple[Scripted, str]) -> None:
    script, url = scripted
    script.script = {"CreateCollection": [LOST], "Count": [fail(grpc.StatusCode.INTERNAL, "broken")]}
    with vecdb.open(url) as db:
        with pytest.raises(vecdb.Unavailable, match=r"grpc://localhost:\d+ cannot be reached: lost"):
            db.create_collection("docs", DIM)
        with pytest.raises(vecdb.VecdbError, match="broken") as caught:
            db.collection("docs").count()
    assert len(script.asked["CreateCollection"]) == len(script.asked["Count"]) == 1 and caught.value.code == "INTERNAL"


@pytest.mark.parametrize(
    "name", ["PERMISSION_DENIED", "UNIMPLEMENTED", "RESOURCE_EXHAUSTED", "UNAUTHENTICATED", "UNKNOWN"]
)
def test_a_status_without_details_is_still_an_error_of_ours(scripted: tuple[Scripted, str], name: str) -> None:
    script, url = scripted
    script.script = {"Count": [fail(grpc.StatusCode[name], "said the proxy")]}
    kind = {"RESOURCE_EXHAUSTED": vecdb.Unavailable, "UNIMPLEMENTED": vecdb.VecdbError, "UNKNOWN": vecdb.VecdbError}
    with vecdb.open(url) as db, pytest.raises(vecdb.VecdbError, match=r"proxy|does not know Count") as caught:
        db.collection("docs").count()
    assert type(caught.value) is kind.get(name, vecdb.PermissionDenied)


def test_a_copy_that_is_stale_is_so_over_grpc_too(scripted: tuple[Scripted, str]) -> None:
    script, url = scripted

    def refuse(error: vecdb.Unavailable) -> Callable[[Any], Any]:
        def step(context: Any) -> Any:
            code, message, trailing = status_of(error, "request")
            context.set_trailing_metadata(trailing)
            context.abort(code, message)

        return step

    with vecdb.open(url) as db:
        for error in (Stale("late"), vecdb.Unavailable("late")):
            script.script = {"CreateCollection": [refuse(error)]}
            with pytest.raises(vecdb.Unavailable, match="late") as caught:
                db.create_collection("docs", DIM)
            assert type(caught.value) is type(error) and caught.value.code == "UNAVAILABLE"


def test_a_call_that_takes_too_long_says_so(scripted: tuple[Scripted, str]) -> None:
    script, url = scripted
    held = threading.Event()
    script.script = {"Count": [lambda context: held.wait(60)]}
    try:
        with vecdb.open(url, timeout=0.3) as db, pytest.raises(vecdb.Unavailable, match=r"did not answer within 0.3 s"):
            db.collection("docs").count()
    finally:
        held.set()


def test_a_search_is_given_up_where_its_caller_says_so(scripted: tuple[Scripted, str]) -> None:
    script, url = scripted
    held, gone = threading.Event(), threading.Event()

    def hold(context: Any) -> Any:
        context.add_callback(gone.set)
        held.wait(60)
        return search_pb2.SearchResponse()

    script.script = {"Search": [hold]}
    try:
        with vecdb.open(url) as db, pytest.raises(vecdb.Unavailable, match="cancelled"):
            db.collection("docs").search(np.ones((2, DIM)), stop=lambda: bool(script.asked.get("Search")))
        assert gone.wait(30), "the server is told"
        gone.clear()

        async def asked() -> None:
            async with vecdb.aio.open(url) as far:
                docs = await far.collection("docs")
                with pytest.raises(vecdb.Unavailable, match="cancelled"):
                    await docs.search(np.ones((2, DIM)), stop=lambda: len(script.asked["Search"]) > 1)
                assert await asyncio.to_thread(gone.wait, 30)
                gone.clear()
                task = asyncio.ensure_future(docs.search(np.ones(DIM)))
                while len(script.asked["Search"]) < 3:
                    await asyncio.sleep(0.001)
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
                assert await asyncio.to_thread(gone.wait, 30), "a task that is cancelled cancels its call"

        asyncio.run(asked())
    finally:
        held.set()


# -- many batches ----------------------------------------------------------------------------------


def upserted(url: str, rows: int, asynchronous: bool) -> int:
    """By a call that is split."""
    vectors = np.ones((rows, DIM), np.float32)

    async def far() -> int:
        async with vecdb.aio.open(url) as db:
            return await (await db.collection("docs")).upsert(range(rows), vectors, atomic=False)

    if asynchronous:
        return asyncio.run(far())
    with vecdb.open(url) as db:
        return db.collection("docs").upsert(range(rows), vectors, atomic=False)


@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_stream_that_breaks_goes_on_at_the_first_unanswered_batch_under_the_same_ids(
    scripted: tuple[Scripted, str], monkeypatch: pytest.MonkeyPatch, asynchronous: bool
) -> None:
    monkeypatch.setattr(remote_collection, "_BATCH_BYTES", 10 * (4 * DIM + 16))
    script, url = scripted
    script.script = {"Ingest": [give((3, 2)), give((0, 0)), give((2, 1)), give((99, 99))]}
    assert upserted(url, 95, asynchronous) == 95
    asked = script.asked["Ingest"]
    first = asked[0][1].removesuffix("-0")
    assert all(one == (batch, f"{first}-{batch - 1}") for batch, one in ((b, (b, i)) for b, i in asked))
    assert [batch for batch, _ in asked] == [1, 2, 3, 4, 3, 3, 4, 5, *range(4, 11)]


@pytest.mark.parametrize("asynchronous", [False, True])
def test_at_most_four_batches_are_on_their_way_and_a_stream_that_gets_nowhere_is_given_up(
    scripted: tuple[Scripted, str], monkeypatch: pytest.MonkeyPatch, asynchronous: bool
) -> None:
    monkeypatch.setattr(remote_collection, "_BATCH_BYTES", 4 * DIM + 16)
    monkeypatch.setattr(retry, "_FIRST_WAIT_S", 0.001)
    monkeypatch.setattr(retry, "_WAIT_MAX_S", 0.001)
    script, url = scripted
    made: list[int] = []
    make = bulk_ingest.IngestStream._make

    def counted(self: Any) -> Any:
        made.append(1)
        return make(self)

    monkeypatch.setattr(bulk_ingest.IngestStream, "_make", counted)
    script.script = {"Ingest": [give((23, 20)), *(give((0, 0)) for _ in range(retry._ATTEMPTS_MAX - 1))]}
    with pytest.raises(vecdb.Unavailable, match="cannot be reached: lost"):
        upserted(url, 100, asynchronous)
    assert len(made) == 24, "no more are made than may be unanswered"
    assert script.script["Ingest"] == [], "as many attempts as there may be without an answer, and no more"


@pytest.mark.parametrize(  # slow: three seconds of waiting; the stream is the same
    "asynchronous", [pytest.param(False, marks=pytest.mark.slow), True]
)
def test_a_stream_may_last_longer_than_a_write_as_long_as_it_is_answered(
    scripted: tuple[Scripted, str], monkeypatch: pytest.MonkeyPatch, asynchronous: bool
) -> None:
    monkeypatch.setattr(remote_collection, "_BATCH_BYTES", 10 * (4 * DIM + 16))
    monkeypatch.setattr(channel, "WRITE_S", 1.0)
    script, url = scripted
    script.script = {"Ingest": [give((99, 3)), give((99, 99))]}
    assert upserted(url, 95, asynchronous) == 95
    script.script = {"Ingest": [give((99, 3)), give((99, 0))]}
    with pytest.raises(vecdb.Unavailable, match="did not answer within 1 s"):
        upserted(url, 95, asynchronous)


@pytest.mark.parametrize("asynchronous", [False, True])
def test_an_error_of_a_later_batch_is_the_error_of_the_call(server: Running, asynchronous: bool) -> None:
    with vecdb.open(f"grpc://{server.address}") as db:
        docs = db.create_collection("docs", 1_024, "l2", vecdb.Flat())
        rows = 20 * docs._backend.rows_per_call
        vectors = np.ones((rows, 1_024), np.float32)
        docs.upsert(rows // 2, vectors[0])

        async def insert() -> None:
            async with vecdb.aio.open(f"grpc://{server.address}") as far:
                await (await far.collection("docs")).insert(range(rows), vectors, atomic=False)

        with pytest.raises(vecdb.AlreadyExists, match=str(rows // 2)):
            if asynchronous:
                asyncio.run(insert())
            else:
                docs.insert(range(rows), vectors, atomic=False)
        assert docs.count() >= rows // 2


class Watched:
    """Vectors of a call that is split; on_part(n) is called before part n is read."""

    ndim = 2

    def __init__(self, vectors: np.ndarray, on_part: Callable[[int], None]) -> None:
        self._vectors = vectors
        self._on_part = on_part
        self.parts = 0

    def __getitem__(self, part: slice) -> np.ndarray:
        self._on_part(self.parts)
        self.parts += 1
        return self._vectors[part]


@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_bulk_is_read_no_further_ahead_of_what_is_acknowledged_than_four_batches(
    server: Running, monkeypatch: pytest.MonkeyPatch, asynchronous: bool
) -> None:
    """A million small records against a server whose commits stop for a while."""
    step, held_at = 20_000, 12
    rows, held, gate = 50 * step, threading.Event(), threading.Event()
    monkeypatch.setattr(remote_collection, "_BATCH_BYTES", step * (4 * 2 + 16))
    docs = server.server.context.db.create_collection("docs", 2, "l2", vecdb.Flat())
    written: list[int] = []
    ahead: list[int] = []
    put = docs._backend.put

    def slow(batch: Any, *rest: Any) -> int:
        if len(written) == held_at:
            held.set()
            gate.wait(60)
        written.append(put(batch, *rest))
        return written[-1]

    monkeypatch.setattr(docs._backend, "put", slow)

    class Made:
        """[rows, 2] that are made when they are asked for."""

        ndim = 2
        parts = 0

        def __getitem__(self, part: slice) -> np.ndarray:
            ahead.append(self.parts - len(written))  # no more is acknowledged than is written
            self.parts += 1
            return np.ones((len(range(rows)[part]), 2), np.float32)

    made = Made()

    async def far() -> int:
        async with vecdb.aio.open(f"grpc://{server.address}") as db:
            return int(await (await db.collection("docs")).upsert(range(rows), made, atomic=False))

    def near() -> int:
        with vecdb.open(f"grpc://{server.address}") as db:
            return db.collection("docs").upsert(range(rows), made, atomic=False)

    def unanswered() -> int:
        return sum(len(stream._pending) for stream in server.server.context.streams)

    with futures.ThreadPoolExecutor(1) as thread:
        coming = thread.submit(asyncio.run, far()) if asynchronous else thread.submit(near)
        # The thirteenth write is held; the answer to the one before it may still be on its way.
        server.until(lambda: held.is_set() and made.parts >= held_at + bulk_ingest.UNANSWERED_MAX)
        server.until(lambda: unanswered() == bulk_ingest.UNANSWERED_MAX)
        assert made.parts == held_at + bulk_ingest.UNANSWERED_MAX, "as much as was acknowledged, and four batches"
        gate.set()
        assert coming.result(120) == rows
    assert max(ahead) < bulk_ingest.UNANSWERED_MAX and sum(written) == rows == docs.count()


def test_a_killed_server_is_resumed_from_what_it_had_acknowledged_and_nothing_is_written_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Batches go to a server that is killed under them, twice; each record has one row at the end."""
    monkeypatch.setattr(remote_collection, "_BATCH_BYTES", 4 << 20)
    dim, rows = 1_024, 12_000
    vectors = np.random.default_rng(0).normal(size=(rows, dim)).astype(np.float32)
    current = [Process(tmp_path / "db", tmp_path)]
    port = current[0].ports()[0]

    def on_part(number: int) -> None:
        if number in (4, 10):
            current[0].kill()
            current[0] = Process(tmp_path / "db", tmp_path, listen=f"127.0.0.1:{port}")
            current[0].ports()

    try:
        with vecdb.open(f"grpc://localhost:{port}") as db:
            docs = db.create_collection("docs", dim, "l2", vecdb.Flat())
            watched = Watched(vectors, on_part)
            assert docs.upsert(range(rows), watched, [{"n": n} for n in range(rows)], atomic=False) == rows
            assert watched.parts > 10, "each part is made once"
            stats = docs.stats()
            assert (stats["live"], stats["rows"]) == (rows, rows), "what was answered late was not written again"
            assert docs.check() == []
            at = np.arange(0, rows, 997)
            assert np.array_equal([one.vector for one in docs.get(at, include_vectors=True)], vectors[at])
    finally:
        current[0].__exit__()


def test_a_server_that_drains_ends_the_stream_and_the_next_one_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote_collection, "_BATCH_BYTES", 4 << 20)
    config = Config(path=str(tmp_path / "db"), listen="127.0.0.1:0", durability="relaxed", grace_s=5.0)
    current = [Running(config)]
    port = current[0].server.port
    vectors = np.random.default_rng(0).normal(size=(9_000, 1_024)).astype(np.float32)

    def on_part(number: int) -> None:
        if number == 5:
            current[0].close()
            current[0] = Running(
                Config(path=config.path, listen=f"127.0.0.1:{port}", durability="relaxed", grace_s=5.0)
            )

    async def write() -> tuple[int, dict[str, Any]]:
        async with vecdb.aio.open(f"grpc://localhost:{port}") as db:
            docs = await db.create_collection("docs", 1_024, "l2", vecdb.Flat())
            count = await docs.upsert(range(9_000), Watched(vectors, on_part), atomic=False)
            return count, await docs.stats()

    try:
        count, stats = asyncio.run(write())
        assert count == stats["live"] == stats["rows"] == 9_000
    finally:
        current[0].close()


def test_a_mistake_in_a_later_batch_is_raised_once_those_before_it_are_written(server: Running) -> None:
    with vecdb.open(f"grpc://{server.address}") as db:
        docs = db.create_collection("docs", 1_024, "l2", vecdb.Flat())
        step = docs._backend.rows_per_call
        vectors = np.ones((5 * step, 1_024), np.float32)
        vectors[3 * step + 7, 0] = np.nan
        with pytest.raises(vecdb.InvalidArgument, match="finite"):
            docs.upsert(range(len(vectors)), vectors, atomic=False)
        assert docs.count() == 3 * step
        assert [one.name for one in threading.enumerate() if "consum" in one.name.lower()] == [], "no thread is left"


def test_calls_from_many_threads_share_a_connection(server: Running) -> None:
    with vecdb.open(f"grpc://{server.address}") as db:
        docs = db.create_collection("docs", DIM, "l2")
        vectors = np.random.default_rng(1).normal(size=(400, DIM)).astype(np.float32)

        def work(start: int) -> list[int]:
            docs.upsert(range(start, start + 50), vectors[start : start + 50])
            return [int(docs.search(vectors[at], 1).ids[0]) for at in range(start, start + 50)]

        with futures.ThreadPoolExecutor(8) as pool:
            found = [one for part in pool.map(work, range(0, 400, 50)) for one in part]
        assert found == list(range(400)) and docs.count() == 400


def test_a_line_and_its_asynchronous_twin_have_the_same_methods() -> None:
    def public(kind: type) -> set[str]:
        return {name for name in vars(kind) if not name.startswith("__")}

    assert public(connection.Connection) == public(connection.AsyncConnection)


def test_the_asynchronous_classes_have_every_method_of_the_others() -> None:
    for near, far in ((vecdb.Collection, vecdb.aio.Collection), (vecdb.Database, vecdb.aio.Database)):
        missing = {name for name in vars(near) if not name.startswith("_")} - set(vars(far))
        assert missing == set()
        for name in ("search", "create_collection", "upsert"):
            if hasattr(near, name):
                assert getattr(far, name).__doc__ == getattr(near, name).__doc__


def streamed(url: str, count: int, asynchronous: bool, window: int = 4) -> list[int]:
    queries = np.repeat(np.arange(count, dtype=np.float32)[:, None] + 1, DIM, 1)
    if not asynchronous:
        with vecdb.open(url) as db:
            return [int(hits.ids[0]) for hits in db.collection("docs").search_stream(queries, 1, window=window)]

    async def each() -> Any:
        for query in queries:
            yield query

    async def search() -> list[int]:
        async with vecdb.aio.open(url) as db:
            docs = await db.collection("docs")
            return [int(hits.ids[0]) async for hits in docs.search_stream(each(), 1, window=window)]

    return asyncio.run(search())


@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_stream_of_queries_that_breaks_goes_on_with_those_that_were_not_answered(
    scripted: tuple[Scripted, str], monkeypatch: pytest.MonkeyPatch, asynchronous: bool
) -> None:
    monkeypatch.setattr(retry, "_FIRST_WAIT_S", 0.001)
    monkeypatch.setattr(retry, "_WAIT_MAX_S", 0.001)
    script, url = scripted
    script.script = {"StreamSearch": [give((5, LOST)), give((0, LOST)), give((3, LOST)), give((99, LOST))]}
    assert streamed(url, 30, asynchronous) == list(range(1, 31))
    first = script.asked["StreamSearch"]
    assert first[:5] == [1, 2, 3, 4, 5] and first.count(6) >= 3, "asked again, and none of those answered"
    assert all(first.count(n) == 1 for n in range(1, 6))


@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_stream_of_queries_that_gets_nowhere_is_given_up(
    scripted: tuple[Scripted, str], monkeypatch: pytest.MonkeyPatch, asynchronous: bool
) -> None:
    monkeypatch.setattr(retry, "_FIRST_WAIT_S", 0.001)
    monkeypatch.setattr(retry, "_WAIT_MAX_S", 0.001)
    script, url = scripted
    script.script = {"StreamSearch": [give((2, LOST)), *[give((0, LOST))] * (retry._ATTEMPTS_MAX - 1)]}
    with pytest.raises(vecdb.Unavailable, match="cannot be reached: lost"):
        streamed(url, 30, asynchronous)
    assert script.script["StreamSearch"] == []
    # more than two: where a batch was under way grpc.aio hides the reason, and the client asks again
    script.script = {"StreamSearch": [give((2, fail(grpc.StatusCode.PERMISSION_DENIED, "enough")))] * 8}
    with pytest.raises(vecdb.PermissionDenied, match="enough"):
        streamed(url, 30, asynchronous)
    # A stream that ends while its client is sending may end as one that was lost, and is then begun again.
    script.script = {"StreamSearch": [give((2, lambda context: None))] * 199}
    with pytest.raises(vecdb.Unavailable, match="before it had answered all queries"):
        streamed(url, 400, asynchronous)
