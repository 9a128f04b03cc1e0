"""Counts that bound callers, in memory that all processes of one server share.

    name -> slot      by its digest; a slot in which nothing is counted any more may become another name's
    slot -> count     one word for each process: it alone writes it, all are added up
         -> due       when the calls that a rate has let in were due, by the monotonic clock, in nanoseconds

A process adds what is wanted to its own words first, looks at the sums then, and takes it back where one is too high:
two that ask at once may both be refused, but never both let in. It looks in the same way whether the slot is still its
name's; who gives a slot to another name marks it first, and looks then whether somebody has added. What a process held
that is gone is cleared with its words. Where all slots of a name count something, names share one: their counts are
added up, and bounds are met sooner.

Threads: event loop of each process.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterable, Sequence
from typing import Any

from vecdb_server.security.counters import NO_BOUND, Wanted, due_after
from vecdb_server.workers.board import Board

SLOTS = 1 << 14
_PROBES = 64
_ALLOCATION = 1 << 40  # what is locked while a name takes a slot; slots are locked by their numbers
_HEAD = 2  # words of a slot before the counts: digest of its name, due
_FREE, _TAKING = 0, -1  # in place of a digest: of no name yet, and while a slot is given to another name
_Slot = tuple[int, int]  # its first word, and the digest there: the name's own, or that of the name it shares it with


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
        self._slots: dict[str, _Slot] = {}

    def value(self, name: str) -> int:
        return self._sum(self._slot(name)[0])

    def own(self, name: str) -> int:
        return int(self._words[self._slot(name)[0] + self._own])

    def first_over(self, wanted: Iterable[Wanted]) -> str | None:
        for name, amount, most in wanted:
            if most < NO_BOUND and self._sum(self._slot(name)[0]) + amount > most:
                return name
        return None

    def try_add(self, wanted: Sequence[Wanted]) -> str | None:
        words, own = self._words, self._own
        while True:
            slots: list[_Slot] = []
            for name, _, _ in wanted:
                slots.append(self._slot(name, slots))
            for (slot, _), (_, amount, _) in zip(slots, wanted, strict=True):
                words[slot + own] += amount
            if all(words[slot] == digest for slot, digest in slots):
                break
            self._take_back(slots, wanted)  # one of them has become another name's meanwhile
        for (slot, _), (name, _, most) in zip(slots, wanted, strict=True):
            if most < NO_BOUND and self._sum(slot) > most:
                self._take_back(slots, wanted)
                return name
        return None

    def _take_back(self, slots: list[_Slot], wanted: Sequence[Wanted]) -> None:
        for (slot, _), (_, amount, _) in zip(slots, wanted, strict=True):
            self._words[slot + self._own] -= amount

    def subtract(self, amounts: Iterable[tuple[str, int]]) -> None:
        for name, amount in amounts:  # the slot is still the name's, since that amount is counted there
            self._words[self._slot(name)[0] + self._own] -= amount

    def take(self, name: str, rate: float, now: float) -> float:
        while True:
            slot, digest = self._slot(name)
            with self._board.locked(slot):
                if self._words[slot] == digest:
                    due, wait_s = due_after(int(self._words[slot + 1]) / 1e9, rate, now)
                    self._words[slot + 1] = int(due * 1e9)
                    return wait_s

    def clear(self, place: int) -> None:
        """The process of that place is gone, and holds nothing any more."""
        for slot in range(0, SLOTS * self._stride, self._stride):
            if self._words[slot] != _FREE:
                self._words[slot + _HEAD + place] = 0

    def _sum(self, slot: int) -> int:
        return sum(self._words[slot + _HEAD : slot + self._stride])

    # -- slots ---------------------------------------------------------------------------------------

    def _slot(self, name: str, kept: Sequence[_Slot] = ()) -> _Slot:
        """The slot of a name. kept : slots that may not become its own, though nothing may be counted there yet."""
        found = self._slots.get(name)
        if found is None or self._words[found[0]] != found[1]:
            if len(self._slots) >= SLOTS:  # names of callers come and go
                self._slots = {one: at for one, at in self._slots.items() if self._words[at[0] + self._own]}
            found = self._slots[name] = self._find(name, kept)
        return found

    def _find(self, name: str, kept: Sequence[_Slot]) -> _Slot:
        digest = int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "little", signed=True)
        if digest in (_FREE, _TAKING):
            digest = 1
        first = digest % SLOTS
        places = [(first + i) % SLOTS * self._stride for i in range(min(_PROBES, SLOTS))]
        with self._board.locked(_ALLOCATION):
            for slot in places:
                if self._words[slot] in (_FREE, digest):
                    self._words[slot] = digest
                    return slot, digest
            others = {slot for slot, _ in kept}
            for slot in places:
                if slot not in others and self._taken_over(slot, digest):
                    return slot, digest
            return places[0], int(self._words[places[0]])

    def _taken_over(self, slot: int, digest: int) -> bool:
        """Whether the slot is that name's now: not where something is counted there."""
        with self._board.locked(slot):
            if self._is_used(slot):
                return False
            before, self._words[slot] = self._words[slot], _TAKING
            if self._is_used(slot):  # by one who has added before
                self._words[slot] = before
                return False
            self._words[slot + 1] = 0
            self._words[slot] = digest
            return True

    def _is_used(self, slot: int) -> bool:
        return self._words[slot + 1] > time.monotonic_ns() or any(self._words[slot + _HEAD : slot + self._stride])
