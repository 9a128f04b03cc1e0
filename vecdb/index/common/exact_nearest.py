"""The exact nearest rows of a few queries among many: what codes are measured against.

A product of float32 matrices is several times as fast as distances one by one, and its error has a bound. So a block of
rows is looked at by products first, and only pairs that may, by that bound, be nearer than the nearest so far are
computed in float64, in the form that does not cancel. Where the bound excludes too little (clusters much tighter than
float32's digits) all rows are scanned exactly instead.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vecdb.index.common.thread_pool import ThreadPool
from vecdb.index.flat import scan_exactly
from vecdb.kernels.primitives.distance import COSINE, IP, L2
from vecdb.kernels.primitives.float_products import COLUMNS, ROWS
from vecdb.kernels.search import exact_scan
from vecdb.schema import Visibility
from vecdb.storage.disk.row_file import RowArrays

_BLOCK_ELEMENTS = 1 << 19  # of the rows of a block: they stay in a second-level cache
_BLOCK_ROWS = 64, 4_096
_FIRST_ROWS = 1_024  # scanned exactly, to begin with
_TINY = np.float32(1e-37)  # no length is divided by less
_PAIR_ELEMENTS = 1 << 20  # of pairs that are computed at once
_PAIRS_MAX = 1 / 32  # of a block's pairs; more are computed sooner by the exact scan
_LAST_COMMIT = 2**63 - 1  # a snapshot that sees no deleted row


class ExactNearest:
    """The `count` nearest living rows of [0, stop) to each of some queries.

    queries : float32[nq, dim], nq at most COLUMNS.   rows : int64[nq, count], distances : float64[nq, count], sorted by
    (distance, row); -1 and inf where there are fewer. Checksums are not looked at: a damaged row is for the search that
    returns it to report, and counts here as it is.
    """

    def __init__(self, arrays: RowArrays, metric: int, stop: int, queries: NDArray[np.float32], count: int) -> None:
        self._arrays = replace(arrays, verified=np.full(len(arrays.verified), 255, np.uint8))
        self._metric, self._stop = metric, stop
        self._queries = queries
        self.rows = np.full((len(queries), count), -1, np.int64)
        self.distances = np.full((len(queries), count), np.inf)

    def find(self, threads: int, workers: ThreadPool) -> None:
        dim = self._queries.shape[1]
        assert len(self._queries) <= COLUMNS
        step = max(_BLOCK_ROWS[0], min(_BLOCK_ROWS[1], _BLOCK_ELEMENTS // dim // ROWS * ROWS))
        begin = min(step, _FIRST_ROWS, self._stop)
        self._scan(begin, threads, workers)
        if begin == self._stop:
            return
        vectors = self._arrays.vectors
        with np.errstate(over="ignore", invalid="ignore"):
            bounds = _Bounds(self._queries, self._metric, vectors[:begin].astype(np.float32), step)
            while begin < self._stop:
                end = min(begin + step, self._stop)
                rows, near = bounds.may_be_within(vectors[begin:end], self.distances[:, -1])
                rows += begin
                living = self._arrays.deleted[rows] == 0
                rows, near = rows[living], near[living]
                if len(rows) > _PAIRS_MAX * (end - begin) * len(self._queries):
                    self._scan(self._stop, threads, workers)
                    return
                if len(rows):
                    self._add(near, rows)
                begin = end

    def _scan(self, stop: int, threads: int, workers: ThreadPool) -> None:
        """All rows below `stop`, exactly."""
        visibility = Visibility(_LAST_COMMIT, stop, stop)
        count = self.rows.shape[1]
        found = scan_exactly(self._arrays, self._metric, self._queries, count, visibility, None, threads, workers)
        self.rows[:], self.distances[:] = -1, np.inf
        near = np.repeat(np.arange(len(self._queries)), found.counts)
        self._add(near, found.rows[found.rows >= 0])

    def _add(self, near: NDArray[np.int64], rows: NDArray[np.int64]) -> None:
        """Take those of the pairs (query near[p], rows[p]) that are nearer than what is held."""
        nq, count = self.rows.shape
        queries = np.concatenate([np.repeat(np.arange(nq), count), near])
        rows = np.concatenate([self.rows.ravel(), rows])
        distances = np.concatenate([self.distances.ravel(), self.of(near, rows[nq * count :])])
        order = np.lexsort((rows, distances, queries))
        starts = np.searchsorted(queries[order], np.arange(nq))
        best = order[starts[:, None] + np.arange(count)]
        self.rows, self.distances = rows[best], distances[best]

    def of(self, near: NDArray[np.int64], rows: NDArray[np.int64]) -> NDArray[np.float64]:
        """Exact distances, float64[n], of the pairs (query near[p], rows[p])."""
        step = max(1, _PAIR_ELEMENTS // self._queries.shape[1])
        parts = [self._of(near[at : at + step], rows[at : at + step]) for at in range(0, len(rows), step)]
        return np.concatenate(parts) if parts else np.empty(0)

    def _of(self, near: NDArray[np.int64], rows: NDArray[np.int64]) -> NDArray[np.float64]:
        a, b = self._arrays.vectors[rows].astype(np.float64), self._queries[near].astype(np.float64)
        if self._metric == L2:
            a -= b
            return np.asarray(np.einsum("ij,ij->i", a, a))
        products = np.einsum("ij,ij->i", a, b)
        if self._metric == IP:
            return np.asarray(-products)
        squares = np.einsum("ij,ij->i", a, a) * np.einsum("ij,ij->i", b, b)
        return np.asarray(1.0 - np.divide(products, np.sqrt(squares), out=np.zeros(len(a)), where=squares > 0))


class _Bounds:
    """A row and a query as longer vectors whose product is at most 0 where the row may be as near as a given distance.

        l2       x' . q' = |x|^2 + |q|^2 - 2 x.q - 2 e (|x| + |q|)^2 - distance
        cosine             1 - x.q - 2 e - distance
        ip               - x.q - e |x| |q| - distance

    e bounds the error of a product of float32, as a share of both lengths. Under l2 x and q are taken from the middle
    of some rows, under cosine they are of unit length.
    """

    def __init__(self, queries: NDArray[np.float32], metric: int, some: NDArray[np.float32], step: int) -> None:
        """some : float32[any, dim], rows.   step : how many rows are looked at at once, at most."""
        nq, dim = queries.shape
        self._metric, self._dim, self._count = metric, dim, nq
        self._error = (dim + 16) * 2.0**-23
        self._centre = np.median(some[:: len(some) // 512 + 1], axis=0) if metric == L2 else np.float32(0)
        self._rows = np.ones((step, dim + 3), np.float32)
        self._products = np.empty((step, COLUMNS), np.float32)
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
        """Take the centre off or give them unit length, in place."""
        if self._metric == COSINE:
            rows /= np.maximum(_lengths(rows), _TINY)[:, None]
        elif self._metric == L2:
            rows -= self._centre

    def may_be_within(
        self, stored: NDArray[Any], distances: NDArray[np.float64]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Pairs (row of `stored`, query) of rows that may be as near to query i as distances[i]. stored : stored
        dtype[n, dim].
        """
        n, dim = len(stored), self._dim
        rows = self._rows[:n]
        rows[:, :dim] = stored
        self._move(rows[:, :dim])
        if self._metric != COSINE:
            rows[:, dim] = _lengths(rows[:, :dim])
            rows[:, dim + 1] = np.square(rows[:, dim])
        if self._metric == L2:
            self._columns[dim + 2, : self._count] = (1 - 2 * self._error) * self._squares - distances
        else:
            self._columns[dim + 2, : self._count] = (1 - 2 * self._error if self._metric == COSINE else 0.0) - distances
        whole = n + -n % ROWS  # what lies behind the last row is multiplied, too, and not looked at
        exact_scan.products(self._rows[:whole], self._columns, self._products[:whole])
        # "not above" rather than "at most": what overflows float32 may be anywhere
        pairs = np.flatnonzero(~(self._products[:n, : self._count] > 0).ravel())
        found, query = np.divmod(pairs, self._count)
        return found, query


def _lengths(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    lengths: NDArray[np.float32] = np.sqrt(np.einsum("ij,ij->i", rows, rows))
    return lengths
