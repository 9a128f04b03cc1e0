"""One collection, embedded: where store and index meet. `Collection` (the facade) hands it canonical arrays.

    Following   what is committed, loaded and with its index          collection_state.py
    Answering   searches and reads of it                              searcher.py
    Engine      write: room in the tail -> request to the committer -> published view;   facts;   long work

Threads: any number of searches and writes at once. The index's structure is changed by maintenance alone.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from vecdb import limits
from vecdb.api.backend import Batch, Mode
from vecdb.commit.idempotency import IdempotentWrite, RepeatableRequest
from vecdb.commit.record_requests import (
    CreateTenants,
    DeleteRecords,
    DropTenant,
    GrantOrRevoke,
    UpdateRecords,
    UpsertRecords,
)
from vecdb.embedded.check import check_collection
from vecdb.errors import Unavailable
from vecdb.index.common.progress import WeightedProgress
from vecdb.index.contract import Progress
from vecdb.maintenance.garbage import collect_garbage
from vecdb.maintenance.index_jobs import IndexMaintenance
from vecdb.maintenance.vacuum import vacuum
from vecdb.query.searcher import Searcher
from vecdb.query.width_tuning import evaluate, learn_recall_curve, tune
from vecdb.schema import IndexConfig, SearchParams
from vecdb.state.generation import Generation
from vecdb.storage.disk import filesystem
from vecdb.storage.kv import catalog, record_format
from vecdb.storage.kv.store import Store
from vecdb.validate import AccessLists, IdBatch, threads

if TYPE_CHECKING:
    from vecdb.commit.committer import Committer, Request

_WRITTEN_S = 2.0
_ROOM_POLL_S = 0.5  # a writer that waits for room looks this often whether the database was closed meanwhile


class LocalCollection(Searcher):
    """The embedded engine of one collection."""

    _written_at = -_WRITTEN_S  # by the monotonic clock

    def __init__(
        self,
        database: Path,
        store: Store,
        entry: catalog.CollectionEntry,
        committer: Committer | None,
        *,
        durable: bool,
        guard: Callable[[], None],
        wake_maintenance: Callable[[], None],
        memory_budget_bytes: int | None = None,
    ) -> None:
        self.durable = durable
        self.room = threading.Condition()
        self.upkeep = IndexMaintenance(self)
        self._committer = committer
        super().__init__(
            database,
            store,
            entry,
            writable=committer is not None,
            guard=guard,
            wake_maintenance=wake_maintenance,
            memory_budget_bytes=memory_budget_bytes,
        )

    # -- writes ------------------------------------------------------------------------------------

    @property
    def rows_per_call(self) -> int:
        return max(1, min(limits.batch_rows_max, limits.batch_bytes_max // (4 * 8 * self.entry.dim)))

    def put(self, batch: Batch, owner: bytes, mode: Mode, request_id: bytes | None) -> int:
        if batch.ids.n == 0:
            self.current()
            return 0
        metas = batch.fields
        if owner:
            metas = [record_format.encode_meta(owner, one) for one in metas or [b""] * batch.ids.n]
        self._wait_for_room()
        self._fold_when_long()
        request = UpsertRecords(self, owner, batch.ids, batch.vectors, metas, mode, batch.tenants)
        return int(self.submit_once(request, request_id))

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
            self.current()
            return 0
        self._wait_for_room()
        self._fold_when_long()
        return int(self.submit_once(UpdateRecords(self, owner, ids, vectors, fields), request_id))

    def delete(self, ids: IdBatch, owner: bytes, request_id: bytes | None = None) -> int:
        if ids.n == 0:
            self.current()
            return 0
        self._fold_when_long()
        return int(self.submit_once(DeleteRecords(self, owner, ids), request_id))

    def change_access(
        self, ids: IdBatch, tenants: AccessLists, owner: bytes, *, granted: bool, request_id: bytes | None = None
    ) -> int:
        if ids.n == 0:
            self.current()
            return 0
        self._fold_when_long()
        return int(self.submit_once(GrantOrRevoke(self, owner, ids, tenants, granted), request_id))

    def create_tenants(
        self, names: list[bytes], exist_ok: bool, records_max: int | None, request_id: bytes | None = None
    ) -> int:
        return int(self.submit_once(CreateTenants(self, names, exist_ok, records_max), request_id))

    def drop_tenant(self, name: bytes, request_id: bytes | None = None) -> None:
        self.submit_once(DropTenant(self, name), request_id)

    def submit_once(self, request: RepeatableRequest, request_id: bytes | None) -> Any:
        """Run a request in a commit, unless one of this id has been carried out: then returns the answer of that."""
        if request_id is None:
            return self.submit(request)
        return self.submit(IdempotentWrite(request, self.entry.uid, request_id, int(time.time())))

    def submit(self, request: Request) -> Any:
        """Run a request in a commit; returns when it is durable and published."""
        self.current()
        if self._committer is None:
            raise Unavailable("this database is open for reading only; open it without read_only=True to write")
        return self._committer.submit(request)

    def publish(self, state: catalog.CommittedState, generation: Generation | None = None) -> None:
        """Commit thread: what searches see from now on."""
        self._written_at = time.monotonic()
        super().publish(state, generation)

    def _wait_for_room(self) -> None:
        """Back-pressure: while the tail is longer than its bound, searches would get slower with every write."""
        index = self.snapshot.generation.index
        if index.prefers_bulk_build and index.indexed_rows == 0:
            return  # until lists are built every search scans all rows anyway
        with self.room:
            while self.tail_rows() >= (limits.tail_rows_max if self.is_searched() else limits.tail_rows_bulk_max):
                self.current()
                self._wake_maintenance()
                self.room.wait(_ROOM_POLL_S)

    def _fold_when_long(self) -> None:
        """Back-pressure: maintenance is off or busy, and everybody who reads access lists reads the journal, too."""
        if self.snapshot.generation.journal.waiting > 4:
            self.upkeep.fold()

    def is_loaded(self) -> bool:
        """Whether writers are at work while nobody searches: a bulk load."""
        return not self.is_searched() and time.monotonic() - self._written_at < _WRITTEN_S

    # -- facts -------------------------------------------------------------------------------------

    def stats(self) -> dict[str, Any]:
        """Facts for people and for `stats()`: sizes in bytes, counts in rows."""
        snapshot = self.current()
        visibility, state, generation = snapshot.visibility, snapshot.state, snapshot.generation
        index = generation.index.stats()
        touched = visibility.row_count * 4 + visibility.row_count // 8  # crcs and verified bits
        return {
            "name": self.entry.name,
            "dim": self.entry.dim,
            "metric": self.entry.metric,
            "dtype": self.entry.dtype,
            "live": visibility.live_count,
            "deleted": visibility.row_count - visibility.live_count,
            "rows": visibility.row_count,
            "sequence": visibility.sequence,
            "generation": generation.number,
            "index": catalog.index_to_dict(snapshot.config),
            "index_state": self.index_state(snapshot),
            "index_error": self.index_error,
            "indexed_rows": generation.index.indexed_rows,
            "tail_rows": visibility.row_count - generation.index.indexed_rows,
            "sealed_rows": state.sealed.rows if state.sealed else 0,
            "tuned_ef": state.tuned_ef,
            "bytes_ram": touched + generation.ids.memory_bytes() + int(index.get("bytes_ram", 0)),
            "bytes_disk": filesystem.disk_bytes(self.folder),
            **generation.tenants.stats(),
            "bytes_raw": visibility.live_count * generation.rows.row_bytes,
            "index_stats": index,
        }

    # -- long work ---------------------------------------------------------------------------------

    def optimize(self, thread_count: int | None, progress: Progress) -> None:
        """Repair, build anew where repairs have cost recall, index the whole tail, learn recall against ef, seal."""
        self._require_writer()
        with filesystem.raising_vecdb_errors("optimizing"), self.upkeep.lock:
            for _ in range(2):  # a step that meets damage leaves an empty index, which the second time is built
                index = self.snapshot.generation.index
                self._optimize(threads(thread_count), progress)
                if self.index_error is None or self.snapshot.generation.index is index:
                    return

    def _optimize(self, thread_count: int, progress: Progress) -> None:
        self.upkeep.fold()
        self.upkeep.repair(thread_count)
        if self.upkeep.rebuild_is_due():
            self.upkeep.rebuild(thread_count, progress)
        snapshot = self.snapshot
        costs = {"index": 1.0, "learn": snapshot.generation.index.tuning_cost_share}
        stages = WeightedProgress(progress, snapshot.visibility.row_count, costs)
        if snapshot.visibility.row_count >= limits.flat_rows_max or self.sealed_damaged:
            self.upkeep.index_tail(thread_count, stages.part("index"), all_rows=True)
        self.upkeep.grow_companion(thread_count, all_rows=True)
        with self.upkeep.rebuild_on_corruption():
            learn_recall_curve(self)
        self.upkeep.seal(thread_count)
        stages.report("learn", 1.0)

    def reindex(self, index: IndexConfig | None, progress: Progress) -> None:
        self._require_writer()
        with filesystem.raising_vecdb_errors("indexing"):
            self.upkeep.reindex(catalog.index_to_dict(index), threads(None), progress)
            self.upkeep.seal(threads(None))

    def vacuum(self, progress: Progress) -> None:
        self._require_writer()
        with filesystem.raising_vecdb_errors("vacuuming"):
            vacuum(self, threads(None), progress)

    def clear_debris(self) -> None:
        """Remove what a vacuum left behind."""
        assert self._committer is not None
        keep = self.snapshot.generation.index.file_names()  # in use although no state may name them yet
        collect_garbage(self.folder.parent.parent, self.store, self._committer, only_uid=self.entry.uid, keep=keep)

    def evaluate(
        self, queries: NDArray[np.float32], limit: int, params: SearchParams, tenants: tuple[str, ...] = ()
    ) -> dict[str, Any]:
        return evaluate(self, queries, limit, params, tenants)

    def tune(self, queries: NDArray[np.float32], limit: int, recall: float) -> list[dict[str, float]]:
        self._require_writer()
        with self.upkeep.rebuild_on_corruption():
            return tune(self, queries, limit, recall)
        return []

    def check(self) -> list[str]:
        self.current()
        return check_collection(self)

    def _require_writer(self) -> None:
        self.current()
        if self._committer is None:
            raise Unavailable("this database is open for reading only; open it without read_only=True for this")
