"""Health check: `python -m vecdb_server.probe [NAME]` exits with 0 where the server says that it serves.

It reads the same settings (VECDB_*) as the server. With TLS it trusts whatever certificate the server shows, under the
NAME in that certificate: it asks whether the server is well, not who it is. A server that wants certificates of its
clients cannot be asked.
"""

from __future__ import annotations

import ssl
import sys
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from vecdb import VecdbError
from vecdb_server.config import Config, host_and_port, load

_TIMEOUT_S = 3.0


def main(name: str | None = None) -> int:
    """Prints what the server says, or why it could not be asked. Returns the exit code."""
    try:
        config = load({})
        host, port = host_and_port(config.listen, "listen")
        with _channel(config, "localhost" if host in ("0.0.0.0", "::") else host, port, name) as channel:
            answer = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=_TIMEOUT_S)
    except (VecdbError, OSError, grpc.RpcError) as error:
        print(error, file=sys.stderr)
        return 1
    print(health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status))
    return int(answer.status != health_pb2.HealthCheckResponse.SERVING)


def _channel(config: Config, host: str, port: int, name: str | None) -> Any:
    if config.tls_cert is None:
        return grpc.insecure_channel(f"{host}:{port}")
    pem = ssl.get_server_certificate((host, port), timeout=_TIMEOUT_S)
    options = [] if name is None else [("grpc.ssl_target_name_override", name)]
    return grpc.secure_channel(f"{host}:{port}", grpc.ssl_channel_credentials(pem.encode()), options)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:2]))
