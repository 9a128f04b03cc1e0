"""`vecdb serve --read-only`: it serves a directory that another process writes, here the test's own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

import vecdb
from tests.support.server.crew import WorkersProcess
from tests.support.server.driver import Client, Running, outcome
from tests.support.server.process import PATIENCE_S, Process
from vecdb.storage.disk import commit_mark
from vecdb_server import newest_commit

DIM = 8
ROWS = np.random.default_rng(3).normal(size=(50, DIM)).astype(np.float32)


@pytest.fixture
def writer(tmp_path: Path) -> Iterator[vecdb.Database]:
    with vecdb.open(tmp_path / "db") as db:
        yield db


def check_it_follows(writer: vecdb.Database, clients: list[Client]) -> None:
    """Commits, names and collections of another process are seen from their acknowledgement on."""
    docs = writer.create_collection("docs", DIM, "l2")
    for i, row in enumerate(ROWS):
        docs.upsert([i], [row])
        for one in clients:
            assert one.count("docs") == i + 1 and one.nearest("docs", row, 1) == [i]
    writer.create_collection("other", DIM)
    for i in range(4):
        target, count = (("docs", 50), ("other", 0))[i % 2]
        writer.set_alias("alias", target)
        assert [one.count("alias") for one in clients] == [count] * len(clients)
    writer.drop_collection("docs")
    assert [outcome(lambda one=one: one.count("docs")) for one in clients] == ["NOT_FOUND"] * len(clients)
    again = writer.create_collection("docs", DIM)
    again.upsert([7], ROWS[:1])
    assert [one.nearest("docs", ROWS[0], 5) for one in clients] == [[7]] * len(clients)
    for one in clients:
        assert outcome(lambda one=one: one.write("docs", 1, ROWS[:1])) == "PERMISSION_DENIED"
        assert outcome(lambda one=one: one.create("new", DIM)) == "PERMISSION_DENIED"


def test_one_process_follows_another_that_writes(
    writer: vecdb.Database, serving: Callable[..., Running], calling: Callable[..., Client]
) -> None:
    running = serving(read_only=True, metrics="127.0.0.1:0")
    check_it_follows(writer, [calling(running)])


def test_so_do_workers(writer: vecdb.Database, tmp_path: Path) -> None:
    with WorkersProcess(tmp_path / "db", tmp_path, 2, "--read-only", "--metrics", "127.0.0.1:0") as process:
        process.ready()
        assert process.pids("writer") == []
        check_it_follows(writer, process.clients())
        with vecdb.open(f"grpc://{process.address}") as far, pytest.raises(vecdb.PermissionDenied, match="read-only"):
            far.collection("docs").upsert([1], ROWS[:1])
        assert len(process.ports(2)) == 2
        assert process.end() == 0


def test_there_must_be_a_database(tmp_path: Path) -> None:
    with Process(tmp_path / "none", tmp_path, "--read-only", "--workers", "2") as process:
        assert process.process.wait(PATIENCE_S) == 1
        assert "no database at" in process.log() and "Traceback" not in process.log()


def test_what_is_compared_is_the_mark_that_commits_leave(tmp_path: Path, writer: vecdb.Database) -> None:
    assert newest_commit.NAME == commit_mark.NAME
    compared = newest_commit.NewestCommit(tmp_path / "db")
    mark = tmp_path / "db" / commit_mark.NAME
    before = mark.read_bytes()
    assert compared.version()[0] == before  # type: ignore[index]
    writer.create_collection("docs", DIM)
    assert compared.version()[0] == mark.read_bytes() != before  # type: ignore[index]
    compared.close()
