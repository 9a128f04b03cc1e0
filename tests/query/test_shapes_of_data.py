"""Goal: default searches find what is near on data of every shape, in every kind of index, without anybody's help.

Oracle: brute force in float64. The whole grid is in the slow tier: 46 shapes take about an hour on two cores. Parts of
it are in test_recall_learning.py, tests/index/hnsw and tests/index/test_code_choice.py.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import vecdb
from tests.support.data_shapes import SHAPES, exact_distances, queries_of, recall
from vecdb.api.database import Database

N, DIM = 6_000, 48
# squares of such elements are below the smallest float32: every distance is 0, and cosine has no direction
UNDERFLOWS = {"subnormal"}


@pytest.mark.slow
@pytest.mark.parametrize("index", [None, vecdb.Hnsw(), vecdb.Spann(), vecdb.Curator()], ids=str)
@pytest.mark.parametrize("metric", ["l2", "cosine", "ip"])
@pytest.mark.parametrize("shape", sorted(SHAPES.keys() - UNDERFLOWS))
def test_default_searches_reach_their_recall(db: Database, shape: str, metric: str, index: Any) -> None:
    rng = np.random.default_rng(11)
    rows = SHAPES[shape](rng, N, DIM)
    queries = queries_of(rng, rows, 100)
    distances = exact_distances(rows, queries, metric)
    docs = db.create_collection("docs", DIM, metric, index)
    docs.upsert(range(N), rows)
    docs._backend.jobs.index_tail(2)
    docs._backend.jobs.learn(2)

    def reached() -> float:
        return recall(np.array([docs.search(query, 10).ids for query in queries], np.int64), distances, 10)

    assert reached() >= 0.95, docs.stats()["recall"]
    docs.optimize()
    assert reached() >= 0.95, docs.stats()["recall"]
    assert docs.check() == []
