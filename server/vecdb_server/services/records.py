"""Records: writes, and reads by id."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Literal

import numpy as np

from vecdb import Collection, InvalidArgument, LimitExceeded, Record
from vecdb.v1 import records_pb2 as pb
from vecdb.wire.arrays import ids_of, tenants_of, vectors_of
from vecdb.wire.messages import fields_of, record_message
from vecdb_server.auth import Caller
from vecdb_server.services.context import House, once
from vecdb_server.services.pipeline import Turns

_MODES: dict[pb.WriteMode, Literal["upsert", "insert"]] = {
    pb.WRITE_MODE_UNSPECIFIED: "upsert",
    pb.WRITE_MODE_UPSERT: "upsert",
    pb.WRITE_MODE_INSERT: "insert",
}
_LIST_BATCH = 1_000
_LIST_BATCH_MAX = 65_536
_LIST_BYTES = 4 << 20  # of one message of a list, about


class Records:
    def __init__(self, house: House) -> None:
        self._house = house

    # -- writes --------------------------------------------------------------------------------------

    async def Write(self, request: Any, caller: Caller, context: Any) -> Any:
        docs = await self._house.collection(caller, request.collection)
        count = await self._house.write(caller, context, lambda: _prepared(docs, request, caller)())
        return pb.WriteResponse(count=count)

    async def Ingest(self, requests: Any, caller: Caller, context: Any) -> None:
        collection, turns = "", Turns()

        def begin(request: Any) -> Any:
            nonlocal collection
            collection = request.write.collection or collection
            return asyncio.ensure_future(self._ingested(collection, request, caller, context, turns))

        await self._house.streamed(requests, caller, context, begin)

    async def _ingested(self, collection: str, request: Any, caller: Caller, context: Any, turns: Turns) -> Any:
        """One batch is checked while the one before it is written: a later one may overwrite what that wrote."""

        async def prepared() -> Callable[[], int]:
            docs = await self._house.collection(caller, collection)
            write: Callable[[], int] = await self._house.write(
                caller, context, lambda: _prepared(docs, request.write, caller), streamed=True
            )
            return write

        count = await turns.take(prepared, lambda write: self._house.write(caller, context, write, streamed=True))
        return pb.IngestResponse(batch=request.batch, count=count)

    async def Update(self, request: Any, caller: Caller, context: Any) -> Any:
        docs = await self._house.collection(caller, request.collection)

        def update() -> int:
            return docs.update(
                ids_of(request.ids),
                vectors_of(request.vectors) if request.HasField("vectors") else None,
                fields_of(request.fields) if request.HasField("fields") else None,
                owner=caller.owner(request.owner),
                request_id=once(caller, request.request_id),
            )

        return pb.UpdateResponse(count=await self._house.write(caller, context, update))

    async def Delete(self, request: Any, caller: Caller, context: Any) -> Any:
        docs = await self._house.collection(caller, request.collection)

        def delete() -> int:
            return docs.delete(
                ids_of(request.ids), owner=caller.owner(request.owner), request_id=once(caller, request.request_id)
            )

        return pb.DeleteResponse(count=await self._house.write(caller, context, delete))

    # -- reads ---------------------------------------------------------------------------------------

    async def Get(self, request: Any, caller: Caller, context: Any) -> Any:
        docs = await self._house.collection(caller, request.collection)
        ids, tenants = ids_of(request.ids), caller.tenants(request.tenants, docs.name)
        self._house.check_answer(len(ids) * docs.dim * 4 if request.include_vectors else 0)

        def get(stop: Any) -> Any:
            found = _get(docs, ids, request, caller, tenants)
            return pb.GetResponse(
                records=[pb.FoundRecord(record=None if one is None else _shown(one, caller)) for one in found]
            )

        kind = ("get", docs.name, request.include_vectors)
        return await self._house.read(caller, context, kind, len(ids), get)

    async def Count(self, request: Any, caller: Caller, context: Any) -> Any:
        docs = await self._house.collection(caller, request.collection)
        tenants = caller.tenants(request.tenants, docs.name)
        kind = ("count", docs.name, tenants is None)
        count = await self._house.read(caller, context, kind, 1, lambda stop: docs.count(tenant=tenants))
        return pb.CountResponse(count=count)

    async def List(self, request: Any, caller: Caller, context: Any) -> None:
        docs = await self._house.collection(caller, request.collection)
        tenants = caller.tenants(request.tenants, docs.name)
        asked = request.batch or _LIST_BATCH
        if asked > _LIST_BATCH_MAX:
            raise LimitExceeded(f"batch must be from 1 to {_LIST_BATCH_MAX:,}, got {asked:,}")
        row_bytes = 64 + (docs.dim * np.dtype(docs.dtype).itemsize if request.include_vectors else 0)
        batch = max(1, min(asked, _LIST_BYTES // row_bytes))
        pages = Pages(docs.iter(batch, include_vectors=request.include_vectors, tenant=tenants), caller)
        let_go = partial(self._house.apart, caller, pages.close)  # it holds a transaction
        try:
            while messages := await self._house.kernels.run(caller.name, lambda stop: pages.next()):
                for message in messages:
                    await self._house.sent(context, message, let_go)
        finally:
            let_go()


class Pages:
    """A list under way: one thread at a time, whichever it is."""

    def __init__(self, batches: Iterator[list[Record]], caller: Caller) -> None:
        self._batches: Any = batches
        self._caller = caller
        self._lock = threading.Lock()

    def next(self) -> list[Any]:
        """The next batch as messages, which fields may have made larger than planned; none: the end."""
        with self._lock:
            records = next(self._batches, ())
        messages = []
        size_bytes = _LIST_BYTES
        for record in records:
            if size_bytes >= _LIST_BYTES:
                messages.append(pb.ListResponse())
                size_bytes = 0
            shown = _shown(record, self._caller)
            messages[-1].records.append(shown)
            size_bytes += shown.ByteSize()
        return messages

    def close(self) -> None:
        with self._lock:
            self._batches.close()


def _prepared(docs: Collection, request: Any, caller: Caller) -> Callable[[], int]:
    """A write that is checked, and made when this is called."""
    mode = _MODES.get(request.mode)
    if mode is None:
        raise InvalidArgument(f"write mode {request.mode} is unknown")
    ids = ids_of(request.ids)
    owner = caller.owner(request.owner)
    tenants = caller.granted(tenants_of(request), docs.name)
    keep = request.keep_tenants
    if caller.tenant is not None and tenants is None:  # lists of its records stay, new ones are its own
        tenants, keep = [caller.tenant], True
    return docs.prepare(
        ids,
        vectors_of(request.vectors),
        fields_of(request.fields) if request.HasField("fields") else None,
        tenants,
        keep_tenants=keep,
        mode=mode,
        owner=owner,
        request_id=once(caller, request.request_id),
    )


def _get(docs: Collection, ids: Any, request: Any, caller: Caller, tenants: list[str] | None) -> list[Record | None]:
    if caller.tenant is None:
        found: list[Record | None] = docs.get(
            ids, include_vectors=request.include_vectors, owner=request.owner, tenant=tenants
        )
        return found
    return _seen_by(docs, ids, request, caller.tenant)


def _seen_by(docs: Collection, ids: Any, request: Any, tenant: str) -> list[Record | None]:
    """A tenant's own record of that id; else the one without an owner, where it was granted."""
    own: list[Record | None] = docs.get(
        ids, include_vectors=request.include_vectors, owner=request.owner or tenant, tenant=tenant
    )
    if request.owner or all(one is not None for one in own):
        return own
    others = docs.get(ids, include_vectors=request.include_vectors, tenant=tenant)
    return [mine if mine is not None else other for mine, other in zip(own, others, strict=True)]


def _shown(record: Record, caller: Caller) -> Any:
    """A record as a caller may see it: under a tenant's token, granted to that tenant alone."""
    if caller.tenant is None:
        return record_message(record)
    return record_message(Record(record.id, record.fields, [caller.tenant], record.vector))
