"""Hits give the same answer in every shape: arrays, records, lists, tables and a notebook page."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vecdb
from vecdb import validate
from vecdb.api.hits import Hit, Hits
from vecdb.errors import InvalidArgument, VecdbError

RECORDS = [{"lang": "en", "year": 2020}, {"lang": "<de>"}, {}]


def packed(records: list[dict[str, Any]]) -> list[bytes]:
    encoded = validate.fields(records, len(records))
    assert encoded is not None
    return encoded


def one(metric: Any = "l2", **more: Any) -> Hits:
    """One query's answer: three hits in a row of room for five."""
    ids = np.array([[7, 8, 9, -1, -1]])
    distances = np.array([[0.25, 0.5, 2, np.inf, np.inf]], np.float32)
    return Hits(ids, distances, np.array([3]), 42, metric, True, **more)


def two(strings: bool = False, **more: Any) -> Hits:
    """A batch of two queries with three hits and one."""
    ids = np.array([["a", "b", "c"], ["d", None, None]], object) if strings else np.array([[7, 8, 9], [5, -1, -1]])
    distances = np.array([[0.25, 0.5, 2], [1, np.inf, np.inf]], np.float32)
    return Hits(ids, distances, np.array([3, 1]), 42, "l2", False, **more)


def full_two() -> Hits:
    return two(True, fields=[packed(RECORDS), packed([{"id": "mine"}])], vectors=np.arange(12).reshape(2, 3, 2))


def test_one_querys_arrays_are_trimmed_to_its_count() -> None:
    hits = one()
    assert hits.ids.tolist() == [7, 8, 9] and hits.distances.tolist() == [0.25, 0.5, 2]
    assert hits.counts.tolist() == [3] and hits.sequence == 42 and len(hits) == 3
    again = Hits(hits.ids, hits.distances, hits.counts, 42, "l2", True)  # already trimmed
    assert again.ids.tolist() == [7, 8, 9]


def test_a_batch_keeps_its_padding_and_counts() -> None:
    hits = two()
    assert hits.ids.tolist() == [[7, 8, 9], [5, -1, -1]] and hits.counts.tolist() == [3, 1] and len(hits) == 2
    assert hits.scores.tolist() == [[-0.25, -0.5, -2], [-1, -np.inf, -np.inf]]


@pytest.mark.parametrize(
    "metric, scores", [("l2", [-0.25, -0.5, -2]), ("ip", [-0.25, -0.5, -2]), ("cosine", [0.75, 0.5, -1])]
)
def test_scores_grow_as_distances_shrink(metric: str, scores: list[float]) -> None:
    hits = one(metric)
    assert hits.scores.tolist() == scores and hits.scores.dtype == np.float32
    assert [hit.score for hit in hits] == scores


@pytest.mark.parametrize("metric", ["l2", "ip", "cosine"])
def test_no_score_is_minus_zero(metric: Any) -> None:
    distance = np.array([1.0 if metric == "cosine" else 0.0], np.float32)
    hits = Hits(np.array([7]), distance, None, 42, metric, True)
    for score in (*hits.scores.tolist(), hits[0].score, hits.to_list()[0]["score"]):
        assert str(score) == "0.0"


def test_a_position_gives_a_hit_of_python_values() -> None:
    hits = one(fields=packed(RECORDS), vectors=np.arange(6).reshape(3, 2))
    hit = hits[1]
    assert isinstance(hit, Hit) and type(hit.id) is int and type(hit.distance) is float and type(hit.score) is float
    assert (hit.id, hit.distance, hit.score, hit.fields) == (8, 0.5, -0.5, {"lang": "<de>"})
    assert hit.vector is not None and hit.vector.tolist() == [2, 3]
    assert hits[-1].id == 9 and hits[np.int64(0)].id == 7
    assert [hit.id for hit in hits] == [7, 8, 9]
    for bad in (3, -4):
        with pytest.raises(IndexError, match="of 3 hits"):
            hits[bad]


def test_nothing_asked_for_is_nothing_given() -> None:
    hit = one()[0]
    assert hit.fields == {} and hit.vector is None
    assert one().fields == [{}, {}, {}] and one().plan is None and one().explain is None
    assert one(explain={"plan": "exact", "ms": 1}).plan == "exact"


def test_a_position_of_a_batch_is_that_querys_hits_without_padding() -> None:
    hits = full_two()
    first, second = hits
    assert first.single and first.ids.tolist() == ["a", "b", "c"] and first.fields == RECORDS
    assert second.ids.tolist() == ["d"] and second.distances.tolist() == [1] and second.counts.tolist() == [1]
    assert second[0].id == "d" and second[0].fields == {"id": "mine"} and second[0].vector.tolist() == [6, 7]
    assert hits[-1][0].id == "d" and hits.fields == [RECORDS, [{"id": "mine"}]]
    with pytest.raises(IndexError, match="of 2 queries"):
        hits[2]


def test_a_slice_keeps_everything_aligned() -> None:
    hits = one(fields=packed(RECORDS), vectors=np.arange(6).reshape(3, 2))
    part = hits[1:]
    assert part.ids.tolist() == [8, 9] and part.counts.tolist() == [2] and part.fields == RECORDS[1:]
    assert part[0].vector.tolist() == [2, 3] and hits[::-1].ids.tolist() == [9, 8, 7]
    last = full_two()[1:]
    assert len(last) == 1 and not last.single and last.counts.tolist() == [1] and last[0].fields == [{"id": "mine"}]


def test_fields_are_decoded_only_when_asked_for_and_only_the_chosen() -> None:
    hits = one(fields=[packed(RECORDS)[0], b"\xc1", b""], select=("year",))
    assert hits[0].fields == {"year": 2020} and hits[2].fields == {}
    assert len(hits[1:].ids) == 2  # the broken record is not touched
    with pytest.raises(VecdbError):
        hits[1]


def test_lists() -> None:
    assert one().to_list()[0] == {"id": 7, "distance": 0.25, "score": -0.25}
    assert [row["fields"] for row in one(fields=packed(RECORDS)).to_list()] == RECORDS
    nested = full_two().to_list()
    assert [[row["id"] for row in rows] for rows in nested] == [["a", "b", "c"], ["d"]]
    assert nested[1][0]["vector"].tolist() == [6, 7]


def test_every_table_has_the_same_cells() -> None:
    expected = {
        "query": [0, 0, 0, 1],
        "id": ["a", "b", "c", "d"],
        "distance": [0.25, 0.5, 2, 1],
        "score": [-0.25, -0.5, -2, -1],
        "vector": [[0, 1], [2, 3], [4, 5], [6, 7]],
        "lang": ["en", "<de>", None, None],
        "year": [2020, None, None, None],
        "fields.id": [None, None, None, "mine"],
    }
    hits = full_two()
    assert hits.to_arrow().to_pydict() == expected
    assert hits.to_polars().to_dict(as_series=False) == expected
    frame = hits.to_pandas()
    assert list(frame.columns) == list(expected)
    for name, column in expected.items():
        assert [None if cell is None or cell != cell else cell for cell in frame[name].tolist()] == column
    assert one().to_arrow().to_pydict() == {"id": [7, 8, 9], "distance": [0.25, 0.5, 2], "score": [-0.25, -0.5, -2]}


def test_empty_answers_have_every_shape_too() -> None:
    nothing = Hits(np.empty((1, 5), np.int64), np.empty((1, 5), np.float32), np.array([0]), 1, "ip", True)
    no_queries = Hits(np.empty((0, 5), np.int64), np.empty((0, 5), np.float32), np.empty(0, np.int64), 1, "ip", False)
    for hits in (nothing, no_queries):
        assert len(hits) == 0 and list(hits) == [] and hits.to_list() == [] and hits.fields == []
        assert len(hits.to_pandas()) == hits.to_arrow().num_rows == hits.to_polars().height == 0
        assert "Hits(0" in repr(hits) and "<table>" in hits._repr_html_()
        with pytest.raises(IndexError):
            hits[0]


def test_a_missing_library_is_named_with_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    for library, method in (("pandas", "to_pandas"), ("pyarrow", "to_arrow"), ("polars", "to_polars")):
        monkeypatch.setitem(sys.modules, library, None)
        with pytest.raises(VecdbError, match=f"pip install {library}") as caught:
            getattr(one(), method)()
        assert f"{method}()" in str(caught.value)


def test_a_field_of_mixed_types_is_refused_by_arrow_with_the_way_out() -> None:
    hits = one(fields=packed([{"x": 1}, {"x": "a"}, {}]))
    with pytest.raises(InvalidArgument, match="to_list"):
        hits.to_arrow()
    assert hits.to_pandas()["x"].tolist()[:2] == [1, "a"]


def test_a_repr_is_short() -> None:
    assert repr(one()) == "Hits(3 hits, {7: 0.25, 8: 0.5, 9: 2}, sequence=42)"
    assert repr(two()) == "Hits(2 queries, 4 hits, sequence=42)"
    many = Hits(np.arange(5_000)[None], np.zeros((1, 5_000), np.float32), np.array([5_000]), 1, "l2", True)
    assert len(repr(many)) < 120


def test_a_notebook_table_escapes_what_the_data_says() -> None:
    name = "<script>alert(1)</script>"
    hits = two(True, fields=[packed([{name: name}, {"lang": "<de>"}, {}]), packed([{}])])
    page = hits._repr_html_()
    assert "<script" not in page and "&lt;script&gt;" in page and "&lt;de&gt;" in page
    assert page.count("<tr>") == 5


def test_a_notebook_table_shows_a_bounded_number_of_rows() -> None:
    many = Hits(np.arange(500)[None], np.zeros((1, 500), np.float32), np.array([500]), 1, "l2", True)
    assert many._repr_html_().count("<tr>") == 21 and "20 of 500" in many._repr_html_()


def test_a_collection_shows_what_it_is(tmp_path: Path) -> None:
    with vecdb.open(tmp_path / "db") as db:
        docs = db.create_collection("<b>docs<b>", dim=8)
        docs.upsert(range(1_200), np.eye(1_200, 8) + 1, fields=[{"year": i, "<i>": 1} for i in range(1_200)])
        shown = docs._repr_html_()
        for part in ("1,200", "dim 8, cosine, float32", "MiB", "year", "&lt;i&gt;", "&lt;b&gt;docs&lt;b&gt;"):
            assert part in shown, shown
        assert "<b>" not in shown and "<i>" not in shown
        db.create_collection("new")
        assert "dim not known yet" in db.collection("new")._repr_html_()
    assert "not known" in docs._repr_html_() and "1,200" not in docs._repr_html_(), "closed"
