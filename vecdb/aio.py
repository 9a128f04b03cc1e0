"""The asynchronous mirror of a database: the same names, arguments, answers and errors, awaited.

    async with vecdb.aio.open("grpc://localhost:7711") as db:        # also "./data" and ":memory:"
        docs = await db.collection("docs")
        hits = await docs.search(query, limit=10)

What asks the database is a coroutine; `iter`, `tenants` and `search_stream` are iterated with `async for`. Any number
of calls may be on their way at once.

    of a server       calls are sent from the event loop. The database belongs to the loop that it was opened on.
                      grpc.aio does not come through a fork: a process that is forked while one is open here gets
                      Unavailable from `open`; start it by `spawn`, or let it use `vecdb.open`
    of a cluster      calls run in threads, as those of a directory do
    of a directory    calls run in threads of this process, at most 32 at once, so the loop stays free; any loop may use
                      it. A call that is cancelled goes on in its thread; a search stops at its next chunk of queries.
                      `progress` is called in that thread
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import functools
import inspect
import os
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Any, Concatenate, Literal, ParamSpec, TypeVar

from vecdb.api import collection as near
from vecdb.api import database as near_database
from vecdb.api import tables
from vecdb.api.backend import CollectionBackend
from vecdb.api.embedding import Embedder
from vecdb.errors import PermissionDenied
from vecdb.schema import CollectionConfig, Record
from vecdb.wire.addresses import is_cluster, is_remote

__all__ = ["Collection", "Database", "open"]

P = ParamSpec("P")
T = TypeVar("T")
Facade = TypeVar("Facade")

_THREADS_MAX = 32  # as many writes share a commit
_END = object()


class CallThreads:
    """The threads in which the calls of one embedded database run; once it is closed, those of asyncio. In a forked
    child there are none: a call runs where it is made, and is refused by the database itself.
    """

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(_THREADS_MAX, thread_name_prefix="vecdb-aio")
        self._pid = os.getpid()
        self._closed = False

    async def run(self, call: Callable[[], T]) -> T:
        if os.getpid() != self._pid:
            return call()
        if self._closed:
            return await asyncio.to_thread(call)
        context = contextvars.copy_context()
        return await asyncio.get_running_loop().run_in_executor(self._pool, context.run, call)

    async def run_stoppable(self, call: Callable[[Callable[[], bool]], T], stop: Callable[[], bool] | None) -> T:
        """call(stop) : it stops early where `stop` says so, or where whoever awaits this is cancelled."""
        left = threading.Event()

        def stopped() -> bool:
            return left.is_set() or (stop is not None and stop())

        try:
            return await self.run(lambda: call(stopped))
        except asyncio.CancelledError:
            left.set()
            raise

    async def close(self, close: Callable[[], None]) -> None:
        """close() in a thread of its own, since all others may wait for what it ends."""
        if os.getpid() != self._pid:
            return close()
        self._closed = True
        await asyncio.to_thread(close)
        self._pool.shutdown(wait=False)


class _Mirror:
    """near : a facade. threads : where its methods run; None where they return what is to be awaited, as what stands
    behind them does (backend.py).
    """

    __slots__ = ("_near", "_threads")

    def __init__(self, near: Any, threads: CallThreads | None = None) -> None:
        self._near = near
        self._threads = threads


def _awaited(method: Callable[Concatenate[Facade, P], T]) -> Callable[Concatenate[_Mirror, P], Coroutine[Any, Any, T]]:
    @functools.wraps(method)
    async def call(self: _Mirror, /, *args: P.args, **kwargs: P.kwargs) -> T:
        bound: Any = functools.partial(method, self._near, *args, **kwargs)
        if self._threads is not None:
            return await self._threads.run(bound)
        found: T = await bound()
        return found

    return call


def _searched(method: Callable[Concatenate[Facade, P], T]) -> Callable[Concatenate[_Mirror, P], Coroutine[Any, Any, T]]:
    """A method that has the option `stop`."""
    awaited = _awaited(method)

    @functools.wraps(method)
    async def call(self: _Mirror, /, *args: P.args, **kwargs: P.kwargs) -> T:
        if self._threads is None:
            if kwargs.get("text") is not None:
                named: dict[str, Any] = dict(kwargs)
                query = args[0] if args else named.get("query")
                named["query"] = await asyncio.to_thread(self._near._read_queries, query, named.pop("text"))
                asked: Any = awaited
                answered: T = await asked(self, *args[1:], **named)
                return answered
            return await awaited(self, *args, **kwargs)
        bound: Any = functools.partial(method, self._near, *args, **kwargs)
        given: Any = kwargs.get("stop")
        return await self._threads.run_stoppable(lambda stop: bound(stop=stop), given)

    return call


def _prepared(
    method: Callable[Concatenate[Facade, P], Callable[[], T]],
) -> Callable[Concatenate[_Mirror, P], Callable[[], Coroutine[Any, Any, T]]]:
    """What is called later is what is awaited."""

    @functools.wraps(method)
    def call(self: _Mirror, /, *args: P.args, **kwargs: P.kwargs) -> Callable[[], Coroutine[Any, Any, T]]:
        later: Any = method(self._near, *args, **kwargs)
        if self._threads is not None:
            return functools.partial(self._threads.run, later)
        found: Callable[[], Coroutine[Any, Any, T]] = later
        return found

    return call


def _texted(method: Callable[Concatenate[Facade, P], T]) -> Callable[Concatenate[_Mirror, P], Coroutine[Any, Any, T]]:
    """A write that has the option `texts`. The model works in a thread, whatever is asked from the event loop."""
    awaited = _awaited(method)
    signature = inspect.signature(method)

    @functools.wraps(method)
    async def call(self: _Mirror, /, *args: P.args, **kwargs: P.kwargs) -> T:
        if self._threads is not None or kwargs.get("texts") is None:
            return await awaited(self, *args, **kwargs)
        given = signature.bind(self._near, *args, **kwargs).arguments
        near = given.pop("self")
        given["vectors"], given["fields"] = await asyncio.to_thread(
            near._read_texts, given.get("ids"), given.pop("texts"), given.get("vectors"), given.get("fields"),
            given.pop("progress", None), note=False,
        )  # fmt: skip
        if not near.embedder.noted:
            with contextlib.suppress(PermissionDenied):
                await near.set_metadata((await near.config).metadata)
            near.embedder.noted = True
        bound: Any = awaited
        found: T = await bound(self, **given)
        return found

    return call


def _iterated(
    method: Callable[Concatenate[Facade, P], Iterator[T]],
) -> Callable[Concatenate[_Mirror, P], AsyncIterator[T]]:
    @functools.wraps(method)
    def call(self: _Mirror, /, *args: P.args, **kwargs: P.kwargs) -> AsyncIterator[T]:
        coming: Any = method(self._near, *args, **kwargs)
        if self._threads is not None:
            return _each(_TakenInThreads(self._threads, coming))
        found: AsyncIterator[T] = coming
        return found

    return call


class _TakenInThreads:
    """An iterator of the embedded database whose steps are taken in threads; closed also while one is at work."""

    def __init__(self, threads: CallThreads, found: Any) -> None:
        self._threads = threads
        self._found = found
        self._lock = threading.Lock()

    async def take(self) -> Any:
        """The next one; _END where there is none."""
        return await self._threads.run(self._take)

    def _take(self) -> Any:
        with self._lock:
            return next(self._found, _END)

    async def close(self) -> None:
        try:
            asyncio.get_running_loop()
        except RuntimeError:  # whoever iterates has left it to the garbage collector, and its loop has ended
            self._close()
        else:
            await self._threads.run(self._close)

    def _close(self) -> None:
        with self._lock:
            self._found.close()


async def _each(found: _TakenInThreads) -> AsyncIterator[Any]:
    try:
        while (one := await found.take()) is not _END:
            yield one
    finally:
        await found.close()


def _streamed(
    method: Callable[Concatenate[Facade, P], Iterator[T]],
) -> Callable[Concatenate[_Mirror, P], AsyncIterator[T]]:
    """`search_stream`, whose queries may come from an asynchronous iterable."""
    iterated = _iterated(method)

    @functools.wraps(method)
    def call(self: _Mirror, /, *args: P.args, **kwargs: P.kwargs) -> AsyncIterator[T]:
        given: tuple[Any, ...] = args
        named: dict[str, Any] = dict(kwargs)
        queries = given[0] if given else named.pop("queries", None)
        if self._threads is None or not (hasattr(queries, "__iter__") or hasattr(queries, "__aiter__")):
            return iterated(self, *args, **kwargs)
        asked: list[Any] = []
        search: Any = method
        found = search(self._near, _next_of(asked), *given[1:], **named)
        return _answers(queries, asked, _TakenInThreads(self._threads, found))

    return call


def _next_of(asked: list[Any]) -> Iterator[Any]:
    """asked : the one query that is answered next."""
    while True:
        yield asked.pop()


async def _answers(queries: Any, asked: list[Any], found: _TakenInThreads) -> AsyncIterator[Any]:
    try:
        async for query in _one_by_one(queries):
            asked.append(query)
            yield await found.take()
    finally:
        await found.close()


async def _one_by_one(queries: Any) -> AsyncIterator[Any]:
    if hasattr(queries, "__aiter__"):
        async for query in queries:
            yield query
    else:
        for query in queries:
            yield query


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
        found: CollectionConfig
        if self._threads is not None:
            found = await self._threads.run(lambda: self._near.config)
        else:
            found = await self._near.config
        return found

    async def metadata(self) -> dict[str, Any]:
        """As `vecdb.Collection.metadata`."""
        return (await self.config()).metadata

    def with_timeout(self, seconds: float) -> Collection:
        """As `vecdb.Collection.with_timeout`."""
        return Collection(self._near.with_timeout(seconds), self._threads)

    @property
    def embedder(self) -> Embedder | None:
        """As `vecdb.Collection.embedder`."""
        found: Embedder | None = self._near.embedder
        return found

    upsert = _texted(near.Collection.upsert)
    insert = _texted(near.Collection.insert)
    add = _texted(near.Collection.add)
    set_metadata = _awaited(near.Collection.set_metadata)
    clear = _awaited(near.Collection.clear)
    prepare = _prepared(near.Collection.prepare)
    update = _awaited(near.Collection.update)
    delete = _awaited(near.Collection.delete)
    grant = _awaited(near.Collection.grant)
    revoke = _awaited(near.Collection.revoke)
    tenants = _iterated(near.Collection.tenants)
    create_tenant = _awaited(near.Collection.create_tenant)
    drop_tenant = _awaited(near.Collection.drop_tenant)
    search = _searched(near.Collection.search)
    search_stream = _streamed(near.Collection.search_stream)
    search_mixture = _awaited(near.Collection.search_mixture)
    get = _awaited(near.Collection.get)
    count = _awaited(near.Collection.count)
    iter = _iterated(near.Collection.iter)
    head = _awaited(near.Collection.head)
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

    async def to_pandas(self, *, include_vectors: bool = False, **options: Any) -> Any:
        """As `vecdb.Collection.to_pandas`."""
        return tables.pandas_frame(await self._records(include_vectors, options), include_vectors)

    async def to_arrow(self, *, include_vectors: bool = False, **options: Any) -> Any:
        """As `vecdb.Collection.to_arrow`."""
        return tables.arrow_table(await self._records(include_vectors, options), include_vectors)

    async def _records(self, include_vectors: bool, options: dict[str, Any]) -> list[Record]:
        pages: Any = self.iter(include_vectors=include_vectors, **options)
        return [record async for page in pages for record in page]

    def __repr__(self) -> str:
        return repr(self._near)


def _opened(
    method: Callable[Concatenate[Facade, P], near.Collection],
) -> Callable[Concatenate[_Mirror, P], Coroutine[Any, Any, Collection]]:
    """A method that gives a collection. What is behind a server's facade makes asynchronous ones by itself."""
    awaited = _awaited(method)

    @functools.wraps(method)
    async def call(self: _Mirror, /, *args: P.args, **kwargs: P.kwargs) -> Collection:
        embedder = Embedder.of(kwargs.get("embed"))
        if embedder is not None and method.__name__ == "create_collection":  # it asks the model, which takes its time
            kwargs["embed"] = await asyncio.to_thread(embedder.measured)
        found: Any = await awaited(self, *args, **kwargs)
        return found if isinstance(found, Collection) else Collection(found, self._threads)

    return call


class Database(_Mirror):
    """`vecdb.Database`, awaited. Close it, or use it in an `async with` block."""

    __slots__ = ()

    @property
    def path(self) -> str:
        """The directory, or the address of the server."""
        return str(self._near.path)

    @property
    def read_only(self) -> bool:
        return bool(self._near.read_only)

    create_collection = _opened(near_database.Database.create_collection)
    collection = _opened(near_database.Database.collection)
    collections = _awaited(near_database.Database.collections)
    drop_collection = _awaited(near_database.Database.drop_collection)
    rename_collection = _awaited(near_database.Database.rename_collection)
    set_alias = _awaited(near_database.Database.set_alias)
    drop_alias = _awaited(near_database.Database.drop_alias)
    aliases = _awaited(near_database.Database.aliases)
    stats = _awaited(near_database.Database.stats)
    sequence = _awaited(near_database.Database.sequence)
    wait_for = _awaited(near_database.Database.wait_for)
    vacuum = _awaited(near_database.Database.vacuum)
    check = _awaited(near_database.Database.check)
    backup = _awaited(near_database.Database.backup)

    async def close(self) -> None:
        """As `vecdb.Database.close`."""
        if self._threads is not None:
            await self._threads.close(self._near.close)
        else:
            await self._near.close()

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

    __slots__ = ("_open", "_opened")

    def __init__(self, open: Callable[[], Coroutine[Any, Any, Database]]) -> None:
        self._open = open

    def __await__(self) -> Generator[Any, None, Database]:
        return self._open().__await__()

    async def __aenter__(self) -> Database:
        self._opened = await self
        return self._opened

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._opened.close()


async def _open_server(url: Any, token: Any, tls: Any, insecure: bool, timeout: Any) -> Database:
    from vecdb.client import connect_async  # only here: vecdb is installed without gRPC, too

    backend = await connect_async(url, token, tls, insecure, timeout, _collection)
    return Database(near_database.Database(backend))


async def _open_cluster(url: Any, token: Any, tls: Any, insecure: bool, timeout: Any, allow_partial: bool) -> Database:
    from vecdb.cluster.cluster_database import connect_cluster  # only here, as the others

    backend = await asyncio.to_thread(
        connect_cluster, url, token, tls, insecure, timeout, allow_partial, near.Collection
    )
    return Database(near_database.Database(backend), CallThreads())


async def _open_directory(path: Any, options: dict[str, Any]) -> Database:
    from vecdb.embedded.open import open_database  # only here: who asks a server needs no compiler

    database = await asyncio.to_thread(open_database, path, **options)
    return Database(database, CallThreads())


def open(
    path: str | os.PathLike[str],
    *,
    read_only: bool = False,
    durability: Literal["full", "relaxed", "remote"] = "full",
    memory_budget_bytes: int | None = None,
    maintenance: bool = True,
    log: str | None = None,
    follow: str | None = None,
    staleness_s: float | None = 1.0,
    lease: bool = False,
    token: str | None = None,
    tls: Any = None,
    insecure: bool = False,
    timeout: float | None = None,
    allow_partial: bool = False,
) -> Opening:
    """Open a database: `db = await open(...)`, or `async with open(...) as db`. Arguments and errors: `vecdb.open`."""
    local: dict[str, Any] = {"read_only": read_only, "memory_budget_bytes": memory_budget_bytes}
    if is_remote(path):
        served = {"durability": durability != "full", "maintenance": maintenance is not True}
        copied = {"log": log, "follow": follow, "staleness_s": staleness_s != 1.0, "lease": lease}
        near_database.refuse_options(path, local | served | copied)
        if is_cluster(path):
            return Opening(functools.partial(_open_cluster, path, token, tls, insecure, timeout, allow_partial))
        near_database.refuse_options(path, {"allow_partial": allow_partial})
        return Opening(functools.partial(_open_server, path, token, tls, insecure, timeout))
    near_database.refuse_options(path, {"token": token, "tls": tls, "insecure": insecure, "timeout": timeout})
    near_database.refuse_options(path, {"allow_partial": allow_partial})
    local |= {"log": log, "follow": follow, "staleness_s": staleness_s, "lease": lease}
    return Opening(
        functools.partial(_open_directory, path, local | {"durability": durability, "maintenance": maintenance})
    )
