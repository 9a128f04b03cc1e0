"""The two counters of a database: the number of its last commit, and the uid of the next collection.

    state[b"sequence"], state[b"uid"]    the numbers, as they have always been stored
    state[b"counters"]                   crc32 u32 LE of the rest, sequence u64 LE, uid u32 LE: the same numbers

A wrong sequence would give two commits one number, a wrong uid two collections one folder. A database of before the
third key, or that such a version has written to since, is compared with its collections instead.
"""

from __future__ import annotations

import zlib
from typing import NamedTuple

from vecdb.errors import Corruption
from vecdb.storage.kv import catalog, keys
from vecdb.storage.kv.store import Store, Txn

_COUNTERS = b"counters"


class Counters(NamedTuple):
    sequence: int
    uid_next: int


def read(store: Store, txn: Txn) -> Counters:
    """What `txn` sees. Raises Corruption where it cannot be."""
    stored = _plain(store, txn)
    raw = txn.get(_COUNTERS, db=store.state)
    if raw is not None and raw == _encode(stored):
        return stored
    newest, last_uid = _of_collections(store, txn)
    # a version that does not know the key leaves an old one behind, which its checksum shows to be whole
    behind = raw is None or (len(raw) == 16 and int.from_bytes(raw[4:12], "little") < stored.sequence == newest)
    sound = raw is None or zlib.crc32(raw[4:]).to_bytes(4, "little") == raw[:4]
    if not (behind and sound) or stored.sequence < newest or stored.uid_next <= last_uid:
        raise Corruption(
            f"{store.path}: the counters say commit {stored.sequence} and collection {stored.uid_next}, the newest "
            f"collections commit {newest} and {last_uid}, and their checksum says otherwise; restore from a backup"
        )
    return stored


def write(store: Store, txn: Txn, counters: Counters) -> None:
    """In a write transaction: what they are once it is committed."""
    txn.put(keys.SEQUENCE, counters.sequence.to_bytes(8, "little"), db=store.state)
    txn.put(keys.UID_NEXT, counters.uid_next.to_bytes(4, "little"), db=store.state)
    txn.put(_COUNTERS, _encode(counters), db=store.state)


def _plain(store: Store, txn: Txn) -> Counters:
    sequence = txn.get(keys.SEQUENCE, db=store.state) or b""
    uid_next = txn.get(keys.UID_NEXT, db=store.state) or b"\1"
    return Counters(int.from_bytes(bytes(sequence), "little"), int.from_bytes(bytes(uid_next), "little"))


def _encode(counters: Counters) -> bytes:
    try:
        body = counters.sequence.to_bytes(8, "little") + counters.uid_next.to_bytes(4, "little")
    except OverflowError:
        return b""  # no value that was ever written
    return zlib.crc32(body).to_bytes(4, "little") + body


def _of_collections(store: Store, txn: Txn) -> tuple[int, int]:
    """(newest commit of a collection, largest uid); 0 where there is none."""
    newest = last_uid = 0
    for name, raw in txn.cursor(db=store.catalog):
        entry = catalog.decode_entry(bytes(raw), catalog.decode_name(name))
        state = catalog.decode_state(txn.get(keys.uid(entry.uid), db=store.state), entry.name)
        newest, last_uid = max(newest, state.sequence), max(last_uid, entry.uid)
    return newest, last_uid
