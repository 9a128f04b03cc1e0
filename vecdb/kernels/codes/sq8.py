"""8-bit scalar codes: code = clip(round((x - mean) / scale) + 128), one scale for all dimensions.

A row with an element far outside the codes' range is `far`: its code says little, so searches score it by its vector.
Its code lies nearer than the row itself, too, and would take the place of rows that are nearer: where codes have a
bias, its own is FAR_BIAS, which puts it behind all others. (Rows eight times as long as those that the codes were made
from had left .61 of the true neighbours, rows thirty times as long .007.) Under l2 a row is also `far` that is too
short for the scale, since all such rows have much the same code.

Under cosine the vector is normalised first, and the mean is 0 unless the codes are centred
(index/common/code_choice.py). A row of zeros is to be as far as at a right angle: where codes have a bias, its own
counts as that of a row of unit norm. A code row is padded to 64 * blocks bytes: with 128 (that is, 0 after the offset)
so that padding adds nothing to a norm or a dot product. Under l2 every row has a bias, |code - 128|^2, int32.

The walk's integer distance is  d = bias[row] - 2 * dot(query, code) + constant(query);  with x' = code - 128 this is
|x'|^2 - 2 q.x' under l2 and -2 q.x' otherwise, up to one rounding of the query. A query outside the codes' range is
halved until it fits, and the bias with it: a probe is (constant, halvings), both int32.
"""

from __future__ import annotations

import math

import numpy as np

from vecdb.kernels.compile import FAST, kernel, part
from vecdb.kernels.primitives.distance import COSINE
from vecdb.kernels.primitives.float_bits import widen

FAR = np.float32(132.0)  # units of the scale; clipping that moves an element by 4 of them is like other rounding
FAR_BIAS = np.int32(1 << 29)  # of rows beyond the codes; distances stay an int32, also between two of them
_ZERO_BIAS_MAX = float(1 << 29)  # a distance of such a row stays an int32


@kernel(fastmath=FAST)
def encode(vectors, first, stop, mean, scale, metric, flat, codes, bias, far):
    """Encode rows [first, stop) into codes (and bias, where it is not empty). Returns how many rows are far.

    vectors : stored type [n, dim].   mean : float32[dim].   flat : rows of a smaller bias are far, too; 0: none is.
    codes : uint8[n, 64 * blocks].   bias : int32[n] or int32[0].   far : int32[>= stop - first], filled with the far
    rows.
    """
    dim = vectors.shape[1]
    count = 0
    for row in range(first, stop):
        stored = vectors[row]
        code = codes[row]
        factor = np.float32(1.0 / scale)
        length = np.float32(1.0)
        is_zero = False
        if metric == COSINE:
            norm = 0.0
            for j in range(dim):
                x = np.float64(widen(stored[j]))
                norm += x * x
            if norm > 0.0:
                factor = np.float32(1.0 / (math.sqrt(norm) * scale))
                length = np.float32(math.sqrt(norm))
            is_zero = not norm > 0.0
        beyond = 0
        for j in range(dim):
            x = (widen(stored[j]) - mean[j] * length) * factor
            y = min(max(x, np.float32(-128.0)), np.float32(127.0))
            beyond += abs(x) > FAR
            code[j] = np.uint8(np.int32(y + np.float32(128.5)))
        for j in range(dim, len(code)):
            code[j] = np.uint8(128)
        is_flat = False
        if len(bias):
            total = np.int32(0)
            for j in range(dim):
                x = np.int32(code[j]) - np.int32(128)
                total += x * x
            if is_zero:
                total += np.int32(min(1.0 / (np.float64(scale) * np.float64(scale)), _ZERO_BIAS_MAX))
            is_flat = total < flat
            bias[row] = FAR_BIAS if beyond else total
        if beyond or is_flat:
            far[count] = row
            count += 1
    return count


@part(fastmath=FAST)
def encode_query(query, mean, scale, metric, bias_used, query8, query16):
    """Quantise one query to int8. Returns the probe that makes d an approximate distance in units of the code.

    query : float32[dim].   query8, query16 : int8, int16 [64 * blocks], filled.
    Under l2 the query is measured on the codes' own scale; otherwise only its direction counts and it gets a scale of
    its own.
    """
    dim = len(query)
    total = np.int32(0)
    square = np.int32(0)
    halvings = np.int32(0)
    top = np.float32(1e-37)
    if bias_used:
        for j in range(dim):
            top = max(top, abs(query[j] - mean[j]))
        factor = np.float32(1.0 / scale)
        while top * factor > FAR and halvings < 30:
            factor *= np.float32(0.5)
            halvings += np.int32(1)
    else:
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
    return np.int32(256) * total + (square if bias_used else np.int32(0)), halvings


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
