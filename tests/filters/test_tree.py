"""A tree that exists is valid and canonical: values are Python's, bounds are held, equal means the same."""

from __future__ import annotations

import dataclasses
import datetime as dt
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest

from vecdb import F, limits
from vecdb.errors import InvalidArgument, LimitExceeded
from vecdb.filters import evaluate
from vecdb.filters.tree import (
    And,
    Compare,
    Contains,
    In,
    IsNull,
    Like,
    Node,
    Not,
    Or,
    Prefix,
    always,
    fields_of,
    leaves,
)

A, B, C = Compare("a", "==", 1), Compare("b", "<", 2.5), IsNull("c")


def test_nodes_flatten_drop_doubles_and_vanish_around_a_single_term() -> None:
    assert And((A, And((B, A)), C)) == And((A, B, C))
    assert Or((Or((A, B)), Or((B, C)))) == Or((A, B, C))
    assert And((A, Or((B, And((C, C)))))) == And((A, Or((B, C))))
    assert And((A,)) is A and Or((Or((A,)),)) is A and Not(Not(A)) is A and And((A, A)) is A
    assert And((And(()), A)) is A and Or(()) != And(())
    assert And((A, B)) != Or((A, B)) and And((A, B)) != And((B, A))
    assert Contains("x", (1,), True) == Contains("x", (1,), False) != Contains("x", (1, 2), True)
    assert In("x", (1, 1.0, "1", 1)).values == (1, "1")


def test_true_is_not_one() -> None:
    assert Compare("a", "==", True) != Compare("a", "==", 1) == Compare("a", "==", 1.0)
    assert In("a", (True, 0)) != In("a", (1, 0)) and In("a", (True, 0)) != In("a", (1, False))
    assert repr(In("a", (1, True, 1.0, False, 0)).values) == "(1, True, False, 0)"
    assert Contains("a", (True, 2), False) != Contains("a", (1, 2), False)
    assert len({Compare("a", "==", True), Compare("a", "==", 1), Compare("a", "==", 1.0)}) == 2


def test_trees_are_frozen_and_match_patterns() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        A.value = 2  # type: ignore[misc]
    with pytest.raises((dataclasses.FrozenInstanceError, AttributeError, TypeError)):
        And((A, B)).terms = ()
    match And((A, Not(B))):
        case And((Compare(field, "==", value), Not(term))):
            assert (field, value, term) == ("a", 1, B)
        case _:
            raise AssertionError
    assert repr(And((A, Not(C)))) == ("And(terms=(Compare(field='a', op='==', value=1), Not(term=IsNull(field='c'))))")


def test_leaves_and_fields() -> None:
    tree = Or((And((A, Not(B))), C, Compare("a", ">", 3)))
    assert list(leaves(tree)) == [A, B, C, Compare("a", ">", 3)]
    assert fields_of(tree) == ("a", "b", "c") and fields_of(And(())) == ()


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        (np.int64(3), 3),
        (np.uint8(3), 3),
        (np.float32(0.5), 0.5),
        (np.float64(0.1), 0.1),
        (np.longdouble(0.5), 0.5),
        (np.bool_(True), True),
        (np.str_("é"), "é"),
        (np.bytes_(b"x"), b"x"),
        (np.datetime64("2020-01-31"), dt.date(2020, 1, 31)),
        (np.datetime64("2020-01-31T10:30:00.123456789"), dt.datetime(2020, 1, 31, 10, 30, 0, 123456)),
        (pd.Timestamp("2020-01-31T10:30:00.123456789"), dt.datetime(2020, 1, 31, 10, 30, 0, 123456)),
        (pd.Timestamp("2020-01-31T10:30", tz="Europe/Berlin"), dt.datetime(2020, 1, 31, 9, 30, tzinfo=dt.UTC)),
        (dt.datetime(2020, 1, 31, 2, fold=1), dt.datetime(2020, 1, 31, 2)),
        (2**70, 2**70),
        (float("-inf"), float("-inf")),
    ],
)
def test_values_become_pythons(given: Any, kept: Any) -> None:
    trees = [Compare("x", "==", given), F.x == given, In("x", (given,)), Contains("x", [given], False)]  # type: ignore[arg-type]
    for tree in trees:
        value = tree.value if isinstance(tree, Compare) else tree.values[0]  # type: ignore[union-attr]
        assert value == kept and type(value) is type(kept) and repr(value) == repr(kept)


class Colour(str):
    """A text of another class, as enums are."""

    def __str__(self) -> str:
        return "not the text"


def test_subclasses_of_texts_and_numbers_become_plain() -> None:
    tree = F[Colour("x")].is_in([Colour("red")])
    assert isinstance(tree, In) and type(tree.field) is type(tree.values[0]) is str and str(tree) == "x in ('red')"
    assert type(Prefix("x", Colour("r")).text) is str


@pytest.mark.parametrize(
    "value",
    [None, float("nan"), np.float32("nan"), np.datetime64("NaT"), pd.NaT, pd.NA, np.timedelta64(1, "s"), 1j, {}, {1: 2},
     [1], (1,), object(), dt.timedelta(1), dt.time(1), F.y, A, np.array([1]), "\ud800", np.datetime64("30000-01-01"),
     dt.datetime(1, 1, 1, tzinfo=dt.timezone(dt.timedelta(hours=1))), 2**1024, -(2**1024), 10**5000],
    ids=lambda value: type(value).__name__,
)  # fmt: skip
def test_other_values_are_refused_by_name(value: Any) -> None:
    for make in (
        lambda: Compare("some field", "<", value),
        lambda: In("some field", (1, value)),
        lambda: Contains("some field", (value,), False),
    ):
        with pytest.raises(InvalidArgument, match="some field"):
            make()


@pytest.mark.parametrize(
    "make",
    [
        lambda: Compare(1, "==", 1),  # type: ignore[arg-type]
        lambda: Compare("a", "!=", 1),  # type: ignore[arg-type]
        lambda: Compare("a\udfff", "==", 1),
        lambda: IsNull("x" * (limits.fields_bytes_max + 1)),
        lambda: In("a", "abc"),  # type: ignore[arg-type]
        lambda: In("a", 3),  # type: ignore[arg-type]
        lambda: In("a", {"b": 1}),  # type: ignore[arg-type]
        lambda: In("a", np.zeros((2, 2))),  # type: ignore[arg-type]
        lambda: Prefix("a", 1),  # type: ignore[arg-type]
        lambda: Prefix("a", b"x"),  # type: ignore[arg-type]
        lambda: Like("a", "x\\"),
        lambda: Like("a", None),  # type: ignore[arg-type]
        lambda: Like("a", "x" * (limits.filter_pattern_max + 1)),
        lambda: Contains("a", (1, 2), 1),  # type: ignore[arg-type]
        lambda: And(A),  # type: ignore[arg-type]
        lambda: And(("a = 1",)),  # type: ignore[arg-type]
        lambda: And((A, True)),  # type: ignore[arg-type]
        lambda: Not("a = 1"),  # type: ignore[arg-type]
        lambda: Not(F.x),  # type: ignore[arg-type]
        lambda: Prefix("a", 10**5000),  # type: ignore[arg-type]
    ],
)
def test_what_is_no_tree_cannot_be_built(make: Callable[[], Node]) -> None:
    with pytest.raises(InvalidArgument):
        make()


def test_a_tree_within_the_bounds_is_built_and_one_beyond_is_not() -> None:
    tree: Node = A
    for at in range(limits.filter_depth_max // 2):
        tree = Not(And((tree, Compare("b", "==", at)))) if at else Not(tree)
    assert tree.size.depth <= limits.filter_depth_max
    with pytest.raises(LimitExceeded, match="nests at most 64"):
        for at in range(10_000):
            tree = ~(tree & (F.b == at))

    many = Or(tuple(Compare("a", "==", at) for at in range(limits.filter_terms_max)))
    with pytest.raises(LimitExceeded, match="at most 4,096 conditions"):
        many | C
    assert many | A is not None and (many | A).size == many.size
    with pytest.raises(LimitExceeded, match="at most 4,096 conditions"):
        tree = A & B
        for _ in range(64):
            tree = (tree & C) | ~(tree & IsNull("d"))

    values = range(limits.filter_values_max)
    full = F.a.is_in(values)
    assert full.size.values == limits.filter_values_max
    with pytest.raises(LimitExceeded, match="1,000,000 values"):
        full & A
    for beyond in (range(limits.filter_values_max + 1), np.zeros(limits.filter_values_max + 1, np.int8)):
        with pytest.raises(LimitExceeded, match=r"field 'a'.* more"):
            F.a.is_in(beyond)
    with pytest.raises(LimitExceeded):
        F.a.is_in(iter(int, 1))  # without an end


def test_what_holds_whatever_a_record_has() -> None:
    none, every, some = In("x", ()), Not(In("x", ())), Contains("x", (), True)
    for tree in (And(()), every, And((every, Not(Contains("y", (), False)))), Or((A, every)), Not(And((A, none)))):
        assert always(tree) is True
        assert all(evaluate.matches(tree, fields) for fields in ({}, {"a": 1}, {"x": [1]}, {"x": None}))
        assert always(Not(tree)) is False
    for tree in (A, some, And((A, every)), Or((A, none)), Not(IsNull("x")), Or((And((A, B)), none))):
        assert always(tree) is None and always(Not(tree)) is None
