"""Goal: the scan, which rules rows out by a bound on their distance, finds just what float64 arithmetic, or a count of
bits, finds. Oracle: numpy in float64, rounded once, ties by row.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.support.index_rows import MemoryRows
from tests.support.processors import run_on
from vecdb.index.flat import FlatIndex
from vecdb.index.row_set import RowSet
from vecdb.schema import BIT_METRICS, NUMBER_METRICS, SearchParams

N, LIMIT = 6_000, 25


def true_distances(vectors: np.ndarray, queries: np.ndarray, metric: str) -> np.ndarray:
    a, b = vectors.astype(np.float64), queries.astype(np.float64)
    if metric == "l2":
        return np.stack([np.einsum("ij,ij->i", a - one, a - one) for one in b])
    products = b @ a.T
    if metric == "ip":
        return -products
    return 1.0 - products / np.sqrt(np.outer(np.einsum("ij,ij->i", b, b), np.einsum("ij,ij->i", a, a)))


def plain(rng: Any, dim: int) -> np.ndarray:
    return rng.normal(size=(N, dim))


def nearly_equal(rng: Any, dim: int) -> np.ndarray:
    """Rows that float32 sums cannot tell apart."""
    return rng.normal(size=dim) + 1e-6 * rng.normal(size=(N, dim))


def of_all_sizes(rng: Any, dim: int) -> np.ndarray:
    return rng.normal(size=(N, dim)) * 10.0 ** rng.uniform(-18, 17, size=(N, 1))


def tiny(rng: Any, dim: int) -> np.ndarray:
    """Squares of these elements are below what float32 holds."""
    return 1e-22 * rng.normal(size=(N, dim))


def cancelling(rng: Any, dim: int) -> np.ndarray:
    """Inner products near zero of large terms."""
    rows = 1e4 * rng.normal(size=(N, dim))
    rows[:, dim // 2 :] = rows[:, : dim - dim // 2]
    return rows


@pytest.mark.parametrize("metric", NUMBER_METRICS)
@pytest.mark.parametrize("made", [plain, nearly_equal, of_all_sizes, tiny, cancelling], ids=lambda one: one.__name__)
@pytest.mark.parametrize("dim", [15, 16, 50])
def test_the_bound_rules_out_no_neighbour(metric: str, made: Any, dim: int) -> None:
    if metric == "cosine" and made is tiny:
        pytest.skip("refused: too small for a norm")
    rng = np.random.default_rng(dim)
    vectors = made(rng, dim).astype(np.float32)
    queries = np.concatenate([vectors[5:7], made(rng, dim)[:3].astype(np.float32) * 2])
    queries[3, dim // 2 :] *= -1
    true = true_distances(vectors, queries, metric)
    rows = MemoryRows(vectors)
    rows.delete(np.array([5]))
    true[:, 5] = np.inf
    order = np.argsort(true.astype(np.float32), axis=1, kind="stable")[:, :LIMIT]
    right = np.take_along_axis(true, order, axis=1)
    spread = np.abs(right).max(axis=1, keepdims=True)
    noise = 1e-14 * (spread + (1.0 if metric == "cosine" else 0.0)) + 3e-45  # of the smallest float32
    if made is cancelling and metric == "ip":
        noise = noise + 1e-14 * 1e8 * dim  # of float64 sums themselves
    index = FlatIndex(metric, rows)
    for params in (SearchParams(exact=True), SearchParams(exact=True, threads=3)):
        found = index.search(queries, LIMIT, rows.visibility(), params)
        single = [index.search(one[None], LIMIT, rows.visibility(), params) for one in queries]
        assert found.rows.tolist() == [one.rows[0].tolist() for one in single]
        of_found = np.take_along_axis(true, found.rows, axis=1)
        assert (of_found <= right[:, -1:] + 2.0**-22 * np.abs(right[:, -1:]) + noise).all()
        np.testing.assert_allclose(found.distances, of_found, rtol=2.0**-22, atol=float(noise.max()) + 1e-37)


def counted(vectors: np.ndarray, query: np.ndarray, metric: str) -> np.ndarray:
    """float32[n]: how far vectors of bits are from a query, by unpacking."""
    a, b = np.unpackbits(vectors, axis=1).astype(np.int64), np.unpackbits(query).astype(np.int64)
    shared, either = (a & b).sum(axis=1), (a | b).sum(axis=1)
    if metric == "hamming":
        return (either - shared).astype(np.float32)
    return np.where(either == 0, 0, 1 - shared.astype(np.float32) / np.maximum(either, 1).astype(np.float32))


# too short for a bound, a word and a part of one, no whole block, one, blocks and a part
@pytest.mark.parametrize("length", [3, 8, 13, 48, 64, 129])
@pytest.mark.parametrize("metric", BIT_METRICS)
def test_bits_are_counted_as_numpy_counts_them(length: int, metric: str) -> None:
    rng = np.random.default_rng(length)
    vectors = rng.integers(0, 256, (1_500, length)) & rng.integers(0, 256, (1_500, 1))
    vectors[40], vectors[1_300], vectors[700] = 0, 255, vectors[5]
    vectors = vectors.astype(np.uint8)
    rows = MemoryRows(vectors)
    gone = np.concatenate([np.arange(5, 9), np.arange(64, 128), [1_400]])
    index = FlatIndex(metric, rows)
    index.search(vectors[:1].astype(np.float32), 1, rows.visibility(), SearchParams())  # all rows are verified
    rows.delete(gone)
    some = np.sort(rng.choice(np.setdiff1d(np.arange(1_500), gone), 333, replace=False)).astype(np.uint32)
    queries = np.stack([vectors[5], vectors[40], vectors[1_300], vectors[900] ^ 17])
    for allowed, living in ((None, np.setdiff1d(np.arange(1_500), gone)), (RowSet(some), some.astype(np.int64))):
        for threads in (1, 2):
            params = SearchParams(exact=True, threads=threads)
            found = index.search(queries.astype(np.float32), LIMIT, rows.visibility(), params, allowed)
            for query, near, far in zip(queries, found.rows, found.distances, strict=True):
                true = counted(vectors, query, metric)
                right = living[np.lexsort((living, true[living]))][:LIMIT]
                assert near.tolist() == right.tolist() and np.array_equal(far, true[right])


@pytest.mark.parametrize("metric", NUMBER_METRICS + BIT_METRICS)
def test_a_prepared_search_for_one_query_is_the_general_one(metric: str) -> None:
    rng = np.random.default_rng(3)
    bits = metric in BIT_METRICS
    vectors = rng.integers(0, 256, (N, 24)).astype(np.uint8) if bits else plain(rng, 24).astype(np.float32)
    rows = MemoryRows(vectors)
    rows.delete(np.arange(10, 30))
    index = FlatIndex(metric, rows)
    for limit in (1, LIMIT, N + 5):
        params, ids = SearchParams(exact=True), np.arange(N, dtype=np.int64) * 7
        found = index.search(vectors[:3].astype(np.float32), limit, rows.visibility(), params)
        plain_rows = index.searching_one(limit, rows.visibility(), params, (0.0, 1e30), None)
        as_ids = index.searching_one(limit, rows.visibility(), params, (0.0, 1e30), ids)
        assert plain_rows is not None and as_ids is not None
        for i, query in enumerate(vectors[:3].astype(np.float32)):
            count = found.counts[i]
            answers, distances = plain_rows(query) or ([], [])
            assert np.array_equal(answers, found.rows[i, :count])
            assert np.array_equal(distances, found.distances[i, :count])
            assert np.array_equal((as_ids(query) or ([],))[0], 7 * found.rows[i, :count])
    narrow = index.searching_one(5, rows.visibility(), SearchParams(exact=True), (1e20, 1e30), None)
    assert narrow is not None and narrow(vectors[0].astype(np.float32)) is None


_PROGRAM = """
from tests.kernels.search import test_exact_scan as tests
for metric in ("hamming", "jaccard"):
    for length in (13, 129):
        tests.test_bits_are_counted_as_numpy_counts_them(length, metric)
for metric in ("l2", "cosine", "ip"):
    tests.test_the_bound_rules_out_no_neighbour(metric, tests.cancelling, 50)
print("found")
"""


def test_a_processor_without_wide_vectors_finds_the_same() -> None:
    assert run_on(_PROGRAM, "generic", "") == "found\n"
