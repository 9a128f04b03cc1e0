"""The application: which page is at which address. Pages run in threads, so that none keeps another waiting."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from vecdb.errors import (
    AlreadyExists,
    InvalidArgument,
    LimitExceeded,
    NotFound,
    PermissionDenied,
    Unavailable,
    VecdbError,
)
from vecdb.integrations.console.context import Asked, Console, environment
from vecdb.integrations.console.entries import Entry
from vecdb.integrations.console.guard import CONSOLE, Guard, form_of
from vecdb.integrations.console.pages import collections, live, maps, progress, recall, records, search, tenants

Page = Callable[[Console, Asked], Response]

_SHOWN: dict[str, Page] = {
    "/": collections.overview,
    "/collection": collections.one,
    "/records": records.listed,
    "/record": records.one,
    "/search": search.searched,
    "/tenants": tenants.listed,
    "/tenant": tenants.one,
    "/recall": recall.shown,
    "/map": maps.shown,
    "/map/points": maps.points,
    "/live": live.shown,
    "/live/figures": live.figures_now,
    "/job": progress.asked_for,
}
_DONE: dict[str, Page] = {  # what changes something asks `view.require_write` itself
    "/collection/optimize": collections.optimize,
    "/collection/vacuum": collections.vacuum,
    "/record/delete": records.delete,
    "/tenants/create": tenants.create,
    "/tenant/grant": tenants.grant,
    "/tenant/revoke": tenants.revoke,
    "/recall/measure": recall.measure,
    "/recall/tune": recall.tune,
    "/map/draw": maps.draw,
    "/job/stop": progress.stop,
}
_STATUS: list[tuple[type[VecdbError], int]] = [
    (LimitExceeded, 400), (InvalidArgument, 400), (NotFound, 404), (AlreadyExists, 409), (PermissionDenied, 403),
    (Unavailable, 503),
]  # fmt: skip


def application(entry: Entry, host: str, name: str = "console") -> Guard:
    """The ASGI application. host : what is listened at. name : of the cookie."""
    templates = environment()

    def refused(request: Request, status: int, message: str) -> Response:
        page = templates.get_template("refused.html")
        return HTMLResponse(page.render(message=message, wants_token=status == 401), status)

    async def missing(request: Request, error: Exception) -> Response:
        status = error.status_code if isinstance(error, HTTPException) else 500
        message = {
            404: "There is no such page.",
            405: "This address takes no such request.",
            413: "That is more than a form of this console has.",
            500: "A defect of vecdb; the console printed where.",
        }.get(status, "")
        return refused(request, status, message or "This request cannot be answered.")

    routes = [
        Mount("/static", StaticFiles(packages=[("vecdb.integrations.console", "static")])),
        *(Route(path, _endpoint(page), methods=["GET"]) for path, page in _SHOWN.items()),
        *(Route(path, _endpoint(page), methods=["POST"]) for path, page in _DONE.items()),
    ]
    inner = Starlette(routes=routes, exception_handlers={HTTPException: missing, 500: missing})
    return Guard(inner, entry, host, refused, name)


def _endpoint(page: Page) -> Callable[[Request], Awaitable[Response]]:
    async def endpoint(request: Request) -> Response:
        values = request.query_params if request.method != "POST" else await form_of(request)
        if values is None:
            raise HTTPException(413)
        return await run_in_threadpool(_answered, request.scope[CONSOLE], page, Asked(request, values))

    return endpoint


def _answered(console: Console, page: Page, asked: Asked) -> Response:
    """The page, or one that says what was wrong."""
    try:
        return page(console, asked)
    except VecdbError as error:
        return console.page(asked, "problem.html", status_of(error), error=error, text=str(error))


def status_of(error: VecdbError) -> int:
    return next((status for kind, status in _STATUS if isinstance(error, kind)), 500)


def served_paths() -> dict[str, Any]:
    """Every address: of pages, and of actions."""
    return {"pages": tuple(_SHOWN), "actions": tuple(_DONE)}
