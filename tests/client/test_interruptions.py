"""Goal: after Ctrl-C in a call of a server, on the main thread, the next calls are answered."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vecdb
from tests.support.server.driver import PATIENCE_S
from tests.support.server.process import Process
from vecdb.client.connection import Connection

VECTORS = np.random.default_rng(1).normal(size=(200, 8)).astype(np.float32)


@pytest.fixture
def address(tmp_path: Path) -> Iterator[str]:
    with Process(tmp_path / "db", tmp_path) as started:
        address = f"grpc://127.0.0.1:{started.ports()[0]}"
        with vecdb.open(address) as db:
            db.create_collection("docs", 8, "l2").upsert(range(200), VECTORS)
        yield address


def interrupted(vectors: Any) -> Iterator[Any]:
    yield from vectors
    raise KeyboardInterrupt


def test_a_stream_that_was_interrupted_leaves_the_channel_and_the_handlers_as_they_were(address: str) -> None:
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    with vecdb.open(address) as db:
        docs = db.collection("docs")
        with pytest.raises(KeyboardInterrupt):
            list(docs.search_stream(interrupted(VECTORS[:3]), 5))
        left = docs.search_stream(VECTORS, 5)
        next(left)
        other = docs.search_stream(VECTORS, 5)
        next(other)
        left.close()
        other.close()
        assert {number: signal.getsignal(number) for number in before} == before
        assert docs.with_timeout(5.0).count() == 200 and len(list(docs.search_stream(VECTORS, 5))) == 200


def test_what_a_handler_raises_ends_a_stream_and_one_that_returns_does_not(address: str) -> None:
    rung = []

    def ring(number: int, frame: object) -> None:
        rung.append(number)
        if len(rung) == 5:
            raise TimeoutError("five")

    with vecdb.open(address) as db:
        docs = db.collection("docs")
        before = signal.signal(signal.SIGALRM, ring)
        try:
            with pytest.raises(TimeoutError, match="five"):
                signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
                while True:
                    assert len(list(docs.search_stream(VECTORS, 5))) == 200
            assert len(rung) >= 5 and len(list(docs.search_stream(VECTORS, 5))) == 200
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)


def test_after_a_single_call_that_was_interrupted_there_is_another_channel(
    address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with vecdb.open(address) as db:
        docs = db.collection("docs")
        life = docs._backend._connection._life
        first = life.channel
        with pytest.raises(vecdb.NotFound):
            db.collection("none").count()
        assert life.channel is first
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(Connection, "_answer", lambda *_: next(interrupted([])))
            docs.count()
        assert life.channel is not first and docs.count() == 200


LOOP = """
import os, random, signal, sys, threading
import numpy as np
import vecdb

draw = random.Random(1)
with vecdb.open(sys.argv[1]) as db:
    docs, queries = db.collection("docs"), np.ones((200, 8), np.float32)
    for _ in range(300):
        try:
            timer = threading.Timer(0.02 * draw.random(), os.kill, (os.getpid(), signal.SIGINT))
            timer.start()
            list(docs.search_stream(queries, 5))
            timer.join()
        except KeyboardInterrupt:
            pass
        assert docs.count() == 200
print("done")
"""


@pytest.mark.slow  # ten seconds; without `streams/interruptions.py` one of sixty hangs
def test_streams_that_signals_end_leave_a_client_that_works(address: str) -> None:
    made = subprocess.run([sys.executable, "-c", LOOP, address], capture_output=True, text=True, timeout=2 * PATIENCE_S)
    assert made.stdout == "done\n", made.stderr
