"""How far a job is, for the page that started it; and its end before its time."""

from __future__ import annotations

from starlette.responses import JSONResponse, Response

from vecdb.errors import NotFound
from vecdb.integrations.console.context import Asked, Console
from vecdb.integrations.console.jobs import Job


def asked_for(console: Console, asked: Asked) -> Response:
    return JSONResponse(_job(console, asked).shown())


def stop(console: Console, asked: Asked) -> Response:
    job = _job(console, asked)
    job.stop()
    return JSONResponse(job.shown())


def _job(console: Console, asked: Asked) -> Job:
    job = console.jobs.by_id(asked.text("id"))
    if job is None:
        raise NotFound("this work has ended and is forgotten")
    return job
