"""Exact scan of full vectors: it answers for young collections, for tails, and where an index is damaged; tests compare
with it.

A row is read once, and a few rows together are asked first whether they may be near, which float32 arithmetic, or
counts of bits, tell as fast as memory is read; only of those that may be within the limit-th distance so far is the
distance itself computed.
"""

from __future__ import annotations

import numpy as np

from vecdb.kernels.array_table import reinterpret
from vecdb.kernels.compile import inlined, kernel, part
from vecdb.kernels.primitives.bit_products import lowest_bit
from vecdb.kernels.primitives.checksums import is_sound
from vecdb.kernels.primitives.distance import HELD, exact, has_bound, near, reach, write_ends
from vecdb.kernels.primitives.float_products import ROWS, row_products
from vecdb.kernels.primitives.prefetch import STREAM_BYTES_MAX, prefetch_at, prefetch_row
from vecdb.kernels.primitives.topk import ROW_OF_KEY, distance_of, insert, key_of
from vecdb.kernels.primitives.visibility import EVERY_ROW, is_deleted, is_visible

BLOCK_ROWS = 256  # rows scored for all queries before the next block: 256 x 384 float32 stays in a level-2 cache
SCRATCH = HELD + ROWS  # further places of `block`
AHEAD_ROWS = 8  # of a list of rows, which lie scattered, this many are on their way from memory
# Of long rows that follow one another; the processor's own prefetch ends with a page. Hints that a line is used once
# are slower (measured at 40,000 x 384: 13 ms with them, 4.4 without), and so are any where rows are short.
AHEAD_BYTES = np.int64(2_048)
_SEEN_ROWS = 64  # looked at together where not all of a block are visible and verified, as they are in most stores


@inlined()
def _all_seen(first, stop, sequence, deleted, verified):
    """Whether rows [first, stop) are visible, and all known to match their checksums."""
    some = deleted[first:stop]
    gone = np.int64(0)
    for i in range(len(some)):
        gone |= np.int64(some[i] - np.uint64(1) < sequence)
    some_known = verified[first >> 3 : ((stop - 1) >> 3) + 1]
    known = np.uint8(255)
    for i in range(len(some_known)):
        known &= some_known[i]
    return gone == 0 and known == 255


@part()
def _write_visible(first, stop, listed, sequence, allow, vectors, crcs, verified, deleted, block):
    """Visible rows of [first, stop), see `scan_rows`, into block, the last once more up to a multiple of ROWS. Returns
    (how many, the first that does not match its checksum or -1).
    """
    row_bytes = vectors.shape[1] * vectors.itemsize
    visible, at, together = 0, first, stop - first
    while at < stop:
        end = min(at + together, stop)
        if len(listed) == 0 and len(allow) == 0:
            if _all_seen(at, end, sequence, deleted, verified):
                some = block[visible : visible + end - at]
                for i in range(len(some)):
                    some[i] = at + i
                visible += end - at
                at = end
                continue
            if together > _SEEN_ROWS:
                together = _SEEN_ROWS
                continue
        for place in range(at, end):
            row = place
            if len(listed):
                row = np.int64(listed[place])
                ahead = np.int64(listed[min(place + AHEAD_ROWS, stop - 1)])  # rows of a list lie scattered
                for line in range(0, min(row_bytes + 63, STREAM_BYTES_MAX), 64):
                    prefetch_at(vectors, ahead * row_bytes + line)
                prefetch_row(deleted, ahead)
            if is_visible(row, EVERY_ROW, sequence, deleted, allow):
                if not is_sound(vectors, row, row_bytes, crcs, verified):
                    return visible, row
                block[visible] = row
                visible += 1
        at = end
    for place in range(visible, (visible + ROWS - 1) // ROWS * ROWS):
        block[place] = block[visible - 1]
    return visible, np.int64(-1)


@kernel()
def scan_rows(
    queries, keys, counts, listed, first, stop, sequence_signed, allow, metric, vectors, crcs, verified, deleted, block
):  # fmt: skip
    """The nearest visible rows of [first, stop) to every query, added to keys int64[nq, limit + 1], counts int64[nq].

    listed : uint32[any], rows of which [first, stop) are scanned; empty: [first, stop) are rows themselves.
    sequence_signed, allow : of the snapshot, whose row_count no row reaches; a bitmap uint64[any], empty: all rows.
    metric : any of distance.py.   vectors : stored type[rows, dim].
    block : int32[n + SCRATCH], scratch; n rows, at least ROWS, are scored for all queries before the next are read.
    Returns the first row that does not match its checksum, or -1.
    """
    sequence = np.uint64(sequence_signed)
    dim, limit = vectors.shape[1], keys.shape[1] - 1
    most = (len(block) - SCRATCH) // ROWS * ROWS
    ends = reinterpret(block[len(block) - HELD :], np.float32)
    bounded = has_bound(vectors, metric)
    square, bounds = 0.0, (np.float32(0.0), np.float32(0.0))
    for begin in range(first, stop, most):
        visible, bad = _write_visible(
            begin, min(begin + most, stop), listed, sequence, allow, vectors, crcs, verified, deleted, block
        )
        if bad >= 0:
            return bad
        for i in range(len(queries)):
            query, best, size = queries[i], keys[i], counts[i]
            ahead = AHEAD_BYTES if i == 0 and len(listed) == 0 else np.int64(0)
            if bounded:
                square = write_ends(vectors, query, ends, metric)
                if size == limit:
                    bounds = reach(distance_of(best[limit - 1]), square, dim, metric)
            for at in range(0, visible, ROWS):
                left = np.int64((1 << ROWS) - 1)
                if bounded and size == limit:
                    left = near(vectors, block, at, query, ends, bounds, ahead, metric)
                if at + ROWS > visible:  # the last row stands there several times
                    left &= (1 << (visible - at)) - 1
                while left:
                    row = np.int64(block[at + lowest_bit(np.uint32(left))])
                    left &= left - 1
                    key = key_of(exact(vectors, row, query, metric), row)
                    if size < limit:
                        insert(best, np.int64(size), key)
                        size += 1
                    elif key < best[limit - 1]:
                        insert(best, np.int64(limit - 1), key)
                    else:
                        continue
                    if bounded and size == limit:
                        bounds = reach(distance_of(best[limit - 1]), square, dim, metric)
            counts[i] = size
    return -1


@kernel()
def scan_bounded(
    queries, keys, counts, listed, first, stop, sequence_signed, metric, vectors, crcs, verified, deleted, bounds
):  # fmt: skip
    """`scan_rows` of one block, for pairs of rows and queries that are not known to be too far.

    bounds : float32[stop - first, >= nq], above 0 where the row is farther from the query than its limit-th neighbour
    so far. Returns (the first row that does not match its checksum or -1, pairs whose distance was computed).
    """
    sequence = np.uint64(sequence_signed)
    row_bytes = vectors.shape[1] * vectors.itemsize
    limit = keys.shape[1] - 1
    pairs = 0
    for at in range(first, stop):
        row = np.int64(listed[at]) if len(listed) else at
        if is_deleted(row, sequence, deleted):
            continue
        if not is_sound(vectors, row, row_bytes, crcs, verified):
            return row, pairs
        line = bounds[at - first]
        for i in range(len(queries)):
            if line[i] > 0:
                continue
            pairs += 1
            key = key_of(exact(vectors, row, queries[i], metric), row)
            size = counts[i]
            if size < limit:
                insert(keys[i], np.int64(size), key)
                counts[i] = size + 1
            elif key < keys[i, limit - 1]:
                insert(keys[i], np.int64(limit - 1), key)
    return np.int64(-1), pairs


@kernel()
def products(rows, columns, out):
    """rows @ columns: float32[n, w] and [w, COLUMNS] into float32[n, COLUMNS], n a multiple of ROWS. BLAS does it on
    threads of its own, which wait for one another where cores are busy.
    """
    for first in range(0, len(rows), ROWS):
        row_products(rows, first, columns, out)


@kernel()
def merge(keys, sizes, positions, limit, out_rows, out_distances, out_counts):
    """Merge the sorted answers of several row ranges, as `search` returns them.

    keys : int64[parts, nq, limit + 1].   sizes : int64[parts, nq].   positions : int64[parts], scratch.
    """
    parts = keys.shape[0]
    for i in range(keys.shape[1]):
        positions[:] = 0
        count = 0
        while count < limit:
            best = -1
            for one in range(parts):
                if positions[one] < sizes[one, i]:
                    if best < 0 or keys[one, i, positions[one]] < keys[best, i, positions[best]]:
                        best = one
            if best < 0:
                break
            key = keys[best, i, positions[best]]
            positions[best] += 1
            out_rows[i, count] = key & ROW_OF_KEY
            out_distances[i, count] = distance_of(key)
            count += 1
        for j in range(count, limit):
            out_rows[i, j] = -1
            out_distances[i, j] = np.float32(np.inf)
        out_counts[i] = count
