"""CSV and JSONL: one pass at opening counts the rows and notes every 1,024th row's place; reads seek there.

CSV: a header line; delimiter comma, semicolon or tab; a vector cell is "[0.1, 0.2]", "0.1 0.2" or "0.1;0.2".
Field types of a CSV (int, float, str) are those that every row of the column allows; an empty cell is None.
JSONL: one object a line; the vector is a list of numbers; blank lines are skipped. Vectors are float32.
"""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterator
from typing import Any

import msgspec

from vecdb import Corruption, InvalidArgument

from .tables import ID_NAMES, VECTOR_NAMES, TableSource, Window, choose_column, choose_vector_column, stack_rows

mark_rows = 1_024
line_bytes_max = 16 << 20
csv.field_size_limit(line_bytes_max)

Place = tuple[int, int]  # byte offset, lines before it


class Lines:
    """The lines of a UTF-8 file from a place on; `place` is where the next line starts."""

    def __init__(self, path: str, place: Place) -> None:
        self.path = path
        self.place = place
        self._handle = open(path, "rb")  # noqa: SIM115 - closed by close(), or at the end
        self._handle.seek(place[0])

    def __iter__(self) -> Lines:
        return self

    def __next__(self) -> str:
        raw = self._handle.readline(line_bytes_max + 1)
        if not raw:
            self._handle.close()
            raise StopIteration
        offset, line = self.place
        if len(raw) > line_bytes_max:
            raise InvalidArgument(f"{self.path}: line {line + 1} is longer than {line_bytes_max:,} bytes")
        self.place = (offset + len(raw), line + 1)
        try:
            return raw.decode("utf-8-sig" if offset == 0 else "utf-8")
        except UnicodeDecodeError as error:
            raise Corruption(f"{self.path}: line {line + 1} (byte {offset + error.start}) is not UTF-8") from error

    def close(self) -> None:
        self._handle.close()


class TextSource(TableSource):
    """What CSV and JSONL share: marks, and rows parsed from a mark on."""

    _marks: list[Place]

    def _records(self, lines: Lines) -> Iterator[tuple[Place, Any]]:
        """Yield (place of the record, record)."""
        raise NotImplementedError

    def _parse(self, start: int, stop: int) -> Window:
        lines = Lines(self.path, self._marks[start // mark_rows])
        try:
            records, row = [], start - start % mark_rows
            for _, record in self._records(lines):
                if row >= start:
                    records.append(record)
                row += 1
                if row == stop:
                    break
        finally:
            lines.close()
        if len(records) != stop - start:
            raise Corruption(f"{self.path}: expected {stop - start} rows from row {start} on, found {len(records)}")
        return self._convert(start, records)

    def _convert(self, start: int, records: list[Any]) -> Window:
        raise NotImplementedError


class JsonlSource(TextSource):
    """An open JSONL file."""

    def __init__(self, path: str, check_finite: bool, vector_column: str | None, id_column: str | None) -> None:
        self._marks, n, first = [], 0, None
        self.path = path
        lines = Lines(path, (0, 0))
        place = lines.place
        for text in lines:
            if text.strip():
                if n == 0:
                    first = self._load(text, place)
                if n % mark_rows == 0:
                    self._marks.append(place)
                n += 1
            place = lines.place
        if first is None:
            raise InvalidArgument(f"{path}: no rows")
        lists = [
            k for k, v in first.items() if isinstance(v, list) and v and all(isinstance(x, (int, float)) for x in v)
        ]
        keys = [k for k, v in first.items() if isinstance(v, (int, str)) and not isinstance(v, bool)]
        self.vector_column = choose_vector_column(path, vector_column, lists)
        self.id_column = choose_column(path, "id", id_column, keys, ID_NAMES)
        self.field_columns = [k for k in first if k not in (self.vector_column, self.id_column)]
        super().__init__(path, "jsonl", (n, len(first[self.vector_column])), "f4", check_finite)

    def _load(self, text: str, place: Place) -> dict[str, Any]:
        try:
            record = _parse_json(text)
        except ValueError as error:
            raise Corruption(
                f"{self.path}: line {place[1] + 1} (byte {place[0]}) is not whole JSON: {error}"
            ) from error
        if not isinstance(record, dict):
            raise InvalidArgument(f"{self.path}: line {place[1] + 1} is a {type(record).__name__}, expected an object")
        return record

    def _records(self, lines: Lines) -> Iterator[tuple[Place, Any]]:
        place = lines.place
        for text in lines:
            if text.strip():
                yield place, self._load(text, place)
            place = lines.place

    def _convert(self, start: int, records: list[Any]) -> Window:
        vectors = [record.pop(self.vector_column, None) for record in records]
        ids = None
        if self.id_column is not None:
            ids = [record.pop(self.id_column, None) for record in records]
            if None in ids:
                raise InvalidArgument(f"{self.path}: row {start + ids.index(None)} has no id {self.id_column!r}")
        return Window(start, stack_rows(self.path, vectors, self.dim, start), ids, records)


class CsvSource(TextSource):
    """An open CSV file."""

    def __init__(self, path: str, check_finite: bool, vector_column: str | None, id_column: str | None) -> None:
        self.path = path
        lines = Lines(path, (0, 0))
        header = next(lines, "")
        if not header.strip():
            raise InvalidArgument(f"{path}: no header line naming the columns")
        self._delimiter = max(",;\t", key=header.count)
        self.columns = self._cells(csv.reader([header], delimiter=self._delimiter), (0, 0))
        if len(set(self.columns)) != len(self.columns):
            raise InvalidArgument(f"{path}: two columns share a name: {self.columns}")
        self._marks, n, first = [], 0, None
        at = -1
        self._types: list[type] = [int] * len(self.columns)
        for place, record in self._records(lines):
            if n % mark_rows == 0:
                self._marks.append(place)
            if first is None:
                first = record
                lists = [c for c, cell in zip(self.columns, first, strict=True) if _is_vector(cell)]
                if not any(c.lower() in VECTOR_NAMES for c in lists) and vector_column is None:
                    lists = [c for c, cell in zip(self.columns, first, strict=True) if _is_vector(cell) and _long(cell)]
                self.vector_column = choose_vector_column(path, vector_column, lists)
                at = self.columns.index(self.vector_column)
            n += 1
            for i, cell in enumerate(record):
                if i != at and self._types[i] is not str:
                    self._types[i] = _narrow(cell, self._types[i])
        if first is None:
            raise InvalidArgument(f"{path}: no rows after the header")
        rest = [c for c in self.columns if c != self.vector_column]
        keys = [c for c in rest if self._types[self.columns.index(c)] is not float]
        self.id_column = choose_column(path, "id", id_column, keys, ID_NAMES)
        self.field_columns = [c for c in rest if c != self.id_column]
        super().__init__(path, "csv", (n, len(_numbers(first[at]))), "f4", check_finite)

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
                record = self._cells(reader, place)
            except StopIteration:
                return
            if record:
                if len(record) != len(self.columns):
                    raise Corruption(
                        f"{self.path}: record at line {place[1] + 1} (byte {place[0]}) has {len(record)} cells, "
                        f"expected {len(self.columns)} as in the header"
                    )
                yield place, record
            place = lines.place

    def _convert(self, start: int, records: list[Any]) -> Window:
        at = {column: i for i, column in enumerate(self.columns)}
        vectors = stack_rows(self.path, [_numbers(r[at[self.vector_column]]) for r in records], self.dim, start)
        ids = None
        if self.id_column is not None:
            i = at[self.id_column]
            ids = [_cell(r[i], self._types[i]) for r in records]
            if None in ids:
                raise InvalidArgument(f"{self.path}: row {start + ids.index(None)} has an empty id {self.id_column!r}")
        named = [(c, at[c], self._types[at[c]]) for c in self.field_columns]
        return Window(start, vectors, ids, [{c: _cell(r[i], kind) for c, i, kind in named} for r in records])


def _parse_json(text: str) -> Any:
    """msgspec is several times faster; json also takes NaN (refused later, with its row) and words errors better."""
    try:
        return msgspec.json.decode(text)
    except (msgspec.MsgspecError, UnicodeError):
        return json.loads(text)


def _numbers(cell: str) -> list[Any]:
    """A vector cell -> its values. A value that is no number stays text, and `stack_rows` refuses it with its row."""
    if cell[:1] == "[":
        try:
            return msgspec.json.decode(cell, type=list[float])
        except (msgspec.MsgspecError, UnicodeError):
            pass  # another notation
    words = cell.strip().strip("[]()").replace(",", " ").replace(";", " ").split()
    try:
        return [float(word) for word in words]
    except ValueError:
        return words


def _is_vector(cell: str) -> bool:
    values = _numbers(cell)
    return bool(values) and isinstance(values[0], float)


def _long(cell: str) -> bool:
    return len(_numbers(cell)) > 1


def _narrow(cell: str, kind: type) -> type:
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


def _cell(cell: str, kind: type) -> Any:
    return kind(cell) if cell else None
