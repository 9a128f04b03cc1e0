"""Scalable Vector Search (the package scalable-vs)."""

from __future__ import annotations

import importlib
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

import vecdb
from vecdb_bench.peers.contract import Array, Peer, folder_bytes


class Svs(Peer):
    """Vamana over float32: graph_max_degree 2 * m, window_size ef_construction; ef is search_window_size.

    Its codes (LVQ, LeanVec) are not measured: on a processor that is not Intel's the library ends the whole process
    when it is asked for them.
    """

    package, module = "scalable-vs", "svs"

    def __init__(self, m: int, ef_construction: int) -> None:
        self.name = "svs"
        self._m, self._ef_construction = m, ef_construction
        self._index: Any = None

    def build(self, base: Array, metric: vecdb.Metric, threads: int) -> dict[str, float]:
        svs: Any = importlib.import_module("svs")
        parameters = svs.VamanaBuildParameters(graph_max_degree=2 * self._m, window_size=self._ef_construction)
        kind = {"l2": svs.DistanceType.L2, "ip": svs.DistanceType.MIP, "cosine": svs.DistanceType.Cosine}[metric]
        vectors = np.ascontiguousarray(base, np.float32)
        self._index = svs.Vamana.build(parameters, vectors, kind, num_threads=threads)
        self._index.num_threads = 1
        return {}

    def set_ef(self, ef: int) -> None:
        self._index.search_window_size = ef

    def batch(self, queries: Array, k: int) -> Array:
        return self._index.search(np.ascontiguousarray(queries, np.float32), k)[0].astype(np.int64)  # type: ignore[no-any-return]

    def single(self, query: Array, k: int) -> Array:
        return self._index.search(np.ascontiguousarray(query, np.float32), k)[0][0]  # type: ignore[no-any-return]

    def disk_bytes(self) -> int:
        with tempfile.TemporaryDirectory(prefix="vecdb-bench-") as folder:
            self._index.save(*(str(Path(folder) / part) for part in ("config", "graph", "data")))
            return folder_bytes(Path(folder))

    def close(self) -> None:
        self._index = None
