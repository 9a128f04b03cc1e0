"""vecdb.aio of a directory: the event loop stays free, calls end with their callers, and nothing is left behind."""

from __future__ import annotations

import asyncio
import os
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vecdb
from vecdb.query.searcher import Searcher

DIM = 4
VECTORS = np.arange(80, dtype=np.float32).reshape(20, DIM)


async def filled(db: Any) -> Any:
    docs = await db.create_collection("docs", DIM, "l2")
    assert await docs.upsert(range(20), VECTORS) == 20
    return docs


@pytest.mark.parametrize("path", [":memory:", "db"])
def test_a_directory_is_used_from_any_loop(path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    async def begin() -> Any:
        db = await vecdb.aio.open(path)
        await filled(db)
        return db

    async def go_on(db: Any) -> list[int]:
        async with db:
            docs = await db.collection("docs")
            assert isinstance(docs, vecdb.aio.Collection) and (await docs.config()).id_kind == "int"
            hits = await asyncio.gather(*(docs.search(one, 1) for one in VECTORS))
            return [int(one.ids[0]) for one in hits]

    db = asyncio.run(begin())
    assert asyncio.run(go_on(db)) == list(range(20))
    with pytest.raises(vecdb.Unavailable, match="is closed"):
        asyncio.run(db.collections())
    asyncio.run(db.close())


def test_options_are_those_of_what_is_opened(tmp_path: Path) -> None:
    for options in ({"token": "t"}, {"tls": True}, {"timeout": 1}):
        with pytest.raises(vecdb.InvalidArgument, match="is no option"):
            vecdb.aio.open(tmp_path / "db", **options)  # type: ignore[arg-type]
    for options in ({"read_only": True}, {"durability": "relaxed"}, {"memory_budget_bytes": 5}):
        with pytest.raises(vecdb.InvalidArgument, match="is no option"):
            vecdb.aio.open("grpc://localhost:1", **options)  # type: ignore[arg-type]

    async def read() -> None:
        with pytest.raises(vecdb.NotFound):
            await vecdb.aio.open(tmp_path / "db", read_only=True)
        with pytest.raises(vecdb.InvalidArgument, match="is an address"):
            await vecdb.aio.open("http://x")

    asyncio.run(read())


def test_the_loop_is_free_while_a_call_works_and_a_cancelled_search_stops(monkeypatch: pytest.MonkeyPatch) -> None:
    stops: list[Any] = []
    at_work, gate, ended = threading.Event(), threading.Event(), threading.Event()
    search = Searcher.search

    def held(self: Any, *args: Any, stop: Any = None, **kwargs: Any) -> Any:
        stops.append(stop)
        at_work.set()
        gate.wait(60)
        assert stop(), "whoever asked has been cancelled"
        ended.set()
        return search(self, *args, stop=stop, **kwargs)

    async def main() -> None:
        async with vecdb.aio.open(":memory:") as db:
            docs = await filled(db)
            monkeypatch.setattr(docs._near._backend, "search", held.__get__(docs._near._backend.searcher))
            asked = asyncio.ensure_future(docs.search(VECTORS[:5], 1))
            while not at_work.is_set():
                await asyncio.sleep(0)
            assert await docs.count() == 20 and not stops[0]()
            asked.cancel()
            with pytest.raises(asyncio.CancelledError):
                await asked
            gate.set()
            await asyncio.to_thread(ended.wait, 60)

    asyncio.run(main())
    assert ended.is_set()


def test_a_list_that_is_left_keeps_no_transaction() -> None:
    async def main() -> int:
        async with vecdb.aio.open(":memory:") as db:
            docs = await filled(db)
            listed = docs.iter(batch=3)
            async for batch in listed:
                assert len(batch) == 3
                break
            await listed.aclose()
            return int(docs._near._backend.state.store._parked)

    assert asyncio.run(main()) == 0


def test_it_is_closed_while_all_threads_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    gate = threading.Event()

    async def main() -> None:
        db = await vecdb.aio.open(":memory:")
        docs = await filled(db)
        monkeypatch.setattr(docs._near._backend, "count", lambda tenants: gate.wait(60))
        waiting = [asyncio.ensure_future(docs.count()) for _ in range(50)]
        await asyncio.sleep(0)
        await db.close()
        gate.set()
        await asyncio.gather(*waiting, return_exceptions=True)

    asyncio.run(main())


def test_a_forked_child_is_refused_and_waits_for_no_thread(tmp_path: Path) -> None:
    async def main() -> int:
        async with vecdb.aio.open(tmp_path / "db") as db:
            docs = await filled(db)
            call = docs.count()
            if (child := os.fork()) == 0:
                try:
                    call.send(None)
                except vecdb.Unavailable as error:
                    os._exit(0 if "inherited by a fork" in str(error) else 2)
                os._exit(3)
            call.close()
            return os.waitpid(child, 0)[1]

    assert asyncio.run(main()) == 0
