"""Goal: what upsert, insert, update and delete mean for fields and vectors, also where an id comes twice in a batch."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pytest

from vecdb.api.database import Database


def test_update_of_fields_keeps_the_vector_and_merges_by_name(docs: Any) -> None:
    assert docs.update(1, fields={"b": 2}) == 1
    record = docs.get(1, include_vectors=True)
    assert record.fields == {"a": 1, "b": 2} and record.vector.tolist() == [1, 0, 0, 0]
    docs.update([1, 3], fields=[{"a": None}, {"b": {"x": 1}}])
    assert [one.fields for one in docs.get([1, 3])] == [{"b": 2}, {"b": {"x": 1}}]
    docs.update(1, fields={"b": None})
    assert docs.get(1).fields == {}
    assert docs.count() == 3


def test_update_of_vectors_keeps_the_fields(docs: Any) -> None:
    docs.update([3, 1], [[9, 9, 9, 9], [8, 8, 8, 8]])
    one, three = docs.get([1, 3], include_vectors=True)
    assert (one.fields, one.vector.tolist()) == ({"a": 1}, [8, 8, 8, 8])
    assert (three.fields, three.vector.tolist()) == ({"b": [1, 2]}, [9, 9, 9, 9])
    assert docs.search([9, 9, 9, 9], 1).ids.tolist() == [3]


def test_upsert_replaces_vector_and_fields_whole(docs: Any) -> None:
    docs.upsert(1, [5, 5, 5, 5])
    assert docs.get(1).fields == {}
    docs.upsert(1, [5, 5, 5, 5], {"z": None})
    assert docs.get(1).fields == {"z": None}


def test_the_last_of_an_id_that_repeats_in_a_batch_counts(docs: Any) -> None:
    assert docs.upsert([7, 8, 7], [[1, 1, 1, 1], [2, 2, 2, 2], [3, 3, 3, 3]], [{"n": 1}, {"n": 2}, {"n": 3}]) == 2
    record = docs.get(7, include_vectors=True)
    assert record.fields == {"n": 3} and record.vector.tolist() == [3, 3, 3, 3]
    assert docs.search([3, 3, 3, 3], 10).ids.tolist().count(7) == 1
    assert docs.delete([7, 7, 8]) == 2


def test_dates_survive_an_update_of_another_field(docs: Any) -> None:
    values = {
        "naive": dt.datetime(2026, 1, 2, 3, 4, 5, 6),
        "day": dt.date(2026, 1, 2),
        "aware": dt.datetime(2026, 1, 2, tzinfo=dt.UTC),
    }
    docs.upsert(1, [1, 1, 1, 1], {**values, "blob": b"\0\xff"})
    docs.update(1, fields={"other": 1})
    assert docs.get(1).fields == {**values, "blob": b"\0\xff", "other": 1}
    assert docs.search([1, 1, 1, 1], 1).fields == [{**values, "blob": b"\0\xff", "other": 1}]


@pytest.mark.parametrize("owner", ["", "tenant-a"])
def test_owners_have_ids_of_their_own(docs: Any, db: Database, owner: str) -> None:
    docs.upsert([1], [[4, 4, 4, 4]], [{"of": "b"}], owner="tenant-b")
    assert docs.count() == 4
    docs.upsert([1], [[6, 6, 6, 6]], [{"of": owner}], owner=owner)
    docs.update([1], fields=[{"more": 1}], owner=owner)
    assert docs.get(1, owner=owner).fields == {"of": owner, "more": 1}
    assert docs.get(1, owner="tenant-b").fields == {"of": "b"}
    assert docs.delete(1, owner="nobody") == 0
    assert docs.delete(1, owner="tenant-b") == 1
    db.vacuum()
    assert docs.get(1, owner=owner).fields == {"of": owner, "more": 1} and docs.get(1, owner="tenant-b") is None
    assert db.check() == []


def test_selected_fields_come_back_alone(docs: Any) -> None:
    docs.upsert(1, [1, 0, 0, 0], {"a": 1, "b": 2})
    assert docs.search([1, 0, 0, 0], 1, fields=["b", "c"]).fields == [{"b": 2}]
    assert docs.search([1, 0, 0, 0], 1, fields=[]).fields == [{}]
    assert docs.search([1, 0, 0, 0], 1).fields == [{"a": 1, "b": 2}]
