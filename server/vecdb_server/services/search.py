"""SearchService: the records nearest to vectors, or to the mixture of interests of a user.

request known (request_cache.py)  -> answer on the event loop, or on a kernel thread
request new                       -> open the collection, parse, keep -> answer likewise
with a filter                     -> on a kernel thread, where a large filter is read, too
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable
from dataclasses import replace
from typing import Any, ClassVar

from vecdb import Collection, Flat, InvalidArgument, NotFound, PermissionDenied, SearchParams
from vecdb.v1 import search_pb2 as pb
from vecdb.wire.arrays import ids_of, truth_of, vector_bytes, vectors_of
from vecdb.wire.filters import filters_each_of, optional_filter
from vecdb.wire.messages import params_of
from vecdb.wire.search_response import encoded, report, streamed
from vecdb.wire.two_rounds import NamedRows, named_of
from vecdb_server.security.auth import Caller
from vecdb_server.services.context import ServerContext, is_large
from vecdb_server.services.request_cache import CachedRequest, Queries, QueryFilter, RequestCache
from vecdb_server.status_errors import parse_message

_LIMIT = 10
_RECALL = 0.95
_COMPONENTS, _NEIGHBOURS = 8, 10
_NAMED_BYTES = 40  # of rows that a first round names, for each hit that is wanted
_BATCH_QUERY_US = 2_000.0, 25_000.0  # scans that take so long gain from reading the rows together; others do not


def _of_stream(request: bytes) -> Any:
    return pb.StreamSearchRequest.FromString(request).search


class Search:
    """`raw` rpcs get their requests as bytes, because most are in the cache (request_cache.py). They return the bytes
    of a SearchResponse, or an awaitable of them; `raw` says what wraps these bytes into the rpc's own message.
    """

    raw: ClassVar = {"Search": None, "StreamSearch": streamed}

    def __init__(self, server: ServerContext) -> None:
        self._server = server
        self._unary = RequestCache(pb.SearchRequest.FromString)
        self._stream = RequestCache(_of_stream)

    def Search(self, request: bytes, caller: Caller, context: Any) -> bytes | Awaitable[bytes]:
        known = self._unary.find(request, caller, "")
        if known is not None and self._server.is_open(known[0].docs):
            return self._answer(*known, context)
        return self._answer_unknown(request, caller, context)

    async def _answer_unknown(self, request: bytes, caller: Caller, context: Any) -> bytes:
        message = parse_message(pb.SearchRequest.FromString, request)
        docs = await self._server.collection(caller, message.collection)
        answer = self._answer_new(docs, message, caller, context, self._unary, request, "")
        return answer if isinstance(answer, bytes) else await answer

    async def StreamSearch(self, requests: Any, caller: Caller, context: Any) -> None:
        server, collection = self._server, ""

        def begin(request: bytes) -> Any:
            nonlocal collection
            known = self._stream.find(request, caller, collection)
            if known is not None and server.is_open(known[0].docs):
                collection = known[0].docs.name
                return _started(self._answer(*known, context, streamed=True))
            message, before = parse_message(_of_stream, request), collection
            collection = message.collection or collection
            docs = server.open_collection(caller, collection)
            if docs is None:
                return self._open_and_answer(collection, message, caller, context)
            return _started(
                self._answer_new(docs, message, caller, context, self._stream, request, before, streamed=True)
            )

        await server.serve_stream(requests, caller, context, begin)

    async def _open_and_answer(self, collection: str, message: Any, caller: Caller, context: Any) -> bytes:
        docs = await self._server.collection(caller, collection)
        answer = self._answer_new(docs, message, caller, context, streamed=True)
        return answer if isinstance(answer, bytes) else await answer

    async def Evaluate(self, request: Any, caller: Caller, context: Any) -> Any:
        docs = await self._server.collection(caller, request.collection)
        queries, limit = vectors_of(request.queries, "queries"), request.limit or _LIMIT
        tenants, params = caller.tenants(request.tenants, docs.name), self._params(request)
        server, truth = self._server, truth_of(request, len(queries))
        node = await server.filter_of(caller, request)
        facts = await server.kernels.run(
            caller.group,
            lambda stop: docs.evaluate(
                queries,
                limit,
                params=params,
                tenant=tenants,
                truth=truth,
                filter=node,
                stop=lambda: stop() or server.draining,
            ),
            server.deadline_of(caller, context),
        )
        return pb.EvaluateResponse(report_json=report(facts))

    async def Tune(self, request: Any, caller: Caller, context: Any) -> Any:
        docs = await self._server.collection(caller, request.collection)
        queries, limit = vectors_of(request.queries, "queries"), request.limit or _LIMIT
        node = await self._server.filter_of(caller, request)
        curve = await self._server.run_long(
            caller, lambda progress: docs.tune(queries, request.recall or _RECALL, limit, filter=node), None
        )
        return pb.TuneResponse(curve_json=report(curve))

    # -- searches ------------------------------------------------------------------------------------

    def _answer_new(
        self, docs: Collection, message: Any, caller: Caller, context: Any, cache: RequestCache | None = None,
        request: bytes = b"", before: str = "", streamed: bool = False,
    ) -> bytes | Awaitable[bytes]:  # fmt: skip
        """The answer to a message that is not in the cache.

        cache : where to keep it.   request : its bytes.   before : the collection that its stream named before.
        """
        if message.HasField("filter") and message.HasField("filters_each"):
            raise InvalidArgument("a search has one filter, or filters_each, not both")
        kind = message.WhichOneof("query")
        if kind == "mixture":
            return self._mixture(docs, message, caller, context)
        if kind != "vectors":
            raise InvalidArgument("a search needs vectors, or a mixture")
        vectors = vectors_of(message.vectors, "query")
        if is_large(message.filter) or is_large(message.filters_each):
            return self._answer_filtered(docs, message, caller, context, vectors, streamed)
        cached = self._resolved(docs, message, caller, vectors, _filter_of(message, vectors))
        if cache is not None and cached.scored is None:  # whose rows are others each time
            cache.keep(request, message, cached, before)
        return self._answer(cached, cached.queries_of(message.vectors.data), context, streamed=streamed)

    async def _answer_filtered(
        self, docs: Collection, message: Any, caller: Caller, context: Any, vectors: Queries, streamed: bool
    ) -> bytes:
        """The answer to a message whose filter takes time to read."""
        node = await self._server.kernels.run(caller.group, lambda stop: _filter_of(message, vectors))
        cached = self._resolved(docs, message, caller, vectors, node)
        answer = self._answer(cached, cached.queries_of(message.vectors.data), context, streamed=streamed)
        return answer if isinstance(answer, bytes) else await answer

    def _resolved(
        self, docs: Collection, message: Any, caller: Caller, vectors: Queries, node: QueryFilter
    ) -> CachedRequest:
        limit = message.limit or _LIMIT
        params = self._params(message)
        tenants = caller.tenants(message.tenants, docs.name)
        select = tuple(message.fields.names) if message.HasField("fields") else None
        settings = message.params.SerializeToString() if params is not None else b""
        servers, scored = _rounds_of(message, caller)
        if len(vectors) * limit * _NAMED_BYTES > self._server.answer_bytes_max:
            servers = 0
        kind = (
            docs.name, settings, limit, tenants is None, message.include_vectors, select, _kind_of(message, node),
            bool(servers), scored is not None,
        )  # fmt: skip
        batch_key = None
        scanned = isinstance(docs.config.index, Flat) or (params is not None and params.exact)
        if scanned and scored is None and len(vectors) == 1 and not message.explain and not is_large(message.filter):
            batch_key = (
                docs, *kind[1:], vectors.dtype, vectors.shape[1], message.fields_as_json, tuple(tenants or ()),
                caller.tenant,
            )  # fmt: skip
        return CachedRequest(
            docs, caller, self._server.latencies.of(kind), len(vectors), vectors.shape[1], vectors.dtype, limit, params,
            tenants, select, message.include_vectors, message.fields_as_json, message.explain, batch_key,
            node, servers, scored,
        )  # fmt: skip

    def _answer(
        self, cached: CachedRequest, queries: Queries, context: Any, *, streamed: bool = False
    ) -> bytes | Awaitable[bytes]:
        """Bytes where the search is short, otherwise an awaitable. streamed : wait where a call would be refused."""
        count, latency = cached.queries, cached.latency
        if count != 1:
            self._check_size(cached.docs, count, cached.limit, cached.include_vectors)
        if cached.node is not None or not latency.is_short(count):  # after a write a filter takes longer than before
            if not streamed:
                self._server.kernels.check_wait(cached.caller.group, self._server.deadline_of(cached.caller, context))
            return self._answer_on_thread(cached, queries, context)
        started = time.perf_counter()
        answer = cached.answer(queries, None)
        latency.update(count, time.perf_counter() - started)
        return answer

    async def _answer_on_thread(self, cached: CachedRequest, queries: Queries, context: Any) -> bytes:
        server = self._server
        work = server.timed(cached.latency, cached.queries, lambda stop: cached.answer(queries, stop))
        shortest_us, longest_us = _BATCH_QUERY_US
        answer: bytes = await server.kernels.run(
            cached.caller.group,
            work,
            server.deadline_of(cached.caller, context),
            batch_key=cached.batch_key if shortest_us <= cached.latency.query_us <= longest_us else None,
            batch_item=queries,
            run_batch=cached.answer_batch,
        )
        return answer

    def _check_size(self, docs: Collection, queries: int, limit: int, with_vectors: bool) -> None:
        """Refuses a search whose answer would not fit into one message, before it runs. Raises LimitExceeded."""
        hit_bytes = 12 + (vector_bytes(docs.dim, docs.dtype) if with_vectors else 0)
        if queries * limit * hit_bytes > self._server.answer_bytes_max:
            self._server.check_answer(queries * min(limit, docs.count()) * hit_bytes)

    def _params(self, request: Any) -> SearchParams | None:
        """The parameters; None where none were given. A batch gets no more threads than there are for kernels."""
        if not request.HasField("params"):
            return None
        params = params_of(request.params)
        if params.threads <= self._server.threads_max:
            return params
        return replace(params, threads=self._server.threads_max)

    async def _mixture(self, docs: Collection, message: Any, caller: Caller, context: Any) -> bytes:
        if message.HasField("filters_each"):
            raise InvalidArgument("filters_each is of queries, and a mixture has none: set filter")
        mixture = message.mixture
        node = await self._server.filter_of(caller, message)
        limit = message.limit or _LIMIT
        params = self._params(message)
        tenants = caller.tenants(message.tenants, docs.name)
        select = tuple(message.fields.names) if message.HasField("fields") else None

        def hits_of(owner: str) -> Any:
            return docs.search_mixture(
                ids_of(mixture.positives) if mixture.HasField("positives") else None,
                limit,
                histories=[ids_of(one) for one in mixture.histories] or None,
                components=mixture.components or _COMPONENTS,
                smoothing=mixture.smoothing,
                neighbours=mixture.neighbours or _NEIGHBOURS,
                params=params,
                fields=select,
                include_vectors=message.include_vectors,
                explain=message.explain,
                tenant=tenants,
                owner=owner,
                filter=node,
            )

        def run(stop: Any) -> bytes:
            if caller.tenant is None or mixture.owner:
                hits = hits_of(mixture.owner)
            else:
                try:  # the ids are of the tenant's own records; otherwise of records without an owner
                    hits = hits_of(caller.tenant)
                except NotFound:
                    hits = hits_of("")
            return encoded(hits, select, as_json=message.fields_as_json, reader=caller.tenant)

        kind = (docs.name, "mixture", limit, tenants is None) if node is None else None
        found: bytes = await self._server.read(caller, context, kind, 1, run)
        return found


def _filter_of(message: Any, vectors: Queries) -> QueryFilter:
    """The filter of a search, as `Collection.search` takes it."""
    if not message.HasField("filters_each"):
        return optional_filter(message)
    each = filters_each_of(message.filters_each, len(vectors))
    return each[0] if len(each) == 1 else each


def _rounds_of(message: Any, caller: Caller) -> tuple[int, NamedRows | None]:
    """(Servers that are asked in a first of two rounds, or 0; rows of a second round). Numbers of rows tell how many
    records there are: a tenant's token is answered in one round, and has no rows to be scored.
    """
    if not message.HasField("score_rows"):
        return 0 if caller.tenant is not None else message.name_rows, None
    if caller.tenant is not None:
        raise PermissionDenied("a tenant's token searches in one round: leave score_rows out")
    if message.name_rows:
        raise InvalidArgument("name_rows is of the first of two rounds, and score_rows of the second: set one of them")
    return 0, named_of(message.score_rows)


def _kind_of(message: Any, node: QueryFilter) -> Any:
    """What is kept of a filter with how long its searches took: itself, if it is small."""
    return "large" if isinstance(node, list) or is_large(message.filter) else node


def _started(answer: bytes | Awaitable[bytes]) -> Any:
    """An answer that is not there yet is computed beside the answers before it."""
    return answer if isinstance(answer, bytes) else asyncio.ensure_future(answer)
