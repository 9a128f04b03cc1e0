"""Logs as JSON, one object a line, on standard error. Searches that succeed are not logged; tokens never are.

Calls that are not authenticated or are denied are logged with who made them from where (`RefusalLog`), so many a minute
as people read: nobody can fill the log.
"""

from __future__ import annotations

import logging
import sys
import time
import urllib.parse
from collections import Counter
from collections.abc import Callable
from typing import Any

import structlog

log: Any = structlog.stdlib.get_logger("vecdb.server")

_SHARED: list[Any] = [
    structlog.stdlib.add_log_level,
    structlog.stdlib.add_logger_name,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
    structlog.processors.format_exc_info,
]


def configure(level: str, **facts: Any) -> None:
    """Set up logging for the whole process; libraries log in the same format. facts : of this process, in each line."""

    def add_facts(logger: Any, method: str, event: Any) -> Any:
        return event | facts

    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *_SHARED,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                add_facts,
                structlog.processors.JSONRenderer(),
            ],
            foreign_pre_chain=_SHARED,
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())


class RefusalLog:
    """Lines that strangers can cause: of one address at most PEER_LINES a minute, in all LINES. What is left out is
    counted; the first of a minute that is left out says so, and the next minute says how many they were.

    clock : seconds.   Threads: event loop only.
    """

    LINES = 60
    PEER_LINES = 6

    def __init__(self, to: Any = log, clock: Callable[[], float] = time.monotonic) -> None:
        self._log = to
        self._clock = clock
        self._minute = -1
        self._lines: Counter[str] = Counter()  # by host; at most LINES of them
        self._left_out = 0

    def add(self, event: str, peer: str, **facts: Any) -> None:
        """peer : as gRPC names it, such as ipv4:10.0.0.1:4711."""
        minute = int(self._clock() // 60)
        if minute != self._minute:
            if self._left_out:
                self._log.warning("refusals were not logged", count=self._left_out)
            self._minute, self._left_out = minute, 0
            self._lines.clear()
        peer = urllib.parse.unquote(peer)
        host = peer.rpartition(":")[0] or peer
        if self._lines[host] >= self.PEER_LINES or self._lines.total() >= self.LINES:
            if not self._left_out:
                self._log.warning("more refusals: they are counted until the minute is over", peer=peer)
            self._left_out += 1
            return
        self._lines[host] += 1
        self._log.warning(event, peer=peer, **facts)
