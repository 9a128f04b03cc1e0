"""Which port a server may have. Nothing is sent: a port is taken for a moment, to see whether it is free."""

from __future__ import annotations

import socket

from vecdb.errors import InvalidArgument


def split_listen(listen: str) -> tuple[str, int]:
    """(host, port) of host:port. Raises InvalidArgument."""
    host, _, port = listen.rpartition(":")
    if not host or not port.isdecimal() or int(port) > 65_535:
        raise InvalidArgument(f"a server listens on host:port, an IPv6 host in brackets, got {listen!r}")
    return host.strip("[]"), int(port)


def joined(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def free_port(host: str) -> int:
    with socket.create_server((host, 0), family=_family(host)) as listening:
        return int(listening.getsockname()[1])


def is_free(host: str, port: int) -> bool:
    try:
        with socket.create_server((host, port), family=_family(host)):
            return True
    except OSError:
        return False


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET
