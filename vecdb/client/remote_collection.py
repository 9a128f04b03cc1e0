"""A server's collection, as `Collection` sees it: checked values become messages, answers become values.

A write carries a request_id, the caller's or a new one, so that it may be repeated on the way (channel.py). Ids are of
the one kind that the server knows, so it is the server that compares them with it.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vecdb.api.backend import Batch, Mode, Progress, Stop
from vecdb.api.hits import Hits
from vecdb.client.bulk_ingest import IngestStream
from vecdb.client.channel import MESSAGE_BYTES_MAX
from vecdb.client.connection import Connection
from vecdb.client.rebatch import Rebatcher
from vecdb.errors import LimitExceeded
from vecdb.limits import batch_rows_max
from vecdb.schema import CollectionConfig, IndexConfig, Record, SearchParams
from vecdb.v1 import collections_pb2, records_pb2, search_pb2, tenants_pb2
from vecdb.validate import AccessLists, IdBatch, MixtureQuery
from vecdb.wire.arrays import access_fields, ids_message, vectors_message
from vecdb.wire.messages import collection_of, fields_message, index_message, params_message, record_of
from vecdb.wire.search_response import hits_of, report_of

_BATCH_BYTES = 8 << 20  # of one message of a stream, about
_NAMES_PAGE = 1_000  # names of tenants in one answer
_ID_BYTES = 16  # of a row in it, beside vector and fields
_MODES = {"upsert": records_pb2.WRITE_MODE_UPSERT, "insert": records_pb2.WRITE_MODE_INSERT}


class RemoteCollection:
    def __init__(self, line: Connection, config: CollectionConfig) -> None:
        self._line = line
        self._name = config.name
        self._config = config
        self._row_bytes = config.dim * np.dtype(config.dtype).itemsize + _ID_BYTES

    @property
    def id_kind(self) -> None:
        return None

    @property
    def rows_per_call(self) -> int:
        return max(1, min(batch_rows_max, _BATCH_BYTES // self._row_bytes))

    def config(self) -> CollectionConfig:
        request = collections_pb2.GetCollectionRequest(name=self._name)
        return self._line.ask("GetCollection", request, lambda answer: collection_of(answer.collection))

    # -- writes ------------------------------------------------------------------------------------

    def put(self, batch: Batch, owner: bytes, mode: Mode, request_id: bytes | None) -> int:
        request = self._write(batch, slice(0, batch.ids.n), owner, mode, _or_new(request_id))
        size_bytes = request.ByteSize()
        if size_bytes > MESSAGE_BYTES_MAX:
            raise LimitExceeded(
                f"one atomic call to a server takes at most {MESSAGE_BYTES_MAX:,} bytes, this one has {size_bytes:,}: "
                "write it in several calls, or with atomic=False"
            )
        return self._line.ask("Write", request, _count)

    def put_all(self, batches: Iterable[Batch], owner: bytes, mode: Mode) -> int:
        return self._line.ingest(IngestStream(self._writes(batches, owner, mode)))

    def _writes(self, batches: Iterable[Batch], owner: bytes, mode: Mode) -> Iterator[records_pb2.WriteRequest]:
        """Of batches, each in as many messages as its fields make necessary."""
        call = uuid.uuid4().hex
        number = 0
        for batch in batches:
            for part in _parts(batch, self._row_bytes):
                yield self._write(batch, part, owner, mode, f"{call}-{number}")
                number += 1

    def _write(self, batch: Batch, part: slice, owner: bytes, mode: Mode, request_id: str) -> records_pb2.WriteRequest:
        rows = part.stop - part.start
        whole = rows == batch.ids.n
        lists = batch.tenants
        if lists is not None and not whole:
            lists = lists.take(np.arange(part.start, part.stop), batch.ids.n)
        return records_pb2.WriteRequest(
            collection=self._name,
            mode=_MODES[mode],
            ids=ids_message(batch.ids, part),
            vectors=vectors_message(batch.vectors[part]),
            fields=fields_message(batch.fields if batch.fields is None or whole else batch.fields[part]),
            owner=owner.decode(),
            request_id=request_id,
            keep_tenants=lists is not None and lists.kept,
            **access_fields(lists, rows),
        )

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
        return self._line.ask("Update", request, _count)

    def delete(self, ids: IdBatch, owner: bytes, request_id: bytes | None) -> int:
        request = records_pb2.DeleteRequest(
            collection=self._name, ids=ids_message(ids), owner=owner.decode(), request_id=_or_new(request_id)
        )
        return self._line.ask("Delete", request, _count)

    def change_access(
        self, ids: IdBatch, tenants: AccessLists, owner: bytes, *, granted: bool, request_id: bytes | None
    ) -> int:
        make, rpc = (tenants_pb2.GrantRequest, "Grant") if granted else (tenants_pb2.RevokeRequest, "Revoke")
        request = make(
            collection=self._name,
            ids=ids_message(ids),
            owner=owner.decode(),
            request_id=_or_new(request_id),
            **access_fields(tenants, ids.n),
        )
        return self._line.ask(rpc, request, _count)

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
        return self._line.ask("CreateTenants", request, _count)

    def drop_tenant(self, name: bytes, request_id: bytes | None) -> None:
        request = tenants_pb2.DropTenantRequest(
            collection=self._name, name=name.decode(), request_id=_or_new(request_id)
        )
        return self._line.ask("DropTenant", request, _nothing)

    # -- reads -------------------------------------------------------------------------------------

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
    ) -> Hits:
        return self._ask_search(
            limit, params, select, include_vectors, explain, tenants, single, stop, vectors=vectors_message(queries)
        )

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
    ) -> Iterator[Hits]:
        search = self._search_request(limit, params, select, include_vectors, False, tenants)

        def asked(query: Any) -> tuple[search_pb2.StreamSearchRequest, Callable[[Any], Hits]]:
            array, single = check(query)
            request = search_pb2.StreamSearchRequest(search=search)
            request.search.vectors.CopyFrom(vectors_message(array))
            decode = partial(hits_of, limit=limit, metric=self._config.metric, single=single, select=select)
            return request, lambda answer: decode(answer.hits)

        return self._line.exchange("StreamSearch", queries, asked, window)

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
        return self._ask_search(limit, params, select, include_vectors, explain, tenants, True, None, mixture=mixture)

    def _ask_search(
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
        """query : the one field of the oneof `query`."""
        request = self._search_request(limit, params, select, include_vectors, explain, tenants, **query)
        decode = partial(hits_of, limit=limit, metric=self._config.metric, single=single, select=select)
        return self._line.ask("Search", request, decode, stop)

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

    def get(self, ids: IdBatch, owner: bytes, *, include_vectors: bool, tenants: tuple[str, ...]) -> Any:
        request = records_pb2.GetRequest(
            collection=self._name,
            ids=ids_message(ids),
            include_vectors=include_vectors,
            owner=owner.decode(),
            tenants=tenants,
        )
        return self._line.ask("Get", request, partial(self._found, scalar=ids.scalar))

    def _found(self, answer: Any, scalar: bool) -> Any:
        dtype = self._config.dtype
        found = [record_of(one.record, dtype) if one.HasField("record") else None for one in answer.records]
        return found[0] if scalar else found

    def iter(self, batch: int, *, include_vectors: bool, tenants: tuple[str, ...]) -> Iterator[list[Record]]:
        request = records_pb2.ListRequest(
            collection=self._name, batch=batch, include_vectors=include_vectors, tenants=tenants
        )
        return self._line.listed("List", request, Rebatcher(batch, partial(record_of, dtype=self._config.dtype)))

    def count(self, tenants: tuple[str, ...]) -> int:
        return self._line.ask("Count", records_pb2.CountRequest(collection=self._name, tenants=tenants), _count)

    def tenants(self, after: str | None, limit: int | None) -> Iterator[str]:
        request = tenants_pb2.ListTenantsRequest(
            collection=self._name, page_token=after or "", page_size=min(limit or _NAMES_PAGE, _NAMES_PAGE)
        )
        return self._line.pages("ListTenants", request, limit)

    # -- care --------------------------------------------------------------------------------------

    def stats(self) -> dict[str, Any]:
        request = collections_pb2.GetCollectionStatsRequest(collection=self._name)
        return self._line.ask("GetCollectionStats", request, _stats)

    def tenant_stats(self, name: str) -> dict[str, Any]:
        request = tenants_pb2.GetTenantStatsRequest(collection=self._name, tenant=name)
        return self._line.ask("GetTenantStats", request, _stats)

    def evaluate(
        self, queries: NDArray[np.float32], limit: int, params: SearchParams, tenants: tuple[str, ...]
    ) -> dict[str, Any]:
        request = search_pb2.EvaluateRequest(
            collection=self._name,
            queries=vectors_message(queries),
            limit=limit,
            params=params_message(params),
            tenants=tenants,
        )
        return self._line.ask("Evaluate", request, lambda answer: report_of(answer.report_json))

    def tune(self, queries: NDArray[np.float32], limit: int, recall: float) -> list[dict[str, float]]:
        request = search_pb2.TuneRequest(
            collection=self._name, queries=vectors_message(queries), limit=limit, recall=recall
        )
        return self._line.ask("Tune", request, lambda answer: report_of(answer.curve_json))

    def optimize(self, threads: int | None, progress: Progress) -> None:
        request = collections_pb2.OptimizeCollectionRequest(collection=self._name, threads=threads or 0)
        return self._line.follow("OptimizeCollection", request, told(progress), _nothing)

    def reindex(self, index: IndexConfig | None, progress: Progress) -> None:
        request = collections_pb2.ReindexCollectionRequest(collection=self._name, index=index_message(index))
        return self._line.follow("ReindexCollection", request, told(progress), _nothing)

    def vacuum(self, progress: Progress) -> None:
        request = collections_pb2.VacuumCollectionRequest(collection=self._name)
        return self._line.follow("VacuumCollection", request, told(progress), _nothing)

    def check(self) -> list[str]:
        request = collections_pb2.CheckCollectionRequest(collection=self._name)
        return self._line.follow("CheckCollection", request, _nothing, lambda last: list(last.problems))


def told(progress: Progress) -> Callable[[Any], None]:
    """What hands the progress of each message on."""
    if progress is None:
        return _nothing

    def tell(message: Any) -> None:
        if message.progress.total:  # else the work has not begun
            progress(message.progress.done, message.progress.total)

    return tell


def _parts(batch: Batch, row_bytes: int) -> Iterator[slice]:
    """Rows that go into one message each: one and all of them, unless their fields double its size."""
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


def _nothing(answer: Any) -> None:
    """What an answer says that says only that it is done."""
