"""Posting lists grow, shrink, split and stay within their budget, and searches beside that see whole answers."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.support.index_rows import clustered
from tests.support.spann.index import (
    ALL,
    EXACT,
    WIDE,
    Make,
    add_all,
    assert_true,
    assert_well,
    contents,
    reached,
    resident_bytes,
    rows_by_list,
    same,
    view_of,
)
from vecdb.index.spann import bulk_build
from vecdb.schema import NUMBER_METRICS, SearchParams

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
@pytest.mark.parametrize("metric", NUMBER_METRICS)
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
