"""A stream of requests without a network: order, bound, and every way to end."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator, Callable
from typing import Any

import numpy as np
import pytest

from tests.support.server.driver import Running, search_request
from vecdb import InvalidArgument, Unavailable
from vecdb.v1 import search_pb2
from vecdb_server.security.auth import ANONYMOUS
from vecdb_server.services.bidi_stream import PENDING_MAX, BidiStream
from vecdb_server.services.search import Search

never_awaited = pytest.mark.filterwarnings("error")  # of coroutines: their ends raise, and this fails the test


class Context:
    """Takes answers, or fails to."""

    def __init__(self) -> None:
        self.sent: list[Any] = []
        self.broken = False

    async def write(self, answer: Any) -> None:
        await asyncio.sleep(0)
        if self.broken:
            raise ConnectionError("gone")
        self.sent.append(answer)


class Sender:
    """Messages that come when they are told to."""

    def __init__(self) -> None:
        self.queue: asyncio.Queue[Any] = asyncio.Queue()
        self.read = 0

    async def messages(self) -> AsyncIterator[Any]:
        while (message := await self.queue.get()) is not None:
            self.read += 1
            yield message

    def send(self, *messages: Any) -> None:
        for one in messages:
            self.queue.put_nowait(one)


def scenario(body: Callable[[Sender, Context, Callable[[Any], asyncio.Task[None]], list[BidiStream]], Any]) -> None:
    async def main() -> None:
        sender, context, made = Sender(), Context(), []

        def serve(begin: Any) -> asyncio.Task[None]:
            async def run() -> None:
                made.append(BidiStream(sender.messages(), context, lambda message: None))
                await made[0].serve(begin)

            return asyncio.ensure_future(run())

        async with asyncio.timeout(60):
            await body(sender, context, serve, made)

    asyncio.run(main())


async def turns(count: int = 50) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


def test_answers_keep_the_order_of_the_requests_whether_they_are_there_at_once_or_not() -> None:
    async def body(sender: Sender, context: Context, serve: Any, made: list[BidiStream]) -> None:
        async def slowly(message: int) -> int:
            await turns(message % 7)
            return message

        task = serve(lambda message: slowly(message) if message % 3 else message)
        sender.send(*range(1, 100), None)
        await task
        assert context.sent == list(range(1, 100))

    scenario(body)


def test_no_more_is_read_than_may_be_unanswered() -> None:
    async def body(sender: Sender, context: Context, serve: Any, made: list[BidiStream]) -> None:
        gate = asyncio.Event()

        async def held(message: int) -> int:
            await gate.wait()
            return message

        task = serve(held)
        sender.send(*range(1, 31), None)
        await turns(500)
        assert sender.read == PENDING_MAX and context.sent == []
        gate.set()
        await task
        assert context.sent == list(range(1, 31))

    scenario(body)


@pytest.mark.parametrize("busy", [False, True])
def test_an_interrupted_stream_answers_what_it_has_and_ends_with_the_reason(busy: bool) -> None:
    async def body(sender: Sender, context: Context, serve: Any, made: list[BidiStream]) -> None:
        gate = asyncio.Event()

        async def held(message: int) -> int:
            await gate.wait()
            return message

        def begin(message: int) -> Any:
            if busy and message == 3:  # the reader is at work, not waiting
                made[0].interrupt(Unavailable("shutting down"))
            return held(message)

        task = serve(begin)
        sender.send(1, 2, 3)
        await turns()
        if not busy:
            made[0].interrupt(Unavailable("shutting down"))
        await turns()
        sender.send(4, None)
        assert not task.done()
        gate.set()
        with pytest.raises(Unavailable, match="shutting down"):
            await task
        assert context.sent == [1, 2, 3]

    scenario(body)


@pytest.mark.parametrize("ended", [False, True])
def test_an_answer_that_fails_ends_the_stream_with_its_error_and_the_later_ones_are_dropped(ended: bool) -> None:
    async def body(sender: Sender, context: Context, serve: Any, made: list[BidiStream]) -> None:
        begun: list[int] = []

        async def answer(message: int) -> int:
            begun.append(message)
            await turns(3)
            if message == 2:
                raise InvalidArgument("the second")
            return message

        task = serve(answer)
        sender.send(1, 2, 3, 4, *([None] if ended else []))
        with pytest.raises(InvalidArgument, match="the second"):
            await task
        assert context.sent == [1] and begun == [1, 2]

    scenario(body)


def test_a_request_that_cannot_be_begun_ends_the_stream_after_the_answers_before_it() -> None:
    async def body(sender: Sender, context: Context, serve: Any, made: list[BidiStream]) -> None:
        async def answer(message: int) -> int:
            await turns(5)
            return message

        def begin(message: int) -> Any:
            if message == 3:
                raise InvalidArgument("the third")
            return answer(message)

        task = serve(begin)
        sender.send(1, 2, 3, 4)
        with pytest.raises(InvalidArgument, match="the third"):
            await task
        assert context.sent == [1, 2]

    scenario(body)


def test_a_stream_whose_caller_is_gone_begins_nothing_more() -> None:
    async def body(sender: Sender, context: Context, serve: Any, made: list[BidiStream]) -> None:
        gate, begun = asyncio.Event(), []

        async def held(message: int) -> int:
            begun.append(message)
            await gate.wait()
            return message

        task = serve(held)
        sender.send(1, 2, 3)
        await turns()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        gate.set()
        await turns()
        assert begun == [1] and context.sent == []
        assert len(asyncio.all_tasks()) == 1

    scenario(body)


def test_an_answer_that_cannot_be_sent_ends_the_stream() -> None:
    async def body(sender: Sender, context: Context, serve: Any, made: list[BidiStream]) -> None:
        async def answer(message: int) -> int:
            return message

        task = serve(answer)
        context.broken = True
        sender.send(1, 2, 3)
        with pytest.raises(ConnectionError):
            await task

    scenario(body)


async def cancelled_after(*messages: Any) -> AsyncIterator[Any]:
    """What gRPC's iterator does where the caller leaves before the next turn of the loop."""
    for one in messages:
        yield one
    raise asyncio.CancelledError


@never_awaited
@pytest.mark.parametrize("count", [1, 3])
def test_a_caller_that_leaves_before_its_answer_is_begun_leaves_none_behind(count: int) -> None:
    async def main() -> None:
        begun: list[int] = []

        async def answer(message: int) -> None:
            begun.append(message)

        stream = BidiStream(cancelled_after(*range(count)), Context(), lambda message: None)
        with pytest.raises(asyncio.CancelledError):
            await stream.serve(answer)
        await turns()
        assert begun == []

    asyncio.run(main())
    gc.collect()


class Lasting(Context):
    """A call without a deadline."""

    def time_remaining(self) -> None:
        return None


@never_awaited
@pytest.mark.parametrize("known", [False, True])
def test_a_search_whose_caller_leaves_before_its_thread_is_asked_is_dropped(
    running: Running, vectors: np.ndarray, known: bool
) -> None:
    context = running.server.context
    context.db.create_collection("docs", vectors.shape[1]).upsert(range(len(vectors)), vectors)
    request = search_pb2.StreamSearchRequest(search=search_request("docs", vectors[0])).SerializeToString()

    async def main() -> None:
        search = Search(context)
        if known:
            await context.collection(ANONYMOUS, "docs")
        for _ in range(2):  # the second time the question is known
            with pytest.raises(asyncio.CancelledError):
                await search.StreamSearch(cancelled_after(request), ANONYMOUS, Lasting())
        assert context.kernels.queued == 0
        await turns()

    running.on_loop(main())
    gc.collect()
