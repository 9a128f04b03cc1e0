"""Queries over posting lists: codes of the probed lists into a shortlist of rows by estimated distance.

    probe    query -> lists, and the query as their codes take it           list_probe.py
    scan     codes of the lists (list_bodies.py draws one) -> a shortlist
    rerank   vectors of the shortlist -> the nearest rows                    list_rerank.py

Lists that are not in memory are chosen here and read by the caller, who then scans the buffer that they are in.
Estimates are floats on the metric's own scale, as list_probe.py says, kept as `topk.key_of` keys.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numba import float32, int32, int64, uint32

from vecdb.kernels.array_table import layout_of, reinterpret
from vecdb.kernels.compile import FAST, kernel, part
from vecdb.kernels.primitives.dot_products import dot_packed
from vecdb.kernels.primitives.float_bits import bits_float, widen
from vecdb.kernels.primitives.prefetch import prefetch_at
from vecdb.kernels.primitives.topk import ROW_OF_KEY, distance_of, insert, key_of
from vecdb.kernels.primitives.visibility import is_visible
from vecdb.kernels.search.list_probe import ListWork, ProbedQueries
from vecdb.kernels.search.row_bits import is_set

_FAR = np.float32(np.inf)
_TO_READ, _NOT_READ = -2, -1  # of a list in `buffer_offsets`, beside the byte where its body is
_LINE_BYTES = 64  # of the processor's cache
_ROW_BYTES = 4  # of a row number in a body, and of an entry's factors
CHUNK_BYTES = 16  # of a code that one step of an unrolled dot product takes


class ListArrays(NamedTuple):
    """The lists of one view.

    lengths : int32[lists], entries.   extent_pages : int64[lists], first page in the list file, or -1.
    probe_counts : uint32[lists], how often each was probed; the one array here that searches write.
    in_several : whether a row may be in more than one list.   entry_bytes : of an entry.
    header_bytes, page_bytes : of an extent in the list file (storage/disk/list_file.py).
    """

    lengths: int32[::1]
    extent_pages: int64[::1]
    probe_counts: uint32[::1]
    in_several: int64
    entry_bytes: int64
    header_bytes: int64
    page_bytes: int64


class EntryScale(NamedTuple):
    """What makes estimates of the codes and factors of entries (kernels/codes/rabitq.py).

    code_bytes : of one code.   lossless : codes are the rows, factors |x'|^2.
    middle : 2^bits - 1, twice the middle of a code's steps.   weight : 1, or 0.5 where estimates are inner products.
    add_unit, rescale_unit : a stored factor times this is the factor; add_unit is 0 for inner products.
    """

    code_bytes: int64
    lossless: int64
    middle: int64
    weight: float32
    add_unit: float32
    rescale_unit: float32


class ListShortlist(NamedTuple):
    """The nearest rows of each query so far, by estimate.

    keys : int64[n, most + 1], sorted; the last place is room for an insertion.   sizes : int32[n].
    errors : float32[n, most + 1], |rescale| |q - c| of each, |rescale| under ip: what its error is proportional to.
    dots int32, estimates float32[longest list] : scratch of one list.
    matches : int64[n], entries of the scanned lists that the caller's bitmap holds, added to; only where there is one.
    """

    keys: int64[:, ::1]
    errors: float32[:, ::1]
    sizes: int32[::1]
    dots: int32[::1]
    estimates: float32[::1]
    matches: int64[::1]


class ExtentReads(NamedTuple):
    """Extents to read. lists, offsets, sizes, starts : int64[any], the list, its bytes in the list file, and where in a
    buffer they go.
    """

    lists: int64[::1]
    offsets: int64[::1]
    sizes: int64[::1]
    starts: int64[::1]


@part()
def _add(keys, errors, size, most, key, error, once, surest):
    """Insert key into sorted keys[:size], of which `most` are kept, and error at the same place. Returns the new size.

    once : unless an estimate of the same row is there that is nearer, or under `surest` has the smaller error. Under l2
    the nearer one is rarely wrong, since its list is near; under ip lists are no measure, and a lucky error would win.
    """
    if once:
        row = key & ROW_OF_KEY
        for j in range(size):
            if keys[j] & ROW_OF_KEY == row:
                if (errors[j] <= error) if surest else (keys[j] <= key):
                    return size
                for k in range(j, size - 1):
                    keys[k] = keys[k + 1]
                    errors[k] = errors[k + 1]
                size -= 1
                break
    if size == most:
        size -= 1
    at = insert(keys, np.int64(size), key)
    for k in range(size, at, -1):
        errors[k] = errors[k - 1]
    errors[at] = error
    return size + 1


@part(fastmath=FAST)
def estimate(arena, factors_at, count, dots, scale, step, total, unit, near, out):
    """Estimates of the `count` entries of one list, in `out`, from their dot products.

    factors_at : byte of the first factor in the arena (uint8).   scale : EntryScale.
    step, total, unit : of the query (ProbedQueries: steps, sums, units).   near : float32, of the query and the list.
    """
    if scale.lossless:
        words = reinterpret(arena, np.uint32)
        first = np.uint64(factors_at >> 2)
        shift = np.int32(128) * total
        for j in range(count):
            square = bits_float(np.int32(words[first + np.uint64(j)]))
            out[j] = square + step - unit * np.float32(2 * (dots[j] - shift))
        return
    halves = reinterpret(arena, np.uint16)
    first = np.uint64(factors_at >> 1)
    turn = np.float32(0.5) * step * scale.weight * scale.rescale_unit
    shift = np.int32(scale.middle) * total
    for j in range(count):
        add = widen(halves[first + np.uint64(2 * j)])
        rescale = widen(halves[first + np.uint64(2 * j + 1)])
        out[j] = near + add * scale.add_unit + rescale * turn * np.float32(2 * dots[j] - shift)


@kernel()
def scan(
    body_offsets, arena, lists_table, scale_table, probed_table, shortlist_table, row_count, sequence_signed, deleted,
    allow, work, bits, chunks,
):  # fmt: skip
    """Scan the probed lists whose bodies are in `arena` into the shortlists, which are added to.

    body_offsets : int64[lists], the byte in `arena` where each body starts, a multiple of 4; negative: not there.
    arena : uint8[any].   Tables of ListArrays, EntryScale, ProbedQueries and ListShortlist (filled).
    row_count, sequence_signed, allow : which rows count (visibility.py).   deleted : uint64[rows].
    work : int64[ListWork], added to.   bits : a tuple as long as a code has bits a dimension.
    chunks : a tuple as long as a code has 16 bytes, a compile-time constant that unrolls the dot product; empty: the
    width is read from the scale.
    """
    lists = layout_of(lists_table, ListArrays)
    scale = layout_of(scale_table, EntryScale)
    probed = layout_of(probed_table, ProbedQueries)
    shortlist = layout_of(shortlist_table, ListShortlist)
    dots = shortlist.dots
    estimates = shortlist.estimates
    words = reinterpret(arena, np.uint32)
    halves = reinterpret(arena, np.uint16)
    sequence = np.uint64(sequence_signed)
    most = shortlist.keys.shape[1] - 1
    width = np.int64(CHUNK_BYTES * len(chunks)) if len(chunks) else scale.code_bytes
    ip = scale.weight < np.float32(1.0)
    for i in range(len(probed.counts)):
        keys = shortlist.keys[i]
        size = np.int64(shortlist.sizes[i])
        query8 = probed.query8s[i]
        worst = distance_of(keys[size - 1]) if size == most else _FAR
        for p in range(probed.counts[i]):
            body = body_offsets[probed.lists[i, p]]
            if body < 0:
                continue
            count = np.int64(lists.lengths[probed.lists[i, p]])
            following = body_offsets[probed.lists[i, p + 1]] if p + 1 < probed.counts[i] else np.int64(-1)
            ahead = following if following >= 0 else body
            for j in range(count):
                # one line of the next list for each entry of this one: all at once would wait for one another
                prefetch_at(arena, ahead + j * _LINE_BYTES)
                dots[j] = dot_packed(arena, body + j * width, width, query8, bits)
            rows_at = body + count * width
            factors_at = rows_at + _ROW_BYTES * count
            near = probed.nears[i, p]
            estimate(
                arena, factors_at, count, dots, scale, probed.steps[i], probed.sums[i], probed.units[i], near, estimates
            )  # fmt: skip
            work[ListWork.ENTRIES] += count
            first = np.uint64(rows_at >> 2)
            if len(allow):
                for j in range(count):
                    row = np.int64(words[first + np.uint64(j)])
                    if row < row_count:  # lists may hold rows that were added since, for which there is no bit
                        shortlist.matches[i] += is_set(allow, row)
            for j in range(count):
                if estimates[j] > worst:
                    continue
                row = np.int64(words[first + np.uint64(j)])
                key = key_of(estimates[j], row)
                if size == most and key >= keys[size - 1]:
                    continue
                if not is_visible(row, row_count, sequence, deleted, allow):
                    continue
                error = np.float32(0.0)
                if not scale.lossless:
                    at = np.uint64(factors_at >> 1) + np.uint64(2 * j + 1)
                    error = abs(widen(halves[at])) * scale.rescale_unit
                    if not ip:
                        error *= np.float32(math.sqrt(near))
                size = _add(keys, shortlist.errors[i], size, np.int64(most), key, error, lists.in_several, ip)
                if size == most:
                    worst = distance_of(keys[size - 1])
        shortlist.sizes[i] = size


@kernel()
def choose_lists(body_offsets, buffer_offsets, lists_table, probed_table, extents_table):
    """Choose the extents to read: those of probed lists that are not in memory, each once. Counts each probe.

    body_offsets : int64[lists], negative where a body is not in memory.
    buffer_offsets : int64[lists], -1; filled with -2 where a list is chosen.
    Tables of ListArrays, ProbedQueries and ExtentReads (filled; extents lie one after another in the buffer).
    Returns (lists, bytes of the buffer, whether any probed list is in memory). A count of probes that is lost to
    another thread is no harm.
    """
    lists = layout_of(lists_table, ListArrays)
    probed = layout_of(probed_table, ProbedQueries)
    extents = layout_of(extents_table, ExtentReads)
    page = lists.page_bytes
    total = np.int64(0)
    end = np.int64(0)
    resident = False
    for i in range(len(probed.counts)):
        for p in range(probed.counts[i]):
            at = probed.lists[i, p]
            lists.probe_counts[at] += np.uint32(1)
            if body_offsets[at] >= 0:
                resident = True
            elif buffer_offsets[at] == _NOT_READ:
                buffer_offsets[at] = _TO_READ
                size = lists.header_bytes + np.int64(lists.lengths[at]) * lists.entry_bytes
                extents.lists[total] = at
                extents.offsets[total] = lists.extent_pages[at] * page
                extents.sizes[total] = (size + page - 1) // page * page
                extents.starts[total] = end
                end += extents.sizes[total]
                total += 1
    return total, end, resident
