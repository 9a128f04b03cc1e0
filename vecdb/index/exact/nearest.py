"""The exact nearest rows of a few queries among many, in float64: what codes are measured against.

Products bound the distances (product_bounds.py), and only pairs that may be nearer than the nearest so far are computed
in float64, in the form that does not cancel. Where the bound excludes too little all rows are scanned exactly instead.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from vecdb.index.common.thread_pool import ThreadPool
from vecdb.index.exact.product_bounds import ProductBounds, block_rows
from vecdb.index.exact.scan import scan_exactly
from vecdb.kernels.primitives.distance import IP, L2
from vecdb.kernels.primitives.float_products import COLUMNS
from vecdb.schema import Visibility
from vecdb.storage.disk.row_file import RowArrays

_FIRST_ROWS = 1_024  # scanned exactly, to begin with
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
        step = block_rows(dim)
        begin = min(step, _FIRST_ROWS, self._stop)
        self._scan(begin, threads, workers)
        if begin == self._stop:
            return
        vectors = self._arrays.vectors
        with np.errstate(over="ignore", invalid="ignore"):
            bounds = ProductBounds(self._queries, self._metric, vectors[:begin].astype(np.float32), step)
            while begin < self._stop:
                end = min(begin + step, self._stop)
                products = bounds.products(vectors[begin:end], self.distances[:, -1])[:, : len(self._queries)]
                # "not above" rather than "at most": what overflows float32 may be anywhere
                rows, near = np.divmod(np.flatnonzero(~(products > 0).ravel()), len(self._queries))
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
