"""Records as they arrive, in lists of the length that was asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from vecdb.schema import Record


class Regroup:
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
