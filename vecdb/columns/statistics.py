"""What values a field has among some rows, and how many rows have each, as columns tell.

A value is counted under its type and itself: True, 1 and 1.0 are three. A list counts each of its elements once,
however often it holds it. Lists, maps and None inside a list do not count, nor do maps as values.

None as an answer: columns do not tell (no column, texts as checksums, -2**63 as an int or a float); the records are to
be counted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vecdb.columns import field_values
from vecdb.columns.blocks import BLOCK_ROWS, unpacked
from vecdb.columns.column import Column, ElementBlock, Elements
from vecdb.columns.column_set import ColumnView
from vecdb.columns.dictionary import Dictionary
from vecdb.columns.encoding import LOWEST_INT_CODE, NAN_CODE, kind_of, value_of
from vecdb.columns.evaluation import has_value

Rows = NDArray[np.int64]
Codes = NDArray[np.uint64]
Counts = dict[tuple[type, Any], int]  # by type and value
_NOT_COUNTED = frozenset(("list", "map"))
_DENSE = 4  # codes that span at most so many times their number are counted by a table


def value_counts(view: ColumnView, path: str, rows: Rows, most: int | None = None) -> Counts | None:
    """Rows (ascending) with each value of a field or path. most : the most frequent so many values are enough, the
    smaller of those that are equally frequent.
    """
    if view.lacks(path) or view.is_hashed(path):
        return None
    known = view.paths.get(path)
    if known is None:
        return {}
    parts: list[tuple[Column | Elements, Codes, NDArray[np.int64]]] = []
    for column in known.columns.values():
        if column.kind not in _NOT_COUNTED:
            codes = column.codes_at(rows)
            parts.append((column, *_counted(codes[codes != 0])))
    for elements in known.elements.values():
        some = [_elements_of(block, number, rows) for number, block in enumerate(_blocks(elements))]
        parts.append((elements, *_counted(np.concatenate(some))))
    parts = [part for part in parts if len(part[1])]
    if any(part.kind == "float" and LOWEST_INT_CODE in codes for part, codes, _ in parts):
        return None
    if most is not None and len(parts) == 1 and parts[0][0].dictionary is None:
        [(only, codes, counts)] = parts
        first = np.lexsort((codes, -counts))[:most]
        parts = [(only, codes[first], counts[first])]
    found: Counter[tuple[type, Any]] = Counter()
    for part, codes, counts in parts:
        found.update(_by_value(part, codes, counts))
    return dict(found)


def extremes(view: ColumnView, path: str, rows: Rows) -> list[tuple[Any, Any]] | None:
    """The smallest and the largest value of each kind among rows (ascending); lists, maps and NaN do not count."""
    if view.lacks(path) or view.is_hashed(path):
        return None
    known = view.paths.get(path)
    found = []
    for column in known.columns.values() if known is not None else ():
        codes = column.codes_at(rows)
        codes = codes[(codes != 0) & (codes != NAN_CODE)] if column.kind == "float" else codes[codes != 0]
        if not len(codes) or column.kind in _NOT_COUNTED:
            continue
        if column.kind == "float" and LOWEST_INT_CODE in (codes.min(), codes.max()):
            return None
        if column.dictionary is None:
            ends = value_of(column.kind, int(codes.min())), value_of(column.kind, int(codes.max()))
        else:
            texts = [column.dictionary.values[code] for code in np.unique(codes).tolist()]
            ends = min(texts), max(texts)
        found.append(ends)
    return found


def count_values(values: Iterable[Any]) -> Counts:
    """The same of the values of a field, None where a record has none."""
    found: Counter[tuple[type, Any]] = Counter()
    for value in values:
        if isinstance(value, list):
            found.update({_key(one) for one in value if one is not None and not isinstance(one, (list, dict))})
        elif value is not None and not isinstance(value, dict):
            found[_key(value)] += 1
    return dict(found)


_NAN = float("nan")


def _key(value: Any) -> tuple[type, Any]:
    """With one object for all NaN, so that they are one key."""
    return type(value), _NAN if value != value else value


def types_and_counts(view: ColumnView, rows: Rows) -> dict[str, tuple[set[str], int]]:
    """Of each path that has a column: kinds of its values, and how many of `rows` (ascending) have one."""
    nbytes = 8 * (-(-view.row_count // 64))
    live = np.zeros(8 * nbytes, bool)
    live[rows] = True
    inside = np.packbits(live, bitorder="little")
    found = {}
    for path, known in view.paths.items():
        counts = {
            kind: int(np.bitwise_count(column.bits(has_value, nbytes) & inside).sum())
            for kind, column in known.columns.items()
        }
        if any(counts.values()):
            found[path] = {kind for kind, count in counts.items() if count}, sum(counts.values())
    return found


def add_types(found: dict[str, tuple[set[str], int]], view: ColumnView, records: Sequence[dict[str, Any]]) -> None:
    """Add what paths without a column have in these records."""
    for path, (_, values) in field_values.by_path(records).items():
        if path not in view.paths:
            kinds, count = found.get(path, (set(), 0))
            found[path] = kinds | {kind_of(value) for value in values}, count + len(values)


def _counted(codes: Codes) -> tuple[Codes, NDArray[np.int64]]:
    """Distinct codes and how often each stands among these."""
    if not len(codes):
        return codes, np.empty(0, np.int64)
    lowest = codes.min()
    span = int(codes.max() - lowest) + 1
    if span > _DENSE * len(codes):
        return np.unique(codes, return_counts=True)
    counts = np.bincount((codes - lowest).astype(np.int64), minlength=span)
    there = np.flatnonzero(counts)
    return there.astype(np.uint64) + lowest, counts[there]


def _by_value(part: Column | Elements, codes: Codes, counts: NDArray[np.int64]) -> Counts:
    dictionary: Dictionary | None = part.dictionary
    found: Counter[tuple[type, Any]] = Counter()  # a date and a time have codes of their own, 0.0 and -0.0 one
    for code, count in zip(codes.tolist(), counts.tolist(), strict=True):
        value = value_of(part.kind, code) if dictionary is None else dictionary.values[code]
        found[_key(value)] += count
    return found


def _blocks(elements: Elements) -> Iterable[ElementBlock | None]:
    return (*elements.blocks, elements.tail_block())


def _elements_of(block: ElementBlock | None, number: int, rows: Rows) -> Codes:
    """Codes of the elements of `rows` in a block, each once a row."""
    first, stop = np.searchsorted(rows, [number * BLOCK_ROWS, (number + 1) * BLOCK_ROWS]).tolist()
    if block is None or first == stop:
        return np.empty(0, np.uint64)
    wanted = np.zeros(BLOCK_ROWS, bool)
    wanted[rows[first:stop] % BLOCK_ROWS] = True
    kept = wanted[block.rows]
    of, codes = block.rows[kept], unpacked(block.codes, 0)[kept]
    order = np.lexsort((of, codes))
    of, codes = of[order], codes[order]
    again = (of[1:] == of[:-1]) & (codes[1:] == codes[:-1])
    return codes[np.concatenate([[True], ~again])] if len(codes) else codes
