"""Goal: codes of bits and the exact distance count what NumPy counts, for every length and on every processor."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numba import njit

from tests.support.processors import run_on
from vecdb.index.common.quantizer import BITS, ScalarQuantizer, kernel_blocks
from vecdb.kernels.codes.code_formats import code_as_query, code_distance, encode_query
from vecdb.kernels.primitives import distance

ROWS = 60
NO_FAR = np.empty(0, np.int32)


@njit(_nrt=False)
def by_code(codes, bias, query, query8, query16, out, as_query, exact_out, vectors, metric, blocks):  # type: ignore[no-untyped-def]
    """Distances of all codes: to the query, to row 0 taken as one, and exactly."""
    probe = encode_query(query, query, 1.0, metric, False, query8, query16, blocks)
    for row in range(len(codes)):
        out[row] = code_distance(codes, bias, row, query8, query16, probe, blocks)
        exact_out[row] = distance.exact(vectors, row, query, metric)
    probe = code_as_query(codes, bias, np.int64(0), False, query8, query16, blocks)
    for row in range(len(codes)):
        as_query[row] = code_distance(codes, bias, row, query8, query16, probe, blocks)


def counted(vectors: Any, query: Any, metric: int) -> Any:
    """float64[n], by unpacking."""
    a, b = np.unpackbits(vectors, axis=1).astype(np.int64), np.unpackbits(query).astype(np.int64)
    shared, either = (a & b).sum(axis=1), (a | b).sum(axis=1)
    if metric == distance.HAMMING:
        return (either - shared).astype(np.float64)
    return np.where(either == 0, 0.0, 1 - shared / np.maximum(either, 1))


def rows_of(length: int) -> Any:
    rng = np.random.default_rng(length)
    vectors = rng.integers(0, 256, (ROWS, length)) & rng.integers(0, 256, (ROWS, 1))
    vectors[1], vectors[2], vectors[3] = 0, 255, vectors[0]
    return vectors.astype(np.uint8)


# one block, two, more than are unrolled; lengths that fill no word, no block
@pytest.mark.parametrize("length", [1, 64, 65, 1_025])
@pytest.mark.parametrize("metric", [distance.HAMMING, distance.JACCARD])
def test_bits_are_counted(length: int, metric: int) -> None:
    vectors = rows_of(length)
    quantiser = ScalarQuantizer(np.zeros(length, np.float32), 1.0, ROWS, True, BITS)
    codes = np.full((ROWS, quantiser.width), 7, np.uint8)
    bias = np.full(ROWS if metric == distance.JACCARD else 0, 7, np.int32)
    assert quantiser.encode(vectors, 0, ROWS, metric, codes, bias, NO_FAR) == 0
    assert np.array_equal(codes[:, :length], vectors) and not codes[:, length:].any()
    for query in (vectors[5], vectors[1], vectors[2]):
        out, as_query, exact = np.empty(ROWS, np.int32), np.empty(ROWS, np.int32), np.empty(ROWS, np.float32)
        query8, query16 = np.full(quantiser.width, 9, np.int8), np.empty(quantiser.width, np.int16)
        by_code(
            codes, bias, query.astype(np.float32), query8, query16, out, as_query, exact, vectors, metric,
            kernel_blocks(quantiser.width, BITS),
        )  # fmt: skip
        for found, of in ((out, query), (as_query, vectors[0])):
            told = found if metric == distance.HAMMING else found.view(np.float32)
            assert np.allclose(told, counted(vectors, of, metric), atol=1e-7)
            assert found.min() >= 0, "int32 is in the order of distances"
        assert np.allclose(exact, counted(vectors, query, metric), atol=1e-7)


_PROGRAM = """
from tests.kernels.codes.test_bit_codes import test_bits_are_counted
from vecdb.kernels.primitives import distance
test_bits_are_counted(65, distance.HAMMING)
test_bits_are_counted(65, distance.JACCARD)
print("counted")
"""


def test_a_processor_that_counts_no_vectors_counts_the_same() -> None:
    assert run_on(_PROGRAM, "generic", "") == "counted\n"
