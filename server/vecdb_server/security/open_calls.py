"""Rpcs that are open to all (health): nobody is asked for a token, so nothing that is sent is waited for or kept.

    headers -> is the message there? -> its answer
                  not within a moment, or another is awaited -> the answer to an empty message

A message of a few bytes comes with its headers. What is longer is not read on: gRPC would gather all of it in memory
first. The call is answered as if the message were empty, which for health means the server as a whole. One message at a
time is awaited, so that what strangers make gRPC gather is one message at most.

Threads: event loop only.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import grpc

from vecdb_server.security.bounds import MessageCheck

_MOMENT_S = 0.02


class OpenCalls:
    def __init__(self) -> None:
        self._reading = False

    def handler(self, check: MessageCheck, call: Callable[[Any, Any], Awaitable[Any]], pack: Any) -> Any:
        """A gRPC handler. call(message, context) : the answer, or None where it writes its answers itself."""
        empty = check.parse(b"")

        async def answer(_: Any, context: Any) -> None:
            data = await self._read(context)
            message = empty if data is None else check.parse(data)
            found = await call(message, context)
            if found is not None:
                await context.write(found)

        return grpc.stream_stream_rpc_method_handler(answer, None, pack)

    async def _read(self, context: Any) -> bytes | None:
        if self._reading:
            return None
        self._reading = True
        try:
            reading = asyncio.ensure_future(context.read())
            done, _ = await asyncio.wait([reading], timeout=_MOMENT_S)
        finally:
            self._reading = False
        if not done:
            reading.add_done_callback(_ignore)  # it ends with the call
            return None
        data = reading.result()
        return data if isinstance(data, bytes) else None


def _ignore(reading: asyncio.Future[Any]) -> None:
    if not reading.cancelled():
        reading.exception()
