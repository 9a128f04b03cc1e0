"""A server's database, as `Database` sees it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from vecdb.api.backend import Progress
from vecdb.client.connection import Connection
from vecdb.client.remote_collection import RemoteCollection, told
from vecdb.schema import CollectionConfig
from vecdb.v1 import admin_pb2, collections_pb2
from vecdb.wire.arrays import DTYPE_NUMBERS
from vecdb.wire.messages import METRIC_NUMBERS, collection_of, index_message
from vecdb.wire.search_response import report_of


class RemoteDatabase:
    """made(engine, config) : what users hold of a collection."""

    def __init__(self, line: Connection, made: Callable[[RemoteCollection, CollectionConfig], Any]) -> None:
        self._line = line
        self._made = made

    @property
    def path(self) -> str:
        return self._line.name

    @property
    def read_only(self) -> bool:
        return False

    @property
    def closed(self) -> bool:
        return self._line.closed

    def greet(self) -> None:
        """Ask the server who it is. Raises what a wrong address, certificate or token leads to."""
        return self._line.ask("GetServerInfo", admin_pb2.GetServerInfoRequest(), _nothing)

    def create_collection(self, config: CollectionConfig, exist_ok: bool) -> Any:
        request = collections_pb2.CreateCollectionRequest(
            name=config.name,
            dim=config.dim,
            metric=METRIC_NUMBERS[config.metric],
            dtype=DTYPE_NUMBERS[config.dtype],
            index=index_message(config.index),
            exist_ok=exist_ok,
        )
        return self._line.ask("CreateCollection", request, self._opened)

    def collection(self, name: str) -> Any:
        return self._line.ask("GetCollection", collections_pb2.GetCollectionRequest(name=name), self._opened)

    def _opened(self, answer: Any) -> Any:
        config = collection_of(answer.collection)
        return self._made(RemoteCollection(self._line, config), config)

    def collections(self) -> list[str]:
        request = collections_pb2.ListCollectionsRequest()
        return self._line.ask("ListCollections", request, lambda answer: list(answer.names))

    def drop_collection(self, name: str) -> None:
        return self._line.ask("DropCollection", collections_pb2.DropCollectionRequest(name=name), _nothing)

    def stats(self) -> dict[str, Any]:
        request = admin_pb2.GetDatabaseStatsRequest()
        return self._line.ask("GetDatabaseStats", request, lambda answer: report_of(answer.stats_json))

    def vacuum(self, progress: Progress) -> None:
        return self._line.follow("Vacuum", admin_pb2.VacuumRequest(), told(progress), _nothing)

    def check(self) -> list[str]:
        request = admin_pb2.CheckDatabaseRequest()
        return self._line.follow("CheckDatabase", request, _nothing, lambda last: list(last.problems))

    def backup(self, path: str, progress: Progress) -> None:
        return self._line.follow("Backup", admin_pb2.BackupRequest(name=path), told(progress), _nothing)

    def close(self) -> None:
        return self._line.close()


def _nothing(answer: Any) -> None:
    """What an answer says that says only that it is done."""
