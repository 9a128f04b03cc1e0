"""Which addresses are a server's, and whether a host is this machine: client and server allow plain text only there,
since others could read it.

    grpc://host:port   grpcs://host:port   unix:/path/of/socket   unix:path, from the working directory
    cluster://...      of several servers (cluster/placement.py)
"""

from __future__ import annotations

import ipaddress
import os

from vecdb.errors import InvalidArgument

UNIX = "unix:"
CLUSTER = "cluster://"
_SOCKET_BYTES_MAX = 107  # what the kernel takes
_SERVERS = ("grpc://", "grpcs://", UNIX)


def is_server(path: object) -> bool:
    """Whether a database is a server's, by its address."""
    return isinstance(path, str) and path.startswith(_SERVERS)


def is_cluster(path: object) -> bool:
    """Whether a database is that of several servers, by its address."""
    return isinstance(path, str) and path.startswith(CLUSTER)


def is_remote(path: object) -> bool:
    """Whether a database is behind a server, or several: no directory of this machine."""
    return is_server(path) or is_cluster(path)


def socket_path(address: str) -> str:
    """The path in unix:/path, unix:///path or unix:path. Raises InvalidArgument where it can be none."""
    path = address.removeprefix(UNIX)
    if path.startswith("//"):
        path = path[2:] if path.startswith("///") else ""
    if not path or "\0" in path or len(os.fsencode(path)) > _SOCKET_BYTES_MAX:
        raise InvalidArgument(
            f"the address of a socket is unix:/path, of at most {_SOCKET_BYTES_MAX} bytes, got {address!r}"
        )
    return path


def is_local(host: str) -> bool:
    """Whether a host, without port and brackets, is this machine's loopback."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
