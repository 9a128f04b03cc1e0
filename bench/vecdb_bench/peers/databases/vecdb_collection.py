"""vecdb itself."""

from __future__ import annotations

import shutil
import tempfile
import time
from pathlib import Path
from typing import Any, get_args

import numpy as np

import vecdb
from vecdb_bench.peers.contract import Array, Peer


class Vecdb(Peer):
    """vecdb as users call it: a durable collection in a directory, `Collection.search` for every query."""

    package = "vecdb-engine"
    metrics = get_args(vecdb.Metric)

    def __init__(self, m: int, ef_construction: int, quantization: Any = "sq8", name: str = "vecdb") -> None:
        self.name = name
        self._index = vecdb.Hnsw(m=m, ef_construction=ef_construction, quantization=quantization)
        self._folder: str | None = None
        self._db: vecdb.Database | None = None

    def build(self, base: Array, metric: vecdb.Metric, threads: int) -> dict[str, float]:
        dtype = str(base.dtype)
        self._folder = tempfile.mkdtemp(prefix="vecdb-bench-")
        self._db = vecdb.open(Path(self._folder) / "db")
        self._docs = self._db.create_collection("bench", base.shape[1], metric, self._index, dtype, zero_vectors="far")
        started = time.perf_counter()
        step = max(1, (32 << 20) // base[:1].nbytes)
        for start in range(0, len(base), step):
            self._docs.upsert(np.arange(start, min(len(base), start + step)), base[start : start + step])
        stored = time.perf_counter()
        self._docs.optimize(threads=threads)
        return {"store_seconds": stored - started, "optimize_seconds": time.perf_counter() - stored}

    def set_ef(self, ef: int) -> None:
        self._params = vecdb.SearchParams(ef=ef, threads=1)

    def batch(self, queries: Array, k: int) -> Array:
        return self._docs.search(queries, limit=k, params=self._params).ids

    def single(self, query: Array, k: int) -> Array:
        return self._docs.search(query, limit=k, params=self._params).ids

    def disk_bytes(self) -> int:
        assert self._db is not None
        return int(self._db.stats()["bytes_disk"])

    def close(self) -> None:
        if self._db is not None:
            self._db.close()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
