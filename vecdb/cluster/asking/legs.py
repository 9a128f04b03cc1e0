"""One call to one shard, on its way (`ReadLeg`, `WriteLeg`), and several at once (`FanOut`): sent, then gathered.

    a read      is asked of one server of the shard (members.py says which); where that cannot answer, of the next at
                once; where it is late, of the next as well, and the first answer counts. When all have failed the
                placement is read again, for servers that are new; where one of them lives and refused for a moment,
                all are asked again, for a second
    a write     is asked of the writer; where that cannot answer, the placement is read again, and it is asked of the
                writer that is there then, until the time of the call is up. It has a request id, so it is done once.
                Where slots have moved meanwhile it fails: it was split by where they were

Threads: gRPC's put finished calls into a queue; all else happens in the thread that gathers.
"""

from __future__ import annotations

import queue
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import grpc

from vecdb import limits
from vecdb.client.channel import PASSING, REPEATED
from vecdb.client.retry import doubled_s
from vecdb.client.status_errors import is_final, retry_after
from vecdb.client.streams.rebatch import Parts
from vecdb.cluster.asking.members import Members
from vecdb.cluster.asking.servers import Server
from vecdb.errors import LimitExceeded, PermissionDenied, Stale, Unavailable, VecdbError
from vecdb.v1 import admin_pb2

_STOP_POLL_S = 0.010
_LOOK_S = 1.0  # a write that is on its way looks so often whether its server was replaced
_SILENT_S = 0.1  # a server that is overtaken after this time is asked after the others for a while
_NEVER = float("inf")
_WAIT = "GetServerInfo"


class ShardsUnavailable(Unavailable):
    """Shards of which no server answers. shards : their numbers."""

    def __init__(self, message: str, shards: tuple[int, ...]) -> None:
        super().__init__(message)
        self.shards = shards

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (str(self), self.shards)


class Leg(ABC):
    """One call to one shard. value, error : once it is `done`.   due_at : when `on_due` wants to be called."""

    def __init__(
        self,
        members: Members,
        shard: int,
        rpc: str,
        request: Any,
        decode: Callable[[Any], Any],
        timeout_s: float | None,
    ) -> None:
        self.shard = shard
        self.done = False
        self.value: Any = None
        self.error: VecdbError | None = None
        self.answered_by: str | None = None  # address of the server that did
        self.due_at = _NEVER
        self.finished: queue.SimpleQueue[tuple[Leg, Server, Any, float]] = queue.SimpleQueue()
        self._members = members
        self._rpc, self._request, self._decode = rpc, request, decode
        self._timeout_s = timeout_s
        self._ends_at = _NEVER if timeout_s is None else time.monotonic() + timeout_s
        self._running: dict[Any, tuple[Server, float]] = {}  # and when they began

    @abstractmethod
    def begin(self) -> None: ...

    @abstractmethod
    def on_due(self) -> None: ...

    @abstractmethod
    def _failed(self, server: Server, failed: Any) -> None:
        """A call has ended with an error of gRPC's."""

    def _ask(self, server: Server, rpc: str, request: Any, timeout_s: float | None = None) -> bool:
        """Start a call. Returns False where the server has left the cluster at this moment."""
        left_s = None if self._ends_at == _NEVER else max(0.0, self._ends_at - time.monotonic())
        started = time.monotonic()
        try:
            call = server.start(rpc, request, left_s if timeout_s is None else timeout_s)
        except Unavailable:
            return False
        self._running[call] = server, started
        call.add_done_callback(lambda call: self.finished.put((self, server, call, started)))
        return True

    def on_done(self, server: Server, call: Any, started: float) -> None:
        """A call has ended, which was started when the monotonic clock showed that."""
        if self._running.pop(call, None) is None or self.done:
            return
        try:
            answer = call.result()
        except grpc.FutureCancelledError:
            if not self._running:
                self.fail(Unavailable(f"the call to {server.name} was broken off"))
            return
        except grpc.RpcError as failed:
            self._failed(server, failed)
            return
        server.note_answer(answer)
        self.answered_by = server.address
        self._answered(server, answer, time.monotonic() - started)

    def _answered(self, server: Server, answer: Any, took_s: float) -> None:
        self.finish(self._decode(answer))

    def finish(self, value: Any) -> None:
        self.value = value
        self._end()

    def fail(self, error: VecdbError) -> None:
        self.error = error
        self._end()

    def _end(self) -> None:
        self.done, self.due_at = True, _NEVER
        self.cancel()

    def cancel(self) -> None:
        running, self._running = list(self._running), {}
        for call in running:
            call.cancel()

    def _error(self, server: Server, failed: Any) -> VecdbError:
        return server.error(failed, self._rpc, self._timeout_s)


def may_pass(failed: Any) -> bool:
    """Whether another server, or the same one later, may do what this one did not."""
    return failed.code().name in PASSING or retry_after(failed) is not None


class ReadLeg(Leg):
    """hedged : whether another server is asked, too, where one is late."""

    hedged = True

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._left: list[Server] = []
        self._asked: list[str] = []
        self._failures: list[str] = []
        self._retry_after: float | None = None
        self._waited: set[Any] = set()
        self._kind: Any = None
        self._stale = False  # a server has refused that may answer in a moment
        self._stale_until = _NEVER

    def begin(self) -> None:
        self._stale_until = time.monotonic() + limits.cluster_stale_s
        size = self._request.ByteSize().bit_length()
        self._kind = (self.shard, self._rpc, size, int(getattr(self._request, "limit", 0)).bit_length())
        self._left = self._readers()
        self._ask_next()

    def _readers(self) -> list[Server]:
        """Whom to ask, in order."""
        return self._members.readers(self.shard)

    def on_due(self) -> None:
        self.due_at = _NEVER
        if self._stale and not self._running:
            self._stale, self._asked, self._failures = False, [], []
            self._left = self._readers()
        if self._left:
            self._ask_next()

    def _ask_next(self) -> None:
        """Ask the next server. Where none is left and none is still at it, those that are new, or fail."""
        while self._left:
            server = self._left.pop(0)
            self._asked.append(server.address)
            if self._ask_when_ready(server):
                if self._left and self.hedged:
                    self.due_at = time.monotonic() + self._members.late_s(self._kind)
                return
        if self._running:
            return
        self._members.refresh()
        self._left = [one for one in self._readers() if one.address not in self._asked]
        if self._left:
            return self._ask_next()
        if self._stale and time.monotonic() < min(self._stale_until, self._ends_at):
            self.due_at = time.monotonic() + limits.cluster_stale_poll_s
            return
        self.fail(self._none_left())

    def _ask_when_ready(self, server: Server) -> bool:
        """Ask a server, where it is a copy that may lack our own writes once it has them."""
        needed = self._members.needed(self.shard)
        if not needed or not self._members.must_wait(self.shard, server):
            return self._ask(server, self._rpc, self._request)
        request = admin_pb2.GetServerInfoRequest(min_sequence=needed)
        if not self._ask(server, _WAIT, request, limits.cluster_wait_s):
            return False
        self._waited.add(next(reversed(self._running)))
        return True

    def on_done(self, server: Server, call: Any, started: float) -> None:
        if call not in self._waited:
            super().on_done(server, call, started)
            return
        self._waited.discard(call)
        if self._running.pop(call, None) is None or self.done:
            return
        code = call.code()
        gone = code is grpc.StatusCode.UNAVAILABLE and not call.details().startswith("this server has commit")
        # a copy that is there and cannot get the commit is asked: who had it is gone, and nobody has more
        if gone:
            self._failed(server, call)
        elif not self._ask(server, self._rpc, self._request):
            self._ask_next()

    def _answered(self, server: Server, answer: Any, took_s: float) -> None:
        self._members.note_took(self._kind, took_s)
        for other, started in self._running.values():
            if time.monotonic() - started > _SILENT_S:
                other.note_failure()
        super()._answered(server, answer, took_s)

    def _failed(self, server: Server, failed: Any) -> None:
        error = self._error(server, failed)
        if not may_pass(failed):
            self.fail(error)
            return
        server.note_failure()
        self._members.current()  # which raises where the cluster was closed meanwhile
        self._failures.append(str(error))
        self._stale |= isinstance(error, Stale)
        if error.retry_after is not None:
            self._retry_after = min(error.retry_after, self._retry_after or error.retry_after)
        self._ask_next()

    def _none_left(self) -> ShardsUnavailable:
        reasons = "; ".join(self._failures) or "its placement names none that can be asked"
        error = ShardsUnavailable(
            f"shard {self.shard} of {self._members.url} has no server that answers: {reasons}", (self.shard,)
        )
        error.retry_after = self._retry_after
        return error


class PartsLeg(ReadLeg):
    """A read that is made in several calls, one after the other."""

    def __init__(self, members: Members, shard: int, rpc: str, parts: Parts, timeout_s: float | None) -> None:
        super().__init__(members, shard, rpc, parts.next(), None, timeout_s)
        self._parts = parts

    def _answered(self, server: Server, answer: Any, took_s: float) -> None:
        self._parts.answered(answer)
        self._go_on()

    def _go_on(self) -> None:
        self._request = self._parts.next()
        if self._request is None:
            self.finish(self._parts.result())
            return
        self.cancel()
        self._asked, self._failures = [], []
        self.begin()

    def fail(self, error: VecdbError) -> None:
        if isinstance(error, LimitExceeded) and self._parts.halve():
            self._go_on()
        else:
            super().fail(error)


class WriteLeg(Leg):
    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._failures = 0
        self._last: VecdbError | None = None
        self._runs = self._members.placement.runs

    def begin(self) -> None:
        if self._members.placement.runs != self._runs:
            self.fail(
                Unavailable(
                    f"records of {self._members.url} were given to other shards while this call was made: make it "
                    "again, under the same request_id if it has one"
                )
            )
            return
        server = self._members.writer(self.shard)
        if server is None:
            self._members.refresh()
            server = self._members.writer(self.shard)
        if server is None or not self._ask(server, self._rpc, self._request):
            self._wait(
                Unavailable(f"shard {self.shard} of {self._members.url} has no server that writes at this moment"), None
            )
        elif self._rpc in REPEATED:
            self.due_at = time.monotonic() + _LOOK_S

    def on_due(self) -> None:
        self.due_at = _NEVER
        self._members.current()
        self._members.refresh()
        asked = [server for server, _ in self._running.values()]
        if asked and self._members.writer(self.shard) in (None, *asked):
            self.due_at = time.monotonic() + _LOOK_S
            return
        self.cancel()  # of a server that is silent, and was replaced meanwhile
        self.begin()

    def _answered(self, server: Server, answer: Any, took_s: float) -> None:
        self._members.note_write(self.shard, getattr(answer, "sequence", 0))
        super()._answered(server, answer, took_s)

    def _failed(self, server: Server, failed: Any) -> None:
        error = self._error(server, failed)
        only_reads = isinstance(error, PermissionDenied)
        if not only_reads and not may_pass(failed):
            out_of_time = failed.code() is grpc.StatusCode.DEADLINE_EXCEEDED
            self.fail(self._last if out_of_time and self._last is not None else error)
            return
        server.note_failure()
        self._members.current()
        self._members.refresh()
        moved = self._members.writer(self.shard) is not server
        safe = self._rpc in REPEATED or error.retry_after is not None or only_reads
        if not safe or (only_reads and not moved) or is_final(str(failed.details())):
            self.fail(error)
        else:
            self._wait(error, 0.0 if moved and self._failures == 0 else error.retry_after)

    def _wait(self, error: VecdbError, wait_s: float | None) -> None:
        """Try again after so many seconds, None for some; or give up where the time of the call is over by then."""
        self._failures += 1
        self._last = error
        self.due_at = time.monotonic() + (doubled_s(self._failures) if wait_s is None else wait_s)
        if self.due_at >= self._ends_at:
            self.fail(error)


class FanOut:
    """Calls that are on their way. stop : as of `Collection.search`.   later : they begin with `begin`, not now."""

    def __init__(self, legs: Sequence[Leg], stop: Callable[[], bool] | None = None, *, later: bool = False) -> None:
        self.legs = legs
        self._stop = stop
        self._finished: queue.SimpleQueue[tuple[Leg, Server, Any, float]] = queue.SimpleQueue()
        if not later:
            self.begin()

    def begin(self) -> None:
        for leg in self.legs:
            leg.finished = self._finished
        for leg in self.legs:
            leg.begin()

    def gather(self) -> Sequence[Leg]:
        """Wait until all are done. Raises Unavailable once `stop` returns True."""
        waiting = [leg for leg in self.legs if not leg.done]
        try:
            while waiting:
                self._next(waiting)
                waiting = [leg for leg in waiting if not leg.done]
        finally:
            for leg in waiting:
                leg.cancel()
        return self.legs

    def _next(self, waiting: Sequence[Leg]) -> None:
        due_at = min(leg.due_at for leg in waiting)
        wait_s = None if due_at == _NEVER else max(0.0, due_at - time.monotonic())
        if self._stop is not None:
            wait_s = _STOP_POLL_S if wait_s is None else min(wait_s, _STOP_POLL_S)
        try:
            leg, server, call, started = self._finished.get(timeout=wait_s)
        except queue.Empty:
            if self._stop is not None and self._stop():
                raise Unavailable("the search was cancelled") from None
            for leg in waiting:
                if not leg.done and leg.due_at <= time.monotonic():
                    leg.on_due()
            return
        leg.on_done(server, call, started)

    def values(self) -> dict[int, Any]:
        """What each shard answered, by its number. Raises the error of one that did not; of shards that cannot be
        reached one that names all of them.
        """
        gone = []
        for leg in self.gather():
            if isinstance(leg.error, ShardsUnavailable):
                gone.append(leg.error)
            elif leg.error is not None:
                raise leg.error
        if gone:
            raise unavailable(gone)
        return {leg.shard: leg.value for leg in self.legs}

    def value(self) -> Any:
        """The same of one shard."""
        [found] = self.values().values()
        return found

    def cancel(self) -> None:
        for leg in self.legs:
            leg.cancel()


def together(calls: Sequence[FanOut], stop: Callable[[], bool] | None = None) -> FanOut:
    """Calls that are made together. calls : made to begin later."""
    return FanOut([leg for call in calls for leg in call.legs], stop)


def unavailable(errors: Sequence[ShardsUnavailable]) -> ShardsUnavailable:
    """One error for all shards that cannot be reached."""
    if len(errors) == 1:
        return errors[0]
    shards = tuple(shard for error in errors for shard in error.shards)
    made = ShardsUnavailable("; ".join(map(str, errors)), shards)
    made.retry_after = max((one.retry_after for one in errors if one.retry_after is not None), default=None)
    return made
