"""One collection, embedded: where store and index meet. `Collection` (the facade) hands it canonical arrays.

    search   current view -> plan -> index (sealed or live part and tail) -> exact scan for what came short -> ids,
    fields write    room in the tail -> request to the committer -> published view

Threads: any number of searches and writes at once. `view` is replaced by the commit thread (writer) or under
`_refresh_lock` (reader); a search uses the one view that it took. The index's structure is changed by maintenance
alone.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np
from numpy.typing import NDArray

from vecdb import access, catalog, limits, mixture, planner, reads
from vecdb.check import check_collection
from vecdb.contracts import Batch, Mode
from vecdb.debris import purge_debris
from vecdb.errors import Corruption, NotFound, Unavailable
from vecdb.generation import Generation, View, folder_of, view_of
from vecdb.hits import Hits
from vecdb.index import graph, order
from vecdb.index.base import Allowed, Found, Index, IndexDamaged, Progress
from vecdb.index.curator import Curator as CuratorIndex
from vecdb.index.flat import Flat as FlatIndex
from vecdb.index.hnsw import Hnsw as HnswIndex
from vecdb.index.spann import Spann as SpannIndex
from vecdb.index.stages import Stages
from vecdb.once import Once
from vecdb.schema import CollectionConfig, Curator, Flat, Hnsw, IndexConfig, Record, SearchParams, Spann
from vecdb.stopping import in_chunks
from vecdb.storage import codec, files, keys
from vecdb.storage.rows import Rows
from vecdb.storage.store import Store, Txn
from vecdb.tuning import evaluate, learn, tune
from vecdb.upkeep import Upkeep
from vecdb.vacuum import vacuum
from vecdb.validate import AccessLists, IdBatch, MixtureQuery, tenant_name, threads
from vecdb.writes import ChangeAccess, CreateTenants, Delete, DropTenant, Put, Update

if TYPE_CHECKING:
    from vecdb.commit import Committer, Request

_log = logging.getLogger("vecdb")
_LOAD_TRIES = 10
_ROW_BYTES = 12  # crc and id, or where its id ends
_NAMES_PAGE = 1_000  # names of tenants read in one transaction
_SEARCHED_S = 2.0
_WRITTEN_S = 2.0
_ROOM_POLL_S = 0.5  # a writer that waits for room looks this often whether the database was closed meanwhile


class Engine:
    """The embedded engine of one collection."""

    def __init__(
        self,
        database: Path,
        store: Store,
        entry: catalog.Entry,
        committer: Committer | None,
        *,
        durable: bool,
        guard: Callable[[], None],
        wake_maintenance: Callable[[], None],
        memory_budget_bytes: int | None = None,
    ) -> None:
        self.entry = entry
        self.store = store
        self.folder = folder_of(database, entry.uid)
        self.durable = durable
        self.dropped = False
        self.index_error: str | None = None
        self.room = threading.Condition()
        self.upkeep = Upkeep(self)
        self.memory_budget_bytes = memory_budget_bytes
        self._guard = guard
        self._committer = committer
        self._wake_maintenance = wake_maintenance
        self._refresh_lock = threading.Lock()
        self._raw_state: bytes | None = None
        self._last_try = False
        self._searched_at = -_SEARCHED_S
        self._written_at = -_WRITTEN_S
        self.view: View
        self._load_newest()

    # -- the view ----------------------------------------------------------------------------------

    @property
    def writable(self) -> bool:
        return self._committer is not None

    def _state_in(self, txn: Txn) -> tuple[bytes, catalog.State]:
        raw = txn.get(keys.uid(self.entry.uid), db=self.store.state)
        if raw is None:
            self.dropped = True
            raise NotFound(f"collection {self.entry.name!r} was dropped")
        return raw, catalog.decode_state(raw, self.entry.name)

    def _load_newest(self) -> None:
        """Load what is committed now. A reading process may lose a race with a vacuum that removes the files: then
        once more.
        """
        for attempt in range(_LOAD_TRIES):
            self._last_try = attempt == _LOAD_TRIES - 1
            try:
                with self.store.read() as txn:
                    self._load(txn)
                return
            except FileNotFoundError:
                if self.writable or attempt == _LOAD_TRIES - 1:
                    raise Corruption(
                        f"{self.folder}: the row file is missing; restore the database from a backup"
                    ) from None

    def _load(self, txn: Txn) -> None:
        """Read the generation that the state names into memory and make it the view."""
        raw, state = self._state_in(txn)
        self._check_budget(state)
        self.index_error = None
        generation = Generation(self.store, self.folder, self.entry, state, writable=self.writable)
        try:
            generation.catch_up(txn, state)
            self.attach_index(generation, state)
        except BaseException:
            generation.close()
            raise
        old = getattr(self, "view", None)
        self.view = view_of(generation, state)
        self._raw_state = raw
        if old is not None:
            old.generation.close()  # its descriptor; searches that hold it keep its arrays

    def _check_budget(self, state: catalog.State) -> None:
        """Refuse a collection that would not fit, before anything of its size is read."""
        config = catalog.index_from_dict(state.index) or Hnsw()
        if isinstance(config, Spann):
            return  # what it keeps in memory follows the budget
        per_row = _ROW_BYTES
        if isinstance(config, Hnsw):
            per_row += graph.bytes_per_row(self.entry.dim, config.m)
        elif isinstance(config, Curator):
            per_row += order.bytes_per_row(self.entry.dim)
        needed = state.row_count * per_row
        if self.memory_budget_bytes is not None and needed > self.memory_budget_bytes:
            raise Unavailable(
                f"collection {self.entry.name!r} needs about {needed:,} bytes of memory, memory_budget_bytes is "
                f"{self.memory_budget_bytes:,}; open the database with a larger budget, vacuum, or reindex to Flat()"
            )

    def attach_index(self, generation: Generation, state: catalog.State) -> None:
        """Give `generation` its index: the sealed file where there is a sound one, else an empty structure that is
        built anew.
        """
        rows = generation.rows
        if state.sealed is None:
            generation.index = self.make_index(state.index, rows)
        else:
            try:
                generation.index = self.open_sealed(view_of(generation, state), mapped=not self.writable)
            except (Corruption, FileNotFoundError) as error:
                if isinstance(error, FileNotFoundError) and not self.writable and not self._last_try:
                    raise  # the writer has sealed anew since: the caller looks again
                # Derived data: the rows are the truth. Answers are exact until maintenance has built the graph again.
                self.index_error = str(error)
                self.upkeep.sealed_damaged = True
                _log.warning("collection %r: index damaged, rebuilding: %s", self.entry.name, error)
                generation.index = self.make_index(state.index, rows)
        generation.index.extend(state.row_count)

    def index_damaged(self, index: Index, error: Exception) -> None:
        """What an index has on disk turned out to be damaged. A writer begins an empty one, which maintenance builds;
        a reader goes on with exact answers until the writer has sealed another.
        """
        generation = self.view.generation
        with self._refresh_lock:
            if generation.index is not index or self.index_error is not None:
                return  # somebody else met it first
            _log.warning("collection %r: index damaged, rebuilding: %s", self.entry.name, error)
            self.index_error = str(error)
            self.upkeep.sealed_damaged = True
            if not self.writable:
                return
            sealed = self.view.state.sealed
            for name in set(index.file_names()) - set(sealed.files if sealed is not None else ()):
                files.remove(self.folder / name)
            generation.index = self.make_index(self.view.state.index, generation.rows)
            generation.index.extend(self.view.snapshot.row_count)
        self._wake_maintenance()

    def open_sealed(self, view: View, *, mapped: bool) -> Index:
        """The sealed index that the view's state names. Raises Corruption, or FileNotFoundError."""
        assert view.state.sealed is not None
        path = self.folder / view.state.sealed.file
        if isinstance(view.config, Spann):
            return SpannIndex.open(
                path, self._budgeted(view.config), self.entry.metric, view.generation.rows, mapped=mapped
            )
        if isinstance(view.config, Curator):
            return CuratorIndex.open(path, view.config, self.entry.metric, view.generation.rows, mapped=mapped)
        assert isinstance(view.config, Hnsw), view.config
        return HnswIndex.open(path, view.config, self.entry.metric, view.generation.rows, mapped=mapped)

    def _budgeted(self, config: Spann) -> Spann:
        """The database's budget where the collection has none of its own: lists beyond it stay on disk."""
        if config.memory_budget_bytes is not None or self.memory_budget_bytes is None:
            return config
        return replace(config, memory_budget_bytes=self.memory_budget_bytes)

    def make_index(self, config: dict[str, Any] | None, rows: Rows) -> Index:
        """An empty index as the state describes it; None is a graph, which is not begun while the collection is
        small.
        """
        chosen = catalog.index_from_dict(config) or Hnsw()
        if isinstance(chosen, Flat):
            return FlatIndex(self.entry.metric, rows)
        if isinstance(chosen, Spann):
            return SpannIndex(self._budgeted(chosen), self.entry.metric, rows, self.folder)
        if isinstance(chosen, Curator):
            return CuratorIndex(chosen, self.entry.metric, rows)
        return HnswIndex(chosen, self.entry.metric, rows)

    def publish(self, state: catalog.State, generation: Generation | None = None) -> None:
        """Commit thread: what searches see from now on."""
        self._written_at = time.monotonic()
        self.view = view_of(generation or self.view.generation, state)
        self._wake_maintenance()

    def current(self) -> View:
        """The newest committed view. Raises where the database is closed, forked, or the collection dropped."""
        self._guard()
        if self.dropped:
            raise NotFound(f"collection {self.entry.name!r} was dropped")
        if self._committer is None:
            self._refresh()
        return self.view

    def _refresh(self) -> None:
        """A reading process: catch up with what the writer has committed since."""
        with self.store.read() as txn:
            raw = txn.get(keys.uid(self.entry.uid), db=self.store.state)
            if raw == self._raw_state:
                return
            with self._refresh_lock:
                raw, state = self._state_in(txn)
                if state.sequence <= self.view.state.sequence:
                    return  # another thread was faster
                if state.generation == self.view.state.generation and state.sealed == self.view.state.sealed:
                    generation = self.view.generation
                    generation.catch_up(txn, state)
                    generation.index.extend(state.row_count)
                    self.view = view_of(generation, state)
                    self._raw_state = raw
                    return
        with self._refresh_lock:
            self._load_newest()

    def config(self) -> CollectionConfig:
        return catalog.config_of(self.entry, self.view.state)

    @property
    def id_kind(self) -> Literal["int", "str"] | None:
        return self.view.state.id_kind  # type: ignore[return-value]

    @property
    def rows_per_call(self) -> int:
        return max(1, min(limits.batch_rows_max, limits.batch_bytes_max // (4 * 8 * self.entry.dim)))

    # -- search ------------------------------------------------------------------------------------

    def search(
        self,
        queries: NDArray[np.float32],
        limit: int,
        params: SearchParams,
        *,
        single: bool,
        select: tuple[str, ...] | None,
        include_vectors: bool,
        explain: bool,
        tenants: tuple[str, ...] = (),
        stop: Callable[[], bool] | None = None,
    ) -> Hits:
        """Nearest live records of queries (float32[nq, dim], checked). `select`: field names, None for all, () for
        none. `tenants`: whose records, () for everybody's. `stop`: asked now and then whether to give up.
        """
        started = time.perf_counter() if explain else 0.0
        self._searched_at = time.monotonic()
        while True:
            view, allowed = self.current_for(tenants) if tenants else (self.current(), None)
            if stop is None or single:
                found, plan = self.find(view, queries, limit, params, allowed)
            else:
                search = partial(self.find, view, limit=limit, params=params, allowed=allowed)
                found, plan = in_chunks(search, queries, stop)
            searched = time.perf_counter() if explain else 0.0
            hits = self._hits(view, found, single, select, include_vectors)
            if hits is not None:
                break
        if explain:
            hits.explain = self._explained(view, found, plan, started, searched)
        return hits

    def _hits(
        self, view: View, found: Found, single: bool, select: tuple[str, ...] | None, include_vectors: bool
    ) -> Hits | None:
        """Ids, fields and vectors of what was found; None where a vacuum has moved the rows since: once more on the new
        view.
        """
        raw_fields: list[Any] | None = None
        if view.state.has_fields and select != ():
            raw_fields = self._fields_of(view, found.rows, single)
            if raw_fields is None:
                return None
        vectors = None
        if include_vectors:
            vectors = np.zeros((*found.rows.shape, self.entry.dim), self.entry.dtype)
            vectors[found.rows >= 0] = reads.vectors(view.generation, found.rows[found.rows >= 0])
            if single:
                vectors = vectors[0, : found.counts[0]]
        padded = not single or found.counts[0] < found.rows.shape[1]
        ids = view.generation.ids.take(found.rows, padded=padded)
        sequence = view.snapshot.sequence
        return Hits(
            ids, found.distances, found.counts, sequence, self.entry.metric, single, raw_fields, vectors, None, select  # type: ignore[arg-type]
        )  # fmt: skip

    def _explained(
        self, view: View, found: Found, plan: planner.Plan, started: float, searched: float
    ) -> dict[str, Any]:
        done = time.perf_counter()
        index = view.generation.index
        return {
            "plan": plan.strategy,
            "reason": plan.reason,
            "ef": plan.width if plan.strategy == "graph" else None,
            "nprobe": plan.width if plan.strategy in ("lists", "tree") else None,
            "index_state": self.index_state(view),
            "indexed_rows": index.indexed_rows,
            "tail_rows": view.snapshot.row_count - index.indexed_rows,
            **index.explain(found.work),
            "search_ms": 1e3 * (searched - started),
            "fetch_ms": 1e3 * (done - searched),
            "total_ms": 1e3 * (done - started),
        }

    def search_mixture(
        self,
        query: MixtureQuery,
        limit: int,
        params: SearchParams,
        owner: bytes,
        *,
        select: tuple[str, ...] | None,
        include_vectors: bool,
        explain: bool,
        tenants: tuple[str, ...] = (),
    ) -> Hits:
        """Diverse neighbours of the records of a user (mixture.py); all that it reads and finds is of one view."""
        started = time.perf_counter()
        self._searched_at = time.monotonic()
        while True:
            view, allowed = self.current_for(tenants) if tenants else (self.current(), None)
            users = self._rows_of_users(view, query.users, owner, allowed)
            if users is None:
                time.sleep(0.001)  # a commit is there that is not published yet, or was while this looked
                continue
            liked = reads.vectors(view.generation, np.concatenate(users)).astype(np.float32)
            vectors = np.split(liked, np.cumsum([len(rows) for rows in users])[:-1])
            centres = view.generation.index.centres(view.snapshot.row_count)
            made = mixture.fit(vectors, centres, self.entry.metric, query.components, query.smoothing, query.neighbours)
            find = partial(self.find, view, params=params, allowed=allowed)
            answer = mixture.answer(find, made, users[0], limit)
            searched = time.perf_counter()
            hits = self._hits(view, answer.found, True, select, include_vectors)
            if hits is not None:
                break
        hits.components = answer.components
        if explain:
            report = self._explained(view, answer.found, answer.plan, started, searched)
            hits.explain = report | answer.explain(made)
        return hits

    def _rows_of_users(
        self, view: View, users: list[IdBatch], owner: bytes, allowed: Allowed | None
    ) -> list[NDArray[np.int64]] | None:
        """Rows of each user's records at the view; None where LMDB holds another commit by now. Raises NotFound where
        one is not there or, which is the same to its tenants, not for them to see.
        """
        with self.store.read() as txn:
            _, state = self._state_in(txn)
            if (state.generation, state.sequence) != (view.generation.number, view.snapshot.sequence):
                return None
            found = [reads.confirmed_rows(view.generation, txn, state, owner, ids) for ids in users]
        unseen = 0
        for rows, ids in zip(reversed(found), reversed(users), strict=True):
            bad = np.flatnonzero(rows < 0 if allowed is None else (rows < 0) | ~allowed.holds(np.maximum(rows, 0)))
            unseen += len(bad)
            if len(bad):
                first = ids.ints[bad[0]] if ids.ints is not None else repr(ids.keys[bad[0]].decode())
        if unseen:
            raise NotFound(
                f"collection {self.entry.name!r} has no record {first}"
                + (f" and {unseen - 1} more of these ids" if unseen > 1 else "")
                + (" that the tenant may see" if allowed is not None else "")
            )
        return found

    def current_for(self, tenants: tuple[str, ...]) -> tuple[View, Allowed]:
        """The newest view, and the rows of the union of these tenants (distinct names) in its snapshot. Raises NotFound
        where one is unknown.
        """
        while True:
            view = self.current()
            allowed = view.generation.tenants.rows_at(tenants, view.snapshot)
            if allowed is not None:
                return view, allowed
            time.sleep(0)  # commits have come in between, or one is about to be published

    def find(
        self,
        view: View,
        queries: NDArray[np.float32],
        limit: int,
        params: SearchParams,
        allowed: Allowed | None = None,
    ) -> tuple[Found, planner.Plan]:
        """Nearest rows of one view. allowed : rows of its snapshot that may be returned; None: all."""
        index = view.generation.index
        plan = self.plan(view, limit, params, allowed)
        try:
            return index.search(queries, limit, view.snapshot, plan.params(params), allowed), plan
        except IndexDamaged as error:
            self.index_damaged(index, error)
            exact = replace(params, exact=True, recall=None)
            found = index.search(queries, limit, view.snapshot, exact, allowed)
            return found, planner.Plan("exact", 0, "the index is damaged")
        except OSError as error:
            raise files.translate(error, "searching", "nothing changed") from error

    def plan(self, view: View, limit: int, params: SearchParams, allowed: Allowed | None) -> planner.Plan:
        state, matching = view.state, None if allowed is None else len(allowed)
        indexed = view.generation.index.indexed_rows
        return planner.plan(
            view.config, indexed, view.snapshot, limit, params, state.tuned, state.tuned_ef, matching
        )  # fmt: skip

    def _fields_of(self, view: View, rows: NDArray[np.int64], single: bool) -> list[Any] | None:
        """Encoded fields of found rows, nested as the hits are; None where the rows have been renumbered since
        `view`.
        """
        with self.store.read(buffers=True) as txn:
            raw = txn.get(keys.uid(self.entry.uid), db=self.store.state)
            if raw is None or catalog.decode_state(bytes(raw), self.entry.name).generation != view.generation.number:
                return None
            nested = [
                [reads.encoded_fields(view.generation, txn, row) for row in one if row >= 0] for one in rows.tolist()
            ]
            return nested[0] if single else nested

    # -- point reads -------------------------------------------------------------------------------

    def get(self, ids: IdBatch, owner: bytes, *, include_vectors: bool, tenants: tuple[str, ...] = ()) -> Any:
        """A record or None per id, in order, all from one committed state; with `tenants` None, too, where none of
        them may see the record.
        """
        with self.reading() as (txn, generation, state):
            for name in tenants:
                self._tenant_in(txn, name)
            rows = reads.rows_of_ids(generation, txn, owner, ids.keys)
            found = reads.records(generation, txn, state, rows, include_vectors=include_vectors)
            for record, key in zip(found, ids.keys, strict=True):
                if record is not None:
                    reads.refuse_stray(generation, key, record.id)
        if tenants:
            allowed = set(tenants)
            found = [one if one is not None and not allowed.isdisjoint(one.tenants) else None for one in found]
        return found[0] if ids.scalar else found

    @contextmanager
    def reading(self) -> Iterator[tuple[Txn, Generation, catalog.State]]:
        """A read transaction (with buffers), the loaded generation that it reads, and its state."""
        while True:
            generation = self.current().generation
            with self.store.read(buffers=True) as txn:
                raw = txn.get(keys.uid(self.entry.uid), db=self.store.state)
                if raw is None:
                    raise NotFound(f"collection {self.entry.name!r} was dropped")
                state = catalog.decode_state(bytes(raw), self.entry.name)
                if state.generation == generation.number:
                    yield txn, generation, state
                    return
            time.sleep(0.001)  # a vacuum has committed and is about to publish, or published between the two looks

    def iter(self, batch: int, *, include_vectors: bool, tenants: tuple[str, ...] = ()) -> Iterator[list[Record]]:
        """Live records in row order, `batch` at a time, from one committed state (held until the iterator is done)."""
        with self.reading() as (txn, generation, state):
            if tenants:
                chosen = reads.rows_of_tenants(generation, txn, state, tenants).astype(np.int64)
            else:
                chosen = np.flatnonzero(~reads.dead_rows(generation, txn, state))
            rows: list[int] = []
            for row in chosen.tolist():
                rows.append(row)
                if len(rows) == batch:
                    records = reads.records(generation, txn, state, rows, include_vectors=include_vectors)
                    with self.store.resting():
                        yield cast(list[Record], records)
                    rows = []
                    self._guard()
            if rows:
                records = reads.records(generation, txn, state, rows, include_vectors=include_vectors)
                with self.store.resting():
                    yield cast(list[Record], records)

    def count(self, tenants: tuple[str, ...] = ()) -> int:
        """Live records; of tenants, those of their union."""
        if not tenants:
            return self.current().snapshot.live_count
        if len(tenants) > 1:
            return len(self.current_for(tenants)[1])
        with self.reading() as (txn, generation, _):
            number, _ = self._tenant_in(txn, tenants[0])
            return access.count_of(self.store, txn, generation.prefix, number)

    # -- tenants -----------------------------------------------------------------------------------

    def _tenant_in(self, txn: Txn, name: str) -> tuple[int, codec.Tenant]:
        """(number, tenant). Raises NotFound."""
        encoded = tenant_name(name)
        found = access.named(self.store, txn, self.entry.uid, encoded, self.entry.name)
        if found is None:
            raise access.unknown_tenant(self.entry.name, encoded)
        return found

    def tenants(self) -> Iterator[str]:
        """Names, sorted, a page at a time: each page is one committed state."""
        self.current()
        after: bytes | None = None
        while True:
            with self.store.read() as txn:
                names = access.names_after(self.store, txn, self.entry.uid, after, _NAMES_PAGE)
            yield from (name.decode() for name in names)
            if len(names) < _NAMES_PAGE:
                return
            after = names[-1]
            self.current()

    def tenant_stats(self, name: str) -> dict[str, Any]:
        view, allowed = self.current_for((name,))
        with self.reading() as (txn, _, _):
            _, found = self._tenant_in(txn, name)
        plan = self.plan(view, 10, SearchParams(), allowed)
        return {
            "tenant": name,
            "records": len(allowed),
            "records_max": found.records_max or limits.tenant_records_max,
            "bytes_ram": view.generation.tenants.cached_bytes(name),
            "plan": plan.strategy,
            "reason": plan.reason,
            "sequence": view.snapshot.sequence,
        }

    def change_access(
        self, ids: IdBatch, tenants: AccessLists, owner: bytes, *, granted: bool, request_id: bytes | None = None
    ) -> int:
        if ids.n == 0:
            self.current()
            return 0
        return int(self.submit(ChangeAccess(self, owner, ids, tenants, granted), request_id))

    def create_tenants(
        self, names: list[bytes], exist_ok: bool, records_max: int | None, request_id: bytes | None = None
    ) -> int:
        return int(self.submit(CreateTenants(self, names, exist_ok, records_max), request_id))

    def drop_tenant(self, name: bytes, request_id: bytes | None = None) -> None:
        self.submit(DropTenant(self, name), request_id)

    # -- writes ------------------------------------------------------------------------------------

    def put(self, batch: Batch, owner: bytes, mode: Mode, request_id: bytes | None) -> int:
        if batch.ids.n == 0:
            self.current()
            return 0
        metas = batch.fields
        if owner:
            metas = [codec.encode_meta(owner, one) for one in metas or [b""] * batch.ids.n]
        self._wait_for_room()
        request = Put(self, owner, batch.ids, batch.vectors, metas, mode, batch.tenants)
        return int(self.submit(request, request_id))

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
        return int(self.submit(Update(self, owner, ids, vectors, fields), request_id))

    def delete(self, ids: IdBatch, owner: bytes, request_id: bytes | None = None) -> int:
        if ids.n == 0:
            self.current()
            return 0
        return int(self.submit(Delete(self, owner, ids), request_id))

    def submit(self, request: Request, request_id: bytes | None = None) -> Any:
        """Run a request in a commit; returns when it is durable and published."""
        if request_id is not None:
            request = Once(request, self.entry.uid, request_id, int(time.time()))
        self.current()
        if self._committer is None:
            raise Unavailable("this database is open for reading only; open it without read_only=True to write")
        return self._committer.submit(request)

    def _wait_for_room(self) -> None:
        """Back-pressure: while the tail is longer than its bound, searches would get slower with every write."""
        index = self.view.generation.index
        if index.patient and index.indexed_rows == 0:
            return  # until lists are built every search scans all rows anyway
        with self.room:
            while self.tail_rows() >= (limits.tail_rows_max if self.is_searched() else limits.tail_rows_bulk_max):
                self.current()
                self._wake_maintenance()
                self.room.wait(_ROOM_POLL_S)

    def is_searched(self) -> bool:
        """Whether anybody in this process has searched lately: then cores and the length of the tail matter to them."""
        return time.monotonic() - self._searched_at < _SEARCHED_S

    def is_loaded(self) -> bool:
        """Whether writers are at work while nobody searches: a bulk load."""
        return not self.is_searched() and time.monotonic() - self._written_at < _WRITTEN_S

    # -- facts -------------------------------------------------------------------------------------

    def tail_rows(self) -> int:
        view = self.view
        return view.snapshot.row_count - view.generation.index.indexed_rows

    def index_state(self, view: View) -> str:
        """ready: the graph covers all but a short tail. building: it is catching up. rebuilding: a damaged one is
        being replaced.
        """
        if self.index_error is not None:
            return "rebuilding"
        tail = view.snapshot.row_count - view.generation.index.indexed_rows
        return "ready" if tail < limits.seal_rows_min else "building"

    def stats(self) -> dict[str, Any]:
        """Facts for people and for `stats()`: sizes in bytes, counts in rows."""
        view = self.current()
        snapshot, state, generation = view.snapshot, view.state, view.generation
        index = generation.index.stats()
        touched = snapshot.row_count * 4 + snapshot.row_count // 8  # crcs and verified bits
        return {
            "name": self.entry.name,
            "dim": self.entry.dim,
            "metric": self.entry.metric,
            "dtype": self.entry.dtype,
            "live": snapshot.live_count,
            "deleted": snapshot.row_count - snapshot.live_count,
            "rows": snapshot.row_count,
            "sequence": snapshot.sequence,
            "generation": generation.number,
            "index": catalog.index_to_dict(view.config),
            "index_state": self.index_state(view),
            "index_error": self.index_error,
            "indexed_rows": generation.index.indexed_rows,
            "tail_rows": snapshot.row_count - generation.index.indexed_rows,
            "sealed_rows": state.sealed.rows if state.sealed else 0,
            "tuned_ef": state.tuned_ef,
            "bytes_ram": touched + generation.ids.memory_bytes() + int(index.get("bytes_ram", 0)),
            "bytes_disk": files.disk_bytes(self.folder),
            **generation.tenants.stats(),
            "bytes_raw": snapshot.live_count * generation.rows.row_bytes,
            "index_stats": index,
        }

    # -- long work ---------------------------------------------------------------------------------

    def optimize(self, thread_count: int | None, progress: Progress) -> None:
        """Repair, build anew where repairs have cost recall, index the whole tail, learn recall against ef, seal."""
        self._require_writer()
        with files.typed("optimizing"), self.upkeep.lock:
            for _ in range(2):  # a step that meets damage leaves an empty index, which the second time is built
                index = self.view.generation.index
                self._optimize(threads(thread_count), progress)
                if self.index_error is None or self.view.generation.index is index:
                    return

    def _optimize(self, thread_count: int, progress: Progress) -> None:
        self.upkeep.repair(thread_count)
        if self.upkeep.rebuild_is_due():
            self.upkeep.rebuild(thread_count, progress)
        view = self.view
        costs = {"index": 1.0, "learn": view.generation.index.learning_cost}
        stages = Stages(progress, view.snapshot.row_count, costs)
        if view.snapshot.row_count >= limits.flat_rows_max or self.upkeep.sealed_damaged:
            self.upkeep.index_tail(thread_count, stages.part("index"), all_rows=True)
        with self.upkeep.mending():
            learn(self)
        self.upkeep.seal(thread_count)
        stages.report("learn", 1.0)

    def reindex(self, index: IndexConfig | None, progress: Progress) -> None:
        self._require_writer()
        with files.typed("indexing"):
            self.upkeep.reindex(catalog.index_to_dict(index), threads(None), progress)
            self.upkeep.seal(threads(None))

    def vacuum(self, progress: Progress) -> None:
        self._require_writer()
        with files.typed("vacuuming"):
            vacuum(self, threads(None), progress)

    def clear_debris(self) -> None:
        """Remove what a vacuum left behind."""
        assert self._committer is not None
        keep = self.view.generation.index.file_names()  # in use although no state may name them yet
        purge_debris(self.folder.parent.parent, self.store, self._committer, only_uid=self.entry.uid, keep=keep)

    def evaluate(
        self, queries: NDArray[np.float32], limit: int, params: SearchParams, tenants: tuple[str, ...] = ()
    ) -> dict[str, Any]:
        return evaluate(self, queries, limit, params, tenants)

    def tune(self, queries: NDArray[np.float32], limit: int, recall: float) -> list[dict[str, float]]:
        self._require_writer()
        with self.upkeep.mending():
            return tune(self, queries, limit, recall)
        return []

    def check(self) -> list[str]:
        self.current()
        return check_collection(self)

    def _require_writer(self) -> None:
        self.current()
        if self._committer is None:
            raise Unavailable("this database is open for reading only; open it without read_only=True for this")

    def close(self) -> None:
        self.view.generation.index.close()
        self.view.generation.close()
