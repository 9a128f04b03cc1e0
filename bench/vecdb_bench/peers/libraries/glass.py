"""Glass (the package pyglass-portable)."""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np

import vecdb
from vecdb_bench.peers.contract import Array, Peer, prints_to_stderr, saved_bytes, unit_rows

_EF_OF_TUNING = 64  # width at which the library times how far ahead to fetch, as its documentation shows


class Glass(Peer):
    """HNSW built over float32 (R 2 * m, L ef_construction), searched over codes of 8 or 4 bits. The best candidates are
    compared again on their float32 vectors, without which the codes alone end at a recall of 0.96 and 0.82.

    bits : 8 or 4. It has no cosine: vectors of unit norm, by l2. Codes of 4 bits have no inner product: each is an
    offset and a number of steps, the library leaves out what the offset adds, and no width finds more than half.
    """

    package, module = "pyglass-portable", "glass"

    def __init__(self, m: int, ef_construction: int, bits: int) -> None:
        self.name = f"glass-sq{bits}u"
        self._m, self._ef_construction, self._codes = m, ef_construction, f"SQ{bits}U"
        self.metrics = ("l2", "cosine", "ip") if bits == 8 else ("l2", "cosine")
        self._unit = False
        self._searcher: Any = None

    def build(self, base: Array, metric: vecdb.Metric, threads: int) -> dict[str, float]:
        glass: Any = importlib.import_module("glass")
        self._unit = metric == "cosine"
        kind = "IP" if metric == "ip" else "L2"
        self._vectors = self._prepared(base)
        glass.set_num_threads(threads)
        with prints_to_stderr():
            index = glass.Index("HNSW", kind, "FP32", R=2 * self._m, L=self._ef_construction)
            self._graph = index.build(self._vectors)
            self._searcher = glass.Searcher(self._graph, self._vectors, kind, self._codes, "FP32")
            self._searcher.set_ef(_EF_OF_TUNING)
            self._searcher.optimize(1)
        glass.set_num_threads(1)
        return {}

    def set_ef(self, ef: int) -> None:
        self._searcher.set_ef(ef)

    def batch(self, queries: Array, k: int) -> Array:
        return self._searcher.batch_search(self._prepared(queries), k, 1)[0].astype(np.int64)  # type: ignore[no-any-return]

    def single(self, query: Array, k: int) -> Array:
        return self._searcher.search(self._prepared(query), k)[0]  # type: ignore[no-any-return]

    def disk_bytes(self) -> int:
        """The file of the graph, and the vectors: it saves no codes, but makes them again from the vectors."""
        with prints_to_stderr():
            return saved_bytes(self._graph.save) + self._vectors.nbytes

    def close(self) -> None:
        self._searcher = self._graph = self._vectors = None  # type: ignore[assignment]

    def _prepared(self, vectors: Array) -> Array:
        return unit_rows(vectors) if self._unit else np.ascontiguousarray(vectors, np.float32)
