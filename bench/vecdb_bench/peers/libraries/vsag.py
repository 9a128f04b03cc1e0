"""VSAG (the package pyvsag)."""

from __future__ import annotations

import importlib
import json
from typing import Any

import numpy as np

import vecdb
from vecdb_bench.peers.contract import Array, Peer, saved_bytes


class Vsag(Peer):
    """HGraph (max_degree 2 * m), over float32, or over 8-bit codes with float32 for the best candidates; ef is its
    ef_search. Its Python package has no call for several queries: a batch is a loop. Its files have blocks of a fixed
    size, and are some 100 MB larger than the vectors that they hold.
    """

    package = module = "pyvsag"

    def __init__(self, m: int, ef_construction: int, codes: bool = False) -> None:
        self.name = "vsag-sq8" if codes else "vsag"
        self._m, self._ef_construction, self._codes = m, ef_construction, codes
        self._index: Any = None

    def load(self) -> None:
        importlib.import_module("pyvsag").set_logger_off()

    def build(self, base: Array, metric: vecdb.Metric, threads: int) -> dict[str, float]:
        pyvsag: Any = importlib.import_module("pyvsag")
        rows, dim = base.shape
        graph = {
            "base_quantization_type": "fp32", "max_degree": 2 * self._m, "ef_construction": self._ef_construction,
            "build_thread_count": threads,
        }  # fmt: skip
        if self._codes:
            graph |= {
                "base_quantization_type": "sq8_uniform", "use_reorder": True, "precise_quantization_type": "fp32",
            }  # fmt: skip
        parameters = {"dtype": "float32", "metric_type": metric, "dim": dim, "index_param": graph}
        self._index = pyvsag.Index("hgraph", json.dumps(parameters))
        vectors = np.ascontiguousarray(base, np.float32)
        self._index.build(vectors.reshape(-1), np.arange(rows, dtype=np.int64), rows, dim)
        return {}

    def set_ef(self, ef: int) -> None:
        self._params = json.dumps({"hgraph": {"ef_search": ef}})

    def batch(self, queries: Array, k: int) -> Array:
        return np.stack([self.single(query, k) for query in queries])

    def single(self, query: Array, k: int) -> Array:
        return self._index.knn_search(np.ascontiguousarray(query, np.float32), k, self._params)[0]  # type: ignore[no-any-return]

    def disk_bytes(self) -> int:
        return saved_bytes(self._index.save)

    def close(self) -> None:
        self._index = None
