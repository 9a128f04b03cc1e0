"""Exact distances between a float32 query and a stored row; squares and products of float32 are exact in float64.

    l2 = sum (a - b)^2        cosine = 1 - a.b / sqrt(a.a * b.b)        ip = -a.b
    hamming = bits that differ                    jaccard = 1 - |a and b| / |a or b|, 0 where neither has a bit

The last two are of vectors of bits: uint8, eight bits each; a query has the same bytes as whole numbers.

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

from vecdb.kernels.array_table import reinterpret
from vecdb.kernels.compile import FAST, INLINED_OPTIONS, PART_OPTIONS, inlined, part
from vecdb.kernels.primitives.bit_products import popcount, word_bits
from vecdb.kernels.primitives.float_bits import widen
from vecdb.kernels.primitives.float_products import ENDS, row_squares, row_sums
from vecdb.limits import dim_max

L2, COSINE, IP, HAMMING, JACCARD = range(5)
METRIC_CODES = {"l2": L2, "cosine": COSINE, "ip": IP, "hamming": HAMMING, "jaccard": JACCARD}
OF_BITS = (HAMMING, JACCARD)
ROUNDING = 1e-14  # below this 1 - cos is the rounding of three float64 sums, not a distance
BOUND_DIM_MIN = ENDS // 2  # shorter rows have no bound
HELD = max(ENDS, dim_max // 32)  # float32 that hold what `least` needs: of bits a byte for every eight
_SQUARES_MIN = 1e-30  # of a row or query: below it float32 loses digits, and nothing is said of the cosine
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


def write_ends(vectors, query, ends, metric):
    """Fill ends (float32[HELD]) with what `least` needs of a query, float32[dim]: its ends as `row_sums` takes them, or
    its bytes where it is of bits. Returns the query's squared norm where that is needed.
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
        for j in range(len(query)):
            held[j] = np.uint8(query[j])
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


def least(vectors, row, query, ends, square, metric):
    """A float64 that the exact distance of vectors[row] and query is at least, and near it; where the stored type has
    no such bound, minus infinity.

    ends, square : what `write_ends` made of the query (float32[dim], dim at least BOUND_DIM_MIN). Of bits it is the
    distance itself.
    """


@overload(least, jit_options=INLINED_OPTIONS)
def _least(vectors, row, query, ends, square, metric):
    ways = {types.float32: _float32_least, types.uint8: _bits_least}
    return ways.get(vectors.dtype, _no_bound)


def _no_bound(vectors, row, query, ends, square, metric):
    return -np.inf


def _bits_least(vectors, row, query, ends, square, metric):
    if metric < HAMMING:
        return -np.inf
    stored, held = vectors[row], reinterpret(ends, np.uint8)
    length = len(stored)
    whole = length - length % 8
    differing = np.int64(0)
    for at in range(0, whole, 8):
        differing += word_bits(stored, np.int64(at), held, np.int64(at), None)
    for at in range(whole, length):
        differing += popcount(np.int32(stored[at] ^ held[at]))
    if metric == HAMMING:
        return np.float64(differing)
    shared = np.int64(0)
    for at in range(0, whole, 8):
        shared += word_bits(stored, np.int64(at), held, np.int64(at), True)
    for at in range(whole, length):
        shared += popcount(np.int32(stored[at] & held[at]))
    return np.float64(jaccard_of(shared, shared + differing))


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
