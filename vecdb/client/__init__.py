"""The remote database: the backends of `Database` and `Collection` when they are a server's.

    target     where it is, and how to reach it: address, TLS, token
    channel    how gRPC behaves: limits, keepalive, retries, deadlines
    line       one connection, called synchronously or asynchronously
    ingest     many batches on one stream, resumed where it broke
    engine     a collection's calls as messages            home    a database's
    faults     a failed call as the error that the server raised      handshake  one that never reached it

`Connection` and `AsyncConnection` have the same methods; those of the second return coroutines and asynchronous
iterators. All that is above them is written once, and does not know which it has.
"""

from vecdb.client.connect import connect, connect_async

__all__ = ["connect", "connect_async"]
