"""Requests that take a tenant's records away: those that no other tenant may see are deleted, the others are revoked.

    DropTenantAndRecords    the last of its records, and the tenant, in one commit
    DeleteTenantRecords     a bounded number of its records: of a large tenant these come before

A kill between two of them leaves a tenant with fewer records; the call is made again. What another is granted in the
meantime stays, since each commit looks at the access lists that it finds.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from vecdb import limits
from vecdb.commit.committer import SLICE_ENTRIES, CommitGroup
from vecdb.commit.pending import PendingChanges
from vecdb.errors import VecdbError
from vecdb.state.collection_state import CollectionState
from vecdb.tenancy.pairs import numbers_of, pack, rows_of
from vecdb.validate.common import gil_slices


class TooManyRecords(VecdbError):
    """A tenant has more records than one commit deletes: `DeleteTenantRecords` comes first. No caller sees it."""


@dataclass(slots=True)
class DropTenantAndRecords:
    """Returns how many records were deleted, with the `deleted` before. Raises TooManyRecords, NotFound."""

    kind: ClassVar[bytes] = b"DropRecords"
    state: CollectionState
    name: bytes
    deleted: int = 0
    size_bytes: int = 0
    exclusive: bool = True  # so that all rows of the group are in blocks

    def content(self) -> Iterable[bytes]:
        yield self.name

    def apply(self, group: CommitGroup) -> int:
        pending = PendingChanges.of(group, self.state)
        number, rows = _rows_of_tenant(group, pending, self.name)
        if len(rows) > limits.tenant_drop_rows:
            raise TooManyRecords(f"{len(rows):,} records")
        deleted = _delete(group, pending, number, rows)
        pending.drop_tenant(group, self.name)
        return self.deleted + deleted


@dataclass(slots=True)
class DeleteTenantRecords:
    """Returns how many records were deleted; others of those that it looked at were revoked."""

    state: CollectionState
    name: bytes
    size_bytes: int = 0
    exclusive: bool = True

    def apply(self, group: CommitGroup) -> int:
        pending = PendingChanges.of(group, self.state)
        number, rows = _rows_of_tenant(group, pending, self.name)
        return _delete(group, pending, number, rows[: limits.tenant_drop_rows])


def _rows_of_tenant(group: CommitGroup, pending: PendingChanges, name: bytes) -> tuple[int, NDArray[np.int64]]:
    """(number, rows ascending). Raises NotFound."""
    numbers, _ = pending.access.resolve(group, [name], create=False)
    number = int(numbers[0])
    return number, pending.access.grants(group).rows_of(number, pending.state.row_count).astype(np.int64)


def _delete(group: CommitGroup, pending: PendingChanges, number: int, rows: NDArray[np.int64]) -> int:
    """Delete those rows (ascending) of a tenant that no other may see, and take it off the lists of the others."""
    if not len(rows):
        return 0
    access = pending.access
    access.grants(group).confirm(number, rows.astype(np.uint32))
    _, seen = access.lists(group, rows)
    shared = np.unique(rows_of(seen[numbers_of(seen) != number])).astype(np.int64)
    alone = np.setdiff1d(rows, shared, assume_unique=True)
    keys = pending.keys_of_rows(group, alone)
    if len(shared):
        pending.change_access(group, access.revoke(group, pack(shared, np.full(len(shared), number, np.int64))))
    if len(alone):
        pending.change_access(group, access.delete(group, alone))
        pending.mark_deleted(group, alone)
    for start, stop in gil_slices(len(keys), SLICE_ENTRIES):
        for key in keys[start:stop]:
            group.txn.delete(key, db=group.store.ids)
    return len(alone)
