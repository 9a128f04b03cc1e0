"""Where a server listens, how it and its metrics are reached, and that a healthy one is found to be healthy."""

from __future__ import annotations

import json
import os
import socket
import ssl
import stat
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vecdb
from tests.support.server.certificates import Authority, write
from tests.support.server.driver import Client, Running, outcome, token
from tests.support.server.process import Process
from vecdb.storage.disk import filesystem
from vecdb_server import probe
from vecdb_server.config import Config, load
from vecdb_server.security.interceptor import PEER, SECRET, peer_of

DIM = 4
PROXIES = ("http_proxy", "https_proxy", "grpc_proxy", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy")


def probed(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, **environment: str) -> tuple[int, str]:
    """Exit code of a probe, and what it says."""
    with monkeypatch.context() as patch:
        for name in [one for one in os.environ if one.startswith("VECDB_")]:
            patch.delenv(name)
        for name, value in environment.items():
            patch.setenv(name, value)
        capsys.readouterr()
        code = probe.main()
    said = capsys.readouterr()
    return code, said.out + said.err


@pytest.mark.parametrize("proxy", PROXIES)
def test_a_probe_goes_past_proxies(
    running: Running, proxy: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    listen = f"127.0.0.1:{running.server.port}"
    code, said = probed(capsys, monkeypatch, VECDB_LISTEN=listen, **{proxy: "http://127.0.0.1:9"})
    assert (code, said) == (0, "SERVING\n")


def test_a_probe_reads_the_settings_that_the_server_reads(
    running: Running, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "vecdb.toml"
    file.write_text(f'listen = "127.0.0.1:{running.server.port}"\ntokens = "elsewhere.json"\n')
    assert probed(capsys, monkeypatch, VECDB_CONFIG=str(file)) == (0, "SERVING\n")
    code, said = probed(capsys, monkeypatch, VECDB_CONFIG=str(file), VECDB_LISTEN="127.0.0.1:1")
    assert code == 1 and "127.0.0.1:1: UNAVAILABLE" in said
    code, said = probed(capsys, monkeypatch, VECDB_CONFIG=str(tmp_path / "none.toml"))
    assert code == 1 and "no configuration" in said


def test_a_probe_asks_an_ipv6_address(
    serving: Callable[..., Running], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    if not socket.has_ipv6 or not Path("/proc/net/if_inet6").exists():
        pytest.skip("no IPv6 here")
    running = serving(listen="[::1]:0")
    listen = f"[::1]:{running.server.port}"
    assert probed(capsys, monkeypatch, VECDB_LISTEN=listen) == (0, "SERVING\n")
    with vecdb.open(f"grpc://{listen}") as db:
        assert db.collections() == []


def test_a_probe_needs_no_key(
    serving: Callable[..., Running], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    cert, key = write(tmp_path, Authority("ca").issue("localhost"))
    running = serving(tls_cert=cert, tls_key=key)
    listen = f"localhost:{running.server.port}"
    assert probed(capsys, monkeypatch, VECDB_LISTEN=listen, VECDB_TLS_CERT=cert) == (0, "SERVING\n")


# -- sockets ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["unix:{}", "unix://{}"])
def test_a_server_listens_on_a_unix_socket(
    serving: Callable[..., Running], form: str, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    path = tmp_path / "s.sock"
    url = form.format(path)
    running = serving(listen=url)
    assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, "without tokens it is for this user alone"
    assert probed(capsys, monkeypatch, VECDB_LISTEN=url, http_proxy="http://127.0.0.1:9") == (0, "SERVING\n")
    with vecdb.open(url) as db:
        docs = db.create_collection("docs", DIM, "l2")
        docs.upsert(range(3), np.eye(3, DIM))
        assert db.path == f"unix:{path}" and docs.search(np.eye(3, DIM)[1], 1).ids.tolist() == [1]
    with pytest.raises(vecdb.Unavailable, match="another server does"):
        Running(Config(path=":memory:", listen=url))
    running.close()
    assert not path.exists()


def test_a_socket_with_tokens(tmp_path: Path) -> None:
    path, tokens = tmp_path / "s.sock", tmp_path / "tokens.json"
    secret = token(tokens, "a", "admin")
    running = Running(Config(path=":memory:", listen=f"unix:{path}", tokens=str(tokens), grace_s=5.0))
    try:
        with vecdb.open(f"unix:{path}", token=secret) as db:
            assert db.collections() == []
        with pytest.raises(vecdb.PermissionDenied):
            vecdb.open(f"unix:{path}")
    finally:
        running.close()


def test_a_caller_over_a_socket_does_not_say_who_it_is(tmp_path: Path) -> None:
    path, tokens = tmp_path / "s", tmp_path / "tokens.json"
    token(tokens, "a")
    running = Running(Config(path=":memory:", listen=f"unix:{path}", tokens=str(tokens), grace_s=5.0))
    noted: list[str] = []
    running.server._interceptor._refusals.add = lambda event, peer, **facts: noted.append(peer)  # type: ignore[method-assign]
    client = Client(f"unix:{path}")
    try:
        client.metadata = (("vecdb-peer", "ipv4:10.0.0.1:4711"),)
        assert outcome(lambda: client.count("docs")) == "UNAUTHENTICATED"
        assert len(noted) == 1 and noted[0].startswith("unix:")
    finally:
        client.close()
        running.close()


@pytest.mark.parametrize("secret", [None, "s"])
@pytest.mark.parametrize("sent", [None, "", "t", "s"])
def test_only_a_process_that_knows_the_secret_says_who_has_called_it(secret: str | None, sent: str | None) -> None:
    class Context:
        def peer(self) -> str:
            return "unix:"

        def invocation_metadata(self) -> list[tuple[str, str]]:
            return [(PEER, "ipv4:10.0.0.1:4711"), *([] if sent is None else [(SECRET, sent)])]

    believed = secret is not None and sent == secret
    assert peer_of(Context(), secret) == ("ipv4:10.0.0.1:4711" if believed else "unix:")


def test_what_lies_at_the_path_of_a_socket_is_kept_unless_it_is_left_behind(tmp_path: Path) -> None:
    path = tmp_path / "s.sock"
    path.write_text("mine")
    with pytest.raises(vecdb.Unavailable, match="is no socket"):
        Running(Config(path=":memory:", listen=f"unix:{path}"))
    assert path.read_text() == "mine"
    path.unlink()
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))
    Running(Config(path=":memory:", listen=f"unix:{path}", grace_s=5.0)).close()


def test_a_process_says_where_its_socket_is(tmp_path: Path) -> None:
    path = tmp_path / "s.sock"
    with Process(tmp_path / "db", tmp_path, listen=f"unix:{path}") as process:
        process.ports()
        assert process.said[0].strip() == f"vecdb is listening on unix:{path}"
        with vecdb.open(f"unix:{path}") as db:
            assert db.collections() == []
        assert process.end() == 0 and not path.exists()


@pytest.mark.parametrize(
    ("listen", "words"),
    [
        ("unix:", "unix:/path"), ("unix://host/x", "unix:/path"), ("unix:" + "x" * 200, "at most 107 bytes"),
        ("::1:0", r"\[::1\]:0"), ("localhost", "in brackets"),
    ],
)  # fmt: skip
def test_an_address_that_cannot_be_is_refused_with_the_right_spelling(listen: str, words: str) -> None:
    with pytest.raises(vecdb.InvalidArgument, match=words):
        load({"listen": listen}, {})


def test_a_socket_is_without_tls() -> None:
    with pytest.raises(vecdb.InvalidArgument, match="without TLS"):
        load({"listen": "unix:/x", "tls_cert": "c", "tls_key": "k", "tls_client_ca": "a"}, {})
    with pytest.raises(vecdb.InvalidArgument, match="without TLS"):
        vecdb.open("unix:/x", tls=True)


# -- metrics ---------------------------------------------------------------------------------------


def test_metrics_beyond_loopback_want_tls_or_that_it_is_said() -> None:
    with pytest.raises(vecdb.InvalidArgument, match="say --insecure"):
        load({"metrics": "0.0.0.0:9464"}, {})
    for settings in ({"insecure": True}, {"tls_cert": "c", "tls_key": "k"}):
        assert load({"metrics": "0.0.0.0:9464", **settings}, {}).metrics == "0.0.0.0:9464"
    with pytest.raises(vecdb.InvalidArgument, match="in brackets"):
        load({"metrics": "9464"}, {})


@pytest.mark.parametrize("secure", [False, True])
def test_metrics_are_scraped_by_the_address_of_a_machine(
    serving: Callable[..., Running], tmp_path: Path, secure: bool
) -> None:
    authority = Authority("ca")
    settings: dict[str, Any] = {"insecure": True}
    if secure:
        cert, key = write(tmp_path, authority.issue("localhost"))
        settings = {"tls_cert": cert, "tls_key": key}
    running = serving(metrics="0.0.0.0:0", **settings)
    trusted = ssl.create_default_context(cadata=authority.pem.decode()) if secure else None
    url = f"http{'s' * secure}://localhost:{running.server.metrics_port}/metrics"
    opener = urllib.request.build_opener(
        urllib.request.ProxyHandler({}), *([urllib.request.HTTPSHandler(context=trusted)] if secure else [])
    )
    with opener.open(url, timeout=60) as page:
        assert b"vecdb_requests_held" in page.read()


def test_metrics_of_a_database_look_at_no_file_of_it(
    serving: Callable[..., Running], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backups = tmp_path / "backups"
    running = serving(metrics="127.0.0.1:0", backups=str(backups))
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def scraped() -> dict[str, float]:
        with opener.open(f"http://127.0.0.1:{running.server.metrics_port}/metrics", timeout=60) as page:
            lines = [line.rsplit(" ", 1) for line in page.read().decode().splitlines() if line[0] != "#"]
        return {name: float(value) for name, value in lines}

    with vecdb.open(f"grpc://{running.address}") as db:
        docs = db.create_collection("docs", DIM, "l2")
        docs.upsert(range(3), np.eye(3, DIM))
        docs.delete(1)
        monkeypatch.setattr(filesystem, "walk_files", None)
        found = scraped()
        assert found['vecdb_collection_records{collection="docs"}'] == 2
        assert found['vecdb_collection_rows{collection="docs"}'] == 3
        assert found["vecdb_commit_seconds_count"] >= 3 and found["vecdb_commit_seconds_sum"] > 0
        assert found["vecdb_disk_free_bytes"] > 0 and "vecdb_backup_age_seconds" not in found
        monkeypatch.undo()
        db.backup("b")
        os.utime(backups / "b" / "checksums.json", (1_000_000, 1_000_000))
        assert scraped()["vecdb_backup_age_seconds"] > 1_000_000
        db.backup("c")
        assert scraped()["vecdb_backup_age_seconds"] < 1_000


@pytest.mark.parametrize("options", [("--listen", "::1:0"), ("--tokens", "nowhere.json"), ("--config", "none.toml")])
def test_errors_of_a_server_that_does_not_start_are_lines_of_its_log(tmp_path: Path, options: tuple[str, str]) -> None:
    with Process(tmp_path / "db", tmp_path, *options) as process:
        assert process.process.wait(60) == 1
        events = [json.loads(line) for line in process.log().splitlines()]
        assert events[-1]["event"] == "not served" and events[-1]["level"] == "error"
        assert events[-1]["code"] in ("INVALID_ARGUMENT", "NOT_FOUND") and events[-1]["reason"]
