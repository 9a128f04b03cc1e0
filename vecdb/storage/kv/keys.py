"""The LMDB databases and the layout of their keys. Integers in keys are big-endian, so that byte order is row order.

    catalog   name                              -> collection entry (msgpack)
    state     uid u32                           -> collection state (msgpack)
              b"sequence" | b"uid"              -> last sequence of the database, u64 LE | uid of the next
              collection, u32 LE
              b"counters"                       -> both under a checksum (counters.py)
              b"aliases"                        -> further names of collections (aliases.py)
              b"history"                        -> which process wrote which commits (history.py)
    blocks    prefix, first_row u64             -> block of records (record_format.py)
    ids       prefix, owner_len u8, owner, id   -> row u64 LE
    tombs     prefix, sequence u64              -> rows u64 LE, ascending (DUPSORT | DUPFIXED)
    tenants   uid u32, 0x00                     -> number of the next tenant, u64 LE
              uid u32, 0x01, name utf-8         -> its number, u64 LE; the names of a collection in order
              uid u32, 0x02, number u64         -> tenant (record_format.py): sequence, quota, name
    members   prefix, number u64                -> rows u64, native order, ascending (DUPSORT | DUPFIXED | INTEGERDUP)
    access    prefix, row u64                   -> the record's own list of tenants (record_format.py); no entry: none
    journal   prefix, sequence u64              -> grants and revokes of that commit that wait to be put into
                                                 members and access (record_format.py)
    changes   prefix, row u64                   -> the record's owner and fields where they were changed after its
                                                 block was written (record_format.py); no entry: what the block says
    changed   prefix, sequence u64              -> rows whose fields that commit changed (record_format.py)
    requests  uid u32, 0x00                     -> how many requests are known, u64 LE
              uid u32, 0x01, request id         -> the answer that it was given (idempotency.py)
              uid u32, 0x02, sequence u64, place u32   -> request id; in the order of the commits

prefix := uid u32, generation u32       one generation of one collection; entries under a prefix that no state names
                                        were left by a crash, and are removed at open
id     := u64, sign bit flipped         where the collection's ids are ints (so that negative ids sort first)
        | utf-8                         where they are strings

A tenant's number is used once in the life of its collection. `access` is the truth about who may see a record, with a
checksum; `members` holds the same pairs by tenant, of live records only, and can be derived from it. The journal
applies on top of both (access_journal.py); the collection's state says which entries it has. A number in `access` that
has no tenant belonged to one that was dropped: it means nobody, and the next vacuum leaves it out.

`changes` holds the newest fields of a record, until a vacuum puts them into a block; the collection's state counts the
entries. `changed` tells processes that follow which ones to look at. It keeps the newest commits without a gap; of
older ones the entries of `changes` tell. An entry of a row that has died since is ignored.

All collections share these databases. If each had named databases of its own, their handles would have to be closed
when the collection is dropped, which LMDB allows only while no transaction of any thread uses them.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

CATALOG, STATE, BLOCKS, IDS, TOMBS = b"catalog", b"state", b"blocks", b"ids", b"tombs"
TENANTS, MEMBERS, ACCESS, REQUESTS, JOURNAL = b"tenants", b"members", b"access", b"requests", b"journal"
CHANGES, CHANGED = b"changes", b"changed"
DATABASES: dict[bytes, dict[str, bool]] = {
    CATALOG: {},
    STATE: {},
    BLOCKS: {},
    IDS: {},
    TOMBS: {"dupsort": True, "dupfixed": True},
    TENANTS: {},
    MEMBERS: {"dupsort": True, "dupfixed": True, "integerdup": True},
    ACCESS: {},
    REQUESTS: {},
    JOURNAL: {},
    CHANGES: {},
    CHANGED: {},
}
ADDED_LATER = (CHANGES, CHANGED)  # missing where no process of this version has opened the environment for writing yet
BY_GENERATION = (BLOCKS, IDS, TOMBS, MEMBERS, ACCESS, JOURNAL, CHANGES, CHANGED)  # keys begin with a prefix
BY_UID = (TENANTS, REQUESTS)  # keys begin with a uid alone
_NEXT, _NAME, _NUMBER = b"\0", b"\1", b"\2"  # kinds of keys of `tenants`, after the uid
_COUNTED, _REQUEST, _ORDERED = b"\0", b"\1", b"\2"  # kinds of keys of `requests`
UID_BYTES = 4
SEQUENCE, UID_NEXT = b"sequence", b"uid"  # keys of state, next to the 4-byte uids

_PREFIX = struct.Struct(">II")
PREFIX_BYTES = 8


def uid(number: int) -> bytes:
    return number.to_bytes(4, "big")


def prefix(number: int, generation: int) -> bytes:
    return _PREFIX.pack(number, generation)


def split_prefix(key: bytes) -> tuple[int, int]:
    """(uid, generation) of any key that begins with a prefix."""
    number, generation = _PREFIX.unpack_from(key)
    return number, generation


def prefix_end(prefix: bytes) -> bytes | None:
    """The smallest key past every key that starts with `prefix`; None where there is none."""
    number = int.from_bytes(prefix, "big") + 1
    return None if number >> (8 * len(prefix)) else number.to_bytes(len(prefix), "big")


def row_key(prefix: bytes, number: int) -> bytes:
    """Key of a block (by first row), of a commit's deletions, journal entry or changed rows, of a tenant's rows, of a
    row's list or changed fields.
    """
    return prefix + number.to_bytes(8, "big")


def number_of(key: bytes) -> int:
    """The number in a key that `row_key` made."""
    return int.from_bytes(key[PREFIX_BYTES:], "big")


def numbers_of(keys: Iterable[Any]) -> NDArray[np.int64]:
    """int64[n]: `number_of` each of many keys (bytes or buffers)."""
    return np.frombuffer(b"".join(keys), [("head", f"V{PREFIX_BYTES}"), ("number", ">u8")])["number"].astype(np.int64)


def row_keys(head: bytes, numbers: NDArray[Any]) -> list[bytes]:
    """`row_key` of each of many numbers (integers, none negative) behind one prefix or other head."""
    made = np.empty(len(numbers), [("head", f"V{len(head)}"), ("number", ">u8")])
    made["head"] = np.void(head)
    made["number"] = numbers
    keys: list[bytes] = made.view(f"V{len(head) + 8}").tolist()
    return keys


def tenant_next(number: int) -> bytes:
    """Where the collection `number` keeps the number of its next tenant."""
    return number.to_bytes(4, "big") + _NEXT


def tenant_names(number: int) -> bytes:
    """The keys by a tenant's name are this and the name."""
    return number.to_bytes(4, "big") + _NAME


def tenant_numbers(number: int) -> bytes:
    """The keys by a tenant's number are this and the number, u64 BE."""
    return number.to_bytes(4, "big") + _NUMBER


def requests_counted(number: int) -> bytes:
    """Where the collection `number` keeps how many requests it knows."""
    return number.to_bytes(4, "big") + _COUNTED


def request_ids(number: int) -> bytes:
    """The keys by a request's id are this and the id."""
    return number.to_bytes(4, "big") + _REQUEST


def requests_in_order(number: int) -> bytes:
    """The keys in order are this, the request's sequence, u64 BE, and its position in the commit, u32 BE."""
    return number.to_bytes(4, "big") + _ORDERED


def owner_prefix(prefix: bytes, owner: bytes) -> bytes:
    """The key of an id of `owner` is this and `id_key_bytes` of the id."""
    return prefix + bytes((len(owner),)) + owner


def id_key_bytes(value: int | str) -> bytes:
    """The bytes of an id in its key."""
    return (value + (1 << 63)).to_bytes(8, "big") if isinstance(value, int) else value.encode()


def id_of_bytes(raw: bytes, id_kind: str | None) -> int | str:
    """The id of which `id_key_bytes` made these bytes. id_kind : of the collection, "int" or "str"."""
    return raw.decode() if id_kind == "str" else int.from_bytes(raw, "big") - (1 << 63)


def split_id(key: bytes) -> tuple[bytes, bytes]:
    """(owner, id bytes) of a key of ids."""
    at = PREFIX_BYTES + 1 + key[PREFIX_BYTES]
    return key[PREFIX_BYTES + 1 : at], key[at:]
