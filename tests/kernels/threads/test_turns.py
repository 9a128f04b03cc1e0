"""Turns of kernels: whatever threads do, each kernel runs once and ends."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from vecdb.kernels.compile import kernel
from vecdb.kernels.threads import atomics, turns

TAKEN = 1
SPIN = 2_000


@kernel()
def _count(words, counts, spin):
    """A kernel that counts itself in counts[0]."""
    turns.begin(words)
    for _ in range(spin):
        atomics.pause()
    counts[0] += 1
    turns.end(words)


@kernel()
def _end(words):
    turns.end(words)


@pytest.mark.parametrize("threads", [2, 3, 8, 80])
def test_every_kernel_runs_once_and_ends(threads: int) -> None:
    words, calls = turns.new_turns(), 600 // threads
    counts = np.zeros((threads, 8), np.int64)  # a cache line a thread

    def work(mine: np.ndarray) -> None:
        for _ in range(calls):
            _count(words, mine, SPIN)

    running = [threading.Thread(target=work, args=(counts[i],)) for i in range(threads)]
    for one in running:
        one.start()
    for one in running:
        one.join()
    assert (counts[:, 0] == calls).all()


def test_a_thread_alone_takes_its_turn_and_passes_it_on() -> None:
    words = turns.new_turns()
    for number in range(1, 4):
        _count(words, np.zeros(8, np.int64), 0)
        assert words[turns.TURN] == 2 * number + TAKEN


def test_a_turn_that_was_left_is_not_waited_for_without_end_and_for_less_the_more_often() -> None:
    words, before = turns.new_turns(), []
    for _ in range(7):
        words[turns.TURN] = 7  # taken, by a thread that never comes back
        before.append(int(words[turns.PATIENCE]))
        _end(words)
        assert words[turns.TURN] == 7
    assert before == [1 << 14, 1 << 13, 1 << 12, 1 << 11, 1 << 10, 1 << 9, 1 << 9]


def test_a_forked_child_begins_without_the_threads_of_its_parent() -> None:
    words = turns.new_turns()
    words[:] = 5
    turns.reset(words)
    assert words[turns.TURN] == 0 and (words == turns.new_turns()).all()
