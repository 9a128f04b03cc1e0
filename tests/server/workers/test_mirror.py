"""The writer hears of searches that workers answer: that there are some, and how their queries look."""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np
import pytest

from tests.support.server.driver import search_request
from vecdb_server.workers.mirror import SearchMirror


class Link:
    """answers : set once the writer answers; None: it does at once."""

    def __init__(self, answers: asyncio.Event | None = None) -> None:
        self.told: list[bytes] = []
        self._answers = answers

    def metadata_of(self, context: Any) -> list[tuple[str, str]]:
        return []

    async def tell(self, path: str, request: bytes, metadata: Any, patience_s: float) -> None:
        assert path == "/vecdb.v1.SearchService/Search"
        self.told.append(request)
        if self._answers is not None:
            await self._answers.wait()


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


def test_of_searches_of_many_collections_few_are_being_asked_at_once() -> None:
    async def run() -> None:
        answers = asyncio.Event()
        link = Link(answers)
        mirror = SearchMirror(Behaviours(), link)  # type: ignore[arg-type]
        requests = [search_request(f"c{i}", np.ones(2, np.float32)).SerializeToString() for i in range(50)]
        for request in requests:
            mirror.Search(request, None, None)
            await asyncio.sleep(0)
        assert link.told == requests[:8]
        answers.set()
        while mirror._asking:
            await asyncio.sleep(0)
        mirror.Search(requests[20], None, None)
        await asyncio.sleep(0)
        assert link.told == [*requests[:8], requests[20]]

    asyncio.run(run())


def test_a_large_search_is_not_told() -> None:
    async def run() -> None:
        link = Link()
        mirror = SearchMirror(Behaviours(), link)  # type: ignore[arg-type]
        large = search_request("a", np.ones(20_000, np.float32)).SerializeToString()
        small = search_request("a", np.ones(10_000, np.float32)).SerializeToString()
        assert len(small) < 1 << 16 < len(large)
        for request in (large, small):
            assert mirror.Search(request, None, None) == b"answer"
            await asyncio.sleep(0)
        assert link.told == [small]

    asyncio.run(run())


@pytest.mark.parametrize("waits", [False, True])
def test_a_search_is_told_once_it_was_answered(waits: bool) -> None:
    class Failing:
        fails = True

        def Search(self, request: bytes, caller: Any, context: Any) -> Any:
            return self.later() if waits else self.now()

        def now(self) -> bytes:
            if self.fails:
                raise ValueError("no such collection")
            return b"answer"

        async def later(self) -> bytes:
            assert link.told == []
            await asyncio.sleep(0)
            return self.now()

    link = Link()

    async def run() -> None:
        behaviours = Failing()
        mirror = SearchMirror(behaviours, link)  # type: ignore[arg-type]

        async def answer() -> bytes:
            found = mirror.Search(b"q", None, None)
            return found if isinstance(found, bytes) else await found

        with pytest.raises(ValueError):
            await answer()
        await asyncio.sleep(0)
        assert link.told == []
        behaviours.fails = False
        assert await asyncio.gather(*(answer() for _ in range(3))) == [b"answer"] * 3
        await asyncio.sleep(0)
        assert link.told == [b"q"], "one of three at once"

    asyncio.run(run())
