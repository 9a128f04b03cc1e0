"""Load: many clients of one method on one event loop, and how long each of them waited.

    closed    each client calls again as soon as it has its answer: the rate is what server and load reach together
    streamed  the same over bidirectional streams, with a few unanswered requests in each
    opened    requests are sent at a fixed rate, whether or not earlier ones were answered. A latency counts from the
              moment the request was due, so that a server that stalls is charged for every request of that time

Messages are bytes on both sides, so that every engine costs this process the same.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import time
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import numpy as np

Call = Callable[..., Awaitable[bytes]]
Answer = dict[str, Any]

_TICK_S = 1.0 / os.sysconf("SC_CLK_TCK")
_TIMER_S = 0.001  # the least that an event loop sleeps; waiting for less by yielding would keep a core from the server


def cpu_seconds(pid: int) -> float:
    """Processor time of a process and its threads, in user and system mode."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) * _TICK_S


class Tally:
    """Counts the answers between `begin` and `end`, and no others. over : `end` was called."""

    def __init__(self, pid: int | None) -> None:
        self._pid = pid
        self._latencies: list[float] = []
        self._statuses: Counter[str] = Counter()
        self._bytes = 0
        self._counting = self.over = False

    def begin(self) -> None:
        self._cpu, self._own = self._server_cpu(), time.process_time()
        self._began = time.perf_counter()
        self._counting = True

    def end(self) -> None:
        self._counting, self.over = False, True
        self._took = time.perf_counter() - self._began
        self._cpu, self._own = self._server_cpu() - self._cpu, time.process_time() - self._own

    def answered(self, since: float, answer: bytes) -> None:
        if self._counting:
            self._latencies.append(time.perf_counter() - since)
            self._bytes += len(answer)

    def refused(self, error: grpc.aio.AioRpcError) -> None:
        if self._counting:
            self._statuses[error.code().name] += 1

    def report(self) -> Answer:
        """Rates a second, microseconds, bytes."""
        n = len(self._latencies)
        figures: Answer = {"n": n, "seconds": self._took, "per_second": n / self._took, "refused": dict(self._statuses)}
        if not n:
            return figures
        marks = np.percentile(np.array(self._latencies) * 1e6, [50, 90, 99, 99.9, 100]).tolist()
        figures |= zip(("p50_us", "p90_us", "p99_us", "p99_9_us", "max_us"), marks, strict=True)
        figures |= {"answer_bytes": self._bytes / n, "load_cpu_us": self._own / n * 1e6}
        if self._pid is not None:
            figures["server_cpu_us"] = self._cpu / n * 1e6
        return figures

    def _server_cpu(self) -> float:
        return 0.0 if self._pid is None else cpu_seconds(self._pid)


async def closed(
    call: Call, requests: Sequence[bytes], *, clients: int, seconds: float, warm: float = 0.3, pid: int | None = None,
    timeout: float = 60.0,
) -> Answer:  # fmt: skip
    """`clients` clients, for `warm` seconds that do not count and then for `seconds`. pid : the server's."""
    tally = Tally(pid)
    messages = itertools.cycle(requests)

    async def client() -> None:
        while not tally.over:
            request, since = next(messages), time.perf_counter()
            try:
                tally.answered(since, await call(request, timeout=timeout))
            except grpc.aio.AioRpcError as error:
                tally.refused(error)
                await asyncio.sleep(0.001)

    return await _timed(tally, client, clients, warm, seconds)


async def streamed(
    open_stream: Callable[[], Any], requests: Sequence[bytes], *, streams: int, window: int, seconds: float,
    warm: float = 0.3, pid: int | None = None,
) -> Answer:  # fmt: skip
    """`streams` streams with up to `window` unanswered requests in each."""
    tally = Tally(pid)
    messages = itertools.cycle(requests)

    async def client() -> None:
        stream, room, waiting = open_stream(), asyncio.Semaphore(window), deque[float]()

        async def ask() -> None:
            while not tally.over:
                await room.acquire()
                waiting.append(time.perf_counter())
                await stream.write(next(messages))
            await stream.done_writing()

        asking = asyncio.ensure_future(ask())
        while (answer := await stream.read()) is not grpc.aio.EOF:
            tally.answered(waiting.popleft(), answer)
            room.release()
        await asking

    return await _timed(tally, client, streams, warm, seconds)


async def _timed(
    tally: Tally, client: Callable[[], Coroutine[Any, Any, None]], count: int, warm: float, seconds: float
) -> Answer:
    """Run `count` clients for `warm` seconds that do not count and then for `seconds`; each ends once `tally.over`."""
    callers = [asyncio.ensure_future(client()) for _ in range(count)]
    await asyncio.sleep(warm)
    tally.begin()
    await asyncio.sleep(seconds)
    tally.end()
    await asyncio.gather(*callers)
    return tally.report()


async def opened(
    call: Call, requests: Sequence[bytes], *, rate: float, seconds: float, pid: int | None = None, timeout: float = 1.0
) -> Answer:
    """`rate` requests a second, each with a deadline of `timeout` seconds after it is sent. Requests that become due
    while the event loop sleeps are sent together.
    """
    tally = Tally(pid)
    under_way: set[asyncio.Task[None]] = set()
    late = 0.0

    async def one(request: bytes, due: float) -> None:
        try:
            tally.answered(due, await call(request, timeout=timeout))
        except grpc.aio.AioRpcError as error:
            tally.refused(error)

    tally.begin()
    start = time.perf_counter()
    count = max(1, int(rate * seconds))
    for at, request in zip(range(count), itertools.cycle(requests), strict=False):
        due = start + at / rate
        while (ahead := due - time.perf_counter()) > 0:
            await asyncio.sleep(max(ahead, _TIMER_S))
        late += time.perf_counter() - due
        task = asyncio.ensure_future(one(request, due))
        under_way.add(task)
        task.add_done_callback(under_way.discard)
        if at % 64 == 0:
            await asyncio.sleep(0)  # a load generator that is late must still read its answers
    while under_way:
        await asyncio.wait(under_way)
    tally.end()
    return tally.report() | {"asked": count, "late_us": late / count * 1e6}


def new_loop() -> asyncio.AbstractEventLoop:
    """The event loop of load generator and echo server: uvloop where it is installed, as in the server."""
    try:
        import uvloop
    except ImportError:
        loop = asyncio.new_event_loop()
    else:
        loop = uvloop.new_event_loop()
    asyncio.set_event_loop(loop)
    return loop
