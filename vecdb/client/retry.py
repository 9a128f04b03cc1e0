"""Whether, and after how long, a call or a stream that failed is started again.

a call      until its time is up: after a refusal for want of room when the server says so, whatever the call is;
            after a connection that was lost where it may be made twice (channel.py)
a stream    as long as it is answered now and then
"""

from __future__ import annotations

import time
from typing import Any

from vecdb.client.channel import PASSING, REPEATED, WRITE_S
from vecdb.client.status_errors import retry_after, status_of

_ATTEMPTS_MAX = 180  # in a row without an answer: together they take about as long as a write may take
_FIRST_WAIT_S = 0.2
_WAIT_MAX_S = 0.5  # short: a server is back within two seconds, and one that restarts often is up for moments only


class RetryPolicy:
    """Waits that double from attempt to attempt, up to a bound."""

    def __init__(self) -> None:
        self._failures = 0

    def reset(self) -> None:
        """There was an answer: count failures from zero again."""
        self._failures = 0

    def wait_s(self, status: str) -> float | None:
        """Seconds until the next attempt, after one that ended with this gRPC status; None: make no other attempt."""
        self._failures += 1
        if status not in PASSING or self._failures >= _ATTEMPTS_MAX:
            return None
        return doubled_s(self._failures)


def doubled_s(failures: int) -> float:
    """Seconds to wait after so many failures in a row."""
    return min(_WAIT_MAX_S, _FIRST_WAIT_S * 2.0 ** (failures - 1))


class Patience:
    """How long one call is tried. timeout_s : its own; None: of one that reports progress, and lasts as it lasts."""

    __slots__ = ("_ends", "_failures", "_last", "_rpc", "_waits_until")

    def __init__(self, rpc: str, timeout_s: float | None) -> None:
        now = time.monotonic()
        self._rpc = rpc
        self._ends = None if timeout_s is None else now + timeout_s
        self._waits_until = now + min(WRITE_S if timeout_s is None or timeout_s > WRITE_S else timeout_s, 86_400.0)
        self._failures = 0
        self._last: Any = None

    def left_s(self) -> float | None:
        """Seconds that the next attempt may take."""
        return None if self._ends is None else max(0.0, self._ends - time.monotonic())

    def wait_s(self, failed: Any, *, begun: bool = False) -> float | None:
        """Seconds until the next attempt, after one that failed; None: make no other. begun : it had answers."""
        self._failures += 1
        wait_s = None if begun else retry_after(failed)
        if wait_s is None:
            if begun or self._rpc not in REPEATED or status_of(failed) not in PASSING:
                return None
            wait_s = doubled_s(self._failures)
        self._last = failed
        return wait_s if time.monotonic() + wait_s < self._waits_until else None

    def cause(self, failed: Any) -> Any:
        """The failure to report: where the time was up in an attempt, that of the attempt before."""
        out_of_time = self._last is not None and failed.code().name == "DEADLINE_EXCEEDED"
        return self._last if out_of_time else failed
