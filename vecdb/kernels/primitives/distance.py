"""Exact distances between a float32 query and a stored row; squares and products of float32 are exact in float64.

    l2 = sum (a - b)^2        cosine = 1 - a.b / sqrt(a.a * b.b)        ip = -a.b
    hamming = bits that differ                    jaccard = 1 - |a and b| / |a or b|, 0 where neither has a bit

The last two are of vectors of bits: uint8, eight bits each; a query has the same bytes as whole numbers.

The sums run in float64 because 1 - cos of near vectors loses every digit that float32 has. A vector's distance to
itself is exactly 0 under l2, and under cosine because what is left by rounding is cut off. A vector of zeros is at a
right angle to everything: its distance under cosine is 1, from itself too.

A scan asks `near` first, which is as fast as memory is read: what it leaves out is farther than a given distance.
"""

from __future__ import annotations

import math

import numpy as np
from numba import types
from numba.extending import overload

from vecdb.kernels.array_table import reinterpret
from vecdb.kernels.compile import FAST, INLINED_OPTIONS, PART_OPTIONS, inlined, part
from vecdb.kernels.primitives.bit_products import popcount, rows_by_bits
from vecdb.kernels.primitives.float_bits import widen
from vecdb.kernels.primitives.float_products import (
    ENDS,
    ROWS,
    SQUARE_MIN,
    rows_by_cosines,
    rows_by_products,
    rows_by_squares,
)
from vecdb.limits import dim_max

L2, COSINE, IP, HAMMING, JACCARD = range(5)
METRIC_CODES = {"l2": L2, "cosine": COSINE, "ip": IP, "hamming": HAMMING, "jaccard": JACCARD}
OF_BITS = (HAMMING, JACCARD)
ROUNDING = 1e-14  # below this 1 - cos is the rounding of three float64 sums, not a distance
BOUND_DIM_MIN = ENDS // 2  # shorter rows have no bound
HELD = max(ENDS, dim_max // 32 + 16)  # float32 that hold what `near` needs: of bits a byte for every eight, and zeros
_BYTES_MIN = 8  # shorter rows of bits have no bound
_EVERY_ROW = np.int64((1 << ROWS) - 1)
_TINY = 1e-36  # what float32 loses of sums of such small terms


@part(fastmath=FAST)
def exact(vectors, row, query, metric):
    """Distance of vectors[row] and query, float32.

    vectors : float32 | uint16 (bits of float16) | int8 | uint8 [n, dim].   query : float32[dim].
    metric : any; HAMMING and JACCARD of uint8 alone.
    """
    if metric >= HAMMING:
        return exact_bits(vectors, row, query, metric)
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


def exact_bits(vectors, row, query, metric):
    """`exact` of vectors of bits; infinite for vectors that are not."""


@overload(exact_bits, jit_options=PART_OPTIONS)
def _exact_bits(vectors, row, query, metric):
    return _bits_of_bytes if vectors.dtype == types.uint8 else _no_bits


def _no_bits(vectors, row, query, metric):
    return np.float32(np.inf)


def _bits_of_bytes(vectors, row, query, metric):
    stored = vectors[row]
    differing, shared = np.int32(0), np.int32(0)
    if metric == HAMMING:
        for j in range(len(query)):
            differing += popcount(np.int32(stored[j]) ^ np.int32(query[j]))
        return np.float32(differing)
    for j in range(len(query)):
        a, b = np.int32(stored[j]), np.int32(query[j])
        differing += popcount(a ^ b)
        shared += popcount(a & b)
    return jaccard_of(shared, shared + differing)


@inlined()
def jaccard_of(shared, either):
    """The Jaccard distance, float32, of two vectors that share so many bits of those that either has."""
    if either == 0:
        return np.float32(0.0)
    return np.float32(1.0) - np.float32(shared) / np.float32(either)


def has_bound(vectors, metric):
    """Whether `near` says anything of such rows."""


@overload(has_bound, jit_options=INLINED_OPTIONS)
def _has_bound(vectors, metric):
    ways = {
        types.float32: lambda vectors, metric: vectors.shape[1] >= BOUND_DIM_MIN,
        types.uint8: lambda vectors, metric: metric >= HAMMING and vectors.shape[1] >= _BYTES_MIN,
    }
    return ways.get(vectors.dtype, lambda vectors, metric: False)


def write_ends(vectors, query, ends, metric):
    """Fill ends (float32[HELD]) with what `near` needs of a query, float32[dim]: its ends as `rows_by_squares` takes
    them, or its bytes where it is of bits. Returns the query's squared norm where that is needed.
    """


@overload(write_ends, jit_options=PART_OPTIONS)
def _write_ends(vectors, query, ends, metric):
    ways = {types.float32: _write_float32_ends, types.uint8: _write_bytes}
    return ways.get(vectors.dtype, _write_nothing)


def _write_nothing(vectors, query, ends, metric):
    return 0.0


def _write_bytes(vectors, query, ends, metric):
    if metric >= HAMMING:
        held = reinterpret(ends, np.uint8)
        length = len(query)
        for j in range(length):
            held[j] = np.uint8(query[j])
        for j in range(length, (length + 63) // 64 * 64):
            held[j] = np.uint8(0)
    return 0.0


def _write_float32_ends(vectors, query, ends, metric):
    dim, lanes = len(query), ENDS // 2
    for j in range(lanes):
        counts = j >= lanes - dim % lanes
        ends[j] = query[dim - lanes + j] if counts else np.float32(0.0)
        ends[lanes + j] = np.float32(1.0) if counts else np.float32(0.0)
    square = 0.0
    for j in range(dim):
        square += np.float64(query[j]) * np.float64(query[j])
    return square


@part()
def reach(worst, square, dim, metric):
    """What a distance `worst` (float32) comes to for sums of float32: two float32, as `near` takes them.

    The sums' own errors, and those of what is made of them there, are within the slack, which is twice what the sums
    need.   square : the query's squared norm.
    """
    slack = np.float64(dim + 32) * 2.0**-23
    distance = np.float64(worst)
    if metric == L2:
        return np.float32((distance + _TINY) / (1.0 - slack) * (1.0 + 2.0**-23)), np.float32(0.0)
    if metric == COSINE:
        share = (1.0 - slack - distance) * math.sqrt(square) if square >= SQUARE_MIN else -np.inf
        return np.float32(share), np.float32(0.0)
    if metric == IP:
        least = -(distance + _TINY)
        return np.float32(least - abs(least) * 2.0**-23), np.float32(slack * math.sqrt(square))
    return worst, np.float32(0.0)


def near(vectors, rows, at, query, ends, bounds, ahead, metric):
    """Of the rows rows[at : at + ROWS] (int32), a bit each, int64, the first the lowest: those that may be as near to
    the query as the distance of which `reach` made `bounds`. Where the stored type has no such bound, all.

    ends : what `write_ends` made of the query.   ahead : int64, bytes from what is read to what is asked for in
    advance, where rows are long.   Rows have to have a bound, see `has_bound`.
    """


@overload(near, jit_options=INLINED_OPTIONS)
def _near(vectors, rows, at, query, ends, bounds, ahead, metric):
    ways = {types.float32: _near_floats, types.uint8: _near_bits}
    return ways.get(vectors.dtype, _all_near)


def _all_near(vectors, rows, at, query, ends, bounds, ahead, metric):
    return _EVERY_ROW


def _near_bits(vectors, rows, at, query, ends, bounds, ahead, metric):
    held = reinterpret(ends, np.uint8)
    if metric == HAMMING:
        return rows_by_bits(vectors, rows, at, held, bounds[0], None)
    return rows_by_bits(vectors, rows, at, held, bounds[0], True)


def _near_floats(vectors, rows, at, query, ends, bounds, ahead, metric):
    if metric == L2:
        return rows_by_squares(vectors, rows, at, query, ends, bounds[0], bounds[1], ahead)
    if metric == COSINE:
        return rows_by_cosines(vectors, rows, at, query, ends, bounds[0], bounds[1], ahead)
    return rows_by_products(vectors, rows, at, query, ends, bounds[0], bounds[1], ahead)
