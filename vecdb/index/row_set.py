"""Rows that a search may return, as a sorted list and as a bitmap, and what stands for "all rows" in either form."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vecdb.kernels.search import row_bits

EVERY_ROW_BITMAP: NDArray[np.uint64] = np.empty(0, np.uint64)  # a bitmap without words lets every row through
EVERY_ROW_LIST: NDArray[np.uint32] = np.empty(0, np.uint32)  # for kernels that scan a list of rows: without one, all


class RowSet:
    """Rows that a search may return, such as those of a tenant or those that match a filter, at one snapshot.

    rows : uint32[n], ascending, each once, all of them visible at the snapshot; never changed.
    keep : called with the size in bytes of what is made and kept beside the rows; None: the bitmap is never kept.

    Thread rule: any number of readers; two may make the same thing at the same time, of which one stays.
    """

    __slots__ = ("_asked", "_bitmap", "_count", "_derived", "_keep", "_rows")

    def __init__(self, rows: NDArray[np.uint32], keep: Callable[[int], None] | None = None) -> None:
        self._rows: NDArray[np.uint32] | None = rows
        self._count = len(rows)
        self._keep = keep
        self._bitmap = EVERY_ROW_BITMAP
        self._asked = False
        self._derived: tuple[object, NDArray[Any]] | None = None

    @classmethod
    def of_bitmap(cls, bitmap: NDArray[np.uint64], count: int, keep: Callable[[int], None] | None = None) -> RowSet:
        """The rows whose bits are set in a bitmap as `bitmap` gives it. count : how many. Listed once somebody asks."""
        made = cls(EVERY_ROW_LIST, keep)
        made._rows, made._count, made._bitmap = None, count, bitmap
        return made

    def __len__(self) -> int:
        return self._count

    @property
    def rows(self) -> NDArray[np.uint32]:
        rows = self._rows
        if rows is None:
            rows = np.empty(self._count, np.uint32)
            row_bits.rows_of(self._bitmap.view(np.uint32), rows)
            self._rows = rows
            if self._keep is not None:
                self._keep(rows.nbytes)
        return rows

    @property
    def nbytes(self) -> int:
        rows, derived = self._rows, self._derived
        listed = 0 if rows is None else rows.nbytes
        return listed + self._bitmap.nbytes + (0 if derived is None else derived[1].nbytes)

    def derived(self, key: object, make: Callable[[NDArray[np.uint32]], NDArray[Any]]) -> NDArray[Any]:
        """make(rows), kept as long as `key` is the same object. What an index wants to know of the rows, such as where
        it has them.
        """
        known = self._derived
        if known is not None and known[0] is key:
            return known[1]
        made = make(self.rows)
        self._derived = (key, made)
        if self._keep is not None:
            self._keep(made.nbytes - (0 if known is None else known[1].nbytes))
        return made

    def holds(self, rows: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Which of `rows` (int64[n], each at least 0) are among these."""
        listed = self.rows
        if not len(listed):
            return np.zeros(len(rows), bool)
        places = np.searchsorted(listed, rows.astype(np.uint32))
        return np.asarray(listed[np.minimum(places, len(listed) - 1)] == rows)

    def bitmap(self, row_count: int) -> NDArray[np.uint64]:
        """uint64[>= ceil(row_count / 64)], never empty: bit row & 63 of word row >> 6 is set for the rows. Made when
        asked for, kept from the second time on.
        """
        if len(self._bitmap) * 64 > row_count:
            return self._bitmap
        words = (row_count + row_count // 4) // 64 + 1  # room: a kept one serves while others' rows are added
        bits = np.zeros(64 * words, np.uint8)
        bits[self.rows] = 1
        made = np.packbits(bits, bitorder="little").view(np.uint64)
        if self._asked and self._keep is not None:
            self._keep(made.nbytes - self._bitmap.nbytes)
            self._bitmap = made
        self._asked = True
        return made
