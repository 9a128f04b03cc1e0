"""Aliases: further names of collections, all in one value, so that one commit switches any number of them.

    state[b"aliases"] -> crc32 u32 LE of the rest, msgpack map: alias -> name of its collection

A name belongs to a collection or is an alias, never both. A database of before aliases has no such key.
"""

from __future__ import annotations

import zlib

import msgspec

from vecdb.errors import Corruption
from vecdb.storage.kv.store import Store, Txn

_KEY = b"aliases"
_encode = msgspec.msgpack.Encoder(order="deterministic").encode
_decode = msgspec.msgpack.Decoder(dict[str, str]).decode


def read(store: Store, txn: Txn) -> dict[str, str]:
    """Name of the collection by alias, sorted. Raises Corruption."""
    raw = txn.get(_KEY, db=store.state)
    if raw is None:
        return {}
    raw = bytes(raw)
    try:
        if raw[:4] != zlib.crc32(raw[4:]).to_bytes(4, "little"):
            raise msgspec.ValidationError("its checksum says otherwise")
        return dict(sorted(_decode(raw[4:]).items()))
    except msgspec.MsgspecError as error:
        raise Corruption(f"the aliases of collections are damaged ({error}); restore from a backup") from None


def write(store: Store, txn: Txn, aliases: dict[str, str]) -> None:
    """In a write transaction: what they are once it is committed."""
    raw = _encode(aliases)
    txn.put(_KEY, zlib.crc32(raw).to_bytes(4, "little") + raw, db=store.state)
