"""Cells of a collection: a partition of its space into regions that hold about as many rows each, named by centres.

    cell of a vector = its nearest centre, by squared l2 (under cosine of unit vectors), ties to the lower number

An index with a clustering tree has its cells in it (`partition_of_tree`). For the others (`Partition`) a sample is
clustered that depends on row numbers alone: of n rows the first 2^floor(log2 n) count, dead or not, since rows are
never rewritten. So every process finds the same centres, and they hold until the collection has doubled.

Thread rule: `Partition.centres` from any number of threads; two may do the work at the same time and find the same.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from vecdb.index.clustering.cluster_tree import Heads, balanced_kmeans
from vecdb.index.common import sq8_training
from vecdb.index.common.quantizer import ScalarQuantizer
from vecdb.index.common.sampling import spaced_rows, units
from vecdb.index.common.thread_pool import ThreadPool
from vecdb.index.contract import corrupt_row_error
from vecdb.kernels.primitives import checksums
from vecdb.kernels.primitives.distance import COSINE, L2
from vecdb.storage.disk.row_file import RowArrays

_ROWS_PER_CELL = 50  # of the geometric mean: sqrt(n / 50) cells, as many as a tree of lists has groups
_SAMPLE_PER_CELL = 192  # rows that its centre is trained on


class Partition:
    """The cells of one index's rows, found when first asked for."""

    __slots__ = ("_kept",)

    def __init__(self) -> None:
        self._kept: tuple[int, NDArray[np.float32]] = (0, np.empty((0, 0), np.float32))

    def centres(self, arrays: RowArrays, metric: int, row_count: int, workers: ThreadPool) -> NDArray[np.float32]:
        """float32[c, dim] for the first `row_count` rows (at least 1). Raises Corruption where a row of the sample does
        not match its checksum.
        """
        rows = 1 << (row_count.bit_length() - 1)
        kept = self._kept
        if kept[0] != rows:
            kept = self._kept = (rows, _clustered(arrays, metric, rows, workers))
        return kept[1]


def _clustered(arrays: RowArrays, metric: int, rows: int, workers: ThreadPool) -> NDArray[np.float32]:
    count = max(1, round((rows / _ROWS_PER_CELL) ** 0.5))
    picked = spaced_rows(arrays, rows, _SAMPLE_PER_CELL * count)
    sample = np.ascontiguousarray(arrays.vectors[picked])
    bad = np.flatnonzero(checksums.crc_rows(sample) != arrays.crcs[picked])
    if len(bad):
        raise corrupt_row_error(int(picked[bad[0]]), arrays)
    space = COSINE if metric == COSINE else L2  # rows of different norms are clustered by l2 under ip too
    quantiser = sq8_training.train(arrays, space, rows)
    codes, _, _ = sq8_training.quantise(quantiser, sample, space)
    means = balanced_kmeans(codes, sample.shape[1], count, workers)
    return _directed(quantiser.mean + np.float32(quantiser.scale) * means, metric)


def partition_of_tree(heads: Heads, quantiser: ScalarQuantizer, metric: int) -> NDArray[np.float32]:
    """The groups of a clustering tree, whose codes are the quantiser's, as cells: float32[G, dim]."""
    steps = heads.group_codes[:, : len(quantiser.mean)].astype(np.float32) - np.float32(128.0)
    return _directed(quantiser.mean + np.float32(quantiser.scale) * steps, metric)


def _directed(centres: NDArray[np.float32], metric: int) -> NDArray[np.float32]:
    return units(centres) if metric == COSINE else centres
