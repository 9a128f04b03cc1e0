"""Compare all rows, or those that are listed, with all queries.

Rows are cut into ranges by row number, one for each thread; each range is scanned for all queries block by block, so
that a block is read from memory once, and the answers are merged by (distance, row). The result depends neither on the
number of threads nor on how many queries are asked at once.

    few queries    a bound or a distance for each pair (kernels/search/exact_scan.py)
    many           the first rows so; then products of blocks bound the distances of all pairs (product_bounds.py), and
                   a distance is computed for those that may be among the nearest
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from vecdb.index.common.batching import SCORED, empty_result
from vecdb.index.common.thread_pool import ThreadPool
from vecdb.index.contract import Neighbors, OneQuerySearch, corrupt_row_error
from vecdb.index.exact.product_bounds import ProductBounds, block_rows
from vecdb.index.row_set import EVERY_ROW_BITMAP, EVERY_ROW_LIST, RowSet
from vecdb.kernels.compile import entry_of
from vecdb.kernels.primitives import checksums
from vecdb.kernels.primitives.distance import BOUND_DIM_MIN, OF_BITS
from vecdb.kernels.primitives.float_products import COLUMNS
from vecdb.kernels.primitives.topk import ROW_OF_KEY, distances_of
from vecdb.kernels.search import exact_scan
from vecdb.schema import Visibility
from vecdb.storage.disk.row_file import RowArrays

_CANDIDATES_MAX = 1 << 24  # candidates held at once, 8 bytes each: bounds memory whatever the batch
_BLOCK_BYTES = 128 << 10  # vectors scored for all queries before the next block is read
_BLOCK_ROWS_MIN, _BLOCK_ROWS_MAX = 16, 4096
_ROWS_PER_THREAD = 4096  # fewer are scanned sooner than another thread is handed its share
_BY_PRODUCTS = 24  # queries from which on products are sooner: there are columns for COLUMNS of them in any case
_FIRST_ROWS, _FIRST_PER_NEIGHBOUR = 1_024, 64  # that are scanned one by one, so that the nearest are known roughly
_RANGE_MIN = 2  # a range has to have so many times as many rows
_PAIRS_MAX = 1 / 32  # of a block's pairs; where bounds leave more, the rest of the rows is scanned one by one


class _Scan(NamedTuple):
    """What is compared. vectors : as kernels take them, see checksums.py.   block : rows scored for all queries before
    the next are read.
    """

    arrays: RowArrays
    vectors: NDArray[np.generic]
    metric: int
    queries: NDArray[np.float32]
    sequence: int
    listed: NDArray[np.uint32]
    block: int


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
    edges = [total * i // threads for i in range(threads + 1)]
    step = max(1, _CANDIDATES_MAX // (threads * (keep + 1)))
    vectors = checksums.for_kernels(arrays.vectors)
    block = _block_rows(vectors)
    for first in range(0, nq, step):
        part = slice(first, min(nq, first + step))
        scan = _Scan(arrays, vectors, metric, queries[part], visibility.sequence, listed, block)
        _scan_ranges(scan, part, keep, edges, workers, found)
    found.work[SCORED] = nq * (visibility.live_count if allow is None else total)
    return found


def searching_one(
    arrays: RowArrays,
    metric: int,
    limit: int,
    visibility: Visibility,
    norms: tuple[float, float],
    ids: NDArray[np.int64] | None,
) -> OneQuerySearch | None:
    """`Index.searching_one` by a scan on one thread; None where nothing is visible."""
    total = visibility.row_count
    vectors, keep = checksums.for_kernels(arrays.vectors), min(limit, total)
    if not keep:
        return None
    low, high = norms
    room, empty, zeros, dot = _block_rows(vectors) + exact_scan.SCRATCH, np.empty, np.zeros, np.dot
    rest = (
        EVERY_ROW_LIST, 0, total, visibility.sequence, EVERY_ROW_BITMAP, metric, vectors, arrays.crcs, arrays.verified,
        arrays.deleted,
    )  # fmt: skip
    one = empty((1, vectors.shape[1]), np.float32), empty((1, keep + 1), np.int64), zeros(1, np.int64)
    call = entry_of(exact_scan.scan_rows, *one, *rest, empty(room, np.int32))

    def find(query: NDArray[np.float32]) -> tuple[NDArray[np.int64], NDArray[np.float32]] | None:
        if not low <= dot(query, query) <= high:
            return None
        keys, sizes = empty((1, keep + 1), np.int64), zeros(1, np.int64)
        bad = call(query[None], keys, sizes, *rest, empty(room, np.int32))
        if bad >= 0:
            raise corrupt_row_error(int(bad), arrays)
        best = keys[0, : sizes.item()]
        rows = best & ROW_OF_KEY
        return rows if ids is None else ids[rows], distances_of(best)

    return find


def _block_rows(vectors: NDArray[np.generic]) -> int:
    """Rows that are scored for all queries before the next are read."""
    row_bytes = vectors.shape[1] * vectors.itemsize
    return int(max(_BLOCK_ROWS_MIN, min(_BLOCK_ROWS_MAX, _BLOCK_BYTES // max(1, row_bytes))))


def _scan_ranges(scan: _Scan, part: slice, keep: int, edges: list[int], workers: ThreadPool, found: Neighbors) -> None:
    """One range of rows, or of `listed` where there are any, between each two of `edges`."""
    nq, threads = len(scan.queries), len(edges) - 1
    keys = np.empty((threads, nq, keep + 1), np.int64)
    sizes = np.zeros((threads, nq), np.int64)
    many = nq >= _BY_PRODUCTS and scan.metric not in OF_BITS and scan.vectors.shape[1] >= BOUND_DIM_MIN
    scan_range = _by_products if many else _one_by_one

    def run(i: int) -> int:
        return scan_range(scan, edges[i], edges[i + 1], keys[i], sizes[i])

    for bad in workers.map(run, range(threads), threads):
        if bad >= 0:
            raise corrupt_row_error(bad, scan.arrays)
    exact_scan.merge(
        keys,
        sizes,
        np.empty(threads, np.int64),
        found.rows.shape[1],
        found.rows[part],
        found.distances[part],
        found.counts[part],
    )


def _one_by_one(scan: _Scan, first: int, stop: int, keys: NDArray[np.int64], sizes: NDArray[np.int64]) -> int:
    """Add the nearest of a range to keys int64[nq, keep + 1], sizes int64[nq]. Returns the first row that does not
    match its checksum, or -1.
    """
    arrays, scratch = scan.arrays, np.empty(scan.block + exact_scan.SCRATCH, np.int32)
    return int(
        exact_scan.scan_rows(
            scan.queries, keys, sizes, scan.listed, first, stop, scan.sequence, EVERY_ROW_BITMAP, scan.metric,
            scan.vectors, arrays.crcs, arrays.verified, arrays.deleted, scratch,
        )
    )  # fmt: skip


def _by_products(scan: _Scan, first: int, stop: int, keys: NDArray[np.int64], sizes: NDArray[np.int64]) -> int:
    """The same, for many queries."""
    begin = first + max(_FIRST_ROWS, _FIRST_PER_NEIGHBOUR * keys.shape[1])
    if stop - first < _RANGE_MIN * (begin - first):
        return _one_by_one(scan, first, stop, keys, sizes)
    bad = _one_by_one(scan, first, begin, keys, sizes)
    with np.errstate(over="ignore", invalid="ignore"):
        for at in range(0, len(scan.queries) if bad < 0 else 0, COLUMNS):
            some = slice(at, at + COLUMNS)
            bad = _columns(scan._replace(queries=scan.queries[some]), begin, stop, keys[some], sizes[some])
            if bad >= 0:
                break
    return bad


def _columns(scan: _Scan, begin: int, stop: int, keys: NDArray[np.int64], sizes: NDArray[np.int64]) -> int:
    """The same of at most COLUMNS queries, whose nearest rows of some are known."""
    arrays, nq, step = scan.arrays, len(scan.queries), block_rows(scan.queries.shape[1])
    bounds = None
    while begin < stop:
        end = min(begin + step, stop)
        stored = arrays.vectors[scan.listed[begin:end] if len(scan.listed) else slice(begin, end)]
        if bounds is None:
            bounds = ProductBounds(scan.queries, scan.metric, stored, step)
        products = bounds.products(stored, _within(keys, sizes))
        bad, pairs = exact_scan.scan_bounded(
            scan.queries, keys, sizes, scan.listed, begin, end, scan.sequence, scan.metric, scan.vectors, arrays.crcs,
            arrays.verified, arrays.deleted, products,
        )  # fmt: skip
        begin = end
        if bad >= 0:
            return int(bad)
        if pairs > _PAIRS_MAX * len(stored) * nq:
            return _one_by_one(scan, begin, stop, keys, sizes)
    return -1


def _within(keys: NDArray[np.int64], sizes: NDArray[np.int64]) -> NDArray[np.float64]:
    """float64[nq]: distances that lie beyond what rounds to the last neighbour of each query so far; infinite where
    fewer are known.
    """
    keep = keys.shape[1] - 1
    beyond = np.nextafter(distances_of(keys[:, keep - 1]), np.float32(np.inf)).astype(np.float64)
    return np.where(sizes == keep, beyond, np.inf)
