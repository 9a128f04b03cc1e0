"""Goal: codes in tree order find what the exact scan finds, among all rows and among a tenant's, at every stage."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.index_rows import MemoryRows, clustered, distances, recall
from vecdb import schema
from vecdb.errors import Corruption
from vecdb.index.curator import curator_index
from vecdb.index.curator.curator_index import CuratorIndex
from vecdb.index.curator.tree_order import reserve_lines
from vecdb.index.curator.tree_search import TreeView
from vecdb.index.row_set import RowSet
from vecdb.schema import NUMBER_DTYPES, NUMBER_METRICS, SearchParams

CONFIG = schema.Curator(leaf_rows=16)
SHORT = schema.Curator(leaf_rows=16, shortlist_max=12)
WIDE = SearchParams(nprobe=60)
EXACT = SearchParams(exact=True)


def built(rows: MemoryRows, metric: str = "l2", threads: int = 2, config: schema.Curator = CONFIG) -> CuratorIndex:
    index = CuratorIndex(config, metric, rows)
    index.publish_rows(rows.row_count)
    index.add(rows.row_count, threads)
    assert index.check() == []
    return index


def apart(n: int, queries: int, dim: int, dtype: str = "float32") -> tuple[np.ndarray, np.ndarray]:
    """Rows, and queries from where rows are."""
    points = clustered(n + queries, dim, dtype)
    return points[:n], points[n:].astype(np.float32)


def some(rows: MemoryRows, share: float, seed: int = 0) -> RowSet:
    """A tenant with a share of the live rows."""
    live = np.flatnonzero(rows.arrays.deleted[: rows.row_count] == 0)
    rng = np.random.default_rng(seed)
    return RowSet(np.sort(rng.choice(live, int(share * len(live)), replace=False)).astype(np.uint32))


@pytest.mark.parametrize("dtype", NUMBER_DTYPES)
@pytest.mark.parametrize("metric", NUMBER_METRICS)
def test_recall_and_distances_for_every_metric_and_type(metric: str, dtype: str) -> None:
    vectors, queries = apart(1500, 60, 24, dtype)
    rows = MemoryRows(vectors)
    index = built(rows, metric)
    found = index.search(queries, 10, rows.visibility(), WIDE)
    exact = index.search(queries, 10, rows.visibility(), EXACT)
    assert recall(found.rows, exact.rows) > 0.95
    truth = np.take_along_axis(distances(metric, queries, vectors), found.rows, 1)
    assert np.allclose(found.distances, truth, rtol=1e-5, atol=1e-6 * max(1.0, float(np.abs(truth).max())) * 0.1)
    assert (np.diff(found.distances, axis=1) >= 0).all()


def test_progress_counts_every_stage_of_a_build(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = MemoryRows(clustered(3000, 16))
    reports: list[tuple[int, int]] = []
    seen: dict[str, int] = {}

    def note(name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def twin(*arguments: Any, **named: Any) -> Any:
            value = real(*arguments, **named)
            seen[name] = reports[-1][0]
            return value

        return twin

    for name in ("grow_tree", "split_leaves"):
        monkeypatch.setattr(curator_index, name, note(name, getattr(curator_index, name)))
    monkeypatch.setattr(curator_index, "_ASSIGN_ROWS", 700)
    index = CuratorIndex(CONFIG, "l2", rows)
    index.publish_rows(3000)
    index.add(3000, 2, lambda done, total: reports.append((done, total)))
    assert index.check() == []
    assert reports[0] == (0, 3000) and reports[-1] == (3000, 3000)
    assert 0 < seen["grow_tree"] < seen["split_leaves"] < 3000
    assert [done for done, _ in reports] == sorted({done for done, _ in reports})
    assert len([done for done, _ in reports if seen["grow_tree"] < done < 3000]) >= 3, "rows are counted on the way"
    index.close()


@pytest.mark.parametrize("share", [0.005, 0.05, 0.5, 1.0])
@pytest.mark.parametrize("along", [None, 20], ids=["scanned", "along the tree"])
@pytest.mark.parametrize("metric", NUMBER_METRICS)
def test_a_tenant_finds_its_own_rows_and_no_others(metric: str, along: int | None, share: float) -> None:
    vectors, queries = apart(3000, 40, 24)
    rows = MemoryRows(vectors)
    index = built(rows, metric, config=SHORT)
    allow = some(rows, share)
    found = index.search(queries, 10, rows.visibility(), SearchParams(nprobe=along), allow)
    exact = index.search(queries, 10, rows.visibility(), EXACT, allow)
    assert np.isin(found.rows, allow.rows).all() and (found.counts == min(10, len(allow))).all()
    assert recall(found.rows, exact.rows) > (0.98 if along is None else 0.85)


@pytest.mark.parametrize("strange", [False, True], ids=["near", "strange"])
@pytest.mark.parametrize("metric", NUMBER_METRICS)
def test_the_sieve_loses_next_to_nothing_whatever_is_asked(metric: str, strange: bool) -> None:
    vectors, queries = apart(4000, 40, 256)
    if strange:  # from where no rows are
        queries = clustered(40, 256, seed=5)
    rows = MemoryRows(vectors)
    index = built(rows, metric)
    assert index._view is not None and index._view.order.bit_filter is not None
    allow = some(rows, 0.6)
    found = index.search(queries, 10, rows.visibility(), SearchParams(), allow)
    exact = index.search(queries, 10, rows.visibility(), EXACT, allow)
    assert found.work[0] < 0.7 * 40 * len(allow)  # codes of eight bits that were looked at
    assert recall(found.rows, exact.rows) > (0.85 if strange else 0.98)


def test_the_sieve_lets_more_through_where_more_recall_is_asked_for() -> None:
    vectors, queries = apart(4000, 100, 256)
    rows = MemoryRows(vectors)
    index, allow = built(rows, "cosine"), some(rows, 0.6)
    exact = index.search(queries, 10, rows.visibility(), EXACT, allow)
    plain, same, careful = (
        index.search(queries, 10, rows.visibility(), SearchParams(recall=wanted), allow)
        for wanted in (None, 0.95, 0.99)
    )
    assert np.array_equal(plain.rows, same.rows) and plain.work[0] < careful.work[0] < 0.7 * 100 * len(allow)
    assert 0.95 < recall(plain.rows, exact.rows) <= recall(careful.rows, exact.rows) > 0.99


def test_threads_change_nothing() -> None:
    rows = MemoryRows(clustered(3000, 24))
    one, many = built(rows, threads=1), built(rows, threads=5)
    assert one._view is not None and many._view is not None
    assert one._view.order.codes.tobytes() == many._view.order.codes.tobytes()
    queries = clustered(100, 24, seed=3)
    for allow in (None, some(rows, 0.3)):
        a = one.search(queries, 7, rows.visibility(), SearchParams(nprobe=5), allow)
        b = one.search(queries, 7, rows.visibility(), SearchParams(nprobe=5, threads=3), allow)
        assert np.array_equal(a.rows, b.rows) and np.array_equal(a.distances, b.distances)


def test_the_tail_is_found_before_it_is_ordered_and_after() -> None:
    vectors = clustered(2000, 24)
    rows = MemoryRows(vectors[:1500], capacity=4000)
    index = built(rows)
    allow = some(rows, 0.2)
    index.search(vectors[:1], 1, rows.visibility(), WIDE, allow)  # its slots are derived
    rows.append(vectors[1500:])
    index.publish_rows(rows.row_count)
    late = RowSet(np.concatenate([allow.rows, np.arange(1500, 2000, 7, dtype=np.uint32)]))
    for _ in range(2):
        own = index.search(vectors[1500:1600].astype(np.float32), 1, rows.visibility(), WIDE)
        assert np.array_equal(own.rows[:, 0], np.arange(1500, 1600)) and (own.distances == 0).all()
        mine = index.search(vectors[1500:2000:7].astype(np.float32), 1, rows.visibility(), WIDE, late)
        assert np.array_equal(mine.rows[:, 0], np.arange(1500, 2000, 7))
        assert index.check() == []
        index.add(rows.row_count)
    assert index.indexed_rows == 2000


@pytest.mark.parametrize("tenant", [False, True], ids=["everybody", "a tenant"])
def test_a_long_tail_of_wide_rows_is_found(tenant: bool) -> None:
    vectors = clustered(3000, 256)
    rows = MemoryRows(vectors[:2000], capacity=4000)
    index = built(rows)
    assert index._view is not None and index._view.order.bit_filter is not None
    rows.append(vectors[2000:])
    index.publish_rows(rows.row_count)
    allow = RowSet(np.arange(0, 3000, dtype=np.uint32)) if tenant else None
    own = index.search(vectors[2000:2100], 1, rows.visibility(), WIDE, allow)
    assert np.array_equal(own.rows[:, 0], np.arange(2000, 2100))


@pytest.mark.parametrize("along", [None, 30], ids=["all", "along the tree"])
@pytest.mark.parametrize("metric", NUMBER_METRICS)
def test_who_has_many_of_the_rows_looks_at_panels(metric: str, along: int | None) -> None:
    vectors, queries = apart(4000, 40, 256)
    rows = MemoryRows(vectors)
    index = built(rows, metric, config=schema.Curator(leaf_rows=40))
    rows.delete(np.arange(0, 4000, 5))
    params = SearchParams(nprobe=along)
    few = some(rows, 0.1)
    index.search(queries, 10, rows.visibility(), SearchParams(), few)
    assert index._view is not None and len(index._view.order.panels) == 0, "nobody has asked for them"
    for allow in (some(rows, 0.5), some(rows, 1.0), None):
        found = index.search(queries, 10, rows.visibility(), params, allow)
        exact = index.search(queries, 10, rows.visibility(), EXACT, allow)
        assert (found.rows % 5 != 0).all() and (found.counts == 10).all()
        assert allow is None or np.isin(found.rows, allow.rows).all()
        assert recall(found.rows, exact.rows) > (0.97 if along is None else 0.9)
        assert found.work[0] < 0.5 * 40 * 3200, "most of them are held back"
    assert index._view is not None and len(index._view.order.panels) == 125
    assert index.check() == []
    index._view.order.panels[3, 100] ^= 4
    assert index.check() == ["panels are not what their lines give"]


def test_panels_follow_growth_and_a_new_order() -> None:
    vectors = clustered(4000, 256)
    rows = MemoryRows(vectors[:2000], capacity=4500)
    index = built(rows)
    everything = SearchParams()
    index.search(vectors[:1], 1, rows.visibility(), everything)
    assert index._view is not None and len(index._view.order.panels) == 63
    for stop in (2100, 4000):
        rows.append(vectors[rows.row_count : stop])
        index.publish_rows(stop)
        for _ in range(2):
            own = index.search(vectors[stop - 100 : stop], 1, rows.visibility(), everything)
            assert np.array_equal(own.rows[:, 0], np.arange(stop - 100, stop))
            assert index.check() == []
            index.add(stop)
    assert index._view is not None and len(index._view.order.panels) == 125
    stats = index.stats()["bytes_ram"]
    assert stats > 4000 * (256 + 64 + 8) + index._view.order.panels.nbytes


def test_buffers_of_a_sieve_serve_an_order_without_one() -> None:
    rows = MemoryRows(clustered(2000, 256), capacity=4000)
    index = built(rows)
    allow = some(rows, 0.8)
    queries = clustered(5, 256)
    exact = index.search(queries, 10, rows.visibility(), EXACT, allow).rows
    index.search(queries, 10, rows.visibility(), WIDE, allow)  # buffers that know the sieve are kept
    view = index._view
    assert view is not None
    plain = replace(view.order, bit_filter=None, lines=reserve_lines(view.order.capacity, None))
    index._view = TreeView(plain, view.arrays, index._metric)
    found = index.search(queries, 10, rows.visibility(), WIDE, allow)
    assert np.array_equal(found.rows, exact) and found.work[0] == 5 * len(allow)


def test_deleted_rows_and_later_rows_are_not_found() -> None:
    rows = MemoryRows(clustered(1200, 24))
    index = built(rows)
    before = rows.visibility()
    rows.delete(np.arange(0, 1200, 2))
    queries = rows.arrays.vectors[:50].astype(np.float32)
    now = index.search(queries, 5, rows.visibility(), WIDE)
    assert (now.rows % 2 == 1).all() and (now.counts == 5).all()
    then = index.search(queries, 1, before, WIDE)
    assert np.array_equal(then.rows[:, 0], np.arange(50))
    rows.append(clustered(100, 24, seed=8))
    index.publish_rows(rows.row_count)
    index.add(rows.row_count)
    assert (index.search(queries, 1300, before, WIDE).rows < 1200).all()
    assert (index.search(queries, 1300, before, WIDE).counts == 1200).all()


def test_growth_splits_leaves_and_trains_again() -> None:
    vectors = clustered(6000, 24)
    rows = MemoryRows(vectors[:200], capacity=7000)
    index = built(rows)
    for stop in (260, 500, 900, 2500, 6000):
        rows.append(vectors[rows.row_count : stop])
        index.publish_rows(stop)
        index.add(stop, 2)
        assert index.check() == [] and index.indexed_rows == stop
        assert index._view is not None
        assert index._view.order.leaf_lengths().max() <= index.ceiling
    found = index.search(clustered(40, 24, seed=4), 10, rows.visibility(), WIDE)
    exact = index.search(clustered(40, 24, seed=4), 10, rows.visibility(), EXACT)
    assert recall(found.rows, exact.rows) > 0.95


@pytest.mark.parametrize("n", [1, 2, 3, 20])
def test_tiny_and_identical(n: int) -> None:
    for vectors in (clustered(n, 8), np.ones((n, 8), np.float32)):
        rows = MemoryRows(vectors)
        index = built(rows)
        found = index.search(vectors[:1].astype(np.float32), n + 5, rows.visibility(), WIDE)
        assert found.counts[0] == n and sorted(found.rows[0, :n].tolist()) == list(range(n))


def test_a_thousand_identical_rows_are_all_returned() -> None:
    rows = MemoryRows(np.ones((1000, 8), np.float32))
    index = built(rows)
    assert index.search(np.ones((1, 8), np.float32), 1000, rows.visibility(), WIDE).counts[0] == 1000


@pytest.mark.parametrize("dim", [24, 256])
@pytest.mark.parametrize("metric", NUMBER_METRICS)
def test_sealed_and_opened_it_answers_the_same(tmp_path: Path, metric: str, dim: int) -> None:
    rows = MemoryRows(clustered(2500, dim))
    index = built(rows, metric)
    sealed = index.seal(tmp_path / "curator")
    assert sealed.rows == 2500
    rows.append(clustered(300, dim, seed=2))
    again = CuratorIndex.open(tmp_path / "curator", CONFIG, metric, rows)
    for one in (index, again):
        one.publish_rows(rows.row_count)
        assert one.check() == []
    queries = clustered(50, dim, seed=6)
    for allow in (None, some(rows, 0.7)):
        a = index.search(queries, 10, rows.visibility(), WIDE, allow)
        b = again.search(queries, 10, rows.visibility(), WIDE, allow)
        assert np.array_equal(a.rows, b.rows) and np.array_equal(a.distances, b.distances)


def test_a_flipped_bit_anywhere_in_the_sealed_file_is_noticed(tmp_path: Path) -> None:
    rows = MemoryRows(clustered(300, 24))
    built(rows).seal(tmp_path / "curator")
    whole = (tmp_path / "curator").read_bytes()
    for place in range(0, len(whole), 997):
        torn = bytearray(whole)
        torn[place] ^= 1 << (place % 8)
        (tmp_path / "torn").write_bytes(bytes(torn))
        with pytest.raises(Corruption):
            CuratorIndex.open(tmp_path / "torn", CONFIG, "l2", rows)


def test_renumbered_rows_keep_their_leaves() -> None:
    vectors = clustered(2000, 24)
    rows = MemoryRows(vectors)
    index = built(rows)
    gone = np.arange(0, 2000, 3)
    mapping = np.full(2000, -1, np.int64)
    kept = np.setdiff1d(np.arange(2000), gone)
    mapping[kept] = np.arange(len(kept))
    new_rows = MemoryRows(vectors[kept])
    new = index.renumbered(mapping, new_rows)
    assert new.check() == [] and new.indexed_rows == len(kept)
    found = new.search(vectors[kept[:50]].astype(np.float32), 1, new_rows.visibility(), WIDE)
    assert np.array_equal(found.rows[:, 0], np.arange(50))


def test_damaged_rows_are_found_by_the_search_that_scores_them() -> None:
    rows = MemoryRows(clustered(600, 24))
    index = built(rows)
    rows.arrays.vectors[5, 3] += 1
    with pytest.raises(Corruption, match="row 5"):
        index.search(rows.arrays.vectors[5:6].copy(), 3, rows.visibility(), WIDE)


def test_rows_far_outside_the_codes_are_found_by_those_who_may_see_them() -> None:
    vectors = clustered(1500, 24)
    rows = MemoryRows(vectors[:700], capacity=3000)
    index = built(rows)
    vectors[[800, 1400]] *= 500
    rows.append(vectors[700:])
    index.publish_rows(rows.row_count)
    assert index._view is not None and len(index._view.order.far)
    query = vectors[800:801].copy()
    assert index.search(query, 1, rows.visibility(), WIDE).rows[0, 0] == 800
    seen = RowSet(np.array([3, 7, 800], np.uint32))
    unseen = RowSet(np.array([3, 7, 9], np.uint32))
    assert index.search(query, 1, rows.visibility(), WIDE, seen).rows[0, 0] == 800
    assert 800 not in index.search(query, 3, rows.visibility(), WIDE, unseen).rows


def test_what_is_derived_of_a_tenant_is_kept_until_slots_change() -> None:
    rows = MemoryRows(clustered(1000, 24), capacity=3000)
    index = built(rows)
    kept: list[int] = []
    allow = RowSet(np.arange(0, 900, 9, dtype=np.uint32), kept.append)
    for _ in range(3):
        index.search(clustered(1, 24), 5, rows.visibility(), WIDE, allow)
    assert kept == [allow.rows.nbytes] and allow.nbytes == 2 * allow.rows.nbytes
    rows.append(clustered(500, 24, seed=1))
    index.publish_rows(rows.row_count)
    index.search(clustered(1, 24), 5, rows.visibility(), WIDE, allow)
    assert len(kept) == 1
    index.add(rows.row_count)
    index.search(clustered(1, 24), 5, rows.visibility(), WIDE, allow)
    assert kept == [allow.rows.nbytes, 0]
