"""Rows into entries of lists: an 8-bit code by which a list is chosen, a RaBitQ code by which the row is found in it.

    row --quantiser--> uint8[64 * blocks]                           compared with heads, clustered
    row - head --rotation, B bits--> uint8[width], two factors      kept in the list

A coder is fixed when a tree is grown, and sealed with it. Under cosine rows count as unit vectors, and every distance
is the squared l2 of those; under ip lists are clustered by l2 and compared by inner product.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vecdb.index.common import sq8_training
from vecdb.index.common.quantizer import ScalarQuantizer
from vecdb.index.common.rotation import padded, rotation
from vecdb.index.common.sampling import center_of
from vecdb.kernels.array_table import ArrayTable
from vecdb.kernels.build.list_assignment import HeadQueries
from vecdb.kernels.codes import rabitq
from vecdb.kernels.primitives import checksums
from vecdb.kernels.primitives.distance import COSINE, IP, L2
from vecdb.kernels.search.list_scan import EntryScale
from vecdb.storage.disk.row_file import RowArrays

_SPREAD_ROWS = 4_096
# the sample's largest factor becomes this: room above for rows 60 times as far, and below for 11 bits of small ones
_F16_ROOM = 16.0
_F16_MAX = 65_504.0
_SMALLEST_TOP = 1e-30  # the sample's largest factor counts as at least this, so that a unit can be made of zeros
_CODE_BITS = 8  # a code of so many bits a dimension holds an integer of 8 bits as it is
FACTOR_BYTES = 4
ROW_BYTES = 4


@dataclass(frozen=True, slots=True)
class EntryCoder:
    """signs : float32[4, D], the rotation.   center : float32[dim].   add_unit, rescale_unit : a stored float16 factor
    times this is the factor.
    """

    metric: int
    dim: int
    bits: int
    lossless: bool
    quantiser: ScalarQuantizer
    center: NDArray[np.float32]
    signs: NDArray[np.float32]
    add_unit: float = 1.0
    rescale_unit: float = 1.0
    error: float = 0.0  # of an estimate, in units of |rescale| |q - c|; under ip of the query's norm

    @property
    def cosine(self) -> bool:
        return self.metric == COSINE

    @property
    def ip(self) -> bool:
        return self.metric == IP

    @property
    def padded_dim(self) -> int:
        """Dimensions of a packed code and of the query that meets it."""
        dim: int = self.signs.shape[1]
        return dim

    @property
    def width(self) -> int:
        """Bytes of a packed code."""
        return self.padded_dim * self.bits // 8

    @property
    def entry_bytes(self) -> int:
        return self.width + ROW_BYTES + FACTOR_BYTES

    @property
    def clustering_space(self) -> int:
        """The metric by which rows and heads are compared while lists are made: l2 of rows, or of unit rows."""
        return COSINE if self.cosine else L2

    def space(self) -> ArrayTable:
        """What kernels take: how rows and queries become codes."""
        q = self.quantiser
        return ArrayTable(rabitq.CodeSpace(
            metric=self.metric, bits=self.bits, lossless=self.lossless, step=rabitq.STEPS[self.bits], mean=q.mean,
            scale=q.scale, center=self.center, signs=self.signs,
        ))  # fmt: skip

    def scale(self, *, by_inner_product: bool) -> ArrayTable:
        """What kernels take: how codes and factors become estimates of squared l2, or of inner products."""
        return ArrayTable(EntryScale(
            code_bytes=self.width, lossless=self.lossless, middle=(1 << self.bits) - 1,
            weight=0.5 if by_inner_product else 1.0, add_unit=0.0 if by_inner_product else self.add_unit,
            rescale_unit=self.rescale_unit,
        ))  # fmt: skip

    def as_queries(self, codes: NDArray[np.uint8]) -> HeadQueries:
        """Heads (uint8[n, 64 * blocks]) as list codes take a query."""
        n = len(codes)
        query8s = np.zeros((n, self.padded_dim), np.int8)
        steps, sums = np.zeros(n, np.float32), np.zeros(n, np.int32)
        if self.lossless:
            query8s[:, : self.dim] = (codes[:, : self.dim] ^ np.uint8(128)).view(np.int8)  # code - 128
            wide = query8s.astype(np.int32)
            steps[:], sums[:] = np.einsum("ij,ij->i", wide, wide), wide.sum(axis=1)
        else:
            scratch = np.zeros(self.padded_dim, np.float32)
            rabitq.encode_queries(self.decode(codes), self.center, self.signs, scratch, query8s, steps, sums)
        return HeadQueries(query8s, steps, sums)

    def quantise(self, vectors: NDArray[np.generic]) -> tuple[NDArray[np.uint8], NDArray[np.int32]]:
        """8-bit codes uint8[n, 64 * blocks] of rows (stored dtype[n, dim], C-contiguous), and which of them are beyond
        the codes.
        """
        codes, _, far = sq8_training.quantise(self.quantiser, vectors, self.clustering_space)
        return codes, far

    def decode(self, codes: NDArray[np.uint8]) -> NDArray[np.float32]:
        """What codes of the quantiser stand for: float32[n, dim]."""
        steps = codes[:, : self.dim].astype(np.float32) - np.float32(128.0)
        x: NDArray[np.float32] = self.quantiser.mean + np.float32(self.quantiser.scale) * steps
        return x

    def encode(
        self,
        vectors: NDArray[np.generic],
        labels: NDArray[np.int32],
        heads: NDArray[np.uint8],
        repeat: NDArray[np.int64],
    ) -> tuple[NDArray[np.uint8], NDArray[np.uint32]]:
        """Entries of vectors[repeat[i]] in the list of heads[labels[i]]: codes uint8[m, width], factors uint32[m]."""
        if self.lossless:
            codes, squares = self._as_they_are(vectors, repeat)
            return codes, squares.view(np.uint32)
        codes, raw, _ = self._encode(vectors, labels, heads, repeat)
        raw[:, 0] /= np.float32(self.add_unit)
        raw[:, 1] /= np.float32(self.rescale_unit)
        np.clip(raw, -_F16_MAX, _F16_MAX, out=raw)
        return codes, raw.astype(np.float16).view(np.uint32).reshape(-1)

    def _as_they_are(
        self, vectors: NDArray[np.generic], repeat: NDArray[np.int64]
    ) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        codes = np.empty((len(repeat), self.width), np.uint8)
        squares = np.empty(len(repeat), np.float32)
        flip = np.uint8(128 if vectors.dtype == np.int8 else 0)
        rabitq.encode_lossless(checksums.for_kernels(vectors.view(np.uint8)), repeat, flip, codes, squares)
        return codes, squares

    def _encode(
        self,
        vectors: NDArray[np.generic],
        labels: NDArray[np.int32],
        heads: NDArray[np.uint8],
        repeat: NDArray[np.int64],
    ) -> tuple[NDArray[np.uint8], NDArray[np.float32], float]:
        codes = np.empty((len(repeat), self.width), np.uint8)
        factors = np.empty((len(repeat), 2), np.float32)
        scratch = np.empty((2, self.padded_dim), np.float32)
        space = self.space()
        total = rabitq.encode(
            checksums.for_kernels(vectors), repeat, labels, heads, space.table, codes, factors, scratch
        )  # fmt: skip
        return codes, factors, float(total)


def lossless_for(metric: int, dtype: np.dtype[np.generic], bits: int) -> bool:
    return bits == _CODE_BITS and metric == L2 and dtype in (np.dtype(np.uint8), np.dtype(np.int8))


def _some(rows: NDArray[Any]) -> NDArray[Any]:
    """A few thousand of the rows, spread evenly."""
    return np.ascontiguousarray(rows[:: max(1, len(rows) // _SPREAD_ROWS)])


def new_coder(
    arrays: RowArrays, metric: int, bits: int, quantiser: ScalarQuantizer, sample: NDArray[np.generic]
) -> EntryCoder:
    """A coder whose factors are not scaled yet. sample : stored dtype[n, dim]."""
    dim = sample.shape[1]
    center = center_of(sq8_training.without_far(_some(sample).astype(np.float32)), metric)
    signs = rotation(np.random.default_rng(dim), padded(dim, bits))
    return EntryCoder(metric, dim, bits, lossless_for(metric, arrays.vectors.dtype, bits), quantiser, center, signs)


def scaled(
    coder: EntryCoder, sample: NDArray[np.generic], labels: NDArray[np.int32], heads: NDArray[np.uint8]
) -> EntryCoder:
    """The coder with units for its factors and its error, measured on rows of a sample and their heads."""
    if coder.lossless:
        return coder
    rows, labels = _some(sample), _some(labels)
    n = len(rows)
    _, factors, deviations = coder._encode(rows, labels, heads, np.arange(n))
    units = [2.0 ** np.ceil(np.log2(max(float(top), _SMALLEST_TOP) / _F16_ROOM)) for top in np.abs(factors).max(axis=0)]
    # deviation of a code from what it stands for, in steps (kernels/codes/rabitq.py)
    spread = np.sqrt(deviations / max(n, 1))
    error = 0.5 * spread * float(np.abs(factors[:, 1]).mean()) if coder.ip else spread
    return replace(coder, add_unit=float(units[0]), rescale_unit=float(units[1]), error=float(error))
