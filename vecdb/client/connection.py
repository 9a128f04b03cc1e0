"""One connection to a server, called synchronously (`Connection`) or asynchronously (`AsyncConnection`): the same
methods.

    ask      one message, one answer                         -> decode(answer)
    follow   one message, answers that tell of progress      -> decode(the last one)
    pages    one message for each page of names              -> every name
    listed   one message, answers full of records            -> lists of records
    ingest   many batches on one stream (bulk_ingest.py)          -> records written
    exchange many questions on one stream (query_stream.py)      -> answers, in order

Any number of calls at once; `Connection` from any thread, `AsyncConnection` on the event loop that it was made on.
Another loop must connect anew, and so must a process that was forked, which has no `AsyncConnection` at all if one was
open then: grpc.aio would wait there for a thread that only its parent has. What is under way at the end ends as what
comes later would.
"""

from __future__ import annotations

import asyncio
import os
import queue
import threading
import time
import weakref
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from typing import Any, TypeVar

import grpc

from vecdb import validate
from vecdb.client import channel
from vecdb.client.address import Target
from vecdb.client.bulk_ingest import IngestStream
from vecdb.client.query_stream import Asked, QueryStream
from vecdb.client.rebatch import Pager, Rebatcher
from vecdb.client.status_errors import error_from, status_of
from vecdb.errors import Unavailable

T = TypeVar("T")
Decode = Callable[[Any], T]
Stop = Callable[[], bool] | None

_STOP_POLL_S = 0.010


class _Connection:
    """What both kinds have. timeout_s : of every call that has a deadline; None: as channel.py says.   loop : the one
    that it belongs to; None for any thread.
    """

    def __init__(self, target: Target, timeout_s: float | None, loop: asyncio.AbstractEventLoop | None = None) -> None:
        self.name = target.name
        self.closed = False
        self._metadata = target.metadata
        self._deadlines = channel.deadlines(timeout_s)
        self._pid = os.getpid()
        self._loop = loop

    def _begin(self, rpc: str) -> float | None:
        """Seconds that a call may take. Raises Unavailable where none may begin."""
        if self.closed:
            raise self._is_closed()
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

    def _call(self, rpc: Callable[..., Any], request: Any, timeout_s: float | None = None) -> Any:
        try:
            return rpc(request, timeout=timeout_s, metadata=self._metadata)
        except ValueError:
            if self.closed:  # by another thread, since this one looked
                raise self._is_closed() from None
            raise

    def _error(self, failed: BaseException, rpc: str) -> BaseException:
        """What is raised instead. grpc.aio cancels the calls of a channel that is closed, as if their tasks were."""
        if isinstance(failed, asyncio.CancelledError):
            task = asyncio.current_task()
            return self._is_closed() if self.closed and task is not None and not task.cancelling() else failed
        return self._is_closed() if self.closed else error_from(failed, rpc, self.name, self._deadlines.get(rpc))

    def _is_closed(self) -> Unavailable:
        return Unavailable(f"database {self.name} is closed; open it again")


def _stopped() -> Unavailable:
    return Unavailable("the search was cancelled")


class Connection(_Connection):
    def __init__(self, target: Target, timeout_s: float | None) -> None:
        super().__init__(target, timeout_s)
        options = channel.options(target)
        self._channel = (
            grpc.insecure_channel(target.address, options)
            if target.credentials is None
            else grpc.secure_channel(target.address, target.credentials, options)
        )
        self._rpcs = channel.callables(self._channel)

    def ask(self, rpc: str, request: Any, decode: Decode[T], stop: Stop = None) -> T:
        timeout_s = self._begin(rpc)
        try:
            if stop is None:
                answer = self._call(self._rpcs[rpc], request, timeout_s)
            else:
                answer = _unless(stop, self._call(self._rpcs[rpc].future, request, timeout_s))
        except grpc.RpcError as failed:
            raise self._error(failed, rpc) from None
        return decode(answer)

    def _answers(self, rpc: str, request: Any) -> Iterator[Any]:
        self._begin(rpc)
        call = self._call(self._rpcs[rpc], request)
        try:
            yield from call
        except grpc.RpcError as failed:
            raise self._error(failed, rpc) from None
        finally:
            call.cancel()

    def follow(self, rpc: str, request: Any, each: Callable[[Any], None], decode: Decode[T]) -> T:
        last = None
        for last in self._answers(rpc, request):
            each(last)
        return decode(last)

    def pages(self, rpc: str, request: Any, limit: int | None) -> Iterator[str]:
        page = Pager(request, limit)
        while page.is_wanted():
            yield from page.names_of(self.ask(rpc, request, _same))

    def listed(self, rpc: str, request: Any, regroup: Rebatcher) -> Iterator[list[Any]]:
        for answer in self._answers(rpc, request):
            yield from regroup.full(answer.records)
        yield from regroup.rest()

    def ingest(self, sending: IngestStream) -> int:
        while True:
            timeout_s = self._begin("Ingest")
            try:
                return self._ingest(sending, timeout_s)
            except grpc.RpcError as failed:
                wait_s = sending.wait_s(status_of(failed))
                if wait_s is None:
                    raise self._error(failed, "Ingest") from None
                time.sleep(wait_s)

    def _ingest(self, sending: IngestStream, timeout_s: float | None) -> int:
        attempt, room = sending.begin(), threading.Semaphore(1)

        def messages() -> Iterator[Any]:  # on a thread of gRPC's
            while room.acquire() and (message := sending.next(attempt)) is not None:
                yield message

        call = self._call(self._rpcs["Ingest"], messages(), timeout_s)
        try:
            for answer in call:
                room.release(sending.answered(answer))
            return sending.total()
        finally:
            sending.end(attempt)
            room.release()
            call.cancel()

    def exchange(self, rpc: str, queries: Iterable[Any], asked: Asked, window: int) -> Iterator[Any]:
        exchange, coming = QueryStream(asked, window), validate.iterator(queries)
        while True:
            self._begin(rpc)
            try:
                yield from self._exchange(rpc, exchange, coming)
                return
            except grpc.RpcError as failed:
                wait_s = exchange.wait_s(status_of(failed))
                if wait_s is None:
                    raise self._error(failed, rpc) from None
                time.sleep(wait_s)

    def _exchange(self, rpc: str, exchange: QueryStream, coming: Iterator[Any]) -> Iterator[Any]:
        exchange.begin()
        sent: queue.SimpleQueue[Any] = queue.SimpleQueue()
        call = self._call(self._rpcs[rpc], iter(sent.get, None))
        try:
            while True:
                while exchange.wants() and (message := exchange.again() or _added(exchange, coming)) is not None:
                    sent.put(message)
                if not exchange.is_waiting():
                    break
                yield exchange.result(next(call, None))
            sent.put(None)
            for _ in call:
                pass  # the server's end
        finally:
            sent.put(None)
            call.cancel()

    def close(self) -> None:
        if not self.closed and os.getpid() == self._pid:
            self.closed = True
            self._channel.close()


def _added(exchange: QueryStream, coming: Iterator[Any]) -> Any:
    """The message of the next query, which is asked for on the caller's thread; None where there is none."""
    try:
        query = next(coming)
    except StopIteration:
        exchange.end()
    except Exception as error:
        exchange.end(error)
    else:
        return exchange.add(query)
    return None


def _unless(stop: Callable[[], bool], call: Any) -> Any:
    """The answer of a call. Raises Unavailable once `stop` returns True."""
    while True:
        try:
            return call.result(timeout=_STOP_POLL_S)
        except grpc.FutureTimeoutError:
            if stop():
                call.cancel()
                raise _stopped() from None


class AsyncConnection(_Connection):
    def __init__(self, target: Target, timeout_s: float | None) -> None:
        super().__init__(target, timeout_s, asyncio.get_running_loop())
        _refuse_after_fork(target.name)
        options = channel.options(target)
        self._channel = (
            grpc.aio.insecure_channel(target.address, options)
            if target.credentials is None
            else grpc.aio.secure_channel(target.address, target.credentials, options)
        )
        self._rpcs = channel.callables(self._channel)
        _open.add(self)

    async def ask(self, rpc: str, request: Any, decode: Decode[T], stop: Stop = None) -> T:
        timeout_s = self._begin(rpc)
        try:
            call = self._call(self._rpcs[rpc], request, timeout_s)
            answer = await (call if stop is None else _unless_stopped(stop, call))
        except (grpc.RpcError, asyncio.CancelledError) as failed:
            raise self._error(failed, rpc) from None
        return decode(answer)

    async def _answers(self, rpc: str, request: Any) -> AsyncIterator[Any]:
        self._begin(rpc)
        call = self._call(self._rpcs[rpc], request)
        try:
            async for answer in call:
                yield answer
        except (grpc.RpcError, asyncio.CancelledError) as failed:
            raise self._error(failed, rpc) from None
        finally:
            call.cancel()

    async def follow(self, rpc: str, request: Any, each: Callable[[Any], None], decode: Decode[T]) -> T:
        last = None
        async for last in self._answers(rpc, request):
            each(last)
        return decode(last)

    async def pages(self, rpc: str, request: Any, limit: int | None) -> AsyncIterator[str]:
        page = Pager(request, limit)
        while page.is_wanted():
            for name in page.names_of(await self.ask(rpc, request, _same)):
                yield name

    async def listed(self, rpc: str, request: Any, regroup: Rebatcher) -> AsyncIterator[list[Any]]:
        async for answer in self._answers(rpc, request):
            for records in regroup.full(answer.records):
                yield records
        for records in regroup.rest():
            yield records

    async def ingest(self, sending: IngestStream) -> int:
        while True:
            timeout_s = self._begin("Ingest")
            try:
                return await self._ingest(sending, timeout_s)
            except asyncio.CancelledError as failed:
                raise self._error(failed, "Ingest") from None
            except grpc.RpcError as failed:
                wait_s = sending.wait_s(status_of(failed))
                if wait_s is None:
                    raise self._error(failed, "Ingest") from None
                await asyncio.sleep(wait_s)

    async def _ingest(self, sending: IngestStream, timeout_s: float | None) -> int:
        attempt, room = sending.begin(), asyncio.Semaphore(1)

        async def messages() -> AsyncIterator[Any]:
            while await room.acquire() and (message := sending.next(attempt)) is not None:
                yield message

        call = self._call(self._rpcs["Ingest"], messages(), timeout_s)
        try:
            async for answer in call:
                for _ in range(sending.answered(answer)):
                    room.release()
            return sending.total()
        finally:
            sending.end(attempt)
            room.release()
            call.cancel()

    async def exchange(self, rpc: str, queries: Any, asked: Asked, window: int) -> AsyncIterator[Any]:
        exchange, coming = QueryStream(asked, window), _each(queries)
        while True:
            self._begin(rpc)
            try:
                async for result in self._exchange(rpc, exchange, coming):
                    yield result
                return
            except asyncio.CancelledError as failed:
                raise self._error(failed, rpc) from None
            except grpc.RpcError as failed:
                wait_s = exchange.wait_s(status_of(failed))
                if wait_s is None:
                    raise self._error(failed, rpc) from None
                await asyncio.sleep(wait_s)

    async def _exchange(self, rpc: str, exchange: QueryStream, coming: AsyncIterator[Any]) -> AsyncIterator[Any]:
        exchange.begin()
        sent: asyncio.Queue[Any] = asyncio.Queue()

        async def messages() -> AsyncIterator[Any]:
            while (message := await sent.get()) is not None:
                yield message

        call = self._call(self._rpcs[rpc], messages())
        answers = aiter(call)
        try:
            while True:
                while exchange.wants():
                    message = exchange.again() or await _added_later(exchange, coming)
                    if message is None:
                        break
                    sent.put_nowait(message)
                if not exchange.is_waiting():
                    break
                yield exchange.result(await anext(answers, None))
            sent.put_nowait(None)
            async for _ in answers:
                pass  # the server's end
        finally:
            call.cancel()

    async def close(self) -> None:
        if not self.closed and os.getpid() == self._pid:
            if self._loop is not None and not self._loop.is_closed():
                self._check_loop()
            self.closed = True
            await self._channel.close()
            del self._channel, self._rpcs  # the last channel that goes takes grpc.aio's thread with it
            _open.discard(self)


_open: weakref.WeakSet[AsyncConnection] = weakref.WeakSet()
# Of the process that this one was forked from, if they were open then. Kept: a channel that ends takes itself out of
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


async def _each(queries: Any) -> AsyncIterator[Any]:
    """Of an iterable of either kind."""
    if hasattr(queries, "__aiter__"):
        async for query in queries:
            yield query
    else:
        for query in queries:
            yield query


async def _added_later(exchange: QueryStream, coming: AsyncIterator[Any]) -> Any:
    try:
        query = await anext(coming)
    except StopAsyncIteration:
        exchange.end()
    except Exception as error:
        exchange.end(error)
    else:
        return exchange.add(query)
    return None


async def _unless_stopped(stop: Callable[[], bool], call: Any) -> Any:
    task = asyncio.ensure_future(call)
    try:
        while not (await asyncio.wait([task], timeout=_STOP_POLL_S))[0]:
            if stop():
                raise _stopped()
        return await task
    finally:
        call.cancel()


def _same(answer: Any) -> Any:
    return answer
