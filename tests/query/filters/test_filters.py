"""Goal: a filter may be written in any form, for every call that takes one; a write with one changes what matches at
its commit, all of it or nothing; what is wrong is refused with a word on what is right.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vecdb
from vecdb import F, limits
from vecdb.api.database import Database
from vecdb.embedded.open import open_database
from vecdb.errors import InvalidArgument, LimitExceeded, NotFound, Unavailable
from vecdb.query import filtering

VECTORS = np.random.default_rng(3).normal(size=(120, 4)).astype(np.float32)
FIELDS = [{"n": number, "lang": ("en", "fr", "de")[number % 3], "tags": ["x"] * (number % 2)} for number in range(120)]
FORMS: list[Any] = [
    (F.lang == "en") & (F.n >= 60), "lang = 'en' and n >= 60", {"lang": "en", "n": {"$gte": 60}},
    {"operator": "AND", "conditions": [
        {"field": "lang", "operator": "==", "value": "en"}, {"field": "n", "operator": ">=", "value": 60}]},
]  # fmt: skip
MATCHING = list(range(60, 120, 3))


@pytest.fixture
def docs(db: Database) -> vecdb.Collection:
    made = db.create_collection("docs", 4, "l2")
    made.upsert(range(120), VECTORS, FIELDS, tenants=[["t"] if number % 2 else [] for number in range(120)])
    return made


def ids_of(records: Any) -> list[Any]:
    return [one.id for one in records]


@pytest.mark.parametrize("form", FORMS, ids=["F", "string", "dict", "conditions"])
def test_every_call_takes_every_form(docs: vecdb.Collection, form: Any) -> None:
    query = VECTORS[:1][0]
    hits = docs.search(query, 5, filter=form, explain=True)
    best = sorted(MATCHING, key=lambda number: float(((VECTORS[number] - query) ** 2).sum()))
    assert hits.ids.tolist() == best[:5]
    assert (hits.explain["matching"], hits.explain["records_read"], hits.explain["unmet_columns"]) == (20, 0, [])
    assert hits.explain["filter"] == "lang = 'en' and n >= 60" and {"plan", "reason"} <= hits.explain.keys()
    assert [one.ids.tolist() for one in docs.search_stream(VECTORS[:2], 5, filter=form)] == [
        docs.search(one, 5, filter=form).ids.tolist() for one in VECTORS[:2]
    ]
    liked = docs.search_mixture([0, 1, 60], 10, filter=form, explain=True)
    assert len(liked) == 10 and set(liked.ids.tolist()) <= set(MATCHING) - {60} and liked.explain["matching"] == 20
    assert docs.count(filter=form) == 20 and docs.count(filter=form, tenant="t") == 10
    assert ids_of(docs.get(filter=form)) == MATCHING
    assert [one and one.id for one in docs.get([0, 60, 61], filter=form)] == [None, 60, None]
    assert docs.get(0, filter=form) is None and docs.get(60, filter=form).id == 60
    assert ids_of(record for page in docs.iter(7, filter=form) for record in page) == MATCHING
    assert docs.evaluate(VECTORS[:5], filter=form)["recall"] == 1.0
    assert docs.facets("lang", form) == {"en": 20} and docs.distinct("tags", form) == ["x"]
    assert (docs.min("n", form), docs.max("n", form)) == (60, 117)
    assert docs.update(filter=form, fields={"seen": True}) == 20 and docs.count(filter=F.seen == True) == 20  # noqa: E712
    assert docs.delete(filter=form, tenant="t") == 10 and docs.count(filter=form) == 10
    assert docs.delete(filter=form) == 10 and docs.count() == 100


def test_parameters_are_values_and_nothing_else(docs: vecdb.Collection) -> None:
    hostile = "' or true or lang = '"
    assert docs.count(filter="lang = $l", filter_params={"l": hostile}) == 0
    assert docs.count(filter="lang in $l and n < $n", filter_params={"l": ["en", hostile], "n": 9}) == 3
    hits = docs.search(
        VECTORS[:3], 200, filter=["lang = $l"] * 3, filter_params=[{"l": one} for one in ("en", "fr", hostile)]
    )
    assert hits.counts.tolist() == [40, 40, 0] and (hits.ids[2] == -1).all() and np.isinf(hits.distances[2]).all()
    with pytest.raises(InvalidArgument, match=r"\$l"):
        docs.count(filter="lang = $l")


def test_a_batch_may_have_a_filter_for_each_query(docs: vecdb.Collection) -> None:
    filters = [F.lang == "en", None, {"lang": "fr"}, "lang = 'en'", F.n < 0]
    hits = docs.search(VECTORS[:5], 50, filter=filters, explain=True)
    assert hits.counts.tolist() == [40, 50, 40, 40, 0]
    for at, one in enumerate(filters):
        alone = docs.search(VECTORS[at], 50, filter=one)
        assert hits[at].ids.tolist() == alone.ids.tolist() and hits[at].fields == alone.fields
        assert hits[at].distances.tolist() == alone.distances.tolist()
    assert [(one["queries"], one.get("matching")) for one in hits.explain["filters"]] == [
        (2, 40), (1, None), (1, 40), (1, 0),
    ]  # fmt: skip
    by_tenant = docs.search(VECTORS[:3], 100, filter=filters[:3], tenant="t", include_vectors=True)
    assert by_tenant.counts.tolist() == [20, 60, 20] and by_tenant.vectors.shape == (3, 100, 4)
    assert docs.search(VECTORS[:0], 3, filter=[]).ids.shape == docs.search(VECTORS[:0], 3).ids.shape
    same = docs.search(VECTORS[:2], 3, filter=[F.n < 9, F.n < 9], explain=True)
    assert "filters" not in same.explain and same.explain["matching"] == 9


def test_a_field_without_a_column_is_asked_of_the_records(
    docs: vecdb.Collection, monkeypatch: pytest.MonkeyPatch, db: Database
) -> None:
    monkeypatch.setattr(limits, "columns_max", 1)
    other = db.create_collection("other", 4, "l2")
    other.upsert(range(120), VECTORS, FIELDS)
    hits = other.search(VECTORS[0], 5, filter=FORMS[0], explain=True)
    assert hits.ids.tolist() == docs.search(VECTORS[0], 5, filter=FORMS[0]).ids.tolist()
    assert hits.explain["unmet_columns"] and hits.explain["records_read"] >= 40
    assert other.facets("lang") == docs.facets("lang") and other.fields() == docs.fields()


def test_facts_are_of_live_records(docs: vecdb.Collection) -> None:
    assert docs.fields() == {
        "lang": {"types": ["str"], "count": 120}, "n": {"types": ["int"], "count": 120},
        "tags": {"types": ["list"], "count": 120},
    }  # fmt: skip
    docs.delete(filter=F.lang == "de")
    docs.upsert(0, VECTORS[0], {"lang": 5, "m": {"x": None, "y": 1.5}}, tenants="u")
    assert docs.facets("lang") == {"fr": 40, "en": 39, 5: 1}
    assert list(docs.facets("lang", limit=2)) == ["fr", "en"] and docs.facets("lang", tenant="u") == {5: 1}
    assert docs.facets("tags") == {"x": 40} and docs.facets("none") == {} and docs.distinct("m.y") == [1.5]
    assert docs.fields()["lang"] == {"types": ["int", "str"], "count": 80}
    assert docs.fields(tenant="u") == {
        "lang": {"types": ["int"], "count": 1}, "m": {"types": ["map"], "count": 1},
        "m.y": {"types": ["float"], "count": 1},
    }  # fmt: skip
    docs.upsert(200, VECTORS[0], {"tags": ["x", "y", "y", 1, None, ["x"], {"x": 1}]})
    assert docs.facets("tags") == {"x": 41, 1: 1, "y": 1} and docs.count(filter=F.tags.contains("y")) == 1
    docs.delete(200)
    assert docs.min("n") == 1 and docs.max("n", "lang = 'fr'") == 118 and docs.min("none") is None
    assert docs.min("tags") is None, "lists have no order"
    with pytest.raises(InvalidArgument, match="'lang' holds int and str"):
        docs.max("lang")
    assert docs.max("lang", F.lang > 0) == 5
    assert docs.facets("n", limit=3) == {1: 1, 3: 1, 4: 1}, "ties by value"
    docs.update([1, 3], fields=[{"lang": None}] * 2)
    assert docs.facets("lang") == {"fr": 39, "en": 38, 5: 1}


# -- writes by filter ------------------------------------------------------------------------------


@pytest.fixture
def racing(docs: vecdb.Collection, monkeypatch: pytest.MonkeyPatch) -> list[Callable[[], Any]]:
    """What is called, once each, after a filter was looked at first and before the commit."""
    waiting: list[Callable[[], Any]] = []
    searcher: Any = docs._backend.searcher  # type: ignore[attr-defined]
    plain = searcher.rows_for

    def then(*args: Any) -> Any:
        found = plain(*args)
        if waiting:
            waiting.pop()()
        return found

    monkeypatch.setattr(searcher, "rows_for", then)
    return waiting


def test_what_matches_at_the_commit_is_deleted(docs: vecdb.Collection, racing: list[Callable[[], Any]]) -> None:
    racing.append(lambda: docs.upsert([500, 3], VECTORS[:2], [{"lang": "en"}, {"lang": "none"}]))
    assert docs.delete(filter="lang = 'en'") == 40  # 500 came, 3 went
    assert docs.get(500) is None and docs.get(3).fields == {"lang": "none"}
    racing.append(docs.vacuum)
    assert docs.delete(filter="lang = 'fr'") == 40 and docs.count() == 41


def test_what_matches_at_the_commit_is_updated(docs: vecdb.Collection, racing: list[Callable[[], Any]]) -> None:
    racing.append(lambda: docs.delete([0, 3]))
    assert docs.update(filter="lang = 'en'", fields={"lang": "no", "tags": None}) == 38
    assert docs.get([0, 3]) == [None, None] and docs.get(6).fields == {"n": 6, "lang": "no"}
    assert np.array_equal(docs.get(6, include_vectors=True).vector, VECTORS[6]) and docs.get(9).tenants == ["t"]


def test_an_update_of_records_of_two_owners_is_one(docs: vecdb.Collection) -> None:
    docs.upsert(7, VECTORS[7], {"lang": "en", "large": "x" * 900_000}, owner="ann")
    with pytest.raises(LimitExceeded, match="fields would pass"):
        docs.update(filter="lang = 'en'", fields={"more": "y" * 200_000})
    assert docs.count(filter="more is not null") == 0
    assert docs.update(filter="lang = 'en'", fields={"more": 1}) == 41
    assert docs.update(filter="lang = 'en'", fields={"more": 2}, owner="ann") == 1
    assert docs.update(filter="lang = 'en'", fields={"more": 3}, owner="") == 40
    assert docs.facets("more") == {3: 40, 2: 1}
    assert docs.delete(filter="more is not null", owner="ann") == 1 and docs.count() == 120


def test_a_write_by_filter_may_be_repeated(docs: vecdb.Collection) -> None:
    assert docs.delete(filter="n < 10", request_id="one") == 10
    docs.upsert(1, VECTORS[1], {"n": 1})
    assert docs.delete(filter="n < 10", request_id="one") == 10 and docs.get(1) is not None
    with pytest.raises(InvalidArgument, match="another kind"):
        docs.update(filter="n < 10", fields={"a": 1}, request_id="one")
    assert docs.delete(filter="n > 1000") == 0 and docs.update(filter="n > 1000", fields={"a": 1}) == 0


def test_a_reader_sees_what_was_written_and_writes_nothing(tmp_path: Path) -> None:
    with open_database(tmp_path / "db", durability="relaxed", maintenance=False) as db:
        docs = db.create_collection("docs", 4, "l2")
        docs.upsert(range(120), VECTORS, FIELDS)
        with open_database(tmp_path / "db", read_only=True) as reading:
            there = reading["docs"]
            assert there.count(filter="n < 10") == 10
            docs.delete(filter="n < 5")
            docs.upsert(7, VECTORS[7], {"n": 700})
            assert there.count(filter="n < 10") == 4 and there.facets("lang") == docs.facets("lang")
            for call in (lambda: there.delete(filter="true"), lambda: there.update(filter="true", fields={"a": 1})):
                with pytest.raises(Unavailable, match="reading only"):
                    call()


def test_a_vacuum_leaves_no_sealed_columns_of_the_generation_before(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with open_database(tmp_path / "db", durability="relaxed", maintenance=False) as db:
        docs = db.create_collection("docs", 4, "l2", vecdb.Hnsw())
        docs.upsert(range(120), VECTORS, FIELDS)
        docs.count(filter="n > 1")
        docs._backend.jobs.columns.seal()  # type: ignore[attr-defined]
        assert docs._backend.state.snapshot.state.columns is not None  # type: ignore[attr-defined]
        docs.delete(filter="n > 60")
        db.vacuum()
    with open_database(tmp_path / "db", durability="relaxed", maintenance=False) as db:
        assert db["docs"].count(filter="lang = 'en'") == 21
    assert "damaged" not in caplog.text


# -- what is refused -------------------------------------------------------------------------------

REFUSED: dict[str, Callable[[Any], Any]] = {
    "a number": lambda docs: docs.search(VECTORS[0], filter=3),
    "a bare field": lambda docs: docs.count(filter=F.n),
    "a string that ends": lambda docs: docs.count(filter="n >"),
    "parameters of no string": lambda docs: docs.count(filter=F.n > 1, filter_params={"n": 1}),
    "parameters alone": lambda docs: docs.search(VECTORS[0], filter_params={"n": 1}),
    "parameters that are none": lambda docs: docs.count(filter="n > 1", filter_params=[1]),
    "an order of other types": lambda docs: docs.search(VECTORS[0], filter=F.lang > 3),
    "the same of one query of many": lambda docs: docs.search(VECTORS[:2], filter=[None, F.lang > 3]),
    "too few filters": lambda docs: docs.search(VECTORS[:3], filter=[None, None]),
    "a list for one query": lambda docs: docs.search(VECTORS[0], filter=[F.n > 1]),
    "one dict for many filters": lambda docs: docs.search(VECTORS[:1], filter=["n > $n"], filter_params={"n": 1}),
    "too few parameters": lambda docs: docs.search(VECTORS[:1], filter=["n > $n"], filter_params=[]),
    "a list for a stream": lambda docs: docs.search_stream(VECTORS[:2], filter=[F.n > 1, F.n > 2]),
    "a list for a count": lambda docs: docs.count(filter=[F.n > 1]),
    "a delete of nothing": lambda docs: docs.delete(),
    "a delete of all by an empty dict": lambda docs: docs.delete(filter={}),
    "a delete of all by an empty list": lambda docs: docs.delete(filter={"$and": []}),
    "a delete of all by empty dicts": lambda docs: docs.delete(filter={"$and": [{}, {"$and": [{}]}]}),
    "a delete of all by none of nothing": lambda docs: docs.delete(filter={"$nor": []}),
    "a delete of all by no conditions": lambda docs: docs.delete(filter={"operator": "AND", "conditions": []}),
    "an update of all by an empty list": lambda docs: docs.update(filter={"$and": []}, fields={"a": 1}),
    "a delete of ids and a filter": lambda docs: docs.delete(1, filter="true"),
    "a delete of ids of a tenant": lambda docs: docs.delete(1, tenant="t"),
    "an update of nothing": lambda docs: docs.update(fields={"a": 1}),
    "an update without fields": lambda docs: docs.update(filter="true"),
    "an update of vectors": lambda docs: docs.update(filter="true", vectors=VECTORS, fields={"a": 1}),
    "an update of many": lambda docs: docs.update(filter="true", fields=[{"a": 1}]),
    "depth": lambda docs: docs.count(filter="(" * 10_000 + "n > 1" + ")" * 10_000),
    "not of not": lambda docs: docs.count(filter="not " * 10_000 + "n"),
    "values": lambda docs: docs.count(filter=F.n.is_in(range(limits.filter_values_max + 1))),
    "half a character": lambda docs: docs.count(filter={"\ud800": 1}),
    "a dict in a circle": lambda docs: docs.count(filter=circle()),
    "a number of any size": lambda docs: docs.count(filter="n > " + "9" * 100_000),
    "a tenant": lambda docs: docs.delete(filter="true", tenant=""),
    "an owner": lambda docs: docs.delete(filter="true", owner="x" * 129),
}


def circle() -> dict[str, Any]:
    one: dict[str, Any] = {}
    one["$and"] = [one, {"n": 1}]
    return one


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_wrong_is_refused_and_changes_nothing(docs: vecdb.Collection, name: str) -> None:
    before = docs.stats()["sequence"]
    with pytest.raises(InvalidArgument) as refused:
        REFUSED[name](docs)
    assert len(str(refused.value)) < 1_000
    assert docs.stats()["sequence"] == before and docs.count() == 120


def test_a_tenant_that_is_not_there_is_not_found(docs: vecdb.Collection) -> None:
    calls: list[Callable[[], Any]] = [
        lambda: docs.delete(filter="true", tenant="nobody"), lambda: docs.count(filter="true", tenant="nobody"),
        lambda: docs.facets("n", tenant="nobody"), lambda: docs.fields(tenant="nobody"),
        lambda: docs.get(filter="true", tenant="nobody"), lambda: list(docs.iter(order_by="n", tenant="nobody")),
    ]  # fmt: skip
    for call in calls:
        with pytest.raises(NotFound, match="nobody"):
            call()


@pytest.mark.parametrize(
    ("keyword", "ours"),
    [
        ("k", "limit"), ("top_k", "limit"), ("n_results", "limit"), ("where", "filter"), ("query_filter", "filter"),
        ("ef", "SearchParams"), ("namespace", "tenant"), ("with_vectors", "include_vectors"), ("fitler", "filter"),
        ("anything", "include_vectors"),
    ],
)  # fmt: skip
def test_names_of_other_libraries_are_told_ours(docs: vecdb.Collection, keyword: str, ours: str) -> None:
    wrong: Any = {keyword: 1}
    for call in (docs.search, docs.search_stream):
        with pytest.raises(TypeError, match=rf"unexpected keyword argument '{keyword}'.*{ours}"):
            call(VECTORS[0], **wrong)
    with pytest.raises(TypeError, match=f"search_mixture.*'{keyword}'"):
        docs.search_mixture([1], **wrong)


def test_filters_are_awaited_too() -> None:
    async def ask() -> None:
        async with vecdb.aio.open(":memory:") as db:
            docs = await db.create_collection("docs", 4, "l2")
            await docs.upsert(range(120), VECTORS, FIELDS)
            hits = await docs.search(VECTORS[0], 200, filter=FORMS[0])
            assert sorted(hits.ids.tolist()) == MATCHING
            pages = [page async for page in docs.iter(15, filter=FORMS[1], order_by="n", descending=True)]
            assert [one.id for page in pages for one in page] == MATCHING[::-1] and pages[0].cursor
            assert await docs.facets("lang", "n < 9") == {"de": 3, "en": 3, "fr": 3}
            assert (await docs.min("n"), await docs.max("n"), await docs.distinct("tags")) == (0, 119, ["x"])
            assert (await docs.fields())["n"]["count"] == 120 and await docs.count(filter="n < 9") == 9
            assert await docs.update(filter="n < 9", fields={"n": -1}) == 9 and await docs.delete(filter="n < 0") == 9
            with pytest.raises(TypeError, match="vecdb calls it limit"):
                await docs.search(VECTORS[0], k=3)  # type: ignore[arg-type]

    asyncio.run(ask())


def test_lists_and_facts_end_while_others_write(db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    docs = db.create_collection("docs", 2, "l2")
    docs.upsert(range(20), np.ones((20, 2)), fields=[{"x": row} for row in range(20)])
    evaluated = []

    def slow(snapshot: Any, tenants: tuple[str, ...], node: Any) -> Any:
        """A commit comes while the filter is worked out, each time."""
        evaluated.append(snapshot)
        assert len(evaluated) < 50, "it begins again with each commit"
        docs.upsert([100 + len(evaluated)], [[1, 1]], fields=[{"x": 3}])
        return rows_at(snapshot, tenants, node)

    rows_at = filtering.rows_at
    monkeypatch.setattr(filtering, "rows_at", slow)
    assert docs.get(filter="x = 3")[0].id == 3
    assert sum(docs.facets("x", filter="x < 5").values()) >= 5
    assert docs.max("x", filter="x < 5") == 4
    assert [one.fields["x"] for page in docs.iter(filter="x > 15", order_by="x") for one in page] == [16, 17, 18, 19]
