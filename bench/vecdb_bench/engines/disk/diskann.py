"""diskannpy-rust: Microsoft's DiskANN, the Rust version. One search thread, beam width 4, no cache of nodes."""

from __future__ import annotations

import os
from typing import Any

os.environ.setdefault("RUST_LOG", "off")  # it logs every query otherwise

import diskannpy
import engine_process
import numpy as np


class DiskAnn(engine_process.Engine):
    package = "diskannpy-rust"

    def _distance(self) -> str:
        return "l2"  # for other metrics the vectors have unit norm, which gives the same order

    def build(self) -> None:
        options = {"complexity": 100, "graph_degree": 64, "num_of_pq_chunks": 32} | self.spec.get("diskann", {})
        self.folder.mkdir(parents=True, exist_ok=True)
        diskannpy.build_disk_index(
            np.array(self.base), self._distance(), str(self.folder), build_memory_maximum=4.0,
            num_threads=self.spec["threads"], vector_dtype=self.base.dtype.type, **options,
        )  # fmt: skip

    def open(self) -> None:
        self.index = diskannpy.StaticDiskIndex(
            str(self.folder), num_threads=1, beam_width=4, vector_dtype=self.base.dtype.type,
            distance_metric=self._distance(),
        )  # fmt: skip

    def prepare(self, value: int) -> None:
        self.width = max(value, self.spec["limit"])

    def search(self, query: Any) -> Any:
        return self.index.search(query, self.spec["limit"], self.width)

    def rows(self, result: Any) -> list[int]:
        return [int(row) for row in result.identifiers]


if __name__ == "__main__":
    engine_process.serve(DiskAnn)
