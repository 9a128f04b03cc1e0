"""Which rows a snapshot sees: the one rule, for kernels and for numpy.

    deleted  uint64[n], the sequence of the commit that deleted the row, 0 while the row lives
    visible  row < row_count  and  deleted[row] - 1 >= sequence          in uint64, where 0 - 1 is the largest number

A snapshot is (row_count, sequence). Subtracting 1 makes the test for "never deleted" and the test for "deleted later"
one comparison.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import int64, uint64
from numpy.typing import NDArray

from vecdb.kernels.compile import inlined

EVERY_ROW = np.int64(0x7FFFFFFF)  # a row_count that hides no row
EVERY_COMMIT = np.uint64(0xFFFFFFFFFFFFFFFF)  # a sequence at which every deletion has happened


class VisibleRows(NamedTuple):
    """A snapshot and a caller's bitmap, as kernels pass them on to `is_visible`."""

    row_count: int64
    sequence: uint64
    deleted: uint64[::1]
    allow: uint64[::1]


@inlined()
def is_deleted(row, sequence, deleted):
    """Whether the row was deleted at or before `sequence` (uint64)."""
    return deleted[row] - np.uint64(1) < sequence


@inlined()
def is_visible(row, row_count, sequence, deleted, allow):
    """Whether the snapshot (row_count, sequence) and the caller's bitmap (uint64 words, empty: all) hold the row."""
    if row >= row_count or is_deleted(row, sequence, deleted):
        return False
    if len(allow):
        return (allow[row >> 6] >> np.uint64(row & 63)) & np.uint64(1) != np.uint64(0)
    return True


def deleted_by(deleted: NDArray[np.uint64], sequence: int) -> NDArray[np.bool_]:
    """Which rows were deleted at or before `sequence`: `is_deleted` for a whole array."""
    gone: NDArray[np.bool_] = deleted - np.uint64(1) < np.uint64(sequence)
    return gone


def visible(deleted: NDArray[np.uint64], sequence: int) -> NDArray[np.bool_]:
    """Which rows a snapshot at `sequence` sees. deleted : uint64[row_count], cut to the rows of the snapshot."""
    return ~deleted_by(deleted, sequence)
