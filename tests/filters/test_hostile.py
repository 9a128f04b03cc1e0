"""Filters from anybody: whatever is given, the answer is a tree or a typed error, of bounded size."""

from __future__ import annotations

import tracemalloc
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from vecdb import F, limits
from vecdb.errors import InvalidArgument, LimitExceeded
from vecdb.filters.dicts import filter_to_dict
from vecdb.filters.evaluate import matches, value_at
from vecdb.filters.forms import to_filter
from vecdb.filters.parser import parse
from vecdb.filters.tree import Compare, In, Like, Not

WORDS = [
    *("and", "or", "not", "in", "is", "null", "like", "contains", "any", "all", "between", "exists", "prefix", "true"),
    *("date", "timestamp", "(", ")", ",", "=", "!=", "<", ">=", "a", "b.c", "1", "-2.5", "inf", "x'00'", "$p", "$q"),
    *(".", "%", "'t'", "'", '"', '"q"', "'2020-01-31'", "\\", "é", "\U0001f600", "\u2028", "\ud800", "\x00", "\n"),
]


@settings(max_examples=300)
@given(st.lists(st.sampled_from(WORDS), max_size=12).map(" ".join) | st.text(max_size=30))
@example("a = 'x\ud800'")
@example("\ud800")
@example('"\udfff" = 1')
def test_any_text_is_a_tree_or_a_typed_error(source: str) -> None:
    try:
        tree = parse(source, {"p": 1} if "$p" in source else None)
    except InvalidArgument as error:
        str(error).encode()
    else:
        assert parse(str(tree)) == tree
        matches(tree, {"a": 1, "b": {"c": "t"}})


JSON: Any = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=4)
    | st.sampled_from(["AND", "==", "in"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["field", "operator", "value", "conditions", "$and", "$or", "$not", "$in", "$gt", "$no", "a", "\ud800"]
            ),
            inner,
            max_size=3,
        )
    ),
    max_leaves=10,
)


@settings(max_examples=300)
@given(JSON)
def test_any_json_is_a_tree_or_a_typed_error(value: Any) -> None:
    try:
        tree = to_filter(value)
    except InvalidArgument as error:
        str(error).encode()
    else:
        assert tree is None or to_filter(filter_to_dict(tree)) == to_filter(str(tree)) == tree


@pytest.mark.parametrize(
    "source",
    [
        "(" * 10_000 + "a = 1" + ")" * 10_000,
        "(" * 10_000_000,
        "not " * 10_000 + "a = 1",
        "not (" * 10_000 + "a = 1" + ")" * 10_000,
        "(a = 1 and " * 10_000 + "b = 2" + ")" * 10_000,
        " or ".join(f"a = {at}" for at in range(limits.filter_terms_max + 1)),
        " and ".join(["a = 1"] * (limits.filter_terms_max + 1)),
        "a in (" + "1," * 60_000 + "2)",
        "a in (" + "'x'," * 60_000 + "2)",
        "a in (" + "1.5," * 60_000 + "2)",
        "a in (" + "true," * 60_000 + "2)",
        "a = " + "9" * 10_000_000,
        "a = -" + "9" * 999,
        "a = 1e" + "9" * 10_000,
        "a like '" + "%_" * 1_000 + "'",
        "'" * (limits.filter_text_max + 1),
        '"' + "x" * (limits.fields_bytes_max + 1) + '" = 1',
        "a" * (limits.fields_bytes_max + 1) + " = 1",
    ],
    ids=range(18),
)
def test_what_is_too_large_is_refused_within_bounds(source: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "filter_values_max", 50_000)
    tracemalloc.start()
    try:
        with pytest.raises(InvalidArgument) as caught:
            parse(source)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert len(str(caught.value)) < 1_000
    assert peak < 64 << 20


@pytest.mark.parametrize("count", [30_000, pytest.param(limits.filter_values_max, marks=pytest.mark.slow)])
def test_a_long_list_is_read_in_every_form(count: int) -> None:
    values = list(range(count))
    tree = F.a.is_in(values)
    assert parse("a in (" + ",".join(map(str, values)) + ")") == tree
    assert parse("a in $values", {"values": values}) == tree
    assert to_filter({"a": {"$in": values}}) == tree
    assert matches(tree, {"a": count - 1}) and not matches(tree, {"a": count})
    texts = [f"it's {at}" for at in values]
    wanted = In("a", tuple(texts))
    assert parse("a in ('" + "', '".join(text.replace("'", "''") for text in texts) + "')") == wanted
    assert parse(str(wanted)) == wanted
    floats = In("a", tuple(value / 7 + 0.1 for value in values))
    assert parse(str(floats)) == floats


def test_a_list_of_many_types_keeps_each() -> None:
    values = (1, "1", 1.5, -2, True, b"\x01", "a,b", ".5", -0.25, "(", False, 1e300, "''", 10**18, 10**19, -(2**70))
    tree = In("a", values)
    found = parse(str(tree))
    assert found == tree and [type(value) for value in found.values] == [type(value) for value in values]  # type: ignore[attr-defined]
    assert parse("a in (1 , -.5, +2.5e-3 ,'x' , 7)") == In("a", (1, -0.5, 0.0025, "x", 7))
    with pytest.raises(InvalidArgument, match="column 17: this number is larger"):
        parse("a in (1.5, 2.0, " + "9" * 400 + ".0, 3)")


def test_nesting_as_deep_as_a_tree_goes_can_be_written() -> None:
    tree = F.a < 1
    while tree.size.depth + 2 <= limits.filter_depth_max:
        tree = Not(tree & (F.b < tree.size.depth))
    assert parse(str(tree)) == tree and to_filter(filter_to_dict(tree)) == tree
    with pytest.raises(LimitExceeded):
        parse(f"not (x < 1 or not ({tree} and y < 1))")


def test_numbers_of_any_size() -> None:
    largest = 2**limits.filter_int_bits_max - 1
    assert parse(f"a between -{largest} and {largest}") == F.a.between(-largest, largest)
    for sign in (1, -1):
        assert parse(f"a = {sign * largest}") == Compare("a", "==", sign * largest)
        for wrong in (sign * (largest + 1), sign * 10**5_000):
            with pytest.raises(LimitExceeded, match="1,024"):
                F.a < wrong  # noqa: B015
    assert parse("a = 0." + "1" * 300) == Compare("a", "==", float("0." + "1" * 300))
    assert parse("a = " + "0" * 900 + "7") == Compare("a", "==", 7)
    assert parse("a = 1e-999") == Compare("a", "==", 0.0)


def test_odd_unicode_is_a_name_or_a_text_like_any_other() -> None:
    for text in (
        "\u202e",
        "\u0000",
        "e\u0301",
        "é",
        "\ufeff",
        "\U0010ffff",
        "ﷺ",
        "K",
        "ı",
        "'",
        '"',
        "\\",
        "\r\n",
        "\u2028",
    ):
        tree = (F[text] == text) & F[text].prefix(text)
        assert parse(str(tree)) == tree
        assert matches(tree, {text: text})
    assert not matches(F.x == "é", {"x": "e\u0301"})  # as it is written, not as it looks


def test_a_pattern_takes_time_in_proportion() -> None:
    text = "a" * 20_000
    for pattern in ("%a" * 500 + "b", "%" * 1_000 + "b", "%a_" * 300 + "%b", "_" * 1_000 + "%b"):
        assert not matches(Like("x", pattern), {"x": text})
    assert matches(Like("x", "%a" * 500), {"x": text})


def test_a_path_of_many_dots_is_looked_up_once_per_map() -> None:
    record: dict[str, Any] = {}
    inner = record
    for _ in range(60):
        inner["a"] = {"b": 1}
        inner = inner["a"]
    assert value_at(record, "a." * 60 + "b") == 1
    assert value_at(record, "a." * 60 + "c") is None
    assert value_at(record, "." * limits.fields_bytes_max) is None
    assert value_at(record, "a." * (limits.fields_bytes_max // 2)) is None
