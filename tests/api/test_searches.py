"""Searches, the same whichever way the database is opened, and right by brute force."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

import vecdb
from tests.support.answers.ways import LONG_WAYS
from tests.support.answers.written import written

RNG = np.random.default_rng(6)
ROWS, DIM = 300, 12


def distances(vectors: np.ndarray, query: np.ndarray, metric: str) -> np.ndarray:
    a, b = vectors.astype(np.float64), query.astype(np.float64)
    if metric == "l2":
        return ((a - b) ** 2).sum(1)
    product = a @ b
    return -product if metric == "ip" else 1 - product / np.linalg.norm(a, axis=1) / np.linalg.norm(b)


def data(dtype: str, rows: int = ROWS) -> np.ndarray:
    if dtype in ("int8", "uint8"):
        return RNG.integers(1, 100, (rows, DIM)).astype(dtype)
    return RNG.normal(size=(rows, DIM)).astype(dtype)


def filled(db: Any, ids: Any = range(ROWS), *, metric: str = "l2", dtype: str = "float32", **written: Any) -> Any:
    docs = db.create_collection("docs", DIM, metric, dtype=dtype)
    docs.upsert(ids, written.pop("vectors", None) if "vectors" in written else data(dtype), **written)
    return docs


def both(db: Any, twin: Any, ids: Any = range(ROWS), **written: Any) -> tuple[Any, Any, np.ndarray]:
    vectors = data(written.get("dtype", "float32"))
    return filled(db, ids, vectors=vectors, **written), filled(twin, ids, vectors=vectors, **written), vectors


def assert_same(found: vecdb.Hits, expected: vecdb.Hits) -> None:
    assert isinstance(found, vecdb.Hits)
    for name in ("ids", "distances", "counts", "scores", "vectors", "components", "owners"):
        one, other = getattr(found, name), getattr(expected, name)
        assert (one is None) == (other is None), name
        if other is not None:
            assert (one.dtype, one.shape) == (other.dtype, other.shape), name
            assert np.array_equal(one, other), name
    assert found.single == expected.single and written(found.to_list()) == written(expected.to_list())


@pytest.mark.parametrize("metric", ["l2", "cosine", "ip"])
@pytest.mark.parametrize("dtype", ["float32", "float16", "int8", "uint8"])
def test_the_nearest_are_found_under_every_metric_and_type(db: Any, twin: Any, metric: str, dtype: str) -> None:
    docs, here, vectors = both(db, twin, metric=metric, dtype=dtype)
    for query in data(dtype, 3):
        hits = docs.search(query, 5)
        assert_same(hits, here.search(query, 5))
        true = distances(vectors, query, metric)
        assert np.allclose(hits.distances, np.sort(true)[:5], rtol=2e-3, atol=2e-3)


@pytest.mark.parametrize("way", LONG_WAYS)
@pytest.mark.parametrize("ids", [range(ROWS), [f"id-{n}" for n in range(ROWS)]], ids=["ints", "strings"])
@pytest.mark.parametrize("limit", [1, 10, ROWS + 20])
def test_one_query_and_batches_have_the_same_shapes_and_padding(db: Any, twin: Any, ids: Any, limit: int) -> None:
    docs, here, vectors = both(db, twin, ids, fields=[{"n": n, "s": "x" * (n % 3)} for n in range(ROWS)])
    for query in (vectors[0], vectors[:1], vectors[:7], vectors[:0], vectors[3].tolist(), vectors[:2].astype("f8")):
        for options in ({}, {"include_vectors": True}, {"fields": []}, {"fields": ["n", "none"]}):
            found, expected = docs.search(query, limit, **options), here.search(query, limit, **options)
            assert_same(found, expected)
            assert found.fields == expected.fields and repr(found).split("seq")[0] == repr(expected).split("seq")[0]


def test_nothing_is_found_in_what_is_empty(db: Any, twin: Any) -> None:
    for query in (np.ones(DIM), np.ones((3, DIM))):
        found, expected = (
            one.create_collection("docs", DIM, exist_ok=True).search(query, 4, include_vectors=True)
            for one in (db, twin)
        )
        assert_same(found, expected)


def test_a_batch_is_searched_with_every_parameter(db: Any, twin: Any) -> None:
    docs, here, vectors = both(db, twin)
    for params in (
        vecdb.SearchParams(ef=32), vecdb.SearchParams(nprobe=3), vecdb.SearchParams(recall=0.9),
        vecdb.SearchParams(exact=True, threads=2),
    ):  # fmt: skip
        assert_same(docs.search(vectors[:20], 6, params=params), here.search(vectors[:20], 6, params=params))
    assert_same(docs.search(vectors[:20], 6, stop=lambda: False), here.search(vectors[:20], 6))


def test_a_search_explains_itself(db: Any, twin: Any) -> None:
    docs, here, vectors = both(db, twin)
    found, expected = docs.search(vectors[0], explain=True), here.search(vectors[0], explain=True)
    assert set(found.explain) == set(expected.explain) and found.plan == expected.plan == "exact"
    assert docs.search(vectors[0]).explain is None and found.sequence >= 1


def test_tenants_find_their_own(db: Any, twin: Any) -> None:
    lists = [[f"t{n % 4}", "all"] if n % 4 else [] for n in range(ROWS)]
    docs, here, vectors = both(db, twin, tenants=lists)
    for tenant in ("t1", "all", ["t1", "t2"], {"t3", "t1"}):
        assert_same(docs.search(vectors[:5], 9, tenant=tenant), here.search(vectors[:5], 9, tenant=tenant))
        assert docs.count(tenant=tenant) == here.count(tenant=tenant)
        records = [one.id for batch in docs.iter(tenant=tenant) for one in batch]
        assert records == [one.id for batch in here.iter(tenant=tenant) for one in batch]
    assert [one and one.id for one in docs.get([0, 1, 2], tenant="t1")] == [None, 1, None]
    assert docs.get(1, tenant="t2") is None and docs.get(1, tenant=["t1", "t2"]).tenants == ["all", "t1"]
    assert list(docs.tenants()) == list(here.tenants()) == ["all", "t1", "t2", "t3"]


@pytest.mark.parametrize("window", [1, 3, 64])
def test_a_stream_of_queries_finds_what_calls_find_in_the_same_order(db: Any, twin: Any, window: int) -> None:
    docs, here, vectors = both(db, twin, fields=[{"n": n} for n in range(ROWS)], tenants=["t"])
    queries = [vectors[0], vectors[5:9], vectors[:0], vectors[7].tolist(), *vectors[20:40]]
    options = {"fields": ["n"], "include_vectors": True, "tenant": "t", "params": vecdb.SearchParams(exact=True)}
    found = list(docs.search_stream(iter(queries), 4, window=window, **options))
    assert len(found) == len(queries)
    for hits, query in zip(found, queries, strict=True):
        assert_same(hits, here.search(query, 4, **options))
    assert [hits.ids[0] for hits in docs.search_stream(vectors[:3], 1)] == [0, 1, 2]
    assert list(docs.search_stream([])) == []


def test_a_query_may_depend_on_the_hits_of_the_one_before_it(db: Any) -> None:
    vectors, seen = data("float32"), [0]
    docs = filled(db, vectors=vectors)

    def walk() -> Any:
        for _ in range(4):
            yield vectors[seen[-1]]

    for hits in docs.search_stream(walk(), 2, window=1):
        assert hits.ids[0] == seen[-1]
        seen.append(int(hits.ids[1]))
    assert len(seen) == 5


@pytest.mark.parametrize("bad", [np.ones(DIM + 1), KeyError("mine")], ids=["query", "iterator"])
def test_an_error_comes_once_the_hits_before_it_are_handed_out_and_ends_the_stream(db: Any, bad: Any) -> None:
    docs, asked, got = filled(db), [], []

    def queries() -> Any:
        for at in range(10):
            asked.append(at)
            if at == 3 and isinstance(bad, Exception):
                raise bad
            yield bad if at == 3 else np.ones(DIM)

    with pytest.raises((vecdb.InvalidArgument, KeyError)):
        for hits in docs.search_stream(queries(), 5, window=8):
            got.append(len(hits))
    assert got == [5, 5, 5] and asked == [0, 1, 2, 3]


def test_a_stream_that_is_left_reads_no_more(db: Any) -> None:
    docs, asked = filled(db), []

    def queries() -> Any:
        for at in range(1_000):
            asked.append(at)
            yield np.ones(DIM)

    for at, _ in enumerate(docs.search_stream(queries(), window=5)):
        if at == 10:
            break
    assert 11 <= len(asked) <= 16 and docs.count() == ROWS


def test_flags_may_be_numpys(db: Any) -> None:
    docs, yes, no = filled(db), np.True_, np.False_
    found = docs.search(np.ones(docs.dim), 3, include_vectors=yes, explain=yes)
    assert found[0].vector is not None and found.explain is not None
    assert docs.get(1, include_vectors=no).vector is None and docs.get(1, include_vectors=yes).vector is not None
    assert docs.create_tenant("flagged", exist_ok=yes) == 1 and docs.create_tenant("flagged", exist_ok=yes) == 0


def test_tenants_are_listed_from_a_name_on(db: Any) -> None:
    docs = filled(db)
    names = [f"t{n:04}" for n in range(2_500)]
    docs.create_tenant(names)
    for after, limit in (("t0000", None), ("t0000x", 3), ("t1", 1_000), ("a", 1_001), ("t2499", 5), (None, 2_000)):
        expected = [name for name in names if after is None or name > after][:limit]
        assert list(docs.tenants(after=after, limit=limit)) == expected, (after, limit)


def test_tenants_come_and_go(db: Any) -> None:
    docs = filled(db)
    assert docs.create_tenant([f"t{n:04}" for n in range(2_500)], records_max=5) == 2_500
    assert list(docs.tenants()) == [f"t{n:04}" for n in range(2_500)]
    assert docs.create_tenant("t0001", exist_ok=True) == 0
    assert docs.grant([1, 2], {"t0001", "new"}) == 4 and docs.grant([1, 3], [["t0001"], ["new"]]) == 1
    assert docs.revoke(1, "t0001") == 1 and docs.get(1).tenants == ["new"]
    stats = docs.stats(tenant="t0001")
    assert (stats["records"], stats["records_max"]) == (1, 5)
    assert docs.stats(tenant="new")["records_max"] is None
    docs.drop_tenant("t0001")
    assert docs.get(2).tenants == ["new"] and len(list(docs.tenants())) == 2_500


def test_hits_tell_whose_records_they_are(db: Any, twin: Any) -> None:
    """Two owners have the same ids; only a few records have fields."""
    collections = []
    for one in (db, twin):
        docs = one.create_collection("docs", DIM, "l2")
        vectors = np.repeat(np.arange(40, dtype=np.float32)[:, None], DIM, 1)
        docs.upsert(range(10), vectors[:10])
        assert docs.search(vectors[:2], 3).owners is None and "owner" not in docs.search(vectors[0]).to_list()[0]
        docs.upsert(range(10), vectors[10:20], owner="a"), docs.upsert(range(10), vectors[20:30], owner="ü")
        docs.upsert([3], vectors[30:31], [{"n": 1}], owner="a")
        collections.append(docs)
    docs, here = collections
    whose = {0: "", 1: "a", 2: "ü"}
    for query, options in (
        (vectors[:30], {}), (vectors[:30], {"fields": []}), (vectors[7], {"fields": ["n"]}), (vectors[12], {}),
        (vectors[25], {"fields": [], "include_vectors": True}),
    ):  # fmt: skip
        found = docs.search(query, 1, **options)
        assert_same(found, here.search(query, 1, **options))
    at = [n for n in range(30) if n != 13]
    found = docs.search(vectors[at], 40)
    assert found.ids.shape == found.owners.shape == (29, 40)
    assert [one[0].owner for one in found] == [whose[n // 10] for n in at]
    assert [(one[0].id, one.to_list()[0]["owner"]) for one in found] == [(n % 10, whose[n // 10]) for n in at]
    assert found[0][:5].owners.tolist() == [""] * 5 and found.to_pandas()["owner"].tolist()[:1] == [""]
    assert_same(docs.search_mixture([1, 2], 5, owner="a"), here.search_mixture([1, 2], 5, owner="a"))
    json.dumps([found[0].to_list(), found.ids.tolist(), docs.search(vectors[0], 3).to_list()])


def test_a_tenant_goes_with_its_records(db: Any) -> None:
    docs = filled(db)
    docs.grant([1, 2, 3], "acme"), docs.grant(3, "beta")
    assert docs.drop_tenant("acme", records=True) == 2
    assert docs.get([1, 2, 4])[:2] == [None, None] and docs.get(3).tenants == ["beta"]
    assert docs.count() == ROWS - 2 and list(docs.tenants()) == ["beta"]
    assert docs.drop_tenant("beta") is None and docs.count() == ROWS - 2


def test_a_mixture_of_interests(db: Any, twin: Any) -> None:
    docs, here, _ = both(db, twin, fields=[{"n": n} for n in range(ROWS)], tenants=["t"])
    for options in (
        {}, {"components": 3, "explain": True}, {"histories": [[5, 6], [1, 2, 7]], "smoothing": 0.5, "neighbours": 2},
        {"tenant": "t", "include_vectors": True, "fields": ["n"]},
    ):  # fmt: skip
        found, expected = (one.search_mixture([1, 2, 3, 200, 1], 20, **options) for one in (docs, here))
        assert_same(found, expected)
        if options.get("explain"):
            assert found.explain["quotas"] == expected.explain["quotas"]
    assert_same(docs.search_mixture(histories=[[5, 6], [1]]), here.search_mixture(histories=[[5, 6], [1]]))


def test_hits_become_tables(db: Any, twin: Any) -> None:
    docs, here, vectors = both(db, twin, fields=[{"n": n, "id": "mine"} for n in range(ROWS)])
    for query in (vectors[0], vectors[:3]):
        found, expected = docs.search(query, 4, include_vectors=True), here.search(query, 4, include_vectors=True)
        assert found.to_pandas().equals(expected.to_pandas())
        assert found.to_polars().equals(expected.to_polars()) and found.to_arrow().equals(expected.to_arrow())
        assert found._repr_html_() == expected._repr_html_()
    assert found[1].ids.tolist() == expected[1].ids.tolist() and found[0][0] is not None
