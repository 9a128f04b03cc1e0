"""A batch of queries can be given up between chunks, and is answered from one committed state however it is cut."""

from __future__ import annotations

import itertools
import signal
from typing import Any

import numpy as np
import pytest

import vecdb
from vecdb.index.contract import Neighbors
from vecdb.query import cancellation
from vecdb.query.planner import Plan


@pytest.mark.parametrize("index", [vecdb.Flat(), vecdb.Hnsw(m=8, ef_construction=40), vecdb.Spann(bits=4)])
def test_chunks_give_the_answer_of_the_whole(index: vecdb.Flat, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cancellation, "_CHUNK_S", 1e-9)
    monkeypatch.setattr(cancellation, "_TOGETHER", 1)
    generator = np.random.default_rng(5)
    vectors = generator.random((500, 16), np.float32)
    with vecdb.open(":memory:") as db:
        docs = db.create_collection("docs", 16, index=index)
        docs.upsert(range(500), vectors, [{"n": i} for i in range(500)])
        docs.optimize()
        whole = docs.search(vectors[:50], 5)
        asked = itertools.count()
        parts = docs.search(vectors[:50], 5, stop=lambda: next(asked) < 0)
        assert next(asked) > 20
        assert parts.to_list() == whole.to_list()
        assert parts.sequence == whole.sequence


def test_a_scan_compares_many_queries_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cancellation, "_CHUNK_S", 1e-9)
    vectors = np.random.default_rng(5).random((300, 16), np.float32)
    with vecdb.open(":memory:") as db:
        docs = db.create_collection("docs", 16, index=vecdb.Flat())
        docs.upsert(range(300), vectors)
        asked = itertools.count()
        docs.search(vectors[:200], 5, stop=lambda: next(asked) < 0)
        assert next(asked) == 4, "64 at once"
        monkeypatch.setattr(cancellation, "_TOGETHER_PRODUCTS", 64 * 300 * 16 - 1)
        asked = itertools.count()
        docs.search(vectors[:200], 5, stop=lambda: next(asked) < 0)
        assert next(asked) > 100, "where 64 take long they are cut"


def test_a_search_that_nobody_waits_for_is_given_up() -> None:
    vectors = np.random.default_rng(5).random((500, 16), np.float32)
    with vecdb.open(":memory:") as db:
        docs = db.create_collection("docs", 16)
        docs.upsert(range(500), vectors)
        answers = iter([False, True])
        with pytest.raises(vecdb.Unavailable, match="after 64 of 500"):
            docs.search(vectors, 5, stop=lambda: next(answers))


@pytest.mark.parametrize(("query_s", "scanned_rows"), [(0.000_02, 0), (0.005, 0), (0.5, 1 << 26)])
def test_ctrl_c_finds_its_way_between_two_chunks_of_any_batch(
    monkeypatch: pytest.MonkeyPatch, query_s: float, scanned_rows: int
) -> None:
    """By a clock of its own: a query takes `query_s`; no piece takes long, and a fast batch is cut in few."""
    now, sizes = [0.0], []
    monkeypatch.setattr(cancellation.time, "perf_counter", lambda: now[0])

    def find(part: np.ndarray) -> Neighbors:
        sizes.append(len(part))
        now[0] += len(part) * query_s
        rows = part[:, :1].astype(np.int64)
        return Neighbors(rows, part[:, :1], np.ones(len(part), np.int64), np.ones(3, np.int64))

    queries = np.arange(20_000, dtype=np.float32).reshape(-1, 1).repeat(8, axis=1)
    found = cancellation.find_in_chunks(find, queries, scanned_rows)
    assert found.rows[:, 0].tolist() == list(range(20_000)) and sum(sizes) == 20_000
    assert max(sizes) * query_s <= 0.5
    assert len(sizes) <= 6 or query_s > 0.001


@pytest.mark.parametrize("call", ["search", "evaluate", "tune"])
def test_ctrl_c_ends_a_batch(call: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The signal comes while a chunk is being answered; nothing is answered after it."""
    vectors = np.random.default_rng(5).random((2_000, 16), np.float32)
    with vecdb.open(":memory:") as db:
        monkeypatch.setattr(vecdb.limits, "flat_rows_max", 100)
        docs = db.create_collection("docs", 16, index=vecdb.Hnsw() if call == "tune" else vecdb.Flat())
        docs.upsert(range(2_000), vectors)
        docs.optimize()
        index = docs._backend.state.snapshot.generation.index
        answered: list[int] = []
        real = type(index).search

        def search(self: Any, queries: Any, *arguments: Any, **named: Any) -> Any:
            answered.append(len(queries))
            if len(answered) == 2:
                signal.raise_signal(signal.SIGINT)
            return real(self, queries, *arguments, **named)

        monkeypatch.setattr(type(index), "search", search)
        with pytest.raises(KeyboardInterrupt):
            {"search": docs.search, "evaluate": docs.evaluate, "tune": docs.tune}[call](vectors)
        assert sum(answered) < 2_000
        monkeypatch.undo()
        assert docs.search(vectors[:1], 1).ids.tolist() == [[0]], "it goes on"


@pytest.mark.parametrize(("beam", "first"), [(0, 64), (50, 2_621), (4_096, 64)])
def test_the_first_chunk_is_as_long_as_narrow_beams_allow(beam: int, first: int) -> None:
    sizes: list[int] = []

    def search(part: np.ndarray) -> tuple[Neighbors, Plan]:
        sizes.append(len(part))
        rows = np.zeros((len(part), 1), np.int64)
        return Neighbors(rows, part[:, :1], np.ones(len(part), np.int64), np.ones(3, np.int64)), Plan("graph", beam, "")

    cancellation.search_in_chunks(search, np.zeros((10_000, 2), np.float32), None, 0, beam)
    assert sizes[0] == first and sum(sizes) == 10_000
