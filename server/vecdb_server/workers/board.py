"""Memory that all processes of one server share. It is made before they are forked, and goes with the last of them.

    board   := names u64, words of the server | process * processes | what counters.py and series.py keep
    process := pid, state, since, then gauges          one for the writer, then one for each worker

Every word is 64 bits wide and has one writer: the process that it belongs to, or the supervisor while that process is
not running. Words of the server have one writer each, too. So none of them needs a lock; what does, takes `locked`.

Threads: any, as far as one process writes a word from one thread.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

GONE, STARTING, LISTENING, SERVING, DRAINING = range(5)
WRITER = 0  # the place of the writing process; workers follow
GAUGES = ("kernels_queued", "kernels_running", "writers_queued", "writers_running", "long_operations")
_NAMES, _METRICS_PORT, _WRITERS, _REPLACED, _LEASED_UNTIL, _LOG_TROUBLES = range(6)
_SERVER_WORDS = 8
_PID, _STATE, _SINCE = range(3)
_FIRST_GAUGE = 3
_PROCESS_WORDS = 16
_WORD_BYTES = 8


class Board:
    """workers : how many reading processes there are, beside the one that writes.   words : for who else uses it."""

    def __init__(self, workers: int, *words: int) -> None:
        self.processes = workers + 1
        first = _SERVER_WORDS + self.processes * _PROCESS_WORDS
        total = first + sum(words)
        self._memory = mmap.mmap(-1, total * _WORD_BYTES)
        self.words: Any = memoryview(self._memory).cast("q")
        self.parts: list[Any] = []  # what each of `words` asked for
        for count in words:
            self.parts.append(self.words[first : first + count])
            first += count
        self._lock_fd = os.memfd_create("vecdb-board")

    # -- of the server -------------------------------------------------------------------------------

    @property
    def names_version(self) -> int:
        """It goes up when names of collections mean others. Written by the writer, and between two of them."""
        return int(self.words[_NAMES])

    def names_changed(self) -> None:
        self.words[_NAMES] += 1

    @property
    def metrics_port(self) -> int:
        return int(self.words[_METRICS_PORT])

    @metrics_port.setter
    def metrics_port(self, port: int) -> None:
        self.words[_METRICS_PORT] = port

    @property
    def writers(self) -> int:
        """How many writing processes there have been: the number of the one that is there."""
        return int(self.words[_WRITERS])

    def next_writer(self) -> int:
        self.words[_WRITERS] += 1
        self.words[_REPLACED] = self.words[_LOG_TROUBLES] = 0
        return self.writers

    @property
    def is_replaced(self) -> bool:
        """Whether another process, of another server, writes this database by now. Written by the writer."""
        return bool(self.words[_REPLACED])

    def replaced(self) -> None:
        self.words[_REPLACED] = 1

    @property
    def log_troubles(self) -> int:
        """What the log keeps the database from, as bits of a number of place.py. Written by the writer."""
        return int(self.words[_LOG_TROUBLES])

    @log_troubles.setter
    def log_troubles(self, bits: int) -> None:
        self.words[_LOG_TROUBLES] = bits

    @property
    def leased_until(self) -> float:
        """Until when, by this machine's monotonic clock in seconds, it is known that nobody else writes this database.
        Written by the writer; what it knew before it ended holds on.
        """
        return int(self.words[_LEASED_UNTIL]) / 1e9

    @leased_until.setter
    def leased_until(self, time_s: float) -> None:
        self.words[_LEASED_UNTIL] = int(time_s * 1e9)

    # -- of each process -----------------------------------------------------------------------------

    def begin(self, place: int, pid: int) -> None:
        """A process starts in that place."""
        self._set(place, _PID, pid)
        self._set(place, _SINCE, time.monotonic_ns())
        self._set(place, _STATE, STARTING)

    def end(self, place: int) -> None:
        """The process of that place has ended."""
        at = self._at(place)
        self.words[at : at + _PROCESS_WORDS] = memoryview(bytes(_PROCESS_WORDS * _WORD_BYTES)).cast("q")

    def set_state(self, place: int, state: int) -> None:
        self._set(place, _STATE, state)

    def state(self, place: int) -> int:
        return int(self.words[self._at(place) + _STATE])

    def pid(self, place: int) -> int:
        return int(self.words[self._at(place) + _PID])

    def set_gauge(self, place: int, name: str, value: int) -> None:
        self._set(place, _FIRST_GAUGE + GAUGES.index(name), value)

    def gauge(self, name: str) -> int:
        """Of all processes together."""
        at = _FIRST_GAUGE + GAUGES.index(name)
        return sum(int(self.words[self._at(place) + at]) for place in range(self.processes))

    def _at(self, place: int) -> int:
        return _SERVER_WORDS + place * _PROCESS_WORDS

    def _set(self, place: int, word: int, value: int) -> None:
        self.words[self._at(place) + word] = value

    # -- the lock ------------------------------------------------------------------------------------

    @contextmanager
    def locked(self, number: int) -> Iterator[None]:
        """One process at a time, of those that ask for the same number. It goes with the process that holds it."""
        fcntl.lockf(self._lock_fd, fcntl.LOCK_EX, 1, number)
        try:
            yield
        finally:
            fcntl.lockf(self._lock_fd, fcntl.LOCK_UN, 1, number)
