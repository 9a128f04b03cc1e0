"""Brings what a server sends into the sizes that the caller asked for: lists of records, and pages of names."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from vecdb.api.filter_arguments import Page
from vecdb.schema import Record


class Rebatcher:
    """batch : records in a list.   decode : makes a record of a message."""

    def __init__(self, batch: int, decode: Callable[[Any], Record]) -> None:
        self._batch = batch
        self._decode = decode
        self._pending: list[Record] = []

    def full(self, messages: Iterable[Any]) -> Iterator[Page]:
        """The lists that these messages complete."""
        for message in messages:
            self._pending.append(self._decode(message))
            if len(self._pending) == self._batch:
                yield Page(self._pending)
                self._pending = []

    def rest(self) -> Iterator[Page]:
        """The last list, if it is not empty."""
        if self._pending:
            yield Page(self._pending)


class Pager:
    """Asks for page after page of names. request : for the first page; it is changed.   limit : None for all names."""

    def __init__(self, request: Any, limit: int | None) -> None:
        self._request = request
        self._left = limit
        self._ended = False

    def has_more(self) -> bool:
        """Whether another page is wanted, and there is one."""
        return not self._ended and self._left != 0

    def names_of(self, answer: Any) -> list[str]:
        """The names of a page. Afterwards the request asks for the next page."""
        names = list(answer.names[: self._left])
        self._request.page_token = answer.next_page_token
        self._ended = not answer.next_page_token
        if self._left is not None:
            self._left -= len(names)
        return names
