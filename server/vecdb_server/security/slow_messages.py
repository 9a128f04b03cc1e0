"""Calls whose message does not come: few may wait for it, and none for long.

    headers -> began -> the message came -> ended
                 a moment later, still waiting: slow; too many of these, or too long: the call is ended as CANCELLED

gRPC gathers a message in its own memory before anybody sees it, up to `message_bytes_max` for each call. Nearly all
messages come with their headers. Those that do not are counted, so that what is being gathered has a bound over all
connections: slow calls times the longest message, and what comes within a moment.

Threads: event loop only.
"""

from __future__ import annotations

import asyncio
import time

from vecdb_server.logs import log
from vecdb_server.security.admission import Account, Admission

_MOMENT_S = 0.25
_LOG_S = 1.0  # a caller may end any number of calls so: one line for those of a second


class SlowMessages:
    """message_s : how long a message may take to come."""

    def __init__(self, admission: Admission, message_s: float) -> None:
        self._admission = admission
        self._message_s = message_s
        self._waiting: dict[asyncio.Task[object], tuple[float, Account]] = {}  # in the order in which they began
        self._slow: dict[asyncio.Task[object], tuple[float, Account]] = {}
        self._ended = 0
        self._logged = float("-inf")

    def __len__(self) -> int:
        return len(self._waiting) + len(self._slow)

    def began(self, account: Account) -> None:
        """The current task has read a call's headers and now waits for its message."""
        task = asyncio.current_task()
        assert task is not None
        self._waiting[task] = time.monotonic(), account

    def ended(self) -> None:
        """The message of the current task's call has come."""
        task = asyncio.current_task()
        if self._waiting.pop(task, None) is None:  # type: ignore[arg-type]
            self._forget(task)  # type: ignore[arg-type]

    def _forget(self, task: asyncio.Task[object]) -> None:
        found = self._slow.pop(task, None)
        if found is not None:
            self._admission.end_slow(found[1])

    async def watch(self) -> None:
        """Runs as long as the server does."""
        while True:
            await asyncio.sleep(_MOMENT_S)
            self.look(time.monotonic())

    def look(self, now: float) -> None:
        for task in [one for one in self._slow if one.done()]:  # their callers went away
            self._forget(task)
        for task, (began, account) in list(self._waiting.items()):
            if task.done():
                del self._waiting[task]
                continue
            if now - began < _MOMENT_S:
                break
            del self._waiting[task]
            if self._admission.begin_slow(account):
                self._slow[task] = began, account
            else:
                self._end(task, account, now)
        for task, (began, account) in list(self._slow.items()):
            if now - began > self._message_s:
                self._forget(task)
                self._end(task, account, now)

    def _end(self, task: asyncio.Task[object], account: Account, now: float) -> None:
        task.cancel()
        self._ended += 1
        if now - self._logged >= _LOG_S:
            log.warning("calls ended whose message did not come", calls=self._ended, last_of=account.group)
            self._ended, self._logged = 0, now
