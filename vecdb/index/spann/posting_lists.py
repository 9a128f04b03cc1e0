"""The lists engine's live state: heads, bodies, extents; and how batches of changes make the next state of it.

    View     heads (cluster_tree.py) | places in the arena | lengths | pages in the list file  immutable, published
    whole change   lists whose bodies are written anew + new entries -> one new segment of bodies -> the next View

Every change goes the same way: some lists are carried over without the entries that died or moved, entries join them,
heads come and go, and all bodies that differ are laid into one fresh segment. Bodies that are not touched keep their
places. Nothing that a search reads is ever written again, so searches hold a View and no lock.

A body is in the arena (places >= 0), in the list file (extents >= 0), or in both; never in neither.

Thread rule: one maintenance caller changes the state; any number of searches read `view` once each.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vecdb.index.clustering.cluster_tree import Heads
from vecdb.index.common.thread_pool import ThreadPool
from vecdb.index.contract import IndexCorruption, RowSource
from vecdb.index.spann.entry_coder import EntryCoder
from vecdb.index.spann.list_arena import Arena, Segment
from vecdb.kernels.build import list_bodies
from vecdb.storage.disk import filesystem, list_file
from vecdb.storage.disk.batch_read import ReadBatchPool

Rows64 = NDArray[np.int64]

_ENCODE_ROWS = 4_096  # rows encoded in one kernel call
_GARBAGE_BYTES = 256 << 10  # of bodies that no list has any more, not worth a copy
_BATCH_BYTES = 8 << 20  # extents handled at once where lists live on disk
_COMPARED: NDArray[np.uint8] = np.empty(0, np.uint8)
_NOTHING_MOVED: NDArray[np.uint8] = np.empty(0, np.uint8)


@dataclass(frozen=True, slots=True)
class ListsView:
    """One state of the lists. places : int64[L], byte in the arena or -1.   lengths : int32[L], entries.

    extents : int64[L], first page of the extent or -1.   lives : uint64[L], which process's life wrote it.
    heat : uint32[L], how often a list was probed; the one array that searches write.
    far : rows beyond the range of the quantiser, whose codes say little: each is scored on its vector.   replicas :
    lists that a row may be in.   segments : what keeps the places alive.
    """

    coder: EntryCoder
    heads: Heads
    arena: Arena
    segments: tuple[Segment, ...]
    places: Rows64
    lengths: NDArray[np.int32]
    extents: Rows64
    lives: NDArray[np.uint64]
    heat: NDArray[np.uint32]
    far: Rows64
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


class PostingLists:
    """See the module's text. folder : where the list file goes."""

    def __init__(self, rows: RowSource, folder: Path, replicas: int) -> None:
        self.rows = rows
        self.folder = folder
        self.replicas = replicas
        # Pages written in a life that ended before they were sealed must not pass for those written over them since.
        self.life = secrets.randbits(63)
        self.workers = ThreadPool()
        self.rings = ReadBatchPool()
        self.view: ListsView | None = None
        self.removed = 0

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

    def bodies(self, view: ListsView, lists: Rows64) -> tuple[NDArray[np.uint8], NDArray[np.uint32], Rows64]:
        """(bytes, the same as uint32, places int64[L]) in which the bodies of `lists` can be read now."""
        missing = lists[view.places[lists] < 0]
        if len(missing) == 0:
            return view.arena.data, view.arena.data32, view.places
        counts = view.lengths[lists].astype(np.int64)
        sizes = np.where(view.places[lists] < 0, list_file.pages_of(counts, view.coder.entry_bytes) * list_file.PAGE, 0)
        resident = view.places[lists] >= 0
        sizes[resident] = -(-counts[resident] * view.coder.entry_bytes // 8) * 8
        # read extents first: direct I/O wants their places aligned
        order = np.argsort(resident, kind="stable")
        starts = np.empty(len(lists), np.int64)
        starts[order] = np.cumsum(sizes[order]) - sizes[order]
        buffer = filesystem.reserve_memory(
            int(sizes.sum()) // list_file.PAGE * list_file.PAGE + list_file.PAGE, np.uint8
        )
        self.read(view, missing, starts[~resident], buffer)
        list_bodies.copy_ranges(
            view.places[lists[resident]], counts[resident] * view.coder.entry_bytes, starts[resident], view.arena.data,
            buffer,
        )  # fmt: skip
        places = np.full(view.heads.count, -1, np.int64)
        places[lists] = starts + np.where(resident, 0, list_file.EXTENT_BYTES)
        return buffer, buffer.view(np.uint32), places

    def read(self, view: ListsView, lists: Rows64, starts: Rows64, buffer: NDArray[np.uint8]) -> None:
        """Read the extents of `lists` to bytes `starts` of buffer (whole pages, aligned), and check them."""
        assert view.file is not None
        ring = self.rings.take()
        try:
            sizes = extent_bytes(view, lists)
            got = ring.read(view.file.fd, view.extents[lists] * list_file.PAGE, sizes, buffer, starts)
        finally:
            self.rings.give(ring)
        check_extents(view, np.arange(len(lists)), lists, starts, sizes, got, buffer, again=True)

    # -- changes -----------------------------------------------------------------------------------

    def change(
        self,
        heads: Heads,
        sources: Rows64,
        touched: Rows64,
        entries: ListEntries,
        moved: NDArray[np.uint8] = _NOTHING_MOVED,
        indexed: int | None = None,
        far: Rows64 | None = None,
    ) -> None:
        """Make and publish the next state. heads : of the next state.

        sources : int64[L], the old list that each new list continues, or -1.   touched : int64[t], new lists whose
        bodies are written anew.   moved : bitmap of rows whose old entries are dropped from touched lists.
        far : more rows beyond the codes.
        """
        old = self._current()
        deleted = self.rows.arrays.deleted
        carried = touched[sources[touched] >= 0]
        old_lists = sources[carried]
        data, data32, old_places = self.bodies(old, old_lists)
        width = old.coder.width
        live = np.zeros(len(carried), np.int32)
        list_bodies.count_live(old_lists, old_places, old.lengths, data32, width, deleted, self.removed, moved, live)
        added = np.bincount(entries.labels, minlength=heads.count)
        fill = np.zeros((heads.count, 2), np.int32)
        fill[touched, 0] = added[touched]
        fill[carried, 0] += live
        starts, segment = self._room(old, fill[:, 0], touched)
        if self.view is not old:  # the bodies have moved to a larger arena
            self.change(heads, sources, touched, entries, moved, indexed, far)
            return
        arena = old.arena
        list_bodies.carry(
            old_lists, old_places, old.lengths, data, data32, width, deleted, self.removed, moved, carried, starts,
            fill, arena.data, arena.data32,
        )  # fmt: skip
        _place(entries, starts, fill, arena, width)
        kept = sources >= 0
        places, extents = np.full(heads.count, -1, np.int64), np.full(heads.count, -1, np.int64)
        places[kept], extents[kept] = old.places[sources[kept]], old.extents[sources[kept]]
        lengths = np.zeros(heads.count, np.int32)
        lengths[kept] = old.lengths[sources[kept]]
        lives, heat = np.zeros(heads.count, np.uint64), np.zeros(heads.count, np.uint32)
        lives[kept], heat[kept] = old.lives[sources[kept]], old.heat[sources[kept]]
        places[touched], extents[touched], lengths[touched] = starts[touched], -1, fill[touched, 0]
        now = indexed if indexed is not None else old.indexed
        self._publish(replace(
            old, heads=heads, arena=arena, segments=(*old.segments, segment), places=places, lengths=lengths,
            extents=extents, lives=lives, heat=heat, indexed=now,
            far=old.far if far is None else np.concatenate([old.far, far]),
        ))  # fmt: skip

    def _room(self, view: ListsView, counts: NDArray[np.int32], touched: Rows64) -> tuple[Rows64, Segment]:
        """(starts int64[L], segment) for bodies of `touched`, of so many entries. Where the arena has no such room the
        bodies move to a larger one first, as a new view.
        """
        sizes = -(-counts[touched].astype(np.int64) * view.coder.entry_bytes // 8) * 8
        segment = view.arena.allocate(int(sizes.sum()))
        if segment is None:
            moved = self._rehomed(view, int(sizes.sum()))
            self._publish(moved)
            segment = moved.arena.allocate(int(sizes.sum()))
            assert segment is not None
        starts = np.full(len(counts), -1, np.int64)
        starts[touched] = segment.start + np.cumsum(sizes) - sizes
        return starts, segment

    def _rehomed(self, view: ListsView, more: int) -> ListsView:
        """The same state in a larger arena, with room for `more` bytes."""
        moved = self._packed(view, np.flatnonzero(view.places >= 0), Arena(4 * (view.arena.used_bytes() + more)))
        assert moved is not None
        return moved

    def _packed(self, view: ListsView, resident: Rows64, arena: Arena) -> ListsView | None:
        """The same state with the bodies of `resident` copied to one segment of `arena`; others leave memory. None
        where the arena has no such room.
        """
        lengths = view.body_bytes()[resident]
        sizes = -(-lengths // 8) * 8
        segment = arena.allocate(int(sizes.sum()))
        if segment is None:
            return None
        starts = segment.start + np.cumsum(sizes) - sizes
        list_bodies.copy_ranges(view.places[resident], lengths, starts, view.arena.data, arena.data)
        places = np.full(view.heads.count, -1, np.int64)
        places[resident] = starts
        return replace(view, arena=arena, segments=(segment,), places=places)

    def _current(self) -> ListsView:
        assert self.view is not None
        return self.view

    def _publish(self, view: ListsView) -> None:
        self.view = view

    def compact_arena(self, garbage_share: float = 0.2) -> None:
        """Copy bodies together once more than this share of the arena is bodies that no list has any more."""
        view = self._current()
        resident = np.flatnonzero(view.places >= 0)
        live = int(view.body_bytes()[resident].sum())
        held = sum(segment.nbytes for segment in view.segments)
        if held > (1 + garbage_share) * live + _GARBAGE_BYTES:
            self._publish(self._packed(view, resident, view.arena) or self._rehomed(view, 0))

    # -- the list file -----------------------------------------------------------------------------

    def flush(self) -> None:
        """Give every list that is in memory alone an extent in the list file. Not synced."""
        view = self._current()
        waiting = np.flatnonzero(view.extents < 0)
        file = view.file or self._new_file(view)
        numbers = view.extents.copy()
        for lists in batches(waiting, view.body_bytes()):
            numbers[lists] = self._append(view, file, lists)
        lives = view.lives.copy()
        lives[waiting] = self.life
        self._publish(replace(view, file=file, extents=numbers, lives=lives))

    def spilled(self, view: ListsView, inside: Rows64) -> ListsView:
        """A view whose lists `inside` have been written to its list file and have left memory. Publishes nothing."""
        file = view.file or self._new_file(view)
        places, extents, lives = view.places.copy(), view.extents.copy(), view.lives.copy()
        for some in batches(inside, view.body_bytes()):
            extents[some] = self._append(view, file, some)
        lives[inside] = self.life
        places[inside] = np.where(view.lengths[inside] > 0, -1, 0)
        return replace(view, file=file, segments=(), places=places, extents=extents, lives=lives)

    def _new_file(self, view: ListsView) -> list_file.ListFile:
        uid = secrets.randbits(60)
        return list_file.ListFile.create(self.folder / f"lists.{uid:015x}", uid, view.coder.entry_bytes)

    def _append(self, view: ListsView, file: list_file.ListFile, lists: Rows64) -> Rows64:
        counts = view.lengths[lists]
        sizes = list_file.pages_of(counts, view.coder.entry_bytes)
        firsts = file.page_count + np.cumsum(sizes) - sizes
        starts = (firsts - file.page_count) * list_file.PAGE
        buffer = filesystem.reserve_memory(int(sizes.sum()) * list_file.PAGE, np.uint8)
        heads = list_file.headers(firsts, counts, file.uid, view.coder.entry_bytes, self.life)
        n = len(lists)
        list_bodies.copy_ranges(
            np.arange(n) * list_file.EXTENT_BYTES, np.full(n, list_file.EXTENT_BYTES), starts, heads.reshape(-1), buffer
        )
        data, _, places = self.bodies(view, lists)
        list_bodies.copy_ranges(
            places[lists],
            counts.astype(np.int64) * view.coder.entry_bytes,
            starts + list_file.EXTENT_BYTES,
            data,
            buffer,
        )
        list_bodies.seal_extents(starts, sizes * list_file.PAGE, buffer)
        file.append(buffer)
        return firsts

    def rewrite_file(self) -> None:
        """A new list file that holds the extents in use and nothing else."""
        view = self._current()
        file = self._new_file(view)
        numbers = np.full(view.heads.count, -1, np.int64)
        for lists in batches(np.arange(view.heads.count), view.body_bytes()):
            numbers[lists] = self._append(view, file, lists)
        lives = np.full(view.heads.count, self.life, np.uint64)
        self._publish(replace(view, file=file, extents=numbers, lives=lives))

    def file_pages(self) -> int:
        view = self.view
        return view.file.page_count if view is not None and view.file is not None else 0

    def garbage_pages(self) -> int:
        """Pages of the list file that no list uses any more."""
        view = self.view
        if view is None or view.file is None:
            return 0
        used = list_file.pages_of(view.lengths[view.extents >= 0], view.coder.entry_bytes)
        return int(view.file.page_count - 1 - used.sum())

    def keep(self, resident: Rows64) -> None:
        """Only these lists stay in memory; the others must be in the list file."""
        self.load(resident)
        view = self._current()
        now = np.flatnonzero(view.places >= 0)
        if len(now) != len(resident) or not np.array_equal(now, resident):
            assert (view.extents[np.setdiff1d(now, resident)] >= 0).all()
            packed = self._packed(view, resident, Arena(4 * int(view.body_bytes()[resident].sum())))
            assert packed is not None
            self._publish(packed)

    def load(self, lists: Rows64) -> None:
        """Bring lists into memory that are in the file alone."""
        view = self._current()
        lists = lists[view.places[lists] < 0]
        for some in batches(lists, view.body_bytes()):
            view = self._current()
            starts, segment = self._room(view, view.lengths, some)
            view = self._current()
            data, _, places = self.bodies(view, some)
            list_bodies.copy_ranges(places[some], view.body_bytes()[some], starts[some], data, view.arena.data)
            new = view.places.copy()
            new[some] = starts[some]
            self._publish(replace(view, places=new, segments=(*view.segments, segment)))

    def close(self) -> None:
        self.workers.close()
        self.rings.close()


def empty_view(coder: EntryCoder, heads: Heads, arena_bytes: int, replicas: int) -> ListsView:
    """Lists without entries."""
    count = heads.count
    return ListsView(
        coder, heads, Arena(arena_bytes), (), np.zeros(count, np.int64), np.zeros(count, np.int32),
        np.full(count, -1, np.int64), np.zeros(count, np.uint64), np.zeros(count, np.uint32), np.empty(0, np.int64),
        None, 0, replicas,
    )  # fmt: skip


def with_room(view: ListsView, inside: Rows64, counts: NDArray[np.integer]) -> ListsView:
    """The view with room, not written yet, for new bodies of the lists `inside`, of so many entries each. For views
    that are made list by list; one that holds bodies in memory must have been given an arena for all of them.
    """
    sizes = -(-counts.astype(np.int64) * view.coder.entry_bytes // 8) * 8
    segment = view.arena.allocate(int(sizes.sum()))
    if segment is None:  # fuller than a fair share
        assert not view.segments
        view = replace(view, arena=Arena(2 * int(sizes.sum())))
        segment = view.arena.allocate(int(sizes.sum()))
    assert segment is not None
    places, lengths = view.places.copy(), view.lengths.copy()
    places[inside] = segment.start + np.cumsum(sizes) - sizes
    lengths[inside] = counts
    return replace(view, segments=(*view.segments, segment), places=places, lengths=lengths)


def batches(lists: Rows64, sizes: Rows64) -> Iterator[Rows64]:
    """Lists in runs whose extents take bounded bytes. sizes : int64[L], of the bodies of all lists."""
    edges = np.cumsum(-(-(sizes[lists] + list_file.EXTENT_BYTES) // list_file.PAGE) * list_file.PAGE) // _BATCH_BYTES
    cuts = np.flatnonzero(np.diff(edges)) + 1
    yield from (part for part in np.split(lists, cuts) if len(part))


def extent_bytes(view: ListsView, lists: NDArray[np.integer]) -> Rows64:
    """Bytes of the extents of `lists`, whole pages."""
    return list_file.pages_of(view.lengths[lists], view.coder.entry_bytes) * list_file.PAGE


def check_extents(
    view: ListsView,
    numbers: Rows64,
    which: Rows64,
    starts: Rows64,
    sizes: Rows64,
    got: Rows64,
    buffer: NDArray[np.uint8],
    *,
    again: bool = False,
) -> None:
    """Raise IndexDamaged unless the extents that `numbers` (int64[m]) names are whole, the right ones, and sound.

    Extent i is that of list which[i], read to byte starts[i] of buffer, got[i] of sizes[i] bytes.
    again : compare checksums that this process has compared before, too: what is written anew gets a new one.
    """
    file = view.file
    assert file is not None
    bad = int(list_bodies.first_unsound(
        numbers, which, starts, sizes, got, view.extents, view.lengths, view.lives, file.uid, view.coder.entry_bytes,
        buffer, buffer.view(np.uint64), buffer.view(np.uint32), _COMPARED if again else file.verified,
    ))  # fmt: skip
    if bad >= 0:
        raise IndexCorruption(
            f"{file.path}: the extent at page {int(view.extents[which[bad]])} cannot be read, or is damaged; "
            "the index can be rebuilt from the rows"
        )


def _place(entries: ListEntries, starts: Rows64, fill: NDArray[np.int32], arena: Arena, width: int) -> None:
    """Lay entries into bodies, each list's in the order of rows."""
    order = np.argsort(entries.labels, kind="stable")
    list_bodies.place_entries(
        order,
        entries.labels,
        entries.rows,
        entries.codes,
        entries.factors,
        starts,
        fill,
        arena.data,
        arena.data32,
        width,
    )
