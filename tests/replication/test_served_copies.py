"""A server that writes its log, servers that are copies of it, and reading on them what was written."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

import vecdb
from tests.support.answers.command_line import CommandRunner
from tests.support.replication.copies import lapse, log_of
from tests.support.server.crew import WorkersProcess
from tests.support.server.driver import PATIENCE_S, Client, Running, search_request
from vecdb import limits
from vecdb.replication.bucket import open_bucket
from vecdb.replication.log import following, link
from vecdb.v1 import admin_pb2, common_pb2, records_pb2, tenants_pb2
from vecdb.wire.arrays import id_list_message, vectors_message
from vecdb_server import app
from vecdb_server.config import Config, checked, workers_of

SERVING, NOT_SERVING = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING
VECTORS = np.random.default_rng(5).normal(size=(40, 8)).astype(np.float32)


@pytest.fixture
def serving(tmp_path: Path) -> Iterator[Callable[..., Running]]:
    running: list[Running] = []

    def start(name: str, **settings: Any) -> Running:
        config = replace(Config(path=str(tmp_path / name), listen="127.0.0.1:0", grace_s=5.0), **settings)
        running.append(Running(config))
        return running[-1]

    yield start
    for one in reversed(running):
        one.close()


def test_who_wrote_reads_it_on_a_copy(
    serving: Callable[..., Running], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "log_wait_s", 0.0)
    url = f"file://{tmp_path}/bucket"
    writer = serving("writer", log=url)
    with vecdb.open(f"grpc://{writer.address}") as db:
        docs = db.create_collection("docs", 8, "l2")
        docs.upsert(range(20), VECTORS[:20])
        copy = serving("copy", follow=url, staleness_s=30.0)
        with vecdb.open(f"grpc://{copy.address}") as other:
            for number in range(20, 23):
                docs.upsert([number], VECTORS[number : number + 1])
                other.wait_for(db.sequence())
                assert other["docs"].get(number) is not None
                assert other["docs"].search(VECTORS[number], 1).ids.tolist() == [number]
            assert other.sequence() == db.sequence() == db.stats()["sequence"]
            assert other.stats()["log"]["url"] == db.stats()["log"]["url"] == url
            with pytest.raises(vecdb.PermissionDenied, match="only reads"):
                other["docs"].upsert([1], VECTORS[:1])
            with pytest.raises(vecdb.Unavailable):
                other.wait_for(10_000, timeout=0.2)


def test_a_server_that_was_replaced_says_so_and_answers_no_more(
    serving: Callable[..., Running], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "log_wait_s", 0.0)
    monkeypatch.setattr(limits, "log_look_s", 0.002)
    monkeypatch.setattr(app, "_LOG_POLL_S", 0.002)
    url = f"file://{tmp_path}/bucket"
    running = serving("writer", log=url)
    with vecdb.open(f"grpc://{running.address}", timeout=1.0) as db:
        docs = db.create_collection("docs", 8, "l2")
        docs.upsert(range(20), VECTORS[:20])
        assert docs.search(VECTORS[3], 1).ids.tolist() == [3]
        vecdb.open(tmp_path / "copy", follow=url).close()
        assert running.server.health.status() == running.server.health.status("vecdb.write") == SERVING
        vecdb.promote(tmp_path / "copy", url)
        running.until(lambda: running.server.health.status() == NOT_SERVING)
        assert running.server.health.status("vecdb.write") == NOT_SERVING
        assert db.stats()["log"]["replaced"]
    client = Client(running.address)
    for rpc, request in (
        (client.search.Search, search_request("docs", VECTORS[:1], 1)),
        (client.records.Get, records_pb2.GetRequest(collection="docs", ids=id_list_message([1]))),
    ):
        with pytest.raises(grpc.RpcError, match=r"UNAVAILABLE[^{]*fenced"):
            client(rpc, request)
    client.close()


@pytest.mark.slow  # three seconds: processes start
def test_workers_of_a_server_that_was_replaced_answer_no_more(tmp_path: Path) -> None:
    url = f"file://{tmp_path}/bucket"
    with WorkersProcess(tmp_path / "writer", tmp_path, 2, "--log", url) as server:
        server.ready()
        with vecdb.open(f"grpc://{server.address}") as db:
            db.create_collection("docs", 8, "l2").upsert(range(20), VECTORS[:20])
            db.wait_for(db.sequence())
        clients = server.clients()
        assert [one.nearest("docs", VECTORS[3], 1) for one in clients] == [[3], [3]]
        vecdb.open(tmp_path / "copy", follow=url).close()
        vecdb.promote(tmp_path / "copy", url)
        ends = time.monotonic() + PATIENCE_S
        for client in clients:
            with pytest.raises(grpc.RpcError, match=r"UNAVAILABLE[^{]*fenced"):
                while time.monotonic() < ends:
                    client.nearest("docs", VECTORS[3], 1)
            health = health_pb2_grpc.HealthStub(client.channel)
            while health.Check(health_pb2.HealthCheckRequest()).status != health_pb2.HealthCheckResponse.NOT_SERVING:
                assert time.monotonic() < ends


class Away:
    """A bucket that is away while the event is set."""

    def __init__(self, bucket: Any, away: threading.Event) -> None:
        self._bucket, self._away = bucket, away

    def __getattr__(self, name: str) -> Any:
        if self._away.is_set() and name in ("get", "create", "list"):
            raise vecdb.Unavailable("the bucket is away")
        return getattr(self._bucket, name)


def health_of(running: Running) -> tuple[bool, bool, bool]:
    """Whether reads are answered, writes taken, the log reached: as health says."""
    return tuple(running.server.health.status(name) == SERVING for name in ("", "vecdb.write", "vecdb.log"))  # type: ignore[return-value]


@pytest.mark.parametrize(
    ("settings", "well", "away"),
    [
        ({"follow": "log"}, (True, False, True), (False, False, False)),
        ({"follow": "log", "staleness_s": 0.0}, (True, False, True), (True, False, False)),
        ({"log": "log"}, (True, True, True), (True, True, False)),
        ({"log": "log", "durability": "remote"}, (True, True, True), (True, False, False)),
        ({"log": "log", "lease": True}, (True, True, True), (False, True, False)),
        ({"log": "log", "lease": True, "durability": "remote"}, (True, True, True), (False, False, False)),
    ],
)
def test_health_says_who_answers_while_the_bucket_is_away(
    serving: Callable[..., Running], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any],
    well: tuple[bool, ...], away: tuple[bool, ...],
) -> None:  # fmt: skip
    monkeypatch.setattr(limits, "log_look_s", 0.002)
    monkeypatch.setattr(limits, "log_poll_s", 0.002)
    monkeypatch.setattr(app, "_LOG_POLL_S", 0.002)
    monkeypatch.setattr(following, "_RETRY_LAST_S", 0.01)
    gone, url = threading.Event(), f"file://{tmp_path}/bucket"
    with vecdb.open(tmp_path / "first", log=url) as db:
        db.create_collection("docs", 8, "l2").upsert(range(20), VECTORS[:20])
        log_of(db).snapshots.wait()
    monkeypatch.setattr(link, "open_bucket", lambda *a, **o: Away(open_bucket(*a, **o), gone))
    name = "copy" if "follow" in settings else "first"
    running = serving(name, **({"staleness_s": 0.2} | settings | {next(iter(settings)): url}))
    running.until(lambda: health_of(running) == well)
    client, stub = Client(running.address), health_pb2_grpc.HealthStub(Client(running.address).channel)
    names = {"", "vecdb.write", "vecdb.log", "vecdb.v1.SearchService"}
    assert names < set(stub.List(health_pb2.HealthListRequest()).statuses)
    watch = stub.Watch(health_pb2.HealthCheckRequest(service="vecdb.log"), timeout=PATIENCE_S)
    assert next(watch).status == SERVING
    gone.set()
    assert next(watch).status == NOT_SERVING
    running.until(lambda: health_of(running) == away)
    assert stub.Check(health_pb2.HealthCheckRequest(service="vecdb.v1.SearchService")).status == (
        SERVING if away[0] else NOT_SERVING
    )
    search = search_request("docs", VECTORS[:1], 1)
    if away[0]:
        client(client.search.Search, search)
    else:
        with pytest.raises(grpc.RpcError, match=r"UNAVAILABLE[^{]*does not answer from the past"):
            client(client.search.Search, search)
    facts = running.server.context.db.stats()["log"]
    assert facts["answers"] == away[0] and "the bucket is away" in facts["trouble"]
    shown = CommandRunner().run(["info", "--db", f"grpc://{running.address}"])
    assert shown.exit_code == 0 and ("reads are refused here: " in shown.output) == (not away[0])
    gone.clear()
    assert next(watch).status == SERVING
    running.until(lambda: health_of(running) == well)
    client.close()


def test_a_server_whose_lease_has_run_out_reads_no_more(serving: Callable[..., Running], tmp_path: Path) -> None:
    running = serving("writer", log=f"file://{tmp_path}/bucket", lease=True, staleness_s=60.0)
    db, client = running.server.context.db, Client(running.address)
    db.create_collection("docs", 8, "l2").upsert(range(20), VECTORS[:20])
    reads = (
        (client.search.Search, search_request("docs", VECTORS[:1], 1)),
        (client.records.Get, records_pb2.GetRequest(collection="docs", ids=id_list_message([1]))),
    )
    for rpc, request in reads:
        client(rpc, request)
    lapse(db)
    for rpc, request in reads:
        with pytest.raises(grpc.RpcError, match=r"UNAVAILABLE[^{]*does not answer from the past"):
            client(rpc, request)
    with pytest.raises(grpc.RpcError, match=r"UNAVAILABLE[^{]*does not answer from the past"):
        list(client.records.List(records_pb2.ListRequest(collection="docs")))
    message = records_pb2.WriteRequest(
        collection="docs", ids=id_list_message([1]), vectors=vectors_message(VECTORS[:1])
    )
    assert client(client.records.Write, message).count == 1 and log_of(db).flush(PATIENCE_S)
    for rpc, request in reads:  # the log has just taken a commit
        client(rpc, request)
    client.close()


@pytest.mark.slow  # four seconds: processes start
def test_workers_stop_where_their_writer_stands_still(tmp_path: Path) -> None:
    url = f"file://{tmp_path}/bucket"
    with WorkersProcess(tmp_path / "writer", tmp_path, 2, "--log", url, "--lease", "--staleness-s", "0.5") as server:
        server.ready()
        with vecdb.open(f"grpc://{server.address}") as db:
            db.create_collection("docs", 8, "l2").upsert(range(20), VECTORS[:20])
        clients, [writer] = server.clients(), server.pids("writer")

        def until(wanted: bool) -> None:
            """All workers answer, or none does."""
            ends = time.monotonic() + PATIENCE_S
            for client in clients:
                while answers(client) != wanted:
                    assert time.monotonic() < ends

        until(True)
        os.kill(writer, signal.SIGSTOP)
        until(False)
        vecdb.open(tmp_path / "copy", follow=url).close()
        vecdb.promote(tmp_path / "copy", url)
        assert not any(map(answers, clients))
        os.kill(writer, signal.SIGCONT)
        with pytest.raises(grpc.RpcError, match=r"UNAVAILABLE[^{]*fenced"):
            while True:
                for client in clients:
                    assert not answers(client, again=True)


def answers(client: Client, *, again: bool = False) -> bool:
    """Whether a worker does, and not from the past. again : raise what says that it never will."""
    try:
        assert client.nearest("docs", VECTORS[3], 1) == [3]
        return True
    except grpc.RpcError as error:
        if "not answered from the past" not in str(error) and (again or "fenced" not in str(error)):
            raise
        return False


def test_answers_to_writes_say_the_commit(serving: Callable[..., Running]) -> None:
    running = serving("writer")
    client = Client(running.address)
    ids, names = id_list_message([1, 2]), common_pb2.TenantNames(names=["a"])
    first, second = vectors_message(VECTORS[:2]), vectors_message(VECTORS[2:4])
    with vecdb.open(f"grpc://{running.address}") as db:
        db.create_collection("docs", 8, "l2")
        answers = []
        for rpc, request in (
            (client.records.Write, records_pb2.WriteRequest(collection="docs", ids=ids, vectors=first)),
            (client.tenants.Grant, tenants_pb2.GrantRequest(collection="docs", ids=ids, tenants=names)),
            (client.tenants.Revoke, tenants_pb2.RevokeRequest(collection="docs", ids=ids, tenants=names)),
            (client.records.Update, records_pb2.UpdateRequest(collection="docs", ids=ids, vectors=second)),
            (client.records.Delete, records_pb2.DeleteRequest(collection="docs", ids=ids)),
        ):
            answers.append(client(rpc, request).sequence)
            assert answers[-1] == db.stats()["sequence"]
        assert answers == sorted(set(answers))
        asked = admin_pb2.GetServerInfoRequest(min_sequence=answers[-1])
        assert client(client.admin.GetServerInfo, asked).sequence >= answers[-1]
    client.close()


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"follow": "s3://a/b", "read_only": True}, "follow is for a copy"),
        ({"follow": "s3://a/b", "log": "s3://a/c"}, "follow is for a copy"),
        ({"log": "s3://a/b", "read_only": True}, "leave one out"),
        ({"staleness_s": -1.0}, "must not be negative"),
        ({"follow": "s3://a/b", "workers": 3}, "one process keeps a copy"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(vecdb.InvalidArgument, match=words):
        checked(Config(**settings))


def test_a_copy_is_one_process() -> None:
    assert workers_of(Config(follow="s3://a/b")) == 1
