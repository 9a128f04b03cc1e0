"""What a process is among several of one server: the writer, or one of the workers.

    Crew      what they have in common: the board, the secret, the keys; made by the supervisor before it forks
    Writer    owns the directory, answers what workers hand on, shows the metrics of all
    Worker    answers callers: reads by itself, all else through the writer

Threads: event loop only, but `processes`.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from vecdb.v1 import search_pb2
from vecdb_server.config import cores
from vecdb_server.metrics import Metrics
from vecdb_server.place import KEY_BYTES, LogState, Place
from vecdb_server.security.auth import NEEDS
from vecdb_server.workers import board as boards
from vecdb_server.workers import counters
from vecdb_server.workers.board import DRAINING, LISTENING, SERVING, WRITER, Board
from vecdb_server.workers.forwarding import HandedOn, WriterLink
from vecdb_server.workers.mirror import SearchMirror
from vecdb_server.workers.series import SharedMetrics

_TICK_S = 0.1
_NOT_LEASED = (
    "the process that writes has not known for staleness_s that nobody else has taken over its log: reads are not "
    "answered from the past. Ask a copy"
)
SEARCHES = search_pb2.DESCRIPTOR.services_by_name["SearchService"]


class Crew:
    """folder : of sockets, for this user alone.   supervisor : its process number.   writes : whether one of them is a
    writer.   leased : whether reads need its lease.
    """

    def __init__(self, workers: int, folder: Path, supervisor: int, *, writes: bool, leased: bool = False) -> None:
        processes = workers + 1
        words = counters.words(processes), SharedMetrics.words(len(NEEDS), processes)
        self.board = Board(workers, *words)
        self.metrics = SharedMetrics(NEEDS, processes, self.board.parts[1])
        self.secret = secrets.token_urlsafe(32)
        self.cursor_key = secrets.token_bytes(KEY_BYTES)
        self.folder = folder
        self.supervisor = supervisor
        self.writes = writes
        self.leased = leased
        self.counters = [counters.SharedCounters(self.board, self.board.parts[0], i) for i in range(processes)]

    def address(self, writer: int) -> str:
        """Of the socket of the nth writer."""
        return f"unix:{self.folder}/writer-{writer}"

    def role(self, place: int) -> str:
        return "writer" if place == WRITER else "worker"

    def gone(self, place: int) -> None:
        """The process of that place has ended: it holds nothing, and a writer may have changed names before."""
        self.board.end(place)
        self.counters[place].clear(place)
        if place == WRITER:
            self.board.names_changed()


class CrewPlace(Place):
    """place : on the board."""

    def __init__(self, crew: Crew, place: int) -> None:
        super().__init__(counters=crew.counters[place], cursor_key=crew.cursor_key)
        self.crew = crew
        self.place = place
        self._figures: dict[str, Callable[[], float]] = {}
        self._ticking: asyncio.Task[None] | None = None
        self._server: Any = None

    def figure(self, name: str, read: Callable[[], float]) -> Callable[[], float]:
        self._figures[name] = read
        return lambda: self.crew.board.gauge(name)

    def processes(self) -> list[dict[str, Any]]:
        board, crew = self.crew.board, self.crew
        found = [{"pid": crew.supervisor, "role": "supervisor"}]
        there = [place for place in range(board.processes) if board.state(place) != boards.GONE]
        return found + [{"pid": board.pid(place), "role": crew.role(place)} for place in there]

    def is_replaced(self) -> bool:
        return self.crew.board.is_replaced

    @property
    def log_state(self) -> LogState:
        bits = self.crew.board.log_troubles
        return LogState(*(not bits >> at & 1 for at in range(len(LogState._fields))))

    def listens(self, server: Any) -> None:
        self._server = server
        if server.metrics_port:
            self.crew.board.metrics_port = server.metrics_port
        self._ticking = asyncio.ensure_future(self._tick())
        self.crew.board.set_state(self.place, LISTENING)

    def serves(self) -> None:
        self.crew.board.set_state(self.place, SERVING)

    def drains(self) -> None:
        self.crew.board.set_state(self.place, DRAINING)

    async def _tick(self) -> None:
        """Tell the others what this process does, and hear what they do."""
        while True:
            for name, read in self._figures.items():
                self.crew.board.set_gauge(self.place, name, int(read()))
            self._server.tell_health()
            await asyncio.sleep(_TICK_S)


class WriterPlace(CrewPlace):
    role = "writer"

    def __init__(self, crew: Crew) -> None:
        super().__init__(crew, WRITER)
        self.secret = crew.secret

    def metrics(self) -> Metrics:
        return Metrics(self.crew.metrics.totals)  # what it counts itself, workers have counted already

    def names_changed(self) -> None:
        self.crew.board.names_changed()

    def replaced(self) -> None:
        self.crew.board.replaced()

    def note_log(self, state: LogState) -> None:
        self.crew.board.log_troubles = sum((not fine) << at for at, fine in enumerate(state))

    def leased(self, until: float) -> None:
        self.crew.board.leased_until = until


class WorkerPlace(CrewPlace):
    role = "worker"

    def __init__(self, crew: Crew, place: int, slow_reader_s: float) -> None:
        super().__init__(crew, place)
        self.sharers = crew.board.processes - 1
        self.read_only = True
        self._slow_reader_s = slow_reader_s
        self.link: WriterLink | None = None

    def metrics(self) -> Metrics:
        return self.crew.metrics.of(self.place)

    def served(self, service: Any, behaviours: Any) -> Any:
        if not self.crew.writes:
            return super().served(service, behaviours)
        if self.link is None:
            self.link = WriterLink(self.crew.board, self.crew.secret, self.crew.address, self._slow_reader_s)
        made = HandedOn(service, behaviours, self.link)
        if service is SEARCHES:
            made.Search = SearchMirror(behaviours, self.link).Search  # type: ignore[attr-defined]
        return made

    def kernel_threads(self, wanted: int) -> int:
        """All workers together have twice as many as there are cores, since callers are not spread evenly."""
        return wanted or max(2, -(-2 * cores() // self.sharers))

    @property
    def takes_writes(self) -> bool:
        return self.crew.writes and self.crew.board.state(WRITER) == SERVING

    def names_version(self) -> Any:
        return self.crew.board.names_version if self.crew.writes else super().names_version()

    def refusal(self) -> str | None:
        lapsed = self.crew.leased and time.monotonic() > self.crew.board.leased_until
        return super().refusal() or (_NOT_LEASED if lapsed else None)

    def is_whole(self) -> bool:
        return not self.crew.writes or (self.crew.board.state(WRITER) == SERVING and super().is_whole())

    def drains(self) -> None:
        super().drains()
        if self.link is not None:
            self.link.drain()
