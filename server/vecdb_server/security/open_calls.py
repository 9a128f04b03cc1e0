"""Rpcs that are open to all (health), for callers without a token: their messages are not read.

    headers -> the answer to an empty message

gRPC gathers a message whole, up to `message_bytes_max`, before anybody can look at its first byte; nothing can be read
of a stranger that does not cost as much. For health the empty message asks for the server as a whole, and all of its
services are ready or none is: the answer is the same, but for a service that does not exist. Callers with a token, and
all callers of a server without tokens, are read like those of other rpcs.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import grpc


def unread(empty: Any, call: Callable[[Any, Any], Awaitable[Any]], pack: Any) -> Any:
    """A gRPC handler. empty : the empty message.   call(message, context) : the answer, or None where it writes its
    answers itself.   pack : answer -> bytes.
    """

    async def answer(_: Any, context: Any) -> None:
        found = await call(empty, context)
        if found is not None:
            await context.write(found)

    return grpc.stream_stream_rpc_method_handler(answer, None, pack)
