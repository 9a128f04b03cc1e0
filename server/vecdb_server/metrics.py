"""Prometheus metrics, on a loopback port of their own.

    vecdb_requests_total{rpc, code}      vecdb_request_seconds{rpc}
    vecdb_requests_held   vecdb_request_bytes_held   vecdb_requests_refused_total
    vecdb_jobs_queued{pool}   vecdb_jobs_running{pool}

Children are made once for each rpc and code; gauges are read when they are scraped.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, start_http_server

_BUCKETS_S = (0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30)


class Series:
    """What is counted of one rpc."""

    __slots__ = ("_codes", "_metrics", "_rpc", "_seconds")

    def __init__(self, metrics: Metrics, rpc: str) -> None:
        self._metrics = metrics
        self._rpc = rpc
        self._codes: dict[str, Any] = {}
        self._seconds = metrics.seconds.labels(rpc)

    def count(self, code: str, seconds: float) -> None:
        child = self._codes.get(code)
        if child is None:
            child = self._codes[code] = self._metrics.requests.labels(self._rpc, code)
        child.inc()
        self._seconds.observe(seconds)


class Metrics:
    """One registry for each server."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "vecdb_requests", "Requests, by what became of them.", ["rpc", "code"], registry=self.registry
        )
        self.seconds = Histogram(
            "vecdb_request_seconds", "From message to answer.", ["rpc"], buckets=_BUCKETS_S, registry=self.registry
        )
        self._series: dict[str, Series] = {}
        self._http: Any = None

    def series(self, method: str) -> Series:
        """method : as gRPC names it, /package.Service/Rpc."""
        if method not in self._series:
            self._series[method] = Series(self, method.removeprefix("/"))
        return self._series[method]

    def refused(self, method: str, code: str) -> None:
        self.requests.labels(method.removeprefix("/"), code).inc()

    def gauge(self, name: str, text: str, read: Callable[[], float], **labels: str) -> None:
        """A number that is read when it is scraped."""
        self.gauges({tuple(labels.values()): read}, name, text, tuple(labels))

    def gauges(
        self, reads: dict[tuple[str, ...], Callable[[], float]], name: str, text: str, labels: tuple[str, ...] = ()
    ) -> None:
        made = Gauge(name, text, labels, registry=self.registry)
        for values, read in reads.items():
            (made.labels(*values) if labels else made).set_function(read)

    def listen(self, host: str, port: int) -> int:
        """Serve /metrics. Returns the port."""
        self._http, _ = start_http_server(port, host, self.registry)
        return int(self._http.server_port)

    def close(self) -> None:
        if self._http is not None:
            self._http.shutdown()
            self._http.server_close()
