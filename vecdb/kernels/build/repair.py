"""Neighbourhoods of deleted nodes, and reachability.

repair_neighbourhoods  a live node that links to a dead one chooses anew among its live links and the live links of
                       its dead ones
connect_unreachable    breadth-first tree from the entry point; a row that it does not reach is linked from the
                       nearest row that it does
"""

from __future__ import annotations

import numpy as np

from vecdb.kernels.array_table import layout_of
from vecdb.kernels.build.insertion import (
    BuiltGraph,
    add_second_neighbours,
    link_row,
    load_row,
    select_neighbours,
    sort_by_kind,
    without_bias,
    write_links,
)
from vecdb.kernels.codes.code_formats import code_distance
from vecdb.kernels.codes.float_codes import SQUARES
from vecdb.kernels.compile import kernel, part
from vecdb.kernels.primitives.topk import sort_keys
from vecdb.kernels.primitives.visibility import EVERY_COMMIT, EVERY_ROW, VisibleRows
from vecdb.kernels.search.beam_search import (
    BeamQuery,
    BeamScratch,
    clear_visited,
    descend,
    pool_entry,
    row_of_entry,
    search_layer,
)
from vecdb.kernels.search.graph_search import GraphScratch


@part()
def _bit(bits, row):
    return (bits[row >> 3] >> np.uint8(row & 7)) & np.uint8(1) != np.uint8(0)


@part()
def _live_around(point, layer, dead, graph, scratch, query, blocks):
    """Fill the pool with the live rows linked from `point`, or from dead rows that only dead rows lie before.

    Breadth first: the trail is the queue of the rows met, the point's own links first. Returns how many, unsorted.
    """
    pool, visited, trail = scratch
    query8, query16, probe = query
    table = graph.links if layer == 0 else graph.upper
    visited[point >> 5] |= np.uint32(1) << np.uint32(point & 31)
    trail[0] = point
    used = 1
    size = 0
    at = 0
    while at < used and size < len(pool) - 1:
        row = np.int64(trail[at])
        at += 1
        if at > 1 and not _bit(dead, row):
            pool[size] = pool_entry(code_distance(graph.codes, graph.bias, row, query8, query16, probe, blocks), row)
            size += 1
            continue
        links = table[link_row(graph.slot, layer, row)]
        for j in range(len(links)):
            near = links[j]
            if near < 0 or used >= len(trail) - 1:
                break
            bit = np.uint32(1) << np.uint32(near & 31)
            if visited[near >> 5] & bit == 0:
                visited[near >> 5] |= bit
                trail[used] = near
                used += 1
    clear_visited(scratch, used)
    return size


@kernel()
def repair_neighbourhoods(first, stop, layer, dead, most, candidates, graph_table, scratch_table, blocks):
    """Repair the rows [first, stop) of one layer. Returns how many rows changed.

    dead : uint8 bit set over rows.   most : links a row may have, without second ones.   candidates : rows that
    are looked at for one row.
    graph_table : of a BuiltGraph.   scratch_table : of a GraphScratch.
    Only live rows' links are written and only dead rows' links are read beside one's own, so slices do not depend on
    another.
    """
    graph, levels, _, second_kind, second_links = layout_of(graph_table, BuiltGraph)
    kind = np.int32(second_kind)
    if layer > 0:
        second_links = np.int64(0)
    other = without_bias(graph)
    beam, _, kept, query8, query16 = layout_of(scratch_table, GraphScratch)
    pool = beam.pool[:candidates]
    scratch = BeamScratch(pool, beam.visited, beam.trail)
    table = graph.links if layer == 0 else graph.upper
    changed = 0
    for point in range(first, stop):
        if levels[point] < layer or _bit(dead, point):
            continue
        own = table[link_row(graph.slot, layer, point)]
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
        query = BeamQuery(query8, query16, load_row(graph, point, SQUARES, query8, query16, blocks))
        size = _live_around(point, layer, dead, graph, scratch, query, blocks)
        sort_keys(pool, size)
        count = select_neighbours(graph, SQUARES, pool, np.int64(size), most, kept, query8, query16, blocks)
        if second_links > 0:
            sort_by_kind(other, kind, pool, np.int64(size), point, query8, query16, blocks)
            count = add_second_neighbours(
                other, kind, pool, np.int64(size), second_links, kept, count, query8, query16, blocks
            )  # fmt: skip
        # The heuristic alone would thin out links with every round of deletes: fill up with the nearest to the number
        # there was.
        at = 0
        while count < held and at < size:
            row = row_of_entry(pool[at])
            at += 1
            taken = False
            for j in range(count):
                if kept[j] == row:
                    taken = True
                    break
            if not taken:
                kept[count] = row
                count += 1
        write_links(own, kept, count)
    return changed


@kernel()
def bfs(queue, head, tail, links, parent):
    """Breadth-first search on layer 0 from queue[head:tail]; parent[row] < 0 marks rows not reached. Returns the new
    tail.

    queue, parent : int32[rows].   links : int32[rows, stride].
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
def _append(row, host, most, graph):
    """Link host -> row in a free place. Returns whether there was one."""
    own = graph.links[host]
    for j in range(most):
        if own[j] < 0:
            own[j] = row
            return True
    return False


@part()
def _attach(row, host, parent, most, graph, query8, query16, blocks):
    """Link host -> row in a free place or over the farthest link that is no edge of the tree. Returns whether it
    could.
    """
    if _append(row, host, most, graph):
        return True
    own = graph.links[host]
    probe = load_row(graph, host, SQUARES, query8, query16, blocks)
    worst = -1
    far = np.int32(0)
    for j in range(most):
        if parent[own[j]] != host:
            d = code_distance(graph.codes, graph.bias, np.int64(own[j]), query8, query16, probe, blocks)
            if worst < 0 or d > far:
                worst = j
                far = d
    if worst < 0:
        return False
    own[worst] = row
    return True


@kernel()
def connect_unreachable(n, dead, entry, level, width, most, parent, queue, graph_table, scratch_table, blocks):
    """Make every row of [0, n) that is not in the bit set `dead` reachable from `entry` on layer 0. Returns how many
    were not.

    parent : int32[n], filled with -1.   queue : int32[n].   width : beam width.   most : links a row may have.
    graph_table : of a BuiltGraph.   scratch_table : of a GraphScratch.
    The tree of the breadth-first search is kept whole: only other links are replaced.
    """
    graph, _, deleted, _, _ = layout_of(graph_table, BuiltGraph)
    scratch, _, _, query8, query16 = layout_of(scratch_table, GraphScratch)
    pool = scratch.pool
    living = VisibleRows(EVERY_ROW, EVERY_COMMIT, deleted, deleted[:0])
    parent[entry] = entry
    queue[0] = entry
    tail = bfs(queue, np.int64(0), np.int64(1), graph.links, parent)
    lost = 0
    scan = 0
    last = np.int64(entry)
    for row in range(n):
        if parent[row] >= 0 or _bit(dead, row):
            continue
        lost += 1
        query = BeamQuery(query8, query16, load_row(graph, row, SQUARES, query8, query16, blocks))
        start, _ = descend(graph, entry, level, np.int64(0), query, blocks)
        if parent[start] < 0:
            start = np.int64(entry)
        size, _, used = search_layer(graph, np.int64(0), start, query, width, np.bool_(False), living, scratch, blocks)
        clear_visited(scratch, used)
        host = np.int64(-1)
        # A free place first, if it is that of the row attached last: among many equal rows a link that is replaced may
        # be the way out of them (measured with 850 equal rows among 6,000: recall .90 in place of .49).
        for round_ in range(2):
            for j in range(size):
                near = row_of_entry(pool[j])
                if near == row or parent[near] < 0 or _bit(dead, near):
                    continue
                if round_ == 0 and _append(row, near, most, graph):
                    host = near
                    break
                if round_ == 1 and _attach(row, near, parent, most, graph, query8, query16, blocks):
                    host = near
                    break
            if host < 0 and round_ == 0 and _append(row, last, most, graph):
                host = last
            if host >= 0:
                break
        if host < 0 and _attach(row, last, parent, most, graph, query8, query16, blocks):
            # All places near by carry the tree, as among many equal vectors: go on from the row attached last.
            host = last
        while host < 0:
            # A leaf of the tree always has room, so this ends; a second round takes dead leaves too.
            near = np.int64(queue[scan % tail])
            if (scan >= tail or not _bit(dead, near)) and _attach(
                row, near, parent, most, graph, query8, query16, blocks
            ):
                host = near
            else:
                scan += 1
        parent[row] = host
        queue[tail] = row
        last = np.int64(row)
        tail = bfs(queue, tail, tail + 1, graph.links, parent)
    return lost
