"""Prometheus metrics, on a loopback port of their own.

    vecdb_requests_total{rpc, code}      vecdb_request_seconds{rpc}
    vecdb_requests_held   vecdb_request_bytes_held   vecdb_requests_refused_total
    vecdb_jobs_queued{pool}   vecdb_jobs_running{pool}

Calls are counted on the event loop, in plain numbers. Counters, histograms and gauges are built from these when the
page is read, on the thread of the page.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator
from itertools import accumulate
from typing import Any

from prometheus_client import CollectorRegistry, Gauge, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily

from vecdb_server.config import Config

_BUCKETS_S = (0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30)


class Series:
    """The counts of one rpc. codes : calls by status code.   times : calls by duration, one count for each bucket."""

    __slots__ = ("codes", "seconds", "times")

    def __init__(self) -> None:
        self.codes: dict[str, int] = {}
        self.times = [0] * (len(_BUCKETS_S) + 1)
        self.seconds = 0.0

    def count(self, code: str, seconds: float) -> None:
        self.codes[code] = self.codes.get(code, 0) + 1
        self.times[bisect_left(_BUCKETS_S, seconds)] += 1
        self.seconds += seconds


class _Family:
    """A collector of numbers by the value of one label."""

    def __init__(self, name: str, text: str, label: str, read: Callable[[], dict[str, float]]) -> None:
        self._facts = name, text, label
        self._read = read

    def collect(self) -> Iterator[Any]:
        """Called by the registry, on the thread of the page."""
        name, text, label = self._facts
        family = GaugeMetricFamily(name, text, labels=[label])
        for value, number in self._read().items():
            family.add_metric([value], number)
        yield family


class Metrics:
    """One registry for each server."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._series: dict[str, Series] = {}
        self._http: Any = None
        self.registry.register(self)

    def series(self, method: str) -> Series:
        """method : as gRPC names it, /package.Service/Rpc."""
        return self._series.setdefault(method.removeprefix("/"), Series())

    def refused(self, method: str, code: str) -> None:
        """A call that was refused by its headers, before it took any time."""
        codes = self.series(method).codes
        codes[code] = codes.get(code, 0) + 1

    def collect(self) -> Iterator[Any]:
        """Called by the registry, on the thread of the page."""
        requests = CounterMetricFamily(
            "vecdb_requests", "Requests, by what became of them.", labels=["rpc", "code"]
        )  # fmt: skip
        seconds = HistogramMetricFamily("vecdb_request_seconds", "From message to answer.", labels=["rpc"])
        bounds = [*map(str, map(float, _BUCKETS_S)), "+Inf"]
        for rpc, series in list(self._series.items()):
            for code, count in list(series.codes.items()):
                requests.add_metric([rpc, code], count)
            seconds.add_metric([rpc], list(zip(bounds, accumulate(list(series.times)))), series.seconds)
        yield requests
        yield seconds

    def gauges_of(self, name: str, text: str, label: str, read: Callable[[], dict[str, float]]) -> None:
        """Numbers by the value of a label, as many as there are when the page is read."""
        self.registry.register(_Family(name, text, label, read))

    def gauge(self, name: str, text: str, read: Callable[[], float], **labels: str) -> None:
        """A number that is read when the page is read."""
        self.gauges({tuple(labels.values()): read}, name, text, tuple(labels))

    def gauges(
        self, reads: dict[tuple[str, ...], Callable[[], float]], name: str, text: str, labels: tuple[str, ...] = ()
    ) -> None:
        made = Gauge(name, text, labels, registry=self.registry)
        for values, read in reads.items():
            (made.labels(*values) if labels else made).set_function(read)

    def listen(self, host: str, port: int, tls: Config | None = None) -> int:
        """Serve /metrics. Returns the port. tls : whose certificate is shown, and whose clients are asked for theirs."""
        secure: dict[str, Any] = {}
        if tls is not None:
            asks = tls.tls_client_ca is not None
            secure = {"certfile": tls.tls_cert, "keyfile": tls.tls_key}
            secure |= {"client_cafile": tls.tls_client_ca, "client_auth_required": asks} if asks else {}
        self._http, _ = start_http_server(port, host, self.registry, **secure)
        return int(self._http.server_port)

    def close(self) -> None:
        if self._http is not None:
            self._http.shutdown()
            self._http.server_close()
