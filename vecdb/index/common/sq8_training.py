"""Training of the 8-bit quantizer from a sample of rows (sampling.py), and whether too many rows are far.

Each index decides by itself when to train again."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from vecdb.index.common.quantizer import ScalarQuantizer, block_count
from vecdb.index.common.sampling import lengths_vary, sample, units
from vecdb.kernels.primitives import checksums
from vecdb.kernels.primitives.distance import COSINE, IP, L2
from vecdb.storage.disk.row_file import RowArrays

# The range of the codes is that of the sample, since a clipped element misleads the walk more than a coarser scale does
# (measured on GloVe's 200 most frequent words: recall 0.949 at any ef with the 99.99th percentile of elements, 1.000
# with the maximum), unless the maximum is this far beyond the largest elements of nearly all rows: then those few rows
# are `far`. The quantile is one of rows and not of elements: a single long row owns as many elements as there are
# dimensions, so that among a few thousand rows it is a quantile of elements by itself, and every other row gets one
# code (measured on 6,000 x 64 with one row 1,000 times as long: recall .005 so, .98 with rows).
_ROW_QUANTILE = 0.99
_BEYOND = 4.0
_FAR_ROWS_MAX = 256  # so many far rows, scored one by one, do not slow a search down
_FAR_SHARE_MAX = 0.01  # of all rows
_TOP_MIN = 1e-30  # a sample of zeros gets a scale that can be divided by
FAR_GROWTH = 1.25  # too many far rows or not, codes are not trained again before their rows have grown by this


def needs_bias(arrays: RowArrays, metric: int, row_count: int) -> bool:
    """Whether distances between rows need |x|^2: under l2 always, under ip where norms differ.

    Among rows of different norms "nearer by inner product" only means "longer", and the diversity heuristic would keep
    a handful of long rows as everybody's neighbours. Such a graph is built by l2, whose Delaunay graph holds that of
    the inner product, and searched by inner product.
    """
    if metric != IP:
        return metric == L2
    return lengths_vary(sample(arrays, row_count))


def too_many_far(far: int, rows: int) -> bool:
    """Whether so many of `rows` rows are beyond the codes that it is worth training them again."""
    return far > max(_FAR_ROWS_MAX, _FAR_SHARE_MAX * rows)


def train(arrays: RowArrays, metric: int, row_count: int) -> ScalarQuantizer:
    """A quantiser from rows spread evenly over [0, row_count). 8-bit data are their own codes wherever the metric
    allows it.
    """
    vectors = arrays.vectors
    dim = vectors.shape[1]
    mean = np.zeros(dim, np.float32)
    if metric != COSINE and vectors.dtype == np.int8:
        return ScalarQuantizer(mean, 1.0, row_count, True)
    if metric == L2 and vectors.dtype == np.uint8:
        return ScalarQuantizer(mean + np.float32(128), 1.0, row_count, True)
    rows = sample(arrays, row_count)
    if metric == L2:
        mean = rows.mean(axis=0, dtype=np.float64, where=_are_near(rows)[:, None]).astype(np.float32)
        rows -= mean
    elif metric == COSINE:
        units(rows, out=rows)
    return ScalarQuantizer(mean, scale_of(rows), row_count, False)


def without_far(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    """The rows but for the few whose elements are far beyond those of all others, as a mean would be dragged along by
    them. rows : float32[n, dim].
    """
    near: NDArray[np.float32] = rows[_are_near(rows)]
    return near


def _are_near(rows: NDArray[np.float32]) -> NDArray[np.bool_]:
    """bool[n]: those that `without_far` leaves."""
    tops = np.maximum(rows.max(axis=1), -rows.min(axis=1))
    return np.asarray(tops <= _top_of(tops))


def scale_of(rows: NDArray[np.float32]) -> float:
    """The scale of codes of rows (float32[n, dim], centred; overwritten)."""
    return max(_top_of(np.abs(rows, out=rows).max(axis=1)), _TOP_MIN) / 127.0


def _top_of(tops: NDArray[np.float32]) -> float:
    """The range: the largest element of all rows but those that are far. tops : float32[n], of each row."""
    most, place = float(tops.max()), int(_ROW_QUANTILE * (len(tops) - 1))
    return min(most, _BEYOND * float(np.partition(tops, place)[place])) or most


def quantise(
    quantiser: ScalarQuantizer, vectors: NDArray[np.generic], metric: int
) -> tuple[NDArray[np.uint8], NDArray[np.int32], NDArray[np.int32]]:
    """Codes uint8[n, 64 * blocks] and biases int32[n] of rows (stored dtype[n, dim], C-contiguous), and the numbers
    int32[any] of those that are far.
    """
    n, dim = vectors.shape
    codes = np.zeros((n, 64 * block_count(dim)), np.uint8)
    bias = np.zeros(n, np.int32)
    far = np.empty(n, np.int32)
    count = quantiser.encode(checksums.for_kernels(vectors), 0, n, metric, codes, bias, far, find_flat=False)
    return codes, bias, far[:count]
