"""Searches for one query as callers make them in a loop: an array, no filter, no tenants.

    query as given -> the search prepared for the same limit and parameters -> kernel -> Hits

Whatever does not look as expected is answered by `Searcher.search`, which checks each argument and names what is wrong:
here nothing is raised and nothing is converted. Measured, half of a short search was Python; this is a quarter of that.

Threads: any number. What was prepared last is replaced as one tuple.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vecdb.api.hits import Hits
from vecdb.errors import VecdbError
from vecdb.index.contract import OneQuerySearch
from vecdb.query.searcher import Searcher
from vecdb.schema import SearchParams
from vecdb.state.snapshot import Snapshot
from vecdb.validate import query_norms, search_limit, search_params

_F32 = np.dtype(np.float32)
_NO_FIELDS: tuple[Any, ...] = ([], (), False)


class OneQuery:
    """The searches for one query of a collection."""

    def __init__(self, searcher: Searcher) -> None:
        self._searcher = searcher
        self._current = searcher.current  # bound once: every search calls it
        self._metric = searcher.entry.metric
        self._last: tuple[Any, ...] = (None,) * 8

    def search(self, query: NDArray[Any], limit: Any, params: Any, fields: Any) -> Hits | None:
        """The hits of a query, an array as the caller gave it, with the other arguments of `Collection.search` by
        default. None where `Searcher.search` must answer.
        """
        snapshot = self._current()
        of, version, for_limit, for_params, shape, find, take, none_stored = self._last
        if (
            snapshot is not of
            or params is not for_params
            or (limit is not for_limit and not (type(limit) is int and limit == for_limit))
            or snapshot.generation.index.version is not version
        ):
            self._last = self._prepared(snapshot, limit, params)
            _, _, _, _, shape, find, take, none_stored = self._last
        if find is None or query.dtype is not _F32 or query.shape != shape or not query.flags.carray:
            return None
        if fields in _NO_FIELDS if type(fields) in (list, tuple, bool) else fields is None and none_stored:
            select: tuple[str, ...] | None = None if fields is None else ()
        else:
            return None
        found = find(query)
        if found is None:
            return None
        answers, distances = found
        if take is not None:
            answers = take(answers, padded=False)
        self._searcher.note_asked(query)
        return Hits(answers, distances, None, snapshot.visibility.sequence, self._metric, True, None, None, None, select)

    def _prepared(self, snapshot: Snapshot, limit: Any, params: Any) -> tuple[Any, ...]:
        """What `_last` is to be."""
        version = snapshot.generation.index.version
        find, take = None, None
        if params is None or type(params) is SearchParams:  # a dict may change
            with contextlib.suppress(VecdbError):  # raised again by who answers in its place
                checked = search_params(params, search_limit(limit, 1))
                key = (limit, checked, "one")
                prepared = snapshot.prepared.get(key, snapshot.generation.tenants.evictions, version)
                if prepared is None:
                    prepared = self._prepare(snapshot, limit, checked)
                    snapshot.prepared.keep(key, version, prepared)
                find, take = prepared
        none_stored = not snapshot.state.has_fields
        return snapshot, version, limit, params, (snapshot.generation.rows.dim,), find, take, none_stored

    def _prepare(
        self, snapshot: Snapshot, limit: int, params: SearchParams
    ) -> tuple[OneQuerySearch | None, Callable[..., NDArray[Any]] | None]:
        """(the index's search, what turns rows into ids: None where it does)."""
        searcher, generation = self._searcher, snapshot.generation
        if searcher.has_owners(snapshot):
            return None, None
        plan = searcher.plan(snapshot, limit, params, None)
        if plan.strategy == "exact":
            return None, None
        ids = generation.ids.ints
        find = generation.index.searching_one(
            limit, snapshot.visibility, plan.search_params(params), query_norms(searcher.entry.metric), ids
        )
        return find, None if ids is not None else generation.ids.take
