"""Requests that change who may see records, and which tenants there are.

A request that raises has changed nothing. Its `kind` is stored where the request has an id (idempotency.py).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

import msgspec
import numpy as np

from vecdb.commit.committer import CommitGroup
from vecdb.commit.idempotency import content_of_ids, content_of_lists
from vecdb.commit.pending import PAIR_BYTES, PendingChanges, ensure_spare_room, rows_of
from vecdb.errors import AlreadyExists
from vecdb.state.collection_state import CollectionState
from vecdb.tenancy.pairs import pack
from vecdb.tenancy.tenant_names import tenants_of
from vecdb.validate import AccessLists, IdBatch
from vecdb.validate.common import short_repr


@dataclass(slots=True)
class GrantOrRevoke:
    """Grant or revoke: tenants of records that must exist. Returns how many (record, tenant) pairs have changed."""

    kind: ClassVar[bytes] = b"ChangeAccess"
    state: CollectionState
    owner: bytes
    ids: IdBatch
    tenants: AccessLists
    granted: bool
    exclusive: bool = False

    @property
    def size_bytes(self) -> int:
        return PAIR_BYTES * len(self.tenants.records)

    def content(self) -> Iterable[bytes]:
        yield from (self.owner, bytes([self.granted]))
        yield from content_of_ids(self.ids)
        yield from content_of_lists(self.tenants)

    def apply(self, group: CommitGroup) -> int:
        pending = PendingChanges.of(group, self.state)
        pending.check_kind(self.ids)
        id_keys = pending.keys(self.ids, self.owner)
        rows = rows_of(pending.find_all(group, id_keys))
        access, given, live_count = pending.access, self.tenants, pending.state.live_count
        numbers, new = access.resolve(group, given.names, create=self.granted)
        pairs = pack(rows[given.records], numbers[given.which])
        if not self.granted:
            return pending.change_access(group, access.revoke(group, pairs))
        change = access.grant(group, pairs, new, live_count)
        ensure_spare_room(group, "granting access")
        return pending.change_access(group, change)


@dataclass(slots=True)
class CreateTenants:
    """Make tenants of `names` (distinct). Returns how many did not exist. With `exist_ok` those that exist keep their
    records, and get the quota where one is given.
    """

    kind: ClassVar[bytes] = b"CreateTenants"
    state: CollectionState
    names: list[bytes]
    exist_ok: bool
    records_max: int | None
    exclusive: bool = False

    @property
    def size_bytes(self) -> int:
        return PAIR_BYTES * len(self.names)

    def content(self) -> Iterable[bytes]:
        yield from (bytes([self.exist_ok]), str(self.records_max).encode())
        yield from self.names

    def apply(self, group: CommitGroup) -> int:
        pending = PendingChanges.of(group, self.state)
        access = pending.access
        numbers, new = access.resolve(group, self.names, create=True)
        existing = [number for number in numbers.tolist() if number not in new]
        if existing and not self.exist_ok:
            known = tenants_of(group.store, group.txn, access.uid, np.array(existing[:1], np.int64), access.where)
            found = known[existing[0]]
            name = "" if found is None else found.name.decode()
            raise AlreadyExists(
                f"collection {access.where!r} has tenant {short_repr(name)} already; pass exist_ok=True"
            )
        ensure_spare_room(group, "creating tenants")
        access.create(group, new, self.records_max or 0)
        if self.records_max is not None:
            for number in existing:
                access.limit(group, number, self.records_max)
        if new or (existing and self.records_max is not None):
            group.changed = True
            pending.state = msgspec.structs.replace(pending.state, has_tenants=True)
        return len(new)


@dataclass(slots=True)
class DropTenant:
    """Drop a tenant. Its records stay; a later tenant of the same name does not see them."""

    kind: ClassVar[bytes] = b"DropTenant"
    state: CollectionState
    name: bytes
    size_bytes: int = 0
    exclusive: bool = False

    def content(self) -> Iterable[bytes]:
        yield self.name

    def apply(self, group: CommitGroup) -> None:
        pending = PendingChanges.of(group, self.state)
        pending.access.drop(group, self.name)
        group.changed = True
