"""Collection: what users hold. Checks what they pass, and hands arrays of the right types to a backend.

The same class serves an embedded database and, with another backend, a remote one (backend.py). Every method
may be called from any thread. A write returns when it is durable and every later search, here or in another process,
sees it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any, Never

import numpy as np
from numpy.typing import NDArray

from vecdb import limits, validate
from vecdb.api.backend import CollectionBackend, Mode
from vecdb.api.embedding import Embedder, embedded, embedder_of
from vecdb.api.filter_arguments import Page, refuse_unknown, search_filter, written_filter
from vecdb.api.hits import Hits
from vecdb.api.notebook import collection_html
from vecdb.api.progress import Wanted, reporter
from vecdb.api.tables import arrow_table, pandas_frame
from vecdb.api.write_arguments import Gate, WriteArguments, check_size, taken_apart
from vecdb.errors import InvalidArgument, PermissionDenied, VecdbError
from vecdb.filters.forms import to_filter
from vecdb.filters.scalars import field_name
from vecdb.schema import CollectionConfig, Facets, IndexConfig, Record, SearchParams

_ITER_BATCH_MAX = 65_536
_VECTORS = (np.ndarray, list)  # what may be one query that is checked on a short way


class Collection:
    """Records of one dimension, metric and type: an id, a vector and optional fields each.

    Opened by `Database.create_collection` and `Database.collection`.
    """

    __slots__ = ("__weakref__", "_backend", "_config", "_embedder", "_keeps")

    def __init__(self, backend: CollectionBackend, config: CollectionConfig, keeps: Any = None) -> None:
        """keeps : what must live as long as this collection is in use, such as its open database."""
        self._backend = backend
        self._config = config
        self._keeps = keeps
        self._embedder: Embedder | None = None

    # -- what it is --------------------------------------------------------------------------------

    @property
    def name(self) -> str:
        return self._config.name

    @property
    def dim(self) -> int:
        """0 where it was made without one and the first vectors are still to be written. Of a server's collection as
        far as this handle has met one, in its own writes or in `config`, which asks.
        """
        return self._config.dim or self._backend.dim

    @property
    def metric(self) -> str:
        return self._config.metric

    @property
    def dtype(self) -> str:
        return self._config.dtype

    @property
    def config(self) -> CollectionConfig:
        """Name, dim, metric, dtype and index as they are now."""
        return self._backend.config()

    @property
    def metadata(self) -> dict[str, Any]:
        """What was noted about the collection, as it is now; a copy."""
        return self.config.metadata

    def set_metadata(self, metadata: dict[str, Any]) -> None:
        """Note something about the collection, in the place of what was noted before; {} nothing.

        metadata : a dict of texts, numbers, True, False, None, and of lists and dicts of them: up to 16 KiB. Of a
            collection that was opened with `embed` the key "embedding" stays what it is.
        """
        if self._embedder is not None and isinstance(metadata, dict):
            metadata = self._embedder.noted_in(metadata)
        return self._backend.set_metadata(validate.metadata(metadata))

    def with_timeout(self, seconds: float) -> Collection:
        """The same collection of a server, whose calls may take so many seconds: `docs.with_timeout(2).search(query)`.
        Raises InvalidArgument for one of a directory, which has no timeouts.
        """
        backend = self._backend.with_timeout(validate.seconds(seconds))
        same = type(self)(backend, self._config, self._keeps)
        same._embedder = self._embedder
        return same

    @property
    def embedder(self) -> Embedder | None:
        """What reads texts for this collection, where it was opened with `embed`."""
        return self._embedder

    def __len__(self) -> int:
        return self.count()

    def __contains__(self, id: Any) -> bool:
        """Whether a record of this one id is there, without an owner. Raises InvalidArgument for what can be no id."""
        batch = self._ids(id)
        if not batch.scalar:
            raise InvalidArgument("`in` asks for one id, get for several")
        return self._backend.get(batch, b"", include_vectors=False, tenants=(), node=None) is not None

    def __bool__(self) -> bool:
        return True  # an empty collection is still a collection

    def __repr__(self) -> str:
        return f"<Collection {self.name!r}: dim {self.dim}, {self.metric}, {self.dtype}>"

    def _repr_html_(self) -> str:
        """A table for notebooks; what may not be asked or cannot be answered now is left out."""
        try:
            return collection_html(self._config, self.stats(), list(self.fields()))
        except VecdbError as error:
            return collection_html(self._config, error, [])

    # -- writes ------------------------------------------------------------------------------------

    def upsert(
        self,
        ids: Any,
        vectors: Any = None,
        fields: Any = None,
        tenants: Any = None,
        *,
        keep_tenants: bool = False,
        owner: str = "",
        atomic: bool = True,
        request_id: str | None = None,
        id: str | None = None,
        vector: str | None = None,
        texts: Any = None,
        progress: Wanted = None,
    ) -> int:
        """Write records, replacing those whose ids exist. Returns how many records were written, once they are durable.

        ids : int or str, or a sequence or array of them. A collection's ids are all ints or all strings; the first
            write decides. A `uuid.UUID` stands for its text.
            Of an id that repeats in one batch the last counts.
            Or whole records, without vectors and fields: a pandas / polars / Arrow table, a dict of columns, a list of
            dicts, or one dict. The columns "id" and "vector" are what they say, the rest are fields; a record may have
            no vector.
        vectors : [n, dim] (or [dim] for one id) of anything array-like; stored in the collection's dtype. None, or None
            in the place of one in a list, for records without a vector: they are kept, filtered and counted, and no
            search finds them. It also takes away the vector that a record had.
        fields : list of dicts, dict of columns, pandas / polars / Arrow table of n rows, or None for records without
            fields.
        tenants : who may see the records. A name, or a set or list of names, is for all of them: {"a", "b"} lets both a
            and b see every record. A list (or a column of a table) of lists has one for each record: [["a"], ["b"],
            []]. A list of as many names as there are ids could mean either, and is refused. New names become tenants.
            None leaves the access list of a record that is replaced as it is; [] clears it.
        keep_tenants : a list of a record that is replaced stays, and gains `tenants`.
        owner : whose records these are: a record is known by owner and id.
        atomic : a call is all or nothing up to 256 MiB; beyond that it is refused unless `atomic=False`, which
            splits it.
        request_id : makes the call safe to repeat: a second one with this id writes nothing and returns what the first
            did. Kept for 24 hours, 65,536 a collection; the same for every method that has it.
        id, vector : of whole records the names of their columns, where they are others than "id" and "vector".
        texts : in the place of vectors, of a collection that was opened with `embed`: a text for each id (for one id, a
            text), embedded here. It is kept as the field "text", unless the record has one of its own.
        progress : True for a bar, or called with (texts embedded, texts) after each batch of the model.
        """
        if texts is not None:
            vectors, fields = self._read_texts(ids, texts, vectors, fields, progress, atomic=atomic)
        return self._put(ids, vectors, fields, tenants, owner, atomic, "upsert", request_id, keep_tenants, id, vector)

    def insert(
        self,
        ids: Any,
        vectors: Any = None,
        fields: Any = None,
        tenants: Any = None,
        *,
        on_conflict: str = "error",
        owner: str = "",
        atomic: bool = True,
        request_id: str | None = None,
        id: str | None = None,
        vector: str | None = None,
        texts: Any = None,
        progress: Wanted = None,
    ) -> int:
        """Like `upsert`, but raises AlreadyExists, and writes nothing, where any id exists or repeats.

        on_conflict : "error", or "skip": an id that exists is passed over, and of one that repeats the first counts.
        """
        if on_conflict not in ("error", "skip"):
            raise InvalidArgument(f"on_conflict must be 'error' or 'skip', got {validate.short_repr(on_conflict)}")
        mode: Mode = "skip" if on_conflict == "skip" else "insert"
        if texts is not None:
            vectors, fields = self._read_texts(ids, texts, vectors, fields, progress, atomic=atomic)
        return self._put(ids, vectors, fields, tenants, owner, atomic, mode, request_id, False, id, vector)

    def add(
        self,
        vectors: Any = None,
        fields: Any = None,
        *,
        tenants: Any = None,
        owner: str = "",
        request_id: str | None = None,
        texts: Any = None,
        progress: Wanted = None,
    ) -> Any:
        """Write records under ids that vecdb makes, and return these: a list in the order of the vectors, or for one
        vector, [dim], the id itself. Without vectors, None, there are as many records as `fields` has, a list or table;
        of one dict the id itself.

        Where the collection's ids are ints, or none was written yet, they go on from the largest id of this owner, from
        0 on; where they are strings they are UUIDs of version 7, which sort by time. They are made in the commit, so
        that no two calls of any threads or processes make the same.

        vectors, fields, tenants, owner, request_id, texts, progress : as in `upsert`. All or nothing, up to 256 MiB.
        """
        if texts is not None:
            vectors, fields = self._read_texts(None, texts, vectors, fields, progress)
        owned, request = validate.owner(owner), validate.request_id(request_id)
        n, single = self._count_added(vectors, fields)
        some = validate.some_vectors(vectors, n, self._config, self._shaped, single=single, empty_ok=True)
        maps = validate.fields(fields, some.n, single=single)
        check_size(some.vectors, maps, "write them in several calls")
        lists = None if tenants is None else validate.access_lists(tenants, some.n, single=single)
        return self._backend.add(some.vectors, maps, lists, owned, request, single=single, bare=some.bare)

    def _count_added(self, vectors: Any, fields: Any) -> tuple[int, bool]:
        """How many records are added, where no vectors say so, and whether it is one by itself."""
        if isinstance(vectors, validate.SomeVectors) or validate.first_vector(vectors) is not vectors:
            return 0, False
        if vectors is not None:
            return 0, validate.is_one_vector(vectors, self._shaped(vectors))
        if fields is None:
            raise InvalidArgument("add needs vectors, or fields of records that have none")
        return (1, True) if isinstance(fields, dict) else (len(fields), False)

    def prepare(
        self,
        ids: Any,
        vectors: Any,
        fields: Any = None,
        tenants: Any = None,
        *,
        keep_tenants: bool = False,
        mode: Mode = "upsert",
        owner: str = "",
        request_id: str | None = None,
    ) -> Callable[[], int]:
        """Check a write that is made later: what this returns makes it when it is called, as `upsert` would.

        For bulk loads: one batch can be checked while the one before it is on its way to the disk.

        mode : "upsert", "insert", or "skip": an insert that passes over ids that exist.
        all else : as in `upsert`, atomic. Vectors are copied unless they lie in `bytes`.
        """
        if mode not in ("upsert", "insert", "skip"):
            raise InvalidArgument(f"mode must be 'upsert', 'insert' or 'skip', got {validate.short_repr(mode)}")
        owned, request = validate.owner(owner), validate.request_id(request_id)
        kept = validate.flag(keep_tenants, "keep_tenants")
        given = WriteArguments(ids, vectors, fields, tenants, mode, kept)
        return partial(self._backend.put, given.batch(self._gate()), owned, mode, request)

    def _put(
        self,
        ids: Any,
        vectors: Any,
        fields: Any,
        tenants: Any,
        owner: str,
        atomic: bool,
        mode: Mode,
        request_id: str | None,
        keep_tenants: bool,
        id: str | None,
        vector: str | None,
    ) -> int:
        taken = taken_apart(ids, vectors, fields, id, vector)
        owned = validate.owner(owner)
        request = validate.request_id(request_id)
        kept, atomic = validate.flag(keep_tenants, "keep_tenants"), validate.flag(atomic, "atomic")
        if request is not None and not atomic:
            raise InvalidArgument("a call that may be split has no one request_id: write its parts with one each")
        given = WriteArguments(*taken, tenants, mode, kept)
        if atomic or given.n <= self._backend.rows_per_call:
            return self._backend.put(given.batch(self._gate()), owned, mode, request)
        parts = given.parts(lambda: self._backend.rows_per_call)
        return self._backend.put_all((part.batch(self._gate()) for part in parts), owned, mode)

    def update(
        self,
        ids: Any = None,
        vectors: Any = None,
        fields: Any = None,
        *,
        filter: Any = None,
        filter_params: Any = None,
        tenant: Any = None,
        owner: str | None = None,
        request_id: str | None = None,
    ) -> int:
        """Change existing records: new vectors, fields merged over the old by name (None removes one), or both.

        filter : in the place of ids: the records that match when the change is committed, all of them in one commit;
            `fields` is one dict for all. See `search`.
        tenant : with a filter: of these tenants' records only.
        owner : whose records the ids are; with a filter None means everybody's.
        Raises NotFound, and changes nothing, where an id does not exist. Returns how many records were changed.
        """
        if ids is None or filter is not None or tenant is not None:
            _refuse_both(ids, filter, tenant, "update")
            node = written_filter(filter, filter_params, "update")
            if vectors is not None or not isinstance(fields, dict):
                raise InvalidArgument("update with a filter takes fields, one dict for all records, and no vectors")
            [changes] = validate.fields([fields], 1) or [b""]
            return self._backend.update_matching(
                node, changes, _any_owner(owner), validate.search_tenants(tenant), validate.request_id(request_id)
            )
        batch = self._ids(ids)
        if vectors is None and fields is None:
            raise InvalidArgument("update needs vectors or fields")
        if batch.unique is not None:
            raise InvalidArgument("update got an id twice in one batch; give each id once")
        array = None
        if vectors is not None:
            array = validate.vectors(vectors, self._shaped(vectors), single=batch.scalar, empty_ok=batch.n == 0)
        if array is not None and len(array) != batch.n:
            raise InvalidArgument(f"got {batch.n:,} ids and {len(array):,} vectors: pass one vector per id")
        checked = validate.fields(fields, batch.n, single=batch.scalar)
        return self._backend.update(batch, array, checked, validate.owner(owner), validate.request_id(request_id))

    def delete(
        self,
        ids: Any = None,
        *,
        filter: Any = None,
        filter_params: Any = None,
        tenant: Any = None,
        owner: str | None = None,
        request_id: str | None = None,
    ) -> int:
        """Delete records by id. Ids that do not exist are passed over. Returns the number deleted.

        filter : in the place of ids: the records that match when the change is committed, all of them in one commit.
            See `search`. An empty one is refused; "true" is all records.
        tenant, owner : as in `update`.
        """
        request = validate.request_id(request_id)
        if ids is None or filter is not None or tenant is not None:
            _refuse_both(ids, filter, tenant, "delete")
            node = written_filter(filter, filter_params, "delete")
            return self._backend.delete_matching(node, _any_owner(owner), validate.search_tenants(tenant), request)
        return self._backend.delete(self._ids(ids).last_only(), validate.owner(owner), request)

    def clear(self, *, request_id: str | None = None) -> int:
        """Remove all records, of all owners, in one commit that is as fast for many as for few; it begins when a
        rebuild or vacuum that runs has ended. Returns how many there were. The collection stays as it was made, with
        its kind of ids, index, tenants and what `tune` chose.
        """
        return self._backend.clear(validate.request_id(request_id))

    # -- tenants -----------------------------------------------------------------------------------

    def grant(self, ids: Any, tenants: Any, *, owner: str = "", request_id: str | None = None) -> int:
        """Let tenants see records. Returns how many (record, tenant) pairs were not there before.

        tenants : a name, or a set or list of names, for all records, or a list of lists, one each, as in `upsert`; new
            names become tenants.
        Raises NotFound, and changes nothing, where an id does not exist; LimitExceeded where a tenant would have more
        records than its quota.
        """
        return self._change_access(ids, tenants, owner, request_id, granted=True)

    def revoke(self, ids: Any, tenants: Any, *, owner: str | None = "", request_id: str | None = None) -> int:
        """Take records away from tenants: no later search of theirs finds them, in any process, nor on a copy of a
        database that was opened with `log` (see `staleness_s` of `vecdb.open`). Returns how many (record, tenant) pairs
        were there.

        owner : None: whoever owns them, but for the tenant itself. So a tenant, one name, gives up what others share
            with it; of one id several owners may have records.
        Raises NotFound, and changes nothing, where an id or a tenant does not exist; Unavailable where it is committed
        and copies cannot be known to have it.
        """
        return self._change_access(ids, tenants, owner, request_id, granted=False)

    def _change_access(
        self, ids: Any, tenants: Any, owner: str | None, request_id: str | None, *, granted: bool
    ) -> int:
        leaving = owner is None and not granted
        owned = None if leaving else validate.owner(owner)
        batch = self._ids(ids)
        lists = validate.access_lists(tenants, batch.n, single=batch.scalar)
        if leaving and (len(lists.names) != 1 or len(lists.records) != batch.n):
            raise InvalidArgument("owner=None is about one tenant, which gives up all of these records: pass its name")
        request = validate.request_id(request_id)
        return self._backend.change_access(batch, lists, owned, granted=granted, request_id=request)

    def tenants(self, *, after: str | None = None, limit: int | None = None) -> Iterator[str]:
        """Names of tenants, sorted: all, or up to `limit` of those past the name `after`, which need not exist. Read a
        page at a time, without those before it: there may be a million.
        """
        if after is not None:
            validate.tenant_name(after)
        most = None if limit is None else validate.integer(limit, "limit", 1, limits.tenants_made_max)
        names: Iterator[str] = self._kept(self._backend.tenants(after, most))
        return names

    def create_tenant(
        self, name: Any, *, exist_ok: bool = False, records_max: int | None = None, request_id: str | None = None
    ) -> int:
        """Make a tenant, or a list of them. Returns how many were not there.

        records_max : the most records that each may have, held by every later upsert and grant; None: as many as there
            are. With `exist_ok` a tenant that is there gets it too, and with None keeps the one it has; 2**31 - 2
            lifts it.
        Raises AlreadyExists, and makes none, where one is there, unless `exist_ok`.
        """
        names = validate.tenant_names(name, "name")
        return self._backend.create_tenants(
            names,
            validate.flag(exist_ok, "exist_ok"),
            validate.records_max(records_max),
            validate.request_id(request_id),
        )

    def drop_tenant(self, name: str, *, records: bool = False, request_id: str | None = None) -> int | None:
        """Forget a tenant; who makes a tenant of that name later inherits none of its records. Raises NotFound.

        records : False: all records stay. True: the records that only this tenant may see are deleted, whoever owns
            them; those that other tenants may see, too, stay with those. A large tenant goes in several commits: killed
            in between it has fewer records, and the call is made again.
        Returns how many records were deleted; without `records` None.
        """
        return self._backend.drop_tenant(
            validate.tenant_name(name), validate.flag(records, "records"), validate.request_id(request_id)
        )

    # -- reads -------------------------------------------------------------------------------------

    def search(
        self,
        /,
        query: Any = None,
        limit: int = 10,
        *,
        text: Any = None,
        params: SearchParams | dict[str, Any] | None = None,
        fields: Any = None,
        include_vectors: bool = False,
        explain: bool = False,
        tenant: Any = None,
        stop: Callable[[], bool] | None = None,
        filter: Any = None,
        filter_params: Any = None,
        **unknown: Never,
    ) -> Hits:
        """The `limit` nearest live records of each query: exactly min(limit, records with a vector), nearest first.

        query : [dim] for one query, which gives one-dimensional results, or [nq, dim] for a batch in one call.
        text : in the place of a query, of a collection that was opened with `embed`: a text, or a list of them.
        filter : which records count: a condition such as `(F.lang == "en") & (F.year >= 2020)` (`from vecdb import F`),
            a string such as "lang = $lang and year >= 2020", or a dict as frameworks pass it. For a batch also a list
            with one, or None, for each query. Hits are min(limit, records that match and have a vector). A filter asks
            for fields; an id is none: `get`, `update` and `delete` take ids.
        filter_params : values of the $names of a string filter, a dict; of a list of filters a list.
        params : `SearchParams`, or a dict of what it takes; by default what `tune` or `optimize` learned.
        fields : names of the fields to return; None for all, [] for none.
        explain : `hits.explain` says how the answer was found and what it cost.
        tenant : a name, or a list of names whose records together are searched; None for all records. Raises NotFound
            where there is no such tenant.
        stop : called every 10 ms or so while a batch is answered; once it returns True the call raises Unavailable.
        """
        if unknown:
            refuse_unknown(Collection.search, unknown)
        if text is not None or query is None:
            query = self._read_queries(query, text)
        if (
            type(query) in _VECTORS and tenant is None and filter is None and filter_params is None and stop is None
            and explain is False and include_vectors is False
        ):  # fmt: skip
            hits = self._backend.search_one(query, limit, params, fields)
            if hits is not None:
                return hits
        queries, single = validate.queries(query, self._shaped(query))
        limit = validate.search_limit(limit, len(queries))
        checked = validate.search_params(params, limit)
        select = validate.field_selection(fields)
        tenants = () if tenant is None else validate.search_tenants(tenant)
        node = None
        if filter is not None or filter_params is not None:
            node = search_filter(filter, filter_params, len(queries), single=single)
        if include_vectors is not False or explain is not False:  # seldom: two calls less for most searches
            include_vectors, explain = _included(include_vectors), validate.flag(explain, "explain")
        return self._backend.search(
            queries, limit, checked, single=single, select=select, include_vectors=include_vectors, explain=explain,
            tenants=tenants, stop=stop, node=node,
        )  # fmt: skip

    def search_stream(
        self,
        /,
        queries: Iterable[Any],
        limit: int = 10,
        *,
        params: SearchParams | dict[str, Any] | None = None,
        fields: Any = None,
        include_vectors: bool = False,
        tenant: Any = None,
        window: int = 16,
        filter: Any = None,
        filter_params: Any = None,
        **unknown: Never,
    ) -> Iterator[Hits]:
        """Search for one query after another: an iterator of queries in, an iterator of hits out, in the same order.

        Of a server's collection they go over one stream, which costs less than a call each. Up to `window` queries are
        read ahead of the hits that were handed out; 1 reads the next one only when the one before it is answered, as
        where it depends on the hits. An error, of the iterator or of one query, is raised once the hits of the queries
        before it are handed out, and ends the stream. Who stops early closes it (`close`, or a `for` that is left):
        nothing more is read. A stream lasts as long as it is read: no timeout is of the whole.

        queries : an iterable of what `search` takes: one vector or a matrix each; vecdb.aio takes asynchronous ones.
        window : from 1 to 1,024.   all else : as in `search`, the same for all of them.
        """
        if unknown:
            refuse_unknown(Collection.search_stream, unknown)
        limit = validate.search_limit(limit, 1)
        checked = validate.search_params(params, limit)
        select = validate.field_selection(fields)
        tenants = validate.search_tenants(tenant)
        node = to_filter(filter, filter_params)
        window = validate.integer(window, "window", 1, limits.stream_window_max)
        if not hasattr(queries, "__iter__") and not hasattr(queries, "__aiter__"):
            raise InvalidArgument(f"queries must be an iterable of vectors, got {validate.short_repr(queries)}")

        def check(query: Any) -> tuple[NDArray[np.float32], bool]:
            array, single = validate.queries(query, self._shaped(query))
            validate.search_limit(limit, len(array))
            return array, single

        return self._backend.search_stream(
            queries, check, limit, checked, select=select, include_vectors=_included(include_vectors),
            tenants=tenants, window=window, node=node,
        )  # fmt: skip

    def _kept(self, found: Any) -> Any:
        """An iterator of the backend, which keeps what it iterates over open."""
        return found if self._keeps is None else _keeping(self, found)

    def search_mixture(
        self,
        /,
        positives: Any = None,
        limit: int = 100,
        *,
        histories: Any = None,
        components: int = 8,
        smoothing: float = 0.0,
        neighbours: int = 10,
        params: SearchParams | dict[str, Any] | None = None,
        fields: Any = None,
        include_vectors: bool = False,
        explain: bool = False,
        tenant: Any = None,
        owner: str = "",
        filter: Any = None,
        filter_params: Any = None,
        **unknown: Never,
    ) -> Hits:
        """Records near what a user liked, of each of its interests in proportion (kNN-Embed, El-Kishky et al., 2022).

        The positives are sorted into the cells of the index; the mean of those in a cell, a component of the user, is
        searched for by itself and fills a share of the answer as large as its share of the positives. Returns exactly
        min(limit, live records that are not positives), none of them twice and no positive among them. A component that
        cannot fill its share leaves it to the strongest one.

        Hits are in an order of which every beginning is as diverse as the whole: components take turns by their shares,
        the strongest first, each nearest first. `hits.components` has the component of each hit, 0 the strongest, and
        `hits.distances` the distance to the mean of that component.

        positives : ids of the records that the user liked; an id that repeats counts once.
        histories : of other users, a list of ids each. Without `positives` the first history is the user's own.
        components : keep at most so many, those with most positives.
        smoothing : from 0 to 1, the share that the `neighbours` users most like this one have in its mixture.
        explain : `hits.explain` has, for each component, `weights`, `quotas`, `sizes` (hits) and `cells` as well.
        params, fields, include_vectors, tenant : as in `search`.   owner : whose records all these ids are.
        filter, filter_params : one, as in `search`, for what is returned; positives need not match.
        Raises NotFound, of all ids or none, where a record is not there or is not for the tenant to see.
        """
        if unknown:
            refuse_unknown(Collection.search_mixture, unknown)
        limit = validate.search_limit(limit, 1)
        kind = self._backend.id_kind
        query = validate.mixture_query(
            positives, histories, limit, components, smoothing, neighbours, kind, self._config
        )  # fmt: skip
        select = validate.field_selection(fields)
        tenants = validate.search_tenants(tenant)
        return self._backend.search_mixture(
            query, limit, validate.search_params(params, limit), validate.owner(owner), select=select,
            include_vectors=_included(include_vectors), explain=validate.flag(explain, "explain"), tenants=tenants,
            node=to_filter(filter, filter_params),
        )  # fmt: skip

    def get(
        self,
        ids: Any = None,
        *,
        filter: Any = None,
        filter_params: Any = None,
        limit: int | None = None,
        include_vectors: bool = False,
        owner: str | None = None,
        tenant: Any = None,
    ) -> Any:
        """Records by id: a list with a Record or None per id, in order; for one bare id the Record or None itself.
        Without ids: a list of the records that match, oldest first.

        filter : see `search`. With ids None comes for records that do not match.
        limit : without ids: how many at most; None for all, up to 65,536: for more there is `iter`.
        owner : whose records the ids are; without ids None means everybody's.
        tenant : a name or a list of names: None comes for records that none of them may see. Raises NotFound where
            there is no such tenant. `Record.tenants` has the names of all that may see it, these or not.
        All are of one committed state; a server's, where one message has no room for them, of one each message.
        """
        node, tenants = to_filter(filter, filter_params), validate.search_tenants(tenant)
        included = _included(include_vectors)
        if ids is None:
            if filter is None and limit is None:
                raise InvalidArgument("get needs ids, a filter or a limit; iter goes through all records")
            most = None if limit is None else validate.integer(limit, "limit", 1, limits.get_records_max)
            return self._backend.get_matching(
                node, most, _any_owner(owner), include_vectors=included, tenants=tenants
            )  # fmt: skip
        if limit is not None:
            raise InvalidArgument("get takes a limit without ids: with ids there is one record, or None, for each")
        batch = self._ids(ids)
        return self._backend.get(batch, validate.owner(owner), include_vectors=included, tenants=tenants, node=node)

    def count(self, *, filter: Any = None, filter_params: Any = None, tenant: Any = None) -> int:
        """Live records; of those that match a filter (see `search`), and with `tenant`, a name or a list of names,
        those that one of them may see.
        """
        return self._backend.count(validate.search_tenants(tenant), to_filter(filter, filter_params))

    def iter(
        self,
        batch: int = 1000,
        *,
        filter: Any = None,
        filter_params: Any = None,
        after: str | None = None,
        limit: int | None = None,
        order_by: str | None = None,
        descending: bool = False,
        include_vectors: bool = False,
        tenant: Any = None,
    ) -> Iterator[Page]:
        """Live records, all or those that match and that `tenant` (a name or a list of names) may see, as pages of
        `batch`, oldest first, from one committed state. Keep it short: the state's pages stay on disk meanwhile.

        A page is a list of records with a `cursor`: a later call with `after=page.cursor` goes on behind its last
        record, also when there were other writes, a vacuum or a reopening since. It is None on the last page.

        filter : see `search`.   limit : how many records in all; None for all.
        order_by : a field, or a dotted path, in whose order they come, ties by id. Records without it come last; of
            values of several types all bools come first, then numbers, texts, bytes, times, lists and maps, the last
            two by id alone.
        descending : the largest first; records without the field still come last.
        Raises InvalidArgument where the cursor is of another collection or order; or where the record that it stands
            at, and those next to it, were deleted or replaced, and a vacuum has come since: begin again.
        """
        batch = validate.integer(batch, "batch", 1, _ITER_BATCH_MAX)
        down = validate.flag(descending, "descending")
        if down and order_by is None:
            raise InvalidArgument("descending needs order_by: without it the oldest come first")
        found = self._backend.iter(
            batch, include_vectors=_included(include_vectors), tenants=validate.search_tenants(tenant),
            node=to_filter(filter, filter_params), after=_cursor(after),
            limit=None if limit is None else validate.integer(limit, "limit", 1, limits.rows_max),
            order_by=None if order_by is None else field_name(order_by), descending=down,
        )  # fmt: skip
        records: Iterator[Page] = self._kept(found)
        return records

    def head(self, n: int = 5, *, include_vectors: bool = False) -> list[Record]:
        """The first n records, oldest first."""
        records: list[Record] = self.get(
            limit=validate.integer(n, "n", 1, limits.get_records_max), include_vectors=include_vectors
        )
        return records

    def to_pandas(
        self,
        *,
        filter: Any = None,
        filter_params: Any = None,
        limit: int | None = None,
        include_vectors: bool = False,
        tenant: Any = None,
    ) -> Any:
        """Records as a pandas.DataFrame, oldest first: id, owner (where a record has one), a column per field, and
        vector where asked for. A field that a record does not have is None. Such a frame is what `upsert` takes.

        filter, filter_params, limit, include_vectors, tenant : as in `iter`; all of it is in memory at once.
        """
        return pandas_frame(self._records(filter, filter_params, limit, include_vectors, tenant), include_vectors)

    def to_arrow(
        self,
        *,
        filter: Any = None,
        filter_params: Any = None,
        limit: int | None = None,
        include_vectors: bool = False,
        tenant: Any = None,
    ) -> Any:
        """The same as a pyarrow.Table; vectors are fixed-size lists, null for a record without one. Raises
        InvalidArgument where a field mixes types that a column of Arrow cannot hold.
        """
        return arrow_table(self._records(filter, filter_params, limit, include_vectors, tenant), include_vectors)

    def _records(
        self, filter: Any, filter_params: Any, limit: int | None, include_vectors: bool, tenant: Any
    ) -> list[Record]:
        pages = self.iter(
            filter=filter, filter_params=filter_params, limit=limit, include_vectors=include_vectors, tenant=tenant
        )
        return [record for page in pages for record in page]

    # -- what fields there are ---------------------------------------------------------------------

    def facets(
        self, field: str, filter: Any = None, limit: int = 100, *, filter_params: Any = None, tenant: Any = None
    ) -> Facets:
        """How many records have each value of a field (or dotted path): {value: count}, the `limit` most frequent
        values, largest first, ties by value. A list counts each of its elements once. Unlike those of a dict, keys of
        different types are never one: True, 1 and 1.0 are three.

        filter, filter_params, tenant : of which records, as in `search`.
        """
        node, tenants = to_filter(filter, filter_params), validate.search_tenants(tenant)
        most = validate.integer(limit, "limit", 1, limits.facets_max)
        return self._backend.facets(field_name(field), node, most, tenants)

    def distinct(self, field: str, filter: Any = None, *, filter_params: Any = None, tenant: Any = None) -> list[Any]:
        """The values of a field, elements of its lists among them, each once: by type, then value; True, 1 and 1.0 are
        three. Arguments are those of `facets`.
        """
        node, tenants = to_filter(filter, filter_params), validate.search_tenants(tenant)
        return self._backend.distinct(field_name(field), node, tenants)

    def min(self, field: str, filter: Any = None, *, filter_params: Any = None, tenant: Any = None) -> Any:
        """The smallest value of a field, None where no record has one; lists, maps and NaN do not count. Arguments are
        those of `facets`. Raises InvalidArgument where values of several types have no order with one another.
        """
        return self._extreme(field, filter, filter_params, tenant, largest=False)

    def max(self, field: str, filter: Any = None, *, filter_params: Any = None, tenant: Any = None) -> Any:
        """The largest value of a field, as `min`."""
        return self._extreme(field, filter, filter_params, tenant, largest=True)

    def _extreme(self, field: str, filter: Any, filter_params: Any, tenant: Any, *, largest: bool) -> Any:
        node, tenants = to_filter(filter, filter_params), validate.search_tenants(tenant)
        return self._backend.extreme(field_name(field), node, tenants, largest=largest)

    def fields(self, *, tenant: Any = None) -> dict[str, dict[str, Any]]:
        """The fields that live records have, and paths into maps: {"year": {"types": ["int"], "count": 9000}, ...}, by
        name. Types are bool, int, float, str, bytes, date, datetime, list and map; a value that is None does not count.
        """
        return self._backend.fields(validate.search_tenants(tenant))

    # -- the index ---------------------------------------------------------------------------------

    def reindex(self, index: IndexConfig | None = None, *, progress: Wanted = None) -> None:
        """Build another kind of index, or the same with other parameters, from the stored vectors. Searches go on
        meanwhile.
        """
        return self._backend.reindex(validate.index_config(index, self.dtype), reporter(progress, "reindex"))

    def optimize(self, *, threads: int | None = None, progress: Wanted = None) -> None:
        """Finish what maintenance would do in its own time: index the tail, repair after deletes, learn recall
        against ef, seal. A large build of lists that was killed goes on where it was.

        progress : True for a bar, or called with (done, rows), where done grows about evenly with time, through all
            stages. The first call says where the work begins, which is not 0 where some of it was done before: the rate
            counts from there. Of an embedded collection it is called in a thread of the work's own: Ctrl-C ends
            `optimize`, `reindex` and `vacuum` between two steps, and leaves the index whole.
        """
        return self._backend.optimize(
            None if threads is None else validate.threads(threads), reporter(progress, "optimize")
        )

    def evaluate(
        self,
        queries: Any,
        limit: int = 10,
        *,
        params: SearchParams | dict[str, Any] | None = None,
        tenant: Any = None,
        truth: Any = None,
        filter: Any = None,
        filter_params: Any = None,
        stop: Callable[[], bool] | None = None,
    ) -> dict[str, Any]:
        """Recall@limit and latency over `queries` asked one at a time, among all records or those of `tenant` and those
        that match a filter (see `search`).

        truth : your own ground truth, ids [nq, k] with k at least `limit`, nearest first: recall is the share of the
            first `limit` that are found. None: exact search, where a hit as near as the last true one counts as found.
        stop : called every 10 ms or so; once it returns True the call raises Unavailable.
        Returns a dict: `queries` and `limit`; `recall`, the mean, and `recall_p1`, its first percentile (None where
        there are no queries or no records); `plan`, `ef` and `nprobe` of the last query; `queries_per_second`;
        `latency_ms_mean`, `latency_ms_p50`, `latency_ms_p95` and `latency_ms_p99`.
        """
        array, _ = validate.queries(queries, self._shaped(queries))
        limit = validate.search_limit(limit, len(array))
        tenants, node = validate.search_tenants(tenant), to_filter(filter, filter_params)
        known = None if truth is None else validate.truth(truth, len(array), limit, self._backend.id_kind, self.name)
        checked = validate.search_params(params, limit)
        return self._backend.evaluate(array, limit, checked, tenants, node, truth=known, stop=stop)

    def tune(
        self, queries: Any, recall: float = 0.95, limit: int = 10, *, filter: Any = None, filter_params: Any = None
    ) -> list[dict[str, float]]:
        """Measure recall against beam width on `queries`; the narrowest beam that reaches `recall` becomes the default.

        filter : measure among the records that match (see `search`); then nothing becomes the default, since a beam
            widens by itself where few records match.
        Returns the curve: one dict per beam width with `ef`, `recall` and `queries_per_second`.
        """
        array, _ = validate.queries(queries, self._shaped(queries))
        limit = validate.search_limit(limit, len(array))
        checked = validate.search_params(SearchParams(recall=recall), limit)
        return self._backend.tune(array, limit, checked.recall or recall, to_filter(filter, filter_params))

    def stats(self, *, tenant: str | None = None) -> dict[str, Any]:
        """live, deleted, rows, bytes_ram, bytes_disk, index_state, index parameters and facts, tail, sequence;
        build_seconds of the last `optimize` or `reindex` of this process (None: none), and bytes_ram_peak, the most
        memory that the whole process ever had; queries, how many searches this process was asked (about).

        Of a `tenant`: records, records_max (its quota; None: none), bytes_ram of its rows in memory, plan of a search
        for ten.
        """
        if tenant is None:
            return self._backend.stats()
        validate.tenant_name(tenant)
        return self._backend.tenant_stats(tenant)

    def vacuum(self, *, progress: Wanted = None) -> None:
        """Give back the space of deleted and replaced records. Reads and writes go on meanwhile."""
        return self._backend.vacuum(reporter(progress, "vacuum"))

    def check(self) -> list[str]:
        """Problems found in this collection's files, records and index; empty when all is well. Repairs nothing."""
        return self._backend.check()

    # -- within ------------------------------------------------------------------------------------

    def _read_texts(
        self, ids: Any, texts: Any, vectors: Any, fields: Any, progress: Any, *, atomic: bool = True, note: bool = True
    ) -> tuple[Any, Any]:
        """Vectors and fields of records whose texts are given; the model is noted where the collection had none."""
        embedder = embedder_of(self._embedder, self.name)
        found = embedded(
            embedder, ids, texts, vectors, fields, atomic is not False, reporter(progress, "embed"),
        )  # fmt: skip
        if note and not embedder.noted:
            with contextlib.suppress(PermissionDenied):
                self.set_metadata(self.metadata)
            embedder.noted = True
        return found

    def _read_queries(self, query: Any, text: Any) -> Any:
        if query is not None or text is None:
            raise InvalidArgument("search takes a query, which is an array, as of a vector, or a text; one of the two")
        if isinstance(text, str):
            return embedder_of(self._embedder, self.name).queries([text])[0]
        if not isinstance(text, (list, tuple)) or not all(isinstance(one, str) for one in text):
            raise InvalidArgument(f"text must be a text or a list of texts, got {validate.short_repr(text)}")
        return embedder_of(self._embedder, self.name).queries(text)

    def _shaped(self, vectors: Any) -> CollectionConfig:
        """The configuration, with the dim of these vectors or queries where the collection has none yet."""
        if not self._config.dim:
            if not self._backend.dim:
                return replace(self._config, dim=validate.dim_of(validate.first_vector(vectors), "vectors"))
            self._config = replace(self._config, dim=self._backend.dim)
        return self._config

    def _gate(self) -> Gate:
        return Gate(self._ids, self._config, self._shaped)

    def _ids(self, ids: Any) -> validate.IdBatch:
        return validate.ids(ids, self._backend.id_kind, name=self.name)


def _included(include_vectors: bool) -> bool:
    return validate.flag(include_vectors, "include_vectors")


def _any_owner(owner: object) -> bytes | None:
    """Of a call with a filter: None is everybody."""
    return None if owner is None else validate.owner(owner)


def _refuse_both(ids: Any, filter: Any, tenant: Any, doing: str) -> None:
    if ids is not None and filter is not None:
        raise InvalidArgument(f"{doing} takes ids or a filter, not both")
    if ids is not None and tenant is not None:
        raise InvalidArgument(f"{doing} takes a tenant with a filter only")


def _cursor(after: object) -> str | None:
    if after is None or (isinstance(after, str) and 0 < len(after) <= limits.cursor_chars_max):
        return after
    raise InvalidArgument(f"after must be the cursor of a page, got {validate.short_repr(after)}")


def _keeping(_kept: Any, found: Iterator[Any]) -> Iterator[Any]:
    yield from found
