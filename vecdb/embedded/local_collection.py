"""LocalCollection: one collection of this process, behind the facade `Collection`, which hands it checked arrays.

    state      what is committed, loaded and with its index        state/collection_state.py
    searcher   searches and reads                                   query/searcher.py
    writes     back-pressure, requests to the commit thread         commit/write_path.py
    jobs       what is done to index and files behind its users     maintenance/index_jobs.py

Threads: any number of searches and writes at once. The index's structure is changed by `jobs` alone.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from vecdb import limits
from vecdb.api.backend import Progress, Stop
from vecdb.commit.committer import Committer
from vecdb.commit.matching_requests import RowsAt
from vecdb.commit.state_requests import PatchState
from vecdb.commit.write_path import WritePath
from vecdb.embedded.check import check_collection
from vecdb.embedded.open_here import Usable
from vecdb.embedded.undisturbed import interrupted, undisturbed
from vecdb.errors import InvalidArgument
from vecdb.filters.tree import Node
from vecdb.index.common.progress import WeightedProgress
from vecdb.maintenance.index_jobs import CollectionMaintenance
from vecdb.query.filtering import rows_at, with_vectors
from vecdb.query.learning.width_tuning import tune
from vecdb.query.listing.facts import FieldFacts
from vecdb.query.listing.pages import Listing
from vecdb.query.one_query import OneQuery
from vecdb.query.recall import evaluate
from vecdb.query.searcher import Searcher
from vecdb.query.two_rounds import TwoRounds
from vecdb.schema import CollectionConfig, IndexConfig, SearchParams
from vecdb.state.collection_state import CollectionState
from vecdb.storage.disk import filesystem
from vecdb.storage.kv import catalog
from vecdb.storage.kv.store import Store
from vecdb.validate import IdBatch, threads


class LocalCollection:
    """The backend of one embedded collection. committer : None in a process that only reads."""

    def __init__(
        self,
        database: Path,
        store: Store,
        entry: catalog.CollectionEntry,
        committer: Committer | None,
        *,
        durable: bool,
        usable: Usable,
        wake_maintenance: Callable[[], None],
        job_lock: threading.RLock,
        memory_budget_bytes: int | None = None,
    ) -> None:
        self.state = CollectionState(
            database,
            store,
            entry,
            writable=committer is not None,
            durable=durable,
            check_usable=usable,
            check_changes=usable.for_changes,
            wake_maintenance=wake_maintenance,
            memory_budget_bytes=memory_budget_bytes,
        )
        self._build_seconds: float | None = None  # of the last `optimize` or `reindex`
        self.searcher = Searcher(self.state)
        self.writes = WritePath(self.state, committer, self.searcher.is_searched)
        self.jobs = CollectionMaintenance(self.state, self.writes, self.searcher)
        self.writes.fix_dim = self.jobs.fix_dim
        self.jobs.lock, self.jobs.is_ending = job_lock, lambda: usable.ending or interrupted()
        # the part of CollectionBackend that is one of these parts' as it is, without a call in between
        self.put, self.put_all, self.add = self.writes.put, self.writes.put_all, self.writes.add
        self.update, self.delete = self.writes.update, self.writes.delete
        self.change_access = self.writes.change_access
        self.create_tenants, self.drop_tenant = self.writes.create_tenants, self.writes.drop_tenant
        one_query = OneQuery(self.searcher)
        self.search, self.search_one, self.search_stream = (
            self.searcher.search,
            one_query.search,
            one_query.search_stream,
        )
        self.search_mixture = self.searcher.search_mixture
        self.two_rounds = TwoRounds(self.searcher)
        self.get, self.count = self.searcher.get, self.searcher.count
        listing = Listing(self.searcher)
        self.iter, self.get_matching = listing.iter, listing.get_matching
        facts = FieldFacts(listing)
        self.facets, self.distinct, self.extreme, self.fields = (
            facts.facets,
            facts.distinct,
            facts.extreme,
            facts.fields,
        )
        self.tenants, self.tenant_stats = self.searcher.tenants, self.searcher.tenant_stats

    def __del__(self) -> None:
        """Nobody uses it any more: its files are closed."""
        if hasattr(self, "jobs") and not sys.is_finalizing():
            self.state.close()

    # -- writes by filter --------------------------------------------------------------------------

    def delete_matching(
        self, node: Node, owner: bytes | None, tenants: tuple[str, ...], request_id: bytes | None = None
    ) -> int:
        return self.writes.delete_matching(self._rows_at(node, tenants), owner, _asked(node, tenants), request_id)

    def update_matching(
        self, node: Node, fields: bytes, owner: bytes | None, tenants: tuple[str, ...], request_id: bytes | None = None
    ) -> int:
        rows_at, asked = self._rows_at(node, tenants), _asked(node, tenants)
        return self.writes.update_matching(rows_at, fields, owner, asked, request_id)

    def _rows_at(self, node: Node, tenants: tuple[str, ...]) -> RowsAt:
        """Which rows match at a snapshot. Worked out once here, so that the commit thread need not read columns."""
        self.writes.require_writer()
        self.searcher.rows_for(tenants, node)
        return lambda snapshot: rows_at(snapshot, tenants, node)

    def set_metadata(self, metadata: dict[str, Any]) -> None:
        self.writes.require_writer()
        patched = False
        while not patched:  # a vacuum may have made a newer generation
            generation = self.state.current(to_change=True).generation.number
            patched = self.writes.submit(PatchState(self.state, generation, {"metadata": metadata}))

    def clear(self, request_id: bytes | None) -> int:
        self.writes.require_writer()
        with filesystem.raising_vecdb_errors("clearing"):
            return undisturbed(lambda: self.jobs.clear(request_id))

    def with_timeout(self, seconds: float) -> LocalCollection:
        raise InvalidArgument(
            f"collection {self.state.entry.name!r} is of a directory, where calls have no timeout; `stop` ends a search"
        )

    def renamed(self, name: str) -> None:
        """The collection has this name now."""
        if self.state.entry.name != name:
            self.state.entry.name = name
            journal = self.state.snapshot.generation.journal
            journal.tables = replace(journal.tables, where=name)

    # -- facts -------------------------------------------------------------------------------------

    @property
    def id_kind(self) -> Literal["int", "str"] | None:
        return self.state.snapshot.state.id_kind  # type: ignore[return-value]

    @property
    def dim(self) -> int:
        return catalog.dim_of(self.state.entry)

    @property
    def rows_per_call(self) -> int:
        return max(
            1, min(limits.batch_rows_max, limits.batch_bytes_max // (4 * 8 * (self.state.entry.dim or limits.dim_max)))
        )

    def config(self) -> CollectionConfig:
        return self.state.config()

    def stats(self) -> dict[str, Any]:
        """Facts for people and for `stats()`: sizes in bytes, counts in rows."""
        snapshot = self.state.current()
        visibility, state, generation = snapshot.visibility, snapshot.state, snapshot.generation
        index, columns = generation.index.stats(), generation.columns.view
        touched = visibility.row_count * 4 + visibility.row_count // 8  # crcs and verified bits
        return {
            "name": self.state.entry.name,
            "dim": self.dim,
            "metric": self.state.entry.metric,
            "dtype": self.state.entry.dtype,
            "live": state.live_count,
            "without_vector": state.bare_count,
            "deleted": visibility.row_count - state.live_count,
            "rows": visibility.row_count,
            "sequence": visibility.sequence,
            "generation": generation.number,
            "index": catalog.index_to_dict(snapshot.config),
            "index_state": self.state.index_state(snapshot),
            "index_error": self.state.index_error,
            "indexed_rows": generation.index.indexed_rows,
            "tail_rows": visibility.row_count - generation.index.indexed_rows,
            "sealed_rows": state.sealed.rows if state.sealed else 0,
            "tuned_ef": state.default_width,
            "recall": _recall_facts(state),
            "queries": self.searcher.queries,
            "columns": {"paths": len(columns.paths), "rows": columns.row_count, "bytes_ram": columns.nbytes},
            "bytes_ram": touched + generation.ids.memory_bytes() + int(index.get("bytes_ram", 0)) + columns.nbytes,
            "bytes_ram_peak": filesystem.memory_peak_bytes(),
            "build_seconds": self._build_seconds,
            "bytes_disk": filesystem.disk_bytes(self.state.folder),
            **generation.tenants.stats(),
            "bytes_raw": visibility.live_count * generation.rows.row_bytes,
            "index_stats": index,
        }

    # -- long work ---------------------------------------------------------------------------------

    @contextmanager
    def _timed(self) -> Iterator[None]:
        started = time.perf_counter()
        yield
        self._build_seconds = time.perf_counter() - started

    def optimize(self, thread_count: int | None, progress: Progress) -> None:
        """Repair, build anew where repairs have cost recall, index the whole tail, learn recall against ef, seal."""
        self.writes.require_writer()
        undisturbed(lambda: self._optimize_twice(thread_count, progress))

    def _optimize_twice(self, thread_count: int | None, progress: Progress) -> None:
        with self._timed(), filesystem.raising_vecdb_errors("optimizing"), self.jobs.lock:
            for _ in range(2):  # a step that meets damage leaves an empty index, which the second time is built
                index = self.state.snapshot.generation.index
                self._optimize(threads(thread_count), progress)
                if self.state.index_error is None or self.state.snapshot.generation.index is index:
                    return

    def _optimize(self, thread_count: int, progress: Progress) -> None:
        self.writes.merge_journal()
        self.jobs.repair(thread_count)
        if self.jobs.rebuild_is_due():
            self.jobs.rebuild(thread_count, progress)
        snapshot = self.state.snapshot
        costs = {"index": 1.0, "learn": snapshot.generation.index.tuning_cost_share}
        stages = WeightedProgress(progress, snapshot.visibility.row_count, costs)
        if snapshot.visibility.row_count >= limits.flat_rows_max or self.state.sealed_damaged:
            self.jobs.index_tail(thread_count, stages.part("index"), all_rows=True)
            if self.state.snapshot.generation.index.is_spoiled:  # which came to light as it grew
                self.jobs.rebuild(thread_count)
                self.jobs.index_tail(thread_count, all_rows=True)
        self.jobs.grow_companion(thread_count, all_rows=True)
        self.jobs.learn(thread_count, time_scans=True)
        self.jobs.seal(thread_count)
        if snapshot.state.has_fields:
            self.jobs.columns.extend()
            if self.jobs.columns.seal_is_due():
                self.jobs.columns.seal()
        stages.report("learn", 1.0)

    def _patch(self, generation: int, changes: dict[str, Any]) -> None:
        """Commit changes of the state, unless there are none or a vacuum has made a newer generation."""
        if changes:
            self.writes.submit(PatchState(self.state, generation, changes))

    def reindex(self, index: IndexConfig | None, progress: Progress) -> None:
        self.writes.require_writer()
        undisturbed(lambda: self._reindex(index, progress))

    def _reindex(self, index: IndexConfig | None, progress: Progress) -> None:
        with self._timed(), filesystem.raising_vecdb_errors("indexing"):
            self.jobs.reindex(catalog.index_to_dict(index), threads(None), progress)
            self.jobs.learn(threads(None), time_scans=True)
            self.jobs.seal(threads(None))

    def vacuum(self, progress: Progress) -> None:
        self.writes.require_writer()
        with filesystem.raising_vecdb_errors("vacuuming"):
            undisturbed(lambda: self.jobs.vacuum(threads(None), progress))

    def evaluate(
        self,
        queries: NDArray[np.float32],
        limit: int,
        params: SearchParams,
        tenants: tuple[str, ...] = (),
        node: Node | None = None,
        *,
        truth: IdBatch | None = None,
        stop: Stop = None,
    ) -> dict[str, Any]:
        return evaluate(self.searcher, queries, limit, params, tenants, truth, node, stop)

    def tune(
        self, queries: NDArray[np.float32], limit: int, recall: float, node: Node | None = None
    ) -> list[dict[str, float]]:
        if node is None:
            self.writes.require_writer()
            with self.jobs.lock, self.jobs.rebuild_on_corruption():
                snapshot = self.state.current()
                curve, changes = tune(snapshot, queries, limit, recall)
                self._patch(snapshot.generation.number, changes)
                return curve
        else:
            with self.jobs.rebuild_on_corruption():
                snapshot, allowed = self.searcher.rows_for((), node)
                return tune(snapshot, queries, limit, recall, with_vectors(snapshot, allowed))[0]
        return []  # the index is damaged, and nothing is measured of it

    def check(self) -> list[str]:
        self.state.current()
        return check_collection(self.state, self.jobs.lock)


def _asked(node: Node, tenants: tuple[str, ...]) -> bytes:
    """A filter and who asks, as a request that is repeated must say them again."""
    return repr((str(node), tenants)).encode()


def _recall_facts(state: catalog.CommittedState) -> dict[str, Any] | None:
    """What maintenance measured last of searches that name no width; None before."""
    check = state.recall_check
    if check is None:
        return None
    at = datetime.fromtimestamp(check.at, UTC).isoformat(timespec="seconds")
    return {"measured": round(check.recall, 4), "at": at, "limit": check.limit, "rows": check.rows}
