"""A collection as Parquet: holds everything.

Columns id, vector (null for a record without one), then a column for each field. A column has the type of the first
value that it gets: bool, int64, double, text, bytes, date, timestamp in microseconds (with UTC or without), or a list
of one of the first four. What does not fit, None among it, stands in the column "_fields" as tagged JSON: so a null is
a field that is not there. The columns "_owner" and "_tenants" come with the first record that has one. The facts are
metadata under the key "vecdb".

A batch that brings a new column begins another part; the file is all parts, with the columns of the last.
"""

from __future__ import annotations

import datetime as dt
import os
from typing import Any

import msgspec
import numpy as np

from vecdb import InvalidArgument

from ..optional import optional_module
from .facts import KEY, CollectionFacts
from .tagged import tag
from .writer import RecordBatch, RecordWriter

field_columns_max = 1_000  # more fields stand in the column of tagged ones
_LISTED = (bool, int, float, str)


class ParquetRecords(RecordWriter):
    """Writes a collection as Parquet."""

    def __init__(self, path: str, facts: CollectionFacts, lossy: bool) -> None:
        super().__init__(path, facts, lossy)
        self._pa = optional_module("pyarrow", "writing Parquet")
        self._parquet = optional_module("pyarrow.parquet", "writing Parquet")
        self._part = self._target(path).part
        self._parts: list[str] = []
        self._out: Any = None
        number = self._pa.from_numpy_dtype(np.dtype(facts.dtype))
        self._kinds: dict[str, Any] = {}  # what each field's column holds: a Python type, or a list of one
        vector = (facts.columns.vector, self._pa.list_(number, facts.dim))
        self._schema = self._pa.schema([vector])
        self._metadata = {KEY: facts.encode()}

    def write(self, batch: RecordBatch) -> None:
        pa, names = self._pa, self.facts.columns
        columns: dict[str, Any] = {names.id: pa.array(list(batch.ids))}
        flat = pa.array(np.ascontiguousarray(batch.vectors).reshape(-1))
        mask = None if batch.bare is None else pa.array(np.asarray(batch.bare, bool))
        columns[names.vector] = pa.FixedSizeListArray.from_arrays(flat, self.facts.dim, mask=mask)
        if any(batch.owners):
            columns[names.owner] = pa.array([one or None for one in batch.owners], pa.string())
        if any(batch.tenants):
            columns[names.tenants] = pa.array([list(one) or None for one in batch.tenants], pa.list_(pa.string()))
        fields, tagged = self._split(batch.fields)
        for name, values in fields.items():
            columns[name] = pa.array(values, self._arrow_type(self._kinds[name]))
        if any(one is not None for one in tagged):
            columns[names.fields] = pa.array(tagged, pa.string())
        try:
            table = self._widened(pa.table(columns))
            if self._out is None or table.schema.names != self._schema.names:
                self._begin(table.schema)
            self._out.write_table(table)
        except pa.ArrowException as error:
            raise InvalidArgument(f"{self.path}: Parquet cannot hold these records ({error})") from error

    def _split(self, rows: Any) -> tuple[dict[str, list[Any]], list[str | None]]:
        """(columns of fields, tagged JSON of the others for each record)."""
        special = self.facts.columns.names()
        columns: dict[str, list[Any]] = {}
        tagged: list[str | None] = []
        for at, row in enumerate(rows):
            others = {}
            for name, value in row.items():
                kind = _kind_of(value)
                known = self._kinds.get(name)
                may_be_new = kind is not None and name and name not in special
                if known is None and may_be_new and len(self._kinds) < field_columns_max:
                    known = self._kinds[name] = kind
                if known is None or (kind != known and not (value == [] and isinstance(known, tuple))):
                    others[name] = tag(value)
                    continue
                column = columns.get(name)
                if column is None:
                    column = columns[name] = [None] * len(rows)
                column[at] = value
            tagged.append(msgspec.json.encode(others).decode() if others else None)
        return columns, tagged

    def _arrow_type(self, kind: Any) -> Any:
        pa = self._pa
        if isinstance(kind, tuple):
            return pa.list_(self._arrow_type(kind[0]))
        return {
            bool: pa.bool_(), int: pa.int64(), float: pa.float64(), str: pa.string(), bytes: pa.binary(),
            dt.date: pa.date32(), "naive": pa.timestamp("us"), "aware": pa.timestamp("us", "UTC"),
        }[kind]  # fmt: skip

    def _widened(self, table: Any) -> Any:
        """A table with the columns that there are so far, beside its own."""
        return self._pa.concat_tables([self._schema.empty_table(), table], promote_options="default")

    def _begin(self, schema: Any) -> None:
        """A part with these columns; the first is the file, unless others follow."""
        if self._out is not None:
            self._out.close()
        path = self._part if not self._parts else f"{self._part}-{len(self._parts)}"
        self._parts.append(path)
        self._schema = schema
        self._out = self._parquet.ParquetWriter(path, schema.with_metadata(self._metadata))

    def _finish(self) -> None:
        if self._out is None:  # no records
            self._begin(self._schema.insert(0, self._pa.field(self.facts.columns.id, self._pa.int64())))
        self._out.close()
        if len(self._parts) > 1:
            parts = list(self._parts)
            self._begin(self._schema)
            for part in parts:
                with self._parquet.ParquetFile(part) as file:
                    for group in range(file.num_row_groups):
                        self._out.write_table(self._widened(file.read_row_group(group).replace_schema_metadata(None)))
            self._out.close()
            os.replace(self._parts[-1], self._part)

    def _abandon(self) -> None:
        if self._out is not None:
            self._out.close()

    def discard(self) -> None:
        super().discard()
        for path in filter(os.path.exists, self._parts[1:]):
            os.unlink(path)


def _kind_of(value: Any) -> Any:
    """The kind of column that holds a value as it is; None where none does."""
    kind = type(value)
    if kind in _LISTED or kind is bytes or kind is dt.date:
        return kind
    if kind is dt.datetime:
        return "naive" if value.tzinfo is None else "aware"
    if kind is list and value:
        inner = set(map(type, value))
        if len(inner) == 1 and (one := inner.pop()) in _LISTED:
            return (one,)
    return None
