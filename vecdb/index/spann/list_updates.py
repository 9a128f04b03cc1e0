"""Rows into lists, and lists kept to their size: append, split, merge, reassign (after SPFresh, Xu et al., 2023).

    place     new rows -> nearest lists; a list that would pass its ceiling is split in the same step
    restore   lists over the ceiling or nearly empty -> other heads in their place; their rows are assigned anew

A list that is split or merged away gives all its rows back, and each finds its nearest lists among all the heads there
are then, so a row that the old head kept only for want of a nearer one moves. Rows of neighbouring lists that are
nearer to a new head, by their codes, are assigned anew with them. Nothing is written in place: every step
ends in one `PostingLists.change`. Bounded: a step takes the rows that it is given and restructures at most a fixed
number of lists.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from vecdb.index.clustering.assignment import assign_to_heads, near_heads
from vecdb.index.clustering.cluster_tree import Heads, heads_of, regroup, split
from vecdb.index.contract import Progress, corrupt_row_error
from vecdb.index.spann.entry_coder import EntryCoder
from vecdb.index.spann.posting_lists import ListEntries, ListsView, PostingLists, batches, empty_view, with_room
from vecdb.kernels.build import list_assignment, list_bodies
from vecdb.kernels.primitives import checksums

_FILL = 0.55  # of the ceiling: how full the parts of a split are
_EMPTY_SHARE = 32  # a list with less than 1/32 of the ceiling is merged away
_VICTIMS_MAX = 512  # lists restructured in one round
_ROUNDS_MAX = 64
_NEIGHBOURS = 32  # lists around each new head whose rows may be nearer to it (SPFresh looks at 64)
_CLOSER = 0.95  # of its own distance that a row must come under to be assigned anew
_MOVED_MAX = 65_536  # rows taken from neighbours in one round

Rows64 = NDArray[np.int64]


def place(lists: PostingLists, stop: int, ceiling: int, threads: int) -> None:
    """Move the tail rows [indexed, stop) into lists."""
    view = _view(lists)
    arrays = lists.rows.arrays
    first = view.indexed
    bad = checksums.verify_rows(arrays.vectors, first, stop, arrays.crcs, arrays.verified)
    if bad >= 0:
        raise corrupt_row_error(bad, arrays)
    rows = np.arange(first, stop, dtype=np.int64)
    deleted = arrays.deleted[first:stop]
    rows = rows[(deleted == 0) | (deleted > np.uint64(lists.removed))]
    vectors = np.ascontiguousarray(arrays.vectors[rows])
    codes, beyond = view.coder.quantise(vectors)
    labels = assign_to_heads(view.heads, codes, lists.replicas, threads, lists.workers)
    _drop_replicas(labels, view.lengths, ceiling)
    entries = lists.entries(view.coder, view.heads, vectors, rows, labels, threads)
    lists.change(
        view.heads,
        np.arange(view.heads.count),
        np.unique(entries.labels).astype(np.int64),
        entries,
        indexed=stop,
        far=rows[beyond],
    )
    restore(lists, ceiling, threads)


def restore(lists: PostingLists, ceiling: int, threads: int, progress: Progress = None) -> None:
    """Split every list over the ceiling and merge away the nearly empty ones. progress : (lists split, of those that
    were over it at first).
    """
    first = 0
    for _ in range(_ROUNDS_MAX):
        view = _view(lists)
        over = np.flatnonzero(view.lengths > ceiling)
        first = max(first, len(over))
        if progress is not None:
            progress(first - len(over), max(1, first))
        if len(over):
            over = over[:_VICTIMS_MAX]
            live = _live(lists, view, over)
            if (live < view.lengths[over]).any():  # without their dead entries some are short enough
                lists.change(view.heads, np.arange(view.heads.count), over, _none(view.coder))
                continue
        small = np.flatnonzero(view.lengths * _EMPTY_SHARE < ceiling)[: _VICTIMS_MAX - len(over)]
        if view.heads.count - len(small) < 1:
            small = small[1:]
        if len(over) + len(small) == 0:
            return
        _restructure(lists, over, small, ceiling, threads)
        if len(over) == 0 and _view(lists).lengths.max(initial=0) <= ceiling:
            return  # lists that are small now have their turn with the next step


def _view(lists: PostingLists) -> ListsView:
    assert lists.view is not None
    return lists.view


def _none(coder: EntryCoder) -> ListEntries:
    return ListEntries(
        np.empty(0, np.int32), np.empty(0, np.int64), np.empty((0, coder.width), np.uint8), np.empty(0, np.uint32)
    )


def _live(lists: PostingLists, view: ListsView, which: Rows64) -> NDArray[np.int32]:
    _, data32, places = lists.bodies(view, which)
    live = np.zeros(len(which), np.int32)
    list_bodies.count_live(
        which, places, view.lengths, data32, view.coder.width, lists.rows.arrays.deleted, lists.removed,
        np.empty(0, np.uint8), live,
    )  # fmt: skip
    return live


def rows_in(lists: PostingLists, view: ListsView, which: Rows64) -> tuple[Rows64, NDArray[np.int32]]:
    """Rows of the lists `which` that are not dead, and the position in `which` of the list each is in."""
    total = int(view.lengths[which].sum())
    rows, owners = np.empty(total, np.int64), np.empty(total, np.int32)
    _, data32, places = lists.bodies(view, which)
    count = list_bodies.gather_rows(
        which, places, view.lengths, data32, view.coder.width, lists.rows.arrays.deleted, lists.removed, rows, owners
    )
    return rows[:count], owners[:count]


def _restructure(lists: PostingLists, over: Rows64, small: Rows64, ceiling: int, threads: int) -> None:
    view = _view(lists)
    coder = view.coder
    victims = np.concatenate([over, small])
    rows, owners = rows_in(lists, view, victims)
    vectors = np.ascontiguousarray(lists.rows.arrays.vectors[rows])
    codes, _ = coder.quantise(vectors)
    fresh, fresh_groups = _split_all(lists, view, codes, owners, over, ceiling)
    heads, sources = _new_heads(lists, view, victims, fresh, fresh_groups, threads)
    others, other_lists = _nearer(lists, view, fresh, victims)
    if len(others):
        rows = np.concatenate([rows, others])
        vectors = np.concatenate([vectors, lists.rows.arrays.vectors[others]])
        codes, _ = coder.quantise(vectors)
    rows, unique = np.unique(rows, return_index=True)  # replicas: once is enough
    vectors = vectors[unique]
    labels = assign_to_heads(heads, codes[unique], lists.replicas, threads, lists.workers)
    labels = _spread_equals(labels, heads, ceiling)
    _drop_replicas(labels, np.where(sources >= 0, view.lengths[sources], 0), ceiling)
    entries = lists.entries(coder, heads, vectors, rows, labels, threads)
    moved = np.zeros(view.indexed // 8 + 8, np.uint8)
    np.bitwise_or.at(moved, rows >> 3, (1 << (rows & 7)).astype(np.uint8))
    stale = np.isin(sources, other_lists) | (sources < 0)
    touched = np.union1d(np.unique(entries.labels), np.flatnonzero(stale)).astype(np.int64)
    lists.change(heads, sources, touched, entries, moved)


def _nearer(
    lists: PostingLists, view: ListsView, fresh: NDArray[np.uint8], victims: Rows64
) -> tuple[Rows64, NDArray[np.int32]]:
    """Rows of neighbouring lists that are nearer to a fresh head than to their own, and the lists they are in."""
    coder, heads = view.coder, view.heads
    if len(fresh) == 0 or heads.count <= len(victims):
        return np.empty(0, np.int64), np.empty(0, np.int32)
    near, distances = near_heads(heads, fresh, _NEIGHBOURS)
    keep = (near >= 0) & ~np.isin(near, victims)
    query, _ = np.nonzero(keep)
    pairs = np.stack([query, near[keep]], axis=1)
    if len(pairs) == 0:
        return np.empty(0, np.int64), np.empty(0, np.int32)
    scale = np.float32(coder.quantiser.scale) ** 2
    nears = (distances[keep] * scale).astype(np.float32)
    inside = np.unique(pairs[:, 1])
    own = np.full(heads.count, -1, np.int64)
    own[inside] = np.arange(len(inside))
    data, data32, places = lists.bodies(view, inside)
    longest = int(view.lengths[inside].max(initial=1))
    rows, owners = np.empty(_MOVED_MAX, np.int64), np.empty(_MOVED_MAX, np.int32)
    count = list_assignment.nearer_rows(
        pairs, own, places, view.lengths, data, data.view(np.uint16), data32, coder.width, coder.lossless,
        np.float32(coder.add_unit), np.float32(coder.rescale_unit), nears, *coder.as_float32_queries(fresh),
        *coder.as_float32_queries(heads.codes[inside]), np.float32(_CLOSER), rows, owners, np.empty(longest, np.int32),
        np.empty(longest, np.float32), np.empty(longest, np.float32), (0,) * coder.bits,
    )  # fmt: skip
    rows, first = np.unique(rows[:count], return_index=True)
    alive = lists.rows.arrays.deleted[rows]
    alive = (alive == 0) | (alive > np.uint64(lists.removed))
    return rows[alive], owners[:count][first][alive]


def _split_all(
    lists: PostingLists,
    view: ListsView,
    codes: NDArray[np.uint8],
    owners: NDArray[np.int32],
    over: Rows64,
    ceiling: int,
) -> tuple[NDArray[np.uint8], Rows64]:
    """New heads for each list of `over`: (codes uint8[k, width], groups int64[k])."""
    found, groups = [np.empty((0, codes.shape[1]), np.uint8)], [np.empty(0, np.int64)]
    group_of = view.heads.group_of()
    for i, head in enumerate(over.tolist()):
        members = codes[owners == i]
        parts = max(2, int(np.ceil(len(members) / (_FILL * ceiling))))
        new, _ = split(members, view.coder.dim, parts, lists.workers)
        found.append(new)
        groups.append(np.full(len(new), group_of[head]))
    return np.concatenate(found), np.concatenate(groups)


def _new_heads(
    lists: PostingLists, view: ListsView, victims: Rows64, fresh: NDArray[np.uint8], fresh_groups: Rows64, threads: int
) -> tuple[Heads, Rows64]:
    """Heads without the victims and with the fresh ones; sources int64[L]: the old number of each, -1 for fresh
    ones.
    """
    kept = np.setdiff1d(np.arange(view.heads.count), victims)
    codes = np.concatenate([view.heads.codes[kept], fresh])
    groups = np.concatenate([view.heads.group_of()[kept], fresh_groups])
    sources = np.concatenate([kept, np.full(len(fresh), -1)])
    order = np.argsort(groups, kind="stable")
    heads = heads_of(codes[order], groups[order], view.heads.group_codes)
    sources = sources[order]
    if heads.count > 2 * len(heads.group_ends) ** 2 or heads.largest_group > 16 * heads.count**0.5 + 64:
        heads, order = regroup(heads, view.coder.dim, threads, lists.workers)
        sources = sources[order]
    return heads, sources


def _drop_replicas(labels: NDArray[np.int32], lengths: NDArray[np.int32], ceiling: int) -> None:
    """No list passes the ceiling for the sake of second copies: those are left out, in place, where it would.

    lengths : int32[lists], entries that are there already.
    """
    if labels.shape[1] == 1:
        return
    counts = lengths + np.bincount(labels[labels >= 0], minlength=len(lengths))
    full = counts > ceiling
    second = labels[:, 1:]
    second[(second >= 0) & full[second]] = -1


def _spread_equals(labels: NDArray[np.int32], heads: Heads, ceiling: int) -> NDArray[np.int32]:
    """Rows that cannot be told apart all go to the first of equal heads: share them out where that passes the
    ceiling.
    """
    counts = np.bincount(labels[:, 0], minlength=heads.count)
    for full in np.flatnonzero(counts > ceiling).tolist():
        group = int(np.searchsorted(heads.group_ends, full, side="right"))
        first = int(heads.group_ends[group - 1]) if group else 0
        inside = np.arange(first, int(heads.group_ends[group]))
        equal = inside[(heads.codes[inside] == heads.codes[full]).all(axis=1)]
        if len(equal) > 1:
            mine = np.flatnonzero(labels[:, 0] == full)
            labels[mine, 0] = equal[np.arange(len(mine)) * len(equal) // len(mine)]
            if labels.shape[1] > 1:
                labels[mine, 1:] = -1
    return labels


def sweep(lists: PostingLists) -> None:
    """Dead entries leave the lists that are in memory."""
    view = _view(lists)
    resident = np.flatnonzero(view.places >= 0)
    stale = resident[_live(lists, view, resident) < view.lengths[resident]]
    if len(stale):
        lists.change(view.heads, np.arange(view.heads.count), stale, _none(view.coder))


def renumbered(old: PostingLists, new: PostingLists, mapping: Rows64, *, spill: bool) -> ListsView:
    """The state of `old` under new row numbers, for `new`: entries of rows that are gone (-1) are left out.

    spill : each batch of lists goes to the list file of `new` and leaves memory.
    """
    view = _view(old)
    count, width = view.heads.count, view.coder.width
    gone = np.concatenate([np.packbits(mapping < 0, bitorder="little"), np.zeros(8, np.uint8)])
    alive = old.rows.arrays.deleted  # with `removed` 0 nobody counts as dead: `gone` alone decides
    far = mapping[view.far]
    moved = replace(
        empty_view(view.coder, view.heads, 0 if spill else 2 * int(view.body_bytes().sum()) + (1 << 20), view.replicas),
        heat=view.heat, far=far[far >= 0], indexed=int((mapping[: view.indexed] >= 0).sum()),
    )  # fmt: skip
    for some in batches(np.arange(count), view.body_bytes()):
        data, data32, old_places = old.bodies(view, some)
        live = np.zeros(len(some), np.int32)
        list_bodies.count_live(some, old_places, view.lengths, data32, width, alive, 0, gone, live)
        moved = with_room(moved, some, live)
        fill = np.zeros((count, 2), np.int32)
        fill[some, 0] = live
        list_bodies.carry(
            some, old_places, view.lengths, data, data32, width, alive, 0, gone, some, moved.places, fill,
            moved.arena.data, moved.arena.data32,
        )  # fmt: skip
        del data, data32  # before the next batch is read
        list_bodies.renumber(moved.places[some], live, width, mapping, moved.arena.data32)
        if spill:
            moved = new.spilled(moved, some)
    return moved
