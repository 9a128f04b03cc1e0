"""Rounds of kill, pause and partition of a writer and its copy under durability="remote", with clients on both that
never stop: nothing that was acknowledged is lost, a writer that was replaced acknowledges nothing and says so, no read
of a copy, or of a writer that was replaced, is older than `staleness_s`, and what was revoked is answered no more.

The store is reached through a network of namespaces (tests/support/replication/network.py); clients reach servers by
sockets in files, as if they stood on the same side of the cut as their server.

VECDB_PARTITION_ROUNDS says how many rounds there are.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vecdb
from tests.model.driver import SEED
from tests.support.replication.ledger import CLOCK, TENANT, Caller, Ledger, Reader, ReaderOfWriter, Revoker, Scribe
from tests.support.replication.network import WAYS, Network, network, why_none
from tests.support.replication.s3_process import BUCKET, s3_process
from tests.support.server.process import Process

pytestmark = pytest.mark.slow

ROUNDS = int(os.environ.get("VECDB_PARTITION_ROUNDS", "12"))
STALENESS_S = 1.0
URL = f"s3://{BUCKET}/log"
SNAPSHOTS = "from vecdb import limits; limits.snapshot_log_objects = 200"  # so that cuts meet some
MORE = 5  # calls that are answered after each round, on each server


class Node:
    """A namespace with one server, writer or copy, and its clients."""

    def __init__(self, rounds: Rounds, name: str) -> None:
        self.rounds, self.name = rounds, name
        self.link = rounds.net[name]
        self.role = ""
        self.clients: list[Caller] = []
        self.scribe: Any = None
        self.reader: Any = None
        self._homes = 0
        self.home = rounds.folder / f"{name}-0"

    @property
    def url(self) -> str:
        return f"unix:{self.rounds.sockets}/{self.name}"

    def start(self, role: str, *, promoted: bool = False) -> None:
        """promoted : the copy becomes the writer, in the process that serves it then: a second later it writes."""
        self.role = role
        promotes = f"; import vecdb; vecdb.promote({str(self.home)!r}, {URL!r})" if promoted else ""
        options = ("--log", URL, "--durability", "remote", "--lease") if role == "writer" else ("--follow", URL)
        self.server = Process(
            self.home, self.rounds.folder, *options, "--staleness-s", str(STALENESS_S), "--grace-s", "2",
            listen=self.url, prefix=self.link.prefix, environment=self.rounds.environment, before=SNAPSHOTS + promotes,
        )  # fmt: skip
        assert self.server.process.stdout is not None
        assert self.server.process.stdout.readline(), self.server.log()

    def call(self) -> None:
        """Its clients begin."""
        ledger, who = self.rounds.ledger, f"{self.role} {self.name}"
        if self.role == "writer":
            self.scribe, self.reader = Scribe(ledger, who, self.url), ReaderOfWriter(ledger, who, self.url)
            self.clients = [self.scribe, self.reader, Revoker(ledger, who, self.url)]
        else:
            self.reader = Reader(ledger, who, self.url)
            self.clients = [self.reader]

    def stop_calling(self) -> None:
        for one in self.clients:
            one.end()
            self.rounds.longest[f"{type(one).__name__} of {self.role}"] = max(
                self.rounds.longest[f"{type(one).__name__} of {self.role}"], int(1e3 * one.longest_s)
            )
        self.clients = []

    def send(self, number: signal.Signals) -> None:
        self.server.process.send_signal(number)

    def restart(self) -> None:
        self.server.kill()
        self.start(self.role)

    def forget(self) -> None:
        """Its directory goes: what it is next begins anew."""
        shutil.rmtree(self.home)
        self._homes += 1
        self.home = self.rounds.folder / f"{self.name}-{self._homes}"


class Rounds:
    def __init__(self, net: Network, environment: dict[str, str], folder: Path, sockets: str) -> None:
        self.net, self.environment, self.folder, self.sockets = net, environment, folder, sockets
        self.rng = np.random.default_rng(SEED)
        self.ledger = Ledger(STALENESS_S)
        self.longest: Counter[str] = Counter()  # of each kind of client, ms of its longest call
        self.began = 0.0
        self.done: Counter[str] = Counter()
        self.writer, self.copy = Node(self, "a"), Node(self, "b")

    def begin(self) -> None:
        self.writer.start("writer")
        with vecdb.open(self.writer.url) as db:
            docs = db.create_collection("docs", 8, "l2", vecdb.Flat())
            docs.create_tenant(TENANT)
            docs.upsert([CLOCK], VECTORS_FIRST, [{"n": 0}])
        self.copy.start("copy")
        self.writer.call()
        self.copy.call()
        self.go_on("the beginning")

    def go_on(self, why: str) -> None:
        """Both servers answer again, and nothing was lost."""
        for one in (*self.writer.clients, *self.copy.clients):
            one.until(1 if isinstance(one, Revoker) else MORE, why)
        with vecdb.open(self.writer.url, timeout=30) as db:
            numbers = self.ledger.acknowledged()
            lost = [one for one, found in zip(numbers, db["docs"].get(numbers), strict=True) if found is None]
        assert not lost, f"{why}: {lost} were acknowledged and are not there"
        assert not self.ledger.faults, f"{why}: {self.ledger.faults}"

    def one(self) -> str:
        kinds = (self.kill, self.kill_behind_a_cut, self.pause, self.cut, self.cut_for_long, self.take_over)
        kind = kinds[int(self.rng.choice(len(kinds), p=[0.1, 0.1, 0.1, 0.3, 0.05, 0.35]))]
        return kind()

    # -- what fails --------------------------------------------------------------------------------

    def _node(self) -> Node:
        return (self.writer, self.copy)[int(self.rng.integers(2))]

    def _way(self) -> str:
        return WAYS[int(self.rng.integers(len(WAYS)))]

    def kill(self) -> str:
        node = self._node()
        node.restart()
        return f"kill the {node.role}"

    def kill_behind_a_cut(self) -> str:
        """What the writer was sending is in the log or not, and it never learns which before it dies."""
        node, way = self._node(), self._way()
        node.link.cut(way)
        time.sleep(float(self.rng.uniform(0.1, 1.0)))
        node.server.kill()
        node.link.heal()
        node.start(node.role)
        return f"cut {way} and kill the {node.role}"

    def pause(self) -> str:
        node = self._node()
        node.send(signal.SIGSTOP)
        time.sleep(float(self.rng.uniform(0.1, 2.5)))
        node.send(signal.SIGCONT)
        return f"pause the {node.role}"

    def cut(self) -> str:
        node, way = self._node(), self._way()
        node.link.cut(way)
        if node is self.copy:
            node.reader.until_refused("does not answer from the past", f"{way} cut")
        else:
            time.sleep(float(self.rng.uniform(0.1, 4.0)))
            if self.rng.random() < 0.5:
                node.reader.until_refused("does not answer from the past", f"{way} cut")
        node.link.heal()
        return f"cut {way} of the {node.role}"

    def cut_for_long(self) -> str:
        """A writer that is cut off for longer than it waits for the store, and was not replaced."""
        way = self._way()
        self.writer.link.cut(way)
        self.writer.reader.until_refused("does not answer from the past", f"long {way} cut")
        self.writer.scribe.until_refused("the log", f"long {way} cut")
        time.sleep(float(self.rng.uniform(0, 8)))
        self.writer.link.heal()
        return f"long cut {way} of the writer"

    def take_over(self) -> str:
        """The copy becomes the writer, while the one before is dead, paused or cut off, or is cut off at about the same
        moment, and comes back.
        """
        old, new = self.writer, self.copy
        how = ("kill", "pause", *WAYS)[int(self.rng.integers(5))]
        beside = how in WAYS and self.rng.random() < 0.6
        cut = threading.Timer(float(self.rng.uniform(0, 2.5)) if beside else 0.0, lambda: old.link.cut(how))
        new.stop_calling()
        new.server.end()
        if how != "kill":
            old.reader.replaced()
        if how == "kill":
            old.server.kill()
        elif how == "pause":
            old.send(signal.SIGSTOP)
        else:
            cut.start()
            if not beside:
                cut.join()
        new.start("writer", promoted=True)
        replaced_at = time.monotonic()
        new.call()
        if how in WAYS:
            cut.join()
        if how != "kill":
            old.scribe.replaced_at = replaced_at
            new.scribe.until(int(self.rng.integers(1, 20)), f"takeover after {how}")
            new.clients[-1].until(1, f"takeover after {how}")  # its first revoke has returned
            if how in WAYS:  # it may have learned it before it was cut off
                words = "" if beside else "does not answer from the past"
                old.reader.until_refused(words, f"takeover after {how}")
            self.note("the new one writes, the old one reads no more")
            old.send(signal.SIGCONT)
            old.link.heal()
            old.scribe.until_refused("fenced", f"takeover after {how}")
            old.reader.until_refused("fenced", f"takeover after {how}")
            self.note("the old one knows")
        old.stop_calling()
        if how != "kill":
            assert old.server.end() == 0, old.server.log()
        self.note("the old one has ended")
        old.forget()
        self.writer, self.copy = new, old
        old.start("copy")
        old.call()
        return f"takeover {'beside' if beside else 'after'} {how}"

    def note(self, what: str) -> None:
        print(f"    {time.monotonic() - self.began:.1f} s: {what}", file=sys.stderr, flush=True)

    def end(self) -> None:
        for node in (self.writer, self.copy):
            node.stop_calling()
        with vecdb.open(self.writer.url) as db, vecdb.open(self.copy.url) as copy:
            assert db.check() == []
            copy.wait_for(db.sequence(), timeout=60)
            assert len(copy["docs"]) == len(db["docs"])
            numbers = self.ledger.acknowledged()
            assert None not in copy["docs"].get(numbers)

    def close(self) -> None:
        for node in (self.writer, self.copy):
            if node.role and node.server.process.poll() is None:
                node.server.process.kill()
                node.server.process.wait()


VECTORS_FIRST = np.ones((1, 8), np.float32)


@pytest.fixture
def rounds(tmp_path: Path) -> Iterator[Rounds]:
    if (reason := why_none()) is not None:
        pytest.skip(f"no namespaces here: {reason}")
    for module in ("obstore", "moto.server"):
        pytest.importorskip(module)
    with (
        network("a", "b") as net,
        s3_process(net.host) as environment,
        tempfile.TemporaryDirectory(prefix="vecdb-") as sockets,
    ):
        made = Rounds(net, environment, tmp_path, sockets)
        try:
            yield made
        finally:
            made.close()


def test_rounds_of_kill_pause_and_partition_lose_nothing(rounds: Rounds) -> None:
    print(f"VECDB_SEED={SEED} VECDB_PARTITION_ROUNDS={ROUNDS}")
    rounds.begin()
    for at in range(ROUNDS):
        rounds.began = time.monotonic()
        what = rounds.one()
        rounds.go_on(what)
        rounds.done[what] += 1
        print(
            f"{at}: {what}, {time.monotonic() - rounds.began:.1f} s, {len(rounds.ledger.acknowledged())} acknowledged",
            file=sys.stderr, flush=True,
        )  # fmt: skip
    rounds.end()
    assert rounds.ledger.faults == []
    print(dict(rounds.done), dict(rounds.longest), dict(rounds.ledger.seen), file=sys.stderr, flush=True)
