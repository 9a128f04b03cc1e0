"""faiss: one HNSW graph for all tenants, searched with the tenant's bitmap."""

from __future__ import annotations

from typing import Any

import engine_process
import faiss
import numpy as np
import tenant


class Shared(tenant.TenantEngine):
    def build(self) -> None:
        self.folder.mkdir()
        kind = faiss.METRIC_L2 if self.spec["metric"] == "l2" else faiss.METRIC_INNER_PRODUCT
        index = faiss.IndexHNSWFlat(self.base.shape[1], self.spec["m"], kind)
        index.hnsw.efConstruction = self.spec["ef_construction"]
        faiss.omp_set_num_threads(self.spec["threads"])
        index.add(self.unit(self.base))
        faiss.write_index(index, str(self.folder / "index"))

    def open(self) -> None:
        faiss.omp_set_num_threads(1)
        self.index = faiss.read_index(str(self.folder / "index"))
        self.selectors = []
        for number in range(len(self.names)):
            bits = np.zeros(len(self.base), bool)
            bits[self.rows_of(number)] = True
            self.selectors.append(faiss.IDSelectorBitmap(np.packbits(bits, bitorder="little")))
        self.params: dict[int, list[Any]] = {}

    def prepare(self, value: int) -> None:
        if value not in self.params:
            self.params[value] = [faiss.SearchParametersHNSW(sel=one, efSearch=value) for one in self.selectors]
        self.now = self.params[value]

    def search(self, query_and_tenant: Any) -> Any:
        query, number = query_and_tenant
        return self.index.search(query[None], self.spec["limit"], params=self.now[number])

    def rows(self, result: Any) -> list[int]:
        return [row for row in result[1][0].tolist() if row >= 0]


if __name__ == "__main__":
    engine_process.serve(Shared)
