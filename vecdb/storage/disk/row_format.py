"""Layout of the row file (row_file.py). Integers are little-endian.

    file   := header row*
    header := magic "VROW" | version u16 | dtype u16 | crc u32 | dim u32 | generation u64 | zero padding to 4,096 bytes
    row    := dim x dtype          its CRC-32C is in its record's block (record_format.py)
    crc    := zlib.crc32 of the fields of the header with the crc field zero

A version that this code does not know is refused.
"""

from __future__ import annotations

import struct
import zlib

from vecdb.errors import Corruption
from vecdb.schema import DTYPES
from vecdb.storage.disk.filesystem import PAGE

HEADER_BYTES = PAGE
_HEADER = struct.Struct("<4sHHIIQ")
_MAGIC = b"VROW"
_VERSION = 1
_CRC_AT = 8


def encode_header(dtype: str, dim: int, generation: int) -> bytes:
    head = _HEADER.pack(_MAGIC, _VERSION, DTYPES.index(dtype), 0, dim, generation)
    crc = zlib.crc32(head)
    head = head[:_CRC_AT] + struct.pack("<I", crc) + head[_CRC_AT + 4 :]
    return head.ljust(HEADER_BYTES, b"\0")


def check_header(raw: bytes, dtype: str, dim: int, generation: int, where: str) -> None:
    """Raises `Corruption` unless `raw` is the header that `encode_header` gives for the same arguments."""
    expected = encode_header(dtype, dim, generation)
    if raw != expected:
        at = next(
            (i for i, (a, b) in enumerate(zip(raw, expected, strict=False)) if a != b), min(len(raw), len(expected))
        )
        raise Corruption(
            f"{where}: header differs at byte {at} from that of {dtype} x {dim}, generation {generation} "
            f"(found {raw[at : at + 4].hex() or 'nothing'}, expected {expected[at : at + 4].hex()})"
        )
