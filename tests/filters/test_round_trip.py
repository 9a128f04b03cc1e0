"""The three forms of a filter are one language: every tree survives each, whatever names and values it holds."""

from __future__ import annotations

import copy
import datetime as dt
import pickle
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from tests.support.filters import filter_trees
from vecdb import F
from vecdb.filters.dicts import filter_to_dict
from vecdb.filters.forms import to_filter
from vecdb.filters.parser import parse
from vecdb.filters.tree import And, Compare, Contains, In, IsNull, Like, Node, Not, Or, Prefix, fields_of

ANY_TEXT = st.text(st.characters(codec="utf-8"), max_size=12)
ANY_VALUE = st.one_of(
    st.integers(-(2**1024) + 1, 2**1024 - 1),
    st.floats(allow_nan=False),
    ANY_TEXT,
    st.binary(max_size=5),
    st.booleans(),
    st.dates(),
    st.datetimes(timezones=st.none() | st.just(dt.UTC)),
)
ANY_TREE = filter_trees.trees() | filter_trees.trees(ANY_TEXT, ANY_VALUE)


def types_of(tree: Node) -> list[Any]:
    """The types of all values, which equality of trees does not tell: 1 == 1.0."""
    if isinstance(tree, Compare):
        return [type(tree.value)]
    if isinstance(tree, (In, Contains)):
        return [type(value) for value in tree.values]
    if isinstance(tree, Not):
        return types_of(tree.term)
    return [one for term in getattr(tree, "terms", ()) for one in types_of(term)]


def written_with_f(tree: Node) -> Node:
    """The tree again, as a user writes it with F."""
    if isinstance(tree, (And, Or)):
        found: Node = type(tree)(())
        for term in tree.terms:
            found = found & written_with_f(term) if isinstance(tree, And) else found | written_with_f(term)
        return found
    if isinstance(tree, Not):
        return ~written_with_f(tree.term)
    field = F[tree.field]
    if isinstance(tree, Compare):
        by_op = {"==": field.__eq__, "<": field.__lt__, "<=": field.__le__, ">": field.__gt__, ">=": field.__ge__}
        return by_op[tree.op](tree.value)
    if isinstance(tree, In):
        return field.is_in(tree.values)
    if isinstance(tree, IsNull):
        return field == None  # noqa: E711
    if isinstance(tree, Prefix):
        return field.prefix(tree.text)
    if isinstance(tree, Like):
        return field.like(tree.pattern)
    assert isinstance(tree, Contains)
    return field.contains_all(tree.values) if tree.every else field.contains_any(tree.values)


def check_same(again: Node | None, tree: Node) -> None:
    assert again == tree
    assert hash(again) == hash(tree)
    assert types_of(again) == types_of(tree)


@given(ANY_TREE)
def test_the_string_of_a_tree_parses_to_an_equal_tree(tree: Node) -> None:
    check_same(parse(str(tree)), tree)
    assert str(parse(str(tree))) == str(tree)


@given(ANY_TREE)
def test_the_dict_of_a_tree_gives_an_equal_tree(tree: Node) -> None:
    check_same(to_filter(filter_to_dict(tree)), tree)


@given(ANY_TREE)
def test_every_tree_can_be_written_with_f(tree: Node) -> None:
    check_same(to_filter(written_with_f(tree)), tree)


@given(ANY_TREE)
def test_a_tree_can_be_copied_and_sent_to_another_process(tree: Node) -> None:
    for again in (copy.copy(tree), copy.deepcopy(tree), pickle.loads(pickle.dumps(tree))):  # noqa: S301
        check_same(again, tree)
        assert (again.size, str(again)) == (tree.size, str(tree))


@given(ANY_TREE)
def test_a_tree_that_is_built_again_is_the_same(tree: Node) -> None:
    """Trees are canonical: nothing nests in its own kind, nothing stands twice or alone."""
    for kind in (And, Or):
        assert kind((tree,)) is tree
        assert kind((tree, tree)) == tree
        assert kind((kind((tree, IsNull("z"))), tree)) == kind((tree, IsNull("z")))
    assert Not(Not(tree)) == tree
    if isinstance(tree, (And, Or)):
        assert len(set(tree.terms)) == len(tree.terms) != 1
        assert not any(type(term) is type(tree) for term in tree.terms)


@given(ANY_TEXT, ANY_TEXT)
def test_every_name_can_be_asked_for_in_every_form(name: str, other: str) -> None:
    tree = Not(Compare(name, "==", other)) & IsNull(other)
    assert fields_of(tree) == tuple(dict.fromkeys((name, other)))
    assert (F[name] != other) & F[other].is_null() == tree
    assert parse(str(tree)) == tree
    by_name = [
        {"field": name, "operator": "!=", "value": other},
        {"field": other, "operator": "==", "value": None},
    ]
    assert to_filter({"operator": "AND", "conditions": by_name}) == tree
    if not name.startswith("$") and not other.startswith("$"):  # an operator, there
        assert to_filter({"$and": [{name: {"$ne": other}}, {other: None}]}) == tree


@given(ANY_VALUE, st.lists(ANY_VALUE, max_size=5))
def test_a_parameter_is_a_value_whatever_it_holds(value: Any, values: list[Any]) -> None:
    source = "x = $one and (y in $several or z contains all $several) and x < $one"
    tree = to_filter(source, {"one": value, "several": values})
    among = Or((In("y", tuple(values)), Contains("z", tuple(values), True)))
    assert tree == And((Compare("x", "==", value), among, Compare("x", "<", value)))
