"""Goal: what Ctrl-C must not break off comes to an end, or to where it may stop, and the interruption is told."""

from __future__ import annotations

import signal
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vecdb
from vecdb import limits
from vecdb.embedded.undisturbed import interrupted, undisturbed


def interrupt() -> None:
    signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)


def until_told() -> str:
    interrupt()
    while not interrupted():
        pass
    return "made"


def test_work_is_told_and_waited_for_and_its_answer_undone() -> None:
    undone: list[str] = []
    with pytest.raises(KeyboardInterrupt):
        undisturbed(until_told, undone.append)
    assert undone == ["made"] and not interrupted()
    assert [thread.name for thread in threading.enumerate() if thread.name == "vecdb-call"] == []


def test_answers_and_errors_are_those_of_the_work() -> None:
    assert undisturbed(lambda: threading.current_thread()) is not threading.main_thread()
    with pytest.raises(ZeroDivisionError):
        undisturbed(lambda: 1 // 0)
    found: list[Any] = []
    thread = threading.Thread(target=lambda: found.append(undisturbed(threading.current_thread)))
    thread.start()
    thread.join()
    assert found == [thread], "no other thread where no signal is raised"


def test_where_there_are_no_more_threads_it_is_done_here(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refused)
    assert undisturbed(threading.current_thread) is threading.main_thread()


def test_an_interruption_behind_a_kernel_leaves_a_whole_index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It comes when the rows are in the graph and nothing has noted it yet: where it comes as a rule."""
    monkeypatch.setattr(limits, "flat_rows_max", 500)
    vectors = np.random.default_rng(1).normal(size=(3_000, 8)).astype(np.float32)
    with vecdb.open(tmp_path / "db", maintenance=False) as db:
        docs = db.create_collection("docs", 8, "l2", vecdb.Hnsw(m=8, ef_construction=40))
        docs.upsert(range(2_000), vectors[:2_000])
        docs.optimize()
        docs.upsert(range(2_000, 3_000), vectors[2_000:])
        index = docs._backend.state.snapshot.generation.index
        real = type(index)._publish

        def publish(self: Any, *arguments: Any) -> None:
            interrupt()
            real(self, *arguments)

        monkeypatch.setattr(type(index), "_publish", publish)
        with pytest.raises(KeyboardInterrupt):
            docs.optimize()
        monkeypatch.setattr(type(index), "_publish", real)
        assert db.check() == []
        docs.optimize()
        assert db.check() == [] and docs.search(vectors[-1], 1).ids.tolist() == [2_999]
