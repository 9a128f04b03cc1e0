"""One search call over lists: choose them, scan their codes, read and score the best rows.

    probe -> heads         [submit: extents of lists that are on disk]
    scan  -> shortlist     lists in memory first, then what was read meanwhile
    read  -> vectors       of the shortlist, all at once, from the row file past the page cache
    rerank, tail, merge -> answer

`ListsContext` is what follows from a view and is the same for every search of it; `ListScratch` is what one slice of
queries works in, kept between calls by shape, so that a search allocates nothing. Any number of threads search at
once, each with buffers of its own.
"""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vecdb import schema
from vecdb.index.common.sampling import evenly_spaced
from vecdb.index.contract import Neighbors, corrupt_row_error
from vecdb.index.row_set import EVERY_ROW_LIST
from vecdb.index.spann.posting_lists import ListsView, PostingLists, check_extents
from vecdb.index.spann.probe_count import LISTS_MAX, MOST, SAMPLES, Probing, most
from vecdb.kernels.primitives import checksums
from vecdb.kernels.search import exact_scan
from vecdb.kernels.search import list_scan as kernels
from vecdb.schema import Visibility
from vecdb.storage.disk import filesystem, list_file
from vecdb.storage.disk.row_file import RowArrays
from vecdb.storage.kv import record_format

_UNROLLED_BYTES_MAX = 128  # wider codes gain nothing by a width known when the kernel is compiled
_REACH_PER_PROBE, _REACH_MORE = 10, 1_600  # heads compared: finds 98 % of the nearest (measured on 20,000 heads)
_SLACK_ON_DISK = 1.5  # where a list costs a read of its own, none of its rows should be lost for want of another
_STEADY = 10  # heads may change by a tenth before lists are counted anew
_STAGED_MIN = 16  # extents, from which half are scanned while the others are under way
_KEPT_MAX, _SHAPES_MAX, _KEPT_BYTES = 64, 8, 4 << 20  # buffers of one shape; shapes; bytes of one that is kept

# what `Neighbors.work` counts
HEADS, ENTRIES, PROBES, RERANKED, READS, BYTES, NS_PROBE, NS_SCAN, NS_READ, NS_RERANK = range(10)
WORK = 10

Rows64 = NDArray[np.int64]

_NONE: Rows64 = np.empty(0, np.int64)


def _slack(probes: int, heads: int) -> float:
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
    """What every search of one view needs."""

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
        self.mean_length = max(1.0, float(view.lengths.mean()))
        self.longest = int(view.lengths.max(initial=1))
        self.largest_group = heads.largest_group
        self.all_in_memory = bool((view.places >= 0).all())
        self.vectors = checksums.for_kernels(arrays.vectors)
        self.row_bytes = arrays.vectors.shape[1] * arrays.vectors.itemsize
        self.bits = (0,) * coder.bits
        self.chunks = (0,) * (coder.width // 16 if coder.width <= _UNROLLED_BYTES_MAX else 0)
        self.head_args = (
            heads.codes, heads.bias, heads.group_codes, heads.group_bias, heads.group_ends, coder.quantiser.mean,
            np.float32(coder.quantiser.scale), coder.center, coder.signs,
        )  # fmt: skip
        self.code_args = (
            coder.width, coder.lossless, np.float32(0.5 if coder.ip else 1.0), np.float32(0.0 if coder.ip else
            coder.add_unit), np.float32(coder.rescale_unit),
        )  # fmt: skip
        self._free: dict[tuple[int, int, int, int], list[ListScratch]] = {}
        self._probing: Probing | None = None
        if previous is not None and abs(previous.view.heads.count - heads.count) * _STEADY < heads.count:
            self._probing = previous._probing  # what holds for nearly the same heads

    def probing(self, probes: int) -> tuple[int, float]:
        """(lists that a query may read, how much farther than the nearest they may be) for so many on average; see
        probe_count.py. Under ip the distance of a list is no measure.
        """
        width = probes if self.view.coder.ip else most(probes, self.view.heads.count)
        if width == probes:
            return probes, float("inf")
        if self._probing is None:
            self._probing = Probing(self._sampled())
        return width, self._probing.ratio(probes, width)

    def _sampled(self) -> NDArray[np.float32]:
        """Squared distances of some rows to their nearest heads: float32[samples, lists]."""
        picked = evenly_spaced(self.view.indexed, SAMPLES)
        queries = np.ascontiguousarray(self.arrays.vectors[picked], np.float32)
        b = ListScratch(self, len(picked), 1, min(LISTS_MAX, self.view.heads.count), 1)
        choose(self, b, queries, float("inf"), np.zeros(WORK, np.int64))
        return b.nears

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
        if len(kept) < _KEPT_MAX and buffers.nbytes() < _KEPT_BYTES:
            kept.append(buffers)


class ListScratch:
    """What one slice of queries works in; the kernels of kernels/search/list_scan.py say what each array is for."""

    def __init__(self, prepared: ListsContext, nq: int, limit: int, probes: int, most: int) -> None:
        coder, heads = prepared.view.coder, prepared.view.heads
        self.shape = (nq, limit, probes, most)
        self.keys = np.zeros((2, nq, limit + 1), np.int64)
        self.sizes = np.zeros((2, nq), np.int64)
        self.merge_places = np.zeros(2, np.int64)
        self.probes = np.zeros((nq, probes), np.int32)
        self.nears = np.zeros((nq, probes), np.float32)
        self.counts = np.zeros(nq, np.int32)
        self.query8s = np.zeros((nq, coder.padded_dim), np.int8)
        self.steps = np.zeros(nq, np.float32)
        self.sums = np.zeros(nq, np.int32)
        self.units = np.ones(nq, np.float32)
        self.norms = np.zeros(nq, np.float32)
        self.errors = np.zeros((nq, most + 1), np.float32)
        reach = int(_REACH_PER_PROBE * probes / MOST) + max(_REACH_MORE, probes)
        self.reach = reach
        self.probe_scratch = (
            np.zeros(coder.dim, np.float32), np.zeros(coder.padded_dim, np.float32),
            np.zeros(len(heads.group_ends), np.int64), np.zeros(reach + prepared.largest_group + 64, np.int64),
            np.zeros(heads.codes.shape[1], np.int8), np.zeros(heads.codes.shape[1], np.int16),
        )  # fmt: skip
        self.shortlist = np.zeros((nq, most + 1), np.int64)
        self.kept = np.zeros(nq, np.int32)
        self.dots = np.zeros(prepared.longest, np.int32)
        self.estimates = np.zeros(prepared.longest, np.float32)
        self.there = np.zeros(0, np.int64)
        self.extents = tuple(np.zeros(nq * probes, np.int64) for _ in range(4))
        self.reads = tuple(np.zeros(nq * most, np.int64) for _ in range(5))
        vectors = prepared.arrays.vectors
        staging = np.zeros((1, vectors.shape[1]), vectors.dtype)
        self.staging = (checksums.for_kernels(staging), staging.view(np.uint8))
        self.tail = np.zeros(exact_scan.BLOCK_ROWS, np.int32)
        self._pages: NDArray[np.uint8] = np.empty(0, np.uint8)

    def nbytes(self) -> int:
        return self._pages.nbytes + self.shortlist.nbytes + self.keys.nbytes + sum(a.nbytes for a in self.reads)

    def pages(self, nbytes: int) -> NDArray[np.uint8]:
        """Page-aligned bytes for direct I/O."""
        if len(self._pages) < nbytes:
            self._pages = filesystem.reserve_memory(max(2 * nbytes, 1 << 18), np.uint8)
        return self._pages


def choose(
    prepared: ListsContext, b: ListScratch, queries: NDArray[np.float32], ratio: float, work: NDArray[np.int64]
) -> None:
    """Fill b.probes, b.nears and b.counts with the lists of each query, and what the scan takes of the queries."""
    coder = prepared.view.coder
    kernels.probe(
        queries, coder.cosine, coder.ip, coder.lossless, b.probes.shape[1], b.reach, np.float32(ratio),
        *prepared.head_args, b.probes, b.nears, b.counts, b.query8s, b.steps, b.sums, b.units, b.norms,
        *b.probe_scratch, work, prepared.view.heads.blocks,
    )  # fmt: skip


class ListSearch:
    """One search call: what is the same for all its queries."""

    def __init__(
        self,
        prepared: ListsContext,
        config: schema.Spann,
        limit: int,
        nprobe: int | None,
        visibility: Visibility,
        allow: NDArray[np.uint64],
    ) -> None:
        self.prepared = prepared
        self.view = prepared.view
        self.limit = limit
        self.visibility = visibility
        self.allow = allow
        asked = nprobe or config.nprobe or 1
        self.probes = min(self.view.heads.count, max(asked, int(2 * limit / prepared.mean_length) + 1))
        self.width, self.ratio = prepared.probing(self.probes)
        self.most = max(limit + 2, config.rerank or 4 * limit + 20)
        self.least = limit + max(2, limit // 5)
        errors = _slack(self.probes, self.view.heads.count)
        if not prepared.all_in_memory:
            errors = max(errors, _SLACK_ON_DISK)
        self.slack = np.float32(self.view.coder.error * errors)

    def answer(self, queries: NDArray[np.float32], found: Neighbors) -> None:
        """Answer a slice of queries (float32[nq, dim]) in place; work is added to."""
        work = found.work
        b = self.prepared.take(len(queries), self.limit, self.width, self.most)
        b.sizes[:] = 0
        b.kept[:] = 0
        begun = time.perf_counter_ns()
        choose(self.prepared, b, queries, self.ratio, work)
        probed = time.perf_counter_ns()
        work[NS_PROBE] += probed - begun
        if self.prepared.all_in_memory:
            arena = self.view.arena
            self._scan(b, self.view.places, arena.data, arena.data16, arena.data32, work)
        else:
            self._scan_and_read(b, work)
        work[NS_SCAN] += time.perf_counter_ns() - probed
        self._rerank(b, queries, work)
        if len(self.view.far):
            self._far(b, queries, work)
        if self.visibility.row_count > self.view.indexed:
            self._tail(b, queries)
        exact_scan.merge(b.keys, b.sizes, b.merge_places, self.limit, found.rows, found.distances, found.counts)
        self.prepared.give(b)

    def _scan(
        self,
        b: ListScratch,
        places: Rows64,
        data: NDArray[np.uint8],
        data16: NDArray[np.uint16],
        data32: NDArray[np.uint32],
        work: NDArray[np.int64],
    ) -> None:
        """Scan those probed lists whose bodies `places` (int64[lists]) finds in `data`."""
        visibility = self.visibility
        kernels.scan(
            b.probes, b.nears, b.counts, places, self.view.lengths, data, data16, data32, *self.prepared.code_args,
            b.query8s, b.steps, b.sums, b.units, self.view.replicas > 1, visibility.row_count, visibility.sequence,
            self.prepared.arrays.deleted, self.allow, b.shortlist, b.errors, b.kept, b.dots, b.estimates,
            work, self.prepared.bits, self.prepared.chunks,
        )  # fmt: skip

    def _scan_and_read(self, b: ListScratch, work: NDArray[np.int64]) -> None:
        """Lists in memory are scanned while the others are being read, and those that came first before the rest."""
        view = self.view
        if len(b.there) != view.heads.count:
            b.there = np.full(view.heads.count, -1, np.int64)
        which, offsets, sizes, starts = b.extents
        waited = 0
        count, nbytes, resident = kernels.choose_lists(
            b.probes, b.counts, view.places, view.lengths, view.extents, view.coder.entry_bytes, list_file.EXTENT_BYTES,
            list_file.PAGE, view.heat, b.there, which, offsets, sizes, starts,
        )  # fmt: skip
        which, offsets, sizes, starts = which[:count], offsets[:count], sizes[:count], starts[:count]
        buffer = b.pages(nbytes)
        ring = self.prepared.lists.rings.take()
        try:
            if count:
                assert view.file is not None
                ring.submit(view.file.fd, offsets, sizes, buffer, starts)
            if resident:
                self._scan(b, view.places, view.arena.data, view.arena.data16, view.arena.data32, work)
            if count == 0:
                return
            extents = (which, starts, sizes, buffer)
            begun = time.perf_counter_ns()
            early = ring.arrived(count // 2) if count >= _STAGED_MIN else _NONE
            waited = time.perf_counter_ns() - begun
            if len(early):
                self._scan_extents(b, extents, early, sizes, work)
            begun = time.perf_counter_ns()
            got = ring.wait()
            waited += time.perf_counter_ns() - begun
        finally:
            self.prepared.lists.rings.give(ring)
        late = np.ones(count, np.bool_)
        late[early] = False
        self._scan_extents(b, extents, np.flatnonzero(late), got, work)
        work[READS] += count
        work[BYTES] += nbytes
        work[NS_READ] += waited
        work[NS_SCAN] -= waited

    def _scan_extents(
        self,
        b: ListScratch,
        extents: tuple[Rows64, Rows64, Rows64, NDArray[np.uint8]],
        some: Rows64,
        got: Rows64,
        work: NDArray[np.int64],
    ) -> None:
        """Scan those of the extents (lists, starts, sizes, buffer) that `some` numbers, of which `got` bytes are in."""
        which, starts, sizes, buffer = extents
        check_extents(self.view, some, which, starts, sizes, got, buffer)
        lists = which[some]
        b.there[lists] = starts[some] + list_file.EXTENT_BYTES
        self._scan(b, b.there, buffer, buffer.view(np.uint16), buffer.view(np.uint32), work)
        b.there[lists] = -1

    def _rerank(self, b: ListScratch, queries: NDArray[np.float32], work: NDArray[np.int64]) -> None:
        prepared, arrays = self.prepared, self.prepared.arrays
        begun = time.perf_counter_ns()
        rows, owners, offsets, lengths, places = b.reads
        total, ranges, nbytes = kernels.choose_reads(
            b.shortlist, b.errors, b.kept, self.limit, self.least, self.slack, b.norms, self.view.coder.ip,
            record_format.ROW_HEADER_BYTES, prepared.row_bytes, list_file.PAGE, rows, owners, offsets, lengths, places,
        )  # fmt: skip
        buffer = b.pages(nbytes)
        ring = prepared.lists.rings.take()
        try:
            got = ring.read(prepared.row_file.fd, offsets[:ranges], lengths[:ranges], buffer, places[:ranges])
        finally:
            prepared.lists.rings.give(ring)
        if ranges and got[got.argmin()] < 0:
            raise OSError(-int(got.min()), "reading the row file")
        read = time.perf_counter_ns()
        bad = kernels.rerank(
            queries,
            prepared.metric,
            b.kept,
            rows,
            owners,
            offsets,
            places,
            record_format.ROW_HEADER_BYTES,
            buffer,
            *b.staging,
            arrays.crcs,
            b.keys[0],
            b.sizes[0],
        )
        if bad >= 0:
            raise corrupt_row_error(bad, arrays)
        work[RERANKED] += total
        work[READS] += ranges
        work[BYTES] += nbytes
        work[NS_READ] += read - begun
        work[NS_RERANK] += time.perf_counter_ns() - read

    def _far(self, b: ListScratch, queries: NDArray[np.float32], work: NDArray[np.int64]) -> None:
        """Rows whose codes say little are scored on their vectors, a few hundred at most."""
        arrays, visibility = self.prepared.arrays, self.visibility
        bad = kernels.score_rows(
            queries, self.view.far, visibility.row_count, visibility.sequence, self.allow, self.prepared.metric,
            self.prepared.vectors, arrays.crcs, arrays.verified, arrays.deleted, b.keys[0], b.sizes[0],
        )  # fmt: skip
        if bad >= 0:
            raise corrupt_row_error(bad, arrays)
        work[RERANKED] += len(queries) * len(self.view.far)

    def _tail(self, b: ListScratch, queries: NDArray[np.float32]) -> None:
        """Rows that no list has yet, compared with their vectors."""
        arrays, visibility = self.prepared.arrays, self.visibility
        bad = exact_scan.scan_rows(
            queries,
            b.keys[1],
            b.sizes[1],
            EVERY_ROW_LIST,
            self.view.indexed,
            visibility.row_count,
            visibility.sequence,
            self.allow,
            self.prepared.metric,
            self.prepared.vectors,
            arrays.crcs,
            arrays.verified,
            arrays.deleted,
            b.tail,
        )
        if bad >= 0:
            raise corrupt_row_error(bad, arrays)
