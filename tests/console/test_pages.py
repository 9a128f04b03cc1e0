"""Each page and each action, asked as a browser asks; and values of records that would be HTML if they were let."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import pytest

import vecdb
from tests.console.conftest import Asker, Parsed, values_of
from vecdb.integrations.console import app

Make = Callable[..., Asker]
HOSTILE = "\"><img src=x onerror=alert(1)><script>alert(2)</script>{{7919*6841}}'"


def test_the_collections_and_one_of_them(asker: Make, notes: vecdb.Collection, db: vecdb.Database) -> None:
    db.create_collection("empty")
    page = asker().get("/")
    assert page.status == 200 and "notes 120 4 l2 float32" in page.text and "empty 0" in page.text
    one = asker().get("/collection", c="notes")
    assert "records 120" in one.text and "dimensions 4" in one.text and "Memory and disk" in one.text
    for missing in ("nothing", "x" * 300, ""):
        assert asker().get("/collection", c=missing).status in (400, 404)


def test_records_are_filtered_sorted_and_turned_over(asker: Make, notes: vecdb.Collection) -> None:
    one = asker()
    page = one.get("/records", c="notes", filter="lang = 'en'", sort="year", desc="1")
    assert page.status == 200 and "40 records that match" in page.text and "year ↓" in page.text
    page = one.get("/records", c="notes")
    assert "1–50 of 120 records" in page.text
    for numbers in ("51–100 of 120", "101–120 of 120"):
        [onward] = [link["href"] for link in page.parsed.named("a") if link.get("rel") == "next"]
        page = one.get(onward or "")
        assert numbers in page.text
    assert not [link for link in page.parsed.named("a") if link.get("rel") == "next"]
    assert "No record matches" in one.get("/records", c="notes", filter="year = 1").text


def test_a_filter_that_is_wrong_is_shown_with_its_caret_and_stays_in_the_form(
    asker: Make, notes: vecdb.Collection
) -> None:
    page = asker().get("/records", c="notes", filter="lang = = 3")
    assert page.status == 400 and "the filter is wrong at line 1, column 8" in page.problem
    assert "  lang = = 3\n         ^" in page.problem
    assert any(one.get("value") == "lang = = 3" for one in page.parsed.named("input"))
    assert asker().get("/records", c="notes", after="nonsense").status == 400
    assert asker().get("/records", c="notes", tenant="nobody").status in (200, 400)


def test_a_condition_is_added_to_the_filter(asker: Make, notes: vecdb.Collection) -> None:
    page = asker().get("/records", c="notes", filter="year > 2000", add_field="lang", add_how="=", add_value="de")
    assert any(one.get("value") == "year > 2000 and lang = 'de'" for one in page.parsed.named("input"))


def test_a_record_and_a_search_near_it(asker: Make, notes: vecdb.Collection) -> None:
    one = asker()
    page = one.get("/record", c="notes", id="7")
    assert "title text note 7" in page.text and "4 dimensions" in page.text and len(page.parsed.named("rect")) == 4
    [near] = [link["href"] for link in page.parsed.named("a") if (link["href"] or "").startswith("/search?c=notes&by")]
    found = one.get(near or "")
    assert found.status == 200 and "How it was answered" in found.text
    assert one.get("/search", c="notes", by="vector", q="1,2").status == 400
    assert one.get("/search", c="notes").status == 200
    assert one.get("/record", c="notes", id="999").status == 404


def test_tenants_and_what_they_are_granted(asker: Make, notes: vecdb.Collection) -> None:
    one = asker(write=True)
    made = one.act("/tenants/create", c="notes", name="new & old", quota="3")
    assert made.status == 303 and values_of(made.headers["location"])["name"] == "new & old"
    assert one.act("/tenants/create", c="notes", name="x", quota="many").status == 400
    assert one.act("/tenants/create", c="notes", name="new & old").status == 409
    assert one.act("/tenant/grant", c="notes", name="new & old", ids="1\r\n2, 5").status == 303
    assert notes.count(tenant="new & old") == 3
    assert one.act("/tenant/grant", c="notes", name="new & old", ids="9").status == 400  # past the quota
    assert one.act("/tenant/grant", c="notes", name="new & old", ids="x").status == 404
    assert one.act("/tenant/grant", c="notes", name="nobody", ids="1").status == 404
    assert one.act("/tenant/revoke", c="notes", name="new & old", ids="2").status == 303
    page = one.get("/tenant", c="notes", name="new & old")
    assert "records 2" in page.text and "quota 3" in page.text
    assert "new & old 2" in one.get("/tenants", c="notes").text


def test_a_record_is_deleted_and_care_is_taken(asker: Make, notes: vecdb.Collection) -> None:
    one = asker(write=True)
    gone = one.act("/record/delete", c="notes", id="7")
    assert gone.status == 303 and 7 not in notes
    assert "The record is deleted" in one.get(gone.headers["location"]).text
    for path in ("/collection/optimize", "/collection/vacuum"):
        assert one.act(path, c="notes").status == 303
        assert one.waits("care", "notes").state == "done"
    assert "Vacuum took" in one.get("/collection", c="notes").text


def test_recall_is_measured_and_tuned(asker: Make, notes: vecdb.Collection) -> None:
    one = asker(write=True)
    assert one.act("/recall/measure", c="notes").status == 303
    assert one.waits("recall", "notes", "").state == "done"
    assert "a usual search finds 1.000" in one.get("/recall", c="notes").text
    assert one.act("/recall/measure", c="notes", name="a").status == 303
    assert one.waits("recall", "notes", "a").state == "done"
    assert "recall@10 1.000" in one.get("/tenant", c="notes", name="a").text
    assert one.act("/recall/tune", c="notes", recall="much").status == 400
    assert one.act("/recall/tune", c="notes", recall="0.9").status == 303
    one.waits("tune", "notes")
    assert one.get("/recall", c="notes").status == 200


def test_a_map_is_drawn_kept_and_coloured(asker: Make, notes: vecdb.Collection) -> None:
    one = asker()
    assert one.get("/map/points", c="notes").status == 404
    assert one.act("/map/draw", c="notes").status == 303
    job = one.waits("map", "notes")
    assert job.state == "done" and json.loads(one.get("/job", id=job.id).page)["state"] == "done"
    page = one.get("/map", c="notes", field="lang")
    assert "120 of 120 records" in page.text and page.parsed.named("canvas")
    points = json.loads(one.get("/map/points", c="notes", field="lang").page)
    assert len(points["x"]) == 120 and sorted(points["legend"]) == ["de", "en", "fr"]
    notes.delete(1)
    assert "1 commit ago" in one.get("/map", c="notes").text
    assert one.get("/job", id="none").status == 404


def test_figures_of_this_moment(asker: Make, notes: vecdb.Collection) -> None:
    one = asker()
    found = json.loads(one.get("/live/figures").page)
    [row] = found["collections"]
    assert (row["name"], row["live"]) == ("notes", 120) and row["search_ms"] > 0
    assert sum(part["bytes"] for part in row["memory"]) >= row["bytes_ram"] > 0
    notes.delete(1)
    assert json.loads(one.get("/live/figures").page)["sequence"] == found["sequence"] + 1
    assert "notes" in one.get("/live").text


def test_a_tenants_console_shows_nothing_of_others_on_any_page(asker: Make, notes: vecdb.Collection) -> None:
    one = asker(tenant="a")
    one.act("/map/draw", c="notes")
    one.act("/recall/measure", c="notes", name="a")
    one.waits("map", "notes")
    one.waits("recall", "notes", "a")
    for path in sorted(app.served_paths()["pages"]):
        for asked in ({"id": "4"}, {"id": "5", "q": "5", "name": "a"}, {"tenant": "b", "name": "b", "q": "4"}):
            page = one.get(path, c="notes", **asked)
            assert not re.search(r"note 4\b|tenant=b\b", page.page), path
            assert "120" not in page.text, path
    assert one.act("/recall/measure", c="notes", name="b").status == 404
    assert one.get("/live/figures").status == 403
    assert one.get("/tenant", c="notes", name="b").status == 404
    assert len(json.loads(one.get("/map/points", c="notes").page)["x"]) == notes.count(tenant="a")


@pytest.fixture
def hostile(db: vecdb.Database) -> vecdb.Collection:
    """Script wherever a name or a value can be."""
    name = HOSTILE.replace("/", "")
    docs = db.create_collection(name, 2, metadata={HOSTILE: HOSTILE})
    fields: dict[str, Any] = {HOSTILE: HOSTILE, "deep": {HOSTILE: [HOSTILE]}, "plain": HOSTILE}
    docs.upsert([HOSTILE, "other"], [[1, 0], [0, 1]], [fields, {"plain": "x"}], tenants=[[HOSTILE], [HOSTILE]])
    docs.upsert([HOSTILE], [[1, 1]], [fields], owner=HOSTILE)
    return docs


def harmless(page: str) -> None:
    """No element or attribute that the templates do not have."""
    parsed = Parsed(page)
    assert {one.get("src", "")[:8] for one in parsed.named("script")} <= {"/static/"}  # type: ignore[index]
    assert not parsed.named("img") and not parsed.named("svg/onload")
    for tag, attributes in parsed.elements:
        assert not [one for one in attributes if one.startswith("on") or one == "style"], (tag, attributes)
        assert not (attributes.get("href") or "/").lower().startswith("javascript"), (tag, attributes)
    assert str(7919 * 6841) not in parsed.text


def test_script_in_names_and_values_is_text(asker: Make, hostile: vecdb.Collection) -> None:
    one = asker(write=True)
    name = hostile.name
    one.act("/map/draw", c=name)
    one.waits("map", name)
    asked = {"c": name, "id": HOSTILE, "name": HOSTILE, "q": HOSTILE, "field": HOSTILE, "sort": HOSTILE}
    for path in sorted(app.served_paths()["pages"]):
        for more in ({}, {"filter": HOSTILE, "after": HOSTILE, "tenant": HOSTILE, "token": ""}, {"owner": HOSTILE}):
            page = one.get(path, **asked, **{key: value for key, value in more.items() if key != "token"})
            if page.headers["content-type"].startswith("text/html"):
                harmless(page.page)
    record = one.get("/record", c=name, id=HOSTILE)
    assert record.status == 200 and HOSTILE in record.parsed.text
    assert HOSTILE in one.get("/records", c=name).parsed.text
    assert HOSTILE in one.get("/tenants", c=name).parsed.text
    points = one.get("/map/points", c=name, field="plain")
    assert points.headers["content-type"] == "application/json" and HOSTILE in json.loads(points.page)["legend"]
    harmless(one.get("/record", c=HOSTILE, id=HOSTILE).page)  # what is not there is named in the error
    harmless(one.get("/" + "x", {"cookie": ""}, token=HOSTILE).page)


def test_a_tenant_is_found_by_its_name(asker: Make, notes: vecdb.Collection) -> None:
    one = asker()
    forms = [form for form in one.get("/tenants", c="notes").parsed.named("form") if form.get("action") == "/tenant"]
    assert [form.get("method") for form in forms] == ["get"]
    assert "Tenant b" in one.get("/tenant", c="notes", name="b").text
    assert one.get("/tenant", c="notes", name="nobody").status == 404
    assert "/tenant" not in {
        form.get("action") for form in asker(tenant="a").get("/tenants", c="notes").parsed.named("form")
    }
