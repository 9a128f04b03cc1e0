"""Goal: a ring reads what os.pread reads, by either method, whatever the kernel refuses, cuts short or interrupts."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import gc
import mmap
import os
import resource
import threading
import weakref
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from vecdb.storage.disk import batch_read
from vecdb.storage.disk.batch_read import ReadBatch, ReadBatchPool

PAGE = 4096
SIZE = 60 * PAGE + 1234  # the file ends inside a page

Ints = NDArray[np.int64]


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("read_many") / "blocks"
    path.write_bytes(np.random.default_rng(1).bytes(SIZE))
    return path


@pytest.fixture(params=["direct", "buffered"])
def fd(path: Path, request: pytest.FixtureRequest) -> Iterator[int]:
    """A descriptor of the file; where the file system has no direct I/O, both are buffered."""
    direct = os.O_DIRECT if request.param == "direct" else 0
    try:
        fd = os.open(path, os.O_RDONLY | direct)
    except OSError:
        fd = os.open(path, os.O_RDONLY)
    yield fd
    os.close(fd)


@pytest.fixture(params=["aio", "threads"])
def method(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Every new ring reads by this method."""
    if request.param == "threads":
        monkeypatch.setattr(batch_read, "_aio", lambda depth: None)
    else:
        need_aio()
    return str(request.param)


@pytest.fixture
def ring(method: str) -> Iterator[ReadBatch]:
    ring = ReadBatch(8)
    assert ring.method == method
    yield ring
    ring.close()


@cache
def has_aio() -> bool:
    ring = ReadBatch(1)
    method = ring.method
    ring.close()
    return method == "aio"


def need_aio() -> None:
    """Skip where there is none; called before anything is replaced."""
    if not has_aio():
        pytest.skip("the kernel refuses native AIO here")


def room(nbytes: int) -> NDArray[np.uint8]:
    """Page-aligned memory, filled with 0xAA."""
    out = np.frombuffer(mmap.mmap(-1, max(nbytes, 1)), np.uint8)
    out[:] = 0xAA
    return out


def random_reads(rng: np.random.Generator, n: int) -> tuple[Ints, Ints, NDArray[np.uint8], Ints]:
    """Offsets up to beyond the end of the file, lengths of 0 to 4 pages, places in shuffled order with gaps between."""
    offsets = rng.integers(0, SIZE // PAGE + 4, n) * PAGE
    lengths = rng.integers(0, 5, n) * PAGE
    places = rng.permutation(n) * 5 * PAGE
    return offsets, lengths, room(n * 5 * PAGE), places


def expect_as_pread(
    path: Path, counts: Ints, offsets: Ints, lengths: Ints, out: NDArray[np.uint8], places: Ints
) -> None:
    """`out` holds what os.pread gives, and is untouched outside the places of the reads."""
    expected = np.full(len(out), 0xAA, np.uint8)
    fd = os.open(path, os.O_RDONLY)
    try:
        for i in range(len(offsets)):
            data = os.pread(fd, int(lengths[i]), int(offsets[i]))
            expected[places[i] : places[i] + len(data)] = np.frombuffer(data, np.uint8)
            assert counts[i] == len(data)
    finally:
        os.close(fd)
    assert counts.dtype == np.int64 and counts.shape == offsets.shape
    # Direct I/O reads whole sectors: past the end of the file, inside what was asked for, anything may stand.
    for i in range(len(offsets)):
        expected[places[i] + counts[i] : places[i] + lengths[i]] = 0
        out[places[i] + counts[i] : places[i] + lengths[i]] = 0
    assert np.array_equal(out, expected)


# -- the same bytes as os.pread --------------------------------------------------------------------


@pytest.mark.parametrize("n", [0, 1, 2, 7, 8, 9, 64, 300])
def test_any_number_of_reads_gives_what_pread_gives(path: Path, fd: int, ring: ReadBatch, n: int) -> None:
    rng = np.random.default_rng(n)
    for _ in range(3):
        reads = random_reads(rng, n)
        expect_as_pread(path, ring.read(fd, *reads), *reads)


def test_a_buffered_descriptor_takes_any_offset_and_length(path: Path, ring: ReadBatch) -> None:
    rng = np.random.default_rng(2)
    offsets, lengths = rng.integers(0, SIZE + 100, 200), rng.integers(0, 700, 200)
    out, places = room(200 * 700 + 3), rng.permutation(200) * 700 + 3
    fd = os.open(path, os.O_RDONLY)
    expect_as_pread(path, ring.read(fd, offsets, lengths, out, places), offsets, lengths, out, places)
    os.close(fd)


def test_a_read_past_the_end_gives_nothing_and_one_across_it_gives_its_head(fd: int, ring: ReadBatch) -> None:
    offsets = np.array([SIZE // PAGE, SIZE // PAGE + 1, SIZE // PAGE + 9, SIZE // PAGE - 1]) * PAGE
    counts = ring.read(fd, offsets, np.full(4, 2 * PAGE), room(8 * PAGE), np.arange(4) * 2 * PAGE)
    assert counts.tolist() == [1234, 0, 0, PAGE + 1234]


def test_submit_and_wait_may_have_work_between_them(path: Path, fd: int, ring: ReadBatch) -> None:
    reads = random_reads(np.random.default_rng(4), 50)
    ring.submit(fd, *reads)
    other = ReadBatch(8)
    others = random_reads(np.random.default_rng(5), 50)
    expect_as_pread(path, other.read(fd, *others), *others)
    expect_as_pread(path, ring.wait(), *reads)
    other.close()


@pytest.mark.parametrize("n", [1, 6, 50])
def test_reads_that_have_arrived_are_whole_before_the_others(path: Path, fd: int, ring: ReadBatch, n: int) -> None:
    data = path.read_bytes()
    reads = offsets, lengths, out, places = random_reads(np.random.default_rng(6), n)
    ring.submit(fd, *reads)
    told: list[int] = []
    for _ in range(3):
        for i in ring.arrived(3).tolist():
            told.append(i)
            read = slice(int(offsets[i]), int(offsets[i] + lengths[i]))
            assert out[places[i] : places[i] + lengths[i]].tobytes() == data[read] != b"" or lengths[i] == 0
    assert len(told) == len(set(told)) and (ring.method == "threads" or told or n == 1)
    expect_as_pread(path, ring.wait(), *reads)


def test_counts_of_an_earlier_read_stay_as_they_were(fd: int, ring: ReadBatch) -> None:
    first = ring.read(fd, np.array([0]), np.array([PAGE]), room(PAGE), np.array([0]))
    ring.read(fd, np.array([0]), np.array([2 * PAGE]), room(2 * PAGE), np.array([0]))
    assert first.tolist() == [PAGE]


def test_two_threads_read_with_rings_of_their_own(path: Path, fd: int, method: str) -> None:
    failures: list[BaseException] = []

    def work(seed: int) -> None:
        try:
            ring, rng = ReadBatch(8), np.random.default_rng(seed)
            for _ in range(20):
                reads = random_reads(rng, 40)
                expect_as_pread(path, ring.read(fd, *reads), *reads)
            ring.close()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in (6, 7)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


# -- errors ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [1, 8, 100])
def test_a_bad_descriptor_is_told_for_every_read_and_hangs_nothing(
    path: Path, fd: int, ring: ReadBatch, n: int
) -> None:
    # The limit itself is a number that no descriptor has: one that was just closed may be
    # opened again by another thread.
    never_open = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    out, places = room(n * PAGE), np.arange(n) * PAGE
    for bad in (min(never_open, 2**31 - 1), -1):
        counts = ring.read(bad, np.zeros(n, np.int64), np.full(n, PAGE), out, places)
        assert counts.tolist() == [-errno.EBADF] * n
    reads = random_reads(np.random.default_rng(8), n)
    expect_as_pread(path, ring.read(fd, *reads), *reads)


def test_a_bad_offset_fails_alone(fd: int, ring: ReadBatch) -> None:
    n = 30
    offsets = np.zeros(n, np.int64)
    offsets[[0, 3, 17, 29]] = -PAGE
    counts = ring.read(fd, offsets, np.full(n, PAGE), room(n * PAGE), np.arange(n) * PAGE)
    assert counts.tolist() == [-errno.EINVAL if offset else PAGE for offset in offsets]


@pytest.mark.parametrize(
    ("lengths", "places"),
    [
        ([PAGE, PAGE], [0, PAGE + 1]),
        ([PAGE, PAGE], [0, -1]),
        ([-1, PAGE], [PAGE, 0]),
        ([PAGE, 2**63 - 1], [0, 2**63 - 1]),
        ([PAGE, 2**62], [0, 2**62]),
        ([PAGE, 1], [0, 2 * PAGE]),
    ],
)
def test_a_read_outside_out_is_refused_before_anything_is_read(
    fd: int, ring: ReadBatch, lengths: list[int], places: list[int]
) -> None:
    out = room(2 * PAGE)
    with pytest.raises(ValueError, match="outside out"):
        ring.read(fd, np.zeros(2, np.int64), np.array(lengths), out, np.array(places))
    assert (out == 0xAA).all()


def test_an_out_that_cannot_be_written_as_bytes_is_refused(fd: int, ring: ReadBatch) -> None:
    one = np.array([0])
    sealed = room(PAGE)
    sealed.flags.writeable = False
    for out in (sealed, room(2 * PAGE)[::2]):
        with pytest.raises(TypeError):
            ring.read(fd, one, np.array([PAGE]), out, one)
    wrong: list[Any] = [room(PAGE).reshape(2, -1), room(PAGE).view(np.int32)]
    for out in wrong:
        with pytest.raises(ValueError, match="uint8"):
            ring.read(fd, one, np.array([16]), out, one)


def test_arrays_of_different_lengths_are_refused(fd: int, ring: ReadBatch) -> None:
    with pytest.raises(ValueError, match="2 offsets, 1 lengths and 2 places"):
        ring.read(fd, np.array([0, 0]), np.array([PAGE]), room(PAGE), np.array([0, 0]))


def test_a_ring_without_depth_is_refused() -> None:
    with pytest.raises(ValueError, match="depth"):
        ReadBatch(0)


# -- what the kernel may do ------------------------------------------------------------------------


class Kernel:
    """System calls with faults between: every other call fails as `faults` says; submissions are taken in threes."""

    def __init__(self, **faults: int) -> None:
        self.faults = faults
        self.real: Callable[..., int] = batch_read._call
        self.names = {number: name for name, number in aio_numbers()._asdict().items()}
        self.calls: dict[str, int] = {}

    def __call__(self, number: int, context: int, a: int, b: int, c: int, d: int) -> int:
        name = self.names[number]
        self.calls[name] = self.calls.get(name, 0) + 1
        if name in self.faults and self.calls[name] % 2:
            ctypes.set_errno(self.faults[name])
            return -1
        if name == "submit":
            a = min(a, 3)
        return self.real(number, context, a, b, c, d)


def aio_numbers() -> batch_read._Numbers:
    return batch_read._NUMBERS[os.uname().machine]


@pytest.mark.parametrize("n", [1, 8, 50])
@pytest.mark.parametrize(
    "faults",
    [
        {},
        {"submit": errno.EAGAIN},
        {"submit": errno.EINTR, "getevents": errno.EINTR},
        {"submit": errno.EAGAIN, "getevents": errno.EINTR},
    ],
)
def test_refused_partial_and_interrupted_calls_are_made_good(
    path: Path, fd: int, monkeypatch: pytest.MonkeyPatch, faults: dict[str, int], n: int
) -> None:
    need_aio()
    kernel = Kernel(**faults)
    monkeypatch.setattr(batch_read, "_call", kernel)
    ring = ReadBatch(8)
    assert ring.method == "aio"
    reads = random_reads(np.random.default_rng(n), n)
    expect_as_pread(path, ring.read(fd, *reads), *reads)
    assert kernel.calls["submit"] >= n // 3
    ring.close()


@pytest.mark.parametrize("code", [errno.ENOSYS, errno.EPERM, errno.EAGAIN])
def test_a_kernel_that_refuses_a_context_gets_threads(
    path: Path, fd: int, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    need_aio()
    monkeypatch.setattr(batch_read, "_call", Kernel(setup=code))
    ring = ReadBatch(8)
    assert ring.method == "threads"
    reads = random_reads(np.random.default_rng(code), 40)
    expect_as_pread(path, ring.read(fd, *reads), *reads)
    ring.close()


def test_an_unknown_machine_gets_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch_read, "_NUMBERS", {})
    ring = ReadBatch(8)
    assert ring.method == "threads"
    ring.close()


def test_more_reads_in_flight_than_the_system_has_gets_threads(path: Path, fd: int) -> None:
    ring = ReadBatch(1 << 30)
    assert ring.method == "threads"
    reads = random_reads(np.random.default_rng(9), 40)
    expect_as_pread(path, ring.read(fd, *reads), *reads)
    ring.close()


class CutShort:
    """Native AIO whose events tell of at most `limit` bytes, as an interrupted read does."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.real: Callable[..., int] = batch_read._call
        self.getevents = aio_numbers().getevents

    def __call__(self, number: int, context: int, a: int, b: int, c: int, d: int) -> int:
        got = self.real(number, context, a, b, c, d)
        if number == self.getevents and got > 0:
            events = np.ctypeslib.as_array((ctypes.c_int64 * (4 * got)).from_address(c)).reshape(got, 4)
            events[:, 2] = np.minimum(events[:, 2], self.limit)
        return got


@pytest.mark.parametrize("limit", [0, 7, 512, PAGE, PAGE + 512])
def test_a_short_read_is_gone_on_with_to_the_end_of_the_file(
    path: Path, fd: int, method: str, monkeypatch: pytest.MonkeyPatch, limit: int
) -> None:
    if method == "aio":
        monkeypatch.setattr(batch_read, "_call", CutShort(limit))
    real, direct = os.preadv, is_direct(fd)
    step = PAGE if direct else max(limit, 1)

    def short(fd: int, buffers: list[memoryview], offset: int) -> int:
        if direct and offset % PAGE:
            raise OSError(errno.EINVAL, "not aligned")  # as strict as the strictest file system
        return real(fd, [buffers[0][:step]], offset)

    monkeypatch.setattr(os, "preadv", short)
    reads = random_reads(np.random.default_rng(limit), 40)
    if not direct:
        reads[1][:] //= 16  # a step may be one byte: keep them few
    ring = ReadBatch(8)
    expect_as_pread(path, ring.read(fd, *reads), *reads)
    ring.close()


def is_direct(fd: int) -> bool:
    return bool(fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_DIRECT)


def test_a_read_that_fails_after_its_head_is_an_error_not_a_short_read(
    path: Path, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if method == "aio":
        monkeypatch.setattr(batch_read, "_call", CutShort(100))
    real = os.preadv

    def failing(fd: int, buffers: list[memoryview], offset: int) -> int:
        if offset >= 100:
            raise OSError(errno.EIO, "injected")
        return real(fd, [buffers[0][:100]], offset)

    monkeypatch.setattr(os, "preadv", failing)
    fd = os.open(path, os.O_RDONLY)
    ring = ReadBatch(8)
    counts = ring.read(fd, np.array([0, 0]), np.array([PAGE, 50]), room(2 * PAGE), np.array([0, PAGE]))
    assert counts.tolist() == [-errno.EIO, 50]
    ring.close()
    os.close(fd)


# -- exceptions between submit and wait ------------------------------------------------------------


class Interrupted(Exception):
    pass


class RaisesAfter:
    """A system call whose work is done when an exception hides its outcome, as a signal's handler may do."""

    def __init__(self, name: str) -> None:
        self.number = getattr(aio_numbers(), name)
        self.real: Callable[..., int] = batch_read._call
        self.armed = False

    def __call__(self, number: int, context: int, a: int, b: int, c: int, d: int) -> int:
        result = self.real(number, context, a, b, c, d)
        if self.armed and number == self.number:
            self.armed = False
            raise Interrupted
        return result


@pytest.mark.parametrize("name", ["submit", "getevents"])
def test_a_ring_works_on_after_an_exception_hid_what_a_call_did(
    path: Path, fd: int, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    need_aio()
    kernel = RaisesAfter(name)
    monkeypatch.setattr(batch_read, "_call", kernel)
    ring = ReadBatch(8)
    for seed in range(3):
        kernel.armed = True
        with pytest.raises(Interrupted):
            ring.read(fd, *random_reads(np.random.default_rng(seed), 40))
        reads = random_reads(np.random.default_rng(seed + 10), 40)
        expect_as_pread(path, ring.read(fd, *reads), *reads)
    ring.close()


@pytest.mark.parametrize("leave", ["submit", "settle", "close", "drop"])
def test_a_submission_that_nobody_waits_for_holds_out_until_it_is_over(
    path: Path, fd: int, method: str, leave: str
) -> None:
    ring = ReadBatch(8)
    offsets, lengths, out, places = random_reads(np.random.default_rng(11), 40)
    held = weakref.ref(out)
    ring.submit(fd, offsets, lengths, out, places)
    if leave != "drop":
        untouched = out
    del out
    gc.collect()
    assert held() is not None
    if leave == "submit":
        reads = random_reads(np.random.default_rng(12), 40)
        ring.submit(fd, *reads)
    elif leave == "settle":
        ring.settle()
    elif leave == "close":
        ring.close()
    else:
        del ring
        gc.collect()
        assert held() is None or method == "threads"  # a thread lets go when its read is done
        return
    untouched[:] = 0xAA  # nobody writes into it any more
    if leave == "submit":
        expect_as_pread(path, ring.wait(), *reads)
    ring.close()
    assert (untouched == 0xAA).all()
    del untouched
    gc.collect()
    assert held() is None


def test_the_ring_lets_go_of_out_when_wait_returns(fd: int, ring: ReadBatch) -> None:
    offsets, lengths, out, places = random_reads(np.random.default_rng(13), 40)
    held = weakref.ref(out)
    ring.read(fd, offsets, lengths, out, places)
    del out
    if ring.method == "threads":
        ring.close()  # a thread may still be on its way out of the last read
    gc.collect()
    assert held() is None


# -- opening and closing ---------------------------------------------------------------------------


def test_a_closed_ring_refuses_reads_and_may_be_closed_again(fd: int, ring: ReadBatch) -> None:
    ring.close()
    ring.close()
    ring.settle()
    with pytest.raises(ValueError, match="closed"):
        ring.read(fd, *random_reads(np.random.default_rng(14), 1))


def test_wait_without_submit_is_refused(fd: int, ring: ReadBatch) -> None:
    with pytest.raises(ValueError, match="nothing was submitted"):
        ring.wait()
    with pytest.raises(ValueError, match="nothing was submitted"):
        ring.arrived(1)
    ring.read(fd, *random_reads(np.random.default_rng(15), 3))
    with pytest.raises(ValueError, match="nothing was submitted"):
        ring.wait()


def test_a_hundred_rings_opened_and_closed_leave_no_descriptor_and_no_thread(fd: int, method: str) -> None:
    def open_descriptors() -> list[str]:
        return sorted(os.listdir("/proc/self/fd"))

    before, threads = open_descriptors(), threading.active_count()
    rings = ReadBatchPool(8)
    taken = [rings.take() for _ in range(100)]
    for ring in taken:
        ring.read(fd, *random_reads(np.random.default_rng(16), 3))
    for ring in taken:
        rings.give(ring)
    rings.close()
    # some of an earlier test may have been closed, or have ended, meanwhile
    assert set(open_descriptors()) <= set(before)
    assert threading.active_count() <= threads
    assert sum(ring._reads is not None for ring in taken) == 0


def test_a_pool_gives_the_same_ring_again_and_keeps_at_most_64(method: str) -> None:
    rings = ReadBatchPool(8)
    ring = rings.take()
    rings.give(ring)
    assert rings.take() is ring
    others = [rings.take() for _ in range(69)]
    for other in [ring, *others]:
        rings.give(other)
    assert len(rings._free) == 64
    rings.close()
    assert rings._free == []


def test_a_ring_given_back_with_reads_in_flight_is_settled(path: Path, fd: int, method: str) -> None:
    rings = ReadBatchPool(8)
    ring = rings.take()
    reads = random_reads(np.random.default_rng(17), 40)
    ring.submit(fd, *reads)
    rings.give(ring)
    reads[2][:] = 0xAA
    assert rings.take() is ring
    expect_as_pread(path, ring.read(fd, *reads), *reads)
    rings.give(ring)
    rings.close()


def test_a_ring_given_back_to_a_closed_pool_is_closed(fd: int, method: str) -> None:
    rings = ReadBatchPool(8)
    ring = rings.take()
    rings.close()
    rings.give(ring)
    with pytest.raises(ValueError, match="closed"):
        ring.read(fd, *random_reads(np.random.default_rng(18), 1))
