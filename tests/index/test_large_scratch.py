"""Large scratch is no block of the C library, which would keep as much for each thread (`mapped_memory`).

Oracle: tracemalloc, which sees what numpy allocates and not what is mapped.
"""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tests.support.index_rows import MemoryRows, clustered
from vecdb.index.common.sq8_training import train
from vecdb.index.flat import FlatIndex
from vecdb.kernels.primitives.distance import METRIC_CODES
from vecdb.schema import SearchParams

N, DIM = 20_000, 256
MOST = 4 << 20  # bytes; the sample has 16 MiB, a block of an exact scan three


def most_held(work: Callable[[], Any]) -> int:
    """Bytes of numpy and Python, at the most, beside those that were there."""
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.fixture(scope="module")
def rows() -> MemoryRows:
    return MemoryRows(clustered(N, DIM, "float32"))


@pytest.mark.parametrize("metric", ["l2", "cosine", "ip"])
def test_training_holds_its_sample_in_a_mapping(rows: MemoryRows, metric: str) -> None:
    assert most_held(lambda: train(rows.arrays, METRIC_CODES[metric], N)) < MOST


@pytest.mark.parametrize("metric", ["l2", "cosine", "ip"])
def test_an_exact_batch_holds_its_products_in_a_mapping(rows: MemoryRows, metric: str) -> None:
    index, queries = FlatIndex(metric, rows), np.array(rows.arrays.vectors[:64])

    def search() -> None:
        index.search(queries, 10, rows.visibility(), SearchParams(exact=True))

    search()  # what it keeps is made
    assert most_held(search) < MOST // 4
