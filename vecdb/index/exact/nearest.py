"""The exact nearest rows of a few queries among many, with distances in float64: what codes are measured against."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from vecdb.index.common.thread_pool import ThreadPool
from vecdb.index.exact.scan import scan_exactly
from vecdb.kernels.primitives.distance import IP, L2
from vecdb.schema import Visibility
from vecdb.storage.disk.row_file import RowArrays

_PAIR_ELEMENTS = 1 << 16  # of pairs that are computed at once: half a megabyte, see `mapped_memory.reserve_memory`
_LAST_COMMIT = 2**63 - 1  # a snapshot that sees no deleted row


class ExactNearest:
    """The `count` nearest living rows of [0, stop) to each of some queries.

    queries : float32[nq, dim].   rows : int64[nq, count], distances : float64[nq, count], sorted by
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
        visibility, count = Visibility(_LAST_COMMIT, self._stop, self._stop), self.rows.shape[1]
        found = scan_exactly(self._arrays, self._metric, self._queries, count, visibility, None, threads, workers)
        there = found.rows >= 0
        self.distances[there] = self.of(np.nonzero(there)[0], found.rows[there])
        order = np.lexsort((found.rows, self.distances))
        self.rows = np.take_along_axis(found.rows, order, axis=1)
        self.distances = np.take_along_axis(self.distances, order, axis=1)

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
