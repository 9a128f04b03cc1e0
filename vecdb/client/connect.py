"""A server's database, connected: a backend for a URL, called synchronously or on an event loop."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from vecdb.client.address import target
from vecdb.client.connection import AsyncConnection, Connection
from vecdb.client.remote_collection import RemoteCollection
from vecdb.client.remote_database import RemoteDatabase
from vecdb.schema import CollectionConfig
from vecdb.validate import seconds

MakeCollection = Callable[[RemoteCollection, CollectionConfig], Any]


def connect(
    url: Any, token: Any, tls: Any, insecure: bool, timeout: Any, make_collection: MakeCollection
) -> RemoteDatabase:
    """The database of a server that answers. make_collection : what users hold of a collection.

    Raises Unavailable, PermissionDenied.
    """
    database = RemoteDatabase(Connection(target(url, token, tls, insecure), _seconds(timeout)), make_collection)
    try:
        database.greet()
    except BaseException:
        database.close()
        raise
    return database


async def connect_async(
    url: Any, token: Any, tls: Any, insecure: bool, timeout: Any, make_collection: MakeCollection
) -> RemoteDatabase:
    """The same on the running event loop: the methods of what it returns give coroutines."""
    connection = cast(Connection, AsyncConnection(target(url, token, tls, insecure), _seconds(timeout)))
    database: Any = RemoteDatabase(connection, make_collection)
    try:
        await database.greet()
    except BaseException:
        await database.close()
        raise
    found: RemoteDatabase = database
    return found


def _seconds(timeout: Any) -> float | None:
    return None if timeout is None else seconds(timeout)
