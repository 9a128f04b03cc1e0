"""An address that vecdb does not serve is refused; it never becomes a directory of that name."""

from __future__ import annotations

from pathlib import Path

import pytest

import vecdb
from vecdb.errors import InvalidArgument, Unavailable

ADDRESSES = [
    "s3://bucket/db", "http://localhost:7711", "localhost:7711", "GRPC://localhost:7711", "grpc:/localhost",
    "file:///tmp/db", " grpc://h", "data ", "dns:///h", "unix:/x.sock", "unix:x",
    "[::1]:7711", "grpc//db:7711", "10.0.0.1:1", "my_db:7711", "user@host:7711", "localhost:7711/db", "s3:bucket/db",
    "grpc:localhost", "http:localhost:7711", "[::1]:7711/db", "CLUSTER:///tmp/c", "cluster:/tmp/c",
]  # fmt: skip


@pytest.mark.parametrize("address", ADDRESSES)
def test_an_address_is_refused_and_nothing_is_made(
    address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    if address.startswith("unix:"):  # a server's, of which none is there
        with pytest.raises(Unavailable, match=f"^{address} cannot be reached"):
            vecdb.open(address)
    else:
        with pytest.raises(InvalidArgument, match=r"is an address|with a space"):
            vecdb.open(address)
    with pytest.raises(InvalidArgument, match=r"is an address|with a space"):
        vecdb.upgrade(address)
    with vecdb.open("real") as database:
        if not address.startswith(("s3:", "file:")):  # of a bucket, where a backup may go
            with pytest.raises(InvalidArgument, match=r"is an address|with a space"):
                database.backup(address)
    with pytest.raises(InvalidArgument, match=r"is an address|with a space"):
        vecdb.restore("real", address)
    assert [path.name for path in tmp_path.iterdir()] == ["real"]


@pytest.mark.parametrize("name", [":MEMORY:", ":memory", "memory:", ":Memory:", "~nobody-of-this-name/db"])
def test_a_slip_makes_no_directory(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for call in (vecdb.open, vecdb.upgrade, lambda it: vecdb.open(it, read_only=True)):
        with pytest.raises(InvalidArgument, match=r"is no directory|would be in a directory named '~nobody"):
            call(name)
    with vecdb.open(":memory:") as database:
        for taken in (name, ":memory:"):
            with pytest.raises(InvalidArgument, match=r"is no directory|would be in a directory named '~nobody"):
                database.backup(taken)
        database.backup("backup")
    with pytest.raises(InvalidArgument, match=r"is no directory|would be in a directory named '~nobody"):
        vecdb.restore("backup", ":memory:")
    assert [path.name for path in tmp_path.iterdir()] == ["backup"]
    vecdb.open("./" + name).close()
    vecdb.open("~backup-without-a-slash").close()
    assert len(list(tmp_path.iterdir())) == 3


def test_a_directory_of_such_a_name_can_be_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    vecdb.open("./localhost:7711").close()
    with vecdb.open("./localhost:7711", read_only=True) as database:
        assert database.collections() == []
