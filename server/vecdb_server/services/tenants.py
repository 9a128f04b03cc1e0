"""TenantService: which tenants may see which records."""

from __future__ import annotations

from typing import Any

from vecdb import LimitExceeded, NotFound
from vecdb.v1 import tenants_pb2 as pb
from vecdb.wire.arrays import ids_of, tenants_of
from vecdb.wire.search_response import report
from vecdb_server.security.auth import Caller
from vecdb_server.services.context import ServerContext, request_key

_PAGE_NAMES = 1_000
_PAGE_NAMES_MAX = 65_536


class Tenants:
    def __init__(self, server: ServerContext) -> None:
        self._server = server

    async def Grant(self, request: Any, caller: Caller, context: Any) -> Any:
        docs = await self._server.collection(caller, request.collection)

        def grant() -> int:
            tenants = caller.granted(tenants_of(request), docs.name)
            caller.check_receivers(tenants, docs)
            return docs.grant(
                ids_of(request.ids),
                tenants,
                owner=caller.owner(request.owner),
                request_id=request_key(caller, request.request_id),
            )

        count = await self._server.write(caller, context, grant)
        return pb.GrantResponse(count=count, sequence=self._server.sequence_for(caller))

    async def Revoke(self, request: Any, caller: Caller, context: Any) -> Any:
        docs = await self._server.collection(caller, request.collection)

        def revoke() -> int:
            tenants, owner = tenants_of(request), caller.owner(request.owner)
            return docs.revoke(
                ids_of(request.ids),
                caller.revoked(tenants, docs.name),
                owner=None if caller.leaves(tenants) else owner,
                request_id=request_key(caller, request.request_id),
            )

        count = await self._server.write(caller, context, revoke)
        return pb.RevokeResponse(count=count, sequence=self._server.sequence_for(caller))

    async def CreateTenants(self, request: Any, caller: Caller, context: Any) -> Any:
        docs = await self._server.collection(caller, request.collection)

        def create() -> int:
            return docs.create_tenant(
                list(request.names),
                exist_ok=request.exist_ok,
                records_max=request.records_max if request.HasField("records_max") else None,
                request_id=request_key(caller, request.request_id),
            )

        count = await self._server.write(caller, context, create)
        return pb.CreateTenantsResponse(count=count, sequence=self._server.sequence_for(caller))

    async def DropTenant(self, request: Any, caller: Caller, context: Any) -> Any:
        docs = await self._server.collection(caller, request.collection)

        def drop() -> int:
            key = request_key(caller, request.request_id)
            return docs.drop_tenant(request.name, records=request.records, request_id=key) or 0

        deleted = await self._server.change_names(caller, context, drop, self._server.forget_tenants)
        return pb.DropTenantResponse(deleted=deleted, sequence=self._server.sequence_for(caller))

    async def ListTenants(self, request: Any, caller: Caller, context: Any) -> Any:
        docs = await self._server.collection(caller, request.collection)
        size = request.page_size or _PAGE_NAMES
        if size > _PAGE_NAMES_MAX:
            raise LimitExceeded(f"page_size must be from 1 to {_PAGE_NAMES_MAX:,}, got {size:,}")

        def page(stop: Any) -> list[str]:
            if caller.tenant is not None:
                return _own_name(docs, caller.tenant, request.page_token)
            return list(docs.tenants(after=request.page_token or None, limit=size + 1))

        names = await self._server.kernels.run(caller.group, page)
        return pb.ListTenantsResponse(names=names[:size], next_page_token=names[size - 1] if len(names) > size else "")

    async def GetTenantStats(self, request: Any, caller: Caller, context: Any) -> Any:
        docs = await self._server.collection(caller, request.collection)
        tenant = caller.tenant_named(request.tenant, docs.name)
        facts = await self._server.kernels.run(caller.group, lambda stop: docs.stats(tenant=tenant))
        return pb.GetTenantStatsResponse(stats_json=report(caller.shown(facts)))


def _own_name(docs: Any, tenant: str, after: str) -> list[str]:
    """The only name that a tenant's token may see: its own, if the collection has that tenant."""
    try:
        docs.stats(tenant=tenant)
    except NotFound:
        return []
    return [tenant] if tenant > after else []
