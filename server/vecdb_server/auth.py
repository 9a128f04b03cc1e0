"""Who is asking, and what may they?

`NEEDS` says for every rpc of every service what it takes to call it; an rpc without a row is denied. What a caller
reaches within an rpc is asked of the `Caller`: collections, tenants, owner. For a token "not yours" is "not there".
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from vecdb import InvalidArgument, PermissionDenied
from vecdb.wire.error_codes import tenant_not_found

PERMISSIONS = ("read", "write", "admin")  # each includes those before it
ANY = "*"


@dataclass(frozen=True, slots=True)
class Need:
    """What it takes to call an rpc. open : nothing.   database : a token that is bound to no collection."""

    permission: str = "admin"
    open: bool = False
    database: bool = False


_READ, _WRITE, _ADMIN, _DATABASE = Need("read"), Need("write"), Need("admin"), Need("admin", database=True)
_OPEN = Need(open=True)

NEEDS: dict[str, Need] = {
    "/vecdb.v1.AdminService/GetServerInfo": _READ,
    "/vecdb.v1.AdminService/GetDatabaseStats": _DATABASE,
    "/vecdb.v1.AdminService/CheckDatabase": _DATABASE,
    "/vecdb.v1.AdminService/Backup": _DATABASE,
    "/vecdb.v1.AdminService/Vacuum": _DATABASE,
    "/vecdb.v1.CollectionService/CreateCollection": _ADMIN,
    "/vecdb.v1.CollectionService/GetCollection": _READ,
    "/vecdb.v1.CollectionService/ListCollections": _READ,
    "/vecdb.v1.CollectionService/DropCollection": _ADMIN,
    "/vecdb.v1.CollectionService/GetCollectionStats": _READ,
    "/vecdb.v1.CollectionService/CheckCollection": _ADMIN,
    "/vecdb.v1.CollectionService/OptimizeCollection": _ADMIN,
    "/vecdb.v1.CollectionService/ReindexCollection": _ADMIN,
    "/vecdb.v1.CollectionService/VacuumCollection": _ADMIN,
    "/vecdb.v1.RecordService/Write": _WRITE,
    "/vecdb.v1.RecordService/Ingest": _WRITE,
    "/vecdb.v1.RecordService/Update": _WRITE,
    "/vecdb.v1.RecordService/Delete": _WRITE,
    "/vecdb.v1.RecordService/Get": _READ,
    "/vecdb.v1.RecordService/Count": _READ,
    "/vecdb.v1.RecordService/List": _READ,
    "/vecdb.v1.SearchService/Search": _READ,
    "/vecdb.v1.SearchService/StreamSearch": _READ,
    "/vecdb.v1.SearchService/Evaluate": _READ,
    "/vecdb.v1.SearchService/Tune": _ADMIN,
    "/vecdb.v1.TenantService/Grant": _WRITE,
    "/vecdb.v1.TenantService/Revoke": _WRITE,
    "/vecdb.v1.TenantService/CreateTenants": _ADMIN,
    "/vecdb.v1.TenantService/DropTenant": _ADMIN,
    "/vecdb.v1.TenantService/ListTenants": _READ,
    "/vecdb.v1.TenantService/GetTenantStats": _READ,
    "/grpc.health.v1.Health/Check": _OPEN,
    "/grpc.health.v1.Health/List": _OPEN,
    "/grpc.health.v1.Health/Watch": _OPEN,
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo": _READ,
}


@dataclass(frozen=True, slots=True)
class Caller:
    """Who holds a token, and its scope.

    collection : a name, or "*" for all.   tenant : None for all; else only what it may see, and its own records.
    share : a tenant's token may let other tenants see its records; without it their names do not exist for it.
    rate : requests a second, None for any.   expires : seconds since 1970, None for never.
    """

    name: str
    permission: str = "read"
    collection: str = ANY
    tenant: str | None = None
    share: bool = False
    rate: float | None = None
    expires: float | None = None

    def expired(self) -> bool:
        return self.expires is not None and time.time() >= self.expires

    def may(self, need: Need) -> bool:
        if need.open:
            return True
        if need.permission == "admin" and self.tenant is not None:
            return False
        if need.database and self.collection != ANY:
            return False
        return PERMISSIONS.index(self.permission) >= PERMISSIONS.index(need.permission)

    def scope(self) -> str:
        """For people."""
        where = "all collections" if self.collection == ANY else f"collection {self.collection}"
        whose = "" if self.tenant is None else f" as tenant {self.tenant}{', sharing' if self.share else ''}"
        return f"{self.permission} {where}{whose}"

    # -- what is reached within an rpc ---------------------------------------------------------------

    def reaches(self, collection: str) -> bool:
        return self.collection in (ANY, collection)

    def tenants(self, asked: Sequence[str], collection: str) -> list[str] | None:
        """Whose records a read looks at: what `search(tenant=)` takes. A request can only narrow what the token has."""
        if self.tenant is None:
            return list(asked) or None
        for name in asked:
            if name != self.tenant:
                raise tenant_not_found(collection, name)
        return [self.tenant]

    def tenant_named(self, asked: str, collection: str) -> str:
        """One tenant that a request is about."""
        if self.tenant is not None and asked != self.tenant:
            raise tenant_not_found(collection, asked)
        return asked

    def owner(self, asked: str) -> str:
        """Whose records a write is about."""
        if self.tenant is None:
            return asked
        if asked not in ("", self.tenant):
            raise PermissionDenied("the owner of what this token writes is its own tenant; leave `owner` out")
        return self.tenant

    def granted(self, asked: Any, collection: str) -> Any:
        """Lists of a write or grant, with this token's own tenant in each. asked : as `wire.tenants_of` gives it."""
        if self.tenant is None or asked is None:
            return asked
        if asked and not isinstance(asked[0], str):
            return [self._own_first(one, collection) for one in asked]
        return self._own_first(asked, collection)

    def revoked(self, asked: Any, collection: str) -> Any:
        """Lists of a revoke: not of the token's own tenant, whose records they are."""
        if self.tenant is None or asked is None:
            return asked
        for name in asked if not asked or isinstance(asked[0], str) else (one for each in asked for one in each):
            if name == self.tenant:
                raise InvalidArgument("a tenant keeps its own records; delete them instead")
            self._check_named(name, collection)
        return asked

    def _own_first(self, names: list[str], collection: str) -> list[str]:
        assert self.tenant is not None
        for name in names:
            self._check_named(name, collection)
        return [self.tenant, *(name for name in names if name != self.tenant)]

    def _check_named(self, name: str, collection: str) -> None:
        if name != self.tenant and not self.share:
            raise tenant_not_found(collection, name)


ANONYMOUS = Caller("anonymous", "admin")
