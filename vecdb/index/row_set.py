"""Rows that a search may return, as a sorted list and as a bitmap, and what stands for "all rows" in either form."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

EVERY_ROW_BITMAP: NDArray[np.uint64] = np.empty(0, np.uint64)  # a bitmap without words lets every row through
EVERY_ROW_LIST: NDArray[np.uint32] = np.empty(0, np.uint32)  # for kernels that scan a list of rows: without one, all


class RowSet:
    """Rows that a search may return: those of a tenant, or of a union of tenants, at one snapshot.

    rows : uint32[n], ascending, each once, all of them visible at the snapshot; never changed.
    keep : called with the size in bytes of the bitmap when it is kept; None: none is ever kept.

    Thread rule: any number of readers; two may build the bitmap at the same time, of which one stays.
    """

    __slots__ = ("_asked", "_bitmap", "_derived", "_keep", "rows")

    def __init__(self, rows: NDArray[np.uint32], keep: Callable[[int], None] | None = None) -> None:
        self.rows = rows
        self._keep = keep
        self._bitmap = EVERY_ROW_BITMAP
        self._asked = False
        self._derived: tuple[object, NDArray[Any]] | None = None

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def nbytes(self) -> int:
        derived = self._derived
        return self.rows.nbytes + self._bitmap.nbytes + (0 if derived is None else derived[1].nbytes)

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
        if not len(self.rows):
            return np.zeros(len(rows), bool)
        places = np.searchsorted(self.rows, rows.astype(np.uint32))
        return np.asarray(self.rows[np.minimum(places, len(self.rows) - 1)] == rows)

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
