"""Whether, and after how long, a stream that broke is started again."""

from __future__ import annotations

from vecdb.client.channel import PASSING

_ATTEMPTS_MAX = 45  # in a row without an answer: together they take about as long as a write may take
_FIRST_WAIT_S = 0.2
_WAIT_MAX_S = 2.0  # short, because a server that restarts often is up for moments only


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
        return min(_WAIT_MAX_S, _FIRST_WAIT_S * 2.0 ** (self._failures - 1))
