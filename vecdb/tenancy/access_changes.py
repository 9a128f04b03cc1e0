"""Who may see a record: tenants' names, and how a commit changes access lists.

    tenants          name <-> number, with the sequence of the last change
    lists            two tables (access_tables.py) with the journal over them (access_journal.py)

A request first works out a `AccessChange` (which may raise: quotas, unknown names), then makes it. Lists of new rows
are written into the tables, in whose order they come; what changes of rows that are there is written to the journal at
the end of the group. A row never changes, so an overwritten record takes its pairs to its new row, and a deleted one
loses them: only live records have tenants, and counts are exact.

Everything is done for arrays of pairs at once. Reading functions work in any transaction; `AccessWriter` lives on the
commit thread.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from vecdb import limits
from vecdb.errors import Corruption, LimitExceeded
from vecdb.storage.kv import catalog, keys, record_format
from vecdb.storage.kv.store import Store, Txn, WriteTxn
from vecdb.tenancy.access_journal import NO_CHANGES, AccessDelta, AccessJournal, AccessReader
from vecdb.tenancy.pairs import NOTHING, RowTenantPairs, common, net_changes, subtract, unite
from vecdb.validate import AccessLists
from vecdb.validate.common import show, slices
from vecdb.validate.not_found import no_tenant

_SLICE = 256  # entries per stretch of bytecode, about 100 us


# -- reading ---------------------------------------------------------------------------------------


def number_of(store: Store, txn: Txn, uid: int, name: bytes) -> int | None:
    """The number of the tenant of that name, None where there is none."""
    raw = txn.get(keys.tenant_names(uid) + name, db=store.tenants)
    return None if raw is None else int.from_bytes(raw, "little")


def tenant(store: Store, txn: Txn, uid: int, number: int, where: str) -> record_format.Tenant | None:
    """What is stored about the tenant of a number; None where it was dropped."""
    raw = txn.get(keys.tenant_numbers(uid) + number.to_bytes(8, "big"), db=store.tenants)
    return None if raw is None else record_format.decode_tenant(bytes(raw), number, where)


def named(store: Store, txn: Txn, uid: int, name: bytes, where: str) -> tuple[int, record_format.Tenant]:
    """(number, tenant) of a name. LMDB's pages carry no checksum, the tenant does: the two ways must agree. Raises
    NotFound, Corruption.
    """
    number = number_of(store, txn, uid, name)
    if number is None:
        raise no_tenant(where, name.decode())
    found = tenant(store, txn, uid, number, where)
    if found is None or found.name != name:
        there = "nothing" if found is None else repr(found.name)
        raise Corruption(f"{where}: the name of tenant {name!r} leads to {there}; restore from a backup")
    return number, found


def tenants_of(
    store: Store, txn: Txn, uid: int, numbers: NDArray[np.uint64], where: str
) -> dict[int, record_format.Tenant | None]:
    """By number (distinct, ascending); None for those that were dropped."""
    out: dict[int, record_format.Tenant | None] = dict.fromkeys(numbers.tolist())
    cursor = txn.cursor(db=store.tenants)
    head = keys.tenant_numbers(uid)
    for start, stop in slices(len(numbers), _SLICE):
        for key, raw in cursor.getmulti(keys.all_numbered(head, numbers[start:stop])):
            number = int.from_bytes(key[len(head) :], "big")
            out[number] = record_format.decode_tenant(bytes(raw), number, where)
    return out


def names_after(store: Store, txn: Txn, uid: int, after: bytes | None, most: int) -> list[bytes]:
    """Up to `most` names of tenants in order, those past `after`."""
    head = keys.tenant_names(uid)
    cursor = txn.cursor(db=store.tenants)
    found = cursor.set_range(head + (after or b""))
    if found and after is not None and bytes(cursor.key()) == head + after:
        found = cursor.next()
    names: list[bytes] = []
    while found and len(names) < most:
        key = bytes(cursor.key())
        if not key.startswith(head):
            break
        names.append(key[len(head) :])
        found = cursor.next()
    return names


# -- writing ---------------------------------------------------------------------------------------


@dataclass(slots=True)
class AccessChange:
    """What one request will do, worked out before it changes anything.

    written : whole lists of new rows.   granted, revoked : pairs of rows that are there.   leaving : of those revoked
    what tenants lose that have not been dropped.   new : names of tenants to make, by number.
    """

    written: RowTenantPairs = NOTHING
    granted: RowTenantPairs = NOTHING
    revoked: RowTenantPairs = NOTHING
    leaving: RowTenantPairs = NOTHING
    new: dict[int, bytes] = field(default_factory=dict)

    def __len__(self) -> int:
        """Pairs that it changes."""
        return len(self.written) + len(self.granted) + len(self.revoked)


@dataclass(slots=True)
class AccessWriter:
    """Changes to one collection's access lists in one group. Lives on the commit thread.

    there : entries of the journal; once the group is finished, with its own.   known : tenants of this group by number,
    None for a dropped one.   touched : numbers whose rows have changed.   own : what the group says of rows that were
    there.   added, removed : pairs, of one step after another.   dropped : numbers.   net : (added, removed) by the
    group as a whole, once it is finished.
    """

    uid: int
    journal: AccessJournal
    there: catalog.JournalExtent | None
    known: dict[int, record_format.Tenant | None] = field(default_factory=dict)
    touched: set[int] = field(default_factory=set)
    own: AccessDelta = NO_CHANGES
    added: list[RowTenantPairs] = field(default_factory=list)
    removed: list[RowTenantPairs] = field(default_factory=list)
    dropped: list[int] = field(default_factory=list)
    net: tuple[RowTenantPairs, RowTenantPairs] = (NOTHING, NOTHING)
    _before: AccessDelta | None = None  # what the journal says but for `own`

    @property
    def where(self) -> str:
        return self.journal.tables.where

    def before(self, group: WriteTxn) -> AccessDelta:
        if self._before is None:
            self._before = self.journal.changes(group.txn, self.there)
        return self._before

    def grants(self, group: WriteTxn) -> AccessReader:
        """Who sees what after the requests of this group so far."""
        return AccessReader(self.journal.tables, group.txn, self.before(group).then(self.own))

    # -- working out -------------------------------------------------------------------------------

    def resolve(
        self, group: WriteTxn, names: Sequence[bytes], *, create: bool
    ) -> tuple[NDArray[np.uint64], dict[int, bytes]]:
        """Numbers of names (distinct): uint64[n], and those of them that are to be made. Raises NotFound unless
        `create`.
        """
        head = keys.tenant_names(self.uid)
        cursor = group.txn.cursor(db=group.store.tenants)
        found: dict[bytes, bytes] = {}
        for start, stop in slices(len(names), _SLICE):
            found.update(cursor.getmulti([head + name for name in names[start:stop]]))
        missing = [name for name in names if head + name not in found] if len(found) < len(names) else []
        if missing and not create:
            raise no_tenant(self.where, missing[0].decode())
        first = self._next(group) if missing else 0
        if first + len(missing) > limits.tenants_made_max:
            raise LimitExceeded(
                f"collection {self.where!r} has made {first - 1:,} tenants, {limits.tenants_made_max:,} is the most"
            )
        new = dict(enumerate(missing, first))
        made = {head + name: number.to_bytes(8, "little") for number, name in new.items()}
        raw = b"".join([found.get(head + name) or made[head + name] for name in names])
        return np.frombuffer(raw, "<u8").astype(np.uint64), new

    def _next(self, group: WriteTxn) -> int:
        return int.from_bytes(group.txn.get(keys.tenant_next(self.uid), db=group.store.tenants) or b"\1", "little")

    def lists(self, group: WriteTxn, rows: NDArray[np.int64]) -> tuple[RowTenantPairs, RowTenantPairs]:
        """Pairs of rows (distinct, ascending): (all, those whose tenants have not been dropped)."""
        found = self.grants(group).lists_of(rows)
        return found, found.only(self.living(group, found.numbers))

    def living(self, group: WriteTxn, numbers: NDArray[np.uint64]) -> NDArray[np.bool_]:
        """bool[n]: whose tenants exist."""
        distinct, index = np.unique(numbers, return_inverse=True)
        unknown = [number for number in distinct.tolist() if number not in self.known]
        if unknown:
            asked = np.asarray(unknown, np.uint64)
            self.known.update(tenants_of(group.store, group.txn, self.uid, asked, self.where))
        there = np.fromiter((self.known[number] is not None for number in distinct.tolist()), bool, len(distinct))
        return there[index] if len(distinct) else np.empty(0, bool)

    def put(
        self,
        group: WriteTxn,
        given: AccessLists | None,
        first_row: int,
        replaced: NDArray[np.int64],
        successors: NDArray[np.int64],
        live_count: int,
    ) -> AccessChange:
        """Records written as rows from `first_row`: with the lists given, those of the rows they replace, or both.

        replaced, successors : int64[m], rows and those that take their place. live_count : records afterwards at most.
        """
        change = self.delete(group, np.sort(replaced))
        if given is not None:
            numbers, change.new = self.resolve(group, given.names, create=True)
            change.written = RowTenantPairs.of(first_row + given.records, numbers[given.which])
        if len(change.leaving) and (given is None or given.kept):
            order = np.argsort(replaced)
            moved = successors[order][np.searchsorted(replaced[order], change.leaving.rows)]
            change.written = unite(change.written, RowTenantPairs.of(moved, change.leaving.numbers))
            if given is not None:
                self._refuse_long(group, NOTHING, change.written)
        self._check_quotas(group, change, live_count)
        return change

    def delete(self, group: WriteTxn, rows: NDArray[np.int64]) -> AccessChange:
        """Rows (ascending) that die."""
        every, leaving = self.lists(group, rows)
        return AccessChange(revoked=every, leaving=leaving)

    def grant(self, group: WriteTxn, pairs: RowTenantPairs, new: dict[int, bytes], live_count: int) -> AccessChange:
        """Pairs to add to the lists of live rows."""
        present = self.grants(group).lists_of(pairs.counts()[0])
        change = AccessChange(granted=subtract(pairs, present), new=new)
        if len(change.granted):
            self._refuse_long(group, present, change.granted)
        self._check_quotas(group, change, live_count)
        return change

    def revoke(self, group: WriteTxn, pairs: RowTenantPairs) -> AccessChange:
        """Pairs to take out of the lists of live rows."""
        revoked = common(pairs, self.grants(group).lists_of(pairs.counts()[0]))
        self.living(group, revoked.tenants())
        return AccessChange(revoked=revoked, leaving=revoked)

    def _refuse_long(self, group: WriteTxn, present: RowTenantPairs, coming: RowTenantPairs) -> None:
        """Of records that have `present` and get `coming`."""
        most = _longest(unite(present, coming))
        if most > limits.tenants_per_record_max:  # a list may go on naming tenants that were dropped
            most = _longest(unite(present.only(self.living(group, present.numbers)), coming))
        if most > limits.tenants_per_record_max:
            raise LimitExceeded(
                f"collection {self.where!r}: a record would have {most:,} tenants, limit "
                f"{limits.tenants_per_record_max:,}; revoke some first"
            )

    def _check_quotas(self, group: WriteTxn, change: AccessChange, live_count: int) -> None:
        """Raises LimitExceeded where a tenant would have more records than it may."""
        distinct, counts = np.unique(
            np.concatenate([change.written.numbers, change.granted.numbers]), return_counts=True
        )
        self.living(group, distinct)
        grants, lost = self.grants(group), change.leaving.numbers
        for number, count in zip(distinct.tolist(), counts.tolist(), strict=True):
            found = self.known[number]
            most = (found.records_max if found is not None else 0) or limits.tenant_records_max
            if most >= live_count:
                continue
            leaving = int((lost == np.uint64(number)).sum())
            total = grants.count_of(number) + count - leaving
            if total > most and count > leaving:
                name = change.new.get(number) or (found.name if found is not None else b"")
                raise LimitExceeded(
                    f"collection {self.where!r}: tenant {show(name.decode())} would have {total:,} records, its limit "
                    f"is {most:,}; revoke or delete some, or raise it: create_tenant(..., records_max=, exist_ok=True)"
                )

    # -- changing ----------------------------------------------------------------------------------

    def make(self, group: WriteTxn, change: AccessChange) -> None:
        """Write a change. Nothing raises from here on but what aborts the group."""
        if change.new:
            self.create(group, change.new, 0)
        self.journal.tables.write(group.txn, change.written)
        self.own = self.own.then(AccessDelta(change.granted, change.revoked))
        for pairs, steps in (
            (change.leaving, self.removed),
            (change.written, self.added),
            (change.granted, self.added),
        ):
            if len(pairs):
                steps.append(pairs)
                self.touched.update(pairs.tenants().tolist())

    def create(self, group: WriteTxn, new: dict[int, bytes], records_max: int) -> None:
        """Make tenants, whose numbers follow one another from the next one on."""
        cursor = group.txn.cursor(db=group.store.tenants)
        names, numbers = keys.tenant_names(self.uid), keys.tenant_numbers(self.uid)
        items = list(new.items())
        for start, stop in slices(len(items), _SLICE):
            part = items[start:stop]
            cursor.putmulti([(names + name, number.to_bytes(8, "little")) for number, name in part])
            made = {number: record_format.Tenant(group.sequence, records_max, name) for number, name in part}
            cursor.putmulti(_tenant_entries(numbers, made))
            self.known.update(made)
        if items:
            following = (items[-1][0] + 1).to_bytes(8, "little")
            group.txn.put(keys.tenant_next(self.uid), following, db=group.store.tenants)

    def limit(self, group: WriteTxn, number: int, records_max: int) -> None:
        """Give a tenant another quota."""
        found = tenant(group.store, group.txn, self.uid, number, self.where)
        assert found is not None
        self.known[number] = changed = record_format.Tenant(found.sequence, records_max, found.name)
        [(key, raw)] = _tenant_entries(keys.tenant_numbers(self.uid), {number: changed})
        group.txn.put(key, raw, db=group.store.tenants)

    def drop(self, group: WriteTxn, name: bytes) -> None:
        """Forget a tenant. Its number stays in lists and in the journal, where it means nobody."""
        txn, store = group.txn, group.store
        number, _ = named(store, txn, self.uid, name, self.where)
        txn.delete(keys.tenant_names(self.uid) + name, db=store.tenants)
        txn.delete(keys.tenant_numbers(self.uid) + number.to_bytes(8, "big"), db=store.tenants)
        self.journal.tables.drop(txn, number)
        self.journal.tables.next_generation().drop(txn, number)  # a vacuum may have begun it
        self.known[number] = None
        self.touched.discard(number)
        self.dropped.append(number)

    def forget(self, group: WriteTxn, through: int) -> None:
        """Remove the journal's entries up to commit `through`: all of it is in the tables."""
        assert self.there is not None
        assert not len(self.own)
        self.there = self.journal.forget(group.txn, through, self.there)
        self._before = self.journal.read(group.txn, self.there) if self.there is not None else NO_CHANGES

    def finish(self, group: WriteTxn) -> None:
        """Before the commit: write the journal, and of each tenant whose rows have changed in which commit they did."""
        self.net = net_changes(self.added, self.removed)
        if len(self.own):
            self._write_own(group)
        cursor = group.txn.cursor(db=group.store.tenants)
        numbers = sorted(self.touched)
        head = keys.tenant_numbers(self.uid)
        for start, stop in slices(len(numbers), _SLICE):
            moved = {}
            for number in numbers[start:stop]:
                found = self.known[number]
                assert found is not None, number
                moved[number] = record_format.Tenant(group.sequence, found.records_max, found.name)
            cursor.putmulti(_tenant_entries(head, moved))

    def _write_own(self, group: WriteTxn) -> None:
        """To the journal; what is much to the tables, and to the journal where it says otherwise."""
        before, own = self.before(group), self.own
        if len(own) > limits.journal_entry_pairs:
            granted = own.granted.only(self.living(group, own.granted.numbers))
            self.journal.tables.change(group.txn, granted, own.revoked)
            own = before.denied_by(own)
        if len(own):
            self.there = self.journal.write(group.txn, group.sequence, own, self.there)
            self._before = before.then(own)

    def publish(self) -> None:
        """After the commit."""
        if self._before is not None:
            self.journal.publish(self.there, self._before)


def _longest(lists: RowTenantPairs) -> int:
    return int(lists.counts()[1].max(initial=0))


def _tenant_entries(head: bytes, tenants: dict[int, record_format.Tenant]) -> list[tuple[bytes, bytes]]:
    return [
        (head + number.to_bytes(8, "big"), record_format.encode_tenant(one.sequence, one.records_max, one.name))
        for number, one in tenants.items()
    ]
