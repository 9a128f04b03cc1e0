"""Batch insertion: every point of a batch searches the frozen graph, then reverse links are added per target.

Following ParlayANN (Dobson et al., 2023): no locks and no atomics. A point's links depend on the frozen graph only, a
target's new links on the batch's edges only, so the graph is the same for any number of threads.

Neighbours are chosen by the diversity heuristic (Malkov and Yashunin, 2016, algorithm 4): a candidate is kept if it is
nearer to the point than to every neighbour kept so far.
"""

from __future__ import annotations

import numpy as np

from vecdb.kernels.codes.sq8 import code_as_query
from vecdb.kernels.compile import kernel, part
from vecdb.kernels.primitives.dot_products import prefetch_code
from vecdb.kernels.primitives.topk import ROW_OF_KEY, insert
from vecdb.kernels.primitives.visibility import EVERY_COMMIT, EVERY_ROW, is_deleted
from vecdb.kernels.search.beam_search import ROW_MASK, clear, code_distance, descend, walk


@part()
def load_row(codes, bias, row, query8, query16):
    """Take a stored row as the query; returns the probe that makes distances between rows symmetric."""
    constant = code_as_query(codes, row, query8, query16)
    if len(bias):
        constant += bias[row]
    return constant, np.int32(0)


@part()
def select(codes, bias, keys, size, most, kept, query8, query16, blocks):
    """Diverse neighbours of a point out of its sorted candidates keys[:size] (pool entries). Fills kept, returns how
    many.
    """
    count = 0
    for i in range(size):
        if count >= most:
            break
        row = (keys[i] >> 1) & ROW_MASK
        own = np.int32(keys[i] >> 32)
        good = True
        if count:
            probe = load_row(codes, bias, row, query8, query16)
            for j in range(count):
                if code_distance(codes, bias, kept[j], query8, query16, probe, blocks) < own:
                    good = False
                    break
        if good:
            kept[count] = row
            count += 1
    return count


@kernel()
def insert_points(
    first, stop, levels, width, most_low, most_high, entry, level, strict,
    codes, bias, links, upper, slot, deleted, allow,
    pool, kept, visited, trail, query8, query16, blocks,
):  # fmt: skip
    """Give every row of [first, stop) its own links, found in the graph that ends before the batch.

    levels : int8[n].   width : ef_construction.   most_low, most_high : neighbours chosen for a new point on
    layer 0 and above.   strict : deleted rows are walked through but do not count towards the width.
    entry, level : of the frozen graph.   The rows' own link rows are written, nobody links to them yet.
    """
    work = 0
    for point in range(first, stop):
        probe = load_row(codes, bias, point, query8, query16)
        top = min(np.int64(levels[point]), np.int64(level))
        start, count = descend(codes, bias, upper, slot, entry, level, top, query8, query16, probe, blocks)
        work += count
        for layer in range(top, -1, -1):
            if layer < top:
                probe = load_row(codes, bias, point, query8, query16)  # `select` used the buffers
            table = links if layer == 0 else upper
            size, count, used = walk(
                codes, bias, table, slot, layer, start, query8, query16, probe, width,
                strict, EVERY_ROW, EVERY_COMMIT, deleted, allow, pool, visited, trail, blocks,
            )  # fmt: skip
            clear(visited, trail, used)
            work += count
            start = (pool[0] >> 1) & ROW_MASK
            live = 0
            for j in range(size):
                if not is_deleted((pool[j] >> 1) & ROW_MASK, EVERY_COMMIT, deleted):
                    pool[live] = pool[j]
                    live += 1
            most = most_low if layer == 0 else most_high
            count = select(codes, bias, pool, np.int64(live), most, kept, query8, query16, blocks)
            own = table[point if layer == 0 else np.int64(slot[point]) + layer - 1]
            for j in range(count):
                own[j] = kept[j]
            for j in range(count, len(own)):
                own[j] = -1
    return work


@kernel()
def edges_of(first, stop, levels, layer, table, slot, out):
    """Reverse edges target << 32 | source of the rows [first, stop) on one layer. Returns how many."""
    count = 0
    for point in range(first, stop):
        if levels[point] < layer:
            continue
        own = table[point if layer == 0 else np.int64(slot[point]) + layer - 1]
        for j in range(len(own)):
            if own[j] < 0:
                break
            out[count] = (np.int64(own[j]) << 32) | np.int64(point)
            count += 1
    return count


@kernel()
def link_back(
    edges, starts, first, stop, most, layer, codes, bias, table, slot, deleted, pool, kept, query8, query16, blocks
):
    """Add the sources of the target groups [first, stop) to their targets' links, choosing anew where there is no room.

    edges : int64[e], sorted, target << 32 | source.   starts : int64[groups + 1], places in `edges`.   most : links per
    row.
    """
    for group in range(first, stop):
        begin = starts[group]
        end = starts[group + 1]
        target = edges[begin] >> 32
        own = table[target if layer == 0 else np.int64(slot[target]) + layer - 1]
        held = 0
        while held < len(own) and own[held] >= 0:
            held += 1
        if held + end - begin <= most:
            for j in range(begin, end):
                own[held + j - begin] = np.int32(edges[j] & ROW_OF_KEY)
            continue
        for j in range(held):
            prefetch_code(codes, own[j], blocks)
        probe = load_row(codes, bias, target, query8, query16)
        size = 0
        for j in range(held + end - begin):
            row = np.int64(own[j]) if j < held else edges[begin + j - held] & ROW_OF_KEY
            if is_deleted(row, EVERY_COMMIT, deleted):
                continue
            d = code_distance(codes, bias, row, query8, query16, probe, blocks)
            key = (np.int64(d) << 32) | (row << 1)
            if size < len(pool) - 1:
                insert(pool, np.int64(size), key)
                size += 1
            elif key < pool[size - 1]:
                insert(pool, np.int64(size - 1), key)
        count = select(codes, bias, pool, np.int64(size), most, kept, query8, query16, blocks)
        # Deleted neighbours stay where there is room, for older snapshots; they must not keep out the living, above all
        # not the new version of the same record, which lies next to its old one.
        for j in range(held):
            if count < most and is_deleted(own[j], EVERY_COMMIT, deleted):
                kept[count] = own[j]
                count += 1
        for j in range(count):
            own[j] = kept[j]
        for j in range(count, len(own)):
            own[j] = -1
