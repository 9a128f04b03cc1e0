"""vecdb's posting lists in ann-benchmarks: codes in memory, full vectors read from disk for the last few."""

from ann_benchmarks.algorithms.base.module import BaseANN

import vecdb
from vecdb_bench.harness_collection import AnnHarness


class VecdbSpann(AnnHarness, BaseANN):
    def __init__(self, metric: str, dimension: int, parameters: dict[str, int]) -> None:
        super().__init__("vecdb-spann", vecdb.Spann(**parameters), metric, dimension)  # type: ignore[arg-type]

    def set_query_arguments(self, nprobe: int, rerank: int = 0) -> None:
        """rerank : 0 for as many rows as the codes' error asks for."""
        self.search_with(nprobe=nprobe, rerank=rerank or None)
