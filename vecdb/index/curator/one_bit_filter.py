"""Whether, and how, codes are looked at one bit a dimension first (kernels/codes/one_bit_lines.py)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vecdb.index.common.rotation import rotation
from vecdb.index.common.sampling import center_of, sample, units
from vecdb.kernels.array_table import ArrayTable
from vecdb.kernels.codes import one_bit_lines as kernels
from vecdb.kernels.codes import rabitq
from vecdb.kernels.primitives import checksums
from vecdb.kernels.primitives.distance import COSINE, L2
from vecdb.storage.disk.row_file import RowArrays

_DIM_MIN = 193  # shorter codes are no more than three cache lines, and there is little to save
_PADDED = 64
_LINE = 64
_TRIAL_ROWS, _TRIAL_QUERIES, _TRIAL_LIMIT = 1_024, 64, 10
# Deviations of an estimate that a row may look farther than the limit-th. Measured on 1,000 of 40,000 sentences: 2 let
# 0.992 of the true rows through, 2.5 all of them and 5 % of the others, 3 lets 7 % through.
_SIGMAS = 3.0
_THROUGH_MAX = 0.25  # of the trial's rows: a sieve that holds back less than the rest gains nothing
_ENCODE_ROWS = 4_096

_ONE_HEAD = 128  # the code of the center itself


@dataclass(frozen=True, slots=True)
class OneBitFilter:
    """center : float32[dim].   signs : float32[4, D], the rotation.

    slack : how much farther than the limit-th a row may look, times the query's distance from the center. An estimate's
    error is near normal whatever the data (Gao and Long, 2024), so hardly one of the nearest is lost.
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
        """As long as a row's bits are in words."""
        return (0,) * (self.width // 8)

    @property
    def stride(self) -> int:
        """Bytes of a line: bits and two factors."""
        return _stride(self.width)

    def encode(self, vectors: NDArray[Any], first: int, stop: int, lines: NDArray[np.uint8], slot: int) -> None:
        """Lines (uint8[slots, stride]) of rows [first, stop) of vectors (stored dtype[n, dim]), from `slot` on."""
        scratch = np.empty((2, 8 * self.width), np.float32)
        head = np.full((1, len(self.center)), _ONE_HEAD, np.uint8)
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
    return -(-(width + 8) // _LINE) * _LINE


def line_bytes(dim: int) -> int:
    """Bytes of a row's line, where there is a sieve; 0 for dimensions that never have one."""
    return _stride(_padded(dim) // 8) if dim >= _DIM_MIN else 0


def trained_filter(arrays: RowArrays, metric: int, row_count: int) -> OneBitFilter | None:
    """A sieve for rows [0, row_count), or None where it would gain nothing or let too much through."""
    dim = arrays.vectors.shape[1]
    if dim < _DIM_MIN or row_count < _TRIAL_ROWS + _TRIAL_QUERIES:
        return None
    rows = sample(arrays, row_count)
    rng = np.random.default_rng(dim)
    signs = rotation(rng, _padded(dim))
    sieve = OneBitFilter(center_of(rows, metric), signs, 0.0, metric == 1, 0.0 if metric == 2 else 1.0)
    some = rows[rng.permutation(len(rows))[: _TRIAL_ROWS + _TRIAL_QUERIES]]
    slack, through = _trial(sieve, units(some) if metric == 1 else some, metric)
    return None if through > _THROUGH_MAX else replace(sieve, slack=slack)


def _trial(sieve: OneBitFilter, rows: NDArray[np.float32], metric: int) -> tuple[float, float]:
    """(slack, share of rows that come through with it), measured: neighbours of some rows among others."""
    queries, others = np.ascontiguousarray(rows[:_TRIAL_QUERIES]), np.ascontiguousarray(rows[_TRIAL_QUERIES:])
    products = queries @ others.T
    near = -products if metric == 2 else (others**2).sum(axis=1)[None, :] - 2.0 * products
    lines = np.zeros((len(others), sieve.stride), np.uint8)
    sieve.encode(others, 0, len(others), lines, 0)
    flat = lines.reshape(-1)
    planes = np.zeros((kernels.PLANES, sieve.width), np.uint8)
    out, norms = np.zeros((len(queries), len(others)), np.float32), np.zeros(len(queries), np.float32)
    kernels.estimates(
        queries, sieve.center, sieve.signs, sieve.cosine, np.float32(sieve.weight), flat.view(np.uint64),
        flat.view(np.float32), sieve.stride, np.zeros(8 * sieve.width, np.float32), planes, planes.view(np.uint64), out,
        norms, sieve.words,
    )  # fmt: skip
    error = out - near  # and a constant of each query's own
    error -= error.mean(axis=1, keepdims=True)
    norms = np.maximum(norms, np.float32(1e-30))[:, None]
    slack = _SIGMAS * float((error / norms).std())
    last = np.partition(out, _TRIAL_LIMIT - 1, axis=1)[:, _TRIAL_LIMIT - 1 : _TRIAL_LIMIT]
    return slack, float((out <= last + slack * norms).mean())
