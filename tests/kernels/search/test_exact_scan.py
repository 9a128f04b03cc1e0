"""Goal: the scan, which rules rows out by a bound on their distance, finds just what float64 arithmetic finds.
Oracle: numpy in float64, rounded once, ties by row.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.support.index_rows import MemoryRows
from vecdb.index.flat import FlatIndex
from vecdb.schema import NUMBER_METRICS, SearchParams

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
