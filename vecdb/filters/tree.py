"""The typed tree of a filter.

    Compare(field, op, value)       op is == < <= > >=; `!= x` is Not of ==, `== None` is IsNull
    In(field, values)               equal to one of them
    IsNull(field)                   missing or null
    Prefix(field, text)             a text that begins so
    Like(field, pattern)            % any run of characters, _ one; case-sensitive; a backslash escapes
    Contains(field, values, every)  a list that holds one (or each) of them; a single value is a list of one
    And(terms)  Or(terms)  Not(term)    And(()) lets every record through, Or(()) none

A field is a name or a dotted path into nested maps; names and comparisons mean what evaluate.py says.

Invariants, which hold for every tree that exists:
- values and names are checked (scalars.py), depth, terms and values are within limits.py;
- And holds no And, Or no Or, Not no Not; no term stands twice, and `And((x,))`, `Or((x,))` and `Not(Not(x))` *are* x:
  the call returns it. The order of terms and values is kept;
- equal trees hash equal and mean the same. True is not 1 here. The hash of a tree is computed once;
- `str(tree)` is a string filter that parses to an equal tree, if it is not longer than `limits.filter_text_max`.

Nodes are what users combine with & | ~. None has a truth value, so code says `if tree is None`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NoReturn, get_args

from vecdb import limits
from vecdb.errors import InvalidArgument, LimitExceeded
from vecdb.filters.scalars import Scalar, field_name, list_text, name_text, scalar, scalar_text, scalars, text
from vecdb.validate.common import plain_str, short_repr

Op = Literal["==", "<", "<=", ">", ">="]
OPS: tuple[str, ...] = get_args(Op)

_COMPARED = "combine conditions with & (and), | (or) and ~ (not), each in parentheses: (F.a >= 1) & (F.b == 'x')"
_WILDCARDS = re.compile(r"\\.|[%_]|\\$", re.DOTALL)


def no_truth(what: str) -> NoReturn:
    """Raise for `and`, `or`, `not`, `in`, `if` and chained comparisons, of which Python makes a truth value."""
    raise InvalidArgument(f"{what} is true or false only of a record: {_COMPARED}; membership is F.x.is_in([...])")


@dataclass(frozen=True, slots=True)
class Size:
    """What a tree counts against the bounds: its depth, its comparisons and the values in them."""

    depth: int = 1
    terms: int = 1
    values: int = 1


class Node:
    """A tree. Subclasses are frozen dataclasses; `size` and the hash follow from their fields."""

    __slots__ = ("_hash", "size")
    __array_ufunc__ = None  # NumPy leaves operators to us

    size: Size
    _hash: int
    __match_args__: ClassVar[tuple[str, ...]]

    def _seal(self, size: Size, **values: Any) -> None:
        """Set the checked values and what follows from them."""
        for name, value in values.items():
            object.__setattr__(self, name, value)
        object.__setattr__(self, "size", size)
        object.__setattr__(self, "_hash", hash((type(self).__name__, self._key())))

    def _key(self) -> tuple[Any, ...]:
        raise NotImplementedError

    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        if type(self) is not type(other):
            return NotImplemented
        assert isinstance(other, Node)
        return self._hash == other._hash and self._key() == other._key()

    def __hash__(self) -> int:
        return self._hash

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), tuple(getattr(self, name) for name in self.__match_args__)  # hashes differ by process

    def __and__(self, other: object) -> Node:
        both: Node = And((self, _node(other, "&")))
        return both

    def __or__(self, other: object) -> Node:
        either: Node = Or((self, _node(other, "|")))
        return either

    def __rand__(self, other: object) -> Node:
        return _node(other, "&")

    def __ror__(self, other: object) -> Node:
        return _node(other, "|")

    def __invert__(self) -> Node:
        complement: Node = Not(self)
        return complement

    def __bool__(self) -> bool:  # noqa: PLE0304
        no_truth("a condition")


def _node(value: object, what: str) -> Node:
    if isinstance(value, Node):
        return value
    raise InvalidArgument(f"{what} takes conditions, got {short_repr(value)}: put each in parentheses: {_COMPARED}")


def _sized(size: Size, parts: Iterable[Node]) -> Size:
    """The size of a node whose parts are those that `size` counts (but for its depth) and these."""
    depth, terms, values = size.depth, size.terms, size.values
    for part in parts:
        depth = max(depth, part.size.depth + 1)
        terms += part.size.terms
        values += part.size.values
    if depth > limits.filter_depth_max:
        raise LimitExceeded(f"a filter nests at most {limits.filter_depth_max} deep: write it flatter")
    if terms > limits.filter_terms_max:
        raise LimitExceeded(
            f"a filter has at most {limits.filter_terms_max:,} conditions, got {terms:,}: use is_in for many values"
        )
    if values > limits.filter_values_max:
        raise LimitExceeded(f"a filter holds at most {limits.filter_values_max:,} values, got {values:,}: split it")
    return Size(depth, terms, values)


# -- conditions on one field -----------------------------------------------------------------------


def _bools(values: tuple[Scalar, ...]) -> tuple[int, ...]:
    return tuple(at for at, value in enumerate(values) if value is True or value is False)


@dataclass(frozen=True, slots=True, eq=False)
class Compare(Node):
    """`field op value`; false where the value is missing, null or of a type that does not compare."""

    field: str
    op: Op
    value: Scalar

    def __post_init__(self) -> None:
        if self.op not in OPS:
            raise InvalidArgument(f"a comparison is one of {' '.join(OPS)}, got {short_repr(self.op)}")
        name = field_name(self.field)
        self._seal(Size(), field=name, value=scalar(self.value, name))

    def _key(self) -> tuple[Any, ...]:
        return self.field, self.op, type(self.value) is bool, self.value

    def __str__(self) -> str:
        return f"{name_text(self.field)} {'=' if self.op == '==' else self.op} {scalar_text(self.value)}"


@dataclass(frozen=True, slots=True, eq=False)
class In(Node):
    """The field equals one of the values, each as `Compare ==` would. In(field, ()) lets no record through."""

    field: str
    values: tuple[Scalar, ...]

    def __post_init__(self) -> None:
        name = field_name(self.field)
        values = scalars(self.values, name)
        self._seal(Size(values=len(values)), field=name, values=values)

    def _key(self) -> tuple[Any, ...]:
        return self.field, self.values, _bools(self.values)

    def __str__(self) -> str:
        return f"{name_text(self.field)} in {list_text(self.values)}"


@dataclass(frozen=True, slots=True, eq=False)
class IsNull(Node):
    """The record has no such field, or its value is None."""

    field: str

    def __post_init__(self) -> None:
        self._seal(Size(values=0), field=field_name(self.field))

    def _key(self) -> tuple[Any, ...]:
        return (self.field,)

    def __str__(self) -> str:
        return f"{name_text(self.field)} is null"


@dataclass(frozen=True, slots=True, eq=False)
class Prefix(Node):
    """The field is a text that begins with `text`."""

    field: str
    text: str

    def __post_init__(self) -> None:
        name = field_name(self.field)
        self._seal(Size(), field=name, text=_text(self.text, "a prefix", name))

    def _key(self) -> tuple[Any, ...]:
        return self.field, self.text

    def __str__(self) -> str:
        return f"{name_text(self.field)} prefix {scalar_text(self.text)}"


@dataclass(frozen=True, slots=True, eq=False)
class Like(Node):
    """The field is a text of that pattern, from its first character to its last."""

    field: str
    pattern: str

    def __post_init__(self) -> None:
        name = field_name(self.field)
        pattern = _text(self.pattern, "a pattern", name)
        if len(pattern) > limits.filter_pattern_max:
            raise LimitExceeded(
                f"a pattern is at most {limits.filter_pattern_max:,} characters, that for field {short_repr(name)} has "
                f"{len(pattern):,}: use a prefix, or equality"
            )
        if "\\" in _WILDCARDS.findall(pattern):
            raise InvalidArgument(
                f"the pattern {short_repr(pattern)} ends with a backslash that escapes nothing: double it"
            )
        self._seal(Size(), field=name, pattern=pattern)

    def _key(self) -> tuple[Any, ...]:
        return self.field, self.pattern

    def __str__(self) -> str:
        return f"{name_text(self.field)} like {scalar_text(self.pattern)}"


@dataclass(frozen=True, slots=True, eq=False)
class Contains(Node):
    """The field is a list that holds one of the values, or each of them if `every`; a single value counts as a list of
    one. `every` of no values holds for every list and every single value; of one value it is False.
    """

    field: str
    values: tuple[Scalar, ...]
    every: bool

    def __post_init__(self) -> None:
        if self.every is not True and self.every is not False:
            raise InvalidArgument(f"every must be True or False, got {short_repr(self.every)}")
        name = field_name(self.field)
        values = scalars(self.values, name)
        self._seal(Size(values=len(values)), field=name, values=values, every=self.every and len(values) != 1)

    def _key(self) -> tuple[Any, ...]:
        return self.field, self.values, _bools(self.values), self.every

    def __str__(self) -> str:
        name = name_text(self.field)
        if len(self.values) == 1:
            return f"{name} contains {scalar_text(self.values[0])}"
        return f"{name} contains {'all' if self.every else 'any'} {list_text(self.values)}"


def _text(value: Any, what: str, name: str) -> str:
    if not isinstance(value, str):
        raise InvalidArgument(f"{what} for field {short_repr(name)} must be a text, got {short_repr(value)}")
    return text(plain_str(value), f"{what} for field {short_repr(name)}")


def like_pieces(pattern: str) -> list[str | None]:
    """A pattern taken apart: texts that stand for themselves, "%" as None, and "_" as the empty text."""
    pieces: list[str | None] = []
    end = 0
    for found in _WILDCARDS.finditer(pattern):
        literal = pattern[end : found.start()]
        if literal:
            pieces.append(literal)
        mark = found.group()
        pieces.append(None if mark == "%" else "" if mark == "_" else mark[1:])
        end = found.end()
    if end < len(pattern):
        pieces.append(pattern[end:])
    return pieces


# -- conditions on conditions ----------------------------------------------------------------------


class Joined(Node):
    """What And and Or have in common. `_each` holds the terms as keys: a long chain of `a | b | c` copies them fast."""

    __slots__ = ("_each",)

    terms: tuple[Node, ...]
    _each: dict[Node, None]

    def __new__(cls, terms: tuple[Node, ...] = ()) -> Any:
        if not isinstance(terms, (tuple, list)):
            raise InvalidArgument(f"terms must be a tuple of conditions, got {short_repr(terms)}")
        if len(terms) == 1:
            return _node(terms[0], cls.__name__)
        each: dict[Node, None] = {}
        size = Size(1, 0, 0)
        for term in terms:
            same = term if isinstance(term, cls) else None
            if same is not None and not each:
                each, size = dict(same._each), same.size
                continue
            added = [
                one for one in (same._each if same is not None else (_node(term, cls.__name__),)) if one not in each
            ]
            each.update(dict.fromkeys(added))
            size = _sized(size, added)
        if len(each) == 1:
            return next(iter(each))
        made = object.__new__(cls)
        object.__setattr__(made, "_each", each)
        made._seal(size, terms=tuple(each))
        return made

    def _key(self) -> tuple[Any, ...]:
        return self.terms


@dataclass(frozen=True, slots=True, eq=False, init=False)
class And(Joined):
    """Every term holds. And((x,)) returns x."""

    terms: tuple[Node, ...]

    def __str__(self) -> str:
        parts = [f"({term})" if isinstance(term, Or) and term.terms else str(term) for term in self.terms]
        return " and ".join(parts) or "true"


@dataclass(frozen=True, slots=True, eq=False, init=False)
class Or(Joined):
    """At least one term holds. Or((x,)) returns x."""

    terms: tuple[Node, ...]

    def __str__(self) -> str:
        parts = [f"({term})" if isinstance(term, And) and term.terms else str(term) for term in self.terms]
        return " or ".join(parts) or "false"


_NEGATED = {In: "in", Prefix: "prefix", Like: "like", Contains: "contains"}


@dataclass(frozen=True, slots=True, eq=False, init=False)
class Not(Node):
    """The term does not hold. Not(Not(x)) returns x."""

    term: Node

    def __new__(cls, term: Node) -> Any:
        if isinstance(term, Not):
            return term.term
        made = object.__new__(cls)
        made._seal(_sized(Size(1, 0, 0), (_node(term, "Not"),)), term=term)
        return made

    def _key(self) -> tuple[Any, ...]:
        return (self.term,)

    def __str__(self) -> str:
        term = self.term
        if isinstance(term, Compare) and term.op == "==":
            return f"{name_text(term.field)} != {scalar_text(term.value)}"
        if isinstance(term, IsNull):
            return f"{name_text(term.field)} is not null"
        word = _NEGATED.get(type(term))
        if word is None:
            return f"not ({term})"
        name = name_text(term.field)  # type: ignore[attr-defined]
        return f"{name} not{str(term)[len(name) :]}"


# -- looking at a tree -----------------------------------------------------------------------------

_CONDITION_BYTES, _VALUE_BYTES = 400, 64  # with what And and Or keep of it


def leaves(tree: Node) -> Iterator[Node]:
    """The conditions on single fields, from left to right."""
    if isinstance(tree, (And, Or)):
        for term in tree.terms:
            yield from leaves(term)
    elif isinstance(tree, Not):
        yield from leaves(tree.term)
    else:
        yield tree


def fields_of(tree: Node) -> tuple[str, ...]:
    """The names of the fields that a tree asks for, each once, in order."""
    return tuple(dict.fromkeys(leaf.field for leaf in leaves(tree)))  # type: ignore[attr-defined]


def always(tree: Node) -> bool | None:
    """What a tree says of every record by its form alone: True where it lets each through, such as `not in ()`, False
    where it lets none through; None where it depends on the record.
    """
    if isinstance(tree, Not):
        inner = always(tree.term)
        return None if inner is None else not inner
    if isinstance(tree, (And, Or)):
        decides = isinstance(tree, Or)  # one such term is enough
        said = {always(term) for term in tree.terms}
        return decides if decides in said else None if None in said else not decides
    if isinstance(tree, (In, Contains)) and not tree.values and not getattr(tree, "every", False):
        return False
    return None


def held_bytes(tree: Node) -> int:
    """About what a tree takes in memory."""
    found = 0
    for leaf in leaves(tree):
        found += _CONDITION_BYTES
        for part in (getattr(leaf, name) for name in leaf.__match_args__):
            values = part if isinstance(part, tuple) else (part,)
            found += _VALUE_BYTES * len(values) + sum(len(one) for one in values if isinstance(one, (str, bytes)))
    return found
