"""Search requests that differ only in their vectors are read and resolved once.

    request  :=  head  numbers of the vectors  tail          a SearchRequest, as its bytes came

The numbers are one field of bytes. Whatever they are, the message is read in the same way before and behind them.
Requests with the same head, tail and length are therefore the same apart from their vectors: parsing the message and
resolving its scope and parameters is done for the first of them.

A cached request belongs to one `Caller` (a token that was changed or created again is another one) and to one open
`Collection`; whether that is still the open one of its name is checked at each use. Tenants are names; the database
looks them up in every search.

Threads: event loop only, no lock. `answer` and `answer_batch` may run on any thread.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from google.protobuf.message import DecodeError
from numpy.typing import NDArray

from vecdb import Collection, SearchParams
from vecdb.wire.filters import Tree
from vecdb.wire.search_response import encoded
from vecdb.wire.two_rounds import NamedRows, encoded_named, name_rows, score_rows
from vecdb_server.executors import LatencyEstimate
from vecdb_server.security.auth import Caller

_REQUESTS_MAX = 4_096
_TEXT_BYTES_MAX = 2_048  # of head and tail: a request with more text is not kept
_NUMBERS_BYTES_MAX = 1 << 18  # of vectors: reading the message costs nothing beside searching for more of them
_INVERTED = bytes(value ^ 255 for value in range(256))

Queries = NDArray[Any]  # [dim] for one query, otherwise [n, dim]
QueryFilter = Tree | None | list[Tree | None]  # of a search


@dataclass(slots=True)
class CachedRequest:
    """select : names of fields, None for all, () for none.   tenants : None for all records.

    queries : how many vectors its requests have.   batch_key : equal for requests that one kernel call may answer; None
    where it must be answered alone.   node : the filter, or a list with one for each query; None for all records.
    servers : that are asked in a first of two rounds, else 0.   scored : the rows of a second one.
    """

    docs: Collection
    caller: Caller
    latency: LatencyEstimate
    queries: int
    dim: int
    dtype: np.dtype[Any]
    limit: int
    params: SearchParams | None
    tenants: list[str] | None
    select: tuple[str, ...] | None
    include_vectors: bool
    as_json: bool
    explain: bool
    batch_key: Any
    node: QueryFilter = None
    servers: int = 0
    scored: NamedRows | None = None

    def answer(self, queries: Queries, stop: Callable[[], bool] | None) -> bytes:
        """A SearchResponse."""
        if self.servers:
            named = name_rows(
                self.docs, queries, self.limit, servers=self.servers, params=self.params, tenant=self.tenants,
                filter=self.node, explain=self.explain, stop=stop,
            )  # fmt: skip
            if named is not None:
                return encoded_named(named)
        if self.scored is not None:
            hits = score_rows(
                self.docs, queries, self.limit, self.scored, params=self.params, select=self.select,
                include_vectors=self.include_vectors, tenant=self.tenants, filter=self.node, explain=self.explain,
                stop=stop,
            )  # fmt: skip
            return encoded(hits, self.select, as_json=self.as_json, reader=self.caller.tenant)
        hits = self.docs.search(
            queries, self.limit, params=self.params, fields=self.select, include_vectors=self.include_vectors,
            explain=self.explain, tenant=self.tenants, stop=stop, filter=self.node,
        )  # fmt: skip
        return encoded(hits, self.select, as_json=self.as_json, reader=self.caller.tenant)

    def answer_batch(self, queries: Sequence[Queries]) -> list[bytes]:
        """One SearchResponse for each query; the queries are of requests with the same batch_key."""
        hits = self.docs.search(
            np.stack(queries), self.limit, params=self.params, fields=self.select,
            include_vectors=self.include_vectors, tenant=self.tenants, filter=self.node,
        )  # fmt: skip
        reader = self.caller.tenant
        return [encoded(hits[i], self.select, as_json=self.as_json, reader=reader) for i in range(len(queries))]

    def queries_of(self, numbers: bytes) -> Queries:
        """The vectors, from little-endian bytes; copied: bytes of a message may be unaligned and are read-only."""
        flat = np.frombuffer(bytearray(numbers), self.dtype)
        return flat if self.queries == 1 else flat.reshape(self.queries, self.dim)


class RequestCache:
    """Requests that came lately. parse : bytes -> SearchRequest; raises DecodeError."""

    def __init__(self, parse: Callable[[bytes], Any]) -> None:
        self._parse = parse
        self._spans: dict[tuple[int, bytes], tuple[int, int]] = {}  # (length, second byte) -> where the numbers are
        self._known: dict[tuple[int, str, int, bytes, bytes], CachedRequest] = {}

    def __len__(self) -> int:
        return len(self._known)

    def find(self, request: bytes, caller: Caller, context: str) -> tuple[CachedRequest, Queries] | None:
        """The cached request and the vectors of this one. context : what its meaning also depends on: the collection
        that its stream named before.
        """
        length = len(request)
        span = self._spans.get((length, request[1:2]))
        if span is None:
            return None
        start, stop = span
        cached = self._known.get((id(caller), context, length, request[:start], request[stop:]))
        return None if cached is None else (cached, cached.queries_of(request[start:stop]))

    def keep(self, request: bytes, message: Any, cached: CachedRequest, context: str) -> None:
        """message : `request`, parsed."""
        span = self._span_of(request, message)
        if span is None:
            return
        if len(self._known) >= _REQUESTS_MAX:
            self._known.clear()
            self._spans.clear()
        start, stop = span
        self._spans[len(request), request[1:2]] = span
        # the caller's address is unique, because the cached request keeps the caller alive
        self._known[id(cached.caller), context, len(request), request[:start], request[stop:]] = cached

    def _span_of(self, request: bytes, message: Any) -> tuple[int, int] | None:
        """Where the numbers are, if other numbers in that place give the same message with other numbers; else None."""
        numbers = message.vectors.data
        if not 0 < len(numbers) <= _NUMBERS_BYTES_MAX or len(request) - len(numbers) > _TEXT_BYTES_MAX:
            return None
        start = request.find(numbers)
        stop = start + len(numbers)
        inverted = numbers.translate(_INVERTED)
        try:
            changed = self._parse(request[:start] + inverted + request[stop:])
        except DecodeError:
            return None
        if changed.vectors.data != inverted:
            return None
        changed.vectors.data = numbers
        return (start, stop) if changed == message else None
