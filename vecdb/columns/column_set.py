"""All columns of a collection's records. Growing or changing them makes another view; a view never changes.

    records (dicts) --by path, by kind--> codes --> Column a path and kind, Elements for what lists hold

Bounded: a path beyond `limits.columns_max`, and one that is not wanted, has no column; `missing` says so, and a filter
looks at the records themselves.

Threads: one at a time extends or changes; any number read views.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from vecdb import limits
from vecdb.columns import field_values
from vecdb.columns.blocks import BLOCK_ROWS
from vecdb.columns.column import Column, Elements
from vecdb.columns.dictionary import Dictionary, HashedTexts
from vecdb.columns.encoding import TEXTS, codes_of

NO_ROWS: NDArray[np.int64] = np.empty(0, np.int64)
_NO_CODES: NDArray[np.uint64] = np.empty(0, np.uint64)
Part = TypeVar("Part", Column, Elements)


@dataclass(frozen=True, slots=True)
class PathColumns:
    """What one path has: columns and elements of lists by kind."""

    columns: dict[str, Column] = field(default_factory=dict)
    elements: dict[str, Elements] = field(default_factory=dict)

    @property
    def nbytes(self) -> int:
        return sum(one.nbytes for one in self.columns.values()) + sum(one.nbytes for one in self.elements.values())


@dataclass(frozen=True, slots=True)
class ColumnView:
    """Columns of rows [0, row_count). sequence : of the newest change of fields that is in them.   missing : whether
    there are paths that have no column: then no other path is given one, whose earlier rows nobody read.
    changes : how many rows were changed since the first of these views.
    """

    paths: dict[str, PathColumns] = field(default_factory=dict)
    row_count: int = 0
    sequence: int = 0
    missing: bool = False
    changes: int = 0

    def lacks(self, path: str) -> bool:
        """Whether records may have the path although it has no column."""
        return self.missing and path not in self.paths

    def is_hashed(self, path: str) -> bool:
        """Whether a column of the path does not hold its texts, so that records are looked at."""
        known = self.paths.get(path)
        if known is None:
            return False
        parts: list[Column | Elements] = [*known.columns.values(), *known.elements.values()]
        return any(one.dictionary is not None and one.dictionary.hashed for one in parts)

    @property
    def nbytes(self) -> int:
        return sum(one.nbytes for one in self.paths.values())

    def extended(self, records: Sequence[field_values.Record], row_count: int) -> ColumnView:
        """With the records of the next rows, up to `row_count`."""
        first = self.row_count
        paths, missing = dict(self.paths), self.missing
        for path, (places, values) in field_values.by_path(records).items():
            known = paths.get(path)
            if known is None and (missing or len(paths) >= limits.columns_max):
                missing = True
                continue
            paths[path] = _extended(known or PathColumns(), first, len(records), places, values)
        return ColumnView(paths, row_count, self.sequence, missing, self.changes)

    def changed(self, rows: NDArray[np.int64], records: Sequence[field_values.Record], sequence: int) -> ColumnView:
        """With the records that `rows` (ascending, each once, below row_count) have at commit `sequence`."""
        new = field_values.by_path(records)
        paths, missing = dict(self.paths), self.missing
        for path in [*paths, *(one for one in new if one not in paths)]:
            if path not in paths and (missing or len(paths) >= limits.columns_max):
                missing = True
                continue
            places, values = new.get(path, (NO_ROWS, []))
            paths[path] = _changed(paths.get(path) or PathColumns(), rows, self.row_count, places, values)
        return ColumnView(paths, self.row_count, sequence, missing, self.changes + len(rows))


def _extended(known: PathColumns, first: int, count: int, places: NDArray[np.int64], values: list[Any]) -> PathColumns:
    columns, elements = dict(known.columns), dict(known.elements)
    for kind, (at, some) in field_values.by_kind(places, values).items():
        column, codes = _encoded(columns, kind, Column, some)
        wide = codes
        if len(at) < count:
            wide = np.zeros(count, np.uint64)
            wide[at] = codes
        columns[kind] = column.extended(first, wide)
        if kind == "list":
            _extend_elements(elements, (first + count) // BLOCK_ROWS, first, *field_values.elements(at, some))
    return PathColumns(columns, elements)


def _extend_elements(
    elements: dict[str, Elements], block_count: int, first: int, places: NDArray[np.int64], values: list[Any]
) -> None:
    for kind, (at, some) in field_values.by_kind(places, values).items() if values else ():
        one, codes = _encoded(elements, kind, Elements, some)
        elements[kind] = one.extended(block_count, first + at, codes)


def _changed(
    known: PathColumns, rows: NDArray[np.int64], row_count: int, places: NDArray[np.int64], values: list[Any]
) -> PathColumns:
    new = field_values.by_kind(places, values) if values else {}
    columns, elements = dict(known.columns), dict(known.elements)
    for kind in [*columns, *(one for one in new if one not in columns)]:
        at, some = new.get(kind, (NO_ROWS, []))
        column, codes = _encoded(columns, kind, Column, some)
        wide = np.zeros(len(rows), np.uint64)
        wide[at] = codes
        columns[kind] = column.changed(rows, wide)
    if "list" in columns:
        at, some = field_values.elements(*new.get("list", (NO_ROWS, [])))
        parts = field_values.by_kind(at, some) if some else {}
        for kind in [*elements, *(one for one in parts if one not in elements)]:
            of, values_of_kind = parts.get(kind, (NO_ROWS, []))
            one, codes = _encoded(elements, kind, Elements, values_of_kind)
            elements[kind] = one.extended(row_count // BLOCK_ROWS, NO_ROWS, _NO_CODES).changed(rows, rows[of], codes)
    return PathColumns(columns, elements)


def _encoded(parts: dict[str, Part], kind: str, make: type[Part], values: list[Any]) -> tuple[Part, NDArray[np.uint64]]:
    """The part of a kind, an empty one where there is none, whose dictionary may have become hashes; and the codes of
    values in it.
    """
    part = parts.get(kind) or make(kind, dictionary=Dictionary() if kind in TEXTS else None)
    dictionary = part.dictionary
    if dictionary is None:
        return part, codes_of(kind, values)
    codes = dictionary.encode(values)
    if dictionary.hashed or dictionary.is_worth_it(part.count + len(values)):
        return part, codes
    hashes = dictionary.hashes()
    return part.recoded(hashes, HashedTexts()), hashes[codes]
