"""Bounds on many distances at once, by a product of two float32 matrices.

Such a product is several times as fast as distances one by one, and its error has a bound. So a block of rows is looked
at by products first, and only pairs that may, by that bound, be near enough are computed exactly. It excludes little
where rows are much closer to one another than float32's digits allow (clusters much tighter than their distance).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from vecdb.kernels.primitives.distance import COSINE, IP, L2
from vecdb.kernels.primitives.float_products import COLUMNS, ROWS, SQUARE_MAX, SQUARE_MIN
from vecdb.kernels.search import exact_scan
from vecdb.storage.disk import mapped_memory

_BLOCK_ELEMENTS = 1 << 19  # of the rows of a block: they stay in a second-level cache
_BLOCK_ROWS = 64, 4_096
_TINY = 1e-36  # what float32 loses of sums of small terms


def block_rows(dim: int) -> int:
    """Rows that are multiplied at once."""
    return max(_BLOCK_ROWS[0], min(_BLOCK_ROWS[1], _BLOCK_ELEMENTS // dim // ROWS * ROWS))


class ProductBounds:
    """A row and a query as longer vectors whose product is at most 0 where the row may be as near as a given distance.

        l2       x' . q' = |x|^2 + |q|^2 - 2 x.q - 2 e (|x| + |q|)^2 - distance
        cosine             1 - x.q - 2 e - distance
        ip               - x.q - e |x| |q| - distance

    e bounds the error of a product of float32, as a share of both lengths. Under l2 x and q are taken from the middle
    of some rows, under cosine they are of unit length.
    """

    def __init__(self, queries: NDArray[np.float32], metric: int, some: NDArray[Any], step: int) -> None:
        """some : stored dtype[any, dim], rows.   step : how many rows are looked at at once, at most."""
        nq, dim = queries.shape
        self._metric, self._dim, self._count = metric, dim, nq
        self._error = (dim + 16) * 2.0**-23
        few = some[:: len(some) // 512 + 1].astype(np.float32)
        self._centre = np.median(few, axis=0) if metric == L2 else np.float32(0)
        self._rows = mapped_memory.reserve_memory((step, dim + 3), np.float32)
        self._rows[:, dim:] = 1
        self._products = mapped_memory.reserve_memory((step, COLUMNS), np.float32)
        self._columns = np.zeros((dim + 3, COLUMNS), np.float32)
        moved = queries.copy()
        self._move(moved)
        self._columns[:dim, :nq] = (-2 * moved if metric == L2 else -moved).T
        self._squares = np.einsum("ij,ij->i", moved, moved, dtype=np.float64)
        lengths = np.sqrt(self._squares)
        if metric == L2:
            self._columns[dim, : self._count] = -4 * self._error * lengths
            self._columns[dim + 1, : self._count] = 1 - 2 * self._error
        elif metric == IP:
            self._columns[dim, : self._count] = -self._error * lengths

    def _move(self, rows: NDArray[np.float32]) -> None:
        """Take the centre off or give them unit length, in place. A length that float32 can not tell makes them not a
        number, and so their products.
        """
        if self._metric == COSINE:
            squares = _squares(rows)
            unknown = ~((squares >= np.float32(SQUARE_MIN)) & (squares <= np.float32(SQUARE_MAX)))
            unknown &= rows.any(axis=1) if unknown.any() else False  # of zeros the length is known
            lengths = np.sqrt(squares)
            lengths[squares == 0] = 1
            lengths[unknown] = np.nan
            rows /= lengths[:, None]
        elif self._metric == L2:
            rows -= self._centre

    def products(self, stored: NDArray[Any], distances: NDArray[np.float64]) -> NDArray[np.float32]:
        """float32[n, COLUMNS], overwritten by the next call: [r, i] is above 0 where row r of `stored` is farther from
        query i than distances[i] (float64[nq]); not a number where nothing is known. stored : stored dtype[n, dim].
        """
        n, dim = len(stored), self._dim
        rows = self._rows[:n]
        rows[:, :dim] = stored
        self._move(rows[:, :dim])
        if self._metric != COSINE:
            rows[:, dim + 1] = _squares(rows[:, :dim])
            np.sqrt(rows[:, dim + 1], out=rows[:, dim])
        if self._metric == L2:
            most = (1 - 2 * self._error) * self._squares - distances
        else:
            most = (1 - 2 * self._error if self._metric == COSINE else 0.0) - distances
        self._columns[dim + 2, : self._count] = most - _TINY
        whole = n + -n % ROWS  # what lies behind the last row is multiplied, too, and not looked at
        exact_scan.products(self._rows[:whole], self._columns, self._products[:whole])
        return self._products[:n]


def _squares(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    squares: NDArray[np.float32] = np.einsum("ij,ij->i", rows, rows)
    return squares
