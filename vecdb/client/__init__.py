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
    quiet_grpc         imports gRPC so that it writes no lines of its own; before all of these

`Connection` and `AsyncConnection` have the same methods; those of the second return coroutines and asynchronous
iterators. All that is above them is written once, and does not know which it has.
"""

from vecdb.client import quiet_grpc  # noqa: F401, I001 - before gRPC is imported
from vecdb.client.connect import connect, connect_async

__all__ = ["connect", "connect_async"]
