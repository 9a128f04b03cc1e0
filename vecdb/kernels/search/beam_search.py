"""Search of one layer of a graph over codes: greedy descent and best-first beam (Malkov and Yashunin, 2016).

    pool     int64[> width], sorted; entry := distance << 32 | row << 1 | expanded      distance int32, row 31 bits
    links    int32[n, stride], neighbours first, then -1; whole cache lines, no count
    slot     row -> row of `upper` that holds the row's links on layer 1 (layer l: slot + l - 1); layer 0 is indexed by
             the row itself
    visited  uint32 bit set over rows, all zero between searches; `trail` lists what was set, so that clearing costs
             what was used

A search that meets a link row while a writer changes it word by word sees valid neighbours, some old and some new.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import int8, int16, int32, int64, uint8, uint32

from vecdb.kernels.codes.code_formats import code_distance
from vecdb.kernels.compile import inlined, part
from vecdb.kernels.primitives.prefetch import prefetch_code, prefetch_row
from vecdb.kernels.primitives.topk import insert
from vecdb.kernels.primitives.visibility import is_visible

ROW_MASK = np.int64(0x7FFFFFFF)  # (entry >> 1) & ROW_MASK is the row of a pool entry


class GraphArrays(NamedTuple):
    """A graph, as kernels take it: codes of any format (code_formats.py) and links."""

    codes: uint8[:, ::1]  # [capacity, 64 * blocks]
    bias: int32[::1]  # [capacity], |code - 128|^2, or [0]: other formats, and 8 bits where only products count
    links: int32[:, ::1]  # [capacity, stride], layer 0
    upper: int32[:, ::1]  # [any, stride], layers from 1 on
    slot: int32[::1]  # [capacity], -1 for rows on layer 0 only


class BeamQuery(NamedTuple):
    """A query as codes are compared with it (code_formats.py makes it)."""

    query8: int8[::1]  # [64 * blocks]
    query16: int16[::1]
    probe: tuple[int32, int32]  # what else is known of it, in the types of the format


class BeamScratch(NamedTuple):
    """Buffers of `search_layer`."""

    pool: int64[::1]  # [>= width + 2, rather 4 * width]
    visited: uint32[::1]  # [rows / 32], all zero
    trail: int32[::1]  # [any]


@inlined()
def pool_entry(distance, row):
    """A pool entry that is not expanded yet. distance : int32.   row : int64."""
    return (np.int64(distance) << 32) | (row << 1)


@inlined()
def row_of_entry(entry):
    """The row of a pool entry, int64."""
    return (entry >> 1) & ROW_MASK


@part()
def clear_visited(scratch, used):
    """Zero the bits that trail[:used] names; the whole set where that is less work."""
    visited, trail = scratch.visited, scratch.trail
    words = len(visited)
    if used * 4 > words or used >= len(trail):
        for i in range(words):
            visited[i] = 0
    else:
        for i in range(used):
            visited[trail[i] >> 5] = 0


@part()
def descend(graph, entry, level, stop_level, query, blocks):
    """Greedy search from `entry` on layers level, level - 1, ..., stop_level + 1: algorithm 5's loop with ef = 1.

    graph : GraphArrays.   query : BeamQuery.   Returns (row, distances computed).
    """
    codes, bias = graph.codes, graph.bias
    query8, query16, probe = query
    current = np.int64(entry)
    best = code_distance(codes, bias, current, query8, query16, probe, blocks)
    count = 1
    for layer in range(level, stop_level, -1):
        moved = True
        while moved:
            moved = False
            links = graph.upper[graph.slot[current] + layer - 1]
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
                # Ties go to the lower row, so that the search does not depend on the order of links.
                if d < best or (d == best and row < current):
                    best = d
                    current = row
                    moved = True
    return current, count


@part()
def search_layer(graph, layer, entry, query, width, strict, snapshot, scratch, blocks):
    """Fill the pool with the nearest rows found from `entry` on one layer (algorithm 2).

    graph : GraphArrays.   query : BeamQuery.   width : beam width, ef in the paper.   scratch : BeamScratch.
    strict : rows that the snapshot does not see are passed through but do not count towards the width, which grows by
    one for each of them in the pool, up to len(pool) - 1.   snapshot : VisibleRows.
    Returns (size of the pool, distances computed, length of the trail in use).
    """
    codes, bias = graph.codes, graph.bias
    query8, query16, probe = query
    row_count, sequence, deleted, allow = snapshot
    pool, visited, trail = scratch
    links = graph.links if layer == 0 else graph.upper
    used = 1
    visited[entry >> 5] |= np.uint32(1) << np.uint32(entry & 31)
    trail[0] = entry
    pool[0] = pool_entry(code_distance(codes, bias, np.int64(entry), query8, query16, probe, blocks), np.int64(entry))
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
        row = row_of_entry(key)
        if layer > 0:
            row = np.int64(graph.slot[row]) + layer - 1
        neighbours = links[row]
        if used + len(neighbours) > trail_room:
            used = np.int64(0)  # the list is full: start it over and let `clear_visited` zero the whole set
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
            prefetch_row(links, row_of_entry(pool[at]))
        count += fresh
        for j in range(fresh):
            near = np.int64(todo[j])
            key = pool_entry(code_distance(codes, bias, near, query8, query16, probe, blocks), near)
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
                    if not is_visible(row_of_entry(pool[size]), row_count, sequence, deleted, allow):
                        hidden -= 1
                        wide = min(width + hidden, room)
            elif size > width:
                size -= 1
    return size, count, trail_room if full else used
