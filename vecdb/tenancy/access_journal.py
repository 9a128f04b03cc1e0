"""Grants and revokes that wait to be put into the tables.

    journal[sequence] -> pairs granted, pairs revoked  by that commit, of rows that were there   (keys.py,
    record_format.py)

A pair lies in two tables, and changing it there writes a page of each: 4 kB for a pair of one tenant and 11 kB for one
of many, in batches of 1,000. An entry is eight bytes a pair, and a revoke is durable when its entry is. Entries wait
until a fold (journal_merge.py) puts many of them into the tables in one go, in the order of the tables.

    list of a row    = access[row]     - revoked + granted
    rows of a tenant = members[number] - revoked + granted

An entry says which pairs there are and which there are not, never that something changes. So it is as true over tables
that hold a part of it already, or all: a fold may take as many commits as it likes, may die between any two, and
another one may begin anew; entries go when all that they say is in the tables. Of several entries the last word
counts. Whoever writes to the tables beside the journal must have the last word in it too, where it says otherwise.

The state of the collection tells how many entries there are, from which commit to which: one that LMDB has lost would
give a revoked record back.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from vecdb import limits
from vecdb.errors import Corruption
from vecdb.storage.kv import catalog, keys, record_format
from vecdb.tenancy.access_tables import AccessTables
from vecdb.tenancy.pairs import NOTHING, RowTenantPairs, common, merged, rows_in, subtract, unite

if TYPE_CHECKING:
    from vecdb.storage.kv.store import Store, Txn

Rows = NDArray[np.uint32]
_LOOK_UP_ROWS = 64  # rows of a tenant that are read in the time that looking one up takes


class AccessDelta:
    """Pairs that there are and pairs that there are not, whatever the tables say. Never changed.

    granted, revoked : no pair is in both.
    """

    __slots__ = ("_by_tenant", "granted", "revoked")

    def __init__(self, granted: RowTenantPairs = NOTHING, revoked: RowTenantPairs = NOTHING) -> None:
        self.granted = granted
        self.revoked = revoked
        self._by_tenant: tuple[NDArray[np.uint64], NDArray[np.uint64]] | None = None

    def __len__(self) -> int:
        return len(self.granted) + len(self.revoked)

    def then(self, later: AccessDelta) -> AccessDelta:
        """Both; of a pair that both name, what the later says."""
        if not len(later) or not len(self):
            return self if len(self) else later
        granted, revoked = later.granted.packed, later.revoked.packed
        return AccessDelta(
            RowTenantPairs(merged(self.granted.packed, revoked, granted)),
            RowTenantPairs(merged(self.revoked.packed, granted, revoked)),
        )

    def over(self, lists: RowTenantPairs, rows: NDArray[np.int64]) -> RowTenantPairs:
        """The lists of rows (distinct, ascending), which hold `lists` in the table."""
        return unite(subtract(lists, self.revoked.of_rows(rows)), self.granted.of_rows(rows))

    def of_tenant(self, number: int) -> tuple[Rows, Rows]:
        """(rows granted, rows revoked): uint32, ascending."""
        if self._by_tenant is None:  # sorted once, by the first who asks; by two at once to the same effect
            self._by_tenant = np.sort(self.granted.turned), np.sort(self.revoked.turned)
        granted, revoked = self._by_tenant
        return rows_in(granted, number).astype(np.uint32), rows_in(revoked, number).astype(np.uint32)

    def denied_by(self, later: AccessDelta) -> AccessDelta:
        """Of `later`, what says otherwise than this."""
        return AccessDelta(common(later.granted, self.revoked), common(later.revoked, self.granted))


NO_CHANGES = AccessDelta()


def _last_words(steps: list[tuple[NDArray[np.int64], NDArray[np.int64]]]) -> AccessDelta:
    """What steps come to, each (granted, revoked), one after the other."""
    if not steps:
        return NO_CHANGES
    said = np.concatenate([part for step in steps for part in step])
    is_grant = np.repeat(np.tile([True, False], len(steps)), [len(part) for step in steps for part in step])
    order = np.argsort(said, kind="stable")
    last = order[np.diff(said[order], append=np.int64(-1)) != 0]
    return AccessDelta(RowTenantPairs(said[last[is_grant[last]]]), RowTenantPairs(said[last[~is_grant[last]]]))


@dataclass(frozen=True, slots=True)
class AccessReader:
    """Who sees what, in one transaction: the tables with changes over them."""

    tables: AccessTables
    txn: Txn
    changes: AccessDelta

    def lists_of(self, rows: NDArray[np.int64]) -> RowTenantPairs:
        """The pairs of rows (distinct, ascending). Raises Corruption."""
        return self.changes.over(self.tables.lists_of(self.txn, rows), rows)

    def rows_of(self, number: int, row_count: int) -> Rows:
        """uint32[n]: the rows of a tenant, ascending. Raises Corruption."""
        coming, going = self.changes.of_tenant(number)
        return merged(self.tables.rows_of(self.txn, number, row_count), going, coming)

    def count_of(self, number: int) -> int:
        """How many records a tenant has."""
        coming, going = self.changes.of_tenant(number)
        there = self.tables.count_of(self.txn, number)
        if _LOOK_UP_ROWS * (len(coming) + len(going)) > there:
            return len(self.rows_of(number, limits.rows_max))
        known = self.tables.count_among(self.txn, number, coming)
        return there + len(coming) - known - self.tables.count_among(self.txn, number, going)

    def confirm(self, number: int, rows: Rows) -> None:
        """That each of a tenant's rows has it in its own list, which carries a checksum. Raises Corruption."""
        for start in range(0, len(rows), limits.block_rows_max):
            part = rows[start : start + limits.block_rows_max].astype(np.int64)
            lists = self.lists_of(part)
            confirmed = lists.rows[lists.numbers == np.uint64(number)]
            if len(confirmed) != len(part):
                row = int(np.setdiff1d(part, confirmed)[0])
                raise Corruption(
                    f"{self.tables.where}: tenant {number} has row {row}, whose access list does not name it; "
                    "restore from a backup"
                )


class AccessJournal:
    """The journal of one generation, and what was read of it. From any thread; `write` and `forget` on the commit
    thread.
    """

    def __init__(self, store: Store, prefix: bytes, where: str) -> None:
        self.tables = AccessTables(store, prefix, where)
        self._known: tuple[catalog.JournalExtent | None, AccessDelta] = (None, NO_CHANGES)

    @property
    def waiting(self) -> float:
        """How much there is, as far as this process knows; past 1 it should be folded."""
        there, changes = self._known
        entries = 0 if there is None else there.entries
        return max(len(changes) / limits.journal_pairs, entries / limits.journal_entries)

    def at(self, txn: Txn, state: catalog.CommittedState) -> AccessReader:
        """Who sees what in a transaction that reads `state`. Raises Corruption."""
        return AccessReader(self.tables, txn, self.changes(txn, state.journal))

    def changes(self, txn: Txn, there: catalog.JournalExtent | None) -> AccessDelta:
        """What the entries say that are `there`, all of them committed. Raises Corruption."""
        if there is None:
            return NO_CHANGES
        known, changes = self._known
        if known == there:
            return changes
        grown = known is not None and known.first == there.first and known.last < there.last
        changes = self.read(txn, there, known, changes) if grown else self.read(txn, there)
        if known is None or (there.last, there.first) > (known.last, known.first):
            self.publish(there, changes)
        return changes

    def publish(self, there: catalog.JournalExtent | None, changes: AccessDelta) -> None:
        """What the newest commit has left in the journal."""
        self._known = (there, changes)

    def read(
        self,
        txn: Txn,
        there: catalog.JournalExtent,
        known: catalog.JournalExtent | None = None,
        changes: AccessDelta = NO_CHANGES,
    ) -> AccessDelta:
        """The entries `there`; those that are `known` came to `changes`. Raises Corruption."""
        store, prefix, where = self.tables.store, self.tables.prefix, self.tables.where
        cursor = txn.cursor(db=store.journal)
        entries, sequence = (0, 0) if known is None else (known.entries, known.last)
        found, steps = cursor.set_range(keys.row_key(prefix, there.first if known is None else known.last + 1)), []
        while found and entries < there.entries:
            key = bytes(cursor.key())
            if not key.startswith(prefix):
                break
            sequence = keys.number_of(key)
            steps.append(record_format.decode_journal(cursor.value(), sequence, where))
            entries += 1
            found = cursor.next()
        if (entries, sequence) != (there.entries, there.last):
            raise Corruption(
                f"{where}: the journal has {entries} entries up to commit {sequence}, expected {there.entries} up to "
                f"{there.last}; restore from a backup"
            )
        return changes.then(_last_words(steps))

    def write(
        self, txn: Txn, sequence: int, changes: AccessDelta, there: catalog.JournalExtent | None
    ) -> catalog.JournalExtent:
        """Write the entry of commit `sequence`. Returns which are there with it."""
        raw = record_format.encode_journal(sequence, changes.granted.packed, changes.revoked.packed)
        txn.put(keys.row_key(self.tables.prefix, sequence), raw, db=self.tables.store.journal)
        return (
            catalog.JournalExtent(there.first, sequence, there.entries + 1)
            if there
            else catalog.JournalExtent(sequence, sequence, 1)
        )

    def forget(self, txn: Txn, through: int, there: catalog.JournalExtent) -> catalog.JournalExtent | None:
        """Remove the entries up to commit `through`. Returns which are left."""
        prefix = self.tables.prefix
        cursor = txn.cursor(db=self.tables.store.journal)
        found, left = cursor.set_range(prefix), there.entries
        while found and keys.number_of(bytes(cursor.key())) <= through and left:
            found = cursor.delete()
            left -= 1
        return catalog.JournalExtent(keys.number_of(bytes(cursor.key())), there.last, left) if left else None
