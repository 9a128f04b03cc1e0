"""What one caller holds leaves room for others: seats, streams, turns and messages that do not come."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2

import vecdb
from tests.support.server.driver import (
    PATIENCE_S,
    Client,
    Running,
    names,
    outcome,
    search_request,
    settled,
    status_of,
    token,
)
from vecdb.v1 import admin_pb2, collections_pb2, records_pb2, search_pb2
from vecdb_server.security.admission import Admission, AdmissionLimits
from vecdb_server.security.auth import Caller
from vecdb_server.security.slow_messages import SlowMessages
from vecdb_server.status_errors import Refused

DIM = 8
Serving, Calling = Callable[..., Running], Callable[..., Client]


# -- counts ------------------------------------------------------------------------------------------


def test_tokens_of_one_tenant_have_one_share_and_administrators_a_part_of_their_own() -> None:
    admission = Admission(AdmissionLimits(100, 60, 1_000, tenant_requests_max=50, admin_requests_kept=20))
    first, second = (admission.account(Caller(name, tenant="a")) for name in ("a1", "a2"))
    for account in (first, second):
        for _ in range(25):
            admission.enter(account, 1)
    for account in (first, second):
        with pytest.raises(Refused, match="the 50 requests of this tenant"):
            admission.enter(account, 1)
    other = admission.account(Caller("b1", tenant="b"))
    for _ in range(30):
        admission.enter(other, 1)
    with pytest.raises(Refused, match="the server holds as many requests as it can"):
        admission.enter(other, 1)
    admin = admission.account(Caller("root", "admin"))
    for _ in range(20):
        admission.enter(admin, 1)
    with pytest.raises(Refused, match="as many requests as it can"):
        admission.check(admin)
    assert admission.calls == 100


def test_messages_of_one_tenant_have_one_share_of_the_bytes() -> None:
    admission = Admission(AdmissionLimits(100, 60, 1_000, tenant_request_bytes_max=300, admin_requests_kept=20))
    account, other = admission.account(Caller("a", tenant="a")), admission.account(Caller("b"))
    admission.enter(account, 300)
    with pytest.raises(Refused, match="the messages of this tenant are as much"):
        admission.enter(account, 1)
    assert not admission.try_enter(account, 1)
    admission.enter(other, 300)
    admission.leave(account, 300)
    admission.enter(account, 1)
    assert admission.bytes == 301


def test_streams_are_counted_by_tenant_and_in_all() -> None:
    limits = AdmissionLimits(100, 60, 1_000, admin_requests_kept=20, streams_max=10, tenant_streams_max=5)
    admission = Admission(limits)
    a, b, c, admin = (
        admission.account(Caller("a", tenant="a")), admission.account(Caller("b", tenant="b")),
        admission.account(Caller("c")), admission.account(Caller("root", "admin")),
    )  # fmt: skip
    for _ in range(5):
        admission.open_stream(a)
    with pytest.raises(Refused, match="the 5 streams of this tenant"):
        admission.open_stream(a)
    for _ in range(3):
        admission.open_stream(b)
    with pytest.raises(Refused, match="as many streams as it can"):
        admission.open_stream(c)
    admission.open_stream(admin)
    admission.close_stream(a)
    admission.close_stream(a)
    admission.open_stream(c)
    assert admission.streams == 8


def test_calls_whose_message_does_not_come_are_few_and_end() -> None:
    async def asked() -> tuple[list[bool], list[bool], int]:
        admission = Admission(AdmissionLimits(100, 60, 1_000, slow_messages_max=4, tenant_slow_messages_max=2))
        slow, account = SlowMessages(admission, 10.0), admission.account(Caller("a", tenant="a"))
        came = asyncio.Event()

        async def call() -> None:
            slow.began(account)
            await came.wait()
            slow.ended()

        calls = [asyncio.ensure_future(call()) for _ in range(5)]
        await asyncio.sleep(0)
        now = asyncio.get_running_loop().time()
        slow.look(now + 1.0)
        await asyncio.sleep(0)
        early = [one.cancelled() for one in calls]
        slow.look(now + 11.0)
        await asyncio.sleep(0)
        late = [one.cancelled() for one in calls]
        return early, late, admission.slow_messages

    early, late, left = asyncio.run(asked())
    assert early == [False, False, True, True, True] and late == [True] * 5 and left == 0


def test_a_message_that_comes_late_leaves_its_place() -> None:
    async def asked() -> tuple[int, int, int]:
        admission = Admission(AdmissionLimits(100, 60, 1_000))
        slow, account, came = SlowMessages(admission, 10.0), admission.account(Caller("a")), asyncio.Event()

        async def call() -> None:
            slow.began(account)
            await came.wait()
            slow.ended()

        calls = [asyncio.ensure_future(call()) for _ in range(3)]
        await asyncio.sleep(0)
        slow.look(asyncio.get_running_loop().time() + 1.0)
        waiting = admission.slow_messages
        came.set()
        await asyncio.gather(*calls)
        return waiting, admission.slow_messages, len(slow)

    assert asyncio.run(asked()) == (3, 0, 0)


# -- streams over the wire -----------------------------------------------------------------------------


@pytest.fixture
def shared(serving: Serving, calling: Calling, vectors: np.ndarray, tmp_path: Path) -> Callable[..., Any]:
    """shared(setting=...) : a server with records of the tenants a and b, and clients: root, a1, a2, b."""

    def start(**settings: Any) -> tuple[Running, dict[str, Client]]:
        tokens = tmp_path / "tokens.json"
        secrets = {"root": token(tokens, "root", "admin")}
        secrets |= {name: token(tokens, name, "read", tenant=name[0]) for name in ("a1", "a2", "b")}
        running = serving(tokens=str(tokens), **settings)
        clients = {name: calling(running, secret) for name, secret in secrets.items()}
        clients["root"].create("docs", DIM)
        clients["root"].write("docs", 0, vectors, tenants=names("a", "b"))
        return running, clients

    return start


def silent(client: Client, done: threading.Event) -> Any:
    def nothing() -> Iterator[Any]:
        done.wait(PATIENCE_S)
        return
        yield

    return client.search.StreamSearch(nothing(), metadata=client.metadata, timeout=PATIENCE_S)


def test_idle_streams_of_one_tenant_lock_nobody_out(shared: Any, vectors: np.ndarray) -> None:
    running, clients = shared(requests_max=40, streams_max=40, tenant_streams_max=10)
    admission, done = running.server.context.admission, threading.Event()
    held = [silent(clients[name], done) for name in ("a1", "a2") for _ in range(8)]
    running.until(lambda: admission.streams == 10 and sum(one.done() for one in held) == 6)
    assert admission.calls == 0, "a stream that is idle holds no seat"
    assert clients["b"].nearest("docs", vectors[3], 1) == [3] and clients["a1"].nearest("docs", vectors[4], 1) == [4]
    stream = clients["b"].search.StreamSearch(
        iter([search_pb2.StreamSearchRequest(search=search_request("docs", vectors[5], 1))]),
        metadata=clients["b"].metadata, timeout=PATIENCE_S,
    )  # fmt: skip
    assert [list(one.hits.ids.ints.values) for one in stream] == [[5]]
    ask = collections_pb2.ListCollectionsRequest()
    assert outcome(lambda: clients["root"](clients["root"].collections.ListCollections, ask)) == "OK"
    refused = next(one for one in held if one.done())
    with pytest.raises(grpc.RpcError) as caught:
        next(refused)
    code, message, _, retry_s = status_of(caught.value)
    assert code == "RESOURCE_EXHAUSTED" and "the 10 streams of this tenant" in message and retry_s is not None
    done.set()
    settled(running)
    running.until(lambda: admission.streams == 0)


def test_a_stream_on_which_nothing_is_asked_ends(shared: Any) -> None:
    running, clients = shared(stream_idle_s=0.2)
    done = threading.Event()
    with pytest.raises(grpc.RpcError) as caught:
        next(silent(clients["a1"], done))
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE and "nothing was sent on this stream" in str(caught.value)
    done.set()
    running.until(lambda: running.server.context.admission.streams == 0)


def test_a_clients_stream_outlives_the_pauses_of_its_queries(
    serving: Serving, calling: Calling, vectors: np.ndarray
) -> None:
    running = serving(stream_idle_s=0.2)
    client = calling(running)
    client.create("docs", DIM)
    client.write("docs", 0, vectors)
    context = running.server.context
    with vecdb.open(f"grpc://{running.address}") as db:

        def queries() -> Iterator[np.ndarray]:
            for i in range(3):
                yield vectors[i]
                running.until(lambda: not context.streams)

        found = [hits.ids.tolist() for hits in db.collection("docs").search_stream(queries(), limit=1, window=1)]
    assert found == [[0], [1], [2]]


def test_who_asks_on_a_stream_and_reads_no_answer_loses_it(shared: Any, vectors: np.ndarray) -> None:
    running, clients = shared(slow_reader_s=0.2)
    admission = running.server.context.admission
    big = search_pb2.StreamSearchRequest(
        search=search_request("docs", np.tile(vectors, (2, 1)), 200, include_vectors=True)
    )  # the answer has 3 MB
    stream = clients["a1"].search.StreamSearch(iter([big] * 20), metadata=clients["a1"].metadata, timeout=PATIENCE_S)
    streams = running.server.context.streams
    running.until(lambda: any(one._given_up for one in streams))
    running.until(lambda: admission.calls == 0 and admission.bytes == 0)
    assert outcome(lambda: list(stream)) == "ABORTED"
    settled(running)


def test_messages_of_a_stream_wait_for_room_and_are_all_answered(shared: Any, vectors: np.ndarray) -> None:
    running, clients = shared(tenant_requests_max=2)
    running.server.context.latencies.short_us = 0
    streams = [
        clients["a1"].search.StreamSearch(
            iter([search_pb2.StreamSearchRequest(search=search_request("docs", vectors[i], 1)) for i in range(30)]),
            metadata=clients["a1"].metadata, timeout=PATIENCE_S,
        )
        for _ in range(3)
    ]  # fmt: skip
    for stream in streams:
        assert [list(one.hits.ids.ints.values) for one in stream] == [[i] for i in range(30)]
    settled(running)


# -- long work ---------------------------------------------------------------------------------------


def evaluation(vectors: np.ndarray, queries: int) -> Any:
    request = search_request("docs", np.tile(vectors, (queries // len(vectors), 1)))
    return search_pb2.EvaluateRequest(collection="docs", queries=request.vectors, limit=10)


def test_an_evaluation_ends_at_its_deadline_and_holds_no_place_of_administrators(
    shared: Any, vectors: np.ndarray, tmp_path: Path
) -> None:
    running, clients = shared(backups=str(tmp_path / "backups"), long_operations=1)
    client, kernels = clients["a1"], running.server.context.kernels
    long = evaluation(vectors, 400_000)
    coming = [client.search.Evaluate.future(long, metadata=client.metadata, timeout=1.0) for _ in range(2)]
    running.until(lambda: kernels.busy > 0 or all(one.done() for one in coming))
    root = clients["root"]
    assert outcome(lambda: root(root.admin.Backup, admin_pb2.BackupRequest(name="b"))) == "OK"
    assert {outcome(one.result) for one in coming} == {"DEADLINE_EXCEEDED"}
    settled(running)


def test_an_evaluation_ends_when_the_server_does(shared: Any, vectors: np.ndarray) -> None:
    running, clients = shared(grace_s=PATIENCE_S)
    client, kernels = clients["a1"], running.server.context.kernels
    call = client.search.Evaluate.future(evaluation(vectors, 400_000), metadata=client.metadata, timeout=PATIENCE_S)
    running.until(lambda: kernels.busy > 0)
    running.drain()
    with pytest.raises(grpc.RpcError) as caught:
        call.result()
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE and "cancelled after" in caught.value.details()


def test_what_is_not_an_administrators_ends_after_the_longest_time_for_a_call(shared: Any, vectors: np.ndarray) -> None:
    running, clients = shared()
    client, context = clients["a1"], running.server.context
    for call_s_max in (0.3, 1.0, 3.0):  # a busy machine may not have begun it by then
        context.config = replace(context.config, call_s_max=call_s_max)
        call = client.search.Evaluate.future(evaluation(vectors, 400_000), metadata=client.metadata, timeout=PATIENCE_S)
        with pytest.raises(grpc.RpcError) as caught:
            call.result()
        if "while the request was waiting" not in caught.value.details():
            break
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE and "cancelled after" in caught.value.details()
    settled(running)


# -- health ------------------------------------------------------------------------------------------


def test_too_many_watches_end_the_oldest_of_the_address_that_has_most(serving: Serving, calling: Calling) -> None:
    running = serving(watches_max=4)
    client = calling(running)

    def watch() -> Any:
        return client.channel.unary_stream("/grpc.health.v1.Health/Watch")(b"", timeout=PATIENCE_S)

    held: list[Any] = []
    for _ in range(4):
        held.append(watch())
        assert health_pb2.HealthCheckResponse.FromString(next(held[-1])).status == 1
    newest = watch()
    assert health_pb2.HealthCheckResponse.FromString(next(newest)).status == 1
    assert outcome(lambda: next(held[0])) == "RESOURCE_EXHAUSTED"
    for one in (*held[1:], newest):
        assert one.is_active()
        one.cancel()


def test_a_read_token_may_list_less_than_it_streams(shared: Any) -> None:
    """Lists count as streams: they last as long as their caller reads."""
    running, clients = shared(tenant_streams_max=3)
    client, request = clients["a1"], records_pb2.ListRequest(collection="docs", batch=1)
    for _ in range(6):
        assert len(client(client.records.List, request)) == 200
    running.until(lambda: running.server.context.admission.streams == 0)
