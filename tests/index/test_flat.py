"""Goal: the exact scan agrees with the definition for every metric and type, whatever the threads, and hides what is
not visible.
"""

from __future__ import annotations

import numpy as np
import pytest

from tests.support.index_rows import MemoryRows, clustered, distances
from vecdb.errors import Corruption
from vecdb.index.flat import FlatIndex
from vecdb.index.row_set import RowSet
from vecdb.schema import NUMBER_DTYPES, NUMBER_METRICS, SearchParams, Visibility

EXACT = SearchParams(exact=True)


@pytest.mark.parametrize("dtype", NUMBER_DTYPES)
@pytest.mark.parametrize("metric", NUMBER_METRICS)
def test_answers_equal_brute_force(metric: str, dtype: str) -> None:
    vectors = clustered(700, 24, dtype)
    queries = np.concatenate(
        [clustered(20, 24, "float32", 5) * (30 if dtype.endswith("int8") else 1), vectors[:5].astype(np.float32)]
    )
    rows = MemoryRows(vectors)
    found = FlatIndex(metric, rows).search(queries, 12, rows.visibility(), EXACT)
    truth = distances(metric, queries, vectors)
    expected = np.sort(truth, axis=1)[:, :12]
    scale = np.maximum(np.abs(expected), 1e-6 if metric != "ip" else np.abs(truth).max(axis=1, keepdims=True) * 1e-2)
    assert (np.abs(found.distances - expected) <= 1e-5 * scale).all()
    assert (np.abs(np.take_along_axis(truth, found.rows, 1) - expected) <= 1e-5 * scale).all()
    if metric != "ip":
        assert (found.distances[20:, 0] == 0.0).all(), "a vector's distance to itself is exactly zero"


def test_threads_and_batches_do_not_change_the_answer() -> None:
    vectors = np.repeat(clustered(3000, 24), 4, axis=0)  # many ties
    rows = MemoryRows(vectors)
    queries = vectors[::997].copy()
    one = FlatIndex("l2", rows).search(queries, 30, rows.visibility(), EXACT)
    for threads in (2, 7):
        other = FlatIndex("l2", rows).search(queries, 30, rows.visibility(), SearchParams(exact=True, threads=threads))
        assert np.array_equal(one.rows, other.rows)
        assert np.array_equal(one.distances, other.distances)
    pairs = list(zip(one.distances[0].tolist(), one.rows[0].tolist(), strict=True))
    assert pairs == sorted(pairs), "ties go to the lower row"


def test_only_rows_visible_at_the_snapshot_and_allowed_are_returned() -> None:
    vectors = clustered(500, 24)
    rows = MemoryRows(vectors)
    before = rows.visibility()
    rows.delete(np.arange(0, 500, 2))
    after = rows.visibility()
    flat = FlatIndex("l2", rows)
    assert set(flat.search(vectors[:1], 500, before, EXACT).rows[0].tolist()) == set(range(500))
    found = flat.search(vectors[:1], 500, after, EXACT)
    assert found.counts[0] == 250
    assert set(found.rows[0, :250].tolist()) == set(range(1, 500, 2))
    assert (found.rows[0, 250:] == -1).all() and np.isinf(found.distances[0, 250:]).all()
    older = Visibility(before.sequence, 100, 100)
    assert flat.search(vectors[:1], 500, older, EXACT).counts[0] == 100
    allow = RowSet(np.array([64, 65, 67], np.uint32))
    assert flat.search(vectors[:1], 10, after, EXACT, allow).rows[0, :2].tolist() in ([65, 67], [67, 65])


def test_a_damaged_row_is_an_error_that_names_it() -> None:
    rows = MemoryRows(clustered(50, 24))
    rows.arrays.vectors[33, 3] += 1
    with pytest.raises(Corruption, match="row 33"):
        FlatIndex("l2", rows).search(rows.arrays.vectors[:1].copy(), 5, rows.visibility(), EXACT)


@pytest.mark.parametrize("n", [0, 1, 2])
def test_tiny_collections_and_limits_beyond_them(n: int) -> None:
    rows = MemoryRows(np.ones((n, 1), np.float32))
    found = FlatIndex("l2", rows).search(np.ones((2, 1), np.float32), 5, rows.visibility(), EXACT)
    assert found.counts.tolist() == [n, n]
    assert FlatIndex("l2", rows).search(np.ones((0, 1), np.float32), 5, rows.visibility(), EXACT).rows.shape == (0, 5)
