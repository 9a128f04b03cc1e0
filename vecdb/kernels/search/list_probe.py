"""Which lists a query reads: the nearest heads of a two-level tree of 8-bit codes (index/clustering/cluster_tree.py).

    query --8-bit code--> all groups -> heads of the nearest groups -> the nearest heads, compared exactly -> lists
    query --rotation, 8-bit code--> what the codes of the lists are compared with (kernels/codes/rabitq.py)

Distances are floats on the metric's own scale: squared l2, under cosine of unit vectors, or minus the inner product.
"""

from __future__ import annotations

import math
from enum import IntEnum
from typing import NamedTuple

import numpy as np
from numba import float32, int8, int16, int32, int64, uint8

from vecdb.kernels.array_table import layout_of
from vecdb.kernels.codes.rabitq import CodeSpace, encode_query, unit_factor
from vecdb.kernels.codes.sq8 import encode_query as encode_for_heads
from vecdb.kernels.compile import FAST, kernel, part
from vecdb.kernels.primitives.distance import COSINE, IP
from vecdb.kernels.primitives.topk import ROW_OF_KEY, select_smallest, sort_keys
from vecdb.kernels.search.beam_search import code_distance

NEAREST = 8  # heads whose mean distance is the measure of what is near
_SORTED = 16  # nearest heads that are in order, at least NEAREST
_INFINITE = np.float32(np.inf)


class ListWork(IntEnum):
    """What a search over lists counts: places in an int64 array. Kernels count the first three."""

    HEADS = 0
    ENTRIES = 1
    PROBES = 2
    RERANKED = 3
    READS = 4
    BYTES = 5
    NS_PROBE = 6
    NS_SCAN = 7
    NS_READ = 8
    NS_RERANK = 9


class HeadArrays(NamedTuple):
    """Heads, those of one group adjacent.

    codes : uint8[heads, 64 * blocks].   bias : int32[heads], |code - 128|^2, empty where heads are compared by inner
    product.   group_codes, group_bias : the same of groups.   group_ends : int32[groups], one past the last head.
    """

    codes: uint8[:, ::1]
    bias: int32[::1]
    group_codes: uint8[:, ::1]
    group_bias: int32[::1]
    group_ends: int32[::1]


class HeadScratch(NamedTuple):
    """Buffers of one comparison with heads.

    query8, query16 : int8, int16[64 * blocks], the query's code.   group_keys : int64[groups].
    keys : int64[>= reach + largest group].
    """

    query8: int8[::1]
    query16: int16[::1]
    group_keys: int64[::1]
    keys: int64[::1]


class ProbedQueries(NamedTuple):
    """Queries as `probe` leaves them for `scan`; n of them, D dimensions of a list's code.

    lists : int32[n, probes], the nearest 16 first.   nears : float32[n, probes], |q - c|^2 or -<c, q> of each.
    counts : int32[n], lists of each query.
    query8s : int8[n, D], steps : float32[n], sums : int32[n], as `rabitq.encode_query` makes them; where codes are
    lossless (q - mean) / unit, |q - mean|^2 as step and the sum.   units : float32[n], filled where codes are lossless.
    norms : float32[n], |q|.   unit float32[dim], rotated float32[D] : scratch of one query.
    """

    lists: int32[:, ::1]
    nears: float32[:, ::1]
    counts: int32[::1]
    query8s: int8[:, ::1]
    steps: float32[::1]
    sums: int32[::1]
    units: float32[::1]
    norms: float32[::1]
    unit: float32[::1]
    rotated: float32[::1]


@part()
def nearest_heads(constants, heads, wanted, reach, scratch, blocks):
    """Keys (distance << 32 | head) of up to `wanted` near heads at the front of scratch.keys, the nearest 16 first.

    constants : of the query whose code is in scratch, as sq8.py makes them.   heads : HeadArrays.
    Groups are opened nearest first until they hold `reach` heads.   scratch : HeadScratch.
    Returns (keys kept, heads and groups compared).
    """
    keys = scratch.keys
    group_keys = scratch.group_keys
    groups = len(heads.group_ends)
    for g in range(groups):
        d = code_distance(
            heads.group_codes, heads.group_bias, g, scratch.query8, scratch.query16, constants, blocks
        )  # fmt: skip
        group_keys[g] = (np.int64(d) << 32) | np.int64(g)
    size = np.int64(0)
    opened = np.int64(0)
    while opened < groups and size < reach:
        least = opened
        for g in range(opened + 1, groups):
            if group_keys[g] < group_keys[least]:
                least = g
        key = group_keys[least]
        group_keys[least] = group_keys[opened]
        opened += 1
        g = key & ROW_OF_KEY
        first = np.int64(heads.group_ends[g - 1]) if g > 0 else np.int64(0)
        for head in range(first, np.int64(heads.group_ends[g])):
            d = code_distance(heads.codes, heads.bias, head, scratch.query8, scratch.query16, constants, blocks)
            keys[size] = (np.int64(d) << 32) | np.int64(head)
            size += 1
    kept = min(size, np.int64(wanted))
    if size > kept:
        select_smallest(keys, size, kept)
    if kept > _SORTED:
        select_smallest(keys, kept, np.int64(_SORTED))
    sort_keys(keys, min(kept, np.int64(_SORTED)))
    return kept, size + groups


@part(fastmath=FAST)
def _keep_near(keys, count, i, heads, space, ratio, probed):
    """Compare query i with the heads of keys[:count] exactly, and keep those that are near enough. Returns how many."""
    unit = probed.unit
    mean = space.mean
    scale = space.scale
    ip = space.metric == IP
    kept = 0
    coded_bound = _INFINITE
    nearest = np.float32(0.0)
    coded = np.int64(0)
    for j in range(count):
        if not ip and np.float32(keys[j] >> 32) > coded_bound:
            continue  # by the query's code it is too far, which saves the exact distance
        head = keys[j] & ROW_OF_KEY
        code = heads.codes[head]
        total = np.float32(0.0)
        if ip:
            for k in range(len(unit)):
                total -= (mean[k] + scale * (np.float32(code[k]) - np.float32(128.0))) * unit[k]
        else:
            for k in range(len(unit)):
                x = mean[k] + scale * (np.float32(code[k]) - np.float32(128.0)) - unit[k]
                total += x * x
            if j < NEAREST:
                nearest += total
                coded += keys[j] >> 32
                if j + 1 == NEAREST:
                    room = (ratio - np.float32(1.0)) * nearest / (scale * scale)
                    coded_bound = (np.float32(coded) + room) / np.float32(NEAREST)
        probed.lists[i, kept] = head
        probed.nears[i, kept] = total
        kept += 1
    return kept


@part(fastmath=FAST)
def _encode_lossless(i, mean, probed):
    """Query i, which is in probed.unit, as lossless codes take it."""
    unit = probed.unit
    square = np.float32(0.0)
    total = np.int32(0)
    top = np.float32(1.0)  # a query beyond the range of the rows is scaled down until it fits
    for j in range(len(unit)):
        q = unit[j] - mean[j]
        square += q * q
        top = max(top, max(-q / np.float32(128.0), q / np.float32(127.0)))
    for j in range(len(unit)):
        q8 = np.int32(math.floor((unit[j] - mean[j]) / top + np.float32(0.5)))
        q8 = min(max(q8, np.int32(-128)), np.int32(127))
        probed.query8s[i, j] = q8
        total += q8
    probed.steps[i] = square
    probed.sums[i] = total
    probed.units[i] = top


@kernel(fastmath=FAST)
def probe(queries, ratio, reach, heads_table, space_table, probed_table, scratch_table, work, blocks):
    """Choose lists for queries (float32[n, dim]) and encode the queries for the scan of those lists.

    ratio : float32; heads farther than this many times the mean of the nearest eight are left out (squared l2; inf
    keeps all).   reach : int64, heads to compare at least.   blocks : a tuple as long as a head's code has 64 bytes.
    Tables of HeadArrays, rabitq.CodeSpace, ProbedQueries (filled) and HeadScratch.   work : int64[ListWork], added to.
    """
    heads = layout_of(heads_table, HeadArrays)
    space = layout_of(space_table, CodeSpace)
    probed = layout_of(probed_table, ProbedQueries)
    scratch = layout_of(scratch_table, HeadScratch)
    dim = queries.shape[1]
    unit = probed.unit
    by_l2 = space.metric != IP
    for i in range(len(queries)):
        factor = unit_factor(queries[i], dim, space.metric == COSINE)
        square = np.float32(0.0)
        for j in range(dim):
            unit[j] = queries[i, j] * factor
            square += unit[j] * unit[j]
        probed.norms[i] = math.sqrt(square)
        constants = encode_for_heads(
            unit, space.mean, space.scale, np.int64(0), by_l2, scratch.query8, scratch.query16
        )  # fmt: skip
        count, compared = nearest_heads(constants, heads, probed.lists.shape[1], reach, scratch, blocks)
        work[ListWork.HEADS] += compared
        kept = _keep_near(scratch.keys, count, i, heads, space, ratio, probed)
        probed.counts[i] = kept
        work[ListWork.PROBES] += kept
        if space.lossless:
            _encode_lossless(i, space.mean, probed)
        else:
            probed.steps[i], probed.sums[i] = encode_query(
                unit, space.center, space.signs, probed.rotated, probed.query8s[i]
            )  # fmt: skip
