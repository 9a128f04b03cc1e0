"""A filter as bits over rows, by columns; where there is no column, by the records themselves.

    tree --> bits of each condition --and, or, not--> bits of all

A condition that columns cannot answer (no column, or a hashed one whose codes are not the texts) is asked of the
records of the rows that are still in question: the conditions that columns answer come first.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vecdb.columns.blocks import Bits, CodeBlock, among, in_interval, marked
from vecdb.columns.column import Column, Elements, Test
from vecdb.columns.column_set import ColumnView
from vecdb.columns.encoding import EMPTY, interval
from vecdb.filters import evaluate, tree

# fields of rows (int64[n], ascending), in order
Records = Callable[[NDArray[np.int64]], Iterable[dict[str, Any]]]


@dataclass(frozen=True, slots=True)
class _Range:
    """Several comparisons of one field, all of which have to hold."""

    field: str
    terms: tuple[tree.Compare, ...]


@dataclass(slots=True)
class Evaluation:
    """One filter over one view. read_records : fields of rows.   by_records : how many records were looked at."""

    view: ColumnView
    read_records: Records
    by_records: int = 0

    @property
    def _nbytes(self) -> int:
        return 8 * (-(-self.view.row_count // 64))

    def bits(self, node: tree.Node, inside: Bits | None = None) -> Bits:
        """uint8[8 * words]: a bit a row; bits past the rows are 0. inside : rows that are asked for, None: all. What is
        said of others may be wrong.
        """
        if isinstance(node, tree.And):
            return self._all_of(node.terms, inside)
        if isinstance(node, tree.Or):
            found = np.zeros(self._nbytes, np.uint8)
            for term in node.terms:
                found |= self.bits(term, inside)
            return found
        if isinstance(node, tree.Not):
            return self._rest(self.bits(node.term, inside))
        return self._condition(node, inside)

    def _all_of(self, terms: Iterable[tree.Node], inside: Bits | None) -> Bits:
        found = inside
        for term in sorted(self._joined(terms), key=self._asks_records):  # stable
            bits = self._between(term) if isinstance(term, _Range) else self.bits(term, found)
            found = bits if found is None else found & bits
            if not found.any():
                break
        return self._rest(np.zeros(self._nbytes, np.uint8)) if found is None else found

    def _joined(self, terms: Iterable[tree.Node]) -> list[tree.Node | _Range]:
        """Terms, with those that compare one field as one range where columns without texts answer them: codes are
        looked at once.
        """
        found: list[tree.Node | _Range] = []
        compared: dict[str, list[tree.Compare]] = {}
        for term in terms:
            if isinstance(term, tree.Compare) and term.field in self.view.paths:
                compared.setdefault(term.field, []).append(term)
            else:
                found.append(term)
        for field, some in compared.items():
            columns = self.view.paths[field].columns.values()
            apart = len(some) == 1 or any(one.dictionary is not None for one in columns)
            found += some if apart else [_Range(field, tuple(some))]
        return found

    def _between(self, wanted: _Range) -> Bits:
        found = np.zeros(self._nbytes, np.uint8)
        for column in self.view.paths[wanted.field].columns.values():
            intervals = [interval(column.kind, term.op, term.value) for term in wanted.terms]
            both = max(low for low, _ in intervals), min(high for _, high in intervals)
            if both[0] <= both[1]:
                found |= column.bits(partial(in_interval, wanted=both), self._nbytes)
        return found

    def _rest(self, bits: Bits) -> Bits:
        rest = ~bits
        rows = self.view.row_count
        rest[-(-rows // 8) :] = 0
        if rows % 8:
            rest[rows // 8] &= (1 << rows % 8) - 1
        return rest

    def _asks_records(self, node: tree.Node | _Range) -> bool:
        return not isinstance(node, _Range) and any(
            self.view.lacks(path) or any(one.hashed for one in self._dictionaries(path))
            for path in tree.fields_of(node)
        )

    def _dictionaries(self, path: str) -> list[Any]:
        known = self.view.paths.get(path)
        if known is None:
            return []
        columns: list[Column | Elements] = [*known.columns.values(), *known.elements.values()]
        return [one.dictionary for one in columns if one.dictionary is not None]

    def _condition(self, node: Any, inside: Bits | None) -> Bits:
        known = self.view.paths.get(node.field)
        none = np.zeros(self._nbytes, np.uint8)
        if known is None:
            if self.view.missing:
                return self._by_records(node, inside)
            return self._rest(none) if isinstance(node, tree.IsNull) else none
        if isinstance(node, tree.IsNull):
            return self._rest(self._with_value(known.columns.values()))
        if isinstance(node, tree.Contains) and node.every:
            if not node.values:
                return self._with_value(column for column in known.columns.values() if column.kind != "map")
            return self._all_of([tree.Contains(node.field, (value,), False) for value in node.values], inside)
        parts: list[Column | Elements] = [*known.columns.values()]
        if isinstance(node, tree.Contains):
            parts += known.elements.values()
        found, unsure = none, False
        for part in parts:
            test, certain = test_of(node, part)
            if test is not None:
                found |= part.bits(test, self._nbytes)
                unsure = unsure or not certain
        return self._by_records(node, found if inside is None else found & inside) if unsure else found

    def _with_value(self, columns: Iterable[Column]) -> Bits:
        found = np.zeros(self._nbytes, np.uint8)
        for column in columns:
            found |= column.bits(has_value, self._nbytes)
        return found

    def _by_records(self, node: tree.Node, inside: Bits | None) -> Bits:
        rows = np.arange(self.view.row_count) if inside is None else rows_of_bits(inside)
        self.by_records += len(rows)
        found = np.zeros(8 * self._nbytes, bool)
        match = evaluate.matcher(node)
        kept = [match(fields) for fields in self.read_records(rows)]
        found[rows[np.array(kept, bool)]] = True
        return np.packbits(found, bitorder="little")


def rows_of_bits(bits: Bits) -> NDArray[np.int64]:
    """int64[n], ascending: rows whose bit is set."""
    return np.flatnonzero(np.unpackbits(bits, bitorder="little").view(bool))


def has_value(block: CodeBlock) -> NDArray[np.bool_] | bool:
    return True if block.whole else block.codes != 0


def test_of(node: tree.Node, part: Column | Elements) -> tuple[Test | None, bool]:
    """How codes of a column answer a condition: a test of a block (None: no value of it can match), and whether what
    passes it matches for certain.
    """
    if part.dictionary is not None:
        return _test_of_texts(node, part)
    if isinstance(node, tree.Compare):
        wanted = interval(part.kind, node.op, node.value)
        return (None if wanted[0] > wanted[1] else lambda block: in_interval(block, wanted)), True
    if isinstance(node, (tree.In, tree.Contains)):
        lows = {interval(part.kind, "==", value) for value in node.values} - {EMPTY}
        if not lows:
            return None, True
        codes = np.array(sorted(low for low, _ in lows), np.uint64)
        return (lambda block: among(block, codes)), True
    return None, True  # texts alone have patterns


def _test_of_texts(node: Any, part: Column | Elements) -> tuple[Test | None, bool]:
    dictionary = part.dictionary
    assert dictionary is not None
    values: tuple[Any, ...] | None = None
    if isinstance(node, (tree.In, tree.Contains)):
        values = node.values
    elif isinstance(node, tree.Compare) and node.op == "==":
        values = (node.value,)
    if values is not None and not any(isinstance(value, dt.date) for value in values):
        wanted_type = str if part.kind == "str" else bytes
        known = {dictionary.code(value) for value in values if type(value) is wanted_type}
        codes = sorted(code for code in known if code is not None)
        if not codes:
            return None, True
        wanted = np.array(codes, np.uint64)
        return (lambda block: among(block, wanted)), not dictionary.hashed
    if dictionary.hashed:
        return has_value, False
    table = dictionary.which(node, evaluate.value_test(node))
    return (lambda block: marked(block, table)) if table.any() else None, True


def check_orders(node: tree.Node, view: ColumnView) -> None:
    """Refuse an order with a value that no value of the field compares with. Raises InvalidArgument."""

    def types_of(path: str) -> set[str]:
        known = view.paths.get(path)
        if known is None:
            return set()
        return {"datetime" if kind == "instant" else kind for kind, one in known.columns.items() if one.count}

    evaluate.check_orders(node, types_of)
