"""The writes of one collection: back-pressure, then a request to the committer.

    put ... -> room in the tail? journal short? -> request -> Committer.submit -> durable, published -> returns

Threads: any number at once. A writer waits where it would make searches slower than they may become: while the tail
that searches scan is longer than its bound. A writer that finds a long journal of access lists merges it first.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vecdb import limits
from vecdb.api.backend import Batch, Mode
from vecdb.commit.committer import Committer, Request
from vecdb.commit.idempotency import IdempotentWrite, RepeatableRequest
from vecdb.commit.journal_merge import merge_journal
from vecdb.commit.matching_requests import DeleteMatching, RowsAt, UndoneRequest, UpdateMatching
from vecdb.commit.record_requests import AddRecords, DeleteRecords, UpdateRecords, UpsertRecords, made_ids
from vecdb.commit.tenant_records import DeleteTenantRecords, DropTenantAndRecords, TooManyRecords
from vecdb.commit.tenant_requests import CreateTenants, DropTenant, GrantOrRevoke, LeaveRecords
from vecdb.errors import Unavailable
from vecdb.state import record_reader
from vecdb.state.collection_state import CollectionState
from vecdb.storage.kv import keys, record_format
from vecdb.validate import AccessLists, IdBatch

_ROOM_POLL_S = 0.5  # a writer that waits for room looks this often whether the database was closed meanwhile
_JOURNAL_WAITING_MAX = 4.0  # past it writers merge the journal themselves; maintenance does from 1 on, and is late


def _no_dim(dim: int) -> None:
    raise AssertionError("nobody has said how a dim is given")


class WritePath:
    """committer : None in a process that only reads.   is_searched : whether anybody in this process searches."""

    def __init__(self, state: CollectionState, committer: Committer | None, is_searched: Callable[[], bool]) -> None:
        self.state = state
        self.is_searched = is_searched
        self.fix_dim: Callable[[int], None] = _no_dim  # gives a collection without a dim one, before its first rows
        self._committer = committer
        self._room = threading.Condition()
        self._merging = threading.Lock()

    # -- requests ----------------------------------------------------------------------------------

    def put(self, batch: Batch, owner: bytes, mode: Mode, request_id: bytes | None) -> int:
        if batch.ids.n == 0:
            self.state.current(to_change=True)
            return 0
        metas = batch.fields
        if owner:
            metas = [record_format.encode_meta(owner, one) for one in metas or [b""] * batch.ids.n]
        self._wait_for_room()
        self._merge_long_journal()
        self._ensure_dim(batch.vectors)
        request = UpsertRecords(self.state, owner, batch.ids, batch.vectors, metas, mode, batch.tenants, batch.bare)
        return int(self.submit_once(request, request_id))

    def add(
        self,
        vectors: NDArray[Any],
        fields: list[bytes] | None,
        tenants: AccessLists | None,
        owner: bytes,
        request_id: bytes | None,
        *,
        single: bool,
        bare: NDArray[np.bool_] | None = None,
    ) -> Any:
        n, metas = len(vectors) if bare is None else len(bare), fields
        if n == 0:
            self.state.current(to_change=True)
            return []
        if owner:
            metas = [record_format.encode_meta(owner, one) for one in fields or [b""] * n]
        self._wait_for_room()
        self._merge_long_journal()
        seed = os.urandom(16) if request_id is None else keys.uid(self.state.entry.uid) + request_id
        self._ensure_dim(vectors)
        request = AddRecords(self.state, owner, vectors, metas, tenants, seed, time.time_ns() // 1_000_000, bare)
        start = int(self.submit_once(request, request_id))
        made = made_ids(self.state.snapshot.state.id_kind, start, n, seed)
        return made[0] if single else list(made)

    def put_all(self, batches: Iterable[Batch], owner: bytes, mode: Mode) -> int:
        return sum(self.put(batch, owner, mode, None) for batch in batches)

    def update(
        self,
        ids: IdBatch,
        vectors: NDArray[Any] | None,
        fields: list[bytes] | None,
        owner: bytes,
        request_id: bytes | None = None,
    ) -> int:
        if ids.n == 0:
            self.state.current(to_change=True)
            return 0
        if vectors is not None:  # which takes new rows, and their access lists
            self._wait_for_room()
            self._merge_long_journal()
            if not self.state.entry.dim and self._are_there(ids, owner):
                self._ensure_dim(vectors)
        return int(self.submit_once(UpdateRecords(self.state, owner, ids, vectors, fields), request_id))

    def delete(self, ids: IdBatch, owner: bytes, request_id: bytes | None = None) -> int:
        if ids.n == 0:
            self.state.current(to_change=True)
            return 0
        self._merge_long_journal()
        return int(self.submit_once(DeleteRecords(self.state, owner, ids), request_id))

    def delete_matching(
        self, rows_at: RowsAt, owner: bytes | None, asked: bytes, request_id: bytes | None = None
    ) -> int:
        """Delete what matches at the commit. owner : whose records; None for everybody's.   asked : see
        `DeleteMatching`.
        """
        self._merge_long_journal()
        return int(self.submit_once(DeleteMatching(self.state, rows_at, owner, asked), request_id))

    def update_matching(
        self, rows_at: RowsAt, fields: bytes, owner: bytes | None, asked: bytes, request_id: bytes | None = None
    ) -> int:
        """Lay fields (a msgpack map) over those of what matches at the commit."""
        try:
            return int(self.submit_once(UpdateMatching(self.state, rows_at, fields, owner, asked), request_id))
        except UndoneRequest as undone:
            raise undone.error from None

    def change_access(
        self, ids: IdBatch, tenants: AccessLists, owner: bytes | None, *, granted: bool, request_id: bytes | None = None
    ) -> int:
        if ids.n == 0:
            self.state.current(to_change=True)
            return 0
        self._merge_long_journal()
        request: RepeatableRequest
        if owner is None:
            request = LeaveRecords(self.state, ids, tenants.names[0])
        else:
            request = GrantOrRevoke(self.state, owner, ids, tenants, granted)
        changed = int(self.submit_once(request, request_id))
        if not granted:
            self._wait_for_copies()
        return changed

    def create_tenants(
        self, names: list[bytes], exist_ok: bool, records_max: int | None, request_id: bytes | None = None
    ) -> int:
        return int(self.submit_once(CreateTenants(self.state, names, exist_ok, records_max), request_id))

    def drop_tenant(self, name: bytes, records: bool, request_id: bytes | None = None) -> int | None:
        deleted = self._drop_with_records(name, request_id) if records else None
        if not records:
            self.submit_once(DropTenant(self.state, name), request_id)
        self._wait_for_copies()
        return deleted

    def _wait_for_copies(self) -> None:
        """What was taken away is not found on a copy either once this returns."""
        log = self.state.store.log
        if log is not None:
            log.wait_for_copies()

    def _drop_with_records(self, name: bytes, request_id: bytes | None) -> int:
        self._merge_long_journal()
        deleted = 0
        while True:
            try:
                return int(self.submit_once(DropTenantAndRecords(self.state, name, deleted), request_id))
            except TooManyRecords:
                deleted += self.submit(DeleteTenantRecords(self.state, name))
            self._merge_long_journal()

    # -- submitting --------------------------------------------------------------------------------

    def submit_once(self, request: RepeatableRequest, request_id: bytes | None) -> Any:
        """Run a request in a commit, unless one of this id has been carried out: then returns the answer of that."""
        if request_id is None:
            return self.submit(request)
        return self.submit(IdempotentWrite(request, self.state.entry.uid, request_id, int(time.time())))

    def submit(self, request: Request) -> Any:
        """Run a request in a commit; returns when it is durable and published."""
        self.state.current(to_change=True)
        if self._committer is None:
            raise Unavailable("this database is open for reading only; open it without read_only=True to write")
        return self._committer.submit(request)

    def require_writer(self) -> None:
        """Raise where `submit` would refuse every request."""
        self.state.current(to_change=True)
        if self._committer is None:
            raise Unavailable("this database is open for reading only; open it without read_only=True for this")

    def _ensure_dim(self, vectors: NDArray[Any]) -> None:
        if len(vectors) and not self.state.entry.dim:
            self.require_writer()
            self.fix_dim(vectors.shape[1])

    def _are_there(self, ids: IdBatch, owner: bytes) -> bool:
        """Whether all of these records exist: an update that is refused gives no dim."""
        with self.state.reading(to_change=True) as (txn, generation, _):
            return all(row >= 0 for row in record_reader.rows_of_ids(generation, txn, owner, ids.keys))

    # -- back-pressure -----------------------------------------------------------------------------

    def _wait_for_room(self) -> None:
        """Wait while the tail is longer than its bound: searches would get slower with every write."""
        index = self.state.snapshot.generation.index
        if index.prefers_bulk_build and index.indexed_rows == 0:
            return  # until lists are built every search scans all rows anyway
        with self._room:
            while self.state.tail_rows() >= (limits.tail_rows_max if self.is_searched() else limits.tail_rows_bulk_max):
                self.state.current(to_change=True)
                self.state.wake_maintenance()
                self._room.wait(_ROOM_POLL_S)

    def tail_shortened(self) -> None:
        """Maintenance: rows of the tail were indexed, so that writers may have room."""
        with self._room:
            self._room.notify_all()

    def _merge_long_journal(self) -> None:
        """Reads of access lists read the whole journal, too: a long one makes them slow."""
        if self.state.snapshot.generation.journal.waiting > _JOURNAL_WAITING_MAX:
            self.merge_journal()

    def merge_journal(self) -> None:
        """Put the journal of access lists into the tables, one merge at a time. It changes neither rows nor index, so
        it may run beside any other work.
        """
        with self._merging:
            merge_journal(self.state, self.submit)

    def is_loading(self) -> bool:
        """Whether writers are at work while nobody searches: a bulk load."""
        return not self.is_searched() and self.state.is_written()
