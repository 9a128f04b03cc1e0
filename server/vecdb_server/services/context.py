"""What every service stands on: the open database, its collections, and where work runs."""

from __future__ import annotations

import asyncio
import hashlib
import os
import time
from collections.abc import Awaitable, Callable, Hashable
from typing import Any

import grpc

import vecdb
from vecdb import Collection, LimitExceeded, Unavailable
from vecdb.wire.error_codes import collection_not_found
from vecdb.wire.messages import request_id_of
from vecdb_server.admission import Account, Admission
from vecdb_server.auth import Caller
from vecdb_server.config import Config
from vecdb_server.executors import Cost, Costs, Longs, Pool, Stop
from vecdb_server.services.bidi_stream import Stream
from vecdb_server.status_errors import Refused, exhausted

_SHORT_US = 500.0  # below this a thread would cost more than it frees
_TOGETHER_MAX = 8  # waiting single queries that one kernel call takes at most
_ANSWER_BYTES_MAX = 64 << 20  # of one message; as large as a request may be
_SLOW_READER_S = 60.0  # a list holds a transaction: who reads nothing of it for so long loses it
_BEAT_S = 0.2  # between two messages of a long operation
_RETRY_LONG_S = 5.0

Progress = Callable[[int, int], None]


class House:
    """The database, and the threads that work on it. On the event loop, but what it runs elsewhere."""

    def __init__(self, db: vecdb.Database, config: Config, admission: Admission) -> None:
        self.db = db
        self.config = config
        self.admission = admission
        self.kernel_threads = config.kernel_threads or len(os.sched_getaffinity(0))
        self.costs = Costs(_SHORT_US)
        self.kernels = Pool("kernels", self.kernel_threads, together_max=_TOGETHER_MAX)
        self.writers = Pool("writers", config.write_threads)
        self.longs = Longs(config.long_operations)
        self.draining = False
        self.check_message: Callable[[Any, Caller], None] = lambda message, caller: None  # the guard's
        self.streams: set[Stream] = set()
        self.answer_bytes_max = _ANSWER_BYTES_MAX
        self._open: dict[str, Collection] = {}
        self._apart: set[asyncio.Future[Any]] = set()
        self._drops = 0

    def drain(self) -> None:
        """Long operations and streams come to an end; what streams have taken in is still answered."""
        self.draining = True
        self.longs.stop()
        for stream in self.streams:
            stream.interrupt(Unavailable("the server is shutting down"))

    def close(self) -> None:
        """From another thread than the loop's: finishes what waits, then closes the database."""
        self.longs.close()
        self.kernels.close()
        self.writers.close()
        self.db.close()

    # -- collections ---------------------------------------------------------------------------------

    def known(self, caller: Caller, name: str) -> Collection | None:
        """A collection that is open already. Raises NotFound where the caller does not reach it."""
        if not caller.reaches(name):
            raise collection_not_found(name)
        return self._open.get(name)

    async def collection(self, caller: Caller, name: str) -> Collection:
        """Opening one may read its whole index. Raises NotFound: none, or none that the caller reaches."""
        found = self.known(caller, name)
        if found is None:
            drops = self._drops
            found = await self.kernels.run(caller.name, lambda stop: self.opened(name))
            if self._drops == drops:  # else it may have been this one
                self._open[name] = found
        return found

    def opened(self, name: str) -> Collection:
        return self.db.collection(name)

    def has(self, docs: Collection) -> bool:
        """Whether this is the open collection of its name."""
        return self._open.get(docs.name) is docs

    def forget(self, name: str) -> None:
        """It was dropped."""
        self._drops += 1
        self._open.pop(name, None)

    def names(self, caller: Caller) -> list[str]:
        return [name for name in self.db.collections() if caller.reaches(name)]

    # -- where work runs -----------------------------------------------------------------------------

    async def read(
        self, caller: Caller, context: Any, kind: Hashable, size: int, work: Callable[[Stop | None], Any]
    ) -> Any:
        """work(stop), here where it is short, else on a kernel thread. size : queries or ids; costs count each."""
        cost = self.costs.of(kind)
        work = self.timed(cost, size, work)
        if cost.short(size):
            return work(None)
        self.kernels.check_wait(caller.name, until(context))
        return await self.kernels.run(caller.name, work, until(context))

    def timed(self, cost: Cost, size: int, work: Callable[[Stop | None], Any]) -> Callable[[Stop | None], Any]:
        """The same work, which says what it cost."""

        def measured(stop: Stop | None) -> Any:
            started = time.perf_counter()
            result = work(stop)
            cost.learn(size, time.perf_counter() - started)
            return result

        return measured

    async def write(self, caller: Caller, context: Any, work: Callable[[], Any], *, streamed: bool = False) -> Any:
        """On a thread that may wait for a commit. Once begun it goes on to its end, whoever still waits.

        streamed : one of a stream, which waits instead of being refused.
        """
        if not streamed:
            self.writers.check_wait(caller.name, until(context))
        return await self.writers.run(caller.name, lambda stop: work(), until(context))

    async def long(
        self, operation: Callable[[Progress], Any], tell: Callable[[int, int], Awaitable[None]] | None
    ) -> Any:
        """operation(progress) on a thread of its own; tell(done, total) now and then. It stops where the call does."""
        if self.draining:
            raise Unavailable("the server is shutting down")
        if self.longs.full:
            raise exhausted(f"{len(self.longs)} long operations are under way: wait for one of them", _RETRY_LONG_S)
        long = self.longs.start(operation)
        try:
            while tell is not None:
                done, _ = await asyncio.wait([long.future], timeout=_BEAT_S)
                if done:
                    break
                await tell(long.done, long.total)
            return await long.future
        finally:
            long.stopped = True

    def apart(self, caller: Caller, work: Callable[[], Any]) -> None:
        """On a kernel thread, whatever becomes of the call."""
        task = asyncio.ensure_future(self.kernels.run(caller.name, lambda stop: work()))
        self._apart.add(task)
        task.add_done_callback(self._apart.discard)

    # -- answers -------------------------------------------------------------------------------------

    def check_answer(self, size_bytes: int) -> None:
        """Raises LimitExceeded where an answer would be too large for one message."""
        if size_bytes > self.answer_bytes_max:
            raise LimitExceeded(
                f"an answer has at most {self.answer_bytes_max:,} bytes, this one would have {size_bytes:,}: "
                "ask for it in several calls"
            )

    async def sent(self, context: Any, message: Any, late: Callable[[], None]) -> None:
        """One message of an answer that holds something while it goes on. Where nobody reads it for long, late()
        lets go of that; the call ends when the message is through at last. Raises Refused.
        """
        writing = asyncio.ensure_future(context.write(message))
        try:
            done, _ = await asyncio.wait([writing], timeout=_SLOW_READER_S)
            if done:
                writing.result()
                return
            late()
            await writing  # until then no status could be sent either
        finally:
            writing.cancel()
        raise Refused(grpc.StatusCode.ABORTED, f"nothing was read for {_SLOW_READER_S:g} s: list again")

    async def streamed(self, requests: Any, caller: Caller, context: Any, begin: Callable[[Any], Any]) -> None:
        """Answers to a stream of requests. begin(message) : an answer, or what gives it when awaited."""
        account = self.admission.account(caller)

        def welcome(message: Any) -> Awaitable[None] | None:
            self.check_message(message, caller)
            wait_s = account.wait_s(time.monotonic())
            return _allowed(account, wait_s) if wait_s else None

        stream = Stream(requests, context, welcome)
        self.streams.add(stream)
        try:
            await stream.serve(begin)
        finally:
            self.streams.discard(stream)


async def _allowed(account: Account, wait_s: float) -> None:
    while wait_s:
        await asyncio.sleep(wait_s)
        wait_s = account.wait_s(time.monotonic())


def until(context: Any) -> float:
    """The call's deadline, of time.monotonic()."""
    left_s = context.time_remaining()
    return float("inf") if left_s is None else time.monotonic() + left_s


def once(caller: Caller, request_id: str) -> str | None:
    """The id under which a write is remembered: each caller's own."""
    checked = request_id_of(request_id)
    if checked is None:
        return None
    return hashlib.sha256(f"{caller.name}\0{checked}".encode()).hexdigest()
