"""Queries over posting lists: which lists, which rows of them, which of those are nearest.

    probe    query -> the nearest heads (two levels of 8-bit codes, scanned), and the query as the lists' codes take it
    scan     codes of the probed lists (list_bodies.py draws one) -> a shortlist of rows by estimated distance
    rerank   vectors of the shortlist, as read from disk -> the nearest rows

Estimates are floats on the metric's own scale (squared l2 of unit vectors under cosine), kept as `search.key_of` keys.
"""

from __future__ import annotations

import math

import numpy as np

from vecdb.kernels.codes.rabitq import encode_query, unit_factor
from vecdb.kernels.codes.sq8 import encode_query as encode_for_heads
from vecdb.kernels.compile import FAST, kernel, part
from vecdb.kernels.primitives.checksums import is_sound
from vecdb.kernels.primitives.crc32c import crc32c_row
from vecdb.kernels.primitives.distance import exact
from vecdb.kernels.primitives.dot_products import dot_packed
from vecdb.kernels.primitives.float_bits import bits_float, widen
from vecdb.kernels.primitives.prefetch import prefetch_at
from vecdb.kernels.primitives.topk import add_key, distance_of, insert, key_of, sort_keys
from vecdb.kernels.primitives.visibility import is_visible
from vecdb.kernels.search.beam_search import code_distance

_FAR = np.float32(np.inf)
_NEAREST = 8  # heads whose mean distance says what is near


@part()
def select_smallest(keys, size, wanted):
    """Move the `wanted` smallest of keys[:size] to the front, in no order (quickselect, median of three)."""
    low = np.int64(0)
    high = np.int64(size) - 1
    target = np.int64(wanted) - 1
    while low < high:
        a, b, c = keys[low], keys[(low + high) >> 1], keys[high]
        pivot = max(min(a, b), min(max(a, b), c))
        i = low
        j = high
        while i <= j:
            while keys[i] < pivot:
                i += 1
            while keys[j] > pivot:
                j -= 1
            if i <= j:
                held = keys[i]
                keys[i] = keys[j]
                keys[j] = held
                i += 1
                j -= 1
        if target <= j:
            high = j
        elif target >= i:
            low = i
        else:
            return


@part()
def nearest_heads(
    query8, query16, probe, codes, bias, group_codes, group_bias, group_ends, wanted, reach, group_keys, keys, blocks
):  # fmt: skip
    """Keys (distance << 32 | head) of up to `wanted` near heads at the front of `keys`, the nearest 16 first.

    codes : uint8[heads, 64 * blocks], the heads of one group adjacent; group_ends : int32[groups].
    Groups are opened nearest first until they hold `reach` heads.   keys : int64[>= reach + largest group].
    Returns (keys kept, heads and groups compared).
    """
    groups = len(group_ends)
    for g in range(groups):
        d = code_distance(group_codes, group_bias, g, query8, query16, probe, blocks)
        group_keys[g] = (np.int64(d) << 32) | np.int64(g)
    size = np.int64(0)
    opened = np.int64(0)
    while opened < groups and size < reach:
        least = opened
        for g in range(opened + 1, groups):
            if group_keys[g] < group_keys[least]:
                least = g
        key = group_keys[least]
        group_keys[least] = group_keys[opened]
        opened += 1
        g = key & np.int64(0xFFFFFFFF)
        first = np.int64(group_ends[g - 1]) if g > 0 else np.int64(0)
        for head in range(first, np.int64(group_ends[g])):
            d = code_distance(codes, bias, head, query8, query16, probe, blocks)
            keys[size] = (np.int64(d) << 32) | np.int64(head)
            size += 1
    kept = min(size, np.int64(wanted))
    if size > kept:
        select_smallest(keys, size, kept)
    if kept > 16:
        select_smallest(keys, kept, np.int64(16))
    sort_keys(keys, min(kept, np.int64(16)))
    return kept, size + groups


@kernel(fastmath=FAST)
def probe(
    queries, cosine, ip, lossless, wanted, reach, ratio,
    codes, bias, group_codes, group_bias, group_ends, mean, scale, center, signs,
    probes, nears, counts, query8s, steps, sums, units, norms, unit, rotated, group_keys, keys, head8, head16, work,
    blocks,
):  # fmt: skip
    """Choose lists for queries (float32[nq, dim]) and quantise them.

    bias, group_bias : int32[heads], int32[groups].   ratio : heads farther than this many times the mean of the nearest
    eight are left out (squared l2; inf keeps all).
    probes : int32[nq, wanted], filled with heads, nearest 16 first.   nears : float32[nq, wanted], |q - c|^2 or -<c,
    q>.
    counts : int32[nq].   query8s : int8[nq, D], steps : float32[nq], sums : int32[nq], as `rabitq.encode_query` (under
    lossless: (q - 128) / unit, and |q - 128|^2 as step).   units : float32[nq], filled under lossless.
    norms : float32[nq], |q|.   unit, rotated, group_keys, keys, head8, head16 : scratch.
    """
    dim = queries.shape[1]
    nothing = bias[:0]
    for i in range(len(queries)):
        factor = unit_factor(queries[i], dim, cosine)
        square = np.float32(0.0)
        for j in range(dim):
            unit[j] = queries[i, j] * factor
            square += unit[j] * unit[j]
        norms[i] = math.sqrt(square)
        near = encode_for_heads(unit, mean, scale, np.int64(0), not ip, head8, head16)
        if ip:
            count, seen = nearest_heads(
                head8, head16, near, codes, nothing, group_codes, nothing, group_ends, wanted, reach, group_keys, keys,
                blocks,
            )  # fmt: skip
        else:
            count, seen = nearest_heads(
                head8, head16, near, codes, bias, group_codes, group_bias, group_ends, wanted, reach, group_keys, keys,
                blocks,
            )  # fmt: skip
        work[0] += seen
        kept = 0
        coded_bound = _FAR
        nearest = np.float32(0.0)
        coded = np.int64(0)
        for j in range(count):
            if not ip and np.float32(keys[j] >> 32) > coded_bound:
                continue  # by the query's code it is too far, which saves the exact distance
            head = keys[j] & np.int64(0xFFFFFFFF)
            code = codes[head]
            total = np.float32(0.0)
            if ip:
                for k in range(dim):
                    total -= (mean[k] + scale * (np.float32(code[k]) - np.float32(128.0))) * unit[k]
            else:
                for k in range(dim):
                    x = mean[k] + scale * (np.float32(code[k]) - np.float32(128.0)) - unit[k]
                    total += x * x
                if j < _NEAREST:
                    nearest += total
                    coded += keys[j] >> 32
                    if j + 1 == _NEAREST:
                        room = (ratio - np.float32(1.0)) * nearest / (scale * scale)
                        coded_bound = (np.float32(coded) + room) / np.float32(_NEAREST)
            probes[i, kept] = head
            nears[i, kept] = total
            kept += 1
        counts[i] = kept
        work[2] += kept
        if lossless:
            inside = np.float32(0.0)
            total8 = np.int32(0)
            top = np.float32(1.0)  # a query beyond the range of the rows is scaled down until it fits
            for j in range(dim):
                q = unit[j] - mean[j]
                inside += q * q
                top = max(top, max(-q / np.float32(128.0), q / np.float32(127.0)))
            for j in range(dim):
                q8 = np.int32(math.floor((unit[j] - mean[j]) / top + np.float32(0.5)))
                q8 = min(max(q8, np.int32(-128)), np.int32(127))
                query8s[i, j] = q8
                total8 += q8
            steps[i] = inside
            sums[i] = total8
            units[i] = top
        else:
            steps[i], sums[i] = encode_query(unit, center, signs, rotated, query8s[i])


@part()
def _add(keys, errors, size, most, key, error, once, surest):
    """Insert key into sorted keys[:size], of which `most` are kept, and error at the same place. Returns the new size.

    once : unless an estimate of the same row is there that is nearer, or under `surest` has the smaller error. Under l2
    the nearer one is rarely wrong, since its list is near; under ip lists are no measure, and a lucky error would win.
    """
    if once:
        row = key & np.int64(0xFFFFFFFF)
        for j in range(size):
            if keys[j] & np.int64(0xFFFFFFFF) == row:
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
def estimate(
    arena16, arena32, at, count, dots, sums, step, unit, near, lossless, weight, middle, add_unit, rescale_unit, out
):
    """Estimates of one list's entries from their dot products. `at` : byte of the first factor in the arena."""
    if lossless:
        first = np.uint64(at >> 2)
        shift = np.int32(128) * sums
        for j in range(count):
            square = bits_float(np.int32(arena32[first + np.uint64(j)]))
            out[j] = square + step - unit * np.float32(2 * (dots[j] - shift))
        return
    first = np.uint64(at >> 1)
    turn = np.float32(0.5) * step * weight * rescale_unit
    shift = middle * sums
    for j in range(count):
        add = widen(arena16[first + np.uint64(2 * j)])
        rescale = widen(arena16[first + np.uint64(2 * j + 1)])
        out[j] = near + add * add_unit + rescale * turn * np.float32(2 * dots[j] - shift)


@kernel()
def scan(
    probes, nears, counts, places, lengths, arena, arena16, arena32, width, lossless, weight, add_unit, rescale_unit,
    query8s, steps, sums, units, once, row_count, sequence_signed, deleted, allow, shortlist, errors, sizes,
    dots, estimates, work, bits, chunks,
):  # fmt: skip
    """Scan probed lists into the shortlists.

    places : int64[lists], the byte in `arena` where each body starts, negative: not now.   lengths : int32[lists],
    entries.   arena16, arena32 : the same bytes as uint16 and uint32.
    weight : 1, or 0.5 under ip.   once : whether a row may be in several lists.
    shortlist : int64[nq, most + 1], sorted keys, sizes : int32[nq]; both are added to.
    errors : float32[nq, most + 1], |rescale| |q - c| of each, |rescale| under ip: what its error is proportional to.
    dots, estimates : int32, float32[>= longest list], scratch.   work[1] += entries scanned.
    chunks : a tuple whose length is width / 16, a compile-time constant that unrolls the dot product; empty: width is
    as good.
    """
    sequence = np.uint64(sequence_signed)
    most = shortlist.shape[1] - 1
    if len(chunks):
        width = np.int64(16 * len(chunks))
    middle = np.int32((1 << len(bits)) - 1)
    ip = weight < np.float32(1.0)
    for i in range(len(probes)):
        keys = shortlist[i]
        size = np.int64(sizes[i])
        query8 = query8s[i]
        worst = distance_of(keys[size - 1]) if size == most else _FAR
        for p in range(counts[i]):
            place = places[probes[i, p]]
            if place < 0:
                continue
            count = np.int64(lengths[probes[i, p]])
            following = places[probes[i, p + 1]] if p + 1 < counts[i] else np.int64(-1)
            ahead = following if following >= 0 else place
            for j in range(count):
                # one line of the next list for each entry of this one: all at once would wait for one another
                prefetch_at(arena, ahead + j * 64)
                dots[j] = dot_packed(arena, place + j * width, width, query8, bits)
            rows_at = place + count * width
            estimate(
                arena16, arena32, rows_at + 4 * count, count, dots, sums[i], steps[i], units[i], nears[i, p], lossless,
                weight, middle, add_unit, rescale_unit, estimates,
            )  # fmt: skip
            work[1] += count
            first = np.uint64(rows_at >> 2)
            for j in range(count):
                if estimates[j] > worst:
                    continue
                row = np.int64(arena32[first + np.uint64(j)])
                key = key_of(estimates[j], row)
                if size == most and key >= keys[size - 1]:
                    continue
                if not is_visible(row, row_count, sequence, deleted, allow):
                    continue
                error = np.float32(0.0)
                if not lossless:
                    at = np.uint64((rows_at + 4 * count) >> 1) + np.uint64(2 * j + 1)
                    error = abs(widen(arena16[at])) * rescale_unit
                    if not ip:
                        error *= np.float32(math.sqrt(nears[i, p]))
                size = _add(keys, errors[i], size, np.int64(most), key, error, once, ip)
                if size == most:
                    worst = distance_of(keys[size - 1])
        sizes[i] = size


@kernel()
def choose_lists(
    probes, counts, places, lengths, extents, entry_bytes, head_bytes, page, heat, there, which, offsets, sizes, starts
):  # fmt: skip
    """Choose the extents to read: those of probed lists that are not in memory, each once.

    places : int64[lists], negative where a body is not in memory.   lengths : int32[lists].   extents : int64[lists],
    first pages.   heat : uint32[lists], one is added for each probe; a count lost to another thread is no harm.
    there : int64[lists], -1; filled with -2 where a list is chosen.
    which, offsets, sizes, starts : int64[any], lists, bytes of the list file, and where in a buffer they go.
    Returns (lists, bytes of the buffer, whether any probed list is in memory).
    """
    total = np.int64(0)
    end = np.int64(0)
    resident = False
    for i in range(len(probes)):
        for p in range(counts[i]):
            at = probes[i, p]
            heat[at] += np.uint32(1)
            if places[at] >= 0:
                resident = True
            elif there[at] == -1:
                there[at] = -2
                which[total] = at
                offsets[total] = extents[at] * page
                sizes[total] = (head_bytes + np.int64(lengths[at]) * entry_bytes + page - 1) // page * page
                starts[total] = end
                end += sizes[total]
                total += 1
    return total, end, resident


@kernel()
def choose_reads(
    shortlist, errors, sizes, limit, least, slack, norms, ip, header, row_bytes, align, rows, owners, offsets,
    lengths, places,
):  # fmt: skip
    """Cut the shortlists to what may be among the nearest, and choose the aligned byte ranges that hold those rows.

    A row stays while its estimate is within the slack of the limit-th, and the first `least` in any case.
    slack : what an estimate may be off, times the mean of errors[:limit] (see `scan`), or under ip times norms
    (float32[nq]).
    sizes : int32[nq], cut.   rows, owners : int64[total], rows to read and the range that holds each.
    offsets, lengths, places : int64[total], ranges of the row file and where in a buffer they go, one after another.
    Returns (rows, ranges, bytes of the buffer).
    """
    total = np.int64(0)
    ranges = np.int64(0)
    end = np.int64(0)
    for i in range(len(shortlist)):
        size = np.int64(sizes[i])
        if size > least:
            last = distance_of(shortlist[i, limit - 1])
            error = np.float32(0.0)
            for j in range(limit):
                error += errors[i, j]
            bound = last + slack * (norms[i] if ip else error / np.float32(limit))
            while size > least and distance_of(shortlist[i, size - 1]) > bound:
                size -= 1
            sizes[i] = size
        own = ranges
        for j in range(size):
            row = shortlist[i, j] & np.int64(0xFFFFFFFF)
            first = header + row * row_bytes
            start = first // align * align
            stop = -(-(first + row_bytes) // align) * align
            owner = np.int64(-1)
            for k in range(ranges - 1, own - 1, -1):
                if offsets[k] == start and lengths[k] == stop - start:
                    owner = k
                    break
            if owner < 0:
                owner = ranges
                offsets[owner] = start
                lengths[owner] = stop - start
                places[owner] = end
                end += stop - start
                ranges += 1
            rows[total] = row
            owners[total] = owner
            total += 1
    return total, ranges, end


@kernel()
def rerank(
    queries, metric, sizes, rows, owners, offsets, places, header, buffer, staging, staging_bytes, crcs,
    keys, counts,
):  # fmt: skip
    """Exact keys of the rows that were read, the nearest first.

    sizes : int32[nq], rows of each query in `rows`, `owners` (int64[total]).   offsets : int64[ranges] in the row file,
    places : int64[ranges] in `buffer` (uint8).   staging : stored type[1, dim], staging_bytes the same bytes.
    keys : int64[nq, limit + 1], counts : int64[nq]; the nearest are added.   Returns the first row that does not match
    its checksum, or -1.
    """
    row_bytes = staging_bytes.shape[1]
    limit = keys.shape[1] - 1
    at = np.int64(0)
    for i in range(len(queries)):
        best = keys[i]
        size = counts[i]
        for _ in range(sizes[i]):
            row = rows[at]
            owner = owners[at]
            at += 1
            source = places[owner] + header + row * row_bytes - offsets[owner]
            staged = staging_bytes[0]
            for j in range(row_bytes):
                staged[j] = buffer[source + j]
            if crc32c_row(staging_bytes, np.int64(0), row_bytes) != crcs[row]:
                return row
            key = key_of(exact(staging, np.int64(0), queries[i], metric), row)
            if size < limit:
                insert(best, np.int64(size), key)
                size += 1
            elif key < best[limit - 1]:
                insert(best, np.int64(limit - 1), key)
        counts[i] = size
    return -1


@kernel()
def score_rows(
    queries, rows, row_count, sequence_signed, allow, metric, vectors, crcs, verified, deleted, keys, counts
):  # fmt: skip
    """Exact keys of visible rows (int64[m]) added to those that are there, each row once.

    vectors : stored type[n, dim], mapped.   keys : int64[nq, limit + 1], sorted, counts : int64[nq].
    Returns the first row that does not match its checksum, or -1.
    """
    sequence = np.uint64(sequence_signed)
    row_bytes = vectors.shape[1] * vectors.itemsize
    limit = np.int64(keys.shape[1] - 1)
    for j in range(len(rows)):
        row = rows[j]
        if not is_visible(row, row_count, sequence, deleted, allow):
            continue
        if not is_sound(vectors, row, row_bytes, crcs, verified):
            return row
        for i in range(len(queries)):
            key = key_of(exact(vectors, row, queries[i], metric), row)
            counts[i] = add_key(keys[i], np.int64(counts[i]), limit, key)
    return -1
