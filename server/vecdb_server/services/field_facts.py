"""The part of RecordService that tells what fields records have: facets, values, the smallest and largest, types.

Under a tenant's token all of it is of the records that the tenant may see.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from vecdb import Collection
from vecdb.v1 import records_pb2 as pb
from vecdb.wire.filters import Tree, facets_message, field_facts_message, value_message, values_message
from vecdb_server.security.auth import Caller
from vecdb_server.services.context import ServerContext

_FACETS = 100

Ask = Callable[[Collection, Tree | None, list[str] | None], Any]


class FactsOfFields:
    def __init__(self, server: ServerContext) -> None:
        self._server = server

    async def Facets(self, request: Any, caller: Caller, context: Any) -> Any:
        limit = request.limit or _FACETS

        def ask(docs: Collection, node: Tree | None, tenants: list[str] | None) -> Any:
            return facets_message(docs.facets(request.field, node, limit, tenant=tenants))

        return await self._asked(request, caller, context, ask)

    async def Distinct(self, request: Any, caller: Caller, context: Any) -> Any:
        def ask(docs: Collection, node: Tree | None, tenants: list[str] | None) -> Any:
            return pb.DistinctResponse(values=values_message(docs.distinct(request.field, node, tenant=tenants)))

        return await self._asked(request, caller, context, ask)

    async def MinMax(self, request: Any, caller: Caller, context: Any) -> Any:
        def ask(docs: Collection, node: Tree | None, tenants: list[str] | None) -> Any:
            find = docs.max if request.largest else docs.min
            found = find(request.field, node, tenant=tenants)
            return pb.MinMaxResponse(value=None if found is None else value_message(found))

        return await self._asked(request, caller, context, ask)

    async def Fields(self, request: Any, caller: Caller, context: Any) -> Any:
        def ask(docs: Collection, node: Tree | None, tenants: list[str] | None) -> Any:
            return field_facts_message(docs.fields(tenant=tenants))

        return await self._asked(request, caller, context, ask, filtered=False)

    async def _asked(self, request: Any, caller: Caller, context: Any, ask: Ask, *, filtered: bool = True) -> Any:
        """The answer, made on a kernel thread. Raises LimitExceeded where it is too large for a message."""
        server = self._server
        docs = await server.collection(caller, request.collection)
        tenants = caller.tenants(request.tenants, docs.name)
        node = await server.filter_of(caller, request) if filtered else None
        answer = await server.read(caller, context, None, 1, lambda stop: ask(docs, node, tenants))
        server.check_answer(answer.ByteSize())
        return answer
