"""A server of several processes, or one of them, is told to end. Real processes, two workers."""

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
from tests.support.server import draining
from tests.support.server.crew import WorkersProcess, gone
from tests.support.server.driver import (
    PATIENCE_S,
)

DIM = 8


def until(condition: Callable[[], Any]) -> None:
    ends = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < ends
        threading.Event().wait(0.01)


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
