"""Searches and reads of one collection. Nothing here changes anything.

    search   newest snapshot -> plan -> index (sealed or live part, and tail; exact scan where it found too few)
             -> ids, fields

Threads: any number at once; each answer is of one snapshot, or of one read transaction.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from vecdb import limits
from vecdb.api.filter_arguments import Filters
from vecdb.api.hits import Hits
from vecdb.errors import InvalidArgument, NotFound
from vecdb.filters.evaluate import matcher
from vecdb.filters.tree import Node
from vecdb.index.contract import IndexCorruption, Neighbors
from vecdb.index.row_set import RowSet
from vecdb.query import filtering, mixture, planner
from vecdb.query.cancellation import search_in_chunks
from vecdb.query.learning.asked_queries import AskedQueries
from vecdb.query.preparation import Preparation, PreparedSearch
from vecdb.schema import Metric, SearchParams, element_type
from vecdb.state import record_reader
from vecdb.state.collection_state import CollectionState
from vecdb.state.record_blocks import has_owners, record_metas
from vecdb.state.snapshot import Snapshot
from vecdb.storage.disk import filesystem
from vecdb.storage.kv import catalog, record_format
from vecdb.storage.kv.store import Txn
from vecdb.tenancy import tenant_names
from vecdb.validate import IdBatch, MixtureQuery, tenant_name

_NAMES_PAGE = 1_000  # names of tenants read in one transaction
_SEARCHED_S = 2.0


class Searcher:
    """Searches and reads of one collection."""

    def __init__(self, state: CollectionState) -> None:
        self.preparation = Preparation(state)
        self.plan, self.rows_for = self.preparation.plan, self.preparation.rows_for
        self.asked = AskedQueries(state.entry.dim or 1)
        self.state = state
        self.entry = state.entry
        self.store = state.store
        self._metric = cast(Metric, state.entry.metric)
        self.current = state.current  # bound once: every search calls it
        self._searched_at = -_SEARCHED_S  # by the monotonic clock
        self.queries = 0  # that were asked here; of those that come at the same moment some may not be counted
        self._owned = -1, False  # a commit, and whether records had owners then
        self._decoded = b"", -1  # the state that was decoded last, and its generation

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
        node: Filters = None,
    ) -> Hits:
        """Nearest live records of queries (float32[nq, dim], checked). `select`: field names, None for all, () for
        none. `tenants`: whose records, () for everybody's. `stop`: asked now and then whether to give up. `node`: a
        filter, or one for each query.
        """
        started = time.perf_counter() if explain else 0.0
        self.note_searched(queries, exact=params.exact)
        reports: list[dict[str, Any]] | None = [] if explain else None
        while True:
            if isinstance(node, tuple):
                snapshot, found, plan = self._nearest_each(queries, limit, params, tenants, node, stop, reports)
                searched = time.perf_counter() if explain else 0.0
                hits = self.hits_of(snapshot, found, single, select, include_vectors)
                if hits is not None:
                    break
                continue
            snapshot, prepared = self.preparation.newest(limit, params, tenants, node)
            if single:
                found, plan = self._run(snapshot, prepared, queries)
            else:
                run = partial(self._run, snapshot, prepared)
                found, plan = search_in_chunks(run, queries, stop, *_work_of(snapshot, prepared.plan))
            searched = time.perf_counter() if explain else 0.0
            hits = self.hits_of(snapshot, found, single, select, include_vectors)
            if hits is not None:
                break
        if explain:
            hits.explain = self.explained(snapshot, found, plan, started, searched)
            if isinstance(node, tuple):
                hits.explain["filters"] = reports
            elif node is not None:
                hits.explain |= filtering.report(snapshot, node, prepared.allowed)
        return hits

    def _nearest_each(
        self,
        queries: NDArray[np.float32],
        limit: int,
        params: SearchParams,
        tenants: tuple[str, ...],
        nodes: tuple[Node | None, ...],
        stop: Callable[[], bool] | None,
        reports: list[dict[str, Any]] | None,
    ) -> tuple[Snapshot, Neighbors, planner.Plan]:
        """Nearest rows of queries that have a filter each: those of one filter are answered together, all of them at
        one snapshot. reports : is filled with what `explain` says of each, where it is asked.
        """
        while True:
            snapshot, parts = self.current(), []
            if reports is not None:
                reports.clear()
            for node, places in filtering.places_of(nodes).items():
                prepared = self.preparation.at(snapshot, limit, params, tenants, node)
                if prepared is None:
                    break
                run = partial(self._run, snapshot, prepared)
                found, plan = search_in_chunks(run, queries[places], stop, *_work_of(snapshot, prepared.plan))
                parts.append((places, found))
                if reports is not None:
                    said = {} if node is None else filtering.report(snapshot, node, prepared.allowed)
                    reports.append({"plan": plan.strategy, "reason": plan.reason, "queries": len(places), **said})
            else:
                return snapshot, filtering.laid_out(parts, limit), plan
            time.sleep(0.001)  # a vacuum has committed, or commits have come in between

    def hits_of(
        self, snapshot: Snapshot, found: Neighbors, single: bool, select: tuple[str, ...] | None, include_vectors: bool
    ) -> Hits | None:
        """Ids, fields and vectors of what was found; None where a vacuum has renumbered the rows since: the caller
        searches the new snapshot.
        """
        raw_fields: list[Any] | None = None
        owners = None
        if snapshot.state.has_fields and (select != () or self.has_owners(snapshot)):
            metas = self._metas_of(snapshot, found.rows)
            if metas is None:
                return None
            owners = _owners_of(metas, found.rows.shape)
            if select != ():
                fields_of = record_format.fields_of
                raw_fields = fields_of(metas[0]) if single else [fields_of(one) for one in metas]
        vectors = None
        if include_vectors:
            vectors = np.zeros((*found.rows.shape, self.entry.dim), element_type(self.entry.dtype))
            vectors[found.rows >= 0] = record_reader.vectors(snapshot.generation, found.rows[found.rows >= 0])
            if single:
                vectors = vectors[0, : found.counts[0]]
        padded = not single or found.counts.item(0) < found.rows.shape[1]
        ids = snapshot.generation.ids.take(found.rows, padded=padded)
        sequence = snapshot.visibility.sequence
        return Hits(
            ids, found.distances, found.counts, sequence, self._metric, single, raw_fields, vectors, None, select,
            owners=owners,
        )  # fmt: skip

    def explained(
        self, snapshot: Snapshot, found: Neighbors, plan: planner.Plan, started: float, searched: float
    ) -> dict[str, Any]:
        done = time.perf_counter()
        index = snapshot.generation.index
        return {
            "plan": plan.strategy,
            "reason": plan.reason,
            "ef": plan.ef,
            "nprobe": plan.nprobe,
            "recall_measured": None if snapshot.state.recall_check is None else snapshot.state.recall_check.recall,
            "index_state": self.state.index_state(snapshot),
            "indexed_rows": index.indexed_rows,
            "tail_rows": snapshot.visibility.row_count - index.indexed_rows,
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
        node: Node | None = None,
    ) -> Hits:
        """Diverse neighbours of the records of a user (mixture.py); all that it reads and finds is of one snapshot."""
        started = time.perf_counter()
        self._searched_at = time.monotonic()
        self.queries += 1
        while True:
            snapshot, allowed = self.rows_for(tenants, node)
            seen = allowed
            if node is not None and tenants:
                seen = snapshot.generation.tenants.rows_at(tenants, snapshot.visibility)
            users = (
                None
                if tenants and seen is None
                else self._rows_of_users(snapshot, query.users, owner, seen if tenants else None)
            )
            if users is None:
                time.sleep(0.001)  # a commit is not published yet, or was published while this looked
                continue
            self._refuse_bare(snapshot, users)
            liked = record_reader.vectors(snapshot.generation, np.concatenate(users)).astype(np.float32)
            vectors = np.split(liked, np.cumsum([len(rows) for rows in users])[:-1])
            centres = snapshot.generation.index.centres(snapshot.visibility.row_count)
            made = mixture.fit(vectors, centres, self.entry.metric, query.components, query.smoothing, query.neighbours)
            find = partial(self.search_snapshot, snapshot, params=params, allowed=allowed)
            answer = mixture.answer(find, made, users[0], limit)
            searched = time.perf_counter()
            hits = self.hits_of(snapshot, answer.found, True, select, include_vectors)
            if hits is not None:
                break
        hits.components = answer.components
        if explain:
            report = self.explained(snapshot, answer.found, answer.plan, started, searched)
            if node is not None:
                report |= filtering.report(snapshot, node, allowed)
            hits.explain = report | answer.explain(made)
        return hits

    def _rows_of_users(
        self, snapshot: Snapshot, users: list[IdBatch], owner: bytes, allowed: RowSet | None
    ) -> list[NDArray[np.int64]] | None:
        """Rows of each user's records at the snapshot; None where LMDB holds another commit by now. Raises NotFound
        where a record does not exist or the tenants may not see it; the error does not tell which.
        """
        with self.store.read() as txn:
            state = self.state.committed(txn)
            if (state.generation, state.sequence) != (snapshot.generation.number, snapshot.visibility.sequence):
                return None
            generation = snapshot.generation
            found = [record_reader.verified_rows_of_ids(generation, txn, state, owner, ids, allowed) for ids in users]
        unseen = 0
        for rows, ids in zip(reversed(found), reversed(users), strict=True):
            bad = np.flatnonzero(rows < 0)
            unseen += len(bad)
            if len(bad):
                first = ids.ints[bad[0]] if ids.ints is not None else repr(ids.keys[bad[0]].decode())
        if unseen:
            raise NotFound(
                f"collection {self.entry.name!r} has no record {first}"
                + (f" and {unseen - 1} more of these ids" if unseen > 1 else "")
                + (" that the tenant may see" if allowed is not None else ""),
                "record",
            )
        return found

    def _refuse_bare(self, snapshot: Snapshot, users: list[NDArray[np.int64]]) -> None:
        """Raise InvalidArgument where a record that was liked has no vector."""
        rows = np.concatenate(users)
        lacking = rows[~snapshot.generation.rows.arrays.have_vectors(rows)]
        if len(lacking):
            [first] = snapshot.generation.ids.take(lacking[:1], padded=False).tolist()
            raise InvalidArgument(
                f"collection {self.entry.name!r}: record {first!r}"
                + (f" and {len(lacking) - 1} more of these have" if len(lacking) > 1 else " has")
                + " no vector, so nothing is near: leave such records out, or write their vectors"
            )

    def search_snapshot(
        self,
        snapshot: Snapshot,
        queries: NDArray[np.float32],
        limit: int,
        params: SearchParams,
        allowed: RowSet | None = None,
        *,
        may_ask: bool = True,
    ) -> tuple[Neighbors, planner.Plan]:
        """Nearest rows of one snapshot. allowed : rows of it that may be returned; None: all. may_ask : see `plan`."""
        return self._run(snapshot, self.preparation.prepare(snapshot, limit, params, allowed, may_ask), queries)

    def _run(
        self, snapshot: Snapshot, prepared: PreparedSearch, queries: NDArray[np.float32]
    ) -> tuple[Neighbors, planner.Plan]:
        """Nearest rows of a snapshot; found exactly where the index turns out to be damaged."""
        if queries.shape[1] != snapshot.generation.rows.dim:
            queries = self._refit(snapshot, queries)
        try:
            return prepared.search(queries), prepared.plan
        except IndexCorruption as error:
            self.state.corrupt_index(prepared.index, error)
            exact = replace(prepared.params, exact=True, recall=None)
            found = prepared.index.search(queries, prepared.limit, snapshot.visibility, exact, prepared.allowed)
            return found, planner.Plan("exact", 0, "the index is damaged")
        except OSError as error:
            raise filesystem.to_vecdb_error(error, "searching", "nothing changed") from error

    def note_searched(self, queries: NDArray[np.float32], *, exact: bool = False) -> None:
        """Queries (float32[nq, dim]) are searched for, and some are kept, unless all rows are compared."""
        self._searched_at = time.monotonic()
        self.queries += len(queries)
        if exact:
            return
        dim = self.entry.dim
        if self.asked.dim != dim and dim:  # the collection had none
            self.asked = AskedQueries(dim)
        if queries.shape[1] == dim and self.asked.offer(queries):
            self.state.wake_maintenance()  # a check of recall has become due

    def note_asked(self, query: NDArray[np.float32]) -> None:
        """The same for a query, float32[dim], that the index has answered."""
        if not self.asked.passes_one():
            self.note_searched(query[None])
            return
        self._searched_at = time.monotonic()
        self.queries += 1

    def _refit(self, snapshot: Snapshot, queries: NDArray[np.float32]) -> NDArray[np.float32]:
        """Queries of another dim than the rows: as many of the same dim, where there are no vectors yet, and no dim."""
        rows = snapshot.generation.rows
        if snapshot.visibility.live_count:
            raise InvalidArgument(
                f"collection {self.entry.name!r} has dim {rows.dim:,}, got {queries.shape[1]:,} in queries"
            )
        return np.ones((len(queries), rows.dim), np.float32)

    def _metas_of(self, snapshot: Snapshot, rows: NDArray[np.int64]) -> list[list[bytes]] | None:
        """Metas of the rows of each query, without padding; None where rows have been renumbered since `snapshot`."""
        with self.store.read(buffers=True) as txn:
            if self._generation_in(txn) != snapshot.generation.number:
                return None
            metas_of = partial(
                record_metas, self.store, txn, snapshot.generation.prefix, where=self.entry.name,
                changes=snapshot.state.field_changes,
            )  # fmt: skip
            real = [one[one >= 0].tolist() for one in rows]
            return list(map(metas_of, real))

    def fields_of(self, snapshot: Snapshot, rows: list[int]) -> list[bytes] | None:
        """The encoded fields of rows of a snapshot, none of them -1; None where they have been renumbered since."""
        metas = self._metas_of(snapshot, np.array([rows], np.int64))
        return None if metas is None else record_format.fields_of(metas[0])

    def has_owners(self, snapshot: Snapshot) -> bool:
        """Whether a record of a snapshot may have an owner; looked up once a commit."""
        if not snapshot.state.has_fields:
            return False
        sequence, found = self._owned
        if sequence != snapshot.visibility.sequence:
            with self.store.read() as txn:
                found = has_owners(self.store, txn, snapshot.generation.prefix)
            self._owned = snapshot.visibility.sequence, found
        return found

    def _generation_in(self, txn: Txn) -> int | None:
        """The number that a transaction sees; None where the collection was dropped."""
        raw = txn.get(self.state.state_key, db=self.store.state)
        if raw is None:
            return None
        state, generation = self._decoded
        if state != bytes(raw):
            state = bytes(raw)
            generation = catalog.decode_state(state, self.entry.name).generation
            self._decoded = state, generation
        return generation

    def is_searched(self) -> bool:
        """Whether anybody in this process has searched lately: then cores and the length of the tail matter to them."""
        return time.monotonic() - self._searched_at < _SEARCHED_S

    # -- point reads -------------------------------------------------------------------------------

    def get(
        self,
        ids: IdBatch,
        owner: bytes,
        *,
        include_vectors: bool,
        tenants: tuple[str, ...] = (),
        node: Node | None = None,
    ) -> Any:
        """A record or None per id, in order, all from one committed state; with `tenants` None, too, where none of
        them may see the record, and with a filter where it does not match. Of one bare id the record or None itself.
        """
        with self.state.reading() as (txn, generation, state):
            numbers = [self._tenant_in(txn, name)[0] for name in tenants]
            rows = record_reader.rows_of_ids(generation, txn, owner, ids.keys)
            if tenants:  # before any record is read: those of others cost no more than those that do not exist
                rows = record_reader.rows_seen(generation, txn, state, rows, numbers)
            found = record_reader.records(generation, txn, state, rows, include_vectors=include_vectors)
            for record, key in zip(found, ids.keys, strict=True):
                if record is not None:
                    record_reader.check_id_matches(generation, key, record.id)
                    record_reader.check_seen(generation, record, tenants)
        if node is not None:
            match = matcher(node)
            found = [one if one is not None and match(one.fields) else None for one in found]
        return found[0] if ids.scalar else found

    def count(self, tenants: tuple[str, ...] = (), node: Node | None = None) -> int:
        """Live records; of tenants, those of their union; with a filter those that match."""
        if node is not None:
            return len(self.rows_for(tenants, node)[1] or ())
        if not tenants:
            return self.current().state.live_count
        if len(tenants) > 1:
            return len(self.state.snapshot_for_tenants(tenants)[1])
        with self.state.reading() as (txn, generation, state):
            number, _ = self._tenant_in(txn, tenants[0])
            return generation.journal.at(txn, state).count_of(number)

    # -- tenants -----------------------------------------------------------------------------------

    def _tenant_in(self, txn: Txn, name: str) -> tuple[int, record_format.Tenant]:
        """(number, tenant). Raises NotFound."""
        return tenant_names.tenant_named(self.store, txn, self.entry.uid, tenant_name(name), self.entry.name)

    def tenants(self, after: str | None, limit: int | None) -> Iterator[str]:
        """Names past `after`, sorted, a page at a time: each page is one committed state."""
        last = None if after is None else after.encode()
        left = limits.tenants_made_max if limit is None else limit
        while left:
            self.current()
            most = min(left, _NAMES_PAGE)
            with self.store.read() as txn:
                names = tenant_names.names_after(self.store, txn, self.entry.uid, last, most)
            yield from (name.decode() for name in names)
            if len(names) < most:
                return
            last, left = names[-1], left - most

    def tenant_stats(self, name: str) -> dict[str, Any]:
        snapshot, allowed = self.state.snapshot_for_tenants((name,))
        with self.state.reading() as (txn, _, _):
            _, found = self._tenant_in(txn, name)
        plan = self.plan(snapshot, 10, SearchParams(), filtering.with_vectors(snapshot, allowed))
        return {
            "tenant": name,
            "records": len(allowed),
            "records_shared": found.shared,
            "records_max": None if found.records_max in (0, limits.tenant_records_max) else found.records_max,
            "bytes_ram": snapshot.generation.tenants.cached_bytes(name),
            "plan": plan.strategy,
            "reason": plan.reason,
            "sequence": snapshot.visibility.sequence,
        }


def _owners_of(metas: list[list[bytes]], shape: tuple[int, ...]) -> NDArray[Any] | None:
    """object[nq, limit]: the owner of each hit, "" where it has none and in the padding; None where none has one."""
    named = list(map(record_format.owners_of, metas))
    if not any(named):
        return None
    owners = np.full(shape, "", object)
    for at, one in enumerate(named):
        if one is not None:
            owners[at, : len(one)] = one
    return owners


def _work_of(snapshot: Snapshot, plan: planner.Plan) -> tuple[int, int]:
    """Rows that each query is compared with in a scan of all, and its beam in a graph; 0 where there is none."""
    if plan.strategy == "exact":
        return snapshot.visibility.row_count, 0
    return 0, plan.width if plan.strategy == "graph" else 0
