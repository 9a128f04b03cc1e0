"""What a write does inside the commit: the requests, and `PendingChanges`, one collection's changes in one group.

    request.apply(group)   look up ids -> work out access lists -> write vectors at the end of the row file -> put ids,
                           note the rows that died -> write access lists
    Pending.finish(group)  blocks, tombs, tenants, state into LMDB; row file synced
    Pending.publish()      memory: crcs, ids, deletions, tail codes, tenants' rows, then the new view

Order on disk: vectors are synced before the commit that counts them. Order in memory: everything of a row is in
place before the view that shows it. A request that raises has changed nothing (its vectors may lie past the counted
rows, where nobody looks).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from vecdb import limits
from vecdb.commit.committer import CommitGroup, SyncFailed
from vecdb.errors import AlreadyExists, InvalidArgument, LimitExceeded, NotFound
from vecdb.kernels.primitives.checksums import crc_rows
from vecdb.state.generation import record_metas, verify_vectors
from vecdb.storage.disk import filesystem
from vecdb.storage.kv import catalog, keys, record_format
from vecdb.tenancy.access_changes import AccessChange, AccessWriter, tenants_of
from vecdb.tenancy.pairs import RowTenantPairs
from vecdb.validate import AccessLists, IdBatch
from vecdb.validate.common import show, slices
from vecdb.validate.not_found import collection_not_found

if TYPE_CHECKING:
    from vecdb.embedded.local_collection import LocalCollection

Mode = Literal["upsert", "insert"]
_PAIR_BYTES = 64  # what a (record, tenant) pair writes, roughly: two entries
_SLICE = 256  # ids per stretch of bytecode, about 200 us; then the interpreter lock is offered to waiting searches


@dataclass(slots=True)
class _Added:
    """Rows that one request added."""

    first_row: int
    crcs: NDArray[np.uint32]
    ids: IdBatch
    metas: list[bytes] | None


@dataclass(slots=True)
class PendingChanges:
    """Changes of one collection in one group. Lives on the commit thread."""

    engine: LocalCollection
    state: catalog.CommittedState
    access: AccessWriter
    added: list[_Added] = field(default_factory=list)
    dead: list[NDArray[np.int64]] = field(default_factory=list)

    @staticmethod
    def of(group: CommitGroup, engine: LocalCollection) -> PendingChanges:
        """The group's pending changes of this collection, begun at its newest state. Raises NotFound where it was
        dropped.
        """
        found = group.participants.get(engine)
        if found is None:
            raw = group.txn.get(keys.uid(engine.entry.uid), db=group.store.state)
            if raw is None:
                raise collection_not_found(engine.entry.name)
            state = engine.snapshot.state
            access = AccessWriter(engine.entry.uid, engine.snapshot.generation.journal, state.journal)
            found = PendingChanges(engine, state, access)
            group.participants[engine] = found
        assert isinstance(found, PendingChanges)
        return found

    @property
    def prefix(self) -> bytes:
        return self.engine.snapshot.generation.prefix

    def keys(self, ids: IdBatch, owner: bytes) -> list[bytes]:
        """LMDB keys of `ids`."""
        prefix = keys.owner_prefix(self.prefix, owner)
        out: list[bytes] = []
        for start, stop in slices(ids.n, 8 * _SLICE):
            out.extend([prefix + key for key in ids.keys[start:stop]])
        return out

    def find(self, group: CommitGroup, id_keys: Sequence[bytes]) -> dict[bytes, bytes]:
        """Row (u64 LE) by key, for those keys that exist."""
        cursor = group.txn.cursor(db=group.store.ids)
        found: dict[bytes, bytes] = {}
        for start, stop in slices(len(id_keys), _SLICE):
            found.update(cursor.getmulti(id_keys[start:stop]))
        return found

    def find_all(self, group: CommitGroup, id_keys: Sequence[bytes]) -> list[bytes]:
        """Row (u64 LE) of each key. Raises NotFound where one does not exist."""
        found = self.find(group, id_keys)
        missing = [key for key in id_keys if key not in found] if len(found) < len(id_keys) else []
        if missing:
            raise NotFound(
                f"collection {self.engine.entry.name!r} has no record {_id_name(missing[0])}"
                + (f" and {len(missing) - 1} more of these ids" if len(missing) > 1 else "")
                + "; use upsert to add records"
            )
        return [found[key] for key in id_keys]

    def meta(self, group: CommitGroup, row: int) -> bytes:
        """The meta of a row, also of one added earlier in this group."""
        for part in self.added:
            if part.first_row <= row < part.first_row + len(part.crcs):
                return part.metas[row - part.first_row] if part.metas else b""
        [meta] = record_metas(group.store, group.txn, self.prefix, [row], self.engine.entry.name)
        return meta

    def add(
        self, group: CommitGroup, ids: IdBatch, id_keys: list[bytes], vectors: NDArray[Any], metas: list[bytes] | None
    ) -> None:
        """Append rows for `ids` (distinct) and point the ids at them."""
        state = self.state
        first, n = state.row_count, len(vectors)
        rows_max = limits.rows_max
        if first + n > rows_max:
            raise LimitExceeded(
                f"collection {self.engine.entry.name!r} would have {first + n} rows, limit {rows_max}; vacuum it first"
            )
        generation = self.engine.snapshot.generation
        try:
            blob_bytes = sum(len(part.ids.blob) for part in self.added) + len(ids.blob)
            generation.ensure(first + n, ids.kind, blob_bytes)
            group.store.make_room()
            generation.rows.write(first, vectors)
        except OSError as error:
            raise filesystem.to_vecdb_error(error, f"writing {n} vectors") from error
        crcs = crc_rows(vectors)
        group.changed = True
        cursor = group.txn.cursor(db=group.store.ids)
        values = np.arange(first, first + n, dtype="<u8").view("V8")
        for start, stop in slices(n, _SLICE):
            cursor.putmulti(list(zip(id_keys[start:stop], values[start:stop].tolist(), strict=True)))
        self.added.append(_Added(first, crcs, ids, metas))
        self.state = msgspec.structs.replace(
            state,
            row_count=first + n,
            live_count=state.live_count + n,
            id_kind=state.id_kind or ids.kind,
            has_fields=state.has_fields or metas is not None,
        )

    def kill(self, group: CommitGroup, rows: NDArray[np.int64]) -> None:
        """Mark rows (int64[n], distinct, live) as deleted by this commit."""
        if len(rows):
            group.changed = True
            self.dead.append(rows)
            self.state = msgspec.structs.replace(self.state, live_count=self.state.live_count - len(rows))

    def change_access(self, group: CommitGroup, change: AccessChange) -> int:
        """Make a change of access lists. Returns how many pairs it changed."""
        if len(change) or change.new:
            group.changed = True
            self.access.make(group, change)
            self.state = msgspec.structs.replace(self.state, has_tenants=True)
        return len(change)

    # -- Participant -------------------------------------------------------------------------------

    def finish(self, group: CommitGroup) -> None:
        txn, store, sequence = group.txn, group.store, group.sequence
        for first, raw in self._blocks(sequence):
            txn.put(keys.row_key(self.prefix, first), raw, db=store.blocks)
        if self.dead:
            rows = np.sort(np.concatenate(self.dead)).astype("<u8").view("V8")
            key = keys.row_key(self.prefix, sequence)
            cursor = txn.cursor(db=store.tombs)
            for start, stop in slices(len(rows), _SLICE):
                cursor.putmulti([(key, row) for row in rows[start:stop].tolist()])
        self.access.finish(group)
        self.state = msgspec.structs.replace(self.state, sequence=sequence, journal=self.access.there)
        txn.put(keys.uid(self.engine.entry.uid), catalog.encode(self.state), db=store.state)
        if self.engine.durable:
            try:
                self.engine.snapshot.generation.rows.sync()
            except OSError as error:
                raise SyncFailed(error) from error

    def _blocks(self, sequence: int) -> list[tuple[int, bytes]]:
        """(first row, encoded block) of everything added: requests joined, then cut."""
        if not self.added:
            return []
        int_ids = self.added[0].ids.kind == "int"
        crcs = np.concatenate([part.crcs for part in self.added])
        lengths = np.concatenate([np.diff(part.ids.ends, prepend=np.uint32(0)) for part in self.added])
        blob = b"".join([part.ids.blob for part in self.added])
        metas: list[bytes] | None = None
        if any(part.metas is not None for part in self.added):
            metas = []
            for part in self.added:
                metas.extend(part.metas if part.metas is not None else [b""] * len(part.crcs))
        ends = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
        first_row, blocks = self.added[0].first_row, []
        for start in range(0, len(crcs), limits.block_rows_max):
            stop = min(start + limits.block_rows_max, len(crcs))
            raw = record_format.encode_block(
                first_row + start, sequence, crcs[start:stop], lengths[start:stop], blob[ends[start] : ends[stop]],
                metas[start:stop] if metas is not None else None, int_ids=int_ids,
            )  # fmt: skip
            blocks.append((first_row + start, raw))
        return blocks

    def publish(self) -> None:
        generation = self.engine.snapshot.generation
        for part in self.added:
            generation.extend(part.first_row, part.crcs, part.ids.ints, part.ids.blob, part.ids.ends)
        if self.dead:
            generation.delete(np.concatenate(self.dead), self.state.sequence)
        if self.added:
            generation.index.publish_rows(self.state.row_count)
        access = self.access
        access.publish()
        if access.added or access.removed or access.dropped:
            generation.tenants.publish(self.state.sequence, *access.net, access.dropped)
            if generation.access_log is not None:
                generation.access_log += [pairs.rows for pairs in access.net]
        self.engine.publish(self.state)


def _rows_of(values: list[bytes]) -> NDArray[np.int64]:
    return np.frombuffer(b"".join(values), "<u8").astype(np.int64)


def _check_kind(pending: PendingChanges, ids: IdBatch) -> None:
    kind = pending.state.id_kind
    if kind is not None and ids.kind != kind and ids.n:
        raise InvalidArgument(f"collection {pending.engine.entry.name!r} has {kind} ids, got {ids.kind} ids")


@dataclass(slots=True)
class UpsertRecords:
    """Upsert or insert of a batch: all or nothing. Ids are distinct (the gate kept the last of each)."""

    kind: ClassVar[bytes] = b"Put"
    engine: LocalCollection
    owner: bytes
    ids: IdBatch
    vectors: NDArray[Any]
    metas: list[bytes] | None
    mode: Mode
    tenants: AccessLists | None = None
    exclusive: bool = False

    @property
    def size_bytes(self) -> int:
        pairs = 0 if self.tenants is None else _PAIR_BYTES * len(self.tenants.records)
        return self.vectors.nbytes + sum(map(len, self.metas or ())) + pairs

    def apply(self, group: CommitGroup) -> int:
        pending = PendingChanges.of(group, self.engine)
        _check_kind(pending, self.ids)
        id_keys = pending.keys(self.ids, self.owner)
        found = pending.find(group, id_keys)
        if found and self.mode == "insert":
            names = ", ".join(str(_id_name(key)) for key in list(found)[:3])
            raise AlreadyExists(
                f"collection {self.engine.entry.name!r} already has {len(found)} of these ids, such as {names}; "
                "use upsert to replace them"
            )
        change = None
        if self.tenants is not None or (found and pending.state.has_tenants):
            change = self._access(group, pending, id_keys, found)
        pending.add(group, self.ids, id_keys, self.vectors, self.metas)
        pending.kill(group, _rows_of(list(found.values())))
        if change is not None:
            pending.change_access(group, change)
        return len(self.vectors)

    def _access(
        self, group: CommitGroup, pending: PendingChanges, id_keys: list[bytes], found: dict[bytes, bytes]
    ) -> AccessChange:
        state = pending.state
        at = [i for i, key in enumerate(id_keys) if key in found] if found else []
        replaced = _rows_of([found[id_keys[i]] for i in at])
        first = state.row_count
        successors = first + np.asarray(at, np.int64)
        live_count = state.live_count + len(self.vectors) - len(replaced)
        return pending.access.put(group, self.tenants, first, replaced, successors, live_count)


def _id_name(key: bytes) -> Any:
    raw = keys.split_id(key)[1]
    try:
        return repr(raw.decode())
    except UnicodeDecodeError:
        return int.from_bytes(raw, "big") - (1 << 63)


@dataclass(slots=True)
class UpdateRecords:
    """New vectors and/or changed fields for ids that must exist. Fields given replace those of the same name; None
    removes one.
    """

    kind: ClassVar[bytes] = b"Update"
    engine: LocalCollection
    owner: bytes
    ids: IdBatch
    vectors: NDArray[Any] | None
    fields: list[bytes] | None
    exclusive: bool = False

    @property
    def size_bytes(self) -> int:
        return (0 if self.vectors is None else self.vectors.nbytes) + sum(map(len, self.fields or ()))

    def apply(self, group: CommitGroup) -> int:
        pending = PendingChanges.of(group, self.engine)
        _check_kind(pending, self.ids)
        id_keys = pending.keys(self.ids, self.owner)
        rows = _rows_of(pending.find_all(group, id_keys))
        if not id_keys:
            return 0
        vectors = self.vectors if self.vectors is not None else self._stored(pending, rows)
        metas, state, change = self._metas(group, pending, rows), pending.state, None
        if state.has_tenants:
            successors = state.row_count + np.arange(len(rows))
            change = pending.access.put(group, None, state.row_count, rows, successors, state.live_count)
        pending.add(group, self.ids, id_keys, vectors, metas)
        pending.kill(group, rows)
        if change is not None:
            pending.change_access(group, change)
        return len(rows)

    def _stored(self, pending: PendingChanges, rows: NDArray[np.int64]) -> NDArray[Any]:
        """The present vectors, compared with their crcs before they are written anew."""
        generation = pending.engine.snapshot.generation
        known = rows < generation.ids.row_count
        vectors = np.ascontiguousarray(generation.rows.arrays.vectors[rows])
        verify_vectors(generation, rows[known], vectors[known], generation.rows.arrays.crcs[rows[known]])
        return vectors

    def _metas(self, group: CommitGroup, pending: PendingChanges, rows: NDArray[np.int64]) -> list[bytes] | None:
        if not pending.state.has_fields and self.fields is None:
            return None
        metas = [pending.meta(group, row) for row in rows.tolist()]
        if self.fields is None:
            return metas
        merged = []
        for meta, changes in zip(metas, self.fields, strict=True):
            owner, raw = record_format.split_meta(meta)
            fields = record_format.merge_fields(raw, changes)
            if len(fields) > limits.fields_bytes_max:
                raise LimitExceeded(
                    f"fields would pass {limits.fields_bytes_max:,} bytes, the most of one record, with those that are "
                    "there: remove some with None, or upsert the record"
                )
            merged.append(record_format.encode_meta(owner, fields))
        return merged


@dataclass(slots=True)
class DeleteRecords:
    """Delete ids; those that do not exist are passed over. Returns how many were deleted."""

    kind: ClassVar[bytes] = b"Delete"
    engine: LocalCollection
    owner: bytes
    ids: IdBatch
    size_bytes: int = 0
    exclusive: bool = False

    def apply(self, group: CommitGroup) -> int:
        pending = PendingChanges.of(group, self.engine)
        _check_kind(pending, self.ids)
        found = pending.find(group, pending.keys(self.ids, self.owner))
        rows = _rows_of(list(found.values()))
        if pending.state.has_tenants and len(rows):
            pending.change_access(group, pending.access.delete(group, np.sort(rows)))
        pending.kill(group, rows)
        gone = list(found)
        for start, stop in slices(len(gone), _SLICE):
            for key in gone[start:stop]:
                group.txn.delete(key, db=group.store.ids)
        return len(gone)


@dataclass(slots=True)
class GrantOrRevoke:
    """Grant or revoke: tenants of records that must exist. Returns how many (record, tenant) pairs have changed."""

    kind: ClassVar[bytes] = b"ChangeAccess"
    engine: LocalCollection
    owner: bytes
    ids: IdBatch
    tenants: AccessLists
    granted: bool
    exclusive: bool = False

    @property
    def size_bytes(self) -> int:
        return _PAIR_BYTES * len(self.tenants.records)

    def apply(self, group: CommitGroup) -> int:
        pending = PendingChanges.of(group, self.engine)
        _check_kind(pending, self.ids)
        id_keys = pending.keys(self.ids, self.owner)
        rows = _rows_of(pending.find_all(group, id_keys))
        access, given, live_count = pending.access, self.tenants, pending.state.live_count
        numbers, new = access.resolve(group, given.names, create=self.granted)
        pairs = RowTenantPairs.of(rows[given.records], numbers[given.which])
        if not self.granted:
            return pending.change_access(group, access.revoke(group, pairs))
        change = access.grant(group, pairs, new, live_count)
        make_room(group, "granting access")
        return pending.change_access(group, change)


@dataclass(slots=True)
class CreateTenants:
    """Make tenants of `names` (distinct). Returns how many were not there; with `exist_ok` those that were keep their
    records, and get the quota where one is given.
    """

    kind: ClassVar[bytes] = b"CreateTenants"
    engine: LocalCollection
    names: list[bytes]
    exist_ok: bool
    records_max: int | None
    exclusive: bool = False

    @property
    def size_bytes(self) -> int:
        return _PAIR_BYTES * len(self.names)

    def apply(self, group: CommitGroup) -> int:
        pending = PendingChanges.of(group, self.engine)
        access = pending.access
        numbers, new = access.resolve(group, self.names, create=True)
        there = [number for number in numbers.tolist() if number not in new]
        if there and not self.exist_ok:
            known = tenants_of(group.store, group.txn, access.uid, np.array(there[:1], np.uint64), access.where)
            found = known[there[0]]
            name = "" if found is None else found.name.decode()
            raise AlreadyExists(f"collection {access.where!r} has tenant {show(name)} already; pass exist_ok=True")
        make_room(group, "creating tenants")
        access.create(group, new, self.records_max or 0)
        if self.records_max is not None:
            for number in there:
                access.limit(group, number, self.records_max)
        if new or (there and self.records_max is not None):
            group.changed = True
            pending.state = msgspec.structs.replace(pending.state, has_tenants=True)
        return len(new)


@dataclass(slots=True)
class DropTenant:
    """Forget a tenant: its records stay, and nobody inherits them."""

    kind: ClassVar[bytes] = b"DropTenant"
    engine: LocalCollection
    name: bytes
    size_bytes: int = 0
    exclusive: bool = False

    def apply(self, group: CommitGroup) -> None:
        pending = PendingChanges.of(group, self.engine)
        pending.access.drop(group, self.name)
        group.changed = True


def make_room(group: CommitGroup, doing: str) -> None:
    try:
        group.store.make_room()
    except OSError as error:
        raise filesystem.to_vecdb_error(error, doing) from error


@dataclass(slots=True)
class PatchState:
    """Put other values into the state, such as the name of a sealed file, unless the generation has moved on.

    Returns whether it did.
    """

    engine: LocalCollection
    generation: int
    changes: dict[str, Any]
    size_bytes: int = 0
    exclusive: bool = False

    def apply(self, group: CommitGroup) -> bool:
        pending = PendingChanges.of(group, self.engine)
        if pending.state.generation != self.generation:
            return False
        pending.state = msgspec.structs.replace(pending.state, **self.changes)
        group.changed = True
        return True
