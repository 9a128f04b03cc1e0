"""faiss."""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np

import vecdb
from vecdb_bench.peers.contract import Array, Peer, saved_bytes, unit_rows


class Faiss(Peer):
    """faiss IndexHNSWFlat, or IndexHNSWSQ with 8-bit codes."""

    package, module = "faiss-cpu", "faiss"
    install = "'vecdb-engine[bench]'"

    def __init__(self, m: int, ef_construction: int, codes: bool = False) -> None:
        self.name = "faiss-sq8" if codes else "faiss"
        self._m, self._ef_construction, self._codes = m, ef_construction, codes
        self._unit = False
        self._index: Any = None

    def build(self, base: Array, metric: vecdb.Metric, threads: int) -> dict[str, float]:
        faiss: Any = importlib.import_module("faiss")
        self._unit = metric == "cosine"
        kind = faiss.METRIC_L2 if metric == "l2" else faiss.METRIC_INNER_PRODUCT
        dim = base.shape[1]
        if self._codes:
            self._index = faiss.IndexHNSWSQ(dim, faiss.ScalarQuantizer.QT_8bit, self._m, kind)
        else:
            self._index = faiss.IndexHNSWFlat(dim, self._m, kind)
        self._index.hnsw.efConstruction = self._ef_construction
        vectors = self._prepared(base)
        faiss.omp_set_num_threads(threads)
        if self._codes:
            self._index.train(vectors)
        self._index.add(vectors)
        faiss.omp_set_num_threads(1)
        return {}

    def set_ef(self, ef: int) -> None:
        self._index.hnsw.efSearch = ef

    def batch(self, queries: Array, k: int) -> Array:
        return self._index.search(self._prepared(queries), k)[1]  # type: ignore[no-any-return]

    def single(self, query: Array, k: int) -> Array:
        return self._index.search(self._prepared(query[None]), k)[1][0]  # type: ignore[no-any-return]

    def disk_bytes(self) -> int:
        faiss: Any = importlib.import_module("faiss")
        return saved_bytes(lambda path: faiss.write_index(self._index, path))

    def close(self) -> None:
        self._index = None

    def _prepared(self, vectors: Array) -> Array:
        return unit_rows(vectors) if self._unit else np.ascontiguousarray(vectors, np.float32)
