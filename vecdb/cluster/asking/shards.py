"""What a `RemoteCollection` has in the place of a connection where its server is a cluster: all shards, or one of them.

    call, call_in_parts           begin, and give a FanOut that is gathered later
    list_records, all_records     give a Stream for each shard, begun, whose answers come later
    list_names                    names of one shard, asked for page by page
    call_with_progress            gives a LongCall for each shard, which begins later (long_work.py)

So messages and answers of a cluster are made where those of a server are (client/remote_collection.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Self, TypeVar

import grpc

from vecdb.api.filter_arguments import Page
from vecdb.client.channel import READS, deadlines
from vecdb.client.streams.rebatch import Pager, Parts, Rebatcher
from vecdb.cluster.asking.legs import FanOut, Leg, PartsLeg, ReadLeg, ShardsUnavailable, WriteLeg, may_pass
from vecdb.cluster.asking.members import Members
from vecdb.cluster.asking.servers import Server
from vecdb.errors import VecdbError

_BY_WRITER = frozenset(("GetCollection", "ListCollections", "ListAliases"))  # names change seldom, and must be right

T = TypeVar("T")


class WriterFirstLeg(ReadLeg):
    """A read of what the writer knows first; copies are asked where it does not answer."""

    def _readers(self) -> list[Server]:
        writer = self._members.writer(self.shard)
        return sorted(super()._readers(), key=lambda server: server is not writer)


class SameServerLeg(ReadLeg):
    """A read of what one server has said before. first : its address; others are asked where it does not answer."""

    def __init__(self, first: str, *args: Any) -> None:
        super().__init__(*args)
        self._first = first

    def _readers(self) -> list[Server]:
        return sorted(super()._readers(), key=lambda server: server.address != self._first)


class Stream:
    """Answers of one shard, one after another. A server that fails before its first one gives way to the next."""

    def __init__(self, members: Members, shard: int, rpc: str, request: Any) -> None:
        self.shard = shard
        self._members = members
        self._rpc, self._request = rpc, request
        self._left = members.readers(shard)
        self._failures: list[str] = []
        self._server: Server | None = None
        self._call: Any = None
        self._start()

    def _start(self) -> None:
        while self._left and self._call is None:
            self._server = self._left.pop(0)
            try:
                self._call = self._server.start(self._rpc, self._request, None, streamed=True)
            except VecdbError as error:
                self._failures.append(str(error))

    def __iter__(self) -> Iterator[Any]:
        begun = False
        try:
            while True:
                if self._call is None or self._server is None:
                    self._members.refresh()  # whoever began this learns whether the shard is no more
                    raise ShardsUnavailable(
                        f"shard {self.shard} of {self._members.url} has no server that answers: "
                        f"{'; '.join(self._failures) or 'its placement names none'}",
                        (self.shard,),
                    )
                try:
                    for answer in self._call:
                        begun = True
                        yield answer
                    return
                except grpc.RpcError as failed:
                    self._members.current()  # which raises where the cluster was closed meanwhile
                    error = self._server.error(failed, self._rpc, None)
                    if begun or not may_pass(failed):
                        raise error from None
                    self._server.note_failure()
                    self._failures.append(str(error))
                self._call = None
                self._start()
        finally:
            self.close()

    def close(self) -> None:
        if self._call is not None:
            self._call.cancel()


class LongCall:
    """Work of one shard's writer that reports how far it is; it has not begun."""

    def __init__(
        self,
        members: Members,
        shard: int,
        rpc: str,
        request: Any,
        report: Callable[[Any], None],
        decode: Callable[[Any], Any],
    ) -> None:
        self.members, self.shard = members, shard
        self.rpc, self.request, self.report, self.decode = rpc, request, report, decode


class Shards:
    """numbers : which; None: all that have slots, as they are when a call is made.   timeout_s : of a call.
    later : calls do not begin, but are put `together` with others.   first : address of a server that is asked before
    all others.
    """

    def __init__(
        self,
        members: Members,
        timeout_s: float | None,
        numbers: tuple[int, ...] | None = None,
        *,
        later: bool = False,
        first: str | None = None,
    ) -> None:
        self.members = members
        self._timeout_s = timeout_s
        self._deadlines = deadlines(timeout_s)
        self._numbers = numbers
        self._later = later
        self._first = first

    @property
    def name(self) -> str:
        return self.members.url

    @property
    def closed(self) -> bool:
        return self.members.closed

    def with_timeout(self, timeout_s: float) -> Self:
        return type(self)(self.members, timeout_s, self._numbers)

    def only(self, *numbers: int, later: bool = False, first: str | None = None) -> Self:
        return type(self)(self.members, self._timeout_s, numbers, later=later, first=first)

    @property
    def numbers(self) -> tuple[int, ...]:
        serving = self.members.current().serving
        return serving if self._numbers is None else self._numbers

    def have_moved(self, runs: Any, error: ShardsUnavailable) -> bool:
        """Whether slots are elsewhere by now. runs : where they were known to be.   error : of a call that may have
        begun before that.
        """
        placement = self.members.placement
        return placement.runs != runs or not set(error.shards) <= set(placement.serving)

    def again(self, read: Callable[[], T]) -> T:
        """What a read finds; it is made again where slots have moved from shards that are gone."""
        runs = self.members.current().runs
        try:
            return read()
        except ShardsUnavailable as error:
            if not self.have_moved(runs, error):
                raise
            return read()

    def begun_again(self, begin: Callable[[], Iterator[T]]) -> Iterator[T]:
        """What a listing finds; it is begun again where that is so before the first of it came."""
        runs, began = self.members.current().runs, begin()

        def all_of() -> Iterator[T]:
            nonlocal began
            try:
                first = next(began, None)
            except ShardsUnavailable as error:
                if not self.have_moved(runs, error):
                    raise
                began = begin()
                first = next(began, None)
            if first is not None:
                yield first
                yield from began

        return all_of()

    def call(
        self, rpc: str, request: Any, decode: Callable[[Any], Any], stop: Callable[[], bool] | None = None
    ) -> FanOut:
        kind: Callable[..., Leg] = (WriterFirstLeg if rpc in _BY_WRITER else ReadLeg) if rpc in READS else WriteLeg
        if self._first is not None:
            kind = partial(SameServerLeg, self._first)
        timeout_s = self._deadlines.get(rpc)
        legs = [kind(self.members, shard, rpc, request, decode, timeout_s) for shard in self.numbers]
        return FanOut(legs, stop, later=self._later)

    def call_in_parts(self, rpc: str, parts: Parts) -> FanOut:
        [shard] = self.numbers
        return FanOut([PartsLeg(self.members, shard, rpc, parts, self._deadlines.get(rpc))], later=self._later)

    def list_records(self, rpc: str, request: Any, rebatcher: Rebatcher) -> Iterator[Page]:
        [shard] = self.numbers
        return _pages(Stream(self.members, shard, rpc, request), rebatcher)

    def all_records(self, rpc: str, request: Any, rebatcher: Rebatcher, finish: Callable[[Any], Any]) -> Any:
        """A function that gives what `finish` makes of the records of one shard, once they are there."""
        pages = self.list_records(rpc, request, rebatcher)
        return lambda: finish([record for page in pages for record in page])

    def list_names(self, rpc: str, request: Any, limit: int | None) -> Iterator[str]:
        pager = Pager(request, limit)
        while pager.has_more():
            yield from pager.names_of(self.call(rpc, request, lambda answer: answer).value())

    def call_with_progress(
        self, rpc: str, request: Any, report: Callable[[Any], None], decode: Callable[[Any], Any]
    ) -> LongCall:
        [shard] = self.numbers
        self.members.current()
        return LongCall(self.members, shard, rpc, request, report, decode)


def _pages(answers: Stream, rebatcher: Rebatcher) -> Iterator[Page]:
    for answer in answers:
        yield from rebatcher.full(answer)
    yield from rebatcher.rest()
