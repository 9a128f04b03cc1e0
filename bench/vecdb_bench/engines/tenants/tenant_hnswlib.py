"""hnswlib: one index for each tenant, so a vector is stored once for each tenant that sees it. Each index also has
65,536 locks of its own, 2.6 MB.
"""

from __future__ import annotations

from typing import Any

import engine_process
import hnswlib
import numpy as np
import tenant


class PerTenant(tenant.TenantEngine):
    def build(self) -> None:
        self.folder.mkdir()
        for number in range(len(self.names)):
            rows = self.rows_of(number)
            if len(rows):
                index = hnswlib.Index(space=self.spec["metric"], dim=self.base.shape[1])
                index.init_index(
                    max_elements=len(rows), M=self.spec["m"], ef_construction=self.spec["ef_construction"],
                    random_seed=100,
                )  # fmt: skip
                index.add_items(np.array(self.base[rows]), rows, num_threads=self.spec["threads"])
                index.save_index(str(self.folder / str(number)))

    def open(self) -> None:
        self.found: dict[int, tuple[Any, int]] = {}
        for number in range(len(self.names)):
            if len(self.rows_of(number)):
                index = hnswlib.Index(space=self.spec["metric"], dim=self.base.shape[1])
                index.load_index(str(self.folder / str(number)))
                index.set_num_threads(1)
                self.found[number] = (index, min(self.spec["limit"], len(self.rows_of(number))))

    def prepare(self, value: int) -> None:
        for index, _ in self.found.values():
            index.set_ef(value)

    def search(self, query_and_tenant: Any) -> Any:
        query, number = query_and_tenant
        index, limit = self.found[number]
        return index.knn_query(query, k=limit, num_threads=1)

    def rows(self, result: Any) -> list[int]:
        return list(result[0][0].tolist())


if __name__ == "__main__":
    engine_process.serve(PerTenant)
