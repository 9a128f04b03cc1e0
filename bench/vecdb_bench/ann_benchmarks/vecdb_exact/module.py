"""vecdb's exact scan in ann-benchmarks."""

from ann_benchmarks.algorithms.base.module import BaseANN

import vecdb
from vecdb_bench.harness_collection import AnnHarness


class VecdbExact(AnnHarness, BaseANN):
    def __init__(self, metric: str, dimension: int) -> None:
        super().__init__("vecdb-exact", vecdb.Flat(), metric, dimension)
