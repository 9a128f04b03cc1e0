"""Queries over posting lists: the rows of a shortlist, ranked by their vectors.

choose_reads    shortlist -> byte ranges of the row file, aligned, each once a query
name_rows       shortlist -> rows with estimates and margins, for who asks several indexes and reads later
rerank          the ranges, as read from disk -> the nearest rows
score_rows      rows beyond the range of the codes, which no estimate ranks -> joined to the nearest rows
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import int64, uint8, uint32

from vecdb.kernels.array_table import layout_of
from vecdb.kernels.compile import kernel, part
from vecdb.kernels.primitives.checksums import is_sound
from vecdb.kernels.primitives.crc32c import crc32c_row
from vecdb.kernels.primitives.distance import exact
from vecdb.kernels.primitives.topk import ROW_OF_KEY, add_key, distance_of, insert, key_of
from vecdb.kernels.primitives.visibility import is_visible
from vecdb.kernels.search.list_probe import ProbedQueries
from vecdb.kernels.search.list_scan import ListShortlist

_NONE = np.float32(np.inf)


class RowFileLayout(NamedTuple):
    """Where rows are in the row file: header_bytes + row * row_bytes. Reads are aligned to page_bytes.

    crcs : uint32[rows], CRC-32C of each row.
    """

    header_bytes: int64
    row_bytes: int64
    page_bytes: int64
    crcs: uint32[::1]


class RowReads(NamedTuple):
    """Rows to read, and the ranges that hold them.

    rows, owners : int64[any], each row of each query in turn, and the range that holds it.
    offsets, sizes, starts : int64[any], of each range: bytes of the row file, and where in a buffer they go.
    staged : uint8[1, row_bytes], the bytes of the row that is being scored.
    """

    rows: int64[::1]
    owners: int64[::1]
    offsets: int64[::1]
    sizes: int64[::1]
    starts: int64[::1]
    staged: uint8[:, ::1]


class Answers(NamedTuple):
    """The nearest rows of each query: sorted keys int64[n, limit + 1], counts int64[n]."""

    keys: int64[:, ::1]
    counts: int64[::1]


@part()
def _may_be_near(shortlist, i, limit, least, slack, norm, ip):
    """How many rows of shortlist i may be among the nearest: those whose estimate is within the slack of the limit-th,
    and the first `least` in any case. Arguments as of `choose_reads`.   norm : float32, of the query.
    """
    keys = shortlist.keys[i]
    size = np.int64(shortlist.sizes[i])
    if size > least:
        error = np.float32(0.0)
        for j in range(limit):
            error += shortlist.errors[i, j]
        bound = distance_of(keys[limit - 1]) + slack * (norm if ip else error / np.float32(limit))
        while size > least and distance_of(keys[size - 1]) > bound:
            size -= 1
    return size


@kernel()
def name_rows(
    probed_table, shortlist_table, scored, limit, least, slack, ip, scale, rows, distances, margins, counts
):  # fmt: skip
    """Name what `choose_reads` would read, with estimates and margins on the scale of the metric's distances.

    Tables, limit, least, slack, ip : as there.   scored : int64[any], ascending, rows to leave out.
    scale : float32, of estimates and margins.
    rows int64, distances, margins float32 [n, any], counts int64[n] : filled; -1, inf and 0 behind the last.
    """
    probed = layout_of(probed_table, ProbedQueries)
    shortlist = layout_of(shortlist_table, ListShortlist)
    for i in range(len(shortlist.sizes)):
        keys = shortlist.keys[i]
        named = np.int64(0)
        for j in range(_may_be_near(shortlist, i, limit, least, slack, probed.norms[i], ip)):
            row = keys[j] & ROW_OF_KEY
            if len(scored):
                at = np.searchsorted(scored, row)
                if at < len(scored) and scored[at] == row:
                    continue
            rows[i, named] = row
            distances[i, named] = scale * distance_of(keys[j])
            margins[i, named] = scale * slack * (probed.norms[i] if ip else shortlist.errors[i, j])
            named += 1
        counts[i] = named
        rows[i, named:] = -1
        distances[i, named:] = _NONE
        margins[i, named:] = np.float32(0.0)


@kernel()
def choose_reads(probed_table, shortlist_table, layout_table, reads_table, limit, least, slack, ip):
    """Cut the shortlists to what may be among the nearest, and choose the aligned byte ranges that hold those rows.

    A row stays while its estimate is within the slack of the limit-th, and the first `least` in any case.
    slack : float32, what an estimate may be off, times the mean of the first errors, or under `ip` times the query's
    norm.   Tables of ProbedQueries, ListShortlist (cut), RowFileLayout and RowReads (filled).
    Returns (rows, ranges, bytes of the buffer); the ranges lie one after another in the buffer.
    """
    probed = layout_of(probed_table, ProbedQueries)
    shortlist = layout_of(shortlist_table, ListShortlist)
    layout = layout_of(layout_table, RowFileLayout)
    reads = layout_of(reads_table, RowReads)
    page = layout.page_bytes
    total = np.int64(0)
    ranges = np.int64(0)
    end = np.int64(0)
    for i in range(len(shortlist.sizes)):
        keys = shortlist.keys[i]
        size = _may_be_near(shortlist, i, limit, least, slack, probed.norms[i], ip)
        shortlist.sizes[i] = size
        own = ranges
        for j in range(size):
            row = keys[j] & ROW_OF_KEY
            first = layout.header_bytes + row * layout.row_bytes
            start = first // page * page
            stop = -(-(first + layout.row_bytes) // page) * page
            owner = np.int64(-1)
            for k in range(ranges - 1, own - 1, -1):
                if reads.offsets[k] == start and reads.sizes[k] == stop - start:
                    owner = k
                    break
            if owner < 0:
                owner = ranges
                reads.offsets[owner] = start
                reads.sizes[owner] = stop - start
                reads.starts[owner] = end
                end += stop - start
                ranges += 1
            reads.rows[total] = row
            reads.owners[total] = owner
            total += 1
    return total, ranges, end


@kernel()
def rerank(queries, metric, staging, buffer, shortlist_table, layout_table, reads_table, answers_table):
    """Exact keys of the rows that were read, added to the answers. Returns the first row that does not match its
    checksum, or -1.

    queries : float32[n, dim].   metric : L2, COSINE or IP.   staging : stored type[1, dim], over the bytes of
    RowReads.staged.   buffer : uint8[any], the ranges.
    Tables of ListShortlist, RowFileLayout, RowReads, as `choose_reads` left them, and Answers.
    """
    shortlist = layout_of(shortlist_table, ListShortlist)
    layout = layout_of(layout_table, RowFileLayout)
    reads = layout_of(reads_table, RowReads)
    answers = layout_of(answers_table, Answers)
    row_bytes = layout.row_bytes
    limit = answers.keys.shape[1] - 1
    at = np.int64(0)
    for i in range(len(queries)):
        best = answers.keys[i]
        size = answers.counts[i]
        for _ in range(shortlist.sizes[i]):
            row = reads.rows[at]
            owner = reads.owners[at]
            at += 1
            source = reads.starts[owner] + layout.header_bytes + row * row_bytes - reads.offsets[owner]
            staged = reads.staged[0]
            for j in range(row_bytes):
                staged[j] = buffer[source + j]
            if crc32c_row(reads.staged, np.int64(0), row_bytes) != layout.crcs[row]:
                return row
            key = key_of(exact(staging, np.int64(0), queries[i], metric), row)
            if size < limit:
                insert(best, np.int64(size), key)
                size += 1
            elif key < best[limit - 1]:
                insert(best, np.int64(limit - 1), key)
        answers.counts[i] = size
    return -1


@kernel()
def score_rows(
    queries, metric, rows, row_count, sequence_signed, allow, vectors, crcs, verified, deleted, answers_table
):  # fmt: skip
    """Exact keys of visible rows (int64[m]) added to the answers, each row once. Returns the first row that does not
    match its checksum, or -1.

    queries : float32[n, dim].   metric : L2, COSINE or IP.   row_count, sequence_signed, allow : which rows count
    (visibility.py).   vectors : stored type[any, dim], mapped.   crcs uint32, verified uint8 bitmap, deleted uint64 :
    by row.
    """
    answers = layout_of(answers_table, Answers)
    sequence = np.uint64(sequence_signed)
    row_bytes = vectors.shape[1] * vectors.itemsize
    limit = np.int64(answers.keys.shape[1] - 1)
    for j in range(len(rows)):
        row = rows[j]
        if not is_visible(row, row_count, sequence, deleted, allow):
            continue
        if not is_sound(vectors, row, row_bytes, crcs, verified):
            return row
        for i in range(len(queries)):
            key = key_of(exact(vectors, row, queries[i], metric), row)
            answers.counts[i] = add_key(answers.keys[i], np.int64(answers.counts[i]), limit, key)
    return -1
