"""The two tables of access lists as LMDB holds them.

    access[row]      -> numbers of tenants     the truth, with a checksum            (keys.py and codec.py draw them)
    members[number]  -> rows                   the same pairs the other way round

Neither is the whole truth: the journal lies over both (journal.py). Everything is done for arrays of pairs at once, in
any transaction; what changes the tables is called on the commit thread.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from vecdb.errors import Corruption
from vecdb.pairs import NOTHING, Pairs, subtract, unite
from vecdb.storage import codec, keys
from vecdb.validate.common import slices

if TYPE_CHECKING:
    from vecdb.storage.store import Store, Txn

_SLICE = 256  # entries per stretch of bytecode, about 100 us
_MEMBER = np.dtype([("key", f"V{keys.PREFIX_BYTES + 8}"), ("row", "<u8")])


@dataclass(frozen=True, slots=True)
class Tables:
    """Those of one generation. where : what messages call the collection."""

    store: Store
    prefix: bytes
    where: str

    # -- reading -----------------------------------------------------------------------------------

    def lists_of(self, txn: Txn, rows: NDArray[np.int64]) -> Pairs:
        """The pairs of rows (distinct, ascending), each list compared with its checksum. Raises Corruption."""
        cursor = txn.cursor(db=self.store.access)
        all_rows, all_numbers = [], []
        for start, stop in slices(len(rows), _SLICE):
            found = cursor.getmulti(keys.all_numbered(self.prefix, rows[start:stop]))
            if not found:
                continue
            there = keys.numbers_of([key for key, _ in found])
            numbers, counts = codec.decode_access([raw for _, raw in found], there, self.where)
            all_rows.append(np.repeat(there, counts))
            all_numbers.append(numbers)
        return Pairs.of(np.concatenate(all_rows), np.concatenate(all_numbers)) if all_rows else NOTHING

    def count_of(self, txn: Txn, number: int) -> int:
        """How many rows a tenant has."""
        cursor = txn.cursor(db=self.store.members)
        return int(cursor.count()) if cursor.set_key(keys.numbered(self.prefix, number)) else 0

    def count_among(self, txn: Txn, number: int, rows: NDArray[np.uint32]) -> int:
        """How many of `rows` a tenant has."""
        key, find = keys.numbered(self.prefix, number), txn.cursor(db=self.store.members).set_key_dup
        values = rows.astype("<u8").view("V8")
        count = 0
        for start, stop in slices(len(values), 2 * _SLICE):
            count += sum(find(key, row) for row in values[start:stop].tolist())
        return count

    def rows_of(self, txn: Txn, number: int, row_count: int) -> NDArray[np.uint32]:
        """uint32[n]: the rows of a tenant, ascending. Raises Corruption where they are not rows."""
        key = keys.numbered(self.prefix, number)
        raw = txn.cursor(db=self.store.members).getmulti([key], dupdata=True, dupfixed_bytes=8, keyfixed=True)
        if not len(raw):
            return np.empty(0, np.uint32)
        if len(raw) % _MEMBER.itemsize:
            raise Corruption(f"{self.where}: the rows of tenant {number} are damaged; restore from a backup")
        rows = np.frombuffer(raw, _MEMBER)["row"].copy()
        if rows[-1] >= row_count or (rows[1:] <= rows[:-1]).any():
            raise Corruption(f"{self.where}: tenant {number} has row {rows.max()} of {row_count}, or rows out of order")
        return rows.astype(np.uint32)

    # -- changing ----------------------------------------------------------------------------------

    def change(self, txn: Txn, granted: Pairs, revoked: Pairs) -> None:
        """Both tables."""
        self.change_lists(txn, granted, revoked)
        self.change_members(txn, granted, revoked)

    def change_lists(self, txn: Txn, granted: Pairs, revoked: Pairs) -> None:
        """Write the lists of all rows that are named; those that come to nothing go. Raises Corruption before it
        changes anything.
        """
        rows = np.union1d(granted.rows, revoked.rows)
        present = self.lists_of(txn, rows)
        lists = unite(subtract(present, revoked), granted)
        for key in keys.all_numbered(self.prefix, np.setdiff1d(present.rows, lists.rows)):
            txn.delete(key, db=self.store.access)
        self.write_lists(txn, lists)

    def change_members(self, txn: Txn, granted: Pairs, revoked: Pairs) -> None:
        cursor = txn.cursor(db=self.store.members)
        find, delete = cursor.set_key_dup, cursor.delete
        for entries in self._members(revoked):
            for key, row in entries:
                if find(key, row):
                    delete()
        for entries in self._members(granted):
            cursor.putmulti(entries)

    def write(self, txn: Txn, lists: Pairs) -> None:
        """Whole lists of rows that had none, in both tables."""
        self.write_lists(txn, lists)
        self.change_members(txn, lists, NOTHING)

    def write_lists(self, txn: Txn, lists: Pairs) -> None:
        """Put whole lists: all pairs of each row that is in `lists`."""
        rows, counts = lists.counts()
        numbers, ends = lists.numbers, np.cumsum(counts)
        cursor = txn.cursor(db=self.store.access)
        for start, stop in slices(len(rows), _SLICE):
            first = int(ends[start - 1]) if start else 0
            raws = codec.encode_access(numbers[first : int(ends[stop - 1])], counts[start:stop])
            cursor.putmulti(list(zip(keys.all_numbered(self.prefix, rows[start:stop]), raws, strict=True)))

    def drop(self, txn: Txn, number: int) -> None:
        """A tenant's pages in `members` go as a whole; in lists its number stays."""
        txn.delete(keys.numbered(self.prefix, number), db=self.store.members)

    def next_generation(self) -> Tables:
        uid, generation = keys.split_prefix(self.prefix)
        return Tables(self.store, keys.prefix(uid, generation + 1), self.where)

    def _members(self, pairs: Pairs) -> Iterator[list[tuple[bytes, bytes]]]:
        """Entries of `members`, in their order, a slice at a time."""
        numbers, rows = pairs.by_number()
        values = rows.astype("<u8", copy=False).view("V8")
        for start, stop in slices(len(values), 2 * _SLICE):
            yield list(
                zip(keys.all_numbered(self.prefix, numbers[start:stop]), values[start:stop].tolist(), strict=True)
            )
