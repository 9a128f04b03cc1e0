"""Queries answered in order while the next ones are on their way, and sorted names of several shards as one list."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from heapq import merge
from itertools import islice
from typing import Any

from vecdb import validate
from vecdb.api.hits import Hits


def answers_in_order(queries: Iterable[Any], begin: Callable[[Any], Callable[[], Hits]], window: int) -> Iterator[Hits]:
    """begin(query) : send a query, and return what gives its hits. At most `window` are on their way. An error, of the
    iterator or of a query, is raised once the hits of the queries before it are handed out.
    """
    source, coming = validate.iterator(queries), deque[Callable[[], Hits]]()
    return _answers(source, begin, coming, window)


def _answers(
    source: Iterator[Any], begin: Callable[[Any], Callable[[], Hits]], coming: deque[Callable[[], Hits]], window: int
) -> Iterator[Hits]:
    error: Exception | None = None
    ended = False
    while True:
        while not ended and len(coming) < window:
            try:
                coming.append(begin(next(source)))
            except StopIteration:
                ended = True
            except Exception as failed:
                error, ended = failed, True
        if not coming:
            break
        yield coming.popleft()()
    if error is not None:
        raise error


def merged_names(parts: list[Iterator[str]], limit: int | None) -> Iterator[str]:
    """Each name once, in the order of its UTF-8. parts : sorted."""
    return islice(_once(merge(*parts, key=str.encode)), limit)


def _once(names: Iterable[str]) -> Iterator[str]:
    before = None
    for name in names:
        if name != before:
            yield name
        before = name
