"""What tests of the posting-list index share: parameters, small questions, and comparisons with the exact scan."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.support.disk_rows import DiskRows
from tests.support.index_rows import distances
from vecdb.index.contract import Neighbors
from vecdb.index.spann.posting_lists import ListsView
from vecdb.index.spann.spann_index import SpannIndex
from vecdb.schema import SearchParams

WIDE = SearchParams(nprobe=48)
ALL = SearchParams(nprobe=1 << 16)
EXACT = SearchParams(exact=True)
Make = Callable[..., tuple[DiskRows, SpannIndex]]


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
