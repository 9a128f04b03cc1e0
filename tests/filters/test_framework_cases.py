"""What the tests of frameworks ask of filters, over a list of dicts: Haystack's dicts by name, with its rules of None,
of types that do not compare and of malformed conditions; Chroma's and Pinecone's dicts by field.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from typing import Any

import pytest

from vecdb.errors import InvalidArgument
from vecdb.filters.evaluate import check_orders, matcher, value_at
from vecdb.filters.forms import to_filter

Record = dict[str, Any]

SHELF: list[Record] = [
    {
        "content": f"{kind} {at}",
        "meta": {"title": f"book {at}", "pages": pages, "size": size, "printed": printed},
    }
    for kind, pages, size, printed in (
        ("novel", "310", 4, "1951-03-01T08:15:00"),
        ("atlas", "96", -4, "1968-12-24T19:30:10"),
        ("diary", "12", -9, "1990-10-03T00:00:00"),
    )
    for at in range(3)
] + [{"content": f"leaflet {at}", "meta": {"title": f"book {at}", "loose": True}} for at in range(3)]


def types_of(records: list[Record]) -> Callable[[str], set[str]]:
    names = {bool: "bool", int: "int", float: "float", str: "str", list: "list", dict: "map"}
    return lambda name: {names[type(value)] for one in records if (value := value_at(one, name)) is not None}


def select(filters: Any, records: list[Record] = SHELF) -> list[Record]:
    tree = to_filter(filters)
    if tree is None:
        return records
    check_orders(tree, types_of(records))
    match = matcher(tree)
    return [record for record in records if match(record)]


def size_of(record: Record) -> Any:
    return record["meta"].get("size")


def where(test: Callable[[Record], bool]) -> list[Record]:
    return [record for record in SHELF if test(record)]


def by_name(operator: str, value: Any, field: str = "meta.size") -> Record:
    return {"field": field, "operator": operator, "value": value}


def test_no_filter_selects_everything() -> None:
    assert select(None) == select({}) == SHELF and select({}, []) == []


@pytest.mark.parametrize("number", [4, 100])
def test_equality_and_its_complement(number: int) -> None:
    assert select(by_name("==", number)) == where(lambda one: size_of(one) == number)
    assert select(by_name("!=", number)) == where(lambda one: size_of(one) != number)


def test_equality_with_none_finds_what_is_missing() -> None:
    assert select(by_name("==", None)) == where(lambda one: size_of(one) is None) != []
    assert select(by_name("!=", None)) == where(lambda one: size_of(one) is not None) != []


@pytest.mark.parametrize(
    ("operator", "keep"),
    [
        ("<", lambda one, bound: one < bound),
        ("<=", lambda one, bound: one <= bound),
        (">", lambda one, bound: one > bound),
        (">=", lambda one, bound: one >= bound),
    ],
)
def test_orders(operator: str, keep: Callable[[Any, Any], bool]) -> None:
    for bound in (0, 3, -4):
        expected = where(lambda one, bound=bound: size_of(one) is not None and keep(size_of(one), bound))
        assert select(by_name(operator, bound)) == expected != []
    for text in ("1968-12-24T19:30:10", "1960-01-01"):
        time = dt.datetime.fromisoformat(text)
        for given in (text, time, time.replace(tzinfo=dt.UTC)):
            chosen = select(by_name(operator, given, "meta.printed"))
            assert chosen == where(
                lambda one, time=time: (
                    "printed" in one["meta"] and keep(dt.datetime.fromisoformat(one["meta"]["printed"]), time)
                )
            )
    assert select(by_name(operator, None)) == []
    for wrong in ("1", [1], [], True, b"1", dt.date(1960, 1, 1)):
        with pytest.raises(InvalidArgument, match=r"meta\.size"):
            select(by_name(operator, wrong))
    with pytest.raises(InvalidArgument, match=r"meta\.pages"):
        select(by_name(operator, 100, "meta.pages"))  # they are texts


def test_membership() -> None:
    assert select(by_name("in", [4, -9, 77])) == where(lambda one: size_of(one) in (4, -9)) != []
    assert select(by_name("not in", [4, -9, 77])) == where(lambda one: size_of(one) not in (4, -9)) != []
    assert select(by_name("in", [])) == [] and select(by_name("not in", [])) == SHELF
    for operator in ("in", "not in"):
        for wrong in (4, (4, -9), "4", None, {4}):
            with pytest.raises(InvalidArgument, match="want a list"):
                select(by_name(operator, wrong))


def test_and_or_and_not_of_several() -> None:
    pair = [by_name("==", -4), by_name("==", "book 0", "meta.title")]
    small, first = (lambda one: size_of(one) == -4), (lambda one: one["meta"]["title"] == "book 0")
    assert select({"operator": "AND", "conditions": pair}) == where(lambda one: small(one) and first(one)) != []
    assert select({"operator": "OR", "conditions": pair}) == where(lambda one: small(one) or first(one)) != []
    assert select({"operator": "NOT", "conditions": pair}) == where(lambda one: not (small(one) and first(one)))


@pytest.mark.parametrize(
    "malformed",
    [
        {"conditions": [by_name("==", 1)]},
        {"operator": "AND"},
        {"operator": "AND", "conditions": [{"operator": "==", "value": 1}]},
        {"operator": "AND", "conditions": [{"field": "meta.size", "value": 1}]},
        {"operator": "AND", "conditions": [{"field": "meta.size", "operator": "=="}]},
        {"field": "meta.size", "operator": "AND", "value": 1},
        {"operator": "==", "conditions": [by_name("==", 1)]},
    ],
)
def test_malformed_conditions_are_refused(malformed: Record) -> None:
    with pytest.raises(InvalidArgument):
        select(malformed)


def test_dicts_by_field() -> None:
    assert select({"meta.size": 4}) == select({"meta.size": {"$eq": 4}}) == where(lambda one: size_of(one) == 4)
    ranged = {"$and": [{"meta.size": {"$gte": -4}}, {"meta.size": {"$lt": 4}}]}
    assert select(ranged) == select({"meta.size": {"$gte": -4, "$lt": 4}}) == where(lambda one: size_of(one) == -4)
    assert select({"meta.loose": True}) == select({"meta.size": {"$exists": False}}) == SHELF[-3:]
    assert select({"meta.size": {"$nin": [4, -4]}}) == where(lambda one: size_of(one) not in (4, -4))
    either = {"$or": [{"meta.title": "book 1"}, {"meta.size": {"$gt": 0}}]}
    assert select(either) == where(lambda one: one["meta"]["title"] == "book 1" or (size_of(one) or 0) > 0)
    with pytest.raises(InvalidArgument, match="None"):
        select({"meta.size": {"$gt": None}})
