"""The rpcs, one class for each service of the proto.

    message -> values -> vecdb's public API -> values -> message

vecdb checks the values itself; the `Caller` says which collections and tenants a request may use.
"""

from __future__ import annotations

from typing import Any

from vecdb.v1 import admin_pb2, collections_pb2, records_pb2, search_pb2, tenants_pb2
from vecdb_server.services.admin import Admin
from vecdb_server.services.collections import Collections
from vecdb_server.services.context import ServerContext
from vecdb_server.services.records import Records
from vecdb_server.services.search import Search
from vecdb_server.services.tenants import Tenants


def services(server: ServerContext) -> list[tuple[Any, Any]]:
    """(descriptor, behaviours) of each service."""
    return [
        (admin_pb2.DESCRIPTOR.services_by_name["AdminService"], Admin(server)),
        (collections_pb2.DESCRIPTOR.services_by_name["CollectionService"], Collections(server)),
        (records_pb2.DESCRIPTOR.services_by_name["RecordService"], Records(server)),
        (search_pb2.DESCRIPTOR.services_by_name["SearchService"], Search(server)),
        (tenants_pb2.DESCRIPTOR.services_by_name["TenantService"], Tenants(server)),
    ]
