"""An address that vecdb does not serve is refused; it never becomes a directory of that name."""

from __future__ import annotations

from pathlib import Path

import pytest

import vecdb
from vecdb.errors import InvalidArgument, Unavailable

ADDRESSES = [
    "s3://bucket/db", "http://localhost:7711", "localhost:7711", "GRPC://localhost:7711", "grpc:/localhost",
    "file:///tmp/db", " grpc://h", "data ", "dns:///h", "unix:/x.sock", "unix:x",
    "[::1]:7711", "grpc//db:7711", "10.0.0.1:1", "CLUSTER:///tmp/c", "cluster:/tmp/c",
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
        if not address.startswith(("s3://", "file://")):  # of a bucket, where a backup may go
            with pytest.raises(InvalidArgument, match=r"is an address|with a space"):
                database.backup(address)
    with pytest.raises(InvalidArgument, match=r"is an address|with a space"):
        vecdb.restore("real", address)
    assert [path.name for path in tmp_path.iterdir()] == ["real"]


def test_a_directory_of_such_a_name_can_be_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    vecdb.open("./localhost:7711").close()
    with vecdb.open("./localhost:7711", read_only=True) as database:
        assert database.collections() == []
