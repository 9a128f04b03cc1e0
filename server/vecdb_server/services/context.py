"""What all services share: the open database, its open collections, and the threads that do the work.

    service -> collection(caller, name)       open the collection, or find it open
            -> read / write / run_long        on the event loop, on a pool of threads, or on a thread of its own
            -> serve_stream                   a stream of requests, answered in order

Threads: everything here runs on the event loop, except `close` and the work that is passed in.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import time
from collections import deque
from collections.abc import Awaitable, Callable, Hashable
from typing import Any

import grpc

import vecdb
from vecdb import Collection, LimitExceeded, Unavailable
from vecdb.wire.error_codes import collection_not_found
from vecdb.wire.filters import Tree, filter_of
from vecdb.wire.messages import request_id_of
from vecdb_server.config import Config, cores
from vecdb_server.executors import FairThreadPool, LatencyEstimate, LatencyModel, LongOperations, Stop
from vecdb_server.place import Place
from vecdb_server.security.admission import Account, Admission
from vecdb_server.security.auth import Caller
from vecdb_server.security.cursors import CursorSeal
from vecdb_server.services.bidi_stream import BidiStream
from vecdb_server.status_errors import Refused, exhausted, status_of

_SHORT_US = 500.0  # below this, moving the work to a thread costs more than it frees
_BATCH_MAX = 8  # waiting single queries that one kernel call takes at most
_ROOM_POLL_S = 0.02  # a message of a stream for which there is no room asks again after this
_PROGRESS_S = 0.2  # between two messages of a long operation
_RETRY_LONG_S = 5.0
_MET_MAX = 65_536

_SMALL_FILTER_BYTES = 4_096  # reading more would hold the event loop up

Progress = Callable[[int, int], None]


def is_large(message: Any) -> bool:
    """Whether a message with filters is read on a thread."""
    size_bytes: int = message.ByteSize()
    return size_bytes > _SMALL_FILTER_BYTES


class ServerContext:
    """The database and the threads that work on it."""

    def __init__(self, db: vecdb.Database, config: Config, admission: Admission, place: Place) -> None:
        self.db = db
        self.place = place
        self.config = config
        self.admission = admission
        self.kernel_threads = place.kernel_threads(config.kernel_threads)
        self.threads_max = max(self.kernel_threads, config.kernel_threads or cores())  # of a batch
        self.latencies = LatencyModel(_SHORT_US)
        self.kernels = FairThreadPool("kernels", self.kernel_threads, batch_max=_BATCH_MAX)
        self.writers = FairThreadPool("writers", config.write_threads)
        self.long_operations = LongOperations(config.long_operations)
        self.draining = False
        self.check_message: Callable[[Any, Caller], None] = lambda message, caller: None  # set to the interceptor's
        self.check_caller: Callable[[Caller], None] = lambda caller: None  # the same
        self.streams: set[BidiStream] = set()
        self.answer_bytes_max = config.message_bytes_max  # as large as a request may be
        self.cursors = CursorSeal(place.cursor_key)
        self._open: dict[str, Collection] = {}
        self._detached: set[asyncio.Future[Any]] = set()
        self._drops = 0
        self._names_version = place.names_version()
        self._met: dict[tuple[str, str | None], int] = {}  # a collection and a tenant that it has -> `_drops` then

    def drain(self) -> None:
        """End long operations and streams; requests that a stream has read already are still answered."""
        self.draining = True
        self.long_operations.stop()
        for stream in self.streams:
            stream.interrupt(Unavailable("the server is shutting down"))

    def close(self) -> None:
        """Finish the jobs that wait, then close the database. Call it from another thread than the event loop's."""
        self.long_operations.close()
        self.kernels.close()
        self.writers.close()
        self.db.close()

    # -- collections ---------------------------------------------------------------------------------

    def open_collection(self, caller: Caller, name: str) -> Collection | None:
        """The collection if it is open already. Raises NotFound where the caller has no access to it."""
        self._follow_names()
        if not caller.reaches(name):
            raise collection_not_found(name)
        if caller.must_be_known and self._met.get((name, caller.tenant)) != self._drops:
            return None
        return self._open.get(name)

    async def collection(self, caller: Caller, name: str, *, writes_records: bool = False) -> Collection:
        """The collection, opened where it is not open yet; that may read its whole index. Raises NotFound where there
        is none, or none that the caller has access to. Where its tenant is not known it has none, unless it writes
        records, which makes the tenant known.
        """
        if not writes_records:
            if caller.must_be_known:
                self._follow_names()
                await self._meet(caller, name)
            found = self.open_collection(caller, name)
        else:
            self._follow_names()
            if not caller.reaches(name):
                raise collection_not_found(name)
            found = self._open.get(name)
        if found is None:
            drops = self._drops
            found = await self.kernels.run(caller.group, lambda stop: self.db.collection(name))
            if self._drops == drops:  # otherwise the dropped collection may have been this one
                self._open[name] = found
        return found

    async def _meet(self, caller: Caller, name: str) -> None:
        """Raise NotFound where the collection does not know the caller's tenant, after the same work as where there is
        no such collection: nothing is opened.
        """
        if not caller.reaches(name):
            raise collection_not_found(name)
        if self._met.get((name, caller.tenant)) == self._drops:
            return
        drops = self._drops
        if not await self.kernels.run(caller.name, lambda stop: self._knows(name, caller.tenant)):
            raise collection_not_found(name)
        if len(self._met) >= _MET_MAX:
            self._met.clear()
        self._met[name, caller.tenant] = drops

    def _knows(self, name: str, tenant: str | None) -> bool:
        """Whether the collection of that name, or alias, has the tenant. It takes as long where there is none."""
        return self.db.aliases().get(name, name) in self.db.collections(tenant=tenant)

    def forget_tenants(self) -> None:
        """A tenant was dropped from a collection."""
        self._drops += 1
        self.place.names_changed()

    def is_open(self, docs: Collection) -> bool:
        """Whether this object is the open collection of its name."""
        self._follow_names()
        return self._open.get(docs.name) is docs

    def forget_names(self) -> None:
        """Names may stand for other collections than before: each is looked up anew at its next use."""
        self._drops += 1
        self._open.clear()
        self.place.names_changed()

    def check_answers(self) -> None:
        """Raise Unavailable where another server has taken over, or may have."""
        if (reason := self.place.refusal()) is not None:
            raise Unavailable(reason)

    def _follow_names(self) -> None:
        """Another process may have changed what names stand for. Raises what `check_answers` does."""
        self.check_answers()
        version = self.place.names_version()
        if version != self._names_version:
            self._names_version = version
            self._drops += 1
            self._open.clear()

    def names(self, caller: Caller) -> Callable[[Stop], list[str]]:
        """Work that lists the collections that the caller has access to."""
        self.check_answers()
        tenant = caller.tenant if caller.must_be_known else None
        return lambda stop: [name for name in self.db.collections(tenant=tenant) if caller.reaches(name)]

    # -- filters -------------------------------------------------------------------------------------

    async def filter_of(self, caller: Caller, request: Any) -> Tree | None:
        """The filter of a request; None where it has none. A large one is read on a kernel thread."""
        if not request.HasField("filter"):
            return None
        if not is_large(request.filter):
            return filter_of(request.filter)
        found: Tree | None = await self.kernels.run(caller.group, lambda stop: filter_of(request.filter))
        return found

    # -- where work runs -----------------------------------------------------------------------------

    async def read(
        self, caller: Caller, context: Any, kind: Hashable, size: int, work: Callable[[Stop | None], Any]
    ) -> Any:
        """work(stop), on the event loop if it is short, otherwise on a kernel thread.

        kind : what the latency estimate is kept for; None: it depends on what is asked, and always runs on a thread.
        size : number of queries or ids; the estimate is for one.
        """
        deadline = self.deadline_of(caller, context)
        if kind is None:
            self.kernels.check_wait(caller.group, deadline)
            return await self.kernels.run(caller.group, work, deadline)
        estimate = self.latencies.of(kind)
        work = self.timed(estimate, size, work)
        if estimate.is_short(size):
            return work(None)
        self.kernels.check_wait(caller.group, deadline)
        return await self.kernels.run(caller.group, work, deadline)

    def timed(
        self, estimate: LatencyEstimate, size: int, work: Callable[[Stop | None], Any]
    ) -> Callable[[Stop | None], Any]:
        """The same work; it updates the estimate with the time that it took."""

        def measured(stop: Stop | None) -> Any:
            started = time.perf_counter()
            result = work(stop)
            estimate.update(size, time.perf_counter() - started)
            return result

        return measured

    async def write(self, caller: Caller, context: Any, work: Callable[[], Any], *, streamed: bool = False) -> Any:
        """work() on a thread that may wait for a commit. Once started it runs to its end, even if the caller leaves.

        streamed : part of a stream, which waits instead of being refused.
        """
        if not streamed:
            self.writers.check_wait(caller.group, deadline_of(context))
        return await self.writers.run(caller.group, lambda stop: work(), deadline_of(context))

    async def change_names(
        self, caller: Caller, context: Any, work: Callable[[], Any], forget: Callable[[], None]
    ) -> Any:  # fmt: skip
        """`write` of what changes which collections or tenants there are. forget() is called on the event loop when
        work has ended, before anybody hears of it, and also where the caller has left meanwhile.
        """
        loop = asyncio.get_running_loop()

        def marked() -> Any:
            try:
                return work()
            finally:
                with contextlib.suppress(RuntimeError):  # the event loop has ended
                    loop.call_soon_threadsafe(forget)

        return await self.write(caller, context, marked)

    async def run_long(
        self, caller: Caller, run: Callable[[Progress], Any], report: Callable[[int, int], Awaitable[None]] | None
    ) -> Any:
        """run(progress) on a thread of its own; report(done, total) now and then. It is stopped when the call ends.
        Raises Refused once the caller's token does not count any more.
        """
        if self.draining:
            raise Unavailable("the server is shutting down")
        if self.long_operations.full:
            raise exhausted(
                f"{len(self.long_operations)} long operations are under way: wait for one of them", _RETRY_LONG_S
            )
        operation = self.long_operations.start(run)
        try:
            while not (await asyncio.wait([operation.future], timeout=_PROGRESS_S))[0]:
                self.check_caller(caller)
                if report is not None:
                    await report(operation.done, operation.total)
            self.check_caller(caller)
            return operation.future.result()
        finally:
            operation.stopped = True

    def run_detached(self, caller: Caller, work: Callable[[], Any]) -> None:
        """work() on a kernel thread, even if the call has ended."""
        task = asyncio.ensure_future(self.kernels.run(caller.group, lambda stop: work()))
        self._detached.add(task)
        task.add_done_callback(self._detached.discard)

    # -- answers -------------------------------------------------------------------------------------

    def check_answer(self, size_bytes: int) -> None:
        """Raises LimitExceeded where an answer would be too large for one message."""
        if size_bytes > self.answer_bytes_max:
            raise LimitExceeded(
                f"an answer has at most {self.answer_bytes_max:,} bytes, this one would have {size_bytes:,}: "
                "ask for it in several calls"
            )

    async def send(self, caller: Caller, context: Any, message: Any, release: Callable[[], None]) -> None:
        """Send one message of an answer that holds a resource while it goes on. Where the client reads nothing for
        too long, or its token does not count any more, release() gives the resource back, and the call ends. Raises
        Refused.
        """
        try:
            self.check_caller(caller)
            await send_if_read(context, message, self.config.slow_reader_s, ": list again")
        except Refused:
            release()
            raise

    async def serve_stream(self, requests: Any, caller: Caller, context: Any, begin: Callable[[Any], Any]) -> None:
        """Answer a stream of requests. begin(message) : the answer, or an awaitable of it."""
        admission, account = self.admission, self.admission.account(caller)
        seats: deque[int] = deque()  # bytes of the messages in work

        def admit(message: Any) -> Awaitable[None] | None:
            self.check_message(message, caller)
            size_bytes = len(message) if isinstance(message, bytes) else message.ByteSize()
            wait_s = account.wait_s(time.monotonic())
            if wait_s or not admission.try_enter(account, size_bytes):
                return enter_later(wait_s, size_bytes)
            seats.append(size_bytes)
            return None

        async def enter_later(wait_s: float, size_bytes: int) -> None:
            await _wait_for_rate(account, wait_s)
            while not admission.try_enter(account, size_bytes):
                await asyncio.sleep(_ROOM_POLL_S)
            seats.append(size_bytes)

        def leave() -> None:
            admission.leave(account, seats.popleft())

        async def give_up(error: Refused) -> None:
            while seats:
                leave()
            with contextlib.suppress(Exception):  # AbortError, or the caller is gone
                await context.abort(*status_of(error, ""))

        stream = BidiStream(
            requests,
            context,
            admit,
            leave,
            give_up,
            check=lambda: self.check_caller(caller),
            idle_s=self.config.stream_idle_s,
            slow_reader_s=self.config.slow_reader_s,
        )
        self.streams.add(stream)
        try:
            await stream.serve(begin)
        finally:
            self.streams.discard(stream)
            while seats:
                leave()

    def sequence_for(self, caller: Caller) -> int:
        """The number of the newest commit, for an answer; 0 for a tenant, whom it would tell when others write."""
        return self.db.sequence() if caller.tenant is None else 0

    def deadline_of(self, caller: Caller, context: Any) -> float:
        """When the work of a read must end, by time.monotonic(): the call's deadline, or sooner without `admin`."""
        deadline = deadline_of(context)
        if caller.permission == "admin":
            return deadline
        return min(deadline, time.monotonic() + self.config.call_s_max)


async def send_if_read(context: Any, message: Any, slow_reader_s: float, advice: str = "") -> None:
    """Send one message of an answer. Raises Refused where the client reads nothing for so long. advice : what it says
    then, beside that.
    """
    writing = asyncio.ensure_future(context.write(message))
    try:
        done, _ = await asyncio.wait([writing], timeout=slow_reader_s)
    except asyncio.CancelledError:
        writing.cancel()
        raise
    if not done:
        writing.add_done_callback(_ignore)  # gRPC sends the status behind it, when the client reads on
        raise Refused(grpc.StatusCode.ABORTED, f"nothing was read for {slow_reader_s:g} s{advice}")
    writing.result()


def _ignore(writing: asyncio.Future[Any]) -> None:
    if not writing.cancelled():
        writing.exception()


async def _wait_for_rate(account: Account, wait_s: float) -> None:
    while wait_s:
        await asyncio.sleep(wait_s)
        wait_s = account.wait_s(time.monotonic())


def deadline_of(context: Any) -> float:
    """The call's deadline, by time.monotonic()."""
    left_s = context.time_remaining()
    return float("inf") if left_s is None else time.monotonic() + left_s


def request_key(caller: Caller, request_id: str) -> str | None:
    """The id under which the database remembers a write: two callers with the same request_id have different ones."""
    checked = request_id_of(request_id)
    if checked is None:
        return None
    return hashlib.sha256(f"{caller.name}\0{checked}".encode()).hexdigest()
