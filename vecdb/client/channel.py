"""Settings of gRPC: limits, keepalive, retries, and how long a call may take.

A call that ends with UNAVAILABLE, or with CANCELLED (a call that the server had not read when it ended), is repeated
until its time is up if it is a read or a write (retry.py). Each write carries a request_id and so is done once however
often it arrives. What is not repeated: calls that create, drop, rename or name collections, long operations, and
streams that write (bulk_ingest.py resumes those). gRPC repeats nothing by itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from google.protobuf import message_factory

from vecdb.client.address import Target
from vecdb.v1 import admin_pb2, collections_pb2, records_pb2, search_pb2, tenants_pb2

MESSAGE_BYTES_MAX = 64 << 20  # of a request or an answer; the same as the server's
READ_S = 30.0
WRITE_S = 90.0  # a write may wait for room, and for the disk
LONG_S = 3_600.0  # a long operation that reports no progress
SILENCE_MS = 8_000  # how long a keepalive ping may stay unanswered
PASSING = ("UNAVAILABLE", "CANCELLED")  # statuses after which another try may succeed

_GREETING = "GetServerInfo"  # not repeated: opening a server that is not there should fail at once
_READS = (
    "GetDatabaseStats", "GetCollection", "ListCollections", "GetCollectionStats", "Get", "Count",
    "Search", "ListTenants", "GetTenantStats", "ListAliases", "Facets", "Distinct", "MinMax", "Fields",
)  # fmt: skip
_WRITES = ("Write", "Update", "Delete", "Grant", "Revoke", "CreateTenants", "DropTenant", "ClearCollection")
_CHANGES = (
    "CreateCollection", "DropCollection", "RenameCollection", "SetAlias", "DropAlias", "Ingest", "SetMetadata",
)  # fmt: skip  # as long as a write, but not repeated
_PACKED = ("Ingest",)  # its requests are bytes already
_LONG = ("Evaluate", "Tune")  # whatever `timeout` is
READS = frozenset((_GREETING, *_READS, "List"))  # change nothing: a copy answers them as well as the writer
REPEATED = frozenset((*_READS, *_WRITES, "List"))

_PROTOS = (admin_pb2, collections_pb2, records_pb2, search_pb2, tenants_pb2)


def deadlines(timeout_s: float | None) -> dict[str, float]:
    """Seconds by rpc. An rpc that is not in it streams answers and has no deadline."""
    reads = dict.fromkeys((_GREETING, *_READS), timeout_s or READ_S)
    return reads | dict.fromkeys((*_WRITES, *_CHANGES), timeout_s or WRITE_S) | dict.fromkeys(_LONG, LONG_S)


def _methods() -> Iterator[Any]:
    for proto in _PROTOS:
        for service in proto.DESCRIPTOR.services_by_name.values():
            yield from service.methods


def callables(channel: Any) -> dict[str, Any]:
    """gRPC's callable of each rpc, by its name. channel : of grpc or grpc.aio."""
    found = {}
    for method in _methods():
        sends = "stream" if method.client_streaming else "unary"
        make = getattr(channel, f"{sends}_{'stream' if method.server_streaming else 'unary'}")
        found[method.name] = make(
            f"/{method.containing_service.full_name}/{method.name}",
            request_serializer=None
            if method.name in _PACKED
            else message_factory.GetMessageClass(method.input_type).SerializeToString,
            response_deserializer=message_factory.GetMessageClass(method.output_type).FromString,
            _registered_method=True,
        )
    return found


def options(target: Target) -> list[tuple[str, Any]]:
    return [
        ("grpc.enable_retries", 0),
        ("grpc.max_send_message_length", MESSAGE_BYTES_MAX),
        ("grpc.max_receive_message_length", MESSAGE_BYTES_MAX),
        ("grpc.use_local_subchannel_pool", 1),  # each `open` has its own connection
        # A connection that became silent is noticed sooner than READ_S, while there is time for another try. The server
        # allows a ping every ten seconds. gRPC sends pings of its own, too, which by default may stay unanswered for a
        # minute; keepalive waits for those.
        ("grpc.keepalive_time_ms", 12_000),
        ("grpc.keepalive_timeout_ms", SILENCE_MS),
        ("grpc.http2.ping_timeout_ms", SILENCE_MS),
        ("grpc.http2.max_pings_without_data", 0),
        ("grpc.initial_reconnect_backoff_ms", 100),  # short, because a restart takes a second
        ("grpc.min_reconnect_backoff_ms", 5_000),  # how long a handshake may take
        ("grpc.max_reconnect_backoff_ms", 1_000),
        ("grpc.enable_http_proxy", int(not target.local)),
    ]
