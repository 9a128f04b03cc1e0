"""What contestants that serve tenants share: who sees which rows, and what is asked of whom.

tenants.npz            names; of each tenant its rows: indptr, indices
NAME.questions.npz     of each question the query's row, and its tenants: vectors, indptr, indices
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import engine_process
import numpy as np


class Questions:
    """(query, tenants) of each question; tenants as the engine is told of them."""

    def __init__(self, queries: Any, stored: Any, told: Callable[[list[int]], Any]) -> None:
        self._queries, self._vectors = queries, stored["vectors"]
        bounds = stored["indptr"].tolist()
        self._tenants = [told(stored["indices"][a:b].tolist()) for a, b in itertools.pairwise(bounds)]

    def __len__(self) -> int:
        return len(self._vectors)

    def __getitem__(self, at: int) -> tuple[Any, Any]:
        return self._queries[self._vectors[at]], self._tenants[at]


class Tenants(engine_process.Contestant):
    """An engine that serves tenants. unit : vectors as the inner product wants them where the metric is cosine."""

    def __init__(self, *of: Any) -> None:
        super().__init__(*of)
        home = self.folder.parent
        with np.load(home / "tenants.npz") as stored:
            self.names: list[str] = stored["names"].tolist()
            self.indptr, self.indices = stored["indptr"], stored["indices"]
        self._questions = {}
        for file in sorted(home.glob("*.questions.npz")):
            with np.load(file) as stored:
                self._questions[file.name.split(".")[0]] = Questions(self.queries, stored, self.told)

    def told(self, numbers: list[int]) -> Any:
        """Tenants of one question as `search` takes them."""
        return numbers[0]

    def questions(self, name: str) -> Any:
        return self._questions[name]

    def rows_of(self, tenant: int) -> Any:
        return self.indices[self.indptr[tenant] : self.indptr[tenant + 1]]

    def unit(self, vectors: Any) -> Any:
        ready = np.ascontiguousarray(vectors, np.float32)
        if self.spec["metric"] != "cosine":
            return ready
        return ready / np.linalg.norm(ready, axis=-1, keepdims=True)
