"""The state of posting lists, and how a batch of changes makes the next state of it.

    ListsView   heads (cluster_tree.py) | bodies in the arena | lengths | extents in the list file     immutable
    change      lists whose bodies are written anew + new entries -> one new segment of bodies -> the next ListsView

Every change is made in the same way: some lists are copied without the entries that died or moved, entries join them,
heads come and go, and all bodies that differ are written into one new segment. Bodies that do not change stay where
they are. Nothing that a search reads is ever written again, so a search holds a ListsView and no lock.

A body is in the arena (body_offsets >= 0), in the list file (extent_pages >= 0), or in both; never in neither.

Thread rule: one maintenance caller changes the state; any number of searches read `view` once each.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from vecdb.index.clustering.cluster_tree import Heads
from vecdb.index.common.thread_pool import ThreadPool
from vecdb.index.contract import IndexCorruption, RowSource, corrupt_row_error
from vecdb.index.spann.entry_coder import EntryCoder
from vecdb.index.spann.list_arena import Arena, Segment
from vecdb.kernels.build import list_bodies
from vecdb.kernels.primitives import checksums
from vecdb.kernels.primitives.visibility import deleted_by
from vecdb.storage.disk import list_file, mapped_memory
from vecdb.storage.disk.batch_read import ReadBatchPool
from vecdb.storage.disk.row_file import WITHOUT_VECTOR, runs

Rows64 = NDArray[np.int64]
_T = TypeVar("_T", bound=np.generic)

_ENCODE_ROWS = 4_096  # rows encoded in one kernel call
_GARBAGE_BYTES = 256 << 10  # of bodies that no list has any more, not worth a copy
_BATCH_BYTES = 8 << 20  # extents handled at once where lists live on disk
_ARENA_GROWTH = 4  # times what is in use: the size of a new arena, of which only what is touched takes memory
_BODY_ALIGN = 8  # bytes
_COMPARED: NDArray[np.uint8] = np.empty(0, np.uint8)  # in place of the note of extents that were compared already
_NOTHING_MOVED: NDArray[np.uint8] = np.empty(0, np.uint8)


@dataclass(frozen=True, slots=True)
class ListsView:
    """One state of the lists.

    segments : keep the bodies in memory.   body_offsets : int64[L], byte in the arena, or -1.
    lengths : int32[L], entries.   extent_pages : int64[L], first page of the extent in `file`, or -1.
    writer_ids : uint64[L], which PostingLists object wrote the extent.   probe_counts : uint32[L], how often a list was
    probed; the one array that searches write.   outlier_rows : int64[any], rows beyond the range of the quantiser,
    whose codes say little: searches score each on its vector.   indexed : rows below it are in lists.
    replicas : lists that a row may be in.
    """

    coder: EntryCoder
    heads: Heads
    arena: Arena
    segments: tuple[Segment, ...]
    body_offsets: Rows64
    lengths: NDArray[np.int32]
    extent_pages: Rows64
    writer_ids: NDArray[np.uint64]
    probe_counts: NDArray[np.uint32]
    outlier_rows: Rows64
    file: list_file.ListFile | None
    indexed: int
    replicas: int

    def body_bytes(self) -> Rows64:
        return self.lengths.astype(np.int64) * self.coder.entry_bytes


@dataclass(frozen=True, slots=True)
class ListEntries:
    """New entries. labels : int32[m], lists of the next state.   rows : int64[m].   codes, factors : as the coder's."""

    labels: NDArray[np.int32]
    rows: Rows64
    codes: NDArray[np.uint8]
    factors: NDArray[np.uint32]


@dataclass(frozen=True, slots=True)
class ListsState:
    """All that a process must know of lists to go on with them.

    view : None before the first build.   removed : deletions up to this sequence have left the lists, or will.
    built_rows : rows that the tree was last built for.   replicas : lists that a row may be in.
    """

    view: ListsView | None
    removed: int
    built_rows: int
    replicas: int


class PostingLists:
    """The lists of one index: see the module's text.

    folder : where list files go.   state : to go on from.
    """

    def __init__(self, rows: RowSource, folder: Path, state: ListsState) -> None:
        self.rows = rows
        self.folder = folder
        self.replicas = state.replicas
        # Pages that an earlier process wrote and never sealed must not pass for those that are written over them now.
        self.writer_id = secrets.randbits(63)
        self.workers = ThreadPool()
        self.read_batches = ReadBatchPool()
        self.view: ListsView | None = state.view
        self.removed = max(state.removed, int(WITHOUT_VECTOR))  # rows without a vector are in no list
        self.built_rows = state.built_rows

    def state(self) -> ListsState:
        return ListsState(self.view, self.removed, self.built_rows, self.replicas)

    def current(self) -> ListsView:
        assert self.view is not None
        return self.view

    def publish(self, view: ListsView) -> None:
        """Searches that begin from now on see this view."""
        self.view = view

    # -- rows into entries -------------------------------------------------------------------------

    def entries(
        self,
        coder: EntryCoder,
        heads: Heads,
        vectors: NDArray[np.generic],
        rows: Rows64,
        labels: NDArray[np.int32],
        threads: int,
    ) -> ListEntries:
        """Encode rows (vectors stored dtype[n, dim]) for the lists that labels (int32[n] or [n, replicas]) name."""
        labels = labels if labels.ndim == 2 else labels[:, None]
        which, column = np.nonzero(labels >= 0)
        flat = labels[which, column]
        codes = np.empty((len(which), coder.width), np.uint8)
        factors = np.empty(len(which), np.uint32)

        def one(start: int) -> None:
            part = slice(start, start + _ENCODE_ROWS)
            codes[part], factors[part] = coder.encode(vectors, flat[part], heads.codes, which[part])

        self.workers.map(one, range(0, len(which), _ENCODE_ROWS), threads)
        return ListEntries(flat, rows[which], codes, factors)

    # -- bodies ------------------------------------------------------------------------------------

    def bodies(self, view: ListsView, lists: Rows64) -> tuple[NDArray[np.uint8], Rows64]:
        """(bytes, body_offsets int64[L]) in which the bodies of `lists` can be read now."""
        missing = lists[view.body_offsets[lists] < 0]
        if len(missing) == 0:
            return view.arena.data, view.body_offsets
        resident = view.body_offsets[lists] >= 0
        counts = view.lengths[lists].astype(np.int64)
        sizes = extent_bytes(view, lists)
        sizes[resident] = _room_for(counts[resident], view)
        # extents first: direct I/O wants their places aligned
        order = np.argsort(resident, kind="stable")
        starts = np.empty(len(lists), np.int64)
        starts[order] = np.cumsum(sizes[order]) - sizes[order]
        buffer = mapped_memory.reserve_memory(
            int(sizes.sum()) // list_file.PAGE * list_file.PAGE + list_file.PAGE, np.uint8
        )
        self._read(view, missing, starts[~resident], buffer)
        list_bodies.copy_ranges(
            view.body_offsets[lists[resident]], counts[resident] * view.coder.entry_bytes, starts[resident],
            view.arena.data, buffer,
        )  # fmt: skip
        offsets = np.full(view.heads.count, -1, np.int64)
        offsets[lists] = starts + np.where(resident, 0, list_file.EXTENT_BYTES)
        return buffer, offsets

    def _read(self, view: ListsView, lists: Rows64, starts: Rows64, buffer: NDArray[np.uint8]) -> None:
        """Read the extents of `lists` to bytes `starts` of buffer (whole pages, aligned), and check them."""
        assert view.file is not None
        batch = self.read_batches.take()
        try:
            sizes = extent_bytes(view, lists)
            got = batch.read(view.file.fd, view.extent_pages[lists] * list_file.PAGE, sizes, buffer, starts)
        finally:
            self.read_batches.give(batch)
        extents = ReadExtents(lists, starts, sizes, got, buffer)
        check_extents(view, extents, np.arange(len(lists)), again=True)

    def live_counts(self, view: ListsView, lists: Rows64) -> NDArray[np.int32]:
        """Entries of each of `lists` whose rows are not dead: int32[m]."""
        data, offsets = self.bodies(view, lists)
        live, deleted = np.zeros(len(lists), np.int32), self.rows.arrays.deleted
        list_bodies.count_live(
            lists, offsets, view.lengths, data, view.coder.width, deleted, self.removed, _NOTHING_MOVED, live
        )
        return live

    def rows_in(self, view: ListsView, lists: Rows64) -> tuple[Rows64, NDArray[np.int32]]:
        """Rows of `lists` that are not dead, and the position in `lists` of the list each is in."""
        total = int(view.lengths[lists].sum())
        rows, owners = np.empty(total, np.int64), np.empty(total, np.int32)
        data, offsets = self.bodies(view, lists)
        count = list_bodies.gather_rows(
            lists, offsets, view.lengths, data, view.coder.width, self.rows.arrays.deleted, self.removed, rows, owners
        )
        return rows[:count], owners[:count]

    # -- changes -----------------------------------------------------------------------------------

    def change(
        self,
        heads: Heads,
        sources: Rows64,
        touched: Rows64,
        entries: ListEntries,
        moved: NDArray[np.uint8] = _NOTHING_MOVED,
        indexed: int | None = None,
        outliers: Rows64 | None = None,
    ) -> None:
        """Make and publish the next state. heads : of the next state.

        sources : int64[L], the old list that each new list continues, or -1.   touched : int64[t], new lists whose
        bodies are written anew.   moved : bitmap of rows whose old entries are dropped from touched lists.
        outliers : more rows beyond the codes.
        """
        old = self.current()
        deleted, width = self.rows.arrays.deleted, old.coder.width
        carried = touched[sources[touched] >= 0]
        old_lists = sources[carried]
        data, old_offsets = self.bodies(old, old_lists)
        live = np.zeros(len(carried), np.int32)
        list_bodies.count_live(old_lists, old_offsets, old.lengths, data, width, deleted, self.removed, moved, live)
        fill = np.zeros((heads.count, 2), np.int32)
        fill[touched, 0] = np.bincount(entries.labels, minlength=heads.count)[touched]
        fill[carried, 0] += live
        starts, segment = self._room(old, fill[:, 0], touched)
        if self.view is not old:  # the bodies have moved to a larger arena
            self.change(heads, sources, touched, entries, moved, indexed, outliers)
            return
        list_bodies.copy_live_entries(
            old_lists, old_offsets, old.lengths, data, width, deleted, self.removed, moved, carried, starts, fill,
            old.arena.data,
        )  # fmt: skip
        place(entries, starts, fill, old.arena, width)
        offsets, pages = _continued(old.body_offsets, sources, -1), _continued(old.extent_pages, sources, -1)
        lengths = _continued(old.lengths, sources, 0)
        offsets[touched], pages[touched], lengths[touched] = starts[touched], -1, fill[touched, 0]
        self.publish(replace(
            old, heads=heads, segments=(*old.segments, segment), body_offsets=offsets, lengths=lengths,
            extent_pages=pages, writer_ids=_continued(old.writer_ids, sources, 0),
            probe_counts=_continued(old.probe_counts, sources, 0),
            indexed=old.indexed if indexed is None else indexed,
            outlier_rows=old.outlier_rows if outliers is None else np.concatenate([old.outlier_rows, outliers]),
        ))  # fmt: skip

    def _room(self, view: ListsView, counts: NDArray[np.int32], touched: Rows64) -> tuple[Rows64, Segment]:
        """(starts int64[L], segment) for bodies of `touched`, of so many entries. Where the arena has no such room the
        bodies move to a larger one first, as a new view.
        """
        sizes = _room_for(counts[touched], view)
        segment = view.arena.allocate(int(sizes.sum()))
        if segment is None:
            moved = self._in_larger_arena(view, int(sizes.sum()))
            self.publish(moved)
            segment = moved.arena.allocate(int(sizes.sum()))
            assert segment is not None
        starts = np.full(len(counts), -1, np.int64)
        starts[touched] = segment.start + np.cumsum(sizes) - sizes
        return starts, segment

    def _in_larger_arena(self, view: ListsView, more: int) -> ListsView:
        """The same state in a larger arena, with room for `more` bytes."""
        arena = Arena(_ARENA_GROWTH * (view.arena.used_bytes() + more))
        moved = self._packed(view, np.flatnonzero(view.body_offsets >= 0), arena)
        assert moved is not None
        return moved

    def _packed(self, view: ListsView, resident: Rows64, arena: Arena) -> ListsView | None:
        """The same state with the bodies of `resident` copied to one segment of `arena`; others leave memory. None
        where the arena has no such room.
        """
        sizes = _room_for(view.lengths[resident], view)
        segment = arena.allocate(int(sizes.sum()))
        if segment is None:
            return None
        starts = segment.start + np.cumsum(sizes) - sizes
        list_bodies.copy_ranges(
            view.body_offsets[resident], view.body_bytes()[resident], starts, view.arena.data, arena.data
        )
        offsets = np.full(view.heads.count, -1, np.int64)
        offsets[resident] = starts
        return replace(view, arena=arena, segments=(segment,), body_offsets=offsets)

    def compact_arena(self, garbage_share: float = 0.2) -> None:
        """Copy bodies together once more than this share of the arena is bodies that no list has any more."""
        view = self.current()
        resident = np.flatnonzero(view.body_offsets >= 0)
        live = int(view.body_bytes()[resident].sum())
        held = sum(segment.nbytes for segment in view.segments)
        if held > (1 + garbage_share) * live + _GARBAGE_BYTES:
            self.publish(self._packed(view, resident, view.arena) or self._in_larger_arena(view, 0))

    # -- the list file -----------------------------------------------------------------------------

    def flush(self) -> None:
        """Give every list that is in memory alone an extent in the list file. Not synced."""
        view = self.current()
        self.publish(self._written(view, np.flatnonzero(view.extent_pages < 0), view.file))

    def spilled(self, view: ListsView, inside: Rows64) -> ListsView:
        """A view whose lists `inside` have been written to its list file and have left memory. Publishes nothing."""
        offsets = view.body_offsets.copy()
        offsets[inside] = np.where(view.lengths[inside] > 0, -1, 0)
        return replace(self._written(view, inside, view.file), segments=(), body_offsets=offsets)

    def rewrite_file(self) -> None:
        """A new list file that holds the extents in use and nothing else."""
        view = self.current()
        self.publish(self._written(view, np.arange(view.heads.count), None))

    def _written(self, view: ListsView, lists: Rows64, file: list_file.ListFile | None) -> ListsView:
        """The view with new extents for `lists`, in `file`, or in a new one."""
        if file is None:
            uid = secrets.randbits(60)
            file = list_file.ListFile.create(self.folder / f"lists.{uid:015x}", uid, view.coder.entry_bytes)
        pages, writers = view.extent_pages.copy(), view.writer_ids.copy()
        for some in batches(lists, view.body_bytes()):
            pages[some] = self._append(view, file, some)
        writers[lists] = self.writer_id
        return replace(view, file=file, extent_pages=pages, writer_ids=writers)

    def _append(self, view: ListsView, file: list_file.ListFile, lists: Rows64) -> Rows64:
        counts = view.lengths[lists]
        sizes = list_file.pages_of(counts, view.coder.entry_bytes)
        firsts = file.page_count + np.cumsum(sizes) - sizes
        starts = (firsts - file.page_count) * list_file.PAGE
        buffer = mapped_memory.reserve_memory(int(sizes.sum()) * list_file.PAGE, np.uint8)
        headers = list_file.headers(firsts, counts, file.uid, view.coder.entry_bytes, self.writer_id)
        buffer[starts[:, None] + np.arange(list_file.EXTENT_BYTES)] = headers
        data, offsets = self.bodies(view, lists)
        list_bodies.copy_ranges(offsets[lists], view.body_bytes()[lists], starts + list_file.EXTENT_BYTES, data, buffer)
        list_bodies.seal_extents(starts, sizes * list_file.PAGE, buffer)
        file.append(buffer)
        return firsts

    def file_pages(self) -> int:
        view = self.view
        return view.file.page_count if view is not None and view.file is not None else 0

    def garbage_pages(self) -> int:
        """Pages of the list file that no list uses any more."""
        view = self.view
        if view is None or view.file is None:
            return 0
        used = list_file.pages_of(view.lengths[view.extent_pages >= 0], view.coder.entry_bytes)
        return int(view.file.page_count - 1 - used.sum())

    def keep(self, resident: Rows64) -> None:
        """Only these lists stay in memory; the others must be in the list file."""
        self.load(resident)
        view = self.current()
        now = np.flatnonzero(view.body_offsets >= 0)
        if len(now) != len(resident) or not np.array_equal(now, resident):
            assert (view.extent_pages[np.setdiff1d(now, resident)] >= 0).all()
            packed = self._packed(view, resident, Arena(_ARENA_GROWTH * int(view.body_bytes()[resident].sum())))
            assert packed is not None
            self.publish(packed)

    def load(self, lists: Rows64) -> None:
        """Bring lists into memory that are in the file alone."""
        view = self.current()
        lists = lists[view.body_offsets[lists] < 0]
        for some in batches(lists, view.body_bytes()):
            view = self.current()
            starts, segment = self._room(view, view.lengths, some)
            view = self.current()
            data, offsets = self.bodies(view, some)
            list_bodies.copy_ranges(offsets[some], view.body_bytes()[some], starts[some], data, view.arena.data)
            new = view.body_offsets.copy()
            new[some] = starts[some]
            self.publish(replace(view, body_offsets=new, segments=(*view.segments, segment)))

    def close(self) -> None:
        self.workers.close()
        self.read_batches.close()


def empty_view(coder: EntryCoder, heads: Heads, arena_bytes: int, replicas: int) -> ListsView:
    """Lists without entries."""
    count = heads.count
    return ListsView(
        coder, heads, Arena(arena_bytes), segments=(), body_offsets=np.zeros(count, np.int64),
        lengths=np.zeros(count, np.int32), extent_pages=np.full(count, -1, np.int64),
        writer_ids=np.zeros(count, np.uint64), probe_counts=np.zeros(count, np.uint32),
        outlier_rows=np.empty(0, np.int64), file=None, indexed=0, replicas=replicas,
    )  # fmt: skip


def with_room(view: ListsView, inside: Rows64, counts: NDArray[np.integer]) -> ListsView:
    """The view with room, not written yet, for new bodies of the lists `inside`, of so many entries each. For views
    that are made list by list; one that holds bodies in memory must have been given an arena for all of them.
    """
    sizes = _room_for(counts, view)
    segment = view.arena.allocate(int(sizes.sum()))
    if segment is None:  # fuller than a fair share
        assert not view.segments
        view = replace(view, arena=Arena(2 * int(sizes.sum())))
        segment = view.arena.allocate(int(sizes.sum()))
    assert segment is not None
    offsets, lengths = view.body_offsets.copy(), view.lengths.copy()
    offsets[inside] = segment.start + np.cumsum(sizes) - sizes
    lengths[inside] = counts
    return replace(view, segments=(*view.segments, segment), body_offsets=offsets, lengths=lengths)


def _room_for(counts: NDArray[np.integer], view: ListsView) -> Rows64:
    """Bytes that bodies of so many entries take in memory, where each starts at a multiple of 8."""
    sizes: Rows64 = -(-counts.astype(np.int64) * view.coder.entry_bytes // _BODY_ALIGN) * _BODY_ALIGN
    return sizes


def _continued(old: NDArray[_T], sources: Rows64, missing: int) -> NDArray[_T]:
    """What an array of the old lists says of the new ones; `missing` of those that continue none."""
    new = np.full(len(sources), missing, old.dtype)
    kept = sources >= 0
    new[kept] = old[sources[kept]]
    return new


def batches(lists: Rows64, sizes: Rows64) -> Iterator[Rows64]:
    """Lists in runs whose extents take bounded bytes. sizes : int64[L], of the bodies of all lists."""
    edges = np.cumsum(-(-(sizes[lists] + list_file.EXTENT_BYTES) // list_file.PAGE) * list_file.PAGE) // _BATCH_BYTES
    cuts = np.flatnonzero(np.diff(edges)) + 1
    yield from (part for part in np.split(lists, cuts) if len(part))


def extent_bytes(view: ListsView, lists: NDArray[np.integer]) -> Rows64:
    """Bytes of the extents of `lists`, whole pages."""
    return list_file.pages_of(view.lengths[lists], view.coder.entry_bytes) * list_file.PAGE


class ReadExtents(NamedTuple):
    """Extents in a buffer. Extent i is that of list lists[i], read to byte starts[i], got[i] of sizes[i] bytes. All
    int64[n].
    """

    lists: Rows64
    starts: Rows64
    sizes: Rows64
    got: Rows64
    buffer: NDArray[np.uint8]


def check_extents(view: ListsView, extents: ReadExtents, numbers: Rows64, *, again: bool = False) -> None:
    """Raise IndexCorruption unless the extents that `numbers` (int64[m]) names are whole, the right ones, and sound.

    again : compare checksums that this process has compared before, too: what is written anew gets a new one.
    """
    file = view.file
    assert file is not None
    bad = int(list_bodies.first_bad_extent(
        numbers, extents.lists, extents.starts, extents.sizes, extents.got, view.extent_pages, view.lengths,
        view.writer_ids, file.uid, view.coder.entry_bytes, extents.buffer, _COMPARED if again else file.verified,
    ))  # fmt: skip
    if bad >= 0:
        raise IndexCorruption(
            f"{file.path}: the extent at page {int(view.extent_pages[extents.lists[bad]])} cannot be read, or is "
            "damaged; the index can be rebuilt from the rows"
        )


def place(entries: ListEntries, starts: Rows64, fill: NDArray[np.int32], arena: Arena, width: int) -> None:
    """Write entries into bodies, each list's in the order of rows. starts, fill : as list_bodies.place_entries takes
    them.
    """
    order = np.argsort(entries.labels, kind="stable")
    list_bodies.place_entries(
        order, entries.labels, entries.rows, entries.codes, entries.factors, starts, fill, arena.data, width
    )


def alive_in(lists: PostingLists, rows: Rows64 | slice) -> NDArray[np.bool_]:
    """Which rows are in lists, or are to be."""
    return ~deleted_by(lists.rows.arrays.deleted[rows], lists.removed)


def living_rows(lists: PostingLists, first: int, stop: int) -> Rows64:
    """Rows of [first, stop) that are alive, each compared with its checksum; the place of others may
    have been given back. Raises Corruption.
    """
    arrays = lists.rows.arrays
    alive = alive_in(lists, slice(first, stop))
    for begin, end in zip(*runs(alive), strict=True):
        bad = checksums.verify_rows(arrays.vectors, first + int(begin), first + int(end), arrays.crcs, arrays.verified)
        if bad >= 0:
            raise corrupt_row_error(bad, arrays)
    rows: Rows64 = first + np.flatnonzero(alive)
    return rows
