"""Searches in two rounds, for who asks several collections at once and wants the nearest of all (vecdb/cluster).

    name     queries -> newest snapshot -> rows of lists with estimates of their distances, no vector read
    score    rows -> newest snapshot of the same generation -> their vectors -> Hits, ids, fields

A collection alone reads the rows that may be among its nearest, about as many however few it has: four of them read
three times the rows of one. Where their estimates are put together first, only rows that may be among the nearest of
all are read.

Row numbers hold as long as a generation: a vacuum or a reindex ends it, and the second round is refused. Deletions in
between are seen: a row that is gone, or matches no more, is left out.

Threads: as of Searcher.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vecdb import limits
from vecdb.api.filter_arguments import Filters
from vecdb.api.hits import Hits, NamedRows
from vecdb.errors import InvalidArgument, NotFound, Unavailable
from vecdb.filters.tree import Node
from vecdb.index.contract import Candidates, IndexCorruption, Neighbors, ScoreRows, SearchesInRounds
from vecdb.query import filtering
from vecdb.query.cancellation import search_in_chunks
from vecdb.query.planner import Plan
from vecdb.query.preparation import PreparedSearch
from vecdb.query.searcher import Searcher
from vecdb.schema import SearchParams
from vecdb.state.snapshot import Snapshot
from vecdb.storage.disk import filesystem

_SCORED = Plan("lists", 0, "rows that were named in a first round")


class TwoRounds:
    """Both rounds of one collection."""

    def __init__(self, searcher: Searcher) -> None:
        self._searcher = searcher

    # -- the first ---------------------------------------------------------------------------------

    def name(
        self,
        queries: NDArray[np.float32],
        limit: int,
        params: SearchParams,
        *,
        indexes: int,
        explain: bool,
        tenants: tuple[str, ...],
        stop: Callable[[], bool] | None,
        node: Filters,
    ) -> NamedRows | None:
        """Rows among which the nearest of each query are: min(limit, matching) or more. None where `Searcher.search`
        is to answer: no lists are looked at, or there would be too many rows. indexes : that are asked, of about as
        many rows.   all else : as there.
        """
        if params.exact or isinstance(node, tuple) or not len(queries):
            return None
        started = time.perf_counter()
        snapshot, prepared = self._searcher.preparation.newest(limit, params, tenants, node)
        name = _naming(snapshot, prepared, indexes)
        if name is None or queries.shape[1] != snapshot.generation.rows.dim:
            return None
        if len(queries) * (5 * limit + max(20, params.rerank or 0)) > limits.named_cells_max:
            return None
        self._searcher.note_searched(queries)
        try:
            found, plan = search_in_chunks(lambda part: (name(part), prepared.plan), queries, stop)
        except IndexCorruption:
            return None  # who searches in one round finds it again, and says so
        except OSError as error:
            raise filesystem.to_vecdb_error(error, "searching", "nothing changed") from error
        assert isinstance(found, Candidates)
        said = None
        if explain:
            searched = time.perf_counter()
            said = self._searcher.explained(snapshot, found, plan, started, searched)
            said |= {} if node is None else filtering.report(snapshot, node, prepared.allowed)
        real = found.rows >= 0
        return NamedRows(
            found.rows[real], found.counts, snapshot.generation.number, snapshot.visibility.sequence,
            found.distances[real], found.margins[real], said,
        )  # fmt: skip

    # -- the second --------------------------------------------------------------------------------

    def score(
        self,
        queries: NDArray[np.float32],
        limit: int,
        named: NamedRows,
        *,
        threads: int,
        select: tuple[str, ...] | None,
        include_vectors: bool,
        explain: bool,
        tenants: tuple[str, ...],
        stop: Callable[[], bool] | None,
        node: Node | None,
    ) -> Hits:
        """The nearest among the named rows of each query, as far as they are there, and as tenants and filter allow.

        Raises NotFound where rows have other numbers by now, Unavailable where this process has not come to the state
        at which they were named, InvalidArgument where there are no such rows.
        """
        started = time.perf_counter()
        _check(named, len(queries))
        while True:
            snapshot, allowed = self._searcher.rows_for(tenants, node)
            score = self._scoring(snapshot, named, limit, filtering.with_vectors(snapshot, allowed), threads)
            if queries.shape[1] != snapshot.generation.rows.dim:
                raise InvalidArgument(
                    f"collection {self._searcher.entry.name!r} has dim {snapshot.generation.rows.dim:,}, got "
                    f"{queries.shape[1]:,} in queries"
                )
            found = _scored(score, queries, named, stop)
            searched = time.perf_counter()
            hits = self._searcher.hits_of(snapshot, found, False, select, include_vectors)
            if hits is not None:
                break
        if explain:
            hits.explain = self._searcher.explained(snapshot, found, _SCORED, started, searched)
        return hits

    def _scoring(self, snapshot: Snapshot, named: NamedRows, limit: int, allowed: Any, threads: int) -> ScoreRows:
        index, name = snapshot.generation.index, self._searcher.entry.name
        score = None
        if snapshot.generation.number == named.generation and isinstance(index, SearchesInRounds):
            score = index.scoring(limit, snapshot.visibility, allowed, threads)
        if score is None:
            raise NotFound(
                f"collection {name!r} has no rows of generation {named.generation:,} any more, they have other numbers "
                "now: search again"
            )
        if snapshot.visibility.sequence < named.sequence:
            raise Unavailable(
                f"collection {name!r} is at commit {snapshot.visibility.sequence:,} here, and the rows were named at "
                f"{named.sequence:,}"
            )
        if int(named.rows.max(initial=-1)) >= snapshot.visibility.row_count:
            raise InvalidArgument(f"collection {name!r} has no row {int(named.rows.max()):,}")
        return score


def _naming(
    snapshot: Snapshot, prepared: PreparedSearch, indexes: int
) -> Callable[[NDArray[np.float32]], Candidates] | None:
    """The first round of a prepared search, kept with it."""
    known: tuple[int, Any] | None = prepared.name
    if known is None or known[0] != indexes:
        made = None
        if prepared.plan.strategy == "lists" and isinstance(prepared.index, SearchesInRounds):
            params = prepared.plan.search_params(prepared.params)
            made = prepared.index.naming(prepared.limit, snapshot.visibility, params, prepared.allowed, indexes)
        prepared.name = known = indexes, made
    return known[1]


def _check(named: NamedRows, queries: int) -> None:
    """Raise InvalidArgument where counts and rows do not fit together."""
    counts, total = named.counts, len(named.rows)
    if len(counts) != queries or int(counts.min(initial=0)) < 0 or int(named.rows.min(initial=0)) < 0:
        raise InvalidArgument(f"rows need a count for each of {queries:,} queries, and numbers from 0 on")
    if int(counts.max(initial=0)) > limits.named_rows_max or total > limits.named_cells_max:
        raise InvalidArgument(
            f"at most {limits.named_rows_max:,} rows of a query are scored, and {limits.named_cells_max:,} of a call, "
            f"got {int(counts.max()):,} and {total:,}"
        )
    if int(counts.sum()) != total:
        raise InvalidArgument(f"counts add up to {int(counts.sum()):,} rows, got {total:,}")


def _scored(
    score: ScoreRows, queries: NDArray[np.float32], named: NamedRows, stop: Callable[[], bool] | None
) -> Neighbors:
    ends = np.concatenate([[0], np.cumsum(named.counts)])
    done = 0

    def some(part: NDArray[np.float32]) -> tuple[Neighbors, Plan]:
        nonlocal done
        first, done = done, done + len(part)
        return score(part, named.rows[ends[first] : ends[done]], named.counts[first:done]), _SCORED

    try:
        return search_in_chunks(some, queries, stop)[0]
    except OSError as error:
        raise filesystem.to_vecdb_error(error, "searching", "nothing changed") from error
