"""`F`, the form of a filter that is written as Python: `(F.lang == "en") & (F["meta.year"] >= 2020)`.

A field's comparisons and methods give trees (tree.py), which & | ~ combine.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any, NoReturn

from vecdb.errors import InvalidArgument
from vecdb.filters.scalars import field_name, listed
from vecdb.filters.tree import And, Compare, Contains, In, IsNull, Like, Node, Not, Op, Or, Prefix, no_truth
from vecdb.validate.common import short_repr


class Field:
    """A field of records, by name or by path into nested maps, that is compared with a value."""

    __slots__ = ("_name",)
    __array_ufunc__ = None  # `np.int64(3) < F.x` is ours to answer
    __hash__ = None  # type: ignore[assignment]  # equality makes a condition

    def __init__(self, name: str) -> None:
        self._name = field_name(name)

    def __eq__(self, value: object) -> Node:  # type: ignore[override]
        """Equal; `== None` finds missing and null values."""
        return equals(self._name, value)

    def __ne__(self, value: object) -> Node:  # type: ignore[override]
        """The complement of ==: it finds records without the field too."""
        return _not(equals(self._name, value))

    def __lt__(self, value: Any) -> Node:
        return order(self._name, "<", value)

    def __le__(self, value: Any) -> Node:
        return order(self._name, "<=", value)

    def __gt__(self, value: Any) -> Node:
        return order(self._name, ">", value)

    def __ge__(self, value: Any) -> Node:
        return order(self._name, ">=", value)

    def between(self, low: Any, high: Any) -> Node:
        """From `low` to `high`, both included."""
        return between(self._name, low, high)

    def is_in(self, values: Iterable[Any]) -> Node:
        """Equal to one of the values; None among them finds missing and null ones."""
        return is_in(self._name, values)

    in_ = is_in

    def not_in(self, values: Iterable[Any]) -> Node:
        """The complement of `is_in`."""
        return _not(is_in(self._name, values))

    def is_null(self) -> Node:
        """The field is missing, or its value is None."""
        return IsNull(self._name)

    def exists(self) -> Node:
        """The field has a value that is not None."""
        return _not(IsNull(self._name))

    def prefix(self, text: str) -> Node:
        """A text that begins so."""
        return Prefix(self._name, text)

    startswith = prefix

    def like(self, pattern: str) -> Node:
        """A text of that pattern: % any run of characters, _ one; a backslash before either means itself."""
        return Like(self._name, pattern)

    def contains(self, value: Any) -> Node:
        """A list that holds the value, or the value itself. For a part of a text: `like("%part%")`."""
        return Contains(self._name, (value,), False)

    def contains_any(self, values: Iterable[Any]) -> Node:
        """A list that holds at least one of the values."""
        return Contains(self._name, values, False)  # type: ignore[arg-type]

    def contains_all(self, values: Iterable[Any]) -> Node:
        """A list that holds each of the values."""
        return Contains(self._name, values, True)  # type: ignore[arg-type]

    def __bool__(self) -> bool:  # noqa: PLE0304
        no_truth("a field")

    def __contains__(self, value: object) -> bool:
        raise InvalidArgument(f"`in` cannot ask what a field holds: write {self}.contains({short_repr(value)})")

    def _combined(self, other: object) -> NoReturn:
        raise InvalidArgument(
            f"{self} alone is no condition: compare it, each comparison in parentheses, as in (F.a == 1) & (F.b == 2)"
        )

    __and__ = __rand__ = __or__ = __ror__ = _combined

    def __invert__(self) -> NoReturn:
        self._combined(None)

    def __getattr__(self, name: str) -> NoReturn:
        known = [method for method in dir(Field) if not method.startswith("_")]
        near = difflib.get_close_matches(name, known, 1, 0.5)
        nested = f'F["{self._name}.{name}"]'
        raise AttributeError(
            f"a field has no {name!r}: {f'did you mean {near[0]}? ' if near else ''}A nested field is {nested}"
        )

    def __call__(self, *args: object, **kwargs: object) -> NoReturn:
        raise InvalidArgument(f"{self} is a field, not a method: compare it with a value")

    def __str__(self) -> str:
        return f"F.{self._name}" if self._name.isidentifier() else f"F[{short_repr(self._name)}]"

    __repr__ = __str__


class FieldNames:
    """`F.year`, or `F["meta.author"]` for what is no Python name."""

    __slots__ = ()
    __iter__ = None

    def __getattr__(self, name: str) -> Field:
        if name.startswith("__"):
            raise AttributeError(f'F has no {name}: write F["{name}"] for a field of that name')
        return Field(name)

    def __getitem__(self, name: str) -> Field:
        return Field(name)

    def __repr__(self) -> str:
        return "F"


F = FieldNames()


# -- what all forms have in common: the conditions that None and lists become ----------------------


def equals(name: str, value: Any) -> Node:
    return IsNull(name) if value is None else Compare(name, "==", value)


def order(name: str, op: Op, value: Any) -> Node:
    if value is None:
        raise InvalidArgument(
            f"field {short_repr(name)} cannot be ordered against None: `is null` finds missing and null values"
        )
    return Compare(name, op, value)


def between(name: str, low: Any, high: Any) -> Node:
    both: Node = And((order(name, ">=", low), order(name, "<=", high)))
    return both


def is_in(name: str, values: Any) -> Node:
    """In; with None among the values it finds missing and null ones too."""
    given = listed(values, name)
    rest = tuple(value for value in given if value is not None)
    if len(rest) == len(given):
        return In(name, given)
    either: Node = Or((In(name, rest), IsNull(name))) if rest else IsNull(name)
    return either


def _not(term: Node) -> Node:
    complement: Node = Not(term)
    return complement
