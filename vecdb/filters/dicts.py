"""Filters as the dicts that frameworks pass, and back.

Conditions by name, as in Haystack; `filter_to_dict` writes these:

    {"field": "meta.year", "operator": ">=", "value": 2020}
        operator := == != < <= > >= | in | not in | like | prefix | contains | contains any | contains all
    {"operator": "AND" | "OR" | "NOT", "conditions": [...]}      NOT: not all of them hold

Conditions by field, as in Chroma, Pinecone, LangChain and MongoDB:

    {"lang": "en", "year": {"$gte": 2020, "$lt": 2024}, "$or": [{...}, {...}]}
        of a field := $eq $ne $gt $gte $lt $lte | $in $nin | $exists | $between | $like $prefix
                    | $contains $not_contains $contains_any $contains_all | $any $all | $not
        of filters := $and $or $nor $not

A dict is read by name if its keys are among field, operator, value and conditions, and are more than a field. By name,
an order with None finds nothing and `in` wants a list, as Haystack tests; elsewhere an order with None is an error.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NoReturn

from vecdb import limits
from vecdb.errors import InvalidArgument, LimitExceeded
from vecdb.filters.expression import between, equals, is_in, order
from vecdb.filters.lexer import near
from vecdb.filters.scalars import field_name
from vecdb.filters.tree import And, Compare, Contains, In, IsNull, Like, Node, Not, Op, Or, Prefix
from vecdb.validate.common import short_repr

_BY_NAME = {"field", "operator", "value", "conditions"}


def dict_to_filter(value: Mapping[Any, Any]) -> Node:
    """The tree of either form. An empty dict lets everything through.

    Raises InvalidArgument, which says where in the dict: `filter.conditions[1]` or `filter.$and[0]`.
    """
    return _Reader().read(value, "filter", 1)


def filter_to_dict(tree: Node) -> dict[str, Any]:
    """The dict by name that gives an equal tree. Values stay Python's: dates are dates."""
    if isinstance(tree, (And, Or)):
        kind = "AND" if isinstance(tree, And) else "OR"
        return {"operator": kind, "conditions": [filter_to_dict(term) for term in tree.terms]}
    if isinstance(tree, Not):
        term = tree.term
        if isinstance(term, In) or (isinstance(term, Compare) and term.op == "==") or isinstance(term, IsNull):
            positive = filter_to_dict(term)
            return {**positive, "operator": "not in" if isinstance(term, In) else "!="}
        return {"operator": "NOT", "conditions": [filter_to_dict(term)]}
    operator, value = _written(tree)
    return {"field": tree.field, "operator": operator, "value": value}  # type: ignore[attr-defined]


def _written(leaf: Node) -> tuple[str, Any]:
    if isinstance(leaf, Compare):
        return leaf.op, leaf.value
    if isinstance(leaf, In):
        return "in", list(leaf.values)
    if isinstance(leaf, IsNull):
        return "==", None
    if isinstance(leaf, Prefix):
        return "prefix", leaf.text
    if isinstance(leaf, Like):
        return "like", leaf.pattern
    assert isinstance(leaf, Contains), leaf
    return "contains all" if leaf.every else "contains any", list(leaf.values)


# -- conditions on a field, the same for both forms ------------------------------------------------

Make = Callable[[str, Any], Node]


def _not(make: Make) -> Make:
    return lambda name, value: Not(make(name, value))


def _ordered(op: Op) -> Make:
    return lambda name, value: order(name, op, value)


def _ordered_or_none(op: Op) -> Make:
    return lambda name, value: Or(()) if value is None else Compare(name, op, value)


def _in_list(name: str, value: Any) -> Node:
    if not isinstance(value, list):
        raise InvalidArgument(f"in and not in want a list, got {short_repr(value)}")
    return is_in(name, value)


def _contains(name: str, value: Any) -> Node:
    return Contains(name, (value,), False)


def _contains_any(name: str, value: Any) -> Node:
    return Contains(name, value, False)


def _contains_all(name: str, value: Any) -> Node:
    return Contains(name, value, True)


def _exists(name: str, value: Any) -> Node:
    if value is not True and value is not False:
        raise InvalidArgument(f"$exists is True or False, got {short_repr(value)}")
    return Not(IsNull(name)) if value else IsNull(name)


def _between(name: str, value: Any) -> Node:
    if not isinstance(value, (list, tuple)) or len(value) != 2:
        raise InvalidArgument(f"$between is a list of two values, got {short_repr(value)}")
    return between(name, value[0], value[1])


_NAMED: dict[str, Make] = {
    "==": equals,
    "!=": _not(equals),
    "<": _ordered_or_none("<"),
    "<=": _ordered_or_none("<="),
    ">": _ordered_or_none(">"),
    ">=": _ordered_or_none(">="),
    "in": _in_list,
    "not in": _not(_in_list),
    "like": Like,
    "prefix": Prefix,
    "contains": _contains,
    "contains any": _contains_any,
    "contains all": _contains_all,
}
_DOLLAR: dict[str, Make] = {
    "$eq": equals,
    "$ne": _not(equals),
    "$lt": _ordered("<"),
    "$lte": _ordered("<="),
    "$gt": _ordered(">"),
    "$gte": _ordered(">="),
    "$in": is_in,
    "$nin": _not(is_in),
    "$exists": _exists,
    "$between": _between,
    "$like": Like,
    "$prefix": Prefix,
    "$contains": _contains,
    "$not_contains": _not(_contains),
    "$contains_any": _contains_any,
    "$contains_all": _contains_all,
    "$any": _contains_any,
    "$all": _contains_all,
}
_MEANT = {  # what others call these
    "=": "==",
    "=>": ">=",
    "=<": "<=",
    "<>": "!=",
    "nin": "not in",
    "any": "contains any",
    "all": "contains all",
    "text_match": "like",
    "startswith": "prefix",
    "$regex": "$like",
    "$ilike": "$like",
    "$startswith": "$prefix",
    "$starts_with": "$prefix",
}
_QDRANT = {"must": "{'$and': [...]}", "should": "{'$or': [...]}", "must_not": "{'$nor': [...]}"}
_OF_FILTERS = ("$and", "$or", "$nor", "$not")


class _Reader:
    """Reads one dict; counts its conditions, so that one that repeats itself is refused early."""

    def __init__(self) -> None:
        self.conditions = 0

    def read(self, value: Any, where: str, depth: int) -> Node:
        if not isinstance(value, Mapping):
            raise InvalidArgument(f"{where} must be a dict of conditions, got {short_repr(value)}")
        if depth > limits.filter_depth_max:
            raise LimitExceeded(f"a filter nests at most {limits.filter_depth_max} deep: write it flatter")
        for key in value:
            if not isinstance(key, str):
                raise InvalidArgument(f"{where} has the key {short_repr(key)}: names and operators are strings")
        keys = set(value)
        if keys <= _BY_NAME and (keys & {"operator", "conditions"} or keys == {"field", "value"}):
            return self._by_name(value, where, depth)
        terms = [self._entry(key, one, where, depth) for key, one in value.items()]
        tree: Node = And(tuple(terms))
        return tree

    def _count(self) -> None:
        self.conditions += 1
        if self.conditions > 4 * limits.filter_terms_max:  # lists of conditions count too; the tree holds the bound
            raise LimitExceeded(f"a filter has at most {limits.filter_terms_max:,} conditions: use in for many values")

    def _made(self, make: Make, name: str, value: Any, where: str) -> Node:
        self._count()
        try:
            return make(name, value)
        except InvalidArgument as error:
            raise type(error)(f"{where}: {error}") from None

    def _list(self, value: Any, where: str, depth: int, named: bool) -> tuple[Node, ...]:
        if not isinstance(value, (list, tuple)):
            raise InvalidArgument(f"{where} must be a list of conditions, got {short_repr(value)}")
        self._count()
        read = self._named if named else self.read
        return tuple(read(one, f"{where}[{at}]", depth) for at, one in enumerate(value))

    # -- by name -----------------------------------------------------------------------------------

    def _named(self, value: Any, where: str, depth: int) -> Node:
        """A member of `conditions`, which is by name too."""
        if not isinstance(value, Mapping) or not value.keys() <= _BY_NAME:
            raise InvalidArgument(f"{where} must be a dict of field, operator and value, got {_keys(value)}")
        if depth > limits.filter_depth_max:
            raise LimitExceeded(f"a filter nests at most {limits.filter_depth_max} deep: write it flatter")
        return self._by_name(value, where, depth)

    def _by_name(self, value: Mapping[str, Any], where: str, depth: int) -> Node:
        wanted = ("field", "operator", "value") if "field" in value else ("operator", "conditions")
        for key in wanted:
            if key not in value:
                raise InvalidArgument(f"{where} has no {key!r}, it has {_keys(value)}: a condition has {_either()}")
        if len(value) != len(wanted):
            raise InvalidArgument(f"{where} has {_keys(value)}: a condition has {_either()}")
        operator = value["operator"]
        if "field" in value:
            make = _NAMED.get(operator) if isinstance(operator, str) else None
            if make is None:
                self._unknown(operator, _NAMED, where)
            return self._made(make, field_name(value["field"]), value["value"], where)
        kind = operator.upper() if isinstance(operator, str) else operator
        if kind not in ("AND", "OR", "NOT"):
            self._unknown(operator, ("AND", "OR", "NOT"), where)
        terms = self._list(value["conditions"], f"{where}.conditions", depth + 1, True)
        tree: Node = Or(terms) if kind == "OR" else And(terms)
        return Not(tree) if kind == "NOT" else tree

    # -- by field ----------------------------------------------------------------------------------

    def _entry(self, key: str, value: Any, where: str, depth: int) -> Node:
        if key.startswith("$"):
            return self._of_filters(key, value, f"{where}.{key[:20]}", depth)
        place = f"{where}[{short_repr(key)}]"
        if not isinstance(value, Mapping):
            if isinstance(value, (list, tuple)):
                if key in _QDRANT:
                    raise InvalidArgument(f"{place} is Qdrant's form, which is not read here: write {_QDRANT[key]}")
                raise InvalidArgument(f"{place} is a list: write {{'$in': [...]}} or {{'$contains_all': [...]}}")
            return self._made(equals, key, value, place)
        return self._of_field(key, value, place, depth)

    def _of_field(self, name: str, operators: Mapping[Any, Any], place: str, depth: int) -> Node:
        if depth > limits.filter_depth_max:
            raise LimitExceeded(f"a filter nests at most {limits.filter_depth_max} deep: write it flatter")
        if not operators:
            raise InvalidArgument(f"{place} is an empty dict: write a value, or an operator such as {{'$gte': 2020}}")
        terms: list[Node] = []
        for operator, value in operators.items():
            if operator == "$not":
                if not isinstance(value, Mapping):
                    raise InvalidArgument(f"{place}.$not must be a dict of operators, got {short_repr(value)}")
                terms.append(Not(self._of_field(name, value, f"{place}.$not", depth + 1)))
                continue
            make = _DOLLAR.get(operator) if isinstance(operator, str) else None
            if make is None:
                if isinstance(operator, str) and not operator.startswith("$"):
                    raise InvalidArgument(
                        f"{place} is a dict with the key {short_repr(operator)}, which is no operator: a nested field "
                        f"is named by its path, {short_repr(f'{name}.{operator}')}"
                    )
                self._unknown(operator, (*_DOLLAR, "$not"), place)
            terms.append(self._made(make, name, value, f"{place}.{operator}"))
        tree: Node = And(tuple(terms))
        return tree

    def _of_filters(self, operator: str, value: Any, where: str, depth: int) -> Node:
        if operator == "$not":
            negated: Node = Not(self.read(value, where, depth + 1))
            return negated
        if operator not in _OF_FILTERS:
            if operator in _DOLLAR:
                raise InvalidArgument(f"{where} belongs to a field: {{'year': {{{operator!r}: ...}}}}")
            self._unknown(operator, _OF_FILTERS, where)
        terms = self._list(value, where, depth + 1, False)
        tree: Node = And(terms) if operator == "$and" else Or(terms)
        complement: Node = Not(tree)
        return complement if operator == "$nor" else tree

    def _unknown(self, operator: Any, known: Any, where: str) -> NoReturn:
        meant = _MEANT.get(operator) if isinstance(operator, str) else None
        hint = (
            f" (did you mean {meant}?)"
            if meant in known
            else near(operator, known)
            if isinstance(operator, str)
            else ""
        )
        raise InvalidArgument(
            f"{where}: the operator {short_repr(operator)} is unknown{hint}; known are {', '.join(known)}"
        )


def _keys(value: Any) -> str:
    if not isinstance(value, Mapping):
        return short_repr(value)
    return ", ".join(short_repr(key) for key in list(value)[:5]) or "nothing"


def _either() -> str:
    return "'field', 'operator' and 'value', or 'operator' and 'conditions'"
