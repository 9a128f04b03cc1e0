"""A writer or a copy that is killed at any call goes on when it is opened again: nothing that was acknowledged is lost
in the writer, nothing is half applied in the copy, and both are equal in the end.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vecdb
from tests.support.replication.copies import WAIT_S, assert_same, brought_up, log_of
from vecdb import limits
from vecdb.embedded.open import open_database
from vecdb.replication.folder_bucket import FolderBucket
from vecdb.storage.disk import filesystem
from vecdb.storage.kv.store import Store

KILLED = 77
VECTORS = np.random.default_rng(4).normal(size=(64, 8)).astype(np.float32)
_CALLS = ("pwrite", "fdatasync", "sync_dir", "remove", "remove_tree", "make_dir", "rename", "open_append")


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(limits, "log_wait_s", 0.0)
    monkeypatch.setattr(limits, "log_poll_s", 0.002)
    yield


def killed_at(place: int, targets: list[tuple[Any, str]], work: Callable[[], None]) -> bool:
    """Do the work in a child that dies before its call number `place` of the targets. Returns whether it did die."""
    pid = os.fork()
    if pid == 0:
        try:
            count = 0

            def counted(real: Callable[..., Any]) -> Callable[..., Any]:
                def call(*args: Any, **given: Any) -> Any:
                    nonlocal count
                    count += 1
                    if count == place:
                        os._exit(KILLED)
                    return real(*args, **given)

                return call

            for owner, name in targets:
                setattr(owner, name, counted(getattr(owner, name)))
            work()
            os._exit(0)
        except BaseException:
            import traceback

            traceback.print_exc()
        finally:
            os._exit(1)
    _, status = os.waitpid(pid, 0)
    code = os.waitstatus_to_exitcode(status)
    assert code in (0, KILLED), code
    return code == KILLED


class _Transaction:
    """LMDB's, whose commit is a call that can be counted, before and after."""

    def __init__(self, txn: Any) -> None:
        self._txn = txn

    def __getattr__(self, name: str) -> Any:
        return getattr(self._txn, name)

    def commit(self) -> None:
        Marks.before()
        self._txn.commit()
        Marks.after()


class Marks:
    @staticmethod
    def before() -> None:
        """About to commit."""

    @staticmethod
    def after() -> None:
        """Committed."""


def history(path: Path, url: str) -> None:
    """All that makes and removes files, in a database whose log has some objects of each kind."""
    with open_database(path, log=url, maintenance=False) as writer:
        docs = writer.create_collection("docs", 8, "l2", vecdb.Hnsw(m=4, ef_construction=16))
        docs.upsert(range(64), VECTORS, [{"a": n} for n in range(64)], [["x"]] * 64)
        assert log_of(writer).flush(WAIT_S)
        writer.create_collection("other", index=vecdb.Flat()).upsert([1], VECTORS[:1])
        assert log_of(writer).flush(WAIT_S)
        docs.optimize()
        docs.delete(range(40))
        docs.revoke(range(40, 50), "x")
        assert log_of(writer).flush(WAIT_S)
        docs.vacuum()
        writer.drop_collection("other")
        docs.update([60], fields=[{"b": 1}])


def check_kills_of_a_copy(tmp_path: Path, places: Iterator[int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "flat_rows_max", 4)
    monkeypatch.setattr(limits, "log_inline_bytes", 3_000)
    url = f"file://{tmp_path}/bucket"
    with open_database(tmp_path / "w", log=url, maintenance=False) as writer:
        log_of(writer).snapshots.wait()
        open_database(tmp_path / "early", follow=url).close()  # what follows comes by the log
    history(tmp_path / "w", url)
    targets = [(filesystem, name) for name in _CALLS] + [(Marks, "before"), (Marks, "after")]
    begin_write = Store.begin_write

    def copy_it() -> None:
        Store.begin_write = lambda self: _Transaction(begin_write(self))  # type: ignore[method-assign]
        open_database(tmp_path / "c", follow=url, staleness_s=None)

    with open_database(tmp_path / "w", log=url, maintenance=False) as writer:
        for begins_empty in (False, True):
            for place in places:
                shutil.rmtree(tmp_path / "c", ignore_errors=True)
                if not begins_empty:
                    shutil.copytree(tmp_path / "early", tmp_path / "c")
                alive = not killed_at(place, targets, copy_it)
                with open_database(tmp_path / "c", follow=url) as copy:
                    brought_up(writer, copy)
                    assert_same(writer, copy)
                if alive:
                    assert place > 30
                    break
            else:
                assert place > 100, "the last call was met, and not by a bound"


class _Places:
    """1, 1 + step, ...: anew for each loop."""

    def __init__(self, step: int) -> None:
        self._step = step

    def __iter__(self) -> Iterator[int]:
        return iter(range(1, 10_000, self._step))


def test_a_copy_that_is_killed_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check_kills_of_a_copy(tmp_path, _Places(31), monkeypatch)  # type: ignore[arg-type]


@pytest.mark.slow
def test_a_copy_that_is_killed_at_any_call_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check_kills_of_a_copy(tmp_path, _Places(1), monkeypatch)  # type: ignore[arg-type]


def check_kills_of_a_writer(tmp_path: Path, step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed at any object that it writes, or reads, while a copy follows."""
    monkeypatch.setattr(limits, "flat_rows_max", 4)
    url = f"file://{tmp_path}/bucket"
    history(tmp_path / "w", url)
    targets = [(FolderBucket, name) for name in ("create", "put", "upload", "get_versioned", "entries")]
    copy = open_database(tmp_path / "c", follow=url, staleness_s=None)
    acknowledged, place = tmp_path / "acknowledged", 1

    def write() -> None:
        with open_database(tmp_path / "w", log=url, maintenance=False) as writer:
            for number in range(6):
                writer["docs"].upsert([1_000 * place + number], VECTORS[number : number + 1])
                with acknowledged.open("a") as ledger:
                    ledger.write(f"{1_000 * place + number}\n")
                if number % 2:
                    log_of(writer).flush(WAIT_S)
            writer["docs"].vacuum()

    while killed_at(place, targets, write):
        with open_database(tmp_path / "w", log=url, maintenance=False) as writer:
            ids = [int(line) for line in acknowledged.read_text().split()] if acknowledged.exists() else []
            assert all(writer["docs"].get(ids))
            writer["docs"].upsert([1_000 * place + 500], VECTORS[:1])
            brought_up(writer, copy)
            assert_same(writer, copy)
        place += step
    assert place > 15
    copy.close()


def test_a_writer_that_is_killed_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check_kills_of_a_writer(tmp_path, 9, monkeypatch)


@pytest.mark.slow
def test_a_writer_that_is_killed_at_any_object_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check_kills_of_a_writer(tmp_path, 1, monkeypatch)
