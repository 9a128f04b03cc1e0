"""What every page has: the view, the jobs, the templates; and one request as a page is given it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jinja2
from starlette.datastructures import URL, QueryParams
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

import vecdb
from vecdb.errors import InvalidArgument
from vecdb.integrations.console import figures, queries
from vecdb.integrations.console.jobs import Job, Jobs
from vecdb.integrations.console.live import LiveFigures
from vecdb.integrations.console.view import View

_NOTES = {  # what an action did; an address names it and cannot say anything else
    "deleted": "The record is deleted.",
    "granted": "The tenant may see these records.",
    "revoked": "The tenant no longer sees these records.",
    "made": "The tenant is made.",
}

_FILTERS = (
    "count", "size", "share", "decimal", "milliseconds", "rate", "moment", "short", "text_of", "kind_of",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Asked:
    """A request. values : of its address, or of its form where it acts."""

    request: Request
    values: QueryParams

    def text(self, name: str, otherwise: str = "") -> str:
        return self.values.get(name) or otherwise

    def number(self, name: str) -> int:
        text = self.text(name)
        return int(text) if text.isascii() and text.isdigit() and len(text) < 12 else 0

    @property
    def path(self) -> str:
        return self.request.url.path


class Console:
    """One console: what its pages share. Threads: pages run in many at once."""

    def __init__(self, view: View, templates: jinja2.Environment | None = None) -> None:
        """templates : those of `environment`, where consoles share them."""
        self.view = view
        self.jobs = Jobs()
        self.live = LiveFigures(view)
        self._templates = environment() if templates is None else templates

    def page(self, asked: Asked, template: str, status: int = 200, **values: Any) -> Response:
        values = {"collection": None, "tab": "", "job": None, "problem": None} | values
        values["note"] = _NOTES.get(asked.text("note"))
        values["path"], values["view"] = asked.path, self.view
        return HTMLResponse(self._templates.get_template(template).render(values), status)

    def collection(self, asked: Asked) -> vecdb.Collection:
        """The one that a request names as c. Raises NotFound."""
        name = asked.text("c")
        if not name:
            raise InvalidArgument("this page is of a collection, which its address names: begin at the collections")
        return self.view.collection(name)

    def job(self, *key: Any) -> Job | None:
        return self.jobs.of(key)


def environment() -> jinja2.Environment:
    """The templates, which escape all that they are given."""
    made = jinja2.Environment(
        loader=jinja2.PackageLoader("vecdb.integrations.console"),
        autoescape=True,  # every value is text; no template may say otherwise, which a test holds
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.globals.update(address=address, version=vecdb.__version__)
    for name in _FILTERS:
        made.filters[name] = getattr(figures, name)
    made.filters["as_json"] = queries.as_json
    made.tests["figure"] = figures.is_number
    return made


def address(path: str, **values: Any) -> str:
    """A page's address with what it is asked; empty values are left out."""
    given = {name: value for name, value in values.items() if value not in ("", None, False, 0)}
    return str(URL(path).include_query_params(**given)) if given else path


def back(path: str, **values: Any) -> Response:
    """After an action: to a page that shows what became of it."""
    return RedirectResponse(address(path, **values), 303)
