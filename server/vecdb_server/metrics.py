"""Prometheus metrics, on a port of their own.

    vecdb_requests_total{rpc, code}      vecdb_request_seconds{rpc}
    vecdb_requests_held   vecdb_request_bytes_held   vecdb_requests_refused_total
    vecdb_jobs_queued{pool}   vecdb_jobs_running{pool}
    vecdb_commit_seconds      vecdb_collection_records{collection}   ..._rows   ..._tail_rows   ..._recall
    vecdb_disk_free_bytes     vecdb_backup_age_seconds

The last two lines are of the database (`DatabaseMetrics`): of what it knows without looking at its files, and of its
disk. Calls are counted on the event loop, in plain numbers. Counters, histograms and gauges are built from these when
the page is read, on the thread of the page.
"""

from __future__ import annotations

import contextlib
import os
import time
from bisect import bisect_left
from collections.abc import Callable, Iterator
from itertools import accumulate
from pathlib import Path
from typing import Any, Protocol

from prometheus_client import CollectorRegistry, Gauge, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily

from vecdb_server.config import Config

BUCKETS_S = (0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30)


class CallCounts(Protocol):
    """Where the calls of one rpc are counted."""

    def refused(self, code: str) -> None: ...

    def count(self, code: str, seconds: float) -> None: ...


class Series:
    """The counts of one rpc. codes : calls by status code.   times : calls by duration, one count for each bucket."""

    __slots__ = ("codes", "seconds", "times")

    def __init__(self) -> None:
        self.codes: dict[str, int] = {}
        self.times = [0] * (len(BUCKETS_S) + 1)
        self.seconds = 0.0

    def refused(self, code: str) -> None:
        """A call that was refused by its headers, before it took any time."""
        self.codes[code] = self.codes.get(code, 0) + 1

    def count(self, code: str, seconds: float) -> None:
        self.codes[code] = self.codes.get(code, 0) + 1
        self.times[bisect_left(BUCKETS_S, seconds)] += 1
        self.seconds += seconds


class Metrics:
    """One registry for each server. totals : where the page takes the counts from; None for those of this process."""

    def __init__(self, totals: Callable[[], dict[str, Series]] | None = None) -> None:
        self.registry = CollectorRegistry()
        self._series: dict[str, Series] = {}
        self._totals = totals
        self._http: Any = None
        self.registry.register(self)

    def series(self, method: str) -> CallCounts:
        """method : as gRPC names it, /package.Service/Rpc."""
        return self._series.setdefault(method.removeprefix("/"), Series())

    def refused(self, method: str, code: str) -> None:
        """A call that was refused by its headers, before it took any time."""
        self.series(method).refused(code)

    def collect(self) -> Iterator[Any]:
        """Called by the registry, on the thread of the page."""
        requests = CounterMetricFamily(
            "vecdb_requests", "Requests, by what became of them.", labels=["rpc", "code"]
        )  # fmt: skip
        seconds = HistogramMetricFamily("vecdb_request_seconds", "From message to answer.", labels=["rpc"])
        bounds = [*map(str, map(float, BUCKETS_S)), "+Inf"]
        for rpc, series in list((self._totals() if self._totals else self._series).items()):
            for code, count in list(series.codes.items()):
                requests.add_metric([rpc, code], count)
            seconds.add_metric([rpc], list(zip(bounds, accumulate(list(series.times)))), series.seconds)
        yield requests
        yield seconds

    def database(self, stats: Callable[[], dict[str, Any]], path: Path, backups: Path | None) -> None:
        """What the database says of itself when the page is read."""
        self.registry.register(DatabaseMetrics(stats, path, backups))

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
        """Serve /metrics. Returns the port. tls : settings that name the certificate; None for plain HTTP."""
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


class DatabaseMetrics:
    """A collector of what a database says of itself. stats : `Database.stats` without the disk.

    backups : the folder for them; it is listed again only when it has changed.
    """

    def __init__(self, stats: Callable[[], dict[str, Any]], path: Path, backups: Path | None) -> None:
        self._stats = stats
        self._path = path
        self._backups = backups
        self._seen: tuple[int, float | None] = (-1, None)  # when the folder changed, when its newest backup was made

    def collect(self) -> Iterator[Any]:
        """Called by the registry, on the thread of the page."""
        stats = self._stats()
        times = stats["commit_times"]
        if times is not None:  # it commits
            bounds = [*map(str, times["bounds_s"]), "+Inf"]
            yield HistogramMetricFamily(
                "vecdb_commit_seconds", "Commits, of one or more writes each.",
                buckets=list(zip(bounds, accumulate(times["counts"]), strict=True)), sum_value=times["seconds"],
            )  # fmt: skip
        for name, text, key in (
            ("records", "Live records of each collection in use.", "live"),
            ("rows", "Rows, deleted ones too, until the next vacuum.", "rows"),
            ("tail_rows", "Rows that the index has not taken yet: every search compares them.", "tail_rows"),
        ):
            family = GaugeMetricFamily(f"vecdb_collection_{name}", text, labels=["collection"])
            for collection, facts in stats["open"].items():
                family.add_metric([collection], facts[key])
            yield family
        recall = GaugeMetricFamily(
            "vecdb_collection_recall", "Recall@10 of searches that name no width, as measured last.",
            labels=["collection"],
        )  # fmt: skip
        for collection, measured in stats["recall"].items():
            recall.add_metric([collection], measured)
        yield recall
        if "log" in stats:
            yield from _of_log(stats["log"])
        found = os.statvfs(self._path)
        yield GaugeMetricFamily(
            "vecdb_disk_free_bytes", "Room on the disk of the database.", found.f_bavail * found.f_frsize
        )
        made = self._newest_backup()
        if made is not None:
            age_s = max(0.0, time.time() - made)
            yield GaugeMetricFamily("vecdb_backup_age_seconds", "Age of the newest backup in their folder.", age_s)

    def _newest_backup(self) -> float | None:
        """When it was made, in seconds since 1970; None where there is none."""
        if self._backups is None:
            return None
        with contextlib.suppress(OSError):
            changed = self._backups.stat().st_mtime_ns
            if changed != self._seen[0]:
                self._seen = changed, max(map(_made, self._backups.iterdir()), default=None)
        return self._seen[1] or None


def _of_log(facts: dict[str, Any]) -> Iterator[Any]:
    """facts : `stats()["log"]`, of a writer or of a copy."""
    for name, text, value in (
        ("reached", "Whether the bucket of the log answers.", facts["trouble"] is None),
        ("answers", "Whether reads are answered: not by a copy, or a writer with a lease, that was cut off too long.",
         facts["answers"]),
        ("waiting", "Commits that are not in the log yet; of a copy 0.", facts.get("waiting", 0)),
    ):  # fmt: skip
        yield GaugeMetricFamily(f"vecdb_log_{name}", text, float(value))


def _made(backup: Path) -> float:
    """When a backup was finished; 0 for what is none."""
    with contextlib.suppress(OSError):
        return (backup / "checksums.json").stat().st_mtime
    return 0.0
