"""The application: which page is at which address. Pages run in threads, so that none keeps another waiting."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import QueryParams
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
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
from vecdb.integrations.console.context import Asked, Console
from vecdb.integrations.console.guard import BODY_BYTES_MAX, Guard
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


def application(console: Console, token: str, host: str, name: str = "console") -> Guard:
    """The ASGI application. name : of its cookie."""
    routes = [
        Mount("/static", StaticFiles(packages=[("vecdb.integrations.console", "static")])),
        *(Route(path, _endpoint(console, page), methods=["GET"]) for path, page in _SHOWN.items()),
        *(Route(path, _endpoint(console, page), methods=["POST"]) for path, page in _DONE.items()),
    ]

    async def missing(request: Request, error: Exception) -> Response:
        status = error.status_code if isinstance(error, HTTPException) else 500
        message = {
            404: "There is no such page.",
            405: "This address takes no such request.",
            413: "That is more than a form of this console has.",
            500: "A defect of vecdb; the console printed where.",
        }.get(status, "")
        return refused(request, status, message or "This request cannot be answered.")

    def refused(request: Request, status: int, message: str) -> Response:
        asked = Asked(request, QueryParams())
        return console.page(asked, "refused.html", status, message=message, wants_token=status == 401)

    inner = Starlette(routes=routes, exception_handlers={HTTPException: missing, 500: missing})
    return Guard(inner, token, host, refused, name)


def _endpoint(console: Console, page: Page) -> Callable[[Request], Awaitable[Response]]:
    async def endpoint(request: Request) -> Response:
        values = request.query_params
        if request.method == "POST":
            body = bytearray()
            async for part in request.stream():
                body += part
                if len(body) > BODY_BYTES_MAX:
                    raise HTTPException(413)
            values = QueryParams(body.decode("utf-8", "replace"))
        return await run_in_threadpool(_answered, console, page, Asked(request, values))

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
