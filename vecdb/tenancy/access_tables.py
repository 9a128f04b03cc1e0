"""The two tables of access lists as LMDB holds them.

    access[row]      -> numbers of tenants     the truth, with a checksum      (keys.py and record_format.py draw them)
    members[number]  -> rows                   the same pairs the other way round

Neither is the whole truth: the journal lies over both (access_journal.py). Everything is done for arrays of pairs at
once, in any transaction; what changes the tables is called on the commit thread.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from vecdb.errors import Corruption
from vecdb.storage.kv import keys, record_format
from vecdb.tenancy.pairs import NOTHING, RowTenantPairs, subtract, unite
from vecdb.validate.common import breathe, slices

if TYPE_CHECKING:
    from vecdb.storage.kv.store import Store, Txn

_SLICE = 512  # entries per stretch of bytecode, about 200 us
_ROW = np.dtype([("row", "<u8")])
_MEMBER = np.dtype([("key", f"V{keys.PREFIX_BYTES + 8}"), *_ROW.descr])
_ROWS_AT_ONCE = 1 << 20  # of a tenant, in 30 MB
_ROWS_SLICE = 4_096  # 1 ms


@dataclass(frozen=True, slots=True)
class AccessTables:
    """Those of one generation. where : what messages call the collection."""

    store: Store
    prefix: bytes
    where: str

    # -- reading -----------------------------------------------------------------------------------

    def lists_of(self, txn: Txn, rows: NDArray[np.int64]) -> RowTenantPairs:
        """The pairs of rows (distinct, ascending), each list compared with its checksum. Raises Corruption."""
        cursor = txn.cursor(db=self.store.access)
        all_rows, all_numbers = [], []
        for start, stop in slices(len(rows), _SLICE):
            found = cursor.getmulti(keys.all_numbered(self.prefix, rows[start:stop]))
            if not found:
                continue
            there = keys.numbers_of([key for key, _ in found])
            numbers, counts = record_format.decode_access([raw for _, raw in found], there, self.where)
            all_rows.append(np.repeat(there, counts))
            all_numbers.append(numbers)
        return RowTenantPairs.of(np.concatenate(all_rows), np.concatenate(all_numbers)) if all_rows else NOTHING

    def count_of(self, txn: Txn, number: int) -> int:
        """How many rows a tenant has."""
        cursor = txn.cursor(db=self.store.members)
        return int(cursor.count()) if cursor.set_key(keys.row_key(self.prefix, number)) else 0

    def count_among(self, txn: Txn, number: int, rows: NDArray[np.uint32]) -> int:
        """How many of `rows` a tenant has."""
        key, find = keys.row_key(self.prefix, number), txn.cursor(db=self.store.members).set_key_dup
        values = rows.astype("<u8").view("V8")
        count = 0
        for start, stop in slices(len(values), _SLICE):
            count += sum(find(key, row) for row in values[start:stop].tolist())
        return count

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
        """Both tables."""
        self.change_lists(txn, granted, revoked)
        self.change_members(txn, granted, revoked)

    def change_lists(self, txn: Txn, granted: RowTenantPairs, revoked: RowTenantPairs) -> None:
        """Write the lists of all rows that are named; those that come to nothing go. Raises Corruption before it
        changes anything.
        """
        rows = np.union1d(granted.rows, revoked.rows)
        present = self.lists_of(txn, rows)
        lists = unite(subtract(present, revoked), granted)
        for key in keys.all_numbered(self.prefix, np.setdiff1d(present.rows, lists.rows)):
            txn.delete(key, db=self.store.access)
        self.write_lists(txn, lists)

    def change_members(self, txn: Txn, granted: RowTenantPairs, revoked: RowTenantPairs) -> None:
        cursor = txn.cursor(db=self.store.members)
        find, delete = cursor.set_key_dup, cursor.delete
        for entries in self._members(revoked):
            for key, row in entries:
                if find(key, row):
                    delete()
        for entries in self._members(granted):
            cursor.putmulti(entries)

    def write(self, txn: Txn, lists: RowTenantPairs) -> None:
        """Whole lists of rows that had none, in both tables."""
        self.write_lists(txn, lists)
        self.change_members(txn, lists, NOTHING)

    def write_lists(self, txn: Txn, lists: RowTenantPairs) -> None:
        """Put whole lists: all pairs of each row that is in `lists`."""
        rows, counts = lists.counts()
        numbers, ends = lists.numbers, np.cumsum(counts)
        cursor = txn.cursor(db=self.store.access)
        for start, stop in slices(len(rows), _SLICE):
            first = int(ends[start - 1]) if start else 0
            raws = record_format.encode_access(numbers[first : int(ends[stop - 1])], counts[start:stop])
            cursor.putmulti(list(zip(keys.all_numbered(self.prefix, rows[start:stop]), raws, strict=True)))

    def drop(self, txn: Txn, number: int) -> None:
        """A tenant's pages in `members` go as a whole; in lists its number stays."""
        txn.delete(keys.row_key(self.prefix, number), db=self.store.members)

    def next_generation(self) -> AccessTables:
        uid, generation = keys.split_prefix(self.prefix)
        return AccessTables(self.store, keys.prefix(uid, generation + 1), self.where)

    def _members(self, pairs: RowTenantPairs) -> Iterator[list[tuple[bytes, bytes]]]:
        """Entries of `members`, in their order, a slice at a time."""
        numbers, rows = pairs.by_number()
        values = rows.astype("<u8", copy=False).view("V8")
        for start, stop in slices(len(values), _SLICE):
            yield list(
                zip(keys.all_numbered(self.prefix, numbers[start:stop]), values[start:stop].tolist(), strict=True)
            )


def _values_of(cursor: Any, key: bytes, count: int) -> Iterator[tuple[bytes, np.dtype[Any]]]:
    """What is under a key that `cursor` stands at, in parts, each with its layout. All at once LMDB's binding gives
    each value with its key, 29 bytes a row with what becomes of it; one by one takes 4, and four times as long.
    """
    if count <= _ROWS_AT_ONCE:
        if count:
            yield cursor.getmulti([key], dupdata=True, dupfixed_bytes=8, keyfixed=True), _MEMBER
        return
    values = cursor.iternext_dup()
    while raw := b"".join(itertools.islice(values, _ROWS_SLICE)):
        yield raw, _ROW
        breathe()
