"""What the engines that serve tenants share: which tenants see which rows, and the sets of queries.

tenants.npz            names, and the rows of each tenant: indptr, indices
NAME.query_set.npz     of each query its row in queries.npy, and its tenants: vectors, indptr, indices
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import engine_process
import numpy as np


class QuerySet:
    """(vector, tenants) of each query; tenants in the form that the engine's search takes."""

    def __init__(self, queries: Any, stored: Any, tenants_of: Callable[[list[int]], Any]) -> None:
        self._queries, self._vectors = queries, stored["vectors"]
        bounds = stored["indptr"].tolist()
        self._tenants = [tenants_of(stored["indices"][a:b].tolist()) for a, b in itertools.pairwise(bounds)]

    def __len__(self) -> int:
        return len(self._vectors)

    def __getitem__(self, at: int) -> tuple[Any, Any]:
        return self._queries[self._vectors[at]], self._tenants[at]


class TenantEngine(engine_process.Engine):
    """An engine that serves tenants."""

    def __init__(self, *of: Any) -> None:
        super().__init__(*of)
        data = self.folder.parent
        with np.load(data / "tenants.npz") as stored:
            self.names: list[str] = stored["names"].tolist()
            self.indptr, self.indices = stored["indptr"], stored["indices"]
        self._query_sets = {}
        for file in sorted(data.glob("*.query_set.npz")):
            with np.load(file) as stored:
                self._query_sets[file.name.split(".")[0]] = QuerySet(self.queries, stored, self.search_tenants)

    def search_tenants(self, numbers: list[int]) -> Any:
        """The tenants of one query in the form that `search` takes."""
        return numbers[0]

    def query_set(self, name: str) -> Any:
        return self._query_sets[name]

    def rows_of(self, tenant: int) -> Any:
        return self.indices[self.indptr[tenant] : self.indptr[tenant + 1]]

    def unit(self, vectors: Any) -> Any:
        """float32 vectors, of unit norm if the metric is cosine, so that the inner product is the similarity."""
        ready = np.ascontiguousarray(vectors, np.float32)
        if self.spec["metric"] != "cosine":
            return ready
        return ready / np.linalg.norm(ready, axis=-1, keepdims=True)
