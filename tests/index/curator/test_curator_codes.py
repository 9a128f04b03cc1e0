"""Goal: a tree compares rows by codes that fit the data, whatever they are, and its own codes are beside the point."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.support.index_rows import MemoryRows
from vecdb import schema
from vecdb.index.contract import Neighbors
from vecdb.index.curator.curator_index import CuratorIndex
from vecdb.index.curator.tree_search import TreeSearch
from vecdb.index.row_set import RowSet
from vecdb.schema import SearchParams

CONFIG = schema.Curator(leaf_rows=16)
WIDE, ALL, EXACT = SearchParams(nprobe=60), SearchParams(), SearchParams(exact=True)
DIM = 24


def built(rows: MemoryRows, metric: str = "l2") -> CuratorIndex:
    index = CuratorIndex(CONFIG, metric, rows)
    index.publish_rows(rows.row_count)
    index.add(rows.row_count, 2)
    assert index.check() == []
    return index


def tight(n: int, seed: int = 0, spread: float = 1e-3) -> NDArray[np.float32]:
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(9).standard_normal((20, DIM))
    return (centres[rng.integers(0, 20, n)] + spread * rng.standard_normal((n, DIM))).astype(np.float32)


def halves(n: int, seed: int = 0) -> NDArray[np.float32]:
    rng = np.random.default_rng(seed)
    return (rng.standard_normal((n, DIM)) * rng.choice([1e-3, 10.0], (n, 1))).astype(np.float32)


def one_wide(n: int, seed: int = 0) -> NDArray[np.float32]:
    points = np.random.default_rng(seed).standard_normal((n, DIM)).astype(np.float32)
    points[:, 3] *= 1000
    return points


def two_shifted(n: int, seed: int = 0) -> NDArray[np.float32]:
    points = np.random.default_rng(seed).standard_normal((n, DIM)).astype(np.float32)
    points[:, :2] += 12
    return points


SHAPES = {"tight": tight, "halves": halves, "one wide": one_wide, "two shifted": two_shifted}


def near_enough(found: Neighbors, exact: Neighbors) -> float:
    """Share of the answers that are as near as the last true one."""
    worst = exact.distances[:, -1:]
    return float((found.distances <= worst + 1e-6 * np.abs(worst) + 1e-13).mean())


@pytest.mark.parametrize(
    ("shape", "metric", "codes"),
    [
        ("tight", "l2", "16 bit rotated"),
        ("halves", "l2", "8 bit rotated"),
        ("one wide", "l2", "8 bit rotated"),
        ("one wide", "cosine", "16 bit rotated"),
        ("two shifted", "cosine", "8 bit"),
    ],
)
def test_codes_fit_the_data_for_all_rows_and_a_tenant(shape: str, metric: str, codes: str, tmp_path: Path) -> None:
    vectors = SHAPES[shape](3000)
    rows = MemoryRows(vectors)
    index = built(rows, metric)
    assert index.stats()["codes"] == codes and index.stats()["codes_recall"] >= 0.99
    queries = SHAPES[shape](60, seed=5)
    tenant = RowSet(np.arange(0, 3000, 3, dtype=np.uint32))
    for allow in (None, tenant):
        exact = index.search(queries, 10, rows.visibility(), EXACT, allow)
        assert near_enough(index.search(queries, 10, rows.visibility(), ALL, allow), exact) > 0.99
    # sealed and opened again it answers the same, and goes on
    index.seal(tmp_path / "curator")
    rows.append(SHAPES[shape](200, seed=7))
    again = CuratorIndex.open(tmp_path / "curator", CONFIG, metric, rows)
    for one in (index, again):
        one.publish_rows(rows.row_count)
        one.add(rows.row_count)
        assert one.check() == [] and one.stats()["codes"] == codes
    a, b = (one.search(queries, 10, rows.visibility(), WIDE) for one in (index, again))
    assert np.array_equal(a.rows, b.rows) and np.array_equal(a.distances, b.distances)
    # and so after a vacuum
    mapping = np.full(rows.row_count, -1, np.int64)
    kept = np.flatnonzero(np.arange(rows.row_count) % 4 > 0)
    mapping[kept] = np.arange(len(kept))
    fewer = MemoryRows(rows.arrays.vectors[kept])
    left = index.renumbered(mapping, fewer)
    left.publish_rows(fewer.row_count)
    assert left.check() == [] and left.stats()["codes"] == codes
    exact = left.search(queries, 10, fewer.visibility(), EXACT)
    assert near_enough(left.search(queries, 10, fewer.visibility(), ALL), exact) > 0.99


def test_codes_are_chosen_anew_where_data_drift_and_the_tree_stays() -> None:
    rng = np.random.default_rng(0)
    steps = [(rng.standard_normal((1000, DIM)) * 8.0**step).astype(np.float32) for step in range(4)]
    rows = MemoryRows(steps[0], capacity=8000)
    index = built(rows)
    assert index.stats()["codes"] == "8 bit"
    seen = {"8 bit"}
    for step in steps[1:]:
        rows.append(step)
        index.publish_rows(rows.row_count)
        for _ in range(2):
            queries = (rng.standard_normal((50, DIM)) * np.abs(step).mean()).astype(np.float32)
            exact = index.search(queries, 10, rows.visibility(), EXACT)
            assert near_enough(index.search(queries, 10, rows.visibility(), ALL), exact) > 0.98
            index.add(rows.row_count)
            assert index.check() == []
        seen.add(index.stats()["codes"])
    assert len(seen) > 1


def test_codes_of_the_tree_stay_where_those_of_rows_are_replaced() -> None:
    rows = MemoryRows(np.random.default_rng(0).standard_normal((2000, DIM)).astype(np.float32), capacity=8000)
    index = built(rows)
    assert index._view is not None
    space = index._view.order.quantiser
    rows.append(tight(1000, spread=1e-4))
    index.publish_rows(rows.row_count)
    index.add(rows.row_count)
    order = index._view.order
    assert order.own_space is space and order.quantiser.code_format != "sq8" and index.check() == []
    queries = tight(50, seed=3, spread=1e-4)
    exact = index.search(queries, 10, rows.visibility(), EXACT)
    assert near_enough(index.search(queries, 10, rows.visibility(), WIDE), exact) > 0.95


def test_rows_beyond_the_codes_do_not_hide_what_lies_behind_them() -> None:
    """Far rows' codes are clipped, so that they seem nearer than they are; they are scored on their vectors."""
    rng = np.random.default_rng(1)
    rows = MemoryRows(rng.standard_normal((2000, DIM)).astype(np.float32), capacity=4000)
    index = built(rows)
    direction = np.ones(DIM, np.float32)
    rows.append((12 * direction + rng.standard_normal((15, DIM))).astype(np.float32))  # look like rows at 4
    index.publish_rows(rows.row_count)
    assert len(index._view.order.far) == 15  # type: ignore[union-attr]
    queries = (3 * direction + 0.1 * rng.standard_normal((40, DIM))).astype(np.float32)
    exact = index.search(queries, 10, rows.visibility(), EXACT)
    assert (exact.rows < 2000).mean() > 0.9
    assert near_enough(index.search(queries, 10, rows.visibility(), ALL), exact) > 0.95


def test_no_search_waits_for_the_kernel_of_other_codes(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = MemoryRows(np.random.default_rng(0).standard_normal((1000, DIM)).astype(np.float32), capacity=4000)
    index = built(rows)
    answered: list[tuple[str, bool]] = []  # by which codes, and whether they were published
    real = TreeSearch._answer

    def note(search: TreeSearch, queries: NDArray[np.float32], found: Neighbors) -> None:
        real(search, queries, found)
        assert queries.flags.writeable, "of another type for numba, which would compile it once more"
        answered.append((search._view.order.quantiser.code_format, search._view is index._view))

    monkeypatch.setattr(TreeSearch, "_answer", note)
    rows.append(tight(2500, spread=1e-4))
    index.publish_rows(rows.row_count)
    index.add(rows.row_count)
    order = index._view.order  # type: ignore[union-attr]
    assert order.quantiser.code_format != "sq8" and answered == [(order.quantiser.code_format, False)]
