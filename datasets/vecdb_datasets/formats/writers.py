"""VectorWriter: a file of vectors, written in chunks to a temporary neighbour and renamed when it is whole.

    with create_vectors("out.fbin", dim=64) as writer:
        for chunk in chunks: writer.write(chunk)

A value that the file's type cannot hold (300 in a u8bin, 1e39 in an fvecs) is refused; float64 narrows to float32.
Threads: one. After an exception nothing is left behind, and a file that was there before is untouched.
"""

from __future__ import annotations

import csv
import io
import json
import os
import struct
from collections.abc import Sequence
from types import TracebackType
from typing import IO, Any

import numpy as np
from numpy.typing import ArrayLike

from vecdb import InvalidArgument
from vecdb_datasets.formats.detect import format_of_extension
from vecdb_datasets.formats.headers import BINS, VECS

from .optional import optional_module
from .records.target import Target
from .source import Array

npy_header_bytes = 128
Fields = Sequence[dict[str, Any]]


class VectorWriter:
    """Base of the writers: gate, counting, temporary file. Use `create_vectors`."""

    takes_ids = False

    def __init__(self, path: str, dim: int, dtype: np.dtype[Any]) -> None:
        self.path = path
        self.dim = dim
        self.dtype = dtype
        self.n = 0
        self._named = False  # whether rows come with ids
        self._target = Target(path)
        self.is_stream = self._target.is_stream
        self._part = self._target.part
        self._temporary = [self._part]  # files that are removed at the end
        self._closed = False
        self._start()

    def write(
        self, vectors: ArrayLike, ids: Sequence[int] | Sequence[str] | None = None, fields: Fields | None = None
    ) -> None:
        """Append rows. `ids` and `fields` are for Parquet, CSV and JSONL, one per row."""
        block = self._gate(np.asarray(vectors))
        if not self.takes_ids and (ids is not None or fields is not None):
            raise InvalidArgument(
                f"{self.path}: this format holds vectors only; write ids and fields to Parquet, CSV or JSONL"
            )
        for name, values in (("ids", ids), ("fields", fields)):
            if values is not None and len(values) != len(block):
                raise InvalidArgument(f"{self.path}: {len(block)} vectors but {len(values)} {name}")
        if self.n and self._named != (ids is not None):
            raise InvalidArgument(f"{self.path}: give ids for every chunk or for none")
        self._named = ids is not None
        for name in ("vector",) if ids is None else ("id", "vector"):
            if any(name in row for row in fields or ()):
                raise InvalidArgument(
                    f"{self.path}: there is a field {name!r}, which is the name of a column of its own"
                )
        if len(block):
            self._append(block, ids, fields)
        self.n += len(block)

    def close(self) -> None:
        """Finish the file and put it in place."""
        self._closed = True
        self._finish()
        self._target.put_in_place()

    def abandon(self) -> None:
        """Remove what is not in place."""
        if not self._closed:
            self._closed = True
            self._abandon()
        for path in filter(os.path.exists, self._temporary):
            os.unlink(path)
        self._target.discard()

    def __enter__(self) -> VectorWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        try:
            if kind is None:
                self.close()
        finally:
            self.abandon()

    def _gate(self, given: Array) -> Array:
        if given.ndim != 2 or given.shape[1] != self.dim:
            raise InvalidArgument(f"{self.path}: shape {given.shape}, expected (rows, {self.dim})")
        if given.dtype.kind not in "fiub":
            raise InvalidArgument(f"{self.path}: dtype {given.dtype}, expected numbers")
        if given.dtype.kind == "f" and self.dtype.kind != "f":
            raise InvalidArgument(
                f"{self.path}: {given.dtype} vectors do not fit a {self.dtype.name} file; convert them first"
            )
        with np.errstate(over="ignore", invalid="ignore"):
            block = np.ascontiguousarray(given, self.dtype)
        if block.dtype == given.dtype:
            return block
        held = np.isfinite(block) | ~np.isfinite(given) if given.dtype.kind == "f" else block == given
        if not held.all():
            row, column = (int(i[0]) for i in np.nonzero(~held))
            value = given[row, column]
            raise InvalidArgument(
                f"{self.path}: row {self.n + row}, component {column}: {value} does not fit {self.dtype.name}"
            )
        return block

    def _start(self) -> None:
        self._handle: IO[bytes] = open(self._part, "wb")  # noqa: SIM115 - closed by _finish()

    def _append(self, block: Array, ids: Any, fields: Fields | None) -> None:
        raise NotImplementedError

    def _finish(self) -> None:
        self._handle.close()

    def _abandon(self) -> None:
        """Close what is open."""
        self._finish()


class _VecsWriter(VectorWriter):
    def _append(self, block: Array, ids: Any, fields: Fields | None) -> None:
        record = np.empty(len(block), [("dim", "<i4"), ("vector", self.dtype.newbyteorder("<"), (self.dim,))])
        record["dim"] = self.dim
        record["vector"] = block
        self._handle.write(record.tobytes())


class _BinWriter(VectorWriter):
    def _start(self) -> None:
        super()._start()
        self._handle.write(self._header())

    def _header(self) -> bytes:
        return struct.pack("<II", self.n, self.dim)

    def _append(self, block: Array, ids: Any, fields: Fields | None) -> None:
        self._handle.write(block.astype(block.dtype.newbyteorder("<"), copy=False).tobytes())

    def _finish(self) -> None:
        self._handle.seek(0)
        self._handle.write(self._header())
        super()._finish()


class _NpyWriter(_BinWriter):
    def _header(self) -> bytes:
        descr = self.dtype.newbyteorder("<").str
        text = f"{{'descr': {descr!r}, 'fortran_order': False, 'shape': ({self.n}, {self.dim}), }}"
        return (
            b"\x93NUMPY\x01\x00"
            + struct.pack("<H", npy_header_bytes - 10)
            + text.encode().ljust(npy_header_bytes - 11)
            + b"\n"
        )


class _Hdf5Writer(VectorWriter):
    def _start(self) -> None:
        self._file = optional_module("h5py", "writing HDF5").File(self._part, "w")
        self._data = self._file.create_dataset(
            "train",
            (0, self.dim),
            self.dtype,
            maxshape=(None, self.dim),
            chunks=(max(1, (1 << 18) // self.dim), self.dim),
        )

    def _append(self, block: Array, ids: Any, fields: Fields | None) -> None:
        self._data.resize(self.n + len(block), axis=0)
        self._data[self.n :] = block

    def _finish(self) -> None:
        self._file.close()


class _ParquetWriter(VectorWriter):
    """Columns id, vector, then fields. A chunk that has a column more, or says the type of one in which nothing was so
    far, begins another part; the file is all parts, with the columns of the last.
    """

    takes_ids = True

    def _start(self) -> None:
        self._pa = optional_module("pyarrow", "writing Parquet")
        self._parquet = optional_module("pyarrow.parquet", "writing Parquet")
        self._schema = self._pa.schema([])
        self._out: Any = None

    def _append(self, block: Array, ids: Any, fields: Fields | None) -> None:
        pa = self._pa
        columns: dict[str, Any] = {} if ids is None else {"id": pa.array(list(ids))}
        columns["vector"] = pa.FixedSizeListArray.from_arrays(pa.array(block.reshape(-1)), self.dim)
        try:
            for name in dict.fromkeys(name for row in fields or () for name in row):
                columns[name] = pa.array([row.get(name) for row in fields or ()])
            table = self._widened(pa.table(columns))
            if self._out is None or table.schema != self._schema:
                self._begin(table.schema)
            self._out.write_table(table)
        except (pa.ArrowException, ValueError, TypeError) as error:
            raise InvalidArgument(
                f"{self.path}: rows from {self.n} on do not fit the columns of the first ones ({error})"
            ) from error

    def _widened(self, table: Any) -> Any:
        """A table with the columns that there are so far, beside its own."""
        return self._pa.concat_tables([self._schema.empty_table(), table], promote_options="permissive")

    def _begin(self, schema: Any) -> None:
        """A part with these columns; the first is the file, unless others follow."""
        if self._out is not None:
            self._out.close()
            self._temporary.append(f"{self._part}-{len(self._temporary)}")
        self._out, self._schema = self._parquet.ParquetWriter(self._temporary[-1], schema), schema

    def _finish(self) -> None:
        if self._out is None:
            self._begin(self._pa.schema([("vector", self._pa.list_(self._pa.from_numpy_dtype(self.dtype), self.dim))]))
        self._out.close()
        if len(self._temporary) > 1:
            self._join(list(self._temporary))

    def _join(self, parts: list[str]) -> None:
        self._begin(self._schema)
        try:
            for part in parts:
                with self._parquet.ParquetFile(part) as file:
                    for group in range(file.num_row_groups):
                        self._out.write_table(self._widened(file.read_row_group(group)))
        except self._pa.ArrowException as error:
            raise InvalidArgument(
                f"{self.path}: a column that later rows made cannot hold the first ({error})"
            ) from error
        finally:
            self._out.close()
        os.replace(self._temporary[-1], self._part)

    def _abandon(self) -> None:
        if self._out is not None:
            self._out.close()


class _JsonlWriter(VectorWriter):
    takes_ids = True

    def _append(self, block: Array, ids: Any, fields: Fields | None) -> None:
        out = io.StringIO()
        for i, vector in enumerate(block.tolist()):
            row: dict[str, Any] = {} if ids is None else {"id": _plain(ids[i])}
            row["vector"] = vector
            if fields is not None:
                row.update(fields[i])
            out.write(json.dumps(row, ensure_ascii=False, default=_plain) + "\n")
        self._handle.write(out.getvalue().encode())


class _CsvWriter(VectorWriter):
    """Columns id, vector, then the first chunk's fields. Values are spelled so that float32 comes back bit for bit."""

    takes_ids = True
    _columns: list[str] | None = None

    def _append(self, block: Array, ids: Any, fields: Fields | None) -> None:
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        if self._columns is None:
            self._columns = list(dict.fromkeys(name for row in fields or () for name in row))
            writer.writerow([*(["id"] if self._named else []), "vector", *self._columns])
        for i, vector in enumerate(block):
            row = fields[i] if fields is not None else {}
            extra = row.keys() - set(self._columns)
            if extra:
                raise InvalidArgument(f"{self.path}: row {self.n + i} has fields {sorted(extra)} that the header lacks")
            cells = ["" if row.get(name) is None else row[name] for name in self._columns]
            writer.writerow([*([ids[i]] if self._named else []), "[" + ", ".join(str(x) for x in vector) + "]", *cells])
        self._handle.write(out.getvalue().encode())


def _plain(value: Any) -> Any:
    """A numpy scalar or array as JSON's own kinds."""
    if isinstance(value, (np.generic, np.ndarray)):
        return value.tolist()
    if isinstance(value, (int, str)):
        return value
    raise InvalidArgument(f"{type(value).__name__} {value!r} cannot be written as JSON")


_WRITERS: dict[str, type[VectorWriter]] = {
    **dict.fromkeys(VECS, _VecsWriter),
    **dict.fromkeys(BINS, _BinWriter),
    "npy": _NpyWriter,
    "hdf5": _Hdf5Writer,
    "parquet": _ParquetWriter,
    "jsonl": _JsonlWriter,
    "csv": _CsvWriter,
}


WRITABLE = tuple(_WRITERS)


def format_of_name(path: str) -> str | None:
    """The format that the file's name claims, or None."""
    return format_of_extension(path)


def create_vectors(
    path: str | os.PathLike[str], dim: int, dtype: Any = "float32", *, format: str | None = None
) -> VectorWriter:
    """Open a file for writing, as a context manager that puts the finished file in place.

    Parameters
    ----------
    path : path, "-" for standard output; its extension names the format unless `format` does.
    dim : int
    dtype : of the values where the format leaves it open (npy, HDF5, Parquet); float32 in CSV and JSONL.
    format : one of `WRITABLE`.

    Raises
    ------
    InvalidArgument
        The format is not known.
    Unavailable
        The format needs a package of the extra [data].
    """
    name = os.fspath(path)
    kind = format or format_of_extension(name)
    if kind not in _WRITERS:
        raise InvalidArgument(
            f"{name}: the format {kind or 'that its name tells'} is not one of "
            f"{', '.join(WRITABLE)}; name the file so or pass format="
        )
    if dim < 1:
        raise InvalidArgument(f"{name}: dim {dim}, expected at least 1")
    fixed = VECS.get(kind) or BINS.get(kind) or (np.dtype("f4") if kind in ("csv", "jsonl") else np.dtype(dtype))
    if fixed.kind not in "fiu":
        raise InvalidArgument(f"{name}: dtype {fixed}, expected float or integer numbers")
    return _WRITERS[kind](name, dim, fixed.newbyteorder("="))


def write_vectors(
    path: str | os.PathLike[str],
    vectors: ArrayLike,
    *,
    format: str | None = None,
    ids: Sequence[int] | Sequence[str] | None = None,
    fields: Fields | None = None,
) -> None:
    """Write one matrix [n, dim] as a whole file; see `create_vectors`."""
    block = np.asarray(vectors)
    if block.ndim != 2:
        raise InvalidArgument(f"{os.fspath(path)}: shape {block.shape}, expected a matrix (n, dim)")
    with create_vectors(path, block.shape[1], block.dtype, format=format) as writer:
        writer.write(block, ids, fields)
