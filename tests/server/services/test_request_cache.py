"""Requests that are known but for their vectors are read as their messages would be, and nothing known goes stale."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from google.protobuf.message import DecodeError
from hypothesis import example, given
from hypothesis import strategies as st

import vecdb
from tests.support.server.driver import Client, Running, int_ids, names, outcome, search_request, status_of, token
from vecdb.v1 import collections_pb2, common_pb2, search_pb2, tenants_pb2
from vecdb.wire.search_response import encoded, streamed
from vecdb_server.executors import LatencyModel
from vecdb_server.security.auth import Caller
from vecdb_server.services import request_cache
from vecdb_server.services.request_cache import CachedRequest, RequestCache

CALLERS = (Caller("a"), Caller("a"))  # a token that was made anew: equal, and yet another
PARSE = search_pb2.SearchRequest.FromString
words = st.text("ab", max_size=3)
numbers = st.binary(min_size=4, max_size=8).map(lambda data: data[: len(data) // 4 * 4])


@st.composite
def requests(draw: Any) -> bytes:
    """SearchRequests as any client may write them: parts in any order, some of them twice."""
    parts = [
        search_pb2.SearchRequest(collection=draw(words)),
        search_pb2.SearchRequest(vectors=common_pb2.Vectors(data=draw(numbers))),
        search_pb2.SearchRequest(vectors=common_pb2.Vectors(dim=draw(st.integers(1, 2)))),
        search_pb2.SearchRequest(limit=draw(st.integers(0, 3))),
        search_pb2.SearchRequest(tenants=draw(st.lists(words, max_size=2))),
        search_pb2.SearchRequest(params=search_pb2.SearchParams(ef=draw(st.integers(1, 2)))),
    ]
    chosen = draw(st.lists(st.sampled_from(parts), min_size=1, max_size=8))
    return b"".join(part.SerializeToString() for part in chosen)


def question(caller: Caller, message: Any) -> Any:
    data = message.vectors.data
    unknown: Any = None
    return CachedRequest(
        unknown, caller, LatencyModel(1).of("k"), 1, len(data), np.dtype("u1"), 1, None, None, None,
        False, False, False, None,
    )  # fmt: skip


def without_numbers(message: Any) -> Any:
    kept = search_pb2.SearchRequest()
    kept.CopyFrom(message)
    kept.vectors.data = b""
    return kept


@given(st.lists(st.tuples(requests(), st.sampled_from(CALLERS), numbers), min_size=1, max_size=8))
@example([(b"\x0a\x04abcd\x12\x06\x0a\x04abcd", CALLERS[0], b"wxyz")])  # the numbers are found in the name first
def test_what_is_known_is_what_reading_the_message_gives(asked: list[tuple[bytes, Caller, bytes]]) -> None:
    known, kept = RequestCache(PARSE), dict[int, tuple[Any, Caller]]()
    for request, caller, other in asked:
        message = PARSE(request)
        data = message.vectors.data
        alike = request.replace(data, other) if len(other) == len(data) else request
        for one in (request, alike):
            try:
                read = PARSE(one)
            except DecodeError:
                continue
            found = known.find(one, caller, "")
            if found is None:
                made = question(caller, read)
                known.keep(one, read, made, "")
                kept[id(made)] = read, caller
            else:
                first, asker = kept[id(found[0])]
                assert asker is caller and without_numbers(first) == without_numbers(read)
                assert found[1].tobytes() == read.vectors.data


def test_a_usual_request_is_known_whatever_its_vector_is() -> None:
    known = RequestCache(PARSE)
    rng = np.random.default_rng(0)
    first = search_request("docs", rng.normal(size=50).astype(np.float32), 10, tenants=["acme"])
    made = question(CALLERS[0], first)
    known.keep(first.SerializeToString(), first, made, "")
    for _ in range(20):
        other = search_request("docs", rng.normal(size=50).astype(np.float32), 10, tenants=["acme"])
        found = known.find(other.SerializeToString(), CALLERS[0], "")
        assert found is not None and found[0] is made and found[1].tobytes() == other.vectors.data
        assert found[1].flags.writeable and found[1].flags.aligned
        assert known.find(other.SerializeToString(), CALLERS[1], "") is None
        assert known.find(other.SerializeToString(), CALLERS[0], "docs") is None


def test_a_name_that_looks_like_the_numbers_is_not_taken_for_them() -> None:
    known = RequestCache(PARSE)
    first, other = (
        search_pb2.SearchRequest(collection=name, vectors=common_pb2.Vectors(data=b"abcd", dim=1))
        for name in ("abcd", "wxyz")
    )
    known.keep(first.SerializeToString(), first, question(CALLERS[0], first), "")
    assert known.find(other.SerializeToString(), CALLERS[0], "") is None


def test_questions_are_bounded_in_number_and_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(request_cache, "_REQUESTS_MAX", 5)
    known = RequestCache(PARSE)
    for i in range(30):
        request = search_request(f"docs{i}", np.ones(4, np.float32))
        known.keep(request.SerializeToString(), request, question(CALLERS[0], request), "")
        assert 0 < len(known) <= 5
    before = len(known)
    for wordy in (
        search_request("docs", np.ones(4, np.float32), tenants=["x" * 250] * 9),
        search_request("d", np.empty(0, np.float32)),
    ):
        known.keep(wordy.SerializeToString(), wordy, question(CALLERS[0], wordy), "")
        assert len(known) == before


# -- a server's ------------------------------------------------------------------------------------


@pytest.fixture
def vectors() -> np.ndarray:
    return np.eye(4, dtype=np.float32)


def test_a_collection_that_is_dropped_and_made_anew_is_not_asked_what_the_old_one_was(
    running: Running, calling: Callable[..., Client], vectors: np.ndarray
) -> None:
    client = calling(running)

    def streamed_nearest() -> list[int]:
        request = search_pb2.StreamSearchRequest(search=search_request("docs", vectors[0], 1))
        return [one.hits.ids.ints.values[0] for one in client(client.search.StreamSearch, iter([request]))]

    for start in (0, 100):
        client.create("docs", 4)
        client.write("docs", start, vectors)
        for _ in range(3):
            assert client.nearest("docs", vectors[0], 1) == streamed_nearest() == [start]
        client(client.collections.DropCollection, collections_pb2.DropCollectionRequest(name="docs"))
        assert outcome(lambda: client.nearest("docs", vectors[0], 1)) == "NOT_FOUND"
        assert outcome(streamed_nearest) == "NOT_FOUND"


def test_a_tenant_that_is_dropped_is_not_found_by_those_who_asked_for_it_before(
    running: Running, calling: Callable[..., Client], vectors: np.ndarray
) -> None:
    client = calling(running)
    client.create("docs", 4)
    client.write("docs", 0, vectors, tenants=names("acme"))
    assert [client.nearest("docs", vectors[1], 1, tenants=["acme"]) for _ in range(3)] == [[1]] * 3
    client(client.tenants.Revoke, tenants_pb2.RevokeRequest(collection="docs", ids=int_ids([1]), tenants=names("acme")))
    assert client.nearest("docs", vectors[1], 1, tenants=["acme"]) != [1]
    client(client.tenants.DropTenant, tenants_pb2.DropTenantRequest(collection="docs", name="acme"))
    assert outcome(lambda: client.nearest("docs", vectors[1], 1, tenants=["acme"])) == "NOT_FOUND"
    client(client.tenants.CreateTenants, tenants_pb2.CreateTenantsRequest(collection="docs", names=["acme"]))
    assert client.nearest("docs", vectors[1], 1, tenants=["acme"]) == []


def test_a_token_whose_scope_is_changed_gets_what_its_new_scope_gives(
    serving: Callable[..., Running], calling: Callable[..., Client], tmp_path: Path, vectors: np.ndarray
) -> None:
    file = tmp_path / "tokens.json"
    admin, secret = token(file, "root", "admin"), token(file, "reader")
    running = serving(tokens=str(file))
    root, reader = calling(running, admin), calling(running, secret)
    for name in ("docs", "more"):
        root.create(name, 4)
    root.write("docs", 0, vectors[:2], tenants=names("acme"))
    root.write("docs", 2, vectors[2:])
    assert [reader.nearest("docs", vectors[3], 1) for _ in range(3)] == [[3]] * 3

    def change(**scope: Any) -> None:
        held = json.loads(file.read_text())
        [mine] = [one for one in held["tokens"] if one["name"] == "reader"]
        mine.update(scope)
        file.write_text(json.dumps(held))
        assert running.server._tokens.refresh()  # type: ignore[union-attr]

    change(tenant="acme")
    assert sorted(reader.nearest("docs", vectors[3], 4)) == [0, 1]
    change(collection="more")
    assert outcome(lambda: reader.nearest("docs", vectors[3], 1)) == "NOT_FOUND"
    change(expires=1.0)
    assert outcome(lambda: reader.nearest("docs", vectors[3], 1)) == "UNAUTHENTICATED"


def test_bytes_that_are_no_request_are_refused_whatever_was_asked_before(
    running: Running, calling: Callable[..., Client], vectors: np.ndarray
) -> None:
    client = calling(running)
    client.create("docs", 4)
    client.write("docs", 0, vectors)
    client.nearest("docs", vectors[0], 1)
    whole = search_request("docs", vectors[0], 1).SerializeToString()
    search = client.channel.unary_unary("/vecdb.v1.SearchService/Search")
    for cut in range(len(whole)):
        try:
            PARSE(whole[:cut])  # it was cut between two fields
        except DecodeError:
            with pytest.raises(grpc.RpcError) as caught:
                search(whole[:cut], timeout=60)
            assert status_of(caught.value)[0] == "INVALID_ARGUMENT"
    assert search_pb2.SearchResponse.FromString(search(whole, timeout=60)).ids.ints.values == [0]


# -- answers ---------------------------------------------------------------------------------------


def message_of(hits: Any) -> search_pb2.SearchResponse:
    """The answer as protobuf builds it, query by query."""
    made = search_pb2.SearchResponse(sequence=hits.sequence)
    parts = [hits] if hits.single else list(hits)
    ids = [one for part in parts for one in part.ids.tolist()]
    column = made.ids.strings if hits.ids.dtype == object else made.ids.ints
    column.SetInParent()
    column.values.extend(ids)
    made.counts.extend(len(part) for part in parts)
    if hits.vectors is not None:
        made.vectors.dtype, made.vectors.dim = common_pb2.DATA_TYPE_FLOAT32, hits.vectors.shape[-1]
    if hits.packed is not None:
        made.fields.SetInParent()
    for part in parts:
        made.distances.extend(part.distances.tolist())
        if hits.vectors is not None:
            made.vectors.data += part.vectors.tobytes()
        if hits.components is not None:
            made.components.extend(part.components.tolist())
        if hits.packed is not None:
            made.fields.msgpack.extend(map(bytes, part.packed))
    return made


@pytest.mark.parametrize("text", [False, True])
@pytest.mark.parametrize("rows", [0, 3, 300])
def test_answers_in_bytes_are_the_messages_that_protobuf_builds(text: bool, rows: int) -> None:
    rng = np.random.default_rng(1)
    with vecdb.open(":memory:") as db:
        docs = db.create_collection("docs", dim=8)
        ids: Any = [f"é{i}" for i in range(rows)] if text else [(-1) ** i * 3 ** (i % 39) - i for i in range(rows)]
        made = rng.normal(size=(rows, 8)).astype(np.float32)
        if rows:
            docs.upsert(ids, made, [{"n": i} for i in range(rows)] if rows == 3 else None)
        for count, limit, whole in itertools.product((0, 1, 2, 200), (1, 200), (False, True)):
            query = rng.normal(size=(count, 8)).astype(np.float32)
            for asked in [query, *(query if count == 1 else ())]:
                hits = docs.search(asked, limit, include_vectors=whole)
                found = search_pb2.SearchResponse.FromString(encoded(hits, None))
                assert found == message_of(hits)
                wrapped = search_pb2.StreamSearchResponse.FromString(streamed(encoded(hits, None)))
                assert wrapped == search_pb2.StreamSearchResponse(hits=found)
        if rows == 300:
            mixed = docs.search_mixture(ids[:20], 30)
            assert search_pb2.SearchResponse.FromString(encoded(mixed, None)) == message_of(mixed)
