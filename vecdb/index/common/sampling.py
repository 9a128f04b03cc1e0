"""A sample of rows: chosen by row number alone, so that every process and every run takes the same.

evenly_spaced -> spaced_rows -> sample -> units (cosine) -> center_of
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from vecdb.kernels.primitives.distance import COSINE, IP
from vecdb.storage.disk import mapped_memory
from vecdb.storage.disk.row_file import RowArrays

SAMPLE_ROWS = 16_384
_COPIED_ROWS = 256  # at a time
DENSITY_SAMPLE = 1_024  # rows by which `has_dense_core` decides
_CORE_SPREAD = 1.1
_CORE_DIRECTIONS = 12.5
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


def sample(arrays: RowArrays, row_count: int, most: int = SAMPLE_ROWS) -> NDArray[np.float32]:
    """float32[n, dim]: at most `most` of the rows [0, row_count)."""
    picked = spaced_rows(arrays, row_count, most)
    rows: NDArray[np.float32] = mapped_memory.reserve_memory((len(picked), arrays.vectors.shape[1]), np.float32)
    for start in range(0, len(picked), _COPIED_ROWS):
        rows[start : start + _COPIED_ROWS] = arrays.vectors[picked[start : start + _COPIED_ROWS]]
    return rows


def norms(rows: NDArray[np.floating]) -> NDArray[np.float64]:
    """|x| of each row."""
    lengths: NDArray[np.float64] = np.sqrt(np.einsum("ij,ij->i", rows, rows, dtype=np.float64))
    return lengths


def lengths_vary(rows: NDArray[np.floating]) -> bool:
    """Whether norms of rows [n, dim] differ, so that "nearer by inner product" is another order than nearer by l2."""
    lengths = norms(rows)
    return len(lengths) > 0 and bool(lengths.std() > 0.01 * lengths.mean())


def has_dense_core(rows: NDArray[np.float32]) -> bool:
    """Whether rows lie at very different distances from their centre, and in many directions. rows : float32[n, dim].

    By quantiles of the distance from the medians, which a few long rows do not move: (q95 - q05) / q50 is .2 of
    Gaussian data, .5 of common embeddings, .9 of dimensions over six decades, 1.2 of log-normal lengths of sigma .3,
    5 of sigma 1, 9 where a tenth of the rows is ten times as long.
    Rows along a few axes are spread as widely (2.7 along one), but links by l2 find their way there: up to twelve
    directions, counted as 1 / the mean squared cosine between rows, links of two kinds are no better.
    """
    if len(rows) < 2:
        return False
    centred = rows - np.median(rows, axis=0)
    lengths = norms(centred)
    apart = lengths > 0.0  # the others have no direction
    if apart.sum() < 2:
        return False
    low, middle, high = np.quantile(lengths[apart], (0.05, 0.5, 0.95))
    if high - low <= _CORE_SPREAD * middle:
        return False
    unit = centred[apart] / lengths[apart, None]
    gram = unit.T @ unit if unit.shape[1] < len(unit) else unit @ unit.T  # of either the squares have one sum
    pairs = len(unit) * (len(unit) - 1)
    return bool((np.square(gram).sum() - len(unit)) * _CORE_DIRECTIONS < pairs)


def units(rows: NDArray[np.float32], out: NDArray[np.float32] | None = None) -> NDArray[np.float32]:
    """The rows on the unit sphere; one of zeros stays where it is. out : where they go, `rows` itself or None."""
    unit: NDArray[np.float32] = np.divide(rows, np.maximum(norms(rows), _TINY).astype(np.float32)[:, None], out=out)
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
