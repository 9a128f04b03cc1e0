"""Filters as the dicts that frameworks pass: what each means, and errors that say where in the dict."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pytest

from vecdb import F
from vecdb.errors import InvalidArgument, LimitExceeded
from vecdb.filters.dicts import filter_to_dict
from vecdb.filters.forms import to_filter
from vecdb.filters.tree import And, Compare, Contains, In, IsNull, Not, Or

EN = Compare("lang", "==", "en")


@pytest.mark.parametrize(
    ("given", "tree"),
    [
        ({"lang": "en"}, EN),
        ({"lang": None}, IsNull("lang")),
        ({"lang": "en", "year": 2020}, EN & (F.year == 2020)),
        ({"year": {"$gte": 2020, "$lt": 2024}}, (F.year >= 2020) & (F.year < 2024)),
        ({"year": {"$gt": 1}}, F.year > 1),
        ({"year": {"$lte": dt.date(2020, 1, 31)}}, F.year <= dt.date(2020, 1, 31)),
        ({"a": {"$eq": 1}}, F.a == 1),
        ({"a": {"$ne": 1}}, F.a != 1),
        ({"a": {"$ne": None}}, F.a.exists()),
        ({"a": {"$in": [1, 2]}}, In("a", (1, 2))),
        ({"a": {"$in": [1, None]}}, Or((In("a", (1,)), IsNull("a")))),
        ({"a": {"$nin": (1, 2)}}, F.a.not_in([1, 2])),
        ({"a": {"$exists": True}}, F.a.exists()),
        ({"a": {"$exists": False}}, F.a.is_null()),
        ({"a": {"$between": [1, 2]}}, F.a.between(1, 2)),
        ({"a": {"$like": "x%"}}, F.a.like("x%")),
        ({"a": {"$prefix": "x"}}, F.a.prefix("x")),
        ({"a": {"$contains": 1}}, F.a.contains(1)),
        ({"a": {"$not_contains": 1}}, ~F.a.contains(1)),
        ({"a": {"$contains_any": [1, 2]}}, F.a.contains_any([1, 2])),
        ({"a": {"$any": [1, 2]}}, F.a.contains_any([1, 2])),
        ({"a": {"$all": [1, 2]}}, F.a.contains_all([1, 2])),
        ({"a": {"$contains_all": [1, 2]}}, F.a.contains_all([1, 2])),
        ({"a": {"$not": {"$gte": 1, "$lt": 2}}}, ~((F.a >= 1) & (F.a < 2))),
        ({"$and": [{"a": 1}, {"b": {"$lt": 2}}]}, (F.a == 1) & (F.b < 2)),
        ({"$or": [{"a": 1, "b": 2}, {"c": 3}]}, ((F.a == 1) & (F.b == 2)) | (F.c == 3)),
        ({"$nor": [{"a": 1}, {"b": 2}]}, ~((F.a == 1) | (F.b == 2))),
        ({"$not": {"a": 1}}, F.a != 1),
        ({"a": 1, "$or": [{"b": 2}, {"$and": [{"c": 3}, {"d": 4}]}]},
         (F.a == 1) & ((F.b == 2) | ((F.c == 3) & (F.d == 4)))),
        ({"$and": []}, And(())),
        ({"$or": []}, Or(())),
        ({"$or": [{"field": "a", "operator": ">", "value": 1}, {"b": 1}]}, (F.a > 1) | (F.b == 1)),
        ({"meta.author": "x"}, Compare("meta.author", "==", "x")),
        ({"field": "biology"}, Compare("field", "==", "biology")),  # fields that are called like parts of a condition
        ({"value": 1}, Compare("value", "==", 1)),
        ({"operator": "AT&T", "year": 1}, (F.operator == "AT&T") & (F.year == 1)),
        ({"field": "a", "operator": "==", "value": 1}, F.a == 1),
        ({"field": "a", "operator": "!=", "value": None}, F.a.exists()),
        ({"field": "a", "operator": "<", "value": None}, Or(())),
        ({"field": "a", "operator": "in", "value": []}, In("a", ())),
        ({"field": "a", "operator": "contains all", "value": ["x", "y"]}, Contains("a", ("x", "y"), True)),
        ({"field": "a", "operator": "contains", "value": "x"}, F.a.contains("x")),
        ({"operator": "NOT", "conditions": [{"field": "a", "operator": "==", "value": 1},
                                            {"field": "b", "operator": "==", "value": 2}]},
         Not((F.a == 1) & (F.b == 2))),
        ({"operator": "or", "conditions": []}, Or(())),
    ],
)  # fmt: skip
def test_what_a_dict_means(given: Any, tree: Any) -> None:
    found = to_filter(given)
    assert found == tree
    assert found is not None and to_filter(filter_to_dict(found)) == tree


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"year": {"$gtee": 1}}, "filter['year']: the operator '$gtee' is unknown (did you mean $gte?)"),
        ({"year": {"$regex": "x"}}, "(did you mean $like?); known are $eq, $ne"),
        ({"$ro": []}, "filter.$ro: the operator '$ro' is unknown (did you mean $or?)"),
        ({"$gte": 1}, "filter.$gte belongs to a field"),
        ({"$or": {"a": 1}}, "filter.$or must be a list"),
        ({"$or": [{"a": 1}, 3]}, "filter.$or[1] must be a dict"),
        ({"$and": [{"a": 1}, {"$or": [{"b": {"$lt": None}}]}]}, "filter.$and[1].$or[0]['b'].$lt: field 'b' cannot be"),
        ({"$not": [1]}, "filter.$not must be a dict"),
        ({"a": {"$not": 1}}, "filter['a'].$not must be a dict"),
        ({"a": {}}, "empty dict"),
        ({"a": {"b": 1}}, "a nested field is named by its path, 'a.b'"),
        ({"a": {"$gt": 1, "b": 1}}, "path, 'a.b'"),
        ({"a": {1: 2}}, "the operator 1 is unknown"),
        ({"a": [1, 2]}, "write {'$in': [...]}"),
        ({"must_not": [{"key": "a", "match": {"value": 1}}]}, "Qdrant's form, which is not read here: write {'$nor'"),
        ({"a": {"$in": 3}}, "filter['a'].$in: field 'a' needs a list"),
        ({"a": {"$eq": [3]}}, "cannot be compared with a list"),
        ({"a": {"$exists": 1}}, "$exists is True or False"),
        ({"a": {"$between": [1]}}, "a list of two values"),
        ({1: 2}, "the key 1"),
        ({"a": float("nan")}, "NaN"),
        ({"operator": "AND"}, "filter has no 'conditions', it has 'operator'"),
        ({"conditions": []}, "filter has no 'operator'"),
        ({"field": "a", "value": 1}, "filter has no 'operator', it has 'field', 'value'"),
        ({"field": "a", "operator": "=="}, "filter has no 'value'"),
        ({"operator": "==", "value": 1}, "filter has no 'conditions'"),
        ({"field": "a", "operator": "==", "value": 1, "conditions": []}, "a condition has"),
        ({"operator": "AND", "conditions": [{"field": "a", "operator": "==", "value": 1}, {"a": 1}]},
         "filter.conditions[1] must be a dict of field, operator and value, got 'a'"),
        ({"operator": "AND", "conditions": {"a": 1}}, "filter.conditions must be a list"),
        ({"operator": "XOR", "conditions": []}, "'XOR' is unknown (did you mean OR?)"),
        ({"operator": None, "conditions": []}, "the operator None is unknown"),
        ({"field": "a", "operator": "=>", "value": 1}, "the operator '=>' is unknown (did you mean >=?)"),
        ({"field": "a", "operator": ["=="], "value": 1}, "is unknown"),
        ({"field": 1, "operator": "==", "value": 1}, "a field name must be a string"),
        ({"field": "a", "operator": "in", "value": (1, 2)}, "in and not in want a list, got a tuple"),
        ({"field": "a", "operator": "not in", "value": 9}, "in and not in want a list, got 9"),
        ({"field": "a", "operator": ">", "value": [1]}, "cannot be compared with a list"),
    ],
)  # fmt: skip
def test_errors_say_where_in_the_dict(given: Any, said: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        to_filter(given)
    assert said in str(caught.value)


def test_dicts_that_nest_deep_or_repeat_themselves_are_refused_early() -> None:
    by_field: Any = {"a": 1}
    by_name: Any = {"field": "a", "operator": "==", "value": 1}
    of_field: Any = {"$gt": 1}
    for _ in range(10_000):
        by_field = {"$and": [by_field]}
        by_name = {"operator": "NOT", "conditions": [by_name]}
        of_field = {"$not": of_field}
    for deep in (by_field, by_name, {"a": of_field}):
        with pytest.raises(LimitExceeded, match="nests at most 64"):
            to_filter(deep)
    wide: Any = {"a": 1}
    for _ in range(30):
        wide = {"$or": [wide, wide]}
    with pytest.raises(LimitExceeded, match="4,096 conditions"):
        to_filter(wide)
    loop: dict[str, Any] = {}
    loop["$and"] = [loop]
    with pytest.raises(LimitExceeded, match="nests at most"):
        to_filter(loop)
