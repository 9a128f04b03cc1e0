"""LoRANN (the package lorann)."""

from __future__ import annotations

import importlib
import math
from typing import Any

import numpy as np

import vecdb
from vecdb_bench.peers.contract import Array, Peer, saved_bytes, unit_rows

_EF_OF_A_CLUSTER = 5


class Lorann(Peer):
    """Clusters, sqrt(rows) of them, whose scores are predicted by 8-bit matrices of low rank. No graph: m and
    ef_construction mean nothing here, and other parameters are those that its documentation recommends.

    ef is how many vectors are compared exactly at the end, the best by their predicted score; ef / 5 clusters are
    searched for them. It has no cosine: inner product of unit vectors. It wants at least 64 dimensions.
    """

    package = module = "lorann"
    dim_min = 64

    def __init__(self, m: int, ef_construction: int) -> None:
        self.name = "lorann"
        self._unit = False
        self._index: Any = None

    def build(self, base: Array, metric: vecdb.Metric, threads: int) -> dict[str, float]:
        lorann: Any = importlib.import_module("lorann")
        self._unit = metric == "cosine"
        rows, dim = base.shape
        self._clusters = max(1, round(math.sqrt(rows)))
        self._vectors = self._prepared(base)  # the index reads them where they are
        self._index = lorann.LorannIndex(
            data=self._vectors, n_clusters=self._clusters,
            global_dim=None if dim < 200 else 128 if dim <= 1_000 else 256,
            distance=lorann.L2 if metric == "l2" else lorann.IP,
        )  # fmt: skip
        self._index.build(n_threads=threads)
        return {}

    def set_ef(self, ef: int) -> None:
        self._ef = ef
        self._searched = min(self._clusters, max(1, ef // _EF_OF_A_CLUSTER))

    def batch(self, queries: Array, k: int) -> Array:
        return self._found(queries, k).astype(np.int64)

    def single(self, query: Array, k: int) -> Array:
        return self._found(query, k)

    def disk_bytes(self) -> int:
        return saved_bytes(self._index.save)

    def close(self) -> None:
        self._index = self._vectors = None  # type: ignore[assignment]

    def _found(self, queries: Array, k: int) -> Array:
        ready = self._prepared(queries)
        return self._index.search(ready, k, self._searched, max(k, self._ef), n_threads=1)  # type: ignore[no-any-return]

    def _prepared(self, vectors: Array) -> Array:
        return unit_rows(vectors) if self._unit else np.ascontiguousarray(vectors, np.float32)
