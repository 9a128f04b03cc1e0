"""How long a writer that another may replace answers reads: while it knew lately that nobody has.

    asked: GET log/<epoch>/<next>   nothing there: nobody had taken over when this was asked --> held until
    or this writer has created it   the same                                                    asked + staleness_s

Whoever takes over creates that object, later than `asked`, and its revokes return `staleness_s` after they are in the
log at the earliest (`LogWriter.wait_for_copies`): by then this one has stopped. So times of two machines are never
compared; both count the same seconds, each by its own monotonic clock. It counts from when a request was sent, since
its answer may have been under way for long.

Threads: one looks; `confirm`, `check`, `facts` and `end` from any.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Any

from vecdb.errors import Stale, VecdbError

_LOOKS = 3  # within `staleness_s`
now = time.monotonic  # what a lease is measured by
_log = logging.getLogger("vecdb")


class Lease:
    """Held from `confirmed_at` on. look() : asks the bucket; whether nobody had taken over then. Raises VecdbError or
    OSError where it does not answer.
    """

    def __init__(self, url: str, staleness_s: float, confirmed_at: float, look: Callable[[], bool]) -> None:
        self._url = url
        self._staleness_s = staleness_s
        self._confirmed_at = confirmed_at
        self._look = look
        self._asked_at = confirmed_at
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self.trouble = ""  # why the last look came to nothing

    def begin(self) -> None:
        """Look from now on, in a thread of its own: the one that writes the log may be at a large file for long."""
        self._thread = threading.Thread(target=self._run, name="vecdb-lease", daemon=True)
        self._thread.start()

    def confirm(self, asked: float) -> None:
        """Nobody had taken over at some moment since then. asked : when the bucket was about to be."""
        with self._lock:
            self._confirmed_at = max(self._confirmed_at, asked)

    @property
    def is_held(self) -> bool:
        return now() - self._confirmed_at < self._staleness_s

    def check(self) -> None:
        """Raise Stale where another may answer for this database by now."""
        if not self.is_held:
            raise Stale(
                f"this writer knew {now() - self._confirmed_at:.1f} s ago that nobody else writes its log, "
                f"staleness_s={self._staleness_s}: it does not answer from the past, since another may have taken "
                f"over. Ask a copy{'; ' + self.trouble if self.trouble else ''}"
            )

    def facts(self) -> dict[str, Any]:
        """For `stats()`. confirmed_s : how long ago it was known that nobody has taken over."""
        return {"staleness_s": self._staleness_s, "confirmed_s": now() - self._confirmed_at}

    def end(self) -> None:
        """Look no more. The lease runs out."""
        self._stop.set()

    def close(self) -> None:
        self.end()
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(max(0.0, self._rest_s())):
            if self._rest_s() <= 0:  # otherwise a commit has confirmed it meanwhile
                self.look()

    def _rest_s(self) -> float:
        """Until the next look."""
        return max(self._asked_at, self._confirmed_at) + self._staleness_s / _LOOKS - now()

    def look(self) -> None:
        self._asked_at = asked = now()
        try:
            if self._look():
                self.confirm(asked)
            self.trouble = ""
        except (VecdbError, OSError) as error:
            self.trouble = str(error)
        except Exception as error:
            _log.exception("the lease of the writer of %s is not renewed", self._url)
            self.trouble = f"looking failed ({error!r})"
