"""Learning that nobody waits for leaves most of the time to searches, and none where nobody searches."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

import vecdb
from vecdb.api.database import Database
from vecdb.maintenance import index_jobs

VECTORS = np.random.default_rng(1).normal(size=(5_000, 8)).astype(np.float32)


def test_learning_rests_between_its_parts_while_there_are_searches(
    db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a clock of its own: each look at it is two hundredths of a second later."""
    now, slept = [0.0], []

    def monotonic() -> float:
        now[0] += 0.02
        return now[0]

    docs = db.create_collection("docs", 8, "l2", vecdb.Hnsw(m=6, ef_construction=40))
    docs.upsert(range(5_000), VECTORS)
    jobs = docs._backend.jobs
    jobs.index_tail(2, all_rows=True)
    monkeypatch.setattr(index_jobs, "time", SimpleNamespace(monotonic=monotonic, sleep=slept.append))
    searched = [False]
    monkeypatch.setattr(jobs.writes, "is_searched", lambda: searched[0])
    jobs.learn(1, rests=True)
    assert docs.stats()["recall"]["rows"] == 5_000 and slept == [], "nobody searches"
    searched[0] = True
    jobs.learn(1)
    assert slept == [], "somebody waits for it"
    jobs.learn(1, rests=True)
    assert len(slept) > 5 and slept == pytest.approx([3 * 0.02] * len(slept))
    slept.clear()
    docs.upsert(range(5_000, 10_000), VECTORS)
    jobs.learn(1, rests=True)
    assert slept == [], "rows wait to be indexed"


def test_a_database_that_closes_does_not_wait_for_a_rest(db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    docs = db.create_collection("docs", 8, "l2", vecdb.Hnsw(m=6, ef_construction=40))
    docs.upsert(range(5_000), VECTORS)
    jobs = docs._backend.jobs
    jobs.index_tail(2, all_rows=True)
    slept: list[float] = []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        jobs.is_ending = lambda: True

    monkeypatch.setattr(index_jobs, "time", SimpleNamespace(monotonic=iter(range(0, 10**6, 60)).__next__, sleep=sleep))
    monkeypatch.setattr(jobs.writes, "is_searched", lambda: True)
    with pytest.raises(vecdb.Unavailable, match="is being closed"):
        jobs.learn(1, rests=True)
    assert slept == [index_jobs._REST_S_MAX]
