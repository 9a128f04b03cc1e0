"""What the writer hears of searches: now and then one that a worker has answered is asked of it again. Its answer is
thrown away.

Searches tell a writing process two things, which it would not know otherwise: that somebody searches, so that rows are
taken into the index before they are many (limits.tail_rows_max), and how queries look, on which it learns how wide
searches must be. One of a collection in a second is enough, and less where they take long; large ones and those that
fail are not told, nor are others while several are being asked.

Threads: event loop only.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable
from typing import Any

from vecdb_server.workers.forwarding import WriterLink

_RPC = "/vecdb.v1.SearchService/Search"
_EVERY_S = 1.0
_SHARE = 0.02  # of the writer's time, at most
_PATIENCE_S = 5.0
_COLLECTIONS_MAX = 1_024
_ASKING_MAX = 8  # at once
_REQUEST_BYTES_MAX = 64 << 10
_COLLECTION_TAG = 0x0A  # the first field of a SearchRequest, a short string


class SearchMirror:
    """behaviours : of the SearchService; `Search` takes its request as bytes."""

    def __init__(self, behaviours: Any, link: WriterLink) -> None:
        self._search = behaviours.Search
        self._link = link
        self._due: dict[bytes, float] = {}  # collection -> when one of its searches may be asked again
        self._asking: set[asyncio.Task[None]] = set()

    def Search(self, request: bytes, caller: Any, context: Any) -> bytes | Awaitable[bytes]:
        answer: bytes | Awaitable[bytes] = self._search(request, caller, context)
        if not self._wanted(request):
            return answer
        if not isinstance(answer, bytes):
            return self._answered(answer, request, context)
        self._ask(request, context)
        return answer

    def _wanted(self, request: Any) -> bool:
        if not isinstance(request, bytes) or len(request) > _REQUEST_BYTES_MAX or len(self._asking) >= _ASKING_MAX:
            return False  # what is not bytes is too large, and is refused
        return time.monotonic() >= self._due.get(_collection_in(request), 0.0)

    async def _answered(self, answer: Awaitable[bytes], request: bytes, context: Any) -> bytes:
        found = await answer
        if self._wanted(request):  # others may have been asked meanwhile
            self._ask(request, context)
        return found

    def _ask(self, request: bytes, context: Any) -> None:
        now, name = time.monotonic(), _collection_in(request)
        if len(self._due) >= _COLLECTIONS_MAX:
            self._due.clear()
        self._due[name] = now + _EVERY_S
        task = asyncio.ensure_future(self._ask_again(request, name, self._link.metadata_of(context)))
        self._asking.add(task)
        task.add_done_callback(self._asking.discard)

    async def _ask_again(self, request: bytes, name: bytes, metadata: Any) -> None:
        began = time.monotonic()
        await self._link.tell(_RPC, request, metadata, _PATIENCE_S)
        took_s = time.monotonic() - began
        self._due[name] = began + max(_EVERY_S, took_s / _SHARE)


def _collection_in(request: bytes) -> bytes:
    """The collection that a SearchRequest names; any other bytes where it is not in its usual place."""
    if len(request) > 2 and request[0] == _COLLECTION_TAG and request[1] < 128:
        return request[2 : 2 + request[1]]
    return request[:16]
