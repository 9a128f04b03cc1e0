"""fvecs, ivecs, bvecs, fbin, ibin, hbin, u8bin, i8bin and npy: the file is mapped, a slice is a view of it.

Sizes are compared with the header before anything is mapped, so a truncated file is an error and not a SIGBUS.
An fvecs record repeats its dimension: every repeated dimension is compared when its row is read.
"""

from __future__ import annotations

import os
from typing import IO

import numpy as np

from vecdb import Corruption, InvalidArgument
from vecdb_datasets.formats.headers import BINS, VECS, bin_file_bytes, file_dim_max, vecs_record_bytes

from ..inputs import InputFile
from ..source import Array, VectorSource
from .named import IdArray


class MappedSource(VectorSource):
    """A mapped file whose rows have one stride."""

    def __init__(
        self,
        file: InputFile,
        format: str,
        rows: Array,
        check_finite: bool,
        dims: Array | None = None,
        ids: IdArray | None = None,
    ) -> None:
        super().__init__(file.name, format, (rows.shape[0], rows.shape[1]), rows.dtype, check_finite)
        self._file = file
        self._rows: Array | None = rows
        self._dims = dims  # int32[n], the dimension in each record (fvecs family)
        self._ids = ids  # of arrays that have names

    def _read(self, start: int, stop: int) -> Array:
        if self._rows is None:
            raise InvalidArgument(f"{self.path}: this source is closed; open it again")
        if self._dims is not None:
            wrong = np.flatnonzero(self._dims[start:stop] != self.dim)
            if len(wrong):
                row = start + int(wrong[0])
                place = row * vecs_record_bytes(self.format, self.dim)
                raise Corruption(
                    f"{self.path}: row {row} (byte {place}) says dim {int(self._dims[row])}, "
                    f"expected {self.dim} as in row 0"
                )
        return np.asarray(self._rows[start:stop], dtype=self.dtype)

    def with_ids(self, ids: IdArray | None) -> MappedSource:
        """This source, with ids that stand beside it."""
        self._ids = ids
        return self

    @property
    def has_ids(self) -> bool:
        return self._ids is not None

    def ids(self, start: int = 0, stop: int | None = None) -> list[int] | list[str] | None:
        return None if self._ids is None else self._ids.take(*self._bounds(start, stop))

    def close(self) -> None:
        self._rows = self._dims = None
        self._file.close()


def map_array(path: str, offset: int, shape: tuple[int, ...], dtype: np.dtype[np.generic], order: str = "C") -> Array:
    if 0 in shape:
        return np.empty(shape, dtype)
    mapped = np.memmap(path, dtype=dtype, mode="r", offset=offset, shape=shape, order=order)  # type: ignore[call-overload]
    return np.asarray(mapped)


def open_vecs(file: InputFile, format: str, check_finite: bool) -> MappedSource:
    """Open an fvecs, ivecs or bvecs file."""
    size = os.path.getsize(file.path)
    if size < 4:
        raise Corruption(f"{file.name}: {size} bytes, expected at least the 4 bytes of a {format} dimension")
    dim = int(np.fromfile(file.path, "<i4", 1)[0])
    if not 1 <= dim <= file_dim_max:
        raise Corruption(f"{file.name}: byte 0 says dim {dim}, expected 1 to {file_dim_max:,}: not a {format} file")
    record = vecs_record_bytes(format, dim)
    if size % record:
        raise Corruption(
            f"{file.name}: {size:,} bytes is not whole {format} records of {record:,} bytes (dim {dim}): "
            f"{size % record:,} bytes after row {size // record - 1}; truncated, or rows of unequal dim"
        )
    raw = map_array(file.path, 0, (size // record, record), np.dtype("u1"))
    dims = raw[:, :4].view("<i4")[:, 0]
    source = MappedSource(file, format, raw[:, 4:].view(VECS[format]), check_finite, dims)
    if dims[-1] != dim:
        source._read(len(source) - 1, len(source))  # raises with the row's place
    return source


def open_bin(file: InputFile, format: str, check_finite: bool) -> MappedSource:
    """Open an fbin, ibin, hbin, u8bin or i8bin file."""
    size = os.path.getsize(file.path)
    if size < 8:
        raise Corruption(f"{file.name}: {size} bytes, expected at least the 8 bytes of a {format} header")
    n, dim = (int(x) for x in np.fromfile(file.path, "<u4", 2))
    expected = bin_file_bytes(format, n, dim)
    if size != expected:
        raise Corruption(
            f"{file.name}: header says {n:,} x {dim:,} {BINS[format].name}, "
            f"expected {expected:,} bytes, the file has {size:,}: "
            f"{'truncated' if size < expected else 'too long'}, or not a {format} file"
        )
    if not 1 <= dim <= file_dim_max:
        raise Corruption(f"{file.name}: byte 4 says dim {dim}, expected 1 to {file_dim_max:,}: not a {format} file")
    return MappedSource(file, format, map_array(file.path, 8, (n, dim), BINS[format]), check_finite)


def open_npy(file: InputFile, check_finite: bool) -> MappedSource:
    """Open an npy file that holds one matrix of real numbers; object arrays are refused unread."""
    size = os.path.getsize(file.path)
    with open(file.path, "rb") as handle:
        shape, fortran, dtype = npy_header(handle, file.name)
        offset = handle.tell()
    if dtype.hasobject or dtype.kind not in "fiu":
        hint = "; pack bits with numpy.packbits, and say --metric hamming" if dtype.kind == "b" else ""
        raise InvalidArgument(f"{file.name}: dtype {dtype}, expected float or integer numbers{hint}")
    if len(shape) != 2:
        raise InvalidArgument(f"{file.name}: shape {shape}, expected a matrix (n, dim)")
    expected = offset + shape[0] * shape[1] * dtype.itemsize
    if size != expected:
        raise Corruption(
            f"{file.name}: header says {shape[0]:,} x {shape[1]:,} {dtype.name}, "
            f"expected {expected:,} bytes, the file has {size:,}"
        )
    return MappedSource(file, "npy", map_array(file.path, offset, shape, dtype, "F" if fortran else "C"), check_finite)


def npy_header(handle: IO[bytes], name: str) -> tuple[tuple[int, ...], bool, np.dtype[np.generic]]:
    try:
        version = np.lib.format.read_magic(handle)
        if version == (1, 0):
            return np.lib.format.read_array_header_1_0(handle)
        return np.lib.format.read_array_header_2_0(handle)
    except (ValueError, EOFError, UnicodeDecodeError, SyntaxError, TypeError) as error:
        raise Corruption(f"{name}: damaged npy header: {error}") from error
