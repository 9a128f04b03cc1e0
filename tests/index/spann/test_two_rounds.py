"""Both rounds of a search over lists: what is named, its estimates, and what is scored, beside brute force."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.support.index_rows import distances
from tests.support.spann.index import ALL, Make, assert_true, same, view_of
from vecdb.index.contract import Candidates, Neighbors
from vecdb.index.row_set import RowSet
from vecdb.schema import SearchParams, Visibility

ROWS, DIM = 900, 24
RNG = np.random.default_rng(5)
LATENT = RNG.normal(size=(ROWS, 5)) @ RNG.normal(size=(5, DIM))
FLOATS = (LATENT + RNG.normal(0, 0.2, LATENT.shape) + 1.5).astype(np.float32)
BYTES = np.clip(FLOATS * 20 + 100, 0, 255).astype(np.uint8)
QUERIES = (FLOATS[::90] + RNG.normal(0, 0.1, (10, DIM))).astype(np.float32)


def queries_of(vectors: np.ndarray) -> np.ndarray:
    """Of whole numbers within the range of bytes where rows are bytes: lossless codes take a query so."""
    return QUERIES if vectors.dtype == np.float32 else np.clip(np.rint(QUERIES * 20 + 100), 0, 255).astype(np.float32)


def named(index: Any, rows: Any, queries: np.ndarray, limit: int, params: Any = ALL, **options: Any) -> Candidates:
    options = {"allow": None, "indexes": 1, **options}
    name = index.naming(limit, options.pop("visibility", rows.visibility()), params, **options)
    found: Candidates = name(queries)
    for i, count in enumerate(found.counts.tolist()):
        row = found.rows[i]
        assert (row[:count] >= 0).all() and (row[count:] == -1).all() and len(set(row[:count].tolist())) == count
        assert (np.diff(found.distances[i, :count]) >= 0).all() and np.isinf(found.distances[i, count:]).all()
        assert (found.margins[i, :count] >= 0).all()
    return found


def scored(index: Any, rows: Any, queries: np.ndarray, lists: Any, limit: int, **options: Any) -> Neighbors:
    score = index.scoring(limit, options.get("visibility", rows.visibility()), options.get("allow"), 1)
    counts = np.array([len(one) for one in lists])
    found: Neighbors = score(queries, np.concatenate([np.array(one, np.int64) for one in lists]), counts)
    return found


@pytest.mark.parametrize("metric", ["l2", "ip", "cosine"])
@pytest.mark.parametrize("vectors", [FLOATS, BYTES], ids=["float32", "uint8"])
@pytest.mark.parametrize("bits", [2, 8])
def test_estimates_are_distances_as_far_as_margins_say(make: Make, metric: str, vectors: Any, bits: int) -> None:
    """Of two indexes over other rows, whose centres and trees differ: neither is off to one side."""
    queries = queries_of(vectors)
    for some in (vectors[:300], vectors[300:]):
        rows, index = make(some, metric, bits=bits)
        found = named(index, rows, queries, 20)
        for i, count in enumerate(found.counts.tolist()):
            true = distances(metric, queries[i : i + 1], some[found.rows[i, :count]])[0]
            off = (found.distances[i, :count] - true) / np.maximum(found.margins[i, :count], 1e-3 * np.abs(true) + 1e-6)
            assert np.abs(off).max() < 4 and abs(off.mean()) < 1
        assert found.counts.min() >= 20


def test_what_is_named_and_scored_is_what_one_round_finds(make: Make) -> None:
    for metric in ("l2", "ip", "cosine"):
        rows, index = make(FLOATS, metric)
        for params in (SearchParams(nprobe=6), ALL):
            for threads in (1, 3):
                params = SearchParams(nprobe=params.nprobe, threads=threads)
                one = index.search(QUERIES, 10, rows.visibility(), params)
                found = named(index, rows, QUERIES, 10, params)
                lists = [found.rows[i, :count] for i, count in enumerate(found.counts)]
                assert same(scored(index, rows, QUERIES, lists, 10), one)


def test_the_tail_is_named_with_its_distances(make: Make) -> None:
    rows, index = make(FLOATS[:600], indexed=512)
    found = named(index, rows, QUERIES, 10)
    truth = index.search(QUERIES, 10, rows.visibility(), SearchParams(exact=True))
    tail = found.rows >= 512
    assert tail.any() and (found.margins[tail] == 0).all()
    for i in range(len(QUERIES)):
        some = found.rows[i][tail[i]]
        assert np.allclose(found.distances[i][tail[i]], distances("l2", QUERIES[i : i + 1], FLOATS[some])[0], rtol=1e-5)
    lists = [found.rows[i, :count] for i, count in enumerate(found.counts)]
    assert same(scored(index, rows, QUERIES, lists, 10), truth)


def test_rows_beyond_the_codes_are_named_once_with_their_distances(make: Make) -> None:
    vectors = FLOATS.copy()
    vectors[::100] *= 400
    rows, index = make(vectors, "l2")
    far = view_of(index).outlier_rows
    assert len(far)
    queries = np.concatenate([QUERIES, vectors[far[:2]]])
    found = named(index, rows, queries, 10)
    assert (found.margins[np.isin(found.rows, far)] == 0).all() and found.rows[-1, 0] == far[1]
    lists = [found.rows[i, :count] for i, count in enumerate(found.counts)]
    assert same(scored(index, rows, queries, lists, 10), index.search(queries, 10, rows.visibility(), ALL))


def test_as_many_are_named_as_there_are(make: Make) -> None:
    rows, index = make(FLOATS[:400])
    narrow = SearchParams(nprobe=1)
    for limit in (3, 50, 400, 700):
        assert named(index, rows, QUERIES, limit, narrow).counts.min() >= min(limit, 400)
    allow = RowSet(np.arange(0, 400, 40, dtype=np.uint32))
    found = named(index, rows, QUERIES, 30, narrow, allow=allow)
    assert (found.counts == 10).all() and set(found.rows[0, :10].tolist()) == set(range(0, 400, 40))
    rows.delete(np.arange(0, 400, 80))
    found = named(index, rows, QUERIES, 30, narrow, allow=RowSet(np.arange(40, 400, 80, dtype=np.uint32)))
    assert (found.counts == 5).all()
    assert named(index, rows, QUERIES, 500, narrow).counts.tolist() == [395] * len(QUERIES)


def test_several_indexes_have_wider_margins_than_one(make: Make) -> None:
    rows, index = make(FLOATS)
    widths = [named(index, rows, QUERIES, 10, SearchParams(nprobe=3), indexes=n).margins[:, :10].mean() for n in (1, 4)]
    assert widths[0] < widths[1] <= 3.5 * widths[0]


def test_only_rows_that_are_there_are_scored(make: Make) -> None:
    rows, index = make(FLOATS[:600], indexed=512)
    before = rows.visibility()
    rows.delete(np.array([3, 520]))
    wanted = [[5, 3, 5, 520, 599, 600, 10**9, -1, 7], [], [599], list(range(600))]
    queries = QUERIES[:4]
    found = scored(index, rows, queries, wanted, 4)
    assert found.counts.tolist() == [3, 0, 1, 4]
    assert set(found.rows[0, :3].tolist()) == {5, 7, 599}
    assert_true(found, "l2", queries, rows)
    alive = rows.live()
    far = distances("l2", queries[3:], FLOATS[alive])[0]
    assert found.rows[3].tolist() == alive[np.argsort(far, kind="stable")[:4]].tolist()
    assert scored(index, rows, queries, wanted, 4, visibility=before).counts.tolist() == [4, 0, 1, 4]
    assert scored(index, rows, queries, wanted, 9, visibility=Visibility(1, 512, 512)).counts.tolist() == [3, 0, 0, 9]
    allow = RowSet(np.array([5, 599], np.uint32))
    assert scored(index, rows, queries, wanted, 4, allow=allow).counts.tolist() == [2, 0, 1, 2]


def test_a_damaged_row_is_named_and_not_scored(make: Make) -> None:
    from vecdb.errors import Corruption

    rows, index = make(FLOATS[:400])
    rows.damage(17)
    assert 17 in named(index, rows, FLOATS[17:18], 5).rows
    with pytest.raises(Corruption, match="row 17"):
        scored(index, rows, FLOATS[17:18], [[16, 17]], 5)


def test_without_lists_there_are_no_rounds(make: Make) -> None:
    rows, index = make(FLOATS[:100], indexed=0)
    assert index.naming(5, rows.visibility(), ALL, None, 1) is None
    assert index.scoring(5, rows.visibility(), None, 1) is None
    rows, index = make(FLOATS[:100])
    assert index.naming(5, rows.visibility(), SearchParams(exact=True), None, 1) is None
