"""A server within the test's process, on a loop of its own, and a synchronous client that speaks the proto."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import grpc
import numpy as np
from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc

from vecdb.v1 import (
    admin_pb2,
    admin_pb2_grpc,
    collections_pb2,
    collections_pb2_grpc,
    common_pb2,
    records_pb2,
    records_pb2_grpc,
    search_pb2,
    search_pb2_grpc,
    tenants_pb2,
    tenants_pb2_grpc,
)
from vecdb.wire.arrays import vectors_message
from vecdb_server.app import Server
from vecdb_server.config import checked
from vecdb_server.security import tokens
from vecdb_server.security.auth import Caller

PATIENCE_S = 60.0  # how long a test waits for what must happen

# options of a client that looks for a server again and again while that is being restarted
FAST_RECONNECTS = {
    "grpc.initial_reconnect_backoff_ms": 50,
    "grpc.min_reconnect_backoff_ms": 50,
    "grpc.max_reconnect_backoff_ms": 200,
}


class Running:
    """A server that serves until `close`."""

    def __init__(self, config: Any) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, name="server-loop")
        self._thread.start()
        self.server: Server = self.on_loop(_made(checked(config)))
        try:
            self.on_loop(self.server.start())
            self.on_loop(_warmed(self.server))
        except BaseException:
            self._end()
            raise

    @property
    def address(self) -> str:
        return f"localhost:{self.server.port}"

    def on_loop(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        future: Future[Any] = asyncio.run_coroutine_threadsafe(coroutine, self.loop)
        return future.result(PATIENCE_S)

    def drain(self) -> None:
        self.on_loop(self.server.drain())

    def close(self) -> None:
        if self._thread.is_alive():
            self.drain()
            self._end()

    def _end(self) -> None:
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()
        self.loop.close()

    def until(self, condition: Any) -> None:
        """Wait, on the server's loop, until condition() holds."""
        self.on_loop(_until(condition))


def settled(running: Running) -> None:
    """Wait until no request is held, queued or worked on, and no list keeps a transaction open."""
    context = running.server.context
    running.until(lambda: context.admission.calls == 0 and context.admission.bytes == 0 and not context.streams)
    for pool in (context.kernels, context.writers):
        running.until(lambda pool=pool: pool.queued == 0 and pool.busy == 0)
    running.until(lambda: context.db._backend.store._parked == 0 and not context.db._backend.store._reads)


async def _made(config: Any) -> Server:
    return Server(config)


async def _warmed(server: Server) -> None:
    await server._tasks[0]


async def _until(condition: Any) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not condition():
            await asyncio.sleep(0.002)


class Client:
    """Stubs of every service, with the metadata of one token."""

    def __init__(self, address: str, token: str | None = None, credentials: Any = None, **options: Any) -> None:
        arguments = [("grpc.use_local_subchannel_pool", 1), *options.items()]
        self.channel = (
            grpc.insecure_channel(address, arguments)
            if credentials is None
            else grpc.secure_channel(address, credentials, arguments)
        )
        self.metadata = () if token is None else (("authorization", f"Bearer {token}"),)
        self.admin = admin_pb2_grpc.AdminServiceStub(self.channel)
        self.collections = collections_pb2_grpc.CollectionServiceStub(self.channel)
        self.records = records_pb2_grpc.RecordServiceStub(self.channel)
        self.search = search_pb2_grpc.SearchServiceStub(self.channel)
        self.tenants = tenants_pb2_grpc.TenantServiceStub(self.channel)

    def __call__(self, rpc: Any, request: Any, **options: Any) -> Any:
        """One call; of an rpc that streams its answers, the list of them."""
        answer = rpc(request, metadata=self.metadata, timeout=PATIENCE_S, **options)
        return list(answer) if hasattr(answer, "__next__") else answer

    def close(self) -> None:
        self.channel.close()

    # -- the calls that most tests need --------------------------------------------------------------

    def create(self, name: str, dim: int, **settings: Any) -> None:
        self(self.collections.CreateCollection, collections_pb2.CreateCollectionRequest(name=name, dim=dim, **settings))

    def write(self, collection: str, start: int, vectors: Any, **settings: Any) -> int:
        return int(self(self.records.Write, write_request(collection, start, vectors, **settings)).count)

    def count(self, collection: str, *tenants: str) -> int:
        request = records_pb2.CountRequest(collection=collection, tenants=tenants)
        return int(self(self.records.Count, request).count)

    def nearest(self, collection: str, query: Any, limit: int = 3, **settings: Any) -> list[int]:
        request = search_request(collection, query, limit, **settings)
        return list(self(self.search.Search, request).ids.ints.values)

    def get(self, collection: str, *ids: int, **settings: Any) -> list[Any]:
        request = records_pb2.GetRequest(collection=collection, ids=int_ids(ids), **settings)
        found = self(self.records.Get, request).records
        return [one.record if one.HasField("record") else None for one in found]


def until_ready(client: Client) -> None:
    """Wait until the server says that it serves; it may still be starting."""
    for answer in health_pb2_grpc.HealthStub(client.channel).Watch(
        health_pb2.HealthCheckRequest(), timeout=PATIENCE_S, wait_for_ready=True
    ):
        if answer.status == health_pb2.HealthCheckResponse.SERVING:
            return


def int_ids(values: Any) -> Any:
    return common_pb2.Ids(ints=common_pb2.IntIds(values=values))


def write_request(collection: str, start: int, vectors: Any, **settings: Any) -> Any:
    settings.setdefault("ids", int_ids(range(start, start + len(vectors))))
    return records_pb2.WriteRequest(collection=collection, vectors=vectors_message(vectors), **settings)


def search_request(collection: str, query: Any, limit: int = 3, **settings: Any) -> Any:
    return search_pb2.SearchRequest(
        collection=collection, vectors=vectors_message(np.asarray(query)), limit=limit, **settings
    )  # fmt: skip


def names(*tenants: str) -> Any:
    return common_pb2.TenantNames(names=tenants)


def status_of(error: grpc.RpcError) -> tuple[str, str, str, float | None]:
    """(code, message, reason of its ErrorInfo, seconds of its RetryInfo)."""
    reason, retry_s = "", None
    for key, value in error.trailing_metadata() or ():
        if key == "grpc-status-details-bin":
            for detail in status_pb2.Status.FromString(value).details:
                info, retry = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo()
                if detail.Unpack(info):
                    assert info.domain == "vecdb"
                    reason = info.reason
                if detail.Unpack(retry):
                    retry_s = retry.retry_delay.ToTimedelta().total_seconds()
    return error.code().name, error.details(), reason, retry_s


def outcome(call: Any) -> str:
    """OK, or the name of the status that the call ended with."""
    try:
        call()
    except grpc.RpcError as error:
        return str(error.code().name)
    return "OK"


def token(path: Path, name: str, permission: str = "read", **settings: Any) -> str:
    """A new token in the file at `path`; its secret."""
    return tokens.create(path, Caller(name, permission, **settings))


def tenant_lists(*lists: list[str]) -> Any:
    return common_pb2.TenantLists(lists=[common_pb2.TenantNames(names=one) for one in lists])


pb = {
    "admin": admin_pb2,
    "collections": collections_pb2,
    "records": records_pb2,
    "search": search_pb2,
    "tenants": tenants_pb2,
}
