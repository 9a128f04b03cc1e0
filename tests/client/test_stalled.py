"""A connection that stays open and says nothing any more, as when the host at its other end was taken away."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vecdb
from tests.support.server.driver import PATIENCE_S, Running
from vecdb.client import channel
from vecdb.client.address import target
from vecdb_server.config import Config

DIM = 8


class Relay:
    """Passes bytes on between clients and a server. `stall` silences the connections of that moment for good."""

    def __init__(self, port: int) -> None:
        self._to = port
        self._connections = self._silent = 0
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()
        self._server = self._on_loop(asyncio.start_server(self._serve, "127.0.0.1", 0))
        self.port = self._server.sockets[0].getsockname()[1]

    def stall(self) -> None:
        self._silent = self._connections

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        number = self._connections
        self._connections += 1
        there, back = await asyncio.open_connection("127.0.0.1", self._to)
        await asyncio.gather(self._pass_on(number, reader, back), self._pass_on(number, there, writer))

    async def _pass_on(self, number: int, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        try:
            while data := await source.read(1 << 16):
                if number >= self._silent:
                    sink.write(data)
                    await sink.drain()
        except (ConnectionError, asyncio.CancelledError):
            pass
        sink.close()

    def _on_loop(self, what: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(what, self._loop).result(PATIENCE_S)

    def close(self) -> None:
        self._on_loop(_ended(self._server))
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


async def _ended(server: asyncio.Server) -> None:
    server.close()
    rest = asyncio.all_tasks() - {asyncio.current_task()}
    for one in rest:
        one.cancel()
    await asyncio.gather(*rest, return_exceptions=True)


@pytest.fixture
def relay(tmp_path: Path) -> Iterator[Relay]:
    running = Running(Config(path=str(tmp_path / "db"), listen="127.0.0.1:0", durability="relaxed", grace_s=5.0))
    made = Relay(running.server.port)
    yield made
    made.close()
    running.close()


@pytest.mark.slow  # it waits ten seconds for a connection to be given up
def test_a_call_on_a_connection_that_fell_silent_is_made_on_another(
    relay: Relay, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(channel, "SILENCE_MS", 300)
    with vecdb.open(f"grpc://localhost:{relay.port}") as db:
        docs = db.create_collection("docs", DIM)
        docs.upsert(range(10), np.eye(10, DIM) + 1)
        relay.stall()
        assert docs.count() == 10
        relay.stall()
        assert docs.upsert(range(10, 20), np.eye(10, DIM) + 1) == 10
        assert docs.count() == 20


def test_silence_is_noticed_while_a_read_has_time_for_another_try() -> None:
    found = dict(channel.options(target("grpc://localhost:1", None, None, False)))
    assert found["grpc.keepalive_time_ms"] + channel.SILENCE_MS <= 0.7 * channel.READ_S * 1_000


def test_every_call_that_does_not_tell_of_its_progress_has_a_deadline() -> None:
    found = channel.deadlines(None)
    unary = {method.name for method in channel._methods() if not method.server_streaming}
    assert unary <= found.keys()
