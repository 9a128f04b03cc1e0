"""Search: the nearest records of vectors, or of the mixture of interests of a user."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable
from typing import Any, ClassVar

import numpy as np

from vecdb import Collection, Flat, InvalidArgument, NotFound, SearchParams
from vecdb.v1 import search_pb2 as pb
from vecdb.wire.arrays import ids_of, vectors_of
from vecdb.wire.messages import params_of
from vecdb.wire.search_response import encoded, report, streamed
from vecdb_server.auth import Caller
from vecdb_server.services.context import House, until
from vecdb_server.services.request_cache import Queries, Question, Questions
from vecdb_server.status_errors import whole

_LIMIT = 10
_RECALL = 0.95
_COMPONENTS, _NEIGHBOURS = 8, 10
_TOGETHER_US = 2_000.0, 25_000.0  # scans of so long share reading the rows; of shorter ones it brings nothing


def _of_stream(request: bytes) -> Any:
    return pb.StreamSearchRequest.FromString(request).search


class Search:
    """`raw` rpcs get their requests as bytes, most of which are known but for their vectors (request_cache.py), and
    give bytes, or what gives them when it is awaited: those of a SearchResponse, which a stream's message wraps.
    """

    raw: ClassVar = {"Search": None, "StreamSearch": streamed}

    def __init__(self, house: House) -> None:
        self._house = house
        self._called = Questions(pb.SearchRequest.FromString)
        self._streamed = Questions(_of_stream)

    def Search(self, request: bytes, caller: Caller, context: Any) -> bytes | Awaitable[bytes]:
        known = self._called.find(request, caller, "")
        if known is not None and self._house.has(known[0].docs):
            return self._answer(*known, context)
        return self._first(request, caller, context)

    async def _first(self, request: bytes, caller: Caller, context: Any) -> bytes:
        message = whole(pb.SearchRequest.FromString, request)
        docs = await self._house.collection(caller, message.collection)
        answer = self._asked(docs, message, caller, context, self._called, request, "")
        return answer if isinstance(answer, bytes) else await answer

    async def StreamSearch(self, requests: Any, caller: Caller, context: Any) -> None:
        house, collection = self._house, ""

        def begin(request: bytes) -> Any:
            nonlocal collection
            known = self._streamed.find(request, caller, collection)
            if known is not None and house.has(known[0].docs):
                collection = known[0].docs.name
                return _begun(self._answer(*known, context, streamed=True))
            message, before = whole(_of_stream, request), collection
            collection = message.collection or collection
            docs = house.known(caller, collection)
            if docs is None:
                return self._opened_first(collection, message, caller, context)
            return _begun(self._asked(docs, message, caller, context, self._streamed, request, before, streamed=True))

        await house.streamed(requests, caller, context, begin)

    async def _opened_first(self, collection: str, message: Any, caller: Caller, context: Any) -> bytes:
        docs = await self._house.collection(caller, collection)
        answer = self._asked(docs, message, caller, context, streamed=True)
        return answer if isinstance(answer, bytes) else await answer

    async def Evaluate(self, request: Any, caller: Caller, context: Any) -> Any:
        docs = await self._house.collection(caller, request.collection)
        queries, limit = vectors_of(request.queries, "queries"), request.limit or _LIMIT
        tenants, params = caller.tenants(request.tenants, docs.name), self._params(request)
        facts = await self._house.long(
            lambda progress: docs.evaluate(queries, limit, params=params, tenant=tenants), None
        )
        return pb.EvaluateResponse(report_json=report(facts))

    async def Tune(self, request: Any, caller: Caller, context: Any) -> Any:
        docs = await self._house.collection(caller, request.collection)
        queries, limit = vectors_of(request.queries, "queries"), request.limit or _LIMIT
        curve = await self._house.long(lambda progress: docs.tune(queries, request.recall or _RECALL, limit), None)
        return pb.TuneResponse(curve_json=report(curve))

    # -- what is asked -------------------------------------------------------------------------------

    def _asked(
        self, docs: Collection, message: Any, caller: Caller, context: Any, questions: Questions | None = None,
        request: bytes = b"", before: str = "", streamed: bool = False,
    ) -> bytes | Awaitable[bytes]:  # fmt: skip
        """The answer to a message that is not known. questions : where `request`, which it was read from, is kept."""
        if message.HasField("filter"):
            raise InvalidArgument("filters on fields do not exist yet; leave `filter` out")
        kind = message.WhichOneof("query")
        if kind == "mixture":
            return self._mixture(docs, message, caller, context)
        if kind != "vectors":
            raise InvalidArgument("a search needs vectors, or a mixture")
        vectors = vectors_of(message.vectors, "query")
        question = self._question(docs, message, caller, vectors)
        if questions is not None:
            questions.keep(request, message, question, before)
        return self._answer(question, question.queries_of(message.vectors.data), context, streamed=streamed)

    def _question(self, docs: Collection, message: Any, caller: Caller, vectors: Queries) -> Question:
        limit = message.limit or _LIMIT
        params = self._params(message)
        tenants = caller.tenants(message.tenants, docs.name)
        select = tuple(message.fields.names) if message.HasField("fields") else None
        settings = message.params.SerializeToString() if params is not None else b""
        kind = (docs.name, settings, limit, tenants is None, message.include_vectors, select)
        alike = None
        scanned = isinstance(docs.config.index, Flat) or (params is not None and params.exact)
        if scanned and len(vectors) == 1 and not message.explain:
            alike = (docs, *kind[1:], vectors.dtype, vectors.shape[1], message.fields_as_json, tuple(tenants or ()))
        return Question(
            docs, caller, self._house.costs.of(kind), len(vectors), vectors.shape[1], vectors.dtype, limit, params,
            tenants, select, message.include_vectors, message.fields_as_json, message.explain, alike,
        )  # fmt: skip

    def _answer(
        self, question: Question, queries: Queries, context: Any, *, streamed: bool = False
    ) -> bytes | Awaitable[bytes]:
        """At once where the search is short. streamed : it waits where a call would be refused."""
        count, cost = question.queries, question.cost
        if count != 1:
            self._check_size(question.docs, count, question.limit, question.include_vectors)
        if not cost.short(count):
            if not streamed:
                self._house.kernels.check_wait(question.caller.name, until(context))
            return self._on_a_thread(question, queries, context)
        started = time.perf_counter()
        answer = question.answer(queries, None)
        cost.learn(count, time.perf_counter() - started)
        return answer

    async def _on_a_thread(self, question: Question, queries: Queries, context: Any) -> bytes:
        house = self._house
        work = house.timed(question.cost, question.queries, lambda stop: question.answer(queries, stop))
        alike = question.alike if _TOGETHER_US[0] <= question.cost.us <= _TOGETHER_US[1] else None
        answer: bytes = await house.kernels.run(
            question.caller.name, work, until(context), alike=alike, subject=queries, together=question.together
        )
        return answer

    def _check_size(self, docs: Collection, queries: int, limit: int, with_vectors: bool) -> None:
        """Refuse what cannot be one answer, before it is worked out."""
        hit_bytes = 12 + (docs.dim * np.dtype(docs.dtype).itemsize if with_vectors else 0)
        if queries * limit * hit_bytes > self._house.answer_bytes_max:
            self._house.check_answer(queries * min(limit, docs.count()) * hit_bytes)

    def _params(self, request: Any) -> SearchParams | None:
        """None where none were given. A batch gets no more threads than the server has for kernels."""
        if not request.HasField("params"):
            return None
        params = params_of(request.params)
        if params.threads <= self._house.kernel_threads:
            return params
        return SearchParams(
            ef=params.ef, nprobe=params.nprobe, recall=params.recall, exact=params.exact,
            threads=self._house.kernel_threads,
        )  # fmt: skip

    async def _mixture(self, docs: Collection, message: Any, caller: Caller, context: Any) -> bytes:
        mixture = message.mixture
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
            )

        def run(stop: Any) -> bytes:
            if caller.tenant is None or mixture.owner:
                hits = hits_of(mixture.owner)
            else:
                try:  # a tenant's own records; else those without an owner that it was granted
                    hits = hits_of(caller.tenant)
                except NotFound:
                    hits = hits_of("")
            return encoded(hits, select, as_json=message.fields_as_json)

        kind = (docs.name, "mixture", limit, tenants is None)
        found: bytes = await self._house.read(caller, context, kind, 1, run)
        return found


def _begun(answer: bytes | Awaitable[bytes]) -> Any:
    """What is still to come runs beside what comes before it."""
    return answer if isinstance(answer, bytes) else asyncio.ensure_future(answer)
