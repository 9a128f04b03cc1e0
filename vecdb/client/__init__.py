"""The remote database: the backends of `Database` and `Collection` when they are a server's.

    address            where it is, and how to reach it: URL, TLS, token
    channel            how gRPC behaves: limits, keepalive, retries, deadlines
    connect            a backend for a URL
    connection         one connection, called synchronously or asynchronously
    remote_database    a database's calls as messages        remote_collection   a collection's
    bulk_ingest        many batches on one stream, resumed where it broke      query_stream   many queries on one
    rebatch            lists and pages in the sizes that the caller asked for
    retry              whether, and after how long, a broken stream is started again
    status_errors      a failed call as the error that the server raised, or why no connection came about

`Connection` and `AsyncConnection` have the same methods; those of the second return coroutines and asynchronous
iterators. All that is above them is written once, and does not know which it has.

gRPC is imported with its own log off: for each handshake that fails it would write a line to standard error, beside the
error that is raised. Whoever sets GRPC_VERBOSITY, or imports gRPC first, has it as he likes.
"""

from __future__ import annotations

import os

_VERBOSITY = "GRPC_VERBOSITY"

if _VERBOSITY not in os.environ:
    os.environ[_VERBOSITY] = "NONE"
    try:
        import grpc

        grpc.insecure_channel("localhost:1").close()  # the first channel reads the variable; it connects to nothing
    finally:
        del os.environ[_VERBOSITY]  # processes that this one starts are not concerned

from vecdb.client.connect import connect, connect_async  # noqa: E402

__all__ = ["connect", "connect_async"]
