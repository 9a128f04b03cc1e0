"""The ceiling: a grpc.aio server that answers every message with the same bytes and does nothing else.

Argument: a file of length_prefixed.py. A request for /echo/<n> is answered with its message n.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import grpc.aio

from vecdb_bench.child_process import answer_lines
from vecdb_bench.engines import length_prefixed
from vecdb_bench.serving.load import new_loop


class Echo(grpc.GenericRpcHandler):  # type: ignore[misc]
    """/echo/<n> and /stream/<n>."""

    def __init__(self, answers: list[bytes]) -> None:
        self._handlers: dict[str, Any] = {}
        for at, answer in enumerate(answers):
            self._handlers[f"/echo/{at}"] = grpc.unary_unary_rpc_method_handler(_one(answer))
            self._handlers[f"/stream/{at}"] = grpc.stream_stream_rpc_method_handler(_each(answer))

    def service(self, details: grpc.HandlerCallDetails) -> Any:
        return self._handlers.get(details.method)


def _one(answer: bytes) -> Any:
    async def handle(request: bytes, context: Any) -> bytes:
        return answer

    return handle


def _each(answer: bytes) -> Any:
    async def handle(requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
        async for _ in requests:
            yield answer

    return handle


class Server:
    """Runs on the event loop of its own thread, so that the main thread can answer lines."""

    def __init__(self, answers: list[bytes]) -> None:
        self._loop = new_loop()
        self._server = self._loop.run_until_complete(self._start(answers))
        threading.Thread(target=self._loop.run_forever, daemon=True).start()

    async def _start(self, answers: list[bytes]) -> Any:
        server = grpc.aio.server(options=[("grpc.max_receive_message_length", -1)])
        server.add_generic_rpc_handlers((Echo(answers),))
        self._port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        return server

    def where(self) -> dict[str, Any]:
        return {"target": f"127.0.0.1:{self._port}"}


if __name__ == "__main__":
    answer_lines({"where": Server(length_prefixed.read(Path(sys.argv[1]))).where})
