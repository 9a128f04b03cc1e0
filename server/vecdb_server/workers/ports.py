"""The port that the workers share: taken once for the server, so that no other server shares it, too.

reserve: bind alone (fails where anybody has the port), then let sockets of this user share it; never listen
workers: bind with SO_REUSEPORT, listen; the system spreads connections over them
"""

from __future__ import annotations

import errno
import socket

from vecdb import Unavailable
from vecdb_server.config import host_and_port


def reserve(listen: str) -> tuple[str, list[socket.socket]]:
    """The address with its port, and the sockets that keep it until they are closed. listen : host:port, port 0 takes
    a free one. Raises Unavailable where it is taken.
    """
    host, port = host_and_port(listen, "listen")
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError:
        found = []
    kept: list[socket.socket] = []
    for family, kind, protocol, _, address in found:
        try:
            kept.append(_kept(family, kind, protocol, (address[0], port, *address[2:])))
            port = kept[-1].getsockname()[1]
        except OSError as error:
            if error.errno in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
                continue  # a name of this host whose address it does not have now
            for one in kept:
                one.close()
            kept = []
            break
    if not kept:
        raise Unavailable(f"cannot listen on {listen}: the port is taken, or the address is not this host's")
    shown = f"[{host}]" if ":" in host else host
    return f"{shown}:{port}", kept


def _kept(family: int, kind: int, protocol: int, address: tuple[object, ...]) -> socket.socket:
    made = socket.socket(family, kind, protocol)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # connections of an earlier server may be ending
        if family == socket.AF_INET6 and address[0] != "::":
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        made.bind(address)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)  # nobody else may bind it from now on
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)  # but the workers
    except BaseException:
        made.close()
        raise
    return made
