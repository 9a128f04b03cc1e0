"""What must hold of posting lists, proved on the live state: what `check` reports."""

from __future__ import annotations

import numpy as np

from vecdb.errors import Corruption
from vecdb.index.clustering.cluster_tree import bias_of
from vecdb.index.common.sampling import evenly_spaced
from vecdb.index.spann.posting_lists import ListsView, PostingLists, alive_in, batches

_SAMPLE_LISTS = 64  # whose codes are computed again
_NOWHERE = "neither in memory nor in the list file"


def violations(lists: PostingLists, ceiling: int) -> list[str]:
    """In words; empty when all is well. lists : with a view.   ceiling : most entries of a list."""
    view = lists.current()
    try:
        found = [*_heads(view), *_shape(view, ceiling)]
        if any(_NOWHERE in problem for problem in found):
            return found  # there is nothing to look into
        return [*found, *_rows(lists, view), *_codes(lists, view)]
    except Corruption as error:
        return [str(error)]


def _heads(view: ListsView) -> list[str]:
    heads, found = view.heads, []
    if len(heads.group_ends) and int(heads.group_ends[-1]) != heads.count:
        found.append(f"groups end at head {int(heads.group_ends[-1])}, there are {heads.count}")
    if (np.diff(heads.group_ends, prepend=0) < 0).any():
        found.append("the ends of groups go backwards")
    if not np.array_equal(bias_of(heads.codes), heads.bias):
        found.append("the bias of a head does not match its code")
    return found


def _shape(view: ListsView, ceiling: int) -> list[str]:
    found = []
    nowhere = np.flatnonzero((view.body_offsets < 0) & (view.extent_pages < 0))
    if len(nowhere):
        found.append(f"list {nowhere[0]} is {_NOWHERE}")
    over = np.flatnonzero(view.lengths > ceiling)
    if len(over):
        found.append(f"list {over[0]} has {view.lengths[over[0]]} entries, the ceiling is {ceiling}")
    return found


def _rows(lists: PostingLists, view: ListsView) -> list[str]:
    """Every live indexed row in some list, none twice in one."""
    seen = np.zeros(view.indexed, bool)
    found: list[str] = []
    for some in batches(np.arange(view.heads.count), view.body_bytes()):
        rows, owners = lists.rows_in(view, some)
        wild = rows[(rows < 0) | (rows >= view.indexed)]
        if len(wild):
            return [*found, f"a list holds row {wild[0]}, {view.indexed} are indexed"]
        pairs = owners.astype(np.int64) << 32 | rows
        if len(np.unique(pairs)) != len(pairs):
            found.append("a list holds a row twice")
        if lists.replicas == 1 and seen[rows].any():
            found.append(f"row {rows[seen[rows]][0]} is in two lists")
        seen[rows] = True
    lost = np.flatnonzero(~seen & alive_in(lists, slice(0, view.indexed)))
    if len(lost):
        found.append(f"{len(lost)} live rows are in no list, such as row {lost[0]}")
    return found


def _codes(lists: PostingLists, view: ListsView) -> list[str]:
    """Entries of a sample of lists are what encoding gives."""
    arrays, coder = lists.rows.arrays, view.coder
    chosen = evenly_spaced(view.heads.count, _SAMPLE_LISTS)
    data, offsets = lists.bodies(view, chosen)
    words = data.view(np.uint32)
    for head in chosen.tolist():
        count, offset, width = int(view.lengths[head]), int(offsets[head]), coder.width
        if count == 0:
            continue
        codes = data[offset : offset + count * width].reshape(count, width)
        first = (offset + count * width) // 4
        rows = words[first : first + count].astype(np.int64)
        living = arrays.living(rows)  # the place of others may have been given back
        vectors, n = np.ascontiguousarray(arrays.vectors[rows[living]]), int(living.sum())
        again, factors = coder.encode(vectors, np.full(n, head, np.int32), view.heads.codes, np.arange(n))
        stored = words[first + count : first + 2 * count][living]
        if not np.array_equal(again, codes[living]) or not np.array_equal(factors, stored):
            return [f"list {head} holds codes that are not those of its rows"]
    return []
