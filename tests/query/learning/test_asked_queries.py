"""The sample of asked queries is uniform, bounded, and says when recall is to be measured on it."""

from __future__ import annotations

import numpy as np

import vecdb
from vecdb.api.database import Database
from vecdb.query.learning.asked_queries import AskedQueries


def numbered(first: int, count: int) -> np.ndarray:
    return np.repeat(np.arange(first, first + count, dtype=np.float32)[:, None], 2, axis=1)


def test_every_query_is_as_likely_to_be_kept_in_batches_of_any_size() -> None:
    tenths = np.zeros(10)
    for seed in range(40):
        asked = AskedQueries(2)
        asked._random.seed(seed)
        at, rng = 0, np.random.default_rng(seed)
        while at < 10_000:
            size = min(int(rng.integers(1, 400)), 10_000 - at)
            asked.offer(numbered(at, size))
            at += size
        kept = asked.take()[:, 0]
        assert len(kept) == 256
        tenths += np.histogram(kept, bins=10, range=(0, 10_000))[0]
    expected = tenths.sum() / 10
    assert (np.abs(tenths - expected) < 5 * np.sqrt(expected)).all(), tenths


def test_a_check_is_due_after_a_thousand_queries_and_then_ever_more_rarely() -> None:
    asked = AskedQueries(2)
    due = []
    for number in range(8_000):
        if asked.offer(numbered(number, 1)):
            assert asked.check_is_due
            due.append(number)
            assert len(asked.take()) == 256 and not asked.check_is_due
    assert due == [999, 2_999, 6_999]


def test_few_queries_are_no_sample_and_a_copy_is_taken() -> None:
    asked = AskedQueries(2)
    asked.offer(numbered(0, 63))
    assert len(asked.take()) == 0
    asked.offer(numbered(63, 1))
    taken = asked.take()
    assert taken[:, 0].tolist() == list(range(64))
    taken[:] = -1
    assert asked.take()[:, 0].min() == 0


def test_newer_queries_take_the_place_of_older_ones_after_a_check() -> None:
    asked = AskedQueries(2)
    asked.offer(numbered(0, 20_000))
    asked.take()
    asked.offer(numbered(100_000, 20_000))
    assert (asked.take()[:, 0] >= 100_000).mean() > 0.55


def test_vectors_of_many_dimensions_are_kept_in_bounded_memory() -> None:
    asked = AskedQueries(8_192)
    for number in range(200):
        asked.offer(np.full((1, 8_192), number, np.float32))
    assert asked.take().nbytes <= 2 << 20


def test_searches_of_each_way_are_counted(db: Database) -> None:
    rows = np.random.default_rng(1).normal(size=(50, 4)).astype(np.float32)
    docs = db.create_collection("docs", 4, "l2", vecdb.Hnsw())
    docs.upsert(range(50), rows, [{"n": at} for at in range(50)])
    docs.optimize()
    before = docs.stats()["queries"]
    for query in rows[:5]:
        docs.search(query, 3)
    docs.search(rows[:7], 3)
    docs.search(rows[0], 3, params=vecdb.SearchParams(exact=True))
    docs.search(rows[:2], 3, filter="n < 9")
    docs.search_mixture([1, 2], 3)
    assert docs.stats()["queries"] - before == 5 + 7 + 1 + 2 + 1
