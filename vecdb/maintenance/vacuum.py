"""Vacuum: a new generation of files without the dead rows, and a switch to it in one commit.

    1  deleted rows are taken out of the graph (CollectionMaintenance.repair)
    2  live rows are copied, a bounded number a commit, while writes go on: row file, blocks, ids, access lists under
       the next generation's prefix, the journal of the old one merged into them, changed fields put into the blocks.
       Fields that change once their row is copied are changes of the new generation: each commit takes those since
       the one before
    3  one commit, alone in its group: the last rows, deletions, grants, revokes and changes of fields that came
       meanwhile, and the state that names the new generation
    4  the old files and entries are removed, a bounded number a commit (garbage.py)

`mapping` (int64[old rows], -1 = not copied) renumbers rows and, without a rebuild, the graph. Searches hold the
generation that they began with; a reading process finds the new one named in the state and loads it. A crash before
step 3 leaves garbage of the next generation, after it garbage of the old one: either is removed at the next open.

`CollectionMaintenance.vacuum` does all four; here are 2 and 3.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from vecdb import limits
from vecdb.commit.committer import SLICE_ENTRIES, CommitGroup, SyncFailed
from vecdb.commit.write_path import WritePath
from vecdb.index.contract import Index, IndexCorruption, Progress
from vecdb.kernels.primitives.checksums import crc_rows
from vecdb.state.collection_state import CollectionState
from vecdb.state.field_changes import changed_metas, iter_changes, note_changed, put_changes
from vecdb.state.generation import Generation
from vecdb.state.record_blocks import id_keys, iter_blocks, record_block, verify_vectors
from vecdb.state.snapshot import Snapshot
from vecdb.storage.disk import filesystem
from vecdb.storage.disk.paths import row_file_name
from vecdb.storage.disk.row_file import Rows
from vecdb.storage.kv import catalog, keys, record_format
from vecdb.tenancy.access_changes import AccessWriter
from vecdb.tenancy.pairs import RowTenantPairs, numbers_of, pack, rows_of, subtract
from vecdb.validate.common import gil_slices
from vecdb.validate.not_found import collection_not_found

_PIECE_ROWS = 4_096  # old rows copied per commit
_SLICE_IDS = SLICE_ENTRIES // 2  # half as many: their keys are made, too


def copy_generation(
    state: CollectionState, writes: WritePath, progress: Progress = None, dim: int | None = None, threads: int = 1
) -> int:
    """Copy the live rows into a new generation and switch to it. Returns how many old rows were looked at.

    dim : give the collection this one, where it has none and its records no vectors.
    The caller holds the lock of the collection's maintenance: nothing else changes the index or the files.
    """
    copy = VacuumCopy(state, dim)
    try:
        # A graph must be copied whole, and does not grow meanwhile. The last commit copies what else writers add.
        graph_rows = copy.old.index.indexed_rows if copy.old.index.has_structure else 0
        while copy.old_rows_left() > _PIECE_ROWS or copy.done < graph_rows:
            if not writes.submit(CopyRows(copy)):
                raise collection_not_found(state.entry.name)
            if progress is not None:
                progress(copy.done, state.snapshot.visibility.row_count)
        copy.new.attach(_copied_index(copy, threads))
        writes.submit(SwitchGeneration(copy))
    except BaseException:
        copy.old.log_changes(on=False)
        if state.snapshot.generation is not copy.new:
            copy.new.close()
        raise
    return copy.done


def _copied_index(copy: VacuumCopy, threads: int) -> Index:
    """The index over the new rows; an empty one, which maintenance builds from the rows, where it cannot be copied."""
    state, index = copy.state, copy.old.index
    if not copy.gives_dim:
        try:
            if index.indexed_rows:
                # What died before it was copied has no row in the new generation, and its neighbours would be left
                # with fewer links: where most records change meanwhile, with hardly any.
                index.remove(state.snapshot.visibility.sequence, threads)
            return index.renumbered(copy.mapping, copy.new.rows)
        except IndexCorruption as error:
            state.corrupt_index(index, error)
        except OSError as error:  # a full disk may have room for the rows, but not for another list file
            if not filesystem.is_full(error):
                raise
    return state.new_index(state.snapshot.state.index, copy.new.rows)


class VacuumCopy:
    """Progress of one vacuum: how far the old rows are copied, and where each went."""

    def __init__(self, state: CollectionState, dim: int | None = None) -> None:
        """dim : of the copy, where the collection has records and no dim yet: none of them has a vector."""
        self.state = state
        self.gives_dim, self.dim = dim is not None, dim or state.entry.dim or 1
        self.old = state.snapshot.generation
        self.old.log_changes(on=True)
        self.number = self.old.number + 1
        self.prefix = keys.prefix(state.entry.uid, self.number)
        self.done = 0  # old rows [0, done) are copied
        self.written = 0  # new rows
        self.dropped_tenants = state.snapshot.state.dropped_tenants  # of whom nothing is copied; others may come
        self.changes: catalog.FieldChanges | None = None  # of the new generation
        self.mapping = np.full(state.snapshot.visibility.row_count, -1, np.int64)
        entry = state.entry
        path = state.folder / row_file_name(self.number)
        state.store.check_there()
        Rows.create(path, entry.dtype, self.dim, self.number, sync=state.durable)
        empty = msgspec.structs.replace(
            state.snapshot.state,
            generation=self.number,
            row_count=0,
            live_count=0,
            bare_count=0,
            sequence=0,
            journal=None,
            field_changes=None,
            columns=None,
        )
        self.new = Generation(state.store, state.folder, entry, empty, writable=True, dim=self.dim)

    def old_rows_left(self) -> int:
        return self.state.snapshot.visibility.row_count - self.done

    def copy(self, group: CommitGroup, stop: int) -> None:
        """Commit thread: copy the live ones of old rows [done, stop), and what has changed of those that are copied."""
        self._copy_late_changes(group)
        rows = self.state.snapshot.visibility.row_count  # the last block may reach past `stop`
        if rows > len(self.mapping):
            self.mapping = np.concatenate([self.mapping, np.full(rows - len(self.mapping), -1, np.int64)])
        where = self.state.entry.name
        gone = self.old.rows.arrays.gone
        for block in _blocks_between(group, self.old, self.done, stop, where):
            first = block.first_row
            live = np.flatnonzero(gone[first : first + block.count] == 0)
            if len(live):
                self._copy_block(group, block, live)
            self.done = first + block.count

    def _copy_block(self, group: CommitGroup, block: record_format.Block, live: NDArray[np.int64]) -> None:
        rows, first, n = block.first_row + live, self.written, len(live)
        bare = None if block.bare is None else block.bare[live]
        vectors, crcs = self._vectors(first, rows, block.row_crc[live], bare)
        blob_bytes = 0 if block.int_ids else int(block.id_end[-1])
        self.new.ensure(first + n, "int" if block.int_ids else "str", blob_bytes)
        self.new.rows.write(first, vectors)
        starts = np.concatenate([np.zeros(1, np.uint32), block.id_end[:-1]])
        lengths = (block.id_end - starts)[live]
        blob = b"".join([bytes(block.ids[starts[i] : block.id_end[i]]) for i in live.tolist()])
        metas = self._metas(group, block, live)
        raw = record_format.encode_block(
            first, block.sequence, crcs, lengths, blob, metas, int_ids=block.int_ids, bare=bare
        )
        group.txn.put(keys.row_key(self.prefix, first), raw, db=group.store.blocks)
        cursor = group.txn.cursor(db=group.store.ids)
        values = np.arange(first, first + n, dtype="<u8").view("V8")
        for start, stop in gil_slices(n, _SLICE_IDS):
            new_keys = id_keys(self.prefix, block, live[start:stop])
            cursor.putmulti(list(zip(new_keys, values[start:stop].tolist(), strict=True)))
        ends = np.cumsum(lengths, dtype=np.uint32)
        self.new.extend(first, crcs, np.frombuffer(blob, "<i8") if block.int_ids else None, blob, ends, bare)
        self.mapping[rows] = np.arange(first, first + n)
        self._copy_access(group, rows)
        self.written += n
        group.changed = True

    def _vectors(
        self, first: int, rows: NDArray[np.int64], crcs: NDArray[np.uint32], bare: NDArray[np.bool_] | None
    ) -> tuple[NDArray[Any], NDArray[np.uint32]]:
        """What is written for old rows as rows from `first`, and its checksums. crcs, bare : of the old rows."""
        if self.gives_dim:
            assert bare is not None and bare.all(), "a vector without a dim"
            filled = self.new.rows.with_stand_ins(first, np.empty((0, self.dim), self.new.rows.dtype), bare)
            return filled, crc_rows(filled)
        found = np.ascontiguousarray(self.old.rows.arrays.vectors[rows])
        verify_vectors(self.old.rows.path, rows, found, crcs)  # what stands in for a vector comes along: it has codes
        return found, crcs

    def _metas(self, group: CommitGroup, block: record_format.Block, live: NDArray[np.int64]) -> list[bytes] | None:
        """The present metas of records at positions `live` of a block; None where none has any."""
        metas = [block.meta(i) for i in live.tolist()] if len(block.metas) else [b""] * len(live)
        if self.state.snapshot.state.field_changes is not None:
            first, name = block.first_row, self.state.entry.name
            found = iter_changes(group.store, group.txn, self.old.prefix, first, first + block.count, name)
            changed = {row - first: meta for row, _, meta in found}
            metas = [changed.get(i, meta) for i, meta in zip(live.tolist(), metas, strict=True)]
        return metas if any(metas) else None

    def _copy_late_changes(self, group: CommitGroup) -> None:
        """Commit thread: fields that have changed since their records were copied."""
        if not self.old.fields_log:
            return
        rows = np.unique(np.concatenate(self.old.fields_log))
        self.old.fields_log = []
        rows = rows[rows < len(self.mapping)]
        rows = rows[self.mapping[rows] >= 0]
        if not len(rows):
            return
        store, txn, name = group.store, group.txn, self.state.entry.name
        changed = changed_metas(store, txn, self.old.prefix, rows.tolist(), name)
        copied, metas = self.mapping[rows], [changed[row] for row in rows.tolist()]
        known = changed_metas(store, txn, self.prefix, copied.tolist(), name)
        changes = put_changes(group, self.prefix, copied, metas, len(known), self.changes)
        self.changes = note_changed(group, self.prefix, [copied], changes)

    def _lists(self, group: CommitGroup, rows: NDArray[np.int64]) -> RowTenantPairs:
        """What the lists of old rows (ascending) say, of tenants that still exist, under new row numbers."""
        access = AccessWriter(self.state.entry.uid, self.old.journal, self.state.snapshot.state.journal)
        pairs = access.lists(group, rows)[1]
        return pack(self.mapping[rows_of(pairs)], numbers_of(pairs))

    def _copy_access(self, group: CommitGroup, rows: NDArray[np.int64]) -> None:
        if self.state.snapshot.state.has_tenants:
            lists = self._lists(group, rows)
            self.new.journal.tables.write(group.txn, lists)

    def update_access(self, group: CommitGroup, died: NDArray[np.int64]) -> None:
        """Commit thread, last: lists that have changed since they were copied, and those of old rows that have died."""
        if not self.state.snapshot.state.has_tenants:
            return
        rows = np.unique(np.concatenate([died, *(self.old.access_log or ())]))
        rows = rows[self.mapping[rows] >= 0]
        tables = self.new.journal.tables
        here, wanted = tables.lists_of(group.txn, self.mapping[rows]), self._lists(group, rows)
        tables.change(group.txn, granted=subtract(wanted, here), revoked=subtract(here, wanted))

    def rows_deleted_since(self, snapshot: Snapshot) -> NDArray[np.int64]:
        """Old rows that were copied alive and have died since."""
        gone = self.old.rows.arrays.gone[: snapshot.visibility.row_count]
        return np.flatnonzero((self.mapping >= 0) & (gone != 0))

    def sync(self) -> None:
        if self.state.durable:
            try:
                self.new.rows.sync()
            except OSError as error:
                raise SyncFailed(error) from error
        self.new.rows.close()


def _blocks_between(
    group: CommitGroup, old: Generation, first: int, stop: int, where: str
) -> Iterator[record_format.Block]:
    return iter_blocks(group.store, group.txn, old.prefix, first, stop, where)


@dataclass(slots=True)
class CopyRows:
    """Copy a bounded piece of old rows. Returns False where the collection was dropped."""

    copy: VacuumCopy
    size_bytes: int = 0
    exclusive: bool = True

    def apply(self, group: CommitGroup) -> bool:
        state = self.copy.state
        if group.txn.get(keys.uid(state.entry.uid), db=group.store.state) is None:
            return False
        group.store.ensure_spare_room()
        self.copy.copy(group, min(state.snapshot.visibility.row_count, self.copy.done + _PIECE_ROWS))
        group.changed = True
        return True


@dataclass(slots=True)
class SwitchGeneration:
    """The last piece, the deletions since, and the state that names the new generation."""

    copy: VacuumCopy
    size_bytes: int = 0
    exclusive: bool = True

    def apply(self, group: CommitGroup) -> None:
        copy, collection = self.copy, self.copy.state
        snapshot = collection.snapshot
        if group.txn.get(keys.uid(collection.entry.uid), db=group.store.state) is None:
            raise collection_not_found(collection.entry.name)
        group.store.ensure_spare_room()
        copy.copy(group, snapshot.visibility.row_count)
        dead = self._delete_late_rows(group, snapshot)
        copy.update_access(group, copy.rows_deleted_since(snapshot))
        copy.sync()
        if collection.durable:
            filesystem.sync_dir(collection.folder)
        state = msgspec.structs.replace(
            snapshot.state,
            dropped_tenants=snapshot.state.dropped_tenants - copy.dropped_tenants,
            sequence=group.sequence,
            generation=copy.number,
            row_count=copy.written,
            live_count=copy.written - len(dead),
            sealed=None,
            columns=None,
            journal=None,
            field_changes=copy.changes,
        )
        assert state.live_count == snapshot.state.live_count, (state, snapshot.state)
        group.txn.put(keys.uid(collection.entry.uid), catalog.encode(state), db=group.store.state)
        if copy.gives_dim:
            catalog.put_dim(group.store, group.txn, collection.entry.uid, copy.dim)
        group.changed = True
        copy.new.delete(dead, group.sequence)
        copy.new.index.publish_rows(copy.written)
        group.published.append(lambda: self._publish(state, snapshot.generation))

    def _delete_late_rows(self, group: CommitGroup, snapshot: Snapshot) -> NDArray[np.int64]:
        """Write tombs for rows that were copied alive and have died since, and remove ids that lead to them. Returns
        int64[n], new rows.
        """
        copy = self.copy
        late = copy.rows_deleted_since(snapshot)
        dead = copy.mapping[late]
        by_row = dict(zip(late.tolist(), dead.tolist(), strict=True))
        key = keys.row_key(copy.prefix, group.sequence)
        cursor = group.txn.cursor(db=group.store.tombs)
        for start in range(0, len(dead), limits.block_rows_max):
            cursor.putmulti(
                [(key, row.to_bytes(8, "little")) for row in dead[start : start + limits.block_rows_max].tolist()]
            )
        for block in _blocks_of(group, copy.old, late, copy.state.entry.name):
            inside = [row for row in range(block.first_row, block.first_row + block.count) if row in by_row]
            which = np.asarray(inside, np.int64) - block.first_row
            for row, id_key in zip(inside, id_keys(copy.prefix, block, which), strict=True):
                # an id written again since leads to its newer row already
                if group.txn.get(id_key, db=group.store.ids) == by_row[row].to_bytes(8, "little"):
                    group.txn.delete(id_key, db=group.store.ids)
        return dead

    def _publish(self, state: catalog.CommittedState, old: Generation) -> None:
        if self.copy.gives_dim:
            self.copy.state.entry.dim = self.copy.dim
        self.copy.state.publish(state, self.copy.new)
        old.close()


def _blocks_of(
    group: CommitGroup, old: Generation, rows: NDArray[np.int64], where: str
) -> Iterator[record_format.Block]:
    """The blocks that hold `rows` (ascending), each once."""
    after = -1
    for row in rows.tolist():
        if row > after:
            block = record_block(group.store, group.txn, old.prefix, row, where)
            after = block.first_row + block.count - 1
            yield block
