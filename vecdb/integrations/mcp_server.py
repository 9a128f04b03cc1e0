"""MCP: one collection as tools of a model, over stdio or streamable HTTP.

    list_collections, search, get, browse, count, facets      always
    remember, forget                                          only where writing was allowed at the start

The collection and the tenant are bound when the server starts, and are no argument of any tool: whatever a model asks,
it asks of what that tenant may see. What it writes is the tenant's own, and it forgets nothing else. A tool that fails
says why in its answer, so that the model can ask again.

Threads: the SDK calls each tool in a thread of its own; the collection takes that.
"""

from __future__ import annotations

import copy
import datetime as dt
import functools
import math
from collections.abc import Callable
from typing import Annotated, Any, TypeVar

from mcp.server import MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from mcp_types import ToolAnnotations
from pydantic import Field

import vecdb
from vecdb.errors import InvalidArgument, NotFound, VecdbError
from vecdb.integrations.shared import CollectionHandle
from vecdb.schema import Record
from vecdb.validate import tenant_name

_LIMIT_MAX = 100  # of one answer: a model reads all of it

Tool = TypeVar("Tool", bound=Callable[..., Any])
Limit = Annotated[int, Field(ge=1, le=_LIMIT_MAX, description=f"How many at most, up to {_LIMIT_MAX}.")]
Filter = Annotated[
    str | dict[str, Any] | None,
    Field(
        description="Which records count: text such as \"lang = 'en' and (year >= 2020 or tags contains 'x')\", or a "
        'dict such as {"year": {"$gte": 2020}}. Fields: see list_collections.'
    ),
]
Owner = Annotated[str | None, Field(description="Whose record it is, where an answer named an owner.")]


def server_of(docs: vecdb.Collection, *, tenant: str | None = None, write: bool = False) -> MCPServer[Any]:
    """The server of a collection. tenant : all that its tools see and write. write : with remember and forget."""
    tools = CollectionTools(docs, None if tenant is None else tenant_name(tenant).decode())
    texts = docs.embedder is not None
    server: MCPServer[Any] = MCPServer(
        "vecdb",
        version=vecdb.__version__,
        instructions=(
            f"Records of the collection {docs.name!r}: an id and fields each. search finds those that are near in "
            f"meaning, {'by text, ' if texts else ''}by the id of another record or by vector; browse and count take "
            "exact conditions on fields."
        ),
        log_level="WARNING",
    )
    reading = ToolAnnotations(read_only_hint=True, open_world_hint=False)
    for tool in (tools.list_collections, tools.search, tools.get, tools.browse, tools.count, tools.facets):
        server.add_tool(tool, annotations=reading)
    if write:
        changing = ToolAnnotations(read_only_hint=False, destructive_hint=True, open_world_hint=False)
        server.add_tool(tools.remember, annotations=changing)
        server.add_tool(tools.forget, annotations=changing)
    return server


def _told(tool: Tool) -> Tool:
    """A tool whose errors reach the model."""

    @functools.wraps(tool)
    def call(*args: Any, **kwargs: Any) -> Any:
        try:
            return tool(*args, **kwargs)
        except VecdbError as error:
            raise ToolError(f"{error.code}: {error}") from error

    called: Any = call
    return called  # type: ignore[no-any-return]


class _ToldEmbedder(vecdb.Embedder):
    """A model that reads texts, whose errors reach the model that gave them."""

    __slots__ = ()

    def __init__(self, embedder: vecdb.Embedder) -> None:
        for name in vecdb.Embedder.__slots__:
            setattr(self, name, getattr(embedder, name))

    def _asked(self, ask: Callable[[list[str]], Any], texts: list[str]) -> Any:
        try:
            return super()._asked(ask, texts)
        except VecdbError:
            raise
        except Exception as error:
            raise ToolError(f"the model {self.name!r} cannot embed this text: {error}") from error


class CollectionTools:
    """The tools. Every read names the tenant, every write is owned by it."""

    def __init__(self, docs: vecdb.Collection, tenant: str | None) -> None:
        self._docs = copy.copy(docs)
        if docs.embedder is not None:
            self._docs._embedder = _ToldEmbedder(docs.embedder)
        self._handle = CollectionHandle(self._docs)
        self._tenant = tenant

    # -- reads -------------------------------------------------------------------------------------

    @_told
    def list_collections(self) -> dict[str, Any]:
        """The collection that these tools are of: how many records it has, their fields, and how it is searched."""
        docs = self._docs
        return {
            "collections": [
                {
                    "name": docs.name,
                    "records": self._of_tenant(lambda tenant: docs.count(tenant=tenant), 0),
                    "dim": docs.dim,
                    "metric": docs.metric,
                    "search_by_text": docs.embedder is not None,
                    "fields": self._of_tenant(lambda tenant: docs.fields(tenant=tenant), {}),
                }
            ]
        }

    @_told
    def search(
        self,
        text: Annotated[str | None, Field(description="What is looked for, in words.")] = None,
        id: Annotated[int | str | None, Field(description="A record; others near it are found.")] = None,
        vector: Annotated[list[float] | None, Field(description="A vector.")] = None,
        limit: Limit = 10,
        filter: Filter = None,
        owner: Owner = None,
    ) -> dict[str, Any]:
        """Find the records nearest in meaning, nearest first: to a text, to another record by its id, or to a vector;
        give one of the three. A score is larger where it is nearer.
        """
        if [text, id, vector].count(None) != 2:
            raise InvalidArgument("give one of text, id and vector")
        own: Record | None = None
        if id is not None:
            [own] = self._records([id], owner, include_vectors=True)
            if own is None:
                raise NotFound(f"there is no record {id!r}", what="record")
        query = self._model().queries([text])[0] if text is not None else vector if own is None else own.vector
        wanted = limit if own is None else limit + 1
        hits = self._of_tenant(lambda tenant: self._docs.search(query, wanted, filter=filter, tenant=tenant), ())
        others = [hit for hit in hits if own is None or (hit.id, hit.owner) != (own.id, own.owner)]
        return {"hits": [self._shown(hit) | {"score": hit.score} for hit in others[:limit]]}

    @_told
    def get(
        self,
        ids: Annotated[list[int | str], Field(min_length=1, max_length=_LIMIT_MAX, description="Ids of records.")],
        owner: Owner = None,
    ) -> dict[str, Any]:
        """Records by id, with their fields; those that are not there are listed as missing."""
        found = list(zip(ids, self._records(ids, owner)))
        return {
            "records": [self._shown(record) for _, record in found if record is not None],
            "missing": [id for id, record in found if record is None],
        }

    @_told
    def browse(
        self,
        filter: Filter = None,
        limit: Limit = 20,
        order_by: Annotated[
            str | None, Field(description="A field whose order they come in; else oldest first.")
        ] = None,
        descending: Annotated[bool, Field(description="The largest first; with order_by.")] = False,
        after: Annotated[str | None, Field(description="The `next` of a page: go on behind it.")] = None,
    ) -> dict[str, Any]:
        """Records that match a filter, a page at a time. `next` is null where there are no more."""

        def page(tenant: str | None) -> Any:
            pages = self._docs.iter(
                limit, filter=filter, order_by=order_by, descending=descending, after=after, limit=limit, tenant=tenant
            )
            return next(pages, None)

        found = self._of_tenant(page, None)
        return {
            "records": [self._shown(record) for record in found or ()],
            "next": None if found is None else found.cursor,
        }

    @_told
    def count(self, filter: Filter = None) -> dict[str, Any]:
        """How many records match a filter; without one, how many there are."""
        return {"count": self._of_tenant(lambda tenant: self._docs.count(filter=filter, tenant=tenant), 0)}

    @_told
    def facets(
        self,
        field: Annotated[str, Field(description="A field, or a path such as meta.author.")],
        filter: Filter = None,
        limit: Limit = 20,
    ) -> dict[str, Any]:
        """The most frequent values of a field, and how many records have each."""
        found = self._of_tenant(lambda tenant: self._docs.facets(field, filter, limit, tenant=tenant), {})
        return {"facets": [{"value": _plain(value), "count": count} for value, count in found.items()]}

    # -- writes ------------------------------------------------------------------------------------

    @_told
    def remember(
        self,
        text: Annotated[str | None, Field(description="What to remember; it becomes the field text.")] = None,
        fields: Annotated[dict[str, Any] | None, Field(description="What else is known of it, by name.")] = None,
        id: Annotated[int | str | None, Field(description="Of a record to replace, or a new one; else made.")] = None,
        vector: Annotated[list[float] | None, Field(description="In the place of a text.")] = None,
    ) -> dict[str, Any]:
        """Store a record. Returns its id."""
        if (text is None) == (vector is None):
            raise InvalidArgument("give one of text and vector")
        owned: dict[str, Any] = {} if self._tenant is None else {"owner": self._tenant, "tenants": {self._tenant}}
        if text is not None:
            self._model()
        if id is None:
            return {"id": self._docs.add(vector, fields, texts=text, **owned)}
        [known] = self._handle.ids([id], new=True)
        self._docs.upsert(known, vector, fields, texts=text, **owned)
        return {"id": known}

    @_told
    def forget(
        self,
        ids: Annotated[list[int | str], Field(min_length=1, max_length=_LIMIT_MAX, description="Ids of records.")],
    ) -> dict[str, Any]:
        """Delete records by id. Returns how many were deleted; there is no way back."""
        known = self._handle.ids(ids)
        return {"deleted": self._docs.delete(known, owner=self._tenant or "") if known else 0}

    # -- within ------------------------------------------------------------------------------------

    def _of_tenant(self, ask: Callable[[str | None], Any], nothing: Any) -> Any:
        """What the bound tenant sees. One that has no records yet sees nothing."""
        try:
            return ask(self._tenant)
        except NotFound as error:
            if error.what != "tenant":
                raise
            return nothing

    def _records(
        self, ids: list[int | str], owner: str | None, *, include_vectors: bool = False
    ) -> list[Record | None]:
        """The record of each id that the tenant sees: its own, else one without an owner, or that of the owner who is
        named; None where it sees none. One read for each owner and kind of ids.
        """
        known = [(id, one) for id in dict.fromkeys(ids) for one in self._handle.ids([id])]
        found: dict[int | str, Record] = {}
        for whose in dict.fromkeys([self._tenant or "", ""] if owner is None else [owner]):
            for kind in (int, str):
                asked = {id: one for id, one in known if id not in found and isinstance(one, kind)}
                if asked:
                    get = functools.partial(
                        self._docs.get, list(asked.values()), owner=whose, include_vectors=include_vectors
                    )
                    records = self._of_tenant(functools.partial(_asked, get), ())
                    found |= {id: record for id, record in zip(asked, records) if record is not None}
        return [found.get(id) for id in ids]

    def _shown(self, one: Any) -> dict[str, Any]:
        """A record or a hit as JSON. Who shares it with the bound tenant is not told."""
        owner = {"owner": one.owner} if one.owner and self._tenant is None else {}
        return {"id": one.id, **owner, "fields": _plain(one.fields)}

    def _model(self) -> vecdb.Embedder:
        embedder = self._docs.embedder
        if embedder is None:
            raise InvalidArgument("no model that reads texts was given when this server was started: use id or vector")
        return embedder


def _asked(get: Callable[..., Any], tenant: str | None) -> Any:
    return get(tenant=tenant)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(one) for one in value]
    if isinstance(value, (dt.date, dt.datetime)):
        return value.isoformat()
    if isinstance(value, bytes):
        return f"{len(value):,} bytes"
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value


# -- over HTTP -------------------------------------------------------------------------------------


def http_address(host: str, port: int) -> str:
    return f"http://[{host}]:{port}/mcp" if ":" in host else f"http://{host}:{port}/mcp"


def serve_http(server: MCPServer[Any], host: str, port: int, say: Callable[[str], None]) -> None:
    """Serve at http://host:port/mcp until the process is told to end. port 0 : a free one. say : is told the address.

    On this machine's own addresses requests of web pages from elsewhere are refused (by their Host and Origin).
    """
    import asyncio

    import uvicorn

    app = server.streamable_http_app(host=host)
    config = uvicorn.Config(app, host=host, port=port, log_level="warning")
    bound = config.bind_socket()
    try:
        bound.listen()
        say(http_address(host, bound.getsockname()[1]))
        asyncio.run(uvicorn.Server(config).serve(sockets=[bound]))
    finally:
        bound.close()
