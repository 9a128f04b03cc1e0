"""`F`: conditions are written as Python, and what Python would make of them by itself is refused."""

from __future__ import annotations

import datetime as dt
import operator
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest

import vecdb
from vecdb import F
from vecdb.errors import InvalidArgument
from vecdb.filters.forms import to_filter
from vecdb.filters.tree import And, Compare, Contains, In, IsNull, Like, Not, Or, Prefix


def test_every_operator_and_method() -> None:
    equal, two = Compare("x", "==", 1), (Compare("x", ">=", 1), Compare("x", "<=", 2))
    assert [F.x == 1, F.x != 1, F.x == None, F.x != None] == [equal, Not(equal), IsNull("x"), Not(IsNull("x"))]  # noqa: E711
    assert [F.x < 1, F.x <= 1, F.x > 1, F.x >= 1] == [Compare("x", op, 1) for op in ("<", "<=", ">", ">=")]  # type: ignore[arg-type]
    reflected = [
        operator.gt(1, F.x),
        operator.ge(1, F.x),
        operator.lt(1, F.x),
        operator.le(1, F.x),
        operator.eq(1, F.x),
    ]
    assert reflected == [F.x < 1, F.x <= 1, F.x > 1, F.x >= 1, F.x == 1]
    assert F.x.between(1, 2) == And(two)
    assert F.x.is_in([1, 2]) == F.x.in_((1, 2)) == In("x", (1, 2)) == ~F.x.not_in([1, 2])
    assert F.x.is_in([1, None]) == Or((In("x", (1,)), IsNull("x"))) and F.x.is_in([None]) == IsNull("x")
    assert F.x.not_in([1, None]) == Not(Or((In("x", (1,)), IsNull("x"))))
    assert F.x.exists() == ~F.x.is_null() == Not(IsNull("x"))
    assert F.x.prefix("a") == F.x.startswith("a") == Prefix("x", "a") and F.x.like("a%") == Like("x", "a%")
    assert F.x.contains(1) == F.x.contains_any([1]) == F.x.contains_all([1]) == Contains("x", (1,), False)
    assert F.x.contains_all([1, 2]) == Contains("x", (1, 2), True) != F.x.contains_any([1, 2])
    assert (F.x == 1) & (F.y == 2) | ~(F.z == 3) == Or((And((equal, F.y == 2)), F.z != 3))
    assert (F["meta.author"] < "b") == Compare("meta.author", "<", "b")


def test_values_of_numpy_pandas_and_polars_stand_on_either_side() -> None:
    assert (np.int64(3) < F.x) == (F.x > np.int64(3)) == Compare("x", ">", 3)
    assert (np.float32(0.5) == F.x) == (F.x == 0.5)
    time = pd.Timestamp("2020-01-31")
    assert (time <= F.x) == (F.x >= time) == Compare("x", ">=", dt.datetime(2020, 1, 31))
    assert (np.datetime64("2020-01-31") > F.x) == Compare("x", "<", dt.date(2020, 1, 31))
    wanted = In("x", (1, 2))
    for values in (
        np.array([1, 2]),
        pd.Series([1, 2]),
        pl.Series([1, 2]),
        range(1, 3),
        {1: 0, 2: 0}.keys(),
        iter([1, 2]),
    ):
        assert F.x.is_in(values) == wanted
    assert F.x.is_in(np.array(["a", "b"])) == F.x.is_in(np.array(["a", "b"], object)) == In("x", ("a", "b"))
    assert F.x.is_in(np.array(["2020-01-31"], "M8[D]")) == In("x", (dt.date(2020, 1, 31),))
    assert F.x.contains_any({"a"}) == F.x.contains("a")


@pytest.mark.parametrize(
    ("use", "hint"),
    [
        (lambda: bool(F.x == 1), "& (and)"),
        (lambda: F.x == 1 and F.y == 2, "& (and)"),
        (lambda: F.x == 1 or F.y == 2, "& (and)"),
        (lambda: not F.x, "& (and)"),
        (lambda: 1 < F.x < 3, "& (and)"),
        (lambda: F.x in [1, 2], "is_in"),
        (lambda: 1 in F.x, "contains"),
        (lambda: F.x == 1 & F.y == 2, "in parentheses"),
        (lambda: F.x & (F.y == 2), "in parentheses"),
        (lambda: (F.y == 2) & F.x, "in parentheses"),
        (lambda: (F.y == 2) | True, "in parentheses"),
        (lambda: True & (F.y == 2), "in parentheses"),
        (lambda: ~F.x, "in parentheses"),
        (lambda: F.x == F.y, "a Field"),
        (lambda: F.x == [1], "is_in"),
        (lambda: F.x > None, "is null"),
        (lambda: F.x.between(1, None), "is null"),
        (lambda: F.x.is_in("abc"), "a list of values"),
        (lambda: F.x(1), "is a field"),
        (lambda: F[1], "must be a string"),
        (lambda: to_filter(F.x), "alone"),
        (lambda: to_filter(F.x == 1, {"a": 1}), "filter_params"),
        (lambda: to_filter([F.x == 1]), "filter must be"),
        (lambda: to_filter(True), "filter must be"),
        (lambda: to_filter("x = 1", [1]), "filter_params"),
        (lambda: to_filter(None, {"a": 1}), "filter_params"),
    ],
)
def test_what_means_something_else_in_python_is_refused(use: Callable[[], Any], hint: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        use()
    assert hint in str(caught.value)


def test_names_are_no_methods_and_a_wrong_method_is_named() -> None:
    with pytest.raises(AttributeError, match=r"did you mean is_in\?.*F\[.lang.isin.\]"):
        F.lang.isin(["en"])
    with pytest.raises(AttributeError, match="nested field"):
        F.meta.author
    with pytest.raises(AttributeError):
        F.__wrapped__
    with pytest.raises(TypeError):
        iter(F)  # type: ignore[call-overload]
    with pytest.raises(TypeError):
        hash(F.x)
    assert not hasattr(F.x, "__array__") and not hasattr(F.x, "dtype")
    assert [str(F.x), repr(F["odd name"]), repr(F)] == ["F.x", "F['odd name']", "F"]
    assert vecdb.F is F


def test_no_filter_is_none() -> None:
    assert to_filter(None) is to_filter({}) is to_filter(None, {}) is None
    assert to_filter(F.x == 1) == to_filter("x = 1") == to_filter({"x": 1}) == Compare("x", "==", 1)
