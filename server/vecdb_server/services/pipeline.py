"""Turns: work in two steps, the first step of one piece beside the second of the piece before it.

    piece 1   first | second |
    piece 2         | first  | second |
    piece 3                  | first  | second          of either step one at a time, in the order in which they came

Once a piece has failed no other begins its second step: what was done is a beginning of what was asked for.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


class Turns:
    """On one event loop."""

    def __init__(self) -> None:
        self._first, self._second = asyncio.Lock(), asyncio.Lock()
        self._failed = False

    async def take(self, first: Callable[[], Awaitable[T]], second: Callable[[T], Awaitable[R]]) -> R:
        """The result of second(result of first). Raises CancelledError where a piece before this one has failed."""
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
