"""Encoded fields of the hits of searches for one query: those of records that are found often are kept.

    rows -> kept | read from LMDB, all at once -> msgpack bytes

A row's fields never change but by `update`, which the collection's state tells: what is kept is of one generation, and
of one commit where some of its records have other fields than were written with them. Bounded by bytes: what was not
asked for while half of them were filled is forgotten.

Threads: any number. What belongs together is replaced as one object; an entry that is lost is read again.
"""

from __future__ import annotations

from collections.abc import Callable

from vecdb import limits
from vecdb.state.snapshot import Snapshot

_ENTRY_BYTES = 150  # of an entry beside its fields: the row, the head of `bytes`, the place in a dict
Read = Callable[[Snapshot, list[int]], list[bytes] | None]


class _Kept:
    """of : a generation, and the commit, or -1 where fields are as they were written."""

    __slots__ = ("bytes", "new", "of", "old")

    def __init__(self, of: tuple[int, int]) -> None:
        self.of = of
        self.new: dict[int, bytes] = {}
        self.old: dict[int, bytes] = {}
        self.bytes = 0  # of `new`


class FieldsCache:
    """read : the fields of rows from LMDB, None where the rows have been renumbered since the snapshot."""

    def __init__(self, read: Read) -> None:
        self._read = read
        self._kept = _Kept((-1, -1))

    def of(self, snapshot: Snapshot, rows: list[int]) -> list[bytes] | None:
        """The encoded fields of each row. None where rows have been renumbered since the snapshot."""
        state, kept = snapshot.state, self._kept
        of = state.generation, -1 if state.field_changes is None else state.sequence
        if kept.of != of:
            kept = self._kept = _Kept(of)
        new = kept.new
        try:
            return [new[row] for row in rows]
        except KeyError:
            return self._found(snapshot, rows, kept)

    def _found(self, snapshot: Snapshot, rows: list[int], kept: _Kept) -> list[bytes] | None:
        new, old = kept.new, kept.old
        found = {row: old[row] for row in rows if row not in new and row in old}
        missing = [row for row in rows if row not in new and row not in found]
        if missing:
            read = self._read(snapshot, missing)
            if read is None:
                return None
            found.update(zip(missing, read, strict=True))
        answer = [found[row] if row in found else new[row] for row in rows]
        added = sum(map(len, found.values())) + _ENTRY_BYTES * len(found)
        if added <= limits.hit_fields_cache_bytes // 4:
            kept.bytes += added
            if kept.bytes > limits.hit_fields_cache_bytes // 2:
                kept.old, kept.new, kept.bytes = new, {}, added
            kept.new.update(found)
        return answer
