"""A worker, the writer, or all processes of a server are killed under load, each VECDB_KILL_ROUNDS times, and ledgers
say what must be there afterwards: what was acknowledged, once; no call under a token that was revoked. How long it took
until every client was answered again is told at the end. Real processes, two workers.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vecdb
from tests.support.server import kills, ledger
from tests.support.server.crew import WorkersProcess, gone
from tests.support.server.driver import FAST_RECONNECTS, PATIENCE_S, Client, token, until_ready

ROUNDS = int(os.environ.get("VECDB_KILL_ROUNDS", "20"))
DIM = ledger.DIM


def until(condition: Callable[[], Any]) -> None:
    ends = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < ends
        threading.Event().wait(0.01)


class House:
    """A server that is started again on the same port, with tokens."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.tokens = folder / "tokens.json"
        self.admin = token(self.tokens, "admin", "admin")
        self.process = self._start("127.0.0.1:0")
        self.port = self.process.ports()[0]
        until_ready(self.process.client())
        self.kills = 0

    def _start(self, listen: str) -> WorkersProcess:
        options = ("--tokens", str(self.tokens), "--grace-s", "10")
        return WorkersProcess(self.folder / "db", self.folder, 2, *options, token=self.admin, listen=listen)

    def kill(self, who: str) -> float:
        """Of workers the older one. Returns when service was to be back from: the kill, or the new start."""
        self.kills += 1
        if who == "all":
            return self._kill_all()
        pid = min(self.process.pids(who))
        moment = time.monotonic()
        os.kill(pid, signal.SIGKILL)
        until(lambda: gone(pid))
        return moment

    def _kill_all(self) -> float:
        """The supervisor, which takes the others with it, or each of them."""
        others = [*self.process.pids("worker"), *self.process.pids("writer")]
        if self.kills % 2:
            for pid in others:
                os.kill(pid, signal.SIGKILL)
        self.process.kill()
        until(lambda: all(gone(pid) for pid in others))
        self.process.__exit__()
        moment = time.monotonic()
        self.process = self._start(f"127.0.0.1:{self.port}")
        self.process.ports()
        return moment

    def back(self) -> None:
        """Wait until all of it serves again."""
        until_ready(self.process.client())
        until(self.process.whole)


class Load:
    """Who calls while processes are killed."""

    def __init__(self, house: House) -> None:
        self.house = house
        self.stop = threading.Event()
        self.far = [vecdb.open(f"grpc://localhost:{house.port}", token=house.admin) for _ in range(2)]
        self.raw = [Client(f"localhost:{house.port}", house.admin, **FAST_RECONNECTS) for _ in range(8)]
        self.docs = self.far[0].create_collection("docs", DIM, "l2")
        self.docs.create_tenant(list(ledger.TENANTS))
        bulk = self.far[1].create_collection("bulk", 64, "l2", vecdb.Flat())
        for name in ("added", "strangers"):
            self.far[0].create_collection(name, DIM, "l2", vecdb.Flat())
        self.writers = [ledger.Writer(i + 1, self.stop, client) for i, client in enumerate(self.raw[:2])]
        self.streamer = ledger.Streamer(9, self.stop, bulk)
        self.adder = kills.Adder(10, self.stop, self.raw[2])
        self.revoker = kills.Revoker(11, self.stop, house.tokens)
        self.strangers = [kills.Stranger(12 + i, self.stop, self.raw[3 + i], self.revoker) for i in range(2)]
        readers = [kills.RawReader(30 + i, self.stop, one) for i, one in enumerate(self.raw[5:])]  # of either worker
        self.probes: list[kills.Probe] = [*readers, self.adder, kills.Embedder(40, self.stop, self.docs)]
        self.all: list[ledger.Worker] = [
            *self.writers, self.streamer, *self.probes, self.revoker, *self.strangers,
            ledger.Reader(20, self.stop, self.far[1].collection("docs"), self.writers),
        ]  # fmt: skip

    def check(self) -> None:
        assert [one.error for one in self.all] == [None] * len(self.all)

    def go_on(self, changes: int) -> None:
        """Until each writer heard of so many changes, and a token was revoked and refused."""
        goals = {one: one.done + changes for one in (*self.writers, self.adder)}
        goals |= {self.revoker: self.revoker.done + 1}
        refused = [one.refused + 2 for one in self.strangers]
        until(
            lambda: (
                not all(one.is_alive() for one in self.all)
                or (
                    all(one.done >= goal for one, goal in goals.items())
                    and all(one.refused >= goal for one, goal in zip(self.strangers, refused, strict=True))
                )
            )
        )
        self.check()

    def answered_after(self, moment: float) -> dict[str, float]:
        """Seconds from then until each probe was answered."""
        until(lambda: not all(p.is_alive() for p in self.probes) or all(p.first_after(moment) for p in self.probes))
        self.check()
        found: dict[str, float] = {}
        for one in self.probes:
            took_s = (one.first_after(moment) or np.inf) - moment
            found[type(one).__name__] = max(took_s, found.get(type(one).__name__, 0.0))
        return found

    def end(self) -> None:
        self.stop.set()
        for one in self.all:
            if one.ident is not None:
                one.join()
        for closed in (*self.far, *self.raw):
            closed.close()

    def check_directory(self, path: Path) -> None:
        with vecdb.open(path, read_only=True) as db:
            assert db.check() == []
            near = db.collection("docs")
            assert near.count() == ledger.check_all(near, self.writers), "what nobody wrote"
            stats, bulk = db.collection("bulk").stats(), self.streamer.done * self.streamer.rows
            assert stats["live"] == stats["rows"] == bulk, "a batch was written twice, or never"
            self.adder.check(db.collection("added"))


def killed_under_load(folder: Path, who: list[str], *, changes: int, rows: int) -> None:
    """Kill each of them in turn, and compare what is there with the ledgers. changes : each writer's between two.
    rows : of a bulk.
    """
    house = House(folder)
    load = Load(house)
    load.streamer.rows = rows
    took: dict[str, list[float]] = {}
    try:
        for one in load.all:
            one.start()
        for at, name in enumerate(who):
            load.go_on(changes)
            moment = house.kill(name)
            found = load.answered_after(moment)
            for kind, seconds in found.items():
                took.setdefault(kind, []).append(seconds)
            house.back()
            whole_s = time.monotonic() - moment
            ledger.check_all(load.docs, load.writers)
            load.check()
            words = ", ".join(f"{kind} {seconds:.2f}" for kind, seconds in found.items())
            print(f"{at}: {name}: answered after s: {words}; whole {whole_s:.2f}", file=sys.stderr, flush=True)
    finally:
        load.end()
        ended = house.process.end()
        house.process.__exit__()
    load.check()
    assert ended == 0 and all(one.done for one in load.all)
    load.check_directory(folder / "db")
    longest = {kind: round(max(seconds), 2) for kind, seconds in took.items()}
    print(
        f"{len(who)} kills; answered after at most s: {longest}; acknowledged: "
        f"{sum(one.done for one in load.writers)} changes, {load.adder.done} adds, {load.streamer.done} bulks; "
        f"repeated: {sum(one.repeats for one in load.writers) + load.adder.repeats}; revoked: {load.revoker.done}, "
        f"refused: {sum(one.refused for one in load.strangers)}, a call under way answered after at most "
        f"{max(one.longest_s for one in load.strangers):.3f} s",
        file=sys.stderr, flush=True,
    )  # fmt: skip


def test_a_kill_loses_nothing_and_repeats_nothing(tmp_path: Path) -> None:
    """A lone server is killed in test_ledger.py."""
    killed_under_load(tmp_path, ["worker", "writer"], changes=2, rows=400)


@pytest.mark.slow
@pytest.mark.parametrize("who", ["worker", "writer", "all"])
def test_nor_do_many(tmp_path: Path, who: str) -> None:
    killed_under_load(tmp_path, [who] * ROUNDS, changes=40, rows=8_000)
