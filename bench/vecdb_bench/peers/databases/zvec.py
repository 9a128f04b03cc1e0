"""zvec."""

from __future__ import annotations

import importlib
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

import vecdb
from vecdb_bench.peers.contract import Array, Peer, folder_bytes


class Zvec(Peer):
    """HNSW over float32, written to disk and opened to read; ef is its ef. A search asks for zvec's own numbers, its
    fastest way, and for the ids that they stand for. It has no call for several queries: a batch is a loop.
    """

    package = module = "zvec"
    own_threads = True

    def __init__(self, m: int, ef_construction: int) -> None:
        self.name = "zvec-hnsw"
        self._m, self._ef_construction = m, ef_construction
        self._path: Path | None = None
        self._docs: Any = None

    def load(self) -> None:
        self._zvec: Any = importlib.import_module("vecdb_bench.engines.zvec_graph")

    def build(self, base: Array, metric: vecdb.Metric, threads: int) -> dict[str, float]:
        self._zvec.start(threads)
        self._path = Path(tempfile.mkdtemp(prefix="vecdb-bench-")) / "collection"
        spec = {"metric": metric, "m": self._m, "ef_construction": self._ef_construction, "threads": threads}
        self._zvec.build(self._path, base, spec)
        self._docs = self._zvec.open_to_read(self._path)
        return {}

    def set_ef(self, ef: int) -> None:
        self._width = self._zvec.width(ef)

    def batch(self, queries: Array, k: int) -> Array:
        return np.stack([self.single(query, k) for query in queries])

    def single(self, query: Array, k: int) -> Array:
        return np.array(self._zvec.rows(self._docs, self._zvec.search(self._docs, query, k, self._width)))

    def disk_bytes(self) -> int:
        assert self._path is not None
        return folder_bytes(self._path)

    def close(self) -> None:
        if self._docs is not None:
            self._docs.close()
        if self._path is not None:
            shutil.rmtree(self._path.parent, ignore_errors=True)
