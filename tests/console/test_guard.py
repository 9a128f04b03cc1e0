"""Who is refused: a wrong token, another name of this machine, a page of another site, an action without --write."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import vecdb
from tests.console.conftest import HOST, TOKEN, Asker
from vecdb.integrations.console import app
from vecdb.integrations.console.guard import new_token

Make = Callable[..., Asker]
PAGES = sorted(app.served_paths()["pages"])
ACTIONS = sorted(app.served_paths()["actions"])
FOLDER = Path(app.__file__).parent


def test_without_the_token_every_page_and_action_is_refused(asker: Make, notes: vecdb.Collection) -> None:
    one = asker(write=True)
    for cookie in ("", f"{one.guard.cookie}=wrong", f"{one.guard.cookie}={TOKEN}", "other=1"):
        for path in PAGES:
            answer = one.get(path, {"cookie": cookie}, c="notes", id="3")
            assert answer.status == 401 and "notes" not in answer.page and "note 3" not in answer.page
        for path in ACTIONS:
            assert one.act(path, {"cookie": cookie}, c="notes", id="3", name="a", ids="3").status == 401
    assert notes.count() == 120


def test_the_token_is_taken_once_and_leaves_the_address(asker: Make, notes: vecdb.Collection) -> None:
    one = asker()
    for wrong in ("", "x", TOKEN[:-1], TOKEN + "x", "é"):
        assert one.get("/", {"cookie": ""}, token=wrong).status == 401
    answer = one.get("/records", {"cookie": ""}, c="notes", token=TOKEN)
    assert (answer.status, answer.headers["location"]) == (303, "/records?c=notes")
    cookie = answer.headers["set-cookie"]
    assert "HttpOnly" in cookie and "SameSite=lax" in cookie and TOKEN not in cookie
    assert one.get("/records", {"cookie": cookie.partition(";")[0]}, c="notes").status == 200
    # two slashes at the front would lead to another site
    assert one.get("//elsewhere.example/x", token=TOKEN).headers["location"].startswith("/elsewhere.example")
    assert len({new_token() for _ in range(9)}) == 9 and len(new_token()) >= 32


def test_a_name_that_was_rebound_to_this_machine_is_refused(asker: Make) -> None:
    one = asker()
    hosts = ["127.0.0.1:7713", "localhost:9", "[::1]:7713", "10.1.2.3", "LOCALHOST"]
    others = ["evil.example", "localhost.evil.example:7713", "127.0.0.1.evil.example", "[evil.example]", ":7713", ""]
    for host in hosts + others:
        for path in ("/", "/static/console.css"):
            assert one.get(path, {"host": host}).status == (200 if host in hosts else 403), host


def test_the_name_that_is_listened_at_is_known(db: vecdb.Database) -> None:
    from vecdb.integrations.console.view import View

    one = Asker(View.of(db), host="console.internal")
    assert one.get("/", {"host": "console.internal:7713"}).status == 200
    assert one.get("/", {"host": "other.internal:7713"}).status == 403


def test_an_action_of_another_site_is_refused(asker: Make, notes: vecdb.Collection) -> None:
    one = asker(write=True)
    origins = ["http://evil.example", "null", "", f"http://{HOST}0", "http://localhost:7713"]
    for headers in [{"origin": origin} for origin in origins] + [
        {"origin": "", "sec-fetch-site": "cross-site"},
        {"origin": "", "sec-fetch-site": "same-site"},
    ]:
        assert one.act("/record/delete", headers, c="notes", id="3").status == 403, headers
    assert 3 in notes
    assert one.act("/record/delete", {"origin": "", "sec-fetch-site": "same-origin"}, c="notes", id="3").status == 303
    assert 3 not in notes


def test_an_action_is_no_page_and_a_large_form_is_refused(asker: Make, notes: vecdb.Collection) -> None:
    one = asker(write=True)
    for path in ACTIONS:
        assert one.get(path, c="notes", id="3").status == 405
    assert one.act("/tenant/grant", c="notes", name="a", ids="1 " * 200_000).status == 413
    assert one.act("/tenant/grant", {"content-length": ""}, c="notes").status == 413


def test_without_write_each_action_that_changes_something_is_refused(asker: Make, notes: vecdb.Collection) -> None:
    one = asker()
    before = notes.stats()["sequence"]
    reading = {"/recall/measure", "/map/draw", "/job/stop"}
    for path in sorted(set(ACTIONS) - reading):
        answer = one.act(path, c="notes", id="3", name="a", ids="1", recall="0.9")
        assert answer.status == 403 and "--write" in answer.text, path
    assert notes.stats()["sequence"] == before and notes.count() == 120
    forms = [form for path in ("/collection", "/tenants") for form in one.get(path, c="notes").parsed.named("form")]
    assert [form for form in forms if form.get("method") == "post"] == []


def test_a_websocket_is_closed(asker: Make) -> None:
    one = asker()
    said: list[Any] = []

    async def receive() -> Any:
        return {"type": "websocket.connect"}

    async def send(message: Any) -> None:
        said.append(message)

    scope = {"type": "websocket", "path": "/", "headers": [(b"cookie", one.cookie.encode()), (b"host", HOST.encode())]}
    asyncio.run(one.guard(scope, receive, send))
    assert said == [{"type": "websocket.close", "code": 1008}]


def test_every_answer_lets_a_browser_run_only_what_is_ours(asker: Make, notes: vecdb.Collection) -> None:
    one = asker()
    for path in ("/", "/nowhere", "/static/console.js", "/records", "/live/figures"):
        for answer in (one.get(path, c="notes"), one.get(path, {"cookie": ""})):
            policy = answer.headers["content-security-policy"]
            assert "unsafe" not in policy and "default-src 'none'" in policy and "frame-ancestors 'none'" in policy
            assert "http" not in policy and "*" not in policy and "data:" not in policy
            assert answer.headers["x-content-type-options"] == "nosniff"
            assert ("no-store" in answer.headers["cache-control"]) == (not path.startswith("/static/"))


def test_templates_and_scripts_keep_what_the_policy_relies_on() -> None:
    templates = {path.name: path.read_text() for path in (FOLDER / "templates").iterdir()}
    assert len(templates) > 9
    for name, text in templates.items():
        assert not re.search(r"\|\s*safe\b|autoescape|Markup", text), name
        assert not re.search(r"\sstyle=|\son[a-z]+=|javascript:", text), name
        assert not re.search(r"(href|src|value|title|action)=[^\"]", text), f"{name}: a value without quotes"
        assert not re.search(r"(href|src)=\"(https?:)?//", text), name
    for path in (FOLDER / "static").iterdir():
        text = path.read_text()
        assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b|new Function", text), (
            path
        )
        assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)|@import|url\(", text), path


def test_a_guard_without_its_token_lets_nobody_in(asker: Make) -> None:
    entry = asker().entry
    assert entry.enter("") is None and entry.enter(TOKEN) and entry.console_of("") is None
