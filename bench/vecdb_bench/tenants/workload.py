"""Workloads: vectors, the tenants that may see them, and sets of queries; all from a seed, with the true neighbours.

A query of a set is a vector and the tenants (mostly one) among whose records it is searched. "By size" draws a (record,
tenant) pair and searches for its tenant, so that large tenants search more often, as in real use.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import vecdb
from vecdb_datasets import Dataset, Truth, exact_truth, load, recall_per_query

Array = NDArray[Any]
ties_max = 6  # neighbours beyond the limit that the truth has, for ties


@dataclass(frozen=True, slots=True)
class Workload:
    """members : the rows of each tenant, ascending."""

    name: str
    base: NDArray[np.float32]
    queries: NDArray[np.float32]
    metric: vecdb.Metric
    names: list[str]
    members: list[NDArray[np.int64]]

    @property
    def pairs(self) -> int:
        return sum(map(len, self.members))

    def rows_of(self, tenants: Sequence[int]) -> NDArray[np.int64]:
        if len(tenants) == 1:
            return self.members[tenants[0]]
        return np.unique(np.concatenate([self.members[tenant] for tenant in tenants]))

    def lists(self) -> list[list[str]]:
        """The names of the tenants of each row."""
        found: list[list[str]] = [[] for _ in range(len(self.base))]
        for name, rows in zip(self.names, self.members, strict=True):
            for row in rows.tolist():
                found[row].append(name)
        return found

    def facts(self) -> dict[str, Any]:
        sizes = np.array([len(rows) for rows in self.members])
        return {
            "name": self.name,
            "rows": len(self.base),
            "dim": self.base.shape[1],
            "metric": self.metric,
            "tenants": len(self.names),
            "pairs": self.pairs,
            "pairs_by_row": self.pairs / len(self.base),
            "rows_by_tenant": float(sizes.mean()),
            "rows_by_tenant_drawn_by_size": float((sizes**2).sum() / max(1, sizes.sum())),
        }

    def save(self, folder: Path) -> None:
        """Write what the engines read (vecdb_bench/engines/tenants/tenant.py)."""
        folder.mkdir(parents=True, exist_ok=True)
        np.save(folder / "base.npy", self.base)
        np.save(folder / "queries.npy", self.queries)
        bounds = np.cumsum([0, *map(len, self.members)])
        np.savez(folder / "tenants.npz", names=self.names, indptr=bounds, indices=np.concatenate(self.members))


@dataclass(frozen=True, slots=True)
class QuerySet:
    """vectors : rows of the workload's queries.   tenants : the numbers of each query's tenants."""

    name: str
    vectors: NDArray[np.int64]
    tenants: list[tuple[int, ...]]

    def __len__(self) -> int:
        return len(self.vectors)

    def save(self, folder: Path) -> None:
        bounds = np.cumsum([0, *map(len, self.tenants)])
        numbers = np.array([number for one in self.tenants for number in one], np.int64)
        np.savez(folder / f"{self.name}.query_set.npz", vectors=self.vectors, indptr=bounds, indices=numbers)

    def truth(self, workload: Workload, limit: int) -> Truth:
        """The nearest of the tenants' rows, and a few beyond `limit`, so that ties at its end are known."""
        k = limit + ties_max
        ids, distances = np.empty((len(self), k), np.int64), np.empty((len(self), k), np.float32)
        places_of: dict[tuple[int, ...], list[int]] = {}
        for at, who in enumerate(self.tenants):
            places_of.setdefault(who, []).append(at)
        for who, places in places_of.items():
            rows = workload.rows_of(who)
            queries = workload.queries[self.vectors[places]]
            found = exact_truth(workload.base[rows], queries, workload.metric, k, cache=False)
            ids[places] = np.where(found.ids >= 0, rows[found.ids], -1)
            distances[places] = found.distances
        return Truth(ids, distances)


def recalls(found: Sequence[Sequence[int]], truth: Truth, limit: int) -> NDArray[np.float64]:
    """Recall of each query."""
    return recall_per_query(found, truth.ids, truth.distances, limit)


def by_tenant(recall: Array, queries: QuerySet) -> NDArray[np.float64]:
    """Mean recall of each tenant that has queries."""
    who = np.array([one[0] for one in queries.tenants])
    sums, counts = np.bincount(who, recall), np.bincount(who)
    return np.asarray(sums[counts > 0] / counts[counts > 0])


# -- workloads -------------------------------------------------------------------------------------


def load_workload(dataset: str, folder: str | None = None, rows: int | None = None) -> Workload:
    """A data set whose rows have tags: each tag is a tenant."""
    data = load(dataset, folder)
    if "tags_indptr" not in data.extras:
        raise vecdb.InvalidArgument(f"the rows of {dataset!r} belong to nobody: use summaries or tenants-<n>x<dim>")
    n = min(rows or len(data.base), len(data.base))
    return Workload(
        data.name if n == len(data.base) else f"{data.name}[:{n}]",
        np.asarray(data.base[:n], np.float32),
        np.asarray(data.queries, np.float32),
        data.metric,
        list(data.extras["tag_names"]),
        _members(data, n),
    )


def _members(data: Dataset, n: int) -> list[NDArray[np.int64]]:
    bounds = np.asarray(data.extras["tags_indptr"], np.int64)[: n + 1]
    numbers = np.asarray(data.extras["tags_indices"][: bounds[-1]], np.int64)
    rows = np.repeat(np.arange(n), np.diff(bounds))
    order = np.argsort(numbers, kind="stable")
    ends = np.cumsum(np.bincount(numbers, minlength=len(data.extras["tag_names"])))
    return list(np.split(rows[order], ends[:-1]))


def grown(workload: Workload, rows: int, seed: int) -> Workload:
    """The same tenants with `rows` records: the first rows, or copies moved by half the distance to a neighbour."""
    n = len(workload.base)
    copies = -(-rows // n)
    rng = np.random.default_rng([seed, 4])
    base = np.tile(workload.base, (copies, 1))[:rows]
    few = workload.base[rng.choice(n, min(n, 500), replace=False)]
    nearest = exact_truth(workload.base, few, "l2", 2, cache=False).distances[:, 1]  # the first is itself
    size = 0.5 * float(np.sqrt(np.median(nearest)) / np.sqrt(workload.base.shape[1]))
    for start in range(n, rows, n):
        part = base[start : start + n]
        part += size * rng.standard_normal(part.shape, np.float32)
    members = [np.concatenate([each + n * copy for copy in range(copies)]) for each in workload.members]
    name = workload.name if rows == n else f"{workload.name} grown to {rows}"
    return Workload(
        name, base, workload.queries, workload.metric, workload.names, [each[each < rows] for each in members]
    )


def with_unions(
    workload: Workload, roles: int, count: int, queries: int, seed: int
) -> tuple[Workload, QuerySet, QuerySet]:
    """Unions of `roles` tenants each, and for each a tenant of the same records; both get the same queries."""
    rng = np.random.default_rng([seed, 5])
    there = np.flatnonzero([len(rows) > 0 for rows in workload.members])
    unions = [tuple(rng.choice(there, min(roles, len(there)), replace=False).tolist()) for _ in range(count)]
    alone = [workload.rows_of(union) for union in unions]
    names = [f"all of union {at}" for at in range(count)]
    shared = Workload(
        workload.name,
        workload.base,
        workload.queries,
        workload.metric,
        workload.names + names,
        workload.members + alone,
    )
    vectors, which = rng.integers(0, len(workload.queries), queries), rng.integers(0, count, queries)
    return (
        shared,
        QuerySet("roles", vectors, [unions[at] for at in which]),
        QuerySet("alone", vectors, [(len(workload.names) + int(at),) for at in which]),
    )


def sized(workload: Workload, sizes: Sequence[int], queries: int, seed: int) -> tuple[Workload, list[QuerySet]]:
    """A tenant of each size, of random rows, and the queries of each; sizes above the number of rows are left out."""
    rng = np.random.default_rng([seed, 8])
    n = len(workload.base)
    members = [np.sort(rng.choice(n, size, replace=False)) for size in sizes if size <= n]
    names = [f"{len(rows)} rows" for rows in members]
    vectors = rng.integers(0, len(workload.queries), queries)
    query_sets = [QuerySet(f"sized-{at}", vectors, [(at,)] * queries) for at in range(len(members))]
    return Workload(workload.name, workload.base, workload.queries, workload.metric, names, members), query_sets


# -- query sets ------------------------------------------------------------------------------------


def by_size(workload: Workload, count: int, seed: int) -> QuerySet:
    rng = np.random.default_rng([seed, 6])
    ends = np.cumsum([len(rows) for rows in workload.members])
    tenants = np.searchsorted(ends, rng.integers(0, ends[-1], count), side="right")
    return QuerySet("timed", rng.integers(0, len(workload.queries), count), [(number,) for number in tenants.tolist()])


def every_tenant(workload: Workload, each: int, seed: int) -> QuerySet:
    rng = np.random.default_rng([seed, 7])
    there: list[tuple[int, ...]] = [(number,) for number, rows in enumerate(workload.members) if len(rows)]
    tenants = list(itertools.chain.from_iterable(itertools.repeat(who, each) for who in there))
    return QuerySet("each", rng.integers(0, len(workload.queries), len(tenants)), tenants)
