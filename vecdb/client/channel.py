"""How gRPC behaves: limits, keepalive, retries, and how long a call may take.

Repeated by gRPC itself, where the answer is UNAVAILABLE, or CANCELLED (of a call that a server had not taken in yet
when it ended): reads, and writes, each of which carries a request_id and is therefore carried out once however often it
arrives. Not what creates and drops, nor streams that write (bulk_ingest.py resumes those) and long operations.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from google.protobuf import message_factory

from vecdb.client.address import Target
from vecdb.v1 import admin_pb2, collections_pb2, records_pb2, search_pb2, tenants_pb2

MESSAGE_BYTES_MAX = 64 << 20  # of a request or an answer, as the server has it
READ_S = 30.0
WRITE_S = 90.0  # a write may wait for room, and for the disk
LONG_S = 3_600.0  # a long operation that says nothing before it is done
SILENCE_MS = 8_000  # of a connection that was asked whether it is there
PASSING = ("UNAVAILABLE", "CANCELLED")  # statuses that another try may do without

_GREETING = "GetServerInfo"  # whoever opens what is not there should hear it at once
_READS = (
    "GetDatabaseStats", "GetCollection", "ListCollections", "GetCollectionStats", "Get", "Count",
    "Search", "ListTenants", "GetTenantStats",
)  # fmt: skip
_WRITES = ("Write", "Update", "Delete", "Grant", "Revoke", "CreateTenants", "DropTenant")
_CHANGES = ("CreateCollection", "DropCollection", "Ingest")  # as long as a write, but not repeated by gRPC
_LONG = ("Evaluate", "Tune")  # whatever else a call may take
_REPEATED = (*_READS, *_WRITES, "List")

_PROTOS = (admin_pb2, collections_pb2, records_pb2, search_pb2, tenants_pb2)


def deadlines(timeout_s: float | None) -> dict[str, float]:
    """Seconds, by rpc; one that is not there answers again and again, and goes on as long as it does."""
    reads = dict.fromkeys((_GREETING, *_READS), timeout_s or READ_S)
    return reads | dict.fromkeys((*_WRITES, *_CHANGES), timeout_s or WRITE_S) | dict.fromkeys(_LONG, LONG_S)


def _methods() -> Iterator[Any]:
    for proto in _PROTOS:
        for service in proto.DESCRIPTOR.services_by_name.values():
            yield from service.methods


def callables(channel: Any) -> dict[str, Any]:
    """What calls each rpc, by its name, on a channel of either kind."""
    found = {}
    for method in _methods():
        sends = "stream" if method.client_streaming else "unary"
        make = getattr(channel, f"{sends}_{'stream' if method.server_streaming else 'unary'}")
        found[method.name] = make(
            f"/{method.containing_service.full_name}/{method.name}",
            request_serializer=message_factory.GetMessageClass(method.input_type).SerializeToString,
            response_deserializer=message_factory.GetMessageClass(method.output_type).FromString,
            _registered_method=True,
        )
    return found


def options(target: Target) -> list[tuple[str, Any]]:
    return [
        ("grpc.service_config", _service_config()),
        ("grpc.per_rpc_retry_buffer_size", MESSAGE_BYTES_MAX),  # what is larger would not be repeated
        ("grpc.max_send_message_length", MESSAGE_BYTES_MAX),
        ("grpc.max_receive_message_length", MESSAGE_BYTES_MAX),
        ("grpc.use_local_subchannel_pool", 1),  # a connection for each `open`, not one that all of the process share
        # A connection that fell silent is noticed while there is time for another try: sooner than READ_S. The server
        # lets pings come every ten seconds. gRPC has pings of its own, too, which by default may be unanswered for a
        # minute, and keepalive waits for those.
        ("grpc.keepalive_time_ms", 12_000),
        ("grpc.keepalive_timeout_ms", SILENCE_MS),
        ("grpc.http2.ping_timeout_ms", SILENCE_MS),
        ("grpc.http2.max_pings_without_data", 0),
        ("grpc.initial_reconnect_backoff_ms", 100),  # a restart takes a second, not a minute
        ("grpc.min_reconnect_backoff_ms", 5_000),  # how long a handshake may take
        ("grpc.max_reconnect_backoff_ms", 5_000),
        ("grpc.enable_http_proxy", int(not target.local)),
    ]


def _service_config() -> str:
    full = {method.name: method.containing_service.full_name for method in _methods()}
    policy = {
        "maxAttempts": 5,  # the most that gRPC makes
        "initialBackoff": "0.2s",
        "maxBackoff": "5s",
        "backoffMultiplier": 3,
        "retryableStatusCodes": PASSING,
    }
    names = [{"service": full[rpc], "method": rpc} for rpc in _REPEATED]
    return json.dumps({"methodConfig": [{"name": names, "retryPolicy": policy}]})
