"""Exact distances between a float32 query and a stored row; squares and products of float32 are exact in float64.

    l2 = sum (a - b)^2        cosine = 1 - a.b / sqrt(a.a * b.b)        ip = -a.b

The sums run in float64 because 1 - cos of near vectors loses every digit that float32 has. A vector's distance to
itself is exactly 0 under l2, and under cosine because what is left by rounding is cut off. A vector of zeros is at a
right angle to everything: its distance under cosine is 1, from itself too.

A scan asks `least` first, which is as fast as memory is read: no exact distance is smaller.
"""

from __future__ import annotations

import math

import numpy as np
from numba import types
from numba.extending import overload

from vecdb.kernels.compile import FAST, INLINED_OPTIONS, part
from vecdb.kernels.primitives.float_bits import widen
from vecdb.kernels.primitives.float_products import ENDS, row_squares, row_sums

L2, COSINE, IP = 0, 1, 2
METRIC_CODES = {"l2": L2, "cosine": COSINE, "ip": IP}
ROUNDING = 1e-14  # below this 1 - cos is the rounding of three float64 sums, not a distance
BOUND_DIM_MIN = ENDS // 2  # shorter rows have no bound
_SQUARES_MIN = 1e-30  # of a row or query: below it float32 loses digits, and nothing is said of the cosine
_TINY = 1e-36  # what float32 loses of sums of such small terms


@part(fastmath=FAST)
def exact(vectors, row, query, metric):
    """Distance of vectors[row] and query, float32.

    vectors : float32 | uint16 (bits of float16) | int8 | uint8 [n, dim].   query : float32[dim].
    metric : L2, COSINE or IP.
    """
    stored = vectors[row]
    if metric == L2:
        total = 0.0
        for j in range(len(query)):
            difference = np.float64(widen(stored[j])) - np.float64(query[j])
            total += difference * difference
        return np.float32(total)
    if metric == COSINE:
        ab = 0.0
        aa = 0.0
        bb = 0.0
        for j in range(len(query)):
            a = np.float64(widen(stored[j]))
            b = np.float64(query[j])
            ab += a * b
            aa += a * a
            bb += b * b
        square = aa * bb
        if square <= 0.0:
            return np.float32(1.0)
        distance = 1.0 - ab / math.sqrt(square)
        return np.float32(distance) if distance > ROUNDING else np.float32(0.0)
    total = 0.0
    for j in range(len(query)):
        total += np.float64(widen(stored[j])) * np.float64(query[j])
    return np.float32(0.0 - total)


@part()
def write_ends(query, ends):
    """Fill ends (float32[ENDS]) as `row_sums` takes them. Returns the query's squared norm. query : float32[dim]."""
    dim, lanes = len(query), ENDS // 2
    for j in range(lanes):
        counts = j >= lanes - dim % lanes
        ends[j] = query[dim - lanes + j] if counts else np.float32(0.0)
        ends[lanes + j] = np.float32(1.0) if counts else np.float32(0.0)
    square = 0.0
    for j in range(dim):
        square += np.float64(query[j]) * np.float64(query[j])
    return square


def least(vectors, row, query, ends, square, metric):
    """A float64 that the exact distance of vectors[row] and query is at least, and near it; where the stored type has
    no such bound, minus infinity.

    ends, square : what `write_ends` made of the query (float32[dim], dim at least BOUND_DIM_MIN).
    """


@overload(least, jit_options=INLINED_OPTIONS)
def _least(vectors, row, query, ends, square, metric):
    return _float32_least if vectors.dtype == types.float32 else _no_bound


def _no_bound(vectors, row, query, ends, square, metric):
    return -np.inf


def _float32_least(vectors, row, query, ends, square, metric):
    slack = np.float64(len(query) + 32) * 2.0**-23  # twice what rounding takes
    if metric == L2:
        return np.float64(row_squares(vectors, row, query, ends)) * (1.0 - slack) - _TINY
    product, own = row_sums(vectors, row, query, ends)
    if metric == COSINE:
        if own < _SQUARES_MIN or square < _SQUARES_MIN:
            return -np.inf
        return 1.0 - np.float64(product) / math.sqrt(np.float64(own) * square) - slack
    return -np.float64(product) - slack * math.sqrt(np.float64(own) * square) - _TINY
