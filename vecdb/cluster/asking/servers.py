"""One server of a shard, as the cluster knows it: a channel, and what it was seen to do.

A server that answers is watched (grpc.health.v1.Health/Watch). While a call is open gRPC keeps the thread that takes in
what comes over the channel; without one it starts a thread for each call, which costs 0.3 ms of each.
"""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import grpc

from vecdb.client.address import target
from vecdb.client.connection import BaseConnection
from vecdb.client.status_errors import error_from
from vecdb.errors import VecdbError

_WATCH = "/grpc.health.v1.Health/Watch"
_WATCH_S = 5.0  # between two attempts to watch a server
_FAILED_S = 1.0  # for so long a server that failed is asked after the others


def _unchanged(message: bytes) -> bytes:
    return message


@dataclass(frozen=True, slots=True)
class Access:
    """How every server of a cluster is reached: arguments of `vecdb.open`."""

    token: Any = None
    tls: Any = None
    insecure: Any = False


class Server(BaseConnection):
    """Calls are started and answered later; none is repeated.

    known : the newest commit that its answers have shown.   failed_at : of the monotonic clock.
    """

    def __init__(self, address: str, access: Access) -> None:
        super().__init__(target(address, access.token, access.tls, access.insecure), None, grpc)
        self.address = address
        self.known = 0
        self._failed_at = -_FAILED_S
        self._watch: Any = None
        self._watched_at = -_WATCH_S
        self._start_watch = self._life.channel.unary_stream(_WATCH, _unchanged, _unchanged)

    def start(self, rpc: str, request: Any, timeout_s: float | None, *, streamed: bool = False) -> Any:
        """A call: a future, or where its answers are `streamed` an iterator. Raises Unavailable where it is closed."""
        self._begin(rpc)
        return self._start(rpc, request, timeout_s, future=not streamed)

    def error(self, failed: Any, rpc: str, timeout_s: float | None) -> VecdbError:
        """The error that a call which failed stands for."""
        return self._closed_error() if self.closed else error_from(failed, rpc, self.name, timeout_s)

    def note_answer(self, answer: Any) -> None:
        self._failed_at = -_FAILED_S
        self.known = max(self.known, getattr(answer, "sequence", 0))
        if self._watch is None or not self._watch.is_active():
            self._keep_watch()

    def _keep_watch(self) -> None:
        now = time.monotonic()
        if now - self._watched_at > _WATCH_S and not self.closed:
            self._watched_at = now
            with suppress(ValueError):  # the channel was closed at this moment
                self._watch = self._start_watch(b"", metadata=self._metadata)

    def note_failure(self) -> None:
        self._failed_at = time.monotonic()

    @property
    def failed_lately(self) -> bool:
        return time.monotonic() - self._failed_at < _FAILED_S

    def close(self) -> None:
        if not self.closed:
            self._life.closed = True
            if self._watch is not None:
                self._watch.cancel()
            self._life.channel.close()
