"""Whole queries in one kernel call: quantise, descend, walk, scan the tail, re-rank on full vectors.

A thread hands over its slice of queries and gets sorted answers. Rows are checked against their checksums before their
vectors are used; the first damaged one ends the call and is returned, so that the caller can raise.
"""

from __future__ import annotations

import numpy as np

from vecdb.kernels.codes.sq8 import encode_query
from vecdb.kernels.compile import kernel
from vecdb.kernels.primitives.checksums import is_sound
from vecdb.kernels.primitives.distance import exact
from vecdb.kernels.primitives.dot_products import prefetch_at, prefetch_row
from vecdb.kernels.primitives.topk import add_key, insert, key_of, put_answer, sort_keys
from vecdb.kernels.primitives.visibility import is_visible
from vecdb.kernels.search.beam_search import ROW_MASK, clear, code_distance, descend, walk


@kernel()
def search_graph(
    queries, rows, distances, counts, work,
    limit, width, rerank, strict_from_start, row_count, sequence_signed, allow,
    indexed, entry, level, metric, scale, mean,
    codes, bias, links, upper, slot, far,
    vectors, crcs, verified, deleted,
    pool, keys, visited, trail, query8, query16, blocks,
):  # fmt: skip
    """Answer `queries` (float32[nq, dim]) into rows int64[nq, limit], distances float32[nq, limit], counts int64[nq].

    width : beam width.   rerank : candidates scored on full vectors, >= limit.   entry : row, or -1 while nothing is
    indexed.
    indexed : rows below it are in the graph; [indexed, row_count) is scanned on codes.
    far : int32[any], rows whose codes say little: each is scored on its full vector.
    work : int64[3], += distances on codes, rows re-ranked, queries walked again in strict mode.
    Scratch: pool int64[>= width + 2, rather 4 * width], keys int64[>= rerank + 1],
    visited uint32[rows / 32] all zero, trail int32[any], query8 and query16 as in `dot_codes`.
    Returns the first row that does not match its checksum, or -1.

    The plain walk does not look at visibility: unlinked rows are not met, and reading `deleted` for every row would
    double the cache misses. When too many hidden rows turn up among the best the query is walked again in strict mode.
    """
    sequence = np.uint64(sequence_signed)
    row_bytes = vectors.shape[1] * vectors.itemsize
    for i in range(len(queries)):
        query = queries[i]
        probe = encode_query(query, mean, scale, metric, len(bias) > 0, query8, query16)
        strict = strict_from_start
        found = 0
        while True:
            size = 0
            if entry >= 0:
                start, count = descend(
                    codes, bias, upper, slot, entry, level, np.int64(0), query8, query16, probe, blocks
                )
                size, more, used = walk(
                    codes, bias, links, slot, np.int64(0), start, query8, query16, probe, width,
                    strict, row_count, sequence, deleted, allow, pool, visited, trail, blocks,
                )  # fmt: skip
                clear(visited, trail, used)
                work[0] += count + more
            if row_count > indexed:
                # Rows that joined the graph after the caller looked are both linked and in its tail: keep them once.
                kept = 0
                for j in range(size):
                    if (pool[j] >> 1) & ROW_MASK < indexed:
                        pool[kept] = pool[j]
                        kept += 1
                size = kept
            room = max(size, min(width, len(pool) - 1))
            for row in range(indexed, row_count):
                d = code_distance(codes, bias, row, query8, query16, probe, blocks)
                key = (np.int64(d) << 32) | (np.int64(row) << 1)
                if size >= room and key >= pool[size - 1]:
                    continue
                if is_visible(row, row_count, sequence, deleted, allow):
                    if size >= room:
                        size -= 1
                    insert(pool, np.int64(size), key)
                    size += 1
            work[0] += max(0, row_count - indexed)
            taken = 0
            hidden = 0
            for j in range(min(size, rerank)):
                row = (pool[j] >> 1) & ROW_MASK
                for line in range(0, min(row_bytes + 63, 1024), 64):
                    prefetch_at(vectors, row * row_bytes + line)
                prefetch_row(deleted, row)
            for j in range(size):
                row = (pool[j] >> 1) & ROW_MASK
                if not is_visible(row, row_count, sequence, deleted, allow):
                    hidden += 1
                    continue
                if not is_sound(vectors, row, row_bytes, crcs, verified):
                    return row
                keys[taken] = key_of(exact(vectors, row, query, metric), row)
                taken += 1
                if taken >= rerank:
                    break
            work[1] += taken
            found = min(taken, limit)
            if strict or entry < 0 or (found == limit and hidden * 8 <= taken):
                break
            strict = hidden > 0
            if not strict:
                break
            work[2] += 1
        sort_keys(keys, taken)
        for j in range(len(far)):
            row = np.int64(far[j])
            if not is_visible(row, row_count, sequence, deleted, allow):
                continue
            if not is_sound(vectors, row, row_bytes, crcs, verified):
                return row
            taken = add_key(keys, taken, rerank, key_of(exact(vectors, row, query, metric), row))
        work[1] += len(far)
        counts[i] = put_answer(keys, taken, limit, rows[i], distances[i])
    return -1
