"""Many queries asked at once get the answers, bit by bit, that each gets alone.

Oracle: the scan of one query, which tests/index/test_flat.py compares with the definition.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.support.data_shapes import SHAPES, queries_of
from tests.support.index_rows import MemoryRows, clustered
from vecdb.errors import Corruption
from vecdb.index.common import batching
from vecdb.index.exact import scan
from vecdb.index.flat import FlatIndex
from vecdb.index.row_set import RowSet
from vecdb.schema import NUMBER_DTYPES, SearchParams

EXACT = SearchParams(exact=True, threads=1)
N, DIM = 9_000, 24
SINGLY = 12  # queries of a batch that are asked alone, too


def counted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Blocks that were bounded by products, one number each."""
    blocks: list[int] = []

    class Counted(scan.ProductBounds):
        def products(self, stored: Any, distances: Any) -> Any:
            blocks.append(len(stored))
            return super().products(stored, distances)

    monkeypatch.setattr(scan, "ProductBounds", Counted)
    return blocks


def assert_as_alone(
    metric: str, rows: MemoryRows, queries: np.ndarray, limit: int, allow: RowSet | None = None, threads: int = 1
) -> None:
    index, visibility = FlatIndex(metric, rows), rows.visibility()
    found = index.search(queries, limit, visibility, SearchParams(exact=True, threads=threads), allow)
    for q in np.linspace(0, len(queries) - 1, SINGLY).astype(int):
        alone = index.search(queries[q : q + 1], limit, visibility, EXACT, allow)
        assert np.array_equal(found.rows[q], alone.rows[0]), (metric, q)
        assert (
            np.array_equal(found.distances[q], alone.distances[0], equal_nan=True)
            and found.counts[q] == alone.counts[0]
        )


@pytest.mark.parametrize("metric", ["l2", "cosine", "ip"])
@pytest.mark.parametrize("shape", sorted(SHAPES))
def test_data_of_every_shape(shape: str, metric: str, monkeypatch: pytest.MonkeyPatch) -> None:
    blocks = counted(monkeypatch)
    rng = np.random.default_rng(6)
    vectors = SHAPES[shape](rng, N, DIM)
    with np.errstate(all="ignore"):
        queries = np.concatenate([queries_of(rng, vectors, 50), vectors[7:N:600], SHAPES[shape](rng, 40, DIM)])
    rows = MemoryRows(vectors)
    rows.delete(np.arange(0, N, 5))
    assert_as_alone(metric, rows, queries, 10)
    assert blocks


@pytest.mark.parametrize("metric", ["l2", "cosine", "ip"])
@pytest.mark.parametrize("value", [1e-38, 1e-25, 1e-21, 1e-20, 1e-16, 1e18, 3e38])
def test_numbers_that_float32_can_not_square(value: float, metric: str) -> None:
    rng = np.random.default_rng(8)
    vectors = rng.standard_normal((N, DIM)).astype(np.float32)
    with np.errstate(all="ignore"):
        vectors[1::3] = np.clip(vectors[1::3] * np.float64(value), -3e38, 3e38)
        vectors[2::9, 0] = value
    vectors[5::50] = 0
    queries = np.concatenate([vectors[1:120:3], rng.standard_normal((20, DIM)).astype(np.float32)])
    with np.errstate(all="ignore"):
        assert_as_alone(metric, MemoryRows(vectors), queries, 10)


@pytest.mark.parametrize("dtype", NUMBER_DTYPES)
@pytest.mark.parametrize("metric", ["l2", "cosine", "ip"])
def test_types_limits_threads_and_rows_that_are_listed(
    dtype: str, metric: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    vectors = np.repeat(clustered(6_000, DIM, dtype), 3, axis=0)  # many ties
    rows = MemoryRows(vectors)
    queries = clustered(90, DIM, "float32", 5) * (30 if dtype.endswith("int8") else 1)
    rng = np.random.default_rng(9)
    listed = np.sort(rng.choice(len(vectors), 11_000, replace=False)).astype(np.uint32)
    blocks = counted(monkeypatch)
    for limit, threads, allow in ((1, 1, None), (10, 2, None), (10, 1, RowSet(listed)), (40, 1, None)):
        blocks.clear()
        assert_as_alone(metric, rows, queries, limit, allow, threads)
        assert blocks, "by products"
    blocks.clear()
    assert_as_alone(metric, rows, queries, 200)
    assert_as_alone(metric, rows, queries, 10, RowSet(listed[:1_500]))
    assert_as_alone(metric, rows, queries[:20], 10)
    assert not blocks, "more is wanted of few rows, few rows, few queries"


def test_a_damaged_row_is_found_wherever_it_lies() -> None:
    vectors = clustered(N, DIM, "float32")
    rows = MemoryRows(vectors)
    rows.arrays.vectors[N - 3] += np.float32(1e6)  # far from every query
    with pytest.raises(Corruption, match=str(N - 3)):
        FlatIndex("l2", rows).search(vectors[:64], 10, rows.visibility(), EXACT)


@pytest.mark.parametrize("threads", [1, 2, 5])
@pytest.mark.parametrize("nq", [0, 1, 2, 7, 63, 64, 65, 300, 1_000])
def test_slices_of_a_batch_are_all_of_it_and_the_last_ones_small(nq: int, threads: int) -> None:
    parts = batching._query_slices(nq, 64, threads)
    sizes = [part.stop - part.start for part in parts]
    assert [i for part in parts for i in range(part.start, part.stop)] == list(range(nq))
    assert max(sizes) <= 64 and min(sizes) >= min(nq, 1)
    assert (len(sizes) > 1 or threads == 1 or nq < 2) and (threads == 1 or nq < 300 or sizes[-1] <= 32)
