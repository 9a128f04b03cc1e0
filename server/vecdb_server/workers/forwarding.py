"""Calls that a worker hands on to the process that writes, as the bytes that they are.

    caller -> worker: token, permission, rate, room, size -> writer: token, scope, work -> answer or status, as it is

The worker has counted the call already and says so by the secret of this server. The token goes along: whose call it is
the writer finds out for itself. A call that is made while the writer is being started anew waits for it; one that was
under way when it ended fails with UNAVAILABLE, and is repeated by who can (a write by its request_id).

Threads: event loop only.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from typing import Any

import grpc

from vecdb import Unavailable
from vecdb_server.place import OtherBehaviours
from vecdb_server.security.auth import OF_WRITER
from vecdb_server.security.bounds import raise_fault
from vecdb_server.security.interceptor import PEER, SECRET
from vecdb_server.services.context import send_if_read
from vecdb_server.status_errors import Refused
from vecdb_server.workers.board import LISTENING, WRITER, Board

_HANDED_ON = ("authorization", "x-request-id")  # of a call's metadata
_DETAILS = "grpc-status-details-bin"
_WAIT_S, _POLL_S = 10.0, 0.01  # for a writer that is being started
_CLOSE_S = 60.0  # calls to a writer that has ended fail by themselves
_OPTIONS = (
    ("grpc.enable_retries", 0),
    ("grpc.max_receive_message_length", -1),  # the writer bounds what it answers
    ("grpc.max_send_message_length", -1),
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.enable_http_proxy", 0),
    ("grpc.primary_user_agent", "vecdb-worker"),
)


class WriterLink:
    """The connection to the writer. address_of(n) : of the socket of the nth writer that there has been."""

    def __init__(self, board: Board, secret: str, address_of: Callable[[int], str], slow_reader_s: float) -> None:
        self._board = board
        self._secret = secret
        self._address_of = address_of
        self._slow_reader_s = slow_reader_s
        self._writer = 0
        self._channel: Any = None
        self._calls: dict[tuple[str, str], Any] = {}
        self._closing: set[asyncio.Future[Any]] = set()
        self._ending = asyncio.Event()

    def drain(self) -> None:
        """Streams read nothing more, and long operations end."""
        self._ending.set()

    # -- the three kinds of rpc ----------------------------------------------------------------------

    async def unary(self, path: str, request: bytes, context: Any) -> bytes:
        """The writer's answer. Raises Refused with its status."""
        make = await self._callable("unary_unary", path, context)
        call = make(request, **self._options(context))
        try:
            answer: bytes = await call
            return answer
        except grpc.aio.AioRpcError as error:
            raise _status_of(error) from None

    async def answers(self, path: str, request: bytes, context: Any) -> None:
        """The same, where the answer is a stream."""
        make = await self._callable("unary_stream", path, context)
        call = make(request, **self._options(context))
        ending = asyncio.ensure_future(self._ending.wait())
        ending.add_done_callback(lambda _: None if ending.cancelled() else call.cancel())
        try:
            await self._hand_back(call, context)
        finally:
            ending.cancel()
            call.cancel()

    async def stream(self, path: str, requests: Any, context: Any) -> None:
        """The same, where requests and answers are streams. What was read is answered when the server drains."""
        make = await self._callable("stream_stream", path, context)
        call = make(**self._options(context))
        pump = asyncio.ensure_future(self._pump(requests, call))
        ending = asyncio.ensure_future(self._ending.wait())
        ending.add_done_callback(lambda _: pump.cancel())
        pump.add_done_callback(lambda _: _stop_writing(call, pump))
        try:
            await self._hand_back(call, context)
            error = pump.exception() if pump.done() and not pump.cancelled() else None
            if error is not None:
                raise error
            if self._ending.is_set():
                raise Unavailable("the server is shutting down")
        finally:
            ending.cancel()
            pump.cancel()
            call.cancel()

    async def _pump(self, requests: Any, call: Any) -> None:
        """Read no further than the writer does."""
        async for message in requests:
            raise_fault(message)
            try:
                await call.write(message)
            except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
                return  # its status comes with the answers
        await call.done_writing()

    async def _hand_back(self, call: Any, context: Any) -> None:
        try:
            while (answer := await call.read()) is not grpc.aio.EOF:
                await send_if_read(context, answer, self._slow_reader_s)
            code = await call.code()
            if code is not grpc.StatusCode.OK:
                raise await _status_of_call(call)
        except grpc.aio.AioRpcError as error:
            raise _status_of(error) from None
        except asyncio.CancelledError:
            if call.cancelled() and self._ending.is_set():
                task = asyncio.current_task()
                if task is None or not task.cancelling():
                    raise Unavailable("the server is shutting down") from None
            raise

    # -- the connection ------------------------------------------------------------------------------

    async def _callable(self, kind: str, path: str, context: Any) -> Any:
        """gRPC's callable of an rpc of the writer that is there. Raises Unavailable where none comes."""
        left_s = context.time_remaining()
        ends = time.monotonic() + min(_WAIT_S, _WAIT_S if left_s is None else left_s)
        while self._board.state(WRITER) < LISTENING:
            if time.monotonic() > ends or self._ending.is_set():
                raise Unavailable("the process that writes is being started: try again")
            await asyncio.sleep(_POLL_S)
        return self._callable_now(kind, path)

    def _callable_now(self, kind: str, path: str) -> Any:
        if self._writer != self._board.writers:
            self._connect()
        found = self._calls.get((kind, path))
        if found is None:
            found = self._calls[kind, path] = getattr(self._channel, kind)(path)
        return found

    def _connect(self) -> None:
        before, self._writer = self._channel, self._board.writers
        self._calls.clear()
        self._channel = grpc.aio.insecure_channel(self._address_of(self._writer), options=_OPTIONS)
        if before is not None:
            closing = asyncio.ensure_future(before.close(_CLOSE_S))
            self._closing.add(closing)
            closing.add_done_callback(self._closing.discard)

    def metadata_of(self, context: Any) -> list[tuple[str, str]]:
        """What goes along with a call: the token, and that it was counted."""
        kept = [(key, value) for key, value in context.invocation_metadata() if key in _HANDED_ON]
        return [*kept, (SECRET, self._secret), (PEER, context.peer())]

    def _options(self, context: Any) -> dict[str, Any]:
        return {"metadata": self.metadata_of(context), "timeout": context.time_remaining()}

    async def tell(self, path: str, request: bytes, metadata: list[tuple[str, str]], patience_s: float) -> None:
        """Make a call whose answer nobody wants, if the writer is there."""
        if self._board.state(WRITER) < LISTENING:
            return
        with contextlib.suppress(grpc.aio.AioRpcError):
            await self._callable_now("unary_unary", path)(request, metadata=metadata, timeout=patience_s)


def _stop_writing(call: Any, pump: asyncio.Future[None]) -> None:
    """The requests have ended: by themselves, by an error, or since the server drains."""
    if pump.cancelled():
        task = asyncio.ensure_future(_half_close(call))
        task.add_done_callback(lambda one: one.cancelled() or one.exception())
    elif pump.exception() is not None:
        call.cancel()


async def _half_close(call: Any) -> None:
    with contextlib.suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
        await call.done_writing()


async def _status_of_call(call: Any) -> Refused | Unavailable:
    return _refused(await call.code(), await call.details(), await call.trailing_metadata())


def _status_of(error: Any) -> Refused | Unavailable:
    return _refused(error.code(), error.details(), error.trailing_metadata())


def _refused(code: Any, details: str, trailing: Any) -> Refused | Unavailable:
    """The status of the writer. One that gRPC made, and not the writer, becomes ours: it would tell of the socket."""
    passed = tuple((key, value) for key, value in trailing or () if key == _DETAILS)
    if passed:
        return Refused(code, details or "", trailing=passed)
    if code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED):
        return Unavailable(
            "the process that writes has ended: what was under way is done, or not; repeat it under its request_id"
        )
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return Refused(code, "the deadline passed before the call was done")
    return Refused(code, details or f"the process that writes answered {code.name}")


class HandedOn(OtherBehaviours):
    """The behaviours of a service, of which those that need the writer go to it, as bytes."""

    def __init__(self, service: Any, behaviours: Any, link: WriterLink) -> None:
        def hand_on(method: Any, path: str) -> Any:
            kind = link.stream if method.client_streaming else link.answers if method.server_streaming else link.unary
            self.raw[method.name] = None
            return _behaviour(kind, path)

        super().__init__(service, behaviours, OF_WRITER, hand_on)


def _behaviour(hand_on: Callable[[str, Any, Any], Any], path: str) -> Callable[[Any, Any, Any], Any]:
    return lambda request, caller, context: hand_on(path, request, context)
