"""What a search works out before it looks at its query: a snapshot, which of its rows count, a plan, the index's part.

    limit, parameters, tenants, filter -> newest snapshot -> PreparedSearch, kept with the snapshot

Threads: any number; what is kept is kept by the snapshot.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vecdb.filters.tree import Node
from vecdb.index.contract import HasCompanionGraph, Index, Neighbors
from vecdb.index.row_set import RowSet
from vecdb.query import filtering, planner
from vecdb.schema import SearchParams
from vecdb.state import index_factory
from vecdb.state.collection_state import CollectionState
from vecdb.state.filter_cache import MatchingRows
from vecdb.state.snapshot import Snapshot


@dataclass(slots=True)
class PreparedSearch:
    """What a search works out before it looks at its query.

    allowed : rows that may be returned, None: all.   search : float32[nq, dim] -> Neighbors; raises what `Index.search`
    does.   one : the same for one query, of who asks that way (one_query.py).   name : of who asks in two rounds
    (two_rounds.py), how many indexes are asked, and float32[nq, dim] -> Candidates, None where there is none.
    """

    index: Index
    allowed: RowSet | None
    limit: int
    params: SearchParams
    plan: planner.Plan
    search: Callable[[NDArray[np.float32]], Neighbors]
    one: Any = None
    name: Any = None


class Preparation:
    """Prepared searches of one collection. costs : of searches beside one another, by which they are planned."""

    def __init__(self, state: CollectionState) -> None:
        self.costs = planner.COSTS
        self.state = state
        self.current = state.current

    def at(
        self, snapshot: Snapshot, limit: int, params: SearchParams, tenants: tuple[str, ...], node: Node | None
    ) -> PreparedSearch | None:
        """A search of a snapshot. None: the caller is to take a newer one."""
        allowed = None
        if node is not None or tenants:
            allowed = filtering.rows_at(snapshot, tenants, node)
            if allowed is None:
                return None
        return self.prepare(snapshot, limit, params, allowed)

    def newest(
        self, limit: int, params: SearchParams, tenants: tuple[str, ...], node: Node | None = None
    ) -> tuple[Snapshot, PreparedSearch]:
        """The newest snapshot, and a search of it, from its cache where it was prepared before. node : a filter.
        Raises what `CollectionState.snapshot_for_tenants` and `filtering.matching` do.
        """
        if node is not None:
            return self._newest_among(limit, params, tenants, node)
        snapshot, key = self.current(), (limit, params, tenants)
        generation = snapshot.generation
        version = generation.index.version  # before the search is planned: a newer one is planned for anew
        prepared: PreparedSearch | None = snapshot.prepared.get(key, generation.tenants.evictions, version)
        if prepared is None:
            allowed = None
            if tenants:
                snapshot, allowed = self.state.snapshot_for_tenants(tenants)
                version = snapshot.generation.index.version
            prepared = self.prepare(snapshot, limit, params, allowed)
            snapshot.prepared.keep(key, version, prepared)
        return snapshot, prepared

    def _newest_among(
        self, limit: int, params: SearchParams, tenants: tuple[str, ...], node: Node
    ) -> tuple[Snapshot, PreparedSearch]:
        """The same among rows that match. What tenants see of them is worked out for each search."""
        snapshot, entry, of_tenants = self._matching(node, tenants)
        key, version = (limit, params), snapshot.generation.index.version
        if of_tenants is not None:
            return snapshot, self.prepare(snapshot, limit, params, filtering.intersection(entry.allowed, of_tenants))
        prepared: PreparedSearch | None = entry.search(key, version)
        if prepared is None:
            prepared = self.prepare(snapshot, limit, params, entry.allowed)
            entry.keep(key, version, prepared)
        return snapshot, prepared

    def _matching(
        self, node: Node, tenants: tuple[str, ...]
    ) -> tuple[Snapshot, MatchingRows[PreparedSearch], RowSet | None]:
        """The newest snapshot, its rows that match, and those of the tenants, where some are named."""
        while True:
            snapshot, of_tenants = self.state.snapshot_for_tenants(tenants) if tenants else (self.current(), None)
            entry = filtering.matching(snapshot, node, check=not tenants)
            if entry is not None:
                return snapshot, entry, of_tenants
            time.sleep(0.001)  # a vacuum has committed, or is about to publish

    def rows_for(self, tenants: tuple[str, ...], node: Node | None) -> tuple[Snapshot, RowSet | None]:
        """The newest snapshot, and which of its records the tenants may see and the filter lets through; None: all."""
        if node is None:
            return self.state.snapshot_for_tenants(tenants) if tenants else (self.current(), None)
        snapshot, entry, of_tenants = self._matching(node, tenants)
        return snapshot, entry.allowed if of_tenants is None else filtering.intersection(entry.allowed, of_tenants)

    def prepare(
        self, snapshot: Snapshot, limit: int, params: SearchParams, allowed: RowSet | None, may_ask: bool = True
    ) -> PreparedSearch:
        index, allowed = snapshot.generation.index, filtering.with_vectors(snapshot, allowed)
        plan = self.plan(snapshot, limit, params, allowed, may_ask)
        search = index.searching(limit, snapshot.visibility, plan.search_params(params), allowed)
        return PreparedSearch(index, allowed, limit, params, plan, search)

    def plan(
        self, snapshot: Snapshot, limit: int, params: SearchParams, allowed: RowSet | None, may_ask: bool = True
    ) -> planner.Plan:
        """How the snapshot is searched. may_ask : ask maintenance for a companion graph where one would answer
        sooner.
        """
        index, kind = snapshot.generation.index, index_factory.kind_of(snapshot.config)
        facts = planner.IndexFacts(
            kind, snapshot.config, snapshot.state, index.indexed_rows, index.scan_share, index.code_bytes
        )
        visibility, matching, by_graph = snapshot.visibility, None if allowed is None else len(allowed), False
        wanted = planner.prefers_companion_graph(facts, visibility.live_count, limit, params, matching, self.costs)
        if wanted and isinstance(index, HasCompanionGraph):
            by_graph = index.has_graph()
            if not by_graph and may_ask and index.ask_for_graph():
                self.state.wake_maintenance()
        return planner.plan(facts, visibility, limit, params, matching, by_graph, self.costs)
