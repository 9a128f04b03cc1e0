"""Where work runs: short kernels on the event loop, long ones on kernel threads, writes on threads of their own.

    Pool      a few threads, and a queue for each caller, served in turns
    Costs     what a query of each kind took lately, which decides whether it is short
    Longs     operations of minutes, a thread each

A caller that goes away takes its waiting jobs with it; running ones look at `stop` between chunks. Pools are fed from
the event loop, emptied by their threads, and one condition guards each.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from typing import Any

from vecdb import Unavailable
from vecdb_server.status_errors import exhausted

_SHARE = 0.5  # of the time that a call has left: in this it should be done, as far as can be told
_RETRY_S = 0.1  # at least, after a refusal
_WEIGHT = 0.1  # of the newest in a moving average

Stop = Callable[[], bool]
Work = Callable[[Stop], Any]


class Job:
    """One piece of work and where its result goes.

    alike, with : jobs that are alike may be done together, by `together(their subjects)`, one result each.
    """

    __slots__ = ("alike", "future", "gone", "subject", "together", "until", "work")

    def __init__(
        self,
        work: Work,
        future: asyncio.Future[Any],
        until: float,
        alike: Hashable = None,
        subject: Any = None,
        together: Callable[[Sequence[Any]], Sequence[Any]] | None = None,
    ) -> None:
        self.work = work
        self.future = future
        self.until = until
        self.alike = alike
        self.subject = subject
        self.together = together
        self.gone = False

    def stop(self) -> bool:
        return self.gone or time.monotonic() > self.until


class Pool:
    """Threads that work off the queues of callers in turns."""

    def __init__(self, name: str, threads: int, *, together_max: int = 1) -> None:
        self.name = name
        self.together_max = together_max
        self._queues: dict[str, deque[Job]] = {}  # in the order of turns
        self._changed = threading.Condition()
        self._closed = False
        self.queued = 0
        self.busy = 0
        self._job_s = 0.0  # what a job took lately
        self._threads = [threading.Thread(target=self._serve, name=f"vecdb-{name}-{i}") for i in range(threads)]
        for thread in self._threads:
            thread.start()

    def __len__(self) -> int:
        return len(self._threads)

    async def run(
        self,
        caller: str,
        work: Work,
        until: float = float("inf"),
        *,
        alike: Hashable = None,
        subject: Any = None,
        together: Callable[[Sequence[Any]], Sequence[Any]] | None = None,
    ) -> Any:
        """The result of work(stop), done on one of the threads. until : of time.monotonic(); later it is not begun."""
        job = Job(work, asyncio.get_running_loop().create_future(), until, alike, subject, together)
        with self._changed:
            if self._closed:
                raise Unavailable("the server is shutting down")
            self._queues.setdefault(caller, deque()).append(job)
            self.queued += 1
            self._changed.notify()
        try:
            return await job.future
        except asyncio.CancelledError:
            job.gone = True
            raise

    def check_wait(self, caller: str, until: float) -> None:
        """Raises Refused where a job of that caller would be done too late for its deadline, as far as can be told:
        what waits in vain takes the time of those that could still be answered.
        """
        excess_s = self._done_in_s(caller) - _SHARE * (until - time.monotonic())
        if excess_s > 0:
            raise exhausted("there is more to do than can be done before this call's deadline", max(_RETRY_S, excess_s))

    def _done_in_s(self, caller: str) -> float:
        """How long until a job is answered that has to wait; 0 for one that has not."""
        with self._changed:
            waiting = self.queued + self.busy - len(self._threads)  # once threads that are free have woken
            if waiting <= 0:
                return 0.0
            own = len(self._queues.get(caller, ()))
            callers = len(self._queues) + (own == 0)
            ahead = min(waiting, (own + 1) * callers - 1)  # turns are taken
            return (ahead + 1) * self._job_s / len(self._threads) + self._job_s

    def close(self) -> None:
        """Finish what waits, end the threads."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()

    def _serve(self) -> None:
        while jobs := self._next():
            started = time.monotonic()
            try:
                results: Sequence[Any] = _done(jobs)
            finally:
                took_s = (time.monotonic() - started) / len(jobs)
                with self._changed:
                    self.busy -= 1
                    self._job_s = _average(self._job_s or took_s, took_s)
            for job, result in zip(jobs, results, strict=True):
                _tell(job, result)
            del jobs, results, job, result  # a thread that waits keeps nothing of its last job alive

    def _next(self) -> list[Job]:
        """The next caller's job that somebody waits for, and those that are done with it; none: the end."""
        with self._changed:
            while True:
                while not self.queued:
                    if self._closed:
                        return []
                    self._changed.wait()
                job = self._take_turn()
                if job.stop():
                    _tell(job, Unavailable("the deadline passed while the request was waiting"))
                    continue
                self.busy += 1
                return [job, *self._like(job)]

    def _take_turn(self) -> Job:
        caller, queue = next(iter(self._queues.items()))
        job = queue.popleft()
        del self._queues[caller]
        if queue:
            self._queues[caller] = queue  # behind all others
        self.queued -= 1
        return job

    def _like(self, job: Job) -> list[Job]:
        """Waiting jobs that `job` is done together with, of whichever caller: no more than this thread's share of what
        waits, or the others would have nothing to do.
        """
        most = min(self.together_max, -(-(self.queued + 1) // len(self._threads))) - 1
        if job.alike is None or most < 1:
            return []
        found: list[Job] = []
        for caller, queue in list(self._queues.items()):
            mates = [one for one in queue if one.alike == job.alike and not one.stop()]
            del mates[most - len(found) :]
            if mates:
                found += mates
                rest = deque(one for one in queue if one not in mates)
                if rest:
                    self._queues[caller] = rest
                else:
                    del self._queues[caller]
        self.queued -= len(found)
        return found


def _average(before: float, newest: float) -> float:
    """A moving one that a single slow job does not upset."""
    return before + _WEIGHT * (min(newest, 4 * before) - before)


def _done(jobs: list[Job]) -> Sequence[Any]:
    """A result or an exception for each job."""
    if len(jobs) > 1:
        assert jobs[0].together is not None
        try:
            return jobs[0].together([job.subject for job in jobs])
        except Exception:  # one of them is at fault: each by itself
            pass
    return [_result(job) for job in jobs]


def _result(job: Job) -> Any:
    try:
        return job.work(job.stop)
    except Exception as error:
        return error


def _tell(job: Job, result: Any) -> None:
    with contextlib.suppress(RuntimeError):  # the loop has ended: nobody waits
        job.future.get_loop().call_soon_threadsafe(_settle, job.future, result)


def _settle(future: asyncio.Future[Any], result: Any) -> None:
    if future.done():
        return
    if isinstance(result, Exception):
        future.set_exception(result)
    else:
        future.set_result(result)


class Cost:
    """Microseconds a query of one kind took lately: a moving average that one slow search does not upset."""

    __slots__ = ("_costs", "us")

    def __init__(self, costs: Costs) -> None:
        self._costs = costs
        self.us = float("inf")  # nobody knows yet

    def short(self, queries: int) -> bool:
        """Whether so many are answered before a thread would have been woken."""
        return self.us * queries <= self._costs.short_us

    def learn(self, queries: int, seconds: float) -> None:
        us, before = seconds * 1e6 / max(1, queries), self.us
        self.us = us if before == float("inf") else _average(before, us)


class Costs:
    """What each kind of search costs. Whoever holds one of them goes on with it when the others are forgotten."""

    _kinds_max = 4_096

    def __init__(self, short_us: float) -> None:
        self.short_us = short_us
        self._kinds: dict[Hashable, Cost] = {}

    def of(self, kind: Hashable) -> Cost:
        found = self._kinds.get(kind)
        if found is None:
            if len(self._kinds) >= self._kinds_max:
                self._kinds.clear()
            found = self._kinds[kind] = Cost(self)
        return found


class Stopped(Exception):
    """Raised by the progress callback of a long operation that nobody waits for any more."""


class Long:
    """One long operation: how far it is, and the way to stop it."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self.done, self.total = 0, 0
        self.stopped = False
        self.future: asyncio.Future[Any] = loop.create_future()

    def progress(self, done: int, total: int) -> None:
        """On the operation's thread."""
        if self.stopped:
            raise Stopped
        self.done, self.total = done, total


class Longs:
    """Operations of minutes, at most a few at once."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._running: dict[Long, threading.Thread] = {}

    def __len__(self) -> int:
        return len(self._running)

    @property
    def full(self) -> bool:
        return len(self._running) >= self._most

    def start(self, operation: Callable[[Callable[[int, int], None]], Any]) -> Long:
        """operation(progress) on a thread of its own."""
        long = Long(asyncio.get_running_loop())

        def body() -> None:
            try:
                result = operation(long.progress)
            except Exception as error:
                result = error
            with contextlib.suppress(RuntimeError):  # the loop has ended
                long._loop.call_soon_threadsafe(self._ended, long, result)

        thread = threading.Thread(target=body, name="vecdb-long")
        self._running[long] = thread
        thread.start()
        return long

    def _ended(self, long: Long, result: Any) -> None:
        self._running.pop(long).join()
        _settle(long.future, result)
        if isinstance(result, Exception):
            long.future.exception()  # asked for: else a loop that ends complains of one that nobody awaited

    def stop(self) -> None:
        for long in self._running:
            long.stopped = True

    def close(self) -> None:
        """Wait for their ends; from another thread than the loop's."""
        self.stop()
        for thread in list(self._running.values()):
            thread.join()
