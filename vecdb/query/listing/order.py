"""Rows in the order of a field: by the type of its value, then the value, then id and owner; without a value last.

    group   bool 0, numbers 1, texts 2, bytes 3, times 4, lists 5, maps 6, none 7 (7 also where it descends)
    key     uint64, in the order of the values of a group; of lists and maps all are the same

Columns give groups and keys; where they cannot (a field without a column, texts as checksums) the records are read.
"""

from __future__ import annotations

import datetime as dt
from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vecdb.columns.column import Column
from vecdb.columns.column_set import ColumnView
from vecdb.columns.encoding import codes_of, kind_of, value_of
from vecdb.errors import InvalidArgument
from vecdb.filters.times import moment
from vecdb.query.listing.cursor import MISSING
from vecdb.validate.common import INT64_END

Rows = NDArray[np.int64]
Keys = NDArray[np.uint64]
Group = int

GROUPS = {
    "bool": 0, "int": 1, "float": 1, "str": 2, "bytes": 3, "date": 4, "datetime": 4, "instant": 4, "list": 5, "map": 6,
}  # fmt: skip
_KINDS = {kind: place for place, kind in enumerate(GROUPS)}
_NUMBERS, _LISTS = 1, 5
_TYPES: tuple[tuple[type, ...], ...] = ((bool,), (int, float), (str,), (bytes,), (int,))  # of a place, by group


class PagePlace(NamedTuple):
    """Where a record stands. value : of its field: of a time its microseconds since 1970; None of lists and maps."""

    group: Group
    value: Any
    id: int | str
    owner: str


@dataclass(slots=True)
class OrderedRows:
    """groups : uint8[n], keys : uint64[n], of rows.   group, key : of the place that is looked for."""

    groups: NDArray[np.uint8]
    keys: Keys
    group: Group = MISSING
    key: int = 0


def group_and_value(value: Any) -> tuple[Group, Any]:
    """Of a stored value, as a cursor keeps it."""
    if value is None:
        return MISSING, None
    group = GROUPS[kind_of(value)]
    if isinstance(value, dt.date):
        value = moment(value)
    return group, None if group >= _LISTS else value


def sort_key(value: Any) -> tuple[int, bool, Any, int]:
    """By type, then value; NaN after the other numbers, an int before the float that equals it, and a date before the
    time without a zone, that before the time with one.
    """
    group, plain = group_and_value(value)
    is_nan = plain != plain
    return group, is_nan, 0 if is_nan else plain, _KINDS[kind_of(value)]


def check_place(place: PagePlace) -> PagePlace:
    """Raises InvalidArgument where a cursor's value is none of its group."""
    types = _TYPES[place.group] if 0 <= place.group < len(_TYPES) else (type(None),)
    fits = type(place.value) is not int or -INT64_END <= place.value < INT64_END
    if not 0 <= place.group <= MISSING or type(place.value) not in types or not fits:
        raise InvalidArgument("after must be the cursor of a page of the same listing: it names no value")
    return place


def by_columns(view: ColumnView, path: str, rows: Rows, place: PagePlace | None) -> OrderedRows | None:
    """Groups and keys of rows (ascending). None: columns do not tell."""
    if view.lacks(path) or view.is_hashed(path):
        return None
    made = OrderedRows(np.full(len(rows), MISSING, np.uint8), np.zeros(len(rows), np.uint64))
    known = view.paths.get(path)
    parts: dict[Group, list[tuple[Column, NDArray[np.int64], Keys]]] = {}
    for kind, column in known.columns.items() if known is not None else ():
        codes = column.codes_at(rows)
        at = np.flatnonzero(codes)
        if len(at):
            parts.setdefault(GROUPS[kind], []).append((column, at, codes[at]))
    for group, some in parts.items():
        value = place.value if place is not None and place.group == group else None
        at = np.concatenate([places for _, places, _ in some])
        made.groups[at] = group
        made.keys[at], key = _keys(group, [(column, codes) for column, _, codes in some], value)
        if value is not None:
            made.key = key
    if place is not None:
        made.group = place.group
    return made


def _keys(group: Group, parts: Sequence[tuple[Column, Keys]], value: Any) -> tuple[Keys, int]:
    """Keys of codes, one part after another, and that of a value of the group."""
    first = parts[0][0]
    codes = np.concatenate([some for _, some in parts])
    if group >= _LISTS:
        return np.zeros(len(codes), np.uint64), 0
    if first.dictionary is not None:
        used, which = np.unique(codes, return_inverse=True)
        texts = first.dictionary.values
        return _ranked([texts[code] for code in used.tolist()], which, value)
    if group == _NUMBERS and (len(parts) > 1 or (value is not None and kind_of(value) != first.kind)):
        found: list[Any] = []
        places: list[NDArray[np.int64]] = []
        for column, some in parts:
            used, which = np.unique(some, return_inverse=True)
            places.append(which + len(found))
            found += [value_of(column.kind, code) for code in used.tolist()]
        return _ranked(found, np.concatenate(places), value)
    if value is None:
        return codes, 0
    if group == GROUPS["date"]:
        return codes, value + (1 << 63)
    return codes, int(codes_of(first.kind, [value])[0])


def by_values(values: Iterable[Any], place: PagePlace | None) -> OrderedRows:
    """The same of values of the field, None where a record has none."""
    known = [group_and_value(value) for value in values]
    made = OrderedRows(np.array([group for group, _ in known], np.uint8), np.zeros(len(known), np.uint64))
    for group in range(_LISTS):
        at = np.flatnonzero(made.groups == group)
        value = place.value if place is not None and place.group == group else None
        made.keys[at], key = _ranked([known[one][1] for one in at.tolist()], np.arange(len(at)), value)
        if value is not None:
            made.key = key
    if place is not None:
        made.group = place.group
    return made


def _ranked(values: list[Any], which: NDArray[np.int64], wanted: Any) -> tuple[Keys, int]:
    """Keys of values[which], odd, and that of a wanted value, even where it is none of them. NaN is the largest."""
    distinct = sorted({value for value in values if value == value})
    ranks = {value: 2 * rank + 1 for rank, value in enumerate(distinct)}
    last = 2 * len(distinct) + 1
    keys = np.array([ranks.get(value, last) for value in values], np.uint64)[which]
    if wanted is None:
        return keys, 0
    at = bisect_left(distinct, wanted) if wanted == wanted else len(distinct)
    exists = wanted != wanted or (at < len(distinct) and distinct[at] == wanted)
    return keys, 2 * at + exists


def behind(
    ordered: OrderedRows,
    ids: NDArray[Any],
    owners: Callable[[NDArray[np.int64]], list[str]],
    place: PagePlace | None,
    *,
    descending: bool,
    most: int | None = None,
) -> NDArray[np.int64]:
    """Positions of rows in their order, those behind the place. ids : of the rows.   owners : of the rows at some
    positions.   most : the first so many are enough.
    """
    groups, keys, group, key = ordered.groups, ordered.keys, ordered.group, ordered.key
    if descending:
        groups = np.where(groups == MISSING, MISSING, np.uint8(MISSING - 1) - groups).astype(np.uint8)
        keys, key = ~keys, (1 << 64) - 1 - key
        group = group if group == MISSING else MISSING - 1 - group
    at = np.arange(len(groups))
    if place is not None:
        same = np.flatnonzero((groups == group) & (keys == np.uint64(key)))
        named = np.array([one == place.id for one in ids[same].tolist()], bool)
        later = ids[same] > place.id
        twins = same[named]
        later[named] = [owner > place.owner for owner in owners(twins)] if len(twins) else []
        keep = (groups > group) | ((groups == group) & (keys > np.uint64(key)))
        keep[same[later.astype(bool)]] = True
        at = at[keep]
    if most is not None and most < len(at):
        at = _first(at, groups[at], keys[at], most)
    return _sorted(at, groups, keys, ids, owners)


def _first(at: NDArray[np.int64], groups: NDArray[np.uint8], keys: Keys, most: int) -> NDArray[np.int64]:
    """Those of `at` that are among the first `most` by group and key, with all that equal the last of them."""
    last = int(np.searchsorted(np.cumsum(np.bincount(groups)), most))
    inside = groups == last
    rank = most - int((groups < last).sum()) - 1
    bound = np.partition(keys[inside], rank)[rank]
    kept: NDArray[np.int64] = at[(groups < last) | (inside & (keys <= bound))]
    return kept


def _sorted(
    at: NDArray[np.int64],
    groups: NDArray[np.uint8],
    keys: Keys,
    ids: NDArray[Any],
    owners: Callable[[NDArray[np.int64]], list[str]],
) -> NDArray[np.int64]:
    numbers = ids[at]
    if numbers.dtype == object:
        names = numbers.tolist()
        numbers = np.empty(len(names), np.int64)
        ranks = {name: rank for rank, name in enumerate(sorted(set(names)))}
        numbers[:] = [ranks[name] for name in names]
    order = np.lexsort((numbers, keys[at], groups[at]))
    at, numbers = at[order], numbers[order]
    equal = (numbers[1:] == numbers[:-1]) & (keys[at][1:] == keys[at][:-1]) & (groups[at][1:] == groups[at][:-1])
    if equal.any():  # records of several owners, which have the same id
        starts = np.flatnonzero(~np.concatenate([[False], equal]))
        for start, stop in zip(starts.tolist(), [*starts[1:].tolist(), len(at)], strict=True):
            if stop - start > 1:
                some = at[start:stop]
                at[start:stop] = some[np.argsort(np.array(owners(some), object), kind="stable")]
    return at
