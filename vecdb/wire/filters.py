"""Filters and values of fields on the wire.

    tree of a filter        <-> Filter          one message for each node
    trees, one a query      <-> QueryFilters    different ones once, and which of them is whose
    one value               <-> FieldValue
    many values, in order   <-> FieldValues     runs of one type: numbers packed, texts one after another

Whoever sends a filter may be hostile: how many messages, values and bytes are read is bounded before they are made into
anything, and the tree checks itself (filters/tree.py). Messages within messages are bounded by the parser, at 100.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Callable, Iterable, Sequence
from itertools import accumulate, groupby
from typing import Any

from vecdb import limits
from vecdb.errors import InvalidArgument, LimitExceeded
from vecdb.filters import evaluate, tree
from vecdb.filters.parser import parse
from vecdb.filters.times import moment
from vecdb.schema import Facets
from vecdb.v1 import common_pb2 as pb
from vecdb.v1 import records_pb2, search_pb2

Tree = tree.Node
RECORDS_MAX, CURSOR_CHARS_MAX = limits.get_records_max, limits.cursor_chars_max
matches = evaluate.matches

_EXPRESSION_BYTES_MAX = 1 << 16
_NODES_MAX = 8 * limits.filter_terms_max  # messages of one filter: a tree may hold a few more nodes than comparisons
_INT_BITS = 63
_LARGE_INT = re.compile(r"-?[0-9]{1,310}")
_EPOCH_DAY = dt.date(1970, 1, 1).toordinal()
_EPOCH = dt.datetime(1970, 1, 1)
_COMPARISONS = {
    pb.FILTER_OPERATOR_EQUAL: "==",
    pb.FILTER_OPERATOR_LESS: "<",
    pb.FILTER_OPERATOR_LESS_OR_EQUAL: "<=",
    pb.FILTER_OPERATOR_GREATER: ">",
    pb.FILTER_OPERATOR_GREATER_OR_EQUAL: ">=",
}
_COMPARISON_NUMBERS = {op: number for number, op in _COMPARISONS.items()}
_CONTAINS = {pb.FILTER_OPERATOR_CONTAINS_ANY: False, pb.FILTER_OPERATOR_CONTAINS_ALL: True}
_JOINED: dict[pb.FilterOperator, type[tree.Joined]] = {
    pb.FILTER_OPERATOR_AND: tree.And,
    pb.FILTER_OPERATOR_OR: tree.Or,
}

# -- filters ---------------------------------------------------------------------------------------


def filter_message(node: tree.Node | None) -> pb.Filter | None:
    """None where nothing is filtered."""
    return None if node is None else _node_message(node)


def _node_message(node: tree.Node) -> pb.Filter:
    match node:
        case tree.And() | tree.Or():
            number = pb.FILTER_OPERATOR_AND if isinstance(node, tree.And) else pb.FILTER_OPERATOR_OR
            return pb.Filter(operator=number, terms=[_node_message(term) for term in node.terms])
        case tree.Not(term):
            return pb.Filter(operator=pb.FILTER_OPERATOR_NOT, terms=[_node_message(term)])
        case tree.Compare(field, op, value):
            return pb.Filter(operator=_COMPARISON_NUMBERS[op], field=field, value=value_message(value))
        case tree.In(field, values):
            return pb.Filter(operator=pb.FILTER_OPERATOR_IN, field=field, values=values_message(values))
        case tree.Contains(field, values, every):
            number = pb.FILTER_OPERATOR_CONTAINS_ALL if every else pb.FILTER_OPERATOR_CONTAINS_ANY
            return pb.Filter(operator=number, field=field, values=values_message(values))
        case tree.IsNull(field):
            return pb.Filter(operator=pb.FILTER_OPERATOR_IS_NULL, field=field)
        case tree.Prefix(field, text):
            return pb.Filter(operator=pb.FILTER_OPERATOR_PREFIX, field=field, value=pb.FieldValue(string_value=text))
        case tree.Like(field, text):
            return pb.Filter(operator=pb.FILTER_OPERATOR_LIKE, field=field, value=pb.FieldValue(string_value=text))
    raise AssertionError(type(node))


def filter_of(message: pb.Filter) -> tree.Node | None:
    """The tree; None for an empty message, which is no condition. Raises InvalidArgument, LimitExceeded."""
    given = {field.name for field, _ in message.ListFields()}
    if not given:
        return None
    if not message.expression:
        return _FilterReader().node(message, given)
    if given != {"expression"}:
        raise InvalidArgument("a filter is either an expression or an operator with what belongs to it, not both")
    size_bytes = len(message.expression.encode())
    if size_bytes > _EXPRESSION_BYTES_MAX:
        raise LimitExceeded(
            f"a filter's expression has at most {_EXPRESSION_BYTES_MAX:,} bytes, this one has {size_bytes:,}: send the "
            "condition as messages"
        )
    return parse(message.expression, None)


def optional_filter(request: Any) -> tree.Node | None:
    """The filter of a request; None where it has none. request : has a field `filter`."""
    return filter_of(request.filter) if request.HasField("filter") else None


class _FilterReader:
    """Reads one filter, and counts what it has read."""

    def __init__(self) -> None:
        self._nodes = 0
        self._values = 0
        self._large_ints = 0

    def node(self, message: pb.Filter, given: set[str]) -> tree.Node:
        """given : names of the fields that are set."""
        self._nodes += 1
        if self._nodes > _NODES_MAX:
            raise LimitExceeded(
                f"a filter has at most {limits.filter_terms_max:,} conditions: use IN for many values of one field"
            )
        operator = message.operator
        if operator in _JOINED:
            _check_given(message, given, "terms")
            joined: tree.Node = _JOINED[operator](self._terms(message))
            return joined
        if operator == pb.FILTER_OPERATOR_NOT:
            _check_given(message, given, "terms")
            terms = self._terms(message)
            if len(terms) != 1:
                raise InvalidArgument(f"NOT has one term, got {len(terms):,}: combine them with AND or OR")
            complement: tree.Node = tree.Not(terms[0])
            return complement
        return self._comparison(message, operator, given)

    def _terms(self, message: pb.Filter) -> tuple[tree.Node, ...]:
        return tuple(self.node(term, {field.name for field, _ in term.ListFields()}) for term in message.terms)

    def _comparison(self, message: pb.Filter, operator: pb.FilterOperator, given: set[str]) -> tree.Node:
        field = message.field
        if operator in _COMPARISONS:
            _check_given(message, given, "field", "value")
            return tree.Compare(field, _COMPARISONS[operator], self._value(message))  # type: ignore[arg-type]
        if operator == pb.FILTER_OPERATOR_IN:
            _check_given(message, given, "field", "values")
            return tree.In(field, self._list(message.values))
        if operator in _CONTAINS:
            _check_given(message, given, "field", "values")
            return tree.Contains(field, self._list(message.values), _CONTAINS[operator])
        if operator == pb.FILTER_OPERATOR_IS_NULL:
            _check_given(message, given, "field")
            return tree.IsNull(field)
        if operator in (pb.FILTER_OPERATOR_PREFIX, pb.FILTER_OPERATOR_LIKE):
            _check_given(message, given, "field", "value")
            text: Any = self._value(message)
            return tree.Prefix(field, text) if operator == pb.FILTER_OPERATOR_PREFIX else tree.Like(field, text)
        raise InvalidArgument(f"a condition within a filter has the unknown operator {operator}")

    def _value(self, message: pb.Filter) -> Any:
        value = value_of(message.value)
        if value is None:
            name = pb.FilterOperator.Name(message.operator)
            raise InvalidArgument(f"{name} needs a value: null and missing fields are found with IS_NULL")
        self._count(1, isinstance(value, int) and value.bit_length() > _INT_BITS)
        return value

    def _list(self, message: pb.FieldValues) -> tuple[Any, ...]:
        for run in message.runs:
            self._count(_length(run), _length(run) if run.WhichOneof("kind") == "large_ints" else 0)
        return tuple(values_of(message))

    def _count(self, values: int, large_ints: int) -> None:
        self._values += values
        self._large_ints += large_ints
        if self._values > limits.filter_values_max:
            raise LimitExceeded(f"a filter holds at most {limits.filter_values_max:,} values: split it")
        if self._large_ints > limits.filter_large_ints_max:  # such ints can be chosen to have one hash
            raise LimitExceeded(
                f"a filter holds at most {limits.filter_large_ints_max:,} ints beyond 64 bits: use floats, or a range"
            )


def _check_given(message: pb.Filter, given: set[str], *wanted: str) -> None:
    """Raise InvalidArgument where something is set that the operator does not have."""
    rest = given - {"operator", *wanted}
    if rest:
        name = pb.FilterOperator.Name(message.operator)
        raise InvalidArgument(f"{name} has {' and '.join(wanted)}, but {', '.join(sorted(rest))} is set: leave it out")


def filters_each_message(nodes: Sequence[tree.Node | None]) -> search_pb2.QueryFilters:
    places: dict[tree.Node | None, int] = {}
    which = [places.setdefault(node, len(places)) for node in nodes]
    return search_pb2.QueryFilters(filters=[filter_message(node) or pb.Filter() for node in places], which=which)


def filters_each_of(message: search_pb2.QueryFilters, queries: int) -> list[tree.Node | None]:
    """A tree, or None, for each query. Raises InvalidArgument where there is not one for each."""
    which, count = list(message.which), len(message.filters)
    if len(which) != queries:
        raise InvalidArgument(f"filters_each has {len(which):,} numbers in `which`, and there are {queries:,} queries")
    if which and max(which) >= count:
        raise InvalidArgument(f"filters_each names filter {max(which):,}, and there are {count:,}")
    nodes = [filter_of(one) for one in message.filters]
    return [nodes[at] for at in which]


# -- one value -------------------------------------------------------------------------------------


def value_message(value: Any) -> pb.FieldValue:
    """value : bool, int, float, str, bytes, date or datetime."""
    kind, plain = _wire_kind(value), _to_wire(value)
    return pb.FieldValue(**{_VALUE_FIELDS[kind]: plain})


def value_of(message: pb.FieldValue) -> Any:
    """The value; None where none is set. Raises InvalidArgument for a time that is not of the years 1 to 9999."""
    name = message.WhichOneof("kind")
    if name is None:
        return None
    return _FROM_WIRE.get(_RUN_KINDS[name], _same)(getattr(message, name))


# -- many values -----------------------------------------------------------------------------------


def values_message(values: Iterable[Any]) -> pb.FieldValues:
    runs = []
    for kind, some in groupby(values, _wire_kind):
        plain = list(some)
        if kind in _CONVERTED:
            plain = list(map(_to_wire, plain))
        run = pb.ValueRun()
        part = getattr(run, kind)
        part.SetInParent()
        if kind in _TEXTS:
            part.text = "".join(plain)
            part.lengths.extend(map(len, plain) if part.text.isascii() else (len(one.encode()) for one in plain))
        elif kind == "byte_strings":
            part.data = b"".join(plain)
            part.lengths.extend(map(len, plain))
        else:
            part.values.extend(plain)
        runs.append(run)
    return pb.FieldValues(runs=runs)


def values_of(message: pb.FieldValues) -> list[Any]:
    """The values, in order. Raises InvalidArgument."""
    found: list[Any] = []
    for run in message.runs:
        kind = run.WhichOneof("kind")
        if kind is None:
            raise InvalidArgument("a run of values has no type: set one of its lists")
        part = getattr(run, kind)
        plain: Iterable[Any]
        if kind in _TEXTS:
            plain = _texts(part)
        elif kind == "byte_strings":
            plain = _cut(part.data, part.lengths)
        else:
            plain = part.values
        convert = _FROM_WIRE.get(kind)
        found += plain if convert is None else map(convert, plain)
    return found


def _length(run: pb.ValueRun) -> int:
    """How many values a run holds."""
    kind = run.WhichOneof("kind")
    if kind is None:
        return 0
    part = getattr(run, kind)
    return len(part.lengths if kind in _TEXTS or kind == "byte_strings" else part.values)


def _texts(part: pb.TextValues) -> list[str]:
    if part.text.isascii():
        return _cut(part.text, part.lengths)
    try:
        return [piece.decode() for piece in _cut(part.text.encode(), part.lengths)]
    except UnicodeDecodeError:
        raise InvalidArgument("lengths of texts cut a character in two: they count bytes of UTF-8") from None


def _cut(whole: Any, lengths: Sequence[int]) -> list[Any]:
    """Pieces of text or bytes, one after another."""
    ends = list(accumulate(lengths))
    if (ends[-1] if ends else 0) != len(whole):
        raise InvalidArgument(f"texts of {len(whole):,} bytes have lengths of {ends[-1] if ends else 0:,} in all")
    return [whole[start:end] for start, end in zip([0, *ends], ends, strict=False)]


# -- what fields there are ---------------------------------------------------------------------------


def facets_message(counts: Facets) -> records_pb2.FacetsResponse:
    return records_pb2.FacetsResponse(values=values_message(counts), counts=counts.values())


def facets_of(message: records_pb2.FacetsResponse) -> Facets:
    return Facets(zip(values_of(message.values), message.counts, strict=True))


def field_facts_message(facts: dict[str, dict[str, Any]]) -> records_pb2.FieldsResponse:
    """facts : as `Collection.fields` returns them."""
    return records_pb2.FieldsResponse(
        fields=[
            records_pb2.FieldFacts(name=name, types=one["types"], count=one["count"]) for name, one in facts.items()
        ]
    )


def field_facts_of(message: records_pb2.FieldsResponse) -> dict[str, dict[str, Any]]:
    return {one.name: {"types": list(one.types), "count": one.count} for one in message.fields}


# -- what a value is on the wire ---------------------------------------------------------------------

_TEXTS = frozenset(("strings", "large_ints"))
_CONVERTED = frozenset(("large_ints", "dates", "instants", "local_times"))
_VALUE_FIELDS = {  # kind of a run -> field of FieldValue
    "bools": "bool_value",
    "ints": "int_value",
    "large_ints": "large_int_value",
    "doubles": "double_value",
    "strings": "string_value",
    "byte_strings": "bytes_value",
    "dates": "date_value",
    "instants": "instant_value",
    "local_times": "local_time_value",
}
_RUN_KINDS = {field: kind for kind, field in _VALUE_FIELDS.items()}
_KINDS: dict[type, str] = {bool: "bools", float: "doubles", str: "strings", bytes: "byte_strings", dt.date: "dates"}


def _wire_kind(value: Any) -> str:
    found = _KINDS.get(type(value))
    if found is not None:
        return found
    if isinstance(value, int):
        return "ints" if -(1 << _INT_BITS) <= value < 1 << _INT_BITS else "large_ints"
    assert isinstance(value, dt.datetime), type(value)
    return "local_times" if value.utcoffset() is None else "instants"


def _to_wire(value: Any) -> Any:
    if isinstance(value, dt.datetime):
        return moment(value)
    if isinstance(value, dt.date):
        return value.toordinal() - _EPOCH_DAY
    if isinstance(value, int) and not isinstance(value, bool) and value.bit_length() > _INT_BITS:
        return str(value) if _wire_kind(value) == "large_ints" else value
    return value


def _same(value: Any) -> Any:
    return value


def _large_int(text: str) -> int:
    if not _LARGE_INT.fullmatch(text):
        raise InvalidArgument("a large int is given in decimal digits, at most 310 of them")
    return int(text)


def _date(days: int) -> dt.date:
    try:
        return dt.date.fromordinal(days + _EPOCH_DAY)
    except (ValueError, OverflowError):
        raise _no_time(f"{days:,} days") from None


def _local_time(microseconds: int) -> dt.datetime:
    try:
        return _EPOCH + dt.timedelta(microseconds=microseconds)
    except OverflowError:
        raise _no_time(f"{microseconds:,} microseconds") from None


def _instant(microseconds: int) -> dt.datetime:
    return _local_time(microseconds).replace(tzinfo=dt.UTC)


def _no_time(what: str) -> InvalidArgument:
    return InvalidArgument(f"{what} since 1970 is not within the years 1 to 9999")


_FROM_WIRE: dict[str, Callable[[Any], Any]] = {
    "large_ints": _large_int,
    "dates": _date,
    "instants": _instant,
    "local_times": _local_time,
}
