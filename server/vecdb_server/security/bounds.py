"""What one message of each rpc may cost, checked on its bytes before an object is made of them.

    bytes -> length -> number of elements -> parser -> message
             over a bound: TooLarge stands for the message, and the call ends with LIMIT_EXCEEDED

`BOUNDS` has a row for every rpc; with an rpc that has none the server does not start. gRPC itself takes no message over
`message_bytes_max`, which it sees before it reads it, and no compressed one. Rpcs that are open to all are answered to
callers without a token without reading their message (open_calls.py).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from google.protobuf import message_factory

from vecdb import LimitExceeded
from vecdb.wire.element_count import ElementCounter
from vecdb_server.config import Config
from vecdb_server.status_errors import not_a_message


@dataclass(frozen=True, slots=True)
class Bound:
    """Names of the settings that bound a message. Elements are fields and entries of lists, at any depth."""

    bytes_max: str
    elements_max: str


OPEN = Bound("open_message_bytes_max", "open_elements_max")
SMALL = Bound("small_message_bytes_max", "small_elements_max")
NAMES = Bound("names_message_bytes_max", "names_elements_max")
READ = Bound("message_bytes_max", "read_elements_max")
WRITE = Bound("message_bytes_max", "write_elements_max")

BOUNDS: dict[str, Bound] = {
    "/vecdb.v1.AdminService/GetServerInfo": SMALL,
    "/vecdb.v1.AdminService/GetDatabaseStats": SMALL,
    "/vecdb.v1.AdminService/CheckDatabase": SMALL,
    "/vecdb.v1.AdminService/Backup": SMALL,
    "/vecdb.v1.AdminService/Vacuum": SMALL,
    "/vecdb.v1.CollectionService/CreateCollection": SMALL,
    "/vecdb.v1.CollectionService/GetCollection": SMALL,
    "/vecdb.v1.CollectionService/ListCollections": SMALL,
    "/vecdb.v1.CollectionService/DropCollection": SMALL,
    "/vecdb.v1.CollectionService/RenameCollection": SMALL,
    "/vecdb.v1.CollectionService/SetAlias": SMALL,
    "/vecdb.v1.CollectionService/DropAlias": SMALL,
    "/vecdb.v1.CollectionService/ListAliases": SMALL,
    "/vecdb.v1.CollectionService/GetCollectionStats": SMALL,
    "/vecdb.v1.CollectionService/CheckCollection": SMALL,
    "/vecdb.v1.CollectionService/OptimizeCollection": SMALL,
    "/vecdb.v1.CollectionService/ReindexCollection": SMALL,
    "/vecdb.v1.CollectionService/ClearCollection": SMALL,
    "/vecdb.v1.CollectionService/SetMetadata": SMALL,
    "/vecdb.v1.CollectionService/VacuumCollection": SMALL,
    "/vecdb.v1.RecordService/Write": WRITE,
    "/vecdb.v1.RecordService/Ingest": WRITE,
    "/vecdb.v1.RecordService/Update": WRITE,
    "/vecdb.v1.RecordService/Delete": WRITE,
    "/vecdb.v1.RecordService/Get": READ,
    "/vecdb.v1.RecordService/Count": READ,
    "/vecdb.v1.RecordService/List": READ,
    "/vecdb.v1.RecordService/Facets": READ,
    "/vecdb.v1.RecordService/Distinct": READ,
    "/vecdb.v1.RecordService/MinMax": READ,
    "/vecdb.v1.RecordService/Fields": NAMES,
    "/vecdb.v1.SearchService/Search": READ,
    "/vecdb.v1.SearchService/StreamSearch": READ,
    "/vecdb.v1.SearchService/Evaluate": READ,
    "/vecdb.v1.SearchService/Tune": READ,
    "/vecdb.v1.TenantService/Grant": WRITE,
    "/vecdb.v1.TenantService/Revoke": WRITE,
    "/vecdb.v1.TenantService/CreateTenants": WRITE,
    "/vecdb.v1.TenantService/DropTenant": SMALL,
    "/vecdb.v1.TenantService/ListTenants": SMALL,
    "/vecdb.v1.TenantService/GetTenantStats": SMALL,
    "/grpc.health.v1.Health/Check": OPEN,
    "/grpc.health.v1.Health/List": OPEN,
    "/grpc.health.v1.Health/Watch": OPEN,
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo": SMALL,
}


class BrokenMessage:
    """Stands for bytes that are no message. If the parser raised, gRPC itself would answer, with the error's text."""


class TooLarge:
    """Stands for a message over a bound. text : for the caller."""

    def __init__(self, text: str) -> None:
        self.text = text


class MessageCheck:
    """The bounds of one rpc. rpc : its path.   descriptor : of its requests."""

    def __init__(self, rpc: str, descriptor: Any, config: Config) -> None:
        bound = BOUNDS[rpc]
        self.bytes_max: int = getattr(config, bound.bytes_max)
        self.elements_max: int = getattr(config, bound.elements_max)
        self._quick_bytes = min(self.bytes_max, self.elements_max)
        self._names = bound
        self._counter = ElementCounter(descriptor)
        self._parse: Callable[[bytes], Any] = message_factory.GetMessageClass(descriptor).FromString

    def fault(self, data: bytes) -> TooLarge | None:
        """What stands for a message of these bytes if it is over a bound."""
        if len(data) > self.bytes_max:
            return TooLarge(
                f"a request of this rpc has at most {self.bytes_max:,} bytes, this one has {len(data):,} "
                f"(setting {self._names.bytes_max}): send it in several"
            )
        if self._counter.exceeds(data, self.elements_max):
            return TooLarge(
                f"a request of this rpc has at most {self.elements_max:,} fields and entries of lists "
                f"(setting {self._names.elements_max}): send it in several"
            )
        return None

    def parse(self, data: bytes) -> Any:
        """The message, or a BrokenMessage or a TooLarge in its place."""
        fault = self.fault(data)
        if fault is not None:
            return fault
        try:
            return self._parse(data)
        except Exception:
            return BrokenMessage()

    def raw(self, data: bytes) -> Any:
        """The bytes, or a TooLarge in their place."""
        return data if len(data) <= self._quick_bytes else self.fault(data) or data


def raise_fault(message: Any) -> None:
    """Raises InvalidArgument or LimitExceeded where the bytes that came were no message, or too large a one."""
    if isinstance(message, TooLarge):
        raise LimitExceeded(message.text)
    if isinstance(message, BrokenMessage):
        raise not_a_message()
