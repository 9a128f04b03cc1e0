"""A database restored from its log at any commit, or moment, has exactly what it had then."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vecdb
from tests.model.driver import SEED
from tests.support.replication.copies import log_of, sequence_of
from vecdb import limits
from vecdb.embedded.open import open_database
from vecdb.replication.log import replaying

VECTORS = np.random.default_rng(4).normal(size=(64, 8)).astype(np.float32)
State = dict[int, tuple[int, dict[str, Any]]]


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(limits, "log_wait_s", 0.02)  # some commits share an object
    monkeypatch.setattr(limits, "flat_rows_max", 10)
    monkeypatch.setattr(limits, "log_inline_bytes", 2_000)
    yield


def found(db: Any) -> State:
    records = [one for page in db["docs"].iter(include_vectors=True) for one in page]
    assert all(any((one.vector == row).all() for row in VECTORS) for one in records)
    return {one.id: (int(np.flatnonzero((one.vector == VECTORS).all(axis=1))[0]), one.fields) for one in records}


def restored(url: str, folder: Path, at: Any) -> tuple[int, State]:
    shutil.rmtree(folder, ignore_errors=True)
    vecdb.restore(url, folder, at=at)
    with open_database(folder, read_only=True) as db:  # to open it for writing may make a commit, of what is garbage
        assert db.check() == []
        state = sequence_of(db), found(db)
    with open_database(folder, maintenance=False) as db:
        assert found(db) == state[1]
        db["docs"].upsert(1_000, VECTORS[0])
        assert db.check() == [] and len(db["docs"]) == len(state[1]) + 1
    return state


class History:
    """Random writes to one collection. states : by commit.   times : a moment after each write, and its commit."""

    def __init__(self, db: Any, index: Any) -> None:
        self._db, self._docs = db, db.create_collection("docs", 8, "l2", index)
        self._rng, self._now = np.random.default_rng(SEED), {}
        self.states: dict[int, State] = {}
        self.times: list[tuple[datetime, int]] = []
        self._note()

    def _note(self) -> None:
        now = sequence_of(self._db)
        for at in range(max(self.states, default=now - 1) + 1, now + 1):
            self.states[at] = dict(self._now)
        self.times.append((datetime.now(UTC), now))

    def write(self, count: int) -> None:
        for number in range(count):
            some, rng = int(self._rng.integers(40)), self._rng
            if rng.random() < 0.2 and some in self._now:
                self._docs.delete(some)
                self._now.pop(some)
            else:
                vector, fields = int(rng.integers(64)), {"n": number}
                self._docs.upsert(some, VECTORS[vector], fields)
                self._now[some] = vector, fields
            self._note()
            if number % 25 == 24:
                self._docs.optimize()
                self._docs.vacuum()
                self._note()


@pytest.mark.parametrize(
    ("index", "times"),
    [
        (vecdb.Hnsw(), 4),
        *(pytest.param(one, 20, marks=pytest.mark.slow) for one in (vecdb.Hnsw(), vecdb.Spann(), vecdb.Curator())),
    ],
)
def test_any_commit_and_any_moment_come_back_exactly(
    index: Any, times: int, tmp_path: Path, url_of: Callable[[str], str]
) -> None:
    print(f"VECDB_SEED={SEED}")
    url, rng = url_of("file"), np.random.default_rng(SEED)
    with open_database(tmp_path / "db", log=url, maintenance=False) as db:
        log_of(db).snapshots.wait()
        history = History(db, index)
        history.write(30 * times if times > 4 else 60)
        assert log_of(db).flush(60)
    first = min(history.states)
    for at in rng.integers(first, max(history.states) + 1, times).tolist():
        assert restored(url, tmp_path / "new", at) == (at, history.states[at])
    for at in rng.integers(0, len(history.times) - 1, times).tolist():
        moment, sequence = history.times[at]
        assert restored(url, tmp_path / "new", moment) == (sequence, history.states[sequence])
    assert restored(url, tmp_path / "new", None)[1] == history.states[max(history.states)]
    assert restored(url, tmp_path / "new", 10**9)[0] == max(history.states)
    with pytest.raises(vecdb.NotFound, match="goes back to commit"):
        vecdb.restore(url, tmp_path / "older", at=history.times[0][0] - timedelta(days=1))
    with pytest.raises(vecdb.InvalidArgument, match="another directory has gone on"):
        vecdb.restore(url, tmp_path / "parted", at=first)
        open_database(tmp_path / "parted", log=url)


def test_a_log_goes_on_through_epochs_and_says_what_it_has_let_go(tmp_path: Path, url_of: Callable[[str], str]) -> None:
    url = url_of("file")
    with open_database(tmp_path / "db", log=url, maintenance=False) as db:
        log_of(db).snapshots.wait()
        history = History(db, vecdb.Flat())
        history.write(5)
    first = max(history.states)
    with open_database(tmp_path / "db", log=url, maintenance=False) as db:  # another epoch
        db["docs"].upsert(99, VECTORS[9], {"n": 9})
        kept = sequence_of(db)
    with open_database(tmp_path / "db", maintenance=False) as db:  # nobody ships these
        db["docs"].upsert(100, VECTORS[10], {"n": 10})
        db["docs"].upsert(101, VECTORS[11], {"n": 11})
        lost = sequence_of(db)
    with open_database(tmp_path / "db", log=url, maintenance=False) as db:
        db["docs"].upsert(102, VECTORS[12], {"n": 12})
        log_of(db).snapshots.wait()
        last = sequence_of(db)
    assert restored(url, tmp_path / "new", first) == (first, history.states[first])
    assert restored(url, tmp_path / "new", kept)[0] == kept
    assert restored(url, tmp_path / "new", last)[0] == last and 101 in restored(url, tmp_path / "new", None)[1]
    with pytest.raises(vecdb.NotFound, match=f"has let go the commits after {kept}"):
        vecdb.restore(url, tmp_path / "gone", at=lost - 1)
    assert not (tmp_path / "gone").exists()


def test_a_time_without_a_zone_is_refused() -> None:
    with pytest.raises(vecdb.InvalidArgument, match="no time zone"):
        replaying.Until(datetime(2026, 1, 1))
