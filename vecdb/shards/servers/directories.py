"""The directory of one server of a cluster, and how it becomes what its role asks for."""

from __future__ import annotations

import time
from contextlib import suppress
from pathlib import Path

import vecdb
from vecdb.errors import InvalidArgument, NotFound, PermissionDenied, VecdbError
from vecdb.replication.bucket import open_bucket
from vecdb.replication.log import entry
from vecdb.replication.log.applying import FOLLOWS
from vecdb.shards.servers.roles import Held
from vecdb.storage.disk import filesystem, manifest

_ADDRESS_BYTES_MAX = 1 << 10


def what_it_holds(path: Path) -> Held:
    if not filesystem.exists(path / manifest.NAME):
        return "nothing"
    return "own" if filesystem.kind_of(path / FOLLOWS) == "nothing" else "copy"


def has_log(log: str) -> bool:
    """Whether anybody has begun a log there."""
    return next(open_bucket(log).list(entry.LOG), None) is not None


def put_aside(path: Path) -> Path:
    """Give a directory another name: what it alone has stays there, for people to look at."""
    number, stamp = 0, time.strftime("%Y%m%d-%H%M%S", time.gmtime())
    while filesystem.exists(aside := path.with_name(f"{path.name}.aside-{stamp}-{number}")):
        number += 1
    filesystem.rename(path, aside)
    return aside


def take_over(path: Path, log: str) -> None:
    """Make a directory the one that writes a log: of a copy, or of nothing where there is a log: it becomes a copy
    first. One that was written itself stays as it is.

    Raises Unavailable where the log has no snapshot yet, or the bucket does not answer.
    """
    if what_it_holds(path) == "own":
        return
    if what_it_holds(path) == "nothing":
        try:
            vecdb.open(path, follow=log, staleness_s=None, maintenance=False).close()
        except NotFound:
            return  # the log begins here
    if what_it_holds(path) == "copy":
        try:
            vecdb.promote(path, log)
        except InvalidArgument:  # it is no copy any more: a kill came before the file that says so went
            filesystem.remove(path / FOLLOWS)


def is_refused(path: Path, log: str) -> bool:
    """Whether a directory that was written can write that log no more, since another has gone on."""
    try:
        with vecdb.open(path, log=log, maintenance=False):
            return False
    except InvalidArgument:
        return True
    except VecdbError:
        return False


def address_file(path: Path) -> Path:
    return path.with_name(f"{path.name}.address")


def known_address(path: Path) -> str | None:
    """Where the server of a directory listened last."""
    with suppress(FileNotFoundError):
        return filesystem.read_bytes(address_file(path), _ADDRESS_BYTES_MAX).decode("utf-8", "replace").strip()
    return None


def note_address(path: Path, address: str) -> None:
    filesystem.make_dir(path.parent)
    filesystem.write_atomic(address_file(path), [address.encode()])


def reachable(address: str, tls: str | None, timeout_s: float) -> bool:
    """Whether a server answers, be it that it refuses a caller without a token: none is sent, so that none can leak."""
    try:
        vecdb.open(address, tls=tls, timeout=timeout_s).close()
        return True
    except PermissionDenied:
        return True
    except VecdbError:
        return False
