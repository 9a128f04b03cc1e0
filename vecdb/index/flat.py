"""Exact scan: nothing to build. The default for small collections, the fallback of other indexes, the oracle in tests.

Rows are cut into ranges by row number; each range is scanned for all queries block by block, so that a block is read
from memory once, and the answers are merged by (distance, row). The result does not depend on the number of threads.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vecdb.index.clustering.partition import Partition
from vecdb.index.common.batching import SCORED, as_float32_queries, empty_result, explain_scan
from vecdb.index.common.thread_pool import ThreadPool
from vecdb.index.contract import Index, Neighbors, Progress, RowSource, SealedFile, corrupt_row_error
from vecdb.index.row_set import EVERY_ROW_BITMAP, EVERY_ROW_LIST, RowSet
from vecdb.kernels.primitives import checksums
from vecdb.kernels.primitives.distance import METRIC_CODES
from vecdb.kernels.search import exact_scan
from vecdb.schema import SearchParams, Visibility
from vecdb.storage.disk.row_file import RowArrays

_CANDIDATES_MAX = 1 << 24  # candidates held at once, 8 bytes each: bounds memory whatever the batch
_BLOCK_BYTES = 128 << 10  # vectors scored for all queries before the next block is read
_BLOCK_ROWS_MIN, _BLOCK_ROWS_MAX = 16, 4096
_ROWS_PER_THREAD = 4096  # fewer are scanned sooner than another thread is handed its share


def scan_exactly(
    arrays: RowArrays,
    metric: int,
    queries: NDArray[np.float32],
    limit: int,
    visibility: Visibility,
    allow: RowSet | None,
    threads: int,
    workers: ThreadPool,
) -> Neighbors:
    """Compare every visible, allowed row with every query. queries : float32[nq, dim], C-contiguous."""
    nq = len(queries)
    listed, total = (EVERY_ROW_LIST, visibility.row_count) if allow is None else (allow.rows, len(allow.rows))
    found = empty_result(nq, limit)
    threads = max(1, min(threads, total // _ROWS_PER_THREAD + 1))
    keep = max(1, min(limit, total))
    edges = np.linspace(0, total, threads + 1).astype(np.int64).tolist()
    step = max(1, _CANDIDATES_MAX // (threads * (keep + 1)))
    for first in range(0, nq, step):
        part = slice(first, min(nq, first + step))
        _scan_queries(arrays, metric, queries, part, keep, visibility, listed, edges, workers, found)
    found.work[SCORED] = nq * (visibility.live_count if allow is None else total)
    return found


def _scan_queries(
    arrays: RowArrays,
    metric: int,
    queries: NDArray[np.float32],
    part: slice,
    keep: int,
    visibility: Visibility,
    listed: NDArray[np.uint32],
    edges: list[int],
    workers: ThreadPool,
    found: Neighbors,
) -> None:
    """One range of rows, or of `listed` where there are any, between each two of `edges`."""
    vectors = checksums.for_kernels(arrays.vectors)
    chosen = queries[part]
    nq, threads = len(chosen), len(edges) - 1
    keys = np.empty((threads, nq, keep + 1), np.int64)
    sizes = np.zeros((threads, nq), np.int64)
    block = int(max(_BLOCK_ROWS_MIN, min(_BLOCK_ROWS_MAX, _BLOCK_BYTES // max(1, vectors.shape[1] * vectors.itemsize))))

    def run(i: int) -> int:
        return int(
            exact_scan.scan_rows(
                chosen,
                keys[i],
                sizes[i],
                listed,
                edges[i],
                edges[i + 1],
                visibility.sequence,
                EVERY_ROW_BITMAP,
                metric,
                vectors,
                arrays.crcs,
                arrays.verified,
                arrays.deleted,
                np.empty(block + exact_scan.SCRATCH, np.int32),
            )
        )

    for bad in workers.map(run, range(threads), threads):
        if bad >= 0:
            raise corrupt_row_error(bad, arrays)
    exact_scan.merge(
        keys,
        sizes,
        np.empty(threads, np.int64),
        found.rows.shape[1],
        found.rows[part],
        found.distances[part],
        found.counts[part],
    )


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
