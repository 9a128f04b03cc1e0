"""Bits over rows: bit row & 31 of word row >> 5, uint32. Kernels that search read the same bytes as uint64.

A filter's bits come from columns, which know nothing of deleted rows; a search takes bits of rows that it may return.
"""

from __future__ import annotations

import numpy as np

from vecdb.kernels.compile import inlined, kernel
from vecdb.kernels.primitives.bit_products import lowest_bit
from vecdb.kernels.primitives.visibility import is_deleted


@inlined()
def is_set(bits, row):
    """Whether the row's bit is set. bits : uint64[words], in which the row has a place."""
    return (bits[row >> 6] >> np.uint64(row & 63)) & np.uint64(1) != np.uint64(0)


@kernel()
def keep_visible(words, row_count, sequence_signed, deleted):
    """Clear the bits of rows that the snapshot (row_count, sequence) does not see. words : uint32[any], changed in
    place.   deleted : uint64[>= row_count].   Returns how many bits are left.
    """
    sequence = np.uint64(sequence_signed)
    count = 0
    for at in range(len(words)):
        left = kept = words[at]
        while left:
            lowest = lowest_bit(left)
            bit = np.uint32(1) << np.uint32(lowest)
            left ^= bit
            row = np.int64(32 * at) + lowest
            if row >= row_count or is_deleted(row, sequence, deleted):
                kept ^= bit
            else:
                count += 1
        words[at] = kept
    return count


@kernel()
def rows_of(words, rows):
    """The rows whose bits are set, ascending. words : uint32[any].   rows : uint32[as many].   Returns how many."""
    found = 0
    for at in range(len(words)):
        left = words[at]
        while left:
            lowest = lowest_bit(left)
            left ^= np.uint32(1) << np.uint32(lowest)
            rows[found] = np.uint32(np.int64(32 * at) + lowest)
            found += 1
    return found


@kernel()
def rows_in(words, rows, out):
    """Which of `rows` (uint32[n]) have their bit set, in order. words : uint32[any].   out : uint32[n].   Returns how
    many.
    """
    found = 0
    for at in range(len(rows)):
        row = np.int64(rows[at])
        word = row >> 5
        if word < len(words) and (words[word] >> np.uint32(row & 31)) & np.uint32(1):
            out[found] = rows[at]
            found += 1
    return found
