"""ArrowSource: a sequence of Arrow record batches as a table; what Parquet and Arrow IPC share.

The vector may be a list, fixed-size list or tensor of numbers, float32 as bytes, text that spells it, a list inside of
a struct ("emb.dense"), or a column a dimension ("f*"). Groups of rows are read in batches, so a file with one huge
group still takes little memory. A read that continues where the last one stopped goes on with the same reader; any
other seeks to its group.

Field values are what Arrow's `to_pylist` gives, and of kinds that records do not have: decimals, times and UUIDs as
text, durations as seconds, ints past 64 bits as text. pyarrow is imported on first use.
"""

from __future__ import annotations

import datetime as dt
import decimal
import uuid
from abc import abstractmethod
from collections.abc import Iterator
from typing import Any

import numpy as np

from vecdb import Corruption, InvalidArgument, VecdbError

from ..inputs import InputFile
from ..optional import optional_module
from ..records.facts import KEY, decode_facts
from ..source import Array
from .columns import VECTOR_NAMES, Choice, as_ids, choose_id_column, choose_vector_column, families
from .jsonl import parse_json, untagged_fields
from .spelled import is_vector, numbers
from .table import TableSource, Window, stack_rows

batch_rows = 4_096
sampled_rows = 100
INT64_END = 1 << 63


class ArrowSource(TableSource):
    """An open sequence of record batches. Subclasses open `_schema` and `_group_starts`, then call `_settle`."""

    file: InputFile
    _schema: Any
    _group_starts: Array  # int64[groups + 1]

    @abstractmethod
    def _batches_from(self, group: int) -> Iterator[Any]:
        """Record batches from a group on, of at most `batch_rows` rows where the format allows it."""

    def _settle(self, format: str, check_finite: bool, choice: Choice, stored: bytes | None) -> None:
        """Choose the columns. stored : the facts in the file's metadata."""
        self._pa = optional_module("pyarrow", f"reading {format}")
        self.path = self.file.name
        names = self._schema.names
        if len(set(names)) != len(names):
            raise InvalidArgument(f"{self.path}: two columns share a name: {names}")
        self._batches: Iterator[Any] = iter(())
        self._left: Any = None  # rows that were read and not yet returned
        self._next_row = -1
        self.facts = None if stored is None else decode_facts(stored, self.path)
        sample = self._sample()
        if self.facts is not None:
            columns = self.facts.columns
            choice = choice.by_facts(self.path, columns.vector, columns.id)
        self._settle_vector(choice, sample)
        self._settle_id(choice)
        special = set() if self.facts is None else self.facts.columns.names()
        taken = {self.id_column, *self._vector_columns} | special
        rest = [name for name in names if name not in taken and name != self._index_column]
        self.field_columns = choice.field_columns(self.path, rest)
        self._converts = any(self._needs_conversion(self._schema.field(name).type) for name in self.field_columns)
        dim, dtype = self._vector_shape(sample)
        super().__init__(self.path, format, (int(self._group_starts[-1]), dim), dtype, check_finite)

    def _sample(self) -> Any:
        """The first rows, as an Arrow table."""
        try:
            batch = next(self._batches_from(0), None) if self._group_starts[-1] else None
        except (self._pa.ArrowException, OSError) as error:
            raise Corruption(f"{self.path}: row 0 cannot be read ({error})") from error
        if batch is None:
            return self._schema.empty_table()
        return self._pa.Table.from_batches([batch.slice(0, sampled_rows)])

    # -- which column is which ---------------------------------------------------------------------

    def _storage(self, kind: Any) -> Any:
        """The type that an extension type is stored as."""
        return kind.storage_type if isinstance(kind, self._pa.BaseExtensionType) else kind

    def _is_list(self, kind: Any) -> bool:
        types, kind = self._pa.types, self._storage(kind)
        if not (types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind)):
            return False
        return bool(types.is_floating(kind.value_type) or types.is_integer(kind.value_type))

    def _is_text(self, kind: Any) -> bool:
        types = self._pa.types
        return bool(types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind))

    def _is_bytes(self, kind: Any) -> bool:
        types, kind = self._pa.types, self._storage(kind)
        return bool(types.is_binary(kind) or types.is_large_binary(kind) or types.is_fixed_size_binary(kind))

    def _settle_vector(self, choice: Choice, sample: Any) -> None:
        asked, names = choice.vector, self._schema.names
        lists = [name for name in names if self._is_list(self._schema.field(name).type)]
        for name in names:
            kind = self._schema.field(name).type
            if name not in lists and (name == asked or name.lower() in VECTOR_NAMES):
                text = self._is_text(kind) and any(map(is_vector, sample.column(name).to_pylist()))
                if text or self._is_bytes(kind):
                    lists.append(name)
        nested = {}
        if not lists or asked is not None:
            nested = {".".join(path): path for path in self._nested()}
        wide = families(
            name
            for name in names
            if self._pa.types.is_floating(self._schema.field(name).type)
            or self._pa.types.is_integer(self._schema.field(name).type)
        )
        candidates = [*lists, *nested, *(wide if not lists or asked is not None else ())]
        self.vector_column = choose_vector_column(self.path, asked, candidates)
        self._vector_path = nested.get(self.vector_column, [self.vector_column])
        self._vector_columns = wide.get(self.vector_column, self._vector_path[:1])

    def _nested(self) -> Iterator[list[str]]:
        """Paths of lists of numbers inside of structs."""
        waiting = [([field.name], field.type) for field in self._schema]
        while waiting:
            path, kind = waiting.pop(0)
            if len(path) > 1 and self._is_list(kind):
                yield path
            elif self._pa.types.is_struct(kind):
                waiting += [([*path, inner.name], inner.type) for inner in kind]

    def _settle_id(self, choice: Choice) -> None:
        columns = {
            name: self._why_no_id(self._schema.field(name).type)
            for name in self._schema.names
            if name not in self._vector_columns
        }
        index = self._pandas_index()
        self._index_column = index if index is not None and index.startswith("__index_level_") else None
        chosen = choose_id_column(self.path, choice, columns)
        if chosen is None and index is not None and not choice.new_ids and not columns.get(index, "missing"):
            chosen = index
        self.id_column = chosen

    def _pandas_index(self) -> str | None:
        """The column in which pandas stored the index of its frame; None where there is none, or several."""
        described = (self._schema.metadata or {}).get(b"pandas")
        if described is None:
            return None
        try:
            columns = parse_json(described.decode())["index_columns"]
        except (ValueError, KeyError, TypeError):
            return None
        return columns[0] if isinstance(columns, list) and len(columns) == 1 and isinstance(columns[0], str) else None

    def _why_no_id(self, kind: Any) -> str:
        types = self._pa.types
        if types.is_dictionary(kind):
            kind = kind.value_type
        if types.is_integer(kind) or types.is_floating(kind) or types.is_decimal(kind) or self._is_text(kind):
            return ""
        stored = self._storage(kind)
        if types.is_fixed_size_binary(stored) and stored.byte_width == 16:
            return ""  # a UUID
        return f"it is {kind}, expected whole numbers, strings or UUIDs"

    def _vector_shape(self, sample: Any) -> tuple[int, np.dtype[Any]]:
        if self.facts is not None:
            return self.facts.dim, np.dtype(self.facts.dtype)
        if len(self._vector_columns) > 1:
            kinds = [self._schema.field(name).type.to_pandas_dtype() for name in self._vector_columns]
            return len(self._vector_columns), np.result_type(*kinds)
        column = self._column_at(sample)
        kind = self._storage(column.type)
        if self._pa.types.is_fixed_size_list(kind):
            return int(kind.list_size), np.dtype(kind.value_type.to_pandas_dtype())
        first = next((value for value in column.to_pylist() if value is not None), None)
        if self._is_list(kind):
            dtype = np.dtype(kind.value_type.to_pandas_dtype())
            if first is None and len(column):
                raise InvalidArgument(f"{self.path}: row 0 has no vector in column {self.vector_column!r}")
            return len(first or ()), dtype
        if self._is_bytes(kind):
            if first is None or not first or len(first) % 4:
                raise InvalidArgument(
                    f"{self.path}: column {self.vector_column!r} holds {len(first or b'')} bytes a row, "
                    "expected float32 numbers of 4 bytes"
                )
            return len(first) // 4, np.dtype("f4")
        return len(numbers(next(filter(is_vector, column.to_pylist())))), np.dtype("f4")

    # -- reading -----------------------------------------------------------------------------------

    def _parse(self, start: int, stop: int) -> Window:
        try:
            table = self._rows(start, stop)
        except (self._pa.ArrowException, OSError) as error:
            raise Corruption(f"{self.path}: rows {start} to {stop} cannot be read ({error})") from error
        if table.num_rows != stop - start:
            raise Corruption(
                f"{self.path}: rows {start} to {stop}: expected {stop - start} rows, found {table.num_rows}"
            )
        vectors, wrong = self._vectors(table)
        ids = None
        if self.id_column is not None:
            cells = table.column(self.id_column).to_pylist()
            ids, not_ids = as_ids(cells)
            for at, what in not_ids.items():
                wrong[at] = f" has no id in column {self.id_column!r}" if cells[at] is None else f": its id {what}"
        fields = self._fields_of(table)
        owners = tenants = bare = None
        if self.facts is not None:
            owners, tenants = self._access_of(table, fields or [], wrong)
            bare = [bool(one) for one in _null_mask(self._column_at(table))]
            wrong = {at: what for at, what in wrong.items() if not bare[at] or what != self._no_vector}
        bad: dict[int, VecdbError] = {start + at: self._row_error(start + at, None, wrong[at]) for at in sorted(wrong)}
        return Window(start, vectors, ids, fields, bad, owners, tenants, bare)

    def _rows(self, start: int, stop: int) -> Any:
        """Rows [start, stop) as an Arrow table; leaves the reader at `stop`."""
        if start != self._next_row:
            group = int(np.searchsorted(self._group_starts, start, side="right")) - 1
            self._batches = self._batches_from(group)
            self._left = None
            skip = start - int(self._group_starts[group])
        else:
            skip = 0
        self._next_row = -1  # until this read has succeeded
        parts, missing = [], stop - start
        while missing:
            batch = self._left if self._left is not None else next(self._batches, None)
            self._left = None
            if batch is None:
                break
            dropped = min(skip, batch.num_rows)
            skip -= dropped
            taken = min(missing, batch.num_rows - dropped)
            if taken:
                parts.append(batch.slice(dropped, taken))
                missing -= taken
            if dropped + taken < batch.num_rows:
                self._left = batch.slice(dropped + taken)
        self._next_row = stop
        return self._pa.Table.from_batches(parts, self._schema if not parts else parts[0].schema)

    def _column_at(self, table: Any) -> Any:
        """The column of vectors, perhaps inside of a struct, as a chunked array."""
        column = table.column(self._vector_path[0])
        if len(self._vector_path) > 1:
            compute = optional_module("pyarrow.compute", "reading structs")
            for name in self._vector_path[1:]:
                column = compute.struct_field(column, name)
        return column

    def _vectors(self, table: Any) -> tuple[Array, dict[int, str]]:
        if len(self._vector_columns) > 1:
            columns = [table.column(name) for name in self._vector_columns]
            block = np.stack([self._numbers_of(one) for one in columns], axis=1).astype(self.dtype, copy=False)
            empty = {row for one in columns if one.null_count for row in np.flatnonzero(_null_mask(one)).tolist()}
            return block, dict.fromkeys(empty, ": one of the columns of its vector is empty")
        column = self._column_at(table)
        if not self._is_list(column.type):
            return self._spelled_vectors(column.to_pylist())
        vectors = np.zeros((len(column), self.dim), self.dtype)
        wrong: dict[int, str] = {}
        at = 0
        for chunk in column.chunks:
            chunk = chunk.storage if isinstance(chunk, self._pa.ExtensionArray) else chunk
            wrong |= {at + row: what for row, what in self._fill(vectors[at : at + len(chunk)], chunk).items()}
            at += len(chunk)
        return vectors, wrong

    @property
    def _no_vector(self) -> str:
        return f" has no vector in column {self.vector_column!r}"

    def _numbers_of(self, column: Any) -> Array:
        return np.asarray((column.fill_null(0) if column.null_count else column).to_numpy())

    def _spelled_vectors(self, cells: list[Any]) -> tuple[Array, dict[int, str]]:
        wrong: dict[int, str] = {}
        rows: list[Any] = []
        for at, cell in enumerate(cells):
            if isinstance(cell, bytes):
                if len(cell) != 4 * self.dim:
                    wrong[at] = f" has {len(cell)} bytes in place of a vector, expected {4 * self.dim} as in row 0"
                rows.append(np.frombuffer(cell, "<f4") if len(cell) == 4 * self.dim else np.zeros(self.dim, "f4"))
            else:
                rows.append(numbers(cell) if isinstance(cell, str) else cell)
        block, others = stack_rows(rows, self.dim, self.dtype)
        return block, {**others, **wrong}

    def _fill(self, out: Array, column: Any) -> dict[int, str]:
        """Numbers of a list array into out[len, dim]; what is wrong by position."""
        flat, fixed = column.flatten(), self._pa.types.is_fixed_size_list(column.type)
        if not column.null_count and not flat.null_count:
            dims = np.full(len(column), self.dim) if fixed else np.diff(column.offsets.to_numpy(zero_copy_only=False))
            if (dims == self.dim).all():
                out[:] = np.asarray(flat.to_numpy(zero_copy_only=False)).reshape(len(column), self.dim)
                return {}
        wrong = {}
        for row, values in enumerate(column.to_pylist()):
            if values is None:
                wrong[row] = self._no_vector
            elif len(values) != self.dim:
                wrong[row] = f" has dim {len(values)}, expected {self.dim} as in row 0"
            elif None in values:
                wrong[row] = f": vector holds a null, expected {self.dim} numbers"
            else:
                out[row] = values
        return wrong

    # -- fields ------------------------------------------------------------------------------------

    def _fields_of(self, table: Any) -> list[dict[str, Any]] | None:
        if not self.field_columns:
            return [{} for _ in range(table.num_rows)] if self.facts is not None else None
        selected = table.select(self.field_columns)
        for at, field in enumerate(selected.schema):
            if self._pa.types.is_timestamp(field.type) and field.type.unit == "ns":
                kind = self._pa.timestamp("us", field.type.tz)
                selected = selected.set_column(at, field.name, selected.column(at).cast(kind, safe=False))
        rows: list[dict[str, Any]] = selected.to_pylist()
        if self.facts is not None:
            return [{name: value for name, value in row.items() if value is not None} for row in rows]
        if self._converts:
            rows = [{name: storable(value) for name, value in row.items()} for row in rows]
        return rows

    def _access_of(self, table: Any, fields: list[dict[str, Any]], wrong: dict[int, str]) -> tuple[Any, Any]:
        """(owners, tenants) of the rows of an export; what stands in their tagged fields becomes fields."""
        assert self.facts is not None
        columns, there = self.facts.columns, set(self._schema.names)
        owners = table.column(columns.owner).to_pylist() if columns.owner in there else [None] * table.num_rows
        tenants = table.column(columns.tenants).to_pylist() if columns.tenants in there else [None] * table.num_rows
        tagged = table.column(columns.fields).to_pylist() if columns.fields in there else []
        for at, text in enumerate(tagged):
            if text is not None:
                try:
                    fields[at].update(untagged_fields(parse_json(text)))
                except ValueError as error:
                    wrong[at] = f": its column {columns.fields!r} is damaged ({error})"
        return [one or "" for one in owners], [one or [] for one in tenants]

    def _needs_conversion(self, kind: Any) -> bool:
        types = self._pa.types
        if isinstance(kind, self._pa.BaseExtensionType) or types.is_decimal(kind) or types.is_time(kind):
            return True
        if types.is_duration(kind) or types.is_interval(kind) or types.is_uint64(kind) or types.is_map(kind):
            return True
        if types.is_dictionary(kind):
            return self._needs_conversion(kind.value_type)
        return any(self._needs_conversion(kind.field(at).type) for at in range(kind.num_fields))

    def close(self) -> None:
        self._batches, self._left, self._next_row = iter(()), None, -1
        self.file.close()


def storable(value: Any) -> Any:
    """A value of Arrow's as one that a record holds."""
    if isinstance(value, decimal.Decimal | uuid.UUID):
        return str(value)
    if isinstance(value, dt.time):
        return value.isoformat()
    if isinstance(value, dt.timedelta):
        return value.total_seconds()
    if isinstance(value, int) and not -INT64_END <= value < INT64_END:
        return str(value)
    if isinstance(value, dict):
        return {str(key): storable(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        is_map = bool(value) and all(isinstance(one, tuple) and len(one) == 2 for one in value)
        return {str(k): storable(v) for k, v in value} if is_map else [storable(one) for one in value]
    if value is None or isinstance(value, bool | int | float | str | bytes | dt.date | np.ndarray):
        return value
    return str(value)


def _null_mask(column: Any) -> Array:
    return np.asarray(column.is_null().to_numpy())


def facts_of(metadata: Any) -> bytes | None:
    """The facts of an export in Arrow's metadata, a dict of bytes or None."""
    found = (metadata or {}).get(KEY.encode())
    return found if found is None else bytes(found)
