"""Goal: posting lists on disk find what the exact scan finds, at every stage of their life, whatever the budget, the
threads and the data; what is dead or damaged never comes back as an answer.
"""

from __future__ import annotations

import contextlib
import threading
import tracemalloc
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.support.disk_rows import DiskRows
from tests.support.index_rows import clustered, distances, recall
from vecdb import schema
from vecdb.errors import Corruption
from vecdb.index.contract import Neighbors
from vecdb.index.row_set import RowSet
from vecdb.index.spann import bulk_build, list_updates
from vecdb.index.spann import posting_lists as lists_module
from vecdb.index.spann.posting_lists import ListsView, with_room
from vecdb.index.spann.spann_index import SpannIndex
from vecdb.schema import DTYPES, METRICS, SearchParams, Visibility
from vecdb.storage.disk import list_file

WIDE = SearchParams(nprobe=48)
ALL = SearchParams(nprobe=1 << 16)
EXACT = SearchParams(exact=True)

Make = Callable[..., tuple[DiskRows, SpannIndex]]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    """make(vectors, metric, indexed=rows to index, threads=, **config) -> rows on disk and an index that is well."""
    opened: list[tuple[DiskRows, SpannIndex]] = []

    def one(
        vectors: NDArray[Any], metric: str = "l2", indexed: int | None = None, threads: int = 2, **config: Any
    ) -> tuple[DiskRows, SpannIndex]:
        folder = tmp_path / str(len(opened))
        folder.mkdir()
        rows = DiskRows(folder / "rows.0", vectors)
        index = SpannIndex(schema.Spann(**config), metric, rows, folder)
        opened.append((rows, index))
        index.publish_rows(rows.row_count)
        index.add(rows.row_count if indexed is None else indexed, threads)
        assert index.check() == []
        return rows, index

    yield one
    for rows, index in opened:
        index.close()
        rows.close()


def view_of(index: SpannIndex) -> ListsView:
    view = index.lists.view
    assert view is not None
    return view


def resident_bytes(index: SpannIndex) -> int:
    view = view_of(index)
    return int(view.body_bytes()[view.body_offsets >= 0].sum())


def add_all(index: SpannIndex, rows: DiskRows, threads: int = 1) -> None:
    """To the last row, in the steps that maintenance would take; the index is well after each."""
    index.publish_rows(rows.row_count)
    while index.indexed_rows < rows.row_count:
        index.add(index.next_stop(rows.row_count), threads)
        assert_well(index)


def assert_well(index: SpannIndex) -> None:
    assert index.check() == []
    assert int(view_of(index).lengths.max()) <= index.ceiling


def rows_by_list(index: SpannIndex) -> list[list[int]]:
    """Rows of every list in the order of its body, dead entries included."""
    view = view_of(index)
    data, places = index.lists.bodies(view, np.arange(view.heads.count))
    words = data.view(np.uint32)
    out = []
    for place, count in zip(places.tolist(), view.lengths.tolist(), strict=True):
        first = (place + count * view.coder.width) // 4
        out.append(words[first : first + count].tolist())
    return out


def contents(index: SpannIndex) -> list[bytes]:
    """Heads and bodies, byte for byte."""
    view = view_of(index)
    data, places = index.lists.bodies(view, np.arange(view.heads.count))
    ends = places + view.body_bytes()
    bodies = [data[start:end].tobytes() for start, end in zip(places.tolist(), ends.tolist(), strict=True)]
    return [view.heads.codes.tobytes(), view.heads.group_ends.tobytes(), view.lengths.tobytes(), *bodies]


def same(a: Neighbors, b: Neighbors) -> bool:
    return (
        np.array_equal(a.rows, b.rows)
        and np.array_equal(a.distances, b.distances)
        and np.array_equal(a.counts, b.counts)
    )


def assert_true(found: Neighbors, metric: str, queries: NDArray[Any], rows: DiskRows) -> None:
    """Distances are those of the rows, nearest first; rows are distinct and alive; nothing beyond the counts."""
    limit = found.rows.shape[1]
    for i, count in enumerate(found.counts.tolist()):
        got = found.rows[i, :count]
        assert len(set(got.tolist())) == count
        assert (rows.arrays.deleted[got] == 0).all() and (got < rows.row_count).all()
        truth = distances(metric, queries[i : i + 1], rows.arrays.vectors[got])[0]
        assert np.allclose(
            found.distances[i, :count], truth, rtol=1e-5, atol=1e-6 + 1e-7 * np.abs(truth).max(initial=0)
        )
        assert (np.diff(found.distances[i, :count]) >= 0).all()
        assert (found.rows[i, count:] == -1).all() and np.isinf(found.distances[i, count:]).all()
        assert count <= limit


def reached(index: SpannIndex, rows: DiskRows, queries: NDArray[Any], limit: int, params: SearchParams) -> float:
    """Recall where rows at the same distance count as one another."""
    found = index.search(queries, limit, rows.visibility(), params)
    truth = index.search(queries, limit, rows.visibility(), EXACT)
    assert np.array_equal(found.counts, truth.counts)
    return float((found.distances <= truth.distances[:, -1:]).mean())


# -- answers -------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("metric", METRICS)
def test_recall_and_distances_for_every_metric_and_type(make: Make, metric: str, dtype: str) -> None:
    vectors = clustered(2000, 24, dtype)
    queries = clustered(60, 24, dtype, 9).astype(np.float32)
    rows, index = make(vectors, metric)
    found = index.search(queries, 10, rows.visibility(), WIDE)
    assert_true(found, metric, queries, rows)
    assert reached(index, rows, queries, 10, WIDE) > 0.92
    assert int(found.work[3]) < 60 * 61  # the answer came from lists, not from scans of everything
    if metric != "ip":
        own = index.search(vectors[:40].astype(np.float32), 1, rows.visibility(), WIDE)
        assert (own.distances[:, 0] == 0).mean() > 0.95


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize(("bits", "floor"), [(1, 0.85), (2, 0.92), (4, 0.98), (8, 0.995)])
def test_more_bits_find_more(make: Make, metric: str, bits: int, floor: float) -> None:
    rows, index = make(clustered(2000, 24), metric, bits=bits)
    queries = clustered(60, 24, seed=9)
    assert_true(index.search(queries, 10, rows.visibility(), ALL), metric, queries, rows)
    assert reached(index, rows, queries, 10, ALL) > floor


@pytest.mark.parametrize("dtype", ["uint8", "int8"])
def test_integers_under_l2_are_found_exactly_by_eight_bits(make: Make, dtype: str) -> None:
    vectors = clustered(2000, 24, dtype)
    rows, index = make(vectors, bits=8)
    assert view_of(index).coder.lossless
    queries = clustered(60, 24, dtype, 9).astype(np.float32)
    assert same(index.search(queries, 10, rows.visibility(), ALL), index.search(queries, 10, rows.visibility(), EXACT))
    assert reached(index, rows, queries + np.float32(0.37), 10, ALL) > 0.99


@pytest.mark.parametrize("dtype", ["uint8", "int8", "float32"])
def test_queries_far_outside_the_data_find_their_neighbours(make: Make, dtype: str) -> None:
    """The direction of a query must survive whatever range the codes have."""
    vectors = clustered(2000, 24, dtype)
    rows, index = make(vectors, bits=8)
    spread = vectors.astype(np.float32).std()
    queries = (clustered(40, 24, dtype, 9).astype(np.float32) - vectors.mean()) * np.float32(8) + spread
    assert reached(index, rows, queries, 10, ALL) > 0.9


@pytest.mark.parametrize("bits", [2, 8])
@pytest.mark.parametrize("metric", ["l2", "cosine"])
def test_neighbours_much_nearer_than_their_head_are_told_apart_by_their_vectors(
    make: Make, metric: str, bits: int
) -> None:
    """Families of near duplicates: estimates cannot order them, so the whole family has to be scored again."""
    rng = np.random.default_rng(5)
    base = rng.standard_normal((120, 24))
    vectors = (np.repeat(base, 20, axis=0) + 0.01 * rng.standard_normal((2400, 24))).astype(np.float32)
    rows, index = make(vectors[rng.permutation(2400)], metric, bits=bits)
    queries = (base[:60] + 0.01 * rng.standard_normal((60, 24))).astype(np.float32)
    assert reached(index, rows, queries, 10, ALL) > 0.9


def test_rows_far_outside_the_codes_are_found_in_the_tail_in_the_lists_and_after_a_seal(
    make: Make, tmp_path: Path
) -> None:
    rows, index = make(clustered(1500, 24))
    outliers = (np.arange(1, 81, dtype=np.float32)[:, None] * np.float32(100)) * np.ones(24, np.float32)
    rows.append(outliers)
    index.publish_rows(rows.row_count)
    place = np.arange(1500, 1580)
    assert np.array_equal(index.search(outliers, 3, rows.visibility(), WIDE).rows[:, 0], place)
    add_all(index, rows)
    assert np.array_equal(index.search(outliers, 3, rows.visibility(), WIDE).rows[:, 0], place)
    index.seal(tmp_path / "0" / "sealed")
    again = SpannIndex.open(tmp_path / "0" / "sealed", index.config, "l2", rows)
    assert np.array_equal(again.search(outliers, 3, rows.visibility(), WIDE).rows[:, 0], place)


def test_recall_stands_when_the_data_grow_out_of_the_codes(make: Make) -> None:
    rows, index = make(clustered(1500, 24))
    rows.append(clustered(1500, 24, seed=4) * np.float32(20))
    add_all(index, rows)
    queries = clustered(60, 24, seed=9) * np.float32(20)
    assert reached(index, rows, queries, 10, ALL) > 0.9


@pytest.mark.parametrize("metric", ["l2", "ip"])
def test_recall_does_not_depend_on_the_order_of_rows(make: Make, metric: str) -> None:
    """Rows sorted by norm: what is measured on a sample must be measured on all of it, not on the first rows."""
    rng = np.random.default_rng(3)
    vectors = clustered(8000, 24) * np.exp(np.linspace(-3, 3, 8000)).astype(np.float32)[:, None]
    queries = vectors[::131] * np.float32(1.02)
    rows, index = make(vectors, metric)
    mixed_rows, mixed = make(vectors[rng.permutation(8000)], metric)
    ordered = reached(index, rows, queries, 10, WIDE)
    assert ordered > reached(mixed, mixed_rows, queries, 10, WIDE) - 0.02


@pytest.mark.parametrize("dim", [1, 3, 64, 300])
def test_every_width_of_vectors(make: Make, dim: int) -> None:
    vectors = clustered(1500, dim)
    rows, index = make(vectors)
    queries = clustered(30, dim, seed=9)
    assert_true(index.search(queries, 10, rows.visibility(), ALL), "l2", queries, rows)
    assert reached(index, rows, queries, 10, ALL) > 0.9
    rows.append(clustered(600, dim, seed=4))
    add_all(index, rows)


@pytest.mark.parametrize("n", [1, 2, 3, 10])
@pytest.mark.parametrize("metric", METRICS)
def test_tiny_collections(make: Make, n: int, metric: str) -> None:
    rows, index = make(np.arange(1, n + 1, dtype=np.float32).reshape(n, 1), metric)
    found = index.search(np.ones((2, 1), np.float32), 5, rows.visibility(), WIDE)
    assert found.counts.tolist() == [min(n, 5)] * 2
    exact = index.search(np.ones((2, 1), np.float32), 5, rows.visibility(), EXACT)
    assert np.array_equal(found.distances, exact.distances)
    rows.append(np.arange(n + 1, n + 3, dtype=np.float32).reshape(2, 1))
    add_all(index, rows)
    assert index.search(np.ones((1, 1), np.float32), 50, rows.visibility(), WIDE).counts[0] == n + 2


def test_an_index_without_rows_answers_from_the_tail(make: Make) -> None:
    vectors = clustered(300, 24)
    rows, index = make(vectors, indexed=0)
    assert index.indexed_rows == 0 and index.check() == [] and index.stats()["indexed_rows"] == 0
    found = index.search(vectors[:50], 1, rows.visibility(), WIDE)
    assert np.array_equal(found.rows[:, 0], np.arange(50)) and (found.distances == 0).all()


def test_the_tail_is_found_before_it_is_indexed(make: Make) -> None:
    vectors = clustered(2400, 24)
    rows, index = make(vectors[:1200])
    for stop in range(1300, 2401, 100):
        rows.append(vectors[stop - 100 : stop])
        index.publish_rows(stop)
        if stop % 300 == 0:
            index.add(stop)
        found = index.search(vectors[stop - 100 : stop], 1, rows.visibility(), WIDE)
        assert (found.distances[:, 0] == 0).mean() > (0.95 if index.indexed_rows == stop else 0.999)
    tail = index.indexed_rows
    assert tail == 2400


def test_a_limit_larger_than_everything_returns_everything(make: Make) -> None:
    vectors = clustered(1200, 24)
    rows, index = make(vectors[:1000], indexed=1000)
    rows.append(vectors[1000:])
    rows.delete(np.arange(0, 1200, 7))
    left = len(rows.live())
    for limit in (left - 1, left, left + 1, 5 * left):
        found = index.search(vectors[:2], limit, rows.visibility(), SearchParams(nprobe=2))
        assert found.counts.tolist() == [min(limit, left)] * 2
        assert same(found, index.search(vectors[:2], limit, rows.visibility(), EXACT)) or limit < left


def test_no_queries_give_no_answers(make: Make) -> None:
    rows, index = make(clustered(300, 24))
    for threads in (1, 3):
        found = index.search(
            np.empty((0, 24), np.float32), 5, rows.visibility(), SearchParams(nprobe=4, threads=threads)
        )
        assert found.rows.shape == (0, 5) and len(found.counts) == 0


def test_a_snapshot_does_not_see_rows_that_came_later(make: Make) -> None:
    vectors = clustered(1000, 24)
    rows, index = make(vectors)
    found = index.search(vectors[900:920], 10, Visibility(rows.sequence, 500, 500), WIDE)
    assert (found.counts == 10).all() and (found.rows < 500).all()


def test_deleted_rows_are_hidden_from_new_snapshots_and_shown_to_old_ones(make: Make) -> None:
    vectors = clustered(1500, 24)
    rows, index = make(vectors, bits=8)
    before = rows.visibility()
    near = index.search(vectors[:1], 400, before, EXACT).rows[0]
    rows.delete(near[:380])
    found = index.search(vectors[:1], 10, rows.visibility(), SearchParams(nprobe=4))
    assert found.counts[0] == 10 and not set(found.rows[0].tolist()) & set(near[:380].tolist())
    assert set(index.search(vectors[:1], 10, before, ALL).rows[0].tolist()) == set(near[:10].tolist())


@pytest.mark.parametrize("replicas", [1, 4])
def test_only_allowed_rows_are_returned_and_all_that_match_are_counted(make: Make, replicas: int) -> None:
    vectors = clustered(1500, 24)
    rows, index = make(vectors[:1400], indexed=1400, replicas=replicas)
    rows.append(vectors[1400:])
    rows.delete(np.arange(0, 1500, 11))
    rng = np.random.default_rng(2)
    for chosen in (
        np.arange(1500),
        np.empty(0, np.int64),
        np.array([5, 64, 1450]),
        rng.permutation(1500)[:40],
        rng.permutation(1500)[:700],
    ):
        allow = RowSet(np.sort(chosen).astype(np.uint32))
        matching = set(chosen.tolist()) & set(rows.live().tolist())
        for limit in (1, 10, 100):
            found = index.search(vectors[:8], limit, rows.visibility(), SearchParams(nprobe=8), allow)
            assert found.counts.tolist() == [min(limit, len(matching))] * 8
            assert set(found.rows[found.rows >= 0].tolist()) <= matching
            assert_true(found, "l2", vectors[:8], rows)
            if len(matching) <= limit:
                exact = index.search(vectors[:8], limit, rows.visibility(), EXACT, allow)
                assert same(found, exact)


@pytest.mark.parametrize("budget", [None, 0])
def test_threads_and_batches_do_not_change_answers(make: Make, budget: int | None) -> None:
    rows, index = make(clustered(2000, 24), memory_budget_bytes=budget)
    queries = clustered(70, 24, seed=9)
    one = index.search(queries, 10, rows.visibility(), SearchParams(nprobe=16, threads=1))
    three = index.search(queries, 10, rows.visibility(), SearchParams(nprobe=16, threads=3))
    assert same(one, three)
    for i in (0, 33, 69):
        alone = index.search(queries[i : i + 1], 10, rows.visibility(), SearchParams(nprobe=16))
        assert np.array_equal(alone.rows[0], one.rows[i]) and np.array_equal(alone.distances[0], one.distances[i])


@pytest.mark.parametrize("config", [{}, {"replicas": 4}, {"memory_budget_bytes": 15_000}], ids=str)
def test_lists_do_not_depend_on_the_number_of_threads(make: Make, config: dict[str, Any]) -> None:
    vectors = clustered(4000, 24)
    made = []
    for threads in (1, 3):
        rows, index = make(vectors[:1500], threads=threads, **config)
        for stop in range(2000, 4001, 500):
            rows.append(vectors[stop - 500 : stop])
            index.add(stop, threads)
        rows.delete(np.arange(0, 4000, 3))
        index.remove(rows.sequence, threads)
        made.append(contents(index))
    assert made[0] == made[1]


def test_searches_of_many_shapes_do_not_pile_up_memory(make: Make) -> None:
    rows, index = make(clustered(1500, 24))
    queries = clustered(16, 24, seed=9)
    visibility = rows.visibility()

    def held_after(limits: range) -> int:
        for limit in limits:
            index.search(queries, limit, visibility, SearchParams(nprobe=4))
        return tracemalloc.get_traced_memory()[0]

    tracemalloc.start()
    try:
        before = held_after(range(100, 101))
        after = held_after(range(1, 101))
    finally:
        tracemalloc.stop()
    assert after - before < 8 << 20  # what the largest of them needs is under 1 MB


# -- growth, shrinkage, memory --------------------------------------------------------------------


@pytest.mark.parametrize("replicas", [1, 4])
@pytest.mark.parametrize("budget", [None, 0, 12_000])
def test_lists_grow_split_and_stay_well_and_within_the_budget(make: Make, budget: int | None, replicas: int) -> None:
    rng = np.random.default_rng(1)
    vectors = clustered(4400, 24)
    rows, index = make(vectors[:1200], memory_budget_bytes=budget, replicas=replicas)
    heads = view_of(index).heads.count
    for stop in range(1600, 4401, 400):
        rows.append(vectors[stop - 400 : stop])
        index.publish_rows(stop)
        index.add(stop, 2)
        assert_well(index)
        rows.delete(rng.permutation(rows.live())[:60])
        index.remove(rows.sequence, 2)
        assert_well(index)
        if budget is not None:
            assert resident_bytes(index) <= budget
    assert view_of(index).heads.count > heads
    queries = clustered(60, 24, seed=9)
    found = index.search(queries, 10, rows.visibility(), ALL)
    assert_true(found, "l2", queries, rows)
    assert reached(index, rows, queries, 10, ALL) > (0.93 if replicas == 1 else 0.85)
    if budget == 0:
        assert index.stats()["lists_in_memory"] == 0 and found.work[4] > 0
    assert index.search(queries, 10, rows.visibility(), ALL).work[6:].min() >= 0


def test_every_budget_gives_the_same_answers(make: Make) -> None:
    vectors = clustered(2500, 24)
    queries = clustered(60, 24, seed=9)
    answers = []
    for budget in (None, 20_000, 3_000, 0):
        rows, index = make(vectors, memory_budget_bytes=budget, replicas=1)
        if budget is not None:
            assert resident_bytes(index) <= budget
            assert view_of(index).heads.count > int((view_of(index).body_offsets >= 0).sum())
        answers.append(index.search(queries, 10, rows.visibility(), WIDE))
    assert all(same(answers[0], other) for other in answers[1:])


def test_lists_that_became_hot_come_into_memory_whole(make: Make) -> None:
    """The lists to keep may be in the file alone: their bodies have to be read, not copied from nowhere."""
    vectors = clustered(2100, 24)
    rows, index = make(vectors[:2000], memory_budget_bytes=8_000, replicas=1)
    before = rows_by_list(index)
    resident = view_of(index).body_offsets >= 0
    cold = index._hottest(view_of(index), 8_000)
    index.lists.view = replace(view_of(index), probe_counts=np.where(resident, 0, 1).astype(np.uint32))
    hot = index._hottest(view_of(index), 8_000)
    assert len(np.setdiff1d(hot, cold)) > 0
    index.lists.keep(hot)
    assert rows_by_list(index) == before
    queries = clustered(20, 24, seed=9)
    assert_true(index.search(queries, 10, rows.visibility(), WIDE), "l2", queries, rows)


def test_room_that_deletions_leave_in_the_budget_is_filled_with_whole_lists(make: Make) -> None:
    vectors = clustered(2600, 24)
    rows, index = make(vectors[:2000], memory_budget_bytes=8_000, replicas=1)
    view = view_of(index)
    resident = np.flatnonzero(view.body_offsets >= 0)
    inside, owners = index.lists.rows_in(view, resident)
    rows.delete(inside[(owners < 4) & (inside % 8 > 0)])
    index.remove(rows.sequence)
    assert_well(index)
    for stop in range(2200, 2601, 200):
        rows.append(vectors[stop - 200 : stop])
        index.add(stop)
        assert_well(index)
        held = {row for line in rows_by_list(index) for row in line}
        assert set(rows.live().tolist()) <= held
        assert resident_bytes(index) <= 8_000


@pytest.mark.parametrize("replicas", [1, 4])
@pytest.mark.parametrize("metric", METRICS)
def test_identical_rows_are_all_kept_in_bounded_lists_and_all_returned(make: Make, metric: str, replicas: int) -> None:
    rows, index = make(np.ones((900, 24), np.float32), metric, replicas=replicas)
    assert_well(index)
    for _ in range(4):
        rows.append(np.ones((150, 24), np.float32))
        index.add(rows.row_count)
        assert_well(index)
    found = index.search(np.ones((1, 24), np.float32), 1500, rows.visibility(), WIDE)
    assert found.counts[0] == 1500 and len(set(found.rows[0].tolist())) == 1500
    assert len(set(index.search(np.ones((1, 24), np.float32), 200, rows.visibility(), ALL).rows[0].tolist())) == 200


def test_heavily_duplicated_rows_stay_in_bounded_lists(make: Make) -> None:
    rng = np.random.default_rng(7)
    few = clustered(12, 24)
    vectors = few[np.minimum(rng.geometric(0.4, 3000) - 1, 11)]  # two in five are the same row
    rows, index = make(vectors[:1500])
    assert_well(index)
    for stop in range(1750, 3001, 250):
        rows.append(vectors[stop - 250 : stop])
        index.add(stop)
        assert_well(index)
    found = index.search(few, 20, rows.visibility(), WIDE)
    assert (found.distances[:8] == 0).all()
    assert_true(found, "l2", few, rows)


def test_two_distant_clusters_of_unequal_size(make: Make) -> None:
    vectors = clustered(1600, 24)
    vectors[::50] += np.float32(40)
    rows, index = make(vectors[:1000])
    rows.append(vectors[1000:])
    add_all(index, rows)
    assert reached(index, rows, vectors[::25], 10, ALL) > 0.9


def test_a_list_that_takes_all_new_rows_is_split_in_the_same_step(make: Make) -> None:
    rows, index = make(clustered(1000, 24))
    rng = np.random.default_rng(4)
    rows.append((5 + 0.01 * rng.standard_normal((2000, 24))).astype(np.float32))
    index.add(rows.row_count)
    assert_well(index)


@pytest.mark.parametrize("replicas", [1, 4])
def test_entries_of_removed_rows_are_gone_from_memory(make: Make, replicas: int) -> None:
    vectors = clustered(2000, 24)
    rows, index = make(vectors, replicas=replicas)
    assert {row for line in rows_by_list(index) for row in line} == set(range(2000))
    gone = np.random.default_rng(0).permutation(2000)[:1400]
    early = rows.sequence
    rows.delete(gone)
    index.remove(early)
    assert {row for line in rows_by_list(index) for row in line} == set(range(2000))
    index.remove(rows.sequence)
    assert_well(index)
    lists = rows_by_list(index)
    assert {row for line in lists for row in line} == set(rows.live().tolist())
    assert all(len(set(line)) == len(line) for line in lists)
    if replicas == 1:
        assert sum(map(len, lists)) == 600
    found = index.search(vectors[:40], 10, rows.visibility(), WIDE)
    assert_true(found, "l2", vectors[:40], rows)
    assert index.stats()["removed_sequence"] == rows.sequence


def test_a_list_over_its_ceiling_on_disk_counts_only_what_lives(make: Make) -> None:
    vectors = clustered(3000, 24)
    rows, index = make(vectors[:1200], memory_budget_bytes=0, replicas=1)
    for stop in range(1400, 3001, 200):
        rows.delete(np.arange(stop - 800, stop - 600))
        index.remove(rows.sequence)
        rows.append(vectors[stop - 200 : stop])
        index.add(stop)
        assert_well(index)
    assert reached(index, rows, vectors[2000:2040], 10, ALL) > 0.93


def test_a_collection_whose_rows_have_all_died_can_be_indexed(make: Make) -> None:
    vectors = clustered(600, 24)
    rows, index = make(vectors, indexed=0)
    rows.delete(np.arange(600))
    index.remove(rows.sequence)
    index.add(600)
    assert index.indexed_rows == 600 and index.check() == []
    assert index.search(vectors[:3], 5, rows.visibility(), WIDE).counts.tolist() == [0, 0, 0]
    rows.append(vectors)
    add_all(index, rows)
    assert (index.search(vectors, 1, rows.visibility(), ALL).rows[:, 0] == np.arange(600, 1200)).mean() > 0.95


def test_a_tail_whose_rows_have_all_died_can_be_indexed(make: Make) -> None:
    vectors = clustered(2000, 24)
    rows, index = make(vectors[:1000])
    rows.append(vectors[1000:])
    rows.delete(np.arange(1000, 2000))
    index.remove(rows.sequence)
    add_all(index, rows)
    assert index.indexed_rows == 2000
    assert {row for line in rows_by_list(index) for row in line} == set(range(1000))


def test_a_stretch_of_dead_rows_does_not_stop_a_build(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bulk_build, "_CHUNK_BYTES", 24 * 4 * 256)
    vectors = clustered(1500, 24)
    rows, index = make(vectors, indexed=0)
    rows.delete(np.arange(256, 768))
    index.remove(rows.sequence)
    index.add(1500, 2)
    assert_well(index)


def test_one_live_row_among_dead_ones_is_found(make: Make) -> None:
    """A sample of rows may hold no live one."""
    vectors = clustered(6000, 3)
    rows, index = make(vectors, indexed=0)
    rows.delete(np.delete(np.arange(6000), 2))
    index.remove(rows.sequence)
    index.add(6000)
    assert index.check() == []
    assert index.search(vectors[:1], 5, rows.visibility(), WIDE).rows[0].tolist() == [2, -1, -1, -1, -1]


def test_everything_deleted_then_filled_again(make: Make) -> None:
    vectors = clustered(1800, 24)
    rows, index = make(vectors[:900])
    rows.delete(np.arange(900))
    index.remove(rows.sequence)
    assert_well(index)
    assert index.search(vectors[:3], 5, rows.visibility(), WIDE).counts.tolist() == [0, 0, 0]
    rows.append(vectors[900:])
    add_all(index, rows)
    assert (index.search(vectors[900:], 1, rows.visibility(), ALL).rows[:, 0] == np.arange(900, 1800)).mean() > 0.95


@pytest.mark.parametrize("replicas", [1, 4])
def test_entries_that_wait_in_a_file_make_the_same_lists(
    make: Make, monkeypatch: pytest.MonkeyPatch, replicas: int
) -> None:
    vectors = clustered(2500, 24)
    _, held = make(vectors, replicas=replicas)
    monkeypatch.setattr(bulk_build, "_BUCKET_BYTES", 9_000)
    _, spilled = make(vectors, replicas=replicas)
    assert contents(held) == contents(spilled)


def test_bodies_move_to_a_larger_arena_when_one_is_used_up(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vecdb.index.spann.list_arena._CAPACITY_MIN", 1 << 15)
    vectors = clustered(5000, 24)
    rows, index = make(vectors[:1500], bits=8)
    first = view_of(index).arena.capacity
    for stop in range(2000, 5001, 500):
        rows.append(vectors[stop - 500 : stop])
        index.add(stop)
        assert_well(index)
    assert view_of(index).arena.capacity > first


def test_steps_are_bounded_and_lead_to_the_end(make: Make) -> None:
    _, index = make(clustered(1100, 24), indexed=0)
    assert index.next_stop(1100) == 1100
    index.add(1100)
    for row_count in (1101, 1500, 4000, 100_000):
        stop = index.next_stop(row_count)
        assert 1100 < stop <= row_count and stop - 1100 <= 20_000


# -- files ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("mapped", [False, True])
@pytest.mark.parametrize("budget", [None, 0, 6_000])
def test_a_sealed_index_answers_as_before(make: Make, tmp_path: Path, budget: int | None, mapped: bool) -> None:
    vectors = clustered(2200, 24)
    rows, index = make(vectors[:2000], indexed=1800, memory_budget_bytes=budget)
    rows.delete(np.arange(100, 150))
    index.remove(rows.sequence)
    path = tmp_path / "0" / "spann.0.1"
    facts = index.seal(path)
    assert (facts.rows, facts.sequence, facts.bytes) == (1800, rows.sequence, path.stat().st_size)
    (name, size), *others = facts.parts
    assert others == [] and (tmp_path / "0" / name).stat().st_size >= size
    again = SpannIndex.open(path, index.config, "l2", rows, mapped=mapped)
    assert again.indexed_rows == 1800 and contents(again) == contents(index) and again.check() == []
    if budget is not None:
        assert resident_bytes(again) <= budget
    queries = clustered(50, 24, seed=2)
    assert same(index.search(queries, 10, rows.visibility(), WIDE), again.search(queries, 10, rows.visibility(), WIDE))
    if not mapped:
        rows.append(vectors[2000:])
        add_all(again, rows)
        second = again.seal(tmp_path / "0" / "spann.0.2")
        third = SpannIndex.open(tmp_path / "0" / "spann.0.2", index.config, "l2", rows)
        assert second.rows == 2200 and contents(third) == contents(again) and third.check() == []


def test_what_a_writer_left_behind_the_sealed_pages_does_not_matter(make: Make, tmp_path: Path) -> None:
    """A crash after lists were flushed and before they were sealed: the sealed state comes back and goes on."""
    vectors = clustered(2000, 24)
    rows, index = make(vectors[:1200], memory_budget_bytes=0, replicas=1)
    path = tmp_path / "0" / "sealed"
    index.seal(path)
    before = contents(index)
    rows.append(vectors[1200:])
    index.add(1600)
    again = SpannIndex.open(path, index.config, "l2", rows)
    assert contents(again) == before and again.check() == []
    again.add(2000)
    assert_well(again)
    assert reached(again, rows, vectors[:40], 10, ALL) > 0.93


def test_a_file_of_mostly_old_extents_is_written_anew(make: Make, tmp_path: Path) -> None:
    vectors = clustered(4000, 24)
    rows, index = make(vectors[:1200], memory_budget_bytes=0, replicas=1)
    index.seal(tmp_path / "0" / "one")
    first = view_of(index).file
    for stop in range(1600, 4001, 400):
        rows.append(vectors[stop - 400 : stop])
        index.add(stop)
    before = contents(index)
    facts = index.seal(tmp_path / "0" / "two")
    assert first is not None and facts.parts[0][0] != first.path.name and index.lists.garbage_pages() == 0
    again = SpannIndex.open(tmp_path / "0" / "two", index.config, "l2", rows)
    assert contents(again) == before and again.check() == []


def test_an_index_that_chose_its_replicas_opens_under_another_budget(make: Make, tmp_path: Path) -> None:
    """How much memory a process gives is no property of the file: a reader may have more, or none."""
    rows, index = make(clustered(1500, 24), memory_budget_bytes=0)
    index.seal(tmp_path / "0" / "sealed")
    queries = clustered(30, 24, seed=2)
    wanted = index.search(queries, 10, rows.visibility(), WIDE)
    for budget in (None, 5_000):
        config = replace(index.config, memory_budget_bytes=budget)
        again = SpannIndex.open(tmp_path / "0" / "sealed", config, "l2", rows, mapped=True)
        assert same(wanted, again.search(queries, 10, rows.visibility(), WIDE))


def test_a_file_of_other_parameters_is_refused(make: Make, tmp_path: Path) -> None:
    rows, index = make(clustered(300, 24))
    path = tmp_path / "0" / "sealed"
    index.seal(path)
    with pytest.raises(Corruption, match="metric"):
        SpannIndex.open(path, index.config, "ip", rows)
    with pytest.raises(Corruption, match="bits: expected 4"):
        SpannIndex.open(path, replace(index.config, bits=4), "l2", rows)
    with pytest.raises(Corruption, match="replicas"):
        SpannIndex.open(path, replace(index.config, replicas=3), "l2", rows)


def test_a_missing_list_file_is_not_found(make: Make, tmp_path: Path) -> None:
    rows, index = make(clustered(300, 24))
    facts = index.seal(tmp_path / "0" / "sealed")
    (tmp_path / "0" / facts.parts[0][0]).unlink()
    with pytest.raises(FileNotFoundError):
        SpannIndex.open(tmp_path / "0" / "sealed", index.config, "l2", rows)


def _with(path: Path, whole: bytes, place: int) -> None:
    damaged = bytearray(whole)
    damaged[place] ^= 1 << (place % 8)
    path.write_bytes(damaged)


def test_every_flipped_bit_of_the_directory_is_noticed(make: Make, tmp_path: Path) -> None:
    rows, index = make(clustered(700, 24))
    path = tmp_path / "0" / "sealed"
    index.seal(path)
    whole = path.read_bytes()
    target = tmp_path / "0" / "damaged"
    for place in sorted({*range(0, 400, 3), *np.linspace(0, len(whole) - 1, 200).astype(int).tolist()}):
        _with(target, whole, place)
        with pytest.raises(Corruption):
            SpannIndex.open(target, index.config, "l2", rows)
    for length in (0, 10, 4096, len(whole) - 4096, len(whole) - 1):
        target.write_bytes(whole[:length])
        with pytest.raises(Corruption):
            SpannIndex.open(target, index.config, "l2", rows)


def test_a_flipped_bit_of_the_list_file_is_noticed_when_lists_are_loaded(make: Make, tmp_path: Path) -> None:
    rows, index = make(clustered(700, 24), replicas=1)
    path = tmp_path / "0" / "sealed"
    facts = index.seal(path)
    lists = tmp_path / "0" / facts.parts[0][0]
    whole = lists.read_bytes()
    starts = [page * list_file.PAGE for page in view_of(index).extent_pages.tolist()]
    for place in sorted({0, 4, 8, 16, 20, 24, 4000, *(starts[i] + 4095 - 270 * i for i in range(12)), len(whole) - 1}):
        _with(lists, whole, place)
        with pytest.raises(Corruption, match=lists.name):
            SpannIndex.open(path, index.config, "l2", rows, mapped=True)
    for length in (0, 100, list_file.PAGE, list_file.PAGE * 3, len(whole) - list_file.PAGE, len(whole) - 1):
        lists.write_bytes(whole[:length])
        with pytest.raises(Corruption, match=lists.name):
            SpannIndex.open(path, index.config, "l2", rows)
    lists.write_bytes(whole)
    assert contents(SpannIndex.open(path, index.config, "l2", rows)) == contents(index)


def test_a_flipped_bit_of_the_list_file_is_noticed_by_the_search_that_reads_it(make: Make, tmp_path: Path) -> None:
    rows, index = make(clustered(700, 24), memory_budget_bytes=0, replicas=1)
    path = tmp_path / "0" / "sealed"
    index.seal(path)
    queries = clustered(4, 24, seed=2)
    wanted = index.search(queries, 10, rows.visibility(), ALL)
    again = SpannIndex.open(path, index.config, "l2", rows)
    file = view_of(again).file
    assert file is not None
    whole = file.path.read_bytes()
    starts = [page * list_file.PAGE for page in view_of(index).extent_pages.tolist()]
    inside = {start + at for start in starts for at in (0, 5, 9, 17, 25, 29, 33, 50, 64, 300, 4095)}
    for place in sorted(inside | set(np.linspace(list_file.PAGE, len(whole) - 1, 100).astype(int).tolist())):
        _with(file.path, whole, place)
        file.verified[:] = 0  # as in a process that has just begun
        with pytest.raises(Corruption, match=f"{file.path.name}.*page {place // list_file.PAGE} "):
            again.search(queries, 10, rows.visibility(), ALL)
    for length in range(list_file.PAGE, len(whole), list_file.PAGE):
        file.path.write_bytes(whole[:length])
        file.verified[:] = 0
        with pytest.raises(Corruption, match=file.path.name):
            again.search(queries, 10, rows.visibility(), ALL)
    file.path.write_bytes(whole)
    assert same(again.search(queries, 10, rows.visibility(), ALL), wanted)


def test_two_whole_extents_in_one_anothers_place_are_noticed(make: Make, tmp_path: Path) -> None:
    rows, index = make(clustered(700, 24), memory_budget_bytes=0, replicas=1)
    path = tmp_path / "0" / "sealed"
    facts = index.seal(path)
    lists = tmp_path / "0" / facts.parts[0][0]
    whole = lists.read_bytes()
    size = list_file.PAGE
    one, two = (int(page) * size for page in view_of(index).extent_pages[:2])
    swapped = bytearray(whole)
    swapped[one : one + size], swapped[two : two + size] = whole[two : two + size], whole[one : one + size]
    lists.write_bytes(swapped)
    again = SpannIndex.open(path, index.config, "l2", rows)
    with pytest.raises(Corruption, match="page"):
        again.search(clustered(4, 24, seed=2), 10, rows.visibility(), ALL)
    assert any("damaged" in line for line in again.check())


def test_a_page_of_an_older_life_of_the_file_changes_nothing(make: Make, tmp_path: Path) -> None:
    """Pages written before a crash, and not sealed, may be whole and of as many entries as those written after it: a
    lost write must not bring them back.
    """
    vectors = clustered(1300, 24)
    rows, index = make(vectors[:1200], memory_budget_bytes=0, replicas=1)
    path = tmp_path / "0" / "one"
    facts = index.seal(path)
    lists = tmp_path / "0" / facts.parts[0][0]
    sealed = facts.parts[0][1]
    rows.append(vectors[:50])
    index.add(1250)
    older = lists.read_bytes()[sealed:]
    rows.delete(np.arange(1200, 1250))
    again = SpannIndex.open(path, index.config, "l2", rows)
    again.remove(rows.sequence)
    rows.append(vectors[:50])
    again.add(rows.row_count)
    again.seal(tmp_path / "0" / "two")
    wanted = again.search(vectors[:50], 10, rows.visibility(), ALL)
    whole = lists.read_bytes()
    lists.write_bytes(whole[:sealed] + older + whole[sealed + len(older) :])
    last = SpannIndex.open(tmp_path / "0" / "two", index.config, "l2", rows)
    with contextlib.suppress(Corruption):
        assert same(last.search(vectors[:50], 10, rows.visibility(), ALL), wanted)


def test_a_page_that_decays_after_its_first_reading_is_not_written_anew(make: Make, tmp_path: Path) -> None:
    """Searches may trust what they have compared once; what is carried into new lists gets a new checksum, and damage
    would be sound from then on.
    """
    vectors = clustered(700, 24)
    rows, index = make(vectors, memory_budget_bytes=0, replicas=1)
    index.search(vectors[:20], 10, rows.visibility(), ALL)
    file = view_of(index).file
    assert file is not None and index.check() == []
    whole = file.path.read_bytes()
    damaged = bytearray(whole)
    for page in view_of(index).extent_pages.tolist():
        damaged[page * list_file.PAGE + list_file.EXTENT_BYTES] ^= 1  # a code
    file.path.write_bytes(damaged)
    rows.append(vectors)
    with pytest.raises(Corruption, match="damaged"):
        index.add(rows.row_count)
    assert any("damaged" in line for line in index.check())


def test_damaged_rows_are_found_by_the_search_that_scores_them(make: Make) -> None:
    vectors = clustered(600, 24)
    rows, index = make(vectors)
    assert index.search(vectors[77:78], 3, rows.visibility(), ALL).rows[0, 0] == 77
    rows.damage(77)
    for _ in range(2):
        with pytest.raises(Corruption, match="row 77"):
            index.search(vectors[77:78], 3, rows.visibility(), ALL)
    assert index.search(vectors[78:79], 1, rows.visibility(), SearchParams(nprobe=1)).counts[0] == 1


@pytest.mark.parametrize("indexed", [0, 500])
def test_damaged_rows_do_not_get_into_lists(make: Make, indexed: int) -> None:
    rows, index = make(clustered(900, 24), indexed=indexed)
    rows.damage(777)
    with pytest.raises(Corruption, match="row 777"):
        index.add(900)
    assert index.indexed_rows == indexed


def test_check_notices_lists_that_are_wrong(make: Make) -> None:
    def broken(words: str, **changes: Callable[[ListsView], Any]) -> None:
        rows, index = make(clustered(700, 24))
        view = view_of(index)
        index.lists.view = replace(view, **{name: change(view) for name, change in changes.items()})
        assert any(words in line for line in index.check()), (words, index.check())
        del rows

    broken("neither in memory", body_offsets=lambda v: np.where(np.arange(v.heads.count) == 1, -1, v.body_offsets))
    broken("no list", lengths=lambda v: np.where(np.arange(v.heads.count) == 1, 0, v.lengths).astype(np.int32))
    broken("in no list", indexed=lambda v: v.indexed + 1)
    broken("are indexed", indexed=lambda v: v.indexed - 1)
    broken("bias", heads=lambda v: replace(v.heads, bias=v.heads.bias + 1))
    broken("not those of its rows", coder=lambda v: replace(v.coder, center=v.coder.center + np.float32(1)))


# -- vacuum --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("budget", "replicas"), [(None, 1), (0, None), (5_000, 1)])
def test_a_vacuum_keeps_exactly_the_surviving_rows(
    make: Make, tmp_path: Path, budget: int | None, replicas: int | None
) -> None:
    vectors = clustered(1800, 24)
    rows, index = make(vectors[:1500], memory_budget_bytes=budget, replicas=replicas)
    rows.delete(np.random.default_rng(0).permutation(1500)[:600])
    index.remove(rows.sequence)
    rows.delete(rows.live()[:30])  # died since, and not removed
    live = rows.live()
    mapping = np.full(1500, -1, np.int64)
    mapping[live] = np.arange(len(live))
    fresh = DiskRows(tmp_path / "0" / "rows.1", vectors[live])
    new = index.renumbered(mapping, fresh)
    assert new.indexed_rows == len(live)
    assert_well(new)
    assert {row for line in rows_by_list(new) for row in line} == set(range(len(live)))
    if budget is not None:
        assert resident_bytes(new) <= budget
    queries = clustered(40, 24, seed=9)
    assert_true(new.search(queries, 10, fresh.visibility(), ALL), "l2", queries, fresh)
    assert reached(new, fresh, queries, 10, ALL) > 0.85
    old = index.search(queries, 10, rows.visibility(), ALL)
    assert recall(live[new.search(queries, 10, fresh.visibility(), ALL).rows], old.rows) > 0.97
    fresh.append(vectors[1500:])
    add_all(new, fresh)
    new.seal(tmp_path / "0" / "sealed")
    again = SpannIndex.open(tmp_path / "0" / "sealed", new.config, "l2", fresh)
    assert contents(again) == contents(new)
    fresh.close()


@pytest.mark.parametrize("budget", [0, 40_000])
def test_a_vacuum_under_a_budget_holds_one_batch_of_lists_and_makes_the_lists_of_one_without(
    make: Make, monkeypatch: pytest.MonkeyPatch, budget: int
) -> None:
    batch_bytes = 8 * list_file.PAGE
    monkeypatch.setattr(lists_module, "_BATCH_BYTES", batch_bytes)
    vectors = clustered(3000, 24)
    rows, index = make(vectors, memory_budget_bytes=budget, replicas=2, bits=8)
    mapping = np.full(3000, -1, np.int64)
    mapping[::2] = np.arange(1500)
    rows.delete(np.arange(1, 3000, 2))
    index.remove(rows.sequence)
    fresh = DiskRows(rows.path.with_name("rows.1"), vectors[::2])
    held: list[int] = []

    def watched(view: ListsView, *arguments: Any) -> ListsView:
        view = with_room(view, *arguments)
        held.append(view.arena.used_bytes())
        return view

    monkeypatch.setattr(list_updates, "with_room", watched)
    new = index.renumbered(mapping, fresh)
    assert max(held) <= batch_bytes
    assert len(list(rows.path.parent.glob("lists.*"))) == 2, "the old generation has its lists until the switch"
    assert new.check() == [] and resident_bytes(new) <= budget
    assert (resident_bytes(new) > budget // 2) == (budget > 0), "the budget is made use of"
    held.clear()
    index.config = replace(index.config, memory_budget_bytes=None)
    assert contents(index.renumbered(mapping, fresh)) == contents(new)
    assert max(held) > 4 * batch_bytes, "all of it was one batch: nothing is shown"
    fresh.close()


def test_a_vacuum_of_an_index_without_rows(make: Make, tmp_path: Path) -> None:
    rows, index = make(clustered(20, 24), indexed=0)
    assert index.renumbered(np.arange(20), rows).indexed_rows == 0


# -- threads -------------------------------------------------------------------------------------


@pytest.mark.parametrize("budget", [None, 10_000])
def test_searches_beside_maintenance_see_whole_answers(make: Make, tmp_path: Path, budget: int | None) -> None:
    vectors = clustered(5000, 24)
    queries = clustered(24, 24, seed=9)
    rows, index = make(vectors[:1000], memory_budget_bytes=budget, replicas=1)
    published = [(rows.visibility(), np.zeros(5000, bool))]
    wrong: list[str] = []
    done = threading.Event()
    looked = [0, 0]

    def look(me: int) -> None:
        try:
            while not done.is_set():
                visibility, dead = published[-1]
                found = index.search(queries, 10, visibility, SearchParams(nprobe=12, threads=1 + me))
                looked[me] += 1
                if not (found.counts == 10).all():
                    wrong.append("short answer")
                elif any(len(set(line.tolist())) != 10 for line in found.rows):
                    wrong.append("row returned twice")
                elif dead[found.rows].any() or (found.rows >= visibility.row_count).any():
                    wrong.append("a row that is not visible")
        except BaseException as error:  # told by the assertion below
            wrong.append(repr(error))

    readers = [threading.Thread(target=look, args=(me,)) for me in range(2)]
    for reader in readers:
        reader.start()
    try:
        rng = np.random.default_rng(8)
        for step in range(16):
            first = rows.row_count
            rows.append(vectors[first : first + 250])
            index.publish_rows(rows.row_count)
            published.append((rows.visibility(), published[-1][1]))
            index.add(rows.row_count, 2)
            rows.delete(rng.permutation(rows.live())[:80])
            published.append((rows.visibility(), rows.arrays.deleted[:5000] != 0))
            index.remove(rows.sequence)
            if step % 5 == 4:
                index.seal(tmp_path / "0" / f"sealed.{step}")
    finally:
        done.set()
        for reader in readers:
            reader.join()
    assert wrong == [] and min(looked) > 0
    assert_well(index)
    found = index.search(vectors[:200], 10, rows.visibility(), ALL)
    assert_true(found, "l2", vectors[:200], rows)


def test_a_search_goes_on_while_its_lists_are_replaced(make: Make, tmp_path: Path) -> None:
    """What a search holds stays as it was: the arena is packed, the file written anew and the index closed."""
    vectors = clustered(3000, 24)
    rows, index = make(vectors[:1500], memory_budget_bytes=10_000, replicas=1)
    held, visibility = view_of(index), rows.visibility()
    queries = clustered(20, 24, seed=9)
    before = index.search(queries, 10, visibility, WIDE)
    for stop in range(1750, 3001, 250):
        rows.append(vectors[stop - 250 : stop])
        index.add(stop)
    index.lists.rewrite_file()
    index.seal(tmp_path / "0" / "sealed")
    now = view_of(index)
    index.lists.view = held
    assert same(index.search(queries, 10, visibility, WIDE), before)
    index.lists.view = now
    index.close()
    assert same(
        index.search(queries, 10, rows.visibility(), EXACT), index.search(queries, 10, rows.visibility(), EXACT)
    )
    assert (index.search(queries, 10, rows.visibility(), WIDE).counts == 10).all()
