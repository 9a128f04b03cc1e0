"""npz and safetensors: named arrays in one file.

    npz          a zip of npy files; the one that is read is unpacked into a temporary file
    safetensors  length u64 LE, header JSON {name: {"dtype": "F32", "shape": [n, dim], "data_offsets": [a, b]}}, data

Of several matrices `key` names one. Ids may stand beside it in an array of one dimension.
"""

from __future__ import annotations

import os
import zipfile
import zlib
from typing import Any

import msgspec
import numpy as np

from vecdb import Corruption, InvalidArgument

from ..inputs import InputFile
from ..source import Array
from .memory_mapped import MappedSource, map_array, npy_header, open_npy
from .named import IdArray, choose_array, choose_ids

header_bytes_max = 100 << 20
_DTYPES = {
    "F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2", "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "i1",
    "U64": "<u8", "U32": "<u4", "U16": "<u2", "U8": "u1", "BOOL": "?",
}  # fmt: skip


class _Tensor(msgspec.Struct):
    dtype: str
    shape: list[int]
    data_offsets: tuple[int, int]


class _BrainFloats(MappedSource):
    """Rows of bfloat16, the upper halves of float32."""

    def __init__(self, file: InputFile, halves: Array, check_finite: bool, ids: IdArray | None) -> None:
        super().__init__(file, "safetensors", halves, check_finite, ids=ids)
        self._halves = halves
        self.dtype = np.dtype("f4")

    def _read(self, start: int, stop: int) -> Array:
        return (self._halves[start:stop].astype("u4") << 16).view("f4")


def open_npz(
    file: InputFile, check_finite: bool, key: str | None, id_column: str | None, new_ids: bool
) -> MappedSource:
    """Open an npz file; arrays of objects are refused unread."""
    try:
        with zipfile.ZipFile(file.path) as archive:
            shapes = {}
            for name in archive.namelist():
                with archive.open(name) as member:
                    shape, _, dtype = npy_header(member, f"{file.name}: {name}")
                    shapes[name.removesuffix(".npy")] = (shape, dtype)
            matrices = [name for name, (shape, dtype) in shapes.items() if len(shape) == 2 and dtype.kind in "fiu"]
            chosen = choose_array(file.name, key, matrices, shapes)
            lines = {name: range(shape[0]) for name, (shape, dtype) in shapes.items() if len(shape) == 1}
            rows = shapes[chosen][0][0]
            named = None if new_ids else choose_ids(file.name, id_column, chosen, rows, lines)
            ids = None
            if named is not None:
                with archive.open(f"{named}.npy") as member:
                    ids = IdArray(file.name, named, np.lib.format.read_array(member, allow_pickle=False))
            unpacked = file.member(lambda: archive.open(f"{chosen}.npy"))
    except (zipfile.BadZipFile, zlib.error, EOFError, KeyError) as error:
        raise Corruption(f"{file.name}: a damaged npz file ({error})") from error
    except ValueError as error:
        if isinstance(error, InvalidArgument):
            raise
        raise InvalidArgument(f"{file.name}: {error}") from error
    source = open_npy(unpacked, check_finite)
    source.format = "npz"
    return source.with_ids(ids)


def open_safetensors(
    file: InputFile, check_finite: bool, key: str | None, id_column: str | None, new_ids: bool
) -> MappedSource:
    """Open a safetensors file."""
    size = os.path.getsize(file.path)
    with open(file.path, "rb") as handle:
        length = int.from_bytes(handle.read(8), "little")
        if not 2 <= length <= min(header_bytes_max, size - 8):
            raise Corruption(f"{file.name}: says a header of {length:,} bytes, the file has {size:,}")
        raw = handle.read(length)
    try:
        entries: dict[str, msgspec.Raw] = msgspec.json.decode(raw, type=dict[str, msgspec.Raw])
        tensors = {
            name: msgspec.json.decode(entry, type=_Tensor) for name, entry in entries.items() if name != "__metadata__"
        }
    except (msgspec.MsgspecError, UnicodeError) as error:
        raise Corruption(f"{file.name}: a damaged safetensors header ({error})") from error
    matrices = [name for name, one in tensors.items() if len(one.shape) == 2 and _DTYPES.get(one.dtype, "?") != "?"]
    chosen = choose_array(file.name, key, matrices, tensors)
    rows = _tensor(file, chosen, tensors[chosen], 8 + length, size)
    lines: dict[str, Any] = {
        name: range(one.shape[0]) for name, one in tensors.items() if len(one.shape) == 1 and one.dtype in _DTYPES
    }
    named = None if new_ids else choose_ids(file.name, id_column, chosen, len(rows), lines)
    ids = None
    if named is not None:
        ids = IdArray(file.name, named, _tensor(file, named, tensors[named], 8 + length, size))
    if tensors[chosen].dtype == "BF16":
        return _BrainFloats(file, rows, check_finite, ids)
    return MappedSource(file, "safetensors", rows, check_finite, ids=ids)


def _tensor(file: InputFile, name: str, tensor: _Tensor, base: int, size: int) -> Array:
    dtype, (start, end) = np.dtype(_DTYPES[tensor.dtype]), tensor.data_offsets
    count = 1
    for length in tensor.shape:
        count *= length
    if min(tensor.shape) < 0 or not 0 <= start <= end <= size - base or end - start != count * dtype.itemsize:
        raise Corruption(
            f"{file.name}: {name!r} is {tensor.shape} {tensor.dtype} at bytes {start:,} to {end:,} of {size - base:,}"
        )
    return map_array(file.path, base + start, tuple(tensor.shape), dtype)
