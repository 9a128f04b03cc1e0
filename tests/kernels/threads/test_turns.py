"""Turns of kernels: whatever threads do, each kernel runs once and ends, and nobody is counted who is not there."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from vecdb.kernels.compile import kernel
from vecdb.kernels.threads import atomics, turns

ASLEEP, TAKEN = 1, 1
SPIN = 2_000


@kernel()
def _count(words, counts, spin):
    """A kernel that counts itself in counts[0], and in counts[8] how many are inside at once at most."""
    turns.begin(words)
    inside = atomics.add(counts, np.int64(16), np.int64(1)) + 1
    if inside > atomics.load(counts, np.int64(8)):
        atomics.store(counts, np.int64(8), inside)
    for _ in range(spin):
        atomics.pause()
    atomics.add(counts, np.int64(0), np.int64(1))
    atomics.add(counts, np.int64(16), np.int64(-1))
    turns.end(words)


def run(words: np.ndarray, threads: int, calls: int) -> np.ndarray:
    counts = np.zeros(24, np.int64)

    def work() -> None:
        for _ in range(calls):
            _count(words, counts, SPIN)

    running = [threading.Thread(target=work) for _ in range(threads)]
    for one in running:
        one.start()
    for one in running:
        one.join()
    return counts


@pytest.mark.parametrize(("cores", "threads"), [(1, 2), (1, 5), (2, 3), (2, 8), (3, 80), (16, 8)])
def test_every_kernel_runs_once_and_all_are_gone_in_the_end(cores: int, threads: int) -> None:
    words = turns.new_turns(cores)
    counts = run(words, threads, 600 // threads)
    assert counts[0] == 600 // threads * threads
    assert counts[16] == words[turns.WORKING] == words[turns.ASLEEP] == 0
    assert not words[turns.BEDS :: 8].any()


def test_a_thread_alone_takes_its_turn_and_passes_it_on() -> None:
    words = turns.new_turns(2)
    for number in range(1, 4):
        _count(words, np.zeros(24, np.int64), 0)
        assert words[turns.TURN] == 2 * number + TAKEN and words[turns.WORKING] == 0


def test_a_turn_that_was_left_is_not_waited_for_without_end_and_for_less_the_more_often() -> None:
    words, before = turns.new_turns(2), []
    words[turns.PATIENCE] = 1 << 12

    @kernel()
    def _end(words):
        atomics.add(words, turns.WORKING, np.int64(1))
        turns.end(words)

    for _ in range(5):
        words[turns.TURN] = 7  # taken, by a thread that never comes back
        before.append(int(words[turns.PATIENCE]))
        _end(words)
        assert words[turns.TURN] == 7 and words[turns.WORKING] == 0
    assert before == [1 << 12, 1 << 11, 1 << 10, 1 << 9, 1 << 9]


@pytest.mark.skipif(not atomics.CAN_SLEEP, reason="nobody sleeps on this system")
def test_who_sleeps_goes_on_by_itself_where_all_cores_stay_taken() -> None:
    words, counts = turns.new_turns(1), np.zeros(24, np.int64)
    words[turns.WORKING] = 1  # a kernel that does not end
    _count(words, counts, 0)
    assert counts[0] == 1 and words[turns.WORKING] == 1 and words[turns.ASLEEP] == 0


@pytest.mark.skipif(not atomics.CAN_SLEEP, reason="nobody sleeps on this system")
def test_a_place_that_becomes_free_is_given_to_who_sleeps() -> None:
    words, counts = turns.new_turns(1), np.zeros(24, np.int64)
    words[turns.WORKING] = 1
    sleeper = threading.Thread(target=_count, args=(words, counts, 0))
    sleeper.start()
    while words[turns.ASLEEP] != ASLEEP and counts[0] == 0:
        pass
    words[turns.WORKING] = 0
    _count(words, counts, 0)
    sleeper.join()
    assert counts[0] == 2 and words[turns.WORKING] == words[turns.ASLEEP] == 0


def test_a_forked_child_begins_without_the_threads_of_its_parent() -> None:
    words = turns.new_turns(2)
    words[:] = 5
    turns.reset(words, 3)
    assert words[turns.CORES] in (3, np.iinfo(np.int32).max)
    assert not words[[turns.TURN, turns.WORKING, turns.ASLEEP]].any() and not words[turns.BEDS :].any()
