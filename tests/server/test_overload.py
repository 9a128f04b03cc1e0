"""More than fits: what is over a bound is refused at once with how long to wait, health answers, nothing is left."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from tests.support.server.driver import (
    PATIENCE_S,
    Client,
    Running,
    outcome,
    search_request,
    settled,
    status_of,
    token,
    until_ready,
)
from tests.support.server.process import Process
from vecdb.v1 import admin_pb2
from vecdb_server.security.admission import Admission, AdmissionLimits
from vecdb_server.security.auth import Caller
from vecdb_server.status_errors import Refused

DIM = 8
Serving, Calling = Callable[..., Running], Callable[..., Client]


# -- counts ----------------------------------------------------------------------------------------


def test_what_is_over_a_bound_is_refused_and_what_leaves_makes_room() -> None:
    admission = Admission(AdmissionLimits(requests_max=5, token_requests_max=3, request_bytes_max=100))
    a, b, c = (admission.account(Caller(name)) for name in "abc")
    for _ in range(3):
        admission.enter(a, 10)
    with pytest.raises(Refused, match="3 requests of this token"):
        admission.enter(a, 10)
    admission.enter(b, 10)
    with pytest.raises(Refused, match="as many requests as it can") as caught:
        admission.enter(b, 61)
    assert caught.value.retry_s is not None and caught.value.retry_s > 0
    admission.enter(b, 60)
    with pytest.raises(Refused, match="as many requests as it can"):
        admission.check(c)
    admission.leave(a, 10)
    admission.enter(c, 10)
    for account, size in ((a, 10), (a, 10), (b, 10), (b, 60), (c, 10)):
        admission.leave(account, size)
    assert (admission.calls, admission.bytes, a.calls, b.calls, c.calls) == (0, 0, 0, 0, 0)
    assert admission.refused == 3


def test_a_rate_lets_a_seconds_worth_in_at_once_and_then_one_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1_000.0
    monkeypatch.setattr("vecdb_server.security.admission.time.monotonic", lambda: now)
    admission = Admission(AdmissionLimits(10, 10, 100))
    account = admission.account(Caller("a", rate=4.0))
    for _ in range(4):
        admission.check(account)
    with pytest.raises(Refused, match="4 requests a second") as caught:
        admission.check(account)
    assert caught.value.retry_s == pytest.approx(0.25)
    now += 0.25
    admission.check(account)
    with pytest.raises(Refused):
        admission.check(account)
    now += 1_000
    for _ in range(4):
        admission.check(account)
    with pytest.raises(Refused):
        admission.check(account)


def test_a_rate_below_one_a_second_still_lets_one_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vecdb_server.security.admission.time.monotonic", lambda: 5.0)
    account = Admission(AdmissionLimits(10, 10, 100)).account(Caller("a", rate=0.1))
    assert account.wait_s(5.0) == 0 and account.wait_s(5.0) == pytest.approx(10.0)


# -- over the wire ---------------------------------------------------------------------------------


def test_a_rate_is_of_a_token_and_says_when_to_come_again(serving: Serving, calling: Calling, tmp_path: Path) -> None:
    tokens = tmp_path / "tokens.json"
    slow, free = token(tokens, "slow", rate=0.01), token(tokens, "free")
    running = serving(tokens=str(tokens))
    limited, other = calling(running, slow), calling(running, free)
    ask = admin_pb2.GetServerInfoRequest()
    assert outcome(lambda: limited(limited.admin.GetServerInfo, ask)) == "OK"
    with pytest.raises(grpc.RpcError) as caught:
        limited(limited.admin.GetServerInfo, ask)
    code, message, reason, retry_s = status_of(caught.value)
    assert (code, reason) == ("RESOURCE_EXHAUSTED", "UNAVAILABLE") and "0.01 requests a second" in message
    assert retry_s is not None and 90 < retry_s <= 100
    assert outcome(lambda: other(other.admin.GetServerInfo, ask)) == "OK"


def test_in_a_full_house_health_answers_and_what_was_let_in_is_finished(
    serving: Serving, calling: Calling, vectors: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    import vecdb

    running = serving(requests_max=8)
    client = calling(running)
    client.create("docs", DIM)
    client.write("docs", 0, vectors)
    gate = threading.Event()
    search = vecdb.Collection.search
    monkeypatch.setattr(vecdb.Collection, "search", lambda *a, **k: gate.wait(PATIENCE_S) and search(*a, **k))
    coming = [client.search.Search.future(search_request("docs", vectors[i], 1), timeout=PATIENCE_S) for i in range(40)]
    running.until(lambda: sum(one.done() for one in coming) == 32)  # no sooner is there room for what comes later
    assert running.server.context.admission.calls == 8
    refused = [one for one in coming if one.done()]
    codes = Counter()  # type: ignore[var-annotated]
    health = health_pb2_grpc.HealthStub(client.channel)
    assert health.Check(health_pb2.HealthCheckRequest(), timeout=PATIENCE_S).status == 1
    info = admin_pb2.GetServerInfoRequest()
    with pytest.raises(grpc.RpcError) as caught:
        client(client.admin.GetServerInfo, info)
    assert status_of(caught.value)[0] == "RESOURCE_EXHAUSTED" and status_of(caught.value)[3] == pytest.approx(0.1)
    gate.set()
    codes.update(outcome(one.result) for one in coming)
    assert codes == {"OK": 8, "RESOURCE_EXHAUSTED": 32}
    assert {one.exception().code() for one in refused} == {grpc.StatusCode.RESOURCE_EXHAUSTED}
    settled(running)
    assert outcome(lambda: client(client.admin.GetServerInfo, info)) == "OK"


def test_a_caller_that_floods_does_not_lock_out_another(
    serving: Serving, calling: Calling, vectors: np.ndarray, tmp_path: Path
) -> None:
    tokens = tmp_path / "tokens.json"
    greedy, modest = token(tokens, "greedy", "write"), token(tokens, "modest", "admin")
    running = serving(tokens=str(tokens), token_requests_max=64)
    client, flood = calling(running, modest), calling(running, greedy)
    client.create("docs", DIM)
    client.write("docs", 0, vectors)
    running.server.context.latencies.short_us = 0
    coming = [
        flood.search.Search.future(search_request("docs", vectors), timeout=PATIENCE_S, metadata=flood.metadata)
        for _ in range(400)
    ]
    for i in range(10):
        assert client.nearest("docs", vectors[i], 1) == [i]
    assert {outcome(one.result) for one in coming} <= {"OK", "RESOURCE_EXHAUSTED"}
    settled(running)


def test_what_cannot_be_begun_in_time_is_refused_at_once_and_what_can_wait_waits(
    serving: Serving, calling: Calling, vectors: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    import vecdb

    running = serving(kernel_threads=2)
    client = calling(running)
    client.create("docs", DIM)
    client.write("docs", 0, vectors)
    context, gate = running.server.context, threading.Event()
    context.latencies.short_us = 0
    search = vecdb.Collection.search
    monkeypatch.setattr(vecdb.Collection, "search", lambda *a, **k: gate.wait(PATIENCE_S) and search(*a, **k))
    patient = [client.search.Search.future(search_request("docs", vectors[i], 1 + i)) for i in range(12)]
    running.until(lambda: context.kernels.queued >= 4)
    context.kernels._job_s = 10.0
    with pytest.raises(grpc.RpcError) as caught:
        client.search.Search(search_request("docs", vectors[0]), timeout=15)
    code, message, reason, retry_s = status_of(caught.value)
    assert (code, reason) == ("RESOURCE_EXHAUSTED", "UNAVAILABLE") and "before this call's deadline" in message
    assert retry_s is not None and retry_s > 1
    gate.set()
    assert {outcome(one.result) for one in patient} == {"OK"}
    settled(running)


# -- a process, and minutes ------------------------------------------------------------------------


async def flood(
    port: int, rate: float, seconds: float, deadline_s: float
) -> tuple[Counter[str], list[float], list[float]]:
    """Open loop: `rate` searches a second, whatever becomes of them; health meanwhile. Codes, seconds of each."""
    rng = np.random.default_rng(1)
    requests = [search_request("docs", one, 10).SerializeToString() for one in rng.normal(size=(256, 64)).astype("f4")]
    codes: Counter[str] = Counter()
    served: list[float] = []
    asked: list[float] = []
    async with (
        grpc.aio.insecure_channel(f"localhost:{port}") as channel,
        grpc.aio.insecure_channel(f"localhost:{port}", [("grpc.use_local_subchannel_pool", 1)]) as apart,
    ):
        search = channel.unary_unary("/vecdb.v1.SearchService/Search")
        health = health_pb2_grpc.HealthStub(apart)

        async def one(i: int) -> None:
            started = time.perf_counter()
            try:
                await search(requests[i % 256], timeout=deadline_s)
                codes["OK"] += 1
                served.append(time.perf_counter() - started)
            except grpc.aio.AioRpcError as error:
                codes[error.code().name] += 1

        async def watch() -> None:
            while True:
                started = time.perf_counter()
                answer = await health.Check(health_pb2.HealthCheckRequest(), timeout=PATIENCE_S)
                assert answer.status == health_pb2.HealthCheckResponse.SERVING
                asked.append(time.perf_counter() - started)
                await asyncio.sleep(0.05)

        watching = asyncio.ensure_future(watch())
        tasks: set[asyncio.Task[None]] = set()
        started, i = time.perf_counter(), 0
        while (elapsed := time.perf_counter() - started) < seconds:
            while i < elapsed * rate and len(tasks) < 20_000:
                task = asyncio.ensure_future(one(i))
                tasks.add(task)
                task.add_done_callback(tasks.discard)
                i += 1
            await asyncio.sleep(0.001)
        await asyncio.gather(*tasks)
        watching.cancel()
        if watching.done():
            watching.result()
    return codes, served, asked


def overloaded(tmp_path: Path, seconds: float, rate: float) -> None:
    rng = np.random.default_rng(0)
    with Process(tmp_path / "db", tmp_path, "--requests-max", "64") as process:
        port = process.ports()[0]
        client = Client(process.address)
        until_ready(client)
        client.create("docs", 64)
        for start in range(0, 4_000, 1_000):  # exact scans: each takes a while
            client.write("docs", start, rng.normal(size=(1_000, 64)).astype(np.float32))
        asyncio.run(flood(port, 100, 0.5, 5))
        threads, descriptors, memory = process.threads(), process.descriptors(), process.memory_bytes()
        codes, served, asked = asyncio.run(flood(port, rate, seconds, 5))
        assert codes["OK"] > 0 and set(codes) <= {"OK", "RESOURCE_EXHAUSTED", "DEADLINE_EXCEEDED"}, codes
        assert len(asked) >= 2 and served  # each within its deadline, else it would not be OK
        assert process.memory_bytes() < memory + (256 << 20)
        client(client.search.Search, search_request("docs", np.ones(64, np.float32)))
        assert process.threads() <= threads + 4 and process.descriptors() <= descriptors + 8
        client.close()
        assert process.end() == 0


@pytest.mark.slow  # ten seconds of load
def test_far_more_than_it_can_do_is_refused_and_the_rest_is_done_in_time(tmp_path: Path) -> None:
    overloaded(tmp_path, seconds=1.5, rate=5_000)


@pytest.mark.slow
def test_a_minute_at_ten_times_what_it_can_do(tmp_path: Path) -> None:
    overloaded(tmp_path, seconds=60, rate=20_000)
