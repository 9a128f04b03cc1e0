"""Blocks of records and deletions of one generation, as a transaction sees them. Arrays and bytes, no memory state.

    blocks   prefix, first_row -> block of records      a row is in the last block that does not begin after it;
                                                       fields that have changed since lie over it (field_changes.py)
    tombs    prefix, sequence  -> rows that the commit deleted

Layouts and checks are those of record_format.py. Where a transaction gives buffers a block is a view, good until the
transaction ends. Thread rule: pure functions of what they are given.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vecdb import limits
from vecdb.errors import Corruption
from vecdb.kernels.primitives.checksums import crc_rows
from vecdb.state.field_changes import changed_metas
from vecdb.storage.kv import keys, record_format
from vecdb.storage.kv.catalog import FieldChanges
from vecdb.storage.kv.store import Store, Txn

_SIGN = np.uint64(1 << 63)
_TOMB = np.dtype([("key", f"V{keys.PREFIX_BYTES + 8}"), ("row", "<u8")])


def iter_blocks(
    store: Store, txn: Txn, prefix: bytes, first: int, stop: int, where: str
) -> Iterator[record_format.Block]:
    """Blocks that hold rows [first, stop), in order. `first` must start a block. Raises Corruption where one is
    missing.
    """
    cursor = txn.cursor(db=store.blocks)
    row = first
    found = cursor.set_range(keys.row_key(prefix, first))
    while row < stop:
        key = bytes(cursor.key()) if found else b""
        if not key.startswith(prefix):
            raise Corruption(f"{where}: no block at row {row}, expected rows up to {stop}; restore from a backup")
        block = record_format.decode_block(cursor.value(), keys.number_of(key), where)
        if block.first_row != row or block.count == 0:
            raise Corruption(
                f"{where}: found the block of row {block.first_row}, expected that of row {row}; restore from a backup"
            )
        yield block
        row += block.count
        found = cursor.next()


def record_block(store: Store, txn: Txn, prefix: bytes, row: int, where: str) -> record_format.Block:
    """The block that holds `row`. Its checksum is not compared again: the code that loaded or wrote it has done so."""
    [(first_row, raw)] = _raw_blocks(store, txn, prefix, [row], where)
    block = record_format.decode_block(raw, first_row, where, verify=False)
    if not block.first_row <= row < block.first_row + block.count:
        raise _no_block(row, where)
    return block


def record_metas(
    store: Store, txn: Txn, prefix: bytes, rows: Sequence[int], where: str, changes: FieldChanges | None
) -> list[bytes]:
    """The meta of each row. The transaction gives buffers, or rows are few: the blocks of all rows are held at once.
    changes : `field_changes` of the state, so that nothing is looked up where nothing has changed.
    """
    if changes is None:
        return _metas_in_blocks(store, txn, prefix, rows, where)
    changed = changed_metas(store, txn, prefix, rows, where)
    if not changed:
        return _metas_in_blocks(store, txn, prefix, rows, where)
    same = [row for row in rows if row not in changed]
    metas = iter(_metas_in_blocks(store, txn, prefix, same, where))
    return [changed[row] if row in changed else next(metas) for row in rows]


def _metas_in_blocks(store: Store, txn: Txn, prefix: bytes, rows: Sequence[int], where: str) -> list[bytes]:
    metas = record_format.metas_of(_raw_blocks(store, txn, prefix, rows, where), rows, where)
    if None in metas:
        raise _no_block(rows[metas.index(None)], where)
    return metas  # type: ignore[return-value]  # none is None


def encoded_fields(
    store: Store, txn: Txn, prefix: bytes, rows: Sequence[int], where: str, changes: FieldChanges | None
) -> list[bytes]:
    """The fields of each row as msgpack. The transaction gives buffers. changes : see `record_metas`."""
    return record_format.fields_of(record_metas(store, txn, prefix, rows, where, changes))


def has_owners(store: Store, txn: Txn, prefix: bytes) -> bool:
    """Whether any record has an owner: their ids come after all others."""
    cursor = txn.cursor(db=store.ids)
    return bool(cursor.set_range(prefix + b"\1")) and bytes(cursor.key()).startswith(prefix)


def _raw_blocks(store: Store, txn: Txn, prefix: bytes, rows: Sequence[int], where: str) -> list[tuple[int, Any]]:
    """For each row (first row by its key, value) of the last block that does not begin after it."""
    cursor = txn.cursor(db=store.blocks)
    find, before, item, from_bytes = cursor.set_range, cursor.prev, cursor.item, int.from_bytes
    found = []
    for row in rows:
        if not 0 <= row <= limits.rows_max:
            raise Corruption(f"{where}: an id leads to row {row}, which cannot be; restore from a backup")
        if not (before() if find(prefix + (row + 1).to_bytes(8, "big")) else cursor.last()):
            raise _no_block(row, where)
        key, raw = item()
        key = bytes(key)  # a buffer where the transaction gives buffers
        if not key.startswith(prefix):
            raise _no_block(row, where)
        found.append((from_bytes(key[keys.PREFIX_BYTES :], "big"), raw))
    return found


def _no_block(row: int, where: str) -> Corruption:
    return Corruption(f"{where}: no block holds row {row}; restore from a backup")


def iter_tombs(store: Store, txn: Txn, prefix: bytes, first_sequence: int) -> Iterator[tuple[int, NDArray[np.int64]]]:
    """(sequence, rows that it deleted: int64[n] ascending) of the commits from `first_sequence` on."""
    cursor = txn.cursor(db=store.tombs)
    if not cursor.set_range(keys.row_key(prefix, first_sequence)):
        return
    found = list(_keys_under(cursor.iternext_nodup(keys=True, values=False), prefix))
    for key in found:
        raw = cursor.getmulti([key], dupdata=True, dupfixed_bytes=8, keyfixed=True)
        if len(key) != keys.PREFIX_BYTES + 8 or len(raw) % _TOMB.itemsize:
            raise Corruption(f"tombs of commit {key[keys.PREFIX_BYTES :].hex()} are damaged; restore from a backup")
        yield keys.number_of(key), np.frombuffer(raw, _TOMB)["row"].astype(np.int64)


def _keys_under(found: Iterator[Any], prefix: bytes) -> Iterator[bytes]:
    for key in map(bytes, found):  # a buffer where the transaction gives buffers
        if not key.startswith(prefix):
            return
        yield key


def id_keys(prefix: bytes, block: record_format.Block, which: NDArray[np.int64]) -> list[bytes]:
    """Keys, in the table of ids, of the records at positions `which` of a block."""
    if block.int_ids and not len(block.metas):
        head = keys.owner_prefix(prefix, b"")
        flipped = (block.int_id_array()[which].view(np.uint64) ^ _SIGN).astype(">u8").view("V8")
        return [head + key for key in flipped.tolist()]
    out = []
    for at in which.tolist():
        owner = record_format.split_meta(block.meta(at))[0]
        out.append(keys.owner_prefix(prefix, owner) + keys.id_key_bytes(block.id(at)))
    return out


def verify_vectors(row_file: Path, rows: NDArray[np.int64], vectors: NDArray[Any], crcs: NDArray[np.uint32]) -> None:
    """Compare copied vectors (stored dtype[n, dim] of `rows`) with their checksums. Raises Corruption, naming the
    first that differs.
    """
    actual = crc_rows(vectors)
    bad = np.flatnonzero(actual != crcs)
    if len(bad):
        at = int(bad[0])
        raise Corruption(
            f"{row_file}: row {int(rows[at])} has crc {int(actual[at]):08x}, "
            f"expected {int(crcs[at]):08x}; restore the database from a backup"
        )
