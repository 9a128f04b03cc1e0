"""Rows of a file as batches of records. A row that cannot be stored is told with its file and line, or skipped.

What a batch holds is checked as a whole by the collection; only if it is refused are its rows looked at one by one.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from vecdb import validate
from vecdb.cli.wording import for_the_command_line
from vecdb.errors import InvalidArgument, VecdbError
from vecdb.schema import CollectionConfig

_IN_A_BATCH = re.compile(r"^(vectors|fields|ids|tenants)\[0\](, field)?")
_WORDS = {"vectors": "its vector", "fields": "its fields", "ids": "its id", "tenants": "its tenants"}
_OPTION = 'with zero_vectors="far"', "with --zero-vectors far"  # what Python's argument is called here


@dataclass(frozen=True, slots=True)
class ImportRows:
    """Records of one write. numbers : their rows in the file.   owners, tenants, fields : None where none are given.
    vectors : an array of them, or of objects where some are None.
    """

    numbers: Any
    ids: list[Any] | Any
    vectors: Any
    fields: list[dict[str, Any]] | None
    tenants: Any
    owners: list[str] | None

    def __len__(self) -> int:
        return len(self.numbers)

    def take(self, positions: list[int] | slice) -> ImportRows:
        """The records at these positions."""
        at = np.arange(len(self))[positions].tolist()
        return ImportRows(
            self.numbers[at],
            self.ids[at] if isinstance(self.ids, np.ndarray) else [self.ids[i] for i in at],
            self.vectors[at],
            None if self.fields is None else [self.fields[i] for i in at],
            [self.tenants[i] for i in at] if self.has_tenant_lists else self.tenants,
            None if self.owners is None else [self.owners[i] for i in at],
        )

    @property
    def has_tenant_lists(self) -> bool:
        """Whether `tenants` has a list for each record, not names for all."""
        return isinstance(self.tenants, list) and not all(isinstance(one, str) for one in self.tenants)

    def by_owner(self) -> Iterator[tuple[str, ImportRows]]:
        """The records of each owner."""
        if self.owners is None or not any(self.owners):
            yield "", self
            return
        for owner in dict.fromkeys(self.owners):
            yield owner, self.take([at for at, one in enumerate(self.owners) if one == owner])


class TenantLists:
    """Which tenants may see the records of a file: `tenants` for every record, the names in a column of the file, or
    those that the file of an exported collection, or another database, tells. Without any, existing access lists stay
    as they are.
    """

    def __init__(self, source: Any, tenants: list[str] | None, column: str | None) -> None:
        self._tenants = set(tenants) if tenants else None  # a set is for all records, however many there are
        facts = source.facts
        of_export = facts is not None and (facts.tenants is not None or column == facts.columns.tenants)
        self._told = of_export or source.tells_access
        self._column = None if of_export and column == facts.columns.tenants else column
        columns = getattr(source, "field_columns", ())
        if self._column is not None and self._column not in columns:
            raise InvalidArgument(f"{source.path}: no column {column!r} of tenants; its other columns: {list(columns)}")

    def of(self, rows: list[dict[str, Any]] | None, told: list[list[str]] | None) -> tuple[Any, Any]:
        """(fields, tenants) of rows of the file. told : what the file itself says of their tenants."""
        if self._column is not None and rows is not None:
            fields = [{name: value for name, value in row.items() if name != self._column} for row in rows]
            return fields, [_names_in(row.get(self._column)) for row in rows]
        if self._tenants is None and self._told and told is not None:
            return rows, told
        return rows, self._tenants


def _names_in(cell: Any) -> Any:
    """A cell's names as a list; the cell may be empty, a name, or a list."""
    if cell is None or cell == "":
        return []
    return [cell] if isinstance(cell, str) else cell


class BadRows:
    """Rows that were skipped. keep_max : so many are kept, all are counted and handed to `report`."""

    keep_max = 100

    def __init__(self, report: Any = None) -> None:
        self.count = 0
        self.shown: list[str] = []
        self._report = report

    def add(self, what: str) -> None:
        what = for_the_command_line(what.partition(". Remove the row, or ")[0])
        self.count += 1
        if len(self.shown) < self.keep_max:
            self.shown.append(what)
        if self._report is not None:
            self._report(what)


class RowReader:
    """Reads rows of a source as batches. bad : where to put rows that cannot be read; None: they are errors."""

    def __init__(self, source: Any, lists: TenantLists, bad: BadRows | None) -> None:
        self.source, self._lists, self.bad = source, lists, bad

    def read(self, start: int, stop: int, first_id: int) -> ImportRows:
        """Rows [start, stop). first_id : of row 0, where the file has no ids."""
        source = self.source
        vectors: Any = source[start:stop]
        bare = source.without_vectors(start, stop)
        if bare is not None and any(bare):
            vectors = _with_gaps(vectors, bare)
        ids = source.ids(start, stop)
        if ids is None:
            ids = np.arange(first_id + start, first_id + stop)
        fields, tenants = self._lists.of(source.fields(start, stop), source.tenants(start, stop))
        rows = ImportRows(np.arange(start, stop), ids, vectors, fields, tenants, source.owners(start, stop))
        if self.bad is None:
            return rows
        wrong = source.bad_rows(start, stop)
        for error in wrong.values():
            self.bad.add(str(error))
        return rows.take([at for at in range(len(rows)) if start + at not in wrong]) if wrong else rows

    def without_bad(self, rows: ImportRows, config: CollectionConfig, refused: VecdbError) -> ImportRows:
        """The rows that can be stored. Raises InvalidArgument that names the first that cannot, unless they are
        skipped; `refused`, what was said of all of them, where each by itself can.
        """
        wrong = dict(_bad_among(rows, config))
        if not wrong:
            raise refused
        for at, error in wrong.items():
            text = f"{self.source.place(int(rows.numbers[at]))}: {_of_a_row(str(error))}"
            if self.bad is None:
                raise type(error)(text)
            self.bad.add(text)
        return rows.take([at for at in range(len(rows)) if at not in wrong])


def _with_gaps(vectors: Any, bare: list[bool]) -> Any:
    """object[n]: the vectors, None in the places of records that have none."""
    found = np.empty(len(bare), object)
    for at, is_bare in enumerate(bare):
        found[at] = None if is_bare else vectors[at]
    return found


def check(rows: ImportRows, config: CollectionConfig) -> None:
    """Raise what a collection would say to these records, without one."""
    ids = validate.ids(rows.ids, config.id_kind)
    validate.some_vectors(rows.vectors, ids.n, config, lambda _: config, single=False)
    validate.fields(rows.fields, ids.n)
    if rows.tenants is not None:
        validate.access_lists(rows.tenants, ids.n, single=False)
    for owner in dict.fromkeys(rows.owners or ()):
        validate.owner(owner)


def _bad_among(rows: ImportRows, config: CollectionConfig) -> Iterator[tuple[int, InvalidArgument]]:
    """(position, what is wrong) of each record that cannot be stored by itself."""
    kind = config.id_kind or _kind_of(rows.ids)
    config = replace(config, id_kind=kind)
    for at in range(len(rows)):
        try:
            check(rows.take([at]), config)
        except InvalidArgument as error:
            yield at, error


def _kind_of(ids: Any) -> Literal["int", "str"]:
    """What ids the first of them makes all of them."""
    return "str" if len(ids) and isinstance(ids[0], str) else "int"


def _of_a_row(text: str) -> str:
    """The words about a batch of one as words about a row."""
    match = _IN_A_BATCH.match(text)
    if match is None:
        return text
    text = text.replace(*_OPTION)
    return ("field" if match[2] else _WORDS[match[1]]) + text[match.end() :]
