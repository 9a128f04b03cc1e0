"""8-bit scalar codes: code = clip(round((x - mean) / scale) + 128), one scale for all dimensions.

Under cosine the vector is normalised first. A code row is padded to 64 * blocks bytes: with 128 (that is, 0 after the
offset) so that padding adds nothing to a norm or a dot product. Under l2 every row has a bias, |code - 128|^2, int32.

The walk's integer distance is  d = bias[row] - 2 * dot(query, code) + constant(query);  with x' = code - 128 this is
|x'|^2 - 2 q.x' under l2 and -2 q.x' otherwise, up to one rounding of the query.
"""

from __future__ import annotations

import math

import numpy as np

from vecdb.kernels.intrinsics import widen
from vecdb.kernels.options import FAST, kernel, part


@kernel(fastmath=FAST)
def encode(vectors, first, stop, mean, scale, metric, codes, bias):
    """Encode rows [first, stop) into codes (and bias, where it is not empty). Returns how many elements were clipped.

    vectors : stored type [n, dim].   mean : float32[dim].   codes : uint8[n, 64 * blocks].   bias : int32[n] or
    int32[0].
    """
    dim = vectors.shape[1]
    clipped = 0
    for row in range(first, stop):
        stored = vectors[row]
        code = codes[row]
        factor = np.float32(1.0 / scale)
        if metric == 1:
            norm = 0.0
            for j in range(dim):
                x = np.float64(widen(stored[j]))
                norm += x * x
            factor = np.float32(1.0 / (math.sqrt(norm) * scale)) if norm > 0.0 else np.float32(0.0)
        for j in range(dim):
            x = (widen(stored[j]) - mean[j]) * factor
            y = min(max(x, np.float32(-128.0)), np.float32(127.0))
            clipped += (x < np.float32(-128.5)) | (x > np.float32(127.5))
            code[j] = np.uint8(np.int32(y + np.float32(128.5)))
        for j in range(dim, len(code)):
            code[j] = np.uint8(128)
        if len(bias):
            total = np.int32(0)
            for j in range(dim):
                x = np.int32(code[j]) - np.int32(128)
                total += x * x
            bias[row] = total
    return clipped


@part(fastmath=FAST)
def encode_query(query, mean, scale, metric, bias_used, query8, query16):
    """Quantise one query to int8. Returns the constant that makes d an approximate distance in units of the code.

    query : float32[dim].   query8, query16 : int8, int16 [64 * blocks], filled.
    Under l2 the query is measured on the codes' own scale; otherwise only its direction counts and it gets a scale of
    its own.
    """
    dim = len(query)
    total = np.int32(0)
    square = np.int32(0)
    if bias_used:
        factor = np.float32(1.0 / scale)
    else:
        top = np.float32(1e-37)
        for j in range(dim):
            top = max(top, abs(query[j]))
        factor = np.float32(127.0) / top
    for j in range(dim):
        x = query[j] * factor if not bias_used else (query[j] - mean[j]) * factor
        x = min(max(x, np.float32(-127.0)), np.float32(127.0))
        q = np.int32(x + np.float32(128.5)) - np.int32(128)
        query8[j] = q
        query16[j] = q
        total += q
        square += q * q
    for j in range(dim, len(query8)):
        query8[j] = 0
        query16[j] = 0
    return np.int32(256) * total + (square if bias_used else np.int32(0))


@part()
def code_as_query(codes, row, query8, query16):
    """Take a stored row as the query. Returns the constant, as `encode_query` does (without |q|^2: the caller adds
    bias[row]).
    """
    code = codes[row]
    total = np.int32(0)
    for j in range(len(code)):
        q = np.int32(code[j]) - np.int32(128)
        query8[j] = q
        query16[j] = q
        total += q
    return np.int32(256) * total
