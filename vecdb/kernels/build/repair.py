"""Neighbourhoods of deleted nodes, and reachability.

repair      a live node that links to a dead one chooses anew among its live links and the live links of its dead ones
settle      breadth-first tree from the entry point; what it does not reach is linked from the nearest that it does
"""

from __future__ import annotations

import numpy as np

from vecdb.kernels.build.insertion import load_row, select
from vecdb.kernels.compile import kernel, part
from vecdb.kernels.primitives.topk import sort_keys
from vecdb.kernels.primitives.visibility import EVERY_COMMIT, EVERY_ROW
from vecdb.kernels.search.beam_search import ROW_MASK, clear, code_distance, descend, walk


@part()
def _bit(bits, row):
    return (bits[row >> 3] >> np.uint8(row & 7)) & np.uint8(1) != np.uint8(0)


@kernel()
def repair(
    first, stop, levels, layer, dead, most, codes, bias, table, slot,
    pool, kept, visited, trail, query8, query16, blocks,
):  # fmt: skip
    """Repair the rows [first, stop) of one layer. dead : uint8 bit set over rows. Returns how many rows changed.

    Only live rows' links are written and only dead rows' links are read beside one's own, so slices do not depend on
    another.
    """
    changed = 0
    for point in range(first, stop):
        if levels[point] < layer or _bit(dead, point):
            continue
        own = table[point if layer == 0 else np.int64(slot[point]) + layer - 1]
        touched = False
        held = 0
        for j in range(len(own)):
            if own[j] < 0:
                break
            held += 1
            if _bit(dead, own[j]):
                touched = True
        if not touched:
            continue
        changed += 1
        probe = load_row(codes, bias, point, query8, query16)
        visited[point >> 5] |= np.uint32(1) << np.uint32(point & 31)
        trail[0] = point
        used = 1
        size = 0
        # Breadth first through dead nodes: trail is the queue of what was met, own links first.
        at = 0
        while at < used and size < len(pool) - 1:
            row = np.int64(trail[at])
            at += 1
            if at > 1 and not _bit(dead, row):
                d = code_distance(codes, bias, row, query8, query16, probe, blocks)
                pool[size] = (np.int64(d) << 32) | (row << 1)
                size += 1
                continue
            links = table[row if layer == 0 else np.int64(slot[row]) + layer - 1]
            for j in range(len(links)):
                near = links[j]
                if near < 0 or used >= len(trail) - 1:
                    break
                bit = np.uint32(1) << np.uint32(near & 31)
                if visited[near >> 5] & bit == 0:
                    visited[near >> 5] |= bit
                    trail[used] = near
                    used += 1
        clear(visited, trail, used)
        sort_keys(pool, size)
        count = select(codes, bias, pool, np.int64(size), most, kept, query8, query16, blocks)
        # The heuristic alone would thin out links with every round of deletes: fill up with the nearest to the number
        # there was.
        at = 0
        while count < held and at < size:
            row = (pool[at] >> 1) & ROW_MASK
            at += 1
            taken = False
            for j in range(count):
                if kept[j] == row:
                    taken = True
                    break
            if not taken:
                kept[count] = row
                count += 1
        for j in range(count):
            own[j] = kept[j]
        for j in range(count, len(own)):
            own[j] = -1
    return changed


@kernel()
def spread(queue, head, tail, links, parent):
    """Breadth-first search on layer 0 from queue[head:tail]; parent[row] < 0 marks rows not reached. Returns the new
    tail.
    """
    while head < tail:
        row = queue[head]
        head += 1
        own = links[row]
        for j in range(len(own)):
            near = own[j]
            if near < 0:
                break
            if parent[near] < 0:
                parent[near] = row
                queue[tail] = near
                tail += 1
    return tail


@part()
def _attach(row, host, links, parent, most, codes, bias, query8, query16, blocks):
    """Link host -> row in a free place or over the farthest link that is no edge of the tree. Returns whether it
    could.
    """
    own = links[host]
    for j in range(most):
        if own[j] < 0:
            own[j] = row
            return True
    probe = load_row(codes, bias, host, query8, query16)
    worst = -1
    far = np.int32(0)
    for j in range(most):
        if parent[own[j]] != host:
            d = code_distance(codes, bias, np.int64(own[j]), query8, query16, probe, blocks)
            if worst < 0 or d > far:
                worst = j
                far = d
    if worst < 0:
        return False
    own[worst] = row
    return True


@kernel()
def settle(
    n, dead, entry, level, width, most, codes, bias, links, upper, slot, deleted, allow,
    parent, queue, pool, visited, trail, query8, query16, blocks,
):  # fmt: skip
    """Make every row of [0, n) that is not in the bit set `dead` reachable from `entry` on layer 0. Returns how many
    were not.

    parent : int32[n], filled with -1.   queue : int32[n].   The tree of the search is kept whole: only other links are
    replaced.
    """
    parent[entry] = entry
    queue[0] = entry
    tail = spread(queue, np.int64(0), np.int64(1), links, parent)
    lost = 0
    scan = 0
    last = np.int64(entry)
    for row in range(n):
        if parent[row] >= 0 or _bit(dead, row):
            continue
        lost += 1
        probe = load_row(codes, bias, row, query8, query16)
        start, _ = descend(codes, bias, upper, slot, entry, level, np.int64(0), query8, query16, probe, blocks)
        if parent[start] < 0:
            start = np.int64(entry)
        size, _, used = walk(
            codes, bias, links, slot, np.int64(0), start, query8, query16, probe, width,
            np.bool_(False), EVERY_ROW, EVERY_COMMIT, deleted, allow, pool, visited, trail, blocks,
        )  # fmt: skip
        clear(visited, trail, used)
        host = np.int64(-1)
        for j in range(size):
            near = (pool[j] >> 1) & ROW_MASK
            if near != row and parent[near] >= 0 and not _bit(dead, near):
                if _attach(row, near, links, parent, most, codes, bias, query8, query16, blocks):
                    host = near
                    break
        if host < 0 and _attach(row, last, links, parent, most, codes, bias, query8, query16, blocks):
            # All places near by carry the tree, as among many equal vectors: go on from the row attached last.
            host = last
        while host < 0:
            # A leaf of the tree always has room, so this ends; a second round takes dead leaves too.
            near = np.int64(queue[scan % tail])
            if (scan >= tail or not _bit(dead, near)) and _attach(
                row, near, links, parent, most, codes, bias, query8, query16, blocks
            ):
                host = near
            else:
                scan += 1
        parent[row] = host
        queue[tail] = row
        last = np.int64(row)
        tail = spread(queue, tail, tail + 1, links, parent)
    return lost
