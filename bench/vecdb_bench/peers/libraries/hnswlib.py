"""hnswlib."""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np

import vecdb
from vecdb_bench.peers.contract import Array, Peer, saved_bytes


class Hnswlib(Peer):
    """hnswlib, the reference implementation of HNSW."""

    package = module = "hnswlib"
    install = "'vecdb-engine[bench]'"

    def __init__(self, m: int, ef_construction: int) -> None:
        self.name = "hnswlib"
        self._m, self._ef_construction = m, ef_construction
        self._index: Any = None

    def build(self, base: Array, metric: vecdb.Metric, threads: int) -> dict[str, float]:
        hnswlib: Any = importlib.import_module("hnswlib")
        self._index = hnswlib.Index(space=metric, dim=base.shape[1])
        self._index.init_index(
            max_elements=len(base), M=self._m, ef_construction=self._ef_construction, random_seed=100
        )
        self._index.add_items(base, num_threads=threads)
        self._index.set_num_threads(1)
        return {}

    def set_ef(self, ef: int) -> None:
        self._index.set_ef(ef)

    def batch(self, queries: Array, k: int) -> Array:
        return self._index.knn_query(queries, k=k, num_threads=1)[0].astype(np.int64)  # type: ignore[no-any-return]

    def single(self, query: Array, k: int) -> Array:
        return self._index.knn_query(query, k=k, num_threads=1)[0][0]  # type: ignore[no-any-return]

    def disk_bytes(self) -> int:
        return saved_bytes(self._index.save_index)

    def close(self) -> None:
        self._index = None
