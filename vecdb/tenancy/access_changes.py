"""How a commit changes who may see a record: access lists, and the tenants that they name.

    request -> AccessChange, worked out; this may raise (quotas, unknown names)
            -> made: lists of new rows go into the tables (access_tables.py), in the order of whose keys they come;
               changes of older rows go into the journal (access_journal.py), in one entry when the group is finished

A row never changes. So an overwritten record takes its pairs to its new row, and a deleted record loses them: only
live records have tenants, and counts are exact.

Everything is done for sets of pairs (pairs.py). `AccessWriter` is used on the commit thread alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from vecdb import limits
from vecdb.errors import LimitExceeded
from vecdb.storage.kv import catalog, keys, record_format
from vecdb.storage.kv.store import WriteTxn
from vecdb.tenancy.access_journal import NO_CHANGES, AccessDelta, AccessJournal, AccessReader
from vecdb.tenancy.pairs import (
    NO_PAIRS,
    RowTenantPairs,
    common,
    counts_by_row,
    net_changes,
    numbers_of,
    pack,
    rows_of,
    subtract,
    unite,
)
from vecdb.tenancy.tenant_names import tenant, tenant_named, tenants_of
from vecdb.validate import AccessLists
from vecdb.validate.common import gil_slices, short_repr
from vecdb.validate.not_found import tenant_not_found

_SLICE = 256  # entries per stretch of bytecode, about 100 us


class AccessChange(NamedTuple):
    """What one request will do, worked out before it changes anything.

    written : whole lists of new rows.   granted, revoked : pairs of rows that exist.   leaving : those of `revoked`
    whose tenants have not been dropped.   new : names of tenants to make, by number.   owner : of all these records;
    None where they are of several tenants other than those that lose them.
    """

    written: RowTenantPairs = NO_PAIRS
    granted: RowTenantPairs = NO_PAIRS
    revoked: RowTenantPairs = NO_PAIRS
    leaving: RowTenantPairs = NO_PAIRS
    new: Mapping[int, bytes] = MappingProxyType({})
    owner: bytes | None = b""

    def is_shared(self, tenant: bytes) -> bool:
        """Whether these records are another tenant's than the one that sees them: they count for that one."""
        return self.owner is None or self.owner not in (b"", tenant)

    @property
    def pair_count(self) -> int:
        """How many pairs it changes."""
        return len(self.written) + len(self.granted) + len(self.revoked)


@dataclass(slots=True)
class AccessWriter:
    """Changes to one collection's access lists in one commit group.

    extent : entries of the journal; once the group is finished, with its own.   known : tenants that the group has
    met, by number, None for a dropped one.   touched : numbers of tenants whose rows have changed.   own : what the
    group says about rows that existed before it.   added, removed : pairs, one set a step.   dropped : numbers.
    net : (added, removed) by the group as a whole, once it is finished.
    """

    uid: int
    journal: AccessJournal
    extent: catalog.JournalExtent | None
    known: dict[int, record_format.Tenant | None] = field(default_factory=dict)
    touched: set[int] = field(default_factory=set)
    own: AccessDelta = NO_CHANGES
    added: list[RowTenantPairs] = field(default_factory=list)
    removed: list[RowTenantPairs] = field(default_factory=list)
    dropped: list[int] = field(default_factory=list)
    net: tuple[RowTenantPairs, RowTenantPairs] = (NO_PAIRS, NO_PAIRS)
    _before: AccessDelta | None = None  # what the journal says without `own`
    _reader: AccessReader | None = None  # until `own` changes

    @property
    def where(self) -> str:
        return self.journal.tables.where

    def before(self, write: WriteTxn) -> AccessDelta:
        if self._before is None:
            self._before = self.journal.changes(write.txn, self.extent)
        return self._before

    def grants(self, write: WriteTxn) -> AccessReader:
        """Who sees what after the requests of this group so far."""
        if self._reader is None:
            self._reader = AccessReader(self.journal.tables, write.txn, self.before(write).then(self.own))
        return self._reader

    # -- working out -------------------------------------------------------------------------------

    def resolve(
        self, write: WriteTxn, names: Sequence[bytes], *, create: bool
    ) -> tuple[NDArray[np.int64], dict[int, bytes]]:
        """Numbers of names (distinct): int64[n], and those of them that have yet to be made. Raises NotFound unless
        `create`.
        """
        head = keys.tenant_names(self.uid)
        cursor = write.txn.cursor(db=write.store.tenants)
        name_keys = [head + name for name in names]
        found: dict[bytes, bytes] = {}
        for start, stop in gil_slices(len(name_keys), _SLICE):
            found.update(cursor.getmulti(name_keys[start:stop]))
        missing = [name for name in names if head + name not in found] if len(found) < len(names) else []
        if missing and not create:
            raise tenant_not_found(self.where, missing[0].decode())
        first = self._next(write) if missing else 0
        if first + len(missing) > limits.tenants_made_max:
            raise LimitExceeded(
                f"collection {self.where!r} has made {first - 1:,} tenants, {limits.tenants_made_max:,} is the most"
            )
        new = dict(enumerate(missing, first))
        for number, name in new.items():
            found[head + name] = number.to_bytes(8, "little")
        return np.frombuffer(b"".join(map(found.__getitem__, name_keys)), "<i8").astype(np.int64), new

    def _next(self, write: WriteTxn) -> int:
        return int.from_bytes(write.txn.get(keys.tenant_next(self.uid), db=write.store.tenants) or b"\1", "little")

    def lists(self, write: WriteTxn, rows: NDArray[np.int64]) -> tuple[RowTenantPairs, RowTenantPairs]:
        """Pairs of rows (distinct, ascending): (all, those whose tenants have not been dropped)."""
        found = self.grants(write).lists_of(rows)
        return found, found[self.living(write, numbers_of(found))]

    def living(self, write: WriteTxn, numbers: NDArray[np.int64]) -> NDArray[np.bool_]:
        """bool[n]: which tenants exist."""
        distinct, index = np.unique(numbers, return_inverse=True)
        listed = distinct.tolist()
        unknown = sorted(set(listed).difference(self.known))
        if unknown:
            asked = np.array(unknown, np.int64)
            self.known.update(tenants_of(write.store, write.txn, self.uid, asked, self.journal.tables.where))
        return np.array([self.known[number] is not None for number in listed], bool)[index]

    def put(
        self,
        write: WriteTxn,
        given: AccessLists | None,
        first_row: int,
        replaced: NDArray[np.int64],
        successors: NDArray[np.int64],
        live_count: int,
        owner: bytes,
    ) -> AccessChange:
        """Work out the lists of records that are written as rows from `first_row`: the lists given, those of the rows
        they replace, or both.

        replaced, successors : int64[m], rows and the rows that replace them.   live_count : how many records there are
        afterwards, at most.
        """
        revoked, leaving = self.lists(write, np.sort(replaced))
        written, new = NO_PAIRS, dict[int, bytes]()
        if given is not None:
            numbers, new = self.resolve(write, given.names, create=True)
            written = pack(first_row + given.records, numbers[given.which])
        if len(leaving) and (given is None or given.kept):
            order = np.argsort(replaced)
            moved = successors[order][np.searchsorted(replaced[order], rows_of(leaving))]
            written = unite(written, pack(moved, numbers_of(leaving)))
            if given is not None:
                self._refuse_long(write, NO_PAIRS, written)
        change = AccessChange(written=written, revoked=revoked, leaving=leaving, new=new, owner=owner)
        self._check_quotas(write, change, live_count)
        return change

    def delete(self, write: WriteTxn, rows: NDArray[np.int64], owner: bytes = b"") -> AccessChange:
        """Work out what rows (ascending) lose that die. owner : of AccessChange; it may be left out where the tenants
        that lose them are about to be dropped.
        """
        revoked, leaving = self.lists(write, rows)
        return AccessChange(revoked=revoked, leaving=leaving, owner=owner)

    def grant(
        self, write: WriteTxn, pairs: RowTenantPairs, new: dict[int, bytes], live_count: int, owner: bytes
    ) -> AccessChange:
        """Work out what changes when pairs are added to the lists of live rows."""
        present = self.grants(write).lists_of(counts_by_row(pairs)[0])
        change = AccessChange(granted=subtract(pairs, present), new=new, owner=owner)
        if len(change.granted):
            self._refuse_long(write, present, change.granted)
        self._check_quotas(write, change, live_count)
        return change

    def revoke(self, write: WriteTxn, pairs: RowTenantPairs, owner: bytes | None = b"") -> AccessChange:
        """Work out what changes when pairs are taken out of the lists of live rows. owner : as in `delete`."""
        revoked = common(pairs, self.grants(write).lists_of(counts_by_row(pairs)[0]))
        self.living(write, numbers_of(revoked))  # remembers the tenants, which `finish` looks up
        return AccessChange(revoked=revoked, leaving=revoked, owner=owner)

    def _refuse_long(self, write: WriteTxn, present: RowTenantPairs, coming: RowTenantPairs) -> None:
        """Raises LimitExceeded where a record that has `present` and gets `coming` would have too many tenants."""
        most = _longest(unite(present, coming))
        if most > limits.tenants_per_record_max:  # a list may go on naming tenants that were dropped
            most = _longest(unite(present[self.living(write, numbers_of(present))], coming))
        if most > limits.tenants_per_record_max:
            raise LimitExceeded(
                f"collection {self.where!r}: a record would have {most:,} tenants, limit "
                f"{limits.tenants_per_record_max:,}; revoke some first"
            )

    def _check_quotas(self, write: WriteTxn, change: AccessChange, live_count: int) -> None:
        """Raises LimitExceeded where a tenant would have more records than it may. A record that its owner shares with
        another tenant counts for the owner alone: nobody fills the quota of others.
        """
        coming = numbers_of(np.concatenate([change.written, change.granted]))
        distinct, counts = np.unique(coming, return_counts=True)
        self.living(write, distinct)
        leaving_numbers = numbers_of(change.leaving)
        for number, count in zip(distinct.tolist(), counts.tolist(), strict=True):
            found = self.known[number]
            name = change.new.get(number) or (found.name if found is not None else b"")
            most = (found.records_max if found is not None else 0) or limits.tenant_records_max
            if most >= live_count or change.is_shared(name):
                continue
            leaving = int((leaving_numbers == number).sum())
            shared = found.shared if found is not None else 0
            total = self.grants(write).count_of(number) - shared + count - leaving
            if total > most and count > leaving:
                raise LimitExceeded(
                    f"collection {self.where!r}: tenant {short_repr(name.decode())} would have {total:,} records, its "
                    f"limit is {most:,}; revoke or delete some, or raise it: "
                    "create_tenant(..., records_max=, exist_ok=True)"
                )

    # -- changing ----------------------------------------------------------------------------------

    def make(self, write: WriteTxn, change: AccessChange) -> None:
        """Make a change that was worked out. From here on only an error that aborts the group is raised."""
        if change.new:
            self.create(write, change.new, 0)
        self.journal.tables.write(write.txn, change.written)
        self.own = self.own.then(AccessDelta(change.granted, change.revoked))
        self._reader = None
        for pairs, steps in (
            (change.leaving, self.removed),
            (change.written, self.added),
            (change.granted, self.added),
        ):
            if len(pairs):
                steps.append(pairs)
                self.touched.update(np.unique(numbers_of(pairs)).tolist())
                self._count_shared(change, pairs, -1 if steps is self.removed else 1)

    def _count_shared(self, change: AccessChange, pairs: RowTenantPairs, sign: int) -> None:
        if change.owner == b"":
            return
        distinct, counts = np.unique(numbers_of(pairs), return_counts=True)
        for number, count in zip(distinct.tolist(), counts.tolist(), strict=True):
            found = self.known[number]
            if found is not None and change.is_shared(found.name):
                # not below 0: those that were shared before this was counted leave, too
                self.known[number] = found._replace(shared=max(0, found.shared + sign * count))

    def create(self, write: WriteTxn, new: Mapping[int, bytes], records_max: int) -> None:
        """Make tenants, whose numbers are the next ones in order."""
        cursor = write.txn.cursor(db=write.store.tenants)
        names, numbers = keys.tenant_names(self.uid), keys.tenant_numbers(self.uid)
        items = list(new.items())
        for start, stop in gil_slices(len(items), _SLICE):
            part = items[start:stop]
            cursor.putmulti([(names + name, number.to_bytes(8, "little")) for number, name in part])
            made = {number: record_format.Tenant(write.sequence, records_max, name) for number, name in part}
            cursor.putmulti(_tenant_entries(numbers, made))
            self.known.update(made)
        if items:
            following = (items[-1][0] + 1).to_bytes(8, "little")
            write.txn.put(keys.tenant_next(self.uid), following, db=write.store.tenants)

    def limit(self, write: WriteTxn, number: int, records_max: int) -> None:
        """Give a tenant another quota."""
        found = self.known.get(number) or tenant(write.store, write.txn, self.uid, number, self.where)
        assert found is not None
        self.known[number] = changed = found._replace(records_max=records_max)
        [(key, raw)] = _tenant_entries(keys.tenant_numbers(self.uid), {number: changed})
        write.txn.put(key, raw, db=write.store.tenants)

    def drop(self, write: WriteTxn, name: bytes) -> None:
        """Remove a tenant. Its number stays in lists and in the journal, where it means nobody."""
        txn, store = write.txn, write.store
        number, _ = tenant_named(store, txn, self.uid, name, self.where)
        txn.delete(keys.tenant_names(self.uid) + name, db=store.tenants)
        txn.delete(keys.tenant_numbers(self.uid) + number.to_bytes(8, "big"), db=store.tenants)
        self.journal.tables.drop(txn, number)
        self.journal.tables.next_generation().drop(txn, number)  # a vacuum may have begun it
        self.known[number] = None
        self.touched.discard(number)
        self.dropped.append(number)

    def forget(self, write: WriteTxn, through: int) -> None:
        """Remove the journal's entries up to commit `through`, all of which the tables hold."""
        assert self.extent is not None
        assert not self.own.pair_count
        self.extent = self.journal.forget(write.txn, through, self.extent)
        self._before = self.journal.read(write.txn, self.extent) if self.extent is not None else NO_CHANGES
        self._reader = None

    def finish(self, write: WriteTxn) -> None:
        """Before the commit: write the journal, and this commit's sequence at each tenant whose rows have changed."""
        self.net = net_changes(self.added, self.removed)
        if self.own.pair_count:
            self._write_own(write)
        cursor = write.txn.cursor(db=write.store.tenants)
        numbers = sorted(self.touched)
        head = keys.tenant_numbers(self.uid)
        for start, stop in gil_slices(len(numbers), _SLICE):
            moved = {}
            for number in numbers[start:stop]:
                found = self.known[number]
                assert found is not None, number
                moved[number] = found._replace(sequence=write.sequence)
            cursor.putmulti(_tenant_entries(head, moved))

    def _write_own(self, write: WriteTxn) -> None:
        """Write `own` to the journal. If it is large write it to the tables, and to the journal only where that says
        otherwise.
        """
        before, own = self.before(write), self.own
        if own.pair_count > limits.journal_entry_pairs:
            granted = own.granted[self.living(write, numbers_of(own.granted))]
            self.journal.tables.change(write.txn, granted, own.revoked)
            own = before.denied_by(own)
        if own.pair_count:
            self.extent = self.journal.write(write.txn, write.sequence, own, self.extent)
            self._before = before.then(own)

    def publish(self) -> None:
        """After the commit: the journal's object in memory gets what the commit left there."""
        if self._before is not None:
            self.journal.publish(self.extent, self._before)


def _longest(lists: RowTenantPairs) -> int:
    return int(counts_by_row(lists)[1].max(initial=0))


def _tenant_entries(head: bytes, tenants: dict[int, record_format.Tenant]) -> list[tuple[bytes, bytes]]:
    return [(head + number.to_bytes(8, "big"), record_format.encode_tenant(one)) for number, one in tenants.items()]
