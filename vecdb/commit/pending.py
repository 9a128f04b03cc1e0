"""The changes of one collection in one commit group, from its first request to the new snapshot.

    requests               add rows, delete rows, change fields or access lists: ids, vectors, fields of rows that were
                           there before, and lists are written at once
    PendingChanges.finish  blocks, tombs, which rows have other fields, tenants, state into LMDB; row file synced
    PendingChanges.publish memory: crcs, ids, deletions, codes of the tail, rows of tenants, then the new snapshot

Order on disk: vectors are synced before the commit that counts them. Order in memory: everything of a row is in
place before the snapshot that shows it. Vectors of a request that failed may lie past the counted rows, which nobody
reads.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from vecdb import limits
from vecdb.commit.committer import SLICE_ENTRIES, CommitGroup, SyncFailed
from vecdb.errors import Corruption, InvalidArgument, LimitExceeded, NotFound
from vecdb.kernels.primitives.checksums import crc_rows
from vecdb.state.collection_state import CollectionState
from vecdb.state.field_changes import changed_metas, note_changed, put_changes
from vecdb.state.record_blocks import id_keys, record_block, record_metas
from vecdb.storage.disk import filesystem, manifest
from vecdb.storage.kv import catalog, keys, record_format
from vecdb.tenancy import pairs
from vecdb.tenancy.access_changes import AccessChange, AccessWriter
from vecdb.validate import IdBatch
from vecdb.validate.common import gil_slices
from vecdb.validate.not_found import collection_not_found

PAIR_BYTES = 64  # what a (record, tenant) pair writes, roughly: two entries


@dataclass(slots=True)
class _AddedRows:
    """Rows that one request added. bare : bool[n], those without a vector; None: each has one."""

    first_row: int
    crcs: NDArray[np.uint32]
    ids: IdBatch
    metas: list[bytes] | None
    bare: NDArray[np.bool_] | None


class StoredMetas(NamedTuple):
    """Metas of rows, in their order. known : of how many rows of earlier commits the fields have changed before."""

    metas: list[bytes]
    known: int


@dataclass(slots=True)
class PendingChanges:
    """Changes of one collection in one group. Lives on the commit thread."""

    collection: CollectionState
    state: catalog.CommittedState
    access: AccessWriter
    added: list[_AddedRows] = field(default_factory=list)
    dead: list[NDArray[np.int64]] = field(default_factory=list)
    changed: list[NDArray[np.int64]] = field(default_factory=list)  # rows of earlier commits whose fields changed

    @staticmethod
    def of(group: CommitGroup, collection: CollectionState) -> PendingChanges:
        """The group's pending changes of this collection, begun at its newest state. Raises NotFound where it was
        dropped.
        """
        found = group.participants.get(collection)
        if found is None:
            raw = group.txn.get(keys.uid(collection.entry.uid), db=group.store.state)
            if raw is None:
                raise collection_not_found(collection.entry.name)
            state = collection.snapshot.state
            access = AccessWriter(collection.entry.uid, collection.snapshot.generation.journal, state.journal)
            found = PendingChanges(collection, state, access)
            group.participants[collection] = found
        assert isinstance(found, PendingChanges)
        return found

    @property
    def prefix(self) -> bytes:
        return self.collection.snapshot.generation.prefix

    def keys(self, ids: IdBatch, owner: bytes) -> list[bytes]:
        """LMDB keys of `ids`."""
        prefix = keys.owner_prefix(self.prefix, owner)
        out: list[bytes] = []
        for start, stop in gil_slices(ids.n, 8 * SLICE_ENTRIES):
            out.extend([prefix + key for key in ids.keys[start:stop]])
        return out

    def check_kind(self, ids: IdBatch) -> None:
        """Raise InvalidArgument where `ids` are of another kind than those that the collection has."""
        kind = self.state.id_kind
        if kind is not None and ids.kind != kind and ids.n:
            raise InvalidArgument(f"collection {self.collection.entry.name!r} has {kind} ids, got {ids.kind} ids")

    def keys_of_rows(self, group: CommitGroup, rows: NDArray[np.int64]) -> list[bytes]:
        """The key of each row's id. rows : int64[n], ascending, live, of earlier commits. Raises Corruption where one
        does not lead to its row.
        """
        where = self.collection.entry.name
        made: list[bytes] = []
        while len(made) < len(rows):
            block = record_block(group.store, group.txn, self.prefix, int(rows[len(made)]), where)
            inside = rows[len(made) :] - block.first_row
            made += id_keys(self.prefix, block, inside[: np.searchsorted(inside, block.count)])
        found = self.find(group, made)
        for row, key in zip(rows.tolist(), made, strict=True):
            if int.from_bytes(found.get(key, b"\xff" * 8), "little") != row:
                raise Corruption(f"{where}: the id of row {row} does not lead to it; restore from a backup")
        return made

    def find(self, group: CommitGroup, id_keys: Sequence[bytes]) -> dict[bytes, bytes]:
        """Row (u64 LE) by key, for those keys that exist."""
        cursor = group.txn.cursor(db=group.store.ids)
        found: dict[bytes, bytes] = {}
        for start, stop in gil_slices(len(id_keys), SLICE_ENTRIES):
            found.update(cursor.getmulti(id_keys[start:stop]))
        return found

    def next_int(self, group: CommitGroup, owner: bytes) -> int:
        """One more than the largest int that is an id of this owner, and at least 0."""
        head = keys.owner_prefix(self.prefix, owner)
        end, cursor = keys.prefix_end(head), group.txn.cursor(db=group.store.ids)
        there = cursor.prev() if end is not None and cursor.set_range(end) else cursor.last()
        last = bytes(cursor.key()) if there else b""
        return max(0, int(id_name(last)) + 1) if last.startswith(head) else 0

    def find_all(self, group: CommitGroup, id_keys: Sequence[bytes]) -> list[bytes]:
        """Row (u64 LE) of each key. Raises NotFound where one does not exist."""
        found = self.find(group, id_keys)
        missing = [key for key in id_keys if key not in found] if len(found) < len(id_keys) else []
        if missing:
            raise NotFound(
                f"collection {self.collection.entry.name!r} has no record {id_name(missing[0])}"
                + (f" and {len(missing) - 1} more of these ids" if len(missing) > 1 else "")
                + "; use upsert to add records",
                "record",
            )
        return [found[key] for key in id_keys]

    def metas(self, group: CommitGroup, rows: NDArray[np.int64]) -> StoredMetas:
        """The metas of rows, also of those that this group has added or changed."""
        if not self.state.has_fields:
            return StoredMetas([b""] * len(rows), 0)
        first_added = self.collection.snapshot.state.row_count
        stored = np.sort(rows[rows < first_added]).tolist()
        where, store = self.collection.entry.name, group.store
        metas: dict[int, bytes] = {}
        if self.state.field_changes is not None:
            metas = changed_metas(store, group.txn, self.prefix, stored, where)
        known = len(metas)
        rest = [row for row in stored if row not in metas]
        with store.read(buffers=True) as txn:  # blocks never change, and this one gives them without a copy
            for start, stop in gil_slices(len(rest), SLICE_ENTRIES):
                some = rest[start:stop]
                metas.update(zip(some, record_metas(store, txn, self.prefix, some, where, None), strict=True))
        return StoredMetas([metas[row] if row < first_added else self._added_meta(row) for row in rows.tolist()], known)

    def _added_meta(self, row: int) -> bytes:
        part = self._part_of(row)
        return part.metas[row - part.first_row] if part.metas is not None else b""

    def _part_of(self, row: int) -> _AddedRows:
        return next(part for part in self.added if row < part.first_row + len(part.crcs))

    def change_fields(self, group: CommitGroup, rows: NDArray[np.int64], metas: list[bytes], known: int) -> None:
        """Give rows (distinct, live) these metas. known : as `metas` counted them."""
        ensure_spare_room(group, "changing fields")
        first_added = self.collection.snapshot.state.row_count
        added = rows >= first_added
        if not added.all():
            self._change_stored(group, rows[~added], [metas[at] for at in np.flatnonzero(~added)], known)
        for at in np.flatnonzero(added).tolist():
            part = self._part_of(int(rows[at]))
            part.metas = list(part.metas) if part.metas is not None else [b""] * len(part.crcs)
            part.metas[int(rows[at]) - part.first_row] = metas[at]
        group.changed = True
        self.state = msgspec.structs.replace(self.state, has_fields=True)

    def _change_stored(self, group: CommitGroup, rows: NDArray[np.int64], metas: list[bytes], known: int) -> None:
        """Fields of rows of earlier commits."""
        changes = self.state.field_changes
        if changes is None:  # the first of this generation
            self._raise_format(manifest.FIELD_CHANGES, "changing fields")
        changes = put_changes(group, self.prefix, rows, metas, known, changes)
        self.changed.append(rows)
        self.state = msgspec.structs.replace(self.state, field_changes=changes)

    def _raise_format(self, version: int, doing: str) -> None:
        """Before the first of what code that does not know of it would not see. doing : for the message."""
        try:
            manifest.raise_to(self.collection.database, version, sync=self.collection.durable)
        except OSError as error:
            raise filesystem.to_vecdb_error(error, doing) from error

    def add(
        self,
        group: CommitGroup,
        ids: IdBatch,
        id_keys: list[bytes],
        vectors: NDArray[Any],
        metas: list[bytes] | None,
        bare: NDArray[np.bool_] | None = None,
    ) -> None:
        """Append rows for `ids` (distinct) and point the ids at them. bare : bool[n], those that have no vector, which
        `vectors` leaves out; None: each has one.
        """
        state = self.state
        first, n = state.row_count, ids.n
        rows_max = limits.rows_max
        if first + n > rows_max:
            raise LimitExceeded(
                f"collection {self.collection.entry.name!r} would have {first + n} rows, limit {rows_max}; "
                "vacuum it first"
            )
        generation = self.collection.snapshot.generation
        known = self.collection.entry.dim  # another first write may have been faster
        if len(vectors) and (vectors.shape[1] != generation.rows.dim or not known):
            raise InvalidArgument(
                f"collection {self.collection.entry.name!r} has dim {known:,}, got {vectors.shape[1]:,} in vectors"
            )
        try:
            blob_bytes = sum(len(part.ids.blob) for part in self.added) + len(ids.blob)
            generation.ensure(first + n, ids.kind, blob_bytes)
            group.store.ensure_spare_room()
            if bare is not None:
                if not state.bare_count:
                    self._raise_format(manifest.BARE_RECORDS, "writing records without vectors")
                vectors = generation.rows.with_stand_ins(first, vectors, bare)
            generation.rows.write(first, vectors)
        except OSError as error:
            raise filesystem.to_vecdb_error(error, f"writing {n} vectors") from error
        crcs = crc_rows(vectors)
        group.changed = True
        cursor = group.txn.cursor(db=group.store.ids)
        values = np.arange(first, first + n, dtype="<u8").view("V8")
        for start, stop in gil_slices(n, SLICE_ENTRIES):
            cursor.putmulti(list(zip(id_keys[start:stop], values[start:stop].tolist(), strict=True)))
        self.added.append(_AddedRows(first, crcs, ids, metas, bare))
        self.state = msgspec.structs.replace(
            state,
            row_count=first + n,
            live_count=state.live_count + n,
            bare_count=state.bare_count + (0 if bare is None else int(bare.sum())),
            id_kind=state.id_kind or ids.kind,
            has_fields=state.has_fields or metas is not None,
        )

    def mark_deleted(self, group: CommitGroup, rows: NDArray[np.int64]) -> None:
        """Mark rows (int64[n], distinct, live) as deleted by this commit."""
        if len(rows):
            group.changed = True
            self.dead.append(rows)
            state = self.state
            bare_count = state.bare_count - self._count_bare(rows) if state.bare_count else 0
            self.state = msgspec.structs.replace(state, live_count=state.live_count - len(rows), bare_count=bare_count)

    def _count_bare(self, rows: NDArray[np.int64]) -> int:
        """How many of these rows have no vector."""
        first_added, arrays = self.collection.snapshot.state.row_count, self.collection.snapshot.generation.rows.arrays
        count = int((~arrays.have_vectors(rows[rows < first_added])).sum())
        for row in rows[rows >= first_added].tolist():
            part = self._part_of(row)
            count += part.bare is not None and bool(part.bare[row - part.first_row])
        return count

    def change_access(self, group: CommitGroup, change: AccessChange) -> int:
        """Make a change of access lists. Returns how many pairs it changed."""
        if change.pair_count or change.new:
            group.changed = True
            self.access.make(group, change)
            self.state = msgspec.structs.replace(self.state, has_tenants=True)
        return change.pair_count

    def drop_tenant(self, group: CommitGroup, name: bytes) -> None:
        """Raises NotFound. The tenant's number stays with records until a vacuum."""
        self.access.drop(group, name)
        self.state = msgspec.structs.replace(self.state, dropped_tenants=self.state.dropped_tenants + 1)
        group.changed = True

    # -- Participant -------------------------------------------------------------------------------

    def finish(self, group: CommitGroup) -> None:
        txn, store, sequence = group.txn, group.store, group.sequence
        for first, raw in self._blocks(sequence):
            txn.put(keys.row_key(self.prefix, first), raw, db=store.blocks)
        if self.dead:
            rows = np.sort(np.concatenate(self.dead)).astype("<u8").view("V8")
            key = keys.row_key(self.prefix, sequence)
            cursor = txn.cursor(db=store.tombs)
            for start, stop in gil_slices(len(rows), SLICE_ENTRIES):
                cursor.putmulti([(key, row) for row in rows[start:stop].tolist()])
        self.access.finish(group)
        changes = self.state.field_changes
        if changes is not None and self.changed:
            changes = note_changed(group, self.prefix, self.changed, changes)
        self.state = msgspec.structs.replace(
            self.state, sequence=sequence, journal=self.access.extent, field_changes=changes
        )
        txn.put(keys.uid(self.collection.entry.uid), catalog.encode(self.state), db=store.state)
        if self.collection.durable:
            try:
                self.collection.snapshot.generation.rows.sync()
            except OSError as error:
                raise SyncFailed(error) from error
        if self.added:
            group.open_rows.used(self.collection.snapshot.generation.rows)

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
        bare: NDArray[np.bool_] | None = None
        if any(part.bare is not None for part in self.added):
            bare = np.concatenate(
                [np.zeros(len(one.crcs), bool) if one.bare is None else one.bare for one in self.added]
            )
        ends = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
        first_row, blocks = self.added[0].first_row, []
        for start in range(0, len(crcs), limits.block_rows_max):
            stop = min(start + limits.block_rows_max, len(crcs))
            raw = record_format.encode_block(
                first_row + start, sequence, crcs[start:stop], lengths[start:stop], blob[ends[start] : ends[stop]],
                metas[start:stop] if metas is not None else None, int_ids=int_ids,
                bare=bare[start:stop] if bare is not None else None,
            )  # fmt: skip
            blocks.append((first_row + start, raw))
        return blocks

    def publish(self) -> None:
        generation = self.collection.snapshot.generation
        for part in self.added:
            generation.extend(part.first_row, part.crcs, part.ids.ints, part.ids.blob, part.ids.ends, part.bare)
        if self.dead:
            generation.delete(np.concatenate(self.dead), self.state.sequence)
        if self.added:
            generation.index.publish_rows(self.state.row_count)
        generation.fields_changed(self.changed)
        access = self.access
        access.publish()
        if access.added or access.removed or access.dropped:
            granted, revoked = access.net
            generation.tenants.publish(self.state.sequence, granted, revoked, access.dropped)
            generation.access_changed(pairs.rows_of(granted), pairs.rows_of(revoked))
        self.collection.publish(self.state)


def rows_of(values: list[bytes]) -> NDArray[np.int64]:
    """Rows (u64 LE each) as ids lead to them."""
    return np.frombuffer(b"".join(values), "<u8").astype(np.int64)


def id_name(key: bytes) -> Any:
    """The id in a key of `ids`, for messages."""
    raw = keys.split_id(key)[1]
    try:
        return repr(raw.decode())
    except UnicodeDecodeError:
        return int.from_bytes(raw, "big") - (1 << 63)


def ensure_spare_room(group: CommitGroup, doing: str) -> None:
    """Raise Unavailable where the disk is too full for what a request writes. doing : for the message."""
    try:
        group.store.ensure_spare_room()
    except OSError as error:
        raise filesystem.to_vecdb_error(error, doing) from error
