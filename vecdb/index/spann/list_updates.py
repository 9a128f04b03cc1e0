"""Rows into lists, and lists kept to their size: append, split, merge, reassign (after SPFresh, Xu et al., 2023).

    append_rows            new rows -> nearest lists; a list that would pass its ceiling is split in the same step
    rebalance              lists over the ceiling or nearly empty -> other heads; their rows are assigned anew
    drop_deleted_entries   dead entries leave the lists in memory
    renumbered_lists       lists under the row numbers that a vacuum gave

A list that is split or merged away gives all its rows back, and each is assigned to its nearest lists among all the
heads that there are then, so a row moves that the old head kept only because no nearer one existed. Rows of
neighbouring lists that are nearer to a new head, by their codes, are assigned anew with them. Nothing is written in
place: every step ends in one `PostingLists.change`. A step takes the rows that it is given and restructures at most a
fixed number of lists.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vecdb.index.clustering.assignment import assign_to_heads, near_heads
from vecdb.index.clustering.cluster_tree import Heads, heads_of, regroup, split
from vecdb.index.contract import Progress
from vecdb.index.spann.entry_coder import EntryCoder
from vecdb.index.spann.posting_lists import (
    ListEntries,
    ListsView,
    PostingLists,
    alive_in,
    batches,
    empty_view,
    living_rows,
    with_room,
)
from vecdb.kernels.array_table import ArrayTable
from vecdb.kernels.build import list_assignment, list_bodies

_FILL = 0.55  # of the ceiling: how full the parts of a split are
_EMPTY_SHARE = 32  # a list with less than 1/32 of the ceiling is merged away
_VICTIMS_MAX = 512  # lists restructured in one round
_ROUNDS_MAX = 64
_NEIGHBOURS = 32  # lists around each new head whose rows may be nearer to it (SPFresh looks at 64)
_CLOSER = 0.95  # of its own distance that a row must come under to be assigned anew
_RENUMBERING_MORE_BYTES = 1 << 20  # of an arena for lists that are renumbered, beside twice what they take
_MOVED_MAX = 65_536  # rows taken from neighbours in one round
_GROUP_SHARE, _GROUP_MORE = 16, 64  # heads are grouped anew when a group has more than 16 sqrt(heads) + 64 of them: a
# query compares with whole groups, which should hold about sqrt(heads); the constant keeps small trees from it

Rows64 = NDArray[np.int64]


def append_rows(lists: PostingLists, stop: int, ceiling: int, threads: int) -> None:
    """Move the tail rows [indexed, stop) into lists."""
    view = lists.current()
    arrays = lists.rows.arrays
    first = view.indexed
    rows = living_rows(lists, first, stop)
    vectors = np.ascontiguousarray(arrays.vectors[rows])
    codes, beyond = view.coder.quantise(vectors)
    labels = assign_to_heads(view.heads, codes, lists.replicas, threads, lists.workers)
    _drop_replicas(labels, view.lengths, ceiling)
    entries = lists.entries(view.coder, view.heads, vectors, rows, labels, threads)
    touched = np.unique(entries.labels).astype(np.int64)
    lists.change(view.heads, _as_they_are(view), touched, entries, indexed=stop, outliers=rows[beyond])
    rebalance(lists, ceiling, threads)


def rebalance(lists: PostingLists, ceiling: int, threads: int, progress: Progress = None) -> None:
    """Split every list over the ceiling and merge away the nearly empty ones. progress : (lists split, of those that
    were over it at first).
    """
    first = 0
    for _ in range(_ROUNDS_MAX):
        view = lists.current()
        over = np.flatnonzero(view.lengths > ceiling)
        first = max(first, len(over))
        if progress is not None:
            progress(first - len(over), max(1, first))
        if len(over):
            over = over[:_VICTIMS_MAX]
            live = lists.live_counts(view, over)
            if (live < view.lengths[over]).any():  # without their dead entries some are short enough
                lists.change(view.heads, _as_they_are(view), over, _no_entries(view.coder))
                continue
        small = np.flatnonzero(view.lengths * _EMPTY_SHARE < ceiling)[: _VICTIMS_MAX - len(over)]
        if view.heads.count - len(small) < 1:
            small = small[1:]
        if len(over) + len(small) == 0:
            return
        _restructure(lists, over, small, ceiling, threads)
        if len(over) == 0 and lists.current().lengths.max(initial=0) <= ceiling:
            return  # lists that are small now are looked at in the next step


def _as_they_are(view: ListsView) -> Rows64:
    """`sources` of a change that keeps the heads."""
    return np.arange(view.heads.count)


def _no_entries(coder: EntryCoder) -> ListEntries:
    return ListEntries(
        np.empty(0, np.int32), np.empty(0, np.int64), np.empty((0, coder.width), np.uint8), np.empty(0, np.uint32)
    )


def _restructure(lists: PostingLists, over: Rows64, small: Rows64, ceiling: int, threads: int) -> None:
    view = lists.current()
    coder = view.coder
    victims = np.concatenate([over, small])
    rows, owners = lists.rows_in(view, victims)
    vectors = np.ascontiguousarray(lists.rows.arrays.vectors[rows])
    codes, _ = coder.quantise(vectors)
    fresh, fresh_groups = _split_all(lists, view, codes, owners, over, ceiling)
    heads, sources = _new_heads(lists, view, victims, fresh, fresh_groups, threads)
    others, other_lists = _nearer_to_fresh(lists, view, fresh, victims)
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


def _nearer_to_fresh(
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
    nears = (distances[keep] * np.float32(coder.quantiser.scale) ** 2).astype(np.float32)
    inside = np.unique(pairs[:, 1])
    own_places = np.full(heads.count, -1, np.int64)
    own_places[inside] = np.arange(len(inside))
    data, offsets = lists.bodies(view, inside)
    longest = int(view.lengths[inside].max(initial=1))
    found: Any = list_assignment.NearerRows(
        rows=np.empty(_MOVED_MAX, np.int64), owners=np.empty(_MOVED_MAX, np.int32), dots=np.empty(longest, np.int32),
        estimates=np.empty(longest, np.float32), own_estimates=np.empty(longest, np.float32),
    )  # fmt: skip
    scale, queries, own, table = (
        coder.scale(by_inner_product=False), ArrayTable(coder.as_queries(fresh)),
        ArrayTable(coder.as_queries(heads.codes[inside])), ArrayTable(found),
    )  # fmt: skip
    count = list_assignment.nearer_rows(
        pairs, nears, np.float32(_CLOSER), offsets, view.lengths, data, scale.table, queries.table, own.table,
        own_places, table.table, (0,) * coder.bits,
    )  # fmt: skip
    rows, first = np.unique(found.rows[:count], return_index=True)
    alive = alive_in(lists, rows)
    return rows[alive], found.owners[:count][first][alive]


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
    if (
        heads.count > 2 * len(heads.group_ends) ** 2
        or heads.largest_group > _GROUP_SHARE * heads.count**0.5 + _GROUP_MORE
    ):
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


def drop_deleted_entries(lists: PostingLists) -> None:
    """Dead entries leave the lists that are in memory."""
    view = lists.current()
    resident = np.flatnonzero(view.body_offsets >= 0)
    stale = resident[lists.live_counts(view, resident) < view.lengths[resident]]
    if len(stale):
        lists.change(view.heads, _as_they_are(view), stale, _no_entries(view.coder))


def renumbered_lists(old: PostingLists, new: PostingLists, mapping: Rows64, *, spill: bool) -> ListsView:
    """The state of `old` under new row numbers, for `new`: entries of rows that are gone (-1) are left out.

    spill : each batch of lists goes to the list file of `new` and leaves memory.
    """
    view = old.current()
    count, width = view.heads.count, view.coder.width
    gone = np.concatenate([np.packbits(mapping < 0, bitorder="little"), np.zeros(8, np.uint8)])
    deleted = old.rows.arrays.deleted  # up to sequence 0 no row is dead: `gone` alone decides
    outliers = mapping[view.outlier_rows]
    arena_bytes = 0 if spill else 2 * int(view.body_bytes().sum()) + _RENUMBERING_MORE_BYTES
    moved = replace(
        empty_view(view.coder, view.heads, arena_bytes, view.replicas), probe_counts=view.probe_counts,
        outlier_rows=outliers[outliers >= 0], indexed=int((mapping[: view.indexed] >= 0).sum()),
    )  # fmt: skip
    for some in batches(np.arange(count), view.body_bytes()):
        data, offsets = old.bodies(view, some)
        live = np.zeros(len(some), np.int32)
        list_bodies.count_live(some, offsets, view.lengths, data, width, deleted, 0, gone, live)
        moved = with_room(moved, some, live)
        fill = np.zeros((count, 2), np.int32)
        fill[some, 0] = live
        list_bodies.copy_live_entries(
            some, offsets, view.lengths, data, width, deleted, 0, gone, some, moved.body_offsets, fill,
            moved.arena.data,
        )  # fmt: skip
        del data  # before the next batch is read
        list_bodies.renumber(moved.body_offsets[some], live, width, mapping, moved.arena.data)
        if spill:
            moved = new.spilled(moved, some)
    return moved
