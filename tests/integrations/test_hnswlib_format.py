"""A file of hnswlib is read exactly as hnswlib reads it, and a damaged one raises Corruption and nothing else.

Oracle: hnswlib itself (get_items, knn_query), and files packed by hand with struct where it is absent.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vecdb.errors import Corruption
from vecdb.integrations.hnswlib_format import HnswlibGraph, parse

M = 2  # of the file made by hand
DIM = 3


def by_hand(**change: Any) -> bytes:
    """Three elements in a triangle; element 1 reaches layer 2, element 2 layer 1 and is deleted."""
    width = 4 + 4 * 2 * M
    fields = {
        "offset_level0": 0,
        "max_elements": 10,
        "count": 3,
        "size_per_element": width + 4 * DIM + 8,
        "label_offset": width + 4 * DIM,
        "offset_data": width,
        "maxlevel": 2,
        "enterpoint": 1,
        "max_m": M,
        "max_m0": 2 * M,
        "m": M,
        "mult": 1.44,
        "ef_construction": 50,
        "labels": [70, 2**64 - 1, 0],
        "links": [[1, 2], [0, 2], [1]],
        "upper": [[], [[2], []], [[1]]],
        "tail": b"",
    } | change
    names = list(fields)[:13]
    out = struct.pack("<QQQQQQiIQQQdQ", *(fields[name] for name in names))
    for i, links in enumerate(fields["links"]):
        out += struct.pack("<HBB", len(links), i == 2, 0) + struct.pack("<4I", *links, *[99] * (4 - len(links)))
        out += struct.pack("<3f", i, i + 0.5, -i) + struct.pack("<Q", fields["labels"][i])
    for lists in fields["upper"]:
        out += struct.pack("<I", len(lists) * (4 + 4 * M))
        for links in lists:
            out += struct.pack("<HH", len(links), 0) + struct.pack("<2I", *links, *[99] * (2 - len(links)))
    return out + fields["tail"]


def test_a_file_packed_by_hand_is_read_field_by_field() -> None:
    graph = parse(by_hand())
    assert (graph.dim, graph.m, graph.ef_construction, graph.max_elements) == (DIM, M, 50, 10)
    assert (graph.max_level, graph.entry) == (2, 1)
    assert graph.labels.dtype == np.uint64 and graph.labels.tolist() == [70, 2**64 - 1, 0]
    assert graph.deleted.dtype == bool and graph.deleted.tolist() == [False, False, True]
    assert graph.vectors.dtype == np.float32
    assert graph.vectors.tolist() == [[0, 0.5, 0], [1, 1.5, -1], [2, 2.5, -2]]
    assert graph.links0.dtype == np.int32
    assert graph.links0.tolist() == [[1, 2, -1, -1], [0, 2, -1, -1], [1, -1, -1, -1]]
    assert graph.levels.dtype == np.uint8 and graph.levels.tolist() == [0, 2, 1]
    assert graph.upper_starts.tolist() == [0, 0, 2, 3]
    assert graph.upper.dtype == np.int32 and graph.upper.tolist() == [[2, -1], [-1, -1], [1, -1]]


def test_any_bytes_like_is_read_and_vectors_cannot_be_written_through(tmp_path: Path) -> None:
    path = tmp_path / "index.bin"
    path.write_bytes(by_hand())
    for data in (
        bytearray(by_hand()),
        memoryview(by_hand()),
        np.memmap(path, np.uint8, "r"),
        np.memmap(path, np.uint8),
    ):
        graph = parse(data)
        assert graph.vectors[1].tolist() == [1, 1.5, -1]
        with pytest.raises(ValueError, match="read-only"):
            graph.vectors[0, 0] = 5


@pytest.mark.parametrize(
    "change",
    [
        {"offset_level0": 4},
        {"max_elements": 2},
        {"count": 2},
        {"count": 4},
        {"count": 2**63},
        {"count": 0},
        {"size_per_element": 41},
        {"size_per_element": 2**40},
        {"label_offset": 2**40},
        {"label_offset": 0},
        {"offset_data": 16},
        {"offset_data": 24},
        {"maxlevel": 1},
        {"maxlevel": 3},
        {"maxlevel": -1},
        {"maxlevel": 2**31 - 1},
        {"enterpoint": 0},
        {"enterpoint": 3},
        {"enterpoint": 2**32 - 1},
        {"m": 0, "max_m": 0, "max_m0": 0},
        {"m": 3},
        {"max_m": 3},
        {"max_m0": 3},
        {"m": 2**62, "max_m": 2**62, "max_m0": 2**63},
        {"mult": float("nan")},
        {"mult": -1.0},
        {"ef_construction": 0},
        {"labels": [70, 5, 70]},
        {"links": [[1, 3], [0, 2], [1]]},
        {"links": [[1, 2**32 - 1], [0, 2], [1]]},
        {"links": [[0], [0, 2], [1]]},
        {"upper": [[], [[2], []], []]},
        {"upper": [[], [[2], []], [[0]]]},
        {"upper": [[], [[], [2]], [[1]]]},
        {"upper": [[], [[1], []], [[1]]]},
        {"upper": [[], [[2], [], []], [[1]]]},
        {"upper": [[], [[2], []]]},
        {"tail": b"\0"},
        {"tail": b"\0\0\0\0"},
    ],
    ids=str,
)
def test_numbers_that_do_not_make_a_graph_are_corruption(change: dict[str, Any]) -> None:
    with pytest.raises(Corruption, match=r"words\.bin"):
        parse(by_hand(**change), name="words.bin")


def test_a_link_count_beyond_its_room_is_corruption() -> None:
    for at in (96, 96 + 3 * 40 + 4 + 4):  # of element 0 on layer 0; of element 1 on layer 1
        data = bytearray(by_hand())
        data[at : at + 2] = b"\xff\xff"
        with pytest.raises(Corruption, match="65535 links"):
            parse(data)


def test_a_size_that_is_no_number_of_whole_lists_is_corruption() -> None:
    data = bytearray(by_hand())
    assert data[-16] == 12  # the size of element 2: one list
    data[-16] = 13
    with pytest.raises(Corruption, match="13 bytes of upper layers"):
        parse(data)


def test_every_truncation_is_corruption() -> None:
    data = by_hand()
    for size in range(len(data)):
        with pytest.raises(Corruption):
            parse(data[:size])


@given(st.lists(st.tuples(st.integers(0, len(by_hand()) - 1), st.integers(0, 255)), min_size=1, max_size=4))
def test_damage_gives_corruption_or_a_graph_within_bounds(damage: list[tuple[int, int]]) -> None:
    data = bytearray(by_hand())
    for at, value in damage:
        data[at] = value
    try:
        graph = parse(data)
    except Corruption:
        return
    n = len(graph.labels)
    assert graph.links0.max() < n and graph.links0.min() >= -1 and graph.upper.max() < n and graph.upper.min() >= -1
    assert 0 <= graph.entry < n and graph.levels[graph.entry] == graph.max_level == graph.levels.max()
    assert len(graph.upper) == graph.levels.sum()


@given(st.binary(max_size=400))
def test_random_bytes_are_corruption(data: bytes) -> None:
    with pytest.raises(Corruption):
        parse(data)


# -- against hnswlib itself --------------------------------------------------------------------


def saved(path: Path, space: str, n: int, dim: int, m: int, capacity: int) -> tuple[Any, HnswlibGraph, np.ndarray]:
    hnswlib = pytest.importorskip("hnswlib")
    rng = np.random.default_rng([n, dim])
    labels = rng.permutation(10 * n + 10)[:n]
    index = hnswlib.Index(space, dim)
    index.init_index(capacity, M=m, ef_construction=60, random_seed=7)
    if n:
        index.add_items(rng.normal(size=(n, dim)).astype(np.float32), labels, num_threads=1)
    for label in labels[::5]:
        index.mark_deleted(int(label))
    index.save_index(str(path))
    return index, parse(np.memmap(path, np.uint8, "r")), labels


def greedy(graph: HnswlibGraph, space: str, query: np.ndarray, k: int, ef: int) -> list[int]:
    """The textbook search over the parsed arrays: finds neighbours only if links and levels are right."""

    def distance(i: int) -> float:
        vector = graph.vectors[i].astype(float)
        return float(((query - vector) ** 2).sum() if space == "l2" else 1 - query @ vector)

    best = graph.entry
    for layer in range(graph.max_level, 0, -1):
        while True:
            row = graph.upper[graph.upper_starts[best] + layer - 1]
            closer = min([best, *row[row >= 0].tolist()], key=distance)
            if closer == best:
                break
            best = closer
    seen, found, ready = {best}, [(distance(best), best)], [(distance(best), best)]
    while ready:
        ready.sort(reverse=True)
        far, at = ready.pop()
        if len(found) >= ef and far > found[-1][0]:
            break
        for i in graph.links0[at][graph.links0[at] >= 0].tolist():
            if i not in seen:
                seen.add(i)
                found.append((distance(i), i))
                ready.append((distance(i), i))
        found = sorted(found)[:ef]
    return [int(graph.labels[i]) for _, i in found if not graph.deleted[i]][:k]


@pytest.mark.parametrize("space", ["l2", "ip", "cosine"])
def test_files_of_hnswlib_are_read_as_hnswlib_reads_them(space: str, tmp_path: Path) -> None:
    n, dim, m = 700, 10, 6
    index, graph, labels = saved(tmp_path / "index.bin", space, n, dim, m, capacity=1_000)
    assert (graph.dim, graph.m, graph.ef_construction, graph.max_elements) == (dim, m, 60, 1_000)
    assert sorted(graph.labels.tolist()) == sorted(labels.tolist())
    assert set(graph.labels[graph.deleted].tolist()) == set(labels[::5].tolist())
    live = graph.labels[~graph.deleted]
    assert np.array_equal(np.asarray(index.get_items(live), np.float32), graph.vectors[~graph.deleted])
    if space == "cosine":
        assert np.allclose(np.linalg.norm(graph.vectors, axis=1), 1, atol=1e-5)
    index.set_ef(n)
    for query in np.random.default_rng(1).normal(size=(10, dim)):
        query = query / np.linalg.norm(query) if space == "cosine" else query
        expected = index.knn_query(query.astype(np.float32), 10, num_threads=1)[0][0].tolist()
        assert greedy(graph, space, query, 10, n) == expected
    assert graph.max_level >= 2 and graph.levels.max() == graph.max_level


@pytest.mark.parametrize("n, m", [(0, 4), (1, 4), (2, 2), (60, 48), (300, 2)])
def test_small_and_odd_files_of_hnswlib_are_read(n: int, m: int, tmp_path: Path) -> None:
    index, graph, _ = saved(tmp_path / "index.bin", "l2", n, 1, m, capacity=max(1, n))
    assert len(graph.labels) == n == index.get_current_count() and graph.m == m
    assert graph.vectors.shape == (n, 1) and graph.links0.shape == (n, 2 * m)
    assert (graph.entry, graph.max_level) == (-1, -1) if n == 0 else graph.levels[graph.entry] == graph.max_level


def test_a_file_with_updates_and_reused_places_is_read(tmp_path: Path) -> None:
    hnswlib = pytest.importorskip("hnswlib")
    rng = np.random.default_rng(2)
    index = hnswlib.Index("l2", 4)
    index.init_index(200, M=4, ef_construction=30, allow_replace_deleted=True)
    index.add_items(rng.normal(size=(200, 4)), np.arange(200), num_threads=1)
    index.add_items(rng.normal(size=(50, 4)), np.arange(50), num_threads=1)
    for label in range(100, 150):
        index.mark_deleted(label)
    index.add_items(rng.normal(size=(30, 4)), np.arange(1_000, 1_030), num_threads=1, replace_deleted=True)
    index.save_index(str(tmp_path / "index.bin"))
    graph = parse((tmp_path / "index.bin").read_bytes())
    assert graph.deleted.sum() == 20 and set(range(1_000, 1_030)) <= set(graph.labels.tolist())
    live = ~graph.deleted
    assert np.array_equal(np.asarray(index.get_items(graph.labels[live]), np.float32), graph.vectors[live])
