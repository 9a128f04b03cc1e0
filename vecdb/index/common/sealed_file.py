"""The container of sealed index files: immutable, every byte under a checksum.

    file    := magic[8], header_length u32 LE, header_crc u32 LE, header json, section*
    header  := {version, ..., sections: [[name, dtype, shape, offset, crc32c], ...]}
    section := zeros up to a multiple of 4,096, then the array, C order, little-endian

header_crc is the CRC-32C of the header's json. Offsets count from the start of the file.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vecdb.errors import Corruption
from vecdb.kernels.primitives import checksums
from vecdb.storage.disk import filesystem, mapped_memory

_PREFIX = struct.Struct("<8sII")
_ALIGN = 4096


def crc_of(data: NDArray[Any]) -> int:
    """CRC-32C of an array's bytes, C order; 0 of none."""
    raw = np.ascontiguousarray(data).reshape(-1).view(np.uint8)
    return int(checksums.crc_rows(raw.reshape(1, -1))[0]) if raw.size else 0


def common_header(kind: str, metric: str, vectors: NDArray[Any]) -> dict[str, Any]:
    """What the header of every sealed index says of its collection. vectors : stored dtype[n, dim]."""
    return {"kind": kind, "metric": metric, "dtype": str(vectors.dtype), "dim": int(vectors.shape[1])}


def write(path: Path, magic: bytes, header: dict[str, Any], arrays: dict[str, NDArray[Any]]) -> int:
    """Write the file as a whole, synced. Returns its bytes."""
    offset = _ALIGN
    sections = []
    for name, array in arrays.items():
        sections.append([name, array.dtype.str, list(array.shape), offset, crc_of(array)])
        offset += -(-array.nbytes // _ALIGN) * _ALIGN
    encoded = json.dumps({**header, "sections": sections}).encode()
    assert _PREFIX.size + len(encoded) <= _ALIGN

    def chunks() -> Iterator[Any]:
        head = _PREFIX.pack(magic, len(encoded), crc_of(np.frombuffer(encoded, np.uint8))) + encoded
        yield head.ljust(_ALIGN, b"\0")
        for array in arrays.values():
            if array.nbytes:
                yield np.ascontiguousarray(array).reshape(-1).view(np.uint8)
                yield bytes(-array.nbytes % _ALIGN)

    return filesystem.write_atomic(path, chunks())


def read(path: Path, magic: bytes, *versions: int) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """(header, arrays mapped read-only) of a file of one of these versions. Raises Corruption where any byte is not as
    written; FileNotFoundError.
    """
    data = mapped_memory.map_readonly(path)
    header = _header(path, data, magic, versions)
    return header, _sections(path, data, header)


def corrupt_file_error(path: Path, place: str, expected: object, actual: object) -> Corruption:
    """The error for a sealed file that cannot be used."""
    return Corruption(f"{path}, {place}: expected {expected}, got {actual}; the index can be rebuilt from the rows")


def check_header(path: Path, header: dict[str, Any], wanted: dict[str, Any]) -> None:
    """Raise Corruption where the header does not say what the collection does."""
    for name, value in wanted.items():
        if header[name] != value:
            raise corrupt_file_error(path, f"header, {name}", value, header[name])


def _header(path: Path, data: NDArray[np.uint8], expected_magic: bytes, versions: tuple[int, ...]) -> dict[str, Any]:
    if len(data) < _ALIGN:
        raise corrupt_file_error(path, "length", f"at least {_ALIGN} bytes", len(data))
    magic, length, crc = _PREFIX.unpack(data[: _PREFIX.size].tobytes())
    if magic != expected_magic:
        raise corrupt_file_error(path, "byte 0, magic", expected_magic, magic)
    if length > _ALIGN - _PREFIX.size:
        raise corrupt_file_error(path, "byte 8, header length", f"at most {_ALIGN - _PREFIX.size}", length)
    encoded = data[_PREFIX.size : _PREFIX.size + length].copy()
    if crc_of(encoded) != crc:
        raise corrupt_file_error(path, "byte 12, header checksum", f"{crc:#010x}", f"{crc_of(encoded):#010x}")
    header: dict[str, Any] = json.loads(encoded.tobytes())
    if header["version"] not in versions:
        raise corrupt_file_error(path, "header, version", " or ".join(map(str, versions)), header["version"])
    padding = data[_PREFIX.size + length : _ALIGN]
    if padding.any():
        raise corrupt_file_error(path, f"byte {_PREFIX.size + length}, padding", "zeros", "other bytes")
    return header


def _sections(path: Path, data: NDArray[np.uint8], header: dict[str, Any]) -> dict[str, NDArray[Any]]:
    arrays = {}
    end = _ALIGN
    for name, dtype, shape, offset, crc in header["sections"]:
        nbytes = int(np.prod(shape)) * np.dtype(dtype).itemsize
        end = offset + -(-nbytes // _ALIGN) * _ALIGN
        if end > len(data):
            raise corrupt_file_error(path, f"section {name}", f"{end} bytes", len(data))
        raw = data[offset : offset + nbytes]
        if crc_of(raw) != crc:
            raise corrupt_file_error(
                path, f"section {name} at byte {offset}, checksum", f"{crc:#010x}", f"{crc_of(raw):#010x}"
            )
        if data[offset + nbytes : end].any():
            raise corrupt_file_error(path, f"byte {offset + nbytes}, padding", "zeros", "other bytes")
        arrays[name] = raw.view(dtype).reshape(shape)
    if end != len(data):
        raise corrupt_file_error(path, "length", f"{end} bytes", len(data))
    return arrays
