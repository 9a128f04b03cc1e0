"""Callers that mean no good, or break: the server answers others, leaks nothing, and says nothing of its inside."""

from __future__ import annotations

import itertools
import os
import random
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from tests.support.server.driver import (
    PATIENCE_S,
    Client,
    Running,
    names,
    outcome,
    search_request,
    settled,
    until_ready,
    write_request,
)
from tests.support.server.process import Process
from tests.support.server.rpc_table import ROWS, RPCS
from vecdb.v1 import admin_pb2, common_pb2, records_pb2, search_pb2

SEED = int(os.environ.get("VECDB_SEED", "7"))
DIM = 8
FINE = {"OK", "INVALID_ARGUMENT", "NOT_FOUND", "ALREADY_EXISTS", "PERMISSION_DENIED", "RESOURCE_EXHAUSTED"}
Serving, Calling = Callable[..., Running], Callable[..., Client]


@pytest.fixture
def client(running: Running, calling: Calling, vectors: np.ndarray) -> Client:
    made = calling(running)
    made.create("docs", DIM)
    made.write("docs", 0, vectors, tenants=names("acme", "beta"))
    return made


def connection(running: Running) -> socket.socket:
    return socket.create_connection(("127.0.0.1", running.server.port), PATIENCE_S)


# -- bytes -----------------------------------------------------------------------------------------

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
SETTINGS = b"\x00\x00\x00\x04\x00\x00\x00\x00\x00"


def test_bytes_that_are_no_http_and_frames_that_are_cut_short_harm_nobody(
    running: Running, client: Client, vectors: np.ndarray
) -> None:
    rng = random.Random(SEED)
    for i in range(60):
        with connection(running) as one:
            sent = [rng.randbytes(rng.randrange(1, 3_000)), PREFACE, PREFACE + SETTINGS, b"GET / HTTP/1.1\r\n\r\n"][
                i % 4
            ]
            if i % 4 >= 1:
                sent += rng.randbytes(rng.randrange(0, 200))
            one.sendall(sent[: rng.randrange(1, len(sent) + 1)])
    assert client.nearest("docs", vectors[3], 1) == [3]


def test_connections_that_stay_half_open_leave_room_for_others(
    running: Running, client: Client, calling: Calling, vectors: np.ndarray
) -> None:
    before = len(os.listdir("/proc/self/fd"))
    held = [connection(running) for _ in range(100)]
    for i, one in enumerate(held):
        one.sendall((PREFACE + SETTINGS)[: i % 40])
    assert calling(running).nearest("docs", vectors[3], 1) == [3]
    for one in held:
        one.close()
    running.until(lambda: len(os.listdir("/proc/self/fd")) < before + 20)


def fuzzed(client: Client, rpc: str, data: Any) -> tuple[str, str]:
    """Status and message of an rpc that gets these bytes (a list of them where it takes a stream)."""
    method = RPCS[rpc]
    kind = f"{'stream' if method.client_streaming else 'unary'}_{'stream' if method.server_streaming else 'unary'}"
    call = getattr(client.channel, kind)(rpc)
    try:
        answers = call(iter(data) if method.client_streaming else data[0], timeout=PATIENCE_S)
        if method.server_streaming:
            for _ in answers:
                pass
    except grpc.RpcError as error:
        return error.code().name, error.details() or ""
    return "OK", ""


def mutated(rng: random.Random, message: bytes) -> bytes:
    """A message with some bytes changed, cut off, or put in."""
    data = bytearray(message)
    for _ in range(rng.randrange(1, 5)):
        at = rng.randrange(0, len(data) + 1)
        kind = rng.randrange(4)
        if kind == 0 and data:
            data[at % len(data)] = rng.randrange(256)
        elif kind == 1:
            del data[at:]
        elif kind == 2:
            data[at:at] = rng.randbytes(rng.randrange(1, 12))
        elif data:
            data[at % len(data)] ^= 1 << rng.randrange(8)
    return bytes(data)


def fuzz(client: Client, rounds: int, seed: int) -> None:
    rng = random.Random(seed)
    rpcs = [rpc for rpc in sorted(ROWS) if rpc.startswith("/vecdb.") and not rpc.endswith(("DropCollection", "Backup"))]
    for _ in range(rounds):
        for rpc in rpcs:
            request = ROWS[rpc][0]
            messages = [one.SerializeToString() for one in (request if isinstance(request, list) else [request])]
            data = [mutated(rng, one) if rng.random() < 0.9 else rng.randbytes(rng.randrange(200)) for one in messages]
            code, message = fuzzed(client, rpc, data)
            assert code in FINE, (rpc, data, code, message)
            assert "Traceback" not in message and "/work" not in message and ".py" not in message, message


def test_messages_with_changed_bytes_are_refused_or_understood(
    running: Running, client: Client, vectors: np.ndarray
) -> None:
    fuzz(client, 6, SEED)
    settled(running)
    assert running.server.context.db.check() == []


@pytest.mark.slow
def test_thousands_of_messages_with_changed_bytes(running: Running, client: Client) -> None:
    fuzz(client, 300, SEED + 1)
    settled(running)
    assert running.server.context.db.check() == []


def test_bytes_that_are_no_message_are_an_invalid_argument(running: Running, client: Client) -> None:
    for rpc in ("/vecdb.v1.SearchService/Search", "/vecdb.v1.RecordService/Ingest", "/vecdb.v1.RecordService/List"):
        code, message = fuzzed(client, rpc, [b"\xff\xff\xff"])
        assert (code, message) == ("INVALID_ARGUMENT", "the bytes that came are no message of this rpc's type")
    settled(running)


# -- sizes -----------------------------------------------------------------------------------------


def test_a_message_over_the_limit_is_refused_and_the_connection_goes_on(
    running: Running, calling: Calling, client: Client, vectors: np.ndarray
) -> None:
    big = np.zeros((1, DIM), np.float32).repeat((65 << 20) // (4 * DIM), 0)
    own = calling(running, **{"grpc.max_send_message_length": -1})
    assert outcome(lambda: own.write("docs", 0, big, ids=None)) == "RESOURCE_EXHAUSTED"
    assert own.nearest("docs", vectors[3], 1) == [3]
    settled(running)


def test_headers_over_the_limit_are_refused(running: Running, client: Client, vectors: np.ndarray) -> None:
    huge = (("x-huge", "x" * 100_000),)
    assert outcome(lambda: client.admin.GetServerInfo(admin_pb2.GetServerInfoRequest(), metadata=huge)) != "OK"
    assert client.nearest("docs", vectors[3], 1) == [3]


@pytest.mark.parametrize(
    "settings",
    [
        {"limit": 16_384, "params": search_pb2.SearchParams(ef=65_536)},
        {"limit": 4_000_000_000},
        {"params": search_pb2.SearchParams(threads=4_000_000_000)},
        {"params": search_pb2.SearchParams(ef=0)},
        {"params": search_pb2.SearchParams(recall=float("nan"))},
        {"tenants": ["x"] * 5_000},
        {"collection": "x" * 100_000},
    ],
)
def test_sizes_out_of_all_bounds_are_refused_before_anything_of_their_size_is_made(
    running: Running, client: Client, vectors: np.ndarray, settings: dict[str, Any]
) -> None:
    request = search_request("docs", vectors[0])
    for name, value in settings.items():
        if name == "tenants":
            request.tenants.extend(value)
        elif name == "params":
            request.params.CopyFrom(value)
        else:
            setattr(request, name, value)
    assert outcome(lambda: client(client.search.Search, request)) in FINE


# -- callers that go away --------------------------------------------------------------------------


def ended(call: Any) -> str:
    """How it ended. Of tens of thousands, gRPC's client leaves one open whose deadline has passed, of which no server
    knows: that one is cancelled.
    """
    while True:
        try:
            return outcome(lambda: call.result(5.0))
        except grpc.FutureTimeoutError:
            if call.time_remaining() == 0:
                call.cancel()
                return "CANCELLED"


def storm(running: Running, client: Client, vectors: np.ndarray, calls: int) -> None:
    """Calls that are cancelled, or run out of time, at every stage."""
    rng = random.Random(SEED)
    running.server.context.latencies.short_us = 0  # all of them on threads, where they can be met waiting
    coming = []
    for i in range(calls):
        if i % 2:
            coming.append(client.search.Search.future(search_request("docs", vectors[i % 200]), timeout=PATIENCE_S))
        else:
            request = write_request("docs", i, vectors[:5])
            coming.append(client.records.Write.future(request, timeout=rng.choice([0.001, 0.005, PATIENCE_S])))
        if rng.random() < 0.5:
            rng.choice(coming).cancel()
    for one in coming:
        if rng.random() < 0.5:
            one.cancel()
    for one in coming:
        code = ended(one) if not one.cancelled() else "CANCELLED"
        assert code in ("OK", "CANCELLED", "DEADLINE_EXCEEDED", "RESOURCE_EXHAUSTED"), code


def still_served(client: Client) -> None:
    """What is written is found; storms wrote the same vectors under many ids, in an order of their own."""
    new = np.full(DIM, 50.0, np.float32)
    assert client.write("docs", 1_000_000, new[None]) == 1 and client.nearest("docs", new, 1) == [1_000_000]


@pytest.mark.filterwarnings("error")
def test_a_storm_of_cancelled_calls_leaves_nothing_behind(
    running: Running, client: Client, vectors: np.ndarray
) -> None:
    storm(running, client, vectors, 50)
    threads = threading.active_count()
    storm(running, client, vectors, 400)
    settled(running)
    assert threading.active_count() <= threads + 2
    still_served(client)


@pytest.mark.slow
def test_a_storm_of_minutes_leaves_nothing_behind_either(running: Running, client: Client, vectors: np.ndarray) -> None:
    storm(running, client, vectors, 400)
    threads, descriptors = threading.active_count(), len(os.listdir("/proc/self/fd"))
    for _ in range(40):
        storm(running, client, vectors, 1_000)
    settled(running)
    assert threading.active_count() <= threads + 2 and len(os.listdir("/proc/self/fd")) <= descriptors + 4
    still_served(client)


def test_a_batch_that_nobody_waits_for_stops_between_chunks(
    running: Running, client: Client, monkeypatch: pytest.MonkeyPatch, vectors: np.ndarray
) -> None:
    import vecdb

    begun, ended = threading.Event(), threading.Event()

    def search(self: Any, *args: Any, stop: Any = None, **options: Any) -> Any:
        begun.set()
        while not stop():
            threading.Event().wait(0.001)
        ended.set()
        raise vecdb.Unavailable("given up")

    monkeypatch.setattr(vecdb.Collection, "search", search)
    call = client.search.Search.future(search_request("docs", vectors), timeout=PATIENCE_S)
    assert begun.wait(PATIENCE_S)
    call.cancel()
    assert ended.wait(PATIENCE_S)
    begun.clear(), ended.clear()
    for timeout_s in (0.05, 0.5, 5.0, PATIENCE_S):  # a search that comes after its deadline does not begin
        call = client.search.Search.future(search_request("docs", vectors), timeout=timeout_s)
        assert outcome(call.result) == "DEADLINE_EXCEEDED"
        if begun.is_set():
            break
    assert ended.wait(PATIENCE_S)
    settled(running)


def test_a_list_that_nobody_reads_on_holds_no_transaction(
    running: Running, client: Client, calling: Calling, vectors: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    from vecdb_server.services import records

    monkeypatch.setattr(records, "_LIST_BYTES", 500)
    store = running.server.context.db._backend.store
    request = records_pb2.ListRequest(collection="docs", include_vectors=True, batch=1)
    own = calling(running)
    streams = [own.records.List(request) for _ in range(20)]
    for one in streams:
        next(one)
    for one in streams[:10]:
        one.cancel()
    own.close()  # the others break off with their connection
    running.until(lambda: store._parked == 0)
    settled(running)


def test_who_does_not_read_a_list_loses_it(serving: Serving, calling: Calling) -> None:
    running = serving(slow_reader_s=0.2)
    client = calling(running)
    client.create("wide", 4_096)
    client.write("wide", 0, np.ones((2_000, 4_096), np.float32))
    request = records_pb2.ListRequest(collection="wide", include_vectors=True)
    stream = client.records.List(request, timeout=PATIENCE_S)
    next(stream)
    store, kernels = running.server.context.db._backend.store, running.server.context.kernels
    running.until(lambda: store._parked + len(store._reads) + kernels.queued + kernels.busy == 0)
    assert outcome(lambda: list(stream)) == "ABORTED"
    settled(running)


# -- a process of its own --------------------------------------------------------------------------


def test_abuse_leaves_descriptors_and_threads_as_they_were(tmp_path: Path, vectors: np.ndarray) -> None:
    abused(tmp_path, vectors, 4)


@pytest.mark.slow
def test_nor_does_abuse_for_minutes_cost_memory(tmp_path: Path, vectors: np.ndarray) -> None:
    abused(tmp_path, vectors, 300)


def abused(tmp_path: Path, vectors: np.ndarray, rounds: int) -> None:
    with Process(tmp_path / "db", tmp_path) as process:
        port = process.ports()[0]
        client = Client(process.address)
        until_ready(client)
        client.create("docs", DIM)
        client.write("docs", 0, vectors)
        abuse(port, vectors, 1)
        descriptors, threads, memory = process.descriptors(), process.threads(), process.memory_bytes()
        abuse(port, vectors, rounds)
        for _ in itertools.count():
            if process.descriptors() <= descriptors + 4 and process.threads() <= threads + 2:
                break
            client(client.admin.GetServerInfo, admin_pb2.GetServerInfoRequest())
            assert _ < 20_000, (process.descriptors(), descriptors, process.threads(), threads)
        assert process.memory_bytes() < memory + (64 << 20)
        client.close()
        assert process.end() == 0


def abuse(port: int, vectors: np.ndarray, rounds: int) -> None:
    for _ in range(rounds):
        one = Client(f"localhost:{port}")
        calls = [one.search.Search.future(search_request("docs", vectors)) for _ in range(50)]
        lists = [one.records.List(records_pb2.ListRequest(collection="docs", batch=1)) for _ in range(10)]
        for stream in lists:
            next(stream)
        for call in calls[::2]:
            call.cancel()
        one.close()
        sockets = [socket.create_connection(("127.0.0.1", port)) for _ in range(20)]
        for each in sockets:
            each.sendall(PREFACE)
            each.close()


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"names": ["a"], "counts": [1, 1], "which": [0]}, "counts are of 2 names"),
        ({"names": ["a"], "counts": [1, 0], "which": [1]}, "place 1"),
        ({"names": ["a"], "counts": [1], "which": [0]}, "2 ids and 1 lists"),
        ({"names": [], "counts": [4_000_000_000, 1], "which": []}, "counts are of"),
        ({"names": [""], "counts": [1, 1], "which": [0, 0]}, "must not be empty"),
        ({"names": ["a"], "counts": [0] * 1_048_577, "which": []}, "at most 1,048,576 lists"),
        ({"names": ["a"], "counts": [4_194_305], "which": [0] * 4_194_305}, "at most 4,194,304 pairs"),
    ],
)
def test_columns_of_tenants_that_do_not_fit_are_refused(
    serving: Serving, calling: Calling, columns: dict[str, Any], message: str
) -> None:
    client = calling(serving())
    client.create("docs", 2)
    with pytest.raises(grpc.RpcError) as caught:
        client.write("docs", 1, np.ones((2, 2), np.float32), tenant_columns=common_pb2.TenantColumns(**columns))
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT and message in caught.value.details()
    assert client.count("docs") == 0
