"""How often a stream that broke is begun anew, and after how long."""

from __future__ import annotations

from vecdb.client.channel import PASSING

_ATTEMPTS_MAX = 45  # in a row, without an answer: about as long as a write may take
_FIRST_WAIT_S = 0.2
_WAIT_MAX_S = 2.0  # a server that restarts often is up for moments


class RetryPolicy:
    def __init__(self) -> None:
        self._failures = 0

    def renew(self) -> None:
        """There was an answer."""
        self._failures = 0

    def wait_s(self, status: str) -> float | None:
        """Seconds until another attempt after one that ended with this gRPC status; None where there shall be none."""
        self._failures += 1
        if status not in PASSING or self._failures >= _ATTEMPTS_MAX:
            return None
        return min(_WAIT_MAX_S, _FIRST_WAIT_S * 2.0 ** (self._failures - 1))
