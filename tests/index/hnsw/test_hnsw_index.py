"""Goal: the graph finds what the exact scan finds, at every stage of its life, whatever the threads."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest

from tests.support.index_rows import MemoryRows, clustered, distances, recall
from vecdb import schema
from vecdb.errors import Corruption
from vecdb.index.hnsw import filtered
from vecdb.index.hnsw.hnsw_index import HnswIndex
from vecdb.index.row_set import RowSet
from vecdb.schema import NUMBER_DTYPES, NUMBER_METRICS, SearchParams, Visibility

CONFIG = schema.Hnsw(m=8, ef_construction=60)
WIDE = SearchParams(ef=80)
EXACT = SearchParams(exact=True)


def built(rows: MemoryRows, metric: str = "l2", threads: int = 2, config: schema.Hnsw = CONFIG) -> HnswIndex:
    index = HnswIndex(config, metric, rows)
    index.publish_rows(rows.row_count)
    index.add(rows.row_count, threads)
    index.connect_unreachable(threads)
    assert index.check() == []
    return index


def links_of(index: HnswIndex) -> list[bytes]:
    view = index._current()
    graph = view.graph
    used = int(graph.levels[: view.indexed].sum())
    parts = (graph.links[: view.indexed], graph.upper[:used], graph.slot[: view.indexed], graph.codes[: view.indexed])
    return [part.tobytes() for part in parts] + [bytes([view.level]), str(view.entry).encode()]


@pytest.mark.parametrize("dtype", NUMBER_DTYPES)
@pytest.mark.parametrize("metric", NUMBER_METRICS)
def test_recall_and_distances_for_every_metric_and_type(metric: str, dtype: str) -> None:
    vectors = clustered(1500, 24, dtype)
    queries = clustered(60, 24, dtype, 9).astype(np.float32)
    rows = MemoryRows(vectors)
    index = built(rows, metric)
    found = index.search(queries, 10, rows.visibility(), WIDE)
    exact = index.search(queries, 10, rows.visibility(), EXACT)
    assert recall(found.rows, exact.rows) > (0.95 if metric == "ip" else 0.97)
    truth = np.take_along_axis(distances(metric, queries, vectors), found.rows, 1)
    assert np.allclose(found.distances, truth, rtol=1e-5, atol=1e-6 * max(1.0, float(np.abs(truth).max())) * 0.1)
    assert (np.diff(found.distances, axis=1) >= 0).all()
    own = index.search(vectors[:40].astype(np.float32), 1, rows.visibility(), WIDE)
    if metric != "ip":
        same = own.rows[:, 0] == np.arange(40)
        assert same.mean() > 0.9 and (own.distances[same, 0] == 0).all()


@pytest.mark.parametrize("threads", [2, 7])
def test_the_graph_does_not_depend_on_threads(threads: int) -> None:
    rows = MemoryRows(clustered(2000, 24))
    assert links_of(built(rows, threads=1)) == links_of(built(rows, threads=threads))


def test_the_graph_does_not_depend_on_when_rows_arrive() -> None:
    """Cut at the same rows, published one way or another: the same graph, though training saw other rows when it was
    lossless.
    """
    vectors = clustered(2000, 24, "uint8")
    whole = MemoryRows(vectors, 4096)
    first = HnswIndex(CONFIG, "l2", whole)
    first.publish_rows(2000)
    first.add(1024, 2)
    first.add(2000, 2)
    parts = MemoryRows(vectors[:1100], 4096)
    second = HnswIndex(CONFIG, "l2", parts)
    second.publish_rows(1100)
    second.add(1024, 1)
    parts.append(vectors[1100:])
    second.publish_rows(2000)
    second.add(2000, 1)
    assert links_of(first) == links_of(second)


def test_the_tail_is_found_before_it_is_indexed() -> None:
    vectors = clustered(1200, 24)
    rows = MemoryRows(vectors)
    index = HnswIndex(CONFIG, "l2", rows)
    index.publish_rows(1200)
    for indexed in (0, 700, 1200):
        index.add(indexed, 2)
        assert index.indexed_rows == indexed
        found = index.search(vectors, 1, rows.visibility(), SearchParams(ef=200, threads=2))
        assert (found.distances[:, 0] == 0).mean() > 0.999
        assert (found.rows[:, 0] == np.arange(1200)).mean() > 0.999


def test_deleted_rows_and_rows_that_are_not_allowed_are_never_returned() -> None:
    vectors = clustered(1500, 24)
    rows = MemoryRows(vectors)
    index = built(rows)
    before = rows.visibility()
    target = vectors[:1]
    near = index.search(target, 400, before, EXACT).rows[0]
    rows.delete(near[:380])  # everything around the query: the plain walk finds only hidden rows
    after = rows.visibility()
    found = index.search(target, 10, after, SearchParams(ef=20))
    assert found.counts[0] == 10
    assert not set(found.rows[0].tolist()) & set(near[:380].tolist())
    assert set(index.search(target, 10, before, WIDE).rows[0].tolist()) == set(near[:10].tolist())
    allow = RowSet(np.array([192, 193, 194], np.uint32))
    some = index.search(target, 10, after, SearchParams(ef=20), allow)
    expected = [row for row in (192, 193, 194) if rows.arrays.deleted[row] == 0]
    assert sorted(some.rows[0, : some.counts[0]].tolist()) == expected


def test_a_snapshot_does_not_see_rows_that_came_later() -> None:
    vectors = clustered(1000, 24)
    rows = MemoryRows(vectors)
    index = built(rows)
    found = index.search(vectors[900:920], 10, Visibility(rows.sequence, 500, 500), WIDE)
    assert (found.counts == 10).all() and (found.rows < 500).all()


def test_rows_that_came_after_a_filtered_snapshot_have_no_bit_and_are_not_returned(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(filtered, "_SCAN_AT_ONCE", 0.0)  # the graph is walked, to the end
    monkeypatch.setattr(filtered, "_BEAM_NS", 1e-6)
    vectors = clustered(1000, 24)
    rows = MemoryRows(vectors)
    index = built(rows)
    memory = np.full(1000 // 64 + 1, ~np.uint64(0))  # what happens to lie behind the bitmap
    words = 500 // 64 + 1
    memory[:words] = np.packbits(np.arange(64 * words) < 500, bitorder="little").view(np.uint64)
    allow = RowSet.of_bitmap(memory[:words], 500)
    found = index.search(vectors[900:920], 10, Visibility(rows.sequence, 500, 500), WIDE, allow)
    assert (found.counts == 10).all() and (found.rows < 500).all()


def test_churn_leaves_nothing_unreachable_and_recall_as_good_as_new() -> None:
    n = 4000
    vectors = clustered(n, 24)
    rows = MemoryRows(vectors, 3 * n)
    index = built(rows)
    rng = np.random.default_rng(3)
    rows.delete(rng.permutation(n)[: n // 2])
    assert index.remove(rows.sequence, 2) == n // 2
    assert index.check() == []
    live = np.flatnonzero(rows.arrays.deleted[:n] == 0)
    replaced = rng.permutation(live)[: int(0.3 * n)]
    rows.append(rows.arrays.vectors[replaced] + np.float32(0.01))
    rows.delete(replaced)
    index.publish_rows(rows.row_count)
    index.add(rows.row_count, 2)
    index.remove(rows.sequence, 2)
    assert index.check() == []
    live = np.flatnonzero(rows.arrays.deleted[: rows.row_count] == 0)
    queries = clustered(200, 24, seed=11)
    params = SearchParams(ef=32)
    churned = index.search(queries, 10, rows.visibility(), params)
    truth = index.search(queries, 10, rows.visibility(), EXACT)
    fresh_rows = MemoryRows(rows.arrays.vectors[live])
    fresh = built(fresh_rows)
    again = fresh.search(queries, 10, fresh_rows.visibility(), params)
    assert recall(churned.rows, truth.rows) >= recall(live[again.rows], truth.rows) - 0.01
    found = index.search(rows.arrays.vectors[live], 1, rows.visibility(), SearchParams(ef=64))
    assert (found.rows[:, 0] == live).mean() > 0.995
    mapping = np.full(rows.row_count, -1, np.int64)
    mapping[live] = np.arange(len(live))
    compact = index.renumbered(mapping, fresh_rows)
    assert compact.check() == []
    packed = compact.search(queries, 10, fresh_rows.visibility(), params)
    assert recall(live[packed.rows], truth.rows) >= recall(churned.rows, truth.rows) - 0.01


def test_the_entry_point_may_be_deleted_again_and_again() -> None:
    rows = MemoryRows(clustered(300, 24))
    index = built(rows)
    for _ in range(40):
        rows.delete(np.array([index._current().entry]))
        index.remove(rows.sequence)
        assert index.check() == []
    left = rows.visibility().live_count
    assert index.search(rows.arrays.vectors[:1].copy(), 300, rows.visibility(), WIDE).counts[0] == left == 260


def test_everything_deleted_then_filled_again() -> None:
    vectors = clustered(600, 24)
    rows = MemoryRows(vectors[:300], 1000)
    index = built(rows)
    rows.delete(np.arange(300))
    index.remove(rows.sequence)
    assert index.check() == []
    assert index.search(vectors[:3], 5, rows.visibility(), WIDE).counts.tolist() == [0, 0, 0]
    rows.append(vectors[300:])
    index.publish_rows(600)
    index.add(600, 2)
    index.connect_unreachable()
    assert index.check() == []
    assert (index.search(vectors[300:], 1, rows.visibility(), WIDE).rows[:, 0] == np.arange(300, 600)).mean() > 0.99


@pytest.mark.parametrize("n", [0, 1, 2, 3])
@pytest.mark.parametrize("metric", NUMBER_METRICS)
def test_tiny_collections(n: int, metric: str) -> None:
    rows = MemoryRows(np.arange(1, n + 1, dtype=np.float32).reshape(n, 1))
    index = HnswIndex(CONFIG, metric, rows)
    index.publish_rows(n)
    index.add(n, 2)
    index.connect_unreachable()
    assert index.check() == []
    found = index.search(np.ones((2, 1), np.float32), 5, rows.visibility(), WIDE)
    assert found.counts.tolist() == [n, n]


def test_identical_vectors_are_all_reachable_and_all_returned() -> None:
    rows = MemoryRows(np.ones((1500, 24), np.float32))
    index = built(rows)
    found = index.search(np.ones((1, 24), np.float32), 1500, rows.visibility(), WIDE)
    assert found.counts[0] == 1500
    assert len(set(found.rows[0].tolist())) == 1500


def test_damaged_rows_are_found_by_the_search_that_scores_them() -> None:
    vectors = clustered(600, 24)
    rows = MemoryRows(vectors)
    index = built(rows)
    rows.arrays.vectors[77, 0] += 1
    with pytest.raises(Corruption, match="row 77"):
        index.search(vectors[77:78], 3, rows.visibility(), WIDE)
    assert index.search(vectors[78:79], 1, rows.visibility(), WIDE).counts[0] == 1


def test_searches_during_add_and_remove_see_whole_answers() -> None:
    vectors = clustered(4000, 24)
    rows = MemoryRows(vectors, 8000)
    index = HnswIndex(CONFIG, "l2", rows)
    index.publish_rows(4000)
    index.add(1000, 1)
    visibility = rows.visibility()
    truth = index.search(vectors[:64], 10, visibility, EXACT).rows
    wrong: list[str] = []
    stop = threading.Event()

    def look() -> None:
        while not stop.is_set():
            found = index.search(vectors[:64], 10, visibility, SearchParams(ef=100))
            if not (found.counts == 10).all():
                wrong.append("short answer")
            if any(len(set(line.tolist())) != 10 for line in found.rows):
                wrong.append("row returned twice")
            if recall(found.rows, truth) < 0.9:
                wrong.append(f"recall {recall(found.rows, truth)}")

    readers = [threading.Thread(target=look) for _ in range(2)]
    for reader in readers:
        reader.start()
    index.add(4000, 2)
    rows.delete(np.arange(2000, 2400))
    stop.set()
    for reader in readers:
        reader.join()
    assert wrong == []
    index.remove(rows.sequence, 2)
    assert index.check() == []


def test_codes_are_trained_again_when_the_data_grow_out_of_them() -> None:
    small = clustered(500, 24)
    rows = MemoryRows(small, 5000)
    index = built(rows)
    scale = index._current().graph.quantiser.scale
    rows.append(clustered(1500, 24, seed=4) * np.float32(20))
    index.publish_rows(rows.row_count)
    index.add(rows.row_count, 2)
    assert index._current().graph.quantiser.scale > 5 * scale
    index.connect_unreachable()
    assert index.check() == []


def test_two_blocks_of_codes_and_several_threads_give_the_same_answers() -> None:
    vectors = clustered(800, 100)
    rows = MemoryRows(vectors)
    index = built(rows, "cosine")
    one = index.search(vectors[:150], 10, rows.visibility(), WIDE)
    two = index.search(vectors[:150], 10, rows.visibility(), SearchParams(ef=80, threads=2))
    assert np.array_equal(one.rows, two.rows) and np.array_equal(one.distances, two.distances)
    assert np.array_equal(one.work, two.work)
    alone = index.search(vectors[5:6], 10, rows.visibility(), WIDE)
    assert np.array_equal(alone.rows[0], one.rows[5])


def test_a_walk_longer_than_its_trail_leaves_no_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    """The visited set must be empty again after every walk, also when the list of what was visited overflowed."""
    vectors = clustered(1500, 24)
    rows = MemoryRows(vectors)
    index = built(rows)
    usual = index.search(vectors[:50], 10, rows.visibility(), WIDE)
    monkeypatch.setattr("vecdb.index.hnsw.scratch._TRAIL", 64)
    index._scratches._free.clear()
    for _ in range(2):
        short = index.search(vectors[:50], 10, rows.visibility(), WIDE)
        assert np.array_equal(usual.rows, short.rows)
        assert np.array_equal(usual.work, short.work)


def test_arrays_grow_while_batches_are_added(monkeypatch: pytest.MonkeyPatch) -> None:
    """The publisher makes room for codes at any time; links written meanwhile must not be lost."""
    monkeypatch.setattr("vecdb.index.hnsw.graph._CAPACITY_MIN", 64)
    vectors = clustered(3000, 24)
    rows = MemoryRows(vectors[:100], 6000)
    index = HnswIndex(CONFIG, "l2", rows)
    index.publish_rows(100)
    small = 128
    monkeypatch.setattr(type(rows.arrays), "capacity", property(lambda self: small))
    index.add(100)
    assert len(index._current().graph.links) == small
    rows.append(vectors[100:])
    done = threading.Event()

    def publish() -> None:
        for stop in range(110, 3001, 10):
            index.publish_rows(stop)
        done.set()

    publisher = threading.Thread(target=publish)
    publisher.start()
    while not done.is_set() or index.indexed_rows < 3000:
        index.add(max(100, index._coded), 2)
    publisher.join()
    index.connect_unreachable()
    assert index.check() == []
    exact = index.search(vectors[:100], 10, rows.visibility(), EXACT)
    assert recall(index.search(vectors[:100], 10, rows.visibility(), WIDE).rows, exact.rows) > 0.97


def test_queries_far_outside_the_data_find_their_neighbours() -> None:
    """The query is halved until it fits the codes' range, not cut off at it: its direction must survive."""
    vectors = clustered(3000, 24)
    rows = MemoryRows(vectors)
    index = built(rows)
    queries = (vectors[:40] * np.float32(30) + np.float32(5)).astype(np.float32)
    truth = index.search(queries, 10, rows.visibility(), EXACT)
    found = index.search(queries, 10, rows.visibility(), SearchParams(ef=200))
    assert recall(found.rows, truth.rows) > 0.9


def test_rows_far_outside_the_codes_are_found_in_the_tail_in_the_graph_and_after_a_seal(tmp_path: Path) -> None:
    vectors = clustered(1500, 24)
    rows = MemoryRows(vectors, 2000)
    index = built(rows)
    outliers = (np.arange(1, 81, dtype=np.float32)[:, None] * np.float32(100)) * np.ones(24, np.float32)
    rows.append(outliers)
    index.publish_rows(rows.row_count)
    place = np.arange(1500, 1580)
    assert np.array_equal(index.search(outliers, 3, rows.visibility(), WIDE).rows[:, 0], place)
    index.add(rows.row_count)
    assert np.array_equal(index.search(outliers, 3, rows.visibility(), WIDE).rows[:, 0], place)
    index.connect_unreachable()
    index.seal(tmp_path / "sealed")
    again = HnswIndex.open(tmp_path / "sealed", CONFIG, "l2", rows)
    again.publish_rows(rows.row_count)
    assert np.array_equal(again.search(outliers, 3, rows.visibility(), WIDE).rows[:, 0], place)
    assert again.check() == []


def test_what_a_torn_graph_cannot_reach_the_exact_scan_makes_up_for() -> None:
    vectors = clustered(600, 24)
    rows = MemoryRows(vectors)
    index = built(rows)
    graph = index._current().graph
    graph.links[:600] = -1
    graph.upper[:] = -1
    found = index.search(vectors[:20], 10, rows.visibility(), WIDE)
    truth = index.search(vectors[:20], 10, rows.visibility(), EXACT)
    assert (found.counts == 10).all() and np.array_equal(found.rows, truth.rows)
