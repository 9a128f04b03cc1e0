"""What a message may cost: every rpc has a row of bounds, which hold before anything is made of the bytes."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import fields
from pathlib import Path

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from tests.support.server.driver import PATIENCE_S, Client, Running, settled, token
from tests.support.server.rpc_table import RPCS
from vecdb.v1 import common_pb2, records_pb2
from vecdb_server.config import Config
from vecdb_server.security.auth import NEEDS
from vecdb_server.security.bounds import BOUNDS, OPEN, MessageCheck

DIM = 8
Serving, Calling = Callable[..., Running], Callable[..., Client]


# -- the table ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("rpc", sorted(RPCS))
def test_every_rpc_of_the_contract_has_a_row_of_bounds(rpc: str) -> None:
    settings = {one.name for one in fields(Config)}
    bound = BOUNDS[rpc]
    assert {bound.bytes_max, bound.elements_max} <= settings
    check = MessageCheck(rpc, RPCS[rpc].input_type, Config())
    assert check.bytes_max < 1 << 27 and check.elements_max <= 1 << 23
    assert NEEDS[rpc].open == (bound is OPEN), "who may call without a token is told nothing longer"


def test_every_rpc_that_is_served_has_a_row_and_no_row_is_left_over(running: Running) -> None:
    assert set(running.server._interceptor.rpcs) <= set(BOUNDS)
    assert set(BOUNDS) == set(RPCS)


def test_an_rpc_without_a_row_is_not_served(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(BOUNDS, "/grpc.health.v1.Health/Check")
    service = health_pb2.DESCRIPTOR.services_by_name["Health"]
    with pytest.raises(KeyError, match="Health/Check"):
        running.server._interceptor.add(service, running.server.health)


# -- what is over a bound ------------------------------------------------------------------------------


def sent(client: Client, rpc: str, data: bytes) -> tuple[str, str]:
    """Status and message of an rpc that gets these bytes."""
    method = RPCS[rpc]
    kind = f"{'stream' if method.client_streaming else 'unary'}_{'stream' if method.server_streaming else 'unary'}"
    call = getattr(client.channel, kind)(rpc)
    try:
        answers = call(iter([data]) if method.client_streaming else data, timeout=PATIENCE_S, metadata=client.metadata)
        if method.server_streaming:
            list(answers)
    except grpc.RpcError as error:
        return error.code().name, error.details() or ""
    return "OK", ""


def tagged(number: int, value: bytes) -> bytes:
    """A field of bytes. value : shorter than 2**14."""
    size = len(value)
    return bytes([number << 3 | 2]) + (bytes([size]) if size < 128 else bytes([size & 127 | 128, size >> 7])) + value


@pytest.mark.parametrize("rpc", sorted(RPCS))
def test_a_message_with_too_many_elements_is_refused_before_it_is_parsed(
    serving: Serving, calling: Calling, monkeypatch: pytest.MonkeyPatch, rpc: str
) -> None:
    small = {one.name: 50 for one in fields(Config) if one.name.endswith("_elements_max")}
    running = serving(**small, reflection=True)
    client = calling(running)
    client.create("docs", DIM)
    code, message = sent(client, rpc, tagged(15, b"") * 51)  # a field that no message has: a parser keeps it
    if rpc.startswith("/grpc.reflection"):
        assert code == "OK"  # and the error in an answer of its own
    else:
        assert code == "INVALID_ARGUMENT" and "at most 50 fields and entries" in message, (code, message)
    settled(running)


@pytest.mark.parametrize(
    ("rpc", "data"),
    [
        ("/vecdb.v1.SearchService/Search", tagged(7, tagged(1, b"") * 70) * 2_000),  # empty names of fields
        ("/vecdb.v1.SearchService/Search", tagged(3, tagged(2, b"") * 70) * 2_000),  # empty histories
        ("/vecdb.v1.RecordService/Get", tagged(5, b"") * 140_000),  # empty names of tenants
        ("/vecdb.v1.RecordService/Count", tagged(2, b"") * 20_000),
        ("/vecdb.v1.RecordService/List", tagged(4, b"") * 20_000),
        ("/vecdb.v1.SearchService/StreamSearch", tagged(1, tagged(5, b"") * 70) * 2_000),
        ("/vecdb.v1.SearchService/Evaluate", tagged(5, b"") * 140_000),
    ],
)
def test_empty_entries_of_lists_are_counted_by_default(
    running: Running, calling: Calling, rpc: str, data: bytes
) -> None:
    client = calling(running)
    client.create("docs", DIM)
    code, message = sent(client, rpc, data)
    assert code == "INVALID_ARGUMENT" and "fields and entries of lists" in message, (code, message)


def test_a_request_of_a_few_names_has_no_room_for_a_megabyte(running: Running, calling: Calling) -> None:
    client = calling(running)
    code, message = sent(client, "/vecdb.v1.CollectionService/GetCollection", tagged(1, b"x" * 10_000) * 100)
    assert code == "INVALID_ARGUMENT" and "at most 65,536 bytes, this one has 1,000,300" in message


def test_what_fits_is_answered_as_before(running: Running, calling: Calling, vectors: np.ndarray) -> None:
    client = calling(running)
    client.create("docs", DIM)
    ids = common_pb2.Ids(strings=common_pb2.StringIds(values=[f"id-{i}" for i in range(200)]))
    client.write("docs", 0, vectors, ids=ids)
    many = common_pb2.Ids(strings=common_pb2.StringIds(values=[f"id-{i % 200}" for i in range(20_000)]))
    found = client(client.records.Get, records_pb2.GetRequest(collection="docs", ids=many)).records
    assert [one.record.string_id for one in found] == list(many.strings.values)


@pytest.mark.parametrize("rpc", ["/grpc.health.v1.Health/Check", "/vecdb.v1.SearchService/Search"])
def test_a_compressed_message_is_refused(running: Running, calling: Calling, rpc: str) -> None:
    call = calling(running).channel.unary_unary(rpc)
    with pytest.raises(grpc.RpcError) as caught:
        call(bytes(1_000), timeout=PATIENCE_S, compression=grpc.Compression.Gzip)
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED and "gzip" in caught.value.details()


# -- rpcs that are open to all -----------------------------------------------------------------------------


def test_health_is_told_without_reading_what_a_stranger_sends(
    serving: Serving, calling: Calling, tmp_path: Path
) -> None:
    tokens = tmp_path / "tokens.json"
    secret = token(tokens, "first")
    running, asked = serving(tokens=str(tokens)), threading.Event()

    def never() -> Iterator[bytes]:
        asked.wait(PATIENCE_S)
        yield b""

    stranger = calling(running).channel
    answers = stranger.stream_stream("/grpc.health.v1.Health/Check")(never(), timeout=PATIENCE_S)
    assert health_pb2.HealthCheckResponse.FromString(next(answers)).status == 1
    asked.set()
    no_such = health_pb2.HealthCheckRequest(service="no such")
    ask = health_pb2_grpc.HealthStub(stranger).Check
    assert ask(no_such, timeout=PATIENCE_S).status == 1
    for metadata, code in (
        ((("authorization", f"Bearer {secret}"),), grpc.StatusCode.NOT_FOUND),
        ((("authorization", "Bearer wrong"),), None),
    ):
        call = ask.future(no_such, timeout=PATIENCE_S, metadata=metadata)
        assert (call.exception() and call.code()) == code


def test_without_tokens_everybody_is_read(running: Running, calling: Calling) -> None:
    ask = health_pb2_grpc.HealthStub(calling(running).channel).Check
    assert ask(health_pb2.HealthCheckRequest(service=""), timeout=PATIENCE_S).status == 1
    with pytest.raises(grpc.RpcError) as caught:
        ask(health_pb2.HealthCheckRequest(service="no such"), timeout=PATIENCE_S)
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND
