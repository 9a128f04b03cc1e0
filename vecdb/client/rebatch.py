"""What arrives in pieces, in the pieces that were asked for: lists of records, and names up to a number."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from vecdb.schema import Record


class Rebatcher:
    """batch : records a list.   decode : of a message."""

    def __init__(self, batch: int, decode: Callable[[Any], Record]) -> None:
        self._batch = batch
        self._decode = decode
        self._waiting: list[Record] = []

    def full(self, messages: Iterable[Any]) -> Iterator[list[Record]]:
        for message in messages:
            self._waiting.append(self._decode(message))
            if len(self._waiting) == self._batch:
                yield self._waiting
                self._waiting = []

    def rest(self) -> Iterator[list[Record]]:
        if self._waiting:
            yield self._waiting


class Pager:
    """Which page of names to ask for next. request : asks for the first, and is changed.   limit : None for all."""

    def __init__(self, request: Any, limit: int | None) -> None:
        self._request = request
        self._left = limit
        self._ended = False

    def is_wanted(self) -> bool:
        return not self._ended and self._left != 0

    def names_of(self, answer: Any) -> list[str]:
        names = list(answer.names[: self._left])
        self._request.page_token = answer.next_page_token
        self._ended = not answer.next_page_token
        if self._left is not None:
            self._left -= len(names)
        return names
