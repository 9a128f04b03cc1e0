"""What callers can make a server hold: memory, connections, time. A server in a process of its own is attacked.

The slow test measures and prints: what callers without a token and with a read token cost, beside others that ask.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from tests.support.server.driver import PATIENCE_S, Client, outcome, search_request, token, until_ready
from tests.support.server.process import Process
from vecdb_server.security.connections import connections_of

DIM = 8
MIB = 1 << 20
CHECK, SEARCH, GET = "/grpc.health.v1.Health/Check", "/vecdb.v1.SearchService/Search", "/vecdb.v1.RecordService/Get"
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])  # and empty settings
UNLIMITED = {"grpc.max_send_message_length": -1}


@contextmanager
def peak_of(process: Process) -> Iterator[list[int]]:
    """The list gets the bytes of anonymous memory that the process had at most, above what it had before."""
    before, peak, ended = process.memory_bytes(), [0], threading.Event()

    def look() -> None:
        while not ended.wait(0.002):
            peak[0] = max(peak[0], process.memory_bytes() - before)

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield peak
    finally:
        ended.set()
        thread.join()


@pytest.fixture
def guarded(tmp_path: Path) -> Iterator[tuple[Process, dict[str, Client]]]:
    """A server with tokens, records of the tenants a and b, and clients: root, a, b, none."""
    tokens = tmp_path / "tokens.json"
    secrets: dict[str, str | None] = {"root": token(tokens, "root", "admin"), "none": None}
    secrets |= {name: token(tokens, name, "read", tenant=name) for name in "ab"}
    with Process(tmp_path / "db", tmp_path, "--tokens", str(tokens), "--grace-s", "5") as process:
        clients = {name: Client(process.address, secret, **UNLIMITED) for name, secret in secrets.items()}
        until_ready(clients["none"])
        yield process, clients
        for client in clients.values():
            client.close()


def raw(client: Client, rpc: str, data: bytes, **options: Any) -> Any:
    return client.channel.unary_unary(rpc).future(data, timeout=PATIENCE_S, metadata=client.metadata, **options)


def test_messages_without_a_token_cost_no_memory(guarded: tuple[Process, dict[str, Client]]) -> None:
    process, clients = guarded
    stranger, big = clients["none"], bytes(60 * MIB)
    with peak_of(process) as peak:
        for rpc in (CHECK, SEARCH):
            for options in ({}, {"compression": grpc.Compression.Gzip}):
                for one in [raw(stranger, rpc, big, **options) for _ in range(2)]:
                    one.exception()
    assert peak[0] <= 64 * MIB, peak[0]


def test_connections_have_a_bound_and_the_log_says_when_it_is_reached(tmp_path: Path) -> None:
    (tmp_path / "vecdb.toml").write_text("connections_max = 20\n", encoding="utf-8")
    with Process(tmp_path / "db", tmp_path, "--config", str(tmp_path / "vecdb.toml")) as process:
        client = Client(process.address)
        until_ready(client)
        client.create("docs", DIM)
        before = process.descriptors()
        held = [socket.create_connection(("127.0.0.1", process.ports()[0]), PATIENCE_S) for _ in range(60)]
        for one in held:  # those that say nothing are closed after ten seconds, whether there is room or not
            with contextlib.suppress(OSError):
                one.sendall(PREFACE)
        closed = 0
        for one in held:
            one.settimeout(PATIENCE_S if closed < 40 else 0.1)
        while closed < 41:  # one of the twenty is the client's
            closed = sum(map(_is_closed, held))
        assert process.descriptors() <= before + 25
        assert client.write("docs", 0, np.ones((1, DIM), np.float32)) == 1
        while "no more connections are taken" not in process.log():
            assert process.process.poll() is None
        for one in held:
            one.close()
        client.close()


def test_connections_are_counted_of_the_process_that_has_them() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        callers = [socket.create_connection(("127.0.0.1", port), PATIENCE_S) for _ in range(4)]
        ours, theirs = socket.socketpair()
        pid = os.fork()
        if pid == 0:  # another process that takes connections of the port: one of them
            ours.close()  # so that it hears when this test ends
            try:
                with listening.accept()[0]:
                    theirs.send(bytes([connections_of(port)]))
                    theirs.recv(1)
            finally:
                os._exit(0)
        theirs.close()
        ours.settimeout(PATIENCE_S)
        counted = ours.recv(1)[0]
        taken = [listening.accept()[0] for _ in range(2)]
        assert (counted, connections_of(port)) == (1, 2)
        taken.pop().close()
        assert connections_of(port) == 1
        ours.send(b"e")
        assert os.waitpid(pid, 0)[1] == 0
        for one in (*callers, *taken, ours):
            one.close()


def _is_closed(one: socket.socket) -> bool:
    one.setblocking(False)
    try:
        while one.recv(4_096):
            pass
        return True
    except BlockingIOError:
        return False
    except OSError:
        return True


# -- measured --------------------------------------------------------------------------------------


def percentile(values: list[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(share * len(values)))] * 1e3 if values else float("nan")


def loop_ms(process: Process) -> float:
    """How long the thread of the event loop has worked."""
    pid = process.process.pid
    return int(Path(f"/proc/{pid}/task/{pid}/schedstat").read_text(encoding="ascii").split()[0]) / 1e6


def beside(ask: Callable[[], Any], attack: Callable[[threading.Event], None], seconds: float) -> list[float]:
    """Seconds that each of another caller's requests took while the attack went on."""
    ended, took = threading.Event(), []
    threads = [threading.Thread(target=attack, args=(ended,)) for _ in range(2)]
    for thread in threads:
        thread.start()
    until = time.perf_counter() + seconds
    while (started := time.perf_counter()) < until:
        ask()
        took.append(time.perf_counter() - started)
        time.sleep(0.002)
    ended.set()
    for thread in threads:
        thread.join()
    return took


def attacks(address: str, clients: dict[str, Client], calls: list[int]) -> dict[str, Callable[[threading.Event], None]]:
    """By name; each counts its calls."""
    rng, stranger, reader = np.random.default_rng(0), clients["none"], clients["a"]
    exact = search_request("docs", rng.normal(size=(12_000, DIM)).astype("f4"), 10)
    exact.params.exact = True

    def again(rpc: str, client: Client, data: bytes, at_once: int, **options: Any) -> Callable[[threading.Event], None]:
        def go(ended: threading.Event) -> None:
            while not ended.is_set():
                for one in [raw(client, rpc, data, **options) for _ in range(at_once)]:
                    one.exception()
                    calls[0] += 1

        return go

    def connections(ended: threading.Event) -> None:
        host, _, port = address.rpartition(":")
        held = []
        while not ended.is_set() and len(held) < 1_000:
            held.append(socket.create_connection((host, int(port)), PATIENCE_S))
        ended.wait()
        for one in held:
            one.close()

    def streams(ended: threading.Event) -> None:
        def nothing() -> Iterator[bytes]:
            ended.wait()
            return
            yield

        call = reader.channel.stream_stream("/vecdb.v1.SearchService/StreamSearch")
        held = [call(nothing(), metadata=reader.metadata, timeout=PATIENCE_S) for _ in range(200)]
        ended.wait()
        for one in held:
            one.cancel()

    empty = b"\x2a\x00" * 131_000
    return {
        "nobody": lambda ended: None,
        "no token: health, 60 MiB": again(CHECK, stranger, bytes(60 * MIB), 4),
        "no token: health, 60 MiB, gzip": again(CHECK, stranger, bytes(60 * MIB), 4, compression=grpc.Compression.Gzip),
        "no token: health, small": again(CHECK, stranger, b"", 64),
        "no token: search, 60 MiB": again(SEARCH, stranger, bytes(60 * MIB), 4),
        "no token: search, small": again(SEARCH, stranger, b"", 64),
        "no token: connections": connections,
        "read: 12,000 exact queries": again(SEARCH, reader, exact.SerializeToString(), 4),
        "read: empty names, as many as may be": again(SEARCH, reader, b"\x0a\x04docs" + empty, 1),
        "read: empty names, 60 MiB": again(SEARCH, reader, b"\x2a\x00" * (30 * MIB), 1),
        "read: idle streams": streams,
    }


@pytest.mark.slow
def test_what_callers_cost(guarded: tuple[Process, dict[str, Client]]) -> None:
    process, clients = guarded
    rng = np.random.default_rng(0)
    clients["root"].create("docs", DIM)
    from tests.support.server.driver import names

    for start in range(0, 20_000, 5_000):
        rows = rng.normal(size=(5_000, DIM)).astype("f4")
        clients["root"].write("docs", start, rows, tenants=names("a", "b"))
    query = search_request("docs", rng.normal(size=DIM).astype("f4"), 10)
    other = clients["b"]
    lines, calls = [], [0]
    for name, attack in attacks(process.address, clients, calls).items():
        calls[0], worked_ms = 0, loop_ms(process)
        with peak_of(process) as peak:
            took = beside(lambda: other(other.search.Search, query), attack, 5.0)
        worked_ms = (loop_ms(process) - worked_ms) / max(1, calls[0] + len(took))
        lines.append(
            f"{name:40s} memory +{peak[0] / MIB:6.1f} MiB   others: p50 {percentile(took, 0.5):7.1f} ms   "
            f"p99 {percentile(took, 0.99):7.1f} ms   max {percentile(took, 1.0):7.1f} ms   "
            f"calls {calls[0]:6,} loop {worked_ms:6.2f} ms a call"
        )
        print(lines[-1], flush=True)
        if name.startswith("no token"):
            assert peak[0] <= 64 * MIB, lines[-1]
    assert outcome(lambda: other(other.search.Search, query)) == "OK"
