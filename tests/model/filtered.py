"""Reads and writes of a twin by filter, compared with what filters.evaluate says of each record of the model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import vecdb
from tests.model.setups import distances_to
from tests.model.twin import Twin
from vecdb.errors import InvalidArgument
from vecdb.filters import evaluate
from vecdb.filters.tree import And, Compare, In, IsNull, Like, Node, Not, Or

_VALUES: list[Any] = [-1, 0, 1, 3, 4.5, "", "x", "xxxx", True, None]


def random_node(rng: np.random.Generator, depth: int = 2) -> Node:
    """A tree over the fields a, b and c."""
    kind, name = rng.integers(8 if depth else 5), str(rng.choice(["a", "b", "c"]))
    value = _VALUES[rng.integers(len(_VALUES))]
    if kind < 2 and value is not None:
        return Compare(name, ("==", "<", "<=", ">", ">=")[rng.integers(5)], value)  # type: ignore[arg-type]
    if kind == 2:
        return In(name, tuple(one for one in _VALUES[: rng.integers(len(_VALUES))] if one is not None))
    if kind == 3:
        return Like(name, "xx%")
    if kind < 5:
        return IsNull(name)
    if kind == 5:
        return Not(random_node(rng, depth - 1))  # type: ignore[no-any-return]
    terms = tuple(random_node(rng, depth - 1) for _ in range(rng.integers(1, 4)))
    return And(terms) if kind == 6 else Or(terms)  # type: ignore[no-any-return]


def matching(twin: Twin, node: Node) -> set[Any]:
    return {one for one, (_, fields) in twin.model.items() if evaluate.matches(node, fields)}


def refused(twin: Twin, node: Node) -> bool:
    """Whether it asks for an order that no value of a field has. That is refused everywhere, and changes nothing."""
    try:
        twin.docs.count(filter=node)
        return False
    except InvalidArgument:
        for call in (lambda: twin.docs.delete(filter=node), lambda: twin.docs.search(twin.table[0], filter=node)):
            with pytest.raises(InvalidArgument):
                call()
        twin.unmoved()
        return True


def written(twin: Twin, node: Node, write: Callable[[], int]) -> int | None:
    """How many records a write by filter has changed; None where it was refused, as one is that all records match
    whatever they have. That changes nothing.
    """
    try:
        return write()
    except InvalidArgument as error:
        assert "every record matches" in str(error)
        assert evaluate.matches(node, {}) and matching(twin, node) == set(twin.model)
        twin.unmoved()
        return None


def read(twin: Twin, node: Node, query: int, names: list[str]) -> None:
    """Counts, lists and searches, among all records and those of tenants."""
    if refused(twin, node):
        return
    known = [name for name in names if name in twin.tenants]
    for among in ([], known) if known else ([],):
        expected = matching(twin, node) & (twin.seen_by(among) if among else set(twin.model))
        tenant = among or None
        assert twin.docs.count(filter=node, tenant=tenant) == len(expected)
        listed = [one.id for one in twin.docs.get(filter=node, tenant=tenant)]
        assert set(listed) == expected and len(listed) == len(expected)
        vector = twin.table[query].astype(np.float32)
        for limit in (1, len(expected) + 1):
            for exact in (True, False):
                params = vecdb.SearchParams(exact=exact)
                hits = twin.docs.search(vector, limit, filter=node, tenant=tenant, params=params)
                near = twin.near(expected)
                assert len(hits) == min(limit, len(near)) == len(set(hits.ids.tolist()))
                assert set(hits.ids.tolist()) <= near
                if len(hits):
                    true = distances_to(
                        vector, np.stack([twin.model[one][0] for one in hits.ids.tolist()]), twin.setup.metric
                    )
                    assert np.allclose(hits.distances, true, rtol=1e-3, atol=1e-3)
    pages = [one.id for page in twin.docs.iter(5, filter=node, order_by="a") for one in page]
    assert set(pages) == matching(twin, node) and len(pages) == len(set(pages))
    twin.seen["filters"] += 1


def delete(twin: Twin, node: Node) -> None:
    if refused(twin, node):
        return
    doomed = matching(twin, node)
    count = written(twin, node, lambda: twin.docs.delete(filter=node))
    if count is None:
        return
    assert count == len(doomed)
    for one in doomed:
        del twin.model[one], twin.access[one]
    _moved(twin, doomed)


def update(twin: Twin, node: Node, change: dict[str, Any]) -> None:
    if refused(twin, node):
        return
    chosen = matching(twin, node)
    count = written(twin, node, lambda: twin.docs.update(filter=node, fields=change))
    if count is None:
        return
    assert count == len(chosen)
    for one in chosen:
        vector, fields = twin.model[one]
        twin.model[one] = vector, {name: value for name, value in (fields | change).items() if value is not None}
    _moved(twin, chosen)


def _moved(twin: Twin, changed: set[Any]) -> None:
    if changed:
        twin.moved()
        twin.seen["writes by filter"] += 1
    else:
        twin.unmoved()
