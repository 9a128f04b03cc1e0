"""One search call over lists: choose them, scan their codes, read and score the best rows.

    probe -> heads         [submit: extents of lists that are on disk]
    scan  -> shortlist     lists in memory first, then those that were read meanwhile
    read  -> vectors       of the shortlist, all at once, from the row file past the page cache
    rerank, tail, merge -> answer

`ListsContext` is what follows from a view and is the same for every search of it. `ListScratch` holds the buffers of
one slice of queries, kept between calls by shape, so that a search allocates nothing. `ListSearch` is one call, or any
number of the same. Any number of threads search at once, each with buffers of its own.

How many lists a query reads: those that lie about as near as its nearest ones do.

    nprobe -> ratio        a list is read while |q - head|^2 <= ratio * mean of the nearest eight

The ratio is the one by which rows of the collection, taken as queries, would read `nprobe` lists on average. So a query
among many heads reads more of them and a query close to few reads less; at equal recall that is a quarter fewer lists
(measured on 1,000,000 SIFT rows: 24 to 28 % at recalls of 0.90 to 0.98). SPANN (Chen et al., 2021) compares with the
nearest head alone and leaves the ratio to the user.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vecdb import schema
from vecdb.index.common.batching import empty_result
from vecdb.index.common.sampling import evenly_spaced
from vecdb.index.contract import Neighbors, corrupt_row_error
from vecdb.index.row_set import EVERY_ROW_BITMAP, EVERY_ROW_LIST
from vecdb.index.spann.posting_lists import ListsView, PostingLists, ReadExtents, check_extents
from vecdb.kernels.array_table import ArrayTable
from vecdb.kernels.primitives import checksums
from vecdb.kernels.search import exact_scan, list_probe, list_rerank, list_scan
from vecdb.kernels.search.list_probe import NEAREST, ListWork
from vecdb.schema import Visibility
from vecdb.storage.disk import filesystem, list_file, mapped_memory, row_format
from vecdb.storage.disk.row_file import RowArrays

PROBE_SAMPLES = 64  # rows taken as queries, by which the lists of a query are counted
COMPARED_LISTS_MAX = (
    2_048  # heads compared of each such row: for more lists than that, every query reads as many as asked
)
_MOST = 1.5  # times nprobe that one query may read
_SMALLEST_MEAN = np.float32(1e-30)  # of distances to the nearest heads, which may all be 0
_UNROLLED_BYTES_MAX = 128  # wider codes gain nothing by a width known when the kernel is compiled
_REACH_PER_PROBE, _REACH_MORE = 10, 1_600  # heads compared: finds 98 % of the nearest (measured on 20,000 heads)
_SLACK_ON_DISK = 1.5  # where a list costs a read of its own, none of its rows should be lost for want of another
_STEADY = 10  # heads may change by a tenth before lists are counted anew
_STAGED_MIN = 16  # extents, from which half are scanned while the others are under way
_KEPT_MAX, _SHAPES_MAX, _KEPT_BYTES = 64, 8, 4 << 20  # buffers of one shape; shapes; bytes of one that is kept
_PAGES_MIN_BYTES = 1 << 18  # read into: grown to twice what is wanted, at least this

WORK = len(ListWork)
_NO_RATIO = np.float32(np.inf)  # keeps all lists

Rows64 = NDArray[np.int64]

TOO_FEW = -1  # count of a query that was not answered, see `ListSearch`
_NONE: Rows64 = np.empty(0, np.int64)


def probes_max(probes: int, heads: int) -> int:
    """Lists that one query may read where `probes` (at most heads) are wanted on average: just those where they are too
    few to speak of near ones, all there are, or more than a sampled row is compared with.
    """
    width = min(heads, int(_MOST * probes))
    return width if NEAREST <= probes < heads and width <= COMPARED_LISTS_MAX else probes


class ProbeRatios:
    """The ratio for each number of lists. nears : squared distances of sampled rows to their nearest heads,
    float32[samples, lists], in any order.
    """

    def __init__(self, nears: NDArray[np.float32]) -> None:
        nears = np.sort(nears, axis=1)
        self._ratios = nears / np.maximum(nears[:, :NEAREST].mean(axis=1, keepdims=True), _SMALLEST_MEAN)
        self._known: dict[int, float] = {}

    def ratio(self, probes: int, width: int) -> float:
        """The ratio for `probes` lists on average, `width` at most."""
        known = self._known.get(probes)
        if known is None:
            within = self._ratios[:, :width].ravel()  # a few heads have come since they were sampled: width may be more
            last = min(probes * len(self._ratios), len(within) - 1)
            known = self._known[probes] = float(np.partition(within, last)[last])
        return known


def slack_of(probes: int, heads: int) -> float:
    """How many errors of an estimate a shortlist goes past its limit-th: further where more lists are asked for, for
    then recall counts, and rows in hand must not be lost to the codes.

    Fitted for the least time at recalls of 0.90 to 0.98 on 1,000,000 SIFT rows, GloVe and 40,000 sentences, with 2
    bits.
    """
    if probes == heads:
        return 2.5
    share = probes / float(heads**0.5)
    return min(2.5, 0.6 + 0.31 * share, 1.2 + 0.08 * share)


class RowFile:
    """The row file, open past the page cache for as long as somebody holds this."""

    def __init__(self, path: Path) -> None:
        self.fd = filesystem.open_direct(path)

    def __del__(self) -> None:
        fd, self.fd = getattr(self, "fd", -1), -1
        if fd >= 0:
            filesystem.close(fd)


class ListsContext:
    """What every search of one view needs: tables that kernels take, and free buffers."""

    def __init__(
        self,
        view: ListsView,
        arrays: RowArrays,
        metric: int,
        row_file: RowFile,
        lists: PostingLists,
        previous: ListsContext | None = None,
    ) -> None:
        coder, heads = view.coder, view.heads
        self.view = view
        self.arrays = arrays
        self.metric = metric
        self.row_file = row_file
        self.lists = lists
        self.ip = coder.ip
        self.mean_length = max(1.0, float(view.lengths.mean()))
        self.longest = int(view.lengths.max(initial=1))
        self.largest_group = heads.largest_group
        self.all_in_memory = bool((view.body_offsets >= 0).all())
        self.vectors = checksums.for_kernels(arrays.vectors)
        self.bits = (0,) * coder.bits
        chunks = coder.width // list_scan.CHUNK_BYTES if coder.width <= _UNROLLED_BYTES_MAX else 0
        self.chunks = (0,) * chunks
        self.blocks = heads.blocks
        self.heads = heads.table(by_inner_product=coder.ip)
        self.space = coder.space()
        self.scale = coder.scale(by_inner_product=coder.ip)
        self.list_arrays = ArrayTable(list_scan.ListArrays(
            lengths=view.lengths, extent_pages=view.extent_pages, probe_counts=view.probe_counts,
            in_several=view.replicas > 1, entry_bytes=coder.entry_bytes, header_bytes=list_file.EXTENT_BYTES,
            page_bytes=list_file.PAGE,
        ))  # fmt: skip
        self.layout = ArrayTable(list_rerank.RowFileLayout(
            header_bytes=row_format.HEADER_BYTES, page_bytes=list_file.PAGE,
            row_bytes=arrays.vectors.shape[1] * arrays.vectors.itemsize, crcs=arrays.crcs,
        ))  # fmt: skip
        self._free: dict[tuple[int, int, int, int], list[ListScratch]] = {}
        self._ratios: ProbeRatios | None = None
        if previous is not None and abs(previous.view.heads.count - heads.count) * _STEADY < heads.count:
            self._ratios = previous._ratios  # what holds for nearly the same heads

    def probing(self, probes: int) -> tuple[int, float]:
        """(lists that a query may read, how much farther than the nearest they may be) for so many on average. Under ip
        the distance of a list is no measure.
        """
        width = probes if self.ip else probes_max(probes, self.view.heads.count)
        if width == probes:
            return probes, float("inf")
        if self._ratios is None:
            self._ratios = ProbeRatios(self._sampled())
        return width, self._ratios.ratio(probes, width)

    def _sampled(self) -> NDArray[np.float32]:
        """Squared distances of some rows to their nearest heads: float32[samples, lists]."""
        picked = evenly_spaced(self.view.indexed, PROBE_SAMPLES)
        queries = np.ascontiguousarray(self.arrays.vectors[picked], np.float32)
        b = ListScratch(self, len(picked), 1, min(COMPARED_LISTS_MAX, self.view.heads.count), 1)
        choose(self, b, queries, _NO_RATIO, np.zeros(WORK, np.int64))
        nears: NDArray[np.float32] = b.probed.nears
        return nears

    def take(self, nq: int, limit: int, probes: int, most: int) -> ListScratch:
        kept = self._free.get((nq, limit, probes, most))
        if kept:
            try:
                return kept.pop()
            except IndexError:
                pass
        return ListScratch(self, nq, limit, probes, most)

    def give(self, buffers: ListScratch) -> None:
        kept = self._free.get(buffers.shape)
        if kept is None:
            if len(self._free) >= _SHAPES_MAX:
                self._free.clear()  # callers who change their parameters all the time pay for new ones
            kept = self._free.setdefault(buffers.shape, [])
        if len(kept) < _KEPT_MAX and buffers.nbytes + len(buffers.pages) < _KEPT_BYTES:
            kept.append(buffers)


class ListScratch:
    """Buffers of one slice of queries, and their tables; the classes of the tables say what each array is for.

    keys, sizes : of the answers: those of the lists, and those of the tail.   buffer_offsets : int64[lists], where
    the body of a list is in `pages`, or -1.
    """

    def __init__(self, context: ListsContext, nq: int, limit: int, probes: int, most: int) -> None:
        coder, heads = context.view.coder, context.view.heads
        self.shape = (nq, limit, probes, most)
        self.keys = np.zeros((2, nq, limit + 1), np.int64)
        self.sizes = np.zeros((2, nq), np.int64)
        self.merge_places = np.zeros(2, np.int64)
        self.answers = ArrayTable(list_rerank.Answers(self.keys[0], self.sizes[0]))
        self.reach = int(_REACH_PER_PROBE * probes / _MOST) + max(_REACH_MORE, probes)
        width = heads.codes.shape[1]
        self.head_scratch = ArrayTable(list_probe.HeadScratch(
            query8=np.zeros(width, np.int8), query16=np.zeros(width, np.int16),
            group_keys=np.zeros(len(heads.group_ends), np.int64),
            keys=np.zeros(self.reach + context.largest_group + 64, np.int64),
        ))  # fmt: skip
        self.probed: Any = list_probe.ProbedQueries(
            lists=np.zeros((nq, probes), np.int32), nears=np.zeros((nq, probes), np.float32),
            counts=np.zeros(nq, np.int32), query8s=np.zeros((nq, coder.padded_dim), np.int8),
            steps=np.zeros(nq, np.float32), sums=np.zeros(nq, np.int32), units=np.ones(nq, np.float32),
            norms=np.zeros(nq, np.float32), unit=np.zeros(coder.dim, np.float32),
            rotated=np.zeros(coder.padded_dim, np.float32),
        )  # fmt: skip
        self.probed_table = ArrayTable(self.probed).table
        self.shortlist: Any = list_scan.ListShortlist(
            keys=np.zeros((nq, most + 1), np.int64), errors=np.zeros((nq, most + 1), np.float32),
            sizes=np.zeros(nq, np.int32), dots=np.zeros(context.longest, np.int32),
            estimates=np.zeros(context.longest, np.float32), matches=np.zeros(nq, np.int64),
        )  # fmt: skip
        self.shortlist_table = ArrayTable(self.shortlist).table
        self.buffer_offsets = np.full(0 if context.all_in_memory else heads.count, -1, np.int64)
        self.extents: Any = list_scan.ExtentReads(
            lists=np.zeros(nq * probes, np.int64), offsets=np.zeros(nq * probes, np.int64),
            sizes=np.zeros(nq * probes, np.int64), starts=np.zeros(nq * probes, np.int64),
        )  # fmt: skip
        self.extents_table = ArrayTable(self.extents).table
        vectors = context.arrays.vectors
        staging = np.zeros((1, vectors.shape[1]), vectors.dtype)
        self.staging = checksums.for_kernels(staging)
        self.reads: Any = list_rerank.RowReads(
            rows=np.zeros(nq * most, np.int64), owners=np.zeros(nq * most, np.int64),
            offsets=np.zeros(nq * most, np.int64), sizes=np.zeros(nq * most, np.int64),
            starts=np.zeros(nq * most, np.int64), staged=staging.view(np.uint8),
        )  # fmt: skip
        self.reads_table = ArrayTable(self.reads).table
        self.tail = np.zeros(exact_scan.BLOCK_ROWS + exact_scan.SCRATCH, np.int32)
        self.nbytes = 8 * (2 * nq * (limit + 1) + nq * (most + 1) + 5 * nq * most)  # of keys and reads
        self.pages: NDArray[np.uint8] = np.empty(0, np.uint8)

    def grow(self, nbytes: int) -> None:
        """Make room for so many page-aligned bytes, for direct I/O."""
        self.pages = mapped_memory.reserve_memory(max(2 * nbytes, _PAGES_MIN_BYTES), np.uint8)


def choose(
    context: ListsContext, b: ListScratch, queries: NDArray[np.float32], ratio: np.float32, work: NDArray[np.int64]
) -> None:
    """Fill b.probed with the lists of each query, and what the scan takes of the queries."""
    list_probe.probe(
        queries, ratio, b.reach, context.heads.table, context.space.table, b.probed_table, b.head_scratch.table, work,
        context.blocks,
    )  # fmt: skip


def read_and_rerank(
    context: ListsContext,
    b: ListScratch,
    queries: NDArray[np.float32],
    chosen: tuple[int, int, int],
    begun: int,
    work: NDArray[np.int64],
) -> None:
    """Read the rows of the shortlists from the row file and score them into the answers. chosen : what `choose_reads`
    returned.   begun : when that was asked, by perf_counter_ns.
    """
    reads, (total, ranges, nbytes) = b.reads, chosen
    if nbytes > len(b.pages):
        b.grow(nbytes)
    batch = context.lists.read_batches.take()
    try:
        got = batch.read(
            context.row_file.fd, reads.offsets[:ranges], reads.sizes[:ranges], b.pages, reads.starts[:ranges]
        )
    finally:
        context.lists.read_batches.give(batch)
    if ranges and got[got.argmin()] < 0:
        raise OSError(-int(got.min()), "reading the row file")
    read = time.perf_counter_ns()
    bad = list_rerank.rerank(
        queries, context.metric, b.staging, b.pages, b.shortlist_table, context.layout.table, b.reads_table,
        b.answers.table,
    )  # fmt: skip
    if bad >= 0:
        raise corrupt_row_error(bad, context.arrays)
    work[ListWork.RERANKED] += total
    work[ListWork.READS] += ranges
    work[ListWork.BYTES] += nbytes
    work[ListWork.NS_READ] += read - begun
    work[ListWork.NS_RERANK] += time.perf_counter_ns() - read


class ListSearch:
    """What is the same for all queries of one search call, and for all calls with the same parameters.

    matches_min : a query whose lists hold fewer entries that the caller's bitmap holds is not answered: its count is
    `TOO_FEW`, and the caller is to look at more lists.
    rerank : rows that are read and scored on their vectors; None: as the codes' error and the
    configuration say.
    empty : room for what `answer` fills, of so many queries.
    """

    empty: Callable[[int], Neighbors]

    def __init__(
        self,
        context: ListsContext,
        config: schema.Spann,
        limit: int,
        nprobe: int | None,
        visibility: Visibility,
        matches_min: int = 0,
        rerank: int | None = None,
    ) -> None:
        self.context = context
        self.view = context.view
        self.limit = limit
        self.visibility = visibility
        self.matches_min = matches_min
        heads = self.view.heads.count
        asked = nprobe or config.nprobe or 1
        self.probes = min(heads, max(asked, int(2 * limit / context.mean_length) + 1))
        self.width, ratio = context.probing(self.probes)
        self.ratio = np.float32(ratio)
        self.most = max(limit + 2, rerank or config.rerank or 4 * limit + 20)
        self.least = limit + max(2, limit // 5) if rerank is None else self.most
        errors = slack_of(self.probes, heads)
        if not context.all_in_memory:
            errors = max(errors, _SLACK_ON_DISK)
        self.slack = np.float32(self.view.coder.error * errors)
        self.scores_exactly = len(self.view.outlier_rows) > 0 or visibility.row_count > self.view.indexed
        self.empty = partial(empty_result, limit=limit, counters=WORK)

    def answer(
        self, queries: NDArray[np.float32], found: Neighbors, allow: NDArray[np.uint64] = EVERY_ROW_BITMAP
    ) -> None:
        """Answer a slice of queries (float32[nq, dim]) in `found`, to whose work is added. allow : bitmap of rows that
        may be returned.
        """
        work = found.work
        b = self._scanned(queries, allow, work)
        begun = time.perf_counter_ns()
        read_and_rerank(self.context, b, queries, self._cut(b), begun, work)
        if self.scores_exactly:
            self._score_exactly(b, queries, allow, work)
        exact_scan.merge(b.keys, b.sizes, b.merge_places, self.limit, found.rows, found.distances, found.counts)
        if self.matches_min:
            found.counts[b.shortlist.matches < self.matches_min] = TOO_FEW
        self.context.give(b)

    def _scanned(self, queries: NDArray[np.float32], allow: NDArray[np.uint64], work: NDArray[np.int64]) -> ListScratch:
        """Buffers with the shortlists of the queries, and no answers."""
        b = self.context.take(len(queries), self.limit, self.width, self.most)
        b.sizes[:] = 0
        b.shortlist.sizes[:] = 0
        b.shortlist.matches[:] = 0
        begun = time.perf_counter_ns()
        choose(self.context, b, queries, self.ratio, work)
        probed = time.perf_counter_ns()
        work[ListWork.NS_PROBE] += probed - begun
        if self.context.all_in_memory:
            self._scan(b, self.view.body_offsets, self.view.arena.data, allow, work)
        else:
            self._scan_and_read(b, allow, work)
        work[ListWork.NS_SCAN] += time.perf_counter_ns() - probed
        return b

    def _scan(
        self,
        b: ListScratch,
        body_offsets: Rows64,
        data: NDArray[np.uint8],
        allow: NDArray[np.uint64],
        work: NDArray[np.int64],
    ) -> None:
        """Scan those probed lists whose bodies are in `data`, at body_offsets (int64[lists]) that are not negative."""
        context, visibility = self.context, self.visibility
        list_scan.scan(
            body_offsets, data, context.list_arrays.table, context.scale.table, b.probed_table, b.shortlist_table,
            visibility.row_count, visibility.sequence, context.arrays.deleted, allow, work, context.bits,
            context.chunks,
        )  # fmt: skip

    def _scan_and_read(self, b: ListScratch, allow: NDArray[np.uint64], work: NDArray[np.int64]) -> None:
        """Lists in memory are scanned while the others are being read, and those that came first before the rest."""
        view = self.view
        waited = 0
        count, nbytes, resident = list_scan.choose_lists(
            view.body_offsets, b.buffer_offsets, self.context.list_arrays.table, b.probed_table, b.extents_table
        )
        lists, offsets, sizes, starts = (array[:count] for array in b.extents)
        if nbytes > len(b.pages):
            b.grow(nbytes)
        batch = self.context.lists.read_batches.take()
        try:
            if count:
                assert view.file is not None
                batch.submit(view.file.fd, offsets, sizes, b.pages, starts)
            if resident:
                self._scan(b, view.body_offsets, view.arena.data, allow, work)
            if count == 0:
                return
            begun = time.perf_counter_ns()
            early = batch.arrived(count // 2) if count >= _STAGED_MIN else _NONE
            waited = time.perf_counter_ns() - begun
            if len(early):
                self._scan_extents(b, ReadExtents(lists, starts, sizes, sizes, b.pages), early, allow, work)
            begun = time.perf_counter_ns()
            got = batch.wait()
            waited += time.perf_counter_ns() - begun
        finally:
            self.context.lists.read_batches.give(batch)
        late = np.ones(count, np.bool_)
        late[early] = False
        self._scan_extents(b, ReadExtents(lists, starts, sizes, got, b.pages), np.flatnonzero(late), allow, work)
        work[ListWork.READS] += count
        work[ListWork.BYTES] += nbytes
        work[ListWork.NS_READ] += waited
        work[ListWork.NS_SCAN] -= waited

    def _scan_extents(
        self,
        b: ListScratch,
        extents: ReadExtents,
        some: Rows64,
        allow: NDArray[np.uint64],
        work: NDArray[np.int64],
    ) -> None:
        """Scan those of the extents that `some` numbers."""
        check_extents(self.view, extents, some)
        lists = extents.lists[some]
        b.buffer_offsets[lists] = extents.starts[some] + list_file.EXTENT_BYTES
        self._scan(b, b.buffer_offsets, extents.buffer, allow, work)
        b.buffer_offsets[lists] = -1

    def _cut(self, b: ListScratch) -> tuple[int, int, int]:
        """Cut the shortlists to what may be among the nearest: (rows, ranges, bytes) to read."""
        found: tuple[int, int, int] = list_rerank.choose_reads(
            b.probed_table, b.shortlist_table, self.context.layout.table, b.reads_table, self.limit, self.least,
            self.slack, self.context.ip,
        )  # fmt: skip
        return found

    def _score_exactly(
        self, b: ListScratch, queries: NDArray[np.float32], allow: NDArray[np.uint64], work: NDArray[np.int64]
    ) -> None:
        """Rows that codes say little of, and those that no list has yet, joined to the answers."""
        if len(self.view.outlier_rows):
            self._score_outliers(b, queries, allow, work)
        if self.visibility.row_count > self.view.indexed:
            self._scan_tail(b, queries, allow)

    def _score_outliers(
        self, b: ListScratch, queries: NDArray[np.float32], allow: NDArray[np.uint64], work: NDArray[np.int64]
    ) -> None:
        """Rows whose codes say little are scored on their vectors, a few hundred at most."""
        arrays, visibility = self.context.arrays, self.visibility
        bad = list_rerank.score_rows(
            queries, self.context.metric, self.view.outlier_rows, visibility.row_count, visibility.sequence, allow,
            self.context.vectors, arrays.crcs, arrays.verified, arrays.deleted, b.answers.table,
        )  # fmt: skip
        if bad >= 0:
            raise corrupt_row_error(bad, arrays)
        work[ListWork.RERANKED] += len(queries) * len(self.view.outlier_rows)

    def _scan_tail(self, b: ListScratch, queries: NDArray[np.float32], allow: NDArray[np.uint64]) -> None:
        """Rows that no list has yet, compared with their vectors."""
        arrays, visibility = self.context.arrays, self.visibility
        bad = exact_scan.scan_rows(
            queries, b.keys[1], b.sizes[1], EVERY_ROW_LIST, self.view.indexed, visibility.row_count,
            visibility.sequence, allow, self.context.metric, self.context.vectors, arrays.crcs, arrays.verified,
            arrays.deleted, b.tail,
        )  # fmt: skip
        if bad >= 0:
            raise corrupt_row_error(bad, arrays)
