"""Clearing: an empty generation of files takes the place of all records, in one commit. So does one of another dim,
where a collection that was made without one gets its first vectors.

    files of the next generation, without rows -> one commit: the state that names it -> the old files and entries are
    removed, a bounded number a commit (garbage.py)

Searches hold the generation that they began with, as with a vacuum. A crash before the commit leaves garbage of the
next generation, after it garbage of the old one: either is removed at the next open.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import ClassVar

import msgspec

from vecdb.commit.committer import CommitGroup
from vecdb.commit.write_path import WritePath
from vecdb.maintenance.vacuum import copy_generation
from vecdb.state.collection_state import CollectionState
from vecdb.state.generation import Generation
from vecdb.storage.disk import filesystem
from vecdb.storage.disk.paths import row_file_name
from vecdb.storage.disk.row_file import Rows
from vecdb.storage.kv import catalog, keys
from vecdb.validate.not_found import collection_not_found


def clear_records(state: CollectionState, writes: WritePath, request_id: bytes | None) -> int:
    """Remove all records. Returns how many there were.

    The caller holds the lock of the collection's maintenance: nothing else makes a generation, or changes the index.
    """
    with _empty_generation(state) as new:
        return int(writes.submit_once(ClearRecords(state, new), request_id))


def fix_dim(state: CollectionState, writes: WritePath, dim: int) -> None:
    """Give a collection that has no dim its dim; records that it has, without vectors, come along. The caller holds
    the lock of its maintenance.
    """
    with _empty_generation(state, dim) as new:
        is_done = writes.submit(FixDim(state, new, dim))
    if not is_done:
        copy_generation(state, writes, dim=dim)


@contextmanager
def _empty_generation(state: CollectionState, dim: int | None = None) -> Iterator[Generation]:
    """The next generation, without rows; it is closed at the end unless it has become the collection's.

    dim : of its vectors; None: that of the collection.
    """
    entry, committed = state.entry, state.snapshot.state
    dim = dim or entry.dim or 1
    number = committed.generation + 1
    state.store.check_there()
    Rows.create(state.folder / row_file_name(number), entry.dtype, dim, number, sync=state.durable)
    new = Generation(state.store, state.folder, entry, _emptied(committed, number), writable=True, dim=dim)
    new.attach(state.new_index(committed.index, new.rows))
    new.index.publish_rows(0)
    try:
        yield new
    finally:
        if state.snapshot.generation is not new:
            new.close()


def _emptied(state: catalog.CommittedState, number: int) -> catalog.CommittedState:
    """The state without records, and without what was learned of them; what users chose stays."""
    empty = msgspec.structs.replace(
        state,
        generation=number,
        row_count=0,
        live_count=0,
        bare_count=0,
        has_fields=False,
        journal=None,
        sealed=None,
        unlinked_rows=0,
        recall_check=None,
        columns=None,
        field_changes=None,
        dropped_tenants=0,
        default_scan=False,
    )
    if state.tuned_by_user:
        return empty
    return msgspec.structs.replace(empty, recall_curve=(), default_width=None, hundred_width=None)


@dataclass(slots=True)
class ClearRecords:
    """Put an empty generation in the place of the one that there is. Returns how many records that had."""

    kind: ClassVar[bytes] = b"Clear"
    state: CollectionState
    new: Generation
    size_bytes: int = 0
    exclusive: bool = True

    def content(self) -> Iterable[bytes]:
        return ()

    def apply(self, group: CommitGroup) -> int:
        removed = self.state.snapshot.state.live_count
        _install(group, self.state, self.new)
        return removed


@dataclass(slots=True)
class FixDim:
    """Give a collection without a dim and records this one. Returns whether it did: not where it has records."""

    state: CollectionState
    new: Generation
    dim: int
    size_bytes: int = 0
    exclusive: bool = True

    def apply(self, group: CommitGroup) -> bool:
        if self.state.snapshot.visibility.row_count:
            return False
        _install(group, self.state, self.new, self.dim)
        catalog.put_dim(group.store, group.txn, self.state.entry.uid, self.dim)
        return True


def _install(group: CommitGroup, collection: CollectionState, new: Generation, dim: int = 0) -> None:
    """Put an empty generation in place. dim : which the collection has from then on; 0: as before."""
    old = collection.snapshot
    if group.txn.get(keys.uid(collection.entry.uid), db=group.store.state) is None:
        raise collection_not_found(collection.entry.name)
    if collection.durable:
        filesystem.sync_dir(collection.folder)
    state = msgspec.structs.replace(_emptied(old.state, new.number), sequence=group.sequence)
    group.txn.put(keys.uid(collection.entry.uid), catalog.encode(state), db=group.store.state)
    group.changed = True

    def publish() -> None:
        collection.entry.dim = dim or collection.entry.dim
        collection.publish(state, new)
        collection.index_rebuilt()  # a damaged one is gone with the rest
        collection.index_sealed()
        old.generation.close()

    group.published.append(publish)
