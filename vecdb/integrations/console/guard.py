"""Who may ask a console, and what every answer says to browsers.

A token opens a console (entries.py): one that the printed address carries once, or one of a server; then a cookie
stands for it. Pages of
other sites can neither read nor act: the cookie does not go with their requests, names that do not mean this machine
are refused (DNS rebinding), and an action must come from the console's own page. Scripts and styles come from the
console alone: nothing in a page is ever run, whatever the data say.
"""

from __future__ import annotations

import ipaddress
import secrets
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.datastructures import URL, Headers, MutableHeaders, QueryParams
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from vecdb.errors import VecdbError
from vecdb.integrations.console.entries import Entry

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

BODY_BYTES_MAX = 1 << 18
CONSOLE = "vecdb.console"  # in a request's scope: whose pages it gets
_ENTER = "/enter"  # takes the form with the token
_OPEN = "/static/"  # style and scripts tell nothing
_HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), microphone=(), geolocation=()",
}


def new_token() -> str:
    return secrets.token_urlsafe(24)


class Guard:
    """Stands before the application. refused(request, status, message) : the page that says why."""

    def __init__(
        self, app: App, entry: Entry, host: str, refused: Callable[[Request, int, str], Response], name: str = "console"
    ) -> None:
        """host : what is listened at. name : of the cookie: cookies are shared by all ports of a machine."""
        self._app = app
        self._entry = entry
        self._host = host.strip("[]").lower()
        self._refused = refused
        self.cookie = f"vecdb_{name}"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            return await self._app(scope, receive, send)
        if scope["type"] != "http":  # no page uses a websocket
            await receive()
            return await send({"type": "websocket.close", "code": 1008})
        request = Request(scope, receive)
        answer = await self._answer(request)
        say = self._with_headers(request, send)
        await (self._app if answer is None else answer)(scope, receive, say)

    async def _answer(self, request: Request) -> Response | None:
        """None: the application may answer."""
        if not self.knows_host(request.headers.get("host", "")):
            return self._refused(request, 403, "This console answers to its own address only, not to this name.")
        path, acts = request.url.path, request.method not in ("GET", "HEAD")
        if path.startswith(_OPEN):
            return None
        given = request.query_params.get("token")
        if given is not None and not acts and self._entry.in_address:
            return await self._enter(request, given, _local(request.url))
        console = self._entry.console_of(request.cookies.get(self.cookie, ""))
        if console is None and path != _ENTER:
            return self._refused(request, 401, self._entry.wanted)
        if acts and not _from_itself(request.headers):
            return self._refused(request, 403, "An action must come from a page of this console.")
        if acts and int(request.headers.get("content-length") or BODY_BYTES_MAX + 1) > BODY_BYTES_MAX:
            return self._refused(request, 413, "That is more than a form of this console has.")
        if path == _ENTER and acts:
            form = await form_of(request)
            return await self._enter(request, "" if form is None else form.get("token", ""), "/")
        request.scope[CONSOLE] = console
        return None if console is not None else self._refused(request, 401, self._entry.wanted)

    async def _enter(self, request: Request, token: str, onward: str) -> Response:
        """Take the token out of the address, and give a cookie for it."""
        try:
            ticket = await run_in_threadpool(self._entry.enter, token)
        except VecdbError as error:
            return self._refused(request, 503, str(error))
        if ticket is None:
            return self._refused(request, 401, f"This token is not known. {self._entry.wanted}")
        answer = RedirectResponse(str(URL(onward).remove_query_params("token")), 303)
        answer.set_cookie(self.cookie, ticket, httponly=True, samesite="lax", path="/")
        return answer

    def knows_host(self, header: str) -> bool:
        """Whether a Host is an address, this machine's own name for itself, or the name that was given to listen at. A
        page that rebinds its name to this machine has another.
        """
        name = header.rpartition("]")[0].removeprefix("[") if header.startswith("[") else header.partition(":")[0]
        name = name.lower()
        if name in ("localhost", self._host) and name:
            return True
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return True

    def _with_headers(self, request: Request, send: Send) -> Send:
        fixed = request.url.path.startswith(_OPEN)

        async def say(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers[name] = value
                headers["cache-control"] = "max-age=3600" if fixed else "no-store"
            await send(message)

        return say


async def form_of(request: Request) -> QueryParams | None:
    """What a form says; None where that is more than a form of ours has."""
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > BODY_BYTES_MAX:
            return None
    return QueryParams(body.decode("utf-8", "replace"))


def _local(url: URL) -> str:
    path = "/" + url.path.lstrip("/")  # two slashes would begin a host
    return f"{path}?{url.query}" if url.query else path


def _from_itself(headers: Headers) -> bool:
    """Whether a request that may act comes from a page of the same origin. Browsers send Origin with each of them."""
    origin = headers.get("origin")
    if origin is not None:
        return origin.partition("://")[2] == headers.get("host")
    return headers.get("sec-fetch-site") == "same-origin"
