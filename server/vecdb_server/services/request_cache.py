"""Questions: what a search asks besides its vectors, made ready once for all requests that differ in nothing else.

    request  :=  head  numbers of the vectors  tail          a SearchRequest, as its bytes came

The numbers are a field of bytes. Whatever they are, a message is read in the same way before and behind them, so that
requests of one head, one tail and one length ask the same question: reading the message, resolving its scope and its
parameters is done for the first of them.

A question belongs to the one `Caller` that asked it (a token that is changed or made anew has another), and to the one
open `Collection`; whether that is still the one of its name is looked at each time. Tenants are names, which the engine
looks up for every search. On the event loop only; no lock.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from google.protobuf.message import DecodeError
from numpy.typing import NDArray

from vecdb import Collection, SearchParams
from vecdb.wire.search_response import encoded
from vecdb_server.auth import Caller
from vecdb_server.executors import Cost

_QUESTIONS_MAX = 4_096
_WORDS_BYTES_MAX = 2_048  # of head and tail: a question that says more is not kept
_NUMBERS_BYTES_MAX = 1 << 18  # of vectors: reading the message costs nothing beside searching for more of them
_OTHERS = bytes(value ^ 255 for value in range(256))

Queries = NDArray[Any]  # [dim] for one query, else [n, dim]


@dataclass(slots=True)
class Question:
    """select : names of fields, None for all, () for none.   tenants : None for all records.

    queries : how many vectors its requests have.   alike : of what may share a kernel call; None where nothing may.
    """

    docs: Collection
    caller: Caller
    cost: Cost
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
    alike: Any

    def answer(self, queries: Queries, stop: Callable[[], bool] | None) -> bytes:
        """A SearchResponse."""
        hits = self.docs.search(
            queries, self.limit, params=self.params, fields=self.select, include_vectors=self.include_vectors,
            explain=self.explain, tenant=self.tenants, stop=stop,
        )  # fmt: skip
        return encoded(hits, self.select, as_json=self.as_json)

    def together(self, queries: Sequence[Queries]) -> list[bytes]:
        """One SearchResponse for each of some queries of questions that are alike."""
        hits = self.docs.search(
            np.stack(queries), self.limit, params=self.params, fields=self.select,
            include_vectors=self.include_vectors, tenant=self.tenants,
        )  # fmt: skip
        return [encoded(hits[i], self.select, as_json=self.as_json) for i in range(len(queries))]

    def queries_of(self, numbers: bytes) -> Queries:
        """Little-endian, in memory of their own: that of a message may lie askew, and is not to be written to."""
        flat = np.frombuffer(bytearray(numbers), self.dtype)
        return flat if self.queries == 1 else flat.reshape(self.queries, self.dim)


class Questions:
    """Those that were asked lately. parse : bytes -> SearchRequest; raises DecodeError."""

    def __init__(self, parse: Callable[[bytes], Any]) -> None:
        self._parse = parse
        self._places: dict[tuple[int, bytes], tuple[int, int]] = {}  # where the numbers were in one that looked like it
        self._known: dict[tuple[int, str, int, bytes, bytes], Question] = {}

    def __len__(self) -> int:
        return len(self._known)

    def find(self, request: bytes, caller: Caller, context: str) -> tuple[Question, Queries] | None:
        """The question, and its vectors. context : what it means besides: the collection of a stream."""
        length = len(request)
        place = self._places.get((length, request[1:2]))
        if place is None:
            return None
        start, stop = place
        question = self._known.get((id(caller), context, length, request[:start], request[stop:]))
        return None if question is None else (question, question.queries_of(request[start:stop]))

    def keep(self, request: bytes, message: Any, question: Question, context: str) -> None:
        """message : what the request was read as."""
        place = self._place_of(request, message)
        if place is None:
            return
        if len(self._known) >= _QUESTIONS_MAX:
            self._known.clear()
            self._places.clear()
        start, stop = place
        self._places[len(request), request[1:2]] = place
        # by the caller's address, which is nobody else's while the question holds it
        self._known[id(question.caller), context, len(request), request[:start], request[stop:]] = question

    def _place_of(self, request: bytes, message: Any) -> tuple[int, int] | None:
        """Where the numbers are: other numbers there are read as the same message with other numbers."""
        numbers = message.vectors.data
        if not 0 < len(numbers) <= _NUMBERS_BYTES_MAX or len(request) - len(numbers) > _WORDS_BYTES_MAX:
            return None
        start = request.find(numbers)
        stop = start + len(numbers)
        others = numbers.translate(_OTHERS)
        try:
            changed = self._parse(request[:start] + others + request[stop:])
        except DecodeError:
            return None
        if changed.vectors.data != others:
            return None
        changed.vectors.data = numbers
        return (start, stop) if changed == message else None
