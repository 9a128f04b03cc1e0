"""The file of a unix socket: made for this server, never taken from another one, and removed at the end."""

from __future__ import annotations

import contextlib
import os
import socket
import stat
from collections.abc import Iterator
from contextlib import contextmanager

from vecdb import Unavailable


@contextmanager
def claimed(path: str, *, for_all: bool) -> Iterator[None]:
    """While gRPC makes the socket. One that a server left behind is removed first.

    for_all : whether other users of this machine may connect, as far as the umask lets them.
    Raises Unavailable where a server listens there, or something else lies there.
    """
    with contextlib.suppress(FileNotFoundError):
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            raise Unavailable(f"cannot listen on unix:{path}: it is there already, and is no socket")
        if _is_served(path):
            raise Unavailable(f"cannot listen on unix:{path}: another server does")
        os.unlink(path)
    before = os.umask(0o177)  # of the whole process, which has just begun
    os.umask(before if for_all else 0o177)
    try:
        yield
    finally:
        os.umask(before)


def remove(path: str) -> None:
    with contextlib.suppress(OSError):
        os.unlink(path)


def _is_served(path: str) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as asking:
        asking.settimeout(1.0)
        try:
            asking.connect(path)
        except ConnectionRefusedError:
            return False
        except OSError:
            return True  # it is no business of ours, or it is too busy to answer
        return True
