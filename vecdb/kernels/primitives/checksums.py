"""CRC-32C of rows: computed when a row is stored, verified once a process before its vector is used."""

from __future__ import annotations

import numpy as np

from vecdb.kernels.compile import kernel, part
from vecdb.kernels.primitives.crc32c import crc32c_row


@kernel()
def _crc_rows(data, first, row_bytes, out):
    for i in range(len(out)):
        out[i] = crc32c_row(data, first + i, row_bytes)


def crc_rows(rows: np.ndarray) -> np.ndarray:
    """CRC-32C of every row. rows : any dtype [n, width], C-contiguous. Returns uint32[n]."""
    data = rows.reshape(-1).view(np.uint8)
    out = np.empty(len(rows), np.uint32)
    if len(rows):
        # A scalar item of the flat bytes is passed on: one specialisation serves every dtype.
        _crc_rows(for_kernels(data), 0, data.nbytes // len(rows), out)
    return out


@part()
def is_sound(vectors, row, row_bytes, crcs, verified):
    """Whether the row's bytes match its checksum; looked up in the bitmap first, computed once per process.

    The bit is set without an atomic operation: two threads may lose one another's bit, which costs a second
    computation.
    """
    bit = np.uint8(1 << (row & 7))
    if verified[row >> 3] & bit:
        return True
    if crc32c_row(vectors, row, row_bytes) != crcs[row]:
        return False
    verified[row >> 3] |= bit
    return True


@kernel()
def _verify_rows(data, first, stop, row_bytes, crcs, verified):
    for row in range(first, stop):
        if not is_sound(data, row, row_bytes, crcs, verified):
            return row
    return -1


def verify_rows(vectors: np.ndarray, first: int, stop: int, crcs: np.ndarray, verified: np.ndarray) -> int:
    """First row in [first, stop) whose bytes do not match crcs[row], or -1. Skips, and sets, bits of `verified`.

    vectors : stored dtype [n, dim], C-contiguous.   crcs : uint32[n].   verified : uint8[>= n / 8].
    """
    if first >= stop:
        return -1
    data = for_kernels(vectors.reshape(-1).view(np.uint8))
    return int(_verify_rows(data, first, stop, vectors.shape[1] * vectors.itemsize, crcs, verified))


class _Alias:
    """The memory of an array, claimed to be writable (numpy's array interface)."""

    def __init__(self, array: np.ndarray) -> None:
        self.base = array
        self.__array_interface__ = {
            "shape": array.shape,
            "typestr": array.dtype.str,
            "data": (array.__array_interface__["data"][0], False),
            "version": 3,
        }


def for_kernels(vectors: np.ndarray) -> np.ndarray:
    """Vectors as kernels take them: float16 as the uint16 of its bits, and read-only memory under a writable array
    type, so that kernels compile once; no kernel writes to such an argument. Nothing is copied.

    vectors : C-contiguous.
    """
    if vectors.dtype == np.float16:
        vectors = vectors.view(np.uint16)
    return vectors if vectors.flags.writeable else np.asarray(_Alias(vectors))
