"""One-bit codes, a cache line each: RaBitQ of one bit against a query of three bits (Gao and Long, 2024).

    line   := bits u8 * width | add f32 | rescale f32 | zeros up to a multiple of 64 bytes
    query  := 3 planes of bits, u = round(P (q - center) / step) in -4..3, two's complement

    |x - q|^2 ~ |q - center|^2 + add + rescale <bits - 1/2, P (q - center)>

Bits lie as kernels/codes/rabitq.py packs them, width = D / 8 bytes of them; P is its rotation, into D >= dim
dimensions, a multiple of 64. All rows have one center, so |q - center|^2 is the same for all of them and is left out.
Distances are in the units of the vectors, squared under l2 and cosine. Products are AND and population counts. A scan
of rows that lie scattered waits for memory, and a line is an eighth of an 8-bit code. A fourth bit of the query would
cost a third more instructions and lessen the estimate's error by a twentieth.

A filter takes the rows whose estimates are small, so that only their 8-bit codes are compared:

    estimates -> no farther than the limit-th smallest + slack -> shortlist -> kept, the slots that are left

    slot    position of a row's code in the order of the tree
    listed  uint32[any] slots, ascending, of rows that the snapshot sees; places are positions in it
    everything: not the listed ones, but all slots are meant. A place is the slot itself, and its row may be deleted.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numba import float32, int64, uint8, uint32, uint64

from vecdb.kernels.codes.rabitq import rotate, unit_factor
from vecdb.kernels.compile import FAST, inlined, kernel, part
from vecdb.kernels.primitives.bit_products import bit_products
from vecdb.kernels.primitives.prefetch import stream_at
from vecdb.kernels.primitives.topk import ROW_OF_KEY, key_of, select_smallest, sift_down
from vecdb.kernels.primitives.visibility import is_visible

PLANES = 3
_STEP = np.float32(0.62)  # of a quantised query, in standard deviations: close to the best for eight levels
AHEAD = 16  # lines that are fetched from memory while one is compared


class BitLines(NamedTuple):
    """Lines, one after another, as bytes and the same bytes as words and as floats. stride : bytes of a line."""

    octets: uint8[::1]
    words: uint64[::1]
    floats: float32[::1]
    stride: int64


class BitQuery(NamedTuple):
    """A query as `query_bit_planes` makes it.

    planes : uint64[3, words of a code].   step, half : float32, what it returns.   weight : float32, of a row's `add`:
    1, or 0 under ip.
    """

    planes: uint64[:, ::1]
    step: float32
    half: float32
    weight: float32


class SnapshotRows(NamedTuple):
    """The rows of slots, and which of them a snapshot (row_count, sequence) sees (visibility.py)."""

    rows_of: uint32[::1]  # [slots]
    row_count: int64
    sequence: uint64
    deleted: uint64[::1]  # [rows]


class BitShortlist(NamedTuple):
    """What a filter finds.

    nearest : float32[>= limit], the smallest estimates so far, as a heap with the largest first. Infinite before the
    first call; what one call finds bounds the next.
    keys : int64[> 2 * most], scratch.   kept : uint32[>= most], the slots that are left, in no order.
    limit : results that the search is for.   most : > limit, the most slots that are left.
    slack : float32, how much larger than the limit-th an estimate may be.
    """

    nearest: float32[::1]
    keys: int64[::1]
    kept: uint32[::1]
    limit: int64
    most: int64
    slack: float32


@part(fastmath=FAST)
def query_bit_planes(query, center, signs, cosine, rotated, planes):
    """Rotate and quantise one query. Returns (step, half the sum of its elements in steps, |q - center|), float32.

    query, center : float32[dim].   signs : float32[any, D], the rotation.   cosine : the query is scaled to unit norm.
    rotated : float32[D], scratch.   planes : uint8[3, D / 8], filled.
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
def estimate(words, floats, at, query, code_words):
    """Estimated distance of the line that begins at word `at`, without |q - center|^2.

    words, floats : the lines as uint64 and as float32.   query : BitQuery.   code_words : a tuple as long as a code has
    words.
    """
    product = np.float32(bit_products(words, at, query.planes, code_words))
    factors = 2 * (at + len(code_words))
    return query.weight * floats[factors] + floats[factors + 1] * query.step * (product - query.half)


@inlined()
def offer(distance, slot, bound, shortlist, size):
    """Take a slot whose estimated distance is within `bound` into keys[:size] of the shortlist. Returns (size, bound).

    bound : the limit-th smallest estimate so far + slack.
    """
    if distance < shortlist.nearest[0]:
        sift_down(shortlist.nearest, np.int64(0), shortlist.limit, distance)
        bound = shortlist.nearest[0] + shortlist.slack
    shortlist.keys[size] = key_of(distance, slot)
    size += 1
    if size == 2 * shortlist.most:
        select_smallest(shortlist.keys, size, shortlist.most)
        size = shortlist.most
    return size, bound


@part()
def take_candidates(keys, size, bound, most, kept):
    """Write the slots of those of keys[:size] that are within `bound`, the nearest `most`, into kept, in no order.
    Returns how many.
    """
    last = key_of(bound, ROW_OF_KEY)
    passed = np.int64(0)
    for j in range(size):
        if keys[j] <= last:
            keys[passed] = keys[j]
            passed += 1
    if passed > most:
        select_smallest(keys, passed, most)
        passed = most
    for j in range(passed):
        kept[j] = np.uint32(keys[j] & ROW_OF_KEY)
    return passed


@part()
def filter_by_estimate(listed, everything, first, stop, lines, query, shortlist, rows, code_words):
    """The slots at places [first, stop) that may be among the nearest `limit`, into `kept` of the shortlist; the
    nearest `most` where there are more. Returns how many.

    lines : BitLines.   query : BitQuery.   rows : SnapshotRows, looked at where `everything`.
    """
    octets, words, floats, stride = lines
    bound = shortlist.nearest[0] + shortlist.slack
    size = np.int64(0)
    for at in range(first, stop):
        slot = np.int64(at)
        if not everything:
            stream_at(octets, np.int64(listed[min(at + AHEAD, stop - 1)]) * stride)
            slot = np.int64(listed[at])
        distance = estimate(words, floats, slot * (stride >> 3), query, code_words)
        if distance > bound:
            continue
        if everything and not is_visible(
            np.int64(rows.rows_of[slot]), rows.row_count, rows.sequence, rows.deleted, rows.deleted[:0]
        ):
            continue
        size, bound = offer(distance, slot, bound, shortlist, size)
    return take_candidates(shortlist.keys, size, bound, shortlist.most, shortlist.kept)


@kernel()
def pack_lines(codes, factors, first, lines, floats):
    """Write codes (uint8[n, width]) and factors (float32[n, 2]) into lines (uint8[slots, stride]) from slot `first` on.

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
    queries, center, signs, cosine, weight, words, floats, stride, rotated, planes, planes64, out, norms, code_words
):  # fmt: skip
    """Estimated distances of queries (float32[nq, dim]) to all lines: out float32[nq, n]; and |q - center|: norms
    float32[nq].

    words, floats, stride : see `BitLines`.   planes, planes64 : uint8[3, width] and the same bytes as uint64.   The
    rest : see `query_bit_planes`.
    """
    for i in range(len(queries)):
        step, half, norms[i] = query_bit_planes(queries[i], center, signs, cosine, rotated, planes)
        query = BitQuery(planes64, step, half, weight)
        for j in range(out.shape[1]):
            out[i, j] = estimate(words, floats, np.int64(j) * (stride >> 3), query, code_words)
