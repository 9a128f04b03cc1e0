"""Clustered synthetic vectors: a Gaussian mixture whose cluster sizes follow Zipf's law, from a seed.

    name := "clustered-" n "x" dim ["-" dtype] ["-seed" seed]      clustered-100000x64, clustered-5000x32-uint8-seed7

Cluster c has weight 1/(c + 1), a centre ~ N(0, 1) and its own decaying spectrum of spreads, so that vectors are of
lower intrinsic dimension than `dim`, as embeddings are. Integers are 32 steps to the unit, uint8 around 128.
Rows come in blocks of 65,536, each from its own stream: any slice of any size is the same rows (for one numpy version).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vecdb import InvalidArgument

from .dataset import Dataset

block_rows = 65_536
clusters_max = 4_096
rows_per_cluster = 200  # on average, until clusters_max
spread = 0.9
decay = 0.6  # spread of axis j falls as (j + 1) ** -decay
integer_steps = 32.0
_DTYPES = ("float32", "float16", "int8", "uint8")
_name = re.compile(r"clustered-(\d+)x(\d+)(?:-(float32|float16|int8|uint8))?(?:-seed(\d+))?")

Array = NDArray[Any]

_DIM_MAX = 8_192  # the most that a collection takes


@dataclass(frozen=True, slots=True)
class Clustered:
    """The parameters of a set. Equal parameters give equal rows."""

    n: int
    dim: int
    dtype: str = "float32"
    seed: int = 0

    def __post_init__(self) -> None:
        if self.n < 1 or not 1 <= self.dim <= _DIM_MAX or self.dtype not in _DTYPES or self.seed < 0:
            raise InvalidArgument(
                f"clustered data of n={self.n}, dim={self.dim}, dtype={self.dtype!r}, seed={self.seed}: "
                f"expected n >= 1, 1 <= dim <= {_DIM_MAX:,}, dtype one of {', '.join(_DTYPES)}, seed >= 0"
            )

    @property
    def name(self) -> str:
        dtype = "" if self.dtype == "float32" else f"-{self.dtype}"
        return f"clustered-{self.n}x{self.dim}{dtype}" + (f"-seed{self.seed}" if self.seed else "")

    @property
    def clusters(self) -> int:
        return int(np.clip(self.n // rows_per_cluster, 1, clusters_max))

    def chunks(self, start: int = 0) -> Iterator[tuple[int, Array, NDArray[np.int32]]]:
        """Yield (first row, dtype[<= 65536, dim], int32 cluster of each row) from row `start` on."""
        mixture = self._mixture()
        for block in range(start // block_rows, -(-self.n // block_rows)):
            first = block * block_rows
            vectors, labels = self._draw(mixture, min(block_rows, self.n - first), (1, block))
            cut = max(0, start - first)
            yield first + cut, vectors[cut:], labels[cut:]

    def queries(self, count: int = 1_000) -> Array:
        """dtype[count, dim] from the same mixture, drawn independently of the base rows."""
        return self._draw(self._mixture(), count, (2,))[0]

    def _mixture(self) -> tuple[Array, Array, Array]:
        rng = np.random.default_rng([self.seed, 0])
        centres = rng.standard_normal((self.clusters, self.dim), np.float32)
        axes = (np.arange(1, self.dim + 1) ** -decay).astype(np.float32)
        scales = np.empty_like(centres)
        for c in range(self.clusters):
            scales[c] = spread * rng.permutation(axes)
        shares = np.cumsum(1.0 / np.arange(1, self.clusters + 1))
        return centres, scales, shares / shares[-1]

    def _draw(
        self, mixture: tuple[Array, Array, Array], count: int, stream: tuple[int, ...]
    ) -> tuple[Array, NDArray[np.int32]]:
        centres, scales, shares = mixture
        rng = np.random.default_rng([self.seed, *stream])
        labels = np.searchsorted(shares, rng.random(count), side="right").astype(np.int32)
        values = rng.standard_normal((count, self.dim), np.float32)
        values *= scales[labels]
        values += centres[labels]
        return self._cast(values), labels

    def _cast(self, values: Array) -> Array:
        dtype = np.dtype(self.dtype)
        if dtype.kind == "f":
            return values.astype(dtype, copy=False)
        zero = 128.0 if dtype.kind == "u" else 0.0
        limits = np.iinfo(dtype)
        return np.clip(np.rint(values * integer_steps + zero), limits.min, limits.max).astype(dtype)


def parse_clustered(name: str) -> Clustered | None:
    """The parameters in a name, or None where it is another kind of name."""
    match = _name.fullmatch(name)
    if match is None:
        return None
    n, dim, dtype, seed = match.groups()
    return Clustered(int(n), int(dim), dtype or "float32", int(seed or 0))


def load_clustered(recipe: Clustered, query_count: int = 1_000) -> Dataset:
    """The whole set in memory; `Clustered.chunks` gives it piece by piece."""
    base = np.empty((recipe.n, recipe.dim), recipe.dtype)
    labels = np.empty(recipe.n, np.int32)
    for first, vectors, some in recipe.chunks():
        base[first : first + len(vectors)] = vectors
        labels[first : first + len(vectors)] = some
    return Dataset(recipe.name, base, recipe.queries(query_count), "l2", extras={"clusters": labels})
