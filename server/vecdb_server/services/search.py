"""Search: the nearest records of vectors, or of the mixture of interests of a user."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from vecdb import Collection, InvalidArgument, NotFound, SearchParams
from vecdb.v1 import search_pb2 as pb
from vecdb.wire.answers import report, response
from vecdb.wire.arrays import ids_of, vectors_of
from vecdb.wire.nouns import params_of
from vecdb_server.auth import Caller
from vecdb_server.services.house import House, until

_LIMIT = 10
_RECALL = 0.95
_COMPONENTS, _NEIGHBOURS = 8, 10


@dataclass(slots=True)
class Asked:
    """A search that is ready to run.

    kind : of what cost it is.   run(stop) -> message.   alike : None where it cannot share a kernel call.
    """

    run: Callable[[Any], Any]
    kind: Hashable
    queries: int
    alike: Hashable = None
    subject: Any = None
    together: Callable[[Sequence[Any]], Sequence[Any]] | None = None


class Search:
    def __init__(self, house: House) -> None:
        self._house = house

    async def Search(self, request: Any, caller: Caller, context: Any) -> Any:
        house = self._house
        docs = house.known(caller, request.collection)
        if docs is None:
            docs = await house.collection(caller, request.collection)
        asked = self._asked(docs, request, caller)
        if house.costs.short(asked.kind, asked.queries):
            return house.timed(asked.kind, asked.queries, asked.run)(None)
        house.kernels.check_wait(caller.name, until(context))
        return await self._on_a_thread(asked, caller, context)

    def _on_a_thread(self, asked: Asked, caller: Caller, context: Any) -> Any:
        house = self._house
        return house.kernels.run(
            caller.name,
            house.timed(asked.kind, asked.queries, asked.run),
            until(context),
            alike=asked.alike,
            subject=asked.subject,
            together=asked.together,
        )

    async def StreamSearch(self, requests: Any, caller: Caller, context: Any) -> None:
        house = self._house
        collection = ""

        def begin(request: Any) -> Any:
            nonlocal collection
            search = request.search
            collection = search.collection or collection
            docs = house.known(caller, collection)
            if docs is None:
                return self._streamed_first(collection, search, caller, context)
            asked = self._asked(docs, search, caller)
            if house.costs.short(asked.kind, asked.queries):
                return pb.StreamSearchResponse(hits=house.timed(asked.kind, asked.queries, asked.run)(None))
            return asyncio.ensure_future(_wrapped(self._on_a_thread(asked, caller, context)))

        await house.streamed(requests, caller, context, begin)

    async def _streamed_first(self, collection: str, search: Any, caller: Caller, context: Any) -> Any:
        docs = await self._house.collection(caller, collection)
        return await _wrapped(self._on_a_thread(self._asked(docs, search, caller), caller, context))

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

    def _asked(self, docs: Collection, request: Any, caller: Caller) -> Asked:
        if request.HasField("filter"):
            raise InvalidArgument("filters on fields do not exist yet; leave `filter` out")
        kind = request.WhichOneof("query")
        if kind == "vectors":
            return self._vectors_asked(docs, request, caller)
        if kind == "mixture":
            return self._mixture_asked(docs, request, caller)
        raise InvalidArgument("a search needs vectors, or a mixture")

    def _vectors_asked(self, docs: Collection, request: Any, caller: Caller) -> Asked:
        vectors = vectors_of(request.vectors, "query")
        limit = request.limit or _LIMIT
        params = self._params(request)
        tenants = caller.tenants(request.tenants, docs.name)
        select = tuple(request.fields.names) if request.HasField("fields") else None
        with_vectors, as_json, explain = request.include_vectors, request.fields_as_json, request.explain
        queries = len(vectors)
        if queries != 1:
            self._check_size(docs, queries, limit, with_vectors)

        def hits_of(query: Any, stop: Any) -> Any:
            return docs.search(
                query, limit, params=params, fields=select, include_vectors=with_vectors, explain=explain,
                tenant=tenants, stop=stop,
            )  # fmt: skip

        def run(stop: Any) -> Any:
            hits = hits_of(vectors[0] if queries == 1 else vectors, stop)
            return response(hits, select, as_json=as_json)

        settings = request.params.SerializeToString() if params is not None else b""
        kind = (docs.name, settings, limit, tenants is None, with_vectors, select)
        if queries != 1 or explain:
            return Asked(run, kind, queries)

        def together(subjects: Sequence[Any]) -> list[Any]:
            hits = hits_of(np.stack(subjects), None)
            return [response(hits[i], select, as_json=as_json) for i in range(len(subjects))]

        alike = (*kind, request.vectors.dtype, request.vectors.dim, as_json, tuple(tenants or ()))
        return Asked(run, kind, 1, alike, vectors[0], together)

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

    def _mixture_asked(self, docs: Collection, request: Any, caller: Caller) -> Asked:
        mixture = request.mixture
        limit = request.limit or _LIMIT
        params = self._params(request)
        tenants = caller.tenants(request.tenants, docs.name)
        select = tuple(request.fields.names) if request.HasField("fields") else None

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
                include_vectors=request.include_vectors,
                explain=request.explain,
                tenant=tenants,
                owner=owner,
            )

        def run(stop: Any) -> Any:
            if caller.tenant is None or mixture.owner:
                hits = hits_of(mixture.owner)
            else:
                try:  # a tenant's own records; else those without an owner that it was granted
                    hits = hits_of(caller.tenant)
                except NotFound:
                    hits = hits_of("")
            return response(hits, select, as_json=request.fields_as_json)

        return Asked(run, (docs.name, "mixture", limit, tenants is None), 1)


async def _wrapped(coming: Any) -> Any:
    return pb.StreamSearchResponse(hits=await coming)
