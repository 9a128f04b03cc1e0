"""SPANN (Chen et al., 2021): policy over the lists engine. How many lists, what stays in memory, and the search call.

    rows    0 ........... indexed ............ row_count
            in lists      tail: vectors scanned

    search  heads -> lists -> [codes from disk, all at once] -> shortlist -> vectors from disk, all at once -> answer

With codes in memory a query touches the disk once. With none it is the paper's: lists are read, scanned, and the best
of them re-ranked. In between the hottest lists are in memory and are scanned while the others are being read.

Vectors are read from the row file itself, past the page cache: keeping a second copy of them in the order of the lists
would let survivors share pages (15 reads instead of 20), but doubles the disk and rewrites vectors with every split.

Three roles (base.py): searches take `lists.view` once; maintenance publishes new views; the publisher has nothing to
derive, because the tail is scanned on its vectors.

Invariants (`check` proves them): every row below `indexed` that is not dead is in one list at least and in none
twice; no list passes the ceiling after `restore`; codes and factors are what encoding gives; every extent in use is
sound.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vecdb import limits, schema
from vecdb.index import bulk, directory, placing
from vecdb.index.base import (
    EVERYTHING,
    METRIC_CODES,
    Found,
    Index,
    Progress,
    RowSource,
    Sealed,
    damaged_row,
)
from vecdb.index.flat import as_queries, scan_exactly
from vecdb.index.lists import Lists, View, check_extents, extent_bytes
from vecdb.index.workers import Workers
from vecdb.kernels import checks, scan
from vecdb.kernels import lists as kernels
from vecdb.schema import SearchParams, Snapshot
from vecdb.storage import codec, files, pages
from vecdb.storage.rows import RowArrays

_CEILING = 3  # times the fair share of a list
_REPLICAS_ON_DISK = 4
_PRUNE = 8.0  # times the nearest head's squared distance (SPANN's published configurations)
_QUERIES_PER_SLICE = 16
_STEP_MAX = 16_384  # rows placed at once
_GARBAGE_SHARE = 0.5  # of the list file
_REBUILD_ROWS_MAX = 262_144  # a collection this small is clustered anew each time it has grown fourfold
_REBUILD_GROWTH = 4

# what `Found.work` counts
HEADS, ENTRIES, PROBES, RERANKED, READS, BYTES, NS_PROBE, NS_SCAN, NS_READ, NS_RERANK = range(10)
WORK = 10


class RowFile:
    """The row file, open past the page cache for as long as somebody holds this."""

    def __init__(self, path: Path) -> None:
        self.fd = files.open_direct(path)

    def __del__(self) -> None:
        fd, self.fd = getattr(self, "fd", -1), -1
        if fd >= 0:
            files.close(fd)


class Spann(Index):
    """See the module's text. folder : of the list file."""

    kind = "spann"

    def __init__(self, config: schema.Spann, metric: str, rows: RowSource, folder: Path) -> None:
        self.config = config
        self.metric = metric
        self._metric = METRIC_CODES[metric]
        self._rows = rows
        self._row_file = RowFile(rows.path)
        self._built_rows = 0
        self._heat: NDArray[np.uint32] = np.empty(0, np.uint32)
        replicas = config.replicas or (_REPLICAS_ON_DISK if config.memory_budget_bytes == 0 else 1)
        self.lists = Lists(rows, folder, replicas)
        self._scratches: list[Scratch] = []
        self._workers = Workers()

    # -- publisher ---------------------------------------------------------------------------------

    @property
    def indexed_rows(self) -> int:
        view = self.lists.view
        return view.indexed if view is not None else 0

    def extend(self, row_count: int) -> None:
        """Nothing to derive: the tail is scanned on its vectors."""

    # -- maintenance -------------------------------------------------------------------------------

    @property
    def ceiling(self) -> int:
        """Most entries of a list."""
        view = self.lists.view
        assert view is not None
        if self.config.posting_bytes_max is not None:
            return max(8, (self.config.posting_bytes_max - pages.EXTENT_BYTES) // view.coder.entry_bytes)
        return int(max(8, _CEILING * self.lists.replicas**0.5 / self.config.head_ratio))

    def next_stop(self, row_count: int) -> int:
        """Everything where lists are built from nothing, else a bounded step: it rewrites the lists that it meets, so
        long tails are taken in long steps.
        """
        indexed = self.indexed_rows
        if indexed == 0:
            return row_count
        tail, step = row_count - indexed, limits.index_step_rows
        return row_count if tail < 2 * step else indexed + min(tail, _STEP_MAX) // step * step

    def add(self, stop: int, threads: int = 1, progress: Progress = None) -> None:
        if stop <= self.indexed_rows:
            return
        grown = stop >= _REBUILD_GROWTH * self._built_rows and stop <= _REBUILD_ROWS_MAX
        if self.lists.view is None or grown:
            self._build(stop, threads, progress)
        while self.indexed_rows < stop:
            placing.place(self.lists, min(stop, self.indexed_rows + _STEP_MAX), self.ceiling, threads)
            self._settle_memory()

    def _build(self, stop: int, threads: int, progress: Progress) -> None:
        c = self.config
        view = bulk.build(self.lists, self._metric, c.bits, c.head_ratio, stop, threads, progress)
        self.lists.view = view
        self._built_rows = stop
        placing.restore(self.lists, self.ceiling, threads)
        self._settle_memory()

    def _settle_memory(self) -> None:
        """Hold the budget: bodies beyond it go to disk, the hottest stay."""
        budget = self.config.memory_budget_bytes
        view = self._view()
        if budget is not None and int(view.body_bytes()[view.places >= 0].sum()) > budget:
            self.lists.flush()
            self.lists.keep(self._hottest(self._view(), budget))
        else:
            self.lists.compact_arena()

    def _hottest(self, view: View, budget: int | None) -> NDArray[np.int64]:
        """Lists that may be in memory, ascending: by how often they were probed, empty ones in any case."""
        if budget is None:
            return np.arange(view.heads.count)
        heat = self._heat if len(self._heat) == view.heads.count else np.zeros(view.heads.count, np.uint32)
        order = np.argsort(-heat.astype(np.int64), kind="stable")
        within = np.cumsum(view.body_bytes()[order]) <= budget
        return np.sort(np.concatenate([order[within], np.flatnonzero(view.lengths == 0)]))

    def remove(self, sequence: int, threads: int = 1) -> int:
        """Entries of rows that died leave the lists that are in memory; on disk they go when a list is next written.

        Returns 0: lists do not wear out by it as links do.
        """
        if sequence <= self.lists.removed:
            return 0
        self.lists.removed = sequence
        if self.lists.view is not None:
            placing.sweep(self.lists)
            placing.restore(self.lists, self.ceiling, threads)
            self._settle_memory()
        return 0

    def settle(self, threads: int = 1) -> int:
        return 0

    # -- search ------------------------------------------------------------------------------------

    def search(
        self,
        queries: NDArray[Any],
        limit: int,
        snapshot: Snapshot,
        params: SearchParams,
        allow: NDArray[np.uint64] | None = None,
    ) -> Found:
        view = self.lists.view
        queries = as_queries(queries)
        bitmap = EVERYTHING if allow is None else allow
        if view is None or params.exact:
            return self._exactly(queries, limit, snapshot, bitmap, params.threads)
        nq = len(queries)
        found = Found(
            np.empty((nq, limit), np.int64), np.empty((nq, limit), np.float32), np.empty(nq, np.int64),
            np.zeros(WORK, np.int64),
        )  # fmt: skip
        plan = _Plan(self, view, limit, params, snapshot, bitmap)
        if nq <= _QUERIES_PER_SLICE and (nq == 1 or params.threads == 1):
            plan.answer(queries, found.rows, found.distances, found.counts, found.work)
        else:
            step = max(1, min(_QUERIES_PER_SLICE, -(-nq // params.threads)))
            starts = range(0, nq, step)
            works = np.zeros((len(starts), WORK), np.int64)

            def run(i: int) -> None:
                part = slice(starts[i], starts[i] + step)
                plan.answer(queries[part], found.rows[part], found.distances[part], found.counts[part], works[i])

            self._workers.map(run, range(len(starts)), params.threads)
            found.work[:] = works.sum(axis=0)
        if (found.counts[0] if nq == 1 else found.counts.min(initial=limit)) < limit:
            self._fill_up(queries, found, limit, snapshot, bitmap, params.threads)
        return found

    def explain(self, work: NDArray[np.int64]) -> dict[str, Any]:
        view = self.lists.view
        if len(work) != WORK or view is None:
            return {}
        return {
            "probes": int(work[PROBES]),
            "heads_compared": int(work[HEADS]),
            "rows_scanned": int(work[ENTRIES]),
            "reads": int(work[READS]),
            "bytes_read": int(work[BYTES]),
            "reranked": int(work[RERANKED]),
            "heads_ms": work[NS_PROBE] / 1e6,
            "scan_ms": work[NS_SCAN] / 1e6,
            "read_ms": work[NS_READ] / 1e6,
            "rerank_ms": work[NS_RERANK] / 1e6,
        }

    def _exactly(
        self, queries: NDArray[np.float32], limit: int, snapshot: Snapshot, allow: NDArray[np.uint64], threads: int
    ) -> Found:
        return scan_exactly(self._rows.arrays, self._metric, queries, limit, snapshot, allow, threads, self._workers)

    def _fill_up(
        self,
        queries: NDArray[np.float32],
        found: Found,
        limit: int,
        snapshot: Snapshot,
        allow: NDArray[np.uint64],
        threads: int,
    ) -> None:
        """What the probed lists could not deliver is scanned for."""
        matching = snapshot.live_count
        if len(allow):
            matching = int(scan.count_allowed(allow, snapshot.row_count, snapshot.sequence, self._rows.arrays.deleted))
        short = np.flatnonzero(found.counts < min(limit, matching))
        if len(short) == 0:
            return
        exact = self._exactly(queries[short], limit, snapshot, allow, threads)
        found.rows[short] = exact.rows
        found.distances[short] = exact.distances
        found.counts[short] = exact.counts
        found.work[RERANKED] += exact.work[1]

    def scratch(self) -> Scratch:
        try:
            return self._scratches.pop()
        except IndexError:
            return Scratch()

    # -- files and figures -------------------------------------------------------------------------

    def _facts(self) -> dict[str, Any]:
        vectors = self._rows.arrays.vectors
        return {
            "kind": self.kind,
            "metric": self.metric,
            "dtype": str(vectors.dtype),
            "dim": int(vectors.shape[1]),
            "bits": self.config.bits,
            "replicas": self.lists.replicas,
        }

    def seal(self, path: Path) -> Sealed:
        lists = self.lists
        lists.sequence = lists.removed
        view = self._view()
        if lists.garbage_pages() > _GARBAGE_SHARE * (view.file.page_count if view.file else 0) + 64:
            lists.rewrite_file()
        else:
            lists.flush()
        view = self._view()
        assert view.file is not None
        view.file.sync()
        files.sync_dir(lists.folder)
        facts = {**self._facts(), "sequence": lists.removed, "built_rows": self._built_rows}
        heat = self._heat if len(self._heat) == view.heads.count else np.zeros(view.heads.count, np.uint32)
        written = directory.write(path, view, facts, heat)
        return Sealed(written, view.indexed, lists.removed, ((view.file.path.name, view.file.page_count * pages.PAGE),))

    @classmethod
    def open(cls, path: Path, config: schema.Spann, metric: str, rows: RowSource, *, mapped: bool = False) -> Spann:
        """Load a sealed directory and as many lists as the budget holds. mapped : for a process that never writes."""
        index = cls(config, metric, rows, path.parent)
        view, header, heat = directory.read(path, index._metric, index._facts(), writable=not mapped)
        index._built_rows = header["built_rows"]
        index._heat = heat
        index.lists.removed = header["sequence"]
        index.lists.view = view
        index.lists.load(index._hottest(view, config.memory_budget_bytes))
        return index

    def compact(self, mapping: NDArray[np.int64], rows: RowSource) -> Spann:
        new = Spann(self.config, self.metric, rows, self.lists.folder)
        new._built_rows, new._heat = self._built_rows, self._heat
        new.lists.removed = self.lists.removed
        if self.lists.view is not None:
            new.lists.view = placing.renumbered(self.lists, new.lists, mapping)
            new._settle_memory()
        return new

    def check(self) -> list[str]:
        from vecdb.index.listcheck import violations

        return violations(self) if self.lists.view is not None else []

    def stats(self) -> dict[str, Any]:
        view = self.lists.view
        facts = {"kind": self.kind, "bits": self.config.bits, "replicas": self.lists.replicas}
        if view is None:
            return {**facts, "indexed_rows": 0, "bytes_ram": 0}
        lengths = view.lengths
        resident = view.places >= 0
        quantiles = {f"p{q}": int(np.percentile(lengths, q)) for q in (1, 50, 99)} if len(lengths) else {}
        return {
            **facts,
            "indexed_rows": view.indexed,
            "heads": view.heads.count,
            "groups": len(view.heads.group_ends),
            "entries": int(lengths.sum()),
            "list_length": {"mean": float(lengths.mean()), **quantiles, "max": int(lengths.max(initial=0))},
            "ceiling": self.ceiling,
            "pending_splits": int((lengths > self.ceiling).sum()),
            "lists_in_memory": int(resident.sum()),
            "list_file_bytes": view.file.page_count * pages.PAGE if view.file is not None else 0,
            "list_file_garbage_bytes": self.lists.garbage_pages() * pages.PAGE,
            "removed_sequence": self.lists.removed,
            "bytes_ram": sum(segment.nbytes for segment in view.segments) + view.heads.nbytes() + 20 * len(lengths),
        }

    def close(self) -> None:
        self._workers.close()
        self.lists.close()

    def _view(self) -> View:
        assert self.lists.view is not None
        return self.lists.view


class Scratch:
    """Buffers that a slice of queries works in, by name; kept between calls, replaced by larger ones where they
    must.
    """

    def __init__(self) -> None:
        self._kept: dict[str, NDArray[Any]] = {}

    def array(self, name: str, shape: tuple[int, ...], dtype: Any) -> NDArray[Any]:
        """An array of that shape, not cleared."""
        size = int(np.prod(shape))
        kept = self._kept.get(name)
        if kept is None or len(kept) < size:
            kept = self._kept[name] = np.empty(max(size, 64), dtype)
        return kept[:size].reshape(shape)

    def pages(self, nbytes: int) -> NDArray[np.uint8]:
        """Page-aligned bytes for direct I/O."""
        kept = self._kept.get("pages")
        if kept is None or len(kept) < nbytes:
            kept = self._kept["pages"] = files.reserve(max(nbytes, 1 << 18), np.uint8)
        return kept


class _Plan:
    """One search call: what is the same for all its queries."""

    def __init__(
        self,
        index: Spann,
        view: View,
        limit: int,
        params: SearchParams,
        snapshot: Snapshot,
        allow: NDArray[np.uint64],
    ) -> None:
        self.index = index
        self.view = view
        self.limit = limit
        self.snapshot = snapshot
        self.allow = allow
        self.arrays: RowArrays = index._rows.arrays
        probes = params.nprobe or index.config.nprobe or 1
        mean = max(1.0, float(view.lengths.mean()))
        self.probes = min(view.heads.count, max(probes, int(2 * limit / mean) + 1))
        self.reach = 8 * self.probes + 1_000
        self.most = max(limit + 2, index.config.rerank or 4 * limit + 20)
        # a wider search is asked for when recall counts: then errors of the codes must not cost it
        self.slack = view.coder.error * (0.6 + self.probes / 640)
        self.row_bytes = self.arrays.vectors.shape[1] * self.arrays.vectors.itemsize

    def answer(
        self,
        queries: NDArray[np.float32],
        rows: NDArray[np.int64],
        distances: NDArray[np.float32],
        counts: NDArray[np.int64],
        work: NDArray[np.int64],
    ) -> None:
        s = self.index.scratch()
        nq = len(queries)
        keys = s.array("keys", (2, nq, self.limit + 1), np.int64)
        sizes = s.array("key_sizes", (2, nq), np.int64)
        sizes[:] = 0
        begun = time.perf_counter_ns()
        probed = self._probe(s, queries, work)
        now = time.perf_counter_ns()
        work[NS_PROBE] += now - begun
        shortlist, kept = self._scan(s, probed, work)
        self._rerank(s, queries, shortlist, kept, probed[6], keys[0], sizes[0], work)
        if self.snapshot.row_count > self.view.indexed:
            self._tail(s, queries, keys[1], sizes[1])
        places = s.array("merge_places", (2,), np.int64)
        scan.merge(keys, sizes, places, self.limit, rows, distances, counts)
        self.index._scratches.append(s)

    def _probe(self, s: Scratch, queries: NDArray[np.float32], work: NDArray[np.int64]) -> tuple[NDArray[Any], ...]:
        coder, heads = self.view.coder, self.view.heads
        nq, p = len(queries), self.probes
        out = (
            s.array("probes", (nq, p), np.int32),
            s.array("nears", (nq, p), np.float32),
            s.array("counts", (nq,), np.int32),
            s.array("query8s", (nq, coder.padded_dim), np.int8),
            s.array("steps", (nq,), np.float32),
            s.array("sums", (nq,), np.int32),
            s.array("norms", (nq,), np.float32),
        )
        out[3][:] = 0
        kernels.probe(
            queries, coder.cosine, coder.ip, coder.lossless, p, self.reach, np.float32(np.inf if coder.ip else _PRUNE),
            heads.codes, heads.bias, heads.group_codes, heads.group_bias, heads.group_ends, coder.quantiser.mean,
            np.float32(coder.quantiser.scale), coder.center, coder.signs, *out,
            s.array("unit", (coder.dim,), np.float32), s.array("rotated", (coder.padded_dim,), np.float32),
            s.array("group_keys", (len(heads.group_ends),), np.int64),
            s.array("head_keys", (self.reach + heads.largest_group + 64,), np.int64),
            s.array("head8", (heads.codes.shape[1],), np.int8), s.array("head16", (heads.codes.shape[1],), np.int16),
            work, heads.blocks,
        )  # fmt: skip
        return out

    def _scan(
        self, s: Scratch, probed: tuple[NDArray[Any], ...], work: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
        """Shortlists int64[nq, most + 1] and their sizes: lists in memory first, while the others are being read."""
        begun = time.perf_counter_ns()
        view = self.view
        probes, counts = probed[0], probed[2]
        shortlist = s.array("shortlist", (len(probes), self.most + 1), np.int64)
        kept = s.array("kept", (len(probes),), np.int32)
        kept[:] = 0
        used = np.arange(probes.shape[1]) < counts[:, None]
        probes[~used] = 0
        lengths = view.lengths[probes]
        places = view.places[probes]
        on_disk = used & (places < 0)
        if not on_disk.any():
            self._scan_bodies(s, probed, places, lengths, view.arena.data, shortlist, kept, work)
            work[NS_SCAN] += time.perf_counter_ns() - begun
            return shortlist, kept
        which, inverse = np.unique(probes[on_disk], return_inverse=True)
        sizes = extent_bytes(view, which)
        starts = np.cumsum(sizes) - sizes
        buffer = s.pages(int(sizes.sum()))
        assert view.file is not None
        ring = self.index.lists.rings.take()
        try:
            ring.submit(view.file.fd, view.extents[which] * pages.PAGE, sizes, buffer, starts)
            self._scan_bodies(s, probed, places, lengths, view.arena.data, shortlist, kept, work)
            scanned = time.perf_counter_ns()
            got = ring.wait()
        finally:
            self.index.lists.rings.give(ring)
        check_extents(view, which, starts, sizes, got, buffer)
        read = time.perf_counter_ns()
        there = np.full(places.shape, -1, np.int64)
        there[on_disk] = starts[inverse] + pages.EXTENT_BYTES
        self._scan_bodies(s, probed, there, lengths, buffer, shortlist, kept, work)
        work[READS] += len(which)
        work[BYTES] += int(sizes.sum())
        work[NS_READ] += read - scanned
        work[NS_SCAN] += time.perf_counter_ns() - begun - (read - scanned)
        return shortlist, kept

    def _scan_bodies(
        self,
        s: Scratch,
        probed: tuple[NDArray[Any], ...],
        places: NDArray[np.int64],
        lengths: NDArray[np.int32],
        data: NDArray[np.uint8],
        shortlist: NDArray[np.int64],
        kept: NDArray[np.int32],
        work: NDArray[np.int64],
    ) -> None:
        probes, nears, counts, query8s, steps, sums, _ = probed
        coder = self.view.coder
        longest = int(lengths.max(initial=1))
        kernels.scan(
            probes, nears, counts, places, lengths, data, data.view(np.uint16), data.view(np.uint32), coder.width,
            coder.lossless, np.float32(0.5 if coder.ip else 1.0), np.float32(coder.add_unit),
            np.float32(coder.rescale_unit), query8s, steps, sums, self.index.lists.replicas > 1,
            self.snapshot.row_count, self.snapshot.sequence, self.arrays.deleted, self.allow, shortlist, kept,
            s.array("dots", (longest,), np.int32), s.array("estimates", (longest,), np.float32), work,
            (0,) * coder.bits,
        )  # fmt: skip

    def _rerank(
        self,
        s: Scratch,
        queries: NDArray[np.float32],
        shortlist: NDArray[np.int64],
        kept: NDArray[np.int32],
        norms: NDArray[np.float32],
        keys: NDArray[np.int64],
        sizes: NDArray[np.int64],
        work: NDArray[np.int64],
    ) -> None:
        begun = time.perf_counter_ns()
        total = int(kept.sum())
        coder, row_bytes = self.view.coder, self.row_bytes
        rows, owners, offsets, lengths, places = (s.array(name, (total,), np.int64) for name in _READ_NAMES)
        least = self.limit + max(2, self.limit // 5)
        total, ranges, nbytes = kernels.choose_reads(
            shortlist, kept, self.limit, least, np.float32(self.slack), norms, coder.ip, codec.ROW_HEADER_BYTES,
            row_bytes, pages.PAGE, rows, owners, offsets, lengths, places,
        )  # fmt: skip
        buffer = s.pages(nbytes)
        ring = self.index.lists.rings.take()
        try:
            got = ring.read(self.index._row_file.fd, offsets[:ranges], lengths[:ranges], buffer, places[:ranges])
        finally:
            self.index.lists.rings.give(ring)
        if (got < 0).any():
            raise OSError(-int(got.min()), "reading the row file")
        read = time.perf_counter_ns()
        vectors = self.arrays.vectors
        staging = s.array("staging", (1, vectors.shape[1]), vectors.dtype)
        bad = kernels.rerank(
            queries, self.index._metric, kept, rows, owners, offsets, places, codec.ROW_HEADER_BYTES, buffer,
            checks.for_kernels(staging), staging.view(np.uint8), self.arrays.crcs, self.arrays.verified, keys, sizes,
        )  # fmt: skip
        if bad >= 0:
            raise damaged_row(bad, self.arrays)
        work[RERANKED] += total
        work[READS] += ranges
        work[BYTES] += nbytes
        work[NS_READ] += read - begun
        work[NS_RERANK] += time.perf_counter_ns() - read

    def _tail(
        self, s: Scratch, queries: NDArray[np.float32], keys: NDArray[np.int64], sizes: NDArray[np.int64]
    ) -> None:
        arrays = self.arrays
        bad = scan.scan_rows(
            queries, keys, sizes, self.limit, self.view.indexed, self.snapshot.row_count, self.snapshot.row_count,
            self.snapshot.sequence, self.allow, self.index._metric, checks.for_kernels(arrays.vectors), arrays.crcs,
            arrays.verified, arrays.deleted, scan.BLOCK_ROWS, s.array("tail", (scan.BLOCK_ROWS,), np.int32),
        )  # fmt: skip
        if bad >= 0:
            raise damaged_row(bad, arrays)


_READ_NAMES = ("read_rows", "read_owners", "read_offsets", "read_lengths", "read_places")
