"""LangGraph: a collection as a `BaseStore`, the long-term memory of agents.

    store = VecdbStore.open("./memory", index={"dims": 384, "embed": embeddings, "fields": ["text"]})
    store.put(("users", "1"), "likes", {"text": "pizza", "year": 2024}, ttl=60)
    store.search(("users",), query="food", filter={"year": {"$gte": 2020}}, limit=5, offset=5)

    item     := as many records as it has vectors, one at least: namespace "users.1.", key, value, created, updated, ttl
                (minutes), expires, part, parts, embedded. An item that is not embedded is a record without a vector.
    search   := of namespaces that begin with the prefix. With a query embedded items, nearest first, each by the
                nearest of its vectors, and then the others; without one, or without an index, oldest first
    TTL      := `sweep_ttl` deletes what has expired, `start_ttl_sweeper` does so now and then. A read of an item
                renews it, unless refresh_ttl is False. With omit_expired reads pass over what is not swept yet

A batch reads before it writes; of one key the last write counts. Threads: as the collection.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import logging
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any, Self

from langchain_core.embeddings import Embeddings
from langgraph.store.base import (
    BaseStore,
    GetOp,
    IndexConfig,
    Item,
    ListNamespacesOp,
    MatchCondition,
    Op,
    PutOp,
    Result,
    SearchItem,
    SearchOp,
    TTLConfig,
    ensure_embeddings,
    get_text_at_path,
    tokenize_path,
)

from vecdb import Embedder, limits
from vecdb.errors import InvalidArgument, NotFound
from vecdb.filters.dicts import dict_to_filter
from vecdb.filters.expression import F
from vecdb.filters.tree import Node
from vecdb.integrations.shared import CollectionHandle, Steps, arun, joined, run, under
from vecdb.schema import Record
from vecdb.validate.common import short_repr

_FILL_MAX = 16_384  # hits asked for at once, where items have many vectors each
_SEPARATOR = "\x1f"
_log = logging.getLogger("vecdb")


@dataclass(frozen=True, slots=True)
class _Put:
    """An item that is written, and what of it is embedded."""

    operation: PutOp
    id: str
    texts: list[str]


class _ModelEmbeddings(Embeddings):
    """The model that a collection was opened with, which may take documents and queries otherwise."""

    def __init__(self, embedder: Embedder) -> None:
        self._embedder = embedder

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        vectors: list[list[float]] = self._embedder.documents(texts).tolist()
        return vectors

    def embed_query(self, text: str) -> list[float]:
        vector: list[float] = self._embedder.queries([text])[0].tolist()
        return vector


class VecdbStore(BaseStore):
    """A collection of vecdb as LangGraph's store."""

    __slots__ = ("_clock", "_docs", "_embeddings", "_index", "_paths", "_stop", "_sweeper", "ttl_config")

    supports_ttl = True

    def __init__(
        self,
        collection: Any,
        *,
        index: IndexConfig | None = None,
        ttl: TTLConfig | None = None,
        clock: Callable[[], dt.datetime] = lambda: dt.datetime.now(dt.UTC),
    ) -> None:
        """
        collection : a vecdb.Collection of cosine, or one of vecdb.aio, whose store is only awaited.
        index : dims, embed and fields, as LangGraph has them; None: the model that the collection was opened with, of
            whole values, and without one nothing is embedded.
        ttl : refresh_on_read, default_ttl, omit_expired and sweep_interval_minutes, as LangGraph has them.
        clock : what time it is.
        """
        self._docs = collection if isinstance(collection, CollectionHandle) else CollectionHandle(collection)
        embedder = self._docs.embedder
        if index is None and embedder is not None and embedder.dim is not None:
            index = {"dims": embedder.dim, "embed": _ModelEmbeddings(embedder)}
        self._index = index
        self._embeddings: Embeddings | None = None if index is None else ensure_embeddings(index.get("embed"))
        self._paths = _tokenized((index or {}).get("fields") or ["$"])
        self.ttl_config = ttl
        self._clock = clock
        self._stop = threading.Event()
        self._sweeper: threading.Thread | None = None
        if index is not None and self._docs.dim not in (0, index["dims"]):
            raise InvalidArgument(f"the collection has dim {self._docs.dim}, the index of the store {index['dims']}")

    @classmethod
    def open(
        cls,
        path: Any,
        collection: str = "langgraph",
        *,
        index: IndexConfig | None = None,
        ttl: TTLConfig | None = None,
        **options: Any,
    ) -> Self:
        """The store of a collection, which is made where it is not there.

        path : a directory, ":memory:", the address of a server, or an open vecdb.Database.
        options : of `vecdb.open`, such as token.
        """
        return cls(CollectionHandle.of(path, collection, **options), index=index, ttl=ttl)

    def close(self) -> None:
        """End the sweeper, and close the database where `open` opened it."""
        self.stop_ttl_sweeper()
        self._docs.close()

    async def aclose(self) -> None:
        self.stop_ttl_sweeper()
        await self._docs.aclose()

    # -- operations --------------------------------------------------------------------------------

    def batch(self, ops: Iterable[Op]) -> list[Result]:
        embed = None if self._embeddings is None else self._embeddings.embed_documents
        ask = None if self._embeddings is None else self._embeddings.embed_query
        return run(self._docs.near, self._batch(list(ops), embed, ask))

    async def abatch(self, ops: Iterable[Op]) -> list[Result]:
        embed = None if self._embeddings is None else self._embeddings.aembed_documents
        ask = None if self._embeddings is None else self._embeddings.aembed_query
        return await arun(await self._docs.far(), self._batch(list(ops), embed, ask))

    def _batch(self, ops: list[Op], embed: Any, ask: Any) -> Steps[list[Result]]:
        now = self._clock()
        puts: dict[str, PutOp] = {}
        results: list[Result] = [None] * len(ops)
        renewed: list[Record] = []
        gets = [(at, op) for at, op in enumerate(ops) if isinstance(op, GetOp)]
        found = yield from _got([_id(op.namespace, op.key) for _, op in gets])
        for (at, get), record in zip(gets, found):
            if record is not None and not self._omitted(record, now):
                results[at] = _item(record)
                renewed += [record] if get.refresh_ttl else []
        for at, op in enumerate(ops):
            if isinstance(op, PutOp):
                puts[_id(op.namespace, op.key)] = op
            elif isinstance(op, SearchOp):
                items, records = yield from self._search(op, ask, now)
                results[at] = items
                renewed += records if op.refresh_ttl else []
            elif isinstance(op, ListNamespacesOp):
                results[at] = yield from self._namespaces(op, now)
            elif not isinstance(op, GetOp):
                raise InvalidArgument(f"an operation of LangGraph's stores is needed, got {short_repr(op)}")
        yield from self._renew(renewed, now)
        if puts:
            yield from self._put(puts, embed, now)
        return results

    # -- writes ------------------------------------------------------------------------------------

    def _put(self, puts: dict[str, PutOp], embed: Any, now: dt.datetime) -> Steps[None]:
        made = [_Put(op, id, self._texts(op)) for id, op in puts.items() if op.value is not None]
        texts = list(dict.fromkeys(text for put in made for text in put.texts))
        vectors = {}
        if texts:
            vectors = dict(zip(texts, (yield lambda _: embed(texts))))
        there = dict(zip(puts, (yield from _got(list(puts)))))
        ids: list[str] = []
        rows: list[Any] = []
        fields: list[dict[str, Any]] = []
        for put in made:
            old = there[put.id]
            record = self._fields(put, now if old is None else old.fields["created"], now)
            for part in range(record["parts"]):
                ids.append(_part_id(put.id, part))
                rows.append(vectors[put.texts[part]] if put.texts else None)
                fields.append({**record, "part": part})
        if ids:
            yield lambda docs: docs.upsert(ids, rows, fields)
        kept = set(ids)
        left = [id for old in there.values() if old is not None for id in _part_ids(old) if id not in kept]
        if left:
            yield lambda docs: docs.delete(left)

    def _texts(self, op: PutOp) -> list[str]:
        if self._embeddings is None or op.index is False or op.value is None:
            return []
        paths = self._paths if op.index is None else _tokenized(op.index)
        return list(dict.fromkeys(text for path in paths for text in get_text_at_path(op.value, path)))

    def _fields(self, put: _Put, created: dt.datetime, now: dt.datetime) -> dict[str, Any]:
        op = put.operation
        return {
            "namespace": _namespace(op.namespace),
            "key": op.key,
            "value": dict(op.value or {}),
            "created": created,
            "updated": now,
            "ttl": op.ttl,
            "expires": None if op.ttl is None else now + dt.timedelta(minutes=op.ttl),
            "parts": max(1, len(put.texts)),
            "embedded": bool(put.texts),
        }

    # -- reads -------------------------------------------------------------------------------------

    def _search(self, op: SearchOp, ask: Any, now: dt.datetime) -> Steps[tuple[list[SearchItem], list[Record]]]:
        if op.limit < 1 or op.offset < 0:
            raise InvalidArgument(f"a search has a limit of 1 or more and no offset below 0, got {short_repr(op)}")
        wanted = op.offset + op.limit
        among = joined(_within(op.namespace_prefix), _conditions(op.filter), self._unexpired(now))
        found: list[tuple[Record, float | None]] = []
        if op.query and ask is not None:
            query = yield lambda _: ask(op.query)
            found = yield from _nearest(query, wanted, among)
            among = joined(among, F.embedded == False)  # noqa: E712
        if len(found) < wanted:
            rest = joined(among, F.part == 0)
            more = yield lambda docs: docs.get(filter=rest, limit=wanted - len(found))
            found += [(record, None) for record in more]
        page = found[op.offset : wanted]
        return [_search_item(record, score) for record, score in page], [record for record, _ in page]

    def _namespaces(self, op: ListNamespacesOp, now: dt.datetime) -> Steps[list[tuple[str, ...]]]:
        among = joined(F.part == 0, self._unexpired(now))
        names = yield lambda docs: docs.distinct("namespace", among)
        each = [tuple(name.split(".")[:-1]) for name in names]
        each = [one for one in each if all(_matches(condition, one) for condition in op.match_conditions or ())]
        shown = sorted({one[: op.max_depth] for one in each})
        return shown[op.offset : op.offset + op.limit]

    # -- time to live ------------------------------------------------------------------------------

    def _unexpired(self, now: dt.datetime) -> Node | None:
        if not (self.ttl_config or {}).get("omit_expired"):
            return None
        return (F.expires == None) | (F.expires > now)  # noqa: E711

    def _omitted(self, record: Record, now: dt.datetime) -> bool:
        expires = record.fields["expires"]
        return bool((self.ttl_config or {}).get("omit_expired")) and expires is not None and expires <= now

    def _renew(self, records: list[Record], now: dt.datetime) -> Steps[None]:
        """Items that were read live on for their time from now."""
        until: dict[str, dt.datetime] = {}
        for record in records:
            ttl = record.fields["ttl"]
            if ttl is not None:
                until |= dict.fromkeys(_part_ids(record), now + dt.timedelta(minutes=ttl))
        if not until:
            return
        try:
            yield lambda docs: docs.update(list(until), fields=[{"expires": one} for one in until.values()])
        except NotFound:  # one of them was deleted since it was read; the others live on when they are read again
            return

    def sweep_ttl(self) -> int:
        """Delete the items that have expired. Returns how many."""
        return run(self._docs.near, _swept(self._clock()))

    async def asweep_ttl(self) -> int:
        return await arun(await self._docs.far(), _swept(self._clock()))

    def start_ttl_sweeper(self, sweep_interval_minutes: float | None = None) -> None:
        """Sweep in a thread, now and then until `stop_ttl_sweeper` or `close`.

        sweep_interval_minutes : None: that of `ttl`, else 5.
        """
        given = sweep_interval_minutes or (self.ttl_config or {}).get("sweep_interval_minutes") or 5
        self.stop_ttl_sweeper()
        self._stop = stop = threading.Event()

        def sweep() -> None:
            while not stop.wait(given * 60):
                try:
                    self.sweep_ttl()
                except Exception as error:  # whatever it was, the next turn sweeps
                    _log.warning("items that have expired are not swept, the next turn tries again: %s", error)

        self._sweeper = threading.Thread(target=sweep, name="vecdb-ttl", daemon=True)
        self._sweeper.start()

    def stop_ttl_sweeper(self, timeout: float | None = None) -> bool:
        """End the sweeper. Returns whether it has ended, within `timeout` seconds where these are given."""
        self._stop.set()
        if self._sweeper is not None:
            self._sweeper.join(timeout)
            if self._sweeper.is_alive():
                return False
            self._sweeper = None
        return True


# -- names -----------------------------------------------------------------------------------------


def _namespace(labels: tuple[str, ...]) -> str:
    """The text of a namespace; each label ends with a period, so that a prefix ends with a label."""
    for label in labels:
        if not isinstance(label, str) or not label or "." in label:
            raise InvalidArgument(f"the labels of a namespace are texts without periods, got {short_repr(labels)}")
    return "".join(f"{label}." for label in labels)


def _id(namespace: tuple[str, ...], key: str) -> str:
    """Of the first record of an item: its names, or their digest where they are long or have the separator."""
    text = _SEPARATOR.join((_namespace(namespace), key))
    if text.count(_SEPARATOR) == 1 and len(text.encode()) <= limits.id_bytes_max - 8:
        return text
    return hashlib.sha256(repr((tuple(namespace), key)).encode()).hexdigest()


def _part_id(id: str, part: int) -> str:
    return f"{id}{_SEPARATOR}{part}" if part else id


def _part_ids(record: Record) -> list[str]:
    """Ids of all records of an item, whose first one is given."""
    return [_part_id(str(record.id), part) for part in range(record.fields["parts"])]


def _tokenized(paths: list[str]) -> list[Any]:
    return [path if path == "$" else tokenize_path(path) for path in paths]


def _within(prefix: tuple[str, ...]) -> Node | None:
    return F.namespace.prefix(_namespace(prefix)) if prefix else None


def _matches(condition: MatchCondition, namespace: tuple[str, ...]) -> bool:
    path = condition.path
    if len(namespace) < len(path):
        return False
    if condition.match_type not in ("prefix", "suffix"):
        raise InvalidArgument(f"namespaces match by prefix or suffix, got {short_repr(condition.match_type)}")
    part = namespace[: len(path)] if condition.match_type == "prefix" else namespace[len(namespace) - len(path) :]
    return all(wanted in ("*", label) for wanted, label in zip(path, part))


# -- records and items -----------------------------------------------------------------------------


def _conditions(wanted: dict[str, Any] | None) -> Node | None:
    """A filter of LangGraph as a tree: values or operators by key, dicts without operators are of nested values."""
    return under(dict_to_filter(_flat(wanted)), "value.") if wanted else None


def _flat(wanted: dict[str, Any], path: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in wanted.items():
        if isinstance(value, dict) and value and not any(str(one).startswith("$") for one in value):
            flat |= _flat(value, f"{path}{key}.")
        else:
            flat[key if key.startswith("$") else f"{path}{key}"] = value
    return flat


def _got(ids: list[str]) -> Steps[list[Record | None]]:
    if not ids:
        return []
    found: list[Record | None] = yield lambda docs: docs.get(ids)
    return found


def _nearest(query: Any, wanted: int, among: Node | None) -> Steps[list[tuple[Record, float | None]]]:
    """The nearest items, each by its nearest vector; more records are asked for until there are enough."""
    limit = wanted
    while True:
        hits = yield partial(_searched, query, limit, among)
        scores: dict[str, float] = {}
        parts: dict[str, int] = {}
        for hit in hits:
            part = hit.fields["part"]
            id = str(hit.id).removesuffix(f"{_SEPARATOR}{part}") if part else str(hit.id)
            if id not in scores:
                scores[id], parts[id] = hit.score, part
        if len(scores) >= wanted or len(hits) < limit or limit >= _FILL_MAX:
            break
        limit = min(_FILL_MAX, 2 * limit)
    found = yield from _got(list(scores))
    # a part that its item has no more is left of a write that was cut short
    there = [one for one in found if one is not None and parts[str(one.id)] < one.fields["parts"]]
    nearest: list[tuple[Record, float | None]] = [(one, scores[str(one.id)]) for one in there]
    return nearest[:wanted]


def _searched(query: Any, limit: int, among: Node | None, docs: Any) -> Any:
    return docs.search(query, limit, filter=among)


def _swept(now: dt.datetime) -> Steps[int]:
    expired = F.expires <= now
    items: int = yield lambda docs: docs.count(filter=expired & (F.part == 0))
    if items:
        yield lambda docs: docs.delete(filter=expired)
    return items


def _described(record: Record) -> dict[str, Any]:
    fields = record.fields
    return {
        "namespace": tuple(fields["namespace"].split(".")[:-1]),
        "key": fields["key"],
        "value": fields["value"],
        "created_at": fields["created"],
        "updated_at": fields["updated"],
    }


def _item(record: Record) -> Item:
    return Item(**_described(record))


def _search_item(record: Record, score: float | None) -> SearchItem:
    return SearchItem(**_described(record), score=score)
