"""Tenants: who may see which records."""

from __future__ import annotations

from typing import Any

from vecdb import LimitExceeded, NotFound
from vecdb.v1 import tenants_pb2 as pb
from vecdb.wire.arrays import ids_of, tenants_of
from vecdb.wire.search_response import report
from vecdb_server.auth import Caller
from vecdb_server.services.context import House, once

_PAGE = 1_000
_PAGE_MAX = 65_536


class Tenants:
    def __init__(self, house: House) -> None:
        self._house = house

    async def Grant(self, request: Any, caller: Caller, context: Any) -> Any:
        docs = await self._house.collection(caller, request.collection)

        def grant() -> int:
            return docs.grant(
                ids_of(request.ids),
                caller.granted(tenants_of(request), docs.name),
                owner=caller.owner(request.owner),
                request_id=once(caller, request.request_id),
            )

        return pb.GrantResponse(count=await self._house.write(caller, context, grant))

    async def Revoke(self, request: Any, caller: Caller, context: Any) -> Any:
        docs = await self._house.collection(caller, request.collection)

        def revoke() -> int:
            return docs.revoke(
                ids_of(request.ids),
                caller.revoked(tenants_of(request), docs.name),
                owner=caller.owner(request.owner),
                request_id=once(caller, request.request_id),
            )

        return pb.RevokeResponse(count=await self._house.write(caller, context, revoke))

    async def CreateTenants(self, request: Any, caller: Caller, context: Any) -> Any:
        docs = await self._house.collection(caller, request.collection)

        def create() -> int:
            return docs.create_tenant(
                list(request.names),
                exist_ok=request.exist_ok,
                records_max=request.records_max if request.HasField("records_max") else None,
                request_id=once(caller, request.request_id),
            )

        return pb.CreateTenantsResponse(count=await self._house.write(caller, context, create))

    async def DropTenant(self, request: Any, caller: Caller, context: Any) -> Any:
        docs = await self._house.collection(caller, request.collection)
        await self._house.write(
            caller, context, lambda: docs.drop_tenant(request.name, request_id=once(caller, request.request_id))
        )
        return pb.DropTenantResponse()

    async def ListTenants(self, request: Any, caller: Caller, context: Any) -> Any:
        docs = await self._house.collection(caller, request.collection)
        size = request.page_size or _PAGE
        if size > _PAGE_MAX:
            raise LimitExceeded(f"page_size must be from 1 to {_PAGE_MAX:,}, got {size:,}")

        def page(stop: Any) -> list[str]:
            if caller.tenant is not None:
                return _own(docs, caller.tenant, request.page_token)
            return list(docs.tenants(after=request.page_token or None, limit=size + 1))

        names = await self._house.kernels.run(caller.name, page)
        return pb.ListTenantsResponse(names=names[:size], next_page_token=names[size - 1] if len(names) > size else "")

    async def GetTenantStats(self, request: Any, caller: Caller, context: Any) -> Any:
        docs = await self._house.collection(caller, request.collection)
        tenant = caller.tenant_named(request.tenant, docs.name)
        facts = await self._house.kernels.run(caller.name, lambda stop: docs.stats(tenant=tenant))
        return pb.GetTenantStatsResponse(stats_json=report(facts))


def _own(docs: Any, tenant: str, after: str) -> list[str]:
    """All that a tenant's token sees of the tenants: itself, where it is one."""
    try:
        docs.stats(tenant=tenant)
    except NotFound:
        return []
    return [tenant] if tenant > after else []
