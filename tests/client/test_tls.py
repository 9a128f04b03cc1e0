"""TLS that does not come about: a typed error at once, in words that tell what to do."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cryptography.hazmat.primitives import serialization

import vecdb
from tests.support.server.certificates import Authority, write
from tests.support.server.driver import Running
from tests.support.server.process import Process
from vecdb.client import remote_collection, retry, status_errors
from vecdb_server.config import Config

Serving = Callable[..., str]
INTERNALS = ("SSL", "TSI", "OPENSSL", "error:", "last error", "Traceback", "_ssl.c")


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority("tests")


@pytest.fixture
def files(tmp_path: Path, authority: Authority) -> Callable[..., tuple[str, str]]:
    """files(certificate and key) : their paths. The authority's is ca.pem."""
    (tmp_path / "ca.pem").write_bytes(authority.pem)

    def made(issued: tuple[bytes, bytes]) -> tuple[str, str]:
        folder = tmp_path / f"pair-{len(list(tmp_path.glob('pair-*')))}"
        folder.mkdir()
        return write(folder, issued)

    return made


@pytest.fixture
def serving() -> Iterator[Serving]:
    """serving(certificate and key, CA of clients) : the address of a server."""
    running: list[Running] = []

    def start(own: tuple[str, str] | None = None, clients: str | None = None) -> str:
        cert, key = own or (None, None)
        running.append(
            Running(
                Config(
                    path=":memory:",
                    listen="127.0.0.1:0",
                    grace_s=5.0,
                    tls_cert=cert,
                    tls_key=key,
                    tls_client_ca=clients,
                )
            )
        )
        return running[-1].address

    yield start
    for one in running:
        one.close()


def opening(url: str, tls: Any) -> tuple[vecdb.VecdbError, vecdb.VecdbError]:
    """What opening it raises, synchronously and asynchronously."""

    async def later() -> None:
        await vecdb.aio.open(url, tls=tls)

    found = []
    for call in (lambda: vecdb.open(url, tls=tls), lambda: asyncio.run(later())):
        with pytest.raises(vecdb.VecdbError) as caught:
            call()
        assert not any(word in str(caught.value) for word in INTERNALS), caught.value
        assert caught.value.__cause__ is None and caught.value.__suppress_context__
        found.append(caught.value)
    assert type(found[0]) is type(found[1]) and str(found[0]) == str(found[1])
    return found[0], found[1]


@pytest.mark.parametrize(
    ("host", "days", "words"),
    [
        ("localhost", (-2, 0), "has expired: it needs a new one"),
        ("localhost", (1, 2), "not valid yet: compare the clocks"),
        ("db.example.org", (0, 1), "made out to other names: connect by one of those"),
    ],
)
def test_what_is_wrong_with_a_servers_certificate_is_said(
    serving: Serving, files: Any, authority: Authority, tmp_path: Path, host: str, days: Any, words: str
) -> None:
    address = serving(files(authority.issue("server", host, days)))
    error, _ = opening(f"grpcs://{address}", str(tmp_path / "ca.pem"))
    assert type(error) is vecdb.Unavailable and f"grpcs://{address} cannot be reached" in str(error)
    assert words in str(error)


def test_an_authority_that_is_not_trusted_is_asked_for(
    serving: Serving, files: Any, authority: Authority, tmp_path: Path
) -> None:
    address = serving(files(authority.issue("server")))
    (tmp_path / "other.pem").write_bytes(Authority("other").pem)
    for tls in (str(tmp_path / "other.pem"), True):
        error, _ = opening(f"grpcs://{address}", tls)
        assert type(error) is vecdb.Unavailable and "not trusted here (unable to get local issuer" in str(error)
        assert "tls='ca.pem'" in str(error)


def test_who_comes_in_the_clear_to_tls_or_with_tls_to_none_hears_of_it(
    serving: Serving, files: Any, authority: Authority, tmp_path: Path
) -> None:
    error, _ = opening(f"grpc://{serving(files(authority.issue('server')))}", None)
    assert type(error) is vecdb.Unavailable and "where it wants TLS, use grpcs://" in str(error)
    error, _ = opening(f"grpcs://{serving()}", str(tmp_path / "ca.pem"))
    assert type(error) is vecdb.Unavailable and "does not speak TLS: use grpc://" in str(error)


def test_a_client_without_a_certificate_or_with_one_that_is_not_let_in_hears_what_to_give(
    serving: Serving, files: Any, authority: Authority, tmp_path: Path
) -> None:
    ca = str(tmp_path / "ca.pem")
    own = files(authority.issue("server"))
    address = serving(own, ca)
    strange, expired = files(Authority("other").issue("client")), files(authority.issue("client", days=(-2, 0)))
    for tls in (ca, (ca, *strange), (ca, *expired)):
        error, _ = opening(f"grpcs://{address}", tls)
        assert type(error) is vecdb.Unavailable and "give tls=(CA, certificate, key)" in str(error)


def locked(issued: tuple[bytes, bytes]) -> tuple[bytes, bytes]:
    """The same with a password on its key."""
    key: Any = serialization.load_pem_private_key(issued[1], None)
    password = serialization.BestAvailableEncryption(b"secret")
    made = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, password)
    return issued[0], made


@pytest.fixture(params=["another's", "locked", "garbage", "missing", "folder"])
def bad(request: Any, authority: Authority, files: Any, tmp_path: Path) -> tuple[str, str, str]:
    """(certificate, key, what is said of them)."""
    issued, unlike = authority.issue("one"), "are not a certificate and its key, in PEM and without a password"
    cert, key = files(
        {
            "another's": (issued[0], authority.issue("two")[1]),
            "locked": locked(issued),
            "garbage": (issued[0], b"no key"),
        }.get(request.param, issued)
    )
    if request.param == "missing":
        Path(key).unlink()
        return cert, key, f"there is no file {key}"
    if request.param == "folder":
        return cert, str(tmp_path), f"{tmp_path} cannot be read: Is a directory"
    return cert, key, f"{cert} and {key} {unlike}"


def test_files_of_a_client_that_are_no_good_are_told_before_anything_is_sent(
    bad: tuple[str, str, str], tmp_path: Path
) -> None:
    cert, key, said = bad
    error, _ = opening("grpcs://localhost:1", (str(tmp_path / "ca.pem"), cert, key))
    assert isinstance(error, (vecdb.InvalidArgument, vecdb.NotFound)) and str(error).startswith(f"tls: {said}")
    error, _ = opening("grpcs://localhost:1", key)
    assert isinstance(error, (vecdb.InvalidArgument, vecdb.NotFound)) and str(error).startswith("tls: ")


def test_a_server_whose_files_are_no_good_says_so_and_does_not_start(bad: tuple[str, str, str], tmp_path: Path) -> None:
    cert, key, said = bad
    with Process(tmp_path / "db", tmp_path, "--tls-cert", cert, "--tls-key", key) as process:
        assert process.process.wait(60) == 1
    assert f"TLS: {said}" in process.log()
    assert not any(word in process.log().replace("TLS: ", "") for word in INTERNALS)
    assert not (tmp_path / "db").exists()


def test_handshakes_that_fail_and_files_that_are_no_good_any_more_leave_the_log_json(
    files: Any, authority: Authority, tmp_path: Path
) -> None:
    cert, key = files(authority.issue("server"))
    with Process(tmp_path / "db", tmp_path, "--tls-cert", cert, "--tls-key", key) as process:
        with pytest.raises(vecdb.Unavailable):
            vecdb.open(f"grpc://{process.address}")
        Path(key).write_bytes(b"no key")
        with vecdb.open(f"grpcs://{process.address}", tls=str(tmp_path / "ca.pem")) as db:
            assert db.collections() == []
        assert process.end() == 0
    lines = [json.loads(line) for line in process.log().splitlines() if line]
    told = next(line for line in lines if line["level"] == "error")
    assert told["event"] == "certificates unreadable, keeping the old ones"
    assert told["reason"] == f"{cert} and {key} are not a certificate and its key, in PEM and without a password"


@pytest.mark.parametrize("kind", ["near", "aio"])
def test_streams_that_break_are_not_begun_anew_where_the_server_is_no_longer_trusted(
    authority: Authority, files: Any, tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ends: list[tuple[str, float | None]] = []
    asked = retry.RetryPolicy.wait_s

    def wait_s(self: retry.RetryPolicy, status: str) -> float | None:
        ends.append((status, asked(self, status)))
        return ends[-1][1]

    monkeypatch.setattr(retry.RetryPolicy, "wait_s", wait_s)
    monkeypatch.setattr(remote_collection, "_BATCH_BYTES", 32)  # a call is many batches, and a stream
    cert, key = files(authority.issue("server"))
    settings: dict[str, Any] = {"path": str(tmp_path / "db"), "grace_s": 5.0, "tls_cert": cert, "tls_key": key}
    running = Running(Config(listen="127.0.0.1:0", **settings))
    port, ca = running.server.port, str(tmp_path / "ca.pem")
    vectors = np.ones((4, 2), np.float32)

    def turned() -> None:
        nonlocal running
        running.close()
        write(Path(cert).parent, Authority("other").issue("server"))
        running = Running(Config(listen=f"127.0.0.1:{port}", **settings))

    async def later() -> None:
        async with vecdb.aio.open(f"grpcs://127.0.0.1:{port}", tls=ca) as db:
            docs = await db.collection("docs")
            await asyncio.to_thread(turned)
            with pytest.raises(vecdb.Unavailable, match="not trusted here"):
                await docs.upsert(range(4), vectors, atomic=False)
            with pytest.raises(vecdb.Unavailable, match="not trusted here"):
                [hits async for hits in docs.search_stream(vectors)]

    try:
        with vecdb.open(f"grpcs://127.0.0.1:{port}", tls=ca) as db:
            docs = db.create_collection("docs", 2, "l2")
            if kind == "aio":
                asyncio.run(later())
            else:
                turned()
                with pytest.raises(vecdb.Unavailable, match="not trusted here"):
                    docs.upsert(range(4), vectors, atomic=False)
                with pytest.raises(vecdb.Unavailable, match="not trusted here"):
                    list(docs.search_stream(vectors))
    finally:
        running.close()
    assert [status for status, wait in ends if wait is None] == ["UNAUTHENTICATED"] * 2


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "failed to connect to all addresses; last error: UNKNOWN: ipv6:%5B::1%5D:7: "
            "Failed to connect to remote host: Connection refused",
            "nothing listens at [::1]:7: is the server running, and is it this port?",
        ),
        (
            "failed to connect to all addresses; last error: UNKNOWN: ipv4:10.0.0.1:7: Tls handshake failed "
            "(TSI_PROTOCOL_FAILURE): SSL_ERROR_SSL: error:10000410:SSL routines:OPENSSL_internal:"
            "SSLV3_ALERT_HANDSHAKE_FAILURE: Invalid certificate verification context: OK",
            "the TLS handshake failed (Invalid certificate verification context)",
        ),
        (
            "failed to connect to all addresses; last error: UNAVAILABLE: ipv4:10.0.0.1:7: No route to host",
            "No route to host",
        ),
        ("Socket closed", "Socket closed"),
        ("the server is shutting down", "the server is shutting down"),
    ],
)  # fmt: skip
def test_words_of_grpc_become_ours_or_stay_what_they_were(text: str, said: str) -> None:
    assert status_errors.unreachable(text, secure=True) == said
    assert status_errors.is_final(text) is ("Tls" in text)
