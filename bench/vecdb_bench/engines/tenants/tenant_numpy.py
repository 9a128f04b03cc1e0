"""numpy: brute force over the tenant's rows, which are gathered from one matrix."""

from __future__ import annotations

from typing import Any

import engine_process
import numpy as np
import tenant


class BruteForce(tenant.TenantEngine):
    def build(self) -> None:
        self.folder.mkdir()

    def open(self) -> None:
        self.vectors = self.unit(self.base)
        self.norms = np.einsum("ij,ij->i", self.vectors, self.vectors) if self.spec["metric"] == "l2" else None

    def prepare(self, value: object) -> None:
        pass

    def search(self, query_and_tenant: Any) -> Any:
        query, number = query_and_tenant
        rows, limit = self.rows_of(number), self.spec["limit"]
        distances = -(self.vectors[rows] @ query)
        if self.norms is not None:
            distances = self.norms[rows] + 2 * distances
        if limit < len(rows):
            few = np.argpartition(distances, limit)[:limit]
            rows, distances = rows[few], distances[few]
        return rows[np.argsort(distances)]

    def rows(self, result: Any) -> list[int]:
        return list(result.tolist())


if __name__ == "__main__":
    engine_process.serve(BruteForce)
