"""Sets of (row, tenant) pairs: sorted arrays of one integer a pair, and set operations on them.

    pair := row << 32 | number      row < 2**31, number < 2**32 (`limits.tenants_made_max`)

A set of pairs is an int64[n], ascending, each pair once. Every function takes whole sets and changes none of them;
only `distinct` sorts its argument in place.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

RowTenantPairs = NDArray[np.int64]

NO_PAIRS: RowTenantPairs = np.empty(0, np.int64)
_LOW_32 = 0xFFFFFFFF
_HALF, _ROW = np.uint64(32), np.uint64(_LOW_32)  # of a pair by tenant
_T = TypeVar("_T", bound=np.generic)


# -- pairs and what they are made of ---------------------------------------------------------------


def pack(rows: NDArray[np.int64], numbers: NDArray[np.integer]) -> RowTenantPairs:
    """The set of pairs (rows[i], numbers[i]), which may come in any order and repeat."""
    return distinct((rows << 32) | numbers.astype(np.int64))


def rows_of(pairs: RowTenantPairs) -> NDArray[np.int64]:
    return pairs >> 32


def numbers_of(pairs: RowTenantPairs) -> NDArray[np.int64]:
    return pairs & _LOW_32


def counts_by_row(pairs: RowTenantPairs) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(distinct rows, pairs of each)."""
    rows = pairs >> 32
    starts = np.flatnonzero(np.diff(rows, prepend=np.int64(-1)))
    return rows[starts], np.diff(starts, append=len(rows))


def select_rows(pairs: RowTenantPairs, rows: NDArray[np.int64]) -> RowTenantPairs:
    """Those pairs whose row is among `rows` (distinct, ascending)."""
    starts = np.searchsorted(pairs, rows << 32)
    counts = np.searchsorted(pairs, (rows + 1) << 32) - starts
    ends = np.cumsum(counts)
    selected: RowTenantPairs = pairs[np.repeat(starts - ends + counts, counts) + np.arange(counts.sum())]
    return selected


def by_tenant(pairs: RowTenantPairs) -> NDArray[np.uint64]:
    """uint64[n], number << 32 | row, in the order of `pairs`. Sorted, they have the order of the table `members`."""
    unsigned = pairs.view(np.uint64)
    return (unsigned << _HALF) | (unsigned >> _HALF)


def rows_of_tenant(sorted_by_tenant: NDArray[np.uint64], number: int) -> NDArray[np.uint64]:
    """Rows of one tenant, ascending. sorted_by_tenant : what `by_tenant` returned, sorted."""
    first, last = np.searchsorted(sorted_by_tenant, np.array([number, number + 1], np.uint64) << _HALF)
    return sorted_by_tenant[first:last] & _ROW


# -- set operations, on pairs or rows --------------------------------------------------------------


def distinct(values: NDArray[_T]) -> NDArray[_T]:
    """Sorted, each once. Sorts in place: runs that are sorted already are merged."""
    values.sort(kind="stable")
    is_new = np.empty(len(values), bool)
    is_new[:1] = True
    np.not_equal(values[1:], values[:-1], out=is_new[1:])
    return values[is_new]


def find(values: NDArray[_T], wanted: NDArray[_T]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """(where each of `wanted` is in `values`, or would be inserted, and whether it is there). values : ascending."""
    positions = np.searchsorted(values, wanted)
    if not len(values):
        return positions, np.zeros(len(wanted), bool)
    return positions, values[np.minimum(positions, len(values) - 1)] == wanted


def unite(a: NDArray[_T], b: NDArray[_T]) -> NDArray[_T]:
    if not len(a) or not len(b):
        return a if len(a) else b
    return distinct(np.concatenate([a, b]))


def common(a: NDArray[_T], b: NDArray[_T]) -> NDArray[_T]:
    return a[find(b, a)[1]]


def subtract(a: NDArray[_T], b: NDArray[_T]) -> NDArray[_T]:
    """Those of a that b does not have. The smaller set is looked up in the larger one."""
    if not len(b) or not len(a):
        return a
    if len(a) < len(b):
        return a[~find(b, a)[1]]
    positions, there = find(a, b)
    return np.delete(a, positions[there])


def apply_changes(values: NDArray[_T], going: NDArray[_T], coming: NDArray[_T]) -> NDArray[_T]:
    """`values` without `going`, with `coming`: for few changes of many values."""
    if len(going):
        values = subtract(values, going)
    if len(coming):
        positions, there = find(values, coming)
        values = np.insert(values, positions[~there], coming[~there])
    return values


def net_changes(
    added: Sequence[RowTenantPairs], removed: Sequence[RowTenantPairs]
) -> tuple[RowTenantPairs, RowTenantPairs]:
    """What a commit added and removed in the end, from what each of its steps added and removed: a pair that one step
    added and another one removed is in neither.
    """
    if len(added) + len(removed) <= 1:
        return (added[0] if added else NO_PAIRS), (removed[0] if removed else NO_PAIRS)
    steps = np.concatenate([*added, *removed])
    signs = np.ones(len(steps))
    signs[sum(map(len, added)) :] = -1
    pairs, index = np.unique(steps, return_inverse=True)
    total = np.bincount(index, signs, len(pairs))
    return pairs[total > 0], pairs[total < 0]
