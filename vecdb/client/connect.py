"""`vecdb.open("grpc://...")` and its asynchronous mirror."""

from __future__ import annotations

from typing import Any, cast

from vecdb import aio
from vecdb.api.collection import Collection
from vecdb.api.database import Database
from vecdb.client.address import target
from vecdb.client.connection import AsyncConnection, Connection
from vecdb.client.remote_database import RemoteDatabase
from vecdb.errors import InvalidArgument


def connect(url: Any, token: Any, tls: Any, insecure: bool, timeout: Any) -> Database:
    """The database of a server that answers. Raises Unavailable, PermissionDenied."""
    home = RemoteDatabase(Connection(target(url, token, tls, insecure), _seconds(timeout)), Collection)
    try:
        home.greet()
    except BaseException:
        home.close()
        raise
    return Database(home)


async def connect_async(url: Any, token: Any, tls: Any, insecure: bool, timeout: Any) -> aio.Database:
    """The same on the running event loop."""
    line: Any = AsyncConnection(target(url, token, tls, insecure), _seconds(timeout))
    home: Any = RemoteDatabase(
        cast(Connection, line), lambda engine, config: aio.Collection(Collection(engine, config))
    )
    try:
        await home.greet()
    except BaseException:
        await home.close()
        raise
    return aio.Database(Database(home))


def _seconds(timeout: Any) -> float | None:
    if timeout is None:
        return None
    if isinstance(timeout, bool) or not isinstance(timeout, (int, float)) or not 0 < timeout < float("inf"):
        raise InvalidArgument(f"timeout must be a number of seconds above 0, or None, got {timeout!r}")
    return float(timeout)
