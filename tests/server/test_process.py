"""The server as a process: what it prints and logs, how it ends, and what a killed one leaves."""

from __future__ import annotations

import json
import signal
import threading
import time
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from grpc_health.v1 import health_pb2

import vecdb
from tests.support.server import draining
from tests.support.server.driver import (
    FAST_RECONNECTS,
    PATIENCE_S,
    Client,
    outcome,
    search_request,
    token,
    until_ready,
)
from tests.support.server.process import Process
from vecdb.v1 import admin_pb2, search_pb2

DIM = 8
SERVING, NOT_SERVING = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING


# -- start and end ---------------------------------------------------------------------------------


def test_it_starts_in_one_line_says_where_it_is_and_ends_well_when_told(tmp_path: Path, vectors: np.ndarray) -> None:
    secret = token(tmp_path / "tokens.json", "admin", "admin")
    options = ("--tokens", str(tmp_path / "tokens.json"), "--metrics", "127.0.0.1:0", "--log-level", "debug")
    with Process(tmp_path / "db", tmp_path, *options) as process:
        port, metrics_port = process.ports(2)
        client = Client(f"localhost:{port}", secret)
        until_ready(client)
        client.create("docs", DIM)
        client.write("docs", 0, vectors)
        for _ in range(5):
            client.nearest("docs", vectors[0])
        assert outcome(lambda: client.nearest("none", vectors[0])) == "NOT_FOUND"
        refused = 'vecdb_requests_total{code="NOT_FOUND",rpc="vecdb.v1.SearchService/Search"} 1.0'
        for _ in range(100):  # a refusal is counted once it is on its way, so the caller may be faster
            with urllib.request.urlopen(f"http://127.0.0.1:{metrics_port}/metrics") as page:
                metrics = page.read().decode()
            if refused in metrics:
                break
        assert 'vecdb_requests_total{code="OK",rpc="vecdb.v1.SearchService/Search"} 5.0' in metrics
        assert refused in metrics
        assert 'vecdb_request_seconds_count{rpc="vecdb.v1.RecordService/Write"} 1.0' in metrics
        assert "# HELP vecdb_collection_recall" in metrics
        for line in (
            'vecdb_collection_records{collection="docs"} 200.0', 'vecdb_collection_rows{collection="docs"} 200.0',
            'vecdb_collection_tail_rows{collection="docs"} 200.0', 'vecdb_commit_seconds_bucket{le="+Inf"} ',
        ):  # fmt: skip
            assert line in metrics
        assert "vecdb_requests_held 0.0" in metrics and 'vecdb_jobs_queued{pool="writers"} 0.0' in metrics
        assert process.end() == 0
        client.close()
        log = process.log()
        events = [json.loads(line) for line in log.splitlines()]  # every line is one
        assert [one["event"] for one in events if one["level"] == "info"] == [
            "starting", "serving", "collection created", "draining", "closed",
        ]  # fmt: skip
        assert events[0]["tokens"] == "(set)" and events[0]["listen"] == "127.0.0.1:0"
        assert secret not in log and str(tmp_path / "tokens.json") not in log
        [refused] = [one for one in events if one["event"] == "refused"]
        assert refused["code"] == "NOT_FOUND" and refused["caller"] == "admin" and len(refused["request"]) == 16
    with vecdb.open(tmp_path / "db") as db:
        assert db.collection("docs").count() == 200 and db.check() == []


def test_a_second_server_on_the_database_and_one_on_the_port_fail_and_say_why(tmp_path: Path) -> None:
    with Process(tmp_path / "db", tmp_path) as first:
        port = first.ports()[0]
        with Process(tmp_path / "db", tmp_path) as second:
            assert second.process.wait(PATIENCE_S) == 1
            assert str(first.process.pid) in second.log() and "Traceback" not in second.log()
        with Process(tmp_path / "other", tmp_path, listen=f"127.0.0.1:{port}") as third:
            assert third.process.wait(PATIENCE_S) == 1
            assert f"cannot listen on 127.0.0.1:{port}" in third.log() and "Traceback" not in third.log()
        assert first.end(signal.SIGINT) == 0


@pytest.mark.parametrize(
    "options", [("--listen", "0.0.0.0:0"), ("--tokens", "/none/tokens.json"), ("--config", "/none")]
)
def test_a_server_that_would_not_be_safe_does_not_start(tmp_path: Path, options: tuple[str, ...]) -> None:
    with Process(tmp_path / "db", tmp_path, *options) as process:
        assert process.process.wait(PATIENCE_S) == 1
        assert "Traceback" not in process.log()


def test_draining_finishes_what_runs_refuses_what_is_new_and_says_so(tmp_path: Path, vectors: np.ndarray) -> None:
    with Process(tmp_path / "db", tmp_path) as process:
        client = Client(process.address)
        until_ready(client)
        acknowledged = draining.written_when_told_to_end(
            client, vectors, lambda: process.process.send_signal(signal.SIGTERM)
        )
        assert process.end() == 0
        client.close()
    with vecdb.open(tmp_path / "db") as db:
        assert db.collection("docs").count() >= 200 * acknowledged


def test_a_stream_that_is_idle_does_not_hold_up_the_end(tmp_path: Path) -> None:
    with Process(tmp_path / "db", tmp_path, "--grace-s", "55", "--reflection") as process:
        client = Client(process.address)
        until_ready(client)
        idle = threading.Event()

        def nothing() -> Any:
            idle.wait(PATIENCE_S)
            yield from ()

        streams = [client.search.StreamSearch(nothing()), client.records.Ingest(nothing())]
        streams.append(
            client.channel.stream_stream("/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo")(nothing())
        )
        client(client.admin.GetServerInfo, admin_pb2.GetServerInfoRequest())
        started = time.monotonic()
        assert process.end() == 0
        assert time.monotonic() - started < 50
        assert [outcome(lambda one=one: next(one)) for one in streams][:2] == ["UNAVAILABLE"] * 2
        idle.set()
        client.close()


def test_where_files_allow_few_connections_the_log_says_so(tmp_path: Path) -> None:
    with Process(tmp_path / "db", tmp_path, prefix=("sh", "-c", 'ulimit -n 100; exec "$@"', "sh")) as process:
        process.ports()
        assert process.end() == 0
        [line] = [line for line in process.log().splitlines() if "ulimit -n" in line]
        assert json.loads(line)["connections_max"] == 50 and json.loads(line)["wanted"] == 1_000


def test_a_signal_while_it_starts_is_heard_once_it_listens(tmp_path: Path) -> None:
    with Process(tmp_path / "db", tmp_path) as process:
        while not (tmp_path / "db" / "lmdb").exists():
            assert process.process.poll() is None
        assert process.end() == 0
        assert "draining" in process.log()


# -- clients across a restart ----------------------------------------------------------------------


def test_clients_go_on_after_a_restart_with_the_same_channel(tmp_path: Path, vectors: np.ndarray) -> None:
    with Process(tmp_path / "db", tmp_path) as process:
        port = process.ports()[0]
        client = Client(f"localhost:{port}", **FAST_RECONNECTS)
        until_ready(client)
        client.create("docs", DIM)
        client.write("docs", 0, vectors)
        stream = client.search.StreamSearch(
            iter([search_pb2.StreamSearchRequest(search=search_request("docs", vectors[0]))]), timeout=PATIENCE_S
        )
        next(stream)
        process.kill()
    with Process(tmp_path / "db", tmp_path, listen=f"127.0.0.1:{port}") as process:
        process.ports()
        until_ready(client)
        assert client.nearest("docs", vectors[7], 1) == [7]
        client.close()
        assert process.end(signal.SIGHUP) == 0 and '"closed"' in process.log()  # its terminal is gone
