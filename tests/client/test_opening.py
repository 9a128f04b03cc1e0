"""How a server is named, reached and trusted, and what opening it says where that fails."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vecdb
from tests.support.server.certificates import Authority, write
from tests.support.server.driver import PATIENCE_S, Running, token
from vecdb.client.address import target
from vecdb_server.config import Config


@pytest.fixture
def serving(tmp_path: Path) -> Iterator[Any]:
    running: list[Running] = []

    def start(**settings: Any) -> str:
        running.append(Running(Config(path=":memory:", listen="127.0.0.1:0", grace_s=5.0, **settings)))
        return running[-1].address

    yield start
    for one in running:
        one.close()


# -- names -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "address", "secure", "local"),
    [
        ("grpc://localhost", "localhost:7711", False, True),
        ("grpc://127.0.0.9:80/", "127.0.0.9:80", False, True),
        ("grpc://[::1]:9", "[::1]:9", False, True),
        ("grpcs://db.example.org", "db.example.org:7711", True, False),
        ("grpc://10.0.0.1:1", "10.0.0.1:1", False, False),
    ],
)
def test_an_address_says_where_and_how(url: str, address: str, secure: bool, local: bool) -> None:
    found = target(url, None, None, False)
    assert (found.address, found.credentials is not None, found.local) == (address, secure, local)
    assert found.name == f"{'grpcs' if secure else 'grpc'}://{address}"


@pytest.mark.parametrize(
    "url",
    ["grpc://", "grpc://host:port", "grpc://host:99999", "grpc://user@host", "grpc://h/x", "grpc://h?a=1", "http://h"],
)
def test_what_is_no_address_is_refused(url: str) -> None:
    with pytest.raises(vecdb.InvalidArgument, match="address"):
        target(url, None, None, False)


def test_a_token_goes_over_tls_or_stays_on_this_machine() -> None:
    with pytest.raises(vecdb.InvalidArgument, match="plain text"):
        vecdb.open("grpc://db.example.org", token="vdb_secret")
    for url, tls, insecure in [
        ("grpc://localhost", None, False), ("grpcs://db.example.org", None, False),
        ("grpc://db.example.org", True, False), ("grpc://db.example.org", None, True),
    ]:  # fmt: skip
        found = target(url, "vdb_secret", tls, insecure)
        assert found.metadata == (("authorization", "Bearer vdb_secret"),) and "secret" not in repr(found)
    for bad in ("", "a\nb", "ä", 7):
        with pytest.raises(vecdb.InvalidArgument, match="token"):
            target("grpc://localhost", bad, None, False)


def test_options_that_say_nothing_of_what_is_opened_are_refused(tmp_path: Path) -> None:
    for options in ({"token": "t"}, {"tls": True}, {"insecure": True}, {"timeout": 1}):
        with pytest.raises(vecdb.InvalidArgument, match=f"{next(iter(options))} is no option"):
            vecdb.open(tmp_path / "db", **options)  # type: ignore[arg-type]
    for given in ({"read_only": True}, {"durability": "relaxed"}, {"memory_budget_bytes": 1}):
        with pytest.raises(vecdb.InvalidArgument, match=f"{next(iter(given))} is no option"):
            vecdb.open("grpc://localhost", **given)  # type: ignore[arg-type]
    for timeout in (0, -1, float("inf"), "1", True):
        with pytest.raises(vecdb.InvalidArgument, match="timeout must be"):
            vecdb.open("grpc://localhost", timeout=timeout)  # type: ignore[arg-type]
    with pytest.raises(vecdb.InvalidArgument, match="insecure must be True or False, got 'no'"):
        vecdb.open("grpc://10.0.0.1", token="t", insecure="no")  # type: ignore[arg-type]
    with pytest.raises(vecdb.InvalidArgument, match="read_only must be True or False, got 'no'"):
        vecdb.open(tmp_path / "db", read_only="no")  # type: ignore[arg-type]
    assert not (tmp_path / "db").exists()


@pytest.mark.parametrize("tls", ["none.pem", ("a", "b"), 7, (None, 7, 8)])
def test_certificates_that_cannot_be_read_are_named(tls: Any) -> None:
    with pytest.raises((vecdb.NotFound, vecdb.InvalidArgument), match="tls"):
        vecdb.open("grpc://localhost", tls=tls)
    with pytest.raises(vecdb.InvalidArgument, match="tls"):
        vecdb.open("grpcs://localhost", tls=False)


# -- reaching it -----------------------------------------------------------------------------------


def test_tls_with_an_authority_and_a_certificate_of_ones_own(serving: Any, tmp_path: Path) -> None:
    authority = Authority("tests")
    (tmp_path / "ca.pem").write_bytes(authority.pem)
    for name in ("server", "client"):
        (tmp_path / name).mkdir()
    cert, key = write(tmp_path / "server", authority.issue("server"))
    own = write(tmp_path / "client", authority.issue("client"))
    ca = str(tmp_path / "ca.pem")
    with vecdb.open(f"grpcs://{serving(tls_cert=cert, tls_key=key)}", tls=ca) as db:
        assert db.collections() == [] and str(db.path).startswith("grpcs://localhost:")
    address = serving(tls_cert=cert, tls_key=key, tls_client_ca=ca)
    with vecdb.open(f"grpc://{address}", tls=(ca, *own)) as db:
        assert db.create_collection("docs", 2).count() == 0
    with pytest.raises(vecdb.Unavailable, match="grpcs://"):
        vecdb.open(f"grpc://{address}", tls=ca, timeout=2)
    with pytest.raises(vecdb.Unavailable):
        vecdb.open(f"grpc://{address}", timeout=2)


def test_a_token_says_what_may_be_done(serving: Any, tmp_path: Path) -> None:
    file = tmp_path / "tokens.json"
    admin, reader, tenant = token(file, "admin", "admin"), token(file, "reader"), token(file, "t", "write", tenant="t")
    url = f"grpc://{serving(tokens=str(file))}"
    for wrong in (None, "vdb_wrong"):
        with pytest.raises(vecdb.PermissionDenied, match="token"):
            vecdb.open(url, token=wrong)
    with (
        vecdb.open(url, token=admin) as db,
        vecdb.open(url, token=reader) as other,
        vecdb.open(url, token=tenant) as own,
    ):
        db.create_collection("docs", 2, "l2").upsert([1, 2], np.eye(2), tenants=[["t"], []])
        assert other.collection("docs").count() == 2
        with pytest.raises(vecdb.PermissionDenied, match="write permission") as caught:
            other.collection("docs").upsert(3, [1, 1])
        assert caught.value.code == "PERMISSION_DENIED"
        assert own.collection("docs").search([1, 1], 5).ids.tolist() == [1]
        with pytest.raises(vecdb.NotFound, match="has no tenant"):
            own.collection("docs").search([1, 1], tenant="u")


def test_a_server_that_is_not_there_is_said_to_be_unreachable() -> None:
    with pytest.raises(vecdb.Unavailable, match=r"grpc://localhost:1 (cannot be reached|did not answer)"):
        vecdb.open("grpc://localhost:1", timeout=1.0)

    async def opened() -> None:
        await vecdb.aio.open("grpc://localhost:1", timeout=1.0)

    with pytest.raises(vecdb.Unavailable, match="grpc://localhost:1"):
        asyncio.run(opened())


def test_a_forked_process_must_open_its_own(serving: Any) -> None:
    with vecdb.open(f"grpc://{serving()}") as db:
        docs = db.create_collection("docs", 2)
        read, wrote = os.pipe()
        child = os.fork()
        if child == 0:
            said = []
            for call in (docs.count, lambda: docs.search([1, 1]), db.collections, lambda: next(docs.iter()), db.close):
                try:
                    call()
                except vecdb.Unavailable as error:
                    said.append(str(error))
            os.write(wrote, "\n".join(said).encode())
            os._exit(0)
        signal.alarm(int(PATIENCE_S))
        assert os.waitpid(child, 0)[1] == 0
        signal.alarm(0)
        said = os.read(read, 10_000).decode().splitlines()
        assert len(said) == 4 and all(f"inherited by a fork; open it anew in process {child}" in one for one in said)
        assert docs.count() == 0
        os.close(read), os.close(wrote)
