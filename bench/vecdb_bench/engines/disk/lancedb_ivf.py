"""lancedb's IVF_RQ and IVF_HNSW_SQ (spec: "lancedb": {"index": "rq" | "hnsw", ...}), synchronous calls, pools of one
thread, the index prewarmed.
"""

from __future__ import annotations

import os
from typing import Any

os.environ.setdefault("LANCE_LOG", "error")

import engine_process
import lancedb
import numpy as np
import pyarrow as pa


class Lance(engine_process.Engine):
    package = "lancedb"

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.options = {"index": "rq"} | self.spec.get("lancedb", {})
        self.distance = "l2" if self.spec["metric"] == "l2" else "dot"

    def _padded(self, rows: Any) -> Any:
        """IVF_RQ needs a multiple of 8 dimensions, and at least 64."""
        dim = rows.shape[-1]
        short = max(64, -(-dim // 8) * 8) - dim
        wide = np.asarray(rows, np.float32)
        return np.pad(wide, [(0, 0)] * (wide.ndim - 1) + [(0, short)])

    def build(self) -> None:
        rows = self._padded(self.base)
        column = pa.FixedSizeListArray.from_arrays(pa.array(rows.reshape(-1)), rows.shape[1])
        table = lancedb.connect(str(self.folder)).create_table("bench", pa.table({"v": column}))
        if self.options["index"] == "rq":
            parts = self.options.get("num_partitions", max(1, round(len(rows) ** 0.5)))
            config = lancedb.index.IvfRq(
                distance_type=self.distance, num_partitions=parts, num_bits=self.options.get("num_bits", 7)
            )
        else:
            config = lancedb.index.HnswSq(distance_type=self.distance, num_partitions=1, m=20, ef_construction=300)
        table.create_index("v", config=config)

    def open(self) -> None:
        self.table = lancedb.connect(str(self.folder)).open_table("bench")
        self.table.prewarm_index(self.table.list_indices()[0].name)

    def prepare(self, value: int) -> None:
        self.value = value

    def search(self, query: Any) -> Any:
        search = self.table.search(self._padded(query), vector_column_name="v", query_type="vector")
        search = search.distance_type(self.distance).limit(self.spec["limit"]).select(["_rowid", "_distance"])
        search = search.fast_search()
        search = search.nprobes(self.value) if self.options["index"] == "rq" else search.nprobes(1).ef(self.value)
        return search.to_arrow()

    def rows(self, result: Any) -> list[int]:
        return list(result.column("_rowid").to_pylist())


if __name__ == "__main__":
    engine_process.serve(Lance)
