"""Whole queries in one kernel call: quantise, descend, search layer 0, scan the tail, re-rank on full vectors.

A thread hands over its slice of queries and gets sorted answers. Rows are checked against their checksums before their
vectors are used; the first damaged one ends the call and is returned, so that the caller can raise.
"""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple

import numpy as np
from numba import float32, float64, int8, int16, int32, int64, uint8, uint32, uint64

from vecdb.kernels.array_table import layout_of
from vecdb.kernels.codes.code_formats import code_distance, encode_query
from vecdb.kernels.compile import FAST, kernel, part
from vecdb.kernels.primitives.checksums import is_sound
from vecdb.kernels.primitives.distance import exact
from vecdb.kernels.primitives.prefetch import VECTOR_BYTES_MAX, prefetch_at, prefetch_row
from vecdb.kernels.primitives.topk import add_key, insert, key_of, put_answer, sort_keys
from vecdb.kernels.primitives.visibility import VisibleRows, is_visible
from vecdb.kernels.search.beam_search import (
    BeamQuery,
    BeamScratch,
    GraphArrays,
    clear_visited,
    descend,
    pool_entry,
    row_of_entry,
    search_layer,
)
from vecdb.kernels.threads import turns

# More hidden rows than this share among the best, one in so many of those that were scored, have kept visible ones out
# of the beam: the query is searched again in strict mode.
HIDDEN_SHARE = 8

# What a search returns where every row matched its checksum: each query has `limit` answers, or some have fewer, or a
# query that was not checked before is not fit to be searched for.
ALL_FULL, SOME_SHORT, UNFIT_QUERY = -1, -2, -3


class GraphWork(IntEnum):
    """What a search of a graph counts, and where in `work`."""

    CODE_DISTANCES = 0
    VECTOR_DISTANCES = 1
    WALKED_AGAIN = 2


class SearchedGraph(NamedTuple):
    """What a search reads of one published graph: a layout (array_table.py)."""

    graph: GraphArrays  # bias empty unless the metric is l2 or jaccard
    indexed: int64  # rows below it are in the graph; [indexed, row_count) is scanned on codes
    entry: int64  # row, or -1 while nothing is indexed
    level: int64
    metric: int64
    scale: float64  # this and parameters: of the quantizer
    parameters: float32[::1]
    far: int32[::1]  # rows whose codes say little: each is scored on its full vector
    crcs: uint32[::1]
    verified: uint8[::1]
    deleted: uint64[::1]


class GraphScratch(NamedTuple):
    """Buffers of searches and of building: a layout."""

    beam: BeamScratch
    keys: int64[::1]  # [>= rerank + 1]
    kept: int64[::1]  # [> stride of links]
    query8: int8[::1]  # [64 * blocks]
    query16: int16[::1]  # [64 * blocks], twice that where codes are rotated


class GraphSearch(NamedTuple):
    """What a search asks of a published graph, the same for every query: a layout."""

    width: int64  # of the beam
    rerank: int64  # candidates scored on full vectors, >= limit
    row_count: int64  # this and sequence: the snapshot
    sequence: int64
    checked: int64  # whether the queries' norms are known to be within the bounds
    norm_min: float64  # squared, of queries that are not checked
    norm_max: float64
    allow: uint64[::1]  # bitmap of rows that may be found, empty: all
    ids: int64[::1]  # by row, answered in the place of rows; empty: rows are
    turns: int64[::1]  # threads/turns.py, for calls of one query; empty: the call waits for nobody


@kernel()
def search_graph(
    queries, answers, distances, counts, work, search_table, graph_table, vectors, scratch_table, blocks
):  # fmt: skip
    """Answer queries (float32[nq * dim]) into answers int64[nq * limit], distances float32[nq * limit] and counts
    int64[nq].

    work : int64[3], see GraphWork, added to.   search_table : of a GraphSearch.   graph_table : of a SearchedGraph.
    vectors : stored type[rows, dim].   scratch_table : of a GraphScratch.   blocks : of the codes (code_formats.py).
    Returns the first row that does not match its checksum, or ALL_FULL, SOME_SHORT or UNFIT_QUERY.

    The first search does not look at visibility: unlinked rows are not met, and reading `deleted` for every row would
    double the cache misses. With a bitmap, and where too many hidden rows turn up among the best, it does (`strict`).
    """
    search = layout_of(search_table, GraphSearch)
    keys, ids = layout_of(scratch_table, GraphScratch).keys, search.ids
    limit, dim = len(answers) // len(counts), vectors.shape[1]
    if len(search.turns):
        turns.begin(search.turns)
    state = ALL_FULL
    for i in range(len(counts)):
        query = queries[i * dim : (i + 1) * dim]
        # NaN is in no order
        if not search.checked and not search.norm_min <= _square_norm(query) <= search.norm_max:
            state = UNFIT_QUERY
            break
        taken = _best_of_one(query, limit, work, search_table, graph_table, vectors, scratch_table, blocks)
        if taken < 0:
            state = -1 - taken
            break
        first = i * limit
        counts[i] = put_answer(keys, taken, limit, answers[first : first + limit], distances[first : first + limit])
        if counts[i] < limit:
            state = SOME_SHORT
        if len(ids):
            for j in range(first, first + counts[i]):
                answers[j] = ids[answers[j]]
    if len(search.turns):
        turns.end(search.turns)
    return state


@part(fastmath=FAST)
def _square_norm(query):
    total = np.float32(0.0)
    for j in range(len(query)):
        total += query[j] * query[j]
    return total


@part()
def _best_of_one(query, limit, work, search_table, graph_table, vectors, scratch_table, blocks):
    """Put the sort keys of the nearest visible rows into `scratch.keys`. Returns how many, or -1 - row of the first row
    that does not match its checksum.
    """
    search = layout_of(search_table, GraphSearch)
    view = layout_of(graph_table, SearchedGraph)
    scratch = layout_of(scratch_table, GraphScratch)
    graph, pool, keys = view.graph, scratch.beam.pool, scratch.keys
    width, rerank, row_count = search.width, search.rerank, search.row_count
    sequence, deleted, allow = np.uint64(search.sequence), view.deleted, search.allow
    snapshot = VisibleRows(row_count, sequence, deleted, allow)
    row_bytes = vectors.shape[1] * vectors.itemsize
    biased = len(graph.bias) > 0
    probe = encode_query(
        query, view.parameters, view.scale, view.metric, biased, scratch.query8, scratch.query16, blocks
    )
    coded = BeamQuery(scratch.query8, scratch.query16, probe)
    strict = len(allow) > 0
    taken = 0
    while True:
        size = 0
        if view.entry >= 0:
            start, count = descend(graph, view.entry, view.level, np.int64(0), coded, blocks)
            size, more, used = search_layer(
                graph, np.int64(0), start, coded, width, strict, snapshot, scratch.beam, blocks
            )
            clear_visited(scratch.beam, used)
            work[GraphWork.CODE_DISTANCES] += count + more
        if row_count > view.indexed:
            # Rows that joined the graph after the caller looked are both linked and in its tail: keep them once.
            kept = 0
            for j in range(size):
                if row_of_entry(pool[j]) < view.indexed:
                    pool[kept] = pool[j]
                    kept += 1
            size = kept
        room = max(size, min(width, len(pool) - 1))
        for row in range(view.indexed, row_count):
            d = code_distance(graph.codes, graph.bias, row, coded.query8, coded.query16, probe, blocks)
            key = pool_entry(d, np.int64(row))
            if size >= room and key >= pool[size - 1]:
                continue
            if is_visible(row, row_count, sequence, deleted, allow):
                if size >= room:
                    size -= 1
                insert(pool, np.int64(size), key)
                size += 1
        work[GraphWork.CODE_DISTANCES] += max(0, row_count - view.indexed)
        taken = 0
        hidden = 0
        for j in range(min(size, rerank)):
            row = row_of_entry(pool[j])
            for line in range(0, min(row_bytes + 63, VECTOR_BYTES_MAX), 64):
                prefetch_at(vectors, row * row_bytes + line)
            prefetch_row(deleted, row)
        for j in range(size):
            row = row_of_entry(pool[j])
            if not is_visible(row, row_count, sequence, deleted, allow):
                hidden += 1
                continue
            if not is_sound(vectors, row, row_bytes, view.crcs, view.verified):
                return -1 - row
            keys[taken] = key_of(exact(vectors, row, query, view.metric), row)
            taken += 1
            if taken >= rerank:
                break
        work[GraphWork.VECTOR_DISTANCES] += taken
        few_hidden = taken >= limit and hidden * HIDDEN_SHARE <= taken
        if strict or view.entry < 0 or few_hidden or hidden == 0:
            break
        strict = True
        work[GraphWork.WALKED_AGAIN] += 1
    sort_keys(keys, taken)
    for j in range(len(view.far)):
        row = np.int64(view.far[j])
        if not is_visible(row, row_count, sequence, deleted, allow):
            continue
        if not is_sound(vectors, row, row_bytes, view.crcs, view.verified):
            return -1 - row
        taken = add_key(keys, taken, rerank, key_of(exact(vectors, row, query, view.metric), row))
    work[GraphWork.VECTOR_DISTANCES] += len(view.far)
    return taken
