"""Arguments called `filter` as a collection takes them, and the names that other libraries have for ours."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NoReturn

from vecdb.errors import InvalidArgument
from vecdb.filters.forms import to_filter
from vecdb.filters.tree import And, Node, always
from vecdb.schema import Record
from vecdb.validate.common import short_repr

Filters = Node | None | tuple[Node | None, ...]  # of a search: one for all queries, or one for each

_FOREIGN = {  # ours, and what others call it
    "limit": "k top_k topk n n_results num_results count size",
    "filter": "where query_filter filters expr prefilter where_document",
    "filter_params": "parameters filter_parameters",
    "query": "vector query_vector queries query_embeddings embedding data",
    "text": "query_text query_texts",
    "fields": "with_payload output_fields include include_metadata select",
    "include_vectors": "with_vectors include_values",
    "params=vecdb.SearchParams(ef=...)": "ef ef_search",
    "params=vecdb.SearchParams(nprobe=...)": "nprobe nprobes",
    "params": "search_params",
    "tenant": "namespace partition tenants",
    "a larger limit, and a slice of the hits": "offset",
}


def search_filter(value: Any, params: Any, queries: int, *, single: bool) -> Filters:
    """The filter of a search: one for all queries, or a list with one (or None) for each. params : of a list of
    filters a list, too, or None.
    """
    if not isinstance(value, (list, tuple)):
        return to_filter(value, params)
    if single:
        raise InvalidArgument("filter is a list, which has one for each query of a batch: this search has one query")
    if len(value) != queries:
        raise InvalidArgument(f"got {queries:,} queries and {len(value):,} filters: pass one for each, or one for all")
    if params is not None and not isinstance(params, (list, tuple)):
        raise InvalidArgument("with a list of filters filter_params is a list, too: a dict or None for each of them")
    if params is not None and len(params) != queries:
        raise InvalidArgument(f"got {queries:,} filters and {len(params):,} filter_params: pass one for each")
    known: dict[int, Node | None] = {}  # a list often holds the same few objects
    nodes = []
    for at, one in enumerate(value):
        if params is not None:
            nodes.append(to_filter(one, params[at]))
            continue
        if id(one) not in known:
            known[id(one)] = to_filter(one)
        nodes.append(known[id(one)])
    if all(node == nodes[0] for node in nodes):
        return nodes[0] if nodes else None
    return tuple(nodes)


def written_filter(value: Any, params: Any, doing: str) -> Node:
    """The filter of a write, which means all records only where it says so: not by leaving it empty, nor by a dict of
    no conditions, nor by `not in` a list that happens to be empty. doing : "delete" or "update".
    """
    node = to_filter(value, params)
    if node is None:
        raise InvalidArgument(f"{doing} needs ids or a filter that says which records; filter='true' is all of them")
    said = isinstance(node, And) and not node.terms and not isinstance(value, Mapping)  # "true", not {"$and": []}
    if not said and always(node) is True:
        raise InvalidArgument(
            f"{doing} got a filter that every record matches whatever it has, {short_repr(value)}: say which records; "
            "filter='true' is all of them"
        )
    return node


def refuse_unknown(method: Callable[..., Any], names: Iterable[str]) -> NoReturn:
    """Raise TypeError for keywords that a method does not have, with the name that is meant."""
    code = method.__code__
    own = [name for name in code.co_varnames[1 : code.co_argcount + code.co_kwonlyargcount] if name != "stop"]
    name = next(iter(names))
    meant = next((ours for ours, theirs in _FOREIGN.items() if name in theirs.split()), None)
    if meant is None or (meant.isidentifier() and meant not in own):
        near = difflib.get_close_matches(name, own, 1, 0.6)
        meant = near[0] if near else None
    hint = f"; vecdb calls it {meant}" if meant else f"; there are {', '.join(own)}"
    raise TypeError(f"{method.__name__}() got an unexpected keyword argument {name!r}{hint}")


class Page(list[Record]):
    """Some records in their order. cursor : text with which `iter(after=...)` goes on behind the last of them; None
    where there are no more.
    """

    __slots__ = ("cursor",)

    def __init__(self, records: Iterable[Record] = (), cursor: str | None = None) -> None:
        super().__init__(records)
        self.cursor = cursor
