"""One committed state of a collection as searches see it. It never changes; each commit makes another one.

    Generation (rows, ids, deletions, tenants, index) + committed state -> Snapshot

Threads: a search takes one snapshot and uses no other. Any number of searches share it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from vecdb.schema import IndexConfig, Visibility
from vecdb.state import index_factory
from vecdb.state.filter_cache import FilterCache
from vecdb.state.generation import Generation
from vecdb.state.plan_cache import PlanCache
from vecdb.storage.kv.catalog import CommittedState


@dataclass(frozen=True, slots=True, weakref_slot=True)
class Snapshot:
    """A generation, which of its rows are visible, and the searches and filters that were worked out on it."""

    generation: Generation
    visibility: Visibility
    state: CommittedState
    config: IndexConfig
    prepared: PlanCache[Any] = field(default_factory=PlanCache, compare=False, repr=False)
    filtered: FilterCache[Any] = field(default_factory=FilterCache, compare=False, repr=False)


def snapshot_of(generation: Generation, state: CommittedState) -> Snapshot:
    """The snapshot of `generation` that `state` describes."""
    visibility = Visibility(state.sequence, state.row_count, state.live_count - state.bare_count)
    return Snapshot(generation, visibility, state, index_factory.config_in(state.index))
