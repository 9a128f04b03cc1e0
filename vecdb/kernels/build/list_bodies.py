"""Bodies of posting lists: filled, copied to new ones, renumbered, sealed and checked.

A body of n entries of `width` code bytes, at any byte of an arena (uint8[any]) that is a multiple of 4:

    codes width * n | rows u32 * n | factors 4 * n       factors: (add, rescale) float16, or |x'|^2 float32 if lossless

An extent is a body on disk: a header, which names its pages and the writer (storage/disk/list_file.py draws it), the
body, and zeros to the page's end. A body's length is known before it is filled, and what was written is never moved.
"""

from __future__ import annotations

import numpy as np

from vecdb.kernels.array_table import reinterpret
from vecdb.kernels.compile import kernel, part
from vecdb.kernels.primitives.crc32c import crc32c_range
from vecdb.kernels.primitives.visibility import is_deleted


@kernel()
def place_entries(order, labels, rows, codes, factors, starts, fill, arena, width):
    """Copy encoded entries into list bodies.

    order : int64[m], entries in the order of their lists.   labels : int32[m].   rows : int64[m].
    codes : uint8[m, width].   factors : uint32[m], four bytes each.   starts : int64[lists], byte where each body
    starts.   fill : int32[lists, 2], (entries of the body, entries already in it); the second is added to.
    """
    words = reinterpret(arena, np.uint32)
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
        words[rows_at + at] = np.uint32(rows[i])
        words[rows_at + count + at] = factors[i]


@part()
def _stays(row, deleted, removed, moved):
    """Whether an entry stays: its row was not deleted at or before `removed`, and is not marked in `moved` (a bitmap,
    or empty).
    """
    if is_deleted(row, removed, deleted):
        return False
    return not (len(moved) and (moved[row >> 3] >> np.uint8(row & 7)) & np.uint8(1))


@kernel()
def count_live(lists, body_offsets, lengths, arena, width, deleted, removed_signed, moved, live):
    """Entries of each list that stay: their row was not deleted at or before `removed`, nor is it marked in `moved`.

    lists : int64[m].   body_offsets int64, lengths int32 : of all lists, bytes and entries.   deleted : uint64[rows].
    moved : uint8[rows / 8] bitmap, may be empty.   live : int32[m], filled.
    """
    removed = np.uint64(removed_signed)
    words = reinterpret(arena, np.uint32)
    for m in range(len(lists)):
        count = np.int64(lengths[lists[m]])
        first = (body_offsets[lists[m]] + count * width) >> 2
        kept = 0
        for j in range(count):
            kept += _stays(np.int64(words[first + j]), deleted, removed, moved)
        live[m] = kept


@kernel()
def copy_live_entries(
    sources, body_offsets, lengths, arena, width, deleted, removed_signed, moved, targets, starts, fill, out
):  # fmt: skip
    """Copy the entries that stay (see `count_live`) of lists sources[m] to the front of new bodies targets[m].

    sources, targets : int64[m].   starts : int64[lists], byte of each new body in `out`, an arena too.
    fill : as in `place_entries`.
    """
    removed = np.uint64(removed_signed)
    words = reinterpret(arena, np.uint32)
    out_words = reinterpret(out, np.uint32)
    for m in range(len(sources)):
        source = sources[m]
        target = targets[m]
        count = np.int64(lengths[source])
        codes_at = body_offsets[source]
        first = (codes_at + count * width) >> 2
        total = np.int64(fill[target, 0])
        body = starts[target]
        rows_at = (body + total * width) >> 2
        for j in range(count):
            row = np.int64(words[first + j])
            if not _stays(row, deleted, removed, moved):
                continue
            at = np.int64(fill[target, 1])
            fill[target, 1] += 1
            for k in range(width):
                out[body + at * width + k] = arena[codes_at + j * width + k]
            out_words[rows_at + at] = np.uint32(row)
            out_words[rows_at + total + at] = words[first + count + j]


@kernel()
def copy_ranges(sources, lengths, targets, arena, out):
    """Copy whole byte ranges: arena[sources[m] : sources[m] + lengths[m]] to out[targets[m] : ...]. All int64[m]."""
    for m in range(len(sources)):
        for k in range(lengths[m]):
            out[targets[m] + k] = arena[sources[m] + k]


@kernel()
def gather_rows(lists, body_offsets, lengths, arena, width, deleted, removed_signed, rows, owners):
    """Rows of `lists` (int64[m]) that are not deleted at or before `removed`. Returns how many.

    rows : int64[any], owners : int32[any], filled with rows and the position in `lists` of the list each is in.
    """
    removed = np.uint64(removed_signed)
    words = reinterpret(arena, np.uint32)
    total = np.int64(0)
    for m in range(len(lists)):
        count = np.int64(lengths[lists[m]])
        first = (body_offsets[lists[m]] + count * width) >> 2
        for j in range(count):
            row = np.int64(words[first + j])
            if is_deleted(row, removed, deleted):
                continue
            rows[total] = row
            owners[total] = m
            total += 1
    return total


@kernel()
def renumber(body_offsets, lengths, width, mapping, arena):
    """Put new row numbers into bodies, in place. mapping : int64[old rows]; every row of the bodies must be kept."""
    words = reinterpret(arena, np.uint32)
    for m in range(len(body_offsets)):
        count = np.int64(lengths[m])
        first = (body_offsets[m] + count * width) >> 2
        for j in range(count):
            words[first + j] = np.uint32(mapping[np.int64(words[first + j])])


@kernel()
def seal_extents(starts, sizes, buffer):
    """Put the CRC-32C of each extent's bytes from byte 4 on into its first four. starts, sizes : int64[m], bytes."""
    for m in range(len(starts)):
        crc = crc32c_range(buffer, starts[m] + 4, sizes[m] - 4)
        for k in range(4):
            buffer[starts[m] + k] = np.uint8((crc >> np.uint32(8 * k)) & np.uint32(255))


@part()
def _is_misplaced(at, page, count, writer, uid, entry_bytes, buffer):
    """Whether the header at a byte (a multiple of 8) is not that of such an extent (storage/disk/list_file.py draws
    it).
    """
    longs = reinterpret(buffer, np.uint64)
    words = reinterpret(buffer, np.uint32)
    wide = at >> 3
    if longs[wide + 1] != np.uint64(page) or longs[wide + 2] != np.uint64(uid) or longs[wide + 4] != np.uint64(writer):
        return True
    return words[2 * wide + 6] != np.uint32(count) or words[2 * wide + 7] != np.uint32(entry_bytes)


@kernel()
def first_bad_extent(
    numbers, lists, starts, sizes, got, extent_pages, lengths, writer_ids, uid, entry_bytes, buffer, verified
):  # fmt: skip
    """The first of `numbers` (int64[m]) whose extent is short, another one, or does not match its checksum; or -1.

    Extent i, of list lists[i], was read to byte starts[i], a multiple of 8: got[i] of sizes[i] bytes. All int64.
    extent_pages int64, lengths int32, writer_ids uint64 : of all lists, what headers must say, as uid and entry_bytes.
    buffer : uint8[any].   verified : uint8[pages], set where an extent's checksum was compared, which is not done
    again; empty: all are compared.
    """
    words = reinterpret(buffer, np.uint32)
    for m in range(len(numbers)):
        i = numbers[m]
        at = starts[i]
        target = lists[i]
        page = extent_pages[target]
        if got[i] != sizes[i] or _is_misplaced(
            at, page, lengths[target], writer_ids[target], uid, entry_bytes, buffer
        ):  # fmt: skip
            return i
        if len(verified) and verified[page]:
            continue
        if crc32c_range(buffer, at + 4, sizes[i] - 4) != words[at >> 2]:
            return i
        if len(verified):
            verified[page] = 1
    return -1
