"""Goal: a record without a vector is kept, filtered, counted, changed and exported like any other, whichever way the
database is opened, and no search ever finds it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

import vecdb
from vecdb import F
from vecdb.api.database import Database
from vecdb.errors import AlreadyExists, InvalidArgument, LimitExceeded

VECTORS = np.random.default_rng(4).normal(size=(6, 3)).astype(np.float32)
MIXED = [VECTORS[0], None, VECTORS[2], None, VECTORS[4], None]
FIELDS = [{"n": n, "lang": "en" if n < 3 else "fr"} for n in range(6)]


@pytest.fixture
def docs(db: Database) -> Any:
    made = db.create_collection("docs", dim=3, metric="cosine")
    assert made.upsert(range(6), MIXED, FIELDS) == 6
    return made


def near(docs: Any, **options: Any) -> list[Any]:
    return sorted(docs.search(VECTORS[0], 100, **options).ids.tolist())


def vectors_of(docs: Any) -> dict[Any, Any]:
    found = {one.id: one.vector for page in docs.iter(include_vectors=True) for one in page}
    return {id_: None if vector is None else vector.tolist() for id_, vector in found.items()}


def test_reads_of_records_see_all_and_searches_those_with_vectors(docs: Any) -> None:
    assert docs.count() == 6 and near(docs) == [0, 2, 4]
    assert vectors_of(docs) == {n: None if one is None else one.tolist() for n, one in enumerate(MIXED)}
    got = docs.get([1, 2], include_vectors=True)
    assert [one.fields for one in got] == FIELDS[1:3] and got[0].vector is None and got[1].vector is not None
    assert docs.count(filter=F.n < 3) == 3 and near(docs, filter=F.n < 3) == [0, 2]
    assert docs.search(VECTORS[0], 2, filter=F.n < 4).ids.tolist() == [0, 2]
    assert near(docs, filter=F.n == 1) == [] and docs.get(filter=F.n == 1)[0].id == 1
    assert docs.facets("lang") == {"en": 3, "fr": 3} and docs.distinct("n") == [0, 1, 2, 3, 4, 5]
    assert (docs.min("n"), docs.max("n"), docs.fields()["n"]["count"]) == (0, 5, 6)
    assert [one.id for page in docs.iter(order_by="n", descending=True) for one in page] == [5, 4, 3, 2, 1, 0]
    stats = docs.stats()
    assert (stats["live"], stats["without_vector"], stats["deleted"]) == (6, 3, 0)
    assert docs.evaluate(VECTORS, 10)["recall"] == docs.evaluate(VECTORS, 10, filter=F.n < 4)["recall"] == 1.0


def test_a_write_gives_a_vector_or_takes_it_away(docs: Any) -> None:
    assert docs.upsert([1], VECTORS[1:2]) == 1 and near(docs) == [0, 1, 2, 4]
    assert docs.upsert(0, None, {"n": 7}) == 1 and near(docs) == [1, 2, 4]
    assert docs.get(0, include_vectors=True).vector is None and docs.get(0).fields == {"n": 7}
    docs.update([3], VECTORS[3:4])
    assert near(docs) == [1, 2, 3, 4] and docs.get(3).fields == FIELDS[3]
    docs.update([5], fields=[{"n": 50}])
    assert docs.get(5).fields["n"] == 50 and docs.stats()["without_vector"] == 2
    assert docs.delete([5, 1]) == 2 and docs.delete(filter=F.n == 7) == 1
    assert docs.count() == 3 and docs.stats()["without_vector"] == 0 and near(docs) == [2, 3, 4]
    with pytest.raises(InvalidArgument, match=r"vectors\[1\]"):
        docs.update([2, 3], [VECTORS[2], None])


def test_inserts_and_conflicts(docs: Any) -> None:
    with pytest.raises(AlreadyExists):
        docs.insert([6, 1], None, [{}, {}])
    assert docs.insert([7, 1, 6, 6], [None, VECTORS[1], VECTORS[2], None], on_conflict="skip") == 2
    assert near(docs) == [0, 2, 4, 6] and docs.get(7, include_vectors=True).vector is None
    assert docs.upsert([8, 8], [VECTORS[0], None]) == 1, "the last of an id counts"
    assert docs.get(8, include_vectors=True).vector is None
    for request_id in ("a", "a"):
        assert docs.upsert([9], None, [{"n": 9}], request_id=request_id) == 1
    with pytest.raises(InvalidArgument, match="other content"):
        docs.upsert([9, 10], [None, None], [{"n": 9}, {}], request_id="a")


def test_made_ids(docs: Any) -> None:
    assert docs.add([None, VECTORS[1]], [{"n": 1}, {"n": 2}]) == [6, 7]
    assert docs.add(None, {"n": 3}) == 8 and docs.add(None, [{"n": 4}, {"n": 5}]) == [9, 10]
    assert docs.add([None, None]) == [11, 12] and near(docs) == [0, 2, 4, 7]
    with pytest.raises(InvalidArgument, match="fields of records that have none"):
        docs.add(None)


@pytest.mark.parametrize("whole", [lambda c: c, pd.DataFrame, pl.DataFrame, pa.table], ids=["dict", "pd", "pl", "pa"])
def test_whole_records(docs: Any, whole: Any) -> None:
    lists = [None if one is None else one.tolist() for one in MIXED]
    assert docs.upsert(whole({"id": [10, 11, 12], "vector": lists[1:4], "n": [1, 2, 3]})) == 3
    assert near(docs) == [0, 2, 4, 11] and docs.get(10).fields == {"n": 1}
    assert docs.upsert([{"id": 20, "n": 1}, {"id": 21, "vector": VECTORS[0]}, {"id": 22, "vector": None}]) == 3
    assert docs.upsert({"id": 23, "tags": ["a", "b"], "sizes": [1, 2]}) == 1
    assert near(docs) == [0, 2, 4, 11, 21] and docs.get(23).fields == {"tags": ["a", "b"], "sizes": [1, 2]}


def test_they_come_back_as_tables(docs: Any) -> None:
    frame, table = docs.to_pandas(include_vectors=True), docs.to_arrow(include_vectors=True)
    assert [one is None for one in frame["vector"]] == [one is None for one in table["vector"].to_pylist()]
    for again in (frame, table):
        docs.clear()
        assert docs.upsert(again) == 6 and near(docs) == [0, 2, 4]
    assert docs.to_arrow(filter=F.n == 1, include_vectors=True)["vector"].to_pylist() == [None]


def test_tenants_and_owners(docs: Any) -> None:
    docs.upsert([30, 31], [None, VECTORS[1]], [{}, {}], tenants={"a"}, owner="o")
    docs.grant([1, 2], "a")
    assert docs.count(tenant="a") == 4 and near(docs, tenant="a") == [2, 31]
    docs.upsert([31], None, [{}], owner="o")
    assert docs.count(tenant="a") == 4 and near(docs, tenant="a") == [2]
    assert docs.stats(tenant="a")["records"] == 4 and docs.get(30, owner="o", tenant="a").owner == "o"
    docs.create_tenant("b", records_max=1)
    docs.upsert([40], None, [{}], tenants="b")
    with pytest.raises(LimitExceeded):
        docs.upsert([41], None, [{}], tenants="b")
    assert docs.drop_tenant("b", records=True) == 1 and docs.get(40) is None


def test_what_needs_a_vector_says_so(docs: Any) -> None:
    with pytest.raises(InvalidArgument, match="record 1 and 1 more of these have no vector"):
        docs.search_mixture([0, 1, 3])
    assert sorted(docs.search_mixture([0], 10).ids.tolist()) == [2, 4]
    with pytest.raises(InvalidArgument, match="a write needs vectors"):
        docs.upsert([1, 2])
    with pytest.raises(InvalidArgument, match="None among the numbers"):
        docs.upsert(1, [1.0, None, 3.0])
    assert docs.count() == 6 and near(docs) == [0, 2, 4]


def test_a_collection_without_a_dim_has_records_first(db: Database) -> None:
    docs: Any = db.create_collection("open", metric="cosine")
    assert docs.upsert([1, 2], None, FIELDS[:2]) == 2 and docs.add([None]) == [3]
    assert docs.dim == 0 and docs.count(filter=F.n == 1) == 1 and docs.search(VECTORS[0], 5).ids.tolist() == []
    docs.grant([1], "a")
    docs.update([2], fields=[{"n": 5}])
    docs.delete([3])
    docs.vacuum()
    assert docs.upsert([2, 4], [None, VECTORS[0]], [{"n": 6}, {}]) == 2
    assert docs.dim == docs.config.dim == 3 and near(docs) == [4] and docs.count() == 3
    assert docs.get([1, 2]) and docs.get(1).fields == FIELDS[0] and docs.get(2).fields == {"n": 6}
    assert docs.count(tenant="a") == 1 and db.check() == []
    with pytest.raises(InvalidArgument, match="dim 3, got 2"):
        docs.upsert([5], [[1.0, 2.0]])
    docs.upsert([1], VECTORS[1:2])
    assert near(docs) == [1, 4] and near(docs, tenant="a") == [1]


@pytest.mark.parametrize("dim", [1, 5])
def test_the_dim_comes_with_a_first_vector_of_any_length(db: Database, dim: int) -> None:
    docs: Any = db.create_collection("short", metric="l2")
    docs.upsert([1], None, [{"n": 1}])
    docs.upsert([2], [[1.0] * dim])
    assert docs.config.dim == dim and docs.search([1.0] * dim).ids.tolist() == [2] and docs.count() == 2


def test_a_call_that_is_split(docs: Any) -> None:
    n = 5_000
    vectors = [None if at % 2 else VECTORS[0] for at in range(n)]
    assert docs.upsert(range(n), vectors, [{"n": at} for at in range(n)], atomic=False) == n
    assert docs.upsert(range(n, 2 * n), None, [{"n": at} for at in range(n)], atomic=False) == n
    assert docs.count() == 2 * n and docs.stats()["without_vector"] == n + n // 2
    assert len(docs.search(VECTORS[0], 10_000).ids) == n // 2


def test_writes_are_bounded_as_if_each_had_one(docs: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vecdb.limits, "batch_bytes_max", 100)
    with pytest.raises(LimitExceeded, match="also those that have none"):
        docs.upsert(range(20), None, [{}] * 20)
