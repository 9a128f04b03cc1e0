"""A cache, in memory, of the rows of those tenants that are searched.

    name  -> CachedTenant: rows uint32, valid from the commit `sequence` on -> older: its rows before that commit
    names -> CachedUnion: rows of several tenants, until those of one of them change

- A tenant that nobody searches takes no memory here. Name and rows are read from LMDB at the first search, and each row
  is confirmed by the record's own access list, which has a checksum, as LMDB's pages do not.
- A search takes the version that belongs to its snapshot. `rows_at` returns None where the cache has neither that one
  nor the one before it: the caller then takes a newer snapshot.
- In the writing process the changes of a commit are merged into the cached tenants before its snapshot is published. A
  load reads LMDB under the same lock: it may read a newer state than was published, never an older one, and the
  sequence shows which changes it has read already.
- In a reading process a cached tenant is valid as long as the tenant's stored sequence is the same, which is looked up
  once for each newer snapshot.

Threads: a search looks up without a lock; a CachedTenant is immutable except for three fields, each written in one
step; loads and the commit thread hold `_lock`. Bounded by `limits.tenant_cache_bytes`: the least recently used tenants
are evicted first.
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
from vecdb.tenancy.access_journal import AccessJournal
from vecdb.tenancy.pairs import RowTenantPairs, apply_changes, by_tenant, distinct
from vecdb.tenancy.tenant_names import tenant_named
from vecdb.validate import tenant_name

_ENTRY_BYTES = 512  # of a cached tenant without its rows
_EVICT_TO = 7 / 8  # of the bound
_ALWAYS = 1 << 63
_NO_ROWS = np.empty(0, np.uint32)


@dataclass(slots=True)
class CachedTenant:
    """Rows of a tenant from commit `sequence` on.

    valid_to : the last commit for which they are known to be right.   older : the version before this one.   used :
    whether a search has used them since the last eviction.
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
        self.evictions = 0  # how many: whoever keeps rows of tenants outside this cache must drop them when it grows

    # -- searches ----------------------------------------------------------------------------------

    def rows_at(self, names: tuple[str, ...], visibility: Visibility) -> RowSet | None:
        """Rows of the union of `names` (distinct, in order) at `visibility`. None: the caller must try again with a
        newer snapshot. Raises NotFound where there is no such tenant, Corruption where records do not confirm its rows.
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
        """Under the lock: read the tenant from LMDB. None where LMDB has moved on to another generation."""
        uid, where = self._collection.uid, self._collection.name
        with self._store.read() as txn:
            raw = txn.get(keys.uid(uid), db=self._store.state)
            if raw is None:
                return None  # the collection was dropped, as the newer snapshot will show
            state = catalog.decode_state(raw, where)
            if state.generation != self._generation:
                return None
            try:
                number, tenant = tenant_named(self._store, txn, uid, tenant_name(name), where)
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
        """Merge what commit `sequence` has changed into the cached tenants."""
        with self._lock:
            for number in dropped:
                self._forget(self._numbers.get(number))
            if not self._numbers:
                return
            coming, going = _rows_by_number(added, self._numbers), _rows_by_number(removed, self._numbers)
            for number in coming.keys() | going.keys():
                old = self._numbers[number]
                if old.sequence >= sequence:
                    continue  # it was read after this commit
                rows = apply_changes(old.allowed.rows, going.get(number, _NO_ROWS), coming.get(number, _NO_ROWS))
                self._bytes += rows.nbytes - (0 if old.older is None else old.older.allowed.nbytes)
                old.older, old.valid_to = None, sequence - 1
                new = CachedTenant(old.name, number, sequence, _ALWAYS, RowSet(rows, self._grow), old, old.used)
                self._numbers[number] = self._entries[old.name] = new
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
        dropped = self._unions.pop(names, None)
        if dropped is not None:
            self._bytes -= dropped.allowed.nbytes

    def _grow(self, nbytes: int) -> None:
        """Called when a cached RowSet keeps a bitmap. Counted without the lock: an eviction counts all bytes again."""
        self._bytes += nbytes

    def _evict(self) -> None:
        """When the bound is passed: drop unions, then tenants unused since the last eviction, until enough is free."""
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
    """The rows (uint32, ascending) of each tenant in `wanted`, by number."""
    if not len(pairs):
        return {}
    ordered = np.sort(by_tenant(pairs))
    numbers, starts = np.unique(ordered >> 32, return_index=True)
    rows = ordered.astype(np.uint32)  # the lower half
    ends = [*starts[1:].tolist(), len(rows)]
    return {
        number: rows[start:end]
        for number, start, end in zip(numbers.tolist(), starts.tolist(), ends, strict=True)
        if number in wanted
    }
