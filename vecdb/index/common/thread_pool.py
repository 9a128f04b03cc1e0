"""A thread pool that exists only once something runs on more than one thread. Any thread may call `map`."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


class ThreadPool:
    """Kernels release the GIL, so plain threads run them side by side."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pool: ThreadPoolExecutor | None = None
        self._size = 0

    def map(self, work: Callable[[T], R], items: Iterable[T], threads: int) -> list[R]:
        """[work(item) for item in items], at most `threads` at a time; on the caller's thread when that is one."""
        todo = list(items)
        if threads <= 1 or len(todo) <= 1:
            return [work(item) for item in todo]
        # Each runner takes the next item that is free, so that a call's width is its own although the pool is shared.
        results: list[R | None] = [None] * len(todo)
        waiting = iter(range(len(todo)))

        def drain() -> None:
            for i in waiting:  # next() on a range iterator is atomic
                results[i] = work(todo[i])

        others = self._submit(drain, min(threads, len(todo)) - 1)
        try:
            drain()
        finally:
            for other in others:
                other.result()
        return results  # type: ignore[return-value]

    def _submit(self, work: Callable[[], None], count: int) -> list[Future[None]]:
        with self._lock:  # held while submitting, so that a pool is never shut down under a caller
            if self._pool is None or self._size < count:
                if self._pool is not None:
                    self._pool.shutdown(wait=False)
                self._pool = ThreadPoolExecutor(count, thread_name_prefix="vecdb-kernel")
                self._size = count
            return [self._pool.submit(work) for _ in range(count)]

    def close(self) -> None:
        with self._lock:
            if self._pool is not None:
                self._pool.shutdown(wait=False)
            self._pool = None
            self._size = 0
