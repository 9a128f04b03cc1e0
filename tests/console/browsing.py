"""A real browser before a console in a process of its own. Where there is no chromium or playwright its tests skip."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vecdb
from tests.support.server.process import ENVIRONMENT

pytest.importorskip("starlette")
pytest.importorskip("jinja2")
playwright = pytest.importorskip("playwright.sync_api")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
PATIENCE_S = 60
SCRIPT = "<script>document.title = 'run'</script><img src=x onerror=\"document.title = 'run'\">"
PAGES = {
    "overview": "/", "collection": "/collection?c=docs", "records": "/records?c=docs&filter=year+%3E+2000&sort=year",
    "wrong filter": "/records?c=docs&filter=year+%3E", "record": "/record?c=docs&id=3", "search": "/search?c=docs&q=3",
    "tenants": "/tenants?c=docs", "tenant": "/tenant?c=docs&name=acme", "recall": "/recall?c=docs",
    "map": "/map?c=docs", "live": "/live", "nothing": "/records?c=empty",
}  # fmt: skip


def fill(path: Path, records: int = 400, tenants: int = 5) -> None:
    random = np.random.default_rng(0)
    with vecdb.open(path) as db:
        db.create_collection("empty", 4)
        docs = db.create_collection("docs", 16)
        at = np.arange(records)
        docs.upsert(
            at,
            random.standard_normal((records, 16)),
            {
                "title": [SCRIPT if one == 3 else f"note {one}" for one in at],
                "lang": [("en", "de", "fr")[one % 3] for one in at],
                "year": 1980 + at % 45,
            },
            tenants=[["acme", f"tenant-{one % tenants:03}"] if one % 4 else ["beta"] for one in at],
        )


@contextmanager
def console(path: Path | str, *options: str, **environment: str) -> Iterator[str]:
    """`vecdb console`; the address that it prints."""
    words = ["console", str(path), "--port", "0", *options]
    process = subprocess.Popen(
        [sys.executable, "-c", "from vecdb.cli import main; main()", *words],
        stdout=subprocess.PIPE, env=ENVIRONMENT | environment, text=True,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        line = process.stdout.readline().strip()
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+/\?token=[\w-]{32}", line), line
        yield line
    finally:
        process.terminate()
        process.wait(PATIENCE_S)
        assert process.stdout is not None
        process.stdout.close()


@contextmanager
def chromium() -> Iterator[Any]:
    if CHROMIUM is None:
        pytest.skip("no chromium is installed")
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


class Window:
    """A window that has entered a console, and what went wrong in it."""

    def __init__(self, browser: Any, address: str, **options: Any) -> None:
        self.base = address.partition("/?")[0]
        self.page = browser.new_context(**options).new_page()
        self.page.set_default_timeout(PATIENCE_S * 1_000)
        self.wrong: list[str] = []
        self.asked: list[str] = []
        self.page.on("console", lambda said: said.type == "error" and self.wrong.append(said.text))
        self.page.on("pageerror", lambda error: self.wrong.append(str(error)))
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.goto(address)
        assert self.page.url == f"{self.base}/"

    def open(self, path: str) -> Any:
        self.page.goto(self.base + path)
        return self.page

    def wider(self) -> int:
        """Pixels by which the page is wider than the window."""
        return int(self.page.evaluate("document.documentElement.scrollWidth - window.innerWidth"))

    def close(self) -> None:
        """Nothing went wrong, and nothing was asked of anybody else."""
        assert [one for one in self.wrong if "status of 400" not in one] == []
        assert [one for one in self.asked if not one.startswith(self.base)] == []
        self.page.context.close()
