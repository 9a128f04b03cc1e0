"""Which list a row belongs to: that of its nearest head, and the others that are worth a copy.

    near_heads    codes -> their nearest heads
    assign_rows   codes of rows -> the heads whose lists take them
    nearer_rows   lists beside new heads -> those of their rows that a new head is nearer to

Rows and heads are 8-bit codes of one quantiser, compared by squared l2 whatever the metric is: lists part the space,
and metrics rank the rows that are found there. A row is looked up among the heads as a query is (list_probe.py). Only
nearer_rows, which has no vectors at hand, asks the lists' own codes (list_bodies.py draws them) how far a row is.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import float32, int8, int32, int64

from vecdb.kernels.array_table import layout_of, reinterpret
from vecdb.kernels.compile import kernel, part
from vecdb.kernels.primitives.dot_products import dot_packed
from vecdb.kernels.primitives.topk import ROW_OF_KEY, sort_keys
from vecdb.kernels.search.list_probe import HeadArrays, HeadScratch, nearest_heads
from vecdb.kernels.search.list_scan import EntryScale, estimate


class HeadQueries(NamedTuple):
    """Heads as list codes take a query: query8s int8[n, D], steps float32[n], sums int32[n] (list_probe.py)."""

    query8s: int8[:, ::1]
    steps: float32[::1]
    sums: int32[::1]


class NearerRows(NamedTuple):
    """What `nearer_rows` finds, and its buffers.

    rows : int64[any], owners : int32[any], rows and their lists, as far as they hold.
    dots int32, estimates, own_estimates float32[longest list] : scratch.
    """

    rows: int64[::1]
    owners: int32[::1]
    dots: int32[::1]
    estimates: float32[::1]
    own_estimates: float32[::1]


@part()
def _as_query(code, scratch):
    """Take a code as the query that heads are compared with. Returns (constants of the query, |x'|^2 of the code).

    The constants leave out |x'|^2, which is the same for all heads. scratch : HeadScratch.
    """
    total = np.int32(0)
    square = np.int64(0)
    for j in range(len(code)):
        q = np.int32(code[j]) - np.int32(128)
        scratch.query8[j] = q
        scratch.query16[j] = q
        total += q
        square += np.int64(q) * np.int64(q)
    return (np.int32(256) * total, np.int32(0)), square


@kernel()
def near_heads(row_codes, heads_table, scratch_table, reach, near, distances, blocks):
    """The nearest heads of codes: near, distances int32[n, wanted], nearest first, filled as far as there are heads.

    row_codes : uint8[n, 64 * blocks].   Tables of HeadArrays and HeadScratch.   reach : int64, heads to compare at
    least.
    """
    heads = layout_of(heads_table, HeadArrays)
    scratch = layout_of(scratch_table, HeadScratch)
    keys = scratch.keys
    for i in range(len(row_codes)):
        constants, square = _as_query(row_codes[i], scratch)
        count, _ = nearest_heads(constants, heads, near.shape[1], reach, scratch, blocks)
        sort_keys(keys, count)
        for j in range(count):
            near[i, j] = keys[j] & ROW_OF_KEY
            distances[i, j] = (keys[j] >> 32) + square


@part()
def _is_closer_to_another(codes, head, others, distance):
    """Whether one of the heads `others` is as near to `head` as `distance`, or nearer."""
    for k in range(len(others)):
        other = codes[others[k]]
        between = np.int64(0)
        for t in range(codes.shape[1]):
            x = np.int32(codes[head, t]) - np.int32(other[t])
            between += x * x
        if between <= distance:
            return True
    return False


@kernel()
def assign_rows(row_codes, heads_table, scratch_table, candidates, reach, labels, blocks):
    """The heads whose lists each row belongs to: the nearest, and of the next ones those that the RNG rule accepts.

    row_codes : uint8[n, 64 * blocks], the rows as 8-bit codes of the heads' quantiser.   Tables of HeadArrays and
    HeadScratch.   candidates, reach : int64, how many near heads are looked at, and compared at least.
    labels : int32[n, replicas], -1 where fewer are accepted.
    SPANN (Chen et al., 2021), closure assignment: accept a head unless one already accepted is nearer to it than the
    row.
    """
    heads = layout_of(heads_table, HeadArrays)
    scratch = layout_of(scratch_table, HeadScratch)
    keys = scratch.keys
    replicas = labels.shape[1]
    for i in range(len(row_codes)):
        constants, square = _as_query(row_codes[i], scratch)
        count, _ = nearest_heads(constants, heads, candidates, reach, scratch, blocks)
        sort_keys(keys, count)
        labels[i, 0] = keys[0] & ROW_OF_KEY
        taken = 1
        for j in range(1, count):
            if taken >= replicas:
                break
            head = keys[j] & ROW_OF_KEY
            if not _is_closer_to_another(heads.codes, head, labels[i, :taken], (keys[j] >> 32) + square):
                labels[i, taken] = head
                taken += 1
        for j in range(taken, replicas):
            labels[i, j] = -1


@kernel()
def nearer_rows(
    pairs, nears, share, body_offsets, lengths, arena, scale_table, fresh_table, own_table, own_places, found_table,
    bits,
):  # fmt: skip
    """Rows that are nearer to another head than to the head of their own list, by their codes (squared l2).

    pairs : int64[m, 2], (query, list): lists to look through for rows nearer to the query, a head of fresh_table.
    nears : float32[m], squared distance of the two heads.   share : float32, of their own distance that a row must
    come closer than.   body_offsets int64, lengths int32[lists], arena uint8[any] : where the lists are.
    Tables of EntryScale (for squared l2), HeadQueries (twice) and NearerRows (filled).
    own_places : int64[lists], where in own_table a list's own head is.   bits : a tuple as long as a code has bits a
    dimension.   Returns how many rows were found.
    """
    scale = layout_of(scale_table, EntryScale)
    fresh = layout_of(fresh_table, HeadQueries)
    own = layout_of(own_table, HeadQueries)
    found = layout_of(found_table, NearerRows)
    words = reinterpret(arena, np.uint32)
    dots = found.dots
    width = scale.code_bytes
    total = np.int64(0)
    one = np.float32(1.0)
    for m in range(len(pairs)):
        q = pairs[m, 0]
        body = body_offsets[pairs[m, 1]]
        count = np.int64(lengths[pairs[m, 1]])
        o = own_places[pairs[m, 1]]
        rows_at = body + count * width
        factors_at = rows_at + 4 * count
        for j in range(count):
            dots[j] = dot_packed(arena, body + j * width, width, fresh.query8s[q], bits)
        estimate(arena, factors_at, count, dots, scale, fresh.steps[q], fresh.sums[q], one, nears[m], found.estimates)
        for j in range(count):
            dots[j] = dot_packed(arena, body + j * width, width, own.query8s[o], bits)
        estimate(
            arena, factors_at, count, dots, scale, own.steps[o], own.sums[o], one, np.float32(0.0), found.own_estimates
        )  # fmt: skip
        for j in range(count):
            if found.estimates[j] < share * found.own_estimates[j] and total < len(found.rows):
                found.rows[total] = np.int64(words[(rows_at >> 2) + j])
                found.owners[total] = pairs[m, 1]
                total += 1
    return total
