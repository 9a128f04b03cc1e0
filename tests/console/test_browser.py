"""The console in a real browser: each page, a wrong token, script in a value; actions, keys, tenants."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import vecdb
from tests.console.browsing import PAGES, SCRIPT, Window, chromium, console, fill


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as started:
        yield started


@pytest.fixture(scope="module")
def address(browser: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A console that reads."""
    path = tmp_path_factory.mktemp("console") / "db"
    fill(path)
    with console(path) as started:
        yield started


@pytest.fixture
def writing(browser: Any, tmp_path: Path) -> Iterator[tuple[str, Path]]:
    path = tmp_path / "db"
    fill(path)
    with console(path, "--write") as started:
        yield started, path


@pytest.mark.slow  # nine seconds: every page, and what each shows of names that are code
def test_every_page_opens_in_the_dark_and_runs_nothing_of_the_data(browser: Any, address: str) -> None:
    window = Window(browser, address, color_scheme="dark")
    for name, path in PAGES.items():
        page = window.open(path)
        page.locator("header").wait_for()
        assert page.title() != "run" and page.locator("main img, main script").count() == 0, name
        assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(20, 23, 28)", name
    assert window.open("/record?c=docs&id=3").get_by_text(SCRIPT).count() == 1
    assert window.page.get_by_role("button", name="Delete").count() == 0
    window.close()


def test_a_wrong_token_is_refused_and_the_right_one_opens(browser: Any, address: str) -> None:
    base, _, token = address.partition("/?token=")
    page = browser.new_context().new_page()
    for path in ("/", "/records?c=docs", "/?token=wrong"):
        assert page.goto(base + path).status == 401
    assert "note" not in page.content()
    page.get_by_label("Token").fill(token)
    page.get_by_role("button", name="Open").click()
    page.get_by_role("link", name="docs").wait_for()
    page.context.close()


@pytest.mark.slow
def test_no_page_is_wider_than_a_narrow_window(browser: Any, address: str) -> None:
    window = Window(browser, address, viewport={"width": 360, "height": 740})
    for name, path in PAGES.items():
        window.open(path)
        assert window.wider() <= 0, name
    window.close()


@pytest.mark.slow
def test_records_and_searches_by_keys_alone(browser: Any, address: str) -> None:
    window = Window(browser, address)
    page, keys = window.page, window.page.keyboard
    keys.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to content"
    _tab_to(page, "docs")
    keys.press("Enter")
    page.wait_for_url("**/collection?c=docs")
    _tab_to(page, "Records")
    keys.press("Enter")
    page.wait_for_url("**/records?c=docs")
    keys.press("/")
    keys.type("lang = 'de' and year > 2010")
    keys.press("Enter")
    page.get_by_text("records that match").wait_for()
    _tab_to(page, "title")
    keys.press("Enter")
    page.wait_for_url("**sort=title**")
    _tab_to(page, "Search")
    keys.press("Enter")
    page.wait_for_url("**/search?c=docs")
    keys.press("/")
    keys.type("7")
    keys.press("Enter")
    page.get_by_text("How it was answered").wait_for()
    assert page.locator("tbody tr").count() == 10
    window.close()


def _tab_to(page: Any, text: str) -> None:
    """Press Tab until what has the focus says `text`, and is seen to have it."""
    for _ in range(60):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.textContent.trim()") == text:
            assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
            return
    raise AssertionError(f"no Tab leads to {text!r}")


@pytest.mark.slow
def test_pages_are_turned_and_a_wrong_filter_shows_its_caret(browser: Any, address: str) -> None:
    window = Window(browser, address)
    page = window.open("/records?c=docs")
    page.get_by_role("link", name="Next page").click()
    page.get_by_text("51–100 of 400").wait_for()
    page.get_by_role("link", name="First page").click()
    page.get_by_text("1–50 of 400").wait_for()
    page.get_by_text("Add a condition").click()
    page.get_by_label("Field").fill("lang")
    page.get_by_label("Value").fill("fr")
    page.get_by_role("button", name="Add", exact=True).click()
    page.get_by_text("133 records that match").wait_for()
    page.get_by_label("Filter").fill("lang = = 3")
    page.get_by_role("button", name="Show").click()
    assert "^" in page.get_by_role("alert").inner_text()
    window.close()


@pytest.mark.slow
def test_a_map_is_drawn_coloured_and_zoomed(browser: Any, address: str) -> None:
    window = Window(browser, address)
    page = window.open("/map?c=docs")
    page.get_by_role("button", name="Draw").click()
    page.locator("canvas[data-drawn='400']").wait_for()
    page.get_by_label("Colour by").select_option("lang")
    page.locator(".legend li", has_text="de").wait_for()
    canvas = page.locator("canvas[data-drawn]")
    canvas.wait_for()
    for key, zoom in (("+", "1.500"), ("+", "2.250"), ("0", "1.000"), ("-", "0.667")):
        canvas.press(key)
        page.locator(f"canvas[data-zoom='{zoom}']").wait_for()
    canvas.press("0")
    canvas.hover(position={"x": 200, "y": 200})
    page.mouse.wheel(0, -300)
    page.locator("canvas:not([data-zoom='1.000'])").wait_for()
    canvas.press("ArrowLeft")
    page.locator("a.tip").wait_for()
    canvas.press("Enter")
    page.wait_for_url("**/record?**")
    window.close()


@pytest.mark.slow
def test_recall_is_measured_with_progress_and_drawn(browser: Any, tmp_path: Path) -> None:
    fill(tmp_path / "db", 9_000)
    with console(tmp_path / "db", "--write") as address:
        window = Window(browser, address)
        page = window.open("/collection?c=docs")
        page.get_by_role("button", name="Optimize").click()
        page.get_by_text("Optimizing took").wait_for()
        page = window.open("/recall?c=docs")
        page.get_by_role("button", name="Measure").click()
        page.locator("svg.plot circle").first.wait_for()
        assert page.locator("svg.plot circle").count() == page.locator("tbody tr").count() > 1
        page.get_by_label("Tune for recall").fill("0.9")
        page.get_by_role("button", name="Tune").click()
        page.get_by_text("Tuned; measure again").wait_for()
        window.close()


@pytest.mark.slow
def test_actions_change_what_they_say(browser: Any, writing: tuple[str, Path]) -> None:
    address, path = writing
    window = Window(browser, address)
    page = window.open("/tenants?c=docs")
    page.get_by_label("Name").fill("gamma")
    page.get_by_label("Quota, records").fill("10")
    page.get_by_role("button", name="Create").click()
    page.get_by_text("The tenant is made").wait_for()
    page.get_by_label("Ids of records").fill("5\n6\n7")
    page.get_by_role("button", name="Grant").click()
    page.get_by_text("may see these records").wait_for()
    page.get_by_label("Ids of records").fill("6")
    page.get_by_role("button", name="Revoke").click()
    page.get_by_text("no longer sees").wait_for()
    page.get_by_role("button", name="Measure").click()
    page.get_by_text("recall@10").wait_for()
    page = window.open("/record?c=docs&id=8")
    page.get_by_text("Delete this record").click()
    page.get_by_role("button", name="Delete record 8").click()
    page.get_by_text("The record is deleted").wait_for()
    page = window.open("/collection?c=docs")
    page.get_by_role("button", name="Vacuum").click()
    page.get_by_text("Vacuum took").wait_for()
    page = window.open("/live")
    page.locator("[data-figure=commits]:not(:text-is('–'))").wait_for()
    window.close()
    with vecdb.open(path, read_only=True) as db:
        docs = db.collection("docs")
        assert docs.count(tenant="gamma") == 2 and 8 not in docs and docs.count() == 399


@pytest.mark.slow
def test_a_tenants_console_shows_its_own(browser: Any, address: str, tmp_path: Path) -> None:
    fill(tmp_path / "db")
    with console(tmp_path / "db", "--tenant", "beta") as bound:
        window = Window(browser, bound)
        for name, path in PAGES.items():
            if name not in ("live", "tenant", "record", "search"):
                text = window.open(path).locator("body").inner_text()
                assert not re.search(r"acme|note [1235679]\b|\b400\b", text), name
        assert "100 records" in window.open("/records?c=docs").locator("body").inner_text()
        for path in ("/record?c=docs&id=3", "/tenant?c=docs&name=acme"):
            assert "NOT_FOUND" in window.open(path).locator("body").inner_text()
        window.wrong.clear()
        window.close()


@pytest.mark.slow
def test_the_theme_is_switched_and_kept(browser: Any, address: str) -> None:
    window = Window(browser, address, color_scheme="light")
    page = window.page
    page.get_by_role("button", name="Switch between dark and light").click()
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(20, 23, 28)"
    window.open("/records?c=docs")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(20, 23, 28)"
    window.close()
