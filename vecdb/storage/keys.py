"""Names of the LMDB databases and the layout of their keys. Integers in keys are big-endian, so that byte order is row order.

    catalog                  name                  -> collection entry
    state                    uid | b"sequence"     -> collection state | last sequence of the database, u64
    <uid>.<gen>.blocks       first_row u64         -> block of records            (codec.py)
    <uid>.<gen>.ids          owner_len u8, owner, id -> row u64 LE
    <uid>.<gen>.tombs        sequence u64          -> rows u64 LE, ascending      (DUPSORT | DUPFIXED)

id := u64 (sign bit flipped, so that negative ids sort first)   where the collection's ids are ints
    | utf-8                                                     where they are strings
"""

from __future__ import annotations

import struct

CATALOG = b"catalog"
STATE = b"state"
SEQUENCE = b"sequence"

_U64 = struct.Struct(">Q")


def blocks(uid: str, generation: int) -> bytes:
    return f"{uid}.{generation}.blocks".encode()


def ids(uid: str, generation: int) -> bytes:
    return f"{uid}.{generation}.ids".encode()


def tombs(uid: str, generation: int) -> bytes:
    return f"{uid}.{generation}.tombs".encode()


def of_generation(uid: str, generation: int) -> tuple[bytes, bytes, bytes]:
    """The databases that make up one generation of one collection."""
    return blocks(uid, generation), ids(uid, generation), tombs(uid, generation)


def u64(value: int) -> bytes:
    return _U64.pack(value)


def from_u64(key: bytes) -> int:
    value: int = _U64.unpack(key)[0]
    return value


def owner_prefix(owner: bytes) -> bytes:
    return bytes((len(owner),)) + owner
