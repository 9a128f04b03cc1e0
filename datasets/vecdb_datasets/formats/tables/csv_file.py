"""CSV: a header line; delimiter comma, semicolon, tab or |; a vector is one cell (spelled.py) or a column a dimension.

Field types of a CSV (int, float, str) are those that every row of the column allows; an empty cell is None. Where the
first line already holds numbers only, or a vector, there is no header and columns are named 0, 1, 2 ... Vectors are
float32. A first column without a name, as pandas writes it, is the id.
"""

from __future__ import annotations

import csv
import itertools
import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from vecdb import Corruption, InvalidArgument, VecdbError

from ..inputs import InputFile
from ..records.facts import CollectionFacts
from .columns import VECTOR_NAMES, Choice, as_ids, choose_id_column, choose_vector_column, families
from .lines import Lines, Place, TextSource, line_bytes_max, mark_rows
from .spelled import is_sparse, is_vector, numbers
from .table import Window, stack_rows

sampled_rows = 100
csv.field_size_limit(line_bytes_max)


class CsvSource(TextSource):
    """An open CSV file, and what differs from one only in how a line is parted.

    lenient : records of too many or too few cells are told when they are read.   facts : what lies beside the file says
    of its collection.
    """

    _begin: Place = (0, 0)  # where the header is, or the first row

    def __init__(
        self,
        file: InputFile,
        check_finite: bool,
        choice: Choice,
        *,
        lenient: bool = False,
        facts: CollectionFacts | None = None,
    ) -> None:
        self.file, self.path, self._skips, self.facts = file, file.name, lenient, facts
        self._dtype = np.dtype(facts.dtype if facts is not None else "f4")
        self._read_header()
        if len(set(self.columns)) != len(self.columns):
            raise InvalidArgument(f"{self.path}: two columns share a name: {self.columns}")
        rows, samples = self._scan()
        if not samples and facts is None:
            raise InvalidArgument(f"{self.path}: no rows" + (" after the header" if self._has_header else ""))
        if facts is not None:
            choice = choice.by_facts(self.path, facts.columns.vector, facts.columns.id)
        self._settle_vector(choice, samples)
        rest = [name for name in self.columns if name not in self._vector_columns]
        self.id_column = choose_id_column(self.path, choice, {name: self._why_no_id(name) for name in rest})
        if self.id_column is None and choice.id is None and not choice.new_ids and rest[:1] == [""]:
            self.id_column = "" if not self._why_no_id("") else None
        not_fields = {self.id_column} | (set() if facts is None else facts.columns.names())
        self.field_columns = choice.field_columns(self.path, [name for name in rest if name not in not_fields])
        dim = len(self._vector_columns) if len(self._vector_columns) > 1 else _dim(self._column_of(samples))
        super().__init__(self.path, "csv", (rows, dim or (facts.dim if facts else 0)), self._dtype, check_finite)

    # -- opening -----------------------------------------------------------------------------------

    def _read_header(self) -> None:
        """The names of the columns, and how cells are told apart."""
        lines = Lines(self.file, self._begin)
        try:
            header = next(lines, "")
            if not header.strip():
                raise InvalidArgument(f"{self.path}: no header line naming the columns")
            self._delimiter = max(",;\t|", key=header.count)
            whole = itertools.chain([header], lines)  # a cell may go on in the next line
            self.columns = self._cells(csv.reader(whole, delimiter=self._delimiter), (0, 0))
        finally:
            lines.close()
        self._has_header = not _is_data(self.columns)
        if not self._has_header:
            self.columns = [str(at) for at in range(len(self.columns))]

    def _scan(self) -> tuple[int, list[list[str]]]:
        """(rows, the first of them); fills the marks and the types of columns."""
        self._marks = []
        self._types: list[type] = [int] * len(self.columns)
        self._spelled = [False] * len(self.columns)
        samples: list[list[str]] = []
        rows = 0
        for place, record in self._records(Lines(self.file, self._begin)):
            if rows == 0 and self._has_header and place == self._begin:
                continue
            if rows % mark_rows == 0:
                self._marks.append(place)
            rows += 1
            if isinstance(record, VecdbError):
                continue
            if len(samples) < sampled_rows:
                samples.append(record)
                if len(samples) == 1:
                    self._spelled = [is_vector(cell, least=1) and not _is_plain_number(cell) for cell in record]
            for i, cell in enumerate(record):
                if not self._spelled[i] and self._types[i] is not str:
                    self._types[i] = self._narrowed(cell, self._types[i])
        for i, spelled in enumerate(self._spelled):
            if spelled:
                self._types[i] = str
        return rows, samples

    def _settle_vector(self, choice: Choice, samples: list[list[str]]) -> None:
        asked = choice.vector
        cells = {name: [record[at] for record in samples] for at, name in enumerate(self.columns)}
        lists = [name for name, column in cells.items() if any(is_vector(cell) for cell in column)]
        named = [name for name in cells if name.lower() in VECTOR_NAMES or name == asked]
        lists += [name for name in named if name not in lists and any(is_vector(cell, 1) for cell in cells[name])]
        if not samples:  # an export of an empty collection
            lists = named
        wide = families(name for name in self.columns if self._types[self.columns.index(name)] is not str)
        if not self._has_header and not lists and str not in self._types:
            wide = {"*": self.columns}
        if lists and asked not in wide:
            wide = {}
        elif not lists:
            self._refuse_sparse(cells)
        self.vector_column = choose_vector_column(self.path, asked, list(wide) or lists)
        self._vector_columns = wide.get(self.vector_column, [self.vector_column])

    def _refuse_sparse(self, cells: dict[str, list[str]]) -> None:
        """Name pgvector's sparse vectors, where nothing else is a vector."""
        for name, column in cells.items():
            if any(column) and all(is_sparse(cell) for cell in column if cell):
                raise InvalidArgument(
                    f"{self.path}: column {name!r} is a sparsevec of pgvector, and vecdb stores dense vectors: cast "
                    "it, as in COPY (SELECT id, embedding::vector FROM t) TO STDOUT"
                )

    def _narrowed(self, cell: Any, kind: type) -> type:
        """The type of a column, after one more of its cells."""
        return narrow(cell, kind)

    def _value(self, cell: Any, kind: type) -> Any:
        """A cell of a column of this type as a value."""
        return kind(cell) if cell else None

    def _column_of(self, samples: list[list[str]]) -> list[str]:
        at = self.columns.index(self._vector_columns[0])
        return [record[at] for record in samples]

    def _why_no_id(self, name: str) -> str:
        if self._types[self.columns.index(name)] is float and name.lower() in ("key", "uuid"):
            return "it holds fractions"
        return ""  # floats that are whole are ids, others are refused with their row

    # -- reading -----------------------------------------------------------------------------------

    def _cells(self, reader: Iterator[list[str]], place: Place) -> list[str]:
        """The next record of a CSV reader, which starts at `place`."""
        try:
            return next(reader)
        except csv.Error as error:
            raise Corruption(f"{self.path}: record at line {place[1] + 1} (byte {place[0]}): {error}") from error

    def _records(self, lines: Lines) -> Iterator[tuple[Place, Any]]:
        place = lines.place
        reader = csv.reader(lines, delimiter=self._delimiter, strict=True)
        while True:
            try:
                record: Any = self._cells(reader, place)
            except StopIteration:
                return
            if record:
                if len(record) != len(self.columns):
                    error = Corruption(
                        f"{self.path}: record at line {place[1] + 1} (byte {place[0]}) has {len(record)} cells, "
                        f"expected {len(self.columns)} as in the header"
                    )
                    if not self._skips:
                        raise error
                    record = error
                yield place, record
            place = lines.place

    def _convert(self, start: int, places: list[int], records: list[Any], bad: dict[int, VecdbError]) -> Window:
        at = {column: i for i, column in enumerate(self.columns)}
        rows = [[""] * len(self.columns) if isinstance(record, VecdbError) else record for record in records]
        wide = [at[name] for name in self._vector_columns]
        if len(wide) > 1:
            vectors = [_floats([row[i] for i in wide]) for row in rows]
        else:
            vectors = [numbers(row[wide[0]] or "") for row in rows]
        block, wrong = stack_rows(vectors, self.dim, self._dtype)
        ids = None
        if self.id_column is not None:
            i = at[self.id_column]
            cells = [self._value(row[i], self._types[i]) for row in rows]
            ids, not_ids = as_ids(cells)
            for where, what in not_ids.items():
                wrong[where] = f" has an empty id {self.id_column!r}" if cells[where] is None else f": its id {what}"
        for where, what in wrong.items():
            if start + where not in bad:
                bad[start + where] = self._row_error(start + where, self._line(places, where), what)
        named = [(c, at[c], self._types[at[c]]) for c in self.field_columns]
        fields = [{c: self._value(row[i], kind) for c, i, kind in named} for row in rows] if named else None
        return Window(start, block, ids, fields, bad)


def _is_data(cells: list[str]) -> bool:
    """Whether the first record is data already: a vector among its cells, or numbers that are no names 0, 1, 2 ..."""
    if any(is_vector(cell) for cell in cells):
        return True
    if not all(map(_is_plain_number, cells)) or len(cells) < 2:
        return False
    first = cells[0]
    return first not in ("0", "1") or cells != [str(int(first) + at) for at in range(len(cells))]


def _is_plain_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _floats(cells: list[str]) -> list[Any]:
    try:
        return [float(cell) for cell in cells]
    except ValueError:
        return list(cells)


def _dim(cells: list[str]) -> int:
    """Numbers of the first cell that spells any; 0 where none does."""
    return next((len(numbers(cell)) for cell in cells if is_vector(cell, 1)), 0)


def narrow(cell: str, kind: type) -> type:
    """The narrowest of int, float, str (in that order, from `kind` on) that gives this cell back."""
    if not cell:
        return kind
    digits = cell.removeprefix("-")
    whole = digits.isascii() and digits.isdigit() and (digits == "0" or digits[0] != "0") and cell != "-0"
    if whole and len(digits) <= 18:
        return kind
    if whole or (digits[:1] == "0" and digits[1:2].isdigit()):
        return str  # a long number or a code with leading zeros: text, so that nothing is lost
    try:
        return float if math.isfinite(float(cell)) else str
    except ValueError:
        return str
