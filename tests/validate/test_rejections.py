"""Goal: a value that cannot be stored or searched is a typed error that says what to do, and nothing was written.

After each refusal count, sequence, records and answers are compared with those before.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest

import vecdb
from vecdb import limits
from vecdb.api.database import Database
from vecdb.errors import AlreadyExists, InvalidArgument, LimitExceeded, NotFound, VecdbError

GOOD = [1.0, 2.0, 3.0, 4.0]
NAN, INF = float("nan"), float("inf")


def state(docs: Any) -> Any:
    hits = docs.search(GOOD, 100, params=vecdb.SearchParams(exact=True))
    records = [record for batch in docs.iter(include_vectors=True) for record in batch]
    seen = [(record.id, record.fields, record.vector.tolist()) for record in records]
    return (
        docs.count(),
        docs.stats()["sequence"],
        docs.stats()["rows"],
        hits.ids.tolist(),
        hits.distances.tolist(),
        seen,
    )


@contextmanager
def refused(docs: Any, error: type[VecdbError], says: str) -> Iterator[None]:
    before = state(docs)
    with pytest.raises(error, match=says) as caught:
        yield
    assert type(caught.value) is error and len(str(caught.value)) < 500
    assert state(docs) == before, "nothing was written"


BAD_VECTORS: dict[str, tuple[Any, type[VecdbError], str]] = {
    "NaN": ([1, 2, NAN, 4], InvalidArgument, "finite"),
    "infinity": ([1, 2, INF, 4], InvalidArgument, "finite"),
    "minus infinity": ([1, -INF, 2, 4], InvalidArgument, "finite"),
    "overflow of float32": ([1e300, 0, 0, 0], InvalidArgument, "scale it down"),
    "overflow of the norm": ([3e38, 3e38, 0, 0], InvalidArgument, "scale it down"),
    "too short": ([1, 2, 3], InvalidArgument, "has dim 4, got 3"),
    "too long": ([1, 2, 3, 4, 5], InvalidArgument, "has dim 4, got 5"),
    "ragged": ([[1, 2, 3, 4], [1, 2]], InvalidArgument, "has dim 4, got 2"),
    "three dimensions": (np.zeros((1, 1, 4)), InvalidArgument, "reshape"),
    "text": (["a", "b", "c", "d"], InvalidArgument, "numbers|not a vector|dim"),
    "None": (None, InvalidArgument, "array"),
    "complex": (np.ones(4, complex), InvalidArgument, "numbers"),
    "bool": (np.ones(4, bool), InvalidArgument, "numbers"),
    "dict": ({"a": 1}, InvalidArgument, "array"),
    "empty": ([], InvalidArgument, "empty"),
    "masked": (np.ma.masked_equal(GOOD, 2), InvalidArgument, "masked"),
}


@pytest.mark.parametrize("name", BAD_VECTORS)
@pytest.mark.parametrize("call", ["upsert", "insert", "update"])
def test_a_bad_vector_is_refused_and_nothing_written(docs: Any, call: str, name: str) -> None:
    value, error, says = BAD_VECTORS[name]
    one = 9 if call == "insert" else 1
    if value is None and call == "update":
        pytest.skip("update without vectors changes fields")
    with refused(docs, error, says):
        getattr(docs, call)([one, 2] if name == "ragged" else one, value)


@pytest.mark.parametrize("name", [name for name in BAD_VECTORS if name != "empty"])
def test_a_bad_query_is_refused(docs: Any, name: str) -> None:
    value, error, says = BAD_VECTORS[name]
    with refused(docs, error, says):
        docs.search(value)


def test_one_bad_row_refuses_the_whole_batch(docs: Any) -> None:
    vectors = np.ones((1000, 4), np.float32)
    vectors[777, 2] = NAN
    with refused(docs, InvalidArgument, r"\[777\].*position 2"):
        docs.upsert(range(1000), vectors)


@pytest.mark.parametrize("value", [[0, 0, 0, 0], [1e-30, 0, 0, 0]], ids=["zero", "nearly zero"])
def test_a_vector_without_direction_is_refused_under_cosine_alone(db: Database, value: list[float]) -> None:
    docs = db.create_collection("cosine", 4, "cosine")
    docs.upsert(1, GOOD)
    with refused(docs, InvalidArgument, "cosine needs a direction"):
        docs.upsert([2, 3], [GOOD, value])
    with refused(docs, InvalidArgument, "cosine needs a direction"):
        docs.search(value)
    for metric in ("l2", "ip"):
        other = db.create_collection(metric, 4, metric)
        assert other.upsert(1, value) == 1 and other.search(value, 1).ids.tolist() == [1]


@pytest.mark.parametrize(
    ("dtype", "value"),
    [("int8", 128), ("int8", -129), ("uint8", -1), ("uint8", 256), ("int8", 1.5), ("uint8", NAN), ("float16", 1e5)],
)
def test_numbers_out_of_the_range_of_the_dtype_are_refused(db: Database, dtype: str, value: float) -> None:
    docs = db.create_collection("docs", 4, "l2", dtype=dtype)
    docs.upsert(1, [1, 2, 3, 4])
    with refused(docs, InvalidArgument, "position 1"):
        docs.upsert([1, 2], [[1, 2, 3, 4], [1, value, 3, 4]])


def layouts() -> dict[str, Any]:
    base = np.arange(1, 13, dtype=np.float32).reshape(3, 4)
    wide = np.zeros((6, 8), np.float32)
    wide[::2, ::2] = base
    frozen = base.copy()
    frozen.flags.writeable = False
    return {
        "list": base.tolist(),
        "tuples": tuple(map(tuple, base.tolist())),
        "arrays": list(base),
        "fortran": np.asfortranarray(base),
        "strided": wide[::2, ::2],
        "reversed": base[::-1].copy()[::-1],
        "byte-swapped": base.astype(">f4"),
        "read-only": frozen,
        "unpickled": base.view(np.dtype(np.float32, copy=True)),  # equal to NumPy's own, but not the same object
        "object": base.astype(object),
        "float64": base.astype(np.float64),
        "float16": base.astype(np.float16),
        "int64": base.astype(np.int64),
        "uint8": base.astype(np.uint8),
        "int8": base.astype(np.int8),
        "int32": base.astype(">i4"),
    }


@pytest.mark.parametrize("dtype", ["float32", "float16", "int8", "uint8"])
def test_every_layout_of_the_same_numbers_is_the_same_record(db: Database, dtype: str) -> None:
    docs = db.create_collection("docs", 4, "l2", dtype=dtype)
    expected = np.arange(1, 13).reshape(3, 4)
    for name, value in layouts().items():
        assert docs.upsert([1, 2, 3], value) == 3, name
        got = docs.get([1, 2, 3], include_vectors=True)
        assert [record.vector.tolist() for record in got] == expected.tolist(), name
        assert got[0].vector.dtype == np.dtype(dtype)
        hits = docs.search(value, 1)
        assert hits.ids.tolist() == [[1], [2], [3]] and not hits.distances.any(), name
        alone = docs.search(value[1], 1)
        assert alone.ids.tolist() == [2] and not alone.distances.any(), name
    assert docs.count() == 3


def test_what_the_caller_passed_may_change_afterwards(docs: Any) -> None:
    vectors = np.array([GOOD, GOOD], np.float32)
    docs.upsert([7, 8], vectors)
    vectors[:] = 0
    assert docs.get(7, include_vectors=True).vector.tolist() == GOOD


LIMITS: dict[str, tuple[Any, type[VecdbError]]] = {
    "zero": (0, InvalidArgument),
    "negative": (-1, InvalidArgument),
    "huge": (limits.limit_max + 1, LimitExceeded),
    "beyond int64": (2**70, LimitExceeded),
    "bool": (True, InvalidArgument),
    "float": (3.0, InvalidArgument),
    "text": ("3", InvalidArgument),
    "None": (None, InvalidArgument),
    "array": (np.array([3]), InvalidArgument),
}


@pytest.mark.parametrize("name", LIMITS)
def test_a_limit_that_is_no_count_is_refused(docs: Any, name: str) -> None:
    value, error = LIMITS[name]
    for call in (docs.search, docs.evaluate):
        with refused(docs, error, "limit"):
            call([GOOD, GOOD], value)
    with refused(docs, error, "limit"):
        docs.tune([GOOD], limit=value)


def test_the_largest_limit_gives_all_there_is(docs: Any) -> None:
    assert len(docs.search(GOOD, limits.limit_max)) == 3
    assert docs.search(GOOD, np.int64(2)).ids.shape == (2,)


def test_an_answer_too_large_is_refused_before_it_is_allocated(docs: Any) -> None:
    with refused(docs, LimitExceeded, "search in several calls"):
        docs.search(np.ones((limits.search_cells_max // limits.limit_max + 1, 4)), limits.limit_max)


def test_no_queries_give_no_answers(docs: Any) -> None:
    hits = docs.search(np.empty((0, 4), np.float32), 3)
    assert hits.ids.shape == (0, 3) and len(hits) == 0 and hits.counts.tolist() == []


ODD_IDS = [
    "a",
    "x" * 256,
    "é" * 128,
    "\0",
    "a\0b",
    "\0\0",
    "e\u0301",
    "\u00e9",
    "../x",
    "/",
    "a/b",
    " ",
    "\n",
    "😀",
    "\ufeff",
    "\U0010ffff",
    "-1",
    "0",
    "None",
    "%s",
    "' or 1=1",
]


def test_odd_string_ids_are_kept_exactly_and_apart(db: Database) -> None:
    docs = db.create_collection("docs", 1, "l2")
    vectors = np.arange(len(ODD_IDS), dtype=np.float32)[:, None]
    docs.upsert(ODD_IDS, vectors)
    assert docs.count() == len(ODD_IDS)
    for at, one in enumerate(ODD_IDS):
        assert docs.get(one).id == one
        assert docs.search([float(at)], 1).ids.tolist() == [one]
    assert {record.id for batch in docs.iter() for record in batch} == set(ODD_IDS)
    for one in ODD_IDS:
        assert docs.delete(one) == 1
    assert docs.count() == 0 and db.check() == []


def test_int_ids_reach_to_both_ends(db: Database) -> None:
    docs = db.create_collection("docs", 1, "l2")
    ids = [-(2**63), -1, 0, 1, 2**63 - 1]
    docs.upsert(ids, [[one] for one in range(5)])
    assert [record.id for record in docs.get(ids)] == ids
    assert docs.search([0.0], 5).ids.tolist() == ids
    assert docs.delete(np.array(ids)) == 5


BAD_IDS: dict[str, tuple[Any, type[VecdbError]]] = {
    "empty text": ("", InvalidArgument),
    "257 bytes": ("x" * 257, LimitExceeded),
    "257 bytes of UTF-8": ("é" * 129, LimitExceeded),
    "lone surrogate": ("a\ud800", InvalidArgument),
    "above int64": (2**63, InvalidArgument),
    "below int64": (-(2**63) - 1, InvalidArgument),
    "float": (1.0, InvalidArgument),
    "bool": (True, InvalidArgument),
    "None": (None, InvalidArgument),
    "bytes": (b"a", InvalidArgument),
    "mixed": ([1, "a"], InvalidArgument),
    "nested": ([[1], [2]], InvalidArgument),
    "float array": (np.ones(2), InvalidArgument),
    "bool array": (np.ones(2, bool), InvalidArgument),
    "dict": ({1: 2}, InvalidArgument),
    "the other kind": ("text", InvalidArgument),
    "the other kind, listed": (["a", "b"], InvalidArgument),
    "uint64 beyond": (np.array([1, 2**63], np.uint64), InvalidArgument),
}


@pytest.mark.parametrize("name", BAD_IDS)
def test_a_bad_id_is_refused_by_every_call(docs: Any, db: Database, name: str) -> None:
    value, error = BAD_IDS[name]
    if isinstance(value, str) and name != "the other kind":
        docs = db.create_collection("text", 4, "l2")
        docs.upsert("good", GOOD)
    vectors = [GOOD, GOOD] if isinstance(value, (list, np.ndarray, dict)) else GOOD
    with refused(docs, error, "ids?"):
        docs.upsert(value, vectors)
    with refused(docs, error, "ids?"):
        docs.insert(value, vectors)
    with refused(docs, error, "ids?"):
        docs.update(value, vectors)
    with refused(docs, error, "ids?"):
        docs.delete(value)
    with refused(docs, error, "ids?"):
        docs.get(value)


def test_batches_of_the_wrong_size_are_refused(docs: Any) -> None:
    with refused(docs, InvalidArgument, "2 ids and 1 vectors"):
        docs.upsert([8, 9], [GOOD])
    with refused(docs, InvalidArgument, "one vector alone"):
        docs.upsert([8, 9], GOOD)
    with refused(docs, InvalidArgument, "1 records for 2 ids"):
        docs.upsert([8, 9], [GOOD, GOOD], [{}])
    with refused(docs, InvalidArgument, "one vector per id"):
        docs.update([1, 2], [GOOD])
    with refused(docs, InvalidArgument, "empty"):
        docs.upsert([], [])
    with refused(docs, LimitExceeded, "split the batch"):
        docs.upsert(range(limits.batch_rows_max + 1), np.broadcast_to(np.float32(1), (limits.batch_rows_max + 1, 4)))
    assert docs.delete([]) == 0 and docs.get([]) == []


def test_a_batch_over_the_bytes_of_one_call_is_refused_or_split(db: Database, monkeypatch: pytest.MonkeyPatch) -> None:

    docs = db.create_collection("docs", 4, "l2")
    docs.upsert(-1, GOOD)
    monkeypatch.setattr(limits, "batch_bytes_max", 4 * 8 * 4 * 10)
    vectors = np.arange(400, dtype=np.float32).reshape(100, 4)
    with refused(docs, LimitExceeded, "atomic=False"):
        docs.upsert(range(100), vectors, [{"a": "x" * 20}] * 100)
    before = db.stats()["commits"]
    assert docs.upsert(range(100), vectors, [{"a": at} for at in range(100)], atomic=False) == 100
    assert db.stats()["commits"] - before == 10
    assert docs.get(57, include_vectors=True).vector.tolist() == vectors[57].tolist() and docs.get(99).fields == {
        "a": 99
    }


BAD_FIELDS: dict[str, Any] = {
    "not a dict": [1],
    "text": "abc",
    "key": [{1: 2}],
    "object": [{"a": object()}],
    "surrogate": [{"a": "\ud800"}],
    "int beyond 64 bits": [{"a": 2**64}],
    "set": [{"a": {1}}],
    "complex": [{"a": 1j}],
}


@pytest.mark.parametrize("name", BAD_FIELDS)
def test_bad_fields_are_refused_and_nothing_written(docs: Any, name: str) -> None:
    with refused(docs, InvalidArgument, "field|key"):
        docs.upsert([1], [GOOD], BAD_FIELDS[name])
    with refused(docs, InvalidArgument, "field|key"):
        docs.update([1], fields=BAD_FIELDS[name])


def test_fields_keep_their_bounds_also_where_updates_add_up(docs: Any) -> None:
    deep: Any = 1
    for _ in range(limits.fields_depth_max + 1):
        deep = [deep]
    with refused(docs, LimitExceeded, "deep"):
        docs.upsert(1, GOOD, {"a": deep})
    half = "x" * (limits.fields_bytes_max * 2 // 3)
    with refused(docs, LimitExceeded, "bytes"):
        docs.upsert(1, GOOD, {"a": half, "b": half})
    docs.update(1, fields={"a": half})
    with refused(docs, LimitExceeded, "remove some with None"):
        docs.update(1, fields={"b": half})
    assert docs.update(1, fields={"a": None, "b": half}) == 1


def test_refusals_of_insert_and_update_change_nothing(docs: Any) -> None:
    with refused(docs, AlreadyExists, "use upsert"):
        docs.insert([8, 9, 2], [GOOD] * 3)
    with refused(docs, AlreadyExists, "twice"):
        docs.insert([8, 8], [GOOD] * 2)
    with refused(docs, NotFound, "use upsert to add"):
        docs.update([1, 99], [GOOD] * 2)
    with refused(docs, InvalidArgument, "twice"):
        docs.update([1, 1], [GOOD] * 2)
    with refused(docs, InvalidArgument, "vectors or fields"):
        docs.update([1])
    assert docs.delete([77, 78]) == 0


PARAMS: dict[str, Callable[[], Any]] = {
    "ef zero": lambda: vecdb.SearchParams(ef=0),
    "ef huge": lambda: vecdb.SearchParams(ef=limits.ef_max + 1),
    "ef bool": lambda: vecdb.SearchParams(ef=True),
    "recall zero": lambda: vecdb.SearchParams(recall=0.0),
    "recall above one": lambda: vecdb.SearchParams(recall=1.01),
    "recall NaN": lambda: vecdb.SearchParams(recall=NAN),
    "both": lambda: vecdb.SearchParams(ef=10, recall=0.9),
    "threads zero": lambda: vecdb.SearchParams(threads=0),
    "threads huge": lambda: vecdb.SearchParams(threads=10_000),
    "exact text": lambda: vecdb.SearchParams(exact="no"),
    "a dict of what there is not": lambda: {"beam": 10},
}


@pytest.mark.parametrize("name", PARAMS)
def test_bad_search_parameters_are_refused(docs: Any, name: str) -> None:
    with pytest.raises(InvalidArgument, match=r"params|SearchParams|threads"):
        docs.search(GOOD, 2, params=PARAMS[name]())


@pytest.mark.parametrize(
    "name", ["", ".", "..", "a/b", "a\\b", "x" * 129, "a\0", "a\n", " a", "\ud800", None, 3, b"a"], ids=repr
)
def test_a_bad_collection_name_is_refused_everywhere(db: Database, name: Any) -> None:
    for call in (lambda: db.create_collection(name, 4), lambda: db.collection(name), lambda: db.drop_collection(name)):
        with pytest.raises(InvalidArgument, match="collection name"):
            call()
    assert db.collections() == [] and db.stats()["sequence"] == 0


@pytest.mark.parametrize("name", ["docs 2", "Größe", "x" * 128, "..a", "-", "日本", "%00"])
def test_odd_collection_names_work(db: Database, name: str) -> None:
    db.create_collection(name, 1).upsert(1, [1.0])
    assert db.collections() == [name] and name in db and db[name].count() == 1
    db.drop_collection(name)


def test_an_unknown_collection_is_named(db: Database) -> None:
    for call in (db.collection, db.drop_collection):
        with pytest.raises(NotFound, match=r"no collection 'docs'; collections\(\) lists"):
            call("docs")


def test_a_collection_that_is_there_is_not_made_again(db: Database) -> None:
    db.create_collection("books", 3)
    with pytest.raises(AlreadyExists, match="exist_ok"):
        db.create_collection("books", 3)
    with pytest.raises(AlreadyExists, match="dim 3, asked for dim 4"):
        db.create_collection("books", 4, exist_ok=True)
    assert db.create_collection("books", 3, exist_ok=True).count() == 0
