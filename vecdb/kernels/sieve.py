"""A first look at many codes, a cache line each: RaBitQ of one bit against a query of four (Gao and Long, 2024).

    line   := bits u8 * width | add f32 | rescale f32 | zeros up to a multiple of 64 bytes
    query  := 4 planes of bits, u = floor((P (q - center) - low) / step + 1/2) in 0..15

    |x - q|^2 ~ |q - center|^2 + add + rescale <bits - 1/2, P (q - center)>

Bits lie as kernels/rabitq.py packs them. All rows have one center, so the constant is left out. Products are AND and
population counts: an eighth of the memory of 8-bit codes, which a scan of rows that lie scattered waits for.
"""

from __future__ import annotations

import math

import numpy as np

from vecdb.kernels.intrinsics import bit_products, prefetch_at
from vecdb.kernels.lists import select_smallest
from vecdb.kernels.options import FAST, inlined, kernel, part
from vecdb.kernels.rabitq import rotate, unit_factor
from vecdb.kernels.search import distance_of, key_of

PLANES = 4
CHUNK = 4_096  # places sifted before the best are picked out
_AHEAD = 16  # lines on their way from memory while one is compared


@part(fastmath=FAST)
def as_planes(query, center, signs, cosine, rotated, planes):
    """Rotate and quantise one query. Returns (low, step, sum of P (q - center), |q - center|).

    query, center : float32[dim].   rotated : float32[D], scratch.   planes : uint8[4, D / 8], filled.
    """
    dim = len(query)
    factor = unit_factor(query, dim, cosine)
    for j in range(dim):
        rotated[j] = query[j] * factor - center[j]
    for j in range(dim, len(rotated)):
        rotated[j] = np.float32(0.0)
    rotate(rotated, signs)
    low = rotated[0]
    high = rotated[0]
    total = np.float32(0.0)
    square = np.float32(0.0)
    for j in range(len(rotated)):
        square += rotated[j] * rotated[j]
        low = min(low, rotated[j])
        high = max(high, rotated[j])
        total += rotated[j]
    step = max((high - low) / np.float32(15.0), np.float32(1e-30))
    scale = np.float32(1.0) / step
    width = planes.shape[1]
    for j in range(width):
        first = np.int32(0)
        second = np.int32(0)
        third = np.int32(0)
        fourth = np.int32(0)
        for bit in range(8):
            u = np.int32((rotated[bit * width + j] - low) * scale + np.float32(0.5))
            first |= (u & np.int32(1)) << np.int32(bit)
            second |= ((u >> np.int32(1)) & np.int32(1)) << np.int32(bit)
            third |= ((u >> np.int32(2)) & np.int32(1)) << np.int32(bit)
            fourth |= (u >> np.int32(3)) << np.int32(bit)
        planes[0, j] = first
        planes[1, j] = second
        planes[2, j] = third
        planes[3, j] = fourth
    return low, step, total, np.float32(math.sqrt(square))


@inlined(fastmath=FAST)
def estimate(words, floats, at, planes64, low, step, total, weight, count):
    """Estimated distance of the line that begins at word `at`, without the query's constant.

    words, floats : the lines as uint64 and as float32.   planes64 : uint64[4, words of a code].   weight : 1, or 0
    under ip.   count : a tuple as long as the code has words.
    """
    both = bit_products(words, at, planes64, count)
    dot = low * np.float32(both >> 32) + step * np.float32(both & np.int64(0xFFFFFFFF))
    factors = 2 * (at + len(count))
    return weight * floats[factors] + floats[factors + 1] * (dot - np.float32(0.5) * total)


@part()
def sift(
    listed, everything, first, stop, lines, words, floats, stride, planes64, low, step, total, weight, limit, slack,
    most, keys, kept, count,
):  # fmt: skip
    """The places of [first, stop) of `listed` (uint32 slots), or of the slots themselves, that may be among the nearest
    `limit`: whose estimate is within `slack` of the limit-th. Into kept (uint32[>= most]), in no order, the nearest
    `most` where there are more. Returns how many.

    keys : int64[>= most + CHUNK], scratch.   most : > limit.
    """
    size = np.int64(0)
    begin = first
    while begin < stop:
        end = min(begin + CHUNK, stop)
        for at in range(begin, end):
            slot = np.int64(at)
            if not everything:
                prefetch_at(lines, np.int64(listed[min(at + _AHEAD, stop - 1)]) * stride)
                slot = np.int64(listed[at])
            d = estimate(words, floats, slot * (stride >> 3), planes64, low, step, total, weight, count)
            keys[size] = key_of(d, slot)
            size += 1
        if size > most:
            select_smallest(keys, size, np.int64(most))
            size = np.int64(most)
        begin = end
    if size > limit:
        select_smallest(keys, size, np.int64(limit))
        last = keys[0]
        for j in range(1, limit):
            last = max(last, keys[j])
        bound = key_of(distance_of(last) + slack, np.int64(0xFFFFFFFF))
        passed = np.int64(0)
        for j in range(size):
            if keys[j] <= bound:
                keys[passed] = keys[j]
                passed += 1
        size = passed
    for j in range(size):
        kept[j] = np.uint32(keys[j] & np.int64(0xFFFFFFFF))
    return size


@kernel()
def pack(codes, factors, first, lines, floats):
    """Lay codes (uint8[n, width]) and factors (float32[n, 2]) into lines (uint8[slots, stride]) from slot `first` on.

    floats : the same bytes as float32[slots, stride / 4].
    """
    width = codes.shape[1]
    for i in range(len(codes)):
        for j in range(width):
            lines[first + i, j] = codes[i, j]
        floats[first + i, width >> 2] = factors[i, 0]
        floats[first + i, (width >> 2) + 1] = factors[i, 1]


@kernel()
def estimates(
    queries, center, signs, cosine, weight, words, floats, stride, rotated, planes, planes64, out, norms, count
):  # fmt: skip
    """Estimated distances of queries (float32[nq, dim]) to all lines: out float32[nq, n]; and |q - center|: norms
    float32[nq].
    """
    for i in range(len(queries)):
        low, step, total, norms[i] = as_planes(queries[i], center, signs, cosine, rotated, planes)
        for j in range(out.shape[1]):
            out[i, j] = estimate(words, floats, np.int64(j) * (stride >> 3), planes64, low, step, total, weight, count)
