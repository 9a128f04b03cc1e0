"""RemoteCollection: the backend of a `Collection` that is a server's. Checked values become messages, answers values.

A write carries a request_id, the caller's or a new one, so that it may be sent more than once (channel.py). Only the
server knows whether the collection's ids are numbers or strings, so the server checks that.

Threads: those of its connection. With an `AsyncConnection` each method returns a coroutine or asynchronous iterator.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vecdb import limits
from vecdb.api.backend import Batch, Mode, Progress, Stop
from vecdb.api.filter_arguments import Filters, Page
from vecdb.api.hits import Hits
from vecdb.client.channel import MESSAGE_BYTES_MAX
from vecdb.client.connection import Connection
from vecdb.client.streams.bulk_ingest import IngestStream
from vecdb.client.streams.rebatch import Parts, Rebatcher
from vecdb.errors import InvalidArgument, LimitExceeded
from vecdb.filters.tree import Node
from vecdb.limits import dim_max
from vecdb.schema import CollectionConfig, Facets, IndexConfig, Record, SearchParams
from vecdb.v1 import collections_pb2, records_pb2, search_pb2, tenants_pb2
from vecdb.validate import AccessLists, IdBatch, MixtureQuery, SomeVectors
from vecdb.wire.arrays import (
    access_fields,
    ids_message,
    ids_of,
    vector_bytes,
    vector_bytes_max,
    vectors_message,
    without_vectors_bits,
)
from vecdb.wire.bulk_writes import BulkWrite
from vecdb.wire.filters import (
    facets_of,
    field_facts_of,
    filter_message,
    filters_each_message,
    value_of,
    values_of,
)
from vecdb.wire.messages import (
    collection_of,
    fields_message,
    index_message,
    metadata_json,
    params_message,
    record_of,
)
from vecdb.wire.search_response import hits_of, report_of
from vecdb.wire.two_rounds import answer_of

_BATCH_BYTES = 8 << 20  # the approximate size of one message of a stream
_GET_BYTES, _GET_IDS = 32 << 20, 65_536  # vectors and records in one answer; with large fields there are fewer
_PAGE_NAMES = 1_000  # names of tenants in one answer
_ID_BYTES = 16  # what a row adds to a message beside its vector and fields
_MODES = {
    "upsert": records_pb2.WRITE_MODE_UPSERT,
    "insert": records_pb2.WRITE_MODE_INSERT,
    "skip": records_pb2.WRITE_MODE_SKIP,
}


class RemoteCollection:
    def __init__(self, connection: Connection, config: CollectionConfig) -> None:
        self._connection = connection
        self._name = config.name
        self._config = config

    @property
    def id_kind(self) -> None:
        return None

    @property
    def dim(self) -> int:
        return self._config.dim

    @property
    def _row_bytes(self) -> int:
        return vector_bytes(self._config.dim or dim_max, self._config.dtype) + _ID_BYTES

    @property
    def rows_per_call(self) -> int:
        return max(1, min(limits.batch_rows_max, _BATCH_BYTES // self._row_bytes))

    def config(self) -> CollectionConfig:
        request = collections_pb2.GetCollectionRequest(name=self._name)

        def decode(answer: Any) -> CollectionConfig:
            found = collection_of(answer.collection)
            self._note_dim(found.dim)
            return found

        return self._connection.call("GetCollection", request, decode)

    # -- writes ------------------------------------------------------------------------------------

    def put(self, batch: Batch, owner: bytes, mode: Mode, request_id: bytes | None) -> int:
        request = self._write(batch, slice(0, batch.ids.n), owner, mode, _or_new(request_id)).message()
        _check_size(request, "write it in several calls, or with atomic=False")
        count: int = self._connection.call("Write", request, self._learning(batch.vectors, _count))
        return count

    def _learning(self, vectors: NDArray[Any], decode: Callable[[Any], Any]) -> Callable[[Any], Any]:
        """What decodes the answer of a write, and notes the dim that its vectors gave a collection without one."""

        def decode_and_note(answer: Any) -> Any:
            self._note_dim(vectors.shape[1] if len(vectors) else 0)
            return decode(answer)

        return decode_and_note

    def _note_dim(self, dim: int) -> None:
        if dim and not self._config.dim:
            self._config = replace(self._config, dim=dim)

    def add(
        self,
        vectors: NDArray[Any],
        fields: list[bytes] | None,
        tenants: AccessLists | None,
        owner: bytes,
        request_id: bytes | None,
        *,
        single: bool,
        bare: NDArray[np.bool_] | None = None,
    ) -> Any:
        n = len(vectors) if bare is None else len(bare)
        request = records_pb2.WriteRequest(
            collection=self._name,
            mode=records_pb2.WRITE_MODE_ADD,
            vectors=vectors_message(vectors) if len(vectors) or bare is None else None,
            without_vectors=without_vectors_bits(bare),
            fields=fields_message(fields),
            owner=owner.decode(),
            request_id=_or_new(request_id),
            **access_fields(tenants, n),
        )
        _check_size(request, "write it in several calls")

        def made(answer: Any) -> Any:
            ids = np.asarray(ids_of(answer.ids)).tolist()
            return ids[0] if single else ids

        return self._connection.call("Write", request, self._learning(vectors, made))

    def set_metadata(self, metadata: dict[str, Any]) -> None:
        request = collections_pb2.SetMetadataRequest(collection=self._name, metadata_json=metadata_json(metadata))
        return self._connection.call("SetMetadata", request, ignore_answer)

    def clear(self, request_id: bytes | None) -> int:
        request = collections_pb2.ClearCollectionRequest(collection=self._name, request_id=_or_new(request_id))
        return self._connection.call("ClearCollection", request, _count)

    def put_all(self, batches: Iterable[Batch], owner: bytes, mode: Mode) -> int:
        writes = self._writes(batches, owner, mode)
        return self._connection.ingest(IngestStream(writes, self._note_dim))

    def _writes(self, batches: Iterable[Batch], owner: bytes, mode: Mode) -> Iterator[BulkWrite]:
        """The writes of batches; a batch with large fields becomes several."""
        call = uuid.uuid4().hex
        number = 0
        for batch in batches:
            for part in _parts(batch, self._row_bytes):
                yield self._write(batch, part, owner, mode, f"{call}-{number}")
                number += 1

    def _write(self, batch: Batch, part: slice, owner: bytes, mode: Mode, request_id: str) -> BulkWrite:
        rows = part.stop - part.start
        is_whole = rows == batch.ids.n
        some = SomeVectors(batch.vectors, batch.bare)
        if not is_whole:
            every = batch.bare is None  # then a view will do
            some = SomeVectors(batch.vectors[part], None) if every else some.take(np.arange(part.start, part.stop))
        lists = batch.tenants
        if lists is not None and not is_whole:
            lists = lists.take(np.arange(part.start, part.stop), batch.ids.n)
        write = records_pb2.WriteRequest(
            collection=self._name,
            mode=_MODES[mode],
            ids=ids_message(batch.ids, part),
            without_vectors=without_vectors_bits(some.bare),
            fields=fields_message(batch.fields if batch.fields is None or is_whole else batch.fields[part]),
            owner=owner.decode(),
            request_id=request_id,
            keep_tenants=lists is not None and lists.kept,
            **access_fields(lists, rows),
        )
        return BulkWrite(write, some.vectors if len(some.vectors) or some.bare is None else None)

    def update(
        self,
        ids: IdBatch,
        vectors: NDArray[Any] | None,
        fields: list[bytes] | None,
        owner: bytes,
        request_id: bytes | None,
    ) -> int:
        request = records_pb2.UpdateRequest(
            collection=self._name,
            ids=ids_message(ids),
            vectors=None if vectors is None else vectors_message(vectors),
            fields=fields_message(fields),
            owner=owner.decode(),
            request_id=_or_new(request_id),
        )
        if vectors is None:
            return self._connection.call("Update", request, _count)
        count: int = self._connection.call("Update", request, self._learning(vectors, _count))
        return count

    def delete(self, ids: IdBatch, owner: bytes, request_id: bytes | None) -> int:
        request = records_pb2.DeleteRequest(
            collection=self._name, ids=ids_message(ids), owner=owner.decode(), request_id=_or_new(request_id)
        )
        return self._connection.call("Delete", request, _count)

    def update_matching(
        self, node: Node, fields: bytes, owner: bytes | None, tenants: tuple[str, ...], request_id: bytes | None
    ) -> int:
        request = records_pb2.UpdateRequest(
            collection=self._name,
            filter=filter_message(node),
            fields=fields_message([fields]),
            only_owner=_text(owner),
            tenants=tenants,
            request_id=_or_new(request_id),
        )
        return self._connection.call("Update", request, _count)

    def delete_matching(
        self, node: Node, owner: bytes | None, tenants: tuple[str, ...], request_id: bytes | None
    ) -> int:
        request = records_pb2.DeleteRequest(
            collection=self._name,
            filter=filter_message(node),
            only_owner=_text(owner),
            tenants=tenants,
            request_id=_or_new(request_id),
        )
        return self._connection.call("Delete", request, _count)

    def change_access(
        self, ids: IdBatch, tenants: AccessLists, owner: bytes | None, *, granted: bool, request_id: bytes | None
    ) -> int:
        if owner is None:
            raise InvalidArgument(
                "owner=None is for a database in this process; at a server a tenant's own token revokes its own name"
            )
        make, rpc = (tenants_pb2.GrantRequest, "Grant") if granted else (tenants_pb2.RevokeRequest, "Revoke")
        request = make(
            collection=self._name,
            ids=ids_message(ids),
            owner=owner.decode(),
            request_id=_or_new(request_id),
            **access_fields(tenants, ids.n),
        )
        return self._connection.call(rpc, request, _count)

    def create_tenants(
        self, names: list[bytes], exist_ok: bool, records_max: int | None, request_id: bytes | None
    ) -> int:
        request = tenants_pb2.CreateTenantsRequest(
            collection=self._name,
            names=[name.decode() for name in names],
            exist_ok=exist_ok,
            records_max=records_max,
            request_id=_or_new(request_id),
        )
        return self._connection.call("CreateTenants", request, _count)

    def drop_tenant(self, name: bytes, records: bool, request_id: bytes | None) -> int | None:
        request = tenants_pb2.DropTenantRequest(
            collection=self._name, name=name.decode(), records=records, request_id=_or_new(request_id)
        )
        return self._connection.call("DropTenant", request, lambda answer: int(answer.deleted) if records else None)

    # -- reads -------------------------------------------------------------------------------------

    def search_one(self, query: NDArray[Any] | list[Any], limit: Any, params: Any, fields: Any) -> Hits | None:
        return None  # a message is made of checked arguments

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
        tenants: tuple[str, ...],
        stop: Stop,
        node: Filters,
    ) -> Hits:
        filters = {"filters_each": filters_each_message(node)} if isinstance(node, tuple) else _filtered(node)
        return self._search(
            limit, params, select, include_vectors, explain, tenants, single, stop, vectors=vectors_message(queries),
            **filters,
        )  # fmt: skip

    def search_round(
        self,
        queries: NDArray[np.float32],
        limit: int,
        params: SearchParams,
        rounds: dict[str, Any],
        *,
        single: bool,
        select: tuple[str, ...] | None,
        stop: Stop,
        node: Node | None,
        **options: Any,
    ) -> Any:
        """One of two rounds of a search: NamedRows, or Hits. rounds : the field of the request that says which.
        options : those of `search`.
        """
        request = self._search_request(
            limit, params, select, vectors=vectors_message(queries), **options, **rounds, **_filtered(node)
        )
        decode = partial(answer_of, limit=limit, metric=self._config.metric, single=single, select=select)
        return self._connection.call("Search", request, decode, stop)

    def search_stream(
        self,
        queries: Any,
        check: Callable[[Any], tuple[NDArray[np.float32], bool]],
        limit: int,
        params: SearchParams,
        *,
        select: tuple[str, ...] | None,
        include_vectors: bool,
        tenants: tuple[str, ...],
        window: int,
        node: Node | None,
    ) -> Iterator[Hits]:
        search = self._search_request(limit, params, select, include_vectors, False, tenants, **_filtered(node))

        def make_message(query: Any) -> tuple[search_pb2.StreamSearchRequest, Callable[[Any], Hits]]:
            array, single = check(query)
            request = search_pb2.StreamSearchRequest(search=search)
            request.search.vectors.CopyFrom(vectors_message(array))
            decode = partial(hits_of, limit=limit, metric=self._config.metric, single=single, select=select)
            return request, lambda answer: decode(answer.hits)

        return self._connection.stream_queries("StreamSearch", queries, make_message, window)

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
        tenants: tuple[str, ...],
        node: Node | None,
    ) -> Hits:
        own, *others = map(ids_message, query.users)
        mixture = search_pb2.MixtureQuery(
            positives=own,
            histories=others,
            components=query.components,
            smoothing=query.smoothing,
            neighbours=query.neighbours,
            owner=owner.decode(),
        )
        return self._search(
            limit, params, select, include_vectors, explain, tenants, True, None, mixture=mixture, **_filtered(node)
        )

    def _search(
        self,
        limit: int,
        params: SearchParams,
        select: tuple[str, ...] | None,
        include_vectors: bool,
        explain: bool,
        tenants: tuple[str, ...],
        single: bool,
        stop: Stop,
        **query: Any,
    ) -> Hits:
        """query : the one field of the oneof `query`, by its name, and that of a filter."""
        request = self._search_request(limit, params, select, include_vectors, explain, tenants, **query)
        decode = partial(hits_of, limit=limit, metric=self._config.metric, single=single, select=select)
        return self._connection.call("Search", request, decode, stop)

    def _search_request(
        self,
        limit: int,
        params: SearchParams,
        select: tuple[str, ...] | None,
        include_vectors: bool,
        explain: bool,
        tenants: tuple[str, ...],
        **query: Any,
    ) -> search_pb2.SearchRequest:
        return search_pb2.SearchRequest(
            collection=self._name,
            limit=limit,
            tenants=tenants,
            params=params_message(params),
            fields=_selection(select),
            include_vectors=include_vectors,
            explain=explain,
            **query,
        )

    def get(
        self, ids: IdBatch, owner: bytes, *, include_vectors: bool, tenants: tuple[str, ...], node: Node | None
    ) -> Any:
        filter = filter_message(node)

        def make(part: slice) -> records_pb2.GetRequest:
            return records_pb2.GetRequest(
                collection=self._name,
                ids=ids_message(ids, part),
                include_vectors=include_vectors,
                owner=owner.decode(),
                tenants=tenants,
                filter=filter,
            )

        row_bytes = vector_bytes_max(self._config.dim or dim_max, self._config.dtype)
        step = _GET_BYTES // row_bytes if include_vectors else _GET_IDS
        parts = Parts(make, self._records_of, ids.n, min(step, _GET_IDS), scalar=ids.scalar)
        return self._connection.call_in_parts("Get", parts)

    def _records_of(self, answer: Any) -> list[Record | None]:
        dtype = self._config.element_type
        return [record_of(one.record, dtype) if one.HasField("record") else None for one in answer.records]

    def with_timeout(self, seconds: float) -> RemoteCollection:
        return RemoteCollection(self._connection.with_timeout(seconds), replace(self._config, name=self._name))

    def get_matching(
        self,
        node: Node | None,
        limit: int | None,
        owner: bytes | None,
        *,
        include_vectors: bool,
        tenants: tuple[str, ...],
    ) -> list[Record]:
        most = limits.get_records_max + 1 if limit is None else limit
        request = self._list_request(
            limits.get_records_max, include_vectors=include_vectors, tenants=tenants, node=node, limit=most
        )
        if owner is not None:
            request.only_owner = owner.decode()

        def finish(found: list[Record]) -> list[Record]:
            if limit is None and len(found) == most:
                raise LimitExceeded(
                    f"get returns at most {limits.get_records_max:,} records, and more match: give a limit, or go "
                    "through them with iter"
                )
            return found

        return self._connection.all_records("List", request, self._rebatcher(limits.get_records_max), finish)

    def iter(
        self,
        batch: int,
        *,
        include_vectors: bool,
        tenants: tuple[str, ...],
        node: Node | None,
        after: str | None,
        limit: int | None,
        order_by: str | None,
        descending: bool,
    ) -> Iterator[Page]:
        request = self._list_request(
            batch, include_vectors=include_vectors, tenants=tenants, node=node, limit=limit or 0, after=after or "",
            order_by=order_by, descending=descending,
        )  # fmt: skip
        return self._connection.list_records("List", request, self._rebatcher(batch))

    def _list_request(self, batch: int, *, node: Node | None, **settings: Any) -> records_pb2.ListRequest:
        return records_pb2.ListRequest(collection=self._name, batch=batch, filter=filter_message(node), **settings)

    def _rebatcher(self, batch: int) -> Rebatcher:
        return Rebatcher(batch, partial(record_of, dtype=self._config.element_type))

    def count(self, tenants: tuple[str, ...], node: Node | None) -> int:
        request = records_pb2.CountRequest(collection=self._name, tenants=tenants, filter=filter_message(node))
        return self._connection.call("Count", request, _count)

    def tenants(self, after: str | None, limit: int | None) -> Iterator[str]:
        request = tenants_pb2.ListTenantsRequest(
            collection=self._name, page_token=after or "", page_size=min(limit or _PAGE_NAMES, _PAGE_NAMES)
        )
        return self._connection.list_names("ListTenants", request, limit)

    def facets(self, field: str, node: Node | None, limit: int, tenants: tuple[str, ...]) -> Facets:
        request = records_pb2.FacetsRequest(
            collection=self._name, field=field, filter=filter_message(node), limit=limit, tenants=tenants
        )
        return self._connection.call("Facets", request, facets_of)

    def distinct(self, field: str, node: Node | None, tenants: tuple[str, ...]) -> list[Any]:
        request = records_pb2.DistinctRequest(
            collection=self._name, field=field, filter=filter_message(node), tenants=tenants
        )
        return self._connection.call("Distinct", request, lambda answer: values_of(answer.values))

    def extreme(self, field: str, node: Node | None, tenants: tuple[str, ...], *, largest: bool) -> Any:
        request = records_pb2.MinMaxRequest(
            collection=self._name, field=field, filter=filter_message(node), tenants=tenants, largest=largest
        )
        return self._connection.call("MinMax", request, lambda answer: value_of(answer.value))

    def fields(self, tenants: tuple[str, ...]) -> dict[str, dict[str, Any]]:
        request = records_pb2.FieldsRequest(collection=self._name, tenants=tenants)
        return self._connection.call("Fields", request, field_facts_of)

    # -- maintenance -------------------------------------------------------------------------------

    def stats(self) -> dict[str, Any]:
        request = collections_pb2.GetCollectionStatsRequest(collection=self._name)
        return self._connection.call("GetCollectionStats", request, _stats)

    def tenant_stats(self, name: str) -> dict[str, Any]:
        request = tenants_pb2.GetTenantStatsRequest(collection=self._name, tenant=name)
        return self._connection.call("GetTenantStats", request, _stats)

    def evaluate(
        self,
        queries: NDArray[np.float32],
        limit: int,
        params: SearchParams,
        tenants: tuple[str, ...],
        node: Node | None,
        *,
        truth: IdBatch | None,
        stop: Stop,
    ) -> dict[str, Any]:
        request = search_pb2.EvaluateRequest(
            collection=self._name,
            queries=vectors_message(queries),
            limit=limit,
            params=params_message(params),
            tenants=tenants,
            truth=None if truth is None else ids_message(truth),
            filter=filter_message(node),
        )
        return self._connection.call("Evaluate", request, lambda answer: report_of(answer.report_json), stop)

    def tune(
        self, queries: NDArray[np.float32], limit: int, recall: float, node: Node | None
    ) -> list[dict[str, float]]:
        request = search_pb2.TuneRequest(
            collection=self._name,
            queries=vectors_message(queries),
            limit=limit,
            recall=recall,
            filter=filter_message(node),
        )
        return self._connection.call("Tune", request, lambda answer: report_of(answer.curve_json))

    def optimize(self, threads: int | None, progress: Progress) -> None:
        request = collections_pb2.OptimizeCollectionRequest(collection=self._name, threads=threads or 0)
        return self._connection.call_with_progress(
            "OptimizeCollection", request, progress_reporter(progress), ignore_answer
        )

    def reindex(self, index: IndexConfig | None, progress: Progress) -> None:
        request = collections_pb2.ReindexCollectionRequest(collection=self._name, index=index_message(index))
        return self._connection.call_with_progress(
            "ReindexCollection", request, progress_reporter(progress), ignore_answer
        )

    def vacuum(self, progress: Progress) -> None:
        request = collections_pb2.VacuumCollectionRequest(collection=self._name)
        return self._connection.call_with_progress(
            "VacuumCollection", request, progress_reporter(progress), ignore_answer
        )

    def check(self) -> list[str]:
        request = collections_pb2.CheckCollectionRequest(collection=self._name)
        return self._connection.call_with_progress(
            "CheckCollection", request, ignore_answer, lambda last: list(last.problems)
        )


def _filtered(node: Node | None) -> dict[str, Any]:
    """The field of a search that has its filter, by its name."""
    return {} if node is None else {"filter": filter_message(node)}


def _text(name: bytes | None) -> str | None:
    return None if name is None else name.decode()


def _check_size(request: Any, instead: str) -> None:
    size_bytes = request.ByteSize()
    if size_bytes > MESSAGE_BYTES_MAX:
        raise LimitExceeded(
            f"one atomic call to a server takes at most {MESSAGE_BYTES_MAX:,} bytes, this one has {size_bytes:,}: "
            f"{instead}"
        )


def progress_reporter(progress: Progress) -> Callable[[Any], None]:
    """A function that passes the progress in a message on to the caller's callback."""
    if progress is None:
        return ignore_answer

    def report(message: Any) -> None:
        if message.progress.total:  # otherwise the work has not begun
            progress(message.progress.done, message.progress.total)

    return report


def _parts(batch: Batch, row_bytes: int) -> Iterator[slice]:
    """The rows of each message: all in one, unless their fields make it more than twice as large as planned."""
    if batch.fields is None:
        yield slice(0, batch.ids.n)
        return
    start = size_bytes = 0
    for row, fields in enumerate(batch.fields):
        added = row_bytes + len(fields)
        if size_bytes + added > 2 * _BATCH_BYTES and row > start:
            yield slice(start, row)
            start, size_bytes = row, 0
        size_bytes += added
    yield slice(start, batch.ids.n)


def _or_new(request_id: bytes | None) -> str:
    return uuid.uuid4().hex if request_id is None else request_id.decode()


def _selection(select: tuple[str, ...] | None) -> search_pb2.FieldSelection | None:
    return None if select is None else search_pb2.FieldSelection(names=select)


def _count(answer: Any) -> int:
    return int(answer.count)


def _stats(answer: Any) -> dict[str, Any]:
    found: dict[str, Any] = report_of(answer.stats_json)
    return found


def ignore_answer(answer: Any) -> None:
    """For an answer that says only that the operation is done."""
