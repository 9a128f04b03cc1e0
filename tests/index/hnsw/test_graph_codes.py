"""Goal: a graph finds what is near on data that 8-bit codes tell too little of, and stays right while the format of
its codes changes. Oracle: brute force in float64.
"""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support import awkward
from tests.support.index_rows import MemoryRows, clustered, distances
from vecdb import schema
from vecdb.errors import Corruption
from vecdb.index.common import code_choice, sealed_file
from vecdb.index.common.quantizer import FLOAT32, ROTATED8, ROTATED16
from vecdb.index.hnsw import graph_file
from vecdb.index.hnsw.hnsw_index import HnswIndex
from vecdb.schema import SearchParams

N, DIM = 4_000, 32
CONFIG = schema.Hnsw(m=12, ef_construction=80)
PARAMS = SearchParams(ef=64)


def grown(rows: MemoryRows, metric: str, threads: int = 2) -> HnswIndex:
    """As maintenance grows it, step by step."""
    index = HnswIndex(CONFIG, metric, rows)
    add_all(index, rows, threads)
    return index


def add_all(index: HnswIndex, rows: MemoryRows, threads: int = 2) -> None:
    index.publish_rows(rows.row_count)
    while index.indexed_rows < rows.row_count:
        index.add(index.next_stop(rows.row_count), threads)
    index.connect_unreachable(threads)


def recall(index: HnswIndex, rows: MemoryRows, queries: Any) -> float:
    """Of the 10 nearest living rows; as near counts as right."""
    true = distances(index.metric, queries, rows.arrays.vectors[: rows.row_count])
    true[:, rows.arrays.deleted[: rows.row_count] != 0] = np.inf
    worst = np.sort(true, axis=1)[:, 9:10]
    found = np.take_along_axis(true, index.search(queries, 10, rows.visibility(), PARAMS).rows, axis=1)
    return float((found <= worst + 1e-6 * np.abs(worst) + 1e-13).mean())


@pytest.mark.parametrize(
    ("shape", "metric", "codes", "floor"),
    [
        ("plain", "l2", "8 bit", 0.99),
        ("gauss", "cosine", "8 bit", 0.98),
        ("clusters .01", "l2", "16 bit rotated", 0.99),
        ("clusters .01", "cosine", "16 bit rotated", 0.99),
        ("clusters .01", "ip", "16 bit rotated", 0.95),
        ("clusters .001", "l2", "16 bit rotated", 0.99),
        ("clusters .0001", "l2", "float32", 0.99),
        ("clusters .0001", "cosine", "float32", 0.99),
        ("clusters .0001", "ip", "float32", 0.95),
        ("wide x60", "l2", "8 bit rotated", 0.99),
        ("two +20", "cosine", "8 bit", 0.95),
        ("two +200", "cosine", "8 bit rotated", 0.95),
        ("all +200", "cosine", "8 bit rotated", 0.95),
        ("all +200", "l2", "8 bit", 0.95),
        ("half", "l2", "8 bit rotated", 0.8),  # the graph's own loss (hnswlib's is the same): 8 bits have .2
        ("huge", "l2", "8 bit", 0.95),
    ],
)
def test_no_shape_of_data_loses_what_is_near(shape: str, metric: str, codes: str, floor: float) -> None:
    vectors = awkward.shape(shape, N, DIM)
    rows = MemoryRows(vectors)
    index = grown(rows, metric)
    assert index.stats()["codes"] == codes and index.stats()["codes_recall"] >= 0.99
    assert recall(index, rows, awkward.near(vectors, 60)) >= floor
    assert index.check() == []


@pytest.mark.parametrize("dtype", ["float16", "int8"])
def test_other_stored_types_have_other_codes_too(dtype: str) -> None:
    scale = {"float16": 1.0, "int8": 1.9}[dtype]
    vectors = (awkward.shape("wide x60", N, DIM) * scale).clip(-127, 127).astype(dtype)
    vectors[~vectors.any(axis=1)] = 1
    rows = MemoryRows(vectors)
    index = grown(rows, "cosine")
    assert recall(index, rows, awkward.near(vectors, 60)) >= 0.6  # hnswlib's, too
    assert index.check() == []


SHAPES = {"wide x60": "rotated8", "clusters .01": "rotated16", "clusters .0001": "float32"}


@pytest.mark.parametrize("shape", SHAPES)
def test_a_graph_does_not_depend_on_threads(shape: str) -> None:
    rows = MemoryRows(awkward.shape(shape, 2_500, DIM))
    one, two = grown(rows, "cosine", 1), grown(rows, "cosine", 2)
    assert one._current().graph.quantiser.code_format == SHAPES[shape]
    for name in ("codes", "links", "upper"):
        a, b = (getattr(index._current().graph, name)[:2_500] for index in (one, two))
        assert np.array_equal(a, b), name


@pytest.fixture(scope="module", params=SHAPES)
def odd(request: Any) -> tuple[MemoryRows, HnswIndex, str]:
    """Rows, a graph of them, and the format of its codes."""
    rows = MemoryRows(awkward.shape(request.param, N, DIM), 3 * N)
    return rows, grown(rows, "l2"), SHAPES[request.param]


@pytest.mark.parametrize("mapped", [False, True])
def test_a_sealed_graph_keeps_its_format(odd: tuple[MemoryRows, HnswIndex, str], tmp_path: Path, mapped: bool) -> None:
    rows, index, code_format = odd
    index.seal(tmp_path / "sealed")
    header, _ = sealed_file.read(tmp_path / "sealed", graph_file.MAGIC, 1, 2)
    assert (header["version"], header["codes"]) == (2, code_format) and header["codes_recall"] >= 0.99
    again = HnswIndex.open(tmp_path / "sealed", CONFIG, "l2", rows, mapped=mapped)
    queries = awkward.near(rows.arrays.vectors[:N], 40)
    a, b = (one.search(queries, 10, rows.visibility(), PARAMS) for one in (index, again))
    assert np.array_equal(a.rows, b.rows) and np.array_equal(a.work, b.work)
    assert again.check() == [] and again.stats()["codes"] == index.stats()["codes"]


def rewritten(path: Path, **changed: Any) -> Path:
    """A copy of a sealed file with another header; None takes a name away."""
    header, sections = sealed_file.read(path, graph_file.MAGIC, 1, 2)
    header = {k: v for k, v in {**header, **changed}.items() if v is not None and k != "sections"}
    copy = path.with_name("copy")
    sealed_file.write(copy, graph_file.MAGIC, json.loads(json.dumps(header)), sections)
    return copy


def test_a_file_from_before_there_were_formats_is_read(tmp_path: Path) -> None:
    rows = MemoryRows(clustered(1_500, DIM), N)
    index = grown(rows, "l2")
    index.seal(tmp_path / "sealed")
    assert sealed_file.read(tmp_path / "sealed", graph_file.MAGIC, 1)[0]["codes"] == "sq8"
    gone = dict.fromkeys(("codes", "codes_recall", "measured_rows", "spoiled"))
    again = HnswIndex.open(rewritten(tmp_path / "sealed", **gone), CONFIG, "l2", rows)
    assert again.stats()["codes"] == "8 bit" and again.stats()["codes_recall"] is None
    assert again.check() == [] and not again.is_spoiled
    rows.append(clustered(500, DIM, seed=3))
    add_all(again, rows)
    assert again.stats()["codes_recall"] == 1.0  # measured as soon as rows are added
    assert again.check() == []


def test_a_file_of_an_unknown_format_is_refused(odd: tuple[MemoryRows, HnswIndex, str], tmp_path: Path) -> None:
    rows, index, _ = odd
    index.seal(tmp_path / "sealed")
    with pytest.raises(Corruption, match="codes"):
        HnswIndex.open(rewritten(tmp_path / "sealed", codes="float7"), CONFIG, "l2", rows)


@pytest.mark.parametrize("shape", ["clusters .01", "clusters .0001"])
def test_deleted_rows_leave_a_graph_of_any_format_and_a_vacuum_renumbers_it(shape: str) -> None:
    vectors = awkward.shape(shape, N, DIM)
    rows = MemoryRows(vectors)
    index = grown(rows, "cosine")
    gone = np.arange(0, N, 3)
    rows.delete(gone)
    index.remove(rows.sequence, 2)
    queries = awkward.near(vectors, 40)
    assert index.check() == [] and recall(index, rows, queries) >= 0.98
    kept = np.setdiff1d(np.arange(N), gone)
    mapping = np.full(N, -1, np.int64)
    mapping[kept] = np.arange(len(kept))
    fresh = MemoryRows(vectors[kept], N)
    index = index.renumbered(mapping, fresh)
    index.publish_rows(len(kept))
    assert index.check() == [] and recall(index, fresh, queries) >= 0.98
    assert index._current().graph.quantiser.code_format == SHAPES[shape]
    fresh.append(awkward.shape(shape, 1_000, DIM, seed=3))
    add_all(index, fresh)
    assert index.check() == []


def drifted() -> tuple[Any, Any]:
    """Ordinary rows, and rows of which 8 bits trained on the first tell nothing: as far apart as a step of theirs."""
    return awkward.shape("gauss", 2_000, DIM), awkward.shape("gauss", 2_500, DIM, seed=2) * np.float32(1e-3)


def test_codes_that_collapse_as_data_come_are_replaced_and_the_graph_built_anew() -> None:
    first, second = drifted()
    rows = MemoryRows(first, 10_000)
    index = grown(rows, "l2")
    assert index.stats()["codes"] == "8 bit" and not index.is_spoiled
    rows.append(second)
    add_all(index, rows)
    queries = awkward.near(second, 60)
    assert index.stats()["codes"] == "8 bit rotated" and index.is_spoiled and index.check() == []
    fresh = HnswIndex(CONFIG, "l2", rows)
    fresh.publish_rows(rows.row_count)
    fresh.take_over(index)
    add_all(fresh, rows)
    assert fresh.stats()["codes"] == "8 bit rotated" and not fresh.is_spoiled and fresh.check() == []
    assert recall(fresh, rows, queries) >= 0.95


def test_a_spoiled_graph_says_so_after_it_was_sealed(tmp_path: Path) -> None:
    rows = MemoryRows(clustered(200, DIM))
    index = grown(rows, "l2")
    index._spoiled = True
    index.seal(tmp_path / "sealed")
    assert HnswIndex.open(tmp_path / "sealed", CONFIG, "l2", rows).is_spoiled


def test_rows_beyond_the_range_are_found_from_their_commit_on() -> None:
    for shape, metric in (("gauss", "l2"), ("clusters .01", "l2"), ("clusters .0001", "cosine")):
        vectors = awkward.shape(shape, 1_500, DIM)
        rows = MemoryRows(vectors, 4_000)
        index = grown(rows, metric)
        late = awkward.shape("gauss", 60, DIM, seed=4) * np.float32(5_000) + np.float32(9e5)
        rows.append(late)
        index.publish_rows(rows.row_count)  # nothing is indexed yet
        assert recall(index, rows, awkward.near(late, 30)) == 1.0
        assert recall(index, rows, awkward.near(vectors, 30)) >= 0.97


def near_two_clumps(rng: np.random.Generator, count: int) -> tuple[Any, Any]:
    """Rows beyond the codes, whose clipped codes lie nearer to the queries than the queries' neighbours do."""
    direction = np.ones(DIM)
    far = 14 * direction + rng.standard_normal((count, DIM))
    return far.astype(np.float32), (3 * direction + 0.3 * rng.standard_normal((60, DIM))).astype(np.float32)


@pytest.mark.parametrize("where", ["tail", "graph"])
def test_rows_beyond_the_codes_hide_nothing_that_is_nearer(where: str) -> None:
    rng = np.random.default_rng(3)
    rows = MemoryRows(rng.standard_normal((N, DIM)).astype(np.float32), capacity=2 * N)
    index = grown(rows, "l2")
    far, queries = near_two_clumps(rng, 150)
    rows.append(far)
    if where == "graph":
        add_all(index, rows)
    else:
        index.publish_rows(rows.row_count)
    assert index.stats()["codes"] == "8 bit" and index.check() == []
    assert recall(index, rows, queries) >= 0.9
    assert recall(index, rows, far[:50] + np.float32(0.1)) == 1.0, "and are found themselves"
    index.close()


def test_the_bias_of_a_clipped_code_in_a_file_from_before_is_put_right(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    rows = MemoryRows(np.concatenate([rng.standard_normal((N, DIM)), near_two_clumps(rng, 20)[0]]).astype(np.float32))
    index = grown(rows, "l2")
    view = index._view
    assert view is not None
    far = view.graph.far[view.graph.far >= N]
    view.graph.bias[far] = ((view.graph.codes[far, :DIM].astype(np.int32) - 128) ** 2).sum(axis=1)
    assert index.check() != []
    index.seal(tmp_path / "graph")
    again = HnswIndex.open(tmp_path / "graph", CONFIG, "l2", rows)
    assert again.check() == []


def test_searches_stay_right_while_the_format_changes() -> None:
    """The publisher encodes new rows, and two searches run, while maintenance encodes all of them in another format."""
    vectors = awkward.shape("gauss", 3_000, DIM)
    rows = MemoryRows(vectors[:1_000], 4_000)
    index = grown(rows, "l2", 1)
    old = index._current().graph.quantiser
    around_median = code_choice.around_median
    others = [around_median(rows.arrays, index._metric, 1_000, one) for one in (FLOAT32, ROTATED8, ROTATED16)]
    others.append(old)
    queries = vectors[:1_000:20]
    wrong: list[Any] = []
    stop = threading.Event()

    def look() -> None:
        while not stop.is_set():
            found = index.search(queries, 1, rows.visibility(), PARAMS)
            if not np.array_equal(found.rows[:, 0], np.arange(0, 1_000, 20)):
                wrong.append(found.rows)

    def publish() -> None:
        for at in range(1_000, 3_000, 10):
            index.publish_rows(at + 10)
            if stop.is_set():
                return

    rows.arrays.vectors[1_000:3_000] = vectors[1_000:]  # there before they are counted, as a commit writes them
    threads = [threading.Thread(target=work) for work in (look, look, publish)]
    for thread in threads:
        thread.start()
    for turn in range(9):
        index._encode_anew(others[turn % 4], 1_000)
    threads[2].join()
    stop.set()
    for thread in threads:
        thread.join()
    assert wrong == [] and index.stats()["codes"] == "float32"
    rows.append(vectors[1_000:])
    add_all(index, rows, 1)
    assert index.check() == [] and recall(index, rows, awkward.near(vectors, 60)) >= 0.95
