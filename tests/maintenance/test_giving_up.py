"""Goal: closing a database waits for no whole build, and Ctrl-C ends one: what was given up leaves all as it was."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vecdb
from vecdb import limits
from vecdb.embedded.open import open_database
from vecdb.errors import Unavailable
from vecdb.maintenance import vacuum

INDEXES = [vecdb.Hnsw(m=8, ef_construction=40), vecdb.Spann(bits=4), vecdb.Curator()]
WORKS: dict[str, Callable[[Any, Any], Any]] = {
    "optimize": lambda docs, progress: docs.optimize(progress=progress),
    "reindex": lambda docs, progress: docs.reindex(docs.config.index, progress=progress),
    "vacuum": lambda docs, progress: docs.vacuum(progress=progress),
    "rebuild": lambda docs, progress: docs._backend.jobs.rebuild(2, progress),
}
ROWS = 2_500


def filled(db: Any, index: Any, *, indexed: bool) -> Any:
    docs = db.create_collection("docs", 8, "l2", index)
    docs.upsert(range(ROWS), np.random.default_rng(1).normal(size=(ROWS, 8)).astype(np.float32))
    if indexed:
        docs.optimize()
    docs.delete(range(0, ROWS, 3))
    return docs


CASES = [(index, work, way) for index in INDEXES for work in WORKS for way in ("closing", "interrupt")]
FAST = [case for n, case in enumerate(CASES) if case[0] is INDEXES[0] or n % 5 == 0]
SLOW = [pytest.param(*case, marks=pytest.mark.slow) for case in CASES if case not in FAST]


@pytest.mark.parametrize(("index", "work", "way"), [*FAST, *SLOW])
def test_work_that_is_given_up_leaves_all_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, work: str, index: Any, way: str
) -> None:
    monkeypatch.setattr(limits, "flat_rows_max", 1_000)
    monkeypatch.setattr(vacuum, "_PIECE_ROWS", 500)
    with open_database(tmp_path / "db", maintenance=False) as db:
        docs = filled(db, index, indexed=work != "optimize")
        query = np.zeros(8, np.float32)
        before = docs.search(query, 10, params=vecdb.SearchParams(exact=True)).to_list()
        calls: list[int] = []

        def give_up(done: int, whole: int) -> None:
            calls.append(done)
            if way == "interrupt":
                raise KeyboardInterrupt
            db._backend._usable.ending = True

        with pytest.raises(KeyboardInterrupt if way == "interrupt" else Unavailable):
            WORKS[work](docs, give_up)
        assert len(calls) == 1, "it went on"
        db._backend._usable.ending = False
        assert docs.search(query, 10, params=vecdb.SearchParams(exact=True)).to_list() == before
        assert docs.search(query, 10).counts == 10 and db.check() == []
        WORKS[work](docs, None)
        assert docs.search(query, 10, params=vecdb.SearchParams(exact=True)).to_list() == before
        assert db.check() == []
    with open_database(tmp_path / "db", maintenance=False) as db:
        assert db["docs"].count() == len(range(ROWS)) - len(range(0, ROWS, 3)) and db.check() == []


def test_close_waits_for_no_whole_build(tmp_path: Path) -> None:
    begun, gone = threading.Event(), threading.Event()
    ended: list[Any] = []
    db = open_database(tmp_path / "db", maintenance=False)
    docs = filled(db, INDEXES[0], indexed=True)

    def progress(done: int, whole: int) -> None:
        ended.append(done)
        begun.set()
        gone.wait()

    def build() -> None:
        try:
            docs.reindex(INDEXES[0], progress=progress)
        except Unavailable as error:
            ended.append(error)

    thread = threading.Thread(target=build)
    thread.start()
    begun.wait()
    closing = threading.Thread(target=db.close)
    closing.start()
    while not db._backend._usable.ending:
        pass
    gone.set()
    thread.join()
    closing.join()
    assert len(ended) == 2 and isinstance(ended[-1], Unavailable), ended
