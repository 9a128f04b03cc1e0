"""TLS: who may connect, and certificates that change under a running server."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import pytest

from tests.support.server.certificates import Authority, write
from tests.support.server.driver import Client, Running, outcome, token
from vecdb import InvalidArgument
from vecdb.v1 import admin_pb2

Serving, Calling = Callable[..., Running], Callable[..., Client]


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority("tests")


def asked(client: Client) -> str:
    def ask() -> Any:
        return client.admin.GetServerInfo(admin_pb2.GetServerInfoRequest(), metadata=client.metadata, timeout=20)

    return outcome(ask)


def trusting(authority: Authority, own: tuple[bytes, bytes] | None = None) -> Any:
    cert, key = own or (None, None)
    return grpc.ssl_channel_credentials(authority.pem, key, cert)


def test_a_client_that_trusts_the_certificate_is_served_and_others_are_not(
    serving: Serving, calling: Calling, authority: Authority, tmp_path: Path
) -> None:
    cert, key = write(tmp_path, authority.issue("server"))
    secret = token(tmp_path / "tokens.json", "a")
    running = serving(tls_cert=cert, tls_key=key, tokens=str(tmp_path / "tokens.json"))
    assert asked(calling(running, secret, credentials=trusting(authority))) == "OK"
    assert asked(calling(running, credentials=trusting(authority))) == "UNAUTHENTICATED"
    assert asked(calling(running, secret, credentials=trusting(Authority("another")))) == "UNAVAILABLE"
    assert asked(calling(running, secret)) == "UNAVAILABLE"  # in the clear


def test_with_client_certificates_only_those_of_the_authority_come_in(
    serving: Serving, calling: Calling, authority: Authority, tmp_path: Path
) -> None:
    cert, key = write(tmp_path, authority.issue("server"))
    (tmp_path / "ca.pem").write_bytes(authority.pem)
    running = serving(tls_cert=cert, tls_key=key, tls_client_ca=str(tmp_path / "ca.pem"))
    assert asked(calling(running, credentials=trusting(authority, authority.issue("client")))) == "OK"
    assert asked(calling(running, credentials=trusting(authority))) == "UNAVAILABLE"
    stranger = Authority("another").issue("client")
    assert asked(calling(running, credentials=trusting(authority, stranger))) == "UNAVAILABLE"


def test_a_renewed_certificate_is_used_by_the_next_connection_and_a_broken_one_is_not(
    serving: Serving, calling: Calling, authority: Authority, tmp_path: Path
) -> None:
    cert, key = write(tmp_path, authority.issue("server"))
    running = serving(tls_cert=cert, tls_key=key)
    old = calling(running, credentials=trusting(authority))
    assert asked(old) == "OK"
    renewed = Authority("renewed")
    write(tmp_path, renewed.issue("server"))
    assert asked(calling(running, credentials=trusting(renewed))) == "OK"
    assert asked(calling(running, credentials=trusting(authority))) == "UNAVAILABLE"
    assert asked(old) == "OK"  # its connection stands
    cert_of_one, key_of_another = renewed.issue("server")[0], renewed.issue("server")[1]
    for broken in ((cert_of_one, key_of_another), (b"", b""), (b"-----BEGIN CERTIFICATE-----\nx", b"y")):
        write(tmp_path, broken)
        assert asked(calling(running, credentials=trusting(renewed))) == "OK"
    Path(cert).unlink()
    assert asked(calling(running, credentials=trusting(renewed))) == "OK"
    write(tmp_path, authority.issue("server"))
    assert asked(calling(running, credentials=trusting(authority))) == "OK"


def test_a_server_with_a_broken_certificate_does_not_start(
    serving: Serving, authority: Authority, tmp_path: Path
) -> None:
    cert, key = write(tmp_path, (authority.issue("server")[0], authority.issue("server")[1]))
    with pytest.raises(InvalidArgument, match="TLS"):
        serving(tls_cert=cert, tls_key=key)
    with pytest.raises(InvalidArgument, match="TLS"):
        serving(tls_cert=str(tmp_path / "none"), tls_key=key)


def test_a_probe_sees_whether_a_server_serves(
    serving: Serving, authority: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    from vecdb_server import probe

    cert, key = write(tmp_path, authority.issue("server"))
    running = serving(tls_cert=cert, tls_key=key)
    monkeypatch.setenv("VECDB_LISTEN", running.address)
    monkeypatch.setenv("VECDB_TLS_CERT", cert)
    monkeypatch.setenv("VECDB_TLS_KEY", key)
    assert probe.main() == 0 and probe.main("localhost") == 0 and "SERVING" in capsys.readouterr().out
    assert probe.main("another.name") == 1
    running.close()
    assert probe.main() == 1
