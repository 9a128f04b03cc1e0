"""Counts that bound what callers cost. Several processes of one server may share them: all of it is this interface.

value(name)            a count, of all processes
own(name)              what this process has added to it
first_over(wanted)     the first count that would pass its most
try_add(wanted)        the same; where there is none, all are added at once
subtract(amounts)      what was added before
take(name, rate, now)  0, and a call counts for the rate of that name; or how many seconds until it may come

A rate is kept as the time at which the calls so far were due (the generic cell rate algorithm): one number.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol

NO_BOUND = 1 << 62
Wanted = tuple[str, int, int]  # (name of a count, what is added, the most that it may be then)


class Counters(Protocol):
    def value(self, name: str) -> int: ...

    def own(self, name: str) -> int: ...

    def first_over(self, wanted: Iterable[Wanted]) -> str | None: ...

    def try_add(self, wanted: Sequence[Wanted]) -> str | None: ...

    def subtract(self, amounts: Iterable[tuple[str, int]]) -> None: ...

    def take(self, name: str, rate: float, now: float) -> float: ...


def due_after(due: float, rate: float, now: float) -> tuple[float, float]:
    """(due then, seconds to wait) of one more call, where those before were due at `due`. The calls of one second may
    come at once.
    """
    ahead_s = max(1.0, rate) / rate - 1.0 / rate
    wait_s = due - ahead_s - now
    if wait_s > 1e-9:
        return due, wait_s
    return max(due, now) + 1.0 / rate, 0.0


class LocalCounters:
    """Counts of this process. One thread, no lock."""

    def __init__(self) -> None:
        self._values: dict[str, int] = {}
        self._due: dict[str, float] = {}  # of a rate; one for each token that has one

    def value(self, name: str) -> int:
        return self._values.get(name, 0)

    own = value

    def first_over(self, wanted: Iterable[Wanted]) -> str | None:
        values = self._values
        for name, amount, most in wanted:
            if values.get(name, 0) + amount > most:
                return name
        return None

    def try_add(self, wanted: Sequence[Wanted]) -> str | None:
        over = self.first_over(wanted)
        if over is None:
            values = self._values
            for name, amount, _ in wanted:
                values[name] = values.get(name, 0) + amount
        return over

    def subtract(self, amounts: Iterable[tuple[str, int]]) -> None:
        values = self._values
        for name, amount in amounts:
            left = values.get(name, 0) - amount
            assert left >= 0, name
            if left:
                values[name] = left
            else:
                values.pop(name, None)  # names of callers come and go

    def take(self, name: str, rate: float, now: float) -> float:
        self._due[name], wait_s = due_after(self._due.get(name, 0.0), rate, now)
        return wait_s
