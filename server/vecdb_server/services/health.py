"""grpc.health.v1: whether this server is ready. Anybody may ask, and a full server still answers."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import grpc
from grpc_health.v1 import health_pb2 as pb

from vecdb_server.security.auth import Caller
from vecdb_server.status_errors import Refused, exhausted

SERVICE = pb.DESCRIPTOR.services_by_name["Health"]


class Health:
    """names : of the services; "" is the server. All of them are ready, or none is.   watches_max : calls at once."""

    def __init__(self, names: Sequence[str], watches_max: int) -> None:
        self._names = frozenset(names)
        self._watches_max = watches_max
        self._status: Any = pb.HealthCheckResponse.NOT_SERVING
        self._changed = asyncio.Event()
        self._watches: dict[str, list[asyncio.Event]] = {}  # host -> what ends each of its watches, the oldest first
        self._ended = False

    def set_serving(self, *, serving: bool) -> None:
        status = pb.HealthCheckResponse.SERVING if serving else pb.HealthCheckResponse.NOT_SERVING
        if not self._ended and status != self._status:
            self._status = status
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
        if request.service not in self._names:
            raise Refused(grpc.StatusCode.NOT_FOUND, "there is no such service")
        return pb.HealthCheckResponse(status=self._status)

    async def List(self, request: Any, caller: Caller, context: Any) -> Any:
        return pb.HealthListResponse(
            statuses={name: pb.HealthCheckResponse(status=self._status) for name in sorted(self._names)}
        )

    async def Watch(self, request: Any, caller: Caller, context: Any) -> None:
        known, own = request.service in self._names, asyncio.Event()
        host = context.peer().rpartition(":")[0]
        self._make_room()
        self._watches.setdefault(host, []).append(own)
        leaving = asyncio.ensure_future(own.wait())
        try:
            while not own.is_set():
                changed = asyncio.ensure_future(self._changed.wait())
                status = self._status if known else pb.HealthCheckResponse.SERVICE_UNKNOWN
                await context.write(pb.HealthCheckResponse(status=status))
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
