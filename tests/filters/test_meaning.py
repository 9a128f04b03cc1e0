"""What a filter means: an evaluation that was written in another way agrees, and each rule has an example."""

from __future__ import annotations

import datetime as dt
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.filters import filter_trees
from vecdb import F
from vecdb.errors import InvalidArgument
from vecdb.filters.evaluate import TYPES, check_orders, matcher, matches, ordered_types, value_at
from vecdb.filters.forms import to_filter
from vecdb.filters.times import moment, text_moment
from vecdb.filters.tree import And, Compare, Node, Not, Or

INF = float("inf")
NAN = float("nan")
DAY = dt.date(2020, 1, 31)
MORNING = dt.datetime(2020, 1, 31, 10, 30)
ZONE = dt.timezone(dt.timedelta(hours=2))


@settings(max_examples=60)
@given(filter_trees.trees(), st.lists(filter_trees.records(), min_size=1, max_size=4))
def test_the_two_evaluations_agree(tree: Node, records: list[dict[str, Any]]) -> None:
    match = matcher(tree)
    for record in records:
        assert match(record) == matches(tree, record) == filter_trees.holds(tree, record), (str(tree), record)
        assert matches(Not(tree), record) is not match(record)


def test_the_two_evaluations_agree_on_many_more() -> None:
    random = Random(7)
    positive = 0
    for _ in range(3_000):
        tree = filter_trees.random_tree(random)
        match = matcher(tree)
        for record in (filter_trees.random_record(random) for _ in range(3)):
            assert match(record) == filter_trees.holds(tree, record), (str(tree), record)
            positive += match(record)
    assert 1_000 < positive < 8_000


def found(filter: Any, *values: Any) -> list[Any]:
    """The values of field x that match."""
    tree = to_filter(filter)
    assert tree is not None
    return [value for value in values if matches(tree, {"x": value})]


def test_a_comparison_with_what_is_missing_is_false_and_its_complement_finds_it() -> None:
    for positive in (F.x == 1, F.x < 1, F.x >= 1, F.x.is_in([1]), F.x.prefix(""), F.x.like("%"), F.x.contains_all([])):
        for record in ({}, {"x": None}, {"y": 1}):
            assert not matches(positive, record)
            assert matches(~positive, record)


def test_none_means_missing_or_null() -> None:
    for tree in (F.x == None, F.x.is_null(), ~F.x.exists(), to_filter("x = null"), to_filter({"x": None})):  # noqa: E711
        assert tree is not None
        assert [matches(tree, record) for record in ({}, {"x": None}, {"x": 0}, {"x": NAN})] == [1, 1, 0, 0]
    assert [matches(F.x.is_in([None, 1]), record) for record in ({}, {"x": None}, {"x": 1}, {"x": 2})] == [1, 1, 1, 0]
    assert [matches(F.x.not_in([None, 1]), record) for record in ({}, {"x": None}, {"x": 1}, {"x": 2})] == [0, 0, 0, 1]


@pytest.mark.parametrize(
    ("filter", "values", "matching"),
    [
        (F.x == 2**53 + 1, [2**53 + 1, 2.0**53, 2**53], [2**53 + 1]),
        (F.x == 2.0**53, [2**53 + 1, 2.0**53, 2**53], [2.0**53, 2**53]),
        (F.x > 2.0**53, [2**53, 2**53 + 1], [2**53 + 1]),
        (F.x < 2**70, [2**63 - 1, 1e30, -INF, INF, True, "1"], [2**63 - 1, -INF]),
        (F.x > -(2**70), [-(2**63), -1e30, INF], [-(2**63), INF]),
        (F.x == 2**70, [2.0**70, 2**63 - 1], [2.0**70]),
        (F.x == 1, [1, 1.0, True, "1", b"1"], [1, 1.0]),
        (F.x == True, [1, 1.0, True, False], [True]),  # noqa: E712
        (F.x.is_in([True, 0]), [1, 0, True, False], [0, True]),
        (F.x < True, [False, 0, -1], [False]),
        (F.x <= INF, [INF, NAN, 1], [INF, 1]),
        (F.x != 1.0, [NAN, 1, 2], [NAN, 2]),
        (F.x == -0.0, [0, 0.0, -0.0], [0, 0.0, -0.0]),
    ],
)
def test_numbers_compare_as_exact_numbers_and_a_bool_is_none(filter: Any, values: Any, matching: Any) -> None:
    assert [repr(value) for value in found(filter, *values)] == [repr(value) for value in matching]


def test_texts_compare_by_code_point_and_bytes_are_no_texts() -> None:
    assert found(F.x < "b", "a", "B", "b", "ä", b"a", "") == ["a", "B", ""]
    assert found(F.x >= "\uffff", "\U00010000", "\ufffe") == ["\U00010000"]
    assert found(F.x < b"b", b"a", "a", b"\xff") == [b"a"]


@pytest.mark.parametrize(
    ("filter", "values", "matching"),
    [
        (F.x == DAY, [DAY, dt.datetime(2020, 1, 31), "2020-01-31", "2020-01-31T00:00Z", "31.1.2020"], 4),
        (F.x < MORNING, [DAY, MORNING, "2020-01-31T10:29:59.999999", "2020-01-31 10:30:01", "x"], [0, 2]),
        (F.x == "2020-01-31", [DAY, dt.datetime(2020, 1, 31, tzinfo=dt.UTC), "2020-01-31", "2020-01-31T00:00"], 3),
        (F.x.is_in(["2020-01-31", "no date"]), [DAY, "2020-01-31", "no date", MORNING], 3),
        (F.x.is_in([DAY, 5]), [DAY, "2020-01-31T00:00:00", 5, MORNING], 3),
        (F.x.is_in([DAY, "2020-02-01"]), [DAY, dt.date(2020, 2, 1), "2020-02-01", "2020-02-01T00:00"], 3),
        (F.x.contains(DAY), [["2020-01-31", 1], [DAY], [1], DAY], [0, 1, 3]),
        (F.x > "2020-01-30", [DAY, MORNING, "2020-01-31", dt.date(2020, 1, 30), 2021], 3),
        (F.x == dt.datetime(2020, 1, 31, 12, 30, tzinfo=ZONE), [MORNING, MORNING.replace(tzinfo=dt.UTC)], 2),
        (F.x == "2020-01-31T12:30:00+02:00", [MORNING, "2020-01-31T10:30:00Z", "2020-01-31T12:30:00+02:00"], [0, 2]),
    ],
)
def test_times_compare_across_types_and_texts_in_iso_form_with_times(filter: Any, values: Any, matching: Any) -> None:
    expected = values[:matching] if isinstance(matching, int) else [values[at] for at in matching]
    assert found(filter, *values) == expected


@settings(max_examples=40)
@given(st.datetimes(timezones=st.none() | st.timezones()))
def test_a_moment_is_the_time_in_utc(time: dt.datetime) -> None:
    if 1 < time.year < 9999:
        utc = time.replace(tzinfo=None) - (time.utcoffset() or dt.timedelta())
        assert dt.datetime(1970, 1, 1) + dt.timedelta(microseconds=moment(time)) == utc
    offset = time.utcoffset()
    if offset is None or not offset.microseconds:
        assert text_moment(time.isoformat()) == moment(time)


@pytest.mark.parametrize(
    "text",
    ["2020", "2020-1-31", "20200131", "2020-02-30", "2020-W05-5", "2020-01-31T", "2020-01-31T25:00", "2020-01-31Z",
     "2020-01-31T10:30:00+25:00", " 2020-01-31", "2020-01-31\n", "٢٠٢٠-01-31", "0000-01-01", "2020-01-31T10"],
)  # fmt: skip
def test_what_is_not_quite_iso_is_a_text(text: str) -> None:
    assert text_moment(text) is None
    assert found(F.x == text, text, DAY) == [text]


def test_lists_equal_nothing_and_contains_looks_into_them() -> None:
    rows = [["a", "b"], ["a"], [], "a", "b", None, {"a": 1}, [["a"]], [None, 1.0]]
    assert found(F.x == "a", *rows) == ["a"]
    assert found(F.x.contains("a"), *rows) == [["a", "b"], ["a"], "a"]
    assert found(F.x.contains_any(["b", 1]), *rows) == [["a", "b"], "b", [None, 1.0]]
    assert found(F.x.contains_all(["a", "b"]), *rows) == [["a", "b"]]
    assert found(F.x.contains_any([]), *rows) == []
    assert found(F.x.contains_all([]), *rows) == [["a", "b"], ["a"], [], "a", "b", [["a"]], [None, 1.0]]
    assert found(F.x >= "a", *rows) == ["a", "b"]


@pytest.mark.parametrize(
    ("pattern", "matching"),
    [
        ("", [""]),
        ("%", ["", "a", "ab", "a%b", "A\nb", "aab"]),
        ("_", ["a"]),
        ("a%", ["a", "ab", "a%b", "aab"]),
        ("%b", ["ab", "a%b", "A\nb", "aab"]),
        ("a\\%b", ["a%b"]),
        ("_%b", ["ab", "a%b", "A\nb", "aab"]),
        ("%a%b%", ["ab", "a%b", "aab"]),
        ("a_b", ["a%b", "aab"]),
        ("%ab%ab", []),
        ("A_b", ["A\nb"]),
    ],
)
def test_like(pattern: str, matching: list[str]) -> None:
    assert found(F.x.like(pattern), "", "a", "ab", "a%b", "A\nb", "aab", 1, ["a"], None) == matching


def test_a_whole_name_comes_before_a_path_and_short_heads_before_long_ones() -> None:
    record = {"a.b": {"c": 1}, "a": {"b": {"d": 2}, "b.c": 3}, "n": {"m": None}, "l": [{"k": 1}], "": {"": 5}, "e.": 6}
    asked = ["a.b", "a.b.c", "a.b.d", "n.m", "n.m.x", "l.k", "a", ".", "", "e.", "nowhere", "a.b.c.d"]
    assert [value_at(record, name) for name in asked] == [
        {"c": 1}, 3, 2, None, None, None, {"b": {"d": 2}, "b.c": 3}, 5, {"": 5}, 6, None, None,
    ]  # fmt: skip
    assert value_at({"a.b": None, "a": {"b": 1}}, "a.b") is None
    assert value_at({"a": {"x": 1}, "a.b": {"c": 2}}, "a.b.c") == 2


def test_and_of_nothing_lets_all_through_and_or_of_nothing_none() -> None:
    assert matches(And(()), {}) and not matches(Or(()), {"x": 1})


# -- orders between types that do not compare ------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "types"),
    [
        (1, {"int", "float"}),
        (1.5, {"int", "float"}),
        (True, {"bool"}),
        ("a", {"str"}),
        ("2020-01-31", {"str", "date", "datetime"}),
        (DAY, {"str", "date", "datetime"}),
        (MORNING, {"str", "date", "datetime"}),
        (b"a", {"bytes"}),
    ],
)
def test_an_order_with_no_type_that_compares_is_an_error_that_names_the_field(value: Any, types: set[str]) -> None:
    assert set(ordered_types(value)) == types
    for held in TYPES:
        tree = (F.y == 1) & ~(F.x >= value)
        if held in types:
            check_orders(tree, lambda name, held=held: {held})
        else:
            with pytest.raises(InvalidArgument, match=f"field 'x' holds {held}.*no order with"):
                check_orders(tree, lambda name, held=held: {held} if name == "x" else {"list"})
        check_orders(tree, lambda name, held=held: {held, *types})  # what compares is compared
        check_orders(F.x == value, lambda name, held=held: {held})  # equality is for all types
    check_orders(F.x < value, lambda name: ())


@given(filter_trees.scalars(), filter_trees.scalars(wide=False))
def test_types_that_are_said_to_compare_do(wanted: Any, stored: Any) -> None:
    name = next(name for kind, name in _KINDS if isinstance(stored, kind))
    compared = any(matches(Compare("x", op, wanted), {"x": stored}) for op in ("<", "<=", ">", ">="))
    if compared:
        assert name in ordered_types(wanted)
    elif name in ordered_types(wanted):
        assert {str} < {type(stored), type(wanted)}  # a text that names no time


_KINDS = [(bool, "bool"), (int, "int"), (float, "float"), (str, "str"), (bytes, "bytes"),
          (dt.datetime, "datetime"), (dt.date, "date")]  # fmt: skip
