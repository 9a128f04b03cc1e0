"""Codes that are the vectors themselves, as float32 around a centre: for data that 8 bits tell too little of.

    code = float32((x - center) / scale)       padded with zeros to 64 * blocks bytes; scale a power of two

Under cosine x is the unit row; differences are taken in float64, so that what all rows have in common costs no digit.
A row of zeros, which has no direction, lies beyond all unit rows, so that it is in no query's way.
Distances are l2 under l2 and cosine (of unit rows, whose order is that of the angle) and the negative product under ip,
where the center is 0. They are in units of the scale, which keeps squares of very large and very small data inside
float32; no element counts as more than ELEMENT_MAX.

A probe is (SQUARES or PRODUCTS, 0): what `code_distance` computes. ANGLES is a third kind, of rotated codes alone. A
query is the bytes of its float32 elements. No sum is reordered and no product fused with a sum, so that every target
makes the same codes.
"""

from __future__ import annotations

import math

import numpy as np

from vecdb.kernels.array_table import reinterpret
from vecdb.kernels.compile import kernel, part
from vecdb.kernels.primitives.distance import COSINE, IP
from vecdb.kernels.primitives.float_bits import widen

SQUARES, PRODUCTS, ANGLES = np.int32(0), np.int32(1), np.int32(2)
_BEYOND = 3.0  # from the origin: at least 2 from every unit row
ELEMENT_MAX = 1e16  # of a code, so that the largest sum of squares, 8,192 * 4e32, is a float32


@part()
def _unit_factor(vector, metric):
    """1 / |x| under cosine, 0 for a row of zeros; else 1."""
    if metric != COSINE:
        return 1.0
    a, b, c, d = 0.0, 0.0, 0.0, 0.0  # four sums in turn: one would wait for itself
    whole = len(vector) - len(vector) % 4
    for j in range(0, whole, 4):
        x0, x1 = np.float64(widen(vector[j])), np.float64(widen(vector[j + 1]))
        x2, x3 = np.float64(widen(vector[j + 2])), np.float64(widen(vector[j + 3]))
        a, b, c, d = a + x0 * x0, b + x1 * x1, c + x2 * x2, d + x3 * x3
    for j in range(whole, len(vector)):
        x = np.float64(widen(vector[j]))
        a += x * x
    total = (a + b) + (c + d)
    return 1.0 / math.sqrt(total) if total > 0.0 else 0.0


@part()
def write_around(vector, center, scale, metric, code):
    """(x - center) / scale of one vector (stored type[dim]) into code (float32[>= dim]), zeros behind it."""
    factor = _unit_factor(vector, metric)
    step = 1.0 / scale
    for j in range(len(vector)):
        x = (np.float64(widen(vector[j])) * factor - np.float64(center[j])) * step
        code[j] = np.float32(min(max(x, -ELEMENT_MAX), ELEMENT_MAX))
    if factor == 0.0:
        code[0] += np.float32(min(_BEYOND * step, ELEMENT_MAX))
    for j in range(len(vector), len(code)):
        code[j] = np.float32(0.0)


@part()
def write_direction(query, code):
    """A query that is only multiplied with codes, as long as its largest element is 1: float32[dim] into code."""
    top = np.float32(1e-37)
    for j in range(len(query)):
        top = max(top, abs(query[j]))
    for j in range(len(query)):
        code[j] = query[j] / top
    for j in range(len(query), len(code)):
        code[j] = np.float32(0.0)


@kernel()
def encode(vectors, first, stop, center, scale, metric, codes):
    """Encode rows [first, stop).

    vectors : stored type [n, dim].   center : float32[dim].   codes : uint8[n, 64 * blocks], 64 * blocks >= 4 * dim.
    """
    for row in range(first, stop):
        write_around(vectors[row], center, scale, metric, reinterpret(codes[row], np.float32))


@part()
def encode_query(query, center, scale, metric, query8):
    """Write one query as a code is written: query float32[dim], query8 int8[64 * blocks]. Returns its probe."""
    code = reinterpret(query8, np.float32)
    if metric != IP:
        write_around(query, center, scale, metric, code)
        return SQUARES, np.int32(0)
    write_direction(query, code)
    return PRODUCTS, np.int32(0)


@part()
def code_as_query(codes, row, kind, query8):
    """Take a stored row as the query. kind : SQUARES or PRODUCTS. Returns the probe."""
    code, query = reinterpret(codes[row], np.float32), reinterpret(query8, np.float32)
    for j in range(len(code)):
        query[j] = code[j]
    return kind, np.int32(0)
