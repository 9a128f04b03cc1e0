"""Bodies of posting lists: filled, carried over to new ones, renumbered, sealed and checked.

A body of n entries of `width` code bytes, at any byte of `arena` that is a multiple of 4:

    codes width * n | rows u32 * n | factors 4 * n       factors: (add, rescale) float16, or |x'|^2 float32 if lossless

An extent is a body on disk: a header, which names its pages and its list's life (storage/disk/list_file.py draws it), the body,
and zeros to the page's end. A body's length is known before it is filled, and what was written is never moved.
"""

from __future__ import annotations

import numpy as np

from vecdb.kernels.compile import kernel, part
from vecdb.kernels.primitives.crc32c import crc32c_range


@kernel()
def place_entries(order, labels, rows, codes, factors, starts, fill, arena, arena32, width):
    """Copy encoded entries into list bodies. order : int64[m], entries in the order of their lists; starts :
    int64[lists] byte where each body starts; fill : int32[lists, 2], (entries of the body, entries already in it).

    labels : int32[m].   rows : int64[m].   codes : uint8[m, width].   factors : uint32[m], four bytes each.
    """
    for o in range(len(order)):
        i = order[o]
        label = labels[i]
        count = np.int64(fill[label, 0])
        at = np.int64(fill[label, 1])
        fill[label, 1] += 1
        body = starts[label]
        target = body + at * width
        code = codes[i]
        for j in range(width):
            arena[target + j] = code[j]
        rows_at = (body + count * width) >> 2
        arena32[rows_at + at] = np.uint32(rows[i])
        arena32[rows_at + count + at] = factors[i]


@kernel()
def count_live(lists, places, lengths, arena32, width, deleted, removed_signed, moved, live):
    """Entries of each list that stay: their row was not deleted at or before `removed`, nor is it marked in `moved`.

    lists : int64[m].   places, lengths : of all lists, bytes and entries.   moved : uint8[rows / 8] bitmap, may be
    empty.   live : int32[m], filled.
    """
    removed = np.uint64(removed_signed)
    for m in range(len(lists)):
        count = np.int64(lengths[lists[m]])
        first = (places[lists[m]] + count * width) >> 2
        kept = 0
        for j in range(count):
            kept += _stays(np.int64(arena32[first + j]), deleted, removed, moved)
        live[m] = kept


@part()
def _stays(row, deleted, removed, moved):
    if deleted[row] - np.uint64(1) < removed:
        return 0
    if len(moved) and (moved[row >> 3] >> np.uint8(row & 7)) & np.uint8(1):
        return 0
    return 1


@kernel()
def carry(
    sources, places, lengths, arena, arena32, width, deleted, removed_signed, moved, targets, starts, fill, out, out32
):  # fmt: skip
    """Copy the entries that stay (see `count_live`) of lists sources[m] to the front of new bodies targets[m].

    starts : int64[lists], byte of each new body in `out`.   fill : as in `place_entries`.
    """
    removed = np.uint64(removed_signed)
    for m in range(len(sources)):
        source = sources[m]
        target = targets[m]
        count = np.int64(lengths[source])
        codes_at = places[source]
        first = (codes_at + count * width) >> 2
        total = np.int64(fill[target, 0])
        body = starts[target]
        rows_at = (body + total * width) >> 2
        for j in range(count):
            row = np.int64(arena32[first + j])
            if not _stays(row, deleted, removed, moved):
                continue
            at = np.int64(fill[target, 1])
            fill[target, 1] += 1
            for k in range(width):
                out[body + at * width + k] = arena[codes_at + j * width + k]
            out32[rows_at + at] = np.uint32(row)
            out32[rows_at + total + at] = arena32[first + count + j]


@kernel()
def copy_ranges(sources, lengths, targets, arena, out):
    """Copy whole byte ranges: arena[sources[m] : sources[m] + lengths[m]] to out[targets[m] : ...]. All int64[m]."""
    for m in range(len(sources)):
        for k in range(lengths[m]):
            out[targets[m] + k] = arena[sources[m] + k]


@kernel()
def gather_rows(lists, places, lengths, arena32, width, deleted, removed_signed, rows, owners):
    """Rows of lists that are not deleted at or before `removed`: rows int64[any], owners int32[any] (place in `lists`).

    Returns how many.
    """
    removed = np.uint64(removed_signed)
    total = np.int64(0)
    for m in range(len(lists)):
        count = np.int64(lengths[lists[m]])
        first = (places[lists[m]] + count * width) >> 2
        for j in range(count):
            row = np.int64(arena32[first + j])
            if deleted[row] - np.uint64(1) < removed:
                continue
            rows[total] = row
            owners[total] = m
            total += 1
    return total


@kernel()
def renumber(places, lengths, width, mapping, arena32):
    """Put new row numbers into bodies, in place. mapping : int64[old rows]; every row of the bodies must be kept."""
    for m in range(len(places)):
        count = np.int64(lengths[m])
        first = (places[m] + count * width) >> 2
        for j in range(count):
            arena32[first + j] = np.uint32(mapping[np.int64(arena32[first + j])])


@kernel()
def seal_extents(starts, lengths, buffer):
    """Put the CRC-32C of each extent's bytes from byte 4 on into its first four. starts, lengths : int64[m], bytes."""
    for m in range(len(starts)):
        crc = crc32c_range(buffer, starts[m] + 4, lengths[m] - 4)
        for k in range(4):
            buffer[starts[m] + k] = np.uint8((crc >> np.uint32(8 * k)) & np.uint32(255))


@part()
def _is_misplaced(at, page, count, life, uid, entry_bytes, buffer64, buffer32):
    """Whether the header at a byte (a multiple of 8) is not that of such an extent (storage/disk/list_file.py draws it)."""
    wide = at >> 3
    if buffer64[wide + 1] != np.uint64(page) or buffer64[wide + 2] != np.uint64(uid):
        return True
    if buffer64[wide + 4] != np.uint64(life):
        return True
    return buffer32[2 * wide + 6] != np.uint32(count) or buffer32[2 * wide + 7] != np.uint32(entry_bytes)


@kernel()
def first_unsound(
    numbers, which, starts, sizes, got, firsts, counts, lives, uid, entry_bytes, buffer, buffer64, buffer32, verified
):  # fmt: skip
    """The first of `numbers` (int64[m]) whose extent is short, another one, or does not match its checksum; or -1.

    Extent i was read to byte starts[i], a multiple of 8: got[i] of sizes[i] bytes, for list which[i].
    firsts : int64[lists], first pages, counts : int32[lists], lives : uint64[lists], what headers must say.
    buffer64, buffer32 : the bytes of buffer as uint64, uint32.   verified : uint8[pages], set where an extent's
    checksum was compared, which is not done again; empty: all are compared.
    """
    for m in range(len(numbers)):
        i = numbers[m]
        at = starts[i]
        target = which[i]
        first = firsts[target]
        if got[i] != sizes[i] or _is_misplaced(
            at, first, counts[target], lives[target], uid, entry_bytes, buffer64, buffer32
        ):
            return i
        if len(verified) and verified[first]:
            continue
        crc = crc32c_range(buffer, at + 4, sizes[i] - 4)
        if crc != buffer32[at >> 2]:
            return i
        if len(verified):
            verified[first] = 1
    return -1
