"""Which list a row belongs to: that of its nearest head, and the others that are worth a copy.

    near_heads    codes -> their nearest heads
    assign_rows   codes of rows -> the heads whose lists take them
    nearer_rows   lists beside new heads -> those of their rows that a new head is nearer to

Rows and heads are 8-bit codes of one quantiser, compared by squared l2 whatever the metric is: a list is a place, and
metrics rank what is found there. A row is looked up among the heads as a query is (list_scan.py). Only nearer_rows, which
has no vectors at hand, asks the lists' own codes (list_bodies.py draws them) how far a row is.
"""

from __future__ import annotations

import numpy as np

from vecdb.kernels.compile import kernel, part
from vecdb.kernels.primitives.dot_products import dot_packed
from vecdb.kernels.primitives.topk import sort_keys
from vecdb.kernels.search.list_scan import estimate, nearest_heads


@part()
def _as_query(code, head8, head16):
    """Take a code as the query that heads are compared with. Returns the probe, without the code's own |x'|^2."""
    total = np.int32(0)
    for j in range(len(code)):
        q = np.int32(code[j]) - np.int32(128)
        head8[j] = q
        head16[j] = q
        total += q
    return np.int32(256) * total, np.int32(0)


@part()
def _square(head16):
    """|x'|^2 of a code that is taken as a query."""
    total = np.int64(0)
    for j in range(len(head16)):
        total += np.int64(head16[j]) * np.int64(head16[j])
    return total


@kernel()
def near_heads(
    row_codes, codes, bias, group_codes, group_bias, group_ends, reach, near, distances, group_keys, keys, head8,
    head16, blocks,
):  # fmt: skip
    """The nearest heads of codes: near, distances int32[n, wanted], nearest first, filled as far as there are heads."""
    wanted = near.shape[1]
    for i in range(len(row_codes)):
        query = _as_query(row_codes[i], head8, head16)
        own = _square(head16)
        count, _ = nearest_heads(
            head8,
            head16,
            query,
            codes,
            bias,
            group_codes,
            group_bias,
            group_ends,
            wanted,
            reach,
            group_keys,
            keys,
            blocks,
        )
        sort_keys(keys, count)
        for j in range(count):
            near[i, j] = keys[j] & np.int64(0xFFFFFFFF)
            distances[i, j] = (keys[j] >> 32) + own


@kernel()
def assign_rows(
    row_codes, codes, bias, group_codes, group_bias, group_ends, replicas, candidates, reach, labels, group_keys, keys,
    head8, head16, blocks,
):  # fmt: skip
    """The heads whose lists each row belongs to: the nearest, and under `replicas` > 1 those that the RNG rule accepts.

    row_codes : the rows as 8-bit codes of the heads' quantiser.   labels : int32[n, replicas], -1 where fewer are
    accepted.   candidates : how many near heads are looked at.
    SPANN (Chen et al., 2021), closure assignment: accept a head unless one already accepted is nearer to it than the
    row.
    """
    width = row_codes.shape[1]
    for i in range(len(row_codes)):
        near = _as_query(row_codes[i], head8, head16)
        count, _ = nearest_heads(
            head8, head16, near, codes, bias, group_codes, group_bias, group_ends, candidates, reach, group_keys, keys,
            blocks,
        )  # fmt: skip
        sort_keys(keys, count)
        labels[i, 0] = keys[0] & np.int64(0xFFFFFFFF)
        square = _square(head16)
        taken = 1
        for j in range(1, count):
            if taken >= replicas:
                break
            head = keys[j] & np.int64(0xFFFFFFFF)
            own = (keys[j] >> 32) + square
            accepted = True
            for k in range(taken):
                other = codes[labels[i, k]]
                between = np.int64(0)
                for t in range(width):
                    x = np.int32(codes[head, t]) - np.int32(other[t])
                    between += x * x
                if between <= own:
                    accepted = False
                    break
            if accepted:
                labels[i, taken] = head
                taken += 1
        for j in range(taken, replicas):
            labels[i, j] = -1


@kernel()
def nearer_rows(
    pairs, own, places, lengths, arena, arena16, arena32, width, lossless, add_unit, rescale_unit, nears,
    query8s, steps, sums, own8s, own_steps, own_sums, share, rows, owners, dots, estimates, own_estimates, bits,
):  # fmt: skip
    """Rows that are nearer to another head than to the head of their own list, by their codes (squared l2).

    pairs : int64[m, 2], (query, list): lists to look through for rows nearer to the query, a head given as query8s,
    steps, sums.   nears : float32[m], squared distance of the two heads.   own : int64[lists], where in own8s,
    own_steps,
    own_sums a list's own head is.   share : of their own distance that a row must come closer than.
    rows : int64[any], owners : int32[any], filled with rows and their lists as far as they hold; returns how many.
    dots, estimates, own_estimates : scratch of the longest list.
    """
    middle = np.int32((1 << len(bits)) - 1)
    total = np.int64(0)
    one = np.float32(1.0)
    for m in range(len(pairs)):
        q = pairs[m, 0]
        place = places[pairs[m, 1]]
        count = np.int64(lengths[pairs[m, 1]])
        o = own[pairs[m, 1]]
        factors_at = place + count * (width + 4)
        for j in range(count):
            dots[j] = dot_packed(arena, place + j * width, width, query8s[q], bits)
        estimate(
            arena16, arena32, factors_at, count, dots, sums[q], steps[q], one, nears[m], lossless, one, middle,
            add_unit, rescale_unit, estimates,
        )  # fmt: skip
        for j in range(count):
            dots[j] = dot_packed(arena, place + j * width, width, own8s[o], bits)
        estimate(
            arena16, arena32, factors_at, count, dots, own_sums[o], own_steps[o], one, np.float32(0.0), lossless,
            one, middle, add_unit, rescale_unit, own_estimates,
        )  # fmt: skip
        for j in range(count):
            if estimates[j] < share * own_estimates[j] and total < len(rows):
                rows[total] = np.int64(arena32[((place + count * width) >> 2) + j])
                owners[total] = pairs[m, 1]
                total += 1
    return total
