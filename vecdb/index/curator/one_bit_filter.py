"""The one-bit filter: whether, and how, one-bit codes are compared before 8-bit codes
(kernels/codes/one_bit_lines.py).

    training: rows of a sample -> center, rotation -> a trial among them -> the slack of estimates, or no filter at all

Thread rule: a OneBitFilter never changes.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vecdb.index.common.rotation import rotation
from vecdb.index.common.sampling import center_of, sample, units
from vecdb.index.common.sq8_training import without_far
from vecdb.kernels.array_table import ArrayTable
from vecdb.kernels.codes import one_bit_lines as kernels
from vecdb.kernels.codes import rabitq
from vecdb.kernels.primitives import checksums
from vecdb.kernels.primitives.distance import COSINE, IP, L2
from vecdb.storage.disk.row_file import RowArrays

_DIM_MIN = 193  # shorter 8-bit codes are no more than three cache lines, and there is little to save
_PADDED = 64  # bits of a code are a multiple of so many
_LINE = 64  # bytes of a cache line
_FACTOR_BYTES = 8  # of a row beside its bits
_TRIAL_ROWS, _TRIAL_QUERIES, _TRIAL_LIMIT = 1_024, 64, 10
# The slack in standard deviations of an estimate. Measured on 1,000 of 40,000 sentences: with 2, the filter keeps 0.992
# of the true rows; with 2.5 all of them and 5 % of the others, with 3 7 % of the others.
_SIGMAS = 3.0
_KEPT_MAX = 0.25  # of the trial's rows: a filter that keeps more of them gains nothing
_ENCODE_ROWS = 4_096  # encoded by one call
_HEAD_CODE = 128  # of each dimension of the only head, which is the center


@dataclass(frozen=True, slots=True)
class OneBitFilter:
    """center : float32[dim].   signs : float32[4, D], the rotation.   weight : 1, or 0 under ip (one_bit_lines.py).

    slack : how much larger than the limit-th smallest the estimate of a row may be, to be multiplied by the distance of
    query and center. An estimate's error is nearly normal whatever the data (Gao and Long, 2024), so hardly one of the
    nearest rows is lost.
    """

    center: NDArray[np.float32]
    signs: NDArray[np.float32]
    slack: float
    cosine: bool
    weight: float

    @property
    def width(self) -> int:
        """Bytes of the bits of one row."""
        width: int = self.signs.shape[1] // 8
        return width

    @property
    def words(self) -> tuple[int, ...]:
        """A tuple as long as the bits of a row are in words of 64, for kernels."""
        return (0,) * (self.width // 8)

    @property
    def stride(self) -> int:
        """Bytes of a line: bits and two factors."""
        return _stride(self.width)

    def encode(self, vectors: NDArray[Any], first: int, stop: int, lines: NDArray[np.uint8], slot: int) -> None:
        """Write the lines (uint8[slots, stride]) of rows [first, stop) of vectors (stored dtype[n, dim]) from `slot`
        on.
        """
        scratch = np.empty((2, 8 * self.width), np.float32)
        head = np.full((1, len(self.center)), _HEAD_CODE, np.uint8)
        space = ArrayTable(rabitq.CodeSpace(
            metric=COSINE if self.cosine else L2, bits=1, lossless=False, step=rabitq.STEPS[1], mean=self.center,
            scale=1.0, center=self.center, signs=self.signs,
        ))  # fmt: skip
        for start in range(first, stop, _ENCODE_ROWS):
            n = min(stop, start + _ENCODE_ROWS) - start
            codes, factors = np.empty((n, self.width), np.uint8), np.empty((n, 2), np.float32)
            rabitq.encode(
                checksums.for_kernels(vectors), np.arange(start, start + n), np.zeros(n, np.int32), head, space.table,
                codes, factors, scratch,
            )  # fmt: skip
            kernels.pack_lines(codes, factors, slot + start - first, lines, lines.view(np.float32))


def _padded(dim: int) -> int:
    return -(-dim // _PADDED) * _PADDED


def _stride(width: int) -> int:
    return -(-(width + _FACTOR_BYTES) // _LINE) * _LINE


def line_bytes(dim: int) -> int:
    """Bytes of a row's line where there is a filter; 0 for dimensions that never have one."""
    return _stride(_padded(dim) // 8) if dim >= _DIM_MIN else 0


def trained_filter(arrays: RowArrays, metric: int, row_count: int) -> OneBitFilter | None:
    """A filter for rows [0, row_count), or None where it would gain nothing or keep too many rows."""
    dim = arrays.vectors.shape[1]
    if dim < _DIM_MIN or row_count < _TRIAL_ROWS + _TRIAL_QUERIES:
        return None
    rows = without_far(sample(arrays, row_count))
    rng = np.random.default_rng(dim)
    signs = rotation(rng, _padded(dim))
    center, weight = center_of(rows, metric), 0.0 if metric == IP else 1.0
    bit_filter = OneBitFilter(center, signs, 0.0, metric == COSINE, weight)
    some = rows[rng.permutation(len(rows))[: _TRIAL_ROWS + _TRIAL_QUERIES]]
    slack, kept = _trial(bit_filter, units(some) if metric == COSINE else some, metric)
    return None if kept > _KEPT_MAX else replace(bit_filter, slack=slack)


def _trial(bit_filter: OneBitFilter, rows: NDArray[np.float32], metric: int) -> tuple[float, float]:
    """(slack, share of rows that the filter keeps with it), measured: some rows search for neighbours among others."""
    queries, others = np.ascontiguousarray(rows[:_TRIAL_QUERIES]), np.ascontiguousarray(rows[_TRIAL_QUERIES:])
    products = queries @ others.T
    near = -products if metric == IP else (others**2).sum(axis=1)[None, :] - 2.0 * products
    lines = np.zeros((len(others), bit_filter.stride), np.uint8)
    bit_filter.encode(others, 0, len(others), lines, 0)
    flat = lines.reshape(-1)
    planes = np.zeros((kernels.PLANES, bit_filter.width), np.uint8)
    out, norms = np.zeros((len(queries), len(others)), np.float32), np.zeros(len(queries), np.float32)
    kernels.estimates(
        queries, bit_filter.center, bit_filter.signs, bit_filter.cosine, np.float32(bit_filter.weight),
        flat.view(np.uint64), flat.view(np.float32), bit_filter.stride, np.zeros(8 * bit_filter.width, np.float32),
        planes, planes.view(np.uint64), out, norms, bit_filter.words,
    )  # fmt: skip
    error = out - near  # up to a constant for each query, the mean
    error -= error.mean(axis=1, keepdims=True)
    norms = np.maximum(norms, np.float32(1e-30))[:, None]
    slack = _SIGMAS * float((error / norms).std())
    last = np.partition(out, _TRIAL_LIMIT - 1, axis=1)[:, _TRIAL_LIMIT - 1 : _TRIAL_LIMIT]
    return slack, float((out <= last + slack * norms).mean())
