"""The journal of access lists: grants and revokes that wait to be merged into the tables.

    journal[sequence] -> pairs granted, pairs revoked by that commit, of rows that existed before it
                                                                             (keys.py and record_format.py draw it)

A pair lies in two tables, and changing it there writes a page of each: 4 kB for a pair of one tenant and 11 kB for one
of many, in batches of 1,000. An entry takes eight bytes a pair, and a revoke is durable when its entry is. Entries wait
until a merge (journal_merge.py) puts many of them into the tables at once, in the order of the tables.

    list of a row    = access[row]     - revoked + granted
    rows of a tenant = members[number] - revoked + granted

An entry says which pairs exist and which do not, not what changes. So it stays true over tables that hold a part of it
already, or all of it: a merge may take any number of commits, may die between any two of them, and another one may
start from the beginning. Entries are removed when the tables hold all that they say. Of several entries that name a
pair the last one counts. Code that writes to the tables directly must also write a journal entry wherever the journal
says otherwise.

The state of the collection says how many entries there are, and from which commit to which: if LMDB lost one, a
revoked record would become visible again.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vecdb import limits
from vecdb.errors import Corruption
from vecdb.storage.kv import catalog, keys, record_format
from vecdb.storage.kv.store import Store, Txn
from vecdb.tenancy.access_tables import AccessTables
from vecdb.tenancy.pairs import (
    NO_PAIRS,
    RowTenantPairs,
    apply_changes,
    by_tenant,
    common,
    numbers_of,
    rows_of,
    rows_of_tenant,
    select_rows,
)

Rows = NDArray[np.uint32]
_LOOK_UP_ROWS = 64  # looking one row up takes as long as reading so many rows of a tenant in order


class AccessDelta:
    """Pairs that exist and pairs that do not, whatever the tables say. Never changed.

    granted, revoked : no pair is in both.   pair_count : of both.
    """

    __slots__ = ("_by_tenant", "granted", "pair_count", "revoked")

    def __init__(self, granted: RowTenantPairs = NO_PAIRS, revoked: RowTenantPairs = NO_PAIRS) -> None:
        self.granted = granted
        self.revoked = revoked
        self.pair_count = len(granted) + len(revoked)
        self._by_tenant: tuple[NDArray[np.uint64], NDArray[np.uint64]] | None = None

    def then(self, later: AccessDelta) -> AccessDelta:
        """Both; of a pair that both name, what `later` says."""
        if not later.pair_count or not self.pair_count:
            return self if self.pair_count else later
        granted, revoked = later.granted, later.revoked
        return AccessDelta(apply_changes(self.granted, revoked, granted), apply_changes(self.revoked, granted, revoked))

    def over(self, lists: RowTenantPairs, rows: NDArray[np.int64]) -> RowTenantPairs:
        """The lists of rows (distinct, ascending) whose lists in the table are `lists`."""
        if not self.pair_count:
            return lists
        return apply_changes(lists, select_rows(self.revoked, rows), select_rows(self.granted, rows))

    def of_tenant(self, number: int) -> tuple[Rows, Rows]:
        """(rows granted, rows revoked): uint32, ascending."""
        if self._by_tenant is None:  # the first caller sorts; two at the same time get the same result
            self._by_tenant = np.sort(by_tenant(self.granted)), np.sort(by_tenant(self.revoked))
        granted, revoked = self._by_tenant
        return rows_of_tenant(granted, number).astype(np.uint32), rows_of_tenant(revoked, number).astype(np.uint32)

    def denied_by(self, later: AccessDelta) -> AccessDelta:
        """Those facts of `later` that contradict this one."""
        return AccessDelta(common(later.granted, self.revoked), common(later.revoked, self.granted))


NO_CHANGES = AccessDelta()


def _last_words(steps: list[tuple[NDArray[np.int64], NDArray[np.int64]]]) -> AccessDelta:
    """The result of steps, each (granted, revoked), that follow one another."""
    if not steps:
        return NO_CHANGES
    said = np.concatenate([part for step in steps for part in step])
    is_grant = np.repeat(np.tile([True, False], len(steps)), [len(part) for step in steps for part in step])
    order = np.argsort(said, kind="stable")
    last = order[np.diff(said[order], append=np.int64(-1)) != 0]
    return AccessDelta(said[last[is_grant[last]]], said[last[~is_grant[last]]])


@dataclass(frozen=True, slots=True)
class AccessReader:
    """Who sees what, in one transaction: the tables with changes on top."""

    tables: AccessTables
    txn: Txn
    changes: AccessDelta

    def lists_of(self, rows: NDArray[np.int64]) -> RowTenantPairs:
        """The pairs of rows (distinct, ascending). Raises Corruption."""
        return self.changes.over(self.tables.lists_of(self.txn, rows), rows)

    def rows_of(self, number: int, row_count: int) -> Rows:
        """uint32[n]: the rows of a tenant, ascending. Raises Corruption."""
        coming, going = self.changes.of_tenant(number)
        return apply_changes(self.tables.rows_of(self.txn, number, row_count), going, coming)

    def count_of(self, number: int) -> int:
        """How many records a tenant has."""
        coming, going = self.changes.of_tenant(number)
        in_table = self.tables.count_of(self.txn, number)
        if _LOOK_UP_ROWS * (len(coming) + len(going)) > in_table:
            return len(self.rows_of(number, limits.rows_max))
        known = int(self.tables.has(self.txn, number, coming).sum())
        return in_table + len(coming) - known - int(self.tables.has(self.txn, number, going).sum())

    def has(self, number: int, rows: NDArray[np.int64]) -> NDArray[np.bool_]:
        """bool[n]: which of some rows a tenant has. It takes as long whether it has them or not."""
        coming, going = self.changes.of_tenant(number)
        in_table = self.tables.has(self.txn, number, rows)
        return (in_table & ~np.isin(rows, going)) | np.isin(rows, coming)

    def confirm(self, number: int, rows: Rows) -> None:
        """Check that each of a tenant's rows names it in its own list, which has a checksum. Raises Corruption."""
        for start in range(0, len(rows), limits.block_rows_max):
            part = rows[start : start + limits.block_rows_max].astype(np.int64)
            lists = self.lists_of(part)
            confirmed = rows_of(lists[numbers_of(lists) == number])
            if len(confirmed) != len(part):
                row = int(np.setdiff1d(part, confirmed)[0])
                raise Corruption(
                    f"{self.tables.where}: tenant {number} has row {row}, whose access list does not name it; "
                    "restore from a backup"
                )


class AccessJournal:
    """The journal of one generation, and what this process has read of it. Any thread may use it; `write` and `forget`
    are called on the commit thread.
    """

    def __init__(self, store: Store, prefix: bytes, where: str) -> None:
        self.tables = AccessTables(store, prefix, where)
        self._known: tuple[catalog.JournalExtent | None, AccessDelta] = (None, NO_CHANGES)

    @property
    def waiting(self) -> float:
        """How full the journal is, as far as this process knows; past 1 it should be merged into the tables."""
        extent, changes = self._known
        entries = 0 if extent is None else extent.entries
        return max(changes.pair_count / limits.journal_pairs, entries / limits.journal_entries)

    def at(self, txn: Txn, state: catalog.CommittedState) -> AccessReader:
        """Who sees what in a transaction that reads `state`. Raises Corruption."""
        return AccessReader(self.tables, txn, self.changes(txn, state.journal))

    def changes(self, txn: Txn, extent: catalog.JournalExtent | None) -> AccessDelta:
        """What the entries of `extent`, all of them committed, say together. Raises Corruption."""
        if extent is None:
            return NO_CHANGES
        known, changes = self._known
        if known == extent:
            return changes
        grown = known is not None and known.first == extent.first and known.last < extent.last
        changes = self.read(txn, extent, known, changes) if grown else self.read(txn, extent)
        if known is None or (extent.last, extent.first) > (known.last, known.first):
            self.publish(extent, changes)
        return changes

    def publish(self, extent: catalog.JournalExtent | None, changes: AccessDelta) -> None:
        """Keep what the newest commit has left in the journal."""
        self._known = (extent, changes)

    def read(
        self,
        txn: Txn,
        extent: catalog.JournalExtent,
        known: catalog.JournalExtent | None = None,
        changes: AccessDelta = NO_CHANGES,
    ) -> AccessDelta:
        """What the entries of `extent` say together; those of `known`, its beginning, say `changes`. Raises
        Corruption.
        """
        store, prefix, where = self.tables.store, self.tables.prefix, self.tables.where
        cursor = txn.cursor(db=store.journal)
        entries, sequence = (0, 0) if known is None else (known.entries, known.last)
        found, steps = cursor.set_range(keys.row_key(prefix, extent.first if known is None else known.last + 1)), []
        while found and entries < extent.entries:
            key = bytes(cursor.key())
            if not key.startswith(prefix):
                break
            sequence = keys.number_of(key)
            steps.append(record_format.decode_journal(cursor.value(), sequence, where))
            entries += 1
            found = cursor.next()
        if (entries, sequence) != (extent.entries, extent.last):
            raise Corruption(
                f"{where}: the journal has {entries} entries up to commit {sequence}, expected {extent.entries} up to "
                f"{extent.last}; restore from a backup"
            )
        return changes.then(_last_words(steps))

    def write(
        self, txn: Txn, sequence: int, changes: AccessDelta, extent: catalog.JournalExtent | None
    ) -> catalog.JournalExtent:
        """Write the entry of commit `sequence` behind those of `extent`. Returns the extent with it."""
        raw = record_format.encode_journal(sequence, changes.granted, changes.revoked)
        txn.put(keys.row_key(self.tables.prefix, sequence), raw, db=self.tables.store.journal)
        if extent is None:
            return catalog.JournalExtent(sequence, sequence, 1)
        return catalog.JournalExtent(extent.first, sequence, extent.entries + 1)

    def forget(self, txn: Txn, through: int, extent: catalog.JournalExtent) -> catalog.JournalExtent | None:
        """Remove the entries of `extent` up to commit `through`. Returns the extent of those that are left."""
        prefix = self.tables.prefix
        cursor = txn.cursor(db=self.tables.store.journal)
        found, left = cursor.set_range(prefix), extent.entries
        while found and keys.number_of(bytes(cursor.key())) <= through and left:
            found = cursor.delete()
            left -= 1
        return catalog.JournalExtent(keys.number_of(bytes(cursor.key())), extent.last, left) if left else None
