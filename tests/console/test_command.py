"""`vecdb console` as a command, and the console before a server with tokens."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

import vecdb
from tests.console.conftest import Asker
from tests.support.answers.command_line import CommandRunner
from tests.support.server.driver import token
from tests.support.server.process import Process
from vecdb.integrations.console import app
from vecdb.integrations.console.serving import console_address
from vecdb.integrations.console.view import View


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["nowhere"], "no database at nowhere"),
        (["--db", "nowhere"], "no database at nowhere"),
        ([".", "--host", "0.0.0.0"], "--insecure"),
        ([".", "--port", "70000"], "65535"),
        ([".", "--embed", "nothing"], "module:name"),
        ([".", "--sign-in"], "grpc://"),
        (["grpc://localhost:1", "--sign-in", "--tenant", "a"], "tokens say whose"),
    ],
)
def test_what_it_cannot_do_is_said(
    words: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with vecdb.open(tmp_path) as db:
        db.create_collection("docs", 2)
    done = CommandRunner().run(["console", *words])
    assert done.exit_code != 0 and said in done.output


def test_a_tenants_console_takes_no_write(tmp_path: Path) -> None:
    vecdb.open(tmp_path).close()
    done = CommandRunner().run(["console", str(tmp_path), "--tenant", "a", "--write"])
    assert done.exit_code == 1 and "only reads" in done.output


def test_addresses_carry_the_token() -> None:
    assert console_address("127.0.0.1", 80, "abc") == "http://127.0.0.1:80/?token=abc"
    assert console_address("::1", 80, "abc") == "http://[::1]:80/?token=abc"


def test_its_libraries_are_loaded_by_nothing_else() -> None:
    code = "import sys; from vecdb.cli import build; build(); print('jinja2' in sys.modules, 'uvicorn' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]


@pytest.mark.slow
def test_over_a_server_a_token_shows_what_it_reaches(tmp_path: Path) -> None:
    tokens = tmp_path / "tokens.json"
    root, reader = token(tokens, "root", "admin"), token(tokens, "reader", "read")
    acme = token(tokens, "acme", "read", tenant="acme")
    with Process(tmp_path / "db", tmp_path, "--tokens", str(tokens)) as server:
        address = f"grpc://{server.address}"
        with vecdb.open(address, token=root) as db:
            db.create_collection("hidden", 2).upsert([1], [[1, 0]], [{"of": "hidden"}])
            docs = db.create_collection("docs", 2, "l2")
            docs.upsert(
                range(40), [[at, 1] for at in range(40)], [{"of": "beta" if at % 4 else "acme"} for at in range(40)],
                tenants=[["beta"] if at % 4 else ["acme"] for at in range(40)],
            )  # fmt: skip
            every_page_of(Asker(View.of(db, write=True)), {"docs", "hidden"})
        with vecdb.open(address, token=reader) as db:
            one = Asker(View.of(db, write=True))
            every_page_of(one, {"docs", "hidden"})
            refused = one.act("/record/delete", c="docs", id="4")  # the server has the last word
            assert refused.status == 403 and "PERMISSION_DENIED" in refused.text
        for named in (None, "acme"):
            with vecdb.open(address, token=acme) as db:
                one = Asker(View.of(db, tenant=named))
                every_page_of(one, {"docs"})
                one.act("/map/draw", c="docs")
                assert one.waits("map", "docs").state == "done"
                assert len(json.loads(one.get("/map/points", c="docs").page)["x"]) == 10
                for path in sorted(app.served_paths()["pages"]):
                    for asked in ({"id": "5", "q": "4"}, {"id": "4", "name": "beta", "tenant": "beta", "q": "5"}):
                        page = one.get(path, c="docs", **asked).page
                        assert not re.search(
                            r"hidden\b(?!>)(?! disabled)", re.sub(r'type="hidden"| hidden', "", page)
                        ), path
                        assert ">beta<" not in page and "name=beta" not in page, path


def every_page_of(one: Asker, names: set[str]) -> None:
    """Pages open, and the collections are these."""
    links = {link["href"] for link in one.get("/").parsed.named("a")}
    assert {(link or "").partition("c=")[2] for link in links if (link or "").startswith("/collection?")} == names
    for path in sorted(set(app.served_paths()["pages"]) - {"/map/points", "/job", "/live/figures", "/tenant"}):
        page = one.get(path, c="docs", id="4", q="4")
        assert page.status == 200, (path, page.text)
    assert one.get("/tenant", c="docs", name="acme").status == 200
