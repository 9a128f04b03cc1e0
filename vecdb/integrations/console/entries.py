"""Which token opens what. A browser that gave a token has a ticket for it, in a cookie.

    OneToken   the token that was printed at the start opens the one console
    SignIn     each token of a server opens a console of its own, which shows what that token reaches

Threads: `enter` may take long and is called in a thread; `console_of` is called on the event loop.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import threading
import time
from collections.abc import Callable
from typing import Any, Protocol

import vecdb
from vecdb.errors import PermissionDenied, VecdbError
from vecdb.integrations.console.context import Console, environment
from vecdb.integrations.console.view import View

SESSIONS_MAX = 64  # that are open at once; of more the one that was used longest ago is ended
IDLE_S_MAX = 8 * 3_600.0


class Entry(Protocol):
    """How browsers get in."""

    @property
    def in_address(self) -> bool:
        """Whether an address may carry the token."""

    @property
    def wanted(self) -> str:
        """What a browser without a ticket is told."""

    def enter(self, token: str) -> str | None:
        """A ticket; None for a wrong token."""

    def console_of(self, ticket: str) -> Console | None: ...

    def close(self) -> None: ...


class OneToken:
    """The token that was printed."""

    in_address = True
    wanted = "This console wants the token that it printed when it was started."

    def __init__(self, console: Console, token: str) -> None:
        self._console = console
        self._token = token.encode()
        self._ticket = hashlib.sha256(b"vecdb console cookie " + self._token).hexdigest()

    def enter(self, token: str) -> str | None:
        return self._ticket if hmac.compare_digest(token.encode(), self._token) else None

    def console_of(self, ticket: str) -> Console | None:
        return self._console if hmac.compare_digest(ticket.encode(), self._ticket.encode()) else None

    def close(self) -> None:
        self._console.jobs.close()


class SignIn:
    """Tokens of a server. open(token) : its database, as vecdb.open gives it."""

    in_address = False
    wanted = "Sign in with a token of the server; you will see what it reaches."

    def __init__(
        self,
        open: Callable[[str], vecdb.Database],
        *,
        write: bool = False,
        embed: Any = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._open = open
        self._write = write
        self._embed = embed
        self._clock = clock
        self._templates = environment()
        self._lock = threading.Lock()
        self._sessions: dict[bytes, tuple[Console, float]] = {}  # by the digest of the ticket; last used

    def enter(self, token: str) -> str | None:
        """Raises Unavailable where the server cannot be asked."""
        if not token or not token.isascii() or not token.isprintable():
            return None
        db = None
        try:
            db = self._open(token)
            db.collections()
        except VecdbError as error:
            if db is not None:
                db.close()
            if isinstance(error, PermissionDenied):
                return None
            raise
        ticket = secrets.token_urlsafe(24)
        console = Console(View.of(db, write=self._write, embed=self._embed), self._templates)
        with self._lock:
            self._sessions[_digest(ticket)] = (console, self._clock())
            ended = self._ended()
        for console in ended:
            _end(console)
        return ticket

    def console_of(self, ticket: str) -> Console | None:
        key = _digest(ticket)
        with self._lock:
            known = self._sessions.get(key)
            if known is None or self._clock() - known[1] > IDLE_S_MAX:
                return None
            del self._sessions[key]
            self._sessions[key] = (known[0], self._clock())  # the last in order
            return known[0]

    def _ended(self) -> list[Console]:
        """Sessions that are over, taken out; those that were used longest ago come first."""
        now, over = self._clock(), []
        for key, (console, used) in list(self._sessions.items()):
            if len(self._sessions) > SESSIONS_MAX or now - used > IDLE_S_MAX:
                over.append(console)
                del self._sessions[key]
        return over

    def close(self) -> None:
        with self._lock:
            consoles = [console for console, _ in self._sessions.values()]
            self._sessions.clear()
        for console in consoles:
            _end(console)


def _digest(ticket: str) -> bytes:
    return hashlib.sha256(ticket.encode("utf-8", "replace")).digest()


def _end(console: Console) -> None:
    console.jobs.close()
    console.view.db.close()
