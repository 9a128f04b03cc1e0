"""Which rows does a tenant see? A cache, in memory, of the tenants that are searched.

    name -> Entry: rows uint32, valid from the commit `sequence` on -> older: the same before that commit
    names -> rows of a union, while none of its parts has moved

- A tenant that nobody searches takes no memory here: names and rows are read from LMDB at the first search, each row
  confirmed by the record's own access list, whose checksum LMDB's pages lack.
- A search takes the version of its own view's snapshot. `rows_at` returns None where it has neither that nor the one
  before it: the caller takes a newer view.
- In the writing process a commit's changes are merged into the entries that are here, before its view is published. A
  load reads LMDB under the same lock: what it reads may be newer than what was published, never older, and a change
  that it has read already is known by its sequence.
- In a reading process an entry holds as long as the tenant's stored sequence has not moved, which is looked up once
  for each newer view.

Threads: a search looks up without a lock, entries are immutable but for three fields that are each written at once;
loads and the publisher hold `_lock`. Bounded by `limits.tenant_cache_bytes`, the least recently used go first.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vecdb import limits
from vecdb.errors import NotFound
from vecdb.index.row_set import RowSet
from vecdb.schema import Visibility
from vecdb.storage.kv import catalog, keys
from vecdb.storage.kv.store import Store
from vecdb.tenancy import access_changes
from vecdb.tenancy.access_journal import AccessJournal
from vecdb.tenancy.pairs import RowTenantPairs, distinct, merged
from vecdb.validate import tenant_name

_ENTRY_BYTES = 512  # of an entry, its names and its array, beside the rows
_EVICT_TO = 7 / 8  # of the bound
_ALWAYS = 1 << 63
_NO_ROWS = np.empty(0, np.uint32)


@dataclass(slots=True)
class CachedTenant:
    """Rows of a tenant from commit `sequence` on.

    valid_to : last commit they are known to hold for.   older : what they were before, of one version.   used : since
    eviction last came by.
    """

    name: str
    number: int
    sequence: int
    valid_to: int
    allowed: RowSet
    older: CachedTenant | None = None
    used: bool = True

    @property
    def nbytes(self) -> int:
        return _ENTRY_BYTES + self.allowed.nbytes + (self.older.allowed.nbytes if self.older is not None else 0)


@dataclass(slots=True)
class CachedUnion:
    parts: list[RowSet]
    allowed: RowSet


class TenantRowCache:
    """The tenants of one generation."""

    def __init__(
        self, store: Store, entry: catalog.CollectionEntry, generation: int, journal: AccessJournal, *, writable: bool
    ) -> None:
        self._store = store
        self._collection = entry
        self._generation = generation
        self._journal = journal
        self._writable = writable
        self._lock = threading.Lock()
        self._entries: dict[str, CachedTenant] = {}
        self._numbers: dict[int, CachedTenant] = {}
        self._unions: dict[tuple[str, ...], CachedUnion] = {}
        self._bytes = 0
        self.evictions = 0  # counts up: whoever holds rows of tenants beside this cache lets go of them, too

    # -- searches ----------------------------------------------------------------------------------

    def rows_at(self, names: tuple[str, ...], visibility: Visibility) -> RowSet | None:
        """Rows of the union of `names` (distinct, in order) at `visibility`. None: look again with a newer view. Raises
        NotFound where there is no such tenant, Corruption where records do not confirm its rows.
        """
        if len(names) == 1:
            return self._rows_of(names[0], visibility)
        parts = []
        for name in names:
            part = self._rows_of(name, visibility)
            if part is None:
                return None
            parts.append(part)
        known = self._unions.get(names)
        if known is not None and all(a is b for a, b in zip(known.parts, parts, strict=True)):
            return known.allowed
        return self._unite(names, parts)

    def _rows_of(self, name: str, visibility: Visibility) -> RowSet | None:
        entry = self._entries.get(name)
        if entry is not None:
            entry.used = True
            if entry.sequence <= visibility.sequence <= entry.valid_to:
                return entry.allowed
            older = entry.older
            if older is not None and older.sequence <= visibility.sequence <= older.valid_to:
                return older.allowed
        with self._lock:
            entry = self._entries.get(name)
            if entry is None or visibility.sequence > entry.valid_to:
                entry = self._load(name, entry)
            held = entry is not None and entry.sequence <= visibility.sequence <= entry.valid_to
            return entry.allowed if held and entry is not None else None

    def _load(self, name: str, known: CachedTenant | None) -> CachedTenant | None:
        """Under the lock: what LMDB says now. None where the generation has been left behind."""
        uid, where = self._collection.uid, self._collection.name
        with self._store.read() as txn:
            raw = txn.get(keys.uid(uid), db=self._store.state)
            if raw is None:
                return None  # dropped, which a newer view will say
            state = catalog.decode_state(raw, where)
            if state.generation != self._generation:
                return None
            try:
                number, tenant = access_changes.named(self._store, txn, uid, tenant_name(name), where)
            except NotFound:
                self._forget(known)
                raise
            if known is not None and (known.number, known.sequence) == (number, tenant.sequence):
                known.valid_to = state.sequence
                return known
            grants = self._journal.at(txn, state)
            rows = grants.rows_of(number, state.row_count)
            grants.confirm(number, rows)
        self._forget(known)
        valid_to = _ALWAYS if self._writable else state.sequence
        entry = CachedTenant(name, number, tenant.sequence, valid_to, RowSet(rows, self._grow))
        self._put(entry)
        self._evict()
        return entry

    def _unite(self, names: tuple[str, ...], parts: list[RowSet]) -> RowSet:
        made = CachedUnion(parts, RowSet(distinct(np.concatenate([part.rows for part in parts])), self._grow))
        with self._lock:
            self._drop_union(names)
            while len(self._unions) >= limits.tenant_unions_max:
                self._drop_union(next(iter(self._unions)))
            self._unions[names] = made
            self._bytes += made.allowed.nbytes
            self._evict()
        return made.allowed

    # -- the commit thread -------------------------------------------------------------------------

    def publish(self, sequence: int, added: RowTenantPairs, removed: RowTenantPairs, dropped: list[int]) -> None:
        """Merge what commit `sequence` has changed into the entries that are here."""
        with self._lock:
            for number in dropped:
                self._forget(self._numbers.get(number))
            if not self._numbers:
                return
            coming, going = _rows_by_number(added, self._numbers), _rows_by_number(removed, self._numbers)
            for number in coming.keys() | going.keys():
                old = self._numbers[number]
                if old.sequence >= sequence:
                    continue  # it was read after the commit
                rows = merged(old.allowed.rows, going.get(number, _NO_ROWS), coming.get(number, _NO_ROWS))
                self._bytes -= old.nbytes
                old.older, old.valid_to = None, sequence - 1
                self._put(CachedTenant(old.name, number, sequence, _ALWAYS, RowSet(rows, self._grow), old, old.used))
            self._evict()

    # -- bookkeeping, under the lock ---------------------------------------------------------------

    def _put(self, entry: CachedTenant) -> None:
        self._numbers[entry.number] = entry
        self._entries[entry.name] = entry
        self._bytes += entry.nbytes

    def _forget(self, entry: CachedTenant | None) -> None:
        if entry is not None and self._entries.get(entry.name) is entry:
            del self._entries[entry.name]
            del self._numbers[entry.number]
            self._bytes -= entry.nbytes

    def _drop_union(self, names: tuple[str, ...]) -> None:
        gone = self._unions.pop(names, None)
        if gone is not None:
            self._bytes -= gone.allowed.nbytes

    def _grow(self, nbytes: int) -> None:
        """A bitmap is kept from now on. Not under the lock, and counted without it: eviction counts anew."""
        self._bytes += nbytes

    def _evict(self) -> None:
        """Unions first, then entries that were not used since the last time, until enough room is there."""
        if self._bytes <= limits.tenant_cache_bytes:
            return
        self.evictions += 1
        target = int(_EVICT_TO * limits.tenant_cache_bytes)
        self._unions.clear()
        self._bytes = sum(entry.nbytes for entry in self._entries.values())
        for _ in range(2):
            for entry in list(self._entries.values()):
                if self._bytes <= target:
                    return
                if entry.used:
                    entry.used = False
                    self._entries[entry.name] = self._entries.pop(entry.name)  # to the end
                else:
                    self._forget(entry)

    # -- figures -----------------------------------------------------------------------------------

    def stats(self) -> dict[str, Any]:
        """Tenants and bytes in memory."""
        return {"tenants_cached": len(self._entries), "tenant_cache_bytes": self._bytes}

    def cached_bytes(self, name: str) -> int:
        entry = self._entries.get(name)
        return entry.nbytes if entry is not None else 0


def _rows_by_number(pairs: RowTenantPairs, wanted: dict[int, CachedTenant]) -> dict[int, NDArray[np.uint32]]:
    """uint32 rows, ascending, of each number that is wanted."""
    if not len(pairs):
        return {}
    ordered, of = pairs.by_number()
    numbers, starts = np.unique(ordered, return_index=True)
    rows = of.astype(np.uint32)
    ends = [*starts[1:].tolist(), len(rows)]
    return {
        number: rows[start:end]
        for number, start, end in zip(numbers.tolist(), starts.tolist(), ends, strict=True)
        if number in wanted
    }
