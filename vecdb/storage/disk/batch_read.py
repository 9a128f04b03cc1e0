"""Many small reads at once: the seam through which an index on disk fetches its blocks, with no Python work per block.

    submit   check, fill one control block per read -> io_submit, `depth` at most -> device -> out[places[i]:]
    wait     io_getevents <-> io_submit of the rest, until all are in -> short ones read on by preadv -> counts

    control block i, 64 bytes   i | fd | address of out + places[i] | lengths[i] | offsets[i]
    event, 4 x int64            i | address of the control block | bytes read, or -errno | 0

This is Linux native AIO through ctypes, which gives up the GIL for the length of each call. Where the kernel refuses it
(a sandbox, no contexts left, another system) a few threads call preadv instead, behind the same names. Native AIO and
not io_uring: measured in turns at 16, 32 and 64 direct reads, io_uring took 0.97 to 1.01 of its time, and many
containers forbid it. Reads overlap only under direct I/O (O_DIRECT): a buffered read is done inside io_submit.

Threads: a ReadBatch is used by one thread at a time; a ReadBatchPool by any thread. A forked child makes its own.

Invariants:
- From submit to the end of wait the batch holds the arrays that it was given: the kernel never writes into freed
  memory. Whatever is raised in between, close, give and the next submit first wait for what is in flight.
- No read can reach outside `out`: that is checked before anything starts.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import platform
import sys
from collections.abc import Callable, Iterator
from concurrent import futures
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from vecdb.storage.disk.filesystem import PAGE

_KEPT_MAX = 64
# Reads of one io_submit, by their number: the device is told of them when the call ends, and should not wait for the
# last to begin with the first. Measured for 20 to 48 reads: a fifth less time than by one call.
_SUBMIT_FEW, _FEW_MAX = 4, 64
_THREADS_MAX = 16
_NO_BYTES = ctypes.c_char * 0  # its from_buffer is the cheapest way to the address of an array


class _Numbers(NamedTuple):
    """System call numbers, by which alone libc offers native AIO."""

    setup: int
    destroy: int
    submit: int
    getevents: int


_NUMBERS = {"x86_64": _Numbers(206, 207, 209, 208), "aarch64": _Numbers(0, 1, 2, 4)}

_call: Callable[..., int] = ctypes.CDLL(None, use_errno=True).syscall
_call.restype = ctypes.c_long  # type: ignore[attr-defined]
_call.argtypes = [ctypes.c_long] * 6  # type: ignore[attr-defined]

_CONTROL_BLOCK = np.dtype(  # struct iocb of linux/aio_abi.h; what is left 0 asks for a plain pread
    [
        ("data", "i8"), ("key", "u4"), ("rw_flags", "i4"), ("opcode", "u2"), ("priority", "i2"), ("fd", "i4"),
        ("address", "i8"), ("length", "i8"), ("offset", "i8"), ("reserved", "u8"), ("flags", "u4"), ("event_fd", "u4"),
    ]
)  # fmt: skip

_NONE: NDArray[np.int64] = np.empty(0, np.int64)
_Batch = tuple[
    int, NDArray[np.int64], NDArray[np.int64], NDArray[np.uint8], NDArray[np.int64]
]  # as ReadBatch.read takes


def _read_on(fd: int, offset: int, length: int, out: NDArray[np.uint8], place: int, done: int) -> int:
    """Go on with one read, of which `done` bytes are in, to its length or the end of the file, on this thread.

    Returns the bytes read in all, or -errno.
    """
    start = done
    while done < length:
        try:
            got = os.preadv(fd, [out[place + start : place + length].data], offset + start)
        except OSError as error:
            if error.errno == errno.EINVAL and start % PAGE:
                start -= start % PAGE  # direct I/O refuses to start inside a block: read its head again
                continue
            return -(error.errno or errno.EIO)
        if start + got <= done:
            break
        done = start = start + got
    return done


class _NativeAio:
    """Reads by native AIO. The arrays grow to the largest batch seen, 72 bytes a read."""

    def __init__(self, context: int, depth: int, numbers: _Numbers) -> None:
        self._context = context
        self._depth = depth
        self._numbers = numbers
        self._call = _call  # __del__ may run when the module's names are gone
        self._batch: _Batch | None = None
        self._counts: NDArray[np.int64] = np.empty(0, np.int64)
        self._next = 0  # reads before it are submitted
        self._flying = 0
        self._step = depth
        self._events: NDArray[np.int64] = np.empty((depth, 4), np.int64)
        self._events_address = self._events.ctypes.data
        self._grow(depth)

    def _grow(self, count: int) -> None:
        blocks = np.zeros(count, _CONTROL_BLOCK)
        blocks["data"] = np.arange(count)
        self._fds, self._addresses = blocks["fd"], blocks["address"]  # views, which keep the blocks alive
        self._lengths, self._offsets = blocks["length"], blocks["offset"]
        self._pointers = blocks.ctypes.data + blocks.itemsize * np.arange(count, dtype=np.int64)
        self._pointers_address = self._pointers.ctypes.data

    def start(self, batch: _Batch, address: int) -> None:
        """Submit what there is room for; `address` is that of the batch's `out`."""
        fd, offsets, lengths, _, places = self._batch = batch
        n = len(offsets)
        if n > len(self._pointers):
            self._grow(max(n, 2 * len(self._pointers)))
        self._counts = np.empty(n, np.int64)
        self._fds[:n] = fd
        self._offsets[:n] = offsets
        self._lengths[:n] = lengths
        self._addresses[:n] = places + address
        self._next = self._flying = 0
        self._step = _SUBMIT_FEW if n <= _FEW_MAX else self._depth
        self._feed(n)

    def _feed(self, n: int) -> None:
        """Submit until `depth` reads are in flight or all n are submitted."""
        while self._next < n and self._flying < self._depth:
            count = min(n - self._next, self._depth - self._flying, self._step)
            pointers = self._pointers_address + 8 * self._next
            taken = self._call(self._numbers.submit, self._context, count, pointers, 0, 0)
            if taken > 0:
                self._next += taken
                self._flying += taken
                continue
            code = ctypes.get_errno() if taken else errno.EAGAIN
            if code == errno.EINTR:
                continue
            if code == errno.EAGAIN and self._flying:
                return  # the kernel is short of room: wait gets some back
            # The first one is refused, and it alone: with EAGAIN although nothing is in flight, or for what it is.
            self._counts[self._next] = -code
            self._next += 1

    def arrived(self, least: int) -> NDArray[np.int64]:
        """Wait for `least` events, or as many as are left; the numbers of those reads that are whole."""
        assert self._batch is not None
        lengths = self._batch[2]
        while self._flying:
            least = min(least, self._flying)
            got = self._call(self._numbers.getevents, self._context, least, self._depth, self._events_address, 0)
            if got < 0:
                code = ctypes.get_errno()
                if code == errno.EINTR:
                    continue
                raise OSError(code, os.strerror(code))
            self._flying -= got
            numbers, counts = self._events[:got, 0].copy(), self._events[:got, 2]
            self._counts[numbers] = counts
            whole: NDArray[np.int64] = numbers[counts == lengths[numbers]]
            return whole
        return _NONE

    def reap(self) -> NDArray[np.int64]:
        """Submit the rest, wait for all; int64[n] as `ReadBatch.read` returns."""
        assert self._batch is not None
        _, offsets, lengths, _, _ = batch = self._batch
        n, counts = len(offsets), self._counts
        while self._flying or self._next < n:
            self.arrived(self._flying if self._next == n else 1)  # whatever is in makes room for more
            if self._next < n:
                self._feed(n)
        if counts.tobytes() != lengths.tobytes():  # for few reads ten times as fast as a comparison of arrays
            self._finish(batch, counts)
        self._batch = None
        return counts

    def _finish(self, batch: _Batch, counts: NDArray[np.int64]) -> None:
        """Read on where a read was short, or was put off by the kernel."""
        fd, offsets, lengths, out, places = batch
        for i in np.flatnonzero(counts != lengths).tolist():
            count = int(counts[i])
            if count >= 0 or -count in (errno.EAGAIN, errno.EINTR):
                counts[i] = _read_on(fd, int(offsets[i]), int(lengths[i]), out, int(places[i]), max(0, count))

    def close(self) -> None:
        """Let the context go, after what is in flight. Takes tens of milliseconds: the kernel waits for its readers."""
        # Cleared first: the number may be another batch's once the call has returned.
        context, self._context = self._context, 0
        if context:
            self._call(self._numbers.destroy, context, 0, 0, 0, 0)
        self._batch = None

    def __del__(self) -> None:
        self.close()


class _ThreadedReads:
    """Reads by preadv on a few threads, where there is no native AIO."""

    def __init__(self, depth: int) -> None:
        self._width = min(depth, _THREADS_MAX)
        self._pool = futures.ThreadPoolExecutor(self._width, thread_name_prefix="vecdb-read")
        self._waiting: Iterator[int] = iter(())
        self._runners: list[futures.Future[None]] = []
        self._drain: Callable[[], None] = lambda: None
        self._counts: NDArray[np.int64] = np.empty(0, np.int64)

    def start(self, batch: _Batch, address: int) -> None:
        fd, offsets, lengths, out, places = batch
        n = len(offsets)
        waiting = iter(range(n))
        counts: NDArray[np.int64] = np.empty(n, np.int64)

        # Holds the arrays and not self: a ring that is dropped takes no memory from under a thread, and is not kept.
        def drain() -> None:
            for i in waiting:  # next() on a range iterator is atomic
                counts[i] = _read_on(fd, int(offsets[i]), int(lengths[i]), out, int(places[i]), 0)

        self._waiting, self._counts, self._drain, self._runners = waiting, counts, drain, []
        for _ in range(min(n, self._width)):
            self._runners.append(self._pool.submit(drain))

    def arrived(self, least: int) -> NDArray[np.int64]:
        """None: `reap` hands out all at once."""
        return _NONE

    def reap(self) -> NDArray[np.int64]:
        self._drain()
        for runner in self._runners:
            runner.result()
        self._runners, self._drain = [], lambda: None
        return self._counts

    def close(self) -> None:
        """Start no further read, and wait for those that run."""
        for _ in self._waiting:
            pass  # used up, so that no thread finds another read
        self._pool.shutdown(wait=True)
        self._runners, self._drain = [], lambda: None


def _aio(depth: int) -> _NativeAio | None:
    """A context for `depth` reads in flight; None where the system has none to give."""
    numbers = _NUMBERS.get(platform.machine())
    if numbers is None or sys.platform != "linux" or sys.maxsize < 1 << 32:  # a 32-bit process has other numbers
        return None
    context = ctypes.c_long(0)
    if _call(numbers.setup, depth, ctypes.addressof(context), 0, 0, 0) != 0:
        return None  # ENOSYS or EPERM: forbidden; EAGAIN: fs.aio-max-nr is used up. Threads do for any reason
    return _NativeAio(context.value, depth, numbers)


def _reader(depth: int) -> _NativeAio | _ThreadedReads:
    return _aio(depth) or _ThreadedReads(depth)


class ReadBatch:
    """Reads many blocks at once, up to `depth` of them in flight. One thread at a time."""

    def __init__(self, depth: int = 128) -> None:
        if depth < 1:
            raise ValueError(f"depth must be at least 1, got {depth}")
        self._depth = depth
        self.busy = False  # read by others; from before the first byte may be written until after the last
        self._reads: _NativeAio | _ThreadedReads | None = _reader(depth)

    @property
    def method(self) -> str:
        """How it reads: "aio" or "threads"."""
        return "aio" if isinstance(self._reads, _NativeAio) else "threads"

    def read(
        self,
        fd: int,
        offsets: NDArray[np.int64],
        lengths: NDArray[np.int64],
        out: NDArray[np.uint8],
        places: NDArray[np.int64],
    ) -> NDArray[np.int64]:
        """Read lengths[i] bytes at offsets[i] of the file into out[places[i]:].

        Parameters
        ----------
        fd : descriptor, open for reading. If it is for direct I/O, then offsets, lengths, and the address of `out`
            plus places must be multiples of 4096.
        offsets, lengths, places : int64[n], bytes; n may be 0, or more than `depth`.
        out : uint8[size], C-contiguous and writable.

        Returns
        -------
        int64[n]: the bytes read, fewer than asked only where the file ends; or -errno for a read that failed.

        Raises `ValueError` for a read outside `out` or a closed batch, `TypeError` for an `out` that is not contiguous
        or not writable: nothing is read then. `OSError` if the kernel refuses the context itself.
        """
        self.submit(fd, offsets, lengths, out, places)
        return self.wait()

    def submit(
        self,
        fd: int,
        offsets: NDArray[np.int64],
        lengths: NDArray[np.int64],
        out: NDArray[np.uint8],
        places: NDArray[np.int64],
    ) -> None:
        """Start the reads that `read` describes, `depth` of them at most, and return; `wait` starts the others.

        The descriptor must stay open and the arrays unchanged until `wait` returns. An earlier submission that was
        never waited for is given up first.
        """
        reads = self._reads
        if reads is None:
            raise ValueError("the batch is closed")
        if not len(offsets) == len(lengths) == len(places):
            raise ValueError(f"{len(offsets)} offsets, {len(lengths)} lengths and {len(places)} places")
        if out.ndim != 1 or out.itemsize != 1:
            raise ValueError(f"out must be uint8[size], got {out.dtype}{out.shape}")
        address = ctypes.addressof(_NO_BYTES.from_buffer(out.data))  # refuses what is not contiguous or not writable
        if len(offsets):
            # One sign bit tells of any negative number, and a sum of two that are not is right as unsigned.
            # x[x.argmin()] takes a third of the time of x.min(), which counts where reads are few.
            signs, ends = places | lengths, (places + lengths).view(np.uint64)
            if signs[signs.argmin()] < 0 or ends[ends.argmax()] > out.size:
                raise ValueError(f"a read has a negative length, or lies outside out, {out.size} bytes")
        if self.busy:
            reads = self._give_up()
        self.busy = True
        reads.start((fd, offsets, lengths, out, places), address)

    def arrived(self, least: int) -> NDArray[np.int64]:
        """Wait until about `least` more reads are in, so that the caller can use those while others are under way.

        Returns the numbers, int64[m], of reads that are complete and that no earlier call returned: any number of them,
        none where reads are done by threads. `wait` must follow, and returns all.
        """
        if self._reads is None or not self.busy:
            raise ValueError("nothing was submitted")
        return self._reads.arrived(least)

    def wait(self) -> NDArray[np.int64]:
        """Finish the submission; returns and raises what `read` does."""
        if self._reads is None or not self.busy:
            raise ValueError("nothing was submitted")
        counts = self._reads.reap()
        self.busy = False
        return counts

    def settle(self) -> None:
        """Wait for what an abandoned submission left in flight: after this nobody writes into its `out`."""
        if self.busy and self._reads is not None:
            self._give_up()

    def _give_up(self) -> _NativeAio | _ThreadedReads:
        # An exception may have been raised between a system call and the line that counts its reads, so our own count
        # of reads in flight may be wrong. The kernel's is right: it frees a context only when its last read is done.
        assert self._reads is not None
        self._reads.close()
        self._reads = _reader(self._depth)
        self.busy = False
        return self._reads

    def close(self) -> None:
        """Wait for what is in flight and free the context. May be called again; garbage collection does it, too."""
        reads, self._reads = self._reads, None
        if reads is not None:
            reads.close()


class ReadBatchPool:
    """Batches kept between uses, because closing one takes tens of milliseconds. Any thread may take and give.

    The pool is a list, whose `pop` and `append` are atomic under the interpreter lock.
    """

    def __init__(self, depth: int = 128) -> None:
        self._depth = depth
        self._free: list[ReadBatch] = []
        self._closed = False

    def take(self) -> ReadBatch:
        try:
            return self._free.pop()
        except IndexError:
            return ReadBatch(self._depth)

    def give(self, batch: ReadBatch) -> None:
        """Take a batch back, whatever state an exception left it in; afterwards nothing writes into its `out`."""
        if batch.busy:
            batch.settle()
        self._free.append(batch)
        # Checked after the append, so that either this or `close`, on another thread, closes the batch.
        if self._closed or len(self._free) > _KEPT_MAX:
            with contextlib.suppress(IndexError):
                self._free.pop().close()

    def close(self) -> None:
        """Close the batches in the pool; those in use are closed when they are given back."""
        self._closed = True
        kept: list[ReadBatch] = []
        with contextlib.suppress(IndexError):
            while True:
                kept.append(self._free.pop())
        if len(kept) > 1:  # side by side, because each waits for the kernel, not for the processor
            with futures.ThreadPoolExecutor(len(kept)) as closers:
                list(closers.map(ReadBatch.close, kept))
        elif kept:
            kept[0].close()
