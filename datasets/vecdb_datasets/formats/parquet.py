"""Parquet: a list or fixed-size-list column of numbers, an id column, other columns as fields.

Row groups are read in batches of at most `batch_rows`, so a file with one huge row group still takes little memory.
A read that continues where the last one stopped goes on with the same reader; any other seeks to its row group.
Field values are what Arrow's `to_pylist` gives. pyarrow is imported on first use.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from vecdb import Corruption, InvalidArgument

from .source import Array, optional_module
from .tables import ID_NAMES, TableSource, Window, choose_column, choose_vector_column

batch_rows = 4_096


class ParquetSource(TableSource):
    """An open Parquet file."""

    def __init__(self, path: str, check_finite: bool, vector_column: str | None, id_column: str | None) -> None:
        self._pa = optional_module("pyarrow", "reading Parquet")
        parquet = optional_module("pyarrow.parquet", "reading Parquet")
        try:
            self._file = parquet.ParquetFile(path, memory_map=True, pre_buffer=False)
        except (self._pa.ArrowException, OSError) as error:
            raise Corruption(f"{path}: Parquet cannot open it ({error})") from error
        schema = self._file.schema_arrow
        lists = [f.name for f in schema if self._is_vector(f.type)]
        keys = [f.name for f in schema if self._is_id(f.type)]
        self.vector_column = choose_vector_column(path, vector_column, lists)
        self.id_column = choose_column(path, "id", id_column, keys, ID_NAMES)
        self.field_columns = [name for name in schema.names if name not in (self.vector_column, self.id_column)]
        meta = self._file.metadata
        sizes = [meta.row_group(g).num_rows for g in range(meta.num_row_groups)]
        self._group_starts = np.concatenate([[0], np.cumsum(sizes, dtype=np.int64)]).astype(np.int64)
        self._batches: Iterator[Any] = iter(())
        self._left: Any = None  # rows that were read and not yet returned
        self._next_row = -1
        kind = schema.field(self.vector_column).type
        dtype = np.dtype(kind.value_type.to_pandas_dtype())
        super().__init__(path, "parquet", (int(meta.num_rows), self._first_dim(path, kind)), dtype, check_finite)

    def _is_vector(self, kind: Any) -> bool:
        types = self._pa.types
        listed = types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind)
        return bool(listed and (types.is_floating(kind.value_type) or types.is_integer(kind.value_type)))

    def _is_id(self, kind: Any) -> bool:
        types = self._pa.types
        if types.is_dictionary(kind):
            kind = kind.value_type
        return bool(types.is_integer(kind) or types.is_string(kind) or types.is_large_string(kind))

    def _first_dim(self, path: str, kind: Any) -> int:
        if self._pa.types.is_fixed_size_list(kind):
            return int(kind.list_size)
        if not self._group_starts[-1]:
            return 0
        try:
            batch = next(self._file.iter_batches(batch_size=1, columns=[self.vector_column]))
        except (self._pa.ArrowException, OSError) as error:
            raise Corruption(f"{path}: row 0 cannot be read ({error})") from error
        first = batch.column(0)[0].as_py()
        if first is None:
            raise InvalidArgument(f"{path}: row 0 has no vector in column {self.vector_column!r}")
        return len(first)

    def _parse(self, start: int, stop: int) -> Window:
        try:
            table = self._rows(start, stop)
        except (self._pa.ArrowException, OSError) as error:
            raise Corruption(f"{self.path}: rows {start} to {stop} cannot be read ({error})") from error
        if table.num_rows != stop - start:
            raise Corruption(
                f"{self.path}: rows {start} to {stop}: expected {stop - start} rows, found {table.num_rows}"
            )
        vectors = np.empty((stop - start, self.dim), self.dtype)
        at = 0
        for chunk in table.column(self.vector_column).chunks:
            vectors[at : at + len(chunk)] = self._matrix(chunk, start + at)
            at += len(chunk)
        ids = None if self.id_column is None else table.column(self.id_column).to_pylist()
        if ids is not None and None in ids:
            raise InvalidArgument(f"{self.path}: row {start + ids.index(None)} has no id in column {self.id_column!r}")
        return Window(start, vectors, ids, table.select(self.field_columns).to_pylist() if self.field_columns else None)

    def _rows(self, start: int, stop: int) -> Any:
        """Rows [start, stop) as an Arrow table; leaves the reader at `stop`."""
        if start != self._next_row:
            group = int(np.searchsorted(self._group_starts, start, side="right")) - 1
            groups = list(range(group, len(self._group_starts) - 1))
            self._batches = self._file.iter_batches(batch_size=batch_rows, row_groups=groups)
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
        return self._pa.Table.from_batches(parts, self._file.schema_arrow if not parts else parts[0].schema)

    def _matrix(self, column: Any, start: int) -> Array:
        """A list array -> [len, dim]."""
        if column.null_count:
            row = start + int(np.flatnonzero(column.is_null().to_numpy(zero_copy_only=False))[0])
            raise InvalidArgument(f"{self.path}: row {row} has no vector in column {self.vector_column!r}")
        if not self._pa.types.is_fixed_size_list(column.type):
            dims = np.diff(column.offsets.to_numpy(zero_copy_only=False))
            wrong = np.flatnonzero(dims != self.dim)
            if len(wrong):
                row = int(wrong[0])
                raise InvalidArgument(
                    f"{self.path}: row {start + row} has dim {int(dims[row])}, expected {self.dim} as in row 0"
                )
        flat = column.flatten()
        if flat.null_count:
            row = int(np.flatnonzero(flat.is_null().to_numpy(zero_copy_only=False))[0]) // max(self.dim, 1)
            raise InvalidArgument(f"{self.path}: row {start + row}: vector holds a null, expected {self.dim} numbers")
        return np.asarray(flat.to_numpy(zero_copy_only=False)).reshape(len(column), self.dim)

    def close(self) -> None:
        self._batches, self._left, self._next_row = iter(()), None, -1
        self._file.close()
