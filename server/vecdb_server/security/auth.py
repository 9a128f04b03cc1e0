"""Authorization: which rpcs a caller may call, and which collections, tenants and owners it may name in them.

`NEEDS` says for every rpc what a caller must have; an rpc without a row is denied to everybody. Within an rpc a service
asks the `Caller` what its token covers. What a token does not cover is reported as not found, as if it did not exist.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from vecdb import InvalidArgument, PermissionDenied
from vecdb.wire.error_codes import tenant_not_found

PERMISSIONS = ("read", "write", "admin")  # each includes those before it
ANY = "*"


@dataclass(frozen=True, slots=True)
class Need:
    """What a caller must have for an rpc. open : nothing.   database : a token that covers all collections."""

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
    "/vecdb.v1.CollectionService/RenameCollection": _DATABASE,
    "/vecdb.v1.CollectionService/SetAlias": _DATABASE,
    "/vecdb.v1.CollectionService/DropAlias": _DATABASE,
    "/vecdb.v1.CollectionService/ListAliases": _READ,
    "/vecdb.v1.CollectionService/GetCollectionStats": _READ,
    "/vecdb.v1.CollectionService/CheckCollection": _ADMIN,
    "/vecdb.v1.CollectionService/OptimizeCollection": _ADMIN,
    "/vecdb.v1.CollectionService/ReindexCollection": _ADMIN,
    "/vecdb.v1.CollectionService/ClearCollection": _ADMIN,
    "/vecdb.v1.CollectionService/SetMetadata": _ADMIN,
    "/vecdb.v1.CollectionService/VacuumCollection": _ADMIN,
    "/vecdb.v1.RecordService/Write": _WRITE,
    "/vecdb.v1.RecordService/Ingest": _WRITE,
    "/vecdb.v1.RecordService/Update": _WRITE,
    "/vecdb.v1.RecordService/Delete": _WRITE,
    "/vecdb.v1.RecordService/Get": _READ,
    "/vecdb.v1.RecordService/Count": _READ,
    "/vecdb.v1.RecordService/List": _READ,
    "/vecdb.v1.RecordService/Facets": _READ,
    "/vecdb.v1.RecordService/Distinct": _READ,
    "/vecdb.v1.RecordService/MinMax": _READ,
    "/vecdb.v1.RecordService/Fields": _READ,
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


# What changes the directory: the one process that writes answers these.
WRITES = frozenset(
    f"/vecdb.v1.{service}Service/{rpc}"
    for service, rpcs in {
        "Admin": ("Vacuum",),
        "Collection": (
            "CreateCollection", "DropCollection", "RenameCollection", "SetAlias", "DropAlias", "OptimizeCollection",
            "ReindexCollection", "ClearCollection", "SetMetadata", "VacuumCollection",
        ),
        "Record": ("Write", "Ingest", "Update", "Delete"),
        "Search": ("Tune",),
        "Tenant": ("Grant", "Revoke", "CreateTenants", "DropTenant"),
    }.items()
    for rpc in rpcs
)  # fmt: skip
# And what tells of its threads and its index, or takes long: it answers these too, where there are several.
OF_WRITER = WRITES | {
    "/vecdb.v1.AdminService/GetDatabaseStats", "/vecdb.v1.AdminService/CheckDatabase", "/vecdb.v1.AdminService/Backup",
    "/vecdb.v1.CollectionService/GetCollectionStats", "/vecdb.v1.CollectionService/CheckCollection",
    "/vecdb.v1.TenantService/GetTenantStats",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Caller:
    """A token's name and scope.

    collection : a name, or "*" for all.   tenant : None for all; otherwise the token reads what that tenant may see and
    writes that tenant's own records.   share : a tenant's token may grant its records to other tenants that exist;
    without it, other tenants do not exist for it.   rate : requests a second, None for any.
    expires : seconds since 1970, None for never.
    """

    name: str
    permission: str = "read"
    collection: str = ANY
    tenant: str | None = None
    share: bool = False
    rate: float | None = None
    expires: float | None = None

    @property
    def group(self) -> str:
        """Whose turn its work takes: tokens of one tenant have one turn together."""
        return f"token {self.name}" if self.tenant is None else f"tenant {self.tenant}"

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
        """In words, for people."""
        where = "all collections" if self.collection == ANY else f"collection {self.collection}"
        whose = "" if self.tenant is None else f" as tenant {self.tenant}{', sharing' if self.share else ''}"
        return f"{self.permission} {where}{whose}"

    def shown(self, facts: dict[str, Any]) -> dict[str, Any]:
        """Facts about a tenant, without what tells it how large the whole is, and how often others write."""
        if self.tenant is None:
            return facts
        return {name: value for name, value in facts.items() if name != "reason"} | {"sequence": 0}

    @property
    def must_be_known(self) -> bool:
        """Whether a collection exists for this caller only where it has the caller's tenant: for a tenant's token that
        is bound to no collection.
        """
        return self.tenant is not None and self.collection == ANY

    # -- what a request may name ---------------------------------------------------------------------

    def reaches(self, collection: str) -> bool:
        return self.collection in (ANY, collection)

    def tenants(self, requested: Sequence[str], collection: str) -> list[str] | None:
        """The tenants of a read, as `search(tenant=)` takes them. A request can only narrow what the token covers."""
        if self.tenant is None:
            return list(requested) or None
        for name in requested:
            if name != self.tenant:
                raise tenant_not_found(collection, name)
        return [self.tenant]

    def tenant_named(self, requested: str, collection: str) -> str:
        """The tenant that a request is about. Raises NotFound where the token does not cover it."""
        if self.tenant is not None and requested != self.tenant:
            raise tenant_not_found(collection, requested)
        return requested

    def owner(self, requested: str) -> str:
        """The owner of the records of a write. Raises PermissionDenied."""
        if self.tenant is None:
            return requested
        if requested not in ("", self.tenant):
            raise PermissionDenied("the owner of what this token writes is its own tenant; leave `owner` out")
        return self.tenant

    def owner_matched(self, request: Any) -> str | None:
        """Whose records a call by filter means, by its `only_owner`; None for everybody's. For a tenant's token its own
        alone. Raises PermissionDenied.
        """
        if self.tenant is not None:
            return self.owner(request.only_owner)
        return str(request.only_owner) if request.HasField("only_owner") else None

    def granted(self, requested: Any, collection: str) -> Any:
        """Access lists of a write or grant; this token's own tenant is in each. requested : from `wire.tenants_of`."""
        if self.tenant is None or requested is None:
            return requested
        if isinstance(requested, list):
            return [self._with_own(one, collection) for one in requested]
        return frozenset(self._with_own(requested, collection))

    def revoked(self, requested: Any, collection: str) -> Any:
        """The access lists of a revoke. A token's own tenant is in them only where it leaves: its records stay its
        own.
        """
        if self.tenant is None or requested is None or self.leaves(requested):
            return requested
        for name in _names_in(requested):
            if name == self.tenant:
                raise InvalidArgument("a tenant keeps its own records; delete them instead")
            self._check_named(name, collection)
        return requested

    def leaves(self, requested: Any) -> bool:
        """Whether a revoke is of the tenant's own name alone: it gives up what others share with it."""
        return self.tenant is not None and requested is not None and set(_names_in(requested)) == {self.tenant}

    def check_receivers(self, granted: Any, docs: Any) -> None:
        """Raises NotFound where the access lists of a tenant's token name others that do not exist: it makes no tenant
        but its own.
        """
        if self.tenant is None or granted is None:
            return
        for name in sorted(set(_names_in(granted)) - {self.tenant}):
            docs.count(tenant=name)

    def _with_own(self, names: Iterable[str], collection: str) -> list[str]:
        assert self.tenant is not None
        for name in names:
            self._check_named(name, collection)
        return [self.tenant, *(name for name in names if name != self.tenant)]

    def _check_named(self, name: str, collection: str) -> None:
        if name != self.tenant and not self.share:
            raise tenant_not_found(collection, name)


def _names_in(lists: Any) -> Iterator[str]:
    """Every name in access lists of a request, one set for all records or a list each."""
    return (name for one in lists for name in one) if isinstance(lists, list) else iter(lists)


ANONYMOUS = Caller("anonymous", "admin")
