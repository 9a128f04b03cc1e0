"""A server's address: grpc://host:port, or grpcs:// for TLS with the certificates of the system; or, on this machine,
unix:/path/of/socket.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import grpc

from vecdb.errors import InvalidArgument, VecdbError
from vecdb.validate import flag, short_repr
from vecdb.wire import tls_files
from vecdb.wire.addresses import UNIX, is_local, socket_path

T = TypeVar("T")

PORT = 7711
_SECURE = {"grpc": False, "grpcs": True}


@dataclass(frozen=True, slots=True)
class Target:
    """name : for error messages.   address : for gRPC.   credentials : None without TLS."""

    name: str
    address: str
    local: bool
    credentials: Any = None
    metadata: Sequence[tuple[str, str]] = field(default=(), repr=False)


def target(url: object, token: object, tls: object, insecure: object) -> Target:
    """Checks arguments of `vecdb.open`. Raises InvalidArgument, NotFound where a certificate is missing."""
    plain_allowed = flag(insecure, "insecure")
    if isinstance(url, str) and url.startswith(UNIX):
        secure, host, shown, local = False, "localhost", UNIX + socket_path(url), True
    else:
        secure, host, port = _parsed(url)
        shown, local = f"[{host}]:{port}" if ":" in host else f"{host}:{port}", is_local(host)
    credentials = _credentials(tls, secure)
    if credentials is not None and shown.startswith(UNIX):
        raise InvalidArgument("a socket of this machine is without TLS: leave tls out")
    if token is not None and (
        not isinstance(token, str) or not token.isascii() or not token.isprintable() or not token
    ):
        raise InvalidArgument("token must be a string of printable ASCII characters, or None")
    if token is not None and credentials is None and not local and not plain_allowed:
        raise InvalidArgument(
            f"a token would go to {host} in plain text, for everybody on the way to read: use grpcs:// or tls=..., "
            "or say insecure=True"
        )
    scheme = "" if shown.startswith(UNIX) else "grpc://" if credentials is None else "grpcs://"
    metadata = () if token is None else (("authorization", f"Bearer {token}"),)
    return Target(scheme + shown, shown, local, credentials, metadata)


def _parsed(url: object) -> tuple[bool, str, int]:
    """(whether TLS, host, port) of a URL."""
    try:
        parts = urlsplit(url if isinstance(url, str) else "")
        host, port = parts.hostname, parts.port
    except ValueError:
        raise InvalidArgument(
            f"a server's address is grpc://host:port, an IPv6 host in brackets, got {short_repr(url)}"
        ) from None
    extra = parts.path.strip("/") or parts.query or parts.fragment or parts.username or parts.password
    if parts.scheme not in _SECURE or not host or extra:
        raise InvalidArgument(f"a server's address is grpc://host:port or grpcs://host:port, got {short_repr(url)}")
    return _SECURE[parts.scheme], host, PORT if port is None else port


def _credentials(tls: object, secure: bool) -> Any:
    if tls is None or tls is True:
        return grpc.ssl_channel_credentials() if secure or tls else None
    if tls is False:
        if secure:
            raise InvalidArgument("grpcs:// is with TLS: use grpc://, or leave tls=False out")
        return None
    if isinstance(tls, (str, os.PathLike)):
        return grpc.ssl_channel_credentials(_read_files(tls_files.authorities, tls))
    if isinstance(tls, (tuple, list)) and len(tls) == 3:
        ca, *own = tls
        cert, key = _read_files(tls_files.certificate_and_key, *own)
        return grpc.ssl_channel_credentials(None if ca is None else _read_files(tls_files.authorities, ca), key, cert)
    raise InvalidArgument(
        "tls must be True, the path of a CA's certificate, or (CA, certificate, key), paths of PEM files"
    )


def _read_files(read: Callable[..., T], *paths: Any) -> T:
    for path in paths:
        if not isinstance(path, (str, os.PathLike)):
            raise InvalidArgument(f"tls: {short_repr(path)} is no path of a PEM file")
    try:
        return read(*map(Path, paths))
    except VecdbError as error:
        raise type(error)(f"tls: {error}") from None
