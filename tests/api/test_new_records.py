"""Goal: ids that vecdb makes, inserts that skip, clears and metadata are alike whichever way a database is opened."""

from __future__ import annotations

import uuid
from typing import Any

import numpy as np
import pytest

from vecdb.errors import AlreadyExists, InvalidArgument

VECTORS = np.random.default_rng(8).normal(size=(9, 3)).astype(np.float32)


def test_ids_are_made(db: Any) -> None:
    docs = db.create_collection("docs", 3, "l2")
    assert docs.add(VECTORS[:3], [{"n": n} for n in range(3)], tenants=[["a"], [], ["b"]]) == [0, 1, 2]
    assert docs.add(VECTORS[3], {"n": 3}) == 3 and docs.add([]) == []
    assert docs.add(VECTORS[:2], request_id="r") == docs.add(VECTORS[:2], request_id="r") == [4, 5]
    assert docs.add(VECTORS[:1], owner="acme") == [0]
    found = docs.get([2, 3], include_vectors=True)
    assert [(one.fields, one.tenants) for one in found] == [({"n": 2}, ["b"]), ({"n": 3}, [])]
    assert np.array_equal([one.vector for one in found], VECTORS[2:4]) and docs.count() == 7
    texts = db.create_collection("texts", 3, "l2")
    texts.upsert("a", VECTORS[0])
    made = texts.add(VECTORS)
    assert made == sorted(made) and {uuid.UUID(one).version for one in made} == {7}
    assert np.array_equal([one.vector for one in texts.get(made, include_vectors=True)], VECTORS)
    with pytest.raises(InvalidArgument):
        docs.add([[1, 2]])


def test_an_insert_may_skip(db: Any) -> None:
    docs = db.create_collection("docs", 3, "l2")
    docs.upsert([1, 2], VECTORS[:2], [{"n": 1}, {"n": 2}])
    for atomic in (True, False):
        assert docs.insert(
            [2, 3, 4, 3], VECTORS[:4], [{"n": n} for n in range(4)], on_conflict="skip", atomic=atomic
        ) == (2 if atomic else 0)
    assert [one.fields["n"] for one in docs.get([1, 2, 3, 4])] == [1, 2, 1, 2]
    with pytest.raises(AlreadyExists):
        docs.insert([2, 9], VECTORS[:2])
    assert docs.count() == 4 and docs.upsert([], []) == docs.insert([], [], on_conflict="skip") == 0


def test_a_clear_keeps_the_collection(db: Any) -> None:
    docs = db.create_collection("docs", 3, "ip", metadata={"a": [1, None, {"b": "c"}]})
    docs.upsert(range(9), VECTORS, tenants="t")
    before = docs.config
    assert docs.clear(request_id="r") == 9 and docs.count() == 0 and len(docs.search(VECTORS[0])) == 0
    docs.upsert(range(3), VECTORS[:3])
    assert docs.clear(request_id="r") == 9 and docs.count() == 3 and docs.clear() == 3 and docs.clear() == 0
    assert docs.config == before and docs.metadata == {"a": [1, None, {"b": "c"}]} and list(docs.tenants()) == ["t"]


def test_metadata_is_noted(db: Any) -> None:
    docs = db.create_collection("docs", 3)
    assert docs.metadata == {} and db.create_collection("docs", 3, exist_ok=True, metadata={"a": 1}).metadata == {}
    noted = {"model": "größe", "n": [2**63 - 1, 1.5, True, None], "deep": {"er": {}}}
    docs.set_metadata(noted)
    assert docs.metadata == db.collection("docs").metadata == docs.config.metadata == noted
    for wrong in (None, {"a": b""}, {1: 2}, {"a": float("nan")}):
        with pytest.raises(InvalidArgument, match="metadata"):
            docs.set_metadata(wrong)
    assert docs.metadata == noted
    docs.set_metadata({})
    assert docs.metadata == {}
