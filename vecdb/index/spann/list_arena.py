"""Memory that list bodies live in: one mapping that never moves, given out in segments and taken back when nobody
holds them.

    arena   | segment | free | segment | segment | never touched ...

A segment is one batch of bodies. Views of the index hold the segments that they point into; when the last holder lets
go, its pages return to the system. When the mapping is used up a larger one takes its place (`PostingLists` moves the
bodies), and searches that hold the old one go on.

Thread rule: any thread may let a segment go; one thread at a time allocates.
"""

from __future__ import annotations

import threading
import weakref
from collections import deque

import numpy as np
from numpy.typing import NDArray

from vecdb.index.common.memory import reserve
from vecdb.storage.disk import mapped_memory

_PAGE = 4096
_CAPACITY_MIN = 64 << 20


class Segment:
    """A run of bytes of an arena, whole pages."""

    __slots__ = ("__weakref__", "arena", "nbytes", "start")

    def __init__(self, arena: Arena, start: int, nbytes: int) -> None:
        self.arena = arena
        self.start = start
        self.nbytes = nbytes


class Arena:
    """data : uint8[capacity], zeroed, touched on demand."""

    def __init__(self, nbytes: int) -> None:
        self.capacity = max(_CAPACITY_MIN, -(-nbytes // _PAGE) * _PAGE)
        self.data: NDArray[np.uint8] = reserve(self.capacity, np.uint8)
        self._free: list[tuple[int, int]] = [(0, self.capacity)]  # (start, stop), ascending, never adjacent
        # appended to by whichever thread lets a segment go, at any moment: also by a collection of garbage inside
        # `allocate`
        self._returned: deque[tuple[int, int]] = deque()
        self._lock = threading.Lock()

    def allocate(self, nbytes: int) -> Segment | None:
        """A segment of at least `nbytes`, or None where no run is long enough."""
        wanted = max(_PAGE, -(-nbytes // _PAGE) * _PAGE)
        with self._lock:
            self._take_back()
            for i, (start, stop) in enumerate(self._free):
                if stop - start >= wanted:
                    if stop - start == wanted:
                        del self._free[i]
                    else:
                        self._free[i] = (start + wanted, stop)
                    segment = Segment(self, start, wanted)
                    weakref.finalize(segment, self._release, start, start + wanted).atexit = False
                    return segment
        return None

    def _release(self, start: int, stop: int) -> None:
        mapped_memory.drop_pages(self.data, start, stop - start)
        self._returned.append((start, stop))

    def _take_back(self) -> None:
        """Join what came back with what is free; under the lock."""
        runs = list(self._free)
        while self._returned:
            runs.append(self._returned.popleft())
        runs.sort()
        joined = runs[:1]
        for first, last in runs[1:]:
            if first == joined[-1][1]:
                joined[-1] = (joined[-1][0], last)
            else:
                joined.append((first, last))
        self._free = joined

    def used_bytes(self) -> int:
        with self._lock:
            self._take_back()
            return self.capacity - sum(stop - start for start, stop in self._free)
