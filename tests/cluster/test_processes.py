"""A cluster of real `vecdb serve` processes: it is written and searched, and any one of them is killed under load."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vecdb
from tests.support.server.process import Process
from vecdb.cluster.placement import Placement, cluster_bucket

pytestmark = pytest.mark.slow

VECTORS = np.random.default_rng(3).normal(size=(2_000, 16)).astype(np.float32)


class ProcessCluster:
    """Two shards, each with a writer that logs and a copy that follows."""

    def __init__(self, folder: Path) -> None:
        self.url = f"cluster://{folder}/bucket"
        self.folder = folder
        self.bucket = cluster_bucket(self.url, conditional=True)
        self.processes: dict[str, Process] = {}
        Placement.even(2).create(self.bucket)
        for shard in (0, 1):
            self.start(f"writer-{shard}", "--log", self.log_of(shard))
        for shard in (0, 1):
            self.write(shard, f"writer-{shard}")

    def log_of(self, shard: int) -> str:
        return f"file://{self.folder}/bucket/shard-{shard}"

    def start(self, name: str, *options: str) -> None:
        self.processes[name] = Process(self.folder / name, self.folder, *options)

    def address(self, name: str) -> str:
        return f"grpc://{self.processes[name].address}"

    def write(self, shard: int, name: str) -> None:
        address = self.address(name)
        Placement.change(self.bucket, lambda one: one.with_writer(shard, address))

    def follow(self, shard: int, name: str) -> None:
        self.start(name, "--follow", self.log_of(shard), "--staleness-s", "30")
        address = self.address(name)
        Placement.change(self.bucket, lambda one: one.with_copies(shard, (address,)))

    def end(self) -> None:
        for process in self.processes.values():
            if process.process.poll() is None:
                process.kill()


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[ProcessCluster]:
    made = ProcessCluster(tmp_path)
    yield made
    made.end()


def nearest(query: np.ndarray, limit: int = 5) -> list[int]:
    return [int(one) for one in ((VECTORS - query) ** 2).sum(1).argsort(kind="stable")[:limit]]


def test_processes_are_one_database(cluster: ProcessCluster) -> None:
    with vecdb.open(cluster.url) as db:
        docs = db.create_collection("docs", 16, "l2")
        assert docs.upsert(range(2_000), VECTORS, [{"n": n} for n in range(2_000)]) == 2_000
        for at in range(0, 2_000, 97):
            assert docs.search(VECTORS[at], 5).ids.tolist() == nearest(VECTORS[at])
            assert docs.get(at).fields == {"n": at}
        assert docs.search(VECTORS[:50], 5).ids.tolist() == [nearest(one) for one in VECTORS[:50]]
        assert db.check() == []


class Load:
    """Threads that search until they are ended, and what they saw."""

    def __init__(self, docs: Any, threads: int = 3) -> None:
        self.answered, self.wrong, self.failed = 0, 0, []
        self.longest_s = 0.0
        self._docs, self._stop, self._lock = docs, threading.Event(), threading.Lock()
        self._threads = [threading.Thread(target=self._run, args=(at,)) for at in range(threads)]
        for thread in self._threads:
            thread.start()

    def _run(self, seed: int) -> None:
        rng = np.random.default_rng(seed)
        while not self._stop.is_set():
            at = int(rng.integers(len(VECTORS)))
            started = time.monotonic()
            try:
                found = self._docs.search(VECTORS[at], 5).ids.tolist()
            except vecdb.VecdbError as error:
                with self._lock:
                    self.failed.append(repr(error))
                continue
            with self._lock:
                self.answered += 1
                self.wrong += found != nearest(VECTORS[at])
                self.longest_s = max(self.longest_s, time.monotonic() - started)

    def until(self, more: int) -> None:
        """Wait for so many more answers."""
        wanted, ends = self.answered + more, time.monotonic() + 120
        while self.answered < wanted and time.monotonic() < ends:
            time.sleep(0.01)
        assert self.answered >= wanted, self.failed[:3]

    def end(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()


def promoted(cluster: ProcessCluster, shard: int) -> None:
    """The copy of a shard takes over; a new one follows it."""
    copy = cluster.processes[f"copy-{shard}"]
    copy.end()
    vecdb.promote(cluster.folder / f"copy-{shard}", cluster.log_of(shard))
    cluster.start(f"copy-{shard}", "--log", cluster.log_of(shard))
    cluster.write(shard, f"copy-{shard}")
    cluster.follow(shard, f"second-{shard}")


@pytest.mark.parametrize("name", ["copy-0", "writer-0", "copy-1", "writer-1"])
def test_any_one_is_killed_and_no_query_goes_unanswered(
    cluster: ProcessCluster, name: str, record_property: Callable[[str, object], None]
) -> None:
    for shard in (0, 1):
        cluster.follow(shard, f"copy-{shard}")
    with vecdb.open(cluster.url) as db:
        docs = db.create_collection("docs", 16, "l2")
        docs.upsert(range(2_000), VECTORS)
        db.wait_for(db.sequence(), timeout=60)
        load = Load(docs)
        try:
            load.until(300)
            cluster.processes[name].kill()
            load.until(600)
        finally:
            load.end()
        record_property("longest_s", load.longest_s)
        print(f"killed {name}: {load.answered} answers, the longest {load.longest_s:.3f} s")
        assert (load.failed, load.wrong) == ([], 0)


def test_a_writer_that_is_paused_is_replaced_while_a_write_waits_for_it(cluster: ProcessCluster) -> None:
    cluster.follow(1, "copy-1")
    with vecdb.open(cluster.url) as db:
        docs = db.create_collection("docs", 16, "l2")
        docs.upsert(range(1_000), VECTORS[:1_000])
        db.wait_for(db.sequence(), timeout=60)
        cluster.processes["writer-1"].process.send_signal(signal.SIGSTOP)
        done: list[int] = []
        writing = threading.Thread(target=lambda: done.append(docs.upsert(range(1_000, 2_000), VECTORS[1_000:])))
        writing.start()
        promoted(cluster, 1)
        writing.join(85)
        assert done == [1_000] and docs.count() == 2_000
        cluster.processes["writer-1"].process.send_signal(signal.SIGCONT)
        assert docs.upsert(range(500), VECTORS[:500]) == 500 and docs.count() == 2_000


def test_a_writer_that_was_killed_is_replaced_under_load(cluster: ProcessCluster) -> None:
    for shard in (0, 1):
        cluster.follow(shard, f"copy-{shard}")
    with vecdb.open(cluster.url) as db, vecdb.open(cluster.url) as other:
        docs = db.create_collection("docs", 16, "l2")
        docs.upsert(range(2_000), VECTORS)
        db.wait_for(db.sequence(), timeout=60)
        load = Load(other.collection("docs"))
        try:
            load.until(100)
            cluster.processes["writer-1"].kill()
            done: list[int] = []
            far = VECTORS + np.float32(1e3)
            writing = threading.Thread(target=lambda: done.append(docs.upsert(range(5_000, 7_000), far)))
            writing.start()
            # its copy stops for as long as it takes over: another one answers meanwhile
            cluster.start("more", "--follow", cluster.log_of(1), "--staleness-s", "300")
            more = cluster.address("more")
            Placement.change(cluster.bucket, lambda one: one.with_copies(1, (*one.shards[1].copies, more)))
            load.until(100)
            promoted(cluster, 1)
            writing.join(120)
            load.until(100)
        finally:
            load.end()
        assert done == [2_000] and (load.failed, load.wrong) == ([], 0)
        assert docs.count() == 4_000 and db.check() == []
