"""Posting lists on disk find what the exact scan finds, for every metric and type, at every stage of their life."""

from __future__ import annotations

import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.index_rows import clustered
from tests.support.spann.index import (
    ALL,
    EXACT,
    WIDE,
    Make,
    add_all,
    assert_true,
    contents,
    reached,
    same,
    view_of,
)
from vecdb.index.row_set import RowSet
from vecdb.index.spann.spann_index import SpannIndex
from vecdb.schema import NUMBER_DTYPES, NUMBER_METRICS, SearchParams, Visibility


@pytest.mark.parametrize("dtype", NUMBER_DTYPES)
@pytest.mark.parametrize("metric", NUMBER_METRICS)
def test_recall_and_distances_for_every_metric_and_type(make: Make, metric: str, dtype: str) -> None:
    vectors = clustered(2000, 24, dtype)
    queries = clustered(60, 24, dtype, 9).astype(np.float32)
    rows, index = make(vectors, metric)
    found = index.search(queries, 10, rows.visibility(), WIDE)
    assert_true(found, metric, queries, rows)
    assert reached(index, rows, queries, 10, WIDE) > 0.92
    assert int(found.work[3]) < 60 * 61  # the answer came from lists, not from scans of everything
    if metric != "ip":
        own = index.search(vectors[:40].astype(np.float32), 1, rows.visibility(), WIDE)
        assert (own.distances[:, 0] == 0).mean() > 0.95


@pytest.mark.parametrize("metric", NUMBER_METRICS)
@pytest.mark.parametrize(("bits", "floor"), [(1, 0.85), (2, 0.92), (4, 0.98), (8, 0.995)])
def test_more_bits_find_more(make: Make, metric: str, bits: int, floor: float) -> None:
    rows, index = make(clustered(2000, 24), metric, bits=bits)
    queries = clustered(60, 24, seed=9)
    assert_true(index.search(queries, 10, rows.visibility(), ALL), metric, queries, rows)
    assert reached(index, rows, queries, 10, ALL) > floor


@pytest.mark.parametrize("dtype", ["uint8", "int8"])
def test_integers_under_l2_are_found_exactly_by_eight_bits(make: Make, dtype: str) -> None:
    vectors = clustered(2000, 24, dtype)
    rows, index = make(vectors, bits=8)
    assert view_of(index).coder.lossless
    queries = clustered(60, 24, dtype, 9).astype(np.float32)
    assert same(index.search(queries, 10, rows.visibility(), ALL), index.search(queries, 10, rows.visibility(), EXACT))
    assert reached(index, rows, queries + np.float32(0.37), 10, ALL) > 0.99


@pytest.mark.parametrize("dtype", ["uint8", "int8", "float32"])
def test_queries_far_outside_the_data_find_their_neighbours(make: Make, dtype: str) -> None:
    """The direction of a query must survive whatever range the codes have."""
    vectors = clustered(2000, 24, dtype)
    rows, index = make(vectors, bits=8)
    spread = vectors.astype(np.float32).std()
    queries = (clustered(40, 24, dtype, 9).astype(np.float32) - vectors.mean()) * np.float32(8) + spread
    assert reached(index, rows, queries, 10, ALL) > 0.9


@pytest.mark.parametrize("bits", [2, 8])
@pytest.mark.parametrize("metric", ["l2", "cosine"])
def test_neighbours_much_nearer_than_their_head_are_told_apart_by_their_vectors(
    make: Make, metric: str, bits: int
) -> None:
    """Families of near duplicates: estimates cannot order them, so the whole family has to be scored again."""
    rng = np.random.default_rng(5)
    base = rng.standard_normal((120, 24))
    vectors = (np.repeat(base, 20, axis=0) + 0.01 * rng.standard_normal((2400, 24))).astype(np.float32)
    rows, index = make(vectors[rng.permutation(2400)], metric, bits=bits)
    queries = (base[:60] + 0.01 * rng.standard_normal((60, 24))).astype(np.float32)
    assert reached(index, rows, queries, 10, ALL) > 0.9


def test_rows_far_outside_the_codes_are_found_in_the_tail_in_the_lists_and_after_a_seal(
    make: Make, tmp_path: Path
) -> None:
    rows, index = make(clustered(1500, 24))
    outliers = (np.arange(1, 81, dtype=np.float32)[:, None] * np.float32(100)) * np.ones(24, np.float32)
    rows.append(outliers)
    index.publish_rows(rows.row_count)
    place = np.arange(1500, 1580)
    assert np.array_equal(index.search(outliers, 3, rows.visibility(), WIDE).rows[:, 0], place)
    add_all(index, rows)
    assert np.array_equal(index.search(outliers, 3, rows.visibility(), WIDE).rows[:, 0], place)
    index.seal(tmp_path / "0" / "sealed")
    again = SpannIndex.open(tmp_path / "0" / "sealed", index.config, "l2", rows)
    assert np.array_equal(again.search(outliers, 3, rows.visibility(), WIDE).rows[:, 0], place)


@pytest.mark.parametrize("factor", [1e3, 1e6])
def test_a_few_long_rows_take_nothing_from_the_estimates_of_others(make: Make, factor: float) -> None:
    """Center and units of the factors come from all others: recall was .13 with every list read, for one row x1e6."""
    rng = np.random.default_rng(4)
    vectors = clustered(3000, 24)
    long = rng.choice(3000, 2, replace=False)
    vectors[long] *= np.float32(factor)
    rows, index = make(vectors)
    assert index.check() == []
    assert reached(index, rows, np.delete(vectors, long, axis=0)[:200:3] + np.float32(0.1), 10, ALL) > 0.95
    assert np.array_equal(index.search(vectors[long], 1, rows.visibility(), WIDE).rows[:, 0], long)


def test_recall_stands_when_the_data_grow_out_of_the_codes(make: Make) -> None:
    rows, index = make(clustered(1500, 24))
    rows.append(clustered(1500, 24, seed=4) * np.float32(20))
    add_all(index, rows)
    queries = clustered(60, 24, seed=9) * np.float32(20)
    assert reached(index, rows, queries, 10, ALL) > 0.9


@pytest.mark.parametrize("metric", ["l2", "ip"])
def test_recall_does_not_depend_on_the_order_of_rows(make: Make, metric: str) -> None:
    """Rows sorted by norm: what is measured on a sample must be measured on all of it, not on the first rows."""
    rng = np.random.default_rng(3)
    vectors = clustered(8000, 24) * np.exp(np.linspace(-3, 3, 8000)).astype(np.float32)[:, None]
    queries = vectors[::131] * np.float32(1.02)
    rows, index = make(vectors, metric)
    mixed_rows, mixed = make(vectors[rng.permutation(8000)], metric)
    ordered = reached(index, rows, queries, 10, WIDE)
    assert ordered > reached(mixed, mixed_rows, queries, 10, WIDE) - 0.02


@pytest.mark.parametrize("dim", [1, 3, 64, 300])
def test_every_width_of_vectors(make: Make, dim: int) -> None:
    vectors = clustered(1500, dim)
    rows, index = make(vectors)
    queries = clustered(30, dim, seed=9)
    assert_true(index.search(queries, 10, rows.visibility(), ALL), "l2", queries, rows)
    assert reached(index, rows, queries, 10, ALL) > 0.9
    rows.append(clustered(600, dim, seed=4))
    add_all(index, rows)


@pytest.mark.parametrize("n", [1, 2, 3, 10])
@pytest.mark.parametrize("metric", NUMBER_METRICS)
def test_tiny_collections(make: Make, n: int, metric: str) -> None:
    rows, index = make(np.arange(1, n + 1, dtype=np.float32).reshape(n, 1), metric)
    found = index.search(np.ones((2, 1), np.float32), 5, rows.visibility(), WIDE)
    assert found.counts.tolist() == [min(n, 5)] * 2
    exact = index.search(np.ones((2, 1), np.float32), 5, rows.visibility(), EXACT)
    assert np.array_equal(found.distances, exact.distances)
    rows.append(np.arange(n + 1, n + 3, dtype=np.float32).reshape(2, 1))
    add_all(index, rows)
    assert index.search(np.ones((1, 1), np.float32), 50, rows.visibility(), WIDE).counts[0] == n + 2


def test_an_index_without_rows_answers_from_the_tail(make: Make) -> None:
    vectors = clustered(300, 24)
    rows, index = make(vectors, indexed=0)
    assert index.indexed_rows == 0 and index.check() == [] and index.stats()["indexed_rows"] == 0
    found = index.search(vectors[:50], 1, rows.visibility(), WIDE)
    assert np.array_equal(found.rows[:, 0], np.arange(50)) and (found.distances == 0).all()


def test_the_tail_is_found_before_it_is_indexed(make: Make) -> None:
    vectors = clustered(2400, 24)
    rows, index = make(vectors[:1200])
    for stop in range(1300, 2401, 100):
        rows.append(vectors[stop - 100 : stop])
        index.publish_rows(stop)
        if stop % 300 == 0:
            index.add(stop)
        found = index.search(vectors[stop - 100 : stop], 1, rows.visibility(), WIDE)
        assert (found.distances[:, 0] == 0).mean() > (0.95 if index.indexed_rows == stop else 0.999)
    tail = index.indexed_rows
    assert tail == 2400


def test_a_limit_larger_than_everything_returns_everything(make: Make) -> None:
    vectors = clustered(1200, 24)
    rows, index = make(vectors[:1000], indexed=1000)
    rows.append(vectors[1000:])
    rows.delete(np.arange(0, 1200, 7))
    left = len(rows.live())
    for limit in (left - 1, left, left + 1, 5 * left):
        found = index.search(vectors[:2], limit, rows.visibility(), SearchParams(nprobe=2))
        assert found.counts.tolist() == [min(limit, left)] * 2
        assert same(found, index.search(vectors[:2], limit, rows.visibility(), EXACT)) or limit < left


def test_no_queries_give_no_answers(make: Make) -> None:
    rows, index = make(clustered(300, 24))
    for threads in (1, 3):
        found = index.search(
            np.empty((0, 24), np.float32), 5, rows.visibility(), SearchParams(nprobe=4, threads=threads)
        )
        assert found.rows.shape == (0, 5) and len(found.counts) == 0


def test_a_snapshot_does_not_see_rows_that_came_later(make: Make) -> None:
    vectors = clustered(1000, 24)
    rows, index = make(vectors)
    found = index.search(vectors[900:920], 10, Visibility(rows.sequence, 500, 500), WIDE)
    assert (found.counts == 10).all() and (found.rows < 500).all()


def test_deleted_rows_are_hidden_from_new_snapshots_and_shown_to_old_ones(make: Make) -> None:
    vectors = clustered(1500, 24)
    rows, index = make(vectors, bits=8)
    before = rows.visibility()
    near = index.search(vectors[:1], 400, before, EXACT).rows[0]
    rows.delete(near[:380])
    found = index.search(vectors[:1], 10, rows.visibility(), SearchParams(nprobe=4))
    assert found.counts[0] == 10 and not set(found.rows[0].tolist()) & set(near[:380].tolist())
    assert set(index.search(vectors[:1], 10, before, ALL).rows[0].tolist()) == set(near[:10].tolist())


@pytest.mark.parametrize("replicas", [1, 4])
def test_only_allowed_rows_are_returned_and_all_that_match_are_counted(make: Make, replicas: int) -> None:
    vectors = clustered(1500, 24)
    rows, index = make(vectors[:1400], indexed=1400, replicas=replicas)
    rows.append(vectors[1400:])
    rows.delete(np.arange(0, 1500, 11))
    rng = np.random.default_rng(2)
    for chosen in (
        np.arange(1500),
        np.empty(0, np.int64),
        np.array([5, 64, 1450]),
        rng.permutation(1500)[:40],
        rng.permutation(1500)[:700],
    ):
        allow = RowSet(np.sort(chosen).astype(np.uint32))
        matching = set(chosen.tolist()) & set(rows.live().tolist())
        for limit in (1, 10, 100):
            found = index.search(vectors[:8], limit, rows.visibility(), SearchParams(nprobe=8), allow)
            assert found.counts.tolist() == [min(limit, len(matching))] * 8
            assert set(found.rows[found.rows >= 0].tolist()) <= matching
            assert_true(found, "l2", vectors[:8], rows)
            if len(matching) <= limit:
                exact = index.search(vectors[:8], limit, rows.visibility(), EXACT, allow)
                assert same(found, exact)


@pytest.mark.parametrize("budget", [None, 0])
def test_threads_and_batches_do_not_change_answers(make: Make, budget: int | None) -> None:
    rows, index = make(clustered(2000, 24), memory_budget_bytes=budget)
    queries = clustered(70, 24, seed=9)
    one = index.search(queries, 10, rows.visibility(), SearchParams(nprobe=16, threads=1))
    three = index.search(queries, 10, rows.visibility(), SearchParams(nprobe=16, threads=3))
    assert same(one, three)
    for i in (0, 33, 69):
        alone = index.search(queries[i : i + 1], 10, rows.visibility(), SearchParams(nprobe=16))
        assert np.array_equal(alone.rows[0], one.rows[i]) and np.array_equal(alone.distances[0], one.distances[i])


@pytest.mark.parametrize("config", [{}, {"replicas": 4}, {"memory_budget_bytes": 15_000}], ids=str)
def test_lists_do_not_depend_on_the_number_of_threads(make: Make, config: dict[str, Any]) -> None:
    vectors = clustered(4000, 24)
    made = []
    for threads in (1, 3):
        rows, index = make(vectors[:1500], threads=threads, **config)
        for stop in range(2000, 4001, 500):
            rows.append(vectors[stop - 500 : stop])
            index.add(stop, threads)
        rows.delete(np.arange(0, 4000, 3))
        index.remove(rows.sequence, threads)
        made.append(contents(index))
    assert made[0] == made[1]


def test_searches_of_many_shapes_do_not_pile_up_memory(make: Make) -> None:
    rows, index = make(clustered(1500, 24))
    queries = clustered(16, 24, seed=9)
    visibility = rows.visibility()

    def held_after(limits: range) -> int:
        for limit in limits:
            index.search(queries, limit, visibility, SearchParams(nprobe=4))
        return tracemalloc.get_traced_memory()[0]

    tracemalloc.start()
    try:
        before = held_after(range(100, 101))
        after = held_after(range(1, 101))
    finally:
        tracemalloc.stop()
    assert after - before < 8 << 20  # what the largest of them needs is under 1 MB
