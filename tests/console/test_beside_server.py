"""`vecdb serve --console`: a console beside a server, which shows what tokens reach, and ends when the server does."""

from __future__ import annotations

import json
import os
import select
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

import pytest

import vecdb
from tests.support.server.driver import token
from tests.support.server.process import Process
from vecdb import InvalidArgument
from vecdb_server.config import load


@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_a_server_has_a_console_for_as_long_as_it_serves(tmp_path: Path, workers: int) -> None:
    vecdb.open(tmp_path / "db").close()
    with Process(tmp_path / "db", tmp_path, "--console", "127.0.0.1:0", "--workers", str(workers)) as server:
        server.ports(2)
        address = server.said[1].strip()
        browser = urllib.request.build_opener(urllib.request.HTTPCookieProcessor())
        with browser.open(address, timeout=60) as page:
            assert "vecdb" in page.read().decode()
        events = [json.loads(line) for line in server.log().splitlines() if line.startswith("{")]
        [console] = [one["pid"] for one in events if one["event"] == "console started"]
        handle = os.pidfd_open(console)
        server.kill()
        assert select.select([handle], [], [], 60)[0], "the console goes on without its server"
        os.close(handle)
    with pytest.raises(urllib.error.URLError):
        browser.open(address, timeout=60)


@pytest.mark.slow
def test_with_tokens_each_browser_signs_in(tmp_path: Path) -> None:
    tokens = tmp_path / "tokens.json"
    reader = token(tokens, "reader", "read")
    with Process(tmp_path / "db", tmp_path, "--console", "127.0.0.1:0", "--tokens", str(tokens)) as server:
        server.ports(2)
        address = server.said[1].strip()
        browser = urllib.request.build_opener(urllib.request.HTTPCookieProcessor())
        with pytest.raises(urllib.error.HTTPError, match="401"):
            browser.open(address, timeout=60)
        form = urllib.parse.urlencode({"token": reader}).encode()
        given = urllib.request.Request(address + "enter", form, {"Origin": address.rstrip("/")})
        with browser.open(given, timeout=60) as page:
            assert page.status == 200
        assert server.end() == 0


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"console": "7713"}, "host:port"),
        ({"console": "0.0.0.0:7713"}, "--insecure"),
        ({"console": "127.0.0.1:7713", "tls_cert": "a", "tls_key": "b"}, "--sign-in --tls"),
    ],
)
def test_what_it_cannot_do_is_said(settings: dict[str, str], said: str) -> None:
    with pytest.raises(InvalidArgument, match=said):
        load(settings, {})
