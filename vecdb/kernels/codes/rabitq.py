"""RaBitQ codes (Gao and Long, 2024; extended 2025): B bits a dimension of a rotated residual, and two factors.

    r = P (x - c)        c the head of the row's list, P a fixed rotation
    u = the code         B bits a dimension, packed as `dot_products.dot_packed` reads them;   xbar = u - (2^B - 1) / 2
    g = |r|^2 / <r, xbar>

    |x - q|^2  ~  add + |q - c|^2 + rescale <xbar, P (q - center)>     add = |r|^2 + 2 g <xbar, P (c - center)>
    -<x, q>    ~        -<c, q>   + rescale / 2 <xbar, P q>            rescale = -2 g; under ip center is 0

The query is rotated and quantised once for all lists, because what depends on the list alone is inside `add`. The
estimate is unbiased; its error is near normal with deviation |rescale| |q - c| spread, where `spread` is the deviation
of a code from what it stands for, in steps, much the same for all rows.

Under cosine x is of unit norm. A row of zeros is to be as far as at a right angle, |x - q|^2 = 2: its `add` is larger
by 1.

Rows of 8-bit integers under l2 need no such code: with B = 8 their bytes are the code and the estimate is exact.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numba import float32, int64

from vecdb.kernels.array_table import layout_of
from vecdb.kernels.compile import FAST, kernel, part
from vecdb.kernels.primitives.distance import COSINE
from vecdb.kernels.primitives.float_bits import widen

ROUNDS = 4  # of sign flips and Hadamard transforms
# steps per deviation of a normal element, by bits: close to the best uniform quantiser, a loss under 1 %
STEPS = {1: 1.0, 2: 0.99, 4: 3.05, 8: 34.0}
SMALLEST_TOP = np.float32(
    1e-30
)  # the largest element of a query counts as at least this, so that one of zeros is scaled


@part(fastmath=FAST)
def hadamard(x, first, count):
    """Unnormalised fast Walsh-Hadamard transform of x[first : first + count], count a power of two, at least 8.

    Three levels in registers, then two at a time: a fifth of the time of one loop a level.
    """
    for start in range(first, first + count, 8):
        y = x[start : start + 8]
        a0, a1, a2, a3 = y[0] + y[1], y[0] - y[1], y[2] + y[3], y[2] - y[3]
        a4, a5, a6, a7 = y[4] + y[5], y[4] - y[5], y[6] + y[7], y[6] - y[7]
        b0, b1, b2, b3 = a0 + a2, a1 + a3, a0 - a2, a1 - a3
        b4, b5, b6, b7 = a4 + a6, a5 + a7, a4 - a6, a5 - a7
        y[0], y[1], y[2], y[3] = b0 + b4, b1 + b5, b2 + b6, b3 + b7
        y[4], y[5], y[6], y[7] = b0 - b4, b1 - b5, b2 - b6, b3 - b7
    half = np.int64(8)
    while 2 * half < count:
        for start in range(first, first + count, 4 * half):
            y0 = x[start : start + half]
            y1 = x[start + half : start + 2 * half]
            y2 = x[start + 2 * half : start + 3 * half]
            y3 = x[start + 3 * half : start + 4 * half]
            for j in range(half):
                a, b, c, d = y0[j] + y1[j], y0[j] - y1[j], y2[j] + y3[j], y2[j] - y3[j]
                y0[j], y1[j], y2[j], y3[j] = a + c, b + d, a - c, b - d
        half *= 4
    if half < count:
        low = x[first : first + half]
        high = x[first + half : first + 2 * half]
        for j in range(half):
            a, b = low[j], high[j]
            low[j], high[j] = a + b, a - b


@part(fastmath=FAST)
def rotate(x, signs):
    """Rotate x (float32[D]) in place. signs : float32[ROUNDS, D] of +-1.

    Where D is no power of two, rounds transform the first and the last 2^k elements in turn (2^k <= D < 2^(k+1)).
    """
    dim = len(x)
    count = np.int64(1)
    while 2 * count <= dim:
        count *= 2
    scale = np.float32(1.0 / math.sqrt(count))
    for turn in range(ROUNDS):
        flips = signs[turn]
        for j in range(dim):
            x[j] *= flips[j]
        first = np.int64(0) if turn % 2 == 0 else dim - count
        hadamard(x, first, count)
        for j in range(first, first + count):
            x[j] *= scale


@part(fastmath=FAST)
def unit_factor(stored, dim, cosine):
    """1 / |x| under cosine, else 1: what a stored row is multiplied with before anything else."""
    if not cosine:
        return np.float32(1.0)
    total = 0.0
    for j in range(dim):
        x = np.float64(widen(stored[j]))
        total += x * x
    return np.float32(1.0 / math.sqrt(total)) if total > 0.0 else np.float32(0.0)


@part(fastmath=FAST)
def _encode_one(rotated, centre, bits, step, code):
    """Code of one rotated residual. Returns (add, rescale, squared deviation of the code)."""
    dim = len(rotated)
    square = np.float32(0.0)
    for j in range(dim):
        square += rotated[j] * rotated[j]
    norm = math.sqrt(square)
    width = len(code)
    code[:] = np.uint8(0)
    if not norm > 0.0:
        return np.float32(0.0), np.float32(0.0), np.float32(0.0)
    levels = np.int32(1) << np.int32(bits - 1)
    scale = np.float32(step * math.sqrt(dim) / norm)
    middle = np.float32(0.5 * (2 * levels - 1))
    along = np.float32(0.0)
    length = np.float32(0.0)
    towards = np.float32(0.0)
    for j in range(dim):
        r = rotated[j]
        magnitude = min(np.int32(abs(r) * scale), levels - np.int32(1))
        u = levels + magnitude if r > 0.0 else levels - np.int32(1) - magnitude
        xbar = np.float32(u) - middle
        along += r * xbar
        length += xbar * xbar
        towards += xbar * centre[j]
        code[j % width] |= np.uint8(u << np.int32(bits * (j // width)))
    g = square / along
    deviation = max(length - along * along / square, np.float32(0.0)) / np.float32(dim)
    return square + np.float32(2.0) * g * towards, np.float32(-2.0) * g, deviation


class CodeSpace(NamedTuple):
    """How rows become codes; fixed when a clustering tree is grown.

    metric : L2, COSINE or IP.   bits : of a dimension.   lossless : rows are their own codes (see the module's text).
    step : steps of a code per deviation of an element (`STEPS`).
    mean float32[dim], scale : an 8-bit code of a head stands for mean + scale (code - 128).
    center float32[dim] : what queries are taken relative to.   signs float32[ROUNDS, D] of +-1 : the rotation.
    """

    metric: int64
    bits: int64
    lossless: int64
    step: float32
    mean: float32[::1]
    scale: float32
    center: float32[::1]
    signs: float32[:, ::1]


@kernel(fastmath=FAST)
def encode(vectors, rows, labels, heads, space_table, codes, factors, scratch):
    """Codes of vectors[rows[i]] against head labels[i]. Returns the sum of the codes' squared deviations.

    vectors : stored type[n, dim].   rows, labels : int64[m], int32[m].   heads : uint8[any, >= dim].
    space_table : of a `CodeSpace`.   codes : uint8[m, width].   factors : float32[m, 2], filled with (add, rescale).
    scratch : float32[2, D].
    """
    space = layout_of(space_table, CodeSpace)
    dim = vectors.shape[1]
    rotated = scratch[0]
    centre = scratch[1]
    total = 0.0
    for i in range(len(rows)):
        stored = vectors[rows[i]]
        head = heads[labels[i]]
        factor = unit_factor(stored, dim, space.metric == COSINE)
        for j in range(dim):
            c = space.mean[j] + space.scale * (np.float32(head[j]) - np.float32(128.0))
            rotated[j] = widen(stored[j]) * factor - c
            centre[j] = c - space.center[j]
        for j in range(dim, len(rotated)):
            rotated[j] = np.float32(0.0)
            centre[j] = np.float32(0.0)
        rotate(rotated, space.signs)
        rotate(centre, space.signs)
        add, rescale, deviation = _encode_one(rotated, centre, space.bits, space.step, codes[i])
        factors[i, 0] = add + np.float32(1.0) if factor == np.float32(0.0) else add  # of zeros under cosine
        factors[i, 1] = rescale
        total += deviation
    return total


@kernel()
def encode_lossless(vectors, rows, flip, codes, squares):
    """Rows of 8-bit integers as their own codes: byte x ^ flip stands for x' = code - 128. squares : float32[m],
    |x'|^2.

    vectors : the rows' bytes, uint8[n, dim].   flip : 0 for uint8, 128 for int8.
    """
    dim = vectors.shape[1]
    for i in range(len(rows)):
        stored = vectors[rows[i]]
        code = codes[i]
        total = np.int32(0)
        for j in range(dim):
            c = stored[j] ^ flip
            code[j] = c
            x = np.int32(c) - np.int32(128)
            total += x * x
        for j in range(dim, len(code)):
            code[j] = np.uint8(128)
        squares[i] = np.float32(total)


@part(fastmath=FAST)
def encode_query(query, center, signs, rotated, query8):
    """Rotate and quantise one query. Returns (step, sum of query8): <P (q - center), xbar> ~ step <query8, xbar>.

    query : float32[dim].   rotated : float32[D], scratch.   query8 : int8[D], filled.
    """
    dim = len(query)
    for j in range(dim):
        rotated[j] = query[j] - center[j]
    for j in range(dim, len(rotated)):
        rotated[j] = np.float32(0.0)
    rotate(rotated, signs)
    top = SMALLEST_TOP
    for j in range(len(rotated)):
        top = max(top, abs(rotated[j]))
    factor = np.float32(127.0) / top
    total = np.int32(0)
    for j in range(len(rotated)):
        q = np.int32(rotated[j] * factor + np.float32(128.5)) - np.int32(128)
        query8[j] = q
        total += q
    return np.float32(1.0) / factor, total


@kernel(fastmath=FAST)
def encode_queries(queries, center, signs, rotated, query8s, steps, sums):
    """`encode_query` for each of queries (float32[nq, dim]): query8s int8[nq, D], steps float32[nq], sums int32[nq]."""
    for i in range(len(queries)):
        steps[i], sums[i] = encode_query(queries[i], center, signs, rotated, query8s[i])
