"""The writer hears of searches that workers answer: that there are some, and how their queries look."""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np
import pytest

from tests.support.server.driver import search_request
from vecdb_server.workers.mirror import SearchMirror


class Link:
    def __init__(self) -> None:
        self.told: list[bytes] = []

    def metadata_of(self, context: Any) -> list[tuple[str, str]]:
        return []

    async def tell(self, path: str, request: bytes, metadata: Any, patience_s: float) -> None:
        assert path == "/vecdb.v1.SearchService/Search"
        self.told.append(request)


class Behaviours:
    def Search(self, request: bytes, caller: Any, context: Any) -> bytes:
        return b"answer"


def test_one_search_of_a_collection_in_a_second_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr("vecdb_server.workers.mirror.time.monotonic", lambda: now[0])
    link = Link()

    async def run() -> None:
        mirror = SearchMirror(Behaviours(), link)  # type: ignore[arg-type]
        query = np.ones(2, np.float32)
        one, other = (search_request(name, query).SerializeToString() for name in ("a", "b"))
        for request in (one, one, other, one, other):
            assert mirror.Search(request, None, None) == b"answer"
            await asyncio.sleep(0)
        assert link.told == [one, other]
        now[0] += 1.0
        assert mirror.Search(one, None, None) == b"answer"
        assert mirror.Search(b"", None, None) == b"answer"
        await asyncio.sleep(0)
        assert link.told == [one, other, one, b""]

    asyncio.run(run())
