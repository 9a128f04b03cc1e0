"""Certificates of the server. When their files have changed they are read again at the next handshake.

Threads: `_newest` is called on threads of gRPC.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import grpc

from vecdb import InvalidArgument, VecdbError
from vecdb.wire import tls_files
from vecdb_server.logs import log
from vecdb_server.security.tokens import is_exposed


class Certificates:
    """cert, key : PEM files of the server.   client_ca : PEM of the authority that signs clients' certificates; None:
    clients need no certificate.

    Files that do not fit together (a certificate without its key, half a file) are logged, and the old ones stay.
    """

    def __init__(self, cert: str, key: str, client_ca: str | None) -> None:
        self._paths = [Path(one) for one in (cert, key, client_ca) if one is not None]
        self._with_clients = client_ca is not None
        self._stamp = self._stamps()
        try:
            self._current = self._read()
        except VecdbError as error:
            raise InvalidArgument(f"TLS: {error}") from None

    def credentials(self) -> Any:
        return grpc.dynamic_ssl_server_credentials(self._current, self._newest, self._with_clients)

    def _newest(self) -> Any:
        """The new configuration, or None where nothing changed. Called at each handshake."""
        stamp = self._stamps()
        if stamp == self._stamp:
            return None
        self._stamp = stamp
        try:
            self._current = self._read()
        except VecdbError as error:
            log.error("certificates unreadable, keeping the old ones", reason=str(error))
            return None
        log.info("certificates read")
        return self._current

    def _read(self) -> Any:
        cert, key, *client_ca = self._paths
        chain, secret = tls_files.certificate_and_key(cert, key)
        if is_exposed(key):
            log.warning("others than its owner may read or change the TLS key: chmod 600", path=str(key))
        return grpc.ssl_server_certificate_configuration(
            [(secret, chain)], tls_files.authorities(client_ca[0]) if client_ca else None
        )

    def _stamps(self) -> list[tuple[int, int, int]]:
        stamps = []
        for path in self._paths:
            try:
                found = path.stat()
                stamps.append((found.st_ino, found.st_mtime_ns, found.st_size))
            except OSError:
                stamps.append((0, 0, 0))
        return stamps
