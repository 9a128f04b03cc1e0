"""RemoteDatabase: the backend of a `Database` that is a server's. Every method is one call."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

from vecdb.api.backend import Progress
from vecdb.client.connection import Connection
from vecdb.client.remote_collection import RemoteCollection, ignore_answer, progress_reporter
from vecdb.errors import NotFound
from vecdb.schema import CollectionConfig
from vecdb.v1 import admin_pb2, collections_pb2, tenants_pb2
from vecdb.validate import commit_number
from vecdb.wire.messages import (
    METRIC_NUMBERS,
    ZERO_VECTORS_NUMBERS,
    collection_of,
    index_message,
    metadata_json,
    number_of_dtype,
)
from vecdb.wire.search_response import report_of


class RemoteDatabase:
    """make_collection(backend, config) : the object that users hold."""

    def __init__(
        self, connection: Connection, make_collection: Callable[[RemoteCollection, CollectionConfig], Any]
    ) -> None:
        self._connection = connection
        self._make_collection = make_collection

    @property
    def path(self) -> str:
        return self._connection.name

    @property
    def read_only(self) -> bool:
        return False

    @property
    def closed(self) -> bool:
        return self._connection.closed

    def greet(self) -> None:
        """Ask the server for its version. Raises the error of a wrong address, certificate or token."""
        return self._connection.call("GetServerInfo", admin_pb2.GetServerInfoRequest(), ignore_answer)

    def create_collection(self, config: CollectionConfig, exist_ok: bool) -> Any:
        request = collections_pb2.CreateCollectionRequest(
            name=config.name,
            dim=config.dim,
            metric=METRIC_NUMBERS[config.metric],
            dtype=number_of_dtype(config.dtype),
            index=index_message(config.index),
            exist_ok=exist_ok,
            metadata_json=metadata_json(config.metadata),
            zero_vectors=ZERO_VECTORS_NUMBERS[config.zero_vectors],
        )
        return self._connection.call("CreateCollection", request, partial(self._collection_of, config.name))

    def collection(self, name: str) -> Any:
        request = collections_pb2.GetCollectionRequest(name=name)
        return self._connection.call("GetCollection", request, partial(self._collection_of, name))

    def _collection_of(self, name: str, answer: Any) -> Any:
        """name : that was asked for; the answer has the collection's own, where that is an alias."""
        config = replace(collection_of(answer.collection), name=name)
        return self._make_collection(RemoteCollection(self._connection, config), config)

    def collections(self, tenant: bytes | None = None) -> list[str]:
        request = collections_pb2.ListCollectionsRequest()
        names: list[str] = self._connection.call("ListCollections", request, lambda answer: list(answer.names))
        return names if tenant is None else [name for name in names if self._has_tenant(name, tenant.decode())]

    def _has_tenant(self, collection: str, tenant: str) -> bool:
        request = tenants_pb2.GetTenantStatsRequest(collection=collection, tenant=tenant)
        try:
            self._connection.call("GetTenantStats", request, ignore_answer)
        except NotFound:
            return False
        return True

    def drop_collection(self, name: str) -> None:
        return self._connection.call("DropCollection", collections_pb2.DropCollectionRequest(name=name), ignore_answer)

    def rename_collection(self, old: str, new: str) -> None:
        request = collections_pb2.RenameCollectionRequest(name=old, new_name=new)
        return self._connection.call("RenameCollection", request, ignore_answer)

    def set_alias(self, alias: str, collection: str) -> None:
        request = collections_pb2.SetAliasRequest(alias=alias, collection=collection)
        return self._connection.call("SetAlias", request, ignore_answer)

    def drop_alias(self, alias: str) -> None:
        return self._connection.call("DropAlias", collections_pb2.DropAliasRequest(alias=alias), ignore_answer)

    def aliases(self) -> dict[str, str]:
        request = collections_pb2.ListAliasesRequest()
        return self._connection.call("ListAliases", request, lambda answer: dict(sorted(answer.collections.items())))

    def stats(self, disk: bool) -> dict[str, Any]:
        request = admin_pb2.GetDatabaseStatsRequest(without_disk=not disk)
        return self._connection.call("GetDatabaseStats", request, lambda answer: report_of(answer.stats_json))

    def sequence(self) -> int:
        return self._connection.call("GetServerInfo", admin_pb2.GetServerInfoRequest(), _sequence_of)

    def wait_for(self, sequence: Any, timeout_s: float) -> None:
        request = admin_pb2.GetServerInfoRequest(min_sequence=commit_number(sequence))
        return self._connection.with_timeout(timeout_s).call("GetServerInfo", request, ignore_answer)

    def vacuum(self, progress: Progress) -> None:
        return self._connection.call_with_progress(
            "Vacuum", admin_pb2.VacuumRequest(), progress_reporter(progress), ignore_answer
        )

    def check(self) -> list[str]:
        request = admin_pb2.CheckDatabaseRequest()
        return self._connection.call_with_progress(
            "CheckDatabase", request, ignore_answer, lambda last: list(last.problems)
        )

    def backup(self, path: str, keep: int | None, progress: Progress) -> None:
        request = admin_pb2.BackupRequest(name=path, keep=keep or 0)
        return self._connection.call_with_progress("Backup", request, progress_reporter(progress), ignore_answer)

    def close(self) -> None:
        return self._connection.close()


def _sequence_of(answer: Any) -> int:
    return int(answer.sequence)
