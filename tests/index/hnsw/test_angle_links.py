"""Goal: where a dense core lies in a sparse cloud, a graph has links by angle beside those by l2; ordinary data have
the graph that they always had.

Oracle: brute force in float64.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.data_shapes import SHAPES, exact_distances, queries_of
from tests.support.data_shapes import recall as recall_of
from tests.support.index_rows import MemoryRows
from vecdb import schema
from vecdb.index.common import sampling, sq8_training
from vecdb.index.common.quantizer import ROTATED, ROTATED16, SQ8
from vecdb.index.hnsw import link_places
from vecdb.index.hnsw.hnsw_index import HnswIndex
from vecdb.kernels.codes.float_codes import ANGLES
from vecdb.kernels.primitives.distance import L2
from vecdb.schema import SearchParams

N, DIM = 4_000, 96
CORES = {
    "half x.001 half x10", "half x.1 half x10", "10 % x10", "log-normal 1", "log-normal 3", "drift x1e3", "very sparse",
    "heavy-tailed",
}  # fmt: skip


def made(shape: str, n: int = N) -> np.ndarray:
    return SHAPES[shape](np.random.default_rng(3), n, DIM)


def grown(source: MemoryRows, metric: str = "l2", threads: int = 2, after: HnswIndex | None = None) -> HnswIndex:
    """after : built anew after this one."""
    index = HnswIndex(schema.Hnsw(), metric, source)
    index.publish_rows(source.row_count)
    if after is not None:
        index.take_over(after)
    while index.indexed_rows < source.row_count:
        index.add(index.next_stop(source.row_count), threads)
    index.connect_unreachable(threads)
    return index


def places(index: HnswIndex) -> link_places.LinkPlaces:
    return index._current().graph.places


def recall(index: HnswIndex, source: MemoryRows, ef: int = 64) -> float:
    rows = source.arrays.vectors[: source.row_count]
    living = np.flatnonzero(source.arrays.deleted[: source.row_count] == 0)
    queries = queries_of(np.random.default_rng(4), rows[living], 100)
    true = np.full((100, len(rows)), np.inf)
    true[:, living] = exact_distances(rows[living], queries, "l2")
    return recall_of(index.search(queries, 10, source.visibility(), SearchParams(ef=ef)).rows, true, 10)


# By l2 alone .86, .86, .92, .84; by both .99.
@pytest.mark.parametrize(
    ("shape", "ef", "least"),
    [("half x.001 half x10", 64, 0.97), ("half x.1 half x10", 64, 0.97), ("log-normal 1", 64, 0.97),
     ("log-normal 3", 128, 0.97)],
)  # fmt: skip
def test_a_fixed_beam_finds_what_brute_force_finds(shape: str, ef: int, least: float) -> None:
    source = MemoryRows(made(shape))
    index = grown(source)
    assert places(index) == (16, 16, ANGLES) and index._current().graph.links.shape[1] == 32
    assert recall(index, source, ef) >= least
    assert index.check() == []


@pytest.mark.parametrize("shape", sorted(SHAPES))
def test_a_core_is_many_directions_at_many_lengths(shape: str) -> None:
    rows = made(shape, 1_024)
    assert sampling.has_dense_core(rows) == (shape in CORES)
    assert sampling.has_dense_core(rows + np.float32(rows.std())) == (shape in CORES)


def test_rows_that_are_all_equal_or_few_have_no_core() -> None:
    for rows in (np.zeros((0, 4)), np.ones((1, 4)), np.ones((9, 4)), np.eye(3, 4)):
        assert not sampling.has_dense_core(rows.astype(np.float32))
    one_apart = np.zeros((9, 4), np.float32)
    one_apart[3] = 1.0
    assert not sampling.has_dense_core(one_apart)


def test_ordinary_data_other_metrics_and_8_bit_data_have_links_of_one_kind(tmp_path: Path) -> None:
    core = made("log-normal 1", 1_100)
    quantised = np.clip(core * 10, -127, 127).astype(np.int8)
    for rows, metric in ((made("plain", 1_100), "l2"), (core, "cosine"), (quantised, "l2")):
        index = grown(MemoryRows(rows), metric)
        assert places(index) == link_places.of_one_kind(16)
        assert index._current().graph.quantiser.code_format == SQ8
        index.seal(tmp_path / "graph")
        assert header_of(tmp_path / "graph")["version"] == 1


def header_of(path: Path) -> dict[str, Any]:
    data = path.read_bytes()
    header: dict[str, Any] = json.loads(data[16 : 16 + int.from_bytes(data[8:12], "little")])
    return header


def test_links_by_angle_outlive_deletes_a_vacuum_and_a_file(tmp_path: Path) -> None:
    rows = made("log-normal 1")
    source = MemoryRows(rows)
    index = grown(source)
    rng = np.random.default_rng(3)
    shortest = np.argsort(np.linalg.norm(rows, axis=1))
    source.delete(np.concatenate([shortest[:100], rng.choice(N, 900, replace=False)]))
    index.remove(source.visibility().sequence, 2)
    assert index.check() == [] and recall(index, source) >= 0.95
    index.seal(tmp_path / "graph")
    header = header_of(tmp_path / "graph")
    assert (header["version"], header["angle_links"], header["product_links"]) == (2, 16, 0)
    for mapped in (True, False):
        opened = HnswIndex.open(tmp_path / "graph", index.config, "l2", source, mapped=mapped)
        assert places(opened) == places(index)
        queries = queries_of(rng, rows, 100)
        found = [one.search(queries, 10, source.visibility(), SearchParams(ef=64)).rows for one in (index, opened)]
        assert np.array_equal(*found)
    source.append(made("log-normal 1", 500))
    opened.publish_rows(source.row_count)
    opened.add(source.row_count, 2)
    assert opened.check() == [] and recall(opened, source) >= 0.95
    keep = np.flatnonzero(source.arrays.deleted[: source.row_count] == 0)
    mapping = np.full(source.row_count, -1, np.int64)
    mapping[keep] = np.arange(len(keep))
    fewer = MemoryRows(source.arrays.vectors[keep])
    moved = opened.renumbered(mapping, fewer)
    assert places(moved) == places(index)
    assert moved.check() == [] and recall(moved, fewer) >= 0.95


def test_the_links_do_not_depend_on_threads() -> None:
    links = [
        grown(MemoryRows(made("half x.001 half x10", 2_000)), threads=threads)._current().graph.links[:2_000]
        for threads in (1, 3)
    ]
    assert np.array_equal(*links)


@pytest.mark.parametrize("shorter", [1e-4, 0.3])  # 8-bit codes of the second hold, so that the links alone are stale
def test_a_graph_that_began_before_there_was_a_core_is_built_anew(shorter: float) -> None:
    source = MemoryRows(made("plain", 600), 2 * N)
    index = grown(source)
    assert not index.is_spoiled
    lengths = np.where(np.random.default_rng(5).random(N - 600) < 0.5, shorter, 1.0)
    source.append((made("plain", N - 600) * lengths[:, None]).astype(np.float32))
    index.publish_rows(N)
    index.add(N, 2)
    index.connect_unreachable(2)
    assert index.is_spoiled and places(index).second == 0 and index.check() == []
    again = grown(source, after=index)
    assert not again.is_spoiled and places(again) == link_places.with_angles(16)
    assert recall(again, source, 32) >= 0.95 > recall(index, source, 32)


def test_codes_that_know_no_angles_leave_all_places_to_l2() -> None:
    places_of = {code_format: link_places.with_angles(8).with_codes(code_format) for code_format in (*ROTATED, SQ8)}
    assert places_of.pop(SQ8)[:2] == (16, 0)
    assert set(places_of.values()) == {link_places.with_angles(8)} and ROTATED16 in places_of
    assert link_places.with_products(8).with_codes(SQ8) == link_places.with_products(8)
    source = MemoryRows(made("log-normal 1", 2_000))
    index = grown(source)
    index._encode_anew(sq8_training.train(source.arrays, L2, 2_000).measured(1.0, 2_000), 2_000)
    source.append(made("plain", 50))  # too few for other codes
    index.publish_rows(2_050)
    index.add(2_050, 2)
    source.delete(np.arange(0, 2_000, 9))
    index.remove(source.visibility().sequence, 2)
    assert index._current().graph.quantiser.code_format == SQ8 and index.check() == []
