"""A million records and two hundred tenants: every page is there, and what was measured is said (`pytest -rP`)."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vecdb
from tests.console.browsing import Window, chromium, console

RECORDS, DIM, TENANTS = 1_000_000, 8, 200
PAINT = "performance.getEntriesByName('first-contentful-paint')[0]?.startTime"
ANSWER = "performance.getEntriesByType('navigation')[0].responseEnd"


def fill(path: Path) -> None:
    random = np.random.default_rng(0)
    with vecdb.open(path, durability="relaxed") as db:
        docs = db.create_collection("docs", DIM, "l2", vecdb.Flat())
        for start in range(0, RECORDS, 100_000):
            at = np.arange(start, start + 100_000)
            docs.upsert(
                at,
                random.standard_normal((len(at), DIM), dtype=np.float32),
                {
                    "title": [f"note {one}" for one in at],
                    "year": 1980 + at % 45,
                    "lang": [("en", "de")[n % 2] for n in at],
                },
                tenants=[[f"tenant-{one % TENANTS:03}"] for one in at],
            )


@pytest.mark.slow
def test_a_million_records_are_shown(tmp_path: Path) -> None:
    fill(tmp_path / "db")
    with chromium() as browser, console(tmp_path / "db") as address:
        started = time.perf_counter()
        window = Window(browser, address)
        print(f"entering, cold: {time.perf_counter() - started:.2f} s")
        pages = {
            "collections": "/", "records": "/records?c=docs", "sorted": "/records?c=docs&sort=year",
            "filtered": "/records?c=docs&filter=year+%3D+2020", "sorted and filtered":
            "/records?c=docs&filter=lang+%3D+%27de%27&sort=title&desc=1", "search": "/search?c=docs&q=77",
            "tenants": "/tenants?c=docs", "tenant's records": "/records?c=docs&tenant=tenant-007", "live": "/live",
        }  # fmt: skip
        for name, path in pages.items():
            for turn in ("first", "again"):
                page: Any = window.open(path)
                assert page.locator("tbody tr").count() >= 1, name
                painted = page.evaluate(PAINT)
                print(f"{name}, {turn}: {page.evaluate(ANSWER):.0f} ms answered, painted at {painted} ms")
        assert "1,000,000 records" in window.open("/records?c=docs").locator("main").inner_text()
        assert "5,000 records" in window.open("/records?c=docs&tenant=tenant-007").locator("main").inner_text()
        started = time.perf_counter()
        page = window.open("/map?c=docs")
        page.get_by_role("button", name="Draw").click()
        page.locator("[data-job]").wait_for()  # which may be left
        page = window.open("/records?c=docs")
        print(f"records while a map is drawn: {page.evaluate(ANSWER):.0f} ms answered")
        page = window.open("/map?c=docs")
        page.locator("canvas[data-drawn='5000']").wait_for(timeout=600_000)
        print(f"a map of all: {time.perf_counter() - started:.1f} s")
        window.close()
