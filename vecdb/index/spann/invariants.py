"""Invariants of the lists engine, proved on the live state: what `check` reports."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from vecdb.errors import Corruption
from vecdb.index.clustering.cluster_tree import bias_of
from vecdb.index.common.sampling import evenly_spaced
from vecdb.index.spann.posting_lists import ListsView, batches
from vecdb.kernels.build import list_bodies

if TYPE_CHECKING:
    from vecdb.index.spann.spann_index import SpannIndex

_SAMPLE_LISTS = 64  # whose codes are computed again


def violations(index: SpannIndex) -> list[str]:
    """In words; empty when all is well."""
    view = index.lists.view
    assert view is not None
    try:
        found = [*_heads(view), *_shape(index, view)]
        if any("neither" in problem for problem in found):
            return found  # there is nothing to look into
        return [*found, *_rows(index, view), *_codes(index, view)]
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


def _shape(index: SpannIndex, view: ListsView) -> list[str]:
    found = []
    nowhere = np.flatnonzero((view.places < 0) & (view.extents < 0))
    if len(nowhere):
        found.append(f"list {nowhere[0]} is neither in memory nor in the list file")
    over = np.flatnonzero(view.lengths > index.ceiling)
    if len(over):
        found.append(f"list {over[0]} has {view.lengths[over[0]]} entries, the ceiling is {index.ceiling}")
    return found


def _rows(index: SpannIndex, view: ListsView) -> list[str]:
    """Every live indexed row in some list, none twice in one."""
    arrays = index._rows.arrays
    seen = np.zeros(view.indexed, bool)
    found: list[str] = []
    for some in batches(np.arange(view.heads.count), view.body_bytes()):
        _, data32, places = index.lists.bodies(view, some)
        total = int(view.lengths[some].sum())
        rows, owners = np.empty(total, np.int64), np.empty(total, np.int32)
        count = list_bodies.gather_rows(
            some, places, view.lengths, data32, view.coder.width, arrays.deleted, index.lists.removed, rows, owners
        )
        rows, owners = rows[:count], owners[:count]
        wild = rows[(rows < 0) | (rows >= view.indexed)]
        if len(wild):
            return [*found, f"a list holds row {wild[0]}, {view.indexed} are indexed"]
        pairs = owners.astype(np.int64) << 32 | rows
        if len(np.unique(pairs)) != len(pairs):
            found.append("a list holds a row twice")
        if index.lists.replicas == 1 and seen[rows].any():
            found.append(f"row {rows[seen[rows]][0]} is in two lists")
        seen[rows] = True
    deleted = arrays.deleted[: view.indexed]
    lost = np.flatnonzero(~seen & ((deleted == 0) | (deleted > np.uint64(index.lists.removed))))
    if len(lost):
        found.append(f"{len(lost)} live rows are in no list, such as row {lost[0]}")
    return found


def _codes(index: SpannIndex, view: ListsView) -> list[str]:
    """Entries of a sample of lists are what encoding gives."""
    arrays, coder = index._rows.arrays, view.coder
    chosen = evenly_spaced(view.heads.count, _SAMPLE_LISTS)
    data, data32, places = index.lists.bodies(view, chosen)
    for head in chosen.tolist():
        count, place, width = int(view.lengths[head]), int(places[head]), coder.width
        if count == 0:
            continue
        codes = data[place : place + count * width].reshape(count, width)
        first = (place + count * width) // 4
        rows = data32[first : first + count].astype(np.int64)
        vectors = np.ascontiguousarray(arrays.vectors[rows])
        again, factors = coder.encode(vectors, np.full(count, head, np.int32), view.heads.codes, np.arange(count))
        if not np.array_equal(again, codes) or not np.array_equal(factors, data32[first + count : first + 2 * count]):
            return [f"list {head} holds codes that are not those of its rows"]
    return []
