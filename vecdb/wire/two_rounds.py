"""Both rounds of a search in two rounds: NamedRows on the wire, and how a server answers each.

Rows and floats are bytes of four each, which are read and written as arrays.

Users have no call for a round: a server reaches behind the facade of its own collection.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vecdb import limits, validate
from vecdb.api.collection import Collection
from vecdb.api.filter_arguments import search_filter
from vecdb.api.hits import Hits, NamedRows
from vecdb.errors import InvalidArgument
from vecdb.schema import Metric
from vecdb.v1 import search_pb2
from vecdb.wire.arrays import ints_of, little_bytes
from vecdb.wire.search_response import hits_of, report, report_of

__all__ = ["NamedRows", "answer_of", "encoded_named", "name_rows", "named_message", "named_of", "score_rows"]

_NUMBER_BYTES = 4


# -- messages --------------------------------------------------------------------------------------


def named_message(named: NamedRows, *, estimated: bool) -> search_pb2.NamedRows:
    """estimated : with what the first round says of each row; the second needs numbers alone."""
    made = search_pb2.NamedRows(
        rows=little_bytes(named.rows.astype(np.uint32)), counts=named.counts.tolist(), generation=named.generation,
        sequence=named.sequence,
    )  # fmt: skip
    if estimated:
        made.estimates, made.margins = little_bytes(named.estimates), little_bytes(named.margins)
    return made


def named_of(message: search_pb2.NamedRows, explain_json: str = "") -> NamedRows:
    """Raises InvalidArgument where bytes are no whole numbers, or counts are not of the rows."""
    counts = ints_of(message.counts)
    rows = _numbers(message.rows, "<u4").astype(np.int64)
    estimates, margins = _numbers(message.estimates, "<f4"), _numbers(message.margins, "<f4")
    if int(counts.sum()) != len(rows) or int(counts.max(initial=0)) > limits.named_rows_max:
        raise InvalidArgument(
            f"rows: counts add up to {int(counts.sum()):,}, and there are {len(rows):,} rows; a query has at most "
            f"{limits.named_rows_max:,}"
        )
    explain = report_of(explain_json) if explain_json else None
    return NamedRows(rows, counts, message.generation, message.sequence, estimates, margins, explain)


def _numbers(data: bytes, dtype: str) -> NDArray[Any]:
    if len(data) % _NUMBER_BYTES:
        raise InvalidArgument(f"rows: {len(data):,} bytes are no whole number of rows of {_NUMBER_BYTES} bytes")
    return np.frombuffer(data, dtype)


def encoded_named(named: NamedRows) -> bytes:
    """The bytes of a SearchResponse."""
    made = search_pb2.SearchResponse(sequence=named.sequence, named=named_message(named, estimated=True))
    if named.explain is not None:
        made.explain_json = report(named.explain)
    data: bytes = made.SerializeToString()
    return data


def answer_of(
    message: search_pb2.SearchResponse, limit: int, metric: Metric, single: bool, select: tuple[str, ...] | None
) -> Hits | NamedRows:
    """What a round has found: rows of the first one, or hits. Arguments as of `hits_of`."""
    if message.HasField("named"):
        return named_of(message.named, message.explain_json)
    return hits_of(message, limit, metric, single, select)


# -- answers of a server ---------------------------------------------------------------------------


def name_rows(
    docs: Collection,
    query: Any,
    limit: int,
    *,
    servers: int,
    params: Any,
    tenant: Any,
    filter: Any,
    explain: bool,
    stop: Callable[[], bool] | None,
) -> NamedRows | None:
    """The first round, with arguments as of `Collection.search`. None where that is to answer.

    servers : that are asked.
    """
    rounds = getattr(docs._backend, "two_rounds", None)
    if rounds is None or isinstance(filter, (list, tuple)):
        return None
    queries, single = validate.queries(query, docs._shaped(query))
    limit = validate.search_limit(limit, len(queries))
    found: NamedRows | None = rounds.name(
        queries, limit, validate.search_params(params, limit), indexes=servers, explain=explain,
        tenants=validate.search_tenants(tenant), stop=stop,
        node=search_filter(filter, None, len(queries), single=single),
    )  # fmt: skip
    return found


def score_rows(
    docs: Collection,
    query: Any,
    limit: int,
    named: NamedRows,
    *,
    params: Any,
    tenant: Any,
    filter: Any,
    stop: Callable[[], bool] | None,
    **options: Any,
) -> Hits:
    """The second round, with `options` as of `TwoRounds.score`. Raises InvalidArgument where there is a filter for each
    query.
    """
    queries, single = validate.queries(query, docs._shaped(query))
    limit = validate.search_limit(limit, len(queries))
    node = search_filter(filter, None, len(queries), single=single)
    rounds = getattr(docs._backend, "two_rounds", None)
    if rounds is None or isinstance(node, tuple):
        raise InvalidArgument("a search of rows has one filter, and is of a collection of this server")
    found: Hits = rounds.score(
        queries, limit, named, threads=validate.search_params(params, limit).threads,
        tenants=validate.search_tenants(tenant), stop=stop, node=node, **options,
    )  # fmt: skip
    return found
