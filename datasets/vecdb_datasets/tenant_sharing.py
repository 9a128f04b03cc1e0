"""Clustered vectors whose rows are shared among tenants: sizes after Zipf, a row belongs to 13 of them on average.

    name := "tenants-" n "x" dim ["-correlated"] ["-count" tenants] ["-seed" seed]     tenants-40000x384-correlated

The vectors are those of clustered-<n>x<dim>. Tenant t has weight (t + 1) ** -0.75; a row draws 1 + Poisson(12) distinct
tenants by weight. With "correlated" a tenant is a mixture of 8 clusters: nine tenths of its weight lie there.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vecdb import InvalidArgument

from .dataset import Dataset
from .synthetic import Clustered, load_clustered

degree = 13
zipf = 0.75
clusters_per_tenant = 8
background = 0.1  # the share of a correlated tenant's weight that is spread over all clusters
_block_cells = 1 << 22
_name = re.compile(r"tenants-(\d+)x(\d+)(-correlated)?(?:-count(\d+))?(?:-seed(\d+))?")

Array = NDArray[Any]


@dataclass(frozen=True, slots=True)
class Shared:
    """The parameters of a set. Equal parameters give equal rows and tenants."""

    vectors: Clustered
    tenants: int = 1_000
    correlated: bool = False

    def __post_init__(self) -> None:
        if self.tenants < 2 * degree:
            raise InvalidArgument(f"{self.tenants} tenants: rows belong to {degree} on average, so give {2 * degree}")

    @property
    def name(self) -> str:
        seed = f"-seed{self.vectors.seed}" if self.vectors.seed else ""
        count = f"-count{self.tenants}" if self.tenants != 1_000 else ""
        shape = f"tenants-{self.vectors.n}x{self.vectors.dim}"
        return shape + ("-correlated" if self.correlated else "") + count + seed

    def draw(self, clusters: Array) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
        """The tenants of rows of these clusters as CSR: indptr int64[rows + 1], indices int32[pairs], sorted by row."""
        rng = np.random.default_rng([self.vectors.seed, 3])
        weights = self._log_weights(clusters, rng)
        degrees = np.minimum(1 + rng.poisson(degree - 1, len(clusters)), self.tenants)
        rows = []
        step = max(1, _block_cells // self.tenants)
        for start in range(0, len(clusters), step):
            keys = weights[clusters[start : start + step]]
            keys = keys + rng.gumbel(size=keys.shape).astype(np.float32)  # the greatest keys: draws without replacement
            order = np.argsort(-keys, axis=1)[:, : degrees.max()]
            rows += [np.sort(one[:n]) for one, n in zip(order, degrees[start : start + step], strict=True)]
        return np.concatenate([[0], np.cumsum(degrees)]), np.concatenate(rows).astype(np.int32)

    def _log_weights(self, clusters: Array, rng: np.random.Generator) -> NDArray[np.float32]:
        """float32[clusters, tenants]: log of the weight with which a row of a cluster draws a tenant."""
        count = self.vectors.clusters
        sizes = np.arange(1, self.tenants + 1) ** -zipf
        if not self.correlated:
            return np.broadcast_to(np.log(sizes), (count, self.tenants)).astype(np.float32)
        shares = np.bincount(clusters, minlength=count) / len(clusters)
        mixture = np.zeros((count, self.tenants))
        drawn = rng.choice(count, (self.tenants, clusters_per_tenant), p=shares)
        np.add.at(mixture, (drawn, np.arange(self.tenants)[:, None]), 1.0 / clusters_per_tenant)
        lifted = mixture / np.maximum(shares, 1e-9)[:, None]
        return np.log(sizes * (background + (1 - background) * lifted)).astype(np.float32)


def parse_shared(name: str) -> Shared | None:
    """The parameters in a name, or None where it is another kind of name."""
    match = _name.fullmatch(name)
    if match is None:
        return None
    n, dim, correlated, count, seed = match.groups()
    return Shared(Clustered(int(n), int(dim), seed=int(seed or 0)), int(count or 1_000), bool(correlated))


def load_shared(recipe: Shared) -> Dataset:
    """The whole set in memory; extras have the names of those of summaries: tag_names, tags_indptr, tags_indices."""
    data = load_clustered(recipe.vectors)
    indptr, indices = recipe.draw(data.extras["clusters"])
    names = [f"tenant-{t}" for t in range(recipe.tenants)]
    extras = {"tag_names": names, "tags_indptr": indptr, "tags_indices": indices} | dict(data.extras)
    return Dataset(recipe.name, data.base, data.queries, data.metric, extras=extras)
