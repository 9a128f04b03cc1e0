"""lancedb: IVF_HNSW_SQ with one partition, a bitmap index for each field, the filter first; one thread."""

from __future__ import annotations

import os
from typing import Any

os.environ.setdefault("LANCE_LOG", "error")

import engine_process
import filtered
import lancedb
import numpy as np
import pyarrow as pa

_REFINED = 2  # times as many candidates are compared on their vectors


class Lance(filtered.FilteredEngine):
    own_threads = True

    def make(self) -> None:
        rows = np.ascontiguousarray(self.base, np.float32)
        columns = {"v": pa.FixedSizeListArray.from_arrays(pa.array(rows.reshape(-1)), rows.shape[1])}
        for name, codes in self.fields.items():
            columns[name] = pa.array([f"{name}.{code}" for code in codes.tolist()])
        columns["row"] = pa.array(np.arange(len(rows)))
        table = lancedb.connect(str(self.folder)).create_table("bench", pa.table(columns), mode="overwrite")
        table.create_index(
            "v",
            config=lancedb.index.HnswSq(
                distance_type=self._distance, num_partitions=1, m=self.spec["m"],
                ef_construction=self.spec["ef_construction"],
            ),
        )  # fmt: skip
        for name in self.fields:
            table.create_scalar_index(name, index_type="BITMAP")

    @property
    def _distance(self) -> str:
        return {"l2": "l2", "cosine": "cosine", "ip": "dot"}[self.spec["metric"]]

    def open(self) -> None:
        self.table = lancedb.connect(str(self.folder)).open_table("bench")
        for index in self.table.list_indices():
            self.table.prewarm_index(index.name)

    def condition(self, field: str, code: int) -> Any:
        return f"{field} = '{field}.{code}'"

    def prepare(self, value: int) -> None:
        self.value = value

    def search(self, query_and_filter: Any) -> Any:
        query, one = query_and_filter
        search = self.table.search(np.asarray(query, np.float32), vector_column_name="v", query_type="vector")
        search = search.distance_type(self._distance).where(one, prefilter=True).limit(self.spec["limit"])
        search = search.select(["row", "_distance"])
        width = max(self.value, _REFINED * self.spec["limit"])  # it refuses a narrower one
        return search.nprobes(1).ef(width).refine_factor(_REFINED).to_arrow()

    def rows(self, result: Any) -> list[int]:
        return list(result.column("row").to_pylist())


if __name__ == "__main__":
    engine_process.serve(Lance)
