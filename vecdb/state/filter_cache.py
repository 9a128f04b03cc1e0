"""Rows that match filters, kept for one snapshot: a filter that comes again costs a look into a dict.

A snapshot never changes, so an entry holds as long as it does. Bounded by bytes; the entry that was used longest ago
goes first.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Hashable
from typing import Generic, TypeVar

from vecdb import limits
from vecdb.index.row_set import RowSet

P = TypeVar("P")
_PREPARED_MAX = 64
_ENTRY_BYTES = 2_048  # of an entry beside its rows and its key, with a prepared search


class MatchingRows(Generic[P]):
    """allowed : rows that match.   records_read : how many records were looked at, since columns did not tell.
    checked : whether its orders were compared with the types of the fields.
    prepared : searches among the rows, by what else they are of, with the version of the index that they were prepared
    for.
    """

    __slots__ = ("allowed", "checked", "prepared", "records_read")

    def __init__(self, allowed: RowSet, records_read: int = 0) -> None:
        self.allowed = allowed
        self.records_read = records_read
        self.checked = False
        self.prepared: dict[Hashable, tuple[object, P]] = {}

    def search(self, key: Hashable, version: object) -> P | None:
        """version : `Index.version`, compared by identity."""
        known = self.prepared.get(key)
        return known[1] if known is not None and known[0] is version else None

    def keep(self, key: Hashable, version: object, prepared: P) -> None:
        if len(self.prepared) >= _PREPARED_MAX:
            self.prepared = {}
        self.prepared[key] = version, prepared


class FilterCache(Generic[P]):
    """Threads: any number."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._entries: OrderedDict[Hashable, MatchingRows[P]] = OrderedDict()
        self._sizes: dict[Hashable, int] = {}  # what each entry counts
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: Hashable) -> MatchingRows[P] | None:
        entry = self._entries.get(key)
        if entry is not None:
            with self._lock:
                if key in self._entries:
                    self._entries.move_to_end(key)
        return entry

    def keep(self, key: Hashable, entry: MatchingRows[P], key_bytes: int) -> None:
        """key_bytes : what the key takes in memory, about."""
        with self._lock:
            self._entries[key] = entry
            self._count(key, entry.allowed.nbytes + key_bytes + _ENTRY_BYTES - self._sizes.get(key, 0))

    def grown(self, key: Hashable, nbytes: int) -> None:
        """The entry of a key keeps so many bytes more."""
        with self._lock:
            if key in self._entries:
                self._count(key, nbytes)

    def _count(self, key: Hashable, nbytes: int) -> None:
        """Count what an entry takes more, and let go of others where it is too much. Under the lock."""
        self._sizes[key] = self._sizes.get(key, 0) + nbytes
        self._bytes += nbytes
        while self._bytes > limits.filter_cache_bytes and len(self._entries) > 1:
            oldest, _ = self._entries.popitem(last=False)
            self._bytes -= self._sizes.pop(oldest)
