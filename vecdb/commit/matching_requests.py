"""Requests that change the records that match a filter, as they are at the commit: delete them, or change fields.

    apply(group)   rows that match at the newest commit -> keys of their ids -> what a request by ids does

Each has a group of its own, so that nothing lies between the commit that is looked at and the one that changes it. The
caller works out once before which rows match: then the commit thread finds the columns read, and most often the answer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from vecdb import limits
from vecdb.commit.committer import SLICE_ENTRIES, CommitGroup
from vecdb.commit.pending import PendingChanges
from vecdb.commit.record_requests import UpdateRecords
from vecdb.errors import LimitExceeded, Unavailable, VecdbError
from vecdb.index.row_set import RowSet
from vecdb.state.collection_state import CollectionState
from vecdb.state.snapshot import Snapshot
from vecdb.storage.kv import keys
from vecdb.validate import ids
from vecdb.validate.common import gil_slices

RowsAt = Callable[[Snapshot], RowSet | None]  # which rows of a snapshot match; None: it is not the newest


class UndoneRequest(Exception):
    """A request failed after its first change: its group is undone. error : why; callers get that."""

    def __init__(self, error: VecdbError) -> None:
        super().__init__(str(error))
        self.error = error


@dataclass(slots=True)
class DeleteMatching:
    """Delete the records that match. owner : whose, None for everybody's.   asked : the filter and who asks, as text.
    Returns how many were deleted.
    """

    kind: ClassVar[bytes] = b"DeleteMatching"
    state: CollectionState
    rows_at: RowsAt
    owner: bytes | None
    asked: bytes
    size_bytes: int = 0
    exclusive: bool = True

    def content(self) -> Iterable[bytes]:
        return _owner_content(self.owner), self.asked

    def apply(self, group: CommitGroup) -> int:
        pending = PendingChanges.of(group, self.state)
        rows, row_keys = _matching(group, pending, self.rows_at, self.owner)
        if not len(rows):
            return 0
        if pending.state.has_tenants:
            pending.change_access(group, pending.access.delete(group, rows))
        pending.mark_deleted(group, rows)
        for start, stop in gil_slices(len(row_keys), SLICE_ENTRIES):
            for key in row_keys[start:stop]:
                group.txn.delete(key, db=group.store.ids)
        return len(rows)


@dataclass(slots=True)
class UpdateMatching:
    """Lay fields (a msgpack map) over those of the records that match, as `UpdateRecords` does. Returns how many."""

    kind: ClassVar[bytes] = b"UpdateMatching"
    state: CollectionState
    rows_at: RowsAt
    fields: bytes
    owner: bytes | None
    asked: bytes
    size_bytes: int = 0
    exclusive: bool = True

    def content(self) -> Iterable[bytes]:
        return _owner_content(self.owner), self.asked, self.fields

    def apply(self, group: CommitGroup) -> int:
        pending = PendingChanges.of(group, self.state)
        rows, row_keys = _matching(group, pending, self.rows_at, self.owner)
        if len(rows) > limits.batch_rows_max:
            raise LimitExceeded(
                f"one call changes at most {limits.batch_rows_max:,} records, {len(rows):,} match: narrow the filter"
            )
        names = pending.collection.snapshot.generation.ids.take(rows, padded=False).tolist()
        by_owner: dict[bytes, list[int | str]] = {}
        for key, name in zip(row_keys, names, strict=True):
            by_owner.setdefault(keys.split_id(key)[0], []).append(name)
        for owner, some in by_owner.items():
            changes = [self.fields] * len(some)
            try:
                UpdateRecords(self.state, owner, ids(some), None, changes).apply(group)
            except VecdbError as error:
                if group.changed:
                    raise UndoneRequest(error) from error
                raise
        return len(rows)


def _owner_content(owner: bytes | None) -> bytes:
    return b"" if owner is None else b"\0" + owner


def _matching(
    group: CommitGroup, pending: PendingChanges, rows_at: RowsAt, owner: bytes | None
) -> tuple[NDArray[np.int64], list[bytes]]:
    """Live rows that match, ascending, and the key of each one's id."""
    allowed = rows_at(pending.collection.snapshot)
    if allowed is None:
        raise Unavailable("the collection is being renumbered; try again")
    rows = allowed.rows.astype(np.int64)
    found = pending.keys_of_rows(group, rows)
    if owner is not None:
        head = keys.owner_prefix(pending.prefix, owner)
        kept = [at for at, key in enumerate(found) if key.startswith(head)]
        rows, found = rows[kept], [found[at] for at in kept]
    return rows, found
