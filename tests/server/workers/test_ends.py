"""A worker, the writer or the supervisor is killed under load, and a ledger says what must be there afterwards; the
whole is told to end. Real processes, two workers.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vecdb
from tests.support.server import draining, ledger
from tests.support.server.crew import WorkersProcess, gone
from tests.support.server.driver import (
    FAST_RECONNECTS,
    PATIENCE_S,
    Client,
    outcome,
    token,
    until_ready,
)
from vecdb_server.security import tokens

DIM = 8


def until(condition: Callable[[], Any]) -> None:
    ends = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < ends
        threading.Event().wait(0.01)


class House:
    """A server that is started again on the same port, with tokens, and what is under way in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.tokens = folder / "tokens.json"
        self.admin = token(self.tokens, "admin", "admin")
        self.process = self._start("127.0.0.1:0")
        self.port = self.process.ports()[0]
        until_ready(self.process.client())
        self.made = 0
        self.revoked: list[str] = []

    def _start(self, listen: str) -> WorkersProcess:
        options = ("--tokens", str(self.tokens), "--grace-s", "10")
        return WorkersProcess(self.folder / "db", self.folder, 2, *options, token=self.admin, listen=listen)

    @property
    def url(self) -> str:
        return f"grpc://localhost:{self.port}"

    def kill(self, who: str) -> None:
        if who == "all":
            processes = [*self.process.pids("worker"), *self.process.pids("writer")]
            self.process.kill()
            until(lambda: all(gone(pid) for pid in processes))
            self.process.__exit__()
            self.process = self._start(f"127.0.0.1:{self.port}")
            self.process.ports()
        else:
            pid = self.process.pids(who)[0]
            os.kill(pid, signal.SIGKILL)
            until(lambda: gone(pid))

    def back(self) -> None:
        """Wait until all of it serves again."""
        until_ready(self.process.client())
        until(self.process.whole)

    def use_and_revoke(self) -> None:
        """A token that was let in is revoked; from then on nobody may let it in."""
        self.made += 1
        secret = token(self.tokens, f"short-{self.made}")
        client = self.process.client(secret)
        until(lambda: outcome(lambda: client.count("docs")) == "OK")
        tokens.revoke(self.tokens, f"short-{self.made}")
        self.revoked.append(secret)
        self.check_revoked()

    def check_revoked(self) -> None:
        for secret in self.revoked[-3:]:
            client = self.process.client(secret)
            for _ in range(3):
                assert outcome(lambda client=client: client.count("docs")) in ("UNAUTHENTICATED", "UNAVAILABLE")


def killed_under_load(folder: Path, who: list[str], changes: int) -> None:
    """Kill each of them in turn, and compare what is there with the ledger. changes : each writer's between two."""
    house, stop = House(folder), threading.Event()
    far = [vecdb.open(house.url, token=house.admin) for _ in range(2)]
    docs = far[0].create_collection("docs", DIM, "l2")
    docs.create_tenant(list(ledger.TENANTS))
    far[0].create_collection("bulk", 64, "l2", vecdb.Flat())
    raw = [Client(f"localhost:{house.port}", house.admin, **FAST_RECONNECTS) for _ in range(2)]
    writers = [ledger.Writer(i + 1, stop, _Named(client)) for i, client in enumerate(raw)]  # type: ignore[arg-type]
    streamer = ledger.Streamer(9, stop, far[1].collection("bulk"))
    streamer.rows = 200 * changes
    readers = [ledger.Reader(20, stop, far[1].collection("docs"), writers)]
    load: list[ledger.Worker] = [*writers, streamer, *readers]
    try:
        for one in load:
            one.start()
        for name in who:
            house.use_and_revoke()
            goals = [writer.done + changes for writer in writers]
            until(
                lambda goals=goals: all(
                    one.done >= goal or not one.is_alive() for one, goal in zip(writers, goals, strict=True)
                )
            )
            house.kill(name)
            house.check_revoked()
            house.back()
            ledger.check_all(docs, writers)
            assert [one.error for one in load] == [None] * len(load)
    finally:
        stop.set()
        for one in load:
            one.join()
        for closed in (*far, *raw):
            closed.close()
        ended = house.process.end()
        house.process.__exit__()
    assert [one.error for one in load] == [None] * len(load)
    assert ended == 0 and all(one.done for one in load)
    with vecdb.open(folder / "db", read_only=True) as db:
        assert db.check() == []
        near = db.collection("docs")
        assert near.count() == ledger.check_all(near, writers), "what nobody wrote"
        stats = db.collection("bulk").stats()
        assert stats["live"] == stats["rows"] == streamer.done * streamer.rows, "a batch was written twice, or never"


class _Named:
    """A client whose calls carry its token."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def __getattr__(self, name: str) -> Any:
        return _WithToken(getattr(self._client, name), self._client.metadata)


class _WithToken:
    def __init__(self, stub: Any, metadata: Any) -> None:
        self._stub, self._metadata = stub, metadata

    def __getattr__(self, name: str) -> Any:
        rpc = getattr(self._stub, name)
        return lambda request, **options: rpc(request, metadata=self._metadata, **options)


@pytest.mark.slow  # 22 seconds of servers that start again; a lone server is killed in test_ledger.py
def test_a_kill_of_any_process_loses_nothing_and_repeats_nothing(tmp_path: Path) -> None:
    killed_under_load(tmp_path, ["worker", "writer", "all"], changes=2)


@pytest.mark.slow
@pytest.mark.parametrize("who", ["worker", "writer", "all"])
def test_nor_do_twenty(tmp_path: Path, who: str) -> None:
    killed_under_load(tmp_path, [who] * 20, changes=40)


# -- told to end -----------------------------------------------------------------------------------


def test_told_to_end_it_answers_what_it_has_and_refuses_what_is_new(tmp_path: Path) -> None:
    rows = np.random.default_rng(3).normal(size=(200, DIM)).astype(np.float32)
    with WorkersProcess(tmp_path / "db", tmp_path, 2) as process:
        client = process.ready()
        everybody = [process.process.pid, *process.pids("worker"), *process.pids("writer")]
        assert len(everybody) == 4

        def tell() -> None:
            for pid in everybody:  # as a service manager does, which tells all processes of a service
                os.kill(pid, signal.SIGTERM)

        acknowledged = draining.written_when_told_to_end(client, rows, tell)
        assert process.end() == 0
        assert all(gone(pid) for pid in everybody[1:])
        assert "Traceback" not in process.log() and '"error"' not in process.log()
    with vecdb.open(tmp_path / "db") as db:
        assert db.collection("docs").count() >= 200 * acknowledged


@pytest.mark.slow
def test_told_to_end_while_it_starts_it_ends(tmp_path: Path) -> None:
    with WorkersProcess(tmp_path / "db", tmp_path, 2) as process:
        until(lambda: process.pids("writer"))  # workers are about to be forked, or begin
        assert process.end() == 0
        assert "it did not end" not in process.log() and "Traceback" not in process.log()


@pytest.mark.slow
def test_a_worker_that_is_told_to_end_is_replaced_and_the_writer_does_not_listen(tmp_path: Path) -> None:
    with WorkersProcess(tmp_path / "db", tmp_path, 2) as process:
        process.ready()
        writer, worker = process.pids("writer")[0], process.pids("worker")[0]
        os.kill(writer, signal.SIGTERM)
        os.kill(worker, signal.SIGTERM)
        until(lambda: gone(worker))
        until(process.whole)
        assert process.pids("writer") == [writer]
        process.ready().create("docs", DIM)
        assert process.end(signal.SIGINT) == 0
