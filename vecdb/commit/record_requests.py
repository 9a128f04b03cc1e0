"""Requests that change records: upsert or insert, add, update, delete.

    apply(group)   look up ids -> work out access lists -> write vectors at the end of the row file -> put ids,
                   note the rows that are replaced or deleted -> write access lists
                   an update of fields alone: look up ids -> merge -> write the fields; the rows stay

A request that raises has changed nothing. Its `kind` is stored where the request has an id (idempotency.py).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar
from uuid import UUID

import numpy as np
from numpy.typing import NDArray

from vecdb import limits
from vecdb.api.backend import Mode
from vecdb.commit.committer import SLICE_ENTRIES, CommitGroup
from vecdb.commit.idempotency import content_of_bytes, content_of_ids, content_of_lists
from vecdb.commit.pending import PAIR_BYTES, PendingChanges, id_name, rows_of
from vecdb.errors import AlreadyExists, LimitExceeded
from vecdb.kernels.primitives.checksums import crc_rows
from vecdb.state.collection_state import CollectionState
from vecdb.storage.kv import record_format
from vecdb.tenancy.access_changes import AccessChange
from vecdb.validate import AccessLists, IdBatch, SomeVectors, ids
from vecdb.validate.common import INT64_END, gil_slices

_LOW_BITS = (1 << 62) - 1  # of a UUID, behind its variant


@dataclass(slots=True)
class UpsertRecords:
    """Upsert or insert of a batch: all or nothing. Ids are distinct (validate/ has kept the last of each). bare : as in
    `Batch`.
    """

    kind: ClassVar[bytes] = b"Put"
    state: CollectionState
    owner: bytes
    ids: IdBatch
    vectors: NDArray[Any]
    metas: list[bytes] | None
    mode: Mode
    tenants: AccessLists | None = None
    bare: NDArray[np.bool_] | None = None
    exclusive: bool = False

    @property
    def size_bytes(self) -> int:
        return _size_bytes(self)

    def content(self) -> Iterable[bytes]:
        yield from (self.owner, self.mode.encode(), crc_rows(self.vectors).tobytes())
        yield from content_of_ids(self.ids)
        yield from content_of_bytes(self.metas)
        yield from content_of_lists(self.tenants)
        yield from _content_of_bare(self.bare)

    def apply(self, group: CommitGroup) -> int:
        pending = PendingChanges.of(group, self.state)
        pending.check_kind(self.ids)
        id_keys = pending.keys(self.ids, self.owner)
        found = pending.find(group, id_keys)
        if found and self.mode == "skip":
            left = [at for at, key in enumerate(id_keys) if key not in found]
            return self._only(np.array(left, np.int64))._write(group, pending, [id_keys[i] for i in left], {})
        if found and self.mode == "insert":
            names = ", ".join(str(id_name(key)) for key in list(found)[:3])
            raise AlreadyExists(
                f"collection {self.state.entry.name!r} already has {len(found)} of these ids, such as {names}; "
                "use upsert to replace them"
            )
        return self._write(group, pending, id_keys, found)

    def _write(
        self, group: CommitGroup, pending: PendingChanges, id_keys: list[bytes], found: dict[bytes, bytes]
    ) -> int:
        """found : the records that are replaced."""
        if not id_keys:
            return 0
        change = None
        if self.tenants is not None or (found and pending.state.has_tenants):
            change = self._access(group, pending, id_keys, found)
        pending.add(group, self.ids, id_keys, self.vectors, self.metas, self.bare)
        pending.mark_deleted(group, rows_of(list(found.values())))
        if change is not None:
            pending.change_access(group, change)
        return self.ids.n

    def _only(self, at: NDArray[np.int64]) -> UpsertRecords:
        """The same of only the records at these positions."""
        metas = None if self.metas is None else [self.metas[i] for i in at.tolist()]
        tenants = None if self.tenants is None else self.tenants.take(at, self.ids.n)
        vectors, bare = SomeVectors(self.vectors, self.bare).take(at)
        return UpsertRecords(self.state, self.owner, self.ids.take(at), vectors, metas, self.mode, tenants, bare)

    def _access(
        self, group: CommitGroup, pending: PendingChanges, id_keys: list[bytes], found: dict[bytes, bytes]
    ) -> AccessChange:
        state = pending.state
        at = [i for i, key in enumerate(id_keys) if key in found] if found else []
        replaced = rows_of([found[id_keys[i]] for i in at])
        first = state.row_count
        successors = first + np.asarray(at, np.int64)
        live_count = state.live_count + self.ids.n - len(replaced)
        return pending.access.put(group, self.tenants, first, replaced, successors, live_count, self.owner)


@dataclass(slots=True)
class AddRecords:
    """Records under new ids, which only the commit knows: the largest int of their owner is that of this moment.

    seed : what UUIDs are made of, besides the time.   now_ms : Unix time.
    Returns what `made_ids` makes the ids of, which is also what is kept as the answer of a write that may be repeated.
    """

    kind: ClassVar[bytes] = b"Add"
    state: CollectionState
    owner: bytes
    vectors: NDArray[Any]
    metas: list[bytes] | None
    tenants: AccessLists | None
    seed: bytes
    now_ms: int
    bare: NDArray[np.bool_] | None = None
    exclusive: bool = False

    @property
    def size_bytes(self) -> int:
        return _size_bytes(self)

    @property
    def n(self) -> int:
        return len(self.vectors) if self.bare is None else len(self.bare)

    def content(self) -> Iterable[bytes]:
        yield from (self.owner, crc_rows(self.vectors).tobytes())
        yield from content_of_bytes(self.metas)
        yield from content_of_lists(self.tenants)
        yield from _content_of_bare(self.bare)

    def apply(self, group: CommitGroup) -> int:
        pending = PendingChanges.of(group, self.state)
        id_kind = pending.state.id_kind
        start = self.now_ms if id_kind == "str" else pending.next_int(group, self.owner)
        if start + self.n > INT64_END:
            raise LimitExceeded(f"no int ids are left behind the largest, {start - 1}; insert with ids of your own")
        made = ids(made_ids(id_kind, start, self.n, self.seed))
        UpsertRecords(self.state, self.owner, made, self.vectors, self.metas, "insert", self.tenants, self.bare).apply(
            group
        )
        return start


def _size_bytes(write: UpsertRecords | AddRecords) -> int:
    pairs = 0 if write.tenants is None else PAIR_BYTES * len(write.tenants.records)
    return write.vectors.nbytes + sum(map(len, write.metas or ())) + pairs


def _content_of_bare(bare: NDArray[np.bool_] | None) -> Iterable[bytes]:
    return () if bare is None else (np.packbits(bare).tobytes(),)


def made_ids(id_kind: str | None, start: int, n: int, seed: bytes) -> Sequence[int] | Sequence[str]:
    """New ids: ints from `start` on, or, where ids are strings, UUIDs of version 7 (RFC 9562) whose time is `start`, in
    milliseconds since 1970. Those of one call count up from a random number (method 2 of section 6.2), so that they
    sort as they were given.
    """
    if id_kind != "str":
        return range(start, start + n)
    number = int.from_bytes(hashlib.blake2b(seed, digest_size=9).digest(), "big")  # 72 of 74 bits: it may count up
    head, made = (start << 80) | (7 << 76) | (2 << 62), []
    for first, stop in gil_slices(n, SLICE_ENTRIES):
        for at in range(number + first, number + stop):
            made.append(str(UUID(int=head | (at >> 62) << 64 | (at & _LOW_BITS))))
    return made


@dataclass(slots=True)
class UpdateRecords:
    """New vectors and/or changed fields for ids that must exist. Fields given replace those of the same name; None
    removes one. Without vectors no row is written: the fields lie beside the records' blocks (field_changes.py).
    """

    kind: ClassVar[bytes] = b"Update"
    state: CollectionState
    owner: bytes
    ids: IdBatch
    vectors: NDArray[Any] | None
    fields: list[bytes] | None
    exclusive: bool = False

    @property
    def size_bytes(self) -> int:
        return (0 if self.vectors is None else self.vectors.nbytes) + sum(map(len, self.fields or ()))

    def content(self) -> Iterable[bytes]:
        yield from (self.owner, b"" if self.vectors is None else crc_rows(self.vectors).tobytes())
        yield from content_of_ids(self.ids)
        yield from content_of_bytes(self.fields)

    def apply(self, group: CommitGroup) -> int:
        pending = PendingChanges.of(group, self.state)
        pending.check_kind(self.ids)
        id_keys = pending.keys(self.ids, self.owner)
        rows = rows_of(pending.find_all(group, id_keys))
        if not id_keys:
            return 0
        metas, known = pending.metas(group, rows)
        if self.fields is not None:
            metas = self._merged(metas, self.fields)
        if self.vectors is None:
            pending.change_fields(group, rows, metas, known)
        else:
            self._replace(group, pending, id_keys, rows, metas if any(metas) else None)
        return len(rows)

    def _replace(
        self,
        group: CommitGroup,
        pending: PendingChanges,
        id_keys: list[bytes],
        rows: NDArray[np.int64],
        metas: list[bytes] | None,
    ) -> None:
        assert self.vectors is not None
        state, change = pending.state, None
        if state.has_tenants:
            successors = state.row_count + np.arange(len(rows))
            change = pending.access.put(group, None, state.row_count, rows, successors, state.live_count, self.owner)
        pending.add(group, self.ids, id_keys, self.vectors, metas)
        pending.mark_deleted(group, rows)
        if change is not None:
            pending.change_access(group, change)

    @staticmethod
    def _merged(metas: list[bytes], changes: list[bytes]) -> list[bytes]:
        """The metas with changed fields laid over them. Raises LimitExceeded."""
        merged = []
        for start, stop in gil_slices(len(metas), SLICE_ENTRIES):
            for meta, change in zip(metas[start:stop], changes[start:stop], strict=True):
                owner, old = record_format.split_meta(meta)
                fields = record_format.merge_fields(old, change)
                if len(fields) > limits.fields_bytes_max:
                    raise LimitExceeded(
                        f"fields would pass {limits.fields_bytes_max:,} bytes, the most of one record, with those that "
                        "are there: remove some with None, or upsert the record"
                    )
                merged.append(record_format.encode_meta(owner, fields) if owner else fields)
        return merged


@dataclass(slots=True)
class DeleteRecords:
    """Delete ids; those that do not exist are skipped. Returns how many were deleted."""

    kind: ClassVar[bytes] = b"Delete"
    state: CollectionState
    owner: bytes
    ids: IdBatch
    size_bytes: int = 0
    exclusive: bool = False

    def content(self) -> Iterable[bytes]:
        yield self.owner
        yield from content_of_ids(self.ids)

    def apply(self, group: CommitGroup) -> int:
        pending = PendingChanges.of(group, self.state)
        pending.check_kind(self.ids)
        found = pending.find(group, pending.keys(self.ids, self.owner))
        rows = rows_of(list(found.values()))
        if pending.state.has_tenants and len(rows):
            pending.change_access(group, pending.access.delete(group, np.sort(rows), self.owner))
        pending.mark_deleted(group, rows)
        deleted = list(found)
        for start, stop in gil_slices(len(deleted), SLICE_ENTRIES):
            for key in deleted[start:stop]:
                group.txn.delete(key, db=group.store.ids)
        return len(deleted)
