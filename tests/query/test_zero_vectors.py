"""Goal: under cosine, vectors of zeros are refused, or taken with similarity 0 to everything, as the collection says.
Oracle: numpy.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vecdb
from tests.support.corpus import EXACT
from vecdb.api.database import Database

ROWS, DIM, LIMIT = 5_000, 48, 10
KINDS = [vecdb.Flat(), vecdb.Hnsw(), vecdb.Hnsw(quantization=None), vecdb.Spann(bits=4), vecdb.Curator()]


def made(shared: float = 0.0, seed: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """Rows, every eighth of zeros, and queries, the first of zeros; neighbours are at cosines of about a half.
    shared : how large a part all rows have in common.
    """
    rng = np.random.default_rng(seed)
    vectors = (rng.normal(size=(ROWS, DIM)) + shared).astype(np.float32)
    queries = (rng.normal(size=(64, DIM)) + shared).astype(np.float32)
    vectors[::8] = 0
    queries[0] = 0
    return vectors, queries


def oracle(vectors: np.ndarray, queries: np.ndarray) -> np.ndarray:
    """1 - cosine, and 1 where either is zero: float64[nq, n]."""
    products = queries.astype(np.float64) @ vectors.astype(np.float64).T
    lengths = np.outer(*(np.linalg.norm(one.astype(np.float64), axis=1) for one in (queries, vectors)))
    return 1.0 - np.divide(products, lengths, out=np.zeros_like(products), where=lengths > 0)


@pytest.mark.parametrize("shared", [0.0, 3.0], ids=["around zero", "around a point"])
@pytest.mark.parametrize("index", KINDS, ids=lambda one: f"{one.kind}-{getattr(one, 'quantization', '')}")
def test_zero_vectors_are_at_a_right_angle_to_everything(db: Database, index: Any, shared: float) -> None:
    vectors, queries = made(shared)
    docs = db.create_collection("docs", DIM, "cosine", index, zero_vectors="far")
    docs.upsert(range(ROWS), vectors)
    docs.optimize()
    assert docs.check() == []
    true = oracle(vectors, queries)
    nearest = np.sort(true, axis=1)[:, :LIMIT]
    exact = docs.search(queries, LIMIT, params=EXACT)
    np.testing.assert_allclose(exact.distances, nearest, atol=1e-6)
    found = docs.search(queries, LIMIT, params=vecdb.SearchParams(ef=192, nprobe=400))
    np.testing.assert_allclose(found.distances, np.take_along_axis(true, found.ids, axis=1), atol=1e-6)
    assert (found.distances <= nearest[:, -1:] + 1e-6).mean() > 0.93
    assert (found.distances[0] == 1).all() and (docs.search(queries[0], 3, params=EXACT).ids == [0, 1, 2]).all()


def test_zeros_do_not_take_places_of_neighbours_at_small_similarities(db: Database) -> None:
    """Lists compare unit rows by l2, where a zero row would lie as near as a row at a similarity of one half."""
    rng = np.random.default_rng(5)
    vectors, queries = rng.normal(size=(ROWS, 384)).astype(np.float32), rng.normal(size=(40, 384)).astype(np.float32)
    vectors[: ROWS // 10] = 0  # neighbours are at cosines of about 0.2
    docs = db.create_collection("docs", 384, "cosine", vecdb.Spann(bits=8), zero_vectors="far")
    docs.upsert(range(ROWS), vectors)
    docs.optimize()
    worst = np.sort(oracle(vectors, queries), axis=1)[:, LIMIT - 1]
    found = docs.search(queries, LIMIT, params=vecdb.SearchParams(nprobe=1_000))
    assert (found.distances <= worst[:, None] + 1e-6).mean() > 0.95


def test_they_are_refused_by_default_with_what_to_do(db: Database) -> None:
    docs = db.create_collection("docs", 4, "cosine")
    for call in (lambda: docs.upsert(1, np.zeros(4)), lambda: docs.search(np.zeros(4))):
        with pytest.raises(vecdb.InvalidArgument, match='zero_vectors="far"'):
            call()
    assert docs.config.zero_vectors == "refuse" and docs.count() == 0
    with pytest.raises(vecdb.InvalidArgument, match="zero_vectors must be one of refuse, far"):
        db.create_collection("other", 4, zero_vectors="near")
    with pytest.raises(vecdb.AlreadyExists, match="zero_vectors"):
        db.create_collection("docs", 4, "cosine", zero_vectors="far", exist_ok=True)


def test_what_is_too_small_for_its_norm_is_refused_all_the_same(db: Database) -> None:
    docs = db.create_collection("docs", 4, "cosine", zero_vectors="far")
    with pytest.raises(vecdb.InvalidArgument, match="too small"):
        docs.upsert([0, 1], np.array([[0, 0, 0, 0], [0, 1e-30, 0, 0]], np.float32))
    assert docs.count() == 0


@pytest.mark.parametrize("dtype", vecdb.schema.NUMBER_DTYPES)
def test_every_dtype_and_a_later_open_keep_the_setting(tmp_path: Path, dtype: str) -> None:
    rows = np.array([[0, 0, 0], [3, 4, 0], [0, 0, 0], [0, 1, 0]], dtype)
    with vecdb.open(tmp_path / "db") as db:
        db.create_collection("docs", 3, "cosine", dtype=dtype, zero_vectors="far").upsert(range(4), rows)
    with vecdb.open(tmp_path / "db") as db:
        docs = db.collection("docs")
        assert docs.config.zero_vectors == "far"
        hits = docs.search([0.0, 2.0, 0.0], 4)
        assert hits.ids.tolist() == [3, 1, 0, 2]
        np.testing.assert_allclose(hits.distances, [0, 0.2, 1, 1], atol=1e-6)
        np.testing.assert_allclose(docs.search(rows[0], 4).distances, 1)
        docs.upsert(4, rows[0])
