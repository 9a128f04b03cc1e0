"""Queries over codes that lie in the order of a clustering tree, among all rows or among those of a tenant.

    slot     0 ............ sorted .......... rows           position of a row's code
             leaf by leaf   in order of rows
    listed   the slots of a tenant, ascending: what it has in a node of the tree is a range of them
    place    a position in `listed`; where everything is searched, the slot itself

    few places  -> the codes at all of them are compared
    many places -> nodes nearest first: groups, and the leaves of a group where many places lie in it, until a number of
                   nodes in a row improved nothing; the slots behind the sorted ones are compared in any case

    one-bit filter (where it pays) -> codes -> pool, the nearest `rerank` -> vectors -> the nearest `limit`

Nodes are compared by 8-bit codes of one scale (sq8.py). Rows are, too, where those fit the data; elsewhere by codes of
another format (code_formats.py), and then the query is encoded twice.

After Curator (Jin et al., 2024), whose shortlists these ranges are: there they are stored at the tree's nodes, here a
binary search finds them in the tenant's own array.
"""

from __future__ import annotations

import math
from enum import IntEnum
from typing import NamedTuple

import numpy as np
from numba import boolean, float32, int8, int16, int32, int64, types, uint8, uint32, uint64
from numba.extending import overload

from vecdb.kernels.array_table import group_of, layout_of
from vecdb.kernels.codes import sq8
from vecdb.kernels.codes.code_formats import code_distance, encode_query
from vecdb.kernels.codes.one_bit_fastscan import BitPanels, fill_tables, filter_panels
from vecdb.kernels.codes.one_bit_lines import (
    AHEAD,
    BitLines,
    BitQuery,
    BitShortlist,
    SnapshotRows,
    filter_by_estimate,
    query_bit_planes,
)
from vecdb.kernels.compile import PART_OPTIONS, kernel, part
from vecdb.kernels.primitives.checksums import is_sound
from vecdb.kernels.primitives.distance import COSINE, L2, exact
from vecdb.kernels.primitives.prefetch import stream_at, stream_code
from vecdb.kernels.primitives.topk import (
    ROW_OF_KEY,
    add_key,
    first_at_least,
    insert,
    key_of,
    put_answer,
    sift_down,
    sort_keys,
)
from vecdb.kernels.primitives.visibility import is_visible

_AHEAD = 8  # codes that are fetched from memory while one is compared
_LINE = 64  # bytes of a cache line
_VECTOR_BYTES_AHEAD = 2048  # of a vector that are fetched before it is scored; the processor fetches the rest itself
_DEVIATIONS = np.float32(3.0)
PANEL_SHARE = 5  # from 1/5 of the rows on, looking at all panels is as fast as looking at scattered lines (measured)
_NEVER = np.int64(0x7FFFFFFFFFFFFFFF)
_NEAR_SHARE = 32  # places are compared in number with slots in the nearest groups that hold one in so many slots
_AVOIDED = 1.5  # places so many times rarer there than among all slots lie away from the query
AVOIDED = -1


class TreeWork(IntEnum):
    """Positions in `work`, int64[3]: what searches did."""

    CODES = 0  # codes of rows compared
    VECTORS = 1  # rows scored on their vectors
    NODES = 2  # nodes of the tree scored


_CODES, _VECTORS, _NODES = TreeWork.CODES.value, TreeWork.VECTORS.value, TreeWork.NODES.value


class TreeCodes(NamedTuple):
    """Codes by slot (code_formats.py).

    codes : [slots, 64 * blocks].   bias : [slots], or empty where only products count, or the format keeps none.
    parameters : of the quantizer.   square : |code - 128|^2 of a row, on average, of 8-bit codes of one scale; -1: of
    others, or some rows are far.
    """

    codes: uint8[:, ::1]
    bias: int32[::1]
    parameters: float32[::1]
    scale: float32
    square: float32


class TreeSpace(NamedTuple):
    """The 8-bit codes of nodes (sq8.py). apart : 1, those of rows are others.   mean : [dim]."""

    apart: int64
    mean: float32[::1]
    scale: float32


class TreeSlots(NamedTuple):
    """rows_of : [slots].   slots_of : [rows].   sorted : slots [0, sorted) are in the order of the tree."""

    rows_of: uint32[::1]
    slots_of: uint32[::1]
    sorted: int64


class TreeNodes(NamedTuple):
    """Nodes of one level of the tree, in the space of the codes.

    codes : [nodes, 64 * blocks].   bias : [nodes].   spreads : [nodes], what `_score` takes off; empty under ip.
    """

    codes: uint8[:, ::1]
    bias: int32[::1]
    spreads: float32[::1]


class TreeLevels(NamedTuple):
    """The tree. leaf_ends : [leaves], slots.   group_ends : [groups], leaves."""

    leaves: TreeNodes
    groups: TreeNodes
    leaf_ends: int64[::1]
    group_ends: int32[::1]


class BitFilter(NamedTuple):
    """The one-bit filter, with empty arrays where there is none.

    panels : of the sorted slots, or empty (one_bit_fastscan.py).   center : [dim].   signs : [any, D].
    weight : of a row's `add`.   slack : of an estimate, to be multiplied by |q - center|.
    """

    lines: BitLines
    panels: uint8[::1]
    center: float32[::1]
    signs: float32[:, ::1]
    weight: float32
    slack: float32


class TreeRows(NamedTuple):
    """Arrays by row. verified : [rows / 8].   far : [any], rows whose codes say little, all of which are scored."""

    crcs: uint32[::1]
    verified: uint8[::1]
    deleted: uint64[::1]
    far: int32[::1]


class Tree(NamedTuple):
    """The layout of what all searches of one order share (array_table.py). metric : L2, COSINE or IP."""

    metric: int64
    codes: TreeCodes
    space: TreeSpace
    slots: TreeSlots
    levels: TreeLevels
    bits: BitFilter
    rows: TreeRows


class TreeBudget(NamedTuple):
    """The layout of how much one search looks at.

    limit : results, or somewhat more.   rerank : >= limit, candidates scored on vectors.   filtered_max : most slots
    that the one-bit filter leaves over.   filter_from : fewer places are not filtered.   everything : 1, search all
    visible rows; 0, the listed ones.   scan_max : as many places are all compared.   idle_nodes_max, nodes_max,
    shortlist : see `_walk`.
    slack_percent : of the filter's slack.
    """

    limit: int64
    rerank: int64
    filtered_max: int64
    filter_from: int64
    everything: int64
    scan_max: int64
    idle_nodes_max: int64
    nodes_max: int64
    shortlist: int64
    slack_percent: int64


class TreeBuffers(NamedTuple):
    """The layout of the buffers of one call.

    pool, keys : [> rerank].   heap : [>= leaves + groups].   query8, query16 : as encode_query of code_formats.py
    wants them.   node8, node16 : [64 * node_blocks].   rotated : [D].
    planes : [3, D / 8], and the same bytes as words.   nearest : [>= limit].   filter_keys : [> 2 * filtered_max].
    kept : [>= filtered_max].   tables : [D / 4, 16].   estimates : [32].
    """

    pool: int64[::1]
    keys: int64[::1]
    heap: int64[::1]
    query8: int8[::1]
    query16: int16[::1]
    node8: int8[::1]
    node16: int16[::1]
    rotated: float32[::1]
    planes: uint8[:, ::1]
    planes64: uint64[:, ::1]
    nearest: float32[::1]
    filter_keys: int64[::1]
    kept: uint32[::1]
    tables: uint8[:, ::1]
    estimates: float32[::1]


class CodedQuery(NamedTuple):
    """Codes, and a query to compare with them. probe : what `encode_query` returns."""

    codes: uint8[:, ::1]
    bias: int32[::1]
    query8: int8[::1]
    query16: int16[::1]
    probe: tuple


class NodeQuery(NamedTuple):
    """A query to compare with the codes of nodes. ratio : of `_ratio`."""

    query8: int8[::1]
    query16: int16[::1]
    probe: tuple
    ratio: float32


class TreeQuery(NamedTuple):
    """All that one query needs to look at places. filtered : with the one-bit filter first.

    coded : among codes of rows.   node : among those of nodes, where the tree is walked.
    """

    listed: uint32[::1]
    everything: boolean
    filtered: boolean
    coded: CodedQuery
    node: NodeQuery
    lines: BitLines
    panels: BitPanels
    bits: BitQuery
    shortlist: BitShortlist
    rows: SnapshotRows


@part()
def _place_of(listed, everything, low, high, slot):
    """The first of the places [low, high) whose slot is `slot` or a later one; `high` where there is none."""
    if everything:
        return min(max(slot, low), high)
    return first_at_least(listed, low, high, slot)


@part()
def _scan(listed, everything, first, stop, coded, rows, pool, size, most, blocks):
    """Compare the codes at places [first, stop), and keep the nearest in the sorted pool[:size]. Returns its size.

    pool : int64[> most], distance << 32 | slot.   most : keys that stay in it.   coded : CodedQuery.
    rows : SnapshotRows. Where everything is searched, rows that are near enough are looked up in it; listed rows are
    visible.
    """
    codes, bias, query8, query16, probe = coded
    worst = pool[size - 1] if size == most else _NEVER
    for at in range(first, stop):
        slot = np.int64(at)
        if not everything:
            stream_code(codes, np.int64(listed[min(at + _AHEAD, stop - 1)]), blocks)
            slot = np.int64(listed[at])
        key = (np.int64(code_distance(codes, bias, slot, query8, query16, probe, blocks)) << 32) | slot
        if key >= worst:
            continue
        if everything and not is_visible(
            np.int64(rows.rows_of[slot]), rows.row_count, rows.sequence, rows.deleted, rows.deleted[:0]
        ):
            continue
        if size == most:
            size -= 1
        insert(pool, np.int64(size), key)
        size += 1
        if size == most:
            worst = pool[size - 1]
    return size


@part()
def scan_node(query, first, stop, slot, end, pool, size, most, work, code_words, blocks):
    """Compare the codes at places [first, stop), or where the query is filtered those that the one-bit filter leaves,
    and keep the nearest in the sorted pool[:size] (see `_scan`). Returns its size.

    query : TreeQuery.   slot, end : the places are among the sorted slots [slot, end); equal for slots that are not
    sorted.
    """
    listed, everything, shortlist = query.listed, query.everything, query.shortlist
    if not query.filtered:
        work[_CODES] += stop - first
        return _scan(listed, everything, first, stop, query.coded, query.rows, pool, size, most, blocks)
    if slot < end and len(query.panels.octets) > 0 and end - slot <= PANEL_SHARE * (stop - first):
        left = filter_panels(
            listed, everything, first, stop, slot, end, query.panels, query.bits, shortlist, query.rows, code_words
        )
    else:
        left = filter_by_estimate(
            listed, everything, first, stop, query.lines, query.bits, shortlist, query.rows, code_words
        )
    work[_CODES] += left
    return _scan(shortlist.kept, False, np.int64(0), left, query.coded, query.rows, pool, size, most, blocks)


@part()
def _push(heap, count, score, node):
    """Put a node on heap[:count], from which `_pop` takes the smallest score. Returns how many there are."""
    key = ~key_of(score, node)
    at = count
    while at > 0 and heap[(at - 1) >> 1] < key:
        heap[at] = heap[(at - 1) >> 1]
        at = (at - 1) >> 1
    heap[at] = key
    return count + 1


@part()
def _pop(heap, count):
    """Take the node with the smallest score off heap[:count]. Returns it."""
    node = ~heap[0] & ROW_OF_KEY
    sift_down(heap, np.int64(0), count - 1, heap[count - 1])
    return node


@part()
def _score(nodes, node, query, node_blocks):
    """How promising a node is, smaller is more: its squared distance less a share of the mean squared distance of its
    rows from it (Curator's second version); minus its inner product where there are no spreads.

    nodes : TreeNodes.   query : NodeQuery.
    """
    bias = nodes.bias
    d = np.float32(code_distance(nodes.codes, bias[:0], node, query.query8, query.query16, query.probe, node_blocks))
    if len(nodes.spreads):
        return d * query.ratio + np.float32(bias[node]) - nodes.spreads[node]
    return d


def _node_probe(query, space, metric, probe, node8, node16, blocks):
    """The probe of a query among codes of nodes (sq8.py). Where those of rows are others, node8 and node16 are filled.

    probe : of the query among codes of rows, which serves for nodes too where they have the same.
    """


@overload(_node_probe, jit_options=PART_OPTIONS)
def _choose_node_probe(query, space, metric, probe, node8, node16, blocks):
    def encoded(query, space, metric, probe, node8, node16, blocks):
        return sq8.encode_query(query, space.mean, space.scale, metric, metric == L2, node8, node16)

    def as_rows(query, space, metric, probe, node8, node16, blocks):
        if space.apart == 0:
            return probe
        return sq8.encode_query(query, space.mean, space.scale, metric, metric == L2, node8, node16)

    return as_rows if blocks.dtype == types.int64 else encoded


@part()
def _ratio(query, scale, metric, probe):
    """The factor that turns a product of query and code into squared units of the code."""
    if metric == L2:
        return np.float32(np.int64(1) << np.int64(probe[1]))
    top = np.float32(1e-37)
    square = np.float32(0.0)
    for j in range(len(query)):
        top = max(top, abs(query[j]))
        square += query[j] * query[j]
    return top / (np.float32(127.0) * scale * np.float32(np.sqrt(square)))


@part()
def _walk(query, high, budget, levels, heap, pool, work, shapes):
    """Look at places [0, high), whose slots are sorted, node by node, the most promising first, into the empty pool.
    Returns its size; AVOIDED, with nothing looked at that counts, where listed places lie away from the query, so that
    nodes near it say little of where the nearest are.

    A group with more than `shortlist` places is replaced by its leaves; any other node is looked at. Ends after
    `idle_nodes_max` nodes in a row that did not change the nearest `limit`, or after `nodes_max` of them.
    query : TreeQuery.   levels : TreeLevels.   heap : int64[>= leaves + groups], nodes that are not looked at yet:
    leaves by number, group g as leaves + g.
    """
    code_words, blocks, node_blocks = shapes
    listed, everything, limit = query.listed, query.everything, budget.limit
    leaf_ends, group_ends = levels.leaf_ends, levels.group_ends
    leaves = np.int64(len(leaf_ends))
    waiting = np.int64(0)
    for g in range(len(group_ends)):
        first_leaf = np.int64(group_ends[g - 1]) if g > 0 else np.int64(0)
        begin = np.int64(leaf_ends[first_leaf - 1]) if first_leaf > 0 else np.int64(0)
        end = np.int64(leaf_ends[np.int64(group_ends[g]) - 1])
        if end > begin:
            score = _score(levels.groups, np.int64(g), query.node, node_blocks)
            waiting = _push(heap, waiting, score, leaves + np.int64(g))
    work[_NODES] += waiting
    size = np.int64(0)
    idle = 0
    looks = 0
    near_slots = near_places = np.int64(0)
    sorted_slots = np.int64(leaf_ends[leaves - 1])
    unsure = not everything
    while waiting > 0:
        node = _pop(heap, waiting)
        waiting -= 1
        if node >= leaves:
            g = node - leaves
            leaf = np.int64(group_ends[g - 1]) if g > 0 else np.int64(0)
            last = np.int64(group_ends[g])
        else:
            leaf = node
            last = node + 1
        slot = np.int64(leaf_ends[leaf - 1]) if leaf > 0 else np.int64(0)
        stop_slot = np.int64(leaf_ends[last - 1])
        begin = _place_of(listed, everything, np.int64(0), high, slot)
        end = _place_of(listed, everything, begin, high, stop_slot)
        if unsure and node >= leaves:
            near_slots += stop_slot - slot
            near_places += end - begin
            if near_slots * _NEAR_SHARE >= sorted_slots:
                unsure = False
                if near_places * _AVOIDED * sorted_slots < near_slots * high:
                    return np.int64(AVOIDED)
        if end == begin:
            continue
        if node >= leaves and end - begin > budget.shortlist:
            at = begin
            for child in range(leaf, last):
                after = _place_of(listed, everything, at, end, np.int64(leaf_ends[child]))
                if after > at:
                    score = _score(levels.leaves, np.int64(child), query.node, node_blocks)
                    waiting = _push(heap, waiting, score, np.int64(child))
                    work[_NODES] += 1
                at = after
            continue
        before = pool[limit - 1] if size >= limit else _NEVER
        size = scan_node(query, begin, end, slot, stop_slot, pool, size, budget.rerank, work, code_words, blocks)
        looks += 1
        idle = idle + 1 if size >= limit and pool[limit - 1] == before else 0
        if idle >= budget.idle_nodes_max or looks >= budget.nodes_max:
            break
    return size


@part()
def _cut(pool, size, limit, query8, square):
    """How many of the sorted pool may be among the nearest `limit`: those within three deviations of its limit-th.

    Rounding is uniform, so a distance d = constant - 2 q.x is off by 2 sqrt((|q|^2 + |x|^2) / 12) on average, with q
    and x in units of their codes.   square : |x|^2 of a row; -1: nothing is cut.
    """
    if size <= limit or square < 0.0:
        return size
    total = np.float32(0.0)
    for j in range(len(query8)):
        q = np.float32(query8[j])
        total += q * q
    room = np.int64(_DEVIATIONS * np.float32(2.0) * np.float32(math.sqrt((total + square) / np.float32(12.0))))
    bound = ((pool[limit - 1] >> 32) + room + 1) << 32
    while size > limit and pool[size - 1] >= bound:
        size -= 1
    return size


@part()
def _rerank(query, vectors, row_bytes, pool, size, keys, rows_of, stored, metric):
    """Score the rows of pool[:size] on their vectors, into the sorted keys[:size]. Returns the first row that does not
    match its checksum, or -1.

    vectors : stored type[rows, dim], of row_bytes each.   stored : TreeRows.
    """
    for j in range(size):
        row = np.int64(rows_of[pool[j] & ROW_OF_KEY])
        pool[j] = row
        stream_at(vectors, row * row_bytes)  # first a line a page, so that pages are looked up all at once
        stream_at(vectors, (row + 1) * row_bytes - 1)
    for j in range(size):
        for line in range(_LINE, min(row_bytes, _VECTOR_BYTES_AHEAD), _LINE):
            stream_at(vectors, pool[j] * row_bytes + line)
    for j in range(size):
        row = pool[j]
        if not is_sound(vectors, row, row_bytes, stored.crcs, stored.verified):
            return row
        keys[j] = key_of(exact(vectors, row, query, metric), row)
    sort_keys(keys, size)
    return np.int64(-1)


@kernel()
def search_slots(
    queries, rows, distances, counts, work, listed, budget_table, row_count, sequence_signed, tree, vectors,
    scratch_table, shapes,
):  # fmt: skip
    """Answer `queries` (float32[nq, dim]) into rows int64[nq, limit], distances float32[nq, limit], counts int64[nq].

    work : int64[3], see `TreeWork`; added to.
    listed : uint32[any] slots, ascending, of rows that are visible.   vectors : stored type[rows, dim].
    budget_table, tree, scratch_table : tables of the layouts TreeBudget, Tree and TreeBuffers.
    row_count, sequence_signed : the snapshot.
    shapes : three tuples, as long as a one-bit code has words, used where queries are filtered; as a code has blocks of
    64 bytes, of the type that tells its format (code_formats.py); as the code of a node has.
    Returns the first row that does not match its checksum, or -1.
    """
    code_words, blocks, _ = shapes
    budget, scratch = layout_of(budget_table, TreeBudget), layout_of(scratch_table, TreeBuffers)
    space = group_of(tree, Tree, "space")
    metric, codes, slots = group_of(tree, Tree, "metric"), group_of(tree, Tree, "codes"), group_of(tree, Tree, "slots")
    bits, stored = group_of(tree, Tree, "bits"), group_of(tree, Tree, "rows")
    limit, rerank, everything, pool, keys = (
        budget.limit,
        budget.rerank,
        budget.everything != 0,
        scratch.pool,
        scratch.keys,
    )
    slack = bits.slack * np.float32(budget.slack_percent) / np.float32(100.0)
    seen = SnapshotRows(slots.rows_of, np.int64(row_count), np.uint64(sequence_signed), stored.deleted)
    panels = BitPanels(bits.panels, scratch.tables, scratch.estimates)
    row_bytes = vectors.shape[1] * vectors.itemsize
    places = max(np.int64(row_count), slots.sorted) if everything else np.int64(len(listed))
    filtered, along = places >= budget.filter_from, places > budget.scan_max
    by_panels = filtered and len(bits.panels) > 0 and (along or slots.sorted <= PANEL_SHARE * places)
    if not everything:  # the first are fetched from memory while the query is encoded
        for at in range(min(places, AHEAD)):
            if filtered:
                stream_at(bits.lines.octets, np.int64(listed[at]) * bits.lines.stride)
            elif at < _AHEAD:
                stream_code(codes.codes, np.int64(listed[at]), blocks)
    start = np.int64(0)
    if along or by_panels:
        start = _place_of(listed, everything, np.int64(0), places, slots.sorted)
    for i in range(len(queries)):
        query = queries[i]
        probe = encode_query(
            query, codes.parameters, codes.scale, metric, len(codes.bias) > 0, scratch.query8, scratch.query16, blocks
        )
        step, half, norm = np.float32(0.0), np.float32(0.0), np.float32(0.0)
        if filtered:
            step, half, norm = query_bit_planes(
                query, bits.center, bits.signs, metric == COSINE, scratch.rotated, scratch.planes
            )
            for j in range(limit):
                scratch.nearest[j] = np.float32(np.inf)
        if by_panels:
            fill_tables(scratch.planes, scratch.tables)
        node8, node16 = (scratch.node8, scratch.node16) if space.apart != 0 else (scratch.query8, scratch.query16)
        node_probe = _node_probe(query, space, metric, probe, node8, node16, blocks)
        ratio = _ratio(query, space.scale, metric, node_probe) if along else np.float32(0.0)
        one = TreeQuery(
            listed, everything, filtered,
            CodedQuery(codes.codes, codes.bias, scratch.query8, scratch.query16, probe),
            NodeQuery(node8, node16, node_probe, ratio), bits.lines, panels,
            BitQuery(scratch.planes64, step, half, bits.weight),
            BitShortlist(scratch.nearest, scratch.filter_keys, scratch.kept, limit, budget.filtered_max, slack * norm),
            seen,
        )  # fmt: skip
        size = np.int64(0)
        if along:
            levels = group_of(tree, Tree, "levels")
            size = _walk(one, start, budget, levels, scratch.heap, pool, work, shapes)
        if size < 0 or (by_panels and not along):
            size = np.int64(0)
            if filtered:
                for j in range(limit):
                    scratch.nearest[j] = np.float32(np.inf)
            size = scan_node(
                one, np.int64(0), start, np.int64(0), slots.sorted, pool, size, rerank, work, code_words, blocks
            )
        size = scan_node(one, start, places, np.int64(0), np.int64(0), pool, size, rerank, work, code_words, blocks)
        size = _cut(pool, size, limit, scratch.query8, codes.square)
        bad = _rerank(query, vectors, row_bytes, pool, size, keys, slots.rows_of, stored, metric)
        if bad >= 0:
            return bad
        work[_VECTORS] += size
        for j in range(len(stored.far)):
            row = np.int64(stored.far[j])
            if everything:
                if not is_visible(row, seen.row_count, seen.sequence, stored.deleted, stored.deleted[:0]):
                    continue
            else:
                slot = np.int64(slots.slots_of[row])
                at = first_at_least(listed, np.int64(0), places, slot)
                if at == places or np.int64(listed[at]) != slot:
                    continue
            if not is_sound(vectors, row, row_bytes, stored.crcs, stored.verified):
                return row
            size = add_key(keys, size, rerank, key_of(exact(vectors, row, query, metric), row))
            work[_VECTORS] += 1
        counts[i] = put_answer(keys, size, np.int64(rows.shape[1]), rows[i], distances[i])
    return -1
