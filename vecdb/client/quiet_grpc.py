"""Imports gRPC with its own log off: for each handshake that fails it would write a line to the caller's standard error,
beside the error that is raised. Whoever sets GRPC_VERBOSITY, or imports gRPC first, has it as he likes.
"""

from __future__ import annotations

import os

_NAME = "GRPC_VERBOSITY"

if _NAME in os.environ:
    import grpc
else:
    os.environ[_NAME] = "NONE"
    try:
        import grpc

        grpc.insecure_channel("localhost:1").close()  # the first channel reads the variable; it connects to nothing
    finally:
        del os.environ[_NAME]  # processes that this one starts are not concerned

__all__ = ["grpc"]
