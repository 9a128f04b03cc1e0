"""A stream of writes that is under way when its server is told to end."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from tests.support.server.driver import PATIENCE_S, write_request
from vecdb.v1 import records_pb2

BEFORE = 21  # batches that are acknowledged before the server is told


def written_when_told_to_end(client: Any, rows: np.ndarray, tell: Callable[[], None]) -> int:
    """Stream batches of `rows` into a new collection "docs", call `tell` in the midst, and see that health and stream
    end as they should. Returns how many batches were acknowledged.
    """
    client.create("docs", rows.shape[1])
    watch = health_pb2_grpc.HealthStub(client.channel).Watch(health_pb2.HealthCheckRequest(), timeout=PATIENCE_S)
    assert next(watch).status == health_pb2.HealthCheckResponse.SERVING
    more = threading.Event()

    def batches() -> Any:
        for i in range(1_000):
            yield records_pb2.IngestRequest(batch=i, write=write_request("docs", i * len(rows), rows))
            if i == BEFORE - 1:
                more.wait(PATIENCE_S)

    acknowledged = []
    stream = client.records.Ingest(batches(), timeout=PATIENCE_S)
    for answer in stream:
        acknowledged.append(answer.batch)
        if len(acknowledged) == BEFORE:
            break
    tell()
    assert next(watch).status == health_pb2.HealthCheckResponse.NOT_SERVING
    more.set()
    with pytest.raises(grpc.RpcError) as caught:
        for answer in stream:
            acknowledged.append(answer.batch)
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE, caught.value
    # gRPC loses the reason where it was sending the next batch when the connection ended: one run in thirty
    assert any(reason in caught.value.details() for reason in ("shutting down", "Stream removed")), caught.value
    return len(acknowledged)
