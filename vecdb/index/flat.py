"""Exact scan as an index, with nothing to build: the default for small collections, and the oracle in tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vecdb.index.clustering.partition import Partition
from vecdb.index.common.batching import as_float32_queries, explain_scan
from vecdb.index.common.thread_pool import ThreadPool
from vecdb.index.contract import Index, Neighbors, OneQuerySearch, Progress, RowSource, SealedFile
from vecdb.index.exact.scan import scan_exactly, searching_one
from vecdb.index.row_set import RowSet
from vecdb.kernels.primitives.distance import METRIC_CODES
from vecdb.schema import SearchParams, Visibility


class FlatIndex(Index):
    """Exact scan as an index. Every row counts as indexed the moment it is committed."""

    kind = "flat"
    has_structure = False

    def __init__(self, metric: str, rows: RowSource) -> None:
        self._metric = METRIC_CODES[metric]
        self._rows = rows
        self._row_count = 0
        self._workers = ThreadPool()
        self._partition = Partition()

    @property
    def indexed_rows(self) -> int:
        return self._row_count

    @property
    def version(self) -> object:
        return self

    def publish_rows(self, row_count: int) -> None:
        self._row_count = max(self._row_count, row_count)

    def add(self, stop: int, threads: int = 1, progress: Progress = None) -> None:
        self._row_count = max(self._row_count, stop)

    def next_stop(self, row_count: int) -> int:
        return row_count

    def remove(self, sequence: int, threads: int = 1) -> int:
        return 0

    def connect_unreachable(self, threads: int = 1) -> int:
        return 0

    def search(
        self,
        queries: NDArray[Any],
        limit: int,
        visibility: Visibility,
        params: SearchParams,
        allow: RowSet | None = None,
    ) -> Neighbors:
        return scan_exactly(
            self._rows.arrays,
            self._metric,
            as_float32_queries(queries),
            limit,
            visibility,
            allow,
            params.threads,
            self._workers,
        )

    def searching_one(
        self, limit: int, visibility: Visibility, params: SearchParams, norms: tuple[float, float],
        ids: NDArray[np.int64] | None,
    ) -> OneQuerySearch | None:  # fmt: skip
        if params.threads > 1:
            return None
        return searching_one(self._rows.arrays, self._metric, limit, visibility, norms, ids)

    def centres(self, row_count: int) -> NDArray[np.float32]:
        return self._partition.centres(self._rows.arrays, self._metric, row_count, self._workers)

    def seal(self, path: Path) -> SealedFile:
        """There is nothing to write: no file is made."""
        return SealedFile(0, self._row_count, 0)

    def check(self) -> list[str]:
        return []

    def explain(self, work: NDArray[np.int64]) -> dict[str, Any]:
        return explain_scan(work)

    def stats(self) -> dict[str, Any]:
        return {"kind": self.kind, "indexed_rows": self._row_count, "bytes_ram": 0}

    def renumbered(self, mapping: NDArray[np.int64], rows: RowSource) -> FlatIndex:
        names = {code: name for name, code in METRIC_CODES.items()}
        new = FlatIndex(names[self._metric], rows)
        new.publish_rows(int((mapping >= 0).sum()))
        return new

    def close(self) -> None:
        self._workers.close()
