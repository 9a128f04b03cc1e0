"""PEM files of TLS, checked before gRPC gets them: gRPC reports a bad file only when a handshake fails."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from pathlib import Path

from vecdb.errors import InvalidArgument, NotFound
from vecdb.storage.disk import filesystem

_PEM_BYTES_MAX = 4 << 20


def authorities(path: Path) -> bytes:
    """The file's bytes. Raises NotFound, InvalidArgument where it holds no certificates."""
    data = _read(path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    _load(lambda: context.load_verify_locations(path), f"{path} holds no certificates in PEM")
    return data


def certificate_and_key(certificate: Path, key: Path) -> tuple[bytes, bytes]:
    """The files' bytes. Raises NotFound, InvalidArgument where they do not belong together."""
    data = _read(certificate), _read(key)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    _load(
        lambda: context.load_cert_chain(
            certificate, key, password=lambda: b""
        ),  # otherwise OpenSSL would ask for it on the terminal
        f"{certificate} and {key} are not a certificate and its key, in PEM and without a password",
    )
    return data


def _read(path: Path) -> bytes:
    try:
        return filesystem.read_bytes(path, _PEM_BYTES_MAX, foreign=True)
    except FileNotFoundError:
        raise NotFound(f"there is no file {path}") from None
    except OSError as error:
        raise InvalidArgument(f"{path} cannot be read: {error.strerror}") from None


def _load(load: Callable[[], None], otherwise: str) -> None:
    try:
        load()
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", None)  # OpenSSL gives one for some errors
        why = "" if reason in (None, "NO_CERTIFICATE_OR_CRL_FOUND") else f": {reason.replace('_', ' ').lower()}"
        raise InvalidArgument(otherwise + why) from None
