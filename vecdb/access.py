"""Who may see a record: access lists as LMDB holds them, and how a commit changes them.

    access[row]      -> numbers of tenants     the truth, with a checksum            (keys.py and codec.py draw them)
    members[number]  -> rows                   the same pairs the other way round
    tenants          name <-> number, with the sequence of the last change

A request first works out a `Change` (which may raise: quotas, unknown names), then makes it: pairs taken away and added
in `members`, whole lists written in `access`. A row never changes, so an overwritten record takes its pairs to its new
row, and a deleted one loses them: `members` holds live records only, and its duplicate counts are exact.

Everything is done for arrays of pairs at once. Reading functions work in any transaction; `Access` lives on the commit
thread.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from vecdb import limits
from vecdb.errors import Corruption, LimitExceeded, NotFound
from vecdb.pairs import NOTHING, Pairs, net_changes, subtract, unite
from vecdb.storage import codec, keys
from vecdb.validate import AccessLists
from vecdb.validate.common import show, slices

if TYPE_CHECKING:
    from vecdb.commit import Group
    from vecdb.storage.store import Store, Txn

_SLICE = 256  # entries per stretch of bytecode, about 100 us
_MEMBER = np.dtype([("key", f"V{keys.PREFIX_BYTES + 8}"), ("row", "<u8")])


# -- reading ---------------------------------------------------------------------------------------


def number_of(store: Store, txn: Txn, uid: int, name: bytes) -> int | None:
    """The number of the tenant of that name, None where there is none."""
    raw = txn.get(keys.tenant_names(uid) + name, db=store.tenants)
    return None if raw is None else int.from_bytes(raw, "little")


def tenant(store: Store, txn: Txn, uid: int, number: int, where: str) -> codec.Tenant | None:
    """What is stored about the tenant of a number; None where it was dropped."""
    raw = txn.get(keys.tenant_numbers(uid) + number.to_bytes(8, "big"), db=store.tenants)
    return None if raw is None else codec.decode_tenant(bytes(raw), number, where)


def named(store: Store, txn: Txn, uid: int, name: bytes, where: str) -> tuple[int, codec.Tenant] | None:
    """(number, tenant) of a name, None where there is none. LMDB's pages carry no checksum, the tenant does: the two
    ways must agree. Raises Corruption.
    """
    number = number_of(store, txn, uid, name)
    if number is None:
        return None
    found = tenant(store, txn, uid, number, where)
    if found is None or found.name != name:
        there = "nothing" if found is None else repr(found.name)
        raise Corruption(f"{where}: the name of tenant {name!r} leads to {there}; restore from a backup")
    return number, found


def tenants_of(
    store: Store, txn: Txn, uid: int, numbers: NDArray[np.uint64], where: str
) -> dict[int, codec.Tenant | None]:
    """By number (distinct, ascending); None for those that were dropped."""
    out: dict[int, codec.Tenant | None] = dict.fromkeys(numbers.tolist())
    cursor = txn.cursor(db=store.tenants)
    head = keys.tenant_numbers(uid)
    for start, stop in slices(len(numbers), _SLICE):
        for key, raw in cursor.getmulti(keys.all_numbered(head, numbers[start:stop])):
            number = int.from_bytes(key[len(head) :], "big")
            out[number] = codec.decode_tenant(bytes(raw), number, where)
    return out


def lists_of(store: Store, txn: Txn, prefix: bytes, rows: NDArray[np.int64], where: str) -> Pairs:
    """The pairs of rows (distinct, ascending), each list compared with its checksum. Raises Corruption."""
    cursor = txn.cursor(db=store.access)
    all_rows, all_numbers = [], []
    for start, stop in slices(len(rows), _SLICE):
        found = cursor.getmulti(keys.all_numbered(prefix, rows[start:stop]))
        if not found:
            continue
        there = [keys.number_of(bytes(key)) for key, _ in found]
        numbers, counts = codec.decode_access([bytes(raw) for _, raw in found], there, where)
        all_rows.append(np.repeat(np.asarray(there, np.int64), counts))
        all_numbers.append(numbers)
    return Pairs.of(np.concatenate(all_rows), np.concatenate(all_numbers)) if all_rows else NOTHING


def count_of(store: Store, txn: Txn, prefix: bytes, number: int) -> int:
    """How many records a tenant has."""
    cursor = txn.cursor(db=store.members)
    return int(cursor.count()) if cursor.set_key(keys.numbered(prefix, number)) else 0


def rows_of(store: Store, txn: Txn, prefix: bytes, number: int, row_count: int, where: str) -> NDArray[np.uint32]:
    """uint32[n]: the rows of a tenant, ascending. Raises Corruption where they are not rows."""
    key = keys.numbered(prefix, number)
    raw = txn.cursor(db=store.members).getmulti([key], dupdata=True, dupfixed_bytes=8, keyfixed=True)
    if not len(raw):
        return np.empty(0, np.uint32)
    if len(raw) % _MEMBER.itemsize:
        raise Corruption(f"{where}: the rows of tenant {number} are damaged; restore from a backup")
    rows = np.frombuffer(raw, _MEMBER)["row"].copy()
    if rows[-1] >= row_count or (rows[1:] <= rows[:-1]).any():
        raise Corruption(f"{where}: tenant {number} has row {rows.max()} of {row_count}, or rows out of order")
    return rows.astype(np.uint32)


def refuse_disagreement(
    store: Store, txn: Txn, prefix: bytes, number: int, rows: NDArray[np.uint32], where: str
) -> None:
    """Confirm that each of a tenant's rows has it in its own list, which carries a checksum. Raises Corruption."""
    for start in range(0, len(rows), limits.block_rows_max):
        part = rows[start : start + limits.block_rows_max].astype(np.int64)
        lists = lists_of(store, txn, prefix, part, where)
        confirmed = lists.rows[lists.numbers == np.uint64(number)]
        if len(confirmed) != len(part):
            row = int(np.setdiff1d(part, confirmed)[0])
            raise Corruption(
                f"{where}: tenant {number} has row {row}, whose access list does not name it; restore from a backup"
            )


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


def write_lists(txn: Txn, store: Store, prefix: bytes, lists: Pairs) -> None:
    """Put whole lists: all pairs of each row that is in `lists`."""
    rows, counts = lists.counts()
    numbers, ends = lists.numbers, np.cumsum(counts)
    cursor = txn.cursor(db=store.access)
    for start, stop in slices(len(rows), _SLICE):
        first = int(ends[start - 1]) if start else 0
        raws = codec.encode_access(numbers[first : int(ends[stop - 1])], counts[start:stop])
        cursor.putmulti(list(zip(keys.all_numbered(prefix, rows[start:stop]), raws, strict=True)))


def remove_lists(txn: Txn, store: Store, prefix: bytes, rows: NDArray[np.int64]) -> None:
    for start, stop in slices(len(rows), _SLICE):
        for key in keys.all_numbered(prefix, rows[start:stop]):
            txn.delete(key, db=store.access)


def _members(prefix: bytes, pairs: Pairs) -> Iterator[list[tuple[bytes, bytes]]]:
    """Entries of `members`, in their order, a slice at a time."""
    numbers, rows = pairs.by_number()
    values = rows.astype("<u8", copy=False).view("V8")
    for start, stop in slices(len(values), 2 * _SLICE):
        yield list(zip(keys.all_numbered(prefix, numbers[start:stop]), values[start:stop].tolist(), strict=True))


def write_members(txn: Txn, store: Store, prefix: bytes, pairs: Pairs) -> None:
    cursor = txn.cursor(db=store.members)
    for entries in _members(prefix, pairs):
        cursor.putmulti(entries)


def remove_members(txn: Txn, store: Store, prefix: bytes, pairs: Pairs) -> None:
    cursor = txn.cursor(db=store.members)
    find, delete = cursor.set_key_dup, cursor.delete
    for entries in _members(prefix, pairs):
        for key, row in entries:
            if find(key, row):
                delete()


@dataclass(slots=True)
class Change:
    """What one request will do, worked out before it changes anything.

    lists : whole lists to write.   cleared : int64, rows that keep no list.   added, removed : pairs of `members`.
    new : names of tenants to make, by number.
    """

    lists: Pairs = NOTHING
    cleared: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))
    added: Pairs = NOTHING
    removed: Pairs = NOTHING
    new: dict[int, bytes] = field(default_factory=dict)


@dataclass(slots=True)
class Access:
    """Changes to one collection's access lists in one group. Lives on the commit thread.

    known : tenants of this group by number, None for a dropped one.   touched : numbers whose rows have changed.
    added, removed : pairs, of one step after another.   dropped : numbers.   net : (added, removed) by the group
    as a whole, once it is finished.
    """

    uid: int
    prefix: bytes
    where: str
    known: dict[int, codec.Tenant | None] = field(default_factory=dict)
    touched: set[int] = field(default_factory=set)
    added: list[Pairs] = field(default_factory=list)
    removed: list[Pairs] = field(default_factory=list)
    dropped: list[int] = field(default_factory=list)
    net: tuple[Pairs, Pairs] = (NOTHING, NOTHING)

    # -- working out -------------------------------------------------------------------------------

    def resolve(
        self, group: Group, names: Sequence[bytes], *, create: bool
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
            raise unknown_tenant(self.where, missing[0])
        first = self._next(group) if missing else 0
        if first + len(missing) > limits.tenants_made_max:
            raise LimitExceeded(
                f"collection {self.where!r} has made {first - 1:,} tenants, {limits.tenants_made_max:,} is the most"
            )
        new = dict(enumerate(missing, first))
        made = {head + name: number.to_bytes(8, "little") for number, name in new.items()}
        raw = b"".join([found.get(head + name) or made[head + name] for name in names])
        return np.frombuffer(raw, "<u8").astype(np.uint64), new

    def _next(self, group: Group) -> int:
        return int.from_bytes(group.txn.get(keys.tenant_next(self.uid), db=group.store.tenants) or b"\1", "little")

    def lists(self, group: Group, rows: NDArray[np.int64]) -> tuple[Pairs, Pairs]:
        """Pairs of rows (distinct, ascending): (all, those whose tenants have not been dropped)."""
        found = lists_of(group.store, group.txn, self.prefix, rows, self.where)
        return found, found.only(self.living(group, found.numbers))

    def living(self, group: Group, numbers: NDArray[np.uint64]) -> NDArray[np.bool_]:
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
        group: Group,
        given: AccessLists | None,
        first_row: int,
        replaced: NDArray[np.int64],
        successors: NDArray[np.int64],
        live_count: int,
    ) -> Change:
        """Records written as rows from `first_row`: with the lists given, or with those of the rows that they replace.

        replaced, successors : int64[m], rows and those that take their place. live_count : records afterwards at most.
        """
        change = self.delete(group, np.sort(replaced))
        if given is not None:
            numbers, change.new = self.resolve(group, given.names, create=True)
            change.added = Pairs.of(first_row + given.records, numbers[given.which])
        elif len(change.removed):
            order = np.argsort(replaced)
            moved = successors[order][np.searchsorted(replaced[order], change.removed.rows)]
            change.added = Pairs.of(moved, change.removed.numbers)
        change.lists = change.added
        self._check_quotas(group, change, live_count)
        return change

    def delete(self, group: Group, rows: NDArray[np.int64]) -> Change:
        """Rows (ascending) that die."""
        every, living = self.lists(group, rows)
        return Change(cleared=every.counts()[0], removed=living)

    def grant(self, group: Group, pairs: Pairs, new: dict[int, bytes], live_count: int) -> Change:
        """Pairs to add to the lists of live rows."""
        present = lists_of(group.store, group.txn, self.prefix, pairs.counts()[0], self.where)
        added = subtract(pairs, present)
        change = Change(lists=unite(present.of_rows(added.rows), added), added=added, new=new)
        if len(added):
            most = change.lists.counts()[1].max()
            if most > limits.tenants_per_record_max:
                raise LimitExceeded(
                    f"collection {self.where!r}: a record would have {most:,} tenants, limit "
                    f"{limits.tenants_per_record_max:,}; revoke some first"
                )
        self._check_quotas(group, change, live_count)
        return change

    def revoke(self, group: Group, pairs: Pairs) -> Change:
        """Pairs to take out of the lists of live rows."""
        present = lists_of(group.store, group.txn, self.prefix, pairs.counts()[0], self.where)
        left = subtract(present, pairs)
        removed = subtract(present, left)
        left = left.of_rows(removed.rows)
        self.living(group, removed.tenants())
        return Change(lists=left, cleared=np.setdiff1d(removed.rows, left.rows), removed=removed)

    def _check_quotas(self, group: Group, change: Change, live_count: int) -> None:
        """Raises LimitExceeded where a tenant would have more records than it may."""
        distinct, counts = np.unique(change.added.numbers, return_counts=True)
        self.living(group, distinct)
        removed = change.removed.numbers
        for number, count in zip(distinct.tolist(), counts.tolist(), strict=True):
            found = self.known[number]
            most = (found.records_max if found is not None else 0) or limits.tenant_records_max
            if most >= live_count:
                continue
            leaving = int((removed == np.uint64(number)).sum())
            total = count_of(group.store, group.txn, self.prefix, number) + count - leaving
            if total > most and count > leaving:
                name = change.new.get(number) or (found.name if found is not None else b"")
                raise LimitExceeded(
                    f"collection {self.where!r}: tenant {show(name.decode())} would have {total:,} records, its limit "
                    f"is {most:,}; revoke or delete some, or raise its records_max"
                )

    # -- changing ----------------------------------------------------------------------------------

    def make(self, group: Group, change: Change) -> None:
        """Write a change. Nothing raises from here on but what aborts the group."""
        txn, store = group.txn, group.store
        if change.new:
            self.create(group, change.new, 0)
        remove_lists(txn, store, self.prefix, change.cleared)
        if len(change.removed):
            remove_members(txn, store, self.prefix, change.removed)
            self.removed.append(change.removed)
            self.touched.update(change.removed.tenants().tolist())
        if len(change.added):
            write_members(txn, store, self.prefix, change.added)
            self.added.append(change.added)
            self.touched.update(change.added.tenants().tolist())
        if len(change.lists):
            write_lists(txn, store, self.prefix, change.lists)

    def create(self, group: Group, new: dict[int, bytes], records_max: int) -> None:
        """Make tenants, whose numbers follow one another from the next one on."""
        cursor = group.txn.cursor(db=group.store.tenants)
        names, numbers = keys.tenant_names(self.uid), keys.tenant_numbers(self.uid)
        items = list(new.items())
        for start, stop in slices(len(items), _SLICE):
            part = items[start:stop]
            cursor.putmulti([(names + name, number.to_bytes(8, "little")) for number, name in part])
            made = {number: codec.Tenant(group.sequence, records_max, name) for number, name in part}
            cursor.putmulti(_tenant_entries(numbers, made))
            self.known.update(made)
        if items:
            following = (items[-1][0] + 1).to_bytes(8, "little")
            group.txn.put(keys.tenant_next(self.uid), following, db=group.store.tenants)

    def limit(self, group: Group, number: int, records_max: int) -> None:
        """Give a tenant another quota."""
        found = tenant(group.store, group.txn, self.uid, number, self.where)
        assert found is not None
        self.known[number] = changed = codec.Tenant(found.sequence, records_max, found.name)
        [(key, raw)] = _tenant_entries(keys.tenant_numbers(self.uid), {number: changed})
        group.txn.put(key, raw, db=group.store.tenants)

    def drop(self, group: Group, name: bytes) -> None:
        """Forget a tenant. Its pages in `members` go as a whole; its number stays in lists, where it means nobody."""
        found = named(group.store, group.txn, self.uid, name, self.where)
        if found is None:
            raise unknown_tenant(self.where, name)
        number, txn, store = found[0], group.txn, group.store
        txn.delete(keys.tenant_names(self.uid) + name, db=store.tenants)
        txn.delete(keys.tenant_numbers(self.uid) + number.to_bytes(8, "big"), db=store.tenants)
        uid, generation = keys.split_prefix(self.prefix)
        for prefix in (self.prefix, keys.prefix(uid, generation + 1)):  # a vacuum may have begun the next one
            txn.delete(keys.numbered(prefix, number), db=store.members)
        self.known[number] = None
        self.touched.discard(number)
        self.dropped.append(number)

    def finish(self, group: Group) -> None:
        """Before the commit: say of each tenant whose rows have changed in which commit they did."""
        self.net = net_changes(self.added, self.removed)
        cursor = group.txn.cursor(db=group.store.tenants)
        numbers = sorted(self.touched)
        head = keys.tenant_numbers(self.uid)
        for start, stop in slices(len(numbers), _SLICE):
            moved = {}
            for number in numbers[start:stop]:
                found = self.known[number]
                assert found is not None, number
                moved[number] = codec.Tenant(group.sequence, found.records_max, found.name)
            cursor.putmulti(_tenant_entries(head, moved))


def _tenant_entries(head: bytes, tenants: dict[int, codec.Tenant]) -> list[tuple[bytes, bytes]]:
    return [
        (head + number.to_bytes(8, "big"), codec.encode_tenant(one.sequence, one.records_max, one.name))
        for number, one in tenants.items()
    ]


def unknown_tenant(where: str, name: bytes) -> NotFound:
    return NotFound(
        f"collection {where!r} has no tenant {show(name.decode())}; tenants() lists those that it has, "
        "create_tenant, upsert and grant make them"
    )
