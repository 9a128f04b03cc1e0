"""(row, tenant) pairs as sorted arrays of one integer each, and what sets do with them.

    packed := row << 32 | number      row < 2**31, number < 2**32 (`limits.tenants_made_max`)

Pure functions of arrays; a `RowTenantPairs` is never changed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

_NUMBER = 0xFFFFFFFF
_HALF, _ROW = np.uint64(32), np.uint64(_NUMBER)  # of a pair that is turned
_T = TypeVar("_T", bound=np.generic)


class RowTenantPairs:
    """(row, tenant) pairs, each once, ascending.

    packed : int64[n], row << 32 | number: rows have 31 bits, and a collection makes fewer than 2**32 tenants.
    """

    __slots__ = ("packed",)

    def __init__(self, packed: NDArray[np.int64]) -> None:
        self.packed = packed

    @staticmethod
    def of(rows: NDArray[np.int64], numbers: NDArray[np.uint64]) -> RowTenantPairs:
        """In order, repeated pairs once."""
        return RowTenantPairs(distinct((rows << 32) | numbers.astype(np.int64)))

    def __len__(self) -> int:
        return len(self.packed)

    @property
    def rows(self) -> NDArray[np.int64]:
        return self.packed >> 32

    @property
    def numbers(self) -> NDArray[np.uint64]:
        return (self.packed & _NUMBER).astype(np.uint64)

    def tenants(self) -> NDArray[np.uint64]:
        """Distinct numbers, ascending."""
        return np.unique(self.numbers)

    def counts(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """(distinct rows, pairs of each)."""
        rows = self.rows
        starts = np.flatnonzero(np.diff(rows, prepend=np.int64(-1)))
        return rows[starts], np.diff(starts, append=len(rows))

    def only(self, keep: NDArray[np.bool_]) -> RowTenantPairs:
        return RowTenantPairs(self.packed[keep])

    def of_rows(self, rows: NDArray[np.int64]) -> RowTenantPairs:
        """Those of rows (distinct, ascending)."""
        starts = np.searchsorted(self.packed, rows << 32)
        counts = np.searchsorted(self.packed, (rows + 1) << 32) - starts
        ends = np.cumsum(counts)
        return RowTenantPairs(self.packed[np.repeat(starts - ends + counts, counts) + np.arange(counts.sum())])

    @property
    def turned(self) -> NDArray[np.uint64]:
        """uint64[n], number << 32 | row: what sorts as `members` does."""
        return (self.numbers << _HALF) | self.rows.astype(np.uint64)

    def by_number(self) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
        """(numbers, rows) in the order of `members`."""
        turned = np.sort(self.turned)
        return turned >> _HALF, turned & _ROW


NOTHING = RowTenantPairs(np.empty(0, np.int64))


def distinct(values: NDArray[_T]) -> NDArray[_T]:
    """Sorted, each once: rows or packed pairs. Sorts in place: runs that are sorted already are merged."""
    values.sort(kind="stable")
    fresh = np.empty(len(values), bool)
    fresh[:1] = True
    np.not_equal(values[1:], values[:-1], out=fresh[1:])
    return values[fresh]


def within(values: NDArray[np.int64], those: NDArray[np.int64]) -> NDArray[np.bool_]:
    """bool[n]: which values are among `those` (ascending)."""
    if not len(those):
        return np.zeros(len(values), bool)
    places = np.searchsorted(those, values)
    places[places == len(those)] = 0
    return np.asarray(those[places] == values)


def rows_in(turned: NDArray[np.uint64], number: int) -> NDArray[np.uint64]:
    """Rows of one tenant, ascending. turned : pairs (`RowTenantPairs.turned`), sorted."""
    first, last = np.searchsorted(turned, np.array([number, number + 1], np.uint64) << _HALF)
    return turned[first:last] & _ROW


def unite(a: RowTenantPairs, b: RowTenantPairs) -> RowTenantPairs:
    if not len(a) or not len(b):
        return a if len(a) else b
    return RowTenantPairs(distinct(np.concatenate([a.packed, b.packed])))


def common(a: RowTenantPairs, b: RowTenantPairs) -> RowTenantPairs:
    """Pairs of a that b has, too."""
    return a.only(within(a.packed, b.packed))


def subtract(a: RowTenantPairs, b: RowTenantPairs) -> RowTenantPairs:
    """Pairs of a that b has not."""
    if not len(b) or not len(a):
        return a
    if len(a) < len(b):
        return a.only(~within(a.packed, b.packed))
    places = np.searchsorted(a.packed, b.packed)
    return RowTenantPairs(np.delete(a.packed, places[_there(a.packed, places, b.packed)]))


def merged(values: NDArray[_T], going: NDArray[_T], coming: NDArray[_T]) -> NDArray[_T]:
    """`values` without `going`, with `coming`: rows or packed pairs, all of them distinct and ascending."""
    if len(going):
        places = np.searchsorted(values, going)
        values = np.delete(values, places[_there(values, places, going)])
    if len(coming):
        places = np.searchsorted(values, coming)
        new = ~_there(values, places, coming)
        values = np.insert(values, places[new], coming[new])
    return values


def _there(values: NDArray[Any], places: NDArray[np.int64], wanted: NDArray[Any]) -> NDArray[np.bool_]:
    """Which of `wanted` are in `values`, at `places` (of searchsorted)."""
    if not len(values):
        return np.zeros(len(wanted), bool)
    return np.asarray((places < len(values)) & (values[np.minimum(places, len(values) - 1)] == wanted))


def net_changes(
    added: Sequence[RowTenantPairs], removed: Sequence[RowTenantPairs]
) -> tuple[RowTenantPairs, RowTenantPairs]:
    """What a commit did in the end, of steps that each changed what they name: a pair that was added and taken away
    again is in neither.
    """
    if len(added) + len(removed) <= 1:
        return (added[0] if added else NOTHING), (removed[0] if removed else NOTHING)
    steps = np.concatenate([part.packed for part in (*added, *removed)])
    signs = np.ones(len(steps))
    signs[sum(map(len, added)) :] = -1
    pairs, index = np.unique(steps, return_inverse=True)
    total = np.bincount(index, signs, len(pairs))
    return RowTenantPairs(pairs[total > 0]), RowTenantPairs(pairs[total < 0])
