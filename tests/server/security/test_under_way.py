"""A token is revoked while calls under it are under way: none is answered late, and what streams ends."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vecdb
from tests.support.server.driver import PATIENCE_S, Client, Running, outcome, token, write_request
from vecdb.v1 import collections_pb2, records_pb2
from vecdb_server.config import Config
from vecdb_server.security import tokens

DIM, REFUSED = 8, "UNAUTHENTICATED"
VECTORS = np.random.default_rng(3).normal(size=(20, DIM)).astype(np.float32)


class House:
    """A server with a collection, and clients each under a token of its own."""

    def __init__(self, folder: Path) -> None:
        self.tokens = folder / "tokens.json"
        secret = token(self.tokens, "admin", "admin")
        self.running = Running(Config(str(folder / "db"), "127.0.0.1:0", str(self.tokens), grace_s=5.0))
        self.clients = [Client(self.running.address, secret)]
        self.admin = self.clients[0]
        self.admin.create("docs", DIM)
        self.admin.write("docs", 0, VECTORS)

    def client(self, name: str, permission: str = "read") -> Client:
        self.clients.append(Client(self.running.address, token(self.tokens, name, permission)))
        return self.clients[-1]

    def close(self) -> None:
        for client in self.clients:
            client.close()
        self.running.close()


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    made = House(tmp_path_factory.mktemp("under-way"))
    yield made
    made.close()


def test_a_list_ends_once_its_token_is_revoked(house: House) -> None:
    client = house.client("lists")
    large = np.ones((4_000, 4_096), np.float32)  # more than gRPC takes in before anybody reads
    house.admin.create("large", 4_096)
    for start in range(0, len(large), 1_000):
        house.admin.write("large", start, large[start : start + 1_000])
    request = records_pb2.ListRequest(collection="large", batch=100, include_vectors=True)
    answers = client.records.List(request, metadata=client.metadata, timeout=PATIENCE_S)
    assert len(next(answers).records) > 0
    tokens.revoke(house.tokens, "lists")
    assert outcome(lambda: list(answers)) == REFUSED


def test_what_was_under_way_when_its_token_was_revoked_is_not_answered_late(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = house.client("late")
    counted, let_go, count = threading.Event(), threading.Event(), vecdb.Collection.count

    def counting(docs: vecdb.Collection, **settings: Any) -> int:
        counted.set()
        let_go.wait(PATIENCE_S)
        return count(docs, **settings)

    monkeypatch.setattr("vecdb_server.security.interceptor._LATE_S", 0.0)
    monkeypatch.setattr(vecdb.Collection, "count", counting)
    estimate = "vecdb_server.executors.LatencyEstimate.is_short"
    monkeypatch.setattr(estimate, lambda self, size: False)  # on a thread, not on the event loop
    for revoked in (False, True):
        counted.clear(), let_go.clear()
        call = client.records.Count.future(
            records_pb2.CountRequest(collection="docs"), metadata=client.metadata, timeout=PATIENCE_S
        )
        assert counted.wait(PATIENCE_S)
        if revoked:
            tokens.revoke(house.tokens, "late")
        let_go.set()
        assert outcome(call.result) == (REFUSED if revoked else "OK")


def test_a_long_operation_of_a_token_that_was_revoked_is_stopped(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    client = house.client("builds", "admin")
    stopped = threading.Event()

    def optimize(docs: vecdb.Collection, *, progress: Any, threads: int) -> None:
        ends = time.monotonic() + PATIENCE_S
        try:
            while time.monotonic() < ends:
                progress(1, 2)
                time.sleep(0.001)
        finally:
            stopped.set()

    monkeypatch.setattr(vecdb.Collection, "optimize", optimize)
    request = collections_pb2.OptimizeCollectionRequest(collection="docs")
    answers = client.collections.OptimizeCollection(request, metadata=client.metadata, timeout=PATIENCE_S)
    assert next(answers).progress.total == 2
    tokens.revoke(house.tokens, "builds")
    assert outcome(lambda: list(answers)) == REFUSED
    assert stopped.wait(PATIENCE_S)


def test_what_a_stream_waited_for_is_not_answered_once_its_token_is_revoked(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = house.client("streams", "write")
    writing, let_go, prepare = threading.Event(), threading.Event(), vecdb.Collection.prepare

    def preparing(docs: vecdb.Collection, *arguments: Any, **settings: Any) -> Any:
        writing.set()
        let_go.wait(PATIENCE_S)
        return prepare(docs, *arguments, **settings)

    monkeypatch.setattr(vecdb.Collection, "prepare", preparing)
    sent: queue.SimpleQueue[Any] = queue.SimpleQueue()
    answers = client.records.Ingest(iter(sent.get, None), metadata=client.metadata, timeout=PATIENCE_S)
    sent.put(records_pb2.IngestRequest(batch=1, write=write_request("docs", 7_000, VECTORS[:1])))
    assert writing.wait(PATIENCE_S)
    tokens.revoke(house.tokens, "streams")
    let_go.set()
    assert outcome(lambda: next(answers)) == REFUSED
    sent.put(None)
