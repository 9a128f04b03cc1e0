"""Goal: rows are read back as appended, also past the room reserved at first; a cut or foreign row file is refused
before it is mapped.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from vecdb.errors import Corruption
from vecdb.schema import DTYPES, element_type
from vecdb.storage.disk import filesystem, row_file, row_format
from vecdb.storage.disk.row_file import Rows

DIM = 5


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "rows.0"


@pytest.fixture
def small_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(row_file, "_CAPACITY_MIN", 8)


@pytest.fixture
def opened(path: Path, small_room: None) -> Iterator[Rows]:
    Rows.create(path, "float32", DIM, 0, sync=False)
    made = Rows(path, "float32", DIM, 0, writable=True, row_count=0)
    yield made
    made.close()


def some(n: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 9, (n, DIM)).astype(np.float32)


@pytest.mark.parametrize("dtype", DTYPES)
def test_rows_are_where_the_layout_says(path: Path, dtype: str) -> None:
    vectors = np.random.default_rng(1).integers(0, 100, (7, DIM)).astype(element_type(dtype))
    Rows.create(path, dtype, DIM, 3, sync=False)
    made = Rows(path, dtype, DIM, 3, writable=True, row_count=0)
    made.write(0, vectors[:4])
    made.write(4, vectors[4:])
    made.sync()
    made.close()
    raw = path.read_bytes()
    assert raw[4096:] == vectors.tobytes() and len(raw) == 4096 + vectors.nbytes
    again = Rows(path, dtype, DIM, 3, writable=False, row_count=7)
    assert again.arrays.vectors.dtype == np.dtype(element_type(dtype))
    assert np.array_equal(again.arrays.vectors[:7], vectors)
    again.close()


def test_arrays_that_a_search_holds_outlive_growth_and_close(opened: Rows) -> None:
    vectors = some(100)
    opened.ensure(5)
    opened.write(0, vectors[:5])
    held = opened.arrays
    held.crcs[:5] = range(1, 6)
    held.verified[0] = 0b10101
    held.deleted[3] = 9
    assert held.capacity == 8
    opened.ensure(100)
    opened.write(5, vectors[5:])
    now = opened.arrays
    assert now is not held and now.capacity >= 100
    assert now.crcs[:6].tolist() == [1, 2, 3, 4, 5, 0] and now.verified[0] == 0b10101 and now.deleted[3] == 9
    assert not now.deleted[4:].any()
    assert np.array_equal(now.vectors[:100], vectors)
    opened.close()
    assert np.array_equal(held.vectors[:5], vectors[:5])
    opened._fd = filesystem.open_read(opened.path)  # for the fixture to close


def test_room_that_is_enough_is_kept(opened: Rows) -> None:
    held = opened.arrays
    opened.ensure(8)
    assert opened.arrays is held
    opened.ensure(9)
    assert opened.arrays is not held


def test_vectors_are_mapped_read_only(opened: Rows) -> None:
    opened.write(0, some(1))
    with pytest.raises(ValueError, match="read-only"):
        opened.arrays.vectors[0, 0] = 1


def test_a_sync_reaches_the_disk_only_when_something_was_written(opened: Rows, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[int] = []
    monkeypatch.setattr(filesystem, "fdatasync", synced.append)
    opened.sync()
    assert synced == []
    opened.write(0, some(1))
    opened.sync()
    opened.sync()
    assert len(synced) == 1


def test_what_lies_past_the_counted_rows_is_written_over(opened: Rows, path: Path) -> None:
    opened.write(0, some(6, seed=1))
    again = Rows(path, "float32", DIM, 0, writable=True, row_count=2)
    again.write(2, some(4, seed=2))
    assert np.array_equal(again.arrays.vectors[:6], np.concatenate([some(6, seed=1)[:2], some(4, seed=2)]))
    again.close()


def test_a_truncated_file_is_refused_and_named(opened: Rows, path: Path) -> None:
    opened.write(0, some(6))
    whole = path.read_bytes()
    for length in (len(whole) - 1, 4096, 4095, 10, 0):
        path.write_bytes(whole[:length])
        with pytest.raises(Corruption, match=r"rows\.0"):
            Rows(path, "float32", DIM, 0, writable=False, row_count=6)
    path.write_bytes(whole)
    Rows(path, "float32", DIM, 0, writable=False, row_count=6).close()


def test_a_damaged_or_foreign_header_is_refused_without_leaking_its_descriptor(path: Path, small_room: None) -> None:
    Rows.create(path, "float32", DIM, 0, sync=False)
    whole = path.read_bytes()
    before = len(list(Path("/proc/self/fd").iterdir()))
    for at in (0, 5, 8, 12, 16, 4095):
        path.write_bytes(whole[:at] + bytes((whole[at] ^ 0x40,)) + whole[at + 1 :])
        with pytest.raises(Corruption, match=f"byte {at} "):
            Rows(path, "float32", DIM, 0, writable=True, row_count=0)
    path.write_bytes(whole)
    for dtype, dim, generation in (("float16", DIM, 0), ("float32", DIM + 1, 0), ("float32", DIM, 1)):
        with pytest.raises(Corruption, match="header differs"):
            Rows(path, dtype, dim, generation, writable=True, row_count=0)
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_creating_again_replaces_the_leavings_of_a_creation_that_never_committed(path: Path) -> None:
    path.write_bytes(b"half a head")
    Rows.create(path, "int8", DIM, 0, sync=True)
    assert path.read_bytes() == row_format.encode_header("int8", DIM, 0)
