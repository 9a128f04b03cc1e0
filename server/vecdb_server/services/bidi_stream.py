"""A bidirectional stream: answers go out in the order of the requests, and a bounded number is pending at once.

    read -> begin(message) -> pending, at most 8 -> write
                 an answer that is there already is written without a task: a task would cost more than it brings

Back-pressure: while the most allowed are pending, nothing is read, and gRPC's flow control stops the sender.

Threads: event loop only.
"""

from __future__ import annotations

import asyncio
import inspect
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

PENDING_MAX = 8


class BidiStream:
    """messages : gRPC's iterator of requests.   admit : called for each message; may raise, or return an awaitable."""

    def __init__(
        self, messages: AsyncIterator[Any], context: Any, admit: Callable[[Any], Awaitable[None] | None]
    ) -> None:
        self._messages = messages
        self._context = context
        self._admit = admit
        self._pending: deque[Any] = deque()
        self._room = asyncio.Event()
        self._reader = asyncio.current_task()
        self._sender: asyncio.Task[None] | None = None
        self._waiting = False
        self._error: Exception | None = None

    def interrupt(self, error: Exception) -> None:
        """Read no more requests. The pending ones are answered, then the stream ends with the error."""
        if self._error is None:
            self._error = error
            if self._waiting and self._reader is not None:
                self._reader.cancel()

    async def serve(self, begin: Callable[[Any], Any]) -> None:
        """begin(message) : the answer, or an awaitable of it; it is called in the order of the messages."""
        try:
            self._waiting = True
            async for message in self._messages:
                waits = self._admit(message)
                if waits is not None:
                    await waits
                self._waiting = False
                answer = begin(message)
                if self._pending or hasattr(answer, "__await__"):
                    self._enqueue(answer)
                else:
                    await self._context.write(answer)
                if self._error is not None:
                    break
                self._waiting = True
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
                await self._context.write(answer)
            except Exception as error:
                self._drop_pending()
                self.interrupt(error)
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
