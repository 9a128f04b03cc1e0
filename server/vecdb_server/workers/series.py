"""Counts of calls, in memory that all processes of one server share: the metrics page adds them up.

    process := rpc * number of rpcs, the last for what is none of them
    rpc     := calls by status code * 17 | calls by duration * 18 | nanoseconds

A process writes its own; a worker that is started anew goes on with those of the one before, so that none goes down.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable
from typing import Any

import grpc

from vecdb_server.metrics import BUCKETS_S, CallCounts, Metrics, Series

_CODES = tuple(code.name for code in grpc.StatusCode)
_AT = {name: i for i, name in enumerate(_CODES)}
_TIMES = len(_CODES)
_NANOSECONDS = _TIMES + len(BUCKETS_S) + 1
_WORDS = _NANOSECONDS + 1
UNKNOWN = "unknown"


class SharedSeries:
    """The counts of one rpc by one process. words : those of it."""

    __slots__ = ("_words",)

    def __init__(self, words: Any) -> None:
        self._words = words

    def count(self, code: str, seconds: float) -> None:
        words = self._words
        words[_AT[code]] += 1
        words[_TIMES + bisect_left(BUCKETS_S, seconds)] += 1
        words[_NANOSECONDS] += int(seconds * 1e9)

    def refused(self, code: str) -> None:
        self._words[_AT[code]] += 1


class SharedMetrics:
    """The counts of all processes. rpcs : their paths.   part : of the board, `words(...)` long."""

    def __init__(self, rpcs: Iterable[str], processes: int, part: Any) -> None:
        self._rpcs = [path.removeprefix("/") for path in rpcs] + [UNKNOWN]
        self._at = {rpc: i * _WORDS for i, rpc in enumerate(self._rpcs)}
        self._processes = processes
        self._part = part

    @staticmethod
    def words(rpcs: int, processes: int) -> int:
        return (rpcs + 1) * _WORDS * processes

    def of(self, place: int) -> Metrics:
        """What the process of that place counts into."""
        return _MetricsOfPlace(self, place)

    def series(self, rpc: str, place: int) -> SharedSeries:
        start = place * len(self._rpcs) * _WORDS + self._at.get(rpc, self._at[UNKNOWN])
        return SharedSeries(self._part[start : start + _WORDS])

    def totals(self) -> dict[str, Series]:
        """Of each rpc that was called, the counts of all processes."""
        found = {}
        for rpc, at in self._at.items():
            sums = [0] * _WORDS
            for place in range(self._processes):
                start = place * len(self._rpcs) * _WORDS + at
                sums = [a + b for a, b in zip(sums, self._part[start : start + _WORDS], strict=True)]
            if any(sums):
                one = found[rpc] = Series()
                one.codes = {name: sums[i] for i, name in enumerate(_CODES) if sums[i]}
                one.times = sums[_TIMES:_NANOSECONDS]
                one.seconds = sums[_NANOSECONDS] / 1e9
        return found


class _MetricsOfPlace(Metrics):
    def __init__(self, shared: SharedMetrics, place: int) -> None:
        super().__init__(shared.totals)
        self._shared, self._place = shared, place
        self._made: dict[str, SharedSeries] = {}  # by rpc

    def series(self, method: str) -> CallCounts:
        found = self._made.get(method)
        if found is None:
            found = self._made[method] = self._shared.series(method.removeprefix("/"), self._place)
        return found
