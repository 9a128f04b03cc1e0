"""An asynchronous database called as if it were not: coroutines run on a loop in a thread of its own."""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import Iterator
from typing import Any

import vecdb

PATIENCE_S = 120.0


class Loop:
    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="client-loop")
        self._thread.start()

    def run(self, coming: Any) -> Any:
        async def awaited() -> Any:
            return await coming

        return asyncio.run_coroutine_threadsafe(awaited(), self._loop).result(PATIENCE_S)

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


class Waiting:
    """A Database or Collection of vecdb.aio, whose answers are waited for."""

    def __init__(self, far: Any, loop: Loop) -> None:
        self.far = far
        self._loop = loop

    def __getattr__(self, name: str) -> Any:
        found = getattr(self.far, name)
        if name in ("config", "metadata"):
            return self._loop.run(found())
        if not callable(found):
            return found
        return lambda *args, **kwargs: self._waited(found(*args, **kwargs))

    def _waited(self, coming: Any) -> Any:
        if callable(coming):  # a prepared write
            return lambda: self._loop.run(coming())
        if inspect.isasyncgen(coming):
            return self._each(coming)
        answer = self._loop.run(coming)
        return Waiting(answer, self._loop) if isinstance(answer, vecdb.aio.Collection) else answer

    def _each(self, coming: Any) -> Iterator[Any]:
        while True:
            try:
                yield self._loop.run(anext(coming))
            except StopAsyncIteration:
                return

    def __len__(self) -> int:
        return int(self.count())

    def __getitem__(self, name: str) -> Any:
        return self.collection(name)

    def __contains__(self, name: object) -> bool:
        return name in self.collections()

    def __enter__(self) -> Waiting:
        self._loop.run(self.far.__aenter__())
        return self

    def __exit__(self, *raised: Any) -> None:
        self._loop.run(self.far.__aexit__(*raised))

    def __repr__(self) -> str:
        return repr(self.far)
