"""A bidirectional stream: answers go out in the order of the requests, and a bounded number is pending at once.

    read -> begin(message) -> pending, at most 8 -> write
                 an answer that is there already is written without a task: a task would cost more than it brings

Back-pressure: while the most allowed are pending, nothing is read, and gRPC's flow control stops the sender. A stream
on which nothing happens ends: its sender sends nothing, or reads nothing.

Threads: event loop only.
"""

from __future__ import annotations

import asyncio
import inspect
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc

from vecdb import Unavailable
from vecdb_server.status_errors import Refused

PENDING_MAX = 8


class BidiStream:
    """messages : gRPC's iterator of requests.   admit : called for each message; may raise, or return an awaitable.
    leave : called when the answer of the oldest message that was admitted has been sent.   check : called before an
    answer that was waited for is sent; may raise.   idle_s : how long the sender may send nothing.   slow_reader_s :
    how long it may read nothing; then give_up(error) ends the call.
    """

    def __init__(
        self, messages: AsyncIterator[Any], context: Any, admit: Callable[[Any], Awaitable[None] | None],
        leave: Callable[[], None] = lambda: None, give_up: Callable[[Refused], Awaitable[None]] | None = None, *,
        check: Callable[[], None] = lambda: None, idle_s: float = 60.0, slow_reader_s: float = 60.0,
    ) -> None:  # fmt: skip
        self._messages = messages
        self._context = context
        self._admit = admit
        self._leave = leave
        self._give_up = give_up or _nothing
        self._check = check
        self._idle_s, self._slow_reader_s = idle_s, slow_reader_s
        self._changed_at = 0.0  # by the loop's clock: when it began to read, or to write
        self._writing = False
        self._pending: deque[Any] = deque()
        self._room = asyncio.Event()
        self._reader = asyncio.current_task()
        self._sender: asyncio.Task[None] | None = None
        self._waiting = False
        self._given_up = False
        self._error: Exception | None = None

    def interrupt(self, error: Exception) -> None:
        """Read no more requests. The pending ones are answered, then the stream ends with the error."""
        if self._error is None:
            self._error = error
            if self._waiting and self._reader is not None:
                self._reader.cancel()

    async def serve(self, begin: Callable[[Any], Any]) -> None:
        """begin(message) : the answer, or an awaitable of it; it is called in the order of the messages."""
        watch = asyncio.ensure_future(self._watch())
        try:
            await self._serve(begin)
        finally:
            watch.cancel()

    async def _watch(self) -> None:
        """Ends a stream on which nothing happens."""
        loop, look_s = asyncio.get_running_loop(), min(self._slow_reader_s, self._idle_s)
        self._changed_at = loop.time()
        while True:
            most_s = self._slow_reader_s if self._writing else self._idle_s
            still_s = loop.time() - self._changed_at
            quiet = self._writing or (self._waiting and not self._pending)
            if quiet and still_s >= most_s:
                break
            await asyncio.sleep(min(look_s, most_s - still_s) if quiet else look_s)
        if not self._writing:
            self.interrupt(Unavailable(f"nothing was sent on this stream for {most_s:g} s: it is ended, open another"))
            return
        # the write cannot be taken back: gRPC sends the status behind it, when the client reads on
        self._error, self._given_up = Refused(grpc.StatusCode.ABORTED, f"nothing was read for {most_s:g} s"), True
        self._drop_pending()
        self._room.set()
        await self._give_up(self._error)

    async def _write(self, answer: Any) -> None:
        loop = asyncio.get_running_loop()
        self._changed_at, self._writing = loop.time(), True
        try:
            await self._context.write(answer)
        finally:
            self._changed_at, self._writing = loop.time(), False
        if not self._given_up:
            self._leave()

    async def _serve(self, begin: Callable[[Any], Any]) -> None:
        try:
            self._wait()
            async for message in self._messages:
                waits = self._admit(message)
                if waits is not None:
                    await waits
                self._waiting = False
                answer = begin(message)
                if self._pending or hasattr(answer, "__await__"):
                    self._enqueue(answer)
                else:
                    await self._write(answer)
                if self._error is not None:
                    break
                self._wait()
                while len(self._pending) >= PENDING_MAX:
                    self._room.clear()
                    await self._room.wait()
        except asyncio.CancelledError:
            if self._error is None or self._reader is None:
                self._abandon()
                raise
            self._reader.uncancel()
        except Exception:
            self._waiting = False
            await self._finish()
            raise
        self._waiting = False
        await self._finish()
        if self._error is not None:
            raise self._error

    def _wait(self) -> None:
        """From now on it waits for the next message."""
        self._waiting, self._changed_at = True, asyncio.get_running_loop().time()

    def _enqueue(self, answer: Any) -> None:
        self._pending.append(answer)
        if self._sender is None or self._sender.done():
            self._sender = asyncio.ensure_future(self._send())

    async def _send(self) -> None:
        while self._pending:
            answer = self._pending[0]
            try:
                if hasattr(answer, "__await__"):
                    answer = await answer
                    self._check()
                await self._write(answer)
            except Exception as error:
                self._drop_pending()
                self.interrupt(error)
                return
            if self._given_up:
                return
            self._pending.popleft()
            self._room.set()

    async def _finish(self) -> None:
        """Wait until the pending requests are answered."""
        if self._sender is not None:
            try:
                await self._sender
            except asyncio.CancelledError:
                self._abandon()
                raise

    def _abandon(self) -> None:
        """The client is gone: cancel what is pending."""
        if self._sender is not None and not self._sender.done():
            self._sender.cancel()  # this also cancels what it waits for
        self._drop_pending()

    def _drop_pending(self) -> None:
        for one in self._pending:
            if isinstance(one, asyncio.Future):
                one.cancel()
            elif inspect.iscoroutine(one) and inspect.getcoroutinestate(one) == inspect.CORO_CREATED:
                one.close()
        self._pending.clear()


async def _nothing(_: Refused) -> None:
    pass
