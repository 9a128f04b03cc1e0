"""A cluster's servers over Ray: started by one command, started again whatever dies, reshaped under writes, ended."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vecdb
from tests.support.server.process import ENVIRONMENT
from vecdb.cluster.placement import Placement, cluster_bucket
from vecdb.ray import RayOptions, reshape
from vecdb.ray.servers import end
from vecdb.ray.session import session
from vecdb.shards import notes

pytestmark = pytest.mark.slow
PATIENCE_S = 400.0
VECDB = [sys.executable, "-c", "from vecdb.cli import main; main()"]


class Up:
    """`vecdb cluster up` in a process of its own."""

    def __init__(self, folder: Path, *words: str) -> None:
        self.log = folder / "up.log"
        self.killed = False
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(
                [*VECDB, "cluster", "up", "--folder", str(folder), "--durability", "remote", *words],
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env=ENVIRONMENT,
            )
        assert self.process.stdout is not None
        self.url = self.process.stdout.readline().strip()
        assert self.url.startswith("cluster://"), self.log.read_text()

    def close(self) -> None:
        if self.process.poll() is None:
            end(self.url)
        assert self.process.wait(PATIENCE_S) == (-signal.SIGKILL if self.killed else 0)
        assert self.process.stdout is not None
        self.process.stdout.close()


def until(true: Callable[[], Any]) -> None:
    ends = time.monotonic() + PATIENCE_S
    while not true():
        assert time.monotonic() < ends, "it did not come to that"
        time.sleep(0.1)


@pytest.fixture
def up(tmp_path: Path) -> Iterator[Up]:
    running = Up(tmp_path, "--shards", "2", "--copies", "1")
    yield running
    running.close()


def vectors(n: int) -> Any:
    return np.random.default_rng(n).normal(size=(n, 8)).astype(np.float32)


def processes(url: str) -> dict[str, int]:
    return {one.address: one.pid for one in notes.servers(cluster_bucket(url)) if one.role != notes.STARTING}


def is_whole(url: str, shards: int, servers: int) -> bool:
    """Whether so many servers of so many shards are named and answer."""
    placement = Placement.read(cluster_bucket(url))
    serving = [placement.shards[number] for number in placement.serving]
    named = [address for one in serving if one.writer for address in one.servers]
    if len(serving) != shards or len(named) != servers:
        return False
    try:
        for address in named:
            vecdb.open(address, timeout=5.0).close()
    except vecdb.VecdbError:
        return False
    return True


def test_what_dies_is_started_again_and_what_was_written_stays(up: Up, tmp_path: Path) -> None:
    with vecdb.open(up.url) as db:
        docs = db.create_collection("docs", 8, "l2")
        docs.upsert(range(200), vectors(200))
        before = processes(up.url)
        assert len(before) == 4
        own = os.getpriority(os.PRIO_PROCESS, 0)  # Ray would put its workers behind all else
        assert all(os.getpriority(os.PRIO_PROCESS, one) <= own for one in before.values())
        for process in before.values():
            os.kill(process, signal.SIGKILL)
        until(lambda: is_whole(up.url, 2, 4) and not set(processes(up.url).values()) & set(before.values()))
        docs.upsert(range(200, 220), vectors(20))
        assert len(docs) == 220
    up.process.kill()  # the servers go with it
    up.killed = True
    up.process.wait()
    until(lambda: not is_whole(up.url, 2, 4))
    again = Up(tmp_path)
    try:
        until(lambda: is_whole(up.url, 2, 4))
        with vecdb.open(again.url) as db:
            assert len(db["docs"]) == 220
    finally:
        again.close()


def test_a_cluster_is_reshaped_while_it_is_written_and_read(up: Up) -> None:
    written, failed, stop = set(range(300)), [], threading.Event()
    with vecdb.open(up.url) as db:
        docs = db.create_collection("docs", 8, "l2")
        docs.upsert(range(300), vectors(300))
        query = vectors(3)

        def write() -> None:
            number = 1_000
            while not stop.wait(0.05):
                try:
                    docs.upsert([number, number + 1], vectors(2))
                    written.update((number, number + 1))
                except vecdb.VecdbError as error:
                    failed.append((number, str(error)))
                number += 2

        def read() -> None:
            while not stop.wait(0.02):
                try:
                    found = docs.search(query, 10)
                    if found.counts.tolist() != [10, 10, 10]:
                        failed.append((0, f"short: {found.counts.tolist()}"))
                except vecdb.VecdbError as error:
                    failed.append((0, str(error)))

        threads = [threading.Thread(target=work) for work in (write, read)]
        for thread in threads:
            thread.start()
        made = reshape(up.url, shards=3)
        until(lambda: is_whole(up.url, 3, 6))
        stop.set()
        for thread in threads:
            thread.join()
        assert made["shards"] == [2, 3, 4] and [one for one in failed if one[0] == 0] == []
        found = [one.id for page in docs.iter(1_000) for one in page]
        refused = {id for number, _ in failed for id in (number, number + 1)}
        assert len(found) == len(set(found)) and written <= set(found) <= written | refused
        docs.upsert([9_999], vectors(1))
        assert docs.get(9_999) is not None


def test_a_ray_is_started_beside_open_connections(up: Up) -> None:
    """Ray forks its processes, which die at once where gRPC has connections in the one that starts them."""
    with vecdb.open(up.url) as db, session(RayOptions(cpus=1)) as ray:
        assert ray.get(ray.remote(notes.host_name).remote()) == notes.host_name()
        assert db.collections() == []
    assert not ray.is_initialized()
