"""Searches for one query as callers make them in a loop: an array or a list of floats, no filter, no tenants.

    query as given -> the search prepared for the same limit and parameters -> kernel -> Hits

Whatever does not look as expected is answered by `Searcher.search`, which checks each argument and names what is wrong:
here nothing is converted but floats of other kinds, and nothing raised but for `fields` that are none. Measured, half
of a short search was Python; this is a quarter of that.

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
from vecdb.query.preparation import PreparedSearch
from vecdb.query.searcher import Searcher
from vecdb.schema import BIT_METRICS, Metric, SearchParams
from vecdb.state.fields_cache import FieldsCache
from vecdb.state.snapshot import Snapshot
from vecdb.validate import as_floats, field_selection, iterator, numbers_of, query_norms, search_limit, search_params

_F32, _BYTES = np.dtype(np.float32), np.dtype(np.uint8)
_NO_FIELDS: tuple[Any, ...] = ([], (), False)
_NOTHING: tuple[Any, ...] = None, None, None
_NO_FIELDS_TYPES = (list, tuple, bool)


class _Prepared(NamedTuple):
    """A search of a snapshot for one query, as it is made for a version of its index, a limit and parameters.

    shape : of the query.   only : the one dtype of queries that need no look; None: numbers of any kind.   exact : all
    rows are to be compared.   find : None where the general search must answer.   ids : turns rows into ids; None where
    `find` does.   find_rows : of a collection whose records have fields, the same but for rows; else None.
    """

    version: object = None
    limit: Any = None
    params: Any = None
    shape: tuple[int, ...] = ()
    only: Any = None
    exact: bool = False
    find: OneQuerySearch | None = None
    ids: Callable[..., NDArray[Any]] | None = None
    find_rows: OneQuerySearch | None = None


class OneQuery:
    """The searches for one query of a collection."""

    def __init__(self, searcher: Searcher) -> None:
        self._searcher = searcher
        self._current = searcher.current  # bound once: every search calls it
        self._metric = cast(Metric, searcher.entry.metric)
        self._fields = FieldsCache(searcher.fields_of)

    def search(self, query: NDArray[Any] | list[Any], limit: Any, params: Any, fields: Any) -> Hits | None:
        """The hits of a query, an array or a list as the caller gave it, with the other arguments of
        `Collection.search` by default. None where `Searcher.search` must answer.
        """
        snapshot = self._current()
        last: _Prepared | None = snapshot.prepared.last  # which keeps nothing alive that the snapshot does not
        if (
            last is None
            or params is not last.params
            or (limit is not last.limit and not (type(limit) is int and limit == last.limit))
            or snapshot.generation.index.version is not last.version
        ):
            snapshot, last = self._prepared(snapshot, limit, params)
        _, _, _, shape, only, exact, find, take, find_rows = last
        if find is None:
            return None
        vector = query if type(query) is np.ndarray else numbers_of(query)
        if vector is None or vector.shape != shape or (only is not None and vector.dtype is not only):
            return None
        if vector.dtype is not _F32 or not vector.flags.carray:
            if vector.dtype.kind not in "fiu":
                return None
            vector = as_floats(vector)
        if find_rows is not None and not (fields in _NO_FIELDS if type(fields) in _NO_FIELDS_TYPES else False):
            return self._with_fields(snapshot, vector, find_rows, fields, exact)
        select = None if fields is None or fields is True else field_selection(fields)
        found = find(vector)
        if found is None:
            return None
        answers, distances = found
        if take is not None:
            answers = take(answers, padded=False)
        self._note(vector, exact)
        return Hits(
            answers, distances, None, snapshot.visibility.sequence, self._metric, True, None, None, None, select
        )

    def _with_fields(
        self, snapshot: Snapshot, query: NDArray[np.float32], find_rows: OneQuerySearch, fields: Any, exact: bool
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
        self._note(query, exact)
        return Hits(ids, distances, None, snapshot.visibility.sequence, self._metric, True, packed, None, None, select)

    def _note(self, query: NDArray[np.float32], exact: bool) -> None:
        if exact:
            self._searcher.note_searched(query[None], exact=True)
        else:
            self._searcher.note_asked(query)

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
            hits = self.search(query, limit, params, select) if plain and type(query) in (np.ndarray, list) else None
            if hits is None:
                array, single = check(query)
                hits = self._searcher.search(
                    array, limit, params, single=single, select=select, include_vectors=include_vectors, explain=False,
                    tenants=tenants, node=node,
                )  # fmt: skip
            yield hits

    def _prepared(self, snapshot: Snapshot, limit: Any, params: Any) -> tuple[Snapshot, _Prepared]:
        """The newest snapshot, and a search of it, kept as the last one that it prepared."""
        version, found, exact = snapshot.generation.index.version, _NOTHING, False
        if params is None or type(params) is SearchParams:  # a dict may change
            with contextlib.suppress(VecdbError):  # raised again by who answers in its place
                checked = search_params(params, search_limit(limit, 1))
                snapshot, prepared = self._searcher.preparation.newest(limit, checked, ())
                if prepared.one is None:
                    prepared.one = self._prepare(snapshot, prepared)
                found, exact = prepared.one, checked.exact
        only = _BYTES if self._metric in BIT_METRICS else None  # of bits nothing but whole numbers up to 255 is one
        last = _Prepared(version, limit, params, (snapshot.generation.rows.dim,), only, exact, *found)
        snapshot.prepared.last = last
        return snapshot, last

    def _prepare(self, snapshot: Snapshot, prepared: PreparedSearch) -> tuple[Any, ...]:
        """find, ids, find_rows of `_Prepared`."""
        searcher, generation, plan = self._searcher, snapshot.generation, prepared.plan
        if searcher.has_owners(snapshot):
            return _NOTHING
        ids, norms = generation.ids.ints, query_norms(searcher.entry.metric)
        params, visibility = plan.search_params(prepared.params), snapshot.visibility
        prepare = partial(prepared.index.searching_one, prepared.limit, visibility, params, norms)
        find = prepare(ids)
        find_rows = None
        if snapshot.state.has_fields:
            find_rows = find if ids is None else prepare(None)
        return find, None if ids is not None else generation.ids.take, find_rows
