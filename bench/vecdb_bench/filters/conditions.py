"""Conditions: filters that match a given share of the rows, wherever they lie as seen from the query.

    independent   rows drawn at random            near   the cluster nearest to the query       far   the farthest one

Clusters are of equal size: k-means with two centres, again and again, each time cut at the share that is wanted. A
share of 1 / parts is one cluster of so many (one keyword), a random part of a larger one (two keywords), a stretch of
the order in which clusters lie (range), or the nearest of many small ones (list).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

import vecdb
from vecdb_bench.filters.plan import CORRELATIONS, SHAPES, Plan
from vecdb_datasets import load, shuffled

Array = NDArray[Any]
_TWO: dict[int, tuple[int, int]] = {  # parts of the first keyword and of the second
    1: (1, 1), 2: (2, 1), 5: (5, 1), 10: (5, 2), 25: (5, 5), 100: (10, 10), 1_000: (100, 10), 10_000: (100, 100),
}  # fmt: skip
_SAMPLE = 2_000  # rows that two centres are fitted to


class Term(NamedTuple):
    """A condition on one field: its value is one of `values`, or lies in [values[0], values[1]] if `ordered`."""

    name: str
    values: tuple[int, ...]
    ordered: bool = False


Terms = tuple[Term, ...]


@dataclass(frozen=True, slots=True)
class Condition:
    """terms : of each query, all of which hold."""

    correlation: str
    shape: str
    parts: int
    terms: list[Terms]

    @property
    def percent(self) -> float:
        return 100 / self.parts

    @property
    def name(self) -> str:
        return f"{self.correlation}-{self.shape}-{self.parts}".replace(" ", "-")


@dataclass(slots=True)
class Data:
    """columns : the number of each row in each field. Fields c<parts> and cpos follow the clusters, i<parts> and ipos
    are random, and u<parts> are random in another way.
    """

    name: str
    base: Array
    queries: Array
    metric: vecdb.Metric
    columns: dict[str, NDArray[np.int64]] = field(default_factory=dict)
    _orders: dict[str, NDArray[np.int64]] = field(default_factory=dict)

    def records(self, start: int, stop: int) -> dict[str, list[Any]]:
        """Fields of some rows, as `upsert` takes them."""
        return {
            name: codes[start:stop].tolist() if name.endswith("pos") else [f"{name}.{one}" for one in codes[start:stop]]
            for name, codes in self.columns.items()
        }

    def mask(self, terms: Terms) -> NDArray[np.bool_]:
        """Which rows match."""
        found = np.ones(len(self.base), bool)
        for term in terms:
            codes = self.columns[term.name]
            if term.ordered:
                found &= (codes >= term.values[0]) & (codes <= term.values[1])
            else:
                found &= np.isin(codes, term.values)
        return found

    def distances(self) -> NDArray[np.float64]:
        """float64[nq, n]: vecdb's distance of each query to each row."""
        base, queries = self.base.astype(np.float64), self.queries.astype(np.float64)
        if self.metric == "cosine":
            base /= np.linalg.norm(base, axis=1, keepdims=True)
            queries /= np.linalg.norm(queries, axis=1, keepdims=True)
        products = queries @ base.T
        if self.metric == "ip":
            return -products
        if self.metric == "cosine":
            return 1 - products
        return np.asarray((queries**2).sum(axis=1)[:, None] - 2 * products + (base**2).sum(axis=1))

    def by_distance(self, name: str, codes: Array) -> NDArray[np.int64]:
        """[nq, parts]: for each query the parts of a field from the nearest to the farthest centre."""
        if name not in self._orders:
            rows = np.argsort(codes, kind="stable")
            starts = np.searchsorted(codes[rows], np.arange(int(codes.max()) + 1))
            sums = np.add.reduceat(self.base[rows].astype(np.float64), starts)
            centres = sums / np.diff([*starts, len(rows)])[:, None]
            apart = (centres**2).sum(axis=1) - 2 * self.queries.astype(np.float64) @ centres.T
            self._orders[name] = np.argsort(apart, axis=1, kind="stable")
        return self._orders[name]


def filter_of(terms: Terms, fresh: int | None = None) -> Any:
    """The filter. fresh : a number that makes it one that was not asked before and matches the same rows."""
    found = None
    for at, term in enumerate(terms):
        one, new = vecdb.F[term.name], fresh is not None and at == 0
        condition: Any
        if term.ordered:
            high = term.values[1] + (fresh + 1) * 1e-7 if new and fresh is not None else term.values[1]
            condition = one.between(term.values[0], high)
        else:
            texts = [f"{term.name}.{value}" for value in term.values] + ([f"none {fresh}"] if new else [])
            condition = one == texts[0] if len(texts) == 1 else one.is_in(texts)
        found = condition if found is None else found & condition
    return found


def load_data(plan: Plan) -> Data:
    """The first rows of a data set, with fields."""
    loaded = shuffled(load(plan.dataset, plan.folder), plan.seed)  # some sets have the easy queries first
    base = np.asarray(loaded.base[: plan.rows])
    data = Data(f"{loaded.name}[:{len(base)}]", base, np.asarray(loaded.queries[: plan.queries]), loaded.metric)
    rng, n = np.random.default_rng(plan.seed), len(base)
    ipos, upos = rng.permutation(n), rng.permutation(n)
    many = {min(n, parts) for parts in (*plan.parts, *plan.peer_parts)}
    two = {part for parts in plan.parts for part in _TWO.get(parts, (parts, 1))}
    small = {min(n, one) for one in (1_000, 10_000)}
    for parts in sorted(many | small | two):
        data.columns[f"c{parts}"] = clusters(base, min(parts, n), rng)
        if parts > 1:
            data.columns[f"i{parts}"] = ipos * min(parts, n) // n
    for parts in sorted({second for _, second in map(_two_of, plan.parts)} - {1}):
        data.columns[f"u{parts}"] = upos * parts // n
    data.columns["cpos"] = np.argsort(np.argsort(data.columns[f"c{min(n, 10_000)}"], kind="stable"))
    data.columns["ipos"] = ipos
    return data


def _two_of(parts: int) -> tuple[int, int]:
    return _TWO.get(parts, (parts, 1))


def clusters(vectors: Array, count: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """int64[n]: the number of each row's cluster. Clusters have equally many rows; neighbours in number are near."""
    found = np.zeros(len(vectors), np.int64)
    wide = np.asarray(vectors, np.float32)
    waiting = [(np.arange(len(vectors)), 0, count)]
    while waiting:
        rows, first, parts = waiting.pop()
        if parts == 1:
            found[rows] = first
            continue
        left = parts // 2
        cut = len(rows) * left // parts
        along = wide[rows] @ _axis(wide[rows if len(rows) <= _SAMPLE else rng.choice(rows, _SAMPLE)], rng)
        order = np.argpartition(along, cut - 1) if cut else np.arange(len(rows))
        waiting += [(rows[order[:cut]], first, left), (rows[order[cut:]], first + left, parts - left)]
    return found


def _axis(some: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
    """From one of two centres to the other."""
    centres = some[rng.choice(len(some), 2, replace=len(some) < 2)]
    for _ in range(4):
        middle = (centres[1] ** 2).sum() - (centres[0] ** 2).sum()
        second = 2 * some @ (centres[1] - centres[0]) > middle
        if second.all() or not second.any():
            break
        centres = np.stack([some[~second].mean(axis=0), some[second].mean(axis=0)])
    return np.asarray(centres[1] - centres[0])


def conditions(data: Data, parts: tuple[int, ...], shapes: tuple[str, ...] = SHAPES) -> list[Condition]:
    """Every share, correlation and shape."""
    queries = range(len(data.queries))
    return [
        Condition(correlation, shape, share, [_terms(data, correlation, shape, share, query) for query in queries])
        for share in parts
        for correlation in CORRELATIONS
        for shape in shapes
    ]  # fmt: skip


def _terms(data: Data, correlation: str, shape: str, parts: int, query: int) -> Terms:
    n = len(data.base)
    if shape == "keyword":
        return (_part(data, correlation, min(parts, n), query),)
    if shape == "two keywords":
        first, second = _two_of(parts)
        other = Term("c1", (0,)) if second == 1 else Term(f"u{second}", (query % second,))
        return _part(data, correlation, min(first, n), query), other
    if shape == "range":
        count = min(parts, n)
        name = "ipos" if correlation == "independent" else "cpos"
        code = _nearest(data, f"{name}/{count}", data.columns["cpos"] * count // n, correlation, count, query, 1)[0]
        return (Term(name, (-(-code * n // count), -(-(code + 1) * n // count) - 1), ordered=True),)
    small = min(n, 1_000 if parts < 100 else 10_000)
    letter = "i" if correlation == "independent" else "c"
    codes = data.columns[f"c{small}"]
    chosen = _nearest(data, f"c{small}", codes, correlation, small, query, max(1, math.ceil(small / parts)))
    return (Term(f"{letter}{small}", tuple(chosen)),)


def _part(data: Data, correlation: str, parts: int, query: int) -> Term:
    """One cluster of `parts`, or so large a random part."""
    if parts == 1:
        return Term("c1", (0,))
    codes = data.columns[f"c{parts}"]
    chosen = _nearest(data, f"c{parts}", codes, correlation, parts, query, 1)
    return Term(f"{'i' if correlation == 'independent' else 'c'}{parts}", tuple(chosen))


def _nearest(data: Data, name: str, codes: Array, correlation: str, parts: int, query: int, count: int) -> list[int]:
    """The `count` nearest or farthest parts, or any."""
    if correlation == "independent":
        return [(7 * query + at) % parts for at in range(count)]
    order = data.by_distance(name, codes)[query]
    return [int(one) for one in (order[:count] if correlation == "near" else order[len(order) - count :])]
