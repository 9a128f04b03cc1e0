"""What a filter means: whether a record's fields match it.

Columns and kernels must answer as this does; it is also how records are filtered where there is no column.

Names      a field whose whole name is asked for comes first, whatever its value. Else the name is a path: of the fields
           that are maps and whose name begins the path, the shortest is followed first, and so on inside it.
Missing    and None are the same. A comparison with them is false, and Not is the complement: `!=` finds them too.
Numbers    int and float compare as exact numbers: 2**53 + 1 is not 2.0**53. NaN equals nothing and has no order.
           A bool is no number; False is before True.
Texts      compare by code point, bytes by byte.
Times      a date is its midnight; a time without a zone is in UTC. Where one side is a date or datetime and the other a
           text in ISO form (2020-01-31, 2020-01-31T10:30:00.5+01:00), the text is read as a time. Two texts are texts.
Lists      equal no value and have no order; `contains` looks into them, with the equality of `==`. A single value
           counts as a list of one. Maps equal nothing and contain nothing.
"""

from __future__ import annotations

import datetime as dt
import operator
import re
from collections.abc import Callable, Collection, Mapping
from typing import Any

from vecdb.errors import InvalidArgument
from vecdb.filters.scalars import Scalar, shown
from vecdb.filters.times import moment, text_moment
from vecdb.filters.tree import And, Compare, Contains, In, IsNull, Like, Node, Not, Or, Prefix, leaves, like_pieces
from vecdb.validate.common import short_repr

Fieldset = Mapping[str, Any]
Test = Callable[[Any], bool]  # of one stored value

TYPES = ("bool", "int", "float", "str", "bytes", "date", "datetime", "list", "map")

_OPERATORS = {"==": operator.eq, "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge}


def matches(tree: Node, fields: Fieldset) -> bool:
    """Whether a record with these fields, as `decode_fields` gives them, matches."""
    return matcher(tree)(fields)


def matcher(tree: Node) -> Callable[[Fieldset], bool]:
    """`matches` for one tree and many records: what takes time is prepared once."""
    if isinstance(tree, And):
        terms = [matcher(term) for term in tree.terms]
        return lambda fields: all(term(fields) for term in terms)
    if isinstance(tree, Or):
        terms = [matcher(term) for term in tree.terms]
        return lambda fields: any(term(fields) for term in terms)
    if isinstance(tree, Not):
        term = matcher(tree.term)
        return lambda fields: not term(fields)
    test = value_test(tree)
    name: str = tree.field  # type: ignore[attr-defined]
    return lambda fields: test(value_at(fields, name))


def value_at(fields: Fieldset, name: str) -> Any:
    """The value of a field or path; None where there is none."""
    return _found(fields, name)[1]


def _found(fields: Fieldset, name: str) -> tuple[bool, Any]:
    if name in fields:
        return True, fields[name]
    if "." in name:
        heads = [key for key, value in fields.items() if isinstance(value, dict) and name.startswith(key + ".")]
        for head in sorted(heads, key=len):
            there, value = _found(fields[head], name[len(head) + 1 :])
            if there:
                return True, value
    return False, None


def value_test(leaf: Node) -> Test:
    """The test of a condition on one field, for the value that `value_at` gives."""
    if isinstance(leaf, Compare):
        return _comparison(leaf.op, leaf.value)
    if isinstance(leaf, In):
        return Values(leaf.values).has
    if isinstance(leaf, IsNull):
        return lambda value: value is None
    if isinstance(leaf, Prefix):
        text = leaf.text
        return lambda value: isinstance(value, str) and value.startswith(text)
    if isinstance(leaf, Like):
        like = like_test(leaf.pattern)
        return lambda value: isinstance(value, str) and like(value)
    assert isinstance(leaf, Contains), leaf
    return _containment(leaf)


# -- comparisons -----------------------------------------------------------------------------------


def _comparison(op: str, wanted: Scalar) -> Test:
    compare = _OPERATORS[op]
    if isinstance(wanted, bool):
        return lambda value: isinstance(value, bool) and compare(value, wanted)
    if isinstance(wanted, (int, float)):
        return lambda value: isinstance(value, (int, float)) and not isinstance(value, bool) and compare(value, wanted)
    if isinstance(wanted, bytes):
        return lambda value: isinstance(value, bytes) and compare(value, wanted)
    if isinstance(wanted, str):
        named = text_moment(wanted)

        def of_text(value: Any) -> bool:
            if isinstance(value, str):
                return bool(compare(value, wanted))
            return named is not None and isinstance(value, dt.date) and bool(compare(moment(value), named))

        return of_text
    there = moment(wanted)

    def of_moment(value: Any) -> bool:
        here = moment(value) if isinstance(value, dt.date) else text_moment(value) if isinstance(value, str) else None
        return here is not None and bool(compare(here, there))

    return of_moment


class Values:
    """A set of values, with the equality of `==`."""

    __slots__ = ("_bools", "_plain", "_times", "_times_of_any")

    def __init__(self, values: Collection[Scalar]) -> None:
        times = {moment(value) for value in values if isinstance(value, dt.date)}
        named = (text_moment(value) for value in values if isinstance(value, str))
        self._bools = {value for value in values if isinstance(value, bool)}
        self._plain = {value for value in values if not isinstance(value, (bool, dt.date))}
        self._times = times
        self._times_of_any = times | {time for time in named if time is not None}

    def has(self, value: Any) -> bool:
        if isinstance(value, str):
            return value in self._plain or (bool(self._times) and text_moment(value) in self._times)
        if isinstance(value, bool):
            return value in self._bools
        if isinstance(value, (int, float, bytes)):
            return value in self._plain
        return isinstance(value, dt.date) and moment(value) in self._times_of_any


def _containment(leaf: Contains) -> Test:
    if not leaf.every:
        has = Values(leaf.values).has
        return lambda value: any(map(has, value)) if isinstance(value, list) else has(value)
    each = [_comparison("==", wanted) for wanted in leaf.values]

    def holds_each(value: Any) -> bool:
        if value is None or isinstance(value, dict):
            return False
        there = value if isinstance(value, list) else [value]
        return all(any(map(equal, there)) for equal in each)

    return holds_each


def like_test(pattern: str) -> Callable[[str], bool]:
    """The test of a `like` pattern. Every run between two % has a fixed length, so that the first place where it fits
    is the right one, and the time is at most the text's length times the pattern's.
    """
    runs, lengths = [""], [0]
    for piece in like_pieces(pattern):
        if piece is None:
            runs.append("")
            lengths.append(0)
        else:
            runs[-1] += re.escape(piece) if piece else "."
            lengths[-1] += len(piece) or 1
    compiled = [re.compile(run, re.DOTALL) for run in runs]
    if len(compiled) == 1:
        return lambda text: compiled[0].fullmatch(text) is not None
    first, *middle, last = compiled

    def test(text: str) -> bool:
        found = first.match(text)
        end = len(text) - lengths[-1]  # where the last run begins
        for run in middle:
            found = found and run.search(text, found.end(), max(end, 0))
        return found is not None and found.end() <= end and last.match(text, end) is not None

    return test


# -- types -----------------------------------------------------------------------------------------


def ordered_types(value: Scalar) -> tuple[str, ...]:
    """The types of stored values that have an order with `value`."""
    if isinstance(value, bool):
        return ("bool",)
    if isinstance(value, (int, float)):
        return ("int", "float")
    if isinstance(value, bytes):
        return ("bytes",)
    if isinstance(value, str):
        return ("str",) if text_moment(value) is None else ("str", "date", "datetime")
    return ("date", "datetime", "str")


def check_orders(tree: Node, types_of: Callable[[str], Collection[str]]) -> None:
    """Refuse an order (< <= > >=) with a value that none of the field's values can be compared with.

    types_of : the types (of `TYPES`) that the values of a field have; nothing for a field that no record has.

    Raises InvalidArgument, which names the field.
    """
    for leaf in leaves(tree):
        if not isinstance(leaf, Compare) or leaf.op == "==":
            continue
        types = set(types_of(leaf.field)) & set(TYPES)
        if types and types.isdisjoint(ordered_types(leaf.value)):
            held = " and ".join(sorted(types))
            hint = "use contains" if types == {"list"} else "compare values of one type"
            raise InvalidArgument(
                f"field {short_repr(leaf.field)} holds {held}, which has no order with {shown(leaf.value)}, a "
                f"{type(leaf.value).__name__}: {hint}"
            )
