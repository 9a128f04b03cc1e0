"""Goal: rows that come sorted, by topic or time, are found as well as rows that come in any order.

Oracle: brute force in float64.
"""

from __future__ import annotations

import numpy as np
import pytest

from tests.support.data_shapes import exact_distances, plain, queries_of
from tests.support.data_shapes import recall as recall_of
from tests.support.index_rows import MemoryRows
from vecdb import schema
from vecdb.index.hnsw.hnsw_index import HnswIndex
from vecdb.schema import SearchParams

N, DIM = 8_000, 24


def topics(rng: np.random.Generator) -> np.ndarray:
    """400 topics, one after the other."""
    centres = rng.standard_normal((400, DIM))
    rows = centres[np.sort(rng.integers(0, 400, N))] + 0.1 * rng.standard_normal((N, DIM))
    return rows.astype(np.float32)


def moving(rng: np.random.Generator) -> np.ndarray:
    """The mean moves with every row."""
    return plain(rng, N, DIM) + np.linspace(0, 60, N, dtype=np.float32)[:, None]


@pytest.mark.parametrize("metric", ["l2", "cosine", "ip"])
@pytest.mark.parametrize("ordered", [topics, moving])
def test_rows_in_order_are_found_by_a_beam_of_64(ordered: object, metric: str) -> None:
    rng = np.random.default_rng(5)
    rows = ordered(rng)  # type: ignore[operator]
    source = MemoryRows(rows)
    index = HnswIndex(schema.Hnsw(), metric, source)
    index.publish_rows(N)
    while index.indexed_rows < N:
        index.add(index.next_stop(N), 2)
    index.connect_unreachable(2)
    queries = queries_of(rng, rows, 100)
    found = index.search(queries, 10, source.visibility(), SearchParams(ef=64)).rows
    assert recall_of(found, exact_distances(rows, queries, metric), 10) >= 0.97
    assert index.check() == []


def test_rows_of_a_batch_that_choose_each_other_link_once_and_never_to_deleted_ones() -> None:
    rng = np.random.default_rng(6)
    rows = np.repeat(rng.standard_normal((300, DIM)).astype(np.float32), 5, axis=0)
    source = MemoryRows(rows)
    index = HnswIndex(schema.Hnsw(m=4, ef_construction=30), "l2", source)
    source.delete(np.arange(0, len(rows), 7))
    index.remove(source.visibility().sequence)
    index.publish_rows(len(rows))
    index.add(len(rows), 2)
    index.connect_unreachable(2)
    assert index.check() == []
