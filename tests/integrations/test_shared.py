"""What the adaptors of frameworks have in common, without a framework."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

import vecdb
from vecdb.integrations import shared


def test_a_connection_whose_collection_cannot_be_opened_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    closed: list[str] = []

    class Far:
        async def collection(self, name: str) -> Any:
            raise vecdb.NotFound(f"no collection {name!r}", what="collection")

        async def close(self) -> None:
            closed.append("far")

    async def far_open(source: Any, **options: Any) -> Far:
        return Far()

    local = vecdb.open
    monkeypatch.setattr(vecdb, "open", lambda source, **options: local(":memory:"))
    monkeypatch.setattr(vecdb.aio, "open", far_open)

    async def use() -> None:
        with pytest.raises(vecdb.NotFound):
            await handle.far()
        assert closed == ["far"]
        await handle.aclose()

    handle = shared.CollectionHandle.of("grpc://nowhere:1", "docs")
    asyncio.run(use())


@pytest.mark.parametrize("score, nearness", [(0.0, 1.0), (-1.0, 0.5), (-9.0, 0.25), (1e-9, 1.0), (-float("inf"), 0.0)])
def test_nearness_of_l2_is_1_for_the_same_and_0_for_what_is_far(score: float, nearness: float) -> None:
    assert shared.nearness_of_l2(score) == pytest.approx(nearness)
