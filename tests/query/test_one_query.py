"""Searches for one query as callers make them in a loop: the same answers and the same errors as of any other way, from
any number of threads, and nothing that is remembered outlives what it follows from.
"""

from __future__ import annotations

import gc
import threading
import weakref
from typing import Any

import numpy as np
import pytest

import vecdb
from tests.support.corpus import EXACT, clustered
from vecdb import errors, limits
from vecdb.schema import SearchParams

ROWS, DIM = 4_500, 8
VECTORS = clustered(ROWS, DIM)
QUERIES = clustered(40, DIM, seed=2)
WIDE = SearchParams(ef=96)
FIELDS = [{"n": one, "word": f"w{one % 7}"} for one in range(ROWS)]


def filled(db: Any, metric: str = "l2", index: Any = None, ids: Any = range(ROWS), **written: Any) -> Any:
    docs = db.create_collection("docs", DIM, metric, index=index or vecdb.Hnsw(m=8, ef_construction=60))
    docs.upsert(ids, VECTORS, **written)
    docs.optimize()
    return docs


def answered_by_the_short_way(docs: Any, query: np.ndarray, limit: Any, params: Any, fields: Any = None) -> Any:
    hits = docs._backend.search_one(query, limit, params, fields)
    assert hits is not None
    return hits


def assert_as_in_a_batch(docs: Any, queries: np.ndarray, limit: int, params: Any, **asked: Any) -> None:
    batch = docs.search(queries, limit, params=params, **asked)
    for query, expected in zip(queries, batch, strict=True):
        alone = docs.search(query, limit, params=params, **asked)
        assert alone.to_list() == expected.to_list() and alone.sequence == expected.sequence
        assert alone.counts.tolist() == [limit] and alone.single
        assert alone.ids.dtype == expected.ids.dtype and alone.distances.dtype == np.float32


@pytest.mark.parametrize("metric", ["l2", "cosine", "ip"])
def test_answers_are_those_of_a_batch(db: Any, metric: str) -> None:
    docs = filled(db, metric, fields=FIELDS)
    for limit in (1, 10, 90):
        for asked in ({}, {"fields": []}, {"fields": ["n"]}, {"fields": "word"}):
            assert_as_in_a_batch(docs, QUERIES[:5], limit, WIDE, **asked)
    hits = answered_by_the_short_way(docs, QUERIES[0], 10, WIDE)
    assert [one["n"] for one in hits.fields] == hits.ids.tolist()


def test_names_as_ids_and_records_without_fields(db: Any) -> None:
    docs = filled(db, ids=[f"r{one}" for one in range(ROWS)])
    assert_as_in_a_batch(docs, QUERIES, 10, WIDE)
    assert answered_by_the_short_way(docs, QUERIES[0], 3, None).ids.dtype == object


@pytest.mark.parametrize("index", [vecdb.Spann(), vecdb.Curator()])
def test_other_kinds_of_index_answer_in_their_own_way(db: Any, index: Any) -> None:
    docs = filled(db, index=index, fields=FIELDS)
    assert docs._backend.search_one(QUERIES[0], 5, None, None) is None
    assert_as_in_a_batch(docs, QUERIES[:3], 5, None)


@pytest.mark.parametrize("index", [vecdb.Flat(), vecdb.Hnsw(m=8, ef_construction=60)], ids=["flat", "hnsw"])
def test_exact_searches_are_those_of_a_batch(db: Any, index: Any) -> None:
    docs = filled(db, index=index, fields=FIELDS)
    docs.delete([3, 40, 41])
    for limit in (1, 90):
        assert_as_in_a_batch(docs, QUERIES[:5], limit, EXACT)
    answered_by_the_short_way(docs, QUERIES[0], 10, EXACT, ["n"])
    asked = docs._backend.searcher.asked
    seen = asked._seen
    for _ in range(50):
        docs.search(QUERIES[1], 5, params=EXACT)
    assert asked._seen == seen, "what compares all rows says nothing of the index"
    docs.upsert(ROWS, None, {"n": 0})  # a record without a vector is no neighbour
    docs.upsert(ROWS + 1, QUERIES[0])
    assert docs.search(QUERIES[0], 1, params=EXACT).ids.tolist() == [ROWS + 1]
    assert ROWS not in docs.search(QUERIES[0], ROWS, params=EXACT).ids.tolist()


def test_queries_of_bits_that_are_bytes_are_answered(db: Any) -> None:
    vectors = np.random.default_rng(4).integers(0, 256, (300, 8)).astype(np.uint8)
    docs = db.create_collection("bits", 64, "hamming", vecdb.Flat(), "bits")
    docs.upsert(range(300), vectors)
    batch = docs.search(vectors[:5], 7)
    for query, expected in zip(vectors[:5], batch, strict=True):
        assert answered_by_the_short_way(docs, query, 7, None).to_list() == expected.to_list()
        for other in (query.astype(np.float32), np.unpackbits(query), query.astype(np.int64)):
            assert docs._backend.search_one(other, 7, None, None) is None
            assert docs.search(other, 7).to_list() == expected.to_list()


def test_what_is_not_plain_is_left_to_the_general_search(db: Any) -> None:
    docs = filled(db, fields=FIELDS, owner="a")
    docs.upsert([1], VECTORS[:1] + 9, [{"n": 1}], owner="b")
    assert docs._backend.search_one(QUERIES[0], 5, WIDE, None) is None  # hits have owners
    assert_as_in_a_batch(docs, QUERIES[:3], 5, WIDE)


@pytest.mark.parametrize("dtype", ["float64", "float16", ">f4", "float32", "uint8", "int8", ">i2", "int64", "uint64"])
def test_numbers_of_every_kind_are_answered_as_float32(db: Any, dtype: str) -> None:
    docs = filled(db)
    for query in (QUERIES[:3] if "f" in dtype else 20 * abs(QUERIES[:3])).astype(dtype):
        query.flags.writeable = False
        hits, as_ever = docs._backend.search_one(query, 5, WIDE, None), docs.search(query[None], 5, params=WIDE)
        assert (hits.ids == as_ever.ids[0]).all() and (hits.distances == as_ever.distances[0]).all()


def test_lists_of_floats_are_answered_as_arrays(db: Any) -> None:
    docs = filled(db)
    for query in QUERIES[:3]:
        hits, as_ever = (
            docs._backend.search_one(query.tolist(), 5, WIDE, None),
            docs.search(query[None], 5, params=WIDE),
        )
        assert (hits.ids == as_ever.ids[0]).all() and (hits.distances == as_ever.distances[0]).all()
    for other in ([0.5, "1", *[0.5] * (DIM - 2)], [True] * DIM, [QUERIES[0].tolist()], [0.5] * (DIM + 1), []):
        assert docs._backend.search_one(other, 5, WIDE, None) is None


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e30])
def test_a_query_that_is_not_fit_gets_the_gates_error(db: Any, value: float) -> None:
    docs = filled(db, "cosine")
    bad, zero = QUERIES[0].copy(), np.zeros(DIM, np.float32)
    bad[3] = value
    for query in (bad, zero, bad.tolist(), bad.astype(np.float64), 1e300 * QUERIES[0].astype(np.float64)):
        docs.search(QUERIES[0], 5, params=WIDE)
        with pytest.raises(errors.InvalidArgument) as alone:
            docs.search(query, 5, params=WIDE)
        with pytest.raises(errors.InvalidArgument) as batch:
            docs.search(np.asarray(query)[None], 5, params=WIDE)
        assert str(alone.value) == str(batch.value)


def test_arguments_are_checked_as_ever_also_after_good_ones(db: Any) -> None:
    docs, query = filled(db), QUERIES[0]
    docs.search(query, 10, params=WIDE)
    one = docs.search(query, 1)
    for limit in (True, 0, -1, 1.5, "1", limits.limit_max + 1):
        with pytest.raises(errors.InvalidArgument):
            docs.search(query, limit)
    assert docs.search(query, np.int64(1)).ids.tolist() == one.ids.tolist()
    for params in (SearchParams(ef=0), SearchParams(ef=[1]), SearchParams(recall=2.0), 7):  # type: ignore[arg-type]
        with pytest.raises(errors.InvalidArgument):
            docs.search(query, 10, params=params)
    for fields in (7, [7], b"n"):
        with pytest.raises(errors.InvalidArgument):
            docs.search(query, 10, fields=fields)
    for shape in (DIM - 1, DIM + 1):
        with pytest.raises(errors.InvalidArgument, match="dim"):
            docs.search(np.ones(shape, np.float32), 10)
    twice = np.repeat(query, 2)[::2]  # not contiguous
    for same in (twice, query.astype(np.float64), query.tolist(), query[None][0]):
        assert docs.search(same, 10, params=WIDE).ids.tolist() == docs.search(query, 10, params=WIDE).ids.tolist()


def test_every_write_is_seen_by_the_next_search(db: Any) -> None:
    docs, query = filled(db, fields=FIELDS), QUERIES[0]
    first = docs.search(query, 3, params=WIDE).ids.tolist()
    docs.update([first[0]], fields=[{"word": "new"}])
    assert docs.search(query, 3, params=WIDE).fields[0]["word"] == "new"
    docs.update([first[0]], fields=[{"word": "newer"}])
    assert docs.search(query, 3, params=WIDE).fields[0]["word"] == "newer"
    docs.delete([first[0]])
    assert docs.search(query, 2, params=WIDE).ids.tolist() == first[1:]
    docs.upsert([ROWS + 5], [query], [{"n": -1}])
    near = docs.search(query, 3, params=WIDE)
    assert near.ids.tolist() == [ROWS + 5, *first[1:]] and near.fields[0] == {"n": -1}
    docs.vacuum()
    again = docs.search(query, 3, params=WIDE)
    assert again.ids.tolist() == near.ids.tolist() and again.fields == near.fields


def test_an_answer_that_the_graph_cannot_fill_is_complete(db: Any) -> None:
    docs = filled(db)
    docs.delete(range(6, ROWS))
    hits = docs.search(QUERIES[0], 10, params=WIDE)
    assert hits.ids.tolist() == docs.search(QUERIES[0], 10, params=EXACT).ids.tolist() and len(hits) == 6


def test_nothing_that_was_prepared_keeps_an_earlier_commit_alive(db: Any) -> None:
    docs = filled(db, fields=FIELDS)
    docs.search(QUERIES[0], 10, params=WIDE)
    earlier = weakref.ref(docs._backend.state.snapshot)
    docs.delete([0])
    gc.collect()
    assert earlier() is None


def test_fields_that_are_kept_stay_within_their_bytes(db: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "hit_fields_cache_bytes", 20_000)
    docs = filled(db, fields=FIELDS)
    kept = docs._backend.search_one.__self__._fields
    for query in VECTORS[:300]:
        hits = docs.search(query, 10, params=WIDE)
        assert [one["n"] for one in hits.fields] == hits.ids.tolist()
        assert kept._kept.bytes <= 10_000
    docs.search(QUERIES[0], 900)  # more than it keeps
    assert kept._kept.bytes <= 10_000


def test_streams_answer_the_same(db: Any) -> None:
    docs = filled(db, fields=FIELDS)
    asked = [QUERIES[0], QUERIES[1].tolist(), QUERIES[2:4], QUERIES[4]]
    for query, hits in zip(asked, docs.search_stream(asked, 5, params=WIDE), strict=True):
        assert hits.to_list() == docs.search(np.asarray(query, np.float32), 5, params=WIDE).to_list()


def test_threads_get_the_answers_that_a_lone_caller_gets(db: Any) -> None:
    docs = filled(db, fields=FIELDS)
    expected = [docs.search(query, 10, params=WIDE).to_list() for query in QUERIES]
    wrong: list[int] = []

    def ask(first: int) -> None:
        for one in range(150):
            at = (first + one) % len(QUERIES)
            if docs.search(QUERIES[at], 10, params=WIDE).to_list() != expected[at]:
                wrong.append(at)

    threads = [threading.Thread(target=ask, args=(7 * one,)) for one in range(9)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert not wrong
