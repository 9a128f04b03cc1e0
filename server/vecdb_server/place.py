"""What a process of the server is: the only one, here; one among others in workers/place.py.

A `Place` answers what depends on it: whose counts bound a caller, which rpcs are answered here, what a metrics page
counts, and whether names may have changed elsewhere.

Threads: event loop only, but `processes`, which is called from any thread.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any, NamedTuple

from vecdb import PermissionDenied
from vecdb_server.config import cores
from vecdb_server.metrics import Metrics
from vecdb_server.newest_commit import NewestCommit
from vecdb_server.security.auth import WRITES
from vecdb_server.security.counters import Counters, LocalCounters

KEY_BYTES = 64  # of what seals cursors
REPLACED = "fenced: another writer has taken over this database, which is read here no more; ask that one, or a copy"


class LogState(NamedTuple):
    """What a database says of its log. answers : reads are answered.   writes : so are writes.   reached : the bucket
    answers. All of it where there is no log.
    """

    answers: bool = True
    writes: bool = True
    reached: bool = True


class Place:
    """The only process. read_only : another process, which is not of this server, writes to the directory.

    secret : what each call must carry where callers are processes of this server, which have counted it; None where
    they are not.
    """

    role = "server"
    secret: str | None = None
    sharers = 1  # processes that share the port

    def __init__(
        self, *, read_only: bool = False, counters: Counters | None = None, cursor_key: bytes | None = None
    ) -> None:
        """counters, cursor_key : of several processes together; None: this one's own."""
        self.read_only = read_only
        self._replaced = False
        self._log_state = LogState()
        self._newest: NewestCommit | None = None
        self.counters: Counters = LocalCounters() if counters is None else counters
        self.cursor_key = secrets.token_bytes(KEY_BYTES) if cursor_key is None else cursor_key

    def metrics(self) -> Metrics:
        """Where calls are counted, and what the page shows."""
        return Metrics()

    def figure(self, name: str, read: Callable[[], float]) -> Callable[[], float]:
        """A number for the metrics page: of all processes. name : as board.GAUGES has it.   read : that of this one."""
        return read

    def served(self, service: Any, behaviours: Any) -> Any:
        """The behaviours of a service's rpcs in this process. service : its descriptor."""
        return WritesRefused(service, behaviours) if self.read_only else behaviours

    def opened(self, database: Path) -> None:
        """The database is open. database : its directory."""
        if self.read_only:
            self._newest = NewestCommit(database)

    def closed(self) -> None:
        """It is closed again."""
        if self._newest is not None:
            self._newest.close()

    def kernel_threads(self, wanted: int) -> int:
        """How many threads there are for long searches. wanted : a setting; 0: one for each core."""
        return wanted or cores()

    def names_version(self) -> Any:
        """It changes when another process may have changed which collection a name means."""
        return None if self._newest is None else self._newest.version()

    def names_changed(self) -> None:
        """This process has changed which collection a name means, or which tenants there are."""

    def processes(self) -> list[dict[str, Any]]:
        """Process number and role of each process of this server."""
        return [{"pid": os.getpid(), "role": self.role}]

    def is_whole(self) -> bool:
        """Whether the other processes that a call may need are there, and what this server has is not of the past."""
        return self.refusal() is None

    def is_replaced(self) -> bool:
        """Whether another server has taken over the log of this database."""
        return self._replaced

    def replaced(self) -> None:
        """It has: this process, which wrote it, knows."""
        self._replaced = True

    @property
    def takes_writes(self) -> bool:
        """Whether writes are done here, or handed on to a process that is there."""
        return not self.read_only

    @property
    def log_state(self) -> LogState:
        """What the process that writes the log, or follows it, knew of it a moment ago."""
        return self._log_state

    def note_log(self, state: LogState) -> None:
        """That process is this one."""
        self._log_state = state

    def leased(self, until: float) -> None:
        """Nobody else writes the database until then, by the monotonic clock: this process, which writes it, knows."""

    def refusal(self) -> str | None:
        """Why calls may not be answered from the directory by now; None where they may, as far as the database does not
        refuse them itself.
        """
        return REPLACED if self.is_replaced() else None

    def listens(self, server: Any) -> None:
        """The server has begun to answer. server : the app.Server."""

    def serves(self) -> None:
        """Its searches are warm."""

    def drains(self) -> None:
        """It takes no more calls."""


class OtherBehaviours:
    """The behaviours of a service, some of them others: those of the rpcs whose paths are in `others`. make(method,
    path) : the behaviour of such a one; it may change `raw`.
    """

    def __init__(
        self, service: Any, behaviours: Any, others: Collection[str], make: Callable[[Any, str], Any]
    ) -> None:  # fmt: skip
        self.raw = dict(getattr(behaviours, "raw", {}))
        for method in service.methods:
            path = f"/{service.full_name}/{method.name}"
            other = path in others
            setattr(self, method.name, make(method, path) if other else getattr(behaviours, method.name))


class WritesRefused(OtherBehaviours):
    """The behaviours of a service, of which those that write say that this server does not."""

    def __init__(self, service: Any, behaviours: Any) -> None:
        super().__init__(service, behaviours, WRITES, lambda method, path: _refuse)


async def _refuse(request: Any, caller: Any, context: Any) -> None:
    raise PermissionDenied(
        "this server only reads (--read-only or --follow): write through the process that writes this database"
    )
