"""A server that is killed, or told to end, again and again under writers and readers, and a ledger of what they heard
(tests/support/server/ledger.py).
"""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

import vecdb
from tests.support.server.driver import FAST_RECONNECTS, Client, until_ready
from tests.support.server.ledger import DIM, ROWS, TENANTS, Reader, Streamer, Worker, Writer, check_all
from tests.support.server.process import Process


def restarted_under_load(folder: Path, *, rounds: int, changes: int, kill: bool) -> None:
    """changes : that each writer hears of between two ends of the server."""
    stop = threading.Event()
    current = [Process(folder / "db", folder, "--grace-s", "10")]
    port = current[0].ports()[0]
    raw = Client(current[0].address, **FAST_RECONNECTS)
    until_ready(raw)
    far = vecdb.open(f"grpc://localhost:{port}")
    docs = far.create_collection("docs", DIM, "l2")
    bulk = far.create_collection("bulk", 512, "l2", vecdb.Flat())
    docs.create_tenant(list(TENANTS))
    writers = [Writer(i + 1, stop, raw) for i in range(3)]
    streamer = Streamer(9, stop, bulk)
    workers: list[Worker] = [*writers, streamer, *(Reader(20 + i, stop, docs, writers) for i in range(2))]
    try:
        for worker in workers:
            worker.start()
        for _ in range(rounds):
            goals = [writer.done + changes for writer in writers]
            while any(one.done < goal and one.is_alive() for one, goal in zip(writers, goals, strict=True)):
                stop.wait(0.01)
            if kill:
                current[0].kill()
            else:
                assert current[0].end() == 0
            current[0].__exit__()
            current[0] = Process(folder / "db", folder, "--grace-s", "10", listen=f"127.0.0.1:{port}")
            current[0].ports()
            until_ready(raw)
            check_all(docs, writers)
            assert [worker.error for worker in workers] == [None] * len(workers)
    finally:
        stop.set()
        for worker in workers:
            worker.join()
        far.close()
        raw.close()
        ended = current[0].end()
        current[0].__exit__()
    assert [worker.error for worker in workers] == [None] * len(workers)
    assert ended == 0 and all(worker.done for worker in workers)
    assert sum(writer.repeats for writer in writers) > 0, "no end of the server met a write"
    with vecdb.open(folder / "db", read_only=True) as db:
        assert db.check() == []
        near = db.collection("docs")
        there = check_all(near, writers)
        assert near.count() == there, "what nobody wrote"
        assert len([one for writer in writers for one in writer.blocks]) * ROWS > 100
        stats = db.collection("bulk").stats()
        assert stats["live"] == stats["rows"] == streamer.done * streamer.rows, "a batch was written twice, or never"


@pytest.mark.parametrize(  # slow: ten seconds; test_process.py tells a server to end, too
    "kill", [pytest.param(True, id="killed"), pytest.param(False, id="told to end", marks=pytest.mark.slow)]
)
def test_no_acknowledged_change_is_lost_and_none_is_applied_twice(tmp_path: Path, kill: bool) -> None:
    restarted_under_load(tmp_path, rounds=1, changes=15, kill=kill)


@pytest.mark.slow
@pytest.mark.parametrize("kill", [True, False], ids=["killed", "told to end"])
def test_nor_in_twenty_rounds(tmp_path: Path, kill: bool) -> None:
    restarted_under_load(tmp_path, rounds=20, changes=100, kill=kill)
