"""Goal: under inner product a graph has links that lead to long rows and links that keep every row reachable.

Oracle: brute force in float64.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.data_shapes import SHAPES, exact_distances, queries_of
from tests.support.data_shapes import recall as recall_of
from tests.support.index_rows import MemoryRows
from vecdb import schema
from vecdb.index.hnsw.hnsw_index import HnswIndex
from vecdb.schema import SearchParams

N, DIM = 4_000, 48


def grown(rows: np.ndarray, metric: str = "ip") -> tuple[HnswIndex, MemoryRows]:
    source = MemoryRows(rows)
    index = HnswIndex(schema.Hnsw(), metric, source)
    index.publish_rows(source.row_count)
    while index.indexed_rows < source.row_count:
        index.add(index.next_stop(source.row_count), 2)
    index.connect_unreachable(2)
    return index, source


def recall(index: HnswIndex, source: MemoryRows, queries: np.ndarray) -> float:
    true = exact_distances(source.arrays.vectors[: source.row_count], queries, "ip")
    true[:, source.arrays.deleted[: source.row_count] != 0] = np.inf
    found = index.search(queries, 10, source.visibility(), SearchParams(ef=64)).rows
    return recall_of(found, true, 10)


@pytest.mark.parametrize("shape", ["gaussian", "log-normal 1", "shifted", "30 clusters .01"])
def test_a_beam_of_64_finds_by_product_what_brute_force_finds(shape: str) -> None:
    rng = np.random.default_rng(3)
    rows = SHAPES[shape](rng, N, DIM)
    index, source = grown(rows)
    assert recall(index, source, queries_of(rng, rows, 100)) >= 0.95
    assert index.check() == []


def test_rows_of_one_length_need_links_of_one_kind_and_other_metrics_have_no_more() -> None:
    rng = np.random.default_rng(3)
    rows = rng.standard_normal((1_000, DIM)).astype(np.float32)
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    assert [grown(*given)[0]._current().graph.links.shape[1] for given in ((unit, "ip"), (rows, "l2"))] == [32, 32]
    assert grown(rows)[0]._current().graph.links.shape[1] == 48


def test_both_kinds_outlive_deletes_a_vacuum_and_a_file(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    rows = SHAPES["log-normal 1"](rng, N, DIM)
    index, source = grown(rows)
    longest = np.argsort(-np.linalg.norm(rows, axis=1))
    dead = np.concatenate([longest[:100], rng.choice(N, 900, replace=False)])
    source.delete(dead)
    index.remove(source.visibility().sequence, 2)
    queries = queries_of(rng, rows, 100)
    assert index.check() == [] and recall(index, source, queries) >= 0.95
    index.seal(tmp_path / "graph")
    opened = HnswIndex.open(tmp_path / "graph", index.config, "ip", source)
    assert same_answers(index, opened, source, queries)
    opened.add(opened.next_stop(source.row_count), 2)
    keep = np.flatnonzero(source.arrays.deleted[:N] == 0)
    mapping = np.full(N, -1, np.int64)
    mapping[keep] = np.arange(len(keep))
    fewer = MemoryRows(rows[keep])
    moved = opened.renumbered(mapping, fewer)
    assert moved.check() == [] and recall(moved, fewer, queries) >= 0.95


def same_answers(one: HnswIndex, other: HnswIndex, source: MemoryRows, queries: np.ndarray) -> bool:
    found: list[Any] = [
        index.search(queries, 10, source.visibility(), SearchParams(ef=64)).rows for index in (one, other)
    ]
    return bool(np.array_equal(*found))


def test_the_links_do_not_depend_on_threads() -> None:
    rows = SHAPES["gaussian"](np.random.default_rng(3), 2_000, DIM)
    links = []
    for threads in (1, 3):
        index = HnswIndex(schema.Hnsw(), "ip", MemoryRows(rows))
        index.publish_rows(len(rows))
        index.add(len(rows), threads)
        links.append(index._current().graph.links[: len(rows)])
    assert np.array_equal(*links)
