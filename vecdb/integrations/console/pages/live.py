"""Figures of this moment, and those that the page asks for every two seconds."""

from __future__ import annotations

from starlette.responses import JSONResponse, Response

from vecdb.errors import PermissionDenied
from vecdb.integrations.console.context import Asked, Console


def shown(console: Console, asked: Asked) -> Response:
    return console.page(asked, "live.html", found=console.live.now())


def figures_now(console: Console, asked: Asked) -> Response:
    found = console.live.now()
    if not found:
        raise PermissionDenied("figures of the whole database are not for a tenant")
    return JSONResponse(found)
