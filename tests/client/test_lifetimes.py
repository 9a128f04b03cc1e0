"""A database that is closed, forgotten, forked or carried to another event loop: what its calls say, what is left."""

from __future__ import annotations

import asyncio
import gc
import itertools
import os
import pydoc
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vecdb
from tests.support.server.driver import PATIENCE_S, Running
from tests.support.server.process import ENVIRONMENT
from vecdb.client.connection import Connection
from vecdb_server.config import Config
from vecdb_server.security.auth import ANONYMOUS

DIM = 4
VECTORS = np.arange(80, dtype=np.float32).reshape(20, DIM)
CLOSED = r"^database grpc://localhost:\d+ is closed; open it again$"


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Running]:
    made = Running(
        Config(path=str(tmp_path / "db"), listen="127.0.0.1:0", kernel_threads=1, write_threads=1, grace_s=5.0)
    )
    docs = made.server.context.db.create_collection("docs", DIM, "l2")
    docs.upsert(range(20), VECTORS)
    yield made
    made.close()


@pytest.fixture
def url(running: Running) -> str:
    return f"grpc://{running.address}"


@pytest.fixture
def held(running: Running) -> Iterator[None]:
    """The server's threads are kept busy while this lasts: whoever needs one waits."""
    gate, context = threading.Event(), running.server.context
    running.on_loop(context.collection(ANONYMOUS, "docs"))  # to open it takes a thread
    context.latencies.short_us = 0.0  # nothing is done on the loop

    async def hold() -> list[asyncio.Future[Any]]:
        pools = (context.kernels, context.writers)
        return [asyncio.ensure_future(pool.run("holder", lambda stop: gate.wait(PATIENCE_S))) for pool in pools]

    kept = running.on_loop(hold())
    running.until(lambda: context.kernels.busy and context.writers.busy)
    yield
    gate.set()
    running.until(lambda: all(one.done() for one in kept))


def everything(docs: Any) -> list[Callable[[], Any]]:
    """Calls of each kind: with one answer, with many, with a stream of requests."""
    return [
        docs.count,
        lambda: docs.search(VECTORS[0], 3),
        lambda: docs.search(VECTORS, 3, stop=lambda: False),
        lambda: docs.upsert([1], VECTORS[:1]),
        lambda: docs.upsert(list(range(70_000)), np.ones((70_000, DIM), np.float32), atomic=False),
        lambda: docs.search_stream(VECTORS),
        lambda: docs.iter(),
        docs.optimize,
    ]


def done(call: Callable[[], Any]) -> Any:
    found = call()
    return list(found) if hasattr(found, "__next__") else found


async def awaited(call: Callable[[], Any]) -> Any:
    found = call()
    return [one async for one in found] if hasattr(found, "__aiter__") else await found


def test_calls_that_are_under_way_when_their_database_is_closed_say_so(running: Running, url: str, held: None) -> None:
    db = vecdb.open(url)
    calls = everything(db.collection("docs"))[:-1]
    with ThreadPoolExecutor(len(calls)) as threads:
        coming = [threads.submit(done, call) for call in calls]
        running.until(lambda: running.server.context.admission.calls == len(calls))
        db.close()
        for one in coming:
            with pytest.raises(vecdb.Unavailable, match=CLOSED):
                one.result(PATIENCE_S)


def test_nor_are_asynchronous_ones_cancelled_but_those_whose_task_is(running: Running, url: str, held: None) -> None:
    async def main() -> None:
        db = await vecdb.aio.open(url)
        docs = await db.collection("docs")
        calls = everything(docs)[:-1]
        coming = [asyncio.ensure_future(awaited(call)) for call in [*calls, *calls]]
        while running.server.context.admission.calls < len(coming):
            await asyncio.sleep(0.001)
        left, cancelled = coming[: len(calls)], coming[len(calls) :]
        for one in cancelled:
            one.cancel()
        await db.close()
        for one in left:
            with pytest.raises(vecdb.Unavailable, match=CLOSED):
                await one
        found = await asyncio.gather(*cancelled, return_exceptions=True)
        assert all(isinstance(one, asyncio.CancelledError) for one in found)

    asyncio.run(main())


def test_a_call_that_is_cancelled_or_out_of_time_on_an_open_database_is_cancelled(url: str, held: None) -> None:
    async def main() -> None:
        async with vecdb.aio.open(url) as db:
            docs = await db.collection("docs")
            for call in everything(docs)[:-1]:
                with pytest.raises(TimeoutError):
                    async with asyncio.timeout(0.05):
                        await awaited(call)

    asyncio.run(main())


def test_what_comes_after_the_end_is_told_of_it_and_a_second_end_is_none(url: str) -> None:
    async def later() -> None:
        db = await vecdb.aio.open(url)
        docs = await db.collection("docs")
        listed, searched = docs.iter(batch=1), docs.search_stream(itertools.repeat(VECTORS[0]))
        await anext(listed), await anext(searched)
        await db.close()
        await db.close()
        for call in [*everything(docs), db.collections, lambda: listed, lambda: searched]:
            with pytest.raises(vecdb.Unavailable, match=CLOSED):
                await awaited(call)
        assert repr(db).endswith(", closed>") and "docs" in repr(docs)

    asyncio.run(later())
    with vecdb.open(url) as db:
        docs = db.collection("docs")
        listed, searched = docs.iter(batch=1), docs.search_stream(itertools.repeat(VECTORS[0]))
        next(listed), next(searched)
        db.close()
        for call in [*everything(docs), db.collections, lambda: listed, lambda: searched]:
            with pytest.raises(vecdb.Unavailable, match=CLOSED):
                done(call)
        assert repr(db).endswith(", closed>") and "docs" in repr(docs)


def test_a_database_that_another_thread_closes_between_look_and_call_is_closed(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with vecdb.open(url) as db:
        docs = db.collection("docs")
        db.close()
        monkeypatch.setattr(Connection, "_begin", lambda self, rpc: PATIENCE_S)  # it looked before
        for call in everything(docs):
            with pytest.raises(vecdb.Unavailable, match=CLOSED):
                done(call)


@pytest.mark.parametrize("ended", [False, True])
def test_an_asynchronous_database_belongs_to_one_event_loop(url: str, ended: bool) -> None:
    async def opened() -> Any:
        db = await vecdb.aio.open(url)
        return db, await db.collection("docs")

    def elsewhere(db: Any, docs: Any) -> None:
        for call in [*everything(docs), db.collections]:
            with pytest.raises(vecdb.Unavailable, match=f"database {url} was opened on another event loop; open it"):
                asyncio.run(awaited(call))

    async def here() -> None:
        db, docs = await opened()
        await asyncio.to_thread(elsewhere, db, docs)
        with pytest.raises(vecdb.Unavailable, match="another event loop"):
            await asyncio.to_thread(asyncio.run, awaited(db.close))
        assert await docs.count() == 20  # as if nothing had been
        await db.close()

    if not ended:
        asyncio.run(here())
        return
    db, docs = asyncio.run(opened())
    elsewhere(db, docs)
    asyncio.run(awaited(db.close))
    with pytest.raises(vecdb.Unavailable, match=CLOSED):
        asyncio.run(awaited(docs.count))


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("kind", ["near", "aio"])
def test_a_database_that_is_forgotten_leaves_nothing_behind(running: Running, url: str, kind: str) -> None:
    def left() -> tuple[int, int]:
        gc.collect()
        return threading.active_count(), len(os.listdir("/proc/self/fd"))

    async def forget() -> None:
        db = await vecdb.aio.open(url)
        assert await (await db.collection("docs")).count() == 20

    def use() -> None:
        if kind == "aio":
            asyncio.run(forget())
        else:
            assert vecdb.open(url).collection("docs").count() == 20

    use()
    threads, descriptors = left()
    for _ in range(10):
        use()
    running.until(lambda: left()[0] <= threads and left()[1] <= descriptors)


FORK = """
import asyncio, os, signal, sys, vecdb

async def counted():
    async with vecdb.aio.open(url) as db:
        return await (await db.collection("docs")).count()

def child():
    if sys.argv[2] == "aio":
        return asyncio.run(counted())
    with vecdb.open(url) as db:
        return db.collection("docs").count()

url = sys.argv[1]
with vecdb.open(url) as db:
    assert db.collection("docs").count() == 20
    number = os.fork()
    if number == 0:
        signal.alarm(60)
        os._exit(0 if child() == 20 else 1)
    assert os.waitpid(number, 0)[1] == 0
    assert db.collection("docs").count() == 20
"""


@pytest.mark.parametrize("kind", ["near", "aio"])
def test_a_forked_process_can_open_its_own(url: str, kind: str) -> None:
    # in a process where grpc.aio never ran: it does not come through a fork
    subprocess.run([sys.executable, "-c", FORK, url, kind], check=True, env=ENVIRONMENT, timeout=2 * PATIENCE_S)


FORK_WHILE_OPEN = """
import asyncio, gc, os, signal, sys, vecdb

url = sys.argv[1]

async def counted():
    async with vecdb.aio.open(url) as db:
        return await (await db.collection("docs")).count()

async def inherited(db):
    return await db.collections()

def refused(coroutine, said):
    try:
        asyncio.run(coroutine)
    except vecdb.Unavailable as error:
        assert said in str(error), error
    else:
        raise AssertionError(said)

def child(work):
    number = os.fork()
    if number == 0:
        signal.alarm(60)
        try:
            work()
            os._exit(0)
        finally:
            os._exit(1)
    assert os.waitpid(number, 0)[1] == 0

async def main():
    there = [await vecdb.aio.open(url)]
    closed = await vecdb.aio.open(url)
    await closed.close()

    def while_open():
        refused(inherited(there[0]), "inherited by a fork")
        refused(counted(), "start it by spawn, or use vecdb.open")
        there.clear()
        gc.collect()
        refused(counted(), "start it by spawn, or use vecdb.open")
        with vecdb.open(url) as db:
            assert db.collection("docs").count() == 20

    child(while_open)
    assert await counted() == 20 and await there[0].collections() == ["docs"]
    await there[0].close()
    return [closed, *there]

held = asyncio.run(main())
child(lambda: asyncio.run(counted()))
"""


def test_a_process_forked_while_an_asynchronous_database_is_open_is_told_so(url: str) -> None:
    subprocess.run([sys.executable, "-c", FORK_WHILE_OPEN, url], check=True, env=ENVIRONMENT, timeout=2 * PATIENCE_S)


@pytest.mark.parametrize("of", [vecdb.Database, vecdb.Collection, vecdb.aio.Database, vecdb.aio.Collection])
def test_help_tells_of_every_method(of: type) -> None:
    text = pydoc.plain(pydoc.render_doc(of))
    for name in vars(vecdb.Collection if of.__name__ == "Collection" else vecdb.Database):
        if not name.startswith("_"):
            assert name in text, name
    for name, member in vars(of).items():
        if not name.startswith("_") and callable(member):
            assert member.__doc__ and f"{name}(self" in text, name
