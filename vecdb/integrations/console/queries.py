"""What the pages show, as plain values: pure questions to the public API, each within a `View`.

Threads: any; nothing is kept.
"""

from __future__ import annotations

import contextlib
import json
import math
import re
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

import vecdb
from vecdb.errors import InvalidArgument, NotFound, PermissionDenied, VecdbError
from vecdb.filters.scalars import name_text, scalar_text
from vecdb.integrations.console import figures
from vecdb.integrations.console.view import View, or_nothing
from vecdb.schema import Record, SearchParams

PAGE_ROWS = 50
TENANT_ROWS = 25  # a tenant that was not asked about since the start is loaded: some 10 ms among a million records
LIMIT_MAX = 1_000
_COLUMNS_MAX = 24  # of fields in a table
_INT = re.compile("-?[0-9]{1,20}")
_NUMBER = re.compile(r"-?[0-9]{1,300}(\.[0-9]{1,300})?([eE][-+]?[0-9]{1,3})?")
_HIDDEN = ("reason", "index_state", "indexed_rows", "tail_rows")  # of a plan: they tell a tenant how much others have

# -- collections -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class CollectionFacts:
    """A collection and what `stats` says of it; `problem`: why it says nothing. records : those that may be seen."""

    name: str
    config: Any
    records: int | None
    stats: dict[str, Any]
    problem: str | None = None

    @property
    def kind(self) -> str:
        found = self.stats.get("index_stats") or self.stats.get("index") or {}
        return str(found.get("kind") or getattr(self.config.index, "kind", None) or "flat")

    @property
    def state(self) -> str:
        return str(self.stats.get("index_state") or "")

    @property
    def recall(self) -> dict[str, Any]:
        found = self.stats.get("recall")
        return found if isinstance(found, dict) else {}


def facts_of(view: View, docs: vecdb.Collection) -> CollectionFacts:
    """Of a view that is bound to a tenant: how many records that has, and no more."""
    config = docs.config
    if view.tenant is not None:
        return CollectionFacts(config.name, config, or_nothing(lambda: docs.count(tenant=view.tenant), 0), {})
    try:
        stats = docs.stats()
    except VecdbError as error:
        records = None
        with contextlib.suppress(VecdbError):
            records = docs.count()
        return CollectionFacts(config.name, config, records, {}, str(error))
    records = stats.get("live")
    return CollectionFacts(config.name, config, docs.count() if records is None else records, stats)


def collections(view: View) -> list[CollectionFacts]:
    """All of them, by name. One that is dropped meanwhile is left out."""
    found = []
    for name in view.collections():
        with contextlib.suppress(NotFound):
            found.append(facts_of(view, view.collection(name)))
    return found


def memory_parts(stats: dict[str, Any]) -> list[tuple[str, int]]:
    """(what, bytes) of a collection's memory in this process or its server, largest first."""
    index = int((stats.get("index_stats") or {}).get("bytes_ram") or 0)
    columns = int((stats.get("columns") or {}).get("bytes_ram") or 0)
    rest = max(0, int(stats.get("bytes_ram") or 0) - index - columns)
    tenants = int(stats.get("tenant_cache_bytes") or 0)
    parts = [
        ("index", index),
        ("columns of fields", columns),
        ("ids and checksums", rest),
        ("rows of tenants", tenants),
    ]
    return sorted((part for part in parts if part[1]), key=lambda part: -part[1])


def sequence_of(view: View, docs: vecdb.Collection) -> int:
    """The newest commit, 0 where that is not told."""
    if view.tenant is not None:
        return 0
    with contextlib.suppress(VecdbError):
        return int(docs.stats().get("sequence") or 0)
    return 0


# -- records -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class RecordsAsked:
    """What a page of records was asked for; texts as a form has them."""

    filter: str = ""
    sort: str = ""
    descending: bool = False
    after: str = ""
    tenant: str = ""
    at: int = 0  # records on the pages before


@dataclass(frozen=True, slots=True)
class RecordsPage:
    """records : of this page. columns : names of fields, each with whether all its values are numbers. matching : how
    many records there are on all pages. next : the cursor of the next page, None on the last.
    """

    records: list[Record]
    columns: list[tuple[str, bool]]
    matching: int
    next: str | None
    owned: bool


def records(view: View, docs: vecdb.Collection, asked: RecordsAsked, size: int = PAGE_ROWS) -> RecordsPage:
    """Raises InvalidArgument for a filter, order or cursor that is wrong."""
    among = view.among(docs, asked.tenant)
    condition = asked.filter.strip() or None
    matching = or_nothing(lambda: docs.count(filter=condition, tenant=among), 0)
    pages = docs.iter(
        size,
        filter=condition,
        order_by=asked.sort or None,
        descending=asked.descending and bool(asked.sort),
        after=asked.after or None,
        limit=size,
        tenant=among,
    )
    page = or_nothing(lambda: next(pages, None), None) or []
    found = [_seen_by(view, record) for record in page]
    owned = any(record.owner for record in found)
    return RecordsPage(
        found, field_columns([one.fields for one in found]), matching, getattr(page, "cursor", None), owned
    )


HOWS = ("=", "!=", "<", "<=", ">", ">=", "contains", "prefix", "like", "is null", "exists")
_BARE = ("is null", "exists")  # these take no value


def with_condition(filter: str, name: str, how: str, value: str) -> str:
    """A filter and one more condition. value : a number, true or false where it reads as one, else a text."""
    if how not in HOWS:
        raise InvalidArgument(f"a condition is one of {', '.join(HOWS)}")
    condition = f"{name_text(name)} {how}" if how in _BARE else f"{name_text(name)} {how} {_value_text(how, value)}"
    known = filter.strip()
    if not known:
        return condition
    return f"({known}) and {condition}" if re.search(r"\bor\b", known, re.IGNORECASE) else f"{known} and {condition}"


def _value_text(how: str, value: str) -> str:
    if how not in ("prefix", "like"):
        if value.lower() in ("true", "false"):
            return value.lower()
        if _NUMBER.fullmatch(value.strip()):
            return value.strip()
    return scalar_text(value)


def field_columns(rows: list[dict[str, Any]]) -> list[tuple[str, bool]]:
    """Names of fields, in the order in which they are met, each with whether all its values are numbers."""
    names = list(dict.fromkeys(name for row in rows for name in row))[:_COLUMNS_MAX]
    return [(name, all(figures.is_number(row[name]) for row in rows if row.get(name) is not None)) for name in names]


def _seen_by(view: View, record: Record) -> Record:
    """Who else sees a record a tenant is not told."""
    if view.tenant is None:
        return record
    return Record(record.id, record.fields, [], record.vector, record.owner)


def record(view: View, docs: vecdb.Collection, id: str, owner: str = "") -> Record:
    """The record of an id as text, with its vector. Raises NotFound.

    owner : whose it is. For a tenant, where none is named: its own, else the one without an owner.
    """
    for whose in [owner] if owner or view.tenant is None else [view.tenant, ""]:
        for key in keys_of(docs, id):
            found = or_nothing(
                lambda key=key, whose=whose: docs.get(
                    [key], include_vectors=True, owner=whose, tenant=view.among(docs, None)
                ),
                [None],
            )[0]
            if found is not None:
                return _seen_by(view, found)
    raise NotFound(f"collection {docs.name!r} has no record {figures.short(id)!r}", "record")


def keys_of(docs: vecdb.Collection, text: str) -> list[int | str]:
    """What an id that was typed may be in this collection."""
    if not text:
        return []
    if docs.config.id_kind == "str":
        return [text]
    whole = text.strip().replace(",", "")
    return [int(whole)] if _INT.fullmatch(whole) and -(2**63) <= int(whole) < 2**63 else []


def bars(vector: NDArray[Any], most: int = 256) -> list[float]:
    """Heights within -1 and 1 of a vector's numbers; of more than `most` the largest of each few."""
    numbers = np.asarray(vector, np.float32)
    if len(numbers) > most:
        width = -(-len(numbers) // most)
        padded = np.pad(numbers, (0, -len(numbers) % width)).reshape(-1, width)
        numbers = padded[np.arange(len(padded)), np.abs(padded).argmax(axis=1)]
    top = float(np.abs(numbers).max()) if len(numbers) else 0.0
    return [round(float(value) / top, 4) if top else 0.0 for value in numbers]


# -- searches ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class SearchAsked:
    """What is searched for, as a form has it. by : "id", "vector" or "text". effort : "", "exact", "recall 0.9" or a
    width.
    """

    by: str = "id"
    query: str = ""
    owner: str = ""
    limit: str = "10"
    filter: str = ""
    tenant: str = ""
    effort: str = ""


@dataclass(frozen=True, slots=True)
class Found:
    """hits, the record that was searched near, and how the answer was found: (what, value) in words."""

    hits: list[Any]
    near: Record | None
    columns: list[tuple[str, bool]]
    owned: bool
    sequence: int
    plan: list[tuple[str, str]] = field(default_factory=list)
    reason: str = ""


def search(view: View, docs: vecdb.Collection, asked: SearchAsked) -> Found:
    """Raises InvalidArgument for what cannot be asked, NotFound for a record or tenant that is not there."""
    among = view.among(docs, asked.tenant)
    limit = _limit_of(asked.limit)
    near = record(view, docs, asked.query, asked.owner) if asked.by == "id" else None
    if near is not None and near.vector is None:
        raise InvalidArgument(f"record {near.id!r} has no vector, so nothing is near it")
    hits: Any = or_nothing(
        lambda: docs.search(
            _query(docs, asked, near),
            limit + (near is not None),
            params=_params_of(asked.effort),
            filter=asked.filter.strip() or None,
            tenant=among,
            explain=True,
        ),
        None,
    )
    if hits is None:
        return Found([], near, [], False, 0)
    others = [hit for hit in hits if near is None or (hit.id, hit.owner) != (near.id, near.owner)][:limit]
    explain = hits.explain or {}
    plan = plan_in_words(explain if view.tenant is None else {k: v for k, v in explain.items() if k not in _HIDDEN})
    reason = str(explain.get("reason") or "") if view.tenant is None else ""
    owned = any(hit.owner for hit in others)
    columns = field_columns([hit.fields for hit in others])
    return Found(others, near, columns, owned, hits.sequence if view.tenant is None else 0, plan, reason)


def _query(docs: vecdb.Collection, asked: SearchAsked, near: Record | None) -> Any:
    if near is not None:
        return near.vector
    if asked.by == "vector":
        return vector_of(asked.query)
    if asked.by != "text":
        raise InvalidArgument("search by id, vector or text")
    if docs.embedder is None:
        raise InvalidArgument("no model that reads texts is known: start the console with --embed module:name")
    return docs.embedder.queries([asked.query])[0]


def vector_of(text: str) -> NDArray[np.float32]:
    """Numbers with commas or spaces between, in brackets or not. Raises InvalidArgument."""
    words = text.replace(",", " ").strip().strip("[]").split()
    try:
        numbers = [float(word) for word in words]
    except ValueError as error:
        raise InvalidArgument(f"a vector is numbers such as 0.1, 0.2, 0.3: {error}") from None
    if not numbers:
        raise InvalidArgument("a vector is numbers such as 0.1, 0.2, 0.3")
    if not all(map(math.isfinite, numbers)):
        raise InvalidArgument("a vector has finite numbers only")
    return np.array(numbers, np.float32)


def _limit_of(text: str) -> int:
    if not text.strip().isascii() or not text.strip().isdigit() or not 1 <= int(text[:9]) <= LIMIT_MAX:
        raise InvalidArgument(f"limit is a whole number from 1 to {LIMIT_MAX:,}, got {figures.short(text)!r}")
    return int(text)


def _params_of(effort: str) -> SearchParams | None:
    words = effort.split()
    if not words:
        return None
    if words == ["exact"]:
        return SearchParams(exact=True)
    try:
        if len(words) == 2 and words[0] == "recall":
            return SearchParams(recall=float(words[1]))
        if len(words) == 2 and words[0] in ("ef", "nprobe"):
            return SearchParams(**{words[0]: int(words[1])})  # type: ignore[arg-type]
    except ValueError:
        pass
    raise InvalidArgument(f"effort is exact, recall 0.95, ef 100 or nprobe 16, got {figures.short(effort)!r}")


_STRATEGIES = {
    "exact": "exact scan of every vector",
    "rows": "exact scan of the rows that may be found",
    "codes": "scan of the codes of the rows that may be found",
    "graph": "walk of the graph",
    "lists": "posting lists near the query",
    "tree": "leaves of the tree near the query",
}
_NAMED = {
    "ef": "width (ef)", "nprobe": "lists or leaves (nprobe)", "recall_measured": "recall, as measured last",
    "index_state": "index", "indexed_rows": "rows in the index", "tail_rows": "rows not in it yet",
    "matching": "records that match", "code_distances": "codes compared", "vector_distances": "vectors compared",
    "walked_again": "searched again", "search_ms": "searching", "fetch_ms": "reading fields", "total_ms": "together",
}  # fmt: skip


def plan_in_words(explain: dict[str, Any]) -> list[tuple[str, str]]:
    """(what, value) of `hits.explain`, in an order to read."""
    strategy = str(explain.get("plan") or "")
    lines = [("strategy", _STRATEGIES.get(strategy, strategy))] if strategy else []
    rest = [name for name in explain if name not in _NAMED and name not in ("plan", "reason")]
    for name in [*_NAMED, *rest]:
        value = explain.get(name)
        if value is None or value == [] or (name == "walked_again" and not value):
            continue
        lines.append((_NAMED.get(name, name.replace("_", " ")), _plan_value(name, value)))
    return lines


def _plan_value(name: str, value: Any) -> str:
    if name.endswith("_ms"):
        return figures.milliseconds(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return figures.count(value)
    return figures.share(value) if isinstance(value, float) else figures.short(value)


# -- tenants -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class TenantFacts:
    """What `stats(tenant=)` says; reason of the plan left out where it would tell of others."""

    name: str
    records: int
    stats: dict[str, Any]


def tenant_names(view: View, docs: vecdb.Collection, after: str = "", size: int = TENANT_ROWS) -> list[str]:
    """One more than `size` where there are more."""
    if view.tenant is not None:
        return [view.tenant] if not after else []
    return list(docs.tenants(after=after or None, limit=size + 1))


def tenant_facts(view: View, docs: vecdb.Collection, name: str) -> TenantFacts:
    """Raises NotFound for a tenant that is not there, or not to be seen."""
    view.among(docs, name)
    stats = docs.stats(tenant=name)
    if view.tenant is not None:
        stats = {key: value for key, value in stats.items() if key not in ("reason", "sequence")}
    return TenantFacts(name, int(stats.get("records") or 0), stats)


def tenants(
    view: View, docs: vecdb.Collection, after: str = "", size: int = TENANT_ROWS
) -> tuple[list[TenantFacts], str]:
    """A page of tenants by name, and the name to go on behind, "" on the last page."""
    names = tenant_names(view, docs, after, size)
    found = []
    for name in names[:size]:
        with contextlib.suppress(NotFound):  # dropped meanwhile
            found.append(tenant_facts(view, docs, name))
    return found, names[size - 1] if len(names) > size else ""


# -- what a database says of itself --------------------------------------------------------------------


def database_stats(view: View, *, disk: bool = True) -> dict[str, Any]:
    """`stats()`; {} for a tenant, and for whoever the server does not tell."""
    if view.tenant is not None:
        return {}
    try:
        return view.db.stats(disk=disk)
    except PermissionDenied:
        return {}


def as_json(value: Any) -> str:
    """A record's fields as JSON, to read."""
    return json.dumps(value, ensure_ascii=False, indent=2, default=figures.text_of)
