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
_WATCHERS_MAX = 1_000


class Health:
    """names : of the services; "" is the server. All of them are ready, or none is."""

    def __init__(self, names: Sequence[str]) -> None:
        self._names = frozenset(names)
        self._status: Any = pb.HealthCheckResponse.NOT_SERVING
        self._changed = asyncio.Event()
        self._watchers = 0
        self._ended = False

    def set_serving(self, *, serving: bool) -> None:
        if not self._ended:
            self._status = pb.HealthCheckResponse.SERVING if serving else pb.HealthCheckResponse.NOT_SERVING
            self._wake()

    def end(self) -> None:
        """Not serving from now on. Clients that watch are told so, and their calls end."""
        self.set_serving(serving=False)
        self._ended = True

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
        if self._watchers >= _WATCHERS_MAX:
            raise exhausted(f"{_WATCHERS_MAX:,} watch already", 1.0)
        self._watchers += 1
        try:
            while True:
                changed = self._changed
                known = request.service in self._names
                status = self._status if known else pb.HealthCheckResponse.SERVICE_UNKNOWN
                await context.write(pb.HealthCheckResponse(status=status))
                if self._ended:
                    return
                await changed.wait()
        finally:
            self._watchers -= 1
