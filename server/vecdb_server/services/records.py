"""RecordService: writes, and reads by id or filter. What it tells of fields is in field_facts.py."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from typing import Any, ClassVar, Literal

from vecdb import Collection, InvalidArgument, LimitExceeded, Record
from vecdb.v1 import records_pb2 as pb
from vecdb.wire.arrays import (
    id_list_message,
    ids_of,
    some_vectors_of,
    tenant_columns_of,
    tenants_of,
    vector_bytes,
    vector_bytes_max,
    vectors_of,
)
from vecdb.wire.bulk_writes import ingest_request_of
from vecdb.wire.filters import RECORDS_MAX, Tree, matches
from vecdb.wire.messages import fields_of, one_field_map, record_message
from vecdb_server.security.auth import Caller
from vecdb_server.security.cursors import CursorSeal
from vecdb_server.services.context import request_key
from vecdb_server.services.field_facts import FactsOfFields
from vecdb_server.services.pipeline import TwoStagePipeline
from vecdb_server.status_errors import parse_message

_MODES: dict[pb.WriteMode, Literal["upsert", "insert", "skip"]] = {
    pb.WRITE_MODE_UNSPECIFIED: "upsert",
    pb.WRITE_MODE_UPSERT: "upsert",
    pb.WRITE_MODE_INSERT: "insert",
    pb.WRITE_MODE_SKIP: "skip",
}
_LIST_BATCH = 1_000
_LIST_BATCH_MAX = 65_536
_LIST_BYTES = 4 << 20  # the approximate size of one message of a list


class Records(FactsOfFields):
    """`Ingest` gets its requests as bytes, and returns those of its answers: they are read on a thread, beside the
    commit of the batch before, and their vectors stay where they are.
    """

    raw: ClassVar = {"Ingest": None}

    # -- writes --------------------------------------------------------------------------------------

    async def Write(self, request: Any, caller: Caller, context: Any) -> Any:
        docs = await self._server.collection(caller, request.collection, writes_records=True)
        if request.mode == pb.WRITE_MODE_ADD:
            made = await self._server.write(caller, context, lambda: _add(docs, request, caller))
            return pb.WriteResponse(
                count=len(made), ids=id_list_message(made), sequence=self._server.sequence_for(caller)
            )
        count = await self._server.write(caller, context, lambda: _prepare(docs, request, caller)())
        return pb.WriteResponse(count=count, sequence=self._server.sequence_for(caller))

    async def Ingest(self, requests: Any, caller: Caller, context: Any) -> None:
        names, pipeline = [""], TwoStagePipeline()

        def begin(request: bytes) -> Any:
            return asyncio.ensure_future(self._ingest_batch(names, request, caller, context, pipeline))

        await self._server.serve_stream(requests, caller, context, begin)

    async def _ingest_batch(
        self, names: list[str], data: bytes, caller: Caller, context: Any, pipeline: TwoStagePipeline
    ) -> bytes:
        """Reads and checks one batch while the batch before it is written. Batches are written in the order in which
        they came, because a later one may overwrite records of an earlier one. names : [collection of the batch before]
        """
        server, number = self._server, 0

        async def prepare() -> Callable[[], int]:
            nonlocal number
            request, numbers = await server.write(
                caller, context, lambda: parse_message(ingest_request_of, data), streamed=True
            )
            number, names[0] = request.batch, request.write.collection or names[0]
            docs = await server.collection(caller, names[0], writes_records=True)
            write: Callable[[], int] = await server.write(
                caller, context, lambda: _prepare(docs, request.write, caller, numbers), streamed=True
            )
            return write

        count = await pipeline.run(prepare, lambda write: server.write(caller, context, write, streamed=True))
        answer = pb.IngestResponse(batch=number, count=count, sequence=server.sequence_for(caller))
        made: bytes = answer.SerializeToString()
        return made

    async def Update(self, request: Any, caller: Caller, context: Any) -> Any:
        docs = await self._server.collection(caller, request.collection)
        by_filter = _is_by_filter(request)
        node = await self._server.filter_of(caller, request)

        def update() -> int:
            key = request_key(caller, request.request_id)
            vectors = vectors_of(request.vectors) if request.HasField("vectors") else None
            if by_filter:
                return docs.update(
                    vectors=vectors, fields=one_field_map(request.fields), filter=node, request_id=key,
                    tenant=caller.tenants(request.tenants, docs.name), owner=caller.owner_matched(request),
                )  # fmt: skip
            return docs.update(
                ids_of(request.ids),
                vectors,
                fields_of(request.fields) if request.HasField("fields") else None,
                owner=caller.owner(request.owner),
                request_id=key,
            )

        count = await self._server.write(caller, context, update)
        return pb.UpdateResponse(count=count, sequence=self._server.sequence_for(caller))

    async def Delete(self, request: Any, caller: Caller, context: Any) -> Any:
        docs = await self._server.collection(caller, request.collection)
        by_filter = _is_by_filter(request)
        node = await self._server.filter_of(caller, request)

        def delete() -> int:
            key = request_key(caller, request.request_id)
            if by_filter:
                tenants, owner = caller.tenants(request.tenants, docs.name), caller.owner_matched(request)
                return docs.delete(filter=node, tenant=tenants, owner=owner, request_id=key)
            return docs.delete(ids_of(request.ids), owner=caller.owner(request.owner), request_id=key)

        count = await self._server.write(caller, context, delete)
        return pb.DeleteResponse(count=count, sequence=self._server.sequence_for(caller))

    # -- reads ---------------------------------------------------------------------------------------

    async def Get(self, request: Any, caller: Caller, context: Any) -> Any:
        docs = await self._server.collection(caller, request.collection)
        tenants = caller.tenants(request.tenants, docs.name)
        node = await self._server.filter_of(caller, request)
        if not request.HasField("ids") and (request.HasField("filter") or request.limit):
            read = partial(self._get_matching, docs, request, caller, tenants, node)
            return await self._server.read(caller, context, None, 1, read)
        if request.limit or request.HasField("only_owner"):
            raise InvalidArgument("limit and only_owner are of a request without ids: leave them out")
        count = len(request.ids.ints.values) + len(request.ids.strings.values)
        self._server.check_answer(count * vector_bytes_max(docs.dim, docs.dtype) if request.include_vectors else 0)

        def get(stop: Any) -> Any:
            found = _get(docs, ids_of(request.ids), request, caller, tenants, node)
            return pb.GetResponse(
                records=[pb.FoundRecord(record=None if one is None else _message(one, caller)) for one in found]
            )

        kind = ("get", docs.name, request.include_vectors) if node is None else None
        return await self._server.read(caller, context, kind, count, get)

    def _get_matching(
        self, docs: Collection, request: Any, caller: Caller, tenants: list[str] | None, node: Tree | None, stop: Any
    ) -> Any:
        """Records that match, as many as one message has room for. Raises LimitExceeded where they are more."""
        most = RECORDS_MAX
        if request.limit > most:
            raise LimitExceeded(f"limit must be from 1 to {most:,}, got {request.limit:,}; List gives any number")
        owner = _owner_read(request, caller)
        answer, size_bytes = pb.GetResponse(), 0
        pages = docs.iter(
            _rows_a_message(docs, request.include_vectors), filter=node, tenant=tenants,
            include_vectors=request.include_vectors,
            limit=(request.limit or most + 1) if owner is None else None,
        )  # fmt: skip
        with closing(pages):  # type: ignore[type-var]
            for record in (one for page in pages if not stop() for one in page if owner in (None, one.owner)):
                answer.records.add().record.CopyFrom(_message(record, caller))
                size_bytes += answer.records[-1].ByteSize()
                self._server.check_answer(size_bytes)
                if len(answer.records) == request.limit:
                    break
                if len(answer.records) > most:
                    raise LimitExceeded(f"more than {most:,} records match: give a limit, or use List")
        return answer

    async def Count(self, request: Any, caller: Caller, context: Any) -> Any:
        docs = await self._server.collection(caller, request.collection)
        tenants = caller.tenants(request.tenants, docs.name)
        node = await self._server.filter_of(caller, request)
        kind = ("count", docs.name, tenants is None) if node is None else None
        count = await self._server.read(caller, context, kind, 1, lambda stop: docs.count(filter=node, tenant=tenants))
        return pb.CountResponse(count=count)

    async def List(self, request: Any, caller: Caller, context: Any) -> None:
        docs = await self._server.collection(caller, request.collection)
        tenants = caller.tenants(request.tenants, docs.name)
        node = await self._server.filter_of(caller, request)
        batch_max = request.batch or _LIST_BATCH
        if batch_max > _LIST_BATCH_MAX:
            raise LimitExceeded(f"batch must be from 1 to {_LIST_BATCH_MAX:,}, got {batch_max:,}")
        owner = _owner_read(request, caller)
        batches = docs.iter(
            _part_of(batch_max, _rows_a_message(docs, request.include_vectors)),
            include_vectors=request.include_vectors, tenant=tenants, filter=node,
            after=self._server.cursors.opened(request.after, caller), order_by=request.order_by or None,
            descending=request.descending, limit=(request.limit or None) if owner is None else None,
        )  # fmt: skip
        pages = Pages(batches, caller, self._server.cursors, owner, request.limit)
        release = partial(self._server.run_detached, caller, pages.close)  # it holds a transaction
        try:
            while messages := await self._server.kernels.run(caller.group, lambda stop: pages.next()):
                self._server.check_answers()
                for message in messages:
                    await self._server.send(caller, context, message, release)
        finally:
            release()


class Pages:
    """A list that is being sent. A lock lets in one thread at a time; any thread may be it.

    owner : whose records, None for everybody's.   limit : of one owner's records send so many; 0: all.
    """

    def __init__(
        self, batches: Iterator[list[Record]], caller: Caller, cursors: CursorSeal, owner: str | None, limit: int
    ) -> None:
        self._batches: Any = batches
        self._caller = caller
        self._cursors = cursors
        self._owner = owner
        self._left = limit if owner is not None and limit else None
        self._lock = threading.Lock()

    def next(self) -> list[Any]:
        """The next batch as messages, cut where large fields make it larger than planned; empty: the end. The last of
        them has the cursor of the batch.
        """
        messages: list[Any] = []
        while not messages and self._left != 0:
            with self._lock:
                page = next(self._batches, None)
            if page is None:
                break
            messages = self._messages(self._of_owner(page))
            if messages and self._left != 0:
                messages[-1].cursor = self._cursors.sealed(page.cursor, self._caller)
        return messages

    def _of_owner(self, page: list[Record]) -> list[Record]:
        if self._owner is None:
            return page
        found = [record for record in page if record.owner == self._owner][: self._left]
        if self._left is not None:
            self._left -= len(found)
        return found

    def _messages(self, records: list[Record]) -> list[Any]:
        messages: list[Any] = []
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


def _rows_a_message(docs: Collection, include_vectors: bool) -> int:
    row_bytes = 64 + (vector_bytes(docs.dim, docs.dtype) if include_vectors else 0)
    return max(1, _LIST_BYTES // row_bytes)


def _part_of(batch: int, most: int) -> int:
    """How many records are read at once: about `most`, and so that some of these parts are a batch, whose end has a
    cursor. That of a large prime is 1.
    """
    if batch <= most:
        return batch
    parts = [number for number in range(1, min(batch, 4 * most) + 1) if batch % number == 0]
    return min(parts, key=lambda number: max(number / most, most / number))


def _is_by_filter(request: Any) -> bool:
    """Whether a write names records by filter. Raises InvalidArgument where it is not clear which it means."""
    if request.HasField("filter"):
        if request.HasField("ids"):
            raise InvalidArgument("a write names records by ids or by filter, not both")
        if request.owner:
            raise InvalidArgument("owner is of ids: with a filter set only_owner")
        return True
    if request.HasField("only_owner") or request.tenants:
        raise InvalidArgument("only_owner and tenants are of a filter: leave them out, or set it")
    return False


def _owner_read(request: Any, caller: Caller) -> str | None:
    """Whose records a list of those that match has; None for everybody's that the caller may see."""
    return caller.owner_matched(request) if request.HasField("only_owner") else None


def _prepare(docs: Collection, request: Any, caller: Caller, numbers: Any = None) -> Callable[[], int]:
    """Checks a write. The result makes it when it is called. numbers : of its vectors, where the message lacks them."""
    mode = _MODES.get(request.mode)
    if mode is None:
        raise InvalidArgument(f"write mode {request.mode} is unknown, or not one of this call")
    owner, tenants, keep = _access(docs, request, caller)
    return docs.prepare(
        ids_of(request.ids),
        some_vectors_of(request, numbers),
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
    made: list[Any] = docs.add(
        some_vectors_of(request),
        fields_of(request.fields) if request.HasField("fields") else None,
        tenants=tenants,
        owner=owner,
        request_id=request_key(caller, request.request_id),
    )
    return made


def _access(docs: Collection, request: Any, caller: Caller) -> tuple[str, Any, bool]:
    """Whose the records of a write are, who may see them, and whether lists that are there stay."""
    if caller.tenant is None:  # it may name any: lists need not be looked through here
        return caller.owner(request.owner), tenant_columns_of(request), request.keep_tenants
    tenants = caller.granted(tenants_of(request), docs.name)
    caller.check_receivers(tenants, docs)
    keep = request.keep_tenants
    if tenants is None:  # its records keep their access lists; new records are seen by the tenant alone
        tenants, keep = [caller.tenant], True
    return caller.owner(request.owner), tenants, keep


def _get(
    docs: Collection, ids: Any, request: Any, caller: Caller, tenants: list[str] | None, node: Tree | None
) -> list[Record | None]:
    if caller.tenant is None:
        found: list[Record | None] = docs.get(
            ids, include_vectors=request.include_vectors, owner=request.owner, tenant=tenants, filter=node
        )
        return found
    return _get_for_tenant(docs, ids, request, caller.tenant, node)


def _get_for_tenant(docs: Collection, ids: Any, request: Any, tenant: str, node: Tree | None) -> list[Record | None]:
    """For each id the tenant's own record; otherwise the record without an owner, if it was granted to the tenant. None
    for one that does not match.
    """
    included = request.include_vectors
    own: list[Record | None] = docs.get(ids, include_vectors=included, owner=request.owner or tenant, tenant=tenant)
    found = own
    if not request.owner and any(one is None for one in own):
        others = docs.get(ids, include_vectors=included, tenant=tenant)
        found = [mine if mine is not None else other for mine, other in zip(own, others, strict=True)]
    return found if node is None else [one if one is not None and matches(node, one.fields) else None for one in found]


def _message(record: Record, caller: Caller) -> Any:
    """A record as the caller may see it: a tenant's token sees only its own name, as a tenant and as an owner."""
    if caller.tenant is None:
        return record_message(record)
    owner = record.owner if record.owner == caller.tenant else ""
    return record_message(Record(record.id, record.fields, [caller.tenant], record.vector, owner))
