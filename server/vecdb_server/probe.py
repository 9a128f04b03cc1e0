"""Health check: `python -m vecdb_server.probe [NAME]` exits with 0 where the server says that it serves.

It reads the same settings as the server: the file of VECDB_CONFIG, then VECDB_*. With TLS it trusts whatever
certificate the server shows, under the NAME in that certificate: it asks whether the server is well, not who it is, and
needs no key. It never goes through a proxy. A server that wants certificates of its clients cannot be asked.
"""

from __future__ import annotations

import os
import ssl
import sys
from pathlib import Path
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from vecdb import VecdbError
from vecdb_server.config import Config, host_and_port, read

_TIMEOUT_S = 3.0


def main(name: str | None = None) -> int:
    """Prints what the server says, or why it could not be asked. Returns the exit code."""
    try:
        file = os.environ.get("VECDB_CONFIG")
        config = read({}, file=Path(file) if file else None)
        with _channel(config, name) as channel:
            answer = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=_TIMEOUT_S)
    except grpc.RpcError as error:
        print(f"{config.listen}: {error.code().name}: {error.details()}", file=sys.stderr)
        return 1
    except (VecdbError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    print(health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status))
    return int(answer.status != health_pb2.HealthCheckResponse.SERVING)


def _channel(config: Config, name: str | None) -> Any:
    options: list[tuple[str, Any]] = [("grpc.enable_http_proxy", 0)]
    if config.socket is not None:
        return grpc.insecure_channel(config.listen, options)
    host, port = host_and_port(config.listen, "listen")
    host = "localhost" if host in ("0.0.0.0", "::") else host
    address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    if config.tls_cert is None:
        return grpc.insecure_channel(address, options)
    pem = ssl.get_server_certificate((host, port), timeout=_TIMEOUT_S)
    if name is not None:
        options.append(("grpc.ssl_target_name_override", name))
    return grpc.secure_channel(address, grpc.ssl_channel_credentials(pem.encode()), options)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:2]))
