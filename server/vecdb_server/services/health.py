"""grpc.health.v1: whether this server is ready. Anybody may ask, and a full server still answers.

    "", services of the contract   reads are answered: what a load balancer of searches asks
    vecdb.write                    so are writes, as far as is known: not by a copy
    vecdb.log                      the bucket of the log answers, or there is none

NOT_SERVING means that callers should go elsewhere, not that the process should be started anew: a copy that knows
nothing new, or a writer that is cut off from its bucket, goes on by itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import grpc
from grpc_health.v1 import health_pb2 as pb

from vecdb_server.security.auth import Caller
from vecdb_server.status_errors import Refused, exhausted

SERVICE = pb.DESCRIPTOR.services_by_name["Health"]


WRITE, LOG = "vecdb.write", "vecdb.log"


class Health:
    """names : of the services; "" is the server. All of them are ready, or none is.   watches_max : calls at once."""

    def __init__(self, names: Sequence[str], watches_max: int) -> None:
        self._watches_max = watches_max
        self._statuses: dict[str, Any] = dict.fromkeys((*names, WRITE, LOG), pb.HealthCheckResponse.NOT_SERVING)
        self._changed = asyncio.Event()
        self._watches: dict[str, list[asyncio.Event]] = {}  # host -> what ends each of its watches, the oldest first
        self._ended = False

    def status(self, name: str = "") -> Any:
        """SERVING, NOT_SERVING, or SERVICE_UNKNOWN for a name that is none."""
        return self._statuses.get(name, pb.HealthCheckResponse.SERVICE_UNKNOWN)

    def set_serving(self, *, serving: bool, writes: bool = False, log: bool = False) -> None:
        """serving : reads are answered.   writes : so are writes.   log : the bucket of the log answers."""
        known = {WRITE: writes, LOG: log}
        statuses = {
            name: pb.HealthCheckResponse.SERVING if known.get(name, serving) else pb.HealthCheckResponse.NOT_SERVING
            for name in self._statuses
        }
        if not self._ended and statuses != self._statuses:
            self._statuses = statuses
            self._wake()

    def end(self) -> None:
        """Not serving from now on. Clients that watch are told so, and their calls end."""
        self.set_serving(serving=False)
        self._ended = True
        self._wake()

    def _wake(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    async def Check(self, request: Any, caller: Caller, context: Any) -> Any:
        if request.service not in self._statuses:
            raise Refused(grpc.StatusCode.NOT_FOUND, "there is no such service")
        return pb.HealthCheckResponse(status=self.status(request.service))

    async def List(self, request: Any, caller: Caller, context: Any) -> Any:
        return pb.HealthListResponse(
            statuses={name: pb.HealthCheckResponse(status=self.status(name)) for name in sorted(self._statuses)}
        )

    async def Watch(self, request: Any, caller: Caller, context: Any) -> None:
        own, told = asyncio.Event(), None
        host = context.peer().rpartition(":")[0]
        self._make_room()
        self._watches.setdefault(host, []).append(own)
        leaving = asyncio.ensure_future(own.wait())
        try:
            while not own.is_set():
                changed = asyncio.ensure_future(self._changed.wait())
                status = self.status(request.service)
                if status != told:
                    await context.write(pb.HealthCheckResponse(status=status))
                told = status
                if self._ended:
                    changed.cancel()
                    return
                try:
                    await asyncio.wait((changed, leaving), return_when=asyncio.FIRST_COMPLETED)
                finally:
                    changed.cancel()
            raise exhausted("there are too many watches of this address: this was the oldest", 1.0)
        finally:
            leaving.cancel()
            if own in self._watches.get(host, ()):
                self._drop(host, own)

    def _make_room(self) -> None:
        """While there are too many watches, the host that has the most loses its oldest."""
        while sum(map(len, self._watches.values())) >= self._watches_max:
            host = max(self._watches, key=lambda one: len(self._watches[one]))
            oldest = self._watches[host][0]
            self._drop(host, oldest)
            oldest.set()

    def _drop(self, host: str, watch: asyncio.Event) -> None:
        self._watches[host].remove(watch)
        if not self._watches[host]:
            del self._watches[host]
