"""Random trees of filters and random records for them, and what a filter means, written a second time.

The second evaluation shares nothing with vecdb.filters.evaluate: numbers are fractions, times are aware datetimes,
patterns are regular expressions, and a path is looked up among all paths of the record.
"""

from __future__ import annotations

import datetime as dt
import re
from fractions import Fraction
from random import Random
from typing import Any

from hypothesis import strategies as st

from vecdb.filters.tree import OPS, And, Compare, Contains, In, IsNull, Like, Node, Not, Or, Prefix

NAMES = ["a", "b", "tags", "meta", "meta.a", "meta.b.c", "meta.b", "odd name", "in", "inf", 'say "x"', "", "a.", "ünï"]
_ZONE = dt.timezone(dt.timedelta(hours=5, minutes=30))
_TEXTS = ["", "x", "xy", "XY", "it's", "100%", "a_b", "\\", "2020-01-31", "2020-01-31T10:30:00Z", "2020-13-01", "é"]
_TIMES: list[Any] = [
    dt.date(2020, 1, 31),
    dt.date(1, 1, 1),
    dt.datetime(2020, 1, 31),
    dt.datetime(2020, 1, 31, 10, 30, tzinfo=dt.UTC),
    dt.datetime(2020, 1, 31, 16, 0, tzinfo=_ZONE),
    dt.datetime(9999, 12, 31, 23, 59, 59, 999_999),
]
_NUMBERS = [
    0,
    1,
    -1,
    2,
    2**53,
    2**53 + 1,
    2**63 - 1,
    -(2**63),
    0.0,
    -0.0,
    1.0,
    0.5,
    2.0**53,
    float("inf"),
    1e300,
    -1e-300,
]
_WIDE = [2**63, 2**70, -(2**80), float("-inf")]  # which no record holds, but for the last


def scalars(wide: bool = True) -> st.SearchStrategy[Any]:
    chosen: list[Any] = [*_TEXTS, *_TIMES, *_NUMBERS, True, False, b"", b"x"]
    return st.sampled_from(chosen + (_WIDE if wide else []))


def leaves(names: st.SearchStrategy[str], values: st.SearchStrategy[Any]) -> st.SearchStrategy[Node]:
    several = st.lists(values, max_size=4).map(tuple)
    patterns = st.text(st.sampled_from("xy%_aé'\n"), max_size=5) | st.sampled_from(
        ["%", "x\\%", "\\_%", "100\\%", "%y"]
    )
    return st.one_of(
        st.builds(Compare, names, st.sampled_from(["==", "<", "<=", ">", ">="]), values),
        st.builds(In, names, several),
        st.builds(IsNull, names),
        st.builds(Prefix, names, st.sampled_from(_TEXTS)),
        st.builds(Like, names, patterns),
        st.builds(Contains, names, several, st.booleans()),
    )


def trees(
    names: st.SearchStrategy[str] | None = None, values: st.SearchStrategy[Any] | None = None
) -> st.SearchStrategy[Node]:
    """Trees of every node; over NAMES and values that meet, if nothing else is said."""
    one = leaves(st.sampled_from(NAMES) if names is None else names, scalars() if values is None else values)
    return st.recursive(
        one,
        lambda terms: st.one_of(
            st.lists(terms, max_size=3).map(lambda found: And(tuple(found))),
            st.lists(terms, max_size=3).map(lambda found: Or(tuple(found))),
            terms.map(Not),
        ),
        max_leaves=8,
    )


def records() -> st.SearchStrategy[dict[str, Any]]:
    """Fields as they are read back: aware times in UTC, ints of 64 bits."""
    stored = scalars(wide=False).map(lambda v: v.astimezone(dt.UTC) if getattr(v, "tzinfo", None) else v)
    one = st.one_of(stored, st.none(), st.just(float("nan")))
    value = st.recursive(
        one,
        lambda inner: st.one_of(
            st.lists(inner, max_size=3), st.dictionaries(st.sampled_from(["a", "b", "c", "b.c", ""]), inner, max_size=3)
        ),
        max_leaves=6,
    )
    return st.dictionaries(st.sampled_from(NAMES), value, max_size=6)


# -- the same without hypothesis, for long runs from a seed ----------------------------------------

_CHOSEN: list[Any] = [*_TEXTS, *_TIMES, *_NUMBERS, True, False, b"", b"x"]
_PATTERNS = ["", "%", "_%", "x%", "%y", "x_", "%1%0%", "a\\_b", "100\\%", "%'%", "é", "2020-%-31%"]


def random_tree(random: Random, depth: int = 3) -> Node:
    kind = random.randrange(10 if depth else 6)
    name = random.choice(NAMES)
    if kind < 2:
        return Compare(name, random.choice(OPS), random.choice(_CHOSEN + _WIDE))  # type: ignore[arg-type]
    if kind == 2:
        return In(name, tuple(random.choices(_CHOSEN + _WIDE, k=random.randrange(5))))
    if kind == 3:
        return Contains(name, tuple(random.choices(_CHOSEN, k=random.randrange(4))), random.random() < 0.5)
    if kind == 4:
        return Like(name, random.choice(_PATTERNS)) if random.random() < 0.5 else Prefix(name, random.choice(_TEXTS))
    if kind == 5:
        return IsNull(name)
    terms = tuple(random_tree(random, depth - 1) for _ in range(random.randrange(4)))
    tree: Node = And(terms) if kind < 8 else Or(terms) if kind == 8 else Not(random_tree(random, depth - 1))
    return tree


def random_record(random: Random) -> dict[str, Any]:
    return {name: _random_value(random, 3) for name in random.sample(NAMES, random.randrange(8))}


def _random_value(random: Random, depth: int) -> Any:
    kind = random.randrange(10 if depth else 6)
    if kind < 5:
        value = random.choice(_CHOSEN)
        return value.astimezone(dt.UTC) if getattr(value, "tzinfo", None) else value
    if kind == 5:
        return random.choice([None, float("nan")])
    if kind < 8:
        return [_random_value(random, depth - 1) for _ in range(random.randrange(4))]
    keys = random.sample(["a", "b", "c", "b.c", ""], random.randrange(4))
    return {key: _random_value(random, depth - 1) for key in keys}


# -- what a filter means, a second time ------------------------------------------------------------


def holds(tree: Node, record: dict[str, Any]) -> bool:
    kind = type(tree).__name__
    if kind == "Not":
        return not holds(tree.term, record)
    if kind in ("And", "Or"):
        found = [holds(term, record) for term in tree.terms]
        return False not in found if kind == "And" else True in found
    value = _look_up(record, tree.field)
    if kind == "IsNull":
        return value is None
    if kind == "Compare":
        return _compared(value, tree.op, tree.value)
    if kind == "In":
        return any(_compared(value, "==", wanted) for wanted in tree.values)
    if kind == "Prefix":
        return isinstance(value, str) and value[: len(tree.text)] == tree.text
    if kind == "Like":
        return isinstance(value, str) and re.fullmatch(_regex(tree.pattern), value, re.DOTALL) is not None
    assert kind == "Contains"
    if value is None or isinstance(value, dict):
        return False
    there = value if isinstance(value, list) else [value]
    found = [any(_compared(one, "==", wanted) for one in there) for wanted in tree.values]
    return all(found) if tree.every else any(found)


def _look_up(record: dict[str, Any], name: str) -> Any:
    paths = [(keys, value) for keys, value in _paths(record, ()) if ".".join(keys) == name]
    paths.sort(key=lambda path: [len(key) for key in path[0][:-1]] + [-1])
    return paths[0][1] if paths else None


def _paths(value: dict[str, Any], before: tuple[str, ...]) -> Any:
    for key, inner in value.items():
        yield (*before, key), inner
        if isinstance(inner, dict):
            yield from _paths(inner, (*before, key))


def _regex(pattern: str) -> str:
    out, escaped = "", False
    for char in pattern:
        if escaped or char not in "\\%_":
            out += re.escape(char)
            escaped = False
        elif char == "\\":
            escaped = True
        else:
            out += {"%": ".*", "_": "."}[char]
    return out


def _compared(stored: Any, op: str, wanted: Any) -> bool:
    pair = _pair(stored, wanted)
    if pair is None:
        return False
    here, there = pair
    if op == "==":
        return bool(here == there)
    before, behind = here < there, there < here
    return bool({"<": before, "<=": not behind, ">": behind, ">=": not before}[op])


def _pair(stored: Any, wanted: Any) -> tuple[Any, Any] | None:
    """Both as values that Python compares as vecdb does, or None."""
    kinds = {type(stored), type(wanted)}
    if kinds == {str} or kinds == {bytes} or kinds == {bool}:
        return stored, wanted
    if kinds <= {int, float}:
        return None if stored != stored else (_exact(stored), _exact(wanted))
    if kinds <= {dt.date, dt.datetime, str}:
        here, there = _utc(stored), _utc(wanted)
        return None if here is None or there is None else (here, there)
    return None


def _exact(number: float) -> tuple[int, Fraction]:
    if number in (float("inf"), float("-inf")):
        return (1 if number > 0 else -1), Fraction(0)
    return 0, Fraction(number)


def _utc(value: Any) -> dt.datetime | None:
    if isinstance(value, str):
        try:
            value = dt.datetime.strptime(value, "%Y-%m-%d")
        except ValueError:
            try:
                value = dt.datetime.strptime(value, "%Y-%m-%dT%H:%M:%S%z")
            except ValueError:
                return None
    if not isinstance(value, dt.datetime):
        value = dt.datetime(value.year, value.month, value.day)
    return value if value.tzinfo else value.replace(tzinfo=dt.UTC)
