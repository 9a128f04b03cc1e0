"""Qdrant Edge (the package qdrant-edge-py)."""

from __future__ import annotations

import importlib
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

import vecdb
from vecdb_bench.peers.contract import Array, Peer, folder_bytes


class QdrantEdge(Peer):
    """HNSW over float32 in a shard of one segment, written to disk and opened again; ef is hnsw_ef."""

    package, module = "qdrant-edge-py", "qdrant_edge"
    install = "'vecdb-engine[qdrant]'"
    own_threads = True

    def __init__(self, m: int, ef_construction: int) -> None:
        self.name = "qdrant-edge"
        self._m, self._ef_construction = m, ef_construction
        self._path: Path | None = None
        self._shard: Any = None

    def load(self) -> None:
        self._qdrant: Any = importlib.import_module("vecdb_bench.engines.qdrant_shard")

    def build(self, base: Array, metric: vecdb.Metric, threads: int) -> dict[str, float]:
        self._path = Path(tempfile.mkdtemp(prefix="vecdb-bench-")) / "shard"
        spec = {"metric": metric, "m": self._m, "ef_construction": self._ef_construction, "threads": threads}
        self._qdrant.build(self._path, base, spec)
        self._shard = self._qdrant.open_to_read(self._path)
        return {}

    def set_ef(self, ef: int) -> None:
        self._width = self._qdrant.width(ef)

    def batch(self, queries: Array, k: int) -> Array:
        found = self._qdrant.search_batch(self._shard, queries, k, self._width)
        return np.array([self._qdrant.rows(points) for points in found])

    def single(self, query: Array, k: int) -> Array:
        return np.array(self._qdrant.rows(self._qdrant.search(self._shard, query, k, self._width)))

    def disk_bytes(self) -> int:
        assert self._path is not None
        return folder_bytes(self._path)

    def close(self) -> None:
        if self._shard is not None:
            self._shard.close()
        if self._path is not None:
            shutil.rmtree(self._path.parent, ignore_errors=True)
