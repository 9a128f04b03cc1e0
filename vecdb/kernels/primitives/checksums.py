"""Checks of stored and given rows: checksums, and refusal of values that no distance can be computed from."""

from __future__ import annotations

import numpy as np

from vecdb.kernels.compile import kernel, part
from vecdb.kernels.primitives.dot_products import crc32c_row, widen

FINE, NOT_FINITE, NORM_OVERFLOWS, NORM_ZERO = 0, 1, 2, 3


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
        _crc_rows(_writable(data), 0, data.nbytes // len(rows), out)
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
    data = _writable(vectors.reshape(-1).view(np.uint8))
    return int(_verify_rows(data, first, stop, vectors.shape[1] * vectors.itemsize, crcs, verified))


@kernel()
def _first_bad(vectors, cosine, dot_limit):
    for row in range(len(vectors)):
        stored = vectors[row]
        total = np.float64(0.0)
        for j in range(stored.shape[0]):
            x = np.float64(widen(stored[j]))
            total += x * x
        if not total <= dot_limit:
            for j in range(stored.shape[0]):
                if not abs(widen(stored[j])) <= np.float32(3.4028235e38):
                    return row, 1
            return row, 2
        if cosine and total < 1e-75:  # under this the product of two squared norms nears the end of float64's range
            return row, 3
    return -1, 0


def check_finite(vectors: np.ndarray, metric: str) -> tuple[int, int]:
    """First row that no distance can be computed from, and why: (row, reason), (-1, FINE) when all are well.

    vectors : float32 | float16 | int8 | uint8 [n, dim], C-contiguous.
    reason : NOT_FINITE, NORM_OVERFLOWS (a distance between such rows would not fit float32), NORM_ZERO (cosine only).
    """
    # |a - b|^2 <= 4 max |a|^2 must stay below the largest float32.
    if vectors.dtype == np.float16:  # `widen` knows no infinity: look at the exponent's bits
        bad = np.flatnonzero(((vectors.view(np.uint16) & 0x7C00) == 0x7C00).any(axis=1))
        if len(bad):
            row, reason = check_finite(vectors[: bad[0]], metric)
            return (row, reason) if row >= 0 else (int(bad[0]), NOT_FINITE)
    row, reason = _first_bad(_stored(vectors), metric == "cosine", 3.4e38 / 4)
    return int(row), int(reason)


class _Alias:
    def __init__(self, array: np.ndarray) -> None:
        self.base = array
        self.__array_interface__ = {
            "shape": array.shape,
            "typestr": array.dtype.str,
            "data": (array.__array_interface__["data"][0], False),
            "version": 3,
        }


def _writable(array: np.ndarray) -> np.ndarray:
    """The same memory under a writable array type, so that kernels compile once; no kernel writes to such an
    argument.
    """
    if array.flags.writeable:
        return array
    return np.asarray(_Alias(array))


def _stored(vectors: np.ndarray) -> np.ndarray:
    """Vectors as kernels want them: float16 as the uint16 of its bits, one array type for read-only and writable."""
    if vectors.dtype == np.float16:
        vectors = vectors.view(np.uint16)
    return _writable(vectors)


def for_kernels(vectors: np.ndarray) -> np.ndarray:
    """See `_stored`. vectors : C-contiguous; nothing is copied."""
    return _stored(vectors)
