"""A first look at many codes, a cache line each: RaBitQ of one bit against a query of three (Gao and Long, 2024).

    line   := bits u8 * width | add f32 | rescale f32 | zeros up to a multiple of 64 bytes
    query  := 3 planes of bits, u = round(P (q - center) / step) in -4..3, two's complement

    |x - q|^2 ~ |q - center|^2 + add + rescale <bits - 1/2, P (q - center)>

Bits lie as kernels/codes/rabitq.py packs them. All rows have one center, so the constant is left out. Products are AND
and population counts: an eighth of the memory of 8-bit codes, which a scan of rows that lie scattered waits for. A
fourth bit of the query would cost a third more of them, and lessens the estimate's error by a twentieth.
"""

from __future__ import annotations

import math

import numpy as np

from vecdb.kernels.codes.rabitq import rotate, unit_factor
from vecdb.kernels.compile import FAST, inlined, kernel, part
from vecdb.kernels.primitives.bit_products import bit_products
from vecdb.kernels.primitives.prefetch import stream_at
from vecdb.kernels.primitives.topk import key_of, select_smallest
from vecdb.kernels.primitives.visibility import is_visible

PLANES = 3
_STEP = np.float32(0.62)  # of a quantised query, in deviations: close to the best for eight levels
AHEAD = 16  # lines on their way from memory while one is compared


@part(fastmath=FAST)
def as_planes(query, center, signs, cosine, rotated, planes):
    """Rotate and quantise one query. Returns (step, half the sum of its elements in steps, |q - center|).

    query, center : float32[dim].   rotated : float32[D], scratch.   planes : uint8[3, D / 8], filled.
    """
    dim = len(query)
    factor = unit_factor(query, dim, cosine)
    square = np.float32(0.0)
    for j in range(dim):
        x = query[j] * factor - center[j]
        rotated[j] = x
        square += x * x
    for j in range(dim, len(rotated)):
        rotated[j] = np.float32(0.0)
    rotate(rotated, signs)
    step = max(_STEP * np.float32(math.sqrt(square / np.float32(len(rotated)))), np.float32(1e-30))
    scale = np.float32(1.0) / step
    width = planes.shape[1]
    total = np.int32(0)
    for j in range(width):
        first = np.int32(0)
        second = np.int32(0)
        third = np.int32(0)
        for bit in range(8):
            x = min(max(rotated[bit * width + j] * scale, np.float32(-4.0)), np.float32(3.0))
            u = np.int32(x + np.float32(4.5)) - np.int32(4)
            total += u
            first |= (u & np.int32(1)) << np.int32(bit)
            second |= ((u >> np.int32(1)) & np.int32(1)) << np.int32(bit)
            third |= ((u >> np.int32(2)) & np.int32(1)) << np.int32(bit)
        planes[0, j] = first
        planes[1, j] = second
        planes[2, j] = third
    return step, np.float32(0.5) * np.float32(total), np.float32(math.sqrt(square))


@inlined(fastmath=FAST)
def estimate(words, floats, at, planes64, step, half, weight, count):
    """Estimated distance of the line that begins at word `at`, without the query's constant.

    words, floats : the lines as uint64 and as float32.   planes64 : uint64[3, words of a code].   step, half : see
    `as_planes`.   weight : 1, or 0 under ip.   count : a tuple as long as the code has words.
    """
    product = np.float32(bit_products(words, at, planes64, count))
    factors = 2 * (at + len(count))
    return weight * floats[factors] + floats[factors + 1] * step * (product - half)


@inlined()
def _keep_smallest(heap, size, value):
    """Put value in the place of the largest of heap[:size], a larger one. heap : float32, the largest first."""
    at = np.int64(0)
    while True:
        child = 2 * at + 1
        if child >= size:
            break
        if child + 1 < size and heap[child + 1] > heap[child]:
            child += 1
        if heap[child] <= value:
            break
        heap[at] = heap[child]
        at = child
    heap[at] = value


@inlined()
def offer(d, slot, bound, slack, limit, most, nearest, keys, size):
    """Take in a slot whose estimate is within the bound. Returns (size, bound). The rest: see `sift`."""
    if d < nearest[0]:
        _keep_smallest(nearest, limit, d)
        bound = nearest[0] + slack
    keys[size] = key_of(d, slot)
    size += 1
    if size == 2 * most:
        select_smallest(keys, size, most)
        size = most
    return size, bound


@part()
def let_through(keys, size, bound, most, kept):
    """Those of keys[:size] that are within the bound, the nearest `most`, into kept, in no order. Returns how many."""
    last = key_of(bound, np.int64(0xFFFFFFFF))
    passed = np.int64(0)
    for j in range(size):
        if keys[j] <= last:
            keys[passed] = keys[j]
            passed += 1
    if passed > most:
        select_smallest(keys, passed, most)
        passed = most
    for j in range(passed):
        kept[j] = np.uint32(keys[j] & np.int64(0xFFFFFFFF))
    return passed


@part()
def sift(
    listed, everything, first, stop, lines, words, floats, stride, planes64, step, half, weight, limit, slack, most,
    seen, nearest, keys, kept, count,
):  # fmt: skip
    """The slots of listed[first:stop] (uint32) that may be among the nearest `limit`: whose estimate is within `slack`
    of the limit-th. Into kept (uint32[>= most]), in no order, the nearest `most` where there are more. Returns how
    many.

    everything : the slots [first, stop) themselves; those of visible rows.
    seen : (rows_of, row_count, sequence, deleted), looked at for everything.
    nearest : float32[>= limit], estimates of the nearest so far, the largest first; infinite before the first call, and
    what one call finds bounds the next.   keys : int64[> 2 * most], scratch.   most : > limit.
    """
    rows_of, row_count, sequence, deleted = seen
    bound = nearest[0] + slack
    size = np.int64(0)
    for at in range(first, stop):
        slot = np.int64(at)
        if not everything:
            stream_at(lines, np.int64(listed[min(at + AHEAD, stop - 1)]) * stride)
            slot = np.int64(listed[at])
        d = estimate(words, floats, slot * (stride >> 3), planes64, step, half, weight, count)
        if d > bound:
            continue
        if everything and not is_visible(np.int64(rows_of[slot]), row_count, sequence, deleted, deleted[:0]):
            continue
        size, bound = offer(d, slot, bound, slack, limit, most, nearest, keys, size)
    return let_through(keys, size, bound, most, kept)


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
        step, half, norms[i] = as_planes(queries[i], center, signs, cosine, rotated, planes)
        for j in range(out.shape[1]):
            out[i, j] = estimate(words, floats, np.int64(j) * (stride >> 3), planes64, step, half, weight, count)
