"""Counts that bound what callers cost. Several processes of one server may share them: all of it is this interface.

first_over(wanted)   the first count that would pass its most
try_add(wanted)      the same; where there is none, all are added at once
subtract(amounts)    what was added before
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol

Wanted = tuple[str, int, int]  # (name of a count, what is added, the most that it may be then)


class Counters(Protocol):
    def value(self, name: str) -> int: ...

    def first_over(self, wanted: Iterable[Wanted]) -> str | None: ...

    def try_add(self, wanted: Sequence[Wanted]) -> str | None: ...

    def subtract(self, amounts: Iterable[tuple[str, int]]) -> None: ...


class LocalCounters:
    """Counts of this process. One thread, no lock."""

    def __init__(self) -> None:
        self._values: dict[str, int] = {}

    def value(self, name: str) -> int:
        return self._values.get(name, 0)

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
