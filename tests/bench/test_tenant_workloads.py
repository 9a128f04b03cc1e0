"""Workloads of many tenants, each against the plainest way to say the same."""

from __future__ import annotations

import numpy as np
import pytest

from vecdb_bench.tenants import lineup, workload


@pytest.fixture(scope="module")
def shared() -> workload.Workload:
    return workload.load_workload("tenants-1500x8-count40-seed3")


def test_members_are_the_lists_turned_around(shared: workload.Workload) -> None:
    lists = shared.lists()
    assert sum(map(len, lists)) == shared.pairs
    for name, rows in zip(shared.names, shared.members, strict=True):
        assert rows.tolist() == [row for row, names in enumerate(lists) if name in names]
    few = workload.load_workload("tenants-1500x8-count40-seed3", rows=100)
    assert few.lists() == lists[:100]


def test_truth_is_the_nearest_among_the_tenants_own_rows(shared: workload.Workload) -> None:
    asked = workload.QuerySet("some", np.arange(6), [(0,), (39,), (0,), (3, 4), (5, 0, 7), (38,)])
    truth = asked.truth(shared, 10)
    for at, who in enumerate(asked.tenants):
        rows = sorted({row for tenant in who for row in shared.members[tenant].tolist()})
        distances = ((shared.base[rows] - shared.queries[asked.vectors[at]]) ** 2).sum(axis=1)
        order = np.argsort(distances)[:10]
        assert truth.ids[at, :10].tolist() == [rows[i] for i in order]
    exact = [truth.ids[at, :10].tolist() for at in range(6)]
    assert workload.recalls(exact, truth, 10).tolist() == [1.0] * 6
    assert workload.recalls([one[:5] for one in exact], truth, 10).tolist() == [0.5] * 6


def test_a_tenant_of_few_rows_is_found_whole(shared: workload.Workload) -> None:
    tiny = workload.Workload("tiny", shared.base, shared.queries, "l2", ["a"], [np.array([3, 8])])
    truth = workload.QuerySet("one", np.array([0]), [(0,)]).truth(tiny, 10)
    assert workload.recalls([[8, 3]], truth, 10)[0] == 1 and workload.recalls([[8]], truth, 10)[0] == 0.5


def test_large_tenants_are_asked_as_often_as_they_have_records(shared: workload.Workload) -> None:
    asked = workload.by_size(shared, 20_000, 1)
    counts = np.bincount([who[0] for who in asked.tenants], minlength=len(shared.names))
    sizes = np.array([len(rows) for rows in shared.members])
    assert np.allclose(counts / counts.sum(), sizes / sizes.sum(), atol=0.01)
    assert workload.by_size(shared, 20_000, 1).tenants == asked.tenants


def test_a_grown_workload_has_the_same_tenants_with_more_records(shared: workload.Workload) -> None:
    grown = workload.grown(shared, 4_000, 1)
    assert len(grown.base) == 4_000 and np.array_equal(grown.base[:1_500], shared.base)
    lists = shared.lists()
    assert grown.lists() == (lists * 3)[:4_000]
    moved = np.linalg.norm(grown.base[1_500:3_000] - shared.base, axis=1)
    assert moved.min() > 0 and moved.max() < np.linalg.norm(shared.base, axis=1).mean()


def test_a_union_stands_beside_a_tenant_of_the_same_records(shared: workload.Workload) -> None:
    both, roles, alone = workload.with_unions(shared, roles=4, count=3, queries=10, seed=1)
    assert np.array_equal(roles.vectors, alone.vectors)
    for several, one in zip(roles.tenants, alone.tenants, strict=True):
        assert len(several) == 4 and len(one) == 1 and np.array_equal(both.rows_of(several), both.rows_of(one))


def test_recall_is_averaged_by_tenant(shared: workload.Workload) -> None:
    asked = workload.QuerySet("some", np.zeros(4, np.int64), [(2,), (5,), (2,), (5,)])
    assert workload.by_tenant(np.array([1.0, 0.5, 0.5, 0.5]), asked).tolist() == [0.75, 0.5]


def test_the_best_point_reaches_the_recall_and_is_the_fastest_of_those() -> None:
    points = [{"recall": 0.9, "mean_ms": 1.0}, {"recall": 0.96, "mean_ms": 3.0}, {"recall": 0.99, "mean_ms": 2.0}]
    assert lineup.best(points, 0.95) == points[2] and lineup.best(points, 0.995) is None
