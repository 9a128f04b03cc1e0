"""Goal: a tenant's token filters, counts, lists and changes its own records alone, and learns nothing of others by it;
hostile filters end with INVALID_ARGUMENT, whatever the rpc, and leave nothing behind.
"""

from __future__ import annotations

import base64
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

import vecdb
from tests.support.server.driver import PATIENCE_S, Client, Running, int_ids, search_request, settled, status_of, token
from vecdb import F, InvalidArgument, NotFound, PermissionDenied
from vecdb.filters.tree import And
from vecdb.v1 import common_pb2, records_pb2, search_pb2
from vecdb.wire.arrays import vectors_message
from vecdb.wire.filters import filter_message

DIM, N = 8, 120
VECTORS = np.random.default_rng(5).normal(size=(N, DIM)).astype(np.float32)
SECRETS = {"admin": ("admin", None), "a": ("write", "a"), "b": ("write", "b"), "reads": ("read", "a")}


class House:
    """`docs`: a and b own records with the same ids; the administrator's are seen by a, by b, or by both."""

    def __init__(self, running: Running, file: Path) -> None:
        self.running = running
        self.secrets = {
            who: token(file, who, permission, tenant=tenant) for who, (permission, tenant) in SECRETS.items()
        }
        running.server._tokens.refresh()  # type: ignore[union-attr]
        self.dbs = {who: vecdb.open(f"grpc://{running.address}", token=one) for who, one in self.secrets.items()}
        self.admin = self.dbs["admin"].create_collection("docs", DIM, "l2")
        seen: list[list[str]] = [[["a"], ["b"], ["a", "b"]][n % 3] for n in range(N)]
        fields = [
            {"kind": f"of {'+'.join(seen[n])}", "n": n, **({"secret": n} if n % 3 == 1 else {})} for n in range(N)
        ]
        self.admin.upsert(range(N), VECTORS, fields, seen)
        self.a, self.b, self.reads = (self.dbs[who].collection("docs") for who in ("a", "b", "reads"))
        self.a.upsert(range(1000, 1020), VECTORS[:20], [{"kind": "own of a", "n": n} for n in range(20)])
        self.b.upsert(range(1000, 1010), VECTORS[:10], [{"kind": "own of b", "n": -n, "rare": 1} for n in range(10)])

    def close(self) -> None:
        for db in self.dbs.values():
            db.close()


@pytest.fixture
def house(serving: Callable[..., Running], tmp_path: Path) -> Iterator[House]:
    file = tmp_path / "tokens.json"
    token(file, "first")
    made = House(serving(tokens=str(file)), file)
    yield made
    made.close()


def refusal(call: Callable[[], Any]) -> tuple[type, str]:
    with pytest.raises(vecdb.VecdbError) as caught:
        call()
    return type(caught.value), str(caught.value)


def ids_of(pages: Any) -> list[Any]:
    return [one.id for page in pages for one in page]


def test_facts_and_lists_under_a_tenants_token_are_of_what_the_tenant_sees(house: House) -> None:
    mine = Counter({"of a": 40, "of a+b": 40, "own of a": 20})
    assert house.a.facets("kind") == dict(mine) and house.a.count() == house.a.count(filter="true") == 100
    assert house.a.distinct("kind") == sorted(mine) and house.a.distinct("secret") == house.a.distinct("rare") == []
    assert house.a.facets("kind", F.n < 6) == {"own of a": 6, "of a": 2, "of a+b": 2}
    assert (house.a.min("n"), house.a.max("n"), house.a.max("secret")) == (0, 119, None)
    assert house.b.min("n") == -9 and house.b.max("secret") == 118
    assert house.a.fields() == {
        "kind": {"types": ["str"], "count": 100},
        "n": {"types": ["int"], "count": 100},
    }
    assert house.a.count(filter=F.kind == "of b") == house.a.count(filter=F.rare == 1) == 0
    assert house.a.get(filter=F.secret >= 0) == [] and ids_of(house.a.iter(filter=F.rare.exists())) == []
    assert ids_of(house.a.iter(7, filter=F.n >= 100)) == [n for n in range(100, N) if n % 3 != 1]
    assert {one.owner for one in house.a.get(filter=F.n < 3)} == {"a", ""}
    assert [one.tenants for one in house.a.get(filter=F.kind == "of a+b", limit=2)] == [["a"], ["a"]]
    assert len(house.a.get(filter=F.n < 3, owner="a")) == 3
    assert refusal(lambda: house.a.get(filter=F.n < 3, owner="b"))[0] is PermissionDenied
    for name in ("facets", "distinct", "min", "max"):
        assert refusal(lambda name=name: getattr(house.a, name)("n", tenant="b")) == (
            NotFound, refusal(lambda name=name: getattr(house.a, name)("n", tenant="nobody"))[1].replace("nobody", "b"),
        )  # fmt: skip
    assert refusal(lambda: house.a.fields(tenant="b"))[0] is NotFound


def test_searches_under_a_tenants_token_are_among_what_matches_and_it_sees(house: House) -> None:
    hits = house.a.search(VECTORS[1], 50, filter=F.n < 30, explain=True)
    expected = {n for n in range(30) if n % 3 != 1} | set(range(1000, 1020))
    assert set(hits.ids.tolist()) == expected and hits.explain is not None
    assert hits.explain["matching"] == len(expected) and hits.explain["filter"] == "n < 30"
    assert not {"records_read", "unmet_columns", "reason"} & set(hits.explain)
    each = house.a.search(VECTORS[:3], 5, filter=[F.kind == "of b", F.kind == "own of a", None], explain=True)
    assert each.counts.tolist() == [0, 5, 5] and each.explain is not None
    assert [one.get("matching") for one in each.explain["filters"]] == [0, 20, None]
    assert all("reason" not in one for one in each.explain["filters"])
    assert house.a.evaluate(VECTORS[:3], 5, filter=F.kind == "of b")["recall"] is None
    mixed = house.a.search_mixture([1000, 1001], 20, filter=F.kind == "of a")
    assert {one["kind"] for one in mixed.fields} == {"of a"}


def test_writes_by_filter_under_a_tenants_token_touch_its_own_records_alone(house: House) -> None:
    before = {(one.owner, one.id): one.fields for page in house.admin.iter() for one in page}
    assert house.a.update(filter="true", fields={"seen": True}) == 20
    assert house.a.delete(filter=F.kind == "of a+b") == house.a.delete(filter=F.kind == "own of b") == 0
    assert house.a.delete(filter=F.n < 5) == 5
    after = {(one.owner, one.id): one.fields for page in house.admin.iter() for one in page}
    assert before.keys() - after.keys() == {("a", n) for n in range(1000, 1005)}
    assert all(after[key] == before[key] | ({"seen": True} if key[0] == "a" else {}) for key in after)
    for write in (house.a.delete, lambda **named: house.a.update(fields={"x": 1}, **named)):
        assert refusal(lambda write=write: write(filter="true", owner="b"))[0] is PermissionDenied
        assert refusal(lambda write=write: write(filter="true", tenant="b"))[0] is NotFound
        assert refusal(lambda write=write: write(filter={}))[0] is InvalidArgument
    assert refusal(lambda: house.reads.delete(filter="true"))[0] is PermissionDenied
    assert house.admin.delete(filter=F.kind == "own of b", owner="a") == 0
    assert house.admin.delete(filter="true", owner="b") == 10 and house.b.count() == 80


def test_a_cursor_of_a_tenants_token_tells_nothing_and_is_of_nobody_else(house: House) -> None:
    for order_by in (None, "n"):
        pages = list(house.a.iter(30, order_by=order_by))
        cursor = pages[0].cursor
        plain = next(iter(house.admin.iter(30, order_by=order_by, tenant="a"))).cursor
        assert cursor is not None and plain is not None and pages[-1].cursor is None
        assert ids_of(house.a.iter(50, order_by=order_by, after=cursor)) == ids_of(pages[1:])
        assert ids_of(house.reads.iter(50, order_by=order_by, after=cursor)) == ids_of(pages[1:])  # of the same tenant
        raw = bytearray(base64.urlsafe_b64decode(cursor))
        assert base64.urlsafe_b64decode(plain)[:-4] not in raw
        raw[20] ^= 1
        for docs, after in (
            (house.b, cursor),
            (house.admin, cursor),
            (house.a, plain),
            (house.a, base64.urlsafe_b64encode(raw).decode()),
            (house.a, cursor[:-4]),
            (house.a, "no cursor"),
            (house.a, "é" * 10),
        ):
            found = refusal(lambda docs=docs, named={"after": after, "order_by": order_by}: list(docs.iter(**named)))
            assert found[0] is InvalidArgument and "after" in found[1]


# -- the messages themselves -------------------------------------------------------------------------


def requests_with(filter: Any) -> list[tuple[str, Any]]:
    """Every rpc that takes a filter."""
    fields = common_pb2.FieldMaps(json=['{"x": 1}'])
    queries = vectors_message(VECTORS[:2])
    search = search_request("docs", VECTORS[:2], 3, filter=filter)
    mixture = search_pb2.MixtureQuery(positives=int_ids([2]))
    each = search_pb2.QueryFilters(filters=[filter], which=[0, 0])
    return [
        ("RecordService/Update", records_pb2.UpdateRequest(collection="docs", filter=filter, fields=fields)),
        ("RecordService/Delete", records_pb2.DeleteRequest(collection="docs", filter=filter)),
        ("RecordService/Get", records_pb2.GetRequest(collection="docs", filter=filter)),
        ("RecordService/Get", records_pb2.GetRequest(collection="docs", filter=filter, ids=int_ids([1]))),
        ("RecordService/Count", records_pb2.CountRequest(collection="docs", filter=filter)),
        ("RecordService/List", records_pb2.ListRequest(collection="docs", filter=filter)),
        ("RecordService/Facets", records_pb2.FacetsRequest(collection="docs", field="n", filter=filter)),
        ("RecordService/Distinct", records_pb2.DistinctRequest(collection="docs", field="n", filter=filter)),
        ("RecordService/MinMax", records_pb2.MinMaxRequest(collection="docs", field="n", filter=filter)),
        ("SearchService/Search", search),
        ("SearchService/Search", search_pb2.SearchRequest(collection="docs", mixture=mixture, filter=filter)),
        ("SearchService/Search", search_request("docs", VECTORS[:2], 3, filters_each=each)),
        ("SearchService/StreamSearch", search_pb2.StreamSearchRequest(search=search)),
        ("SearchService/Evaluate", search_pb2.EvaluateRequest(collection="docs", queries=queries, filter=filter)),
        ("SearchService/Tune", search_pb2.TuneRequest(collection="docs", queries=queries, filter=filter)),
    ]


def asked(client: Client, rpc: str, data: bytes) -> str:
    channel, stream = client.channel, rpc.endswith("StreamSearch")
    kind = "stream_stream" if stream else "unary_stream" if rpc.endswith("List") else "unary_unary"
    try:
        answer = getattr(channel, kind)(f"/vecdb.v1.{rpc}")(
            iter([data]) if stream else data, timeout=PATIENCE_S, metadata=client.metadata
        )
        if kind != "unary_unary":
            list(answer)
    except grpc.RpcError as error:
        return status_of(error)[0]
    return "OK"


def below(depth: int, inner: bytes) -> bytes:
    """The bytes of a filter of so many NOT."""
    for _ in range(depth):
        size, length = len(inner), b""
        while size >= 128:
            length, size = length + bytes([size & 127 | 128]), size >> 7
        inner = b"\x10\x03\x22" + length + bytes([size]) + inner
    return inner


ONE = common_pb2.Filter(operator=common_pb2.FILTER_OPERATOR_EQUAL, field="n", value=common_pb2.FieldValue(int_value=1))
MANY = common_pb2.Filter(operator=common_pb2.FILTER_OPERATOR_OR, terms=[ONE] * 40_000)
WIDE = common_pb2.Filter(operator=common_pb2.FILTER_OPERATOR_OR, terms=[common_pb2.Filter()] * 140_000)
EMPTY_RUNS = common_pb2.Filter(
    operator=common_pb2.FILTER_OPERATOR_IN, field="n",
    values=common_pb2.FieldValues(runs=[common_pb2.ValueRun()] * 1_000),
)  # fmt: skip
BOOLS = common_pb2.BoolValues(values=[True] * 1_100_000)
LONG = common_pb2.Filter(
    operator=common_pb2.FILTER_OPERATOR_IN, field="n",
    values=common_pb2.FieldValues(runs=[common_pb2.ValueRun(bools=BOOLS)]),
)  # fmt: skip


@pytest.fixture
def open_house(serving: Callable[..., Running], calling: Callable[..., Client]) -> Iterator[tuple[Running, Client]]:
    running = serving()
    client = calling(running)
    client.create("docs", DIM)
    client.write("docs", 0, VECTORS, fields=common_pb2.FieldMaps(json=[f'{{"n": {n}}}' for n in range(N)]))
    yield running, client


def test_hostile_filters_are_refused_by_every_rpc(open_house: tuple[Running, Client]) -> None:
    running, client = open_house
    unread = common_pb2.Filter()
    unread.MergeFromString(below(20, WIDE.SerializeToString()))
    for filter in (MANY, WIDE, EMPTY_RUNS, LONG, unread):
        requests = requests_with(filter)
        for rpc, request in requests if filter is EMPTY_RUNS else requests[::4]:
            assert asked(client, rpc, request.SerializeToString()) == "INVALID_ARGUMENT", rpc
    deep = below(20_000, ONE.SerializeToString())  # past what any parser takes
    size, length = len(deep), b""
    while size >= 128:
        length, size = length + bytes([size & 127 | 128]), size >> 7
    number = {"Count": b"\x1a", "Facets": b"\x1a", "Delete": b"\x2a", "List": b"\x2a", "Get": b"\x32"}
    for rpc, tag in number.items():
        data = b"\x0a\x04docs" + tag + length + bytes([size]) + deep
        assert asked(client, f"RecordService/{rpc}", data) == "INVALID_ARGUMENT", rpc
    assert asked(client, "SearchService/Search", b"\x0a\x04docs\x52" + length + bytes([size]) + deep) == (
        "INVALID_ARGUMENT"
    )
    settled(running)
    assert client.count("docs") == N


def test_every_rpc_takes_the_widest_and_the_deepest_filter(open_house: tuple[Running, Client]) -> None:
    _, client = open_house
    wide = filter_message(And(tuple(F.n != -n - 1 for n in range(400))))
    deep = F.n >= 0
    for n in range(61):
        deep = (deep & (F.n != -n - 1)) if n % 2 else (deep | (F.n == n))
    for filter in (wide, filter_message(deep)):
        for rpc, request in requests_with(filter):
            if not rpc.endswith("Delete"):
                assert asked(client, rpc, request.SerializeToString()) == "OK", rpc
        [(rpc, request)] = [one for one in requests_with(filter) if one[0].endswith("Delete")]
        request.filter.terms.append(ONE)
        assert asked(client, rpc, request.SerializeToString()) == "OK", rpc


def test_what_a_request_cannot_mean_is_refused(open_house: tuple[Running, Client]) -> None:
    _, client = open_house
    fields = common_pb2.FieldMaps(json=['{"x": 1}'] * 2)
    each = search_pb2.QueryFilters(filters=[ONE], which=[0])
    refused: list[tuple[str, Any]] = [
        ("RecordService/Update", records_pb2.UpdateRequest(collection="docs", filter=ONE, fields=fields)),
        ("RecordService/Update", records_pb2.UpdateRequest(collection="docs", filter=ONE)),
        ("RecordService/Delete", records_pb2.DeleteRequest(collection="docs", filter=common_pb2.Filter())),
        ("RecordService/Delete", records_pb2.DeleteRequest(collection="docs", filter=ONE, ids=int_ids([1]))),
        ("RecordService/Delete", records_pb2.DeleteRequest(collection="docs", filter=ONE, owner="x")),
        ("RecordService/Delete", records_pb2.DeleteRequest(collection="docs", ids=int_ids([1]), only_owner="")),
        ("RecordService/Get", records_pb2.GetRequest(collection="docs", filter=ONE, limit=70_000)),
        ("RecordService/Get", records_pb2.GetRequest(collection="docs", ids=int_ids([1]), limit=1)),
        ("RecordService/Facets", records_pb2.FacetsRequest(collection="docs", field="n", limit=70_000)),
        ("SearchService/Search", search_request("docs", VECTORS[:1], 3, filter=ONE, filters_each=each)),
        ("SearchService/Search", search_request("docs", VECTORS[:2], 3, filters_each=each)),
    ]
    for rpc, request in refused:
        assert asked(client, rpc, request.SerializeToString()) == "INVALID_ARGUMENT", (rpc, request)
    assert client.count("docs") == N
    found = client(client.records.Get, records_pb2.GetRequest(collection="docs", filter=ONE)).records
    assert [one.record.int_id for one in found] == [1]
    one = client(client.search.Search, search_request("docs", VECTORS[:1], 3, filters_each=each))
    assert list(one.ids.ints.values) == [1]


def test_an_answer_by_filter_is_no_larger_than_a_message(
    serving: Callable[..., Running], calling: Callable[..., Client]
) -> None:
    client = calling(serving(message_bytes_max=1 << 16))
    client.create("docs", DIM)
    for start in range(0, N, 30):
        long = common_pb2.FieldMaps(json=[f'{{"n": {n}, "text": "{"x" * 1_000}"}}' for n in range(start, start + 30)])
        client.write("docs", start, VECTORS[start : start + 30], fields=long)
    every = common_pb2.Filter(expression="true")
    for request in (
        records_pb2.GetRequest(collection="docs", filter=every),
        records_pb2.GetRequest(collection="docs", limit=100),
    ):
        assert asked(client, "RecordService/Get", request.SerializeToString()) == "INVALID_ARGUMENT"
    assert (
        len(client(client.records.Get, records_pb2.GetRequest(collection="docs", filter=every, limit=50)).records) == 50
    )
