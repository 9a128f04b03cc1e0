"""Exact distances between a float32 query and a stored row; squares and products of float32 are exact in float64.

    l2 = sum (a - b)^2        cosine = 1 - a.b / sqrt(a.a * b.b)        ip = -a.b

The sums run in float64 because 1 - cos of near vectors loses every digit that float32 has. A vector's distance to
itself is exactly 0 under l2, and under cosine because what is left by rounding is cut off.
"""

from __future__ import annotations

import math

import numpy as np

from vecdb.kernels.compile import FAST, part
from vecdb.kernels.primitives.float_bits import widen

L2, COSINE, IP = 0, 1, 2
METRIC_CODES = {"l2": L2, "cosine": COSINE, "ip": IP}
ROUNDING = 1e-14  # below this 1 - cos is the rounding of three float64 sums, not a distance


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
