"""Brings what a server sends into the sizes that the caller asked for: lists of records, pages of names, and answers
that are too large for one message.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from vecdb.api.filter_arguments import Page
from vecdb.schema import Record


class Rebatcher:
    """batch : records in a list.   decode : makes a record of a message."""

    def __init__(self, batch: int, decode: Callable[[Any], Record]) -> None:
        self._batch = batch
        self._decode = decode
        self._pending: list[Record] = []
        self._cursor: str | None = None  # behind what is pending

    def full(self, answer: Any) -> Iterator[Page]:
        """The lists that an answer completes. Where one ends with it, it has the answer's cursor."""
        last = len(answer.records) - 1
        for at, message in enumerate(answer.records):
            self._pending.append(self._decode(message))
            if len(self._pending) == self._batch:
                yield Page(self._pending, (at == last and answer.cursor) or None)
                self._pending = []
        if self._pending:
            self._cursor = answer.cursor or None

    def rest(self) -> Iterator[Page]:
        """The last list, if it is not empty."""
        if self._pending:
            yield Page(self._pending, self._cursor)


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


class Parts:
    """A read that is made in several calls, each as large as its answer may be.

    make(part) : the request for a slice of what is asked for.   decode(answer) : a list of what it found, one each.
    count : how much is asked for.   step : how much one answer has room for, as far as is known.   scalar : one alone.
    """

    def __init__(
        self,
        make: Callable[[slice], Any],
        decode: Callable[[Any], list[Any]],
        count: int,
        step: int,
        *,
        scalar: bool,
    ) -> None:
        self._make = make
        self._decode = decode
        self._count = count
        self._step = max(1, step)
        self._scalar = scalar
        self._asked = False
        self._found: list[Any] = []

    def next(self) -> Any:
        """The next request; None where all is found. Of nothing there is one request, too, which may be refused."""
        start = len(self._found)
        if self._asked and start >= self._count:
            return None
        self._asked = True
        return self._make(slice(start, min(start + self._step, self._count)))

    def answered(self, answer: Any) -> None:
        self._found += self._decode(answer)

    def halve(self) -> bool:
        """The answer had no room: ask for half as much. Returns whether there is less to ask for."""
        asked = min(self._step, self._count - len(self._found))
        self._step = max(1, asked // 2)
        return asked > 1

    def result(self) -> Any:
        return self._found[0] if self._scalar else self._found
