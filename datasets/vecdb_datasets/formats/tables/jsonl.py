"""JSONL: one object a line; the vector is a list of numbers, or its spelling; blank lines are skipped.

Every row's keys are looked at when the file is opened, so what a row lacks is known before anything is read. A line may
be a bare list of numbers if the first one is. Columns inside of values are named by paths: "data.0.embedding".

An export begins with a head line, {"vecdb": {facts}} (records/jsonl.py), and its rows are told by it. Vectors are
float32, or of the type that the head line names.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import msgspec
import numpy as np

from vecdb import Corruption, InvalidArgument, VecdbError

from ..inputs import InputFile
from ..records.facts import KEY, TENANTS_KEY, CollectionFacts, decode_facts
from ..records.tagged import untag
from .columns import VECTOR_NAMES, Choice, as_ids, choose_id_column, choose_vector_column
from .lines import Lines, Place, TextSource, mark_rows
from .spelled import is_vector, numbers
from .table import Window, stack_rows

sampled_rows = 100  # looked at as a whole, for vectors inside of other values
nesting_max = 8
_BARE = "vector"  # of lines that are nothing but the vector

_raw_values = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
Path = tuple[str | int, ...]


@dataclass(slots=True)
class _Key:
    """What the rows have under one key."""

    count: int = 0
    kinds: set[str] = field(default_factory=set)
    sample: Any = None  # the first value that may be a vector
    tries: int = 0  # values that were looked at for it
    first: str = ""  # the kind of the first value that is there


@dataclass(slots=True)
class _Scan:
    """What one pass over the lines found."""

    rows: int = 0
    keys: dict[str, _Key] = field(default_factory=dict)
    samples: list[Any] = field(default_factory=list)

    def look_at(self, text: str, record: Any) -> None:
        """record : a dict of raw values, or any other JSON value."""
        if isinstance(record, dict):
            for name, value in record.items():
                kind = _kind_of(value)
                key = self.keys.get(name)
                if key is None:
                    key = self.keys[name] = _Key()
                key.count += 1
                key.kinds.add(kind)
                key.first = key.first if key.first or kind == "NoneType" else kind
                if key.sample is None and kind in ("list", "str") and key.tries < sampled_rows:
                    key.tries += 1
                    decoded = parse_json(bytes(value).decode()) if isinstance(value, msgspec.Raw) else value
                    if _numeric(decoded) or is_vector(decoded):
                        key.sample = decoded
        if len(self.samples) < sampled_rows:
            self.samples.append(parse_json(text))


class JsonlSource(TextSource):
    """An open JSONL file. numbered : whether its lines are the caller's, to be named in messages."""

    def __init__(self, file: InputFile, check_finite: bool, choice: Choice, *, numbered: bool = True) -> None:
        self.file, self.path, self._choice, self._numbered = file, file.name, choice, numbered
        self._marks = []
        self._is_bare = False
        self._vector_path: Path | None = None
        self._id_path: Path | None = None
        self._ids_are_text: bool | None = None  # by the first row; None where the rows need not agree here
        scan = self._scan()
        told: CollectionFacts | None = self.facts  # from the head line
        if told is not None:
            self._settle_by_facts(told, scan)
        elif not scan.rows:
            raise InvalidArgument(f"{self.path}: no rows")
        elif self._is_bare:
            self.vector_column, self.id_column, self.field_columns = _BARE, None, []
        else:
            self._settle_vector(scan)
            self._settle_id(scan)
            paths: list[Path | None] = [self._vector_path, self._id_path]
            rest = [name for name in scan.keys if (name,) not in paths]
            self.field_columns = choice.field_columns(self.path, rest)
        dim, dtype = self._vector_shape(scan)
        super().__init__(self.path, "jsonl", (scan.rows, dim), dtype, check_finite)
        self._wanted = None if choice.fields is None else frozenset(self.field_columns)

    # -- opening -----------------------------------------------------------------------------------

    def _scan(self) -> _Scan:
        scan = _Scan()
        for place, text in _texts(Lines(self.file, (0, 0))):
            if isinstance(text, str) and not scan.rows:
                facts = _head(text, self.path, self.facts)
                if facts is not None:
                    self.facts = facts
                    continue
            if scan.rows % mark_rows == 0:
                self._marks.append(place)
            scan.rows += 1
            if isinstance(text, VecdbError):
                continue
            try:
                record = _raw_values(text)
            except (msgspec.MsgspecError, UnicodeError):
                try:
                    record = parse_json(text)
                except ValueError:
                    continue  # told when it is read
            if scan.rows == 1 and isinstance(record, list):
                self._is_bare = True
            scan.look_at(text, record)
        return scan

    def _settle_by_facts(self, facts: CollectionFacts, scan: _Scan) -> None:
        columns = facts.columns
        choice = self._choice.by_facts(self.path, columns.vector, columns.id)
        self.vector_column, self.id_column = columns.vector, choice.id
        self._vector_path, self._id_path = (columns.vector,), None if choice.id is None else (choice.id,)
        self.field_columns = self._choice.field_columns(
            self.path, [name for name in scan.keys if name not in columns.names()]
        )

    def _settle_vector(self, scan: _Scan) -> None:
        asked = self._choice.vector
        found: dict[str, Any] = {name: key.sample for name, key in scan.keys.items() if isinstance(key.sample, list)}
        for name, key in scan.keys.items():
            if isinstance(key.sample, str) and (name == asked or name.lower() in VECTOR_NAMES):
                found[name] = key.sample
        nested: dict[str, Path] = {}
        if asked is not None and asked not in found:
            path = _path(asked)
            nested = {asked: path} if any(_numeric(_get(one, path)) for one in scan.samples) else {}
        elif asked is None and not found:
            nested = {".".join(map(str, path)): path for one in scan.samples for path in _vectors_within(one)}
        self.vector_column = choose_vector_column(self.path, asked, [*found, *nested])
        self._vector_path = nested.get(self.vector_column, (self.vector_column,))

    def _settle_id(self, scan: _Scan) -> None:
        columns = {name: _why_no_id(key) for name, key in scan.keys.items() if (name,) != self._vector_path}
        asked = self._choice.id
        if asked is not None and asked not in columns and any(_get(one, _path(asked)) for one in scan.samples):
            self.id_column, self._id_path = asked, _path(asked)
            return
        self.id_column = choose_id_column(self.path, self._choice, columns)
        if self.id_column is not None:
            self._ids_are_text = scan.keys[self.id_column].first == "str"
        self._id_path = None if self.id_column is None else (self.id_column,)

    def _vector_shape(self, scan: _Scan) -> tuple[int, np.dtype[Any]]:
        if self.facts is not None:
            return self.facts.dim, np.dtype(self.facts.dtype)
        values = (one if self._is_bare else _get(one, self._vector_path or ()) for one in scan.samples)
        key = scan.keys.get(self.vector_column)
        for value in (*values, key.sample if key is not None else None):
            value = numbers(value) if isinstance(value, str) else value
            if _numeric(value):
                return len(value), np.dtype("f4")
            if isinstance(value, list) and value and is_vector(" ".join(map(str, value))):
                return len(value), np.dtype("f4")  # cut by numpy: refused with its row
        raise InvalidArgument(f"{self.path}: {'row 0 is no list of numbers' if scan.rows else 'no rows'}")

    # -- reading -----------------------------------------------------------------------------------

    def _records(self, lines: Lines) -> Iterator[tuple[Place, Any]]:
        for place, text in _texts(lines):
            yield place, text if isinstance(text, VecdbError) else self._load(text, place)

    def _load(self, text: str, place: Place) -> Any:
        where = f"line {place[1] + 1} (byte {place[0]})" if self._numbered else "a row"
        try:
            record = parse_json(text)
        except ValueError as error:
            return Corruption(f"{self.path}: {where} is not whole JSON: {error}")
        if not isinstance(record, list if self._is_bare else dict):
            where = f"line {place[1] + 1}" if self._numbered else "a row"
            expected = "a list of numbers" if self._is_bare else "an object"
            return InvalidArgument(f"{self.path}: {where} is a {type(record).__name__}, expected {expected}")
        return {_BARE: record} if self._is_bare else record

    def _convert(self, start: int, places: list[int], records: list[Any], bad: dict[int, VecdbError]) -> Window:
        rows = [{} if isinstance(record, VecdbError) else record for record in records]
        vectors = [_pop(row, self._vector_path or (_BARE,)) for row in rows]
        vectors = [numbers(one) if isinstance(one, str) else one for one in vectors]
        block, wrong = stack_rows(vectors, self.dim, self.dtype)
        bare = None
        if self.facts is not None:
            bare = [one is None for one in vectors]
            wrong = {at: what for at, what in wrong.items() if not bare[at]}
        ids = None
        if self._id_path is not None:
            cells = [_pop(row, self._id_path) for row in rows]
            ids, not_ids = as_ids(cells)
            for at, what in not_ids.items():
                wrong[at] = f" has no id {self.id_column!r}" if cells[at] is None else f": its id {what}"
            if self._ids_are_text is not None:
                for at, id in enumerate(ids):
                    if id is not None and isinstance(id, str) is not self._ids_are_text:
                        kind, other = ("text", "numbers") if isinstance(id, str) else ("a number", "text")
                        wrong[at] = f": its id {id!r} is {kind}, those before are {other}"
        elif self.facts is not None:
            for row in rows:
                row.pop(self.facts.columns.id, None)
        owners, tenants = self._take_access(rows, wrong)
        for at, what in wrong.items():
            if start + at not in bad:
                bad[start + at] = self._row_error(start + at, self._line(places, at), what)
        if self._wanted is not None:
            rows = [{name: value for name, value in row.items() if name in self._wanted} for row in rows]
        return Window(start, block, ids, rows, bad, owners, tenants, bare)

    def _take_access(self, rows: list[Any], wrong: dict[int, str]) -> tuple[Any, Any]:
        """(owners, tenants) of the rows of an export; what stands in their tagged fields becomes fields."""
        if self.facts is None:
            return None, None
        columns = self.facts.columns
        owners = [row.pop(columns.owner, None) or "" for row in rows]
        tenants = [row.pop(columns.tenants, None) or [] for row in rows]
        for at, row in enumerate(rows):
            tagged = row.pop(columns.fields, None)
            if tagged:
                try:
                    row.update(untagged_fields(tagged))
                except InvalidArgument as error:
                    wrong[at] = f": {error}"
        return owners, tenants


def untagged_fields(tagged: Any) -> dict[str, Any]:
    """The fields in the column of tagged values. Raises InvalidArgument."""
    if not isinstance(tagged, dict):
        raise InvalidArgument(f"tagged fields are a {type(tagged).__name__}, expected an object")
    return {name: untag(value) for name, value in tagged.items()}


def parse_json(text: str) -> Any:
    """msgspec is several times faster; json also takes NaN (refused later, with its row) and words errors better."""
    try:
        return msgspec.json.decode(text)
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        try:
            return json.loads(text)
        except RecursionError:
            raise ValueError("it nests too deep") from None


def _texts(lines: Lines) -> Iterator[tuple[Place, str | VecdbError]]:
    """Yield (place, line) of lines that are not blank; in place of one that is not UTF-8 its error."""
    while True:
        place = lines.place
        try:
            text = next(lines)
        except StopIteration:
            return
        except Corruption as error:
            yield place, error
            continue
        if text.strip():
            yield place, text


def _head(text: str, path: str, known: CollectionFacts | None) -> CollectionFacts | None:
    """The facts, where this line is the head of an export, or one of tenants after it, of which the facts are known."""
    if not text.startswith((f'{{"{KEY}":', f'{{"{TENANTS_KEY}":')):
        return None
    try:
        found = _raw_values(text)
        if known is not None and list(found) == [TENANTS_KEY]:
            more = msgspec.json.decode(bytes(found[TENANTS_KEY]), type=dict[str, int | None])
            return replace(known, tenants={**(known.tenants or {}), **more})
    except msgspec.MsgspecError:
        return None
    if known is not None or list(found) != [KEY] or not bytes(found[KEY]).startswith(b'{"format"'):
        return None
    return decode_facts(bytes(found[KEY]), path)


def _kind_of(value: Any) -> str:
    if isinstance(value, msgspec.Raw):
        raw = bytes(value)
        first = raw[:1]
        if first == b'"':
            return "str"
        if first in (b"[", b"{"):
            return "list" if first == b"[" else "dict"
        if first in (b"t", b"f", b"n"):
            return "NoneType" if first == b"n" else "bool"
        return "float" if any(mark in raw for mark in b".eE") else "int"
    return type(value).__name__


def _why_no_id(key: _Key) -> str:
    kinds = key.kinds - {"NoneType"}
    other = sorted(kinds - {"int", "float", "str"})
    if other:
        return f"it holds {' and '.join(other)}, expected whole numbers or strings"
    return "" if kinds else "it holds nothing"


def _numeric(value: Any) -> bool:
    return (
        isinstance(value, list)
        and bool(value)
        and all(isinstance(x, (int, float)) and not isinstance(x, bool) for x in value)
    )


def _is_list(value: Any) -> bool:
    return isinstance(value, list)


def _path(dotted: str) -> Path:
    return tuple(int(step) if step.isascii() and step.isdigit() else step for step in dotted.split("."))


def _get(value: Any, path: Path) -> Any:
    """What lies at a path; None where there is nothing."""
    for step in path:
        try:
            value = value[str(step)] if isinstance(value, dict) else value[int(step)] if _is_list(value) else None
        except (KeyError, IndexError, ValueError):
            return None
    return value


def _pop(row: dict[str, Any], path: Path) -> Any:
    """Take out what lies at a path; None where there is nothing."""
    if len(path) == 1:
        return row.pop(str(path[0]), None)
    inner = _get(row, path[:-1])
    found = _get(row, path)
    if isinstance(inner, dict):
        inner.pop(str(path[-1]), None)
    elif isinstance(inner, list) and found is not None:
        inner[int(path[-1])] = None
    return found


def _vectors_within(value: Any, path: Path = ()) -> Iterator[Path]:
    """Paths of lists of numbers inside of a row; of a list only where it has a single entry, which is every row's."""
    if len(path) > nesting_max:
        return
    if isinstance(value, dict):
        for name, inner in value.items():
            if "." not in name:
                yield from _vectors_within(inner, (*path, name))
    elif _numeric(value) and len(value) > 1:
        yield path
    elif isinstance(value, list) and len(value) == 1:
        yield from _vectors_within(value[0], (*path, 0))
