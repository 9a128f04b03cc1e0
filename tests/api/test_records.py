"""Writes, and reads by id, the same whichever way the database is opened."""

from __future__ import annotations

import datetime as dt
import math
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

import vecdb
from tests.support.answers.ways import LONG_WAYS
from vecdb.client.remote_collection import RemoteCollection
from vecdb.embedded.local_collection import LocalCollection

RNG = np.random.default_rng(5)
VALUES: dict[str, Any] = {
    "none": None,
    "bool": True,
    "int": -(2**63),
    "large": 2**63 - 1,
    "float": 0.1,
    "nan": math.nan,
    "inf": -math.inf,
    "text": "naïve \0 \u202e 🐟",
    "empty": "",
    "bytes": b"\0\xff",
    "date": dt.date(1969, 12, 31),
    "naive": dt.datetime(2024, 2, 29, 23, 59, 59, 999_999),
    "aware": dt.datetime(1, 1, 1, tzinfo=dt.UTC),
    "zoned": dt.datetime(2026, 7, 1, 12, tzinfo=dt.timezone(dt.timedelta(hours=2))),
    "list": [1, ["a", None, [b"x"]], {"deep": dt.date(2000, 1, 1)}],
    "dict": {"k": {"l": [1.5, math.inf]}},
}


VECTORS = RNG.normal(size=(8, 3)).astype(np.float32)


def same(a: Any, b: Any) -> bool:
    """Equal, of one type, NaN to NaN."""
    if isinstance(a, dict):
        return isinstance(b, dict) and list(a) == list(b) and all(same(a[k], b[k]) for k in a)
    if isinstance(a, list):
        return isinstance(b, list) and len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, float) and math.isnan(a):
        return isinstance(b, float) and math.isnan(b)
    return type(a) is type(b) and a == b


def test_every_type_of_field_comes_back_as_it_was(db: Any, twin: Any) -> None:
    vector = [1.0, 2.0]
    for one in (db, twin):
        docs = one.create_collection("docs", 2, "l2")
        assert docs.upsert(1, vector, VALUES) == 1
        assert docs.upsert([2, 3], [vector, vector], [None, {"a": np.float32(2.5), "b": np.arange(3)}]) == 2
    here, there = twin.collection("docs"), db.collection("docs")
    assert same(there.get(1).fields, here.get(1).fields)
    assert same(there.get(1).fields, {**VALUES, "zoned": VALUES["zoned"].astimezone(dt.UTC)})
    assert there.get([2, 3]) == here.get([2, 3])
    found, expected = there.search(vector, 3), here.search(vector, 3)
    assert same(found.fields, expected.fields)
    assert same([one.fields for batch in there.iter() for one in batch], [one.fields for b in here.iter() for one in b])


@pytest.mark.parametrize("ids", [[-(2**63), 0, 2**63 - 1], ["a", "ß\0", "x" * 256]], ids=["ints", "strings"])
def test_records_are_written_read_changed_and_deleted_by_id(db: Any, ids: list[Any]) -> None:
    docs = db.create_collection("docs", 3, "l2")
    vectors = RNG.normal(size=(3, 3)).astype(np.float32)
    assert docs.insert(ids, vectors, [{"n": n} for n in range(3)]) == 3
    assert docs.upsert(ids[0], vectors[1], {"n": "new"}) == 1
    assert docs.update(ids[1], fields={"n": None, "m": 1}) == 1
    assert docs.update(ids[2:], vectors[:1]) == 1
    assert docs.get(ids[0]) == vecdb.Record(ids[0], {"n": "new"}, [], None)
    found = docs.get(ids, include_vectors=True)
    assert [one.id for one in found] == ids and [type(one.id) for one in found] == list(map(type, ids))
    assert [one.fields for one in found] == [{"n": "new"}, {"m": 1}, {"n": 2}]
    assert np.array_equal([one.vector for one in found], vectors[[1, 1, 0]]) and found[0].vector.dtype == np.float32
    found[0].vector[0] = 7.0  # it is the caller's own
    assert len(docs) == docs.count() == 3 and bool(docs)
    assert docs.delete([*ids[:2], ids[0]]) == 2 and docs.delete(ids[0]) == 0
    assert (
        docs.get(ids[0]) is None and docs.get([]) == [] and [one and one.id for one in docs.get(ids)][:2] == [None] * 2
    )
    assert docs.count() == 1 and docs.delete([]) == 0


def test_the_last_of_an_id_that_repeats_counts(db: Any) -> None:
    docs = db.create_collection("docs", 1, "l2")
    assert docs.upsert([1, 2, 1], [[1], [2], [3]], [{"n": 0}, {"n": 1}, {"n": 2}], [["a"], ["b"], ["c"]]) == 2
    assert docs.get(1, include_vectors=True).vector.tolist() == [3.0]
    assert (docs.get(1).fields, docs.get(1).tenants) == ({"n": 2}, ["c"])


@pytest.mark.parametrize("way", LONG_WAYS)
@pytest.mark.parametrize("dtype", ["float32", "float16", "int8", "uint8"])
def test_vectors_are_stored_in_the_type_of_the_collection(db: Any, dtype: str) -> None:
    docs = db.create_collection("docs", 5, "l2", dtype=dtype)
    assert (docs.name, docs.dim, docs.metric, docs.dtype) == ("docs", 5, "l2", dtype)
    vectors = RNG.integers(0, 100, (4, 5)).astype(dtype)
    assert docs.upsert(range(4), vectors.tolist()) == 4
    found = docs.get(list(range(4)), include_vectors=True)
    assert all(one.vector.dtype == dtype for one in found) and np.array_equal([one.vector for one in found], vectors)
    hits = docs.search(vectors[2].astype(np.float32), 4, include_vectors=True)
    assert hits.vectors.dtype == dtype and hits.vectors.shape == (4, 5) and np.array_equal(hits.vectors[0], vectors[2])


@pytest.mark.parametrize("kind", ["columns", "pandas", "polars", "arrow"])
def test_fields_come_in_as_tables(db: Any, kind: str) -> None:
    columns = {"a": [1, 2, 3], "b": ["x", None, "z"]}
    make = {"columns": dict, "pandas": pd.DataFrame, "polars": pl.DataFrame, "arrow": pa.table}[kind]
    docs = db.create_collection("docs", 2)
    docs.upsert([1, 2, 3], np.eye(3, 2) + 1, make(columns))
    assert [one.fields for one in docs.get([1, 2, 3])] == [{"a": 1, "b": "x"}, {"a": 2, "b": None}, {"a": 3, "b": "z"}]


def test_owners_have_records_of_their_own(db: Any) -> None:
    docs = db.create_collection("docs", 1, "l2")
    docs.upsert(1, [1.0], {"who": "nobody"})
    docs.upsert([1, 2], [[2.0], [3.0]], owner="ann")
    assert docs.count() == 3
    assert docs.get(1).fields == {"who": "nobody"} and docs.get(1, owner="ann").fields == {} and docs.get(2) is None
    assert docs.update(1, fields={"who": "ann"}, owner="ann") == 1 and docs.grant(2, ["t"], owner="ann") == 1
    assert docs.get([1, 2], owner="ann")[0].fields == {"who": "ann"}
    assert docs.get(1).owner == "" and docs.get(1, owner="ann").owner == "ann"
    assert sorted((one.owner, one.id) for one in next(docs.iter())) == [("", 1), ("ann", 1), ("ann", 2)]
    assert docs.delete(1, owner="ann") == 1 and docs.get(1) is not None and docs.count(tenant="t") == 1


def test_a_record_is_a_dict_for_who_wants_one(db: Any) -> None:
    docs = db.create_collection("docs", 2, "l2")
    docs.upsert([7], [[1, 2]], [{"a": 1}], tenants="t")
    docs.upsert([7], [[3, 4]], owner="o")
    assert docs.get(7).to_dict() == {"id": 7, "fields": {"a": 1}, "tenants": ["t"]}
    found = docs.get(7, owner="o", include_vectors=True).to_dict()
    assert found.pop("vector").tolist() == [3, 4]
    assert found == {"id": 7, "fields": {}, "tenants": [], "owner": "o"}


def test_a_write_that_keeps_lists_adds_to_those_that_are_there(db: Any) -> None:
    docs = db.create_collection("docs", dim=3)
    docs.upsert([1, 2, 3], VECTORS[:3], tenants=[["a"], ["b", "c"], []])
    docs.upsert([1, 2, 3, 4], VECTORS[4:8], tenants=["b"], keep_tenants=True)
    assert [one.tenants for one in docs.get([1, 2, 3, 4])] == [["a", "b"], ["b", "c"], ["b"], ["b"]]
    docs.upsert([2, 1, 2], VECTORS[:3], tenants=[["a"], [], ["d"]], keep_tenants=True)
    assert [one.tenants for one in docs.get([1, 2])] == [["a", "b"], ["b", "c", "d"]]
    docs.upsert([1, 2], VECTORS[:2], keep_tenants=True)
    assert [one.tenants for one in docs.get([1, 2])] == [["a", "b"], ["b", "c", "d"]]
    assert (docs.count(tenant="a"), docs.count(tenant="b")) == (1, 4)
    docs.upsert([1], VECTORS[:1], tenants=["b"])
    assert docs.get([1])[0].tenants == ["b"]


@pytest.mark.parametrize("batch", [1, 7, 1000])
def test_all_records_are_listed_in_batches_of_the_length_asked_for(db: Any, batch: int) -> None:
    docs = db.create_collection("docs", 4, "l2")
    vectors = RNG.normal(size=(100, 4)).astype(np.float32)
    docs.upsert(
        range(100), vectors, [{"n": n} for n in range(100)], [["even"] if n % 2 == 0 else [] for n in range(100)]
    )
    docs.delete(50)
    batches = list(docs.iter(batch, include_vectors=True))
    assert [len(one) for one in batches[:-1]] == [batch] * (len(batches) - 1)
    assert [len(one) for one in docs.iter(np.int64(batch))] == [len(one) for one in batches]
    records = [one for part in batches for one in part]
    assert [one.id for one in records] == [n for n in range(100) if n != 50]
    assert np.array_equal([one.vector for one in records], np.delete(vectors, 50, 0))
    assert [one.id for part in docs.iter(batch, tenant="even") for one in part] == [
        n for n in range(0, 100, 2) if n != 50
    ]
    for _ in docs.iter(batch):
        break  # a list that is left is closed
    assert docs.count() == 99


def test_a_write_with_a_request_id_is_carried_out_once(db: Any) -> None:
    docs = db.create_collection("docs", 1, "l2")
    assert docs.upsert([1, 2], [[1], [2]], request_id="first") == 2
    assert docs.delete(1, request_id="second") == 1
    assert docs.upsert([1, 2], [[1], [2]], request_id="first") == 2
    assert docs.delete(1, request_id="second") == 1
    assert docs.count() == 1
    assert docs.create_tenant("t", request_id="third") == docs.create_tenant("t", request_id="third") == 1
    assert docs.grant(2, "t", request_id="fourth") == docs.grant(2, "t", request_id="fourth") == 1
    assert (
        docs.update(2, fields={"a": 1}, request_id="fifth") == docs.update(2, fields={"a": 1}, request_id="fifth") == 1
    )
    with pytest.raises(vecdb.InvalidArgument, match="other content"):
        docs.update(2, fields={"a": 2}, request_id="fifth")
    assert docs.get(2).fields == {"a": 1}


def test_a_write_is_checked_now_and_made_later(db: Any) -> None:
    docs = db.create_collection("docs", 2, "l2")
    first = docs.prepare([1, 2], np.eye(2), [{"a": 1}, None], ["t"], request_id="once")
    second = docs.prepare([2, 3], np.eye(2), mode="insert", owner="ann")
    assert docs.count() == 0
    assert [first(), second(), first()] == [2, 2, 2] and docs.count() == 4
    assert docs.get(1).fields == {"a": 1} and docs.get([2, 3], owner="ann")[1].id == 3
    with pytest.raises(vecdb.InvalidArgument, match="finite"):
        docs.prepare(9, [np.nan, 1.0])


@pytest.mark.parametrize("way", LONG_WAYS)
def test_a_large_call_that_is_not_atomic_is_split_and_wholly_written(db: Any) -> None:
    docs = db.create_collection("docs", 64, "l2", index=vecdb.Flat())
    vectors = RNG.normal(size=(40_000, 64)).astype(np.float32)
    tenants = [[f"t{n % 3}"] for n in range(len(vectors))]
    fields = {"n": list(range(len(vectors)))}
    assert docs.upsert(range(len(vectors)), vectors, fields, tenants, atomic=False) == len(vectors)
    assert docs.count() == len(vectors) and docs.count(tenant="t1") == 13_333
    at = [0, 16_000, 39_999]
    found = docs.get(at, include_vectors=True)
    assert [one.fields["n"] for one in found] == at and np.array_equal([one.vector for one in found], vectors[at])
    assert [one.tenants for one in found] == [["t0"], ["t1"], ["t0"]]
    with pytest.raises(vecdb.AlreadyExists):
        docs.insert(range(30_000, 90_000), np.zeros((60_000, 64), np.float32), atomic=False)
    with pytest.raises(vecdb.InvalidArgument, match="field 'bad'"):
        docs.upsert(range(40_000), vectors, [{}] * 39_999 + [{"bad": object()}], atomic=False)


def test_what_a_call_that_is_split_brings_is_looked_at_before_anything_is_written(
    db: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for engine in (LocalCollection, RemoteCollection):
        monkeypatch.setattr(engine, "rows_per_call", 10)
    docs = db.create_collection("docs", 2, "l2")
    vectors = np.ones((30, 2), np.float32)
    mistakes: list[tuple[Any, Any, Any, str]] = [
        ((one for one in vectors), None, None, "vectors must be an array or a list, got a generator"),
        (vectors[:20], ({} for _ in vectors), None, "fields must be an array or a list, got a generator"),
        (vectors[:20], {"n": iter(range(20))}, None, "fields must be an array or a list, got a range_iterator"),
        (vectors, None, None, "got 20 ids and 30 of vectors: pass one per id"),
        (vectors[:20], [{}] * 30, None, "got 20 ids and 30 of fields: pass one per id"),
        (vectors[:20], {"n": range(30)}, None, "got 20 ids and 30 of fields: pass one per id"),
        (vectors[:20], None, [["t"]] * 30, "got 20 ids and 30 of tenants: pass one per id"),
    ]
    for array, fields, tenants, said in mistakes:
        with pytest.raises(vecdb.InvalidArgument, match=said):
            docs.upsert(range(20), array, fields, tenants, atomic=False)
    assert docs.count() == 0
    assert docs.upsert(range(20), vectors[:20], {"n": range(20)}, ["s", "t"], atomic=False) == 20
    assert docs.count(tenant="s") == 20


def test_long_fields_are_split_by_their_size(db: Any) -> None:
    docs = db.create_collection("docs", 2, "l2")
    texts = [{"text": "x" * 900_000, "n": n} for n in range(40)]
    assert docs.upsert([f"id-{n}" for n in range(40)], np.ones((40, 2)), texts) == 40
    assert docs.count() == 40 and [one.fields["n"] for batch in docs.iter(16) for one in batch] == list(range(40))
    assert len(docs.get("id-7").fields["text"]) == 900_000
