"""Goal: one writing process, any number of reading ones, and every acknowledged commit visible to the next
search of a reader.

Also: a second writer is refused at once and told who holds the database, a forked child is refused, readers
that died are cleared,
and a process that opens, closes, creates and drops for ever holds no more than at its start.
"""

from __future__ import annotations

import json
import os
import random
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import vecdb
from tests.reliability.forked.records import index_of
from tests.reliability.harness import DIM, NAME, Child, ForkServer, vectors_of
from vecdb.embedded.open import open_database


@contextmanager
def reading(server: ForkServer, folder: Path, path: Path) -> Iterator[tuple[Child, object]]:
    """A child that answers questions about the database at `path`, one line each."""
    questions, replies = folder / "questions", folder / "replies"
    for fifo in (questions, replies):
        os.mkfifo(fifo)
    child = server.fork("reader", path=str(path), questions=str(questions), replies=str(replies))
    with open(questions, "w", buffering=1) as asking, open(replies) as answering:

        def ask(**question: object) -> dict[str, object]:
            asking.write(json.dumps(question) + "\n")
            line = answering.readline()
            assert line, f"the reader died with {child.wait()}: {child.output()}"
            return json.loads(line)

        yield child, ask
    for fifo in (questions, replies):
        os.unlink(fifo)


KINDS = ["auto", "spann-disk", *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("spann", "curator"))]


def commits_seen(server: ForkServer, folder: Path, seed: int, commits: int, index: str = "auto") -> None:
    """After each acknowledged commit, the reader's next search must show it."""
    rng = random.Random(seed)
    path = folder / "db"
    kinds = {"upsert": 0, "delete": 0, "seal": 0, "vacuum": 0, "recreate": 0}
    with open_database(path, durability="relaxed") as db:
        c = db.create_collection(NAME, DIM, "l2", index_of(index))
        live: dict[int, int] = {}
        with reading(server, folder, path) as (child, ask):
            for n in range(1, commits + 1):
                roll = rng.random()
                if roll < 0.25 and len(live) > 50:
                    gone = rng.sample(sorted(live), rng.randint(1, 5))
                    vectors = vectors_of(gone, [live.pop(i) for i in gone])
                    assert c.delete(gone) == len(gone)
                    answer = ask(search=vectors.tolist(), limit=1)
                    assert not {i for found in answer["ids"] for i in found} & set(gone), (
                        f"commit {n} deleted {gone}, the reader still finds them"
                    )
                    kinds["delete"] += 1
                else:
                    size = rng.choice([1, 1, 2, 30])
                    ids = rng.sample(range(3_000), size)
                    vectors = vectors_of(ids, [n] * size)
                    c.upsert(ids, vectors, fields=[{"f": n}] * size)
                    live.update(dict.fromkeys(ids, n))
                    answer = ask(search=vectors.tolist(), limit=1, get=ids)
                    assert answer["ids"] == [[i] for i in ids], f"commit {n}: {answer}"
                    assert answer["distances"] == [[0.0]] * size, f"commit {n}: {answer}"
                    assert answer["fields"] == [{"f": n}] * size, f"commit {n}: {answer}"
                    kinds["upsert"] += 1
                assert answer["count"] == len(live), f"commit {n}: {answer['count']} records, {len(live)} acknowledged"
                if n % 61 == 0:
                    c.optimize()
                    c._backend.jobs.seal(1)
                    kinds["seal"] += 1
                    assert ask(count=True)["count"] == len(live)
                if n % 97 == 0:
                    c.vacuum()
                    kinds["vacuum"] += 1
                    assert ask(count=True)["count"] == len(live)
                if n % 149 == 0:
                    db.drop_collection(NAME)
                    assert ask(count=True) == {"error": "NotFound"}
                    c = db.create_collection(NAME, DIM, "l2", index_of(index))
                    live = {}
                    kinds["recreate"] += 1
                    assert ask(count=True)["count"] == 0
            assert ask(check=True)["problems"] == []
        assert child.wait() == 0, child.output()
        assert db.check() == []
    print(f"every one of {commits} commits was seen: {kinds}")
    assert min(kinds.values()) > 0, kinds


@pytest.mark.parametrize("index", KINDS)
def test_a_reader_sees_every_acknowledged_commit(server: ForkServer, folder: Path, seed: int, index: str) -> None:
    commits_seen(server, folder, seed, 300, index)


@pytest.mark.slow
@pytest.mark.parametrize("index", KINDS)
def test_a_reader_sees_ten_thousand_acknowledged_commits(
    server: ForkServer, folder: Path, seed: int, index: str
) -> None:
    commits_seen(server, folder, seed, 10_000, index)


def test_a_second_writer_is_refused_and_told_who_holds_the_database(server: ForkServer, folder: Path) -> None:
    path = folder / "db"
    with vecdb.open(path):
        status, found = server.call("refused", path=str(path), seconds_max=1.0)  # or it counts as hung
        assert status == 0, found
        assert found["error"] == "Locked"
        assert str(os.getpid()) in found["text"]
        with vecdb.open(path) as shared:  # a second handle of this process has the same database
            assert shared.collections() == []
        with pytest.raises(vecdb.Locked, match="this process"):
            vecdb.open(path, durability="relaxed")
    status, found = server.call("refused", path=str(path))
    assert found["error"] is None, "the lock outlived the writer"


def test_the_lock_goes_with_a_killed_writer(server: ForkServer, folder: Path) -> None:
    path, ledger = folder / "db", folder / "ledger"
    child = server.fork("lifecycle", path=str(path), ledger=str(ledger), seed=1)
    from tests.reliability.harness import wait_for_lines

    wait_for_lines(ledger, b'"ready"', 1, child)
    with pytest.raises(vecdb.Locked, match=str(child.pid)):
        vecdb.open(path)
    child.kill()
    assert child.wait() == -9
    with vecdb.open(path) as db:
        assert db.check() == []


def test_a_forked_child_is_refused(server: ForkServer, folder: Path) -> None:
    status, found = server.call("forked", path=str(folder / "db"))
    assert status == 0, found
    assert found == {"errors": ["Unavailable"] * 5, "parent": 1}


def test_readers_that_died_are_cleared(server: ForkServer, folder: Path) -> None:
    path = folder / "db"
    with open_database(path, maintenance=False) as db:
        c = db.create_collection(NAME, DIM, "l2")
        c.upsert([1], vectors_of([1], [1]))
        with reading(server, folder, path) as (child, ask):
            assert ask(hold=True)["count"] == 1  # inside an iterator: its transaction is open
            os.kill(child.pid, signal.SIGKILL)
            assert child.wait() == -9
        assert db._backend.store.clear_dead_readers() >= 1
        assert db._backend.store.clear_dead_readers() == 0


def test_opening_and_closing_leaks_nothing(server: ForkServer, folder: Path) -> None:
    leaks(server, folder, 100)


@pytest.mark.slow
def test_a_thousand_times_opening_and_closing_leaks_nothing(server: ForkServer, folder: Path) -> None:
    leaks(server, folder, 1_000)


def leaks(server: ForkServer, folder: Path, cycles: int) -> None:
    status, found = server.call("cycles", path=str(folder / "db"), cycles=cycles, seconds_max=600.0)
    assert status == 0, found
    print(f"after {cycles} cycles: {found}")
    before, after = found["before"], found["after"]
    assert after["descriptors"] == before["descriptors"]
    assert after["threads"] == before["threads"]
    assert after["mappings"] <= before["mappings"] + 20
    assert after["files"] == before["files"]
    assert after["resident_bytes"] <= before["resident_bytes"] + (8 << 20) + 4_096 * cycles
    assert threading.active_count() >= 1


@pytest.mark.parametrize(
    "index", ["auto", *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("spann", "spann-disk", "curator"))]
)
def test_a_reader_leaks_nothing_while_the_writer_seals_and_vacuums(
    server: ForkServer, folder: Path, index: str
) -> None:
    path = folder / "db"
    with open_database(path, maintenance=False, durability="relaxed") as db:
        c = db.create_collection(NAME, DIM, "l2", index_of(index))
        c.upsert(list(range(500)), vectors_of(range(500), [1] * 500))
        with reading(server, folder, path) as (_, ask):
            counts = []
            for n in range(40):
                c.upsert(list(range(100)), vectors_of(range(100), [n + 2] * 100))
                c.optimize()
                c.vacuum()
                assert ask(count=True)["count"] == 500
                counts.append(ask(resources=True))
            assert counts[-1]["descriptors"] <= counts[5]["descriptors"], "descriptors of old generations stay open"
            assert counts[-1]["mappings"] <= counts[5]["mappings"] + 5, "mappings of old generations stay"
