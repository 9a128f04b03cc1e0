"""Dataset: base vectors, queries, a metric, and further facts about them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from numpy.typing import NDArray

from vecdb import InvalidArgument, Metric

from .truth import Truth, exact_truth

Array = NDArray[Any]


@dataclass(frozen=True, slots=True)
class Dataset:
    """One data set, ready to load into a collection and to measure against.

    base : [n, dim], possibly a read-only view of a memory-mapped file.
    queries : [nq, dim], same dtype.
    truth : rows of `base`, or None where it was not computed yet: see `truth_for`.
    ids : one per base row, or None for row numbers.
    extras : further arrays of the set; `registry.py` lists them.
    zero_vectors : "far" where the set has vectors of zeros under cosine, which are to count as vecdb counts them.
    """

    name: str
    base: Array
    queries: Array
    metric: Metric
    truth: Truth | None = None
    ids: Sequence[int] | Sequence[str] | None = None
    extras: Mapping[str, Any] = field(default_factory=dict)
    zero_vectors: str = "refuse"

    @property
    def dim(self) -> int:
        return int(self.base.shape[1])

    def truth_for(self, k: int) -> Truth:
        """The exact k nearest of each query: the set's own if it is wide enough, otherwise computed and cached."""
        if self.truth is not None and self.truth.k >= k:
            return Truth(self.truth.ids[:, :k], self.truth.distances[:, :k])
        return exact_truth(self.base, self.queries, self.metric, k, zero_vectors=self.zero_vectors)

    def check_k(self, k: int) -> None:
        """Raise InvalidArgument where there are no k neighbours of a query."""
        if not 1 <= k <= len(self.base):
            raise InvalidArgument(f"k={k}: expected 1 to {len(self.base):,}, the base rows of {self.name}")

    def facts(self) -> dict[str, Any]:
        """A description of the set, for result files."""
        return {
            "name": self.name,
            "rows": len(self.base),
            "dim": self.dim,
            "dtype": str(self.base.dtype),
            "metric": self.metric,
            "queries": len(self.queries),
        }

    def __repr__(self) -> str:
        n, dim = self.base.shape
        return f"<Dataset {self.name}: {n:,} x {dim} {self.base.dtype}, {len(self.queries):,} queries, {self.metric}>"


def zero_vectors_of(metric: str, *parts: Array) -> str:
    """`Dataset.zero_vectors` of these vectors, each [n, dim]."""
    zeros = metric == "cosine" and not all(part.any(axis=1).all() for part in parts)
    return "far" if zeros else "refuse"
