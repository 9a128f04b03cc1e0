"""Searches with filters at the server: each waits, is batched and is kept in the cache with its own filter alone."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tests.support.server.driver import PATIENCE_S, Client, Running, search_request
from vecdb import F
from vecdb.v1 import common_pb2, search_pb2
from vecdb.wire.filters import filter_message
from vecdb_server.services.request_cache import CachedRequest

N = 200


@pytest.fixture
def client(running: Running, calling: Callable[..., Client], vectors: np.ndarray) -> Client:
    made = calling(running)
    made.create("docs", vectors.shape[1])
    made.write("docs", 0, vectors, fields=common_pb2.FieldMaps(json=[f'{{"n": {n}}}' for n in range(N)]))
    return made


def filtered(vectors: np.ndarray, n: int) -> Any:
    """The nearest of those whose n leaves the remainder n % 4 by 4; every fifth without a filter."""
    node = None if n % 5 == 0 else F.n.is_in(range(n % 4, N, 4))
    params = search_pb2.SearchParams(exact=True)
    return search_request("docs", vectors[n], 1, params=params, filter=filter_message(node))


def right(found: Any, vectors: np.ndarray, n: int) -> bool:
    rows = np.arange(N) if n % 5 == 0 else np.arange(n % 4, N, 4)
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return bool(found.ids.ints.values[0] == rows[np.argmax(unit[rows] @ unit[n])])


def test_searches_that_wait_together_have_each_their_own_filter(
    running: Running, client: Client, vectors: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []
    answer_batch = CachedRequest.answer_batch
    monkeypatch.setattr(
        CachedRequest, "answer_batch", lambda self, queries: seen.append(len(queries)) or answer_batch(self, queries)
    )
    monkeypatch.setattr(
        "vecdb_server.executors.LatencyEstimate.query_us",
        property(lambda self: 5_000.0, lambda self, value: None),
        raising=False,
    )
    kernels, gate = running.server.context.kernels, threading.Event()
    for _ in range(len(kernels)):
        asyncio.run_coroutine_threadsafe(kernels.run("test", lambda stop: gate.wait(PATIENCE_S)), running.loop)
    running.until(lambda: kernels.busy == len(kernels))
    coming = [client.search.Search.future(filtered(vectors, n), timeout=PATIENCE_S) for n in range(40)]
    running.until(lambda: kernels.queued == 40)
    gate.set()
    assert all(right(one.result(), vectors, n) for n, one in enumerate(coming)) and max(seen) > 1


def test_a_search_that_comes_again_keeps_its_filter_and_sees_what_was_written(
    client: Client, vectors: np.ndarray
) -> None:
    for _ in range(3):
        for n in range(12):
            assert right(client(client.search.Search, filtered(vectors, n)), vectors, n)
    client.write("docs", 7, vectors[7:8], fields=common_pb2.FieldMaps(json=['{"n": 6}']))
    found = client(client.search.Search, search_request("docs", vectors[7], 9, filter=filter_message(F.n == 6)))
    assert sorted(found.ids.ints.values) == [6, 7]
    assert not client(
        client.search.Search, search_request("docs", vectors[7], 9, filter=filter_message(F.n == 7))
    ).counts[0]


def test_a_stream_of_searches_may_change_its_filter(client: Client, vectors: np.ndarray) -> None:
    requests = [search_pb2.StreamSearchRequest(search=filtered(vectors, n)) for n in range(12)] * 2
    answers = client.search.StreamSearch(iter(requests), timeout=PATIENCE_S)
    assert all(right(one.hits, vectors, at % 12) for at, one in enumerate(answers))
