"""Admission control: bounds on the calls that the server holds, in all and for each caller, and each caller's rate.

A call is held from the moment it is let in until its answer was sent: while it waits, runs and is sent. A call beyond a
bound is refused at once and told how long to wait, because a queue that only grows helps nobody.

Threads: event loop only, no lock.
"""

from __future__ import annotations

import time

from vecdb_server.security.auth import Caller
from vecdb_server.status_errors import exhausted

_RETRY_S = 0.1  # a call that was refused for lack of room is told to try again after this


class Account:
    """How many calls one caller has under way, and how many more its rate allows now (a token bucket)."""

    __slots__ = ("allowance", "calls", "rate", "updated")

    def __init__(self, rate: float | None, now: float) -> None:
        self.calls = 0
        self.rate = rate
        self.allowance = 0.0 if rate is None else max(1.0, rate)  # the calls of one second may come at once
        self.updated = now

    def wait_s(self, now: float) -> float:
        """0, and one call is taken off the allowance; or how many seconds until one is allowed."""
        if self.rate is None:
            return 0.0
        self.allowance = min(max(1.0, self.rate), self.allowance + (now - self.updated) * self.rate)
        self.updated = now
        if self.allowance >= 1.0:
            self.allowance -= 1.0
            return 0.0
        return (1.0 - self.allowance) / self.rate


class Admission:
    """calls_max : held in all.   caller_calls_max : for one caller.   bytes_max : of the messages of held calls."""

    def __init__(self, calls_max: int, caller_calls_max: int, bytes_max: int) -> None:
        self.calls_max = calls_max
        self.caller_calls_max = caller_calls_max
        self.bytes_max = bytes_max
        self.calls = 0
        self.bytes = 0
        self.refused = 0
        self._accounts: dict[str, Account] = {}

    def account(self, caller: Caller) -> Account:
        """The account of the caller's name. When a token's rate changes, the account starts anew with it."""
        found = self._accounts.get(caller.name)
        if found is None:
            found = self._accounts[caller.name] = Account(caller.rate, time.monotonic())
        elif found.rate != caller.rate:
            found.__init__(caller.rate, time.monotonic())  # type: ignore[misc]
        return found

    def check(self, account: Account) -> None:
        """Called before a message is read: takes one call off the account's rate. Raises Refused."""
        if account.rate is not None:
            wait_s = account.wait_s(time.monotonic())
            if wait_s:
                self.refused += 1
                raise exhausted(f"this token may make {account.rate:g} requests a second", wait_s)
        self._check_room(account, 0)

    def enter(self, account: Account, size_bytes: int) -> None:
        """Called when the message has been read: counts the call until `leave`, or raises Refused."""
        self._check_room(account, size_bytes)
        account.calls += 1
        self.calls += 1
        self.bytes += size_bytes

    def leave(self, account: Account, size_bytes: int) -> None:
        account.calls -= 1
        self.calls -= 1
        self.bytes -= size_bytes

    def _check_room(self, account: Account, size_bytes: int) -> None:
        if account.calls >= self.caller_calls_max:
            self.refused += 1
            raise exhausted(f"{account.calls} requests of this token are under way: wait for some of them", _RETRY_S)
        if self.calls >= self.calls_max or self.bytes + size_bytes > self.bytes_max:
            self.refused += 1
            raise exhausted("the server holds as many requests as it can", _RETRY_S)
