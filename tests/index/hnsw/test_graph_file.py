"""Goal: a sealed index comes back as it was, and no flipped bit goes unnoticed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.support.index_rows import MemoryRows, clustered
from vecdb import schema
from vecdb.errors import Corruption
from vecdb.index.hnsw.hnsw_index import HnswIndex
from vecdb.schema import SearchParams

CONFIG = schema.Hnsw(m=8, ef_construction=60)
WIDE = SearchParams(ef=80)


@pytest.fixture(scope="module")
def sealed(tmp_path_factory: pytest.TempPathFactory) -> tuple[MemoryRows, HnswIndex, Path]:
    rows = MemoryRows(clustered(900, 24), 4000)
    index = HnswIndex(CONFIG, "l2", rows)
    index.publish_rows(900)
    index.add(800, 2)
    rows.delete(np.arange(100, 150))
    index.remove(rows.sequence)
    path = tmp_path_factory.mktemp("sealed") / "hnsw.1.1"
    facts = index.seal(path)
    assert (facts.rows, facts.sequence, facts.bytes) == (800, rows.sequence, path.stat().st_size)
    return rows, index, path


@pytest.mark.parametrize("mapped", [False, True])
def test_a_sealed_index_answers_as_before_and_reads_the_tail(
    sealed: tuple[MemoryRows, HnswIndex, Path], mapped: bool
) -> None:
    rows, index, path = sealed
    again = HnswIndex.open(path, CONFIG, "l2", rows, mapped=mapped)
    assert again.indexed_rows == 800
    again.publish_rows(900)
    assert again.check() == []
    queries = clustered(50, 24, seed=2)
    a = index.search(queries, 10, rows.visibility(), WIDE)
    b = again.search(queries, 10, rows.visibility(), WIDE)
    assert np.array_equal(a.rows, b.rows) and np.array_equal(a.distances, b.distances)
    if not mapped:
        again.add(900)
        again.connect_unreachable()
        assert again.check() == []


def test_an_index_without_rows_can_be_sealed(tmp_path: Path) -> None:
    rows = MemoryRows(clustered(10, 24))
    HnswIndex(CONFIG, "l2", rows).seal(tmp_path / "empty")
    assert HnswIndex.open(tmp_path / "empty", CONFIG, "l2", rows).indexed_rows == 0


def test_every_flipped_bit_is_noticed(sealed: tuple[MemoryRows, HnswIndex, Path], tmp_path: Path) -> None:
    rows, _, path = sealed
    whole = path.read_bytes()
    target = tmp_path / "damaged"
    places = sorted({*range(40), *np.linspace(0, len(whole) - 1, 300).astype(int).tolist(), len(whole) - 1})
    for place in places:
        damaged = bytearray(whole)
        damaged[place] ^= 1 << (place % 8)
        target.write_bytes(damaged)
        with pytest.raises(Corruption, match="damaged"):
            HnswIndex.open(target, CONFIG, "l2", rows)
    for length in (0, 10, 4096, len(whole) - 1):
        target.write_bytes(whole[:length])
        with pytest.raises(Corruption):
            HnswIndex.open(target, CONFIG, "l2", rows)


def test_a_file_of_other_parameters_is_refused(sealed: tuple[MemoryRows, HnswIndex, Path]) -> None:
    rows, _, path = sealed
    with pytest.raises(Corruption, match="metric"):
        HnswIndex.open(path, CONFIG, "ip", rows)
    with pytest.raises(Corruption, match="m: expected 9"):
        HnswIndex.open(path, schema.Hnsw(m=9, ef_construction=60), "l2", rows)


def test_check_notices_broken_links(sealed: tuple[MemoryRows, HnswIndex, Path]) -> None:
    rows, _, path = sealed
    for break_it, words in (
        (lambda g: g.links.__setitem__((5, 0), 5), "themselves"),
        (lambda g: g.links.__setitem__((5, 0), 800), "past the last"),
        (lambda g: g.links.__setitem__((5, 1), g.links[5, 0]), "twice"),
        (lambda g: g.links.__setitem__((5, 0), 120), "unlinked dead"),
        (lambda g: g.codes.__setitem__((0, 0), g.codes[0, 0] ^ 1), "codes"),
        (lambda g: g.links.__setitem__((slice(0, 800), slice(None)), -1), "unreachable"),
    ):
        index = HnswIndex.open(path, CONFIG, "l2", rows)
        break_it(index._current().graph)
        assert any(words in line for line in index.check()), words


def test_check_does_not_follow_links_past_the_end(sealed: tuple[MemoryRows, HnswIndex, Path]) -> None:
    rows, _, path = sealed
    index = HnswIndex.open(path, CONFIG, "l2", rows)
    index._current().graph.links[5, 0] = 2**31 - 2
    assert any("past the last" in line for line in index.check())
