"""Collections over posting lists: other processes that read along, builds that were stopped, damage."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vecdb
from tests.support.corpus import EXACT, clustered, sound
from tests.support.spann.collection import DIM, KINDS, care, exact, lengths_of, recall
from vecdb import limits
from vecdb.api.database import Database
from vecdb.embedded.open import open_database
from vecdb.index.spann import bulk_build
from vecdb.maintenance import index_jobs
from vecdb.schema import Spann
from vecdb.state import collection_state

pytestmark = pytest.mark.usefixtures("lists_are_used")

# -- other processes -------------------------------------------------------------------------------


_FOLLOWER = """
import json, sys
import vecdb
from vecdb import limits
limits.flat_rows_max = 64
db = vecdb.open(sys.argv[1], read_only=True)
docs = db.collection("docs")
for line in sys.stdin:
    query, limit, nprobe = json.loads(line)
    near = docs.search(query, limit, params=vecdb.SearchParams(nprobe=nprobe), explain=True)
    true = docs.search(query, limit, params=vecdb.SearchParams(exact=True))
    print(json.dumps({
        "count": docs.count(), "near": near.ids.tolist(), "true": true.ids.tolist(), "plan": near.explain["plan"],
        "distances": near.distances.tolist(), "truth": true.distances.tolist(), "sequence": near.sequence,
        "indexed": near.explain["indexed_rows"], "state": docs.stats()["index_state"],
        "kind": docs.stats()["index"]["kind"], "sealed": docs.stats()["sealed_rows"],
    }), flush=True)
db.close()
"""


class Follower:
    """A process that has the database open for reading."""

    def __init__(self, path: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", _FOLLOWER, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env={**os.environ, "PYTHONPATH": str(Path(vecdb.__file__).parent.parent)},
        )  # fmt: skip

    def ask(self, queries: np.ndarray, limit: int, nprobe: int) -> dict[str, Any]:
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(json.dumps([queries.tolist(), limit, nprobe]) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        assert line, "the reading process died"
        return dict(json.loads(line))


@contextmanager
def following(path: Path) -> Iterator[Follower]:
    follower = Follower(path)
    try:
        yield follower
    finally:
        assert follower.process.stdin is not None and follower.process.stdout is not None
        follower.process.stdin.close()
        assert follower.process.wait(60) == 0
        follower.process.stdout.close()


@pytest.mark.parametrize(
    "name", ["disk", pytest.param("memory", marks=pytest.mark.slow), pytest.param("both", marks=pytest.mark.slow)]
)
def test_a_reading_process_follows_a_writer_that_seals_splits_vacuums_and_reindexes(tmp_path: Path, name: str) -> None:
    kind, vectors, queries = KINDS[name], clustered(3_000), clustered(20, seed=2)
    live: set[int] = set()
    with open_database(tmp_path / "db", maintenance=False, durability="relaxed") as db:
        docs = db.create_collection("docs", DIM, "l2", kind)
        with following(tmp_path / "db") as follower:

            def look(plan: str, indexed: int) -> None:
                got = follower.ask(queries, 10, 1 << 15)
                assert (got["plan"], got["indexed"], got["count"]) == (plan, indexed, len(live))
                assert got["sequence"] == docs._backend.state.snapshot.visibility.sequence
                assert {one for line in got["near"] for one in line} <= live
                true = docs.search(queries, 10, params=EXACT)
                assert got["true"] == true.ids.tolist()
                near = np.array(got["distances"])
                assert (near <= true.distances[:, -1:] * (1 + 1e-5)).mean() > 0.9 and near.shape == (20, 10)

            def write(first: int, stop: int) -> None:
                docs.upsert(range(first, stop), vectors[first:stop])
                live.update(range(first, stop))

            write(0, 800)
            look("exact", 0)
            care(docs)
            docs._backend.jobs.seal(2)
            heads = len(lengths_of(docs))
            look("lists", 800)
            write(800, 1_400)
            look("lists", 800)  # the rest is its tail
            care(docs)
            look("lists", 800)  # what the writer has placed but not sealed is its own
            docs._backend.jobs.seal(2)
            look("lists", 1_400)
            for stop in range(1_800, 3_001, 400):
                docs.delete(range(stop - 1_800, stop - 1_500))
                live.difference_update(range(stop - 1_800, stop - 1_500))
                write(stop - 400, stop)
                care(docs)
                docs._backend.jobs.seal(2)
                look("lists", stop)
            assert len(lengths_of(docs)) > heads, "lists were split"
            docs.vacuum()
            look("lists", len(live))
            docs.reindex(vecdb.Flat())
            look("exact", len(live))
            docs.reindex(replace(kind, bits=8))
            look("lists", len(live))
            docs.delete(sorted(live)[:50])
            live.difference_update(sorted(live)[:50])
            look("lists", len(live) + 50)


# -- a build that is stopped -----------------------------------------------------------------------


class Stopped(Exception):
    pass


def stopped_build(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A closed database whose one bulk build ended once all rows had found their lists."""
    monkeypatch.setattr(limits, "saved_build_rows_min", 256)

    def stop(*_: Any, **__: Any) -> None:
        raise Stopped

    with monkeypatch.context() as patch, open_database(folder, maintenance=False, durability="relaxed") as db:
        docs = db.create_collection("docs", DIM, "l2", KINDS["disk"])
        docs.upsert(range(1_500), clustered(1_500))
        patch.setattr(bulk_build, "_bodies", stop)
        with pytest.raises(Stopped):
            docs.optimize()


def left_by_a_build(docs: Any) -> dict[str, bytes]:
    return {
        path.name: path.read_bytes()
        for path in docs._backend.state.folder.iterdir()
        if path.name[:4] in ("tree", "entr")
    }


def test_an_open_keeps_what_the_next_build_can_use_and_the_seal_ends_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stopped_build(tmp_path / "db", monkeypatch)
    with open_database(tmp_path / "db", maintenance=False) as db:
        docs = db["docs"]
        left = left_by_a_build(docs)
        assert len(left) == 2
        with monkeypatch.context() as patch:
            patch.setattr(bulk_build, "grow_tree", None)
            docs.optimize()
        assert docs.stats()["index_state"] == "ready" and left_by_a_build(docs) == {}
        assert recall(docs, clustered(20, seed=2), None) > 0.9 and db.check() == []
        folder = docs._backend.state.folder
    for name, raw in left.items():
        (folder / name).write_bytes(raw)  # as after a crash between the commit of a seal and the removal of these
    with open_database(tmp_path / "db", maintenance=False) as db:
        assert left_by_a_build(db["docs"]) == {}, "the index has been sealed since"


def test_a_vacuum_and_a_drop_leave_nothing_of_a_stopped_build(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stopped_build(tmp_path / "db", monkeypatch)
    with open_database(tmp_path / "db", maintenance=False) as db:
        docs = db["docs"]
        docs.delete(range(100))
        docs.vacuum()
        assert left_by_a_build(docs) == {} and docs.count() == 1_400
        docs.optimize()
        assert docs.stats()["tail_rows"] == 0 and db.check() == []
        folder = docs._backend.state.folder
        db.drop_collection("docs")
        assert not folder.exists()


def test_progress_of_optimize_counts_learning_and_ends_with_the_last_row(
    db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    docs = db.create_collection("docs", DIM, "l2", Spann())
    docs.upsert(range(1_500), clustered(1_500))
    reports: list[tuple[int, int]] = []
    before: list[int] = []
    learn_recall = index_jobs.learn_recall
    monkeypatch.setattr(
        index_jobs,
        "learn_recall",
        lambda *given, **named: (before.append(reports[-1][0]) if reports else None, learn_recall(*given, **named))[1],
    )
    docs.optimize(progress=lambda done, total: reports.append((done, total)))
    assert reports[0] == (0, 1_500) and reports[-1] == (1_500, 1_500)
    assert 1_000 < before[0] < 1_500
    assert [done for done, _ in reports] == sorted({done for done, _ in reports})


# -- damage ----------------------------------------------------------------------------------------


def damage_lists(folder: Path) -> None:
    """Flip a bit in the first page of every extent of the list file."""
    (path,) = folder.glob("collections/*/lists.*")
    raw = bytearray(path.read_bytes())
    for place in range(4096, len(raw), 4096):
        if raw[place + 4 : place + 8] == b"VEXT":
            raw[place + 100] ^= 4
    path.write_bytes(raw)


def damaged(folder: Path, kind: Spann, *, reindexed: bool = False) -> None:
    """A closed database of 1,500 rows whose lists are damaged on disk."""
    with open_database(folder, maintenance=False, durability="relaxed") as db:
        docs = db.create_collection("docs", DIM, "l2", kind)
        docs.upsert(range(1_500), clustered(1_500))
        if reindexed:
            docs.reindex(kind)
        docs.optimize()
        assert docs.stats()["sealed_rows"] >= 1_500 - limits.index_step_rows
    damage_lists(folder)


def test_a_damaged_extent_gives_exact_answers_at_once_and_is_built_anew_by_optimize(
    tmp_path: Path, kind: Spann, caplog: pytest.LogCaptureFixture
) -> None:
    """Lists in memory are found out at the open, those on disk by the search that reads one."""
    damaged(tmp_path / "db", kind)
    queries = clustered(20, seed=2)
    with open_database(tmp_path / "db", maintenance=False) as db:
        docs = db["docs"]
        if kind.memory_budget_bytes == 0:
            assert docs.stats()["index_state"] == "ready", "nobody has looked"
            assert any("extent" in problem for problem in docs._backend.check())
            assert docs.search(queries[0], 10, explain=True).plan == "exact"
        assert exact(docs, queries)
        stats = docs.stats()
        assert stats["index_state"] == "rebuilding" and "extent" in stats["index_error"]
        assert any("index damaged, rebuilding" in record.message for record in caplog.records)
        docs.upsert(2_000, np.full(DIM, 9))
        docs.delete(3)
        assert docs.search(np.full(DIM, 9), 1).ids.tolist() == [2_000] and docs.get(3) is None
        assert exact(docs, queries)
        docs.optimize()
        stats = docs.stats()
        assert (stats["index_state"], stats["index_error"], stats["tail_rows"]) == ("ready", None, 0)
        hits = docs.search(queries, 10, explain=True)
        assert hits.plan == "lists" and recall(docs, queries, None) > 0.9 and db.check() == []
    with open_database(tmp_path / "db", maintenance=False) as db:
        assert db["docs"].search(queries, 10, explain=True).plan == "lists" and db.check() == []
        assert len(list(db["docs"]._backend.state.folder.iterdir())) == 3, "the damaged file is gone"


@pytest.mark.parametrize("step", ["optimize", "vacuum", "reindex", "index_tail", "repair", "seal", "tune"])
def test_every_step_of_care_that_meets_damage_ends_with_a_sound_index(tmp_path: Path, step: str) -> None:
    damaged(tmp_path / "db", KINDS["disk"])
    queries = clustered(20, seed=2)
    with open_database(tmp_path / "db", maintenance=False) as db:
        docs = db["docs"]
        docs.delete(range(200))
        docs.upsert(range(1_500, 1_700), clustered(200, seed=5))
        jobs = docs._backend.jobs
        steps = {
            "optimize": docs.optimize,
            "vacuum": docs.vacuum,
            "reindex": lambda: docs.reindex(replace(KINDS["disk"], bits=4)),
            "index_tail": lambda: jobs.index_tail(2, all_rows=True),
            "repair": lambda: jobs.repair(2),
            "seal": lambda: jobs.seal(2),
            "tune": lambda: docs.tune(queries, filter="not odd = true"),
        }
        steps[step]()
        sound(docs.search(queries, 10), set(range(200, 1_700)), 10)
        docs.optimize()
        assert docs.stats()["index_state"] == "ready" and docs.count() == 1_500
        assert docs.search(queries, 10, explain=True).plan == "lists" and recall(docs, queries, None) > 0.9
        assert db.check() == []


@pytest.mark.parametrize("name", ["disk", pytest.param("memory", marks=pytest.mark.slow)])
def test_a_reading_process_answers_exactly_from_damaged_lists_until_the_writer_has_sealed_others(
    tmp_path: Path, name: str
) -> None:
    damaged(tmp_path / "db", KINDS[name])
    queries = clustered(20, seed=2)
    with following(tmp_path / "db") as follower:
        for _ in range(2):
            got = follower.ask(queries, 10, 8)
            assert (got["plan"], got["state"], got["count"]) == ("exact", "rebuilding", 1_500)
            assert got["near"] == got["true"]
        with open_database(tmp_path / "db", maintenance=False, durability="relaxed") as db:
            docs = db["docs"]
            docs.search(queries, 10)
            docs.delete(range(10))
            got = follower.ask(queries, 10, 8)
            assert got["near"] == got["true"] and got["count"] == 1_490
            docs.optimize()
            got = follower.ask(queries, 10, 1 << 15)
            assert (got["plan"], got["state"], got["indexed"]) == ("lists", "ready", 1_500)


@pytest.mark.parametrize("index", [Spann(), vecdb.Hnsw(m=4, ef_construction=24)], ids=["spann", "hnsw"])
def test_what_maintenance_built_in_the_place_of_a_damaged_index_is_sealed_although_it_is_a_little_shorter(
    tmp_path: Path, index: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Maintenance indexes whole steps, optimize to the last row: the new one must not wait for the rows in between, or
    every open builds it again.
    """
    monkeypatch.setattr(collection_state, "_WRITTEN_S", 0.0)
    with open_database(tmp_path / "db", maintenance=False, durability="relaxed") as db:
        docs = db.create_collection("docs", DIM, "l2", index)
        docs.upsert(range(1_519), clustered(1_519))
        docs.optimize()
        sealed = docs._backend.state.folder / docs._backend.state.snapshot.state.sealed.file
    raw = bytearray(sealed.read_bytes())
    raw[len(raw) // 2] ^= 4
    sealed.write_bytes(raw)
    with open_database(tmp_path / "db", maintenance=False) as db:
        docs = db["docs"]
        assert docs.stats()["index_state"] == "rebuilding"
        while docs._backend.jobs.tail_is_due():  # a graph takes one bounded step a round
            db._backend._maintenance._serve(docs._backend.jobs)  # type: ignore[union-attr]
        db._backend._maintenance._serve(docs._backend.jobs)  # type: ignore[union-attr]
        assert docs.stats()["index_state"] == "ready"
    with open_database(tmp_path / "db", maintenance=False) as db:
        assert db["docs"].stats()["index_state"] == "ready" and db.check() == []


def test_a_damaged_index_of_a_collection_that_is_small_is_built_anew_by_optimize(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Reindexing may have built lists for fewer rows than are worth it."""
    monkeypatch.setattr(limits, "flat_rows_max", 4_096)
    damaged(tmp_path / "db", KINDS["memory"], reindexed=True)
    with open_database(tmp_path / "db", maintenance=False) as db:
        docs = db["docs"]
        assert docs.stats()["index_state"] == "rebuilding"
        docs.optimize()
        assert docs.stats()["index_state"] == "ready" and docs.stats()["index_error"] is None
