"""Batch insertion: every point of a batch searches the frozen graph, then reverse links are added per target.

Algorithm 1 of Malkov and Yashunin (2016) in the batches of ParlayANN (Dobson et al., 2023): no locks and no atomics. A
point's links depend on the frozen graph only, a target's new links on the batch's edges only, so the graph is the same
for any number of threads.

    insert_points -> edges_of (target << 32 | source) -> sort -> add_reverse_links

The frozen graph has no row of the batch, so a point is compared with the rows that came shortly before and after it,
too: rows that come sorted, by topic or time, have their nearest among them (recall at a beam of 64 on 20,000 rows of
1,000 topics in order: .77 without, .99 with).

A row may have links of two kinds on layer 0, in one list: some chosen by l2, which keep every row reachable, and second
ones by another measure, which lead to what queries look for. Where rows of different norms are compared by inner
product it is the product: by l2 alone recall at a beam of 64 was .72 on Gaussian data and .25 on log-normal norms, with
both .98; by product alone a quarter of the rows had no link to them. Where a dense core lies in a sparse cloud under
l2 it is the angle between centred rows: log-normal norms .83 by l2 alone, .97 with both.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import int8, int64, uint64

from vecdb.kernels.array_table import layout_of
from vecdb.kernels.codes.code_formats import code_as_query, code_distance
from vecdb.kernels.codes.float_codes import SQUARES
from vecdb.kernels.compile import inlined, kernel, part
from vecdb.kernels.primitives.prefetch import prefetch_code
from vecdb.kernels.primitives.topk import ROW_OF_KEY, insert, sort_keys
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

BATCH_WINDOW = 32  # rows before and after a point that it is compared with


class BuiltGraph(NamedTuple):
    """What building reads and writes: a layout (array_table.py). The bias is there wherever rows are compared by l2."""

    graph: GraphArrays
    levels: int8[::1]
    deleted: uint64[::1]
    second_kind: int64  # of the second links: PRODUCTS or ANGLES (float_codes.py)
    second_links: int64  # that a row may have on layer 0 besides those by l2; 0: all are of one kind


@inlined()
def link_row(slot, layer, row):
    """Which row of the layer's table (`links` for layer 0, `upper` above) holds the row's links."""
    return np.int64(row) if layer == 0 else np.int64(slot[row]) + layer - 1


@inlined()
def without_bias(graph):
    """The graph as its rows are compared by inner product or angle."""
    return GraphArrays(graph.codes, graph.bias[:0], graph.links, graph.upper, graph.slot)


@part()
def load_row(graph, row, kind, query8, query16, blocks):
    """Take a stored row as the query, a BeamQuery whose distances between rows are symmetric. Returns its probe.

    kind : SQUARES, or PRODUCTS or ANGLES where `graph` is one of `without_bias`.
    """
    return code_as_query(graph.codes, graph.bias, row, kind, query8, query16, blocks)


@part()
def select_neighbours(graph, kind, entries, size, most, kept, query8, query16, blocks):
    """At most `most` diverse neighbours of a point out of its sorted candidates entries[:size] (pool entries).

    The heuristic of algorithm 4: a candidate is kept if it is nearer to the point than to every neighbour kept so far.
    kind : see `load_row`.   kept : int64[>= most], filled with rows.   query8, query16 : buffers, overwritten.
    Returns how many are kept.
    """
    count = 0
    for i in range(size):
        if count >= most:
            break
        row = row_of_entry(entries[i])
        own = np.int32(entries[i] >> 32)
        good = True
        if count:
            probe = load_row(graph, row, kind, query8, query16, blocks)
            for j in range(count):
                if code_distance(graph.codes, graph.bias, kept[j], query8, query16, probe, blocks) < own:
                    good = False
                    break
        if good:
            kept[count] = row
            count += 1
    return count


@part()
def add_second_neighbours(graph, kind, entries, size, most, kept, count, query8, query16, blocks):
    """Add to the rows kept[:count] at most `most` that are chosen by `kind` out of the candidates entries[:size],
    which are sorted by it, each row once. kept : int64[>= count + most].   Returns how many there are.
    """
    chosen = kept[count:]
    found = select_neighbours(graph, kind, entries, size, most, chosen, query8, query16, blocks)
    total = count
    for j in range(found):
        row = chosen[j]
        known = False
        for i in range(count):
            known |= kept[i] == row
        if not known:
            kept[total] = row
            total += 1
    return total


@part()
def sort_by_kind(graph, kind, pool, size, point, query8, query16, blocks):
    """Sort the rows in pool[:size] anew, by their distance from the row `point`. graph, kind : see `load_row`."""
    probe = load_row(graph, point, kind, query8, query16, blocks)
    for j in range(size):
        row = row_of_entry(pool[j])
        pool[j] = pool_entry(code_distance(graph.codes, graph.bias, row, query8, query16, probe, blocks), row)
    sort_keys(pool, size)


@part()
def _keep_living(pool, size, width, deleted):
    """Move the entries of rows that are not deleted to the front. Returns how many there are.

    Where there is none, the nearest `width` stay: without a link to any of them the new row would be cut off from the
    graph, and so would those that come after it.
    """
    live = np.int64(0)
    for j in range(size):
        if not is_deleted(row_of_entry(pool[j]), EVERY_COMMIT, deleted):
            pool[live] = pool[j]
            live += 1
    return live if live > 0 else min(np.int64(size), np.int64(width))


@part()
def _add_batch_rows(graph, point, begin, end, query, pool, size, most, deleted, blocks):
    """Put the rows [begin, end) but `point` among the sorted pool[:size], while they are among the nearest `most`.
    Returns its size. query : of the point, as `graph` compares it.
    """
    for row in range(begin, end):
        if row == point or is_deleted(row, EVERY_COMMIT, deleted):
            continue
        d = code_distance(graph.codes, graph.bias, row, query.query8, query.query16, query.probe, blocks)
        key = pool_entry(d, np.int64(row))
        if size >= most:
            if key >= pool[size - 1]:
                continue
            size -= 1
        insert(pool, np.int64(size), key)
        size += 1
    return size


@inlined()
def _holds(links, count, row):
    """Whether links[:count] name the row."""
    found = False
    for j in range(count):
        found |= links[j] == row
    return found


@part()
def write_links(own, kept, count):
    """Make kept[:count] the links of the row of links `own`."""
    for j in range(count):
        own[j] = kept[j]
    for j in range(count, len(own)):
        own[j] = -1


@kernel()
def insert_points(
    first, stop, batch_first, batch_stop, width, most_low, most_second, most_high, entry, level, strict, graph_table,
    scratch_table, blocks,
):  # fmt: skip
    """Give every row of [first, stop) its own links, found in the graph that ends before the batch, and in the batch.

    batch_first, batch_stop : the batch that the rows belong to.   width : beam width, ef_construction.
    most_low, most_second, most_high : neighbours chosen for a new point on layer 0, there by the second kind (0 :
    none), and above.
    entry, level : of the frozen graph.   strict : deleted rows are passed through but do not count towards the width.
    graph_table : of a BuiltGraph, `levels` filled.   scratch_table : of a GraphScratch.   blocks : of the codes
    (code_formats.py).   The rows' own link rows are written; nobody links to them yet. Returns distances computed.
    """
    graph, levels, deleted, second_kind, _ = layout_of(graph_table, BuiltGraph)
    kind = np.int32(second_kind)
    scratch, _, kept, query8, query16 = layout_of(scratch_table, GraphScratch)
    pool, other = scratch.pool, without_bias(graph)
    living = VisibleRows(EVERY_ROW, EVERY_COMMIT, deleted, deleted[:0])
    work = 0
    for point in range(first, stop):
        query = BeamQuery(query8, query16, load_row(graph, point, SQUARES, query8, query16, blocks))
        top = min(np.int64(levels[point]), np.int64(level))
        start, count = descend(graph, entry, level, top, query, blocks)
        work += count
        for layer in range(top, -1, -1):
            if layer < top:  # `select_neighbours` used the buffers
                query = BeamQuery(query8, query16, load_row(graph, point, SQUARES, query8, query16, blocks))
            size, count, used = search_layer(graph, layer, start, query, width, strict, living, scratch, blocks)
            clear_visited(scratch, used)
            work += count
            start = row_of_entry(pool[0])
            size = _keep_living(pool, size, width, deleted)
            begin, end = max(batch_first, point - BATCH_WINDOW), min(batch_stop, point + BATCH_WINDOW + 1)
            if layer == 0:
                size = _add_batch_rows(graph, point, begin, end, query, pool, size, width, deleted, blocks)
                work += end - begin
            most = most_low if layer == 0 else most_high
            count = select_neighbours(graph, SQUARES, pool, size, most, kept, query8, query16, blocks)
            if layer == 0 and most_second > 0:
                query = BeamQuery(query8, query16, load_row(other, point, kind, query8, query16, blocks))
                size, more, used = search_layer(other, layer, start, query, width, strict, living, scratch, blocks)
                clear_visited(scratch, used)
                work += more
                size = _keep_living(pool, size, width, deleted)
                size = _add_batch_rows(other, point, begin, end, query, pool, size, width, deleted, blocks)
                work += end - begin
                count = add_second_neighbours(
                    other, kind, pool, size, most_second, kept, count, query8, query16, blocks
                )  # fmt: skip
            table = graph.links if layer == 0 else graph.upper
            write_links(table[link_row(graph.slot, layer, point)], kept, count)
    return work


@kernel()
def edges_of(first, stop, layer, graph_table, out):
    """Reverse edges target << 32 | source of the rows [first, stop) on one layer, into out (int64). Returns how
    many.
    """
    graph, levels, _, _, _ = layout_of(graph_table, BuiltGraph)
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
    a row may have, without second ones.   graph_table : of a BuiltGraph.   scratch_table : of a GraphScratch.
    """
    graph, _, deleted, second_kind, second_links = layout_of(graph_table, BuiltGraph)
    kind = np.int32(second_kind)
    scratch, _, kept, query8, query16 = layout_of(scratch_table, GraphScratch)
    pool, other = scratch.pool, without_bias(graph)
    if layer > 0:
        second_links = np.int64(0)
    room = most + second_links
    table = graph.links if layer == 0 else graph.upper
    for group in range(first, stop):
        begin = starts[group]
        end = starts[group + 1]
        target = edges[begin] >> 32
        own = table[link_row(graph.slot, layer, target)]
        held = 0
        while held < len(own) and own[held] >= 0:
            held += 1
        if held + end - begin <= room:
            used = held
            for j in range(begin, end):
                row = edges[j] & ROW_OF_KEY
                if not _holds(own, held, row):  # two rows of a batch may have chosen each other
                    own[used] = np.int32(row)
                    used += 1
            continue
        for j in range(held):
            prefetch_code(graph.codes, own[j], blocks)
        probe = load_row(graph, target, SQUARES, query8, query16, blocks)
        size = 0
        for j in range(held + end - begin):
            row = np.int64(own[j]) if j < held else edges[begin + j - held] & ROW_OF_KEY
            if is_deleted(row, EVERY_COMMIT, deleted) or (j >= held and _holds(own, held, row)):
                continue
            d = code_distance(graph.codes, graph.bias, row, query8, query16, probe, blocks)
            key = pool_entry(d, row)
            if size < len(pool) - 1:
                insert(pool, np.int64(size), key)
                size += 1
            elif key < pool[size - 1]:
                insert(pool, np.int64(size - 1), key)
        count = select_neighbours(graph, SQUARES, pool, np.int64(size), most, kept, query8, query16, blocks)
        if second_links > 0:
            sort_by_kind(other, kind, pool, np.int64(size), target, query8, query16, blocks)
            count = add_second_neighbours(
                other, kind, pool, np.int64(size), second_links, kept, count, query8, query16, blocks
            )  # fmt: skip
        # Deleted neighbours stay where there is room, for older snapshots; they must not keep out the living, above all
        # not the new version of the same record, which lies next to its old one.
        for j in range(held):
            if count < room and is_deleted(own[j], EVERY_COMMIT, deleted):
                kept[count] = own[j]
                count += 1
        write_links(own, kept, count)
