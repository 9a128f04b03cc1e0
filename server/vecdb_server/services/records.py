"""RecordService: writes, and reads by id."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Literal

import numpy as np

from vecdb import Collection, InvalidArgument, LimitExceeded, Record
from vecdb.v1 import records_pb2 as pb
from vecdb.wire.arrays import id_list_message, ids_of, tenants_of, vectors_of
from vecdb.wire.messages import fields_of, record_message
from vecdb_server.security.auth import Caller
from vecdb_server.services.context import ServerContext, request_key
from vecdb_server.services.pipeline import TwoStagePipeline

_MODES: dict[pb.WriteMode, Literal["upsert", "insert", "skip"]] = {
    pb.WRITE_MODE_UNSPECIFIED: "upsert",
    pb.WRITE_MODE_UPSERT: "upsert",
    pb.WRITE_MODE_INSERT: "insert",
    pb.WRITE_MODE_SKIP: "skip",
}
_LIST_BATCH = 1_000
_LIST_BATCH_MAX = 65_536
_LIST_BYTES = 4 << 20  # the approximate size of one message of a list


class Records:
    def __init__(self, server: ServerContext) -> None:
        self._server = server

    # -- writes --------------------------------------------------------------------------------------

    async def Write(self, request: Any, caller: Caller, context: Any) -> Any:
        docs = await self._server.collection(caller, request.collection, writes_records=True)
        if request.mode == pb.WRITE_MODE_ADD:
            made = await self._server.write(caller, context, lambda: _add(docs, request, caller))
            return pb.WriteResponse(count=len(made), ids=id_list_message(made))
        count = await self._server.write(caller, context, lambda: _prepare(docs, request, caller)())
        return pb.WriteResponse(count=count)

    async def Ingest(self, requests: Any, caller: Caller, context: Any) -> None:
        collection, pipeline = "", TwoStagePipeline()

        def begin(request: Any) -> Any:
            nonlocal collection
            collection = request.write.collection or collection
            return asyncio.ensure_future(self._ingest_batch(collection, request, caller, context, pipeline))

        await self._server.serve_stream(requests, caller, context, begin)

    async def _ingest_batch(
        self, collection: str, request: Any, caller: Caller, context: Any, pipeline: TwoStagePipeline
    ) -> Any:
        """Checks one batch while the batch before it is written. Batches are written in the order in which they came,
        because a later one may overwrite records of an earlier one.
        """

        async def prepare() -> Callable[[], int]:
            docs = await self._server.collection(caller, collection, writes_records=True)
            write: Callable[[], int] = await self._server.write(
                caller, context, lambda: _prepare(docs, request.write, caller), streamed=True
            )
            return write

        count = await pipeline.run(prepare, lambda write: self._server.write(caller, context, write, streamed=True))
        return pb.IngestResponse(batch=request.batch, count=count)

    async def Update(self, request: Any, caller: Caller, context: Any) -> Any:
        docs = await self._server.collection(caller, request.collection)

        def update() -> int:
            return docs.update(
                ids_of(request.ids),
                vectors_of(request.vectors) if request.HasField("vectors") else None,
                fields_of(request.fields) if request.HasField("fields") else None,
                owner=caller.owner(request.owner),
                request_id=request_key(caller, request.request_id),
            )

        return pb.UpdateResponse(count=await self._server.write(caller, context, update))

    async def Delete(self, request: Any, caller: Caller, context: Any) -> Any:
        docs = await self._server.collection(caller, request.collection)

        def delete() -> int:
            return docs.delete(
                ids_of(request.ids),
                owner=caller.owner(request.owner),
                request_id=request_key(caller, request.request_id),
            )

        return pb.DeleteResponse(count=await self._server.write(caller, context, delete))

    # -- reads ---------------------------------------------------------------------------------------

    async def Get(self, request: Any, caller: Caller, context: Any) -> Any:
        docs = await self._server.collection(caller, request.collection)
        tenants = caller.tenants(request.tenants, docs.name)
        count = len(request.ids.ints.values) + len(request.ids.strings.values)
        self._server.check_answer(count * docs.dim * 4 if request.include_vectors else 0)

        def get(stop: Any) -> Any:
            found = _get(docs, ids_of(request.ids), request, caller, tenants)
            return pb.GetResponse(
                records=[pb.FoundRecord(record=None if one is None else _message(one, caller)) for one in found]
            )

        kind = ("get", docs.name, request.include_vectors)
        return await self._server.read(caller, context, kind, count, get)

    async def Count(self, request: Any, caller: Caller, context: Any) -> Any:
        docs = await self._server.collection(caller, request.collection)
        tenants = caller.tenants(request.tenants, docs.name)
        kind = ("count", docs.name, tenants is None)
        count = await self._server.read(caller, context, kind, 1, lambda stop: docs.count(tenant=tenants))
        return pb.CountResponse(count=count)

    async def List(self, request: Any, caller: Caller, context: Any) -> None:
        docs = await self._server.collection(caller, request.collection)
        tenants = caller.tenants(request.tenants, docs.name)
        batch_max = request.batch or _LIST_BATCH
        if batch_max > _LIST_BATCH_MAX:
            raise LimitExceeded(f"batch must be from 1 to {_LIST_BATCH_MAX:,}, got {batch_max:,}")
        row_bytes = 64 + (docs.dim * np.dtype(docs.dtype).itemsize if request.include_vectors else 0)
        batch = max(1, min(batch_max, _LIST_BYTES // row_bytes))
        pages = Pages(docs.iter(batch, include_vectors=request.include_vectors, tenant=tenants), caller)
        release = partial(self._server.run_detached, caller, pages.close)  # it holds a transaction
        try:
            while messages := await self._server.kernels.run(caller.group, lambda stop: pages.next()):
                for message in messages:
                    await self._server.send(context, message, release)
        finally:
            release()


class Pages:
    """A list that is being sent. A lock lets in one thread at a time; any thread may be it."""

    def __init__(self, batches: Iterator[list[Record]], caller: Caller) -> None:
        self._batches: Any = batches
        self._caller = caller
        self._lock = threading.Lock()

    def next(self) -> list[Any]:
        """The next batch as messages, cut where large fields make it larger than planned; empty: the end."""
        with self._lock:
            records = next(self._batches, ())
        messages = []
        size_bytes = _LIST_BYTES
        for record in records:
            if size_bytes >= _LIST_BYTES:
                messages.append(pb.ListResponse())
                size_bytes = 0
            message = _message(record, self._caller)
            messages[-1].records.append(message)
            size_bytes += message.ByteSize()
        return messages

    def close(self) -> None:
        with self._lock:
            self._batches.close()


def _prepare(docs: Collection, request: Any, caller: Caller) -> Callable[[], int]:
    """Checks a write. The result makes it when it is called."""
    mode = _MODES.get(request.mode)
    if mode is None:
        raise InvalidArgument(f"write mode {request.mode} is unknown, or not one of this call")
    owner, tenants, keep = _access(docs, request, caller)
    return docs.prepare(
        ids_of(request.ids),
        vectors_of(request.vectors),
        fields_of(request.fields) if request.HasField("fields") else None,
        tenants,
        keep_tenants=keep,
        mode=mode,
        owner=owner,
        request_id=request_key(caller, request.request_id),
    )


def _add(docs: Collection, request: Any, caller: Caller) -> list[Any]:
    """Writes records under new ids; returns these."""
    if request.HasField("ids"):
        raise InvalidArgument("a write that makes ids takes none: leave them out, or upsert")
    owner, tenants, _ = _access(docs, request, caller)
    vectors = vectors_of(request.vectors)
    made: list[Any] = docs.add(
        vectors.reshape(-1, vectors.shape[-1]),
        fields_of(request.fields) if request.HasField("fields") else None,
        tenants=tenants,
        owner=owner,
        request_id=request_key(caller, request.request_id),
    )
    return made


def _access(docs: Collection, request: Any, caller: Caller) -> tuple[str, Any, bool]:
    """Whose the records of a write are, who may see them, and whether lists that are there stay."""
    tenants = caller.granted(tenants_of(request), docs.name)
    caller.check_receivers(tenants, docs)
    keep = request.keep_tenants
    if (
        caller.tenant is not None and tenants is None
    ):  # its records keep their access lists; new records are seen by the tenant alone
        tenants, keep = [caller.tenant], True
    return caller.owner(request.owner), tenants, keep


def _get(docs: Collection, ids: Any, request: Any, caller: Caller, tenants: list[str] | None) -> list[Record | None]:
    if caller.tenant is None:
        found: list[Record | None] = docs.get(
            ids, include_vectors=request.include_vectors, owner=request.owner, tenant=tenants
        )
        return found
    return _get_for_tenant(docs, ids, request, caller.tenant)


def _get_for_tenant(docs: Collection, ids: Any, request: Any, tenant: str) -> list[Record | None]:
    """For each id the tenant's own record; otherwise the record without an owner, if it was granted to the tenant."""
    own: list[Record | None] = docs.get(
        ids, include_vectors=request.include_vectors, owner=request.owner or tenant, tenant=tenant
    )
    if request.owner or all(one is not None for one in own):
        return own
    others = docs.get(ids, include_vectors=request.include_vectors, tenant=tenant)
    return [mine if mine is not None else other for mine, other in zip(own, others, strict=True)]


def _message(record: Record, caller: Caller) -> Any:
    """A record as the caller may see it: a tenant's token sees only its own name, as a tenant and as an owner."""
    if caller.tenant is None:
        return record_message(record)
    owner = record.owner if record.owner == caller.tenant else ""
    return record_message(Record(record.id, record.fields, [caller.tenant], record.vector, owner))
