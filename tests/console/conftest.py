"""A console that is asked without a port: requests go to the application itself, as a browser would send them."""

from __future__ import annotations

import asyncio
import html
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from html.parser import HTMLParser
from typing import Any

import pytest

import vecdb

pytest.importorskip("starlette")
pytest.importorskip("jinja2")

from starlette.datastructures import URL, QueryParams

from vecdb.integrations.console.app import application
from vecdb.integrations.console.context import Console
from vecdb.integrations.console.entries import OneToken
from vecdb.integrations.console.guard import Guard
from vecdb.integrations.console.view import View

TOKEN = "token-of-a-test"
HOST = "127.0.0.1:7713"


class Parsed(HTMLParser):
    """What a browser would make of a page: its elements with their attributes, and its text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self.text += " " if tag in ("td", "th", "dd", "dt", "p", "a", "h1", "h2", "span", "button") else ""

    def handle_data(self, data: str) -> None:
        self.text += data

    def named(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    page: str

    @property
    def parsed(self) -> Parsed:
        return Parsed(self.page)

    @property
    def text(self) -> str:
        """What is read, with single spaces."""
        return re.sub(r"\s+", " ", self.parsed.text)

    @property
    def problem(self) -> str:
        return next(iter(re.findall(r'class="problem" role="alert">(.*?)</div>', html.unescape(self.page), re.S)), "")


class Asker:
    """Requests to one console, with its cookie."""

    def __init__(self, view: View, host: str = "127.0.0.1") -> None:
        self.console = Console(view)
        self.entry = OneToken(self.console, TOKEN)
        self.guard: Guard = application(self.entry, host)
        self.cookie = f"{self.guard.cookie}={self.entry.enter(TOKEN)}"

    def get(self, path: str, headers: dict[str, str] | None = None, **values: Any) -> Answer:
        return self.ask("GET", str(URL(path).include_query_params(**values)) if values else path, headers)

    def act(self, path: str, headers: dict[str, str] | None = None, **values: Any) -> Answer:
        body = str(URL("").include_query_params(**values)).removeprefix("?").encode()
        return self.ask("POST", path, {"origin": f"http://{HOST}"} | (headers or {}), body)

    def ask(self, method: str, path: str, headers: dict[str, str] | None = None, body: bytes = b"") -> Answer:
        given = {"host": HOST, "cookie": self.cookie, "content-length": str(len(body))} | (headers or {})
        return asyncio.run(self._ask(method, path, {name: value for name, value in given.items() if value}, body))

    async def _ask(self, method: str, path: str, headers: dict[str, str], body: bytes) -> Answer:
        plain, _, query = path.partition("?")
        scope = {
            "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": method, "scheme": "http",
            "path": plain, "raw_path": plain.encode(), "root_path": "", "query_string": query.encode(),
            "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
            "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 7713),
        }  # fmt: skip
        said: list[Any] = []
        asked_for: list[bool] = []

        async def receive() -> Any:
            if asked_for:
                await asyncio.Event().wait()  # the browser stays
            asked_for.append(True)
            return {"type": "http.request", "body": body, "more_body": False}

        async def send(message: Any) -> None:
            said.append(message)

        await self.guard(scope, receive, send)
        start = next(one for one in said if one["type"] == "http.response.start")
        found = {name.decode(): value.decode() for name, value in start["headers"]}
        return Answer(start["status"], found, b"".join(one.get("body", b"") for one in said).decode())

    def waits(self, *key: Any) -> Any:
        """The job of that key, ended."""
        job = self.console.jobs.of(key)
        assert job is not None and job.thread is not None
        job.thread.join()
        return job


@pytest.fixture
def asker(db: vecdb.Database) -> Iterator[Callable[..., Asker]]:
    """Makes consoles of `db`."""
    made: list[Asker] = []

    def make(**options: Any) -> Asker:
        made.append(Asker(View.of(db, **options)))
        return made[-1]

    yield make
    for one in made:
        one.console.jobs.close()


@pytest.fixture
def notes(db: vecdb.Database) -> vecdb.Collection:
    """120 records, dim 4, l2: two tenants, of which b has none that a has; three records without a tenant."""
    docs = db.create_collection("notes", 4, "l2")
    docs.upsert(
        range(120),
        [[at, at % 7, 0, 1] for at in range(120)],
        [{"lang": ("en", "de", "fr")[at % 3], "year": 1990 + at % 30, "title": f"note {at}"} for at in range(120)],
        tenants=[[] if at < 3 else ["a"] if at % 2 else ["b"] for at in range(120)],
    )
    return docs


def values_of(address: str) -> dict[str, str]:
    return dict(QueryParams(address.partition("?")[2]))
