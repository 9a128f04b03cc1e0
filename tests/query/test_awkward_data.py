"""Goal: data of an unusual shape get the recall of ordinary data, in every kind of index. Oracle: the exact search."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import vecdb
from tests.support.corpus import EXACT
from vecdb.api.database import Database

ROWS, DIM = 5_000, 32
ONE_LONG = [(1, 30.0), (1, 1e3)]
MORE_LONG = [(1, 1e6), (10, 1e4)]
CASES = [(index, *long) for index in (vecdb.Hnsw(), vecdb.Curator()) for long in ONE_LONG + MORE_LONG]
CASES += [(vecdb.Spann(), *long) for long in ONE_LONG]


def recall(db: Database, vectors: np.ndarray, index: Any, metric: str) -> float:
    """Of the 10 nearest, default settings, queries near stored ordinary rows."""
    docs = db.create_collection("docs", DIM, metric, index)
    docs.upsert(range(len(vectors)), vectors)
    docs.optimize()
    rng = np.random.default_rng(1)
    queries = vectors[-60:] + 1e-2 * rng.normal(size=(60, DIM)).astype(np.float32)
    found, true = docs.search(queries, 10), docs.search(queries, 10, params=EXACT)
    worst = true.distances[:, -1:]
    assert docs.check() == []
    return float((found.distances <= worst + 1e-5 * np.abs(worst)).mean())


@pytest.mark.parametrize(("index", "long_rows", "factor"), CASES, ids=lambda value: getattr(value, "kind", str(value)))
def test_a_few_long_records_take_no_answer_from_the_others(
    db: Database, index: Any, long_rows: int, factor: float
) -> None:
    vectors = np.random.default_rng(0).normal(size=(ROWS, DIM)).astype(np.float32)
    vectors[7 : 7 + long_rows] *= np.float32(factor)
    assert recall(db, vectors, index, "l2") > 0.93
