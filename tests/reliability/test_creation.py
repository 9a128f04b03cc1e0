"""Goal: one holder of a directory at any time, from its first moment on, wherever those who open it stand still or die.

A child stands still before its n-th step, for every n, while another opens the same directory; or it is killed there.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.reliability.harness import NAME, Child, ForkServer
from vecdb.embedded.open import open_database
from vecdb.errors import Locked

STEPS_MIN = 20  # fewer would mean that the steps are not seen


@contextmanager
def opening(server: ForkServer, folder: Path, path: Path, at: int) -> Iterator[tuple[Child, Path, Path]]:
    """A child that opens `path` and stands still at its step `at`: (child, where it says so, where it is told on)."""
    reached, go = folder / "reached", folder / "go"
    for fifo in (reached, go):
        os.mkfifo(fifo)
    try:
        yield (
            server.fork(
                "stalled_open", path=str(path), at=at, reached=str(reached), go=str(go), result=str(folder / "result")
            ),
            reached,
            go,
        )
    finally:
        for file in (reached, go, folder / "result"):
            file.unlink(missing_ok=True)


def steps_of_a_creation(server: ForkServer, folder: Path) -> int:
    with opening(server, folder, folder / "counted", 0) as (child, reached, go):
        assert reached.read_text() == "opened"
        go.write_text("on")
        assert child.wait() == 0, child.output()
        steps = int(result_of(folder)["steps"])
    assert steps > STEPS_MIN
    return steps


def result_of(folder: Path) -> dict[str, object]:
    return json.loads((folder / "result").read_text())


def test_one_holds_a_new_directory_wherever_another_stands_still(server: ForkServer, folder: Path) -> None:
    won = 0
    for at in range(1, steps_of_a_creation(server, folder) + 1):
        path = folder / f"db{at}"
        with opening(server, folder, path, at) as (child, reached, go):
            assert reached.read_text() == "stalled"
            mine = None
            try:
                mine = open_database(path, maintenance=False)
                lock = os.stat(path / "LOCK")
                mine.create_collection(NAME, 2, "l2").upsert([1], [[1, 2]])
            except Locked as error:
                assert str(child.pid) in str(error) or "unknown" in str(error)
            go.write_text("on")
            if mine is None:  # then the child must get it
                assert reached.read_text() == "opened", at
                with pytest.raises(Locked):
                    open_database(path)
                go.write_text("on")
                assert child.wait() == 0, child.output()
            else:
                won += 1
                assert child.wait() == 0, child.output()
                assert result_of(folder)["error"] == "Locked", (at, result_of(folder))
                assert os.stat(path / "LOCK").st_ino == lock.st_ino, "somebody replaced LOCK"
                mine.close()
        with open_database(path, maintenance=False) as db:
            assert db.check() == []
            assert [db[name].count() for name in db.collections()] == ([] if mine is None else [1])
    assert won, "the other never came first"


def test_a_creation_that_is_killed_anywhere_is_begun_anew(server: ForkServer, folder: Path) -> None:
    for at in range(1, steps_of_a_creation(server, folder) + 1):
        path = folder / f"db{at}"
        with opening(server, folder, path, at) as (child, reached, _):
            assert reached.read_text() == "stalled"
            child.kill()
            assert child.wait() == -9
        with open_database(path, maintenance=False) as db:
            db.create_collection(NAME, 2, "l2").upsert([1], [[1, 2]])
            assert db.check() == []
        with open_database(path, maintenance=False) as db:
            assert db[NAME].count() == 1
        assert sorted(file.name for file in path.iterdir()) == [
            "COMMITTED", "LOCK", "READERS", "collections", "lmdb", "manifest.json",
        ]  # fmt: skip
    assert not list(folder.glob("db*.*")), "nothing is made beside the directory"


def race(server: ForkServer, folder: Path, seed: int, rounds: int) -> None:
    """Eight processes open one new directory at once, with stalls; each holds it once, and nothing is lost."""
    for n in range(rounds):
        path = folder / f"race{n}"
        results = [folder / f"result{k}" for k in range(8)]
        at = time.time() + 0.1
        children = [
            server.fork(
                "racing_open", path=str(path), seed=100 * (seed + n) + k, at=at, round_seconds=30.0, result=str(result)
            )
            for k, result in enumerate(results)
        ]
        for child in children:
            assert child.wait() == 0, child.output()
        told = [json.loads(result.read_text()) for result in results]
        assert [one["error"] for one in told] == [None] * 8, told
        with open_database(path, maintenance=False) as db:
            assert db.check() == []
            there = {record.id for batch in db[NAME].iter() for record in batch}
        assert there == {i for one in told for i in one["ids"]}, "acknowledged records are lost"


def test_eight_processes_that_make_one_directory_lose_nothing(server: ForkServer, folder: Path, seed: int) -> None:
    race(server, folder, seed % 1000, 3)


@pytest.mark.slow
def test_eight_processes_make_two_hundred_directories(server: ForkServer, folder: Path, seed: int) -> None:
    race(server, folder, seed % 1000, 200)
