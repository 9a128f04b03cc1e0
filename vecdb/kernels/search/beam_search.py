"""Best-first walk of one layer over 8-bit codes (Malkov and Yashunin, 2016, algorithm 2), and the small sets it needs.

    pool    int64[>= width], sorted; entry := distance << 32 | row << 1 | expanded      distance int32, row 31 bits
    links   int32[n, stride], neighbours first, then -1; whole cache lines, no count
    slot    row -> row of `upper` that holds the row's links on level 1 (level l: slot + l - 1); layer 0 is indexed by
    row itself visited uint32 bit set over rows, all zero between walks; `trail` lists what was set, so that clearing
    costs what was used

A search that meets a link row while a writer changes it word by word sees valid neighbours, some old and some new.
"""

from __future__ import annotations

import numpy as np

from vecdb.kernels.compile import inlined, part
from vecdb.kernels.primitives.dot_products import dot_codes, prefetch_code, prefetch_row
from vecdb.kernels.primitives.topk import insert
from vecdb.kernels.primitives.visibility import is_visible

ROW_MASK = np.int64(0x7FFFFFFF)


@part()
def clear(visited, trail, used):
    """Zero the bits that trail[:used] names; the whole set where that is less work."""
    words = len(visited)
    if used * 4 > words or used >= len(trail):
        for i in range(words):
            visited[i] = 0
    else:
        for i in range(used):
            visited[trail[i] >> 5] = 0


@inlined()
def code_distance(codes, bias, row, query8, query16, probe, blocks):
    """Integer distance of one row to the query, int32. probe : what sq8.py made of the query."""
    d = probe[0] - np.int32(2) * dot_codes(codes, row, query8, query16, blocks)
    if len(bias):
        d += bias[row] >> probe[1]
    return d


@part()
def descend(codes, bias, upper, slot, entry, level, stop_level, query8, query16, probe, blocks):
    """Greedy walk from `entry` on layers level, level - 1, ..., stop_level + 1. Returns (row, distances computed)."""
    current = np.int64(entry)
    best = code_distance(codes, bias, current, query8, query16, probe, blocks)
    count = 1
    for layer in range(level, stop_level, -1):
        moved = True
        while moved:
            moved = False
            links = upper[slot[current] + layer - 1]
            for j in range(len(links)):
                if links[j] < 0:
                    break
                prefetch_code(codes, links[j], blocks)
            for j in range(len(links)):
                row = np.int64(links[j])
                if row < 0:
                    break
                d = code_distance(codes, bias, row, query8, query16, probe, blocks)
                count += 1
                # Ties go to the lower row, so that the walk does not depend on the order of links.
                if d < best or (d == best and row < current):
                    best = d
                    current = row
                    moved = True
    return current, count


@part()
def walk(
    codes, bias, links, slot, layer, entry, query8, query16, probe, width,
    strict, row_count, sequence, deleted, allow, pool, visited, trail, blocks,
):  # fmt: skip
    """Fill the pool with the nearest rows found from `entry` on one layer. Returns (size, distances computed, trail
    used).

    width : beam width.   strict : rows that are not visible are walked through but do not count towards the width,
    which grows by one for each of them in the pool, up to len(pool) - 1.
    """
    used = 1
    visited[entry >> 5] |= np.uint32(1) << np.uint32(entry & 31)
    trail[0] = entry
    pool[0] = (np.int64(code_distance(codes, bias, np.int64(entry), query8, query16, probe, blocks)) << 32) | (
        np.int64(entry) << 1
    )
    size = 1
    count = 1
    room = len(pool) - 1
    hidden = 0
    if strict and not is_visible(entry, row_count, sequence, deleted, allow):
        hidden = 1
    wide = min(width + hidden, room)
    trail_room = len(trail)
    biased = len(bias) > 0
    full = False
    at = 0
    while at < size:
        key = pool[at]
        if key & 1:
            at += 1
            continue
        pool[at] = key | 1
        row = (key >> 1) & ROW_MASK
        if layer > 0:
            row = np.int64(slot[row]) + layer - 1
        neighbours = links[row]
        if used + len(neighbours) > trail_room:
            used = np.int64(0)  # the list is full: start it over and let `clear` zero the whole set
            full = True
        fresh = 0
        for j in range(len(neighbours)):
            near = neighbours[j]
            if near < 0:
                break
            word = visited[near >> 5]
            bit = np.uint32(1) << np.uint32(near & 31)
            visited[near >> 5] = word | bit
            prefetch_code(codes, near, blocks)
            if biased:
                prefetch_row(bias, near)
            trail[used + fresh] = near
            fresh += (word & bit) == 0
        todo = trail[used : used + fresh]
        used += fresh
        at += 1
        if at < size and layer == 0:
            prefetch_row(links, (pool[at] >> 1) & ROW_MASK)
        count += fresh
        for j in range(fresh):
            near = np.int64(todo[j])
            d = code_distance(codes, bias, near, query8, query16, probe, blocks)
            key = (np.int64(d) << 32) | (near << 1)
            if size >= wide and key >= pool[size - 1]:
                continue
            place = insert(pool, np.int64(size), key)
            size += 1
            if place < at:
                at = place
                if layer == 0:
                    prefetch_row(links, near)
            if strict:
                if not is_visible(near, row_count, sequence, deleted, allow):
                    hidden += 1
                wide = min(width + hidden, room)
                while size > wide:
                    size -= 1
                    if not is_visible((pool[size] >> 1) & ROW_MASK, row_count, sequence, deleted, allow):
                        hidden -= 1
                        wide = min(width + hidden, room)
            elif size > width:
                size -= 1
    return size, count, trail_room if full else used
