"""NGT (the package ngt)."""

from __future__ import annotations

import importlib
import math
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

import vecdb
from vecdb_bench.peers.contract import Array, Peer, folder_bytes


class Ngt(Peer):
    """ANNG: each new node is linked with its m nearest, both ways. ONNG: made of an ANNG with 2 * m links by keeping m
    that go out of a node and 2 * m that come in, less those that a path of two replaces. Both over float32; they have
    no ef_construction. QG, its graph over codes, is built by a command that the package does not bring along.

    Its searches are as wide as epsilon says, the share by which a node may be farther than the worst hit: ef 10 is
    -0.1, and each doubling adds 0.1, so that 20 is 0, 40 is its own default of 0.1, and 640 is 0.5. Its call for
    several queries takes as many threads as the machine has, and no number of them, so that a batch is a loop.
    """

    package, module = "ngt", "ngtpy"

    def __init__(self, m: int, ef_construction: int, onng: bool) -> None:
        self.name = "ngt-onng" if onng else "ngt-anng"
        self._m, self._onng = m, onng
        self._folder: Path | None = None
        self._index: Any = None

    def build(self, base: Array, metric: vecdb.Metric, threads: int) -> dict[str, float]:
        ngtpy: Any = importlib.import_module("ngtpy")
        self._folder = Path(tempfile.mkdtemp(prefix="vecdb-bench-"))
        path = str(self._folder / "anng")
        ngtpy.create(
            path, base.shape[1], edge_size_for_creation=2 * self._m if self._onng else self._m,
            edge_size_for_search=0,  # all links
            distance_type={"l2": "L2", "cosine": "Normalized Cosine", "ip": "Inner Product"}[metric],
        )  # fmt: skip
        index = ngtpy.Index(path, log_disabled=True)
        index.batch_insert(np.ascontiguousarray(base, np.float32), num_threads=threads)
        index.save()
        index.close()
        built = time.perf_counter()
        if self._onng:
            optimizer = ngtpy.Optimizer(num_of_outgoings=self._m, num_of_incomings=2 * self._m, log_disabled=True)
            # the rest times searches to choose defaults: epsilon is given, and all links are followed
            optimizer.set_processing_modes(
                shortcut_reduction=True, search_parameter_optimization=False,
                prefetch_parameter_optimization=False, accuracy_table_generation=False,
            )  # fmt: skip
            optimizer.execute(path, str(self._folder / "onng"))
            path = str(self._folder / "onng")
        self._path = Path(path)
        self._index = ngtpy.Index(path, read_only=True, log_disabled=True)
        return {"optimize_seconds": time.perf_counter() - built}

    def set_ef(self, ef: int) -> None:
        self._index.set(epsilon=epsilon_of(ef))

    def batch(self, queries: Array, k: int) -> Array:
        return np.stack([self.single(query, k) for query in queries]).astype(np.int64)

    def single(self, query: Array, k: int) -> Array:
        found = self._index.search(np.asarray(query, np.float32), k, with_distance=False)
        if len(found) == k:
            return found  # type: ignore[no-any-return]
        return np.pad(found, (0, k - len(found)), constant_values=-1)

    def disk_bytes(self) -> int:
        return folder_bytes(self._path)

    def close(self) -> None:
        if self._index is not None:
            self._index.close()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)


def epsilon_of(ef: int) -> float:
    return 0.1 * math.log2(ef / 20)
