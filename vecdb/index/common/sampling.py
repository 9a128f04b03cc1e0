"""A sample of rows: chosen by row number alone, so that every process and every run takes the same.

evenly_spaced -> spaced_rows -> sample -> units (cosine) -> center_of
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from vecdb.kernels.primitives.distance import COSINE, IP
from vecdb.storage.disk.row_file import RowArrays

SAMPLE_ROWS = 16_384
_TINY = 1e-37  # no norm is divided by less


def evenly_spaced(count: int, most: int) -> NDArray[np.int64]:
    """At most `most` of the numbers [0, count), evenly spread, ascending, each once."""
    return np.unique(np.linspace(0, count - 1, min(count, most)).astype(np.int64))


def spaced_rows(arrays: RowArrays, row_count: int, most: int) -> NDArray[np.int64]:
    """At most `most` of the rows [0, row_count), evenly spread, ascending: dead or not, but of those that have a
    vector, where any has.
    """
    picked = evenly_spaced(row_count, most)
    if arrays.have_vectors(picked).all():
        return picked
    there = np.flatnonzero(arrays.have_vectors(slice(row_count)))
    return there[evenly_spaced(len(there), most)] if len(there) else picked


def sample(arrays: RowArrays, row_count: int) -> NDArray[np.float32]:
    """float32[n, dim]: some of the rows [0, row_count)."""
    rows: NDArray[np.float32] = arrays.vectors[spaced_rows(arrays, row_count, SAMPLE_ROWS)].astype(np.float32)
    return rows


def norms(rows: NDArray[np.floating]) -> NDArray[np.float64]:
    """|x| of each row."""
    lengths: NDArray[np.float64] = np.sqrt(np.einsum("ij,ij->i", rows, rows, dtype=np.float64))
    return lengths


def lengths_vary(rows: NDArray[np.floating]) -> bool:
    """Whether norms of rows [n, dim] differ, so that "nearer by inner product" is another order than nearer by l2."""
    lengths = norms(rows)
    return len(lengths) > 0 and bool(lengths.std() > 0.01 * lengths.mean())


def units(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    """The rows on the unit sphere; one of zeros stays where it is."""
    unit: NDArray[np.float32] = rows / np.maximum(norms(rows), _TINY).astype(np.float32)[:, None]
    return unit


def center_of(rows: NDArray[np.float32], metric: int) -> NDArray[np.float32]:
    """What codes of one to a few bits are taken from: the mean, float32[dim], under cosine that of unit rows; under ip
    the origin. rows : float32[n, dim], as they are.
    """
    if metric == IP:
        return np.zeros(rows.shape[1], np.float32)
    if metric == COSINE:
        rows = units(rows)
    mean: NDArray[np.float32] = rows.mean(axis=0, dtype=np.float64).astype(np.float32)
    return mean
