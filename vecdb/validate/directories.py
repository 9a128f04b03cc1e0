"""The directory that a user names for a database: what is the address of something else is none."""

from __future__ import annotations

import os
import re
from pathlib import Path

from vecdb.errors import InvalidArgument

# scheme://, or a path that was made of it; what gRPC calls a target; host:port and user@host:port; [::1]:port
_ADDRESS = re.compile(
    r"[A-Za-z][A-Za-z0-9+.-]+:/|(grpcs?|https?|tcp|s3|gs|file)//|"
    r"(unix|dns|ipv4|ipv6|vsock|grpcs?|https?|s3|gs|file|cluster):|"
    r"[A-Za-z0-9._@-]+:[0-9]{1,5}(/.*)?$|\[[0-9a-fA-F:]+\]:[0-9]+(/.*)?$"
)
_MEMORY = re.compile(r":memory:?|memory:", re.IGNORECASE)  # what ":memory:" becomes by mistake


def absolute(path: str | os.PathLike[str]) -> Path:
    """The directory that a user means. Raises InvalidArgument for what looks like the address of something else, of
    which a directory would be made in silence. A leading ~ is the user's home.
    """
    text = os.fspath(path)
    if text != text.strip():
        raise InvalidArgument(
            f"{text!r} begins or ends with a space, which is hard to see: leave it out, or give a Path"
        )
    if _ADDRESS.match(text):
        raise InvalidArgument(
            f"{text!r} is an address, and vecdb keeps databases in directories: give a path, ':memory:', or "
            "grpc://host:port for a server; for a directory of this name write './' before it"
        )
    if _MEMORY.fullmatch(text):
        raise InvalidArgument(
            f"{text!r} is no directory: vecdb.open(':memory:') makes a temporary database, which nothing else can "
            "name; for a directory of this name write './' before it"
        )
    if text == "~" or text.startswith("~/"):
        text = os.path.expanduser(text)
        if text.startswith("~"):
            raise InvalidArgument(f"{os.fspath(path)!r}: this user has no home; give the whole path")
    elif text.startswith("~") and "/" in text:
        raise InvalidArgument(
            f"{text!r} would be in a directory named {text.partition('/')[0]!r}: give the whole path of that user's "
            "home; for a directory of this name write './' before it"
        )
    return Path(os.path.abspath(text))
