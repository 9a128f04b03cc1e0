"""Both rounds of a search at one server: who may ask for rows by their numbers, and what hostile numbers come to."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

import vecdb
from tests.support.server.driver import Client, Running, search_request, status_of, token
from vecdb import limits
from vecdb.v1 import common_pb2, search_pb2

ROWS, DIM = 400, 8
VECTORS = np.random.default_rng(4).normal(size=(ROWS, DIM)).astype(np.float32)
LISTS = search_pb2.SearchParams(nprobe=12, rerank=100)  # all lists, and of a tenant no scan
NOBODY = search_pb2.FieldSelection()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "tokens.json"


@pytest.fixture
def admin(file: Path) -> str:
    return token(file, "admin", "admin")


@pytest.fixture
def served(
    serving: Callable[..., Running], file: Path, admin: str, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Running]:
    monkeypatch.setattr(limits, "flat_rows_max", 64)
    running = serving(tokens=str(file))
    with vecdb.open(f"grpc://{running.address}", token=admin) as db:
        docs = db.create_collection("docs", DIM, "l2", index=vecdb.Spann())
        tenants = [["a"] if n % 2 else [] for n in range(ROWS)]
        docs.upsert(range(ROWS), VECTORS, [{"n": n} for n in range(ROWS)], tenants)
        docs.optimize()
        db.create_collection("flat", DIM, "l2", index=vecdb.Flat()).upsert(range(9), VECTORS[:9])
    yield running


@pytest.fixture
def client(served: Running, calling: Callable[..., Client], admin: str) -> Client:
    return calling(served, admin)


def first(client: Client, queries: Any, limit: int = 5, collection: str = "docs", **settings: Any) -> Any:
    request = search_request(collection, queries, limit, name_rows=3, params=LISTS, fields=NOBODY, **settings)
    return client(client.search.Search, request)


def second(client: Client, queries: Any, rows: Any, limit: int = 5, collection: str = "docs", **settings: Any) -> Any:
    request = search_request(collection, queries, limit, score_rows=rows, fields=NOBODY, **settings)
    return client(client.search.Search, request)


def refused(client: Client, rows: Any, queries: Any = VECTORS[:2], **settings: Any) -> str:
    with pytest.raises(grpc.RpcError) as refusal:
        second(client, queries, rows, **settings)
    return status_of(refusal.value)[0]


def changed(of: Any, **values: Any) -> Any:
    made = search_pb2.NamedRows()
    made.CopyFrom(of)
    for name, value in values.items():
        made.ClearField(name)
        if name == "counts":
            made.counts.extend(value)
        else:
            setattr(made, name, value)
    return made


def test_a_server_answers_both_rounds(client: Client) -> None:
    answer = first(client, VECTORS[:2])
    named = answer.named
    assert not answer.ids.ints.values and answer.sequence == named.sequence > 0
    assert sum(named.counts) * 4 == len(named.rows) == len(named.estimates) == len(named.margins)
    hits = second(client, VECTORS[:2], named)
    for i, ids in enumerate(np.array(hits.ids.ints.values).reshape(2, 5)):
        assert ids.tolist() == ((VECTORS - VECTORS[i]) ** 2).sum(1).argsort(kind="stable")[:5].tolist()
    again = first(client, VECTORS[2:4])  # as the one before, but for the numbers of its vectors
    assert again.named.rows != named.rows and second(client, VECTORS[2:4], again.named).ids.ints.values[0] == 2


def test_where_no_lists_are_looked_at_a_first_round_has_hits(client: Client) -> None:
    exact = search_pb2.SearchParams(exact=True)
    each = search_pb2.QueryFilters(filters=[common_pb2.Filter()], which=[0, 0])
    for request in (
        search_request("flat", VECTORS[:2], 5, name_rows=3),
        search_request("docs", VECTORS[:2], 5, name_rows=3, params=exact),
        search_request("docs", VECTORS[:2], 5, name_rows=3, filters_each=each),
        search_request("docs", VECTORS[:2], 5, params=LISTS),
    ):
        answer = client(client.search.Search, request)
        assert not answer.HasField("named") and list(answer.counts) == [5, 5]


def test_a_tenants_token_has_no_rows(
    served: Running, client: Client, calling: Callable[..., Client], file: Path
) -> None:
    rows = first(client, VECTORS[:2]).named
    tenant = calling(served, token(file, "tenant-a", tenant="a"))
    served.server._tokens.refresh()  # type: ignore[union-attr]
    assert first(client, VECTORS[:2], tenants=["a"]).HasField("named")
    answer = first(tenant, VECTORS[:2])
    assert not answer.HasField("named") and list(answer.counts) == [5, 5] and not answer.sequence
    assert all(number % 2 for number in answer.ids.ints.values)
    for some in (rows, changed(rows, rows=b"\xff" * len(rows.rows)), search_pb2.NamedRows(counts=[0, 0])):
        assert refused(tenant, some) == "PERMISSION_DENIED"
    found = second(client, VECTORS[:2], rows, tenants=["a"]).ids.ints.values
    assert found and all(number % 2 for number in found)


def test_hostile_rows_are_refused(client: Client) -> None:
    rows = first(client, VECTORS[:2]).named
    n = len(rows.rows) // 4
    bad = "INVALID_ARGUMENT"
    assert refused(client, changed(rows, rows=np.full(n, ROWS, "<u4").tobytes())) == bad
    assert refused(client, changed(rows, rows=b"\xff" * 4 * n)) == bad  # -1
    assert refused(client, changed(rows, rows=rows.rows[:-1])) == bad
    assert refused(client, changed(rows, rows=rows.rows[:-4])) == bad
    assert refused(client, changed(rows, counts=[n])) == bad
    assert refused(client, changed(rows, counts=[n, 0, 0])) == bad
    assert refused(client, changed(rows, counts=[2**32 - 1, 2**32 - 1])) == bad
    assert refused(client, changed(rows, counts=[])) == bad
    many = np.zeros(limits.named_rows_max + 1, "<u4")
    assert refused(client, changed(rows, rows=many.tobytes(), counts=[len(many), 0])) == bad
    assert refused(client, rows, limit=2**31) == bad
    assert refused(client, rows, queries=VECTORS[:2, :4]) == bad
    assert refused(client, rows, name_rows=3) == bad
    assert refused(client, rows, filters_each=search_pb2.QueryFilters(which=[0, 0])) == bad
    assert refused(client, changed(rows, generation=rows.generation + 1)) == "NOT_FOUND"
    assert refused(client, changed(rows, generation=2**64 - 1)) == "NOT_FOUND"
    assert refused(client, rows, collection="flat") == "NOT_FOUND"
    assert refused(client, changed(rows, sequence=rows.sequence + 1)) == "UNAVAILABLE"
    assert refused(client, changed(rows, sequence=2**64 - 1)) == "UNAVAILABLE"
    same = np.zeros(limits.named_rows_max, "<u4")
    hits = second(client, VECTORS[:2], changed(rows, rows=same.tobytes(), counts=[len(same), 0]))
    assert list(hits.ids.ints.values) == [0] and list(hits.counts) == [1, 0]
    wide = search_request("docs", VECTORS[:2], 3, name_rows=2**32 - 1, params=LISTS)
    assert client(client.search.Search, wide).HasField("named")
    assert list(second(client, VECTORS[:2], rows).counts) == [5, 5]
