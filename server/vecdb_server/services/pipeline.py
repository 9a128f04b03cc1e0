"""Work in two stages: the first stage of one item runs beside the second stage of the item before it.

    item 1   first | second |
    item 2         | first  | second |
    item 3                  | first  | second       each stage takes one item at a time, in the order in which they came

Once an item has failed no other begins its second stage: what was done is always a prefix of what was asked for.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


class TwoStagePipeline:
    """On one event loop."""

    def __init__(self) -> None:
        self._first, self._second = asyncio.Lock(), asyncio.Lock()
        self._failed = False

    async def run(self, first: Callable[[], Awaitable[T]], second: Callable[[T], Awaitable[R]]) -> R:
        """The result of second(result of first). Raises CancelledError where an item before this one has failed."""
        try:
            async with self._first:
                ready = await first()
                await self._second.acquire()
            try:
                if self._failed:
                    raise asyncio.CancelledError
                return await second(ready)
            finally:
                self._second.release()
        except BaseException:
            self._failed = True
            raise
