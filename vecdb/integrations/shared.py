"""What the adaptors of frameworks have in common. It imports none of them.

    CollectionHandle           one collection, opened in any way, to call and to await
    embedder_named             a model that a command names
    Steps, run, arun           what a method does, written once for both
    condition, joined, under   a framework's filters as a tree of vecdb's
    record_fields, taken_text  a document as the fields of a record, and back
    nearness_of_l2             a score as frameworks want one
    diverse                    maximal marginal relevance

A framework's own types stay in its adaptor.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import inspect
import math
import os
import re
import sys
import uuid
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

import vecdb
from vecdb.errors import InvalidArgument, NotFound, VecdbError
from vecdb.filters.dicts import dict_to_filter
from vecdb.filters.tree import And, Compare, Contains, IsNull, Like, Node, Not, Or
from vecdb.validate.common import short_repr
from vecdb.wire.addresses import is_remote

_INT = re.compile("-?[0-9]{1,20}")

# -- one collection --------------------------------------------------------------------------------


class CollectionHandle:
    """A collection, called through `near` and awaited through `far()`.

    Of a directory awaited calls run in threads. A server that was given by its address is asked from the event loop
    itself, over a connection for each loop; a collection that was given is asked as it was opened.
    """

    __slots__ = ("_far", "_kind", "_loops", "_near", "_opened", "_reopen")

    def __init__(
        self,
        collection: Any,
        opened: vecdb.Database | None = None,
        reopen: Callable[[], Any] | None = None,
    ) -> None:
        """collection : a vecdb.Collection or vecdb.aio.Collection. opened : a database to close with this. reopen : a
        coroutine function that opens an awaited database and its collection on the running loop.
        """
        if not isinstance(collection, (vecdb.Collection, vecdb.aio.Collection)):
            raise InvalidArgument(
                f"collection must be a collection of vecdb, got {short_repr(collection)}: pass db.collection(name), or "
                "open a path or an address with the class method open"
            )
        self._near = collection if isinstance(collection, vecdb.Collection) else None
        self._far = collection if isinstance(collection, vecdb.aio.Collection) else None
        self._opened = opened
        self._reopen = reopen
        self._loops: dict[asyncio.AbstractEventLoop, asyncio.Task[Any]] = {}
        self._kind: str | None = None

    @classmethod
    def of(cls, source: Any, name: str, *, metric: str = "cosine", index: Any = None, **options: Any) -> Any:
        """The collection of that name, which is made where it is not there.

        source : a path, ":memory:", the address of a server, or an open vecdb.Database. metric, index : of a collection
            that is made. options : of `vecdb.open`.
        """
        if isinstance(source, vecdb.Database):
            return cls(bound_collection(source, name, metric=metric, index=index))
        if not isinstance(source, (str, os.PathLike)):
            raise InvalidArgument(f"a path, an address or a Database is opened, got {short_repr(source)}")
        database = vecdb.open(source, **options)
        try:
            near = bound_collection(database, name, metric=metric, index=index)
        except BaseException:
            database.close()
            raise

        async def reopen() -> Any:
            found = await vecdb.aio.open(source, **options)
            try:
                return found, await found.collection(name)
            except BaseException:
                await found.close()
                raise

        return cls(near, database, reopen if is_remote(source) else None)

    @property
    def near(self) -> vecdb.Collection:
        if self._near is None:
            raise InvalidArgument("this collection is of vecdb.aio: use the methods that are awaited")
        return self._near

    async def far(self) -> vecdb.aio.Collection:
        if self._reopen is None:
            if self._far is None:
                self._far = vecdb.aio.Collection(self.near, vecdb.aio.CallThreads())
            return self._far
        loop = asyncio.get_running_loop()
        for ended in [one for one in self._loops if one.is_closed()]:
            del self._loops[ended]
        task = self._loops.get(loop)
        if task is None or (task.done() and (task.cancelled() or task.exception() is not None)):
            task = self._loops[loop] = loop.create_task(self._reopen())
        _, collection = await asyncio.shield(task)
        found: vecdb.aio.Collection = collection
        return found

    @property
    def metric(self) -> str:
        collection: Any = self._near or self._far
        return str(collection.metric)

    @property
    def dim(self) -> int:
        """0 where nothing was written yet."""
        collection: Any = self._near or self._far
        return int(collection.dim)

    @property
    def embedder(self) -> vecdb.Embedder | None:
        """The model that the collection was opened with."""
        collection: Any = self._near or self._far
        found: vecdb.Embedder | None = collection.embedder
        return found

    # -- ids are texts in frameworks -----------------------------------------------------------------

    def ids(self, ids: Iterable[Any], *, new: bool = False) -> list[Any]:
        """Ids as the collection has them: of one whose ids are ints, the ints that these texts are. A text that is none
        is left out, since there is no record of that id; of `new` records it stays, and is refused.
        """
        if self._kind is None:
            self._kind = self.near.config.id_kind
        return self._converted(ids, new)

    async def far_ids(self, ids: Iterable[Any], *, new: bool = False) -> list[Any]:
        if self._kind is None:
            self._kind = (await (await self.far()).config()).id_kind
        return self._converted(ids, new)

    def _converted(self, ids: Iterable[Any], new: bool) -> list[Any]:
        if self._kind != "int":
            return list(ids)
        known = [int(one) if isinstance(one, int) or _INT.fullmatch(one) else one for one in ids]
        return [one for one in known if new or isinstance(one, int)]

    # -- the end -------------------------------------------------------------------------------------

    def close(self) -> None:
        """Close the database that was opened for this handle; one that was given stays open."""
        if self._opened is not None:
            self._opened.close()

    async def aclose(self) -> None:
        task = self._loops.pop(asyncio.get_running_loop(), None)
        if task is not None:
            with contextlib.suppress(VecdbError):  # of an opening that failed there is nothing to close
                database, _ = await task
                await database.close()
        if self._opened is not None:
            await asyncio.to_thread(self._opened.close)


def bound_collection(
    database: vecdb.Database, name: str, *, embed: Any = None, make: bool = True, **options: Any
) -> vecdb.Collection:
    """The collection of that name. make : where it is not there make it, with `options` of create_collection."""
    try:
        return database.collection(name, embed=embed)
    except NotFound as error:
        if error.what != "collection" or database.read_only or not make:
            raise
    return database.create_collection(name, embed=embed, exist_ok=True, **options)


def embedder_named(path: str) -> Any:
    """What `module:name` means, a model that reads texts; the working directory is looked in first."""
    module, colon, name = path.partition(":")
    if not colon or not module or not name:
        raise InvalidArgument(f"a model is named module:name, such as models:embedder, got {short_repr(path)}")
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        found: Any = importlib.import_module(module)
        for part in name.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError) as error:
        raise InvalidArgument(f"the model {path!r} cannot be loaded: {error}") from None
    return found


# -- methods that are called and awaited ------------------------------------------------------------

T = TypeVar("T")
Steps = Generator[Callable[[Any], Any], Any, T]  # yields calls of a collection, and is sent what they return


def run(collection: Any, steps: Steps[T]) -> T:
    """Make the calls of a generator, `yield lambda docs: docs.get(ids)`, one after the other."""
    try:
        call = next(steps)
        while True:
            try:
                answer = call(collection)
            except Exception as error:
                call = steps.throw(error)
            else:
                call = steps.send(answer)
    except StopIteration as end:
        found: T = end.value
        return found


async def arun(collection: Any, steps: Steps[T]) -> T:
    """The same with a collection of vecdb.aio; what a call returns is awaited where it must be."""
    try:
        call = next(steps)
        while True:
            try:
                answer = call(collection)
                answer = await answer if inspect.isawaitable(answer) else answer
            except Exception as error:
                call = steps.throw(error)
            else:
                call = steps.send(answer)
    except StopIteration as end:
        found: T = end.value
        return found


_PAGE_RECORDS = 1_024


def every(node: Node | None, *, include_vectors: bool = False) -> Steps[list[Any]]:
    """All records that match, oldest first, read a page at a time."""
    found: list[Any] = []
    after: str | None = None
    while True:
        page = yield partial(_page, node, after, include_vectors)
        found += page or ()
        after = None if page is None else page.cursor
        if after is None:
            return found


def _page(node: Node | None, after: str | None, include_vectors: bool, docs: Any) -> Any:
    pages = docs.iter(
        _PAGE_RECORDS, filter=node, after=after, limit=_PAGE_RECORDS, include_vectors=include_vectors
    )  # fmt: skip
    return anext(pages, None) if hasattr(pages, "__anext__") else next(pages, None)


# -- filters ---------------------------------------------------------------------------------------

_MEANT = {  # what frameworks call the operators of filters by name (filters/dicts.py)
    "eq": "==",
    "ne": "!=",
    "lt": "<",
    "lte": "<=",
    "gt": ">",
    "gte": ">=",
    "nin": "not in",
    "any": "contains any",
    "all": "contains all",
}


def condition(field: str, operator: str, value: Any) -> Node:
    """The condition on a field, by the names that frameworks have for operators.

    contain : a list holds the value, or a text has it anywhere. like : a pattern with % and _; without a % a text that
    has the value anywhere. text_match : a text has it anywhere. is_empty : missing, None, "" or an empty list that was
    stored as None. All else as in filters by name.
    """
    name = str(operator)
    if name == "is_empty":
        empty: Node = Or((IsNull(field), Compare(field, "==", "")))
        return empty
    if name == "contain" and isinstance(value, str):
        either: Node = Or((Contains(field, (value,), False), Like(field, _anywhere(value))))
        return either
    if name == "text_match_insensitive":
        raise InvalidArgument(
            f"field {short_repr(field)}: there is no comparison of texts without case. Store a field in lower case and "
            "use text_match"
        )
    if name == "text_match" or (name == "like" and isinstance(value, str) and "%" not in value):
        if not isinstance(value, str):
            raise InvalidArgument(f"field {short_repr(field)}: {name} wants a text, got {short_repr(value)}")
        return Like(field, _anywhere(value))
    known = "contains" if name == "contain" else _MEANT.get(name, name)
    return dict_to_filter({"field": field, "operator": known, "value": value})


def _anywhere(text: str) -> str:
    """The pattern of texts that have this one in them."""
    for mark in ("\\", "%", "_"):
        text = text.replace(mark, "\\" + mark)
    return f"%{text}%"


def joined(*nodes: Node | None) -> Node | None:
    """All of these conditions; None where there is none."""
    given = tuple(node for node in nodes if node is not None)
    return And(given) if given else None


def under(node: Node | None, prefix: str | Callable[[str], str]) -> Node | None:
    """The same conditions on fields whose names begin with `prefix`, or are what it makes of them."""
    if node is None:
        return None
    if isinstance(node, (And, Or)):
        terms: Node = type(node)(tuple(_present(under(term, prefix)) for term in node.terms))
        return terms
    if isinstance(node, Not):
        complement: Node = Not(_present(under(node.term, prefix)))
        return complement
    values = {name: getattr(node, name) for name in node.__match_args__}
    name = f"{prefix}{values['field']}" if isinstance(prefix, str) else prefix(values["field"])
    renamed: Node = type(node)(**values | {"field": name})
    return renamed


def _present(node: Node | None) -> Node:
    assert node is not None
    return node


# -- documents -------------------------------------------------------------------------------------


def record_fields(text: str | None, metadata: Mapping[str, Any], text_field: str, whose: str = "") -> dict[str, Any]:
    """Fields of a record: the metadata as they are, and the text beside them. whose : for an error, "of node 'x' "."""
    if text_field in metadata:
        raise InvalidArgument(
            f"metadata {whose}have {short_repr(text_field)}, the field in which the text of a document is kept: rename "
            "it, or keep texts elsewhere with text_field="
        )
    return {**metadata, text_field: text}


def taken_text(fields: Mapping[str, Any], text_field: str) -> tuple[str, dict[str, Any]]:
    """(text, metadata) of a record's fields."""
    metadata = dict(fields)
    text = metadata.pop(text_field, None)
    return ("" if text is None else str(text)), metadata


def made_ids(ids: Sequence[str | None] | None, n: int) -> list[str]:
    """An id for each of n documents: those that were given, new ones (UUIDs) for None."""
    given: Sequence[str | None] = [None] * n if ids is None else ids
    if len(given) != n:
        raise InvalidArgument(f"got {len(given):,} ids for {n:,} documents: pass one for each")
    return [str(uuid.uuid4()) if one is None else str(one) for one in given]


def nearness_of_l2(score: float) -> float:
    """A score under l2, minus a squared distance, from 0, far, to 1, the same."""
    return 1 / (1 + math.sqrt(max(0.0, -score)))


# -- diversity -------------------------------------------------------------------------------------


def diverse(query: Any, vectors: Any, k: int, lambda_mult: float) -> list[int]:
    """Positions of up to k vectors by maximal marginal relevance (Carbonell and Goldstein, 1998): each in its turn is
    the one with the largest lambda_mult * cos(query, v) - (1 - lambda_mult) * max cos(v, chosen before). Of equal ones
    the first.

    query : float[dim].   vectors : float[n, dim].   lambda_mult : from 0, diverse, to 1, near the query.
    """
    if not 0 <= lambda_mult <= 1:
        raise InvalidArgument(f"lambda_mult must be from 0 to 1, got {short_repr(lambda_mult)}")
    rows = _units(np.atleast_2d(np.asarray(vectors, np.float64)))
    n = len(rows) if rows.size else 0
    if not n:
        return []
    near = rows @ _units(np.asarray(query, np.float64).reshape(1, -1))[0]
    chosen = [int(np.argmax(near))]
    overlap = np.full(n, -np.inf)
    while len(chosen) < min(k, n):
        overlap = np.maximum(overlap, rows @ rows[chosen[-1]])
        value = lambda_mult * near - (1 - lambda_mult) * overlap
        value[chosen] = -np.inf
        chosen.append(int(np.argmax(value)))
    return chosen[:k]


def _units(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    units: NDArray[np.float64] = rows / np.where(lengths == 0, 1, lengths)
    return units
