"""Requests that change who may see records, and which tenants there are.

A request that raises has changed nothing. Its `kind` is stored where the request has an id (idempotency.py).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, ClassVar

import msgspec
import numpy as np
from numpy.typing import NDArray

from vecdb.commit.committer import CommitGroup
from vecdb.commit.idempotency import content_of_ids, content_of_lists
from vecdb.commit.pending import PAIR_BYTES, PendingChanges, ensure_spare_room, rows_of
from vecdb.errors import AlreadyExists, InvalidArgument, NotFound
from vecdb.state.collection_state import CollectionState
from vecdb.storage.kv import record_format
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
            return pending.change_access(group, access.revoke(group, pairs, self.owner))
        change = access.grant(group, pairs, new, live_count, self.owner)
        ensure_spare_room(group, "granting access")
        return pending.change_access(group, change)


@dataclass(slots=True)
class LeaveRecords:
    """A tenant gives up seeing records that others own and share with it. Returns how many; of one id several owners
    may have records.
    """

    kind: ClassVar[bytes] = b"Leave"
    state: CollectionState
    ids: IdBatch
    name: bytes
    size_bytes: int = 0
    exclusive: bool = True  # so that all rows are of commits before

    def content(self) -> Iterable[bytes]:
        yield self.name
        yield from content_of_ids(self.ids)

    def apply(self, group: CommitGroup) -> int:
        pending = PendingChanges.of(group, self.state)
        pending.check_kind(self.ids)
        access, where = pending.access, pending.access.where
        numbers, _ = access.resolve(group, [self.name], create=False)
        number = int(numbers[0])
        rows = access.grants(group).rows_of(number, pending.state.row_count).astype(np.int64)
        asked = self._asked()
        found = pending.collection.snapshot.generation.ids.take(rows, padded=False)
        at = np.flatnonzero(np.isin(found, asked))
        owners = [record_format.split_meta(meta)[0] for meta in pending.metas(group, rows[at]).metas]
        shared = at[[owner not in (b"", self.name) for owner in owners]]
        missing = np.setdiff1d(asked, found[shared])
        if len(missing):
            own = {found[i] for i, owner in zip(at.tolist(), owners, strict=True) if owner == self.name}
            if missing[0] in own:
                raise InvalidArgument("a tenant keeps its own records; delete them instead")
            raise NotFound(
                f"collection {where!r} has no record {short_repr(missing[0])} that others share with the tenant"
            )
        pairs = pack(rows[shared], np.full(len(shared), number))
        return pending.change_access(group, access.revoke(group, pairs, None))

    def _asked(self) -> NDArray[Any]:
        """The ids: int64[n], or object[n] of str."""
        if self.ids.ints is not None:
            return self.ids.ints
        asked = np.empty(self.ids.n, object)
        asked[:] = [key.decode() for key in self.ids.keys]
        return asked


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
        pending.drop_tenant(group, self.name)
