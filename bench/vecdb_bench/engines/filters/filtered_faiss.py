"""faiss: a graph, or with spec["flat"] all vectors, searched with a bitmap that is ready."""

from __future__ import annotations

from typing import Any

import engine_process
import faiss
import filtered
import numpy as np


class Faiss(filtered.FilteredEngine):
    def make(self) -> None:
        kind = faiss.METRIC_L2 if self.spec["metric"] == "l2" else faiss.METRIC_INNER_PRODUCT
        index: Any
        if self.spec.get("flat"):
            index = faiss.IndexFlat(self.base.shape[1], kind)
        else:
            index = faiss.IndexHNSWFlat(self.base.shape[1], self.spec["m"], kind)
            index.hnsw.efConstruction = self.spec["ef_construction"]
        faiss.omp_set_num_threads(self.spec["threads"])
        index.add(self.unit(self.base))
        faiss.write_index(index, str(self.folder / "index"))

    def open(self) -> None:
        faiss.omp_set_num_threads(1)
        self.index = faiss.read_index(str(self.folder / "index"))
        self._kept: list[Any] = []

    def condition(self, field: str, code: int) -> Any:
        bits = np.packbits(self.mask(field, code), bitorder="little")
        selector = faiss.IDSelectorBitmap(bits)
        self._kept.append((bits, selector))
        if self.spec.get("flat"):
            return faiss.SearchParameters(sel=selector)
        return faiss.SearchParametersHNSW(sel=selector)

    def prepare(self, value: int) -> None:
        self.width = value

    def search(self, query_and_filter: Any) -> Any:
        query, params = query_and_filter
        if not self.spec.get("flat"):
            params.efSearch = self.width
        return self.index.search(self.unit(query[None]), self.spec["limit"], params=params)

    def rows(self, result: Any) -> list[int]:
        return [row for row in result[1][0].tolist() if row >= 0]


if __name__ == "__main__":
    engine_process.serve(Faiss)
