"""The service's benchmark: latencies of what was due and not of what was sent, and every measure run small."""

from __future__ import annotations

import asyncio
import itertools
import json
import math
import os
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

import vecdb
from vecdb_bench import serving
from vecdb_bench.engines import length_prefixed
from vecdb_bench.reporting import results
from vecdb_bench.serving import lineup, load

Call = Callable[..., Awaitable[bytes]]


def test_a_stall_is_charged_to_all_who_would_have_asked_meanwhile() -> None:
    """A server that answers nothing until the fiftieth question is there: the first has waited for all of them."""
    arrived = itertools.count(1)
    opened = asyncio.Event()

    async def stalls(request: bytes, timeout: float) -> bytes:
        if next(arrived) == 50:
            opened.set()
        await opened.wait()
        return request

    found = asyncio.run(load.opened(stalls, [b"a", b"bc"], rate=1_000.0, seconds=0.1))
    assert found["n"] == found["asked"] == 100 and found["refused"] == {}
    assert found["max_us"] >= 48_000  # the fiftieth is due 49 ms after the first, and never sent before
    assert math.isclose(found["answer_bytes"], 1.5)


def test_a_load_that_is_late_itself_does_not_hide_it() -> None:
    """Each question holds up the loop that asks: it is sent late, and its latency counts from when it was due."""

    async def busy(request: bytes, timeout: float) -> bytes:
        ends = load.time.perf_counter() + 0.002
        while load.time.perf_counter() < ends:
            pass
        return request

    found = asyncio.run(load.opened(busy, [b"a"], rate=10_000.0, seconds=0.01))
    assert found["n"] == 100 and found["max_us"] >= 100 * 2_000 - 10_000 - 2_000


def test_a_closed_loop_has_as_many_questions_under_way_as_clients() -> None:
    under_way, most = 0, 0

    async def answer(request: bytes, timeout: float) -> bytes:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        await asyncio.sleep(0)
        under_way -= 1
        return request

    found = asyncio.run(load.closed(answer, [b"abc"], clients=7, seconds=0.05, warm=0.0, pid=os.getpid()))
    assert most == 7 and found["n"] > 100 and found["answer_bytes"] == 3
    assert found["p50_us"] <= found["p99_us"] <= found["p99_9_us"] <= found["max_us"]
    assert found["server_cpu_us"] >= 0


def test_processor_time_is_that_of_all_threads_of_a_process() -> None:
    spin = "import threading as t\ndef f():\n for _ in range(3_000_000): pass\n"
    spin += "a = [t.Thread(target=f) for _ in range(2)]\nfor x in a: x.start()\nfor x in a: x.join()\n"
    spin += "import resource\nr = resource.getrusage(0)\nprint(r.ru_utime + r.ru_stime, flush=True)\ninput()"
    with subprocess.Popen([sys.executable, "-c", spin], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as it:
        assert it.stdout is not None
        told = float(it.stdout.readline())
        assert math.isclose(load.cpu_seconds(it.pid), told, abs_tol=0.05)
        it.communicate("\n")


def test_messages_come_back_from_a_file_as_they_were(tmp_path: Path) -> None:
    sent = [b"", b"a", bytes(range(256)) * 300]
    length_prefixed.write(tmp_path / "file", sent)
    assert length_prefixed.read(tmp_path / "file") == sent


def test_a_ratio_is_the_median_of_pairs_and_not_of_medians() -> None:
    over = [{"rate": value} for value in (10.0, 40.0, 9.0)]
    under = [{"rate": value} for value in (10.0, 20.0, 3.0)]
    assert lineup.median_ratio(over, under, "rate") == 2.0


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    plan = serving.Plan(
        "clustered-6000x16",
        measures=("single", "rate", "batch", "stream", "variants", "ingest", "overload", "workers"),
        variants={"quiet": "--log-level error"},
        path=str(tmp_path_factory.mktemp("bench")),
    )
    found = serving.run(plan.quick())
    assert plan.path is not None and not list(Path(plan.path).iterdir())
    return found


@pytest.mark.slow  # the whole benchmark in small: half a minute
def test_server_echo_and_embedded_calls_are_measured_in_pairs(small: dict[str, Any]) -> None:
    assert small["data"]["recall"] > 0.9
    assert small["single"]["added_us"]["embedded"] == 0 < small["single"]["added_us"]["vecdb, bare client"]
    rate = small["rate"]["4"]
    for name in ("echo", "vecdb"):
        (turn,) = rate["rounds"][name]
        assert turn["n"] > 0 and turn["refused"] == {}
    assert rate["medians"]["echo"]["answer_bytes"] >= 100  # of ten ids and distances, as the server's
    assert rate["ratio"] > 0 and rate["kernel_us"] > 0
    assert small["batch"]["medians"]["many a call"]["answer_bytes"] > 6 * rate["medians"]["vecdb"]["answer_bytes"]
    assert small["stream"]["ratio"] > 0 and small["variants"]["quiet"]["4"]["ratio"] > 0


@pytest.mark.slow  # the whole benchmark in small: half a minute
def test_an_overload_is_refused_or_answered_and_health_answers(small: dict[str, Any]) -> None:
    assert list(small["overload"]) == ["1 a call", "8 a call"]
    for over in small["overload"].values():
        assert over["load"]["asked"] == over["load"]["n"] + sum(over["load"]["refused"].values())
        assert over["health"]["n"] == over["health"]["asked"] == 20
        assert over["echo"]["asked"] == over["echo"]["n"] + sum(over["echo"]["refused"].values())
        assert over["most"]["resident_bytes"] >= over["before"]["resident_bytes"] > 0


@pytest.mark.slow  # the whole benchmark in small: half a minute
def test_a_bulk_is_ingested_near_and_far(small: dict[str, Any]) -> None:
    assert list(small["ingest"]) == ["vectors", "fields", "tenants"]
    for bring, of in small["ingest"].items():
        near, far = of["rounds"]["embedded"], of["rounds"]["stream"]
        assert [turn["count"] for turn in near + far] == [3_000] * 2 and of["ratio"] > 0
        (row,) = (row for row in small["tables"]["bulk ingest"] if row["what"] == bring)
        assert row["ratio"] == of["ratio"] and row["embedded, rows a second"] == near[0]["rows_per_second"]


@pytest.mark.slow  # the whole benchmark in small: half a minute
def test_servers_of_several_processes_are_compared_with_one(small: dict[str, Any]) -> None:
    assert list(small["workers"]) == ["2 clients, 1 a call", "2 clients, 8 a call"]
    for of in small["workers"].values():
        assert of["ratios"]["1"] == 1.0 and of["ratios"]["2"] > 0
    assert [row["load"] for row in small["tables"]["workers"]] == list(small["workers"])


@pytest.mark.slow  # the whole benchmark in small: half a minute
def test_a_result_of_the_service_is_shown_and_written(small: dict[str, Any], tmp_path: Path) -> None:
    assert json.loads(results.write(small, tmp_path).read_text())["plan"]["clients"] == [4]
    assert {"one client", "4 clients", "overload", "bulk ingest"} <= set(small["tables"])


@pytest.mark.parametrize(
    ("plan", "told"),
    [(serving.Plan(measures=("speed",)), "single, rate"), (serving.Plan(peers={"nobody": "python"}), "milvus-lite")],
)
def test_plans_of_the_service_that_cannot_be_measured_are_refused(plan: serving.Plan, told: str) -> None:
    with pytest.raises(vecdb.InvalidArgument, match=told):
        serving.run(plan)
