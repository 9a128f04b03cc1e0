"""A thread pool that exists only once something runs on more than one thread, and the turns of all threads of this
process. Any thread may call `map`.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from vecdb.kernels.threads import turns

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


def _has_lock() -> bool:
    """Whether this interpreter runs one thread at a time."""
    return bool(getattr(sys, "_is_gil_enabled", lambda: True)())


# They share one interpreter, whatever collections they search (kernels/threads/turns.py); empty where it has no lock.
TURNS: NDArray[np.int64] = turns.new_turns() if _has_lock() else np.empty(0, np.int64)


def _after_fork_in_child() -> None:
    if len(TURNS):
        turns.reset(TURNS)  # threads of the parent are not here


os.register_at_fork(after_in_child=_after_fork_in_child)
