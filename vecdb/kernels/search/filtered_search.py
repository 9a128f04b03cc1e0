"""Queries among rows that match a filter: a walk through the graph that knows them, and a scan of their codes.

The walk goes over all rows, with a beam that widens where few of the rows that it looks at match: ef / sqrt(p), p the
share that matches. It keeps the nearest matches that it looked at, whether they stay in the beam or not. Where the
filter avoids the query, or the walk has become dearer than a scan, it gives up and its caller scans. The scan is by
codes, and the best are scored on their vectors.

Measured beside beam ef / p, seeds from the bits, a stop by patience, two-hop links: this was fastest at equal recall,
but for shares of 2 to 5 % of a million rows (DiskANN's range-aware walk adapts its beam, too).
"""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple

import numpy as np
from numba import int64

from vecdb.kernels.array_table import layout_of
from vecdb.kernels.codes.code_formats import code_distance, encode_query
from vecdb.kernels.compile import kernel, part
from vecdb.kernels.primitives.checksums import is_sound
from vecdb.kernels.primitives.distance import exact
from vecdb.kernels.primitives.prefetch import VECTOR_BYTES_MAX, prefetch_at, prefetch_code, prefetch_row
from vecdb.kernels.primitives.topk import add_key, insert, key_of, put_answer, select_smallest, sort_keys
from vecdb.kernels.primitives.visibility import is_deleted
from vecdb.kernels.search.beam_search import BeamQuery, clear_visited, descend, pool_entry, row_of_entry
from vecdb.kernels.search.graph_search import GraphScratch, GraphWork, SearchedGraph
from vecdb.kernels.search.row_bits import is_set

GAVE_UP = -1  # counts of a query that the caller is to answer by a scan
_FIRST_LOOKS = 200  # rows that a walk looks at before it compares costs; then at twice as many, and so on
_AVOIDED = 3.0  # a share of matches so many times below that of all rows: the filter avoids the query
_AHEAD = 8  # rows of a list whose codes are on their way from memory
_ROW_OF_CODE_KEY = np.int64(0x7FFFFFFF)


class FilterRule(IntEnum):
    """When a walk is given up: places in `rule`, float64[4].

    SHARE : of the rows that match, in (0, 1].   SCAN_COST, BEAM_COST : of a scan of all matches, and of a beam of one,
    in the same unit.   BEAM_MAX : the widest beam.
    """

    SHARE = 0
    SCAN_COST = 1
    BEAM_COST = 2
    BEAM_MAX = 3


class NearestMatches(NamedTuple):
    """keys : int64[2 * most + 2], distance << 32 | row, in no order.   most : how many of the nearest are kept."""

    keys: int64[::1]
    most: int64


@part()
def keep_match(found, size, bound, key):
    """Keep the key of a match. Returns (size, bound): no key that is not below the bound is kept."""
    keys, most = found
    if key >= bound:
        return size, bound
    keys[size] = key
    size += 1
    if size == 2 * most:
        select_smallest(keys, size, most)
        size = most
        bound = keys[0]
        for at in range(1, most):
            bound = max(bound, keys[at])
    return size, bound


@part()
def walk_layer(graph, entry, query, width, indexed, matching, rule, scratch, found, blocks):
    """Walk layer 0 from `entry` and keep the nearest matches.

    indexed : rows below it count; later ones, which have no bit, may be linked.   matching : bits, uint64.
    found : NearestMatches, filled.
    Returns (matches kept, their bound, rows looked at, length of the trail in use, whether it gave up).
    """
    codes, bias = graph.codes, graph.bias
    query8, query16, probe = query
    pool, visited, trail = scratch
    links, biased = graph.links, len(graph.bias) > 0
    visited[entry >> 5] |= np.uint32(1) << np.uint32(entry & 31)
    trail[0] = entry
    used = 1
    distance = code_distance(codes, bias, np.int64(entry), query8, query16, probe, blocks)
    pool[0] = pool_entry(distance, np.int64(entry))
    size = count = 1
    kept, bound = np.int64(0), np.int64(0x7FFFFFFFFFFFFFFF)
    matches = 0
    if entry < indexed and is_set(matching, np.int64(entry)):
        kept, bound = keep_match(found, kept, bound, (np.int64(distance) << 32) | np.int64(entry))
        matches = 1
    beam = np.int64(width)
    next_look = _FIRST_LOOKS
    at = 0
    full = gave_up = False
    while at < size:
        key = pool[at]
        if key & 1:
            at += 1
            continue
        pool[at] = key | 1
        neighbours = links[row_of_entry(key)]
        if used + len(neighbours) > len(trail):
            used = 0  # the list is full: start it over and let `clear_visited` zero the whole set
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
        if at < size:
            prefetch_row(links, row_of_entry(pool[at]))
        count += fresh
        for j in range(fresh):
            near = np.int64(todo[j])
            distance = code_distance(codes, bias, near, query8, query16, probe, blocks)
            if near < indexed and is_set(matching, near):
                matches += 1
                kept, bound = keep_match(found, kept, bound, (np.int64(distance) << 32) | near)
            key = pool_entry(distance, near)
            if size >= beam and key >= pool[size - 1]:
                continue
            place = insert(pool, np.int64(size), key)
            size = min(size + 1, beam)
            if place < at:
                at = place
                prefetch_row(links, near)
        if count >= next_look:
            next_look *= 2
            met = (matches + 0.5) / (count + 1.0)
            wanted = width / np.sqrt(met)
            if (
                met * _AVOIDED < rule[FilterRule.SHARE]
                or rule[FilterRule.BEAM_COST] * wanted > rule[FilterRule.SCAN_COST]
            ):
                gave_up = True
                break
            beam = max(beam, np.int64(min(rule[FilterRule.BEAM_MAX], wanted)))
    return kept, bound, count, len(trail) if full else used, gave_up


@part()
def score(keys, taken, query, rerank, view, vectors, matching, sequence):
    """Score keys[:taken] and the far rows that match on their vectors, and sort them. Rows that are deleted at the
    snapshot go.

    Returns (how many, the first row that does not match its checksum or -1).
    """
    row_bytes = vectors.shape[1] * vectors.itemsize
    for j in range(taken):
        row = keys[j] & _ROW_OF_CODE_KEY
        for line in range(0, min(row_bytes + 63, VECTOR_BYTES_MAX), 64):
            prefetch_at(vectors, row * row_bytes + line)
        prefetch_row(view.deleted, row)
    size = 0
    for j in range(taken):
        row = keys[j] & _ROW_OF_CODE_KEY
        if is_deleted(row, sequence, view.deleted):
            continue
        if not is_sound(vectors, row, row_bytes, view.crcs, view.verified):
            return size, row
        keys[size] = key_of(exact(vectors, row, query, view.metric), row)
        size += 1
    sort_keys(keys, size)
    for j in range(len(view.far)):
        row = np.int64(view.far[j])
        if row < 64 * len(matching) and is_set(matching, row) and not is_deleted(row, sequence, view.deleted):
            if not is_sound(vectors, row, row_bytes, view.crcs, view.verified):
                return size, row
            size = add_key(keys, size, rerank, key_of(exact(vectors, row, query, view.metric), row))
    return size, np.int64(-1)


@kernel()
def walk_matching(
    queries, rows, distances, counts, work, width, rerank, snapshot, matching, rule, graph_table, vectors,
    scratch_table, blocks,
):  # fmt: skip
    """Answer `queries` (float32[nq, dim]) among matching rows into rows int64[nq, limit], distances float32[nq, limit],
    counts int64[nq], which is GAVE_UP where the caller is to scan.

    work : int64[3], see GraphWork, added to.   width : beam where every row matches.   rerank : matches scored on full
    vectors, >= limit.   snapshot : int64[2], its row_count and sequence.   matching : bits uint64[>= row_count / 64] of
    rows that the snapshot sees.   rule : see FilterRule.   graph_table, vectors, scratch_table, blocks : as for
    `search_graph`; keys of the scratch have 2 * rerank + 2 places, its pool 2 more than the widest beam.
    Returns the first row that does not match its checksum, or -1.
    """
    view = layout_of(graph_table, SearchedGraph)
    scratch = layout_of(scratch_table, GraphScratch)
    graph, keys = view.graph, scratch.keys
    found = NearestMatches(keys, np.int64(rerank))
    row_count, sequence = snapshot[0], np.uint64(snapshot[1])
    limit = rows.shape[1]
    for i in range(len(queries)):
        probe = encode_query(
            queries[i], view.parameters, view.scale, view.metric, len(graph.bias) > 0, scratch.query8, scratch.query16,
            blocks,
        )  # fmt: skip
        query = BeamQuery(scratch.query8, scratch.query16, probe)
        start, count = descend(graph, view.entry, view.level, np.int64(0), query, blocks)
        kept, bound, more, used, gave_up = walk_layer(
            graph, start, query, width, min(view.indexed, row_count), matching, rule, scratch.beam, found, blocks
        )
        clear_visited(scratch.beam, used)
        work[GraphWork.CODE_DISTANCES] += count + more
        if gave_up:
            counts[i] = GAVE_UP
            continue
        for row in range(view.indexed, row_count):
            if is_set(matching, row):
                d = code_distance(graph.codes, graph.bias, row, query.query8, query.query16, probe, blocks)
                kept, bound = keep_match(found, kept, bound, (np.int64(d) << 32) | np.int64(row))
        taken = min(kept, rerank)
        select_smallest(keys, kept, taken)
        taken, bad = score(keys, taken, queries[i], rerank, view, vectors, matching, sequence)
        if bad >= 0:
            return bad
        work[GraphWork.VECTOR_DISTANCES] += taken
        counts[i] = put_answer(keys, taken, limit, rows[i], distances[i])
    return -1


@kernel()
def scan_matching(
    queries, rows, distances, counts, work, rerank, snapshot, listed, matching, graph_table, vectors, scratch_table,
    blocks,
):  # fmt: skip
    """Answer `queries` by the codes of all rows of `listed` (uint32[n], ascending, visible), and the best of them on
    their vectors.

    matching : bits of the same rows, uint64.   All else : as for `walk_matching`.
    """
    view = layout_of(graph_table, SearchedGraph)
    scratch = layout_of(scratch_table, GraphScratch)
    codes, bias, keys = view.graph.codes, view.graph.bias, scratch.keys
    query8, query16, biased = scratch.query8, scratch.query16, len(view.graph.bias) > 0
    found = NearestMatches(keys, np.int64(rerank))
    sequence = np.uint64(snapshot[1])
    limit = rows.shape[1]
    for i in range(len(queries)):
        probe = encode_query(queries[i], view.parameters, view.scale, view.metric, biased, query8, query16, blocks)
        kept, bound = np.int64(0), np.int64(0x7FFFFFFFFFFFFFFF)
        for at in range(len(listed)):
            ahead = np.int64(listed[min(at + _AHEAD, len(listed) - 1)])
            prefetch_code(codes, ahead, blocks)
            if biased:
                prefetch_row(bias, ahead)
            row = np.int64(listed[at])
            d = code_distance(codes, bias, row, query8, query16, probe, blocks)
            kept, bound = keep_match(found, kept, bound, (np.int64(d) << 32) | row)
        work[GraphWork.CODE_DISTANCES] += len(listed)
        taken = min(kept, rerank)
        select_smallest(keys, kept, taken)
        taken, bad = score(keys, taken, queries[i], rerank, view, vectors, matching, sequence)
        if bad >= 0:
            return bad
        work[GraphWork.VECTOR_DISTANCES] += taken
        counts[i] = put_answer(keys, taken, limit, rows[i], distances[i])
    return -1
