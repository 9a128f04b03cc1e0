"""Goal: calls with a filter are the same whichever way the database is opened: what an embedded twin answers, on disk,
in memory, over gRPC and asynchronously; records of the filters are checked by plain Python.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import vecdb
from tests.support.answers.ways import LONG_WAYS
from tests.support.answers.written import written
from vecdb import F, InvalidArgument, LimitExceeded, VecdbError

DIM, ROWS = 8, 240
RNG = np.random.default_rng(11)
VECTORS = RNG.normal(size=(ROWS, DIM)).astype(np.float32)
DAY, TIME = dt.date(2020, 1, 2), dt.datetime(2020, 1, 2, 3, 4, 5, 6)
AWKWARD: list[Any] = [
    None, True, False, 3, -1, 2.5, 3.0, 2**53 + 1, 2**63 - 1, -(2**63), float("inf"), "", "b", "ünï", b"x", b"", DAY,
    TIME, TIME.replace(tzinfo=dt.UTC), dt.datetime(9999, 12, 31, tzinfo=dt.UTC), [1, "a", 1], ["é"], [], {"x": 1}, {},
]  # fmt: skip
FIELDS: list[dict[str, Any]] = [
    {
        "n": n,
        "lang": ("en", "de", "fr")[n % 3],
        "score": n / 7 if n % 5 else None,
        "tags": ["even" if n % 2 == 0 else "odd", *(["ten"] if n % 10 == 0 else [])],
        "meta": {"day": DAY + dt.timedelta(days=n), "at": TIME.replace(tzinfo=dt.UTC) + dt.timedelta(hours=n)},
        "any": AWKWARD[n % len(AWKWARD)],
    }
    for n in range(ROWS)
]
SPLIT = [["acme"] if n % 2 else ["acme", "beta"] for n in range(ROWS)]
FILTERS: list[tuple[Any, Callable[[dict[str, Any]], bool]]] = [
    (F.lang == "en", lambda one: one["lang"] == "en"),
    ((F.lang != "en") & (F.n >= 100), lambda one: one["lang"] != "en" and one["n"] >= 100),
    (~(F.score > 10), lambda one: not (one["score"] is not None and one["score"] > 10)),
    (F.score == None, lambda one: one["score"] is None),  # noqa: E711
    (F.tags.contains_all(["even", "ten"]), lambda one: {"even", "ten"} <= set(one["tags"])),
    (F["meta.day"] < DAY + dt.timedelta(days=9), lambda one: one["meta"]["day"] < DAY + dt.timedelta(days=9)),
    (F["meta.at"] >= TIME.replace(tzinfo=dt.UTC), lambda one: True),
    (F.lang.prefix("e") | F.lang.like("_r"), lambda one: one["lang"] in ("en", "fr")),
    (F.n.is_in([3, 5.0, 2**70, "x", 1_000_000]), lambda one: one["n"] in (3, 5)),
    (F.any.is_in([2**63 - 1, b"x", "ünï", True, DAY]), lambda one: one["any"] in (2**63 - 1, b"x", "ünï", DAY)
        or one["any"] is True),
    ("lang = 'de' and not n between 20 and 200", lambda one: one["lang"] == "de" and not 20 <= one["n"] <= 200),
    ({"lang": {"$in": ["en", "de"]}, "n": {"$lt": 50}}, lambda one: one["lang"] != "fr" and one["n"] < 50),
    ("true", lambda one: True),
    ("false", lambda one: False),
]  # fmt: skip


def filled(db: Any) -> Any:
    docs = db.create_collection("docs", DIM, "l2")
    docs.upsert(range(ROWS), VECTORS, FIELDS, SPLIT)
    return docs


@pytest.fixture
def docs(db: Any) -> Any:
    return filled(db)


@pytest.fixture
def here(twin: Any) -> Any:
    return filled(twin)


def assert_same(found: vecdb.Hits, expected: vecdb.Hits) -> None:
    for name in ("ids", "distances", "counts", "components", "owners"):
        assert np.array_equal(getattr(found, name), getattr(expected, name)), name
    assert found.fields == expected.fields and written(found.to_list()) == written(expected.to_list())


def outcome(call: Callable[[], Any]) -> Any:
    try:
        return call()
    except VecdbError as error:
        return type(error), str(error)


def plain(record: vecdb.Record) -> tuple[Any, ...]:
    vector = None if record.vector is None else record.vector.tolist()
    return record.id, repr(record.fields), record.tenants, vector, record.owner


def test_every_read_with_a_filter_is_that_of_the_twin_and_right(docs: Any, here: Any) -> None:
    for filter, holds in FILTERS:
        ids = [n for n, one in enumerate(FIELDS) if holds(one)]
        hits = docs.search(VECTORS[:3] + 0.1, 7, filter=filter, fields=["n"])
        assert_same(hits, here.search(VECTORS[:3] + 0.1, 7, filter=filter, fields=["n"]))
        distances = ((VECTORS[:, None] - (VECTORS[:3] + 0.1)) ** 2).sum(2)
        for q in range(3):
            nearest = sorted(ids, key=lambda n, q=q: distances[n, q])[:7]  # type: ignore[misc]
            assert hits[q].ids.tolist() == nearest
        assert docs.count(filter=filter) == len(ids)
        assert docs.count(filter=filter, tenant="beta") == sum(n % 2 == 0 for n in ids)
        found = docs.get(filter=filter, include_vectors=True)
        assert [record.id for record in found] == ids
        assert list(map(plain, found)) == list(map(plain, here.get(filter=filter, include_vectors=True)))
        assert [record.id for record in docs.get(filter=filter, limit=5, tenant="beta")] == [
            n for n in ids if n % 2 == 0
        ][:5]
        asked = [0, 3, 5, 77, 10_000]
        assert [one is not None for one in docs.get(asked, filter=filter)] == [n in ids for n in asked]
        assert [one.id for page in docs.iter(50, filter=filter) for one in page] == ids
        assert (docs.get(3, filter=filter) is not None) == (3 in ids)


def test_searches_of_every_kind_take_filters(docs: Any, here: Any) -> None:
    each = [F.lang == "en", None, "lang = 'de'", {"n": {"$gte": 200}}, F.lang == "en", "false"]
    queries = VECTORS[: len(each)] + 0.1
    hits = docs.search(queries, 4, filter=each, explain=True)
    assert_same(hits, here.search(queries, 4, filter=each))
    assert [len(one) for one in hits] == [4, 4, 4, 4, 4, 0] and len(hits.explain["filters"]) == 5
    params = [None, None, None, None, {"lang": "fr"}, None]
    named = [*each[:4], "lang = $lang", "false"]
    assert_same(
        docs.search(queries, 4, filter=named, filter_params=params),
        here.search(queries, 4, filter=named, filter_params=params),
    )
    for far, near in zip(
        docs.search_stream(list(queries), 4, filter="lang = 'fr'"),
        here.search_stream(list(queries), 4, filter="lang = 'fr'"),
        strict=True,
    ):
        assert_same(far, near)
    mixed = docs.search_mixture([1, 2, 3], 10, filter=F.lang == "de", explain=True)
    assert_same(mixed, here.search_mixture([1, 2, 3], 10, filter=F.lang == "de", explain=True))
    assert all(one["lang"] == "de" for one in mixed.fields) and mixed.explain["matching"] == 80
    single = docs.search(VECTORS[0], 3, filter=F.n < 2, explain=True)
    assert sorted(single.ids.tolist()) == [0, 1] and single.explain["matching"] == 2
    report = docs.evaluate(queries, 5, filter=F.lang == "en", tenant="beta")
    assert report["recall"] == 1.0 and set(report) == set(here.evaluate(queries, 5, filter=F.lang == "en"))
    assert docs.evaluate(queries, 5, filter="false")["recall"] is None
    assert isinstance(docs.tune(queries, filter=F.lang == "en"), list)


@pytest.mark.parametrize("way", LONG_WAYS)
@pytest.mark.parametrize("order_by", [None, "n", "any", "score", "meta.at"])
@pytest.mark.parametrize("batch", [7, 53, 1000])
def test_pages_have_the_records_and_the_cursors_of_the_twin(
    docs: Any, here: Any, order_by: str | None, batch: int
) -> None:
    for descending in (False, True) if order_by else (False,):
        for filter, limit in ((None, None), (F.lang != "en", None), (F.lang == "de", 30)):
            listing: dict[str, Any] = {
                "filter": filter, "limit": limit, "order_by": order_by, "descending": descending, "tenant": "acme",
            }  # fmt: skip
            found, expected = list(docs.iter(batch, **listing)), list(here.iter(batch, **listing))
            assert [list(map(plain, page)) for page in found] == [list(map(plain, page)) for page in expected]
            assert [page.cursor is None for page in found] == [page.cursor is None for page in expected]
            listing["limit"] = None
            for far, near in list(zip(found, expected, strict=True))[:2]:
                if far.cursor is not None:
                    rest = [one.id for page in docs.iter(1000, after=far.cursor, **listing) for one in page]
                    assert rest == [one.id for page in here.iter(1000, after=near.cursor, **listing) for one in page]


def test_facets_values_ends_and_fields_are_those_of_the_twin(docs: Any, here: Any) -> None:
    for options in ({}, {"filter": F.lang == "en"}, {"tenant": "beta"}, {"filter": "false"}, {"filter": F.n < 30}):
        for field in ("n", "lang", "score", "tags", "meta.day", "meta.at", "any", "none", "meta"):
            for call in (
                lambda one, field=field, options=options: repr(one.facets(field, limit=60, **options)),
                lambda one, field=field, options=options: repr(one.distinct(field, **options)),
                lambda one, field=field, options=options: repr(one.min(field, **options)),
                lambda one, field=field, options=options: repr(one.max(field, **options)),
            ):
                assert outcome(lambda call=call: call(docs)) == outcome(lambda call=call: call(here)), (field, options)
    assert docs.facets("lang", F.n < 10) == {"en": 4, "de": 3, "fr": 3}
    assert docs.facets("tags", limit=1) in ({"even": 120}, {"odd": 120})
    assert docs.fields() == here.fields() and docs.fields(tenant="beta") == here.fields(tenant="beta")


def test_writes_by_filter_change_what_matches_and_nothing_else(docs: Any, here: Any) -> None:
    for one in (docs, here):
        assert one.update(filter=F.lang == "en", fields={"seen": True, "score": None}) == 80
        assert one.update(filter="lang = 'de'", fields={"seen": False}, tenant="beta") == 40
        assert one.delete(filter=F.n >= 200) == 40
        assert one.delete(filter="lang = $x", filter_params={"x": "fr"}, tenant="beta") == 33
        assert one.delete(filter="false") == 0
        one.upsert([1, 2, 500], VECTORS[:3], [{"lang": "xx"}] * 3, owner="anna")
        assert one.delete(filter="lang = 'xx'", owner="bert") == 0
        assert one.update(filter="lang = 'xx'", fields={"lang": "yy"}, owner="anna") == 3
        assert [record.owner for record in one.get(filter="lang = 'yy'", owner="anna", limit=2)] == ["anna"] * 2
        assert one.get(filter="lang = 'yy'", owner="bert") == one.get(filter="lang = 'yy'", owner="") == []
        assert one.delete(filter="lang = 'yy' and id_is_not_a_field is null", owner="anna") == 3
    assert [list(map(plain, page)) for page in docs.iter()] == [list(map(plain, page)) for page in here.iter()]


def test_a_write_by_filter_that_is_repeated_is_done_once(docs: Any) -> None:
    assert docs.delete(filter=F.lang == "en", request_id="r1") == 80
    docs.upsert(range(900, 905), VECTORS[:5], [{"lang": "en"}] * 5)
    assert docs.delete(filter=F.lang == "en", request_id="r1") == 80
    assert docs.count(filter=F.lang == "en") == 5
    with pytest.raises(InvalidArgument, match="request_id"):
        docs.delete(filter=F.lang == "de", request_id="r1")
    assert docs.update(filter=F.lang == "en", fields={"a": 1}, request_id="r2") == 5
    docs.update(900, fields={"a": None})
    assert docs.update(filter=F.lang == "en", fields={"a": 1}, request_id="r2") == 5
    assert docs.count(filter=F.a == 1) == 4


REFUSED: list[Callable[[Any], Any]] = [
    lambda docs: docs.search(VECTORS[0], filter="lang = "),
    lambda docs: docs.search(VECTORS[0], filter="lang > 3"),
    lambda docs: docs.search(VECTORS[:2], filter=[F.n == 1, F.lang < 3]),
    lambda docs: docs.count(filter=F.n > "x"),
    lambda docs: docs.delete(filter={}),
    lambda docs: docs.delete([1], filter="true"),
    lambda docs: docs.delete(filter={"lang": {"$nin": []}}),
    lambda docs: docs.delete(filter=~F.lang.is_in([])),
    lambda docs: docs.delete(filter=(F.n == 1) | ~F.lang.is_in([])),
    lambda docs: docs.delete(filter="lang not in $some", filter_params={"some": []}),
    lambda docs: docs.update(filter={"lang": {"$nin": []}}, fields={"a": 1}),
    lambda docs: docs.update(filter="true"),
    lambda docs: docs.update(filter="true", fields=[{"a": 1}]),
    lambda docs: docs.update(filter="true", vectors=VECTORS, fields={"a": 1}),
    lambda docs: docs.get(),
    lambda docs: docs.get(filter="true", limit=0),
    lambda docs: docs.get([1], limit=3),
    lambda docs: docs.count(filter="true", tenant="nobody"),
    lambda docs: docs.facets("n", limit=0),
    lambda docs: docs.facets("n", filter=F.lang > 1),
    lambda docs: docs.max("any", tenant="nobody"),
    lambda docs: list(docs.iter(after="x")),
    lambda docs: list(docs.iter(after=next(iter(docs.iter(5))).cursor, order_by="n")),
    lambda docs: list(docs.iter(descending=True)),
]


@pytest.mark.parametrize("way", LONG_WAYS)
@pytest.mark.parametrize("number", range(len(REFUSED)))
def test_what_is_refused_is_refused_in_the_same_words(docs: Any, here: Any, number: int) -> None:
    found = outcome(lambda: REFUSED[number](docs))
    assert found == outcome(lambda: REFUSED[number](here)) and issubclass(found[0], VecdbError), found
    assert docs.count() == ROWS


def test_a_long_list_goes_to_a_server(docs: Any) -> None:
    some = [f"x{n:06}" for n in range(30_000)]
    assert docs.search(VECTORS[0], 3, filter=F.lang.is_in([*some, "en"])).fields[0]["lang"] == "en"
    assert docs.count(filter=F.n.is_in(range(100, 200_000))) == ROWS - 100
    with pytest.raises(LimitExceeded):
        docs.count(filter=F.n.is_in(range(1_000_001)))


def test_more_records_than_one_list_holds_are_refused(docs: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vecdb.limits.get_records_max", 100)
    with pytest.raises(LimitExceeded, match="at most 100 records"):
        docs.get(filter="true")
    assert len(docs.get(filter="true", limit=100)) == 100
    assert len(docs.get(filter=F.n < 100)) == 100


def test_values_of_different_types_are_different_values(docs: Any) -> None:
    docs.clear()
    values = [True, 1, 1.0, True, "1", 0, False, 0.0, -(2**63), -(2.0**63), 2**63 - 1, [1, True, 1.0, 1]]
    docs.upsert(range(len(values)), VECTORS[: len(values)], [{"v": value} for value in values])
    found = docs.facets("v")
    typed = {(type(value), value): count for value, count in found.items()}
    assert typed == {
        (bool, True): 3, (int, 1): 2, (float, 1.0): 2, (str, "1"): 1, (int, 0): 1, (bool, False): 1, (float, 0.0): 1,
        (int, -(2**63)): 1, (float, -(2.0**63)): 1, (int, 2**63 - 1): 1,
    }  # fmt: skip
    assert (found[True], found[1], found[1.0], len(found)) == (3, 2, 2, 10) and 3 not in found
    assert found != {True: 3} and next(iter(found)) is True and repr(found).startswith("{True: 3, 1: 2, 1.0: 2")
    distinct = docs.distinct("v")
    assert sorted((type(one).__name__, one) for one in distinct) == sorted(
        (one.__name__, value) for one, value in typed
    )
    assert docs.facets("v", limit=1) == {True: 3}
    numbers = F.v < 5
    lowest = docs.min("v", numbers)
    assert lowest == -(2**63) and docs.max("v", F.v > 5) == 2**63 - 1
    docs.delete(9)
    assert docs.min("v", numbers) == -(2**63) and type(docs.min("v", numbers)) is int
    assert docs.get(8).fields == {"v": -(2**63)} and docs.count(filter=F.v == -(2**63)) == 1
