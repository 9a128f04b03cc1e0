"""Counts that bound callers, in memory that all processes of one server share.

    name -> slot      by its digest; a slot that a name has taken stays its own
    slot -> count     one word for each process: it alone writes it, all are added up
         -> due       when the calls that a rate has let in were due, by the monotonic clock, in nanoseconds

A process adds what is wanted to its own words first, looks at the sums then, and takes it back where one is too high:
two that ask at once may both be refused, but never both let in. What a process held that is gone is cleared with its
words. A full table makes names share a slot: their counts are added up, and bounds are met sooner.

Threads: event loop of each process.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from typing import Any

from vecdb_server.security.counters import NO_BOUND, Wanted, due_after
from vecdb_server.workers.board import Board

SLOTS = 1 << 14
_PROBES = 64
_ALLOCATION = 1 << 40  # what is locked while a name takes a slot; slots are locked by their numbers
_HEAD = 2  # words of a slot before the counts: digest of its name, due


def words(processes: int) -> int:
    """How many words of a board it needs."""
    return SLOTS * (_HEAD + processes)


class SharedCounters:
    """place : of this process on the board.   words : the board's part for it."""

    def __init__(self, board: Board, words: Any, place: int) -> None:
        self._board = board
        self._words = words
        self._processes = board.processes
        self._stride = _HEAD + board.processes
        self._own = _HEAD + place
        self._slots: dict[str, int] = {}  # name -> first word of its slot

    def value(self, name: str) -> int:
        return self._sum(self._slot(name))

    def own(self, name: str) -> int:
        return int(self._words[self._slot(name) + self._own])

    def first_over(self, wanted: Iterable[Wanted]) -> str | None:
        for name, amount, most in wanted:
            if most < NO_BOUND and self._sum(self._slot(name)) + amount > most:
                return name
        return None

    def try_add(self, wanted: Sequence[Wanted]) -> str | None:
        words, own = self._words, self._own
        slots = [self._slot(name) for name, _, _ in wanted]
        for slot, (_, amount, _) in zip(slots, wanted, strict=True):
            words[slot + own] += amount
        for slot, (name, _, most) in zip(slots, wanted, strict=True):
            if most < NO_BOUND and self._sum(slot) > most:
                self.subtract((one, amount) for one, amount, _ in wanted)
                return name
        return None

    def subtract(self, amounts: Iterable[tuple[str, int]]) -> None:
        words, own = self._words, self._own
        for name, amount in amounts:
            words[self._slot(name) + own] -= amount

    def take(self, name: str, rate: float, now: float) -> float:
        slot = self._slot(name)
        with self._board.locked(slot):
            due, wait_s = due_after(int(self._words[slot + 1]) / 1e9, rate, now)
            self._words[slot + 1] = int(due * 1e9)
        return wait_s

    def clear(self, place: int) -> None:
        """The process of that place is gone, and holds nothing any more."""
        for slot in range(0, SLOTS * self._stride, self._stride):
            if self._words[slot]:
                self._words[slot + _HEAD + place] = 0

    def _sum(self, slot: int) -> int:
        return sum(self._words[slot + _HEAD : slot + self._stride])

    def _slot(self, name: str) -> int:
        found = self._slots.get(name)
        if found is None:
            found = self._slots[name] = self._find(name)
        return found

    def _find(self, name: str) -> int:
        digest = int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "little", signed=True) or 1
        first = digest % SLOTS
        places = [(first + i) % SLOTS * self._stride for i in range(_PROBES)]
        with self._board.locked(_ALLOCATION):
            for slot in places:
                taken = self._words[slot]
                if taken in (0, digest):
                    self._words[slot] = digest
                    return slot
        return places[0]
