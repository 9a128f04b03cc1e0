"""The asynchronous mirror of a remote database: the same names, arguments, answers and errors, awaited.

    async with vecdb.aio.open("grpc://localhost:7711") as db:
        docs = await db.collection("docs")
        hits = await docs.search(query, limit=10)

What asks the server is a coroutine; `iter`, `tenants` and `search_stream` are iterated with `async for`. An open
database belongs to the event loop that it was opened on; any number of calls may be on their way at once. grpc.aio does
not come through a fork: a process that is forked while a database is open here gets Unavailable from `open`; start it
by `spawn`, or let it use `vecdb.open`.
"""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator, Callable, Coroutine, Generator, Iterator
from types import TracebackType
from typing import Any, Concatenate, ParamSpec, TypeVar

from vecdb.api import collection as near
from vecdb.api import database as near_database
from vecdb.api.backend import CollectionBackend
from vecdb.schema import CollectionConfig

__all__ = ["Collection", "Database", "open"]

P = ParamSpec("P")
T = TypeVar("T")
Facade = TypeVar("Facade")


class _Mirror:
    """near : a facade whose methods return what is to be awaited, as what stands behind it does (backend.py)."""

    __slots__ = ("_near",)

    def __init__(self, near: Any) -> None:
        self._near = near


def _awaited(method: Callable[Concatenate[Facade, P], T]) -> Callable[Concatenate[_Mirror, P], Coroutine[Any, Any, T]]:
    @functools.wraps(method)
    async def call(self: _Mirror, /, *args: P.args, **kwargs: P.kwargs) -> T:
        coming: Any = method(self._near, *args, **kwargs)
        found: T = await coming
        return found

    return call


def _prepared(
    method: Callable[Concatenate[Facade, P], Callable[[], T]],
) -> Callable[Concatenate[_Mirror, P], Callable[[], Coroutine[Any, Any, T]]]:
    """What is called later is what is awaited."""

    @functools.wraps(method)
    def call(self: _Mirror, /, *args: P.args, **kwargs: P.kwargs) -> Callable[[], Coroutine[Any, Any, T]]:
        later: Any = method(self._near, *args, **kwargs)
        found: Callable[[], Coroutine[Any, Any, T]] = later
        return found

    return call


def _iterated(
    method: Callable[Concatenate[Facade, P], Iterator[T]],
) -> Callable[Concatenate[_Mirror, P], AsyncIterator[T]]:
    @functools.wraps(method)
    def call(self: _Mirror, /, *args: P.args, **kwargs: P.kwargs) -> AsyncIterator[T]:
        coming: Any = method(self._near, *args, **kwargs)
        found: AsyncIterator[T] = coming
        return found

    return call


class Collection(_Mirror):
    """`vecdb.Collection`, awaited."""

    __slots__ = ()

    @property
    def name(self) -> str:
        return str(self._near.name)

    @property
    def dim(self) -> int:
        return int(self._near.dim)

    @property
    def metric(self) -> str:
        return str(self._near.metric)

    @property
    def dtype(self) -> str:
        return str(self._near.dtype)

    async def config(self) -> CollectionConfig:
        """Name, dim, metric, dtype and index as they are now."""
        found: CollectionConfig = await self._near.config
        return found

    upsert = _awaited(near.Collection.upsert)
    insert = _awaited(near.Collection.insert)
    prepare = _prepared(near.Collection.prepare)
    update = _awaited(near.Collection.update)
    delete = _awaited(near.Collection.delete)
    grant = _awaited(near.Collection.grant)
    revoke = _awaited(near.Collection.revoke)
    tenants = _iterated(near.Collection.tenants)
    create_tenant = _awaited(near.Collection.create_tenant)
    drop_tenant = _awaited(near.Collection.drop_tenant)
    search = _awaited(near.Collection.search)
    search_stream = _iterated(near.Collection.search_stream)
    search_mixture = _awaited(near.Collection.search_mixture)
    get = _awaited(near.Collection.get)
    count = _awaited(near.Collection.count)
    iter = _iterated(near.Collection.iter)
    facets = _awaited(near.Collection.facets)
    distinct = _awaited(near.Collection.distinct)
    min = _awaited(near.Collection.min)
    max = _awaited(near.Collection.max)
    fields = _awaited(near.Collection.fields)
    reindex = _awaited(near.Collection.reindex)
    optimize = _awaited(near.Collection.optimize)
    evaluate = _awaited(near.Collection.evaluate)
    tune = _awaited(near.Collection.tune)
    stats = _awaited(near.Collection.stats)
    vacuum = _awaited(near.Collection.vacuum)
    check = _awaited(near.Collection.check)

    def __repr__(self) -> str:
        return repr(self._near)


def _opened(
    method: Callable[Concatenate[Facade, P], near.Collection],
) -> Callable[Concatenate[_Mirror, P], Coroutine[Any, Any, Collection]]:
    """What is behind an asynchronous facade makes asynchronous collections."""
    call: Any = _awaited(method)
    found: Callable[Concatenate[_Mirror, P], Coroutine[Any, Any, Collection]] = call
    return found


class Database(_Mirror):
    """`vecdb.Database`, awaited. Close it, or use it in an `async with` block."""

    __slots__ = ()

    @property
    def path(self) -> str:
        """The address of the server."""
        return str(self._near.path)

    @property
    def read_only(self) -> bool:
        return bool(self._near.read_only)

    create_collection = _opened(near_database.Database.create_collection)
    collection = _opened(near_database.Database.collection)
    collections = _awaited(near_database.Database.collections)
    drop_collection = _awaited(near_database.Database.drop_collection)
    stats = _awaited(near_database.Database.stats)
    vacuum = _awaited(near_database.Database.vacuum)
    check = _awaited(near_database.Database.check)
    backup = _awaited(near_database.Database.backup)
    close = _awaited(near_database.Database.close)

    async def __aenter__(self) -> Database:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def __repr__(self) -> str:
        return repr(self._near)


def _collection(backend: CollectionBackend, config: CollectionConfig) -> Collection:
    """What users hold of a collection whose backend gives coroutines."""
    return Collection(near.Collection(backend, config))


class Opening:
    """A database that is being opened: await it, or use it in an `async with` block."""

    __slots__ = ("_arguments", "_opened")

    def __init__(self, arguments: tuple[Any, Any, Any, bool, Any]) -> None:
        self._arguments = arguments

    def __await__(self) -> Generator[Any, None, Database]:
        return self._open().__await__()

    async def _open(self) -> Database:
        from vecdb.client import connect_async  # only here: vecdb is installed without gRPC, too

        backend = await connect_async(*self._arguments, _collection)
        return Database(near_database.Database(backend))

    async def __aenter__(self) -> Database:
        self._opened = await self
        return self._opened

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._opened.close()


def open(
    url: str,
    *,
    token: str | None = None,
    tls: Any = None,
    insecure: bool = False,
    timeout: float | None = None,
) -> Opening:
    """Open the database of a server: `db = await open(...)`, or `async with open(...) as db`.

    url, token, tls, insecure, timeout : as in `vecdb.open`.
    """
    return Opening((url, token, tls, insecure, timeout))
