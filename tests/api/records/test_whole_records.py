"""Goal: tables and dicts are written as the records that they clearly are, whichever way the database is opened; what
is unclear is refused by name. Records come back as tables, and `in`, `len` and `head` say what is there.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from vecdb.api.database import Database
from vecdb.errors import InvalidArgument

VECTORS = np.random.default_rng(8).normal(size=(5, 3)).astype(np.float32)
LANGS = ["en", "fr", "en", None, "de"]
LISTS = VECTORS.tolist()
DICTS = [{"id": n, "vector": VECTORS[n], "lang": LANGS[n], "n": n} for n in range(5)]
COLUMNS: dict[str, Any] = {"id": list(range(5)), "vector": LISTS, "lang": LANGS, "n": list(range(5))}
EXPECTED = {n: ({"lang": LANGS[n], "n": n}, LISTS[n]) for n in range(5)}
FRAMES: dict[str, Callable[[], Any]] = {
    "dicts": lambda: DICTS,
    "tuple of dicts": lambda: tuple(DICTS),
    "columns": lambda: COLUMNS,
    "arrays": lambda: {"vector": VECTORS, "id": np.arange(5), "lang": LANGS, "n": np.arange(5)},
    "pandas": lambda: pd.DataFrame(COLUMNS),
    "pandas by another index": lambda: pd.DataFrame({**COLUMNS, "vector": list(VECTORS)}, index=[9, 8, 7, 6, 5]),
    "polars lists": lambda: pl.DataFrame(COLUMNS),
    "polars arrays": lambda: pl.DataFrame({**COLUMNS, "vector": VECTORS}),
    "arrow lists": lambda: pa.table(COLUMNS),
    "arrow arrays": lambda: pa.table({**COLUMNS, "vector": pa.FixedSizeListArray.from_arrays(VECTORS.ravel(), 3)}),
    "arrow batch": lambda: pa.RecordBatch.from_pydict(COLUMNS),
    "arrow pieces": lambda: pa.concat_tables([pa.table(COLUMNS).slice(0, 2), pa.table(COLUMNS).slice(2)]),
}


def all_of(docs: Any) -> dict[Any, Any]:
    return {one.id: (one.fields, one.vector.tolist()) for page in docs.iter(include_vectors=True) for one in page}


@pytest.mark.parametrize("frame", FRAMES)
def test_whole_records_are_written(db: Any, frame: str) -> None:
    docs = db.create_collection("docs", 3, "l2")
    assert docs.upsert(FRAMES[frame]()) == 5
    assert all_of(docs) == EXPECTED
    docs.upsert([2], [[9, 9, 9]])
    assert docs.upsert(FRAMES[frame](), tenants="t", keep_tenants=True) == 5
    assert all_of(docs) == EXPECTED and docs.count(tenant="t") == 5


@pytest.fixture
def local(twin: Database) -> Any:
    return twin.create_collection("docs", 3, "l2")


def test_one_dict_is_one_record(local: Any) -> None:
    assert local.upsert({"id": "a", "vector": [1, 2, 3], "tags": ["x", "y"]}) == 1
    assert local.insert({"id": "b", "vector": [1, 2, 3]}) == 1
    assert all_of(local) == {"a": ({"tags": ["x", "y"]}, [1, 2, 3]), "b": ({}, [1, 2, 3])}


@pytest.mark.parametrize("frame", FRAMES)
def test_columns_may_have_other_names(local: Any, frame: str) -> None:
    value = FRAMES[frame]()
    names = {"id": "key", "vector": "embedding"}
    if isinstance(value, (list, tuple)):
        value = [{names.get(name, name): one for name, one in record.items()} for record in value]
    elif isinstance(value, dict):
        value = {names.get(name, name): one for name, one in value.items()}
    elif isinstance(value, pd.DataFrame):
        value = value.rename(columns=names)
    elif isinstance(value, pl.DataFrame):
        value = value.rename(names)
    else:
        value = value.rename_columns([names.get(name, name) for name in value.schema.names])
    with pytest.raises(InvalidArgument, match=r"no id, no column 'id'; there are .*'key'.*say which it is with id="):
        local.upsert(value)
    with pytest.raises(InvalidArgument, match=r"no vector, no column 'vector'; .*'embedding'.*with vector="):
        local.upsert(value, id="key")
    assert local.count() == 0
    assert local.insert(value, id="key", vector="embedding") == 5
    assert all_of(local) == EXPECTED
    assert local.insert(value, id="key", vector="embedding", on_conflict="skip") == 0
    assert local.upsert(value, id="key", vector="embedding", atomic=False) == 5
    assert all_of(local) == EXPECTED


def test_what_is_unclear_is_refused_by_name(local: Any) -> None:
    twice = pd.DataFrame([[1, [1, 2, 3], 4]], columns=["id", "vector", "id"])
    wrong: list[tuple[Any, dict[str, Any], str]] = [
        (DICTS, {"vectors": VECTORS}, "leave both arguments out"),
        (DICTS, {"fields": [{}] * 5}, "leave both arguments out"),
        ([1, 2], {}, "needs vectors"),
        (range(2), {"vectors": VECTORS[:2], "id": "key"}, "name columns of whole records"),
        (DICTS, {"id": 3}, "must be the name of a column"),
        (DICTS, {"id": "n", "vector": "n"}, "name two columns"),
        (twice, {}, "two columns named 'id'"),
        (
            pd.DataFrame({"id": [1], "v0": [1.0], "v1": [2.0]}),
            {},
            "no vector, no column 'vector'; there are 'id', 'v0'",
        ),
        (pd.DataFrame(), {}, "there is no column at all"),
        ([DICTS[0], 5], {}, r"records\[1\] is 5, not a dict"),
        ([DICTS[0], {"id": 5, "embedding": [1.0, 2.0, 3.0]}], {}, r"records\[1\] has no vector.*'embedding'"),
        ([{"id": 5, "embedding": np.ones(3)}], {}, r"records\[0\] has no vector.*say which it is with vector="),
        ([DICTS[0], {"vector": [1, 2, 3]}], {}, r"records\[1\] has no id"),
        ([{"id": 1, "vector": [None, 2, 3]}], {}, "vectors"),
        ([{"id": None, "vector": [1, 2, 3]}], {}, r"ids\[0\]"),
        ([{"id": 1, "vector": [1, 2]}], {}, "dim"),
        ({"id": [1, 2], "vector": LISTS[:1]}, {}, "2 ids and 1 vectors"),
        ({"id": [1, 2], "vector": LISTS[:2], "n": [1]}, {}, "1 records for 2 ids"),
    ]
    for value, options, says in wrong:
        with pytest.raises(InvalidArgument, match=says):
            local.upsert(value, **options)
    assert local.count() == 0


def test_no_records_at_all_are_an_empty_batch(local: Any) -> None:
    empty = {"id": [], "vector": []}
    for value in ([], (), empty, pd.DataFrame(empty), pl.DataFrame(empty), pa.table(empty), pd.DataFrame(COLUMNS)[:0]):
        assert local.upsert(value) == local.insert(value) == 0
    assert local.count() == 0


def test_records_come_back_as_tables(db: Any, way: str) -> None:
    docs = db.create_collection("docs", 3, "l2")
    docs.upsert(DICTS)
    frame, table = docs.to_pandas(), docs.to_arrow()
    assert list(frame.columns) == table.column_names == ["id", "lang", "n"]
    assert frame["id"].tolist() == list(range(5)) and frame["lang"].tolist() == LANGS
    assert table.to_pylist() == [{"id": n, "lang": LANGS[n], "n": n} for n in range(5)]
    whole, packed = docs.to_pandas(include_vectors=True), docs.to_arrow(include_vectors=True)
    assert np.array_equal(np.stack(whole["vector"]), VECTORS)
    assert packed.schema.field("vector").type == pa.list_(pa.float32(), 3) and packed["vector"].to_pylist() == LISTS
    for value in (whole, packed, pl.DataFrame(packed)):  # and are what upsert takes
        copy = db.create_collection("copy", 3, "l2")
        assert copy.upsert(value) == 5 and all_of(copy) == EXPECTED
        db.drop_collection("copy")
    if way in ("disk", "memory", "threads"):
        assert docs.to_pandas(filter="lang = 'en'")["id"].tolist() == [0, 2]
        assert docs.to_arrow(limit=2, filter="n > $n", filter_params={"n": 1})["id"].to_pylist() == [2, 3]
        assert [one.id for one in docs.head(2)] == [0, 1] and len(docs.head()) == 5
        assert docs.head(1, include_vectors=True)[0].vector.tolist() == LISTS[0]


def test_tables_of_odd_records(local: Any) -> None:
    assert local.to_pandas().shape == (0, 1) and local.to_arrow().column_names == ["id"]
    assert local.to_arrow(include_vectors=True).column_names == ["id", "vector"]
    local.upsert([1, 2], VECTORS[:2], [{"id": "x", "vector": 3, "a": 1}, {"a": "text"}])
    local.upsert([1], VECTORS[:1], owner="acme")
    frame = local.to_pandas(include_vectors=True)
    assert frame["a"].tolist() == [1, "text", None]
    assert list(frame.columns) == ["id", "owner", "fields.id", "fields.vector", "a", "vector"]
    assert frame["owner"].tolist() == ["", "", "acme"] and frame["fields.id"].tolist() == ["x", None, None]
    with pytest.raises(InvalidArgument, match="to_pandas"):
        local.to_arrow()


def test_in_and_len(local: Any) -> None:
    local.upsert(DICTS)
    local.upsert([7], VECTORS[:1], owner="acme")
    assert 4 in local and np.int64(4) in local and 5 not in local and 7 not in local and len(local) == 6
    local.delete(4)
    assert 4 not in local and len(local) == 5
    for wrong in ("a", [1], None, 1.5):
        with pytest.raises(InvalidArgument):
            assert wrong in local
