"""Goal: every answer is explained by one committed state between call and return; shutting things down under load
gives errors, no signals.

Runs that could crash the process happen in a process of their own.
"""

from __future__ import annotations

import contextlib
import gc
import os
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vecdb
from tests.support.corpus import EXACT, GRAPH, clustered
from tests.support.planner_costs import set_planner_costs
from tests.support.threads import together
from vecdb import limits
from vecdb.api.database import Database
from vecdb.commit.record_requests import UpsertRecords
from vecdb.embedded.open import open_database
from vecdb.errors import NotFound
from vecdb.maintenance import index_jobs
from vecdb.maintenance import vacuum as vacuum_module


@pytest.fixture
def busy_care(monkeypatch: pytest.MonkeyPatch) -> None:
    """Maintenance finds something to do in a few hundred rows."""
    monkeypatch.setattr(limits, "flat_rows_max", 32)
    monkeypatch.setattr(limits, "seal_rows_min", 64)
    monkeypatch.setattr(limits, "index_step_rows", 16)
    monkeypatch.setattr(index_jobs, "_REPAIR_ROWS_MIN", 8)
    monkeypatch.setattr(vacuum_module, "_PIECE_ROWS", 64)
    set_planner_costs(monkeypatch, scan_share=1e9)


@pytest.mark.parametrize(  # slow: two seconds; rows are the same under a graph
    "index",
    [
        pytest.param(vecdb.Flat(), id="flat", marks=pytest.mark.slow),
        pytest.param(vecdb.Hnsw(m=4, ef_construction=24, ef=16), id="hnsw"),
    ],
)
def test_each_answer_is_that_of_one_sequence_between_call_and_return(
    tmp_path: Path, busy_care: None, index: Any
) -> None:
    """A writer moves a window of ids forward; `history[sequence]`: which ids live then, and which version of each."""
    vectors = clustered(64, 8)
    history: dict[int, dict[int, int]] = {}
    done = threading.Event()
    with open_database(tmp_path / "db", durability="relaxed", maintenance=True) as db:
        docs = db.create_collection("docs", 8, "l2", index)
        docs.upsert(range(40), vectors[:40], [{"v": 0}] * 40)
        live = dict.fromkeys(range(40), 0)
        history[docs.stats()["sequence"]] = dict(live)
        acknowledged = [docs.stats()["sequence"]]
        problems: list[str] = []
        answers = [0]

        def write() -> None:
            try:
                for step in range(1, 80):
                    gone, new = sorted(live)[:2], [40 + 2 * step, 41 + 2 * step]
                    changed = sorted(live)[5:9]
                    docs.delete(gone)
                    for one in gone:
                        del live[one]
                    remember()
                    docs.upsert(new + changed, vectors[[one % 64 for one in new + changed]], [{"v": step}] * 6)
                    live.update(dict.fromkeys(new + changed, step))
                    remember()
            finally:
                done.set()

        def remember() -> None:
            # only this thread changes records; care commits in between without changing them
            acknowledged.append(docs._backend.state.snapshot.visibility.sequence)
            history[acknowledged[-1]] = dict(live)

        pending: list[Any] = []

        def read(seed: int) -> None:
            rng = np.random.default_rng(seed)
            last = 0
            while not done.is_set():
                before = acknowledged[-1]
                limit = int(rng.choice([1, 5, 40, 100]))
                params = EXACT if rng.random() < 0.5 else None
                hits = docs.search(vectors[rng.integers(64)], limit, params=params)
                found = list(zip(hits.ids.tolist(), [one["v"] for one in hits.fields], strict=True))
                if hits.sequence < max(before, last):
                    problems.append(f"sequence {hits.sequence} after {before} was acknowledged, {last} seen")
                last = hits.sequence
                pending.append((hits.sequence, limit, found))
                answers[0] += 1

        together(write, *(lambda seed=seed: read(seed) for seed in range(3)))
        assert problems == []
        states = sorted(history)
        for sequence, limit, found in pending:
            # the state of the newest write at or before `sequence`, or of one just committed and not yet remembered
            at = int(np.searchsorted(states, sequence, side="right")) - 1
            possible = [history[states[i]] for i in (at, at + 1) if i < len(states)]
            fits = [
                state
                for state in possible
                if len(found) == min(limit, len(state)) and all(state.get(one) == version for one, version in found)
            ]
            assert fits, f"sequence {sequence}: {found[:5]} fits none of the states around it"
        assert answers[0] > 30
        assert db.check() == []


def test_writes_of_many_threads_share_commits_and_all_last(tmp_path: Path) -> None:
    threads, rounds = 16, 8
    with open_database(tmp_path / "db", maintenance=False) as db:
        docs = db.create_collection("docs", 4, "l2")
        before = db.stats()
        start = threading.Barrier(threads)

        def work(which: int) -> None:
            for at in range(rounds):
                start.wait()
                one = which * rounds + at
                assert docs.upsert(one, [one, 0, 0, 1], {"n": one}) == 1
                assert docs.get(one).fields == {"n": one}, "a client reads its own acknowledged write"

        together(*(lambda which=which: work(which) for which in range(threads)))
        after = db.stats()
        requests, commits = after["requests"] - before["requests"], after["commits"] - before["commits"]
        assert requests == threads * rounds
        assert commits < requests, "threads that wait together share a commit"
        assert after["sequence"] - before["sequence"] == commits
    with open_database(tmp_path / "db", read_only=True) as db:
        assert [one.fields["n"] for one in db["docs"].get(range(threads * rounds))] == list(range(threads * rounds))


def test_one_request_that_fails_does_not_fail_its_group(db: Database) -> None:
    docs = db.create_collection("docs", 4, "l2")
    docs.upsert(0, [1, 1, 1, 1])
    start = threading.Barrier(8)
    refused: list[int] = []

    def work(which: int) -> None:
        for at in range(10):
            start.wait()
            if which % 2:
                docs.upsert(1 + which * 100 + at, [which, at, 0, 1])
            else:
                with pytest.raises(vecdb.AlreadyExists):
                    docs.insert([5_000 + which * 100 + at, 0], np.ones((2, 4)))
                refused.append(which)

    together(*(lambda which=which: work(which) for which in range(8)))
    assert len(refused) == 40 and docs.count() == 1 + 40
    assert docs.get([5_000, 5_200]) == [None, None] and db.check() == []


def test_snapshots_hold_while_vacuum_and_reindex_move_everything(busy_care: None, db: Database) -> None:
    n = 300
    vectors = clustered(n, 8)
    docs = db.create_collection("docs", 8, "l2", vecdb.Hnsw(m=4, ef_construction=24, ef=16))
    docs.upsert(range(n), vectors, [{"n": at, "x": "y" * 40} for at in range(n)])
    docs.optimize()
    done = threading.Event()
    read = [0]

    def care() -> None:
        try:
            for round in range(6):
                docs.upsert(range(n), vectors, [{"n": at, "round": round} for at in range(n)])
                docs.vacuum()
                docs.reindex([vecdb.Flat(), vecdb.Hnsw(m=4, ef_construction=24, ef=16)][round % 2])
        finally:
            done.set()

    def search() -> None:
        while not done.is_set():
            hits = docs.search(vectors[:3], 10, include_vectors=True)
            for at in range(3):
                assert hits[at].ids.tolist() == [one["n"] for one in hits[at].fields]
                assert np.array_equal(hits[at].vectors, vectors[hits[at].ids])
                assert len({one.get("round") for one in hits[at].fields}) == 1, (
                    "fields are those of the search's own snapshot"
                )
            read[0] += 1

    def walk() -> None:
        while not done.is_set():
            records = [record for batch in docs.iter(37, include_vectors=True) for record in batch]
            assert sorted(record.id for record in records) == list(range(n))
            assert len({record.fields.get("round") for record in records}) == 1
            for record in docs.get([5, 150, 299], include_vectors=True):
                assert record.fields["n"] == record.id and np.array_equal(record.vector, vectors[record.id])

    together(care, search, search, walk)
    assert read[0] > 5 and db.check() == []


def test_collections_dropped_and_made_anew_by_many_threads_never_mix(tmp_path: Path) -> None:
    with open_database(tmp_path / "db", durability="relaxed", maintenance=False) as db:

        def work(seed: int) -> None:
            rng = np.random.default_rng(seed)
            for at in range(40):
                try:
                    docs = db.create_collection("docs", 4, "l2", vecdb.Flat(), exist_ok=True)
                    one = seed * 1000 + at
                    docs.upsert([one, -1], np.full((2, 4), one), [{"n": one}] * 2)
                    record = docs.get(one)
                    assert record is None or record.fields == {"n": one}
                    if rng.random() < 0.3:
                        db.drop_collection("docs")
                except vecdb.NotFound:
                    continue  # another thread dropped it

        together(*(lambda seed=seed: work(seed) for seed in range(4)))
        docs = db.create_collection("docs", 4, "l2", vecdb.Flat(), exist_ok=True)
        docs.upsert(-1, [1, 1, 1, 1])
        assert db.check() == [] and docs.count() == sum(len(batch) for batch in docs.iter())
        names = sorted(os.listdir(tmp_path / "db" / "collections"))
        assert len(names) == 1, f"files of dropped collections are gone: {names}"


def test_a_vacuum_ends_beside_a_writer_that_never_rests(db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vacuum_module, "_PIECE_ROWS", 16)
    for name, index in (("flat", vecdb.Flat()), ("hnsw", GRAPH)):
        docs = db.create_collection(name, 4, "l2", index)
        docs.upsert(range(100), clustered(100, 4))
        docs.delete(range(50))
        writes = docs._backend.writes
        pieces = [0]
        real = type(writes).submit

        def submit(
            self: Any, request: Any, *more: Any, real: Any = real, docs: Any = docs, pieces: Any = pieces
        ) -> Any:
            out = real(self, request, *more)
            if isinstance(request, vacuum_module.CopyRows):
                pieces[0] += 1
                assert pieces[0] < 100, "each piece is followed by another"
                docs.upsert(1000 + pieces[0], [1, 1, 1, 1])
                docs.delete(60 + pieces[0])
            return out

        with monkeypatch.context() as patch:
            patch.setattr(type(writes), "submit", submit)
            docs.vacuum()
        assert pieces[0] >= 1
        assert db.check() == [] and docs.count() == 50
        assert {record.id for batch in docs.iter() for record in batch} == (
            set(range(50, 61)) | set(range(61 + pieces[0], 100)) | set(range(1001, 1001 + pieces[0]))
        )


def test_a_vacuum_that_fails_leaves_nothing_that_the_next_stumbles_over(
    db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vacuum_module, "_PIECE_ROWS", 16)
    docs = db.create_collection("docs", 4, "l2", vecdb.Flat())
    docs.upsert(range(100), clustered(100, 4))
    docs.delete(range(10))

    def fail(*arguments: Any) -> Any:
        raise RuntimeError("injected")

    with monkeypatch.context() as patch:
        patch.setattr(type(docs._backend.state.snapshot.generation.index), "renumbered", fail)
        with pytest.raises(RuntimeError, match="injected"):
            docs.vacuum()
    assert docs.count() == 90 and db.check() == []
    docs.delete(range(20, 60))
    docs.vacuum()
    assert db.check() == [] and docs.count() == 50 and docs.get(30) is None and docs.get(70) is not None


CLOSING = """
    import sys, threading, time
    import numpy as np
    import vecdb
    from vecdb.embedded.open import open_database

    sys.setswitchinterval(1e-5)
    rng = np.random.default_rng(int(sys.argv[2]))
    ends = {}

    def run(round):
        db = open_database(f"{sys.argv[1]}/db-{round}", durability="relaxed", maintenance=bool(round % 2))
        docs = db.create_collection("docs", 8, "l2", [vecdb.Flat(), vecdb.Hnsw(m=4, ef_construction=16)][round % 2])
        vectors = rng.normal(size=(400, 8)).astype("f4")
        docs.upsert(range(400), vectors, [{"n": n, "text": "x" * 60} for n in range(400)])
        docs.delete(range(50))
        other = docs.iter(7)
        next(other)
        calls = {
            "search": lambda: docs.search(vectors[0], 50).fields,
            "get": lambda: docs.get(range(100), include_vectors=True),
            "iter": lambda: [record for batch in docs.iter(20) for record in batch],
            "upsert": lambda: docs.upsert(range(20), vectors[:20], [{"a": 1}] * 20),
            "check": docs.check,
            "stats": db.stats,
            "care": lambda: (docs.vacuum(), docs.reindex(vecdb.Flat()), docs.optimize()),
            "suspended": lambda: next(other),
        }

        def work(name):
            while True:
                try:
                    calls[name]()
                except vecdb.VecdbError as error:
                    ends[name, error.code] = ends.get((name, error.code), 0) + 1
                    return
                except StopIteration:
                    return

        threads = [threading.Thread(target=work, args=(name,)) for name in list(calls) * 2 if name != "suspended"]
        threads.append(threading.Thread(target=work, args=("suspended",)))
        for thread in threads:
            thread.start()
        time.sleep(rng.random() * 0.05)  # closing at another moment each time
        if sys.argv[3] == "close":
            db.close()
        else:
            db.drop_collection("docs")
            calls["stats"] = docs.count
        for thread in threads:
            thread.join(60)
            assert not thread.is_alive(), "hangs"
        db.close()

    threading.excepthook = lambda args: (sys.excepthook(*args[:3]), __import__("os")._exit(3))
    for round in range(int(sys.argv[4])):
        run(round)
    print(sorted(ends))
    bad = {code for _, code in ends} - {"UNAVAILABLE" if sys.argv[3] == "close" else "NOT_FOUND"}
    assert not bad, ends
"""


def closing(folder: Path, how: str, rounds: int) -> None:
    root = os.pathsep.join(sys.path)
    made = subprocess.run(
        [sys.executable, "-X", "faulthandler", "-c", textwrap.dedent(CLOSING), str(folder), "7", how, str(rounds)],
        capture_output=True,
        text=True,
        timeout=500,
        env={**os.environ, "PYTHONPATH": root},
    )
    assert made.returncode == 0, made.stderr[-3000:]


@pytest.mark.parametrize("how", ["close", "drop"])
def test_closing_or_dropping_under_load_ends_every_call_in_an_error_of_ours(tmp_path: Path, how: str) -> None:
    closing(tmp_path, how, 6)


@pytest.mark.slow
@pytest.mark.parametrize("how", ["close", "drop"])
def test_closing_or_dropping_under_load_many_times(tmp_path: Path, how: str) -> None:
    closing(tmp_path, how, 150)


def test_closing_waits_for_no_suspended_iterator(tmp_path: Path) -> None:
    db = open_database(tmp_path / "db", maintenance=False)
    docs = db.create_collection("docs", 4, "l2")
    docs.upsert(range(10), np.ones((10, 4)))
    batches = docs.iter(3)
    assert len(next(batches)) == 3
    db.close()
    with pytest.raises(vecdb.Unavailable, match="closed"):
        next(batches)
    with open_database(tmp_path / "db", maintenance=False) as again:
        assert again["docs"].count() == 10


def test_many_cycles_leak_neither_descriptors_nor_threads(tmp_path: Path) -> None:
    def held() -> tuple[list[str], int]:
        """Files that are open, and threads. Sockets and epolls may be those of clients that earlier tests left."""
        there = []
        for descriptor in os.listdir("/proc/self/fd"):
            with contextlib.suppress(FileNotFoundError):  # that of the listing itself
                there.append(os.readlink(f"/proc/self/fd/{descriptor}"))
        return sorted(one for one in there if one.startswith("/")), threading.active_count()

    def is_no_more(before: tuple[list[str], int], threads: int = 0) -> bool:
        now = held()
        assert len(now[0]) <= len(before[0]), (now[0], before[0])
        return now[1] <= before[1] + threads

    def cycle(db: Database, at: int) -> None:
        docs = db.create_collection(f"c{at % 3}", 4, "l2", GRAPH)
        docs.upsert(range(30), clustered(30, 4))
        docs.delete(range(10))
        docs.optimize(threads=2)
        docs.vacuum()
        docs.search(np.ones((8, 4)), 3, params=vecdb.SearchParams(threads=2))
        db.drop_collection(f"c{at % 3}")

    with open_database(tmp_path / "db", durability="relaxed") as db:
        cycle(db, 0)
        before = held()
        for at in range(20):
            cycle(db, at)
        assert is_no_more(before, threads=2)
    before = held()
    for _ in range(10):
        with open_database(tmp_path / "db") as db:
            db.create_collection("kept", 4, "l2", exist_ok=True).upsert(1, [1, 1, 1, 1])
    assert is_no_more(before)


def test_maintenance_goes_on_where_a_collection_is_dropped_under_its_eyes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks, again = [], threading.Event()

    def tail_is_deferred(self: Any) -> bool:
        looks.append(self)
        if len(looks) == 1:
            raise NotFound("no collection 'docs'")
        again.set()
        return False

    monkeypatch.setattr(index_jobs.CollectionMaintenance, "tail_is_deferred", tail_is_deferred)
    with open_database(tmp_path / "db") as db:
        docs = db.create_collection("docs", 2, "l2")
        for i in range(1_000):
            docs.upsert(i, [1, 1])
            if again.is_set():
                break
        assert again.wait(20)


def test_nothing_of_a_write_is_held_once_it_has_returned(tmp_path: Path) -> None:
    """Not by the commit thread, which waits for the next one: a batch may have 256 MiB."""
    with open_database(tmp_path / "db") as db:
        docs = db.create_collection("docs", 8, "l2", vecdb.Flat())
        docs.upsert(range(100), np.ones((100, 8), np.float32))
        ends = time.monotonic() + 20

        def held() -> bool:
            return any(isinstance(one, UpsertRecords) and one.state is docs._backend.state for one in gc.get_objects())

        while held():  # the thread has told before it lets go
            assert time.monotonic() < ends
