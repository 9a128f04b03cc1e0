"""vecdb's HNSW graph in ann-benchmarks."""

from ann_benchmarks.algorithms.base.module import BaseANN

import vecdb
from vecdb_bench.harness_collection import AnnHarness


class VecdbHnsw(AnnHarness, BaseANN):
    def __init__(self, metric: str, dimension: int, parameters: dict[str, int]) -> None:
        super().__init__("vecdb-hnsw", vecdb.Hnsw(**parameters), metric, dimension)  # type: ignore[arg-type]

    def set_query_arguments(self, ef: int) -> None:
        self.search_with(ef=ef)
