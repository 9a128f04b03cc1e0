"""The LMDB databases and the layout of their keys. Integers in keys are big-endian, so that byte order is row order.

    catalog   name                              -> collection entry (msgpack)
    state     uid u32                           -> collection state (msgpack)
              b"sequence" | b"uid"              -> last sequence of the database, u64 LE | uid of the next
              collection, u32 LE
    blocks    prefix, first_row u64             -> block of records (codec.py)
    ids       prefix, owner_len u8, owner, id   -> row u64 LE
    tombs     prefix, sequence u64              -> rows u64 LE, ascending (DUPSORT | DUPFIXED)

prefix := uid u32, generation u32       one generation of one collection; a prefix that no state names is debris,
purged at open id     := u64, sign bit flipped         where the collection's ids are ints (so that negative ids sort
first)
        | utf-8                         where they are strings

All collections share these five databases: a named database of its own for each would have to close its handle when the
collection is dropped, which LMDB allows only while no transaction of any thread is using it.
"""

from __future__ import annotations

import struct

CATALOG, STATE, BLOCKS, IDS, TOMBS = b"catalog", b"state", b"blocks", b"ids", b"tombs"
SEQUENCE, UID_NEXT = b"sequence", b"uid"  # keys of state, next to the 4-byte uids

_PREFIX = struct.Struct(">II")
_KEY = struct.Struct(">IIQ")
PREFIX_BYTES = 8


def uid(number: int) -> bytes:
    return number.to_bytes(4, "big")


def prefix(number: int, generation: int) -> bytes:
    return _PREFIX.pack(number, generation)


def split_prefix(key: bytes) -> tuple[int, int]:
    """(uid, generation) of any key of blocks, ids or tombs."""
    number, generation = _PREFIX.unpack_from(key)
    return number, generation


def after(prefix: bytes) -> bytes | None:
    """The smallest key past every key that starts with `prefix`; None where there is none."""
    number = int.from_bytes(prefix, "big") + 1
    return None if number >> (8 * len(prefix)) else number.to_bytes(len(prefix), "big")


def numbered(prefix: bytes, number: int) -> bytes:
    """Key of a block (by first row) or of the tombs of a commit (by sequence)."""
    return prefix + number.to_bytes(8, "big")


def number_of(key: bytes) -> int:
    """The row or sequence of a key that `numbered` made."""
    return int.from_bytes(key[PREFIX_BYTES:], "big")


def owned(prefix: bytes, owner: bytes) -> bytes:
    """What an id of `owner` is appended to."""
    return prefix + bytes((len(owner),)) + owner


def id_tail(value: int | str) -> bytes:
    """How an id ends its key."""
    return (value + (1 << 63)).to_bytes(8, "big") if isinstance(value, int) else value.encode()


def split_id(key: bytes) -> tuple[bytes, bytes]:
    """(owner, id bytes) of a key of ids."""
    at = PREFIX_BYTES + 1 + key[PREFIX_BYTES]
    return key[PREFIX_BYTES + 1 : at], key[at:]
