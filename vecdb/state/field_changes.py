"""Changes of fields: the owner and fields of a record as they are since its block was written. No row changes by them.

    changes   prefix, row      -> commit, meta        the newest of a record; laid over the block by whoever reads it
    changed   prefix, sequence -> rows                which records that commit changed, for those who follow

`FieldChanges` in the collection's state counts both; None there means that neither is to be looked at. `changed` holds
the newest commits without a gap, up to `limits.changed_rows_logged` rows. A vacuum puts changes into the new blocks:
what is asked here is asked of one generation.

Layouts and checks are those of record_format.py. Thread rule: pure functions of what they are given; the writing ones
run on the commit thread.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vecdb import limits
from vecdb.storage.kv import keys, record_format
from vecdb.storage.kv.catalog import FieldChanges
from vecdb.storage.kv.store import Store, Txn, WriteTxn
from vecdb.validate.common import gil_slices

_SLICE_ENTRIES = 256  # read or written in one stretch of bytecode


def changed_metas(store: Store, txn: Txn, prefix: bytes, rows: Sequence[int], where: str) -> dict[int, bytes]:
    """The meta of each of `rows` that has changed."""
    cursor = _cursor(txn, store.changes)
    metas: dict[int, bytes] = {}
    for start, stop in gil_slices(len(rows), _SLICE_ENTRIES):
        entries = cursor.getmulti([prefix + row.to_bytes(8, "big") for row in rows[start:stop]])
        found = [int.from_bytes(key[keys.PREFIX_BYTES :], "big") for key, _ in entries]
        changes = record_format.decode_changes([raw for _, raw in entries], found, where)
        metas.update(zip(found, [meta for _, meta in changes], strict=True))
    return metas


def iter_changes(
    store: Store, txn: Txn, prefix: bytes, first: int, stop: int, where: str
) -> Iterator[tuple[int, int, bytes]]:
    """(row, commit, meta) of rows [first, stop) that have changed, in their order."""
    cursor = _cursor(txn, store.changes)
    found = cursor.set_range(keys.row_key(prefix, first))
    while found:
        key = bytes(cursor.key())
        row = keys.number_of(key)
        if not key.startswith(prefix) or row >= stop:
            return
        [(sequence, meta)] = record_format.decode_changes([cursor.value()], [row], where)
        yield row, sequence, meta
        found = cursor.next()


def iter_changed(
    store: Store, txn: Txn, prefix: bytes, first_sequence: int, where: str
) -> Iterator[tuple[int, NDArray[np.int64]]]:
    """(commit, rows whose fields it changed: int64[n] ascending) of what `changed` holds, from `first_sequence` on."""
    cursor = _cursor(txn, store.changed)
    found = cursor.set_range(keys.row_key(prefix, first_sequence))
    while found and (key := bytes(cursor.key())).startswith(prefix):
        sequence = keys.number_of(key)
        yield sequence, record_format.decode_changed(cursor.value(), sequence, where)
        found = cursor.next()


def rows_changed(store: Store, txn: Txn, prefix: bytes, first_sequence: int, where: str) -> NDArray[np.int64]:
    """int64[n], ascending: the rows whose fields changed in commits from `first_sequence` on, dead ones too. Of a
    collection whose state has `field_changes`.

    A row that a commit added and changed is not among them: its block was written with what it had at the end.
    """
    cursor = _cursor(txn, store.changed)
    known = cursor.set_range(prefix) and bytes(cursor.key()).startswith(prefix)
    if known and keys.number_of(bytes(cursor.key())) <= first_sequence:
        parts = [rows for _, rows in iter_changed(store, txn, prefix, first_sequence, where)]
        return np.unique(np.concatenate(parts)) if parts else np.empty(0, np.int64)
    found = iter_changes(store, txn, prefix, 0, limits.rows_max + 1, where)
    return np.array([row for row, sequence, _ in found if sequence >= first_sequence], np.int64)


def _cursor(txn: Txn, table: Any) -> Any:
    assert table is not None, "nothing has changed where the tables are missing: the state says not to look"
    return txn.cursor(db=table)


def put_changes(
    write: WriteTxn,
    prefix: bytes,
    rows: NDArray[np.int64],
    metas: Sequence[bytes],
    known: int,
    state: FieldChanges | None,
) -> FieldChanges:
    """Give rows (distinct) these metas. known : how many of them `changed_metas` finds.   state : of the generation;
    returns the new one. The rows are still to be noted by `note_changed`, once a commit.
    """
    cursor = write.txn.cursor(db=write.store.changes)
    order = np.argsort(rows)  # in the order of the keys
    row_keys, numbers = keys.row_keys(prefix, rows[order]), rows[order].tolist()
    ordered = [metas[at] for at in order.tolist()]
    for start, stop in gil_slices(len(rows), _SLICE_ENTRIES):
        values = record_format.encode_changes(numbers[start:stop], write.sequence, ordered[start:stop])
        cursor.putmulti(list(zip(row_keys[start:stop], values, strict=True)))
    before = state or FieldChanges(0, 0, 0)
    return FieldChanges(write.sequence, before.rows + len(rows) - known, before.logged)


def note_changed(
    write: WriteTxn, prefix: bytes, rows: Iterable[NDArray[np.int64]], state: FieldChanges
) -> FieldChanges:
    """Note which rows (some of them more than once) this commit changed, and forget the oldest commits where there are
    more than enough. Returns the new state.
    """
    distinct = np.unique(np.concatenate(list(rows)))
    write.txn.put(
        keys.row_key(prefix, write.sequence), record_format.encode_changed(write.sequence, distinct),
        db=write.store.changed,
    )  # fmt: skip
    logged = state.logged + len(distinct)
    cursor = write.txn.cursor(db=write.store.changed)
    cursor.set_range(prefix)
    while logged > limits.changed_rows_logged and keys.number_of(bytes(cursor.key())) < write.sequence:
        logged -= record_format.changed_count(cursor.value())
        cursor.delete()  # and stands at the next
    return FieldChanges(state.last, state.rows, logged)
