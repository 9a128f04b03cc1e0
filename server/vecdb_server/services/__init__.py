"""The rpcs, one class for each service of the proto: a message becomes values, vecdb's public API does the work, what
it returns becomes a message. Values are checked by vecdb's own gate; scope is asked of the caller.
"""

from __future__ import annotations

from typing import Any

from vecdb.v1 import admin_pb2, collections_pb2, records_pb2, search_pb2, tenants_pb2
from vecdb_server.services.admin import Admin
from vecdb_server.services.collections import Collections
from vecdb_server.services.context import House
from vecdb_server.services.records import Records
from vecdb_server.services.search import Search
from vecdb_server.services.tenants import Tenants


def services(house: House) -> list[tuple[Any, Any]]:
    """(descriptor, behaviours) of each."""
    return [
        (admin_pb2.DESCRIPTOR.services_by_name["AdminService"], Admin(house)),
        (collections_pb2.DESCRIPTOR.services_by_name["CollectionService"], Collections(house)),
        (records_pb2.DESCRIPTOR.services_by_name["RecordService"], Records(house)),
        (search_pb2.DESCRIPTOR.services_by_name["SearchService"], Search(house)),
        (tenants_pb2.DESCRIPTOR.services_by_name["TenantService"], Tenants(house)),
    ]
