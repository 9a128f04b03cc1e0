"""The two tables of access lists as LMDB holds them.

    access[row]      -> numbers of tenants     the truth, with a checksum      (keys.py and record_format.py draw them)
    members[number]  -> rows                   the same pairs by tenant

Changes that wait in the journal (access_journal.py) apply on top of both. Every function takes and returns sets of
pairs. Reading works in any transaction; what changes the tables is called on the commit thread.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vecdb.errors import Corruption
from vecdb.storage.kv import keys, record_format
from vecdb.storage.kv.store import Store, Txn
from vecdb.tenancy.pairs import (
    NO_PAIRS,
    RowTenantPairs,
    apply_changes,
    by_tenant,
    counts_by_row,
    distinct,
    numbers_of,
    rows_of,
)
from vecdb.validate.common import gil_slices, yield_gil

_SLICE = 512  # entries per stretch of bytecode, about 200 us
_ROW = np.dtype([("row", "<u8")])
_MEMBER = np.dtype([("key", f"V{keys.PREFIX_BYTES + 8}"), *_ROW.descr])
_ROWS_AT_ONCE = 1 << 20  # of a tenant, in 30 MB
_ROWS_SLICE = 4_096  # 1 ms
_LOW_32 = 0xFFFFFFFF  # of a pair by tenant: the row


@dataclass(frozen=True, slots=True)
class AccessTables:
    """The tables of one generation. where : the collection's name in messages."""

    store: Store
    prefix: bytes
    where: str

    # -- reading -----------------------------------------------------------------------------------

    def lists_of(self, txn: Txn, rows: NDArray[np.int64]) -> RowTenantPairs:
        """The pairs of rows (distinct, ascending), each list compared with its checksum. Raises Corruption."""
        cursor = txn.cursor(db=self.store.access)
        parts = []
        for start, stop in gil_slices(len(rows), _SLICE):
            found = cursor.getmulti(keys.row_keys(self.prefix, rows[start:stop]))
            if found:
                found_keys, lists = zip(*found, strict=True)
                listed_rows = keys.numbers_of(found_keys)
                numbers, counts = record_format.decode_access(lists, listed_rows, self.where)
                parts.append((np.repeat(listed_rows, counts) << 32) | numbers.view(np.int64))
        return distinct(np.concatenate(parts)) if parts else NO_PAIRS

    def count_of(self, txn: Txn, number: int) -> int:
        """How many rows a tenant has."""
        cursor = txn.cursor(db=self.store.members)
        return int(cursor.count()) if cursor.set_key(keys.row_key(self.prefix, number)) else 0

    def has(self, txn: Txn, number: int, rows: NDArray[Any]) -> NDArray[np.bool_]:
        """bool[n]: which of `rows` a tenant has."""
        key, find = keys.row_key(self.prefix, number), txn.cursor(db=self.store.members).set_key_dup
        values = rows.astype("<u8").view("V8")
        found: list[bool] = []
        for start, stop in gil_slices(len(values), _SLICE):
            found += [find(key, row) for row in values[start:stop].tolist()]
        return np.array(found, bool)

    def rows_of(self, txn: Txn, number: int, row_count: int) -> NDArray[np.uint32]:
        """uint32[n]: the rows of a tenant, ascending. Raises Corruption where they are not rows."""
        key, cursor = keys.row_key(self.prefix, number), txn.cursor(db=self.store.members)
        out = np.empty(cursor.count() if cursor.set_key(key) else 0, np.uint32)
        at, least = 0, 0
        for raw, dtype in _values_of(cursor, key, len(out)):
            if len(raw) % dtype.itemsize or len(raw) // dtype.itemsize > len(out) - at:
                raise self._damaged(number)
            rows = np.frombuffer(raw, dtype)["row"]
            if rows[0] < least or rows[-1] >= row_count or (rows[1:] <= rows[:-1]).any():
                raise Corruption(
                    f"{self.where}: tenant {number} has row {rows.max()} of {row_count}, or rows out of order"
                )
            out[at : at + len(rows)] = rows
            at, least = at + len(rows), int(rows[-1]) + 1
        if at < len(out):
            raise self._damaged(number)
        return out

    def _damaged(self, number: int) -> Corruption:
        return Corruption(f"{self.where}: the rows of tenant {number} are damaged; restore from a backup")

    # -- changing ----------------------------------------------------------------------------------

    def change(self, txn: Txn, granted: RowTenantPairs, revoked: RowTenantPairs) -> None:
        """Change both tables."""
        self.change_lists(txn, granted, revoked)
        self.change_members(txn, granted, revoked)

    def change_lists(self, txn: Txn, granted: RowTenantPairs, revoked: RowTenantPairs) -> None:
        """Rewrite the lists of all rows that are named, and remove those that become empty. Raises Corruption before
        it changes anything.
        """
        present = self.lists_of(txn, np.union1d(rows_of(granted), rows_of(revoked)))
        lists = apply_changes(present, revoked, granted)
        for key in keys.row_keys(self.prefix, np.setdiff1d(rows_of(present), rows_of(lists))):
            txn.delete(key, db=self.store.access)
        self.write_lists(txn, lists)

    def change_members(self, txn: Txn, granted: RowTenantPairs, revoked: RowTenantPairs) -> None:
        cursor = txn.cursor(db=self.store.members)
        find, delete = cursor.set_key_dup, cursor.delete
        for pairs, is_grant in ((revoked, False), (granted, True)):
            in_order = np.sort(by_tenant(pairs))
            numbers, rows = in_order >> 32, (in_order & _LOW_32).astype("<u8", copy=False).view("V8")
            for start, stop in gil_slices(len(rows), _SLICE):
                tenant_keys = keys.row_keys(self.prefix, numbers[start:stop])
                entries = zip(tenant_keys, rows[start:stop].tolist(), strict=True)
                if is_grant:
                    cursor.putmulti(list(entries))
                    continue
                for key, row in entries:
                    if find(key, row):
                        delete()

    def write(self, txn: Txn, lists: RowTenantPairs) -> None:
        """Write whole lists of rows that had none, in both tables."""
        self.write_lists(txn, lists)
        self.change_members(txn, lists, NO_PAIRS)

    def write_lists(self, txn: Txn, lists: RowTenantPairs) -> None:
        """Put whole lists: all pairs of each row that is in `lists`."""
        rows, counts = counts_by_row(lists)
        numbers, ends = numbers_of(lists), np.cumsum(counts)
        cursor = txn.cursor(db=self.store.access)
        for start, stop in gil_slices(len(rows), _SLICE):
            first = int(ends[start - 1]) if start else 0
            raws = record_format.encode_access(numbers[first : int(ends[stop - 1])], counts[start:stop])
            cursor.putmulti(list(zip(keys.row_keys(self.prefix, rows[start:stop]), raws, strict=True)))

    def drop(self, txn: Txn, number: int) -> None:
        """Remove all rows of a tenant from `members`; the lists in `access` go on naming its number."""
        txn.delete(keys.row_key(self.prefix, number), db=self.store.members)

    def next_generation(self) -> AccessTables:
        uid, generation = keys.split_prefix(self.prefix)
        return AccessTables(self.store, keys.prefix(uid, generation + 1), self.where)


def _values_of(cursor: Any, key: bytes, count: int) -> Iterator[tuple[bytes, np.dtype[Any]]]:
    """The values of the key at which `cursor` stands, in parts, each with its layout. Read all at once, LMDB's binding
    gives each value with its key, which takes 29 bytes a row in all; read one by one they take 4, and four times as
    long.
    """
    if count <= _ROWS_AT_ONCE:
        if count:
            yield cursor.getmulti([key], dupdata=True, dupfixed_bytes=8, keyfixed=True), _MEMBER
        return
    values = cursor.iternext_dup()
    while raw := b"".join(itertools.islice(values, _ROWS_SLICE)):
        yield raw, _ROW
        yield_gil()
