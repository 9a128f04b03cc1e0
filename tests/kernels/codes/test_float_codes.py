"""Goal: float32 codes are what their definition says, and every target computes the same bits from them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.processors import run_on
from vecdb.index.common.quantizer import FLOAT32, ScalarQuantizer, kernel_blocks
from vecdb.kernels.primitives import checksums
from vecdb.kernels.primitives.distance import COSINE, IP, L2

NO_BIAS, NO_FAR = np.empty(0, np.int32), np.empty(0, np.int32)


def encoded(vectors: Any, mean: Any, scale: float, metric: int) -> Any:
    quantiser = ScalarQuantizer(mean, scale, len(vectors), False, FLOAT32)
    codes = np.full((len(vectors), quantiser.width), 7, np.uint8)
    stored = checksums.for_kernels(vectors)
    assert quantiser.encode(stored, 0, len(vectors), metric, codes, NO_BIAS, NO_FAR) == 0
    return codes.view(np.float32)


@pytest.mark.parametrize("dtype", ["float32", "float16", "int8"])
@pytest.mark.parametrize("metric", [L2, COSINE, IP])
def test_a_code_is_the_vector_around_the_centre(metric: int, dtype: str) -> None:
    rng = np.random.default_rng(1)
    vectors = (rng.normal(size=(40, 21)) * 20 + 30).astype(dtype)
    mean = np.zeros(21, np.float32) if metric == IP else rng.normal(size=21).astype(np.float32)
    wide = vectors.astype(np.float64)
    if metric == COSINE:
        wide /= np.linalg.norm(wide, axis=1)[:, None]
    wanted = (wide - mean) / 0.25
    codes = encoded(vectors, mean, 0.25, metric)
    assert np.array_equal(codes[:, 21:], np.zeros((40, 11), np.float32))
    assert (np.abs(codes[:, :21] - wanted) <= 2.0**-23 * np.abs(wanted) + 1e-12).all()


def test_what_all_rows_share_costs_no_digit() -> None:
    rng = np.random.default_rng(2)
    small = rng.integers(-50, 50, (30, 16)) * 2.0**-14
    vectors = (small + 100).astype(np.float32)
    assert np.array_equal(encoded(vectors, np.full(16, 100, np.float32), 1.0, L2), small.astype(np.float32))


def test_elements_of_any_size_leave_squares_inside_float32() -> None:
    vectors = np.array([[3e38, -3e38, 1.0, 0.0]], np.float32)
    code = encoded(vectors, np.zeros(4, np.float32), 1.0, L2)[0]
    assert code[0] == np.float32(1e16) and code[1] == np.float32(-1e16) and code[2] == 1
    assert kernel_blocks(64 * 3, FLOAT32) == (np.float32(0),) * 3


_PROGRAM = """
import zlib
import numpy as np
from numba import njit
from vecdb.kernels.codes import float_codes
from vecdb.kernels.codes.code_formats import code_as_query, code_distance
from vecdb.kernels.primitives.float_products import float_dot, square_distance
from vecdb.kernels.primitives.topk import ordered_bits

@njit
def both(codes, query8, blocks, squares, dots, ordered):
    query16 = np.zeros(len(query8), np.int16)
    for i in range(len(codes)):
        squares[i] = square_distance(codes, np.int64(i), query8, blocks)
        dots[i] = float_dot(codes, np.int64(i), query8, blocks)
        products = (np.int32(1), np.int32(0))
        ordered[i] = code_distance(codes, ordered, np.int64(i), query8, query16, products, blocks)

def added_up(terms):  # float32[n, 16 * blocks], in the order that the module states
    blocks = terms.reshape(len(terms), -1, 16)
    sums = [np.zeros((len(terms), 16), np.float32) + blocks[:, i] for i in range(min(4, blocks.shape[1]))]
    for i in range(4, blocks.shape[1]):
        sums[i % 4] = sums[i % 4] + blocks[:, i]
    while len(sums) > 1:
        sums = [a + b for a, b in zip(sums[::2], sums[1::2])] + (sums[-1:] if len(sums) % 2 else [])
    total = sums[0]
    while total.shape[1] > 1:
        half = total.shape[1] // 2
        total = total[:, :half] + total[:, half:]
    return total[:, 0]

digest = 0
for count in (6, 12):
    rng = np.random.default_rng(count)
    x = (rng.normal(size=(50, 16 * count)) * 10.0 ** rng.integers(-3, 3, (50, 1))).astype(np.float32)
    q = rng.normal(size=16 * count).astype(np.float32)
    x[7] = q
    squares, dots, ordered = np.zeros(50, np.float32), np.zeros(50, np.float32), np.zeros(50, np.int32)
    both(x.view(np.uint8).reshape(50, -1), q.view(np.int8), (np.float32(0),) * count, squares, dots, ordered)
    assert np.array_equal(squares, added_up((x - q) * (x - q))), count
    assert np.array_equal(dots, added_up(x * q)), count
    assert squares[7] == 0
    assert np.array_equal(np.argsort(ordered, kind="stable"), np.argsort(-dots, kind="stable"))
    digest = zlib.crc32(squares.tobytes() + dots.tobytes(), digest)
print(digest)
"""


def test_distances_are_the_same_bits_on_every_target() -> None:
    flags = Path("/proc/cpuinfo").read_text() if os.path.exists("/proc/cpuinfo") else ""
    targets: list[tuple[str | None, str | None]] = [(None, None), ("generic", "")]
    if "avx2" in flags:
        targets.append(("haswell", ""))
    assert len({run_on(_PROGRAM, name, features) for name, features in targets}) == 1
