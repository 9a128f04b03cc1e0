"""zvec's DiskANN index, through its fast read-only path."""

from __future__ import annotations

from typing import Any

import engine_process
import numpy as np
import zvec


class Zvec(engine_process.Engine):
    package = "zvec"

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        zvec.init(log_level=zvec.LogLevel.ERROR, query_threads=1, optimize_threads=self.spec["threads"])

    def build(self) -> None:
        dim = self.base.shape[1]
        options = {"max_degree": 64, "list_size": 100, "pq_chunk_num": max(1, dim // 4 if dim > 100 else dim // 2)}
        metric = zvec.MetricType.L2 if self.spec["metric"] == "l2" else zvec.MetricType.IP
        index = zvec.DiskAnnIndexParam(metric_type=metric, **(options | self.spec.get("zvec", {})))
        vectors = zvec.VectorSchema("v", zvec.DataType.VECTOR_FP32, dimension=dim, index_param=index)
        docs = zvec.create_and_open(
            path=str(self.folder), schema=zvec.CollectionSchema(name="bench", vectors=[vectors])
        )
        for start in range(0, len(self.base), 1_000):
            rows = np.asarray(self.base[start : start + 1_000], np.float32)
            docs.insert([zvec.Doc(id=str(start + i), vectors={"v": row}) for i, row in enumerate(rows)])
        docs.optimize(zvec.OptimizeOption(concurrency=self.spec["threads"]))
        docs.flush()
        docs.close()

    def open(self) -> None:
        self.docs = zvec.open(str(self.folder), zvec.CollectionOption(read_only=True, enable_mmap=True))

    def prepare(self, value: int) -> None:
        self.param = zvec.DiskAnnQueryParam(list_size=value)

    def search(self, query: Any) -> Any:
        search = zvec.Query("v", vector=np.asarray(query, np.float32), param=self.param)
        return self.docs.query_internal_ids(search, topk=self.spec["limit"])

    def rows(self, result: Any) -> list[int]:
        return [int(key) for key in self.docs.resolve_internal_ids(result) if key is not None]


if __name__ == "__main__":
    engine_process.serve(Zvec)
