"""Filters and values on the wire: what is read is what was written, and hostile messages end with typed errors before
they cost anything.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from typing import Any

import pytest
from google.protobuf.message import DecodeError
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.filters.filter_trees import scalars, trees
from vecdb import F, InvalidArgument, LimitExceeded, limits
from vecdb.filters import tree
from vecdb.v1 import common_pb2 as pb
from vecdb.v1 import search_pb2
from vecdb.wire.filters import (
    filter_message,
    filter_of,
    filters_each_message,
    filters_each_of,
    value_message,
    value_of,
    values_message,
    values_of,
)


def sent(message: Any) -> Any:
    return type(message).FromString(message.SerializeToString())


def exact(values: Any) -> list[tuple[type, Any, str]]:
    """Values with what == does not tell apart."""
    return [(type(value), value, repr(value)) for value in values]


@settings(max_examples=150, deadline=None)
@given(trees())
def test_a_tree_that_was_sent_is_the_same_tree(node: tree.Node) -> None:
    found = filter_of(sent(filter_message(node)))
    assert found == node and hash(found) == hash(node) and str(found) == str(node)


@settings(max_examples=100, deadline=None)
@given(st.lists(scalars(), max_size=12), st.lists(st.text(max_size=4) | st.binary(max_size=3), max_size=12))
def test_values_that_were_sent_are_the_same_values(some: list[Any], others: list[Any]) -> None:
    plain = [value.astimezone(dt.UTC) if getattr(value, "tzinfo", None) else value for value in [*some, *others]]
    assert exact(values_of(sent(values_message(plain)))) == exact(plain)
    assert exact(value_of(sent(value_message(value))) for value in plain) == exact(plain)


def test_a_filter_for_each_query_is_sent_once_where_it_repeats() -> None:
    nodes = [F.a == 1, None, F.a == 1, F.b == "x", None, F.a == True]  # noqa: E712
    message = sent(filters_each_message(nodes))
    assert len(message.filters) == 4 and filters_each_of(message, 6) == nodes
    for broken, says in (
        (search_pb2.QueryFilters(filters=message.filters, which=[0, 1]), "3 queries"),
        (search_pb2.QueryFilters(filters=message.filters, which=[0, 1, 4]), "names filter 4, and there are 4"),
    ):
        with pytest.raises(InvalidArgument, match=says):
            filters_each_of(broken, 3)


def test_an_empty_message_is_no_filter_and_an_expression_is_a_whole_one() -> None:
    assert filter_of(pb.Filter()) is None
    assert filter_of(pb.Filter(expression="lang = 'en' and year >= 2020")) == (F.lang == "en") & (F.year >= 2020)
    assert filter_of(pb.Filter(operator=pb.FILTER_OPERATOR_AND)) == tree.And(())


def test_many_values_are_few_messages() -> None:
    texts = [f"value {at}" for at in range(200_000)]
    message = filter_message(F.a.is_in(texts))
    assert message is not None and len(message.values.runs) == 1
    assert filter_of(sent(message)) == F.a.is_in(texts)


EQUAL, IN, NOT, AND = (getattr(pb, f"FILTER_OPERATOR_{name}") for name in ("EQUAL", "IN", "NOT", "AND"))
ONE = pb.FieldValue(int_value=1)


def in_run(**kind: Any) -> pb.Filter:
    return pb.Filter(operator=IN, field="a", values=pb.FieldValues(runs=[pb.ValueRun(**kind)]))


def nested(depth: int, operator: Any = NOT) -> pb.Filter:
    message = pb.Filter(operator=EQUAL, field="a", value=ONE)
    for at in range(depth):
        other = pb.Filter(operator=EQUAL, field=f"f{at}", value=ONE)
        if operator == NOT:
            message = pb.Filter(operator=NOT, terms=[pb.Filter(operator=AND, terms=[message, other])])
        else:
            message = pb.Filter(operator=pb.FILTER_OPERATOR_OR if at % 2 else AND, terms=[message, other])
    return message


REFUSED: dict[str, tuple[Callable[[], pb.Filter], type[Exception], str]] = {
    "no operator": (lambda: pb.Filter(field="a", value=ONE), InvalidArgument, "unknown operator 0"),
    "unknown operator": (lambda: pb.Filter(operator=99, field="a"), InvalidArgument, "unknown operator 99"),  # type: ignore[arg-type]
    "empty term": (lambda: pb.Filter(operator=AND, terms=[pb.Filter()]), InvalidArgument, "unknown operator"),
    "expression and more": (lambda: pb.Filter(expression="a = 1", field="a"), InvalidArgument, "not both"),
    "expression inside": (
        lambda: pb.Filter(operator=NOT, terms=[pb.Filter(expression="a = 1")]),
        InvalidArgument,
        "operator",
    ),
    "broken expression": (lambda: pb.Filter(expression="a = "), InvalidArgument, "column 5"),
    "long expression": (lambda: pb.Filter(expression="a = 1 or " * 9_000 + "a = 1"), LimitExceeded, "65,536 bytes"),
    "no value": (lambda: pb.Filter(operator=EQUAL, field="a"), InvalidArgument, "IS_NULL"),
    "terms of a comparison": (
        lambda: pb.Filter(operator=EQUAL, field="a", value=ONE, terms=[pb.Filter()]),
        InvalidArgument,
        "terms is set",
    ),
    "not of two": (lambda: pb.Filter(operator=NOT, terms=[nested(0)] * 2), InvalidArgument, "one term"),
    "not a number": (
        lambda: pb.Filter(operator=EQUAL, field="a", value=pb.FieldValue(double_value=float("nan"))),
        InvalidArgument,
        "NaN",
    ),
    "like of a number": (
        lambda: pb.Filter(operator=pb.FILTER_OPERATOR_LIKE, field="a", value=ONE),
        InvalidArgument,
        "must be a text",
    ),
    "a long pattern": (
        lambda: pb.Filter(
            operator=pb.FILTER_OPERATOR_LIKE, field="a", value=pb.FieldValue(string_value="x%" * 600)
        ),
        LimitExceeded,
        "pattern",
    ),
    "run without a type": (in_run, InvalidArgument, "no type"),
    "lengths too long": (
        lambda: in_run(strings=pb.TextValues(text="abc", lengths=[2, 2])), InvalidArgument, "lengths of 4",
    ),
    "lengths too short": (
        lambda: in_run(byte_strings=pb.ByteValues(data=b"abc", lengths=[2])), InvalidArgument, "lengths of 2",
    ),
    "half a character": (
        lambda: in_run(strings=pb.TextValues(text="é", lengths=[1, 1])), InvalidArgument, "in two",
    ),
    "far date": (lambda: in_run(dates=pb.IntValues(values=[2**62])), InvalidArgument, "years 1 to 9999"),
    "far time": (lambda: in_run(instants=pb.IntValues(values=[-(2**63)])), InvalidArgument, "years 1 to 9999"),
    "no int": (lambda: in_run(large_ints=pb.TextValues(text="1_0", lengths=[3])), InvalidArgument, "digits"),
    "a longer int": (
        lambda: in_run(large_ints=pb.TextValues(text="9" * 310, lengths=[310])), LimitExceeded, "1,024",
    ),
    "an endless int": (
        lambda: in_run(large_ints=pb.TextValues(text="9" * 1_000_000, lengths=[1_000_000])), InvalidArgument, "digits",
    ),
    "too many ints": (
        lambda: in_run(ints=pb.IntValues(values=[1] * (limits.filter_values_max + 1))), LimitExceeded, "1,000,000",
    ),
    "too many bools": (
        lambda: in_run(bools=pb.BoolValues(values=[True] * (1 << 21))), LimitExceeded, "1,000,000",
    ),
    "ints of one hash": (
        lambda: values_of_one_hash(200_000), LimitExceeded, "beyond 64 bits",
    ),
    "too deep": (lambda: nested(64, AND), LimitExceeded, "64 deep"),
    "too many terms": (
        lambda: pb.Filter(
            operator=AND, terms=[pb.Filter(operator=EQUAL, field=f"f{at}", value=ONE) for at in range(5_000)]
        ),
        LimitExceeded,
        "4,096",
    ),
    "too many of one term": (
        lambda: pb.Filter(operator=AND, terms=[nested(0)] * 100_000), LimitExceeded, "4,096",
    ),
}  # fmt: skip


def values_of_one_hash(count: int) -> pb.Filter:
    texts = [str(at * (2**61 - 1)) for at in range(9, 9 + count)]
    return in_run(large_ints=pb.TextValues(text="".join(texts), lengths=[len(one) for one in texts]))


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_no_filter_is_refused_with_what_is_wrong(case: str) -> None:
    make, error, says = REFUSED[case]
    with pytest.raises(error, match=says):
        filter_of(sent(make()))


def test_the_deepest_tree_passes_the_parser_within_the_deepest_request_and_a_deeper_one_ends_there() -> None:
    node = filter_of(nested(limits.filter_depth_max - 1, AND))
    assert node is not None and node.size.depth == limits.filter_depth_max
    each = search_pb2.QueryFilters(filters=[filter_message(node)], which=[0])
    request = search_pb2.StreamSearchRequest(search=search_pb2.SearchRequest(filters_each=each))
    assert filters_each_of(sent(request).search.filters_each, 1) == [node]
    with pytest.raises(DecodeError):
        sent(nested(10_000, AND))
