"""vecdb in VIBE: the graph, posting lists, the exact scan."""

from vibe.algorithms.base.module import BaseANN

import vecdb
from vecdb_bench.harness_collection import AnnHarness


class VecdbHnsw(AnnHarness, BaseANN):
    def __init__(self, metric: str, dimension: int, m: int, ef_construction: int) -> None:
        super().__init__("vecdb-hnsw", vecdb.Hnsw(m=m, ef_construction=ef_construction), metric, dimension)

    def set_query_arguments(self, ef: int) -> None:
        self.search_with(ef=ef)


class VecdbSpann(AnnHarness, BaseANN):
    def __init__(self, metric: str, dimension: int, bits: int) -> None:
        super().__init__("vecdb-spann", vecdb.Spann(bits=bits), metric, dimension)

    def set_query_arguments(self, nprobe: int, rerank: int = 0) -> None:
        """rerank : 0 for as many rows as the codes' error asks for."""
        self.search_with(nprobe=nprobe, rerank=rerank or None)


class VecdbExact(AnnHarness, BaseANN):
    def __init__(self, metric: str, dimension: int) -> None:
        super().__init__("vecdb-exact", vecdb.Flat(), metric, dimension)

    def set_query_arguments(self, threads: int) -> None:
        """VIBE calls the group of a result by its query arguments, so there has to be one."""
        self.search_with(threads=threads)
