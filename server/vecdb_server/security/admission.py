"""Admission control: bounds on what the server holds, in all, for each tenant and for each token; and tokens' rates.

    calls     messages in work, from the moment they are let in until their answer was sent
    bytes     of these messages
    streams   streams and lists, idle ones too: they hold no message, only a place in a table
    slow      calls whose message has not come a moment after their headers (slow_messages.py)

A token of a tenant counts for the tenant, too: a second token brings no second share. A part of everything is kept for
administrators. A call beyond a bound is refused at once and told how long to wait, because a queue that only grows
helps nobody; a message of a stream waits, and its sender with it.

Threads: event loop only, no lock.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

from vecdb_server.security.auth import Caller
from vecdb_server.security.counters import NO_BOUND, Counters, LocalCounters, Wanted
from vecdb_server.status_errors import Refused, exhausted

_RETRY_S = 0.1  # a call that was refused for lack of room is told to try again after this
_CALLS, _BYTES, _STREAMS, _SLOW, _REFUSED = "calls", "bytes", "streams", "slow", "refused"
_KEPT_SHARE_MAX = 0.25  # of everything, for administrators alone


@dataclass(frozen=True, slots=True)
class AdmissionLimits:
    """The settings of config.py with the same names."""

    requests_max: int
    token_requests_max: int
    request_bytes_max: int
    tenant_requests_max: int = NO_BOUND
    tenant_request_bytes_max: int = NO_BOUND
    admin_requests_kept: int = 0
    streams_max: int = NO_BOUND
    tenant_streams_max: int = NO_BOUND
    slow_messages_max: int = NO_BOUND
    tenant_slow_messages_max: int = NO_BOUND


class Account:
    """What one token has under way, and whether its rate allows one more call now.

    group : names whose share the token uses: its tenant's, or its own.   admin : it may use what is kept.
    """

    __slots__ = ("_counters", "_rate_name", "admin", "group", "has_tenant", "rate", "token")

    def __init__(self, caller: Caller, counters: Counters) -> None:
        self._counters = counters
        self.admin = caller.permission == "admin" and caller.tenant is None
        self.token = f"{_CALLS} by {caller.name}"
        self.has_tenant = caller.tenant is not None
        self.group = caller.group
        self.set_rate(caller.rate)

    def set_rate(self, rate: float | None) -> None:
        self.rate = rate
        self._rate_name = f"rate {rate} of {self.token}"  # another rate begins anew

    @property
    def calls(self) -> int:
        return self._counters.value(self.token)

    def wait_s(self, now: float) -> float:
        """0, and one call counts for the rate; or how many seconds until one is allowed."""
        return 0.0 if self.rate is None else self._counters.take(self._rate_name, self.rate, now)


class Admission:
    """counters : shared with other processes of the server, or this process's own."""

    def __init__(self, limits: AdmissionLimits, counters: Counters | None = None) -> None:
        self.limits = limits
        self._counters: Counters = LocalCounters() if counters is None else counters
        self._accounts: dict[tuple[str, str | None, str], Account] = {}
        kept = min(_KEPT_SHARE_MAX, limits.admin_requests_kept / limits.requests_max)
        self._open_to_all = 1.0 - kept

    # -- numbers for metrics and logs ----------------------------------------------------------------

    @property
    def calls(self) -> int:
        return self._counters.value(_CALLS)

    @property
    def bytes(self) -> int:
        return self._counters.value(_BYTES)

    @property
    def streams(self) -> int:
        return self._counters.value(_STREAMS)

    @property
    def held_here(self) -> int:
        """Calls and streams of this process, without those of the others of its server."""
        return self._counters.own(_CALLS) + self._counters.own(_STREAMS)

    @property
    def slow_messages(self) -> int:
        return self._counters.value(_SLOW)

    @property
    def refused(self) -> int:
        return self._counters.value(_REFUSED)

    def _count_refusal(self) -> None:
        self._counters.try_add(((_REFUSED, 1, NO_BOUND),))

    # -- calls ---------------------------------------------------------------------------------------

    def account(self, caller: Caller) -> Account:
        """The account of the caller's name. When a token's rate changes, the account starts anew with it."""
        key = caller.name, caller.tenant, caller.permission
        found = self._accounts.get(key)
        if found is None:
            found = self._accounts[key] = Account(caller, self._counters)
        elif found.rate != caller.rate:
            found.set_rate(caller.rate)
        return found

    def check(self, account: Account, *, room: bool = True) -> None:
        """Called before a message is read: takes one call off the account's rate. Raises Refused.

        room : whether there must be room for a message now; those of a stream wait for it.
        """
        if account.rate is not None:
            wait_s = account.wait_s(time.monotonic())
            if wait_s:
                self._count_refusal()
                raise exhausted(f"this token may make {account.rate:g} requests a second", wait_s)
        over = self._counters.first_over(self._wanted(account, 0)) if room else None
        if over is not None:
            raise self._refusal(account, over)

    def enter(self, account: Account, size_bytes: int) -> None:
        """Called when the message has been read: counts the call until `leave`, or raises Refused."""
        over = self._counters.try_add(self._wanted(account, size_bytes))
        if over is not None:
            raise self._refusal(account, over)

    def try_enter(self, account: Account, size_bytes: int) -> bool:
        """The same for what can wait."""
        return self._counters.try_add(self._wanted(account, size_bytes)) is None

    def leave(self, account: Account, size_bytes: int) -> None:
        group = account.group
        self._counters.subtract((
            (account.token, 1), (f"{_CALLS} of {group}", 1), (_CALLS, 1),
            (f"{_BYTES} of {group}", size_bytes), (_BYTES, size_bytes),
        ))  # fmt: skip

    def _wanted(self, account: Account, size_bytes: int) -> tuple[Wanted, ...]:
        limits, group = self.limits, account.group
        return (
            (account.token, 1, limits.token_requests_max),
            (f"{_CALLS} of {group}", 1, limits.tenant_requests_max if account.has_tenant else NO_BOUND),
            (f"{_BYTES} of {group}", size_bytes, NO_BOUND if account.admin else limits.tenant_request_bytes_max),
            (_CALLS, 1, self._most(account, limits.requests_max)),
            (_BYTES, size_bytes, self._most(account, limits.request_bytes_max)),
        )

    def _most(self, account: Account, most: int) -> int:
        """A bound as it is for this account: administrators may use all of it."""
        return most if account.admin else int(most * self._open_to_all)

    def _refusal(self, account: Account, over: str) -> Refused:
        self._count_refusal()
        if over == account.token:
            return exhausted(f"{account.calls} requests of this token are under way: wait for some of them", _RETRY_S)
        if over.endswith(account.group):
            what = "the messages" if over.startswith(_BYTES) else f"the {self._counters.value(over)} {_said(over)}"
            return exhausted(f"{what} of this tenant are as much as it may have: wait for some of them", _RETRY_S)
        if over == _STREAMS:
            return exhausted("the server holds as many streams as it can", _RETRY_S)
        return exhausted("the server holds as many requests as it can", _RETRY_S)

    # -- streams and slow messages -------------------------------------------------------------------

    def open_stream(self, account: Account) -> None:
        """Counts a stream until `close_stream`, or raises Refused."""
        limits = self.limits
        most = NO_BOUND if account.admin else limits.tenant_streams_max
        own, all_of_them = (f"{_STREAMS} of {account.group}", 1, most), self._most(account, limits.streams_max)
        over = self._counters.try_add((own, (_STREAMS, 1, all_of_them)))
        if over is not None:
            raise self._refusal(account, over)

    def close_stream(self, account: Account) -> None:
        self._counters.subtract(((f"{_STREAMS} of {account.group}", 1), (_STREAMS, 1)))

    def begin_slow(self, account: Account) -> bool:
        """Whether one more call may wait for its message; it is counted until `end_slow`."""
        limits = self.limits
        most = NO_BOUND if account.admin else limits.tenant_slow_messages_max
        own = f"{_SLOW} of {account.group}", 1, most
        return self._counters.try_add((own, (_SLOW, 1, self._most(account, limits.slow_messages_max)))) is None

    def end_slow(self, account: Account) -> None:
        self._counters.subtract(((f"{_SLOW} of {account.group}", 1), (_SLOW, 1)))


def _said(count: str) -> str:
    return "streams" if count.startswith(_STREAMS) else "requests"
