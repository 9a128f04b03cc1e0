"""With --sign-in each token of a server opens its own view, for a while, and a wrong one none."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import vecdb
from tests.console.conftest import Asker
from tests.support.server.driver import token
from tests.support.server.process import Process
from vecdb.embedded.open import open_database
from vecdb.errors import PermissionDenied, Unavailable
from vecdb.integrations.console import entries
from vecdb.integrations.console.app import application
from vecdb.integrations.console.entries import SignIn
from vecdb.integrations.console.view import View


class Opened:
    """Databases by token, as a server would give them."""

    def __init__(self) -> None:
        self.databases: list[vecdb.Database] = []
        self.now = 0.0

    def __call__(self, given: str) -> vecdb.Database:
        if given == "down":
            raise Unavailable("the server cannot be reached")
        if not given.startswith("right"):
            raise PermissionDenied("this token is not known")
        made = open_database(":memory:", maintenance=False)
        made.create_collection(f"of {given}", 2)
        self.databases.append(made)
        return made

    def closed(self) -> list[bool]:
        return [one._backend.closed for one in self.databases]


@pytest.fixture
def opened() -> Iterator[Opened]:
    made = Opened()
    yield made
    for one in made.databases:
        one.close()


@pytest.fixture
def entry(opened: Opened) -> Iterator[SignIn]:
    made = SignIn(opened, clock=lambda: opened.now)
    yield made
    made.close()


def browser(entry: SignIn, db: vecdb.Database) -> Asker:
    one = Asker(View.of(db))
    one.guard, one.cookie = application(entry, "127.0.0.1"), ""
    return one


def test_each_token_sees_its_own_and_a_wrong_one_nothing(db: vecdb.Database, entry: SignIn) -> None:
    cookies = []
    for given in ("right-1", "right-2"):
        one = browser(entry, db)
        assert one.get("/").status == 401 and "Sign in" in one.get("/").text
        answer = one.act("/enter", token=given)
        assert (answer.status, answer.headers["location"]) == (303, "/")
        assert given not in answer.headers["set-cookie"]
        one.cookie = answer.headers["set-cookie"].partition(";")[0]
        names = {link.get("href") for link in one.get("/").parsed.named("a")}
        assert f"/collection?c=of+{given}" in names and len([name for name in names if "?c=" in (name or "")]) == 2
        cookies.append(one.cookie)
    assert len(set(cookies)) == 2
    one = browser(entry, db)
    for wrong in ("", "wrong", "right\n", "é"):
        refused = one.act("/enter", token=wrong)
        assert refused.status == 401 and "set-cookie" not in refused.headers
    assert one.act("/enter", {"origin": "http://evil.example"}, token="right-1").status == 403
    assert one.get("/", token="right-1").status == 401  # no token in an address
    assert one.act("/enter", token="down").status == 503
    assert one.get("/enter").status == 401


def test_a_session_that_is_not_used_ends(opened: Opened, entry: SignIn) -> None:
    first, second = entry.enter("right-1"), entry.enter("right-2")
    assert first and second
    opened.now = entries.IDLE_S_MAX - 1
    assert entry.console_of(second) is not None
    opened.now = entries.IDLE_S_MAX + 1
    assert entry.console_of(first) is None and entry.console_of(second) is not None
    entry.enter("right-3")
    assert opened.closed() == [True, False, False]
    entry.close()
    assert opened.closed() == [True, True, True] and entry.console_of(second) is None


def test_only_so_many_sessions_are_open(opened: Opened, entry: SignIn, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(entries, "SESSIONS_MAX", 2)
    first, second = entry.enter("right-1"), entry.enter("right-2")
    assert first and second and entry.console_of(first) is not None  # used after the second
    third = entry.enter("right-3")
    assert third and opened.closed() == [False, True, False]
    assert [entry.console_of(one) is not None for one in (first, second, third)] == [True, False, True]


@pytest.mark.slow
def test_tokens_of_a_server_open_what_they_reach(db: vecdb.Database, tmp_path: Path) -> None:
    tokens = tmp_path / "tokens.json"
    root, acme = token(tokens, "root", "admin"), token(tokens, "acme", "read", tenant="acme")
    with Process(tmp_path / "db", tmp_path, "--tokens", str(tokens)) as server:
        address = f"grpc://{server.address}"
        with vecdb.open(address, token=root) as remote:
            docs = remote.create_collection("docs", 2)
            docs.upsert([1, 2], [[1, 0], [0, 1]], [{"of": "acme"}, {"of": "beta"}], tenants=[["acme"], ["beta"]])
        entry = SignIn(lambda given: vecdb.open(address, token=given))
        seen = {}
        for name, given in (("root", root), ("acme", acme)):
            one = browser(entry, db)
            one.cookie = one.act("/enter", token=given).headers["set-cookie"].partition(";")[0]
            page = one.get("/records", c="docs")
            seen[name] = "2 records" in page.text, "beta" in page.text
        assert seen == {"root": (True, True), "acme": (False, False)}
        assert browser(entry, db).act("/enter", token=root[:-1] + "x").status == 401
        entry.close()
