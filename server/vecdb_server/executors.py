"""Where work runs: short searches on the event loop, long ones on kernel threads, writes on threads of their own.

    FairThreadPool    a few turns; each caller has a queue, and the queues are served round robin. Work that asks
                      whether to stop gives up its turn there while others wait, and goes on when it is its caller's
    LatencyModel      how long a query of each kind took lately, which decides whether it runs on the event loop
    LongOperations    operations that take minutes, one thread each

When a caller goes away, its waiting jobs are dropped; running jobs check `stop` between chunks of work.

    new -> queue -> turn -> done
             ^       |  between two chunks, when others wait: the job's thread sleeps, another takes the turn
             +-------+

Threads: pools are filled on the event loop and emptied by their threads; one condition guards each pool. LatencyModel
is updated from both without a lock, because a lost update only delays what it learns. LongOperations belongs to the
event loop, except `close`.
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

_DEADLINE_SHARE = 0.5  # a call is let in if it should be done within this share of the time to its deadline
_RETRY_S = 0.1  # the shortest time after which a refused call is told to try again
_NEWEST_WEIGHT = 0.1  # of the newest value in a moving average
_TURN_S = 0.01  # a job that had its turn for so long gives it up where others wait
_PAUSED_MAX = 16  # jobs that have begun and wait for another turn: each keeps a thread

Stop = Callable[[], bool]
Work = Callable[[Stop], Any]
RunBatch = Callable[[Sequence[Any]], Sequence[Any]]


class Job:
    """One piece of work and the future that gets its result.

    Jobs with the same `batch_key` may run as one batch: run_batch(their batch_items) returns one result for each.
    """

    __slots__ = (
        "abandoned", "batch_item", "batch_key", "caller", "deadline", "future", "paused_s", "run_batch", "turn",
        "turn_began", "work",
    )  # fmt: skip

    def __init__(
        self,
        caller: str,
        work: Work,
        future: asyncio.Future[Any],
        deadline: float,
        batch_key: Hashable = None,
        batch_item: Any = None,
        run_batch: RunBatch | None = None,
    ) -> None:
        self.caller = caller
        self.work = work
        self.turn: threading.Event | None = None  # set when a job that is paused may go on
        self.turn_began = 0.0
        self.paused_s = 0.0
        self.future = future
        self.deadline = deadline
        self.batch_key = batch_key
        self.batch_item = batch_item
        self.run_batch = run_batch
        self.abandoned = False

    def stop(self) -> bool:
        return self.abandoned or time.monotonic() > self.deadline


class FairThreadPool:
    """Takes the oldest job of each caller in turn. threads : how many jobs have a turn at once."""

    def __init__(self, name: str, threads: int, *, batch_max: int = 1) -> None:
        self.name = name
        self.batch_max = batch_max
        self._queues: dict[str, deque[Job]] = {}  # caller -> its jobs; the first caller is served next
        self._changed = threading.Condition()
        self._closed = False
        self.queued = 0  # jobs that have not begun
        self.paused = 0  # that have, and wait for another turn
        self.busy = 0
        self._turns = threads
        self._job_s = 0.0  # moving average of the time that one job takes
        self._threads: list[threading.Thread] = []
        for _ in range(threads):
            self._start_thread()

    def __len__(self) -> int:
        return self._turns

    def _start_thread(self) -> None:
        thread = threading.Thread(target=self._serve, name=f"vecdb-{self.name}-{len(self._threads)}")
        self._threads.append(thread)
        thread.start()

    async def run(
        self,
        caller: str,
        work: Work,
        deadline: float = float("inf"),
        *,
        batch_key: Hashable = None,
        batch_item: Any = None,
        run_batch: RunBatch | None = None,
    ) -> Any:
        """The result of work(stop), computed on one of the threads.

        deadline : by time.monotonic(); a job that is still waiting then is not started and raises Unavailable.
        """
        job = Job(caller, work, asyncio.get_running_loop().create_future(), deadline, batch_key, batch_item, run_batch)
        with self._changed:
            if self._closed:
                raise Unavailable("the server is shutting down")
            self._queues.setdefault(caller, deque()).append(job)
            self.queued += 1
            self._changed.notify()
        try:
            return await job.future
        except asyncio.CancelledError:
            job.abandoned = True
            raise

    def check_wait(self, caller: str, deadline: float) -> None:
        """Raises Refused where a job of that caller would probably be done too late: a job that waits in vain takes
        the time of jobs that could still be answered.
        """
        excess_s = self._expected_s(caller) - _DEADLINE_SHARE * (deadline - time.monotonic())
        if excess_s > 0:
            raise exhausted("there is more to do than can be done before this call's deadline", max(_RETRY_S, excess_s))

    def _expected_s(self, caller: str) -> float:
        """How long a new job of that caller would take, waiting included; 0 if a thread is free for it."""
        with self._changed:
            waiting = (
                self.queued + self.paused + self.busy - self._turns
            )  # when the threads that are free have woken up
            if waiting <= 0:
                return 0.0
            own = len(self._queues.get(caller, ()))
            callers = len(self._queues) + (own == 0)
            ahead = min(waiting, (own + 1) * callers - 1)  # the queues are served round robin
            return (ahead + 1) * self._job_s / self._turns + self._job_s

    def close(self) -> None:
        """Run the jobs that wait, then end the threads."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        for thread in list(self._threads):  # no job pauses any more, so there will be no more of them
            thread.join()

    def _serve(self) -> None:
        while jobs := self._next():
            started = time.monotonic()
            try:
                results: Sequence[Any] = self._results(jobs)
            finally:
                took_s = (time.monotonic() - started - sum(job.paused_s for job in jobs)) / len(jobs)
                with self._changed:
                    self.busy -= 1
                    self._job_s = _average(self._job_s or took_s, took_s)
            for job, result in zip(jobs, results, strict=True):
                _deliver(job, result)
            del jobs, results, job, result  # a thread that waits must not keep its last job alive

    def _next(self) -> list[Job]:
        """The next job that somebody still waits for, and the jobs that run in one batch with it; empty: closed."""
        with self._changed:
            while True:
                while not self._queues or self.busy >= self._turns:
                    if self._closed and not self._queues:
                        self._changed.notify_all()  # those who wait for a turn need none any more
                        return []
                    self._changed.wait()
                job = self._take_oldest()
                if job.turn is not None:
                    self.busy += 1
                    job.turn.set()
                    continue
                if job.stop():
                    _deliver(job, Unavailable("the deadline passed while the request was waiting"))
                    continue
                self.busy += 1
                return [job, *self._take_same_batch(job)]

    def _take_oldest(self) -> Job:
        """The oldest job of the caller who is next; that caller goes to the end of the line."""
        caller, queue = next(iter(self._queues.items()))
        job = queue.popleft()
        del self._queues[caller]
        if queue:
            self._queues[caller] = queue
        if job.turn is None:
            self.queued -= 1
        else:
            self.paused -= 1
        return job

    def _pause(self, job: Job) -> None:
        """Called on a job's thread between two chunks of its work: returns at once, or when it is its turn again."""
        now = time.monotonic()
        if now - job.turn_began < _TURN_S:
            return
        with self._changed:
            others = len(self._queues) - (job.caller in self._queues)
            if self._closed or not others or self.paused >= _PAUSED_MAX:
                return
            job.turn = threading.Event()
            own = self._queues.pop(job.caller, deque())
            own.appendleft(job)
            self._queues[job.caller] = own  # at the end of the line
            self.paused += 1
            self.busy -= 1
            if len(self._threads) < self._turns + self.paused:
                self._start_thread()
            self._changed.notify()
        job.turn.wait()
        job.turn = None
        job.turn_began = time.monotonic()
        job.paused_s += job.turn_began - now

    def _take_same_batch(self, job: Job) -> list[Job]:
        """Waiting jobs, of any caller, that run in one batch with `job`. At most this thread's share of what waits:
        otherwise the other threads would have nothing to do.
        """
        most = min(self.batch_max, -(-(self.queued + 1) // self._turns)) - 1
        if job.batch_key is None or most < 1:
            return []
        found: list[Job] = []
        for caller, queue in list(self._queues.items()):
            same = [one for one in queue if one.batch_key == job.batch_key and one.turn is None and not one.stop()]
            del same[most - len(found) :]
            if same:
                found += same
                rest = deque(one for one in queue if one not in same)
                if rest:
                    self._queues[caller] = rest
                else:
                    del self._queues[caller]
        self.queued -= len(found)
        return found

    def _results(self, jobs: list[Job]) -> Sequence[Any]:
        """A result or an exception for each job."""
        if len(jobs) > 1:
            assert jobs[0].run_batch is not None
            try:
                return jobs[0].run_batch([job.batch_item for job in jobs])
            except Exception:  # one of them is at fault: run each alone
                pass
        return [self._result(job) for job in jobs]

    def _result(self, job: Job) -> Any:
        job.turn_began = time.monotonic()

        def stop() -> bool:
            self._pause(job)
            return job.stop()

        try:
            return job.work(stop)
        except Exception as error:
            return error


def _average(before: float, newest: float) -> float:
    """A moving average; one slow job moves it only a little."""
    return before + _NEWEST_WEIGHT * (min(newest, 4 * before) - before)


def _deliver(job: Job, result: Any) -> None:
    with contextlib.suppress(RuntimeError):  # the event loop has ended, so nobody waits
        job.future.get_loop().call_soon_threadsafe(_finish, job.future, result)


def _finish(future: asyncio.Future[Any], result: Any) -> None:
    if future.done():
        return
    if isinstance(result, Exception):
        future.set_exception(result)
    else:
        future.set_result(result)


class LatencyEstimate:
    """How long one kind of query took lately: a moving average."""

    __slots__ = ("_model", "query_us")

    def __init__(self, model: LatencyModel) -> None:
        self._model = model
        self.query_us = float("inf")  # not measured yet

    def is_short(self, queries: int) -> bool:
        """Whether that many queries are answered before a thread would have been woken."""
        return self.query_us * queries <= self._model.short_us

    def update(self, queries: int, seconds: float) -> None:
        query_us, before = seconds * 1e6 / max(1, queries), self.query_us
        self.query_us = query_us if before == float("inf") else _average(before, query_us)


class LatencyModel:
    """The estimate of each kind of query. When there are too many kinds, all are dropped; whoever holds an estimate
    goes on using it.
    """

    _kinds_max = 4_096

    def __init__(self, short_us: float) -> None:
        self.short_us = short_us
        self._estimates: dict[Hashable, LatencyEstimate] = {}

    def of(self, kind: Hashable) -> LatencyEstimate:
        found = self._estimates.get(kind)
        if found is None:
            if len(self._estimates) >= self._kinds_max:
                self._estimates.clear()
            found = self._estimates[kind] = LatencyEstimate(self)
        return found


class Stopped(Exception):
    """Raised by the progress callback of a long operation that nobody waits for any more."""


class LongOperation:
    """One long operation: its progress, and a flag that stops it."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.done, self.total = 0, 0
        self.stopped = False
        self.future: asyncio.Future[Any] = loop.create_future()

    def progress(self, done: int, total: int) -> None:
        """Called on the operation's thread. Raises Stopped."""
        if self.stopped:
            raise Stopped
        self.done, self.total = done, total


class LongOperations:
    """Operations that take minutes; at most `most` of them at once."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._running: dict[LongOperation, threading.Thread] = {}

    def __len__(self) -> int:
        return len(self._running)

    @property
    def full(self) -> bool:
        return len(self._running) >= self._most

    def start(self, run: Callable[[Callable[[int, int], None]], Any]) -> LongOperation:
        """Start run(progress) on a thread of its own."""
        operation = LongOperation(asyncio.get_running_loop())

        def body() -> None:
            try:
                result = run(operation.progress)
            except Exception as error:
                result = error
            with contextlib.suppress(RuntimeError):  # the event loop has ended
                operation.loop.call_soon_threadsafe(self._ended, operation, result)

        thread = threading.Thread(target=body, name="vecdb-long")
        self._running[operation] = thread
        thread.start()
        return operation

    def _ended(self, operation: LongOperation, result: Any) -> None:
        self._running.pop(operation).join()
        _finish(operation.future, result)
        if isinstance(result, Exception):
            operation.future.exception()  # marks it as retrieved, so that asyncio logs no complaint about it

    def stop(self) -> None:
        for operation in self._running:
            operation.stopped = True

    def close(self) -> None:
        """Stop them and wait until they have ended. Call it from another thread than the event loop's."""
        self.stop()
        for thread in list(self._running.values()):
            thread.join()
