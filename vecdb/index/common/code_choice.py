"""Which codes fit the data: the cheapest format by which a search finds what is near.

Codes of 8 bits with one scale for all rows are the smallest and fastest, and lose everything on some data: tight
clusters, one wide dimension, lengths that differ a thousandfold. What data they will be, only measuring tells:

    some rows as queries, each compared with all others: how many of its 10 nearest are among the 20 nearest by code?
    the first format that keeps RECALL_MIN of them is taken:

        8 bits -> 8 bits around the median (cosine) -> 8 bits, rotated -> 16 bits, rotated -> float32

All others, because a sample misleads: fewer rows lie farther apart, and codes look better than they are. Near rows
that are equally far count as found, whichever the codes prefer. Formats and their order are in quantizer.py.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vecdb import limits
from vecdb.index.common import sq8_training
from vecdb.index.common.quantizer import (
    BITS,
    FLOAT32,
    ROTATED,
    ROTATED8,
    ROTATED16,
    SQ8,
    ScalarQuantizer,
    kernel_blocks,
    rotated_dim,
)
from vecdb.index.common.rotation import rotation
from vecdb.index.common.sampling import evenly_spaced, sample, units
from vecdb.index.common.thread_pool import ThreadPool
from vecdb.index.exact.nearest import ExactNearest
from vecdb.kernels.array_table import ArrayTable
from vecdb.kernels.primitives import checksums, distance
from vecdb.kernels.primitives.distance import COSINE, IP, L2
from vecdb.kernels.search import code_scan
from vecdb.storage.disk.row_file import RowArrays

RECALL_MIN = 0.99  # of codes that are good enough
SPOILED = 0.9  # links chosen by codes below this are not worth keeping
MEASURE_GROWTH = 2.0  # codes are measured again when there are so many times as many rows
SETTLED_GROWTH = 1.25  # or only so many times, when no more are waiting
TRAIN_GROWTH = 4.0  # and chosen anew, from the first format on
DRIFT_GROWTH = 1.05  # the same where new rows are too long or too short for the scale
_FLAT_STEPS = 16  # a row is too short for the codes that uses fewer of their steps
_FLAT_SHARE = 0.1  # so much more of the new rows than of the others
_FLAT_SAMPLE = 1_024  # rows looked at
_QUERIES = 64
_NEAREST, _BY_CODE = 10, 20
_BLOCK_ROWS = 2_048  # encoded, and compared with all queries, while they are in a cache
_NOTHING = 1e-13  # distances that differ by less are equal under cosine, of which 1 is taken off
_NAMES = {SQ8: "8 bit", ROTATED8: "8 bit rotated", ROTATED16: "16 bit rotated", FLOAT32: "float32", BITS: "bits"}
_SEED = 1  # of the rotation
_NO_BIAS = np.empty(0, np.int32)
_MEDIAN_ELEMENTS = 1 << 22  # of a sample whose medians are taken at once


@dataclass(frozen=True, slots=True)
class Choice:
    """quantiser : measured.   kept : it is the one that there was.   old_recall : of the codes that there were, as of
    now; None where none were asked about.
    """

    quantiser: ScalarQuantizer
    kept: bool
    old_recall: float | None

    @property
    def links_are_spoiled(self) -> bool:
        """Whether links that were chosen by the old codes should be chosen anew."""
        return not self.kept and self.old_recall is not None and self.old_recall < SPOILED


def is_due(
    quantiser: ScalarQuantizer, far: NDArray[np.int32], codes: NDArray[np.uint8], new: int, *, all_rows: bool
) -> bool:
    """Whether codes should be looked at again. far : rows beyond their range.   codes : uint8[rows, width], those from
    row `new` on not seen before.   all_rows : there are no more rows, for now.
    """
    if quantiser.lossless:
        return False
    if _is_outgrown(quantiser, far, len(codes)):
        return True
    if quantiser.code_format == FLOAT32:
        return False  # there is no other to turn to
    growth = len(codes) / max(1, quantiser.measured_rows)
    if growth >= (SETTLED_GROWTH if all_rows else MEASURE_GROWTH):
        return True
    if quantiser.code_format != SQ8 or growth < DRIFT_GROWTH:
        return False
    elements = codes[:, : len(quantiser.mean)]
    return _flat_share(elements[new:]) > _flat_share(elements[:new]) + _FLAT_SHARE


def _is_outgrown(quantiser: ScalarQuantizer, far: NDArray[np.int32], stop: int) -> bool:
    """Whether the quantizer was made from too few of the rows that there are now."""
    growth = stop / quantiser.trained_rows
    return growth >= TRAIN_GROWTH or (growth >= DRIFT_GROWTH and sq8_training.too_many_far(len(far), stop))


def _flat_share(codes: NDArray[np.uint8]) -> float:
    """The share of rows whose 8-bit codes use so few steps that they may have become too short for the scale."""
    if len(codes) == 0:
        return 0.0
    some = codes[evenly_spaced(len(codes), _FLAT_SAMPLE)]
    return float((some.max(axis=1).astype(np.int32) - some.min(axis=1) < _FLAT_STEPS).mean())


def choose(
    arrays: RowArrays,
    metric: int,
    stop: int,
    old: ScalarQuantizer | None = None,
    far: NDArray[np.int32] = _NO_BIAS,
    threads: int = 1,
    workers: ThreadPool | None = None,
    *,
    rotated: bool = False,
) -> Choice:
    """The quantizer for rows [0, stop). old, far : the present one, kept while it is good enough and has not been
    outgrown, and the rows beyond its range.   rotated : not of 8 bits with one scale, unless rows are their own codes.
    """
    if metric in distance.OF_BITS:
        return Choice(old or _of_bits(arrays, stop), old is not None, None)
    measure = old_recall = None
    if old is not None:
        measure = Measure(arrays, metric, stop, threads, workers)
        old_recall, holds = measure.recall(old)
        fits = not rotated or old.lossless or old.code_format != SQ8
        if fits and not _is_outgrown(old, far, stop) and (holds or old.code_format == FLOAT32):
            return Choice(old.measured(old_recall, stop), True, old_recall)
    quantiser = sq8_training.train(arrays, metric, stop)
    if quantiser.lossless:
        return Choice(quantiser, False, None)
    measure = measure or Measure(arrays, metric, stop, threads, workers)
    found, holds = (0.0, False) if rotated else measure.recall(quantiser)
    if not holds and metric == COSINE:
        quantiser = _centred(arrays, stop)
        found, holds = measure.recall(quantiser)
    for code_format in (ROTATED8, ROTATED16, FLOAT32):
        if holds:
            break
        quantiser = around_median(arrays, metric, stop, code_format)
        found, holds = measure.recall(quantiser)
    return Choice(quantiser.measured(found, stop), False, old_recall)


def needs_bias(quantiser: ScalarQuantizer, arrays: RowArrays, metric: int, row_count: int) -> bool:
    """Whether distances between rows need the bias of 8-bit codes (sq8.py): see sq8_training; and where cosine's rows
    are not around the origin, since only l2 between them has the order of their angles then. Or that of bits under
    jaccard (bit_codes.py).
    """
    if quantiser.code_format == BITS:
        return metric == distance.JACCARD
    if quantiser.code_format != SQ8:
        return False
    return is_centred(quantiser, metric) or sq8_training.needs_bias(arrays, metric, row_count)


def is_centred(quantiser: ScalarQuantizer, metric: int) -> bool:
    """Whether 8-bit codes are around another point than the metric's own: around the median, under cosine."""
    return quantiser.code_format == SQ8 and metric == COSINE and bool(quantiser.mean.any())


def is_ordinary(quantiser: ScalarQuantizer, metric: int) -> bool:
    """Whether it is of the first kind that is tried, which most data get."""
    return quantiser.code_format == SQ8 and not is_centred(quantiser, metric)


def stats(quantiser: ScalarQuantizer) -> dict[str, Any]:
    """What an index says of its codes: their kind, and how many of the 10 nearest rows are among the 20 nearest by
    code, None where it was not measured.
    """
    recall = None if quantiser.recall is None else round(quantiser.recall, 4)
    return {"codes": _NAMES[quantiser.code_format], "codes_recall": recall}


class Measure:
    """Queries among the rows [0, stop) and their exact answers, by which any codes of these rows can be measured."""

    def __init__(
        self, arrays: RowArrays, metric: int, stop: int, threads: int = 1, workers: ThreadPool | None = None
    ) -> None:
        self._arrays = arrays
        self._metric, self._stop = metric, stop
        self._threads = max(1, min(threads, stop // _BLOCK_ROWS))
        self._workers = workers or ThreadPool()
        living = np.flatnonzero(arrays.deleted[:stop] == 0)
        self.rows: NDArray[np.int64] = living[evenly_spaced(len(living), _QUERIES)] if len(living) else living
        self.queries = arrays.vectors[self.rows].astype(np.float32)
        self._exact = ExactNearest(arrays, metric, stop, self.queries, _NEAREST + 1)
        self._exact.find(self._threads, self._workers)

    def recall(self, quantiser: ScalarQuantizer) -> tuple[float, bool]:
        """The share of the 10 nearest rows that are among the 20 nearest by code, or beyond the codes' range, and
        whether that makes the codes good enough: too many rows beyond it make searches slow.
        """
        by_code, far = self._scan(quantiser)
        true = self._exact
        looked_at: list[NDArray[np.int64]] = []
        worst, counts = np.zeros(len(self.rows)), np.zeros(len(self.rows), np.int64)
        for i, own in enumerate(self.rows):
            others = (true.rows[i] != own) & (true.rows[i] >= 0)
            nearest = true.rows[i, others][:_NEAREST]
            counts[i] = len(nearest)
            if len(nearest):
                worst[i] = true.distances[i, others][len(nearest) - 1]
            looked_at.append(np.union1d(by_code[i], nearest[np.isin(nearest, far)]))
        near = np.repeat(np.arange(len(looked_at)), [len(rows) for rows in looked_at])
        distances = true.of(near, np.concatenate([*looked_at, np.empty(0, np.int64)]))
        as_near = distances <= (worst + limits.tie_share * np.abs(worst) + _NOTHING)[near]
        found = int(np.minimum(np.bincount(near[as_near], minlength=len(counts)), counts).sum())
        wanted = int(counts.sum())
        share = found / wanted if wanted else 1.0
        return share, share >= RECALL_MIN and not sq8_training.too_many_far(len(far), self._stop)

    def _scan(self, quantiser: ScalarQuantizer) -> tuple[list[NDArray[np.int64]], NDArray[np.int32]]:
        """(rows of the nearest codes of each query, far rows)."""
        edges = np.linspace(0, self._stop, self._threads + 1).astype(np.int64).tolist()
        parts = self._workers.map(
            lambda i: self._scan_part(quantiser, edges[i], edges[i + 1]), range(self._threads), self._threads
        )
        keys = np.sort(np.concatenate([part[0] for part in parts], axis=1), axis=1)[:, :_BY_CODE]
        rows = [(one[one < np.iinfo(np.int64).max] & 0xFFFFFFFF) for one in keys]
        return rows, np.concatenate([part[1] for part in parts])

    def _scan_part(
        self, quantiser: ScalarQuantizer, first: int, stop: int
    ) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
        """(sorted keys int64[nq, 20], padded with the largest, far rows) of rows [first, stop)."""
        arrays = self._arrays
        width = quantiser.width
        biased = self._metric == L2 and quantiser.code_format == SQ8
        codes = np.empty((_BLOCK_ROWS, width), np.uint8)
        bias = np.empty(_BLOCK_ROWS if biased else 0, np.int32)
        far = np.empty(_BLOCK_ROWS, np.int32)
        blocks = kernel_blocks(width, quantiser.code_format)
        table = ArrayTable(
            code_scan.ScannedCodes(
                codes, bias, quantiser.parameters, quantiser.scale, self._metric, arrays.deleted,
                np.zeros(width, np.int8), np.zeros(2 * width, np.int16),
            )
        )  # fmt: skip
        keys = np.full((len(self.queries), _BY_CODE + 1), np.iinfo(np.int64).max)
        sizes = np.zeros(len(self.queries), np.int64)
        beyond = [_NO_BIAS]
        for begin in range(first, stop, _BLOCK_ROWS):
            end = min(begin + _BLOCK_ROWS, stop)
            block = checksums.for_kernels(arrays.vectors[begin:end])
            count = quantiser.encode(block, 0, end - begin, self._metric, codes, bias, far, find_flat=False)
            beyond.append(far[:count] + np.int32(begin))
            code_scan.scan_codes(self.queries, self.rows, begin, end, table.table, keys, sizes, blocks)
        return keys[:, :_BY_CODE], np.concatenate(beyond)


def _of_bits(arrays: RowArrays, row_count: int) -> ScalarQuantizer:
    """Rows of bits are their own codes."""
    return ScalarQuantizer(np.zeros(arrays.vectors.shape[1], np.float32), 1.0, row_count, True, BITS)


def _centred(arrays: RowArrays, row_count: int) -> ScalarQuantizer:
    """8 bits around the median of unit rows: where all share a large part, one scale is too coarse for the rest."""
    rows = sample(arrays, row_count)
    units(rows, out=rows)
    centre = _medians(rows)
    rows -= centre
    return ScalarQuantizer(centre, sq8_training.scale_of(rows), row_count, False)


def around_median(arrays: RowArrays, metric: int, row_count: int, code_format: str) -> ScalarQuantizer:
    """float32 or rotated codes, around the median; under ip around the origin."""
    rows = sample(arrays, row_count)
    if metric == COSINE:
        units(rows, out=rows)
    dim = rows.shape[1]
    centre = np.zeros(dim, np.float32) if metric == IP else _medians(rows)
    rows -= centre
    tops = np.maximum(rows.max(axis=1), -rows.min(axis=1))
    tops = tops[(tops > 0.0) & np.isfinite(tops)]
    scale = math.ldexp(1.0, math.frexp(float(np.median(tops)))[1]) if len(tops) else 1.0
    signs = rotation(np.random.default_rng(_SEED), rotated_dim(dim)).ravel() if code_format in ROTATED else None
    return ScalarQuantizer(centre, scale, row_count, False, code_format, signs=signs)


def _medians(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    """The median of each dimension: the one centre that no few rows can move. rows : float32[n, dim]."""
    step = max(1, _MEDIAN_ELEMENTS // len(rows))
    parts = [np.median(rows[:, at : at + step], axis=0) for at in range(0, rows.shape[1], step)]
    medians: NDArray[np.float32] = np.concatenate(parts).astype(np.float32)
    return medians
