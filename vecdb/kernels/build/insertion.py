"""Batch insertion: every point of a batch searches the frozen graph, then reverse links are added per target.

Algorithm 1 of Malkov and Yashunin (2016) in the batches of ParlayANN (Dobson et al., 2023): no locks and no atomics. A
point's links depend on the frozen graph only, a target's new links on the batch's edges only, so the graph is the same
for any number of threads.

    insert_points -> edges_of (target << 32 | source) -> sort -> add_reverse_links
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import int8, uint64

from vecdb.kernels.array_table import layout_of
from vecdb.kernels.codes.code_formats import code_as_query, code_distance
from vecdb.kernels.compile import inlined, kernel, part
from vecdb.kernels.primitives.prefetch import prefetch_code
from vecdb.kernels.primitives.topk import ROW_OF_KEY, insert
from vecdb.kernels.primitives.visibility import EVERY_COMMIT, EVERY_ROW, VisibleRows, is_deleted
from vecdb.kernels.search.beam_search import (
    BeamQuery,
    GraphArrays,
    clear_visited,
    descend,
    pool_entry,
    row_of_entry,
    search_layer,
)
from vecdb.kernels.search.graph_search import GraphScratch


class BuiltGraph(NamedTuple):
    """What building reads and writes: a layout (array_table.py). The bias is there wherever rows are compared by l2."""

    graph: GraphArrays
    levels: int8[::1]
    deleted: uint64[::1]


@inlined()
def link_row(slot, layer, row):
    """Which row of the layer's table (`links` for layer 0, `upper` above) holds the row's links."""
    return np.int64(row) if layer == 0 else np.int64(slot[row]) + layer - 1


@part()
def load_row(graph, row, query8, query16, blocks):
    """Take a stored row as the query, a BeamQuery whose distances between rows are symmetric. Returns its probe."""
    return code_as_query(graph.codes, graph.bias, row, query8, query16, blocks)


@part()
def select_neighbours(graph, entries, size, most, kept, query8, query16, blocks):
    """At most `most` diverse neighbours of a point out of its sorted candidates entries[:size] (pool entries).

    The heuristic of algorithm 4: a candidate is kept if it is nearer to the point than to every neighbour kept so far.
    kept : int64[>= most], filled with rows.   query8, query16 : buffers, overwritten.   Returns how many are kept.
    """
    count = 0
    for i in range(size):
        if count >= most:
            break
        row = row_of_entry(entries[i])
        own = np.int32(entries[i] >> 32)
        good = True
        if count:
            probe = load_row(graph, row, query8, query16, blocks)
            for j in range(count):
                if code_distance(graph.codes, graph.bias, kept[j], query8, query16, probe, blocks) < own:
                    good = False
                    break
        if good:
            kept[count] = row
            count += 1
    return count


@part()
def write_links(own, kept, count):
    """Make kept[:count] the links of the row of links `own`."""
    for j in range(count):
        own[j] = kept[j]
    for j in range(count, len(own)):
        own[j] = -1


@kernel()
def insert_points(first, stop, width, most_low, most_high, entry, level, strict, graph_table, scratch_table, blocks):
    """Give every row of [first, stop) its own links, found in the graph that ends before the batch.

    width : beam width, ef_construction.   most_low, most_high : neighbours chosen for a new point on layer 0 and above.
    entry, level : of the frozen graph.   strict : deleted rows are passed through but do not count towards the width.
    graph_table : of a BuiltGraph, `levels` filled.   scratch_table : of a GraphScratch.   blocks : of the codes
    (code_formats.py).   The rows' own link rows are written; nobody links to them yet. Returns distances computed.
    """
    graph, levels, deleted = layout_of(graph_table, BuiltGraph)
    scratch, _, kept, query8, query16 = layout_of(scratch_table, GraphScratch)
    pool = scratch.pool
    living = VisibleRows(EVERY_ROW, EVERY_COMMIT, deleted, deleted[:0])
    work = 0
    for point in range(first, stop):
        query = BeamQuery(query8, query16, load_row(graph, point, query8, query16, blocks))
        top = min(np.int64(levels[point]), np.int64(level))
        start, count = descend(graph, entry, level, top, query, blocks)
        work += count
        for layer in range(top, -1, -1):
            if layer < top:  # `select_neighbours` used the buffers
                query = BeamQuery(query8, query16, load_row(graph, point, query8, query16, blocks))
            size, count, used = search_layer(graph, layer, start, query, width, strict, living, scratch, blocks)
            clear_visited(scratch, used)
            work += count
            start = row_of_entry(pool[0])
            live = 0
            for j in range(size):
                if not is_deleted(row_of_entry(pool[j]), EVERY_COMMIT, deleted):
                    pool[live] = pool[j]
                    live += 1
            most = most_low if layer == 0 else most_high
            count = select_neighbours(graph, pool, np.int64(live), most, kept, query8, query16, blocks)
            table = graph.links if layer == 0 else graph.upper
            write_links(table[link_row(graph.slot, layer, point)], kept, count)
    return work


@kernel()
def edges_of(first, stop, layer, graph_table, out):
    """Reverse edges target << 32 | source of the rows [first, stop) on one layer, into out (int64). Returns how
    many.
    """
    graph, levels, _ = layout_of(graph_table, BuiltGraph)
    table = graph.links if layer == 0 else graph.upper
    count = 0
    for point in range(first, stop):
        if levels[point] < layer:
            continue
        own = table[link_row(graph.slot, layer, point)]
        for j in range(len(own)):
            if own[j] < 0:
                break
            out[count] = (np.int64(own[j]) << 32) | np.int64(point)
            count += 1
    return count


@kernel()
def add_reverse_links(edges, starts, first, stop, most, layer, graph_table, scratch_table, blocks):
    """Add the sources of the target groups [first, stop) to their targets' links, choosing anew where there is no room.

    edges : int64[e], sorted, target << 32 | source.   starts : int64[groups + 1], positions in `edges`.   most : links
    a row may have.   graph_table : of a BuiltGraph.   scratch_table : of a GraphScratch.
    """
    graph, _, deleted = layout_of(graph_table, BuiltGraph)
    scratch, _, kept, query8, query16 = layout_of(scratch_table, GraphScratch)
    pool = scratch.pool
    table = graph.links if layer == 0 else graph.upper
    for group in range(first, stop):
        begin = starts[group]
        end = starts[group + 1]
        target = edges[begin] >> 32
        own = table[link_row(graph.slot, layer, target)]
        held = 0
        while held < len(own) and own[held] >= 0:
            held += 1
        if held + end - begin <= most:
            for j in range(begin, end):
                own[held + j - begin] = np.int32(edges[j] & ROW_OF_KEY)
            continue
        for j in range(held):
            prefetch_code(graph.codes, own[j], blocks)
        probe = load_row(graph, target, query8, query16, blocks)
        size = 0
        for j in range(held + end - begin):
            row = np.int64(own[j]) if j < held else edges[begin + j - held] & ROW_OF_KEY
            if is_deleted(row, EVERY_COMMIT, deleted):
                continue
            d = code_distance(graph.codes, graph.bias, row, query8, query16, probe, blocks)
            key = pool_entry(d, row)
            if size < len(pool) - 1:
                insert(pool, np.int64(size), key)
                size += 1
            elif key < pool[size - 1]:
                insert(pool, np.int64(size - 1), key)
        count = select_neighbours(graph, pool, np.int64(size), most, kept, query8, query16, blocks)
        # Deleted neighbours stay where there is room, for older snapshots; they must not keep out the living, above all
        # not the new version of the same record, which lies next to its old one.
        for j in range(held):
            if count < most and is_deleted(own[j], EVERY_COMMIT, deleted):
                kept[count] = own[j]
                count += 1
        write_links(own, kept, count)
