"""zvec: HNSW with an inverted index for each field, through its fast read-only path."""

from __future__ import annotations

import shutil
from typing import Any

import engine_process
import filtered
import numpy as np
import zvec


class Zvec(filtered.FilteredEngine):
    own_threads = True

    def __init__(self, *of: Any) -> None:
        super().__init__(*of)
        zvec.init(log_level=zvec.LogLevel.ERROR, query_threads=1, optimize_threads=self.spec["threads"])
        self._path = self.folder / "collection"

    def make(self) -> None:
        shutil.rmtree(self._path, ignore_errors=True)
        metric = {"l2": zvec.MetricType.L2, "ip": zvec.MetricType.IP, "cosine": zvec.MetricType.COSINE}
        index = zvec.HnswIndexParam(
            metric_type=metric[self.spec["metric"]], m=self.spec["m"], ef_construction=self.spec["ef_construction"]
        )
        schema = zvec.CollectionSchema(
            name="bench",
            fields=[
                zvec.FieldSchema(name, zvec.DataType.STRING, index_param=zvec.InvertIndexParam())
                for name in self.fields
            ],
            vectors=[zvec.VectorSchema("v", zvec.DataType.VECTOR_FP32, self.base.shape[1], index_param=index)],
        )
        docs = zvec.create_and_open(path=str(self._path), schema=schema)
        for start in range(0, len(self.base), 1_000):
            rows = np.asarray(self.base[start : start + 1_000], np.float32)
            records = self.records(start, start + len(rows))
            docs.insert(
                [zvec.Doc(id=str(start + i), vectors={"v": row}, fields=records[i]) for i, row in enumerate(rows)]
            )
        docs.optimize(zvec.OptimizeOption(concurrency=self.spec["threads"]))
        docs.flush()
        docs.close()

    def open(self) -> None:
        self.docs = zvec.open(str(self._path), zvec.CollectionOption(read_only=True, enable_mmap=True))

    def condition(self, field: str, code: int) -> Any:
        return f"{field} = '{field}.{code}'"

    def prepare(self, value: int) -> None:
        self.param = zvec.HnswQueryParam(ef=value)

    def search(self, query_and_filter: Any) -> Any:
        query, one = query_and_filter
        search = zvec.Query("v", vector=np.asarray(query, np.float32), param=self.param)
        return self.docs.query_internal_ids(search, topk=self.spec["limit"], filter=one)

    def rows(self, result: Any) -> list[int]:
        return [int(key) for key in self.docs.resolve_internal_ids(result) if key is not None]


if __name__ == "__main__":
    engine_process.serve(Zvec)
