"""Searches for one query as callers make them in a loop: an array, no filter, no tenants.

    query as given -> the search prepared for the same limit and parameters -> kernel -> Hits

Whatever does not look as expected is answered by `Searcher.search`, which checks each argument and names what is wrong:
here nothing is raised and nothing is converted. Measured, half of a short search was Python; this is a quarter of that.

Threads: any number. What was prepared last is replaced as one tuple, and goes with its snapshot.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from vecdb.api.hits import Hits
from vecdb.errors import VecdbError
from vecdb.filters.tree import Node
from vecdb.index.contract import OneQuerySearch
from vecdb.query.hit_fields import HitFields
from vecdb.query.searcher import Searcher
from vecdb.schema import Metric, SearchParams
from vecdb.state.snapshot import Snapshot
from vecdb.validate import field_selection, iterator, query_norms, search_limit, search_params

_F32 = np.dtype(np.float32)
_NO_FIELDS: tuple[Any, ...] = ([], (), False)
_NO_FIELDS_TYPES = (list, tuple, bool)


class _Prepared(NamedTuple):
    """A search of a snapshot for one query, as it is made for a version of its index, a limit and parameters.

    shape : of the query.   find : None where the general search must answer.   ids : turns rows into ids; None where
    `find` does.   find_rows : of a collection whose records have fields, the same but for rows; else None.
    """

    version: object = None
    limit: Any = None
    params: Any = None
    shape: tuple[int, ...] = ()
    find: OneQuerySearch | None = None
    ids: Callable[..., NDArray[Any]] | None = None
    find_rows: OneQuerySearch | None = None


class OneQuery:
    """The searches for one query of a collection."""

    def __init__(self, searcher: Searcher) -> None:
        self._searcher = searcher
        self._current = searcher.current  # bound once: every search calls it
        self._metric = cast(Metric, searcher.entry.metric)
        self._fields = HitFields(searcher.fields_of)

    def search(self, query: NDArray[Any], limit: Any, params: Any, fields: Any) -> Hits | None:
        """The hits of a query, an array as the caller gave it, with the other arguments of `Collection.search` by
        default. None where `Searcher.search` must answer.
        """
        snapshot = self._current()
        last: _Prepared | None = snapshot.prepared.last  # which keeps nothing alive that the snapshot does not
        if (
            last is None
            or params is not last.params
            or (limit is not last.limit and not (type(limit) is int and limit == last.limit))
            or snapshot.generation.index.version is not last.version
        ):
            last = self._prepared(snapshot, limit, params)
        _, _, _, shape, find, take, find_rows = last
        if find is None or query.dtype is not _F32 or query.shape != shape or not query.flags.carray:
            return None
        if find_rows is not None and not (fields in _NO_FIELDS if type(fields) in _NO_FIELDS_TYPES else False):
            return self._with_fields(snapshot, query, find_rows, fields)
        select = None if fields is None or fields is True else field_selection(fields)
        found = find(query)
        if found is None:
            return None
        answers, distances = found
        if take is not None:
            answers = take(answers, padded=False)
        self._searcher.note_asked(query)
        return Hits(
            answers, distances, None, snapshot.visibility.sequence, self._metric, True, None, None, None, select
        )

    def _with_fields(
        self, snapshot: Snapshot, query: NDArray[np.float32], find_rows: OneQuerySearch, fields: Any
    ) -> Hits | None:
        select = None if fields is None else field_selection(fields)
        found = find_rows(query)
        if found is None:
            return None
        rows, distances = found
        packed = self._fields.of(snapshot, rows.tolist())
        if packed is None:
            return None
        ids = snapshot.generation.ids.take(rows, padded=False)
        self._searcher.note_asked(query)
        return Hits(ids, distances, None, snapshot.visibility.sequence, self._metric, True, packed, None, None, select)

    def search_stream(
        self,
        queries: Iterable[Any],
        check: Callable[[Any], tuple[NDArray[np.float32], bool]],
        limit: int,
        params: SearchParams,
        *,
        select: tuple[str, ...] | None,
        include_vectors: bool,
        tenants: tuple[str, ...] = (),
        window: int = 1,
        node: Node | None = None,
    ) -> Iterator[Hits]:
        """The hits of each query in turn. `window` is ignored: within a process reading ahead would gain nothing."""
        plain = not tenants and node is None and not include_vectors
        for query in iterator(queries):
            hits = self.search(query, limit, params, select) if plain and type(query) is np.ndarray else None
            if hits is None:
                array, single = check(query)
                hits = self._searcher.search(
                    array, limit, params, single=single, select=select, include_vectors=include_vectors, explain=False,
                    tenants=tenants, node=node,
                )  # fmt: skip
            yield hits

    def _prepared(self, snapshot: Snapshot, limit: Any, params: Any) -> _Prepared:
        """A search, kept as the last one that the snapshot prepared."""
        version = snapshot.generation.index.version
        found: tuple[Any, ...] | None = None
        if params is None or type(params) is SearchParams:  # a dict may change
            with contextlib.suppress(VecdbError):  # raised again by who answers in its place
                checked = search_params(params, search_limit(limit, 1))
                key = (limit, checked, "one")
                found = snapshot.prepared.get(key, snapshot.generation.tenants.evictions, version)
                if found is None:
                    found = self._prepare(snapshot, limit, checked)
                    snapshot.prepared.keep(key, version, found)
        last = _Prepared(version, limit, params, (snapshot.generation.rows.dim,), *(found or ()))
        snapshot.prepared.last = last
        return last

    def _prepare(self, snapshot: Snapshot, limit: int, params: SearchParams) -> tuple[Any, ...]:
        """find, ids, find_rows of `_Prepared`."""
        searcher, generation = self._searcher, snapshot.generation
        if searcher.has_owners(snapshot):
            return None, None, None
        plan = searcher.plan(snapshot, limit, params, None)
        if plan.strategy == "exact":
            return None, None, None
        ids, norms = generation.ids.ints, query_norms(searcher.entry.metric)
        prepare = partial(generation.index.searching_one, limit, snapshot.visibility, plan.search_params(params), norms)
        find = prepare(ids)
        find_rows = None
        if snapshot.state.has_fields:
            find_rows = find if ids is None else prepare(None)
        return find, None if ids is not None else generation.ids.take, find_rows
