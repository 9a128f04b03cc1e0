"""The load generator: a process that answers lines of JSON.

connect                    name, target, method, requests (a file of length_prefixed.py), whether it is a stream, and
                           connections, over which single calls go in turn
answers                    the first answers of a name, one request at a time, into a file
closed, streamed, opened   load.py
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc.aio

from vecdb_bench.child_process import answer_lines
from vecdb_bench.engines import length_prefixed
from vecdb_bench.serving import load
from vecdb_bench.serving.load import new_loop

_OPTIONS = [
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    ("grpc.use_local_subchannel_pool", 1),  # each channel a connection of its own: it leads to one of the workers
]


@dataclass(frozen=True, slots=True)
class Connection:
    call: Any
    requests: Sequence[bytes]


class LoadGenerator:
    """Keeps its connections between turns."""

    def __init__(self) -> None:
        self._loop = new_loop()
        self._connections: dict[str, Connection] = {}

    def connect(
        self, name: str, target: str, method: str, requests: str, stream: bool = False, connections: int = 1
    ) -> load.Answer:
        async def connected() -> Any:
            channel = grpc.aio.insecure_channel(target, options=_OPTIONS)
            await asyncio.wait_for(channel.channel_ready(), 60)
            return channel.stream_stream(method) if stream else channel.unary_unary(method)

        calls = [self._run(connected()) for _ in range(connections)]
        call = calls[0] if connections == 1 else _in_turn(calls)
        self._connections[name] = Connection(call, length_prefixed.read(Path(requests)))
        return {}

    def answers(self, name: str, count: int, file: str) -> load.Answer:
        async def answers() -> list[bytes]:
            connection = self._connections[name]
            return [await connection.call(request) for request in connection.requests[:count]]

        found = self._run(answers())
        length_prefixed.write(Path(file), found)
        return {"answers": len(found)}

    def closed(self, name: str, **settings: Any) -> load.Answer:
        connection = self._connections[name]
        return self._report(load.closed(connection.call, connection.requests, **settings))

    def streamed(self, name: str, **settings: Any) -> load.Answer:
        connection = self._connections[name]
        return self._report(load.streamed(connection.call, connection.requests, **settings))

    def opened(self, name: str, **settings: Any) -> load.Answer:
        connection = self._connections[name]
        return self._report(load.opened(connection.call, connection.requests, **settings))

    def _report(self, turn: Coroutine[Any, Any, load.Answer]) -> load.Answer:
        return self._loop.run_until_complete(turn)

    def _run(self, what: Any) -> Any:
        return self._loop.run_until_complete(what)


def _in_turn(calls: Sequence[Any]) -> Any:
    """One call that goes over each of the connections in turn."""
    turns = itertools.cycle(calls)
    return lambda request, **settings: next(turns)(request, **settings)


if __name__ == "__main__":
    generator = LoadGenerator()
    answer_lines({name: getattr(generator, name) for name in ("connect", "answers", "closed", "streamed", "opened")})
