"""One connection to a server: `Connection` is called synchronously, `AsyncConnection` asynchronously. Both have the
same methods; those of the second return coroutines and asynchronous iterators.

    call                 one message, one answer                          -> decode(answer)
    call_in_parts        one message or more, as answers have room        -> what all of them found
    call_with_progress   one message, answers that report progress        -> decode(the last answer)
    list_names           one message for each page of names               -> every name
    list_records         one message, answers that contain records        -> lists of records
    all_records          the same                                         -> finish(all of them in one list)
    ingest               many batches on one stream (bulk_ingest.py)      -> number of records written
    stream_queries       many queries on one stream (query_stream.py)     -> results, in order

What the two kinds share is in `BaseConnection`, and in the streams and pagers that know nothing of gRPC.

Threads: any number of calls at once; a `Connection` from any thread, an `AsyncConnection` on the event loop that it was
made on. Another event loop must connect anew, and so must a process that was forked. A process that was forked while an
`AsyncConnection` was open can have none at all: grpc.aio would wait for a thread that only the parent has. Calls that
are under way when the connection is closed fail like calls that are made later.
"""

from __future__ import annotations

import asyncio
import copy
import os
import queue
import threading
import time
import weakref
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from functools import partial
from typing import Any, Self, TypeVar

import grpc

from vecdb import validate
from vecdb.api.filter_arguments import Page
from vecdb.client import channel
from vecdb.client.address import Target
from vecdb.client.retry import Patience
from vecdb.client.status_errors import error_from, retry_after, status_of
from vecdb.client.streams.bulk_ingest import IngestStream
from vecdb.client.streams.interruptions import SteppedCall, on_main_thread
from vecdb.client.streams.query_stream import NO_MORE, MakeMessage, QueryStream
from vecdb.client.streams.rebatch import Pager, Parts, Rebatcher
from vecdb.errors import LimitExceeded, Unavailable, VecdbError

T = TypeVar("T")
Decode = Callable[[Any], T]
Stop = Callable[[], bool] | None

_STOP_POLL_S = 0.010


_abandoned: list[Any] = []  # channels; to delete one would take its lock


class ChannelLife:
    """A channel, gRPC's callables on it, and whether it is closed: shared by all who call with other timeouts."""

    def __init__(self, make: Callable[[], Any]) -> None:
        self._make = make
        self.closed = False
        self.channel = make()
        self.rpcs = channel.callables(self.channel)

    def replace(self) -> None:
        """Later calls use another channel."""
        _abandoned.append(self.channel)
        self.channel = self._make()
        self.rpcs = channel.callables(self.channel)


class BaseConnection:
    """What both kinds have: the channel, and the checks and errors of a call."""

    def __init__(
        self, target: Target, timeout_s: float | None, library: Any, loop: asyncio.AbstractEventLoop | None = None
    ) -> None:
        """timeout_s : of every call that has a deadline; None for the defaults of channel.py.   library : grpc or
        grpc.aio.   loop : the event loop that the connection belongs to; None for any thread.
        """
        self.name = target.name
        self._metadata = target.metadata
        self._deadlines = channel.deadlines(timeout_s)
        self._pid = os.getpid()
        self._loop = loop
        options = channel.options(target)
        make = partial(library.insecure_channel, target.address, options)
        if target.credentials is not None:
            make = partial(library.secure_channel, target.address, target.credentials, options)
        self._life = ChannelLife(make)

    @property
    def closed(self) -> bool:
        return self._life.closed

    def with_timeout(self, timeout_s: float) -> Self:
        """The same connection, whose calls may take so many seconds."""
        other = copy.copy(self)
        other._deadlines = channel.deadlines(timeout_s)
        return other

    def _begin(self, rpc: str) -> float | None:
        """Seconds that a call may take. Raises Unavailable where no call can be made."""
        if self.closed:
            raise self._closed_error()
        if os.getpid() != self._pid:
            raise Unavailable(
                f"database {self.name} was opened by process {self._pid} and inherited by a fork; "
                f"open it anew in process {os.getpid()}"
            )
        self._check_loop()
        return self._deadlines.get(rpc)

    def _check_loop(self) -> None:
        if self._loop is not None and asyncio.get_running_loop() is not self._loop:
            raise Unavailable(f"database {self.name} was opened on another event loop; open it anew on this one")

    def _start(self, rpc: str, request: Any, timeout_s: float | None = None, *, future: bool = False) -> Any:
        """Begin a call. future : of a synchronous one, what its answer is asked of later."""
        try:
            callable_ = self._life.rpcs[rpc]
            return (callable_.future if future else callable_)(request, timeout=timeout_s, metadata=self._metadata)
        except (KeyError, ValueError):
            if self.closed:  # by another thread, after `_begin` had checked
                raise self._closed_error() from None
            raise

    def _error(self, failed: BaseException, rpc: str) -> BaseException:
        """The error to raise for one of gRPC. When a channel is closed, grpc.aio cancels its calls as if their tasks
        were cancelled.
        """
        if isinstance(failed, asyncio.CancelledError):
            task = asyncio.current_task()
            return self._closed_error() if self.closed and task is not None and not task.cancelling() else failed
        return self._closed_error() if self.closed else error_from(failed, rpc, self.name, self._deadlines.get(rpc))

    def _wait_s(self, failed: BaseException, rpc: str, patience: Patience, *, begun: bool = False) -> float:
        """Seconds until a call that failed is made again. Raises its error where it is not. begun : it had answers."""
        if isinstance(failed, asyncio.CancelledError):
            raise self._error(failed, rpc) from None
        wait_s = None if self.closed else patience.wait_s(failed, begun=begun)
        if wait_s is None:
            raise self._error(patience.cause(failed), rpc) from None
        return wait_s

    def _retry_s(self, failed: BaseException, rpc: str, stream: IngestStream | QueryStream) -> float:
        """Seconds until a stream that failed is started again. Raises its error where another try would not help."""
        if isinstance(failed, asyncio.CancelledError):
            raise self._error(failed, rpc) from None
        after_s = retry_after(failed)
        wait_s = stream.wait_s(status_of(failed) if after_s is None else "UNAVAILABLE")
        if wait_s is None:
            raise self._error(failed, rpc) from None
        return max(wait_s, after_s or 0.0)

    def _closed_error(self) -> Unavailable:
        return Unavailable(f"database {self.name} is closed; open it again")


def _stopped() -> Unavailable:
    return Unavailable("the search was cancelled")


class Connection(BaseConnection):
    def __init__(self, target: Target, timeout_s: float | None) -> None:
        super().__init__(target, timeout_s, grpc)

    def call(self, rpc: str, request: Any, decode: Decode[T], stop: Stop = None) -> T:
        patience = Patience(rpc, self._begin(rpc))
        while True:
            try:
                answer = self._answer(rpc, request, patience.left_s(), stop)
            except grpc.RpcError as failed:
                wait_s = self._wait_s(failed, rpc, patience)
            except VecdbError:
                raise
            except BaseException:
                if on_main_thread() and not self.closed:
                    self._life.replace()
                raise
            else:
                return decode(answer)
            _wait(wait_s, stop)
            self._begin(rpc)

    def _answer(self, rpc: str, request: Any, timeout_s: float | None, stop: Stop) -> Any:
        if stop is None:
            return self._start(rpc, request, timeout_s)
        return _result_or_stop(self._start(rpc, request, timeout_s, future=True), stop)

    def _answers(self, rpc: str, request: Any) -> Iterator[Any]:
        patience, begun = Patience(rpc, self._begin(rpc)), False
        while True:
            try:
                with SteppedCall(partial(self._start, rpc, request)) as call:
                    for answer in call:
                        begun = True
                        yield answer
                return
            except grpc.RpcError as failed:
                wait_s = self._wait_s(failed, rpc, patience, begun=begun)
            time.sleep(wait_s)
            self._begin(rpc)

    def call_in_parts(self, rpc: str, parts: Parts) -> Any:
        while (request := parts.next()) is not None:
            try:
                parts.answered(self.call(rpc, request, _unchanged))
            except LimitExceeded:
                if not parts.halve():
                    raise
        return parts.result()

    def call_with_progress(self, rpc: str, request: Any, report: Callable[[Any], None], decode: Decode[T]) -> T:
        last = None
        for last in self._answers(rpc, request):
            report(last)
        return decode(last)

    def list_names(self, rpc: str, request: Any, limit: int | None) -> Iterator[str]:
        pager = Pager(request, limit)
        while pager.has_more():
            yield from pager.names_of(self.call(rpc, request, _unchanged))

    def list_records(self, rpc: str, request: Any, rebatcher: Rebatcher) -> Iterator[Page]:
        for answer in self._answers(rpc, request):
            yield from rebatcher.full(answer)
        yield from rebatcher.rest()

    def all_records(self, rpc: str, request: Any, rebatcher: Rebatcher, finish: Decode[T]) -> T:
        return finish([record for page in self.list_records(rpc, request, rebatcher) for record in page])

    def ingest(self, stream: IngestStream) -> int:
        while True:
            timeout_s = self._begin("Ingest")
            try:
                return self._ingest(stream, timeout_s)
            except grpc.RpcError as failed:
                time.sleep(self._retry_s(failed, "Ingest", stream))

    def _ingest(self, stream: IngestStream, timeout_s: float | None) -> int:
        attempt, room = stream.begin(), threading.Semaphore(1)

        def messages() -> Iterator[Any]:  # runs on a thread of gRPC
            while room.acquire() and (message := stream.next(attempt)) is not None:
                yield message

        try:
            with SteppedCall(partial(self._start, "Ingest", messages(), timeout_s)) as call:
                for answer in call:
                    room.release(stream.answered(answer))
                return stream.total()
        finally:
            stream.end(attempt)
            room.release()

    def stream_queries(self, rpc: str, queries: Iterable[Any], make_message: MakeMessage, window: int) -> Iterator[Any]:
        stream, source = QueryStream(make_message, window), validate.iterator(queries)
        while True:
            self._begin(rpc)
            try:
                yield from self._stream_queries(rpc, stream, source)
                return
            except grpc.RpcError as failed:
                time.sleep(self._retry_s(failed, rpc, stream))

    def _stream_queries(self, rpc: str, stream: QueryStream, source: Iterator[Any]) -> Iterator[Any]:
        stream.begin()
        outgoing: queue.SimpleQueue[Any] = queue.SimpleQueue()
        try:
            with SteppedCall(partial(self._start, rpc, iter(outgoing.get, None))) as call:
                while True:
                    while (
                        stream.has_room() and (message := stream.again() or _next_message(stream, source)) is not None
                    ):
                        outgoing.put(message)
                    if not stream.is_waiting():
                        break
                    yield stream.result(next(call, None))
                outgoing.put(None)
                for _ in call:
                    pass  # until the server ends the stream
        finally:
            outgoing.put(None)

    def close(self) -> None:
        if not self.closed and os.getpid() == self._pid:
            self._life.closed = True
            self._life.channel.close()


def _next_message(stream: QueryStream, source: Iterator[Any]) -> Any:
    """The message of the next query, which is taken on the caller's thread; None where there is none."""
    try:
        return stream.add(next(source, NO_MORE))
    except Exception as error:
        return stream.end(error)


def _wait(seconds: float, stop: Stop) -> None:
    """Sleep. Raises Unavailable once `stop` returns True."""
    ends = time.monotonic() + seconds
    while (left := ends - time.monotonic()) > 0:
        if stop is not None and stop():
            raise _stopped()
        time.sleep(left if stop is None else min(left, _STOP_POLL_S))


async def _wait_async(seconds: float, stop: Stop) -> None:
    ends = time.monotonic() + seconds
    while (left := ends - time.monotonic()) > 0:
        if stop is not None and stop():
            raise _stopped()
        await asyncio.sleep(left if stop is None else min(left, _STOP_POLL_S))


def _result_or_stop(call: Any, stop: Callable[[], bool]) -> Any:
    """The answer of a call. Raises Unavailable once `stop` returns True."""
    while True:
        try:
            return call.result(timeout=_STOP_POLL_S)
        except grpc.FutureTimeoutError:
            if stop():
                call.cancel()
                raise _stopped() from None


class AsyncConnection(BaseConnection):
    def __init__(self, target: Target, timeout_s: float | None) -> None:
        _refuse_after_fork(target.name)
        super().__init__(target, timeout_s, grpc.aio, asyncio.get_running_loop())
        _open.add(self)

    async def call(self, rpc: str, request: Any, decode: Decode[T], stop: Stop = None) -> T:
        patience = Patience(rpc, self._begin(rpc))
        while True:
            try:
                answer = await self._answer(rpc, request, patience.left_s(), stop)
            except (grpc.RpcError, asyncio.CancelledError) as failed:
                wait_s = self._wait_s(failed, rpc, patience)
            else:
                return decode(answer)
            await _wait_async(wait_s, stop)
            self._begin(rpc)

    async def _answer(self, rpc: str, request: Any, timeout_s: float | None, stop: Stop) -> Any:
        call = self._start(rpc, request, timeout_s)
        return await (call if stop is None else _result_or_stop_async(call, stop))

    async def _answers(self, rpc: str, request: Any) -> AsyncIterator[Any]:
        patience, begun = Patience(rpc, self._begin(rpc)), False
        while True:
            call = self._start(rpc, request)
            try:
                async for answer in call:
                    begun = True
                    yield answer
                return
            except (grpc.RpcError, asyncio.CancelledError) as failed:
                wait_s = self._wait_s(failed, rpc, patience, begun=begun)
            finally:
                call.cancel()
            await asyncio.sleep(wait_s)
            self._begin(rpc)

    async def call_in_parts(self, rpc: str, parts: Parts) -> Any:
        while (request := parts.next()) is not None:
            try:
                parts.answered(await self.call(rpc, request, _unchanged))
            except LimitExceeded:
                if not parts.halve():
                    raise
        return parts.result()

    async def call_with_progress(self, rpc: str, request: Any, report: Callable[[Any], None], decode: Decode[T]) -> T:
        last = None
        async for last in self._answers(rpc, request):
            report(last)
        return decode(last)

    async def list_names(self, rpc: str, request: Any, limit: int | None) -> AsyncIterator[str]:
        pager = Pager(request, limit)
        while pager.has_more():
            for name in pager.names_of(await self.call(rpc, request, _unchanged)):
                yield name

    async def list_records(self, rpc: str, request: Any, rebatcher: Rebatcher) -> AsyncIterator[Page]:
        async for answer in self._answers(rpc, request):
            for records in rebatcher.full(answer):
                yield records
        for records in rebatcher.rest():
            yield records

    async def all_records(self, rpc: str, request: Any, rebatcher: Rebatcher, finish: Decode[T]) -> T:
        return finish([record async for page in self.list_records(rpc, request, rebatcher) for record in page])

    async def ingest(self, stream: IngestStream) -> int:
        while True:
            timeout_s = self._begin("Ingest")
            try:
                return await self._ingest(stream, timeout_s)
            except (grpc.RpcError, asyncio.CancelledError) as failed:
                await asyncio.sleep(self._retry_s(failed, "Ingest", stream))

    async def _ingest(self, stream: IngestStream, timeout_s: float | None) -> int:
        attempt, room = stream.begin(), asyncio.Semaphore(1)

        async def messages() -> AsyncIterator[Any]:
            while await room.acquire() and (message := stream.next(attempt)) is not None:
                yield message

        call = self._start("Ingest", messages(), timeout_s)
        try:
            async for answer in call:
                for _ in range(stream.answered(answer)):
                    room.release()
            return stream.total()
        finally:
            stream.end(attempt)
            room.release()
            call.cancel()

    async def stream_queries(
        self, rpc: str, queries: Any, make_message: MakeMessage, window: int
    ) -> AsyncIterator[Any]:
        stream, source = QueryStream(make_message, window), _async_iterator(queries)
        while True:
            self._begin(rpc)
            try:
                async for result in self._stream_queries(rpc, stream, source):
                    yield result
                return
            except (grpc.RpcError, asyncio.CancelledError) as failed:
                await asyncio.sleep(self._retry_s(failed, rpc, stream))

    async def _stream_queries(self, rpc: str, stream: QueryStream, source: AsyncIterator[Any]) -> AsyncIterator[Any]:
        stream.begin()
        outgoing: asyncio.Queue[Any] = asyncio.Queue()

        async def messages() -> AsyncIterator[Any]:
            while (message := await outgoing.get()) is not None:
                yield message

        call = self._start(rpc, messages())
        answers = aiter(call)
        try:
            while True:
                while stream.has_room():
                    message = stream.again() or await _next_message_async(stream, source)
                    if message is None:
                        break
                    outgoing.put_nowait(message)
                if not stream.is_waiting():
                    break
                yield stream.result(await anext(answers, None))
            outgoing.put_nowait(None)
            async for _ in answers:
                pass  # until the server ends the stream
        finally:
            call.cancel()

    async def close(self) -> None:
        if not self.closed and os.getpid() == self._pid:
            if self._loop is not None and not self._loop.is_closed():
                self._check_loop()
            self._life.closed = True
            await self._life.channel.close()
            self._life.channel, self._life.rpcs = None, {}  # when the last channel is deleted, grpc.aio's thread ends
            _open.discard(self)


_open: weakref.WeakSet[AsyncConnection] = weakref.WeakSet()
# Connections that were open when this process was forked. They are kept alive: a channel that ends takes itself out of
# an event loop whose descriptors the two processes share, and the parent would hear nothing more.
_inherited: list[AsyncConnection] = []


def _inherit() -> None:
    _inherited.extend(_open)
    _open.clear()


os.register_at_fork(after_in_child=_inherit)


def _refuse_after_fork(name: str) -> None:
    if _inherited:
        raise Unavailable(
            f"database {name} cannot be opened by vecdb.aio in process {os.getpid()}, which was forked while "
            f"{_inherited[0].name} was open: start it by spawn, or use vecdb.open"
        )


async def _async_iterator(queries: Any) -> AsyncIterator[Any]:
    """Iterates over an iterable or an asynchronous iterable."""
    if hasattr(queries, "__aiter__"):
        async for query in queries:
            yield query
    else:
        for query in queries:
            yield query


async def _next_message_async(stream: QueryStream, source: AsyncIterator[Any]) -> Any:
    try:
        return stream.add(await anext(source, NO_MORE))
    except Exception as error:
        return stream.end(error)


async def _result_or_stop_async(call: Any, stop: Callable[[], bool]) -> Any:
    task = asyncio.ensure_future(call)
    try:
        while not (await asyncio.wait([task], timeout=_STOP_POLL_S))[0]:
            if stop():
                raise _stopped()
        return await task
    finally:
        call.cancel()


def _unchanged(answer: Any) -> Any:
    return answer
