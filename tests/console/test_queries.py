"""What the pages show is what the collection says: pages, searches, tenants, within what a view may show."""

from __future__ import annotations

import datetime as dt
from typing import Any

import numpy as np
import pytest

import vecdb
from vecdb.errors import InvalidArgument, NotFound, PermissionDenied
from vecdb.integrations.console import figures, queries
from vecdb.integrations.console.queries import RecordsAsked, SearchAsked
from vecdb.integrations.console.view import View


def test_pages_of_records_are_all_of_them_in_order_and_each_once(db: vecdb.Database, notes: vecdb.Collection) -> None:
    view = View.of(db)
    for asked in (RecordsAsked(), RecordsAsked(sort="year", descending=True), RecordsAsked("lang = 'de'", "title")):
        seen: list[Any] = []
        after = ""
        for _ in range(9):
            page = queries.records(view, notes, RecordsAsked(asked.filter, asked.sort, asked.descending, after))
            seen += page.records
            after = page.next or ""
            if not after:
                break
        wanted = [r for r in notes.iter(1000, filter=asked.filter or None) for r in r]
        assert page.matching == len(wanted) and sorted(one.id for one in seen) == [one.id for one in wanted]
        if asked.sort:
            keys = [one.fields[asked.sort] for one in seen]
            assert keys == sorted(keys, reverse=asked.descending)


def test_columns_are_the_fields_of_the_page_and_numbers_where_all_are(db: vecdb.Database) -> None:
    rows = [{"a": 1, "b": "x"}, {"a": 2.5, "c": None}, {"b": 3, "d": True}]
    assert queries.field_columns(rows) == [("a", True), ("b", False), ("c", True), ("d", False)]


def test_a_condition_that_is_put_together_is_a_filter(notes: vecdb.Collection) -> None:
    for filter, condition, wanted in (
        ("", ("lang", "=", "en"), "lang = 'en'"),
        ("year > 1", ("lang", "!=", "it's"), "year > 1 and lang != 'it''s'"),
        ("a = 1 or b = 2", ("year", ">=", "2020"), "(a = 1 or b = 2) and year >= 2020"),
        ("", ("odd name", "=", "true"), '"odd name" = true'),
        ("", ("year", "is null", ""), "year is null"),
        ("", ("title", "prefix", "12"), "title prefix '12'"),
        ("", ("n", "<", "-1.5e3"), "n < -1.5e3"),
    ):
        made = queries.with_condition(filter, *condition)
        assert made == wanted
        notes.count(filter=made)
    with pytest.raises(InvalidArgument, match="a condition is one of"):
        queries.with_condition("", "a", "; drop", "b")


def test_a_search_near_a_record_is_that_of_its_vector_without_it(db: vecdb.Database, notes: vecdb.Collection) -> None:
    found = queries.search(View.of(db), notes, SearchAsked("id", "50", limit="5"))
    vector = notes.get(50, include_vectors=True).vector
    assert [hit.id for hit in found.hits] == [hit.id for hit in notes.search(vector, 6) if hit.id != 50]
    assert found.near is not None and found.near.id == 50 and found.columns[0] == ("lang", False)
    by_vector = queries.search(View.of(db), notes, SearchAsked("vector", "[50, 1.0 0,1]", limit="1"))
    assert [hit.id for hit in by_vector.hits] == [50] and by_vector.hits[0].distance == 0
    said = dict(found.plan)
    assert said["strategy"].startswith("exact scan") and found.reason and "together" in said


def test_filter_effort_and_tenant_go_with_a_search(db: vecdb.Database, notes: vecdb.Collection) -> None:
    view = View.of(db)
    found = queries.search(view, notes, SearchAsked("id", "50", "", "3", "lang = 'en'", "b", "exact"))
    among = [one.id for one in notes.get(filter="lang = 'en'", limit=200, tenant="b")]
    assert {hit.id for hit in found.hits} <= set(among) and len(found.hits) == 3


def test_what_cannot_be_asked_is_said(db: vecdb.Database, notes: vecdb.Collection) -> None:
    for asked, words in (
        (SearchAsked("vector", "1, x"), "a vector is numbers"),
        (SearchAsked("vector", "[]"), "a vector is numbers"),
        (SearchAsked("vector", "1,inf,0,0"), "finite"),
        (SearchAsked("vector", "1,2"), "dim"),
        (SearchAsked("id", "1", limit="0"), "limit is a whole number"),
        (SearchAsked("id", "1", limit="9999"), "limit is a whole number"),
        (SearchAsked("id", "1", effort="ef x"), "effort is"),
        (SearchAsked("id", "1", effort="hard"), "effort is"),
        (SearchAsked("id", "1", filter="year >"), "the filter is wrong"),
        (SearchAsked("text", "hello"), "--embed"),
        (SearchAsked("sql", "hello"), "search by"),
    ):
        with pytest.raises(InvalidArgument, match=words):
            queries.search(View.of(db), notes, asked)


def test_a_record_that_is_not_there_is_not_found(db: vecdb.Database, notes: vecdb.Collection) -> None:
    for id in ("999", "x", "", str(2**70)):
        with pytest.raises(NotFound, match="no record"):
            queries.record(View.of(db), notes, id)
    words = db.create_collection("words", 2)
    words.upsert(["7", "a, b"], [[1, 0], [0, 1]])
    assert [queries.record(View.of(db), words, id).id for id in ("7", "a, b")] == ["7", "a, b"]


def test_a_text_is_read_by_the_model_that_the_collection_notes(db: vecdb.Database) -> None:
    model = vecdb.Embedder(lambda texts: [[len(text), 1.0] for text in texts], name="lengths", dim=2)
    docs = db.create_collection("texts", metric="l2", embed=model)
    docs.upsert([1, 2], texts=["four", "sixsix"])
    view = View.of(db, embed=model)
    found = queries.search(view, view.collection("texts"), SearchAsked("text", "abcdef", limit="1"))
    assert [hit.id for hit in found.hits] == [2]
    assert view.collection("texts").embedder is not None
    db.create_collection("others", 4)
    assert view.collection("others").embedder is None


# -- tenants -----------------------------------------------------------------------------------------


def test_tenants_come_by_name_a_page_at_a_time(db: vecdb.Database, notes: vecdb.Collection) -> None:
    for number in range(7):
        notes.create_tenant(f"t{number}", records_max=number + 1)
    view = View.of(db)
    first, more = queries.tenants(view, notes, "", 4)
    rest, end = queries.tenants(view, notes, more, 40)
    assert [one.name for one in first + rest] == ["a", "b", *(f"t{number}" for number in range(7))] and not end
    assert first[0].records == notes.count(tenant="a") and rest[-1].stats["records_max"] == 7


def test_a_tenant_sees_its_own_and_nothing_that_tells_of_others(db: vecdb.Database, notes: vecdb.Collection) -> None:
    view = View.of(db, tenant="a")
    notes.upsert([1000], [[1, 1, 1, 1]], [{"lang": "xx"}], tenants={"a"}, owner="b")
    own = {one.id for one in notes.get(limit=500, tenant="a")}
    page = queries.records(view, notes, RecordsAsked(), 1000)
    assert {one.id for one in page.records} == own and page.matching == len(own)
    assert all(one.tenants == [] for one in page.records)
    shared = next(one for one in page.records if one.id == 1000)  # whose page its link leads to
    assert queries.record(view, notes, "1000", shared.owner).fields == {"lang": "xx"} and shared.owner == "b"
    near = queries.search(view, notes, SearchAsked("id", "1000", shared.owner, limit="200"))
    assert {hit.id for hit in near.hits} == own - {1000}
    with pytest.raises(NotFound, match="no record"):
        queries.record(view, notes, "4", "b")
    found = queries.search(view, notes, SearchAsked("id", "5", limit="200"))
    assert {hit.id for hit in found.hits} == own - {5} and found.reason == "" and found.sequence == 0
    assert not {"rows in the index", "rows not in it yet", "index"} & {name for name, _ in found.plan}
    facts = queries.facts_of(view, notes)
    assert (facts.records, facts.stats) == (len(own), {})
    assert queries.database_stats(view) == {}
    assert [one.name for one in queries.tenants(view, notes)[0]] == ["a"]
    assert "reason" not in queries.tenant_facts(view, notes, "a").stats


def test_another_tenant_is_answered_as_one_that_is_not_there(db: vecdb.Database, notes: vecdb.Collection) -> None:
    view = View.of(db, tenant="a")
    db.create_collection("hidden", 2).upsert(1, [1, 0], tenants={"b"})
    said = []
    for name in ("b", "nobody"):
        for ask in (
            lambda name=name: queries.records(view, notes, RecordsAsked(tenant=name)),
            lambda name=name: queries.search(view, notes, SearchAsked("id", "5", tenant=name)),
            lambda name=name: queries.tenant_facts(view, notes, name),
        ):
            with pytest.raises(NotFound) as error:
                ask()
            said.append(str(error.value).replace(repr(name), "NAME"))
    assert len(set(said)) == 1
    with pytest.raises(NotFound, match="no record"):
        queries.record(view, notes, "4")
    assert view.collections() == ["notes"]
    for name in ("hidden", "nobody"):
        with pytest.raises(NotFound, match=f"no collection '{name}'"):
            view.collection(name)


def test_a_view_only_writes_where_it_may(db: vecdb.Database) -> None:
    with pytest.raises(PermissionDenied, match="--write"):
        View.of(db).require_write()
    View.of(db, write=True).require_write()
    with pytest.raises(InvalidArgument, match="only reads"):
        View.of(db, write=True, tenant="a")


# -- figures -----------------------------------------------------------------------------------------


def test_figures_as_text() -> None:
    assert [figures.size(n) for n in (0, 1023, 1536, 5 << 20, 3 << 30)] == [
        "0 B", "1,023 B", "1.5 KiB", "5.0 MiB", "3.00 GiB",
    ]  # fmt: skip
    assert [figures.count(n) for n in (1234567, None, True)] == ["1,234,567", "–", "–"]
    assert [figures.decimal(n) for n in (0.0, 0.171, 1 / 3, float("nan"))] == ["0", "0.17100", "0.33333", "nan"]
    assert [figures.milliseconds(n) for n in (0.0123, 1.5, 250.4, None)] == ["0.012 ms", "1.50 ms", "250 ms", "–"]
    assert figures.moment("2026-01-31T12:00:00+00:00") == "2026-01-31 12:00 UTC" and figures.moment("soon") == "soon"
    values = [None, True, 1, 1.5, "x", b"ab", [1, None], {"a": dt.date(2020, 1, 2)}, dt.date(2020, 1, 2)]
    shown = ["null", "true", "1", "1.5", "x", "2 bytes", "[1, null]", '{"a": "2020-01-02"}', "2020-01-02"]
    assert list(map(figures.text_of, values)) == shown
    assert len(figures.short("x" * 500)) == 120 and figures.short("x" * 500).endswith("…")


def test_bars_of_a_vector() -> None:
    assert queries.bars(np.array([1, -2, 0.5])) == [0.5, -1.0, 0.25]
    assert queries.bars(np.zeros(3)) == [0, 0, 0]
    many = np.zeros(1000, np.float32)
    many[17] = -4
    assert len(queries.bars(many)) <= 256 and min(queries.bars(many)) == -1.0
