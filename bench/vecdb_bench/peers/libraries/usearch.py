"""usearch."""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np

import vecdb
from vecdb_bench.peers.contract import Array, Peer, saved_bytes


class Usearch(Peer):
    """usearch, HNSW over float32."""

    package = module = "usearch"
    install = "'vecdb-engine[usearch]'"

    def __init__(self, m: int, ef_construction: int) -> None:
        self.name = "usearch"
        self._m, self._ef_construction = m, ef_construction
        self._index: Any = None

    def load(self) -> None:
        importlib.import_module("usearch.index")

    def build(self, base: Array, metric: vecdb.Metric, threads: int) -> dict[str, float]:
        usearch: Any = importlib.import_module("usearch.index")
        self._index = usearch.Index(
            ndim=base.shape[1], metric={"l2": "l2sq", "ip": "ip", "cosine": "cos"}[metric], dtype="f32",
            connectivity=self._m, expansion_add=self._ef_construction,
        )  # fmt: skip
        self._index.add(np.arange(len(base)), np.ascontiguousarray(base, np.float32), threads=threads)
        return {}

    def set_ef(self, ef: int) -> None:
        self._index.expansion_search = ef

    def batch(self, queries: Array, k: int) -> Array:
        return self._index.search(queries, k, threads=1).keys.astype(np.int64)  # type: ignore[no-any-return]

    def single(self, query: Array, k: int) -> Array:
        return self._index.search(query, k, threads=1).keys  # type: ignore[no-any-return]

    def disk_bytes(self) -> int:
        return saved_bytes(self._index.save)

    def close(self) -> None:
        self._index = None
