"""Every rpc of every service with a request, and the status that each kind of caller must get for it.

    ROWS    rpc -> (request, kind of caller -> status)
    RPCS    rpc -> its descriptor; an rpc of the contract that has no row in ROWS fails a test

Kinds of callers: none (no token), wrong (an unknown one), expired, tenant (may write as the tenant beta), elsewhere (an
administrator of another collection), reader (may read), admin.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2

from tests.support.server.driver import int_ids, names, search_request, write_request
from vecdb.v1 import admin_pb2, collections_pb2, records_pb2, search_pb2, tenants_pb2
from vecdb.wire.arrays import vectors_message

DIM = 8
VECTORS = np.random.default_rng(3).normal(size=(50, DIM)).astype(np.float32)
ONE = vectors_message(VECTORS[0])
DENIED, MISSING, OK, REFUSED = "PERMISSION_DENIED", "NOT_FOUND", "OK", "UNAUTHENTICATED"
EVERYBODY_OUT = {"none": REFUSED, "wrong": REFUSED, "expired": REFUSED}


def row(request: Any, *, tenant: str, elsewhere: str, reader: str, admin: str = OK) -> tuple[Any, dict[str, str]]:
    """A request, and what becomes of it when it is sent by a tenant that is not concerned, an administrator of another
    collection, somebody who may read, and an administrator.
    """
    return request, EVERYBODY_OUT | {"tenant": tenant, "elsewhere": elsewhere, "reader": reader, "admin": admin}


def read(request: Any, tenant: str = MISSING) -> tuple[Any, dict[str, str]]:
    return row(request, tenant=tenant, elsewhere=MISSING, reader=OK)


def write(request: Any, tenant: str = OK, admin: str = OK) -> tuple[Any, dict[str, str]]:
    return row(request, tenant=tenant, elsewhere=MISSING, reader=DENIED, admin=admin)


def manage(request: Any) -> tuple[Any, dict[str, str]]:
    return row(request, tenant=DENIED, elsewhere=MISSING, reader=DENIED)


def database(request: Any) -> tuple[Any, dict[str, str]]:
    return row(request, tenant=DENIED, elsewhere=DENIED, reader=DENIED)


def everybody(request: Any) -> tuple[Any, dict[str, str]]:
    return row(request, tenant=OK, elsewhere=OK, reader=OK)


def open_to_all(request: Any) -> tuple[Any, dict[str, str]]:
    return request, dict.fromkeys(("none", "wrong", "expired", "tenant", "elsewhere", "reader", "admin"), OK)


# `docs` holds records without an owner, seen by the tenant acme; the tenant that asks is beta.
ROWS: dict[str, tuple[Any, dict[str, str]]] = {
    "/vecdb.v1.AdminService/GetServerInfo": everybody(admin_pb2.GetServerInfoRequest()),
    "/vecdb.v1.AdminService/GetDatabaseStats": database(admin_pb2.GetDatabaseStatsRequest()),
    "/vecdb.v1.AdminService/CheckDatabase": database(admin_pb2.CheckDatabaseRequest()),
    "/vecdb.v1.AdminService/Backup": database(admin_pb2.BackupRequest(name="b")),
    "/vecdb.v1.AdminService/Vacuum": database(admin_pb2.VacuumRequest()),
    "/vecdb.v1.CollectionService/CreateCollection": manage(
        collections_pb2.CreateCollectionRequest(name="docs", dim=DIM, exist_ok=True)
    ),
    "/vecdb.v1.CollectionService/GetCollection": read(collections_pb2.GetCollectionRequest(name="docs"), tenant=OK),
    "/vecdb.v1.CollectionService/ListCollections": everybody(collections_pb2.ListCollectionsRequest()),
    "/vecdb.v1.CollectionService/DropCollection": manage(collections_pb2.DropCollectionRequest(name="docs")),
    "/vecdb.v1.CollectionService/RenameCollection": database(
        collections_pb2.RenameCollectionRequest(name="docs", new_name="docs")
    ),
    "/vecdb.v1.CollectionService/SetAlias": database(collections_pb2.SetAliasRequest(alias="short", collection="docs")),
    "/vecdb.v1.CollectionService/DropAlias": row(
        collections_pb2.DropAliasRequest(alias="none"), tenant=DENIED, elsewhere=DENIED, reader=DENIED, admin=MISSING
    ),
    "/vecdb.v1.CollectionService/ListAliases": everybody(collections_pb2.ListAliasesRequest()),
    "/vecdb.v1.CollectionService/GetCollectionStats": read(
        collections_pb2.GetCollectionStatsRequest(collection="docs"), tenant=OK
    ),
    "/vecdb.v1.CollectionService/CheckCollection": manage(collections_pb2.CheckCollectionRequest(collection="docs")),
    "/vecdb.v1.CollectionService/OptimizeCollection": manage(
        collections_pb2.OptimizeCollectionRequest(collection="docs")
    ),
    "/vecdb.v1.CollectionService/ReindexCollection": manage(
        collections_pb2.ReindexCollectionRequest(collection="docs")
    ),
    "/vecdb.v1.CollectionService/ClearCollection": manage(collections_pb2.ClearCollectionRequest(collection="docs")),
    "/vecdb.v1.CollectionService/SetMetadata": manage(collections_pb2.SetMetadataRequest(collection="docs")),
    "/vecdb.v1.CollectionService/VacuumCollection": manage(collections_pb2.VacuumCollectionRequest(collection="docs")),
    "/vecdb.v1.RecordService/Write": write(write_request("docs", 0, VECTORS[:2])),
    "/vecdb.v1.RecordService/Ingest": write([records_pb2.IngestRequest(write=write_request("docs", 0, VECTORS[:2]))]),
    "/vecdb.v1.RecordService/Update": write(
        records_pb2.UpdateRequest(collection="docs", ids=int_ids([7]), vectors=ONE), tenant=MISSING
    ),
    "/vecdb.v1.RecordService/Delete": write(records_pb2.DeleteRequest(collection="docs", ids=int_ids([7]))),
    "/vecdb.v1.RecordService/Get": read(records_pb2.GetRequest(collection="docs", ids=int_ids([7])), tenant=OK),
    "/vecdb.v1.RecordService/Count": read(records_pb2.CountRequest(collection="docs", tenants=["acme"])),
    "/vecdb.v1.RecordService/List": read(records_pb2.ListRequest(collection="docs", tenants=["acme"])),
    "/vecdb.v1.RecordService/Facets": read(records_pb2.FacetsRequest(collection="docs", field="n", tenants=["acme"])),
    "/vecdb.v1.RecordService/Distinct": read(
        records_pb2.DistinctRequest(collection="docs", field="n", tenants=["acme"])
    ),
    "/vecdb.v1.RecordService/MinMax": read(records_pb2.MinMaxRequest(collection="docs", field="n", tenants=["acme"])),
    "/vecdb.v1.RecordService/Fields": read(records_pb2.FieldsRequest(collection="docs", tenants=["acme"])),
    "/vecdb.v1.SearchService/Search": read(search_request("docs", VECTORS[0], tenants=["acme"])),
    "/vecdb.v1.SearchService/StreamSearch": read(
        [search_pb2.StreamSearchRequest(search=search_request("docs", VECTORS[0], tenants=["acme"]))]
    ),
    "/vecdb.v1.SearchService/Evaluate": read(
        search_pb2.EvaluateRequest(collection="docs", queries=ONE, tenants=["acme"])
    ),
    "/vecdb.v1.SearchService/Tune": manage(search_pb2.TuneRequest(collection="docs", queries=ONE)),
    "/vecdb.v1.TenantService/Grant": write(
        tenants_pb2.GrantRequest(collection="docs", ids=int_ids([7]), tenants=names("acme")), tenant=MISSING
    ),
    "/vecdb.v1.TenantService/Revoke": write(
        tenants_pb2.RevokeRequest(collection="docs", ids=int_ids([7]), tenants=names("acme")), tenant=MISSING
    ),
    "/vecdb.v1.TenantService/CreateTenants": manage(
        tenants_pb2.CreateTenantsRequest(collection="docs", names=["new"], exist_ok=True)
    ),
    "/vecdb.v1.TenantService/DropTenant": manage(tenants_pb2.DropTenantRequest(collection="docs", name="acme")),
    "/vecdb.v1.TenantService/ListTenants": read(tenants_pb2.ListTenantsRequest(collection="docs"), tenant=OK),
    "/vecdb.v1.TenantService/GetTenantStats": read(tenants_pb2.GetTenantStatsRequest(collection="docs", tenant="acme")),
    "/grpc.health.v1.Health/Check": open_to_all(health_pb2.HealthCheckRequest()),
    "/grpc.health.v1.Health/List": open_to_all(health_pb2.HealthListRequest()),
    "/grpc.health.v1.Health/Watch": open_to_all(health_pb2.HealthCheckRequest()),
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo": everybody(
        [reflection_pb2.ServerReflectionRequest(list_services="")]
    ),
}
MODULES = (admin_pb2, collections_pb2, records_pb2, search_pb2, tenants_pb2, health_pb2, reflection_pb2)
RPCS = {
    f"/{service.full_name}/{method.name}": method
    for module in MODULES
    for service in module.DESCRIPTOR.services_by_name.values()
    for method in service.methods
}
