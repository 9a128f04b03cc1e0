"""Goal: a bulk build takes over what an earlier one has left exactly where that is whole and made for the same thing;
whatever else lies there, the lists are those of a build from nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.support.disk_rows import DiskRows
from tests.support.index_rows import clustered
from vecdb import limits, schema
from vecdb.index.spann import build_checkpoint, bulk_build, list_updates, spann_index
from vecdb.index.spann.entry_spool import EntrySpool
from vecdb.index.spann.spann_index import SpannIndex

N = 3_000
Stop = Callable[..., Any]


class Killed(Exception):
    pass


@pytest.fixture(autouse=True)
def small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Builds of a few thousand rows leave what large ones do, in several blocks and buckets."""
    monkeypatch.setattr(limits, "saved_build_rows_min", 256)
    monkeypatch.setattr(bulk_build, "_CHUNK_BYTES", 24 * 4 * 512)
    monkeypatch.setattr(bulk_build, "_BUCKET_BYTES", 20_000)


@pytest.fixture
def trees(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Grows by one entry with each tree that is grown."""
    grown: list[int] = []
    real = bulk_build.grow_tree

    def counted(*arguments: Any) -> Any:
        grown.append(len(arguments[0]))
        return real(*arguments)

    monkeypatch.setattr(bulk_build, "grow_tree", counted)
    return grown


@pytest.fixture
def rows(tmp_path: Path) -> Iterator[DiskRows]:
    rows = DiskRows(tmp_path / "rows.0", clustered(N, 24))
    yield rows
    rows.close()


def build(rows: DiskRows, stop: int = N, progress: Any = None, metric: str = "l2", **config: Any) -> SpannIndex:
    index = SpannIndex(schema.Spann(**config), metric, rows, rows.path.parent)
    index.remove(rows.sequence)
    index.add(stop, 2, progress)
    assert index.check() == []
    return index


def killed(
    rows: DiskRows,
    monkeypatch: pytest.MonkeyPatch,
    place: Any,
    name: str,
    number: int = 1,
    stop: int = N,
    **config: Any,
) -> None:
    """A build that ends before the `number`-th call of place.name."""
    calls = 0
    real = getattr(place, name)

    def twin(*arguments: Any, **named: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == number:
            raise Killed
        return real(*arguments, **named)

    with monkeypatch.context() as patch:
        patch.setattr(place, name, twin)
        with pytest.raises(Killed):
            build(rows, stop, **config)


def lists_of(index: SpannIndex) -> list[bytes]:
    view = index.lists.view
    assert view is not None
    data, places = index.lists.bodies(view, np.arange(view.heads.count))
    ends = places + view.body_bytes()
    bodies = [data[start:end].tobytes() for start, end in zip(places.tolist(), ends.tolist(), strict=True)]
    return [view.heads.codes.tobytes(), view.heads.group_ends.tobytes(), view.lengths.tobytes(), *bodies]


def left_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name.startswith(("tree", "entries")))


def whole(vectors: NDArray[Any], folder: Path, **config: Any) -> list[bytes]:
    """Lists of a build that nothing stopped, in a folder of its own."""
    folder.mkdir()
    rows = DiskRows(folder / "rows.0", vectors)
    lists = lists_of(build(rows, len(vectors), **config))
    rows.close()
    return lists


MOMENTS = [(EntrySpool, "add", 1), (EntrySpool, "add", 4), (bulk_build, "_bodies", 1), (list_updates, "rebalance", 1)]


@pytest.mark.parametrize("config", [{}, {"memory_budget_bytes": 0}], ids=str)
@pytest.mark.parametrize(("place", "name", "number"), MOMENTS)
def test_a_build_goes_on_where_it_was_stopped(
    rows: DiskRows, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trees: list[int], place: Any, name: str,
    number: int, config: dict[str, Any],
) -> None:  # fmt: skip
    killed(rows, monkeypatch, place, name, number, **config)
    assert len(trees) == 1 and left_in(tmp_path) == ["entries.0.2", "tree.0.2"]
    reports: list[tuple[int, int]] = []
    index = build(rows, progress=lambda done, total: reports.append((done, total)), **config)
    assert len(trees) == 1, "clustered again"
    assert lists_of(index) == whole(clustered(N, 24), tmp_path / "whole", **config)
    assert all(a < b for (a, _), (b, _) in pairwise(reports)) and reports[-1] == (N, N)
    assert reports[0][0] > 0, "what an earlier life has done counts as done"
    index.seal(tmp_path / "spann.0.2.3000")
    assert index.file_names() == (index.lists.current().file.path.name,)  # type: ignore[union-attr]


def test_a_later_build_takes_the_rows_that_came_since_and_leaves_out_those_that_died(
    rows: DiskRows, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trees: list[int]
) -> None:
    killed(rows, monkeypatch, bulk_build, "_bodies")
    rows.append(clustered(500, 24, seed=3))
    rows.delete(np.arange(100, 300))
    index = build(rows, N + 500)
    assert len(trees) == 1
    view = index.lists.current()
    held, _ = index.lists.rows_in(view, np.arange(view.heads.count))
    assert set(held.tolist()) == set(rows.live().tolist())
    assert int(view.lengths.sum()) == len(held), "entries of rows that died in between are laid out"


def test_a_shorter_build_does_not_take_rows_beyond_its_end(
    rows: DiskRows, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trees: list[int]
) -> None:
    killed(rows, monkeypatch, bulk_build, "_bodies")
    index = build(rows, N - 100)
    assert len(trees) == 1 and index.indexed_rows == N - 100


@pytest.mark.parametrize(
    "other",
    [{"head_ratio": 0.05}, {"bits": 4}, {"replicas": 2}, {"metric": "ip"}, {"stop": 2_000}, {"grown": 1_000}],
    ids=str,
)
def test_a_tree_of_other_parameters_or_another_size_is_not_used(
    rows: DiskRows, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trees: list[int], other: dict[str, Any],
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    killed(rows, monkeypatch, bulk_build, "_bodies")
    grown = other.pop("grown", 0)
    if grown:
        rows.append(clustered(grown, 24, seed=3))
    stop = other.pop("stop", N + grown)
    index = build(rows, stop, **other)
    assert len(trees) == 2 and "the tree of an earlier build is of no use" in caplog.text
    vectors = np.ascontiguousarray(rows.arrays.vectors[:stop])
    assert lists_of(index) == whole(vectors, tmp_path / "whole", **other)


def test_a_tree_of_many_more_rows_than_are_alive_is_not_used(
    rows: DiskRows, monkeypatch: pytest.MonkeyPatch, trees: list[int]
) -> None:
    killed(rows, monkeypatch, bulk_build, "_bodies")
    rows.delete(np.arange(0, N, 4))
    killed(rows, monkeypatch, bulk_build, "_bodies")
    assert len(trees) == 2
    rows.delete(np.arange(1, N, 12))  # an eighth of those left
    build(rows)
    assert len(trees) == 2


def test_a_flipped_bit_anywhere_in_the_tree_grows_another(
    rows: DiskRows, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trees: list[int], caplog: pytest.LogCaptureFixture
) -> None:
    killed(rows, monkeypatch, bulk_build, "_bodies")
    right = (tmp_path / "tree.0.2").read_bytes()
    right_entries = (tmp_path / "entries.0.2").read_bytes()
    facts = _facts(rows)
    places = np.unique(np.concatenate([np.arange(24), np.linspace(24, len(right) - 1, 150).astype(np.int64)]))
    for at in places.tolist():
        hurt = bytearray(right)
        hurt[at] ^= 1 << at % 8
        (tmp_path / "tree.0.2").write_bytes(hurt)
        (tmp_path / "entries.0.2").write_bytes(right_entries)
        caplog.clear()
        assert build_checkpoint.find(tmp_path, 0, N, N, facts) is None
        assert "of no use" in caplog.text and left_in(tmp_path) == []
    (tmp_path / "tree.0.2").write_bytes(right)
    assert build_checkpoint.find(tmp_path, 0, N, N, facts) is not None


def _facts(rows: DiskRows) -> dict[str, Any]:
    config = schema.Spann()
    facts = spann_index._facts(config, "l2", rows)
    return {**facts, "head_ratio": config.head_ratio, "replicas": 1, "rows": rows.path.name}


@pytest.mark.parametrize("share", [0.0, 0.3, 0.6, 0.95])
def test_entries_count_up_to_the_first_block_with_a_flipped_bit(
    rows: DiskRows, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trees: list[int], share: float
) -> None:
    killed(rows, monkeypatch, bulk_build, "_bodies")
    hurt = bytearray((tmp_path / "entries.0.2").read_bytes())
    hurt[int(share * len(hurt))] ^= 4
    (tmp_path / "entries.0.2").write_bytes(hurt)
    assigned: list[int] = []
    real = EntrySpool.add
    monkeypatch.setattr(EntrySpool, "add", lambda self, *a: (assigned.append(self.done), real(self, *a)))
    index = build(rows)
    assert len(trees) == 1 and lists_of(index) == whole(clustered(N, 24), tmp_path / "whole")
    assert assigned[0] == int(share * 6) * 512, "blocks before the damage count, those after it do not"


def test_entries_of_another_tree_are_not_taken(
    rows: DiskRows, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trees: list[int]
) -> None:
    killed(rows, monkeypatch, bulk_build, "_bodies", head_ratio=0.05)
    strange = (tmp_path / "entries.0.2").read_bytes()
    (tmp_path / "tree.0.2").unlink()
    killed(rows, monkeypatch, EntrySpool, "add")
    (tmp_path / "entries.0.2").write_bytes(strange)
    assert lists_of(build(rows)) == whole(clustered(N, 24), tmp_path / "whole")
    assert len(trees) == 3


def test_identical_rows_are_built_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trees: list[int]) -> None:
    vectors = np.ones((N, 24), np.float32)
    rows = DiskRows(tmp_path / "rows.0", vectors)
    killed(rows, monkeypatch, EntrySpool, "add", 3)
    index = build(rows)
    assert len(trees) == 1 and lists_of(index) == whole(vectors, tmp_path / "whole")
    rows.close()


def test_a_tree_that_cannot_be_written_costs_nothing_but_itself(
    rows: DiskRows, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trees: list[int], caplog: pytest.LogCaptureFixture
) -> None:
    def full(*_: Any) -> int:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("vecdb.index.common.sealed_file.write", full)
        index = build(rows)
    assert "not written" in caplog.text and left_in(tmp_path) == []
    assert lists_of(index) == whole(clustered(N, 24), tmp_path / "whole")


def test_a_small_build_leaves_no_files(
    rows: DiskRows, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(limits, "saved_build_rows_min", N + 1)
    killed(rows, monkeypatch, bulk_build, "_bodies")
    assert left_in(tmp_path) == []


def test_only_what_the_next_build_can_use_is_wanted() -> None:
    wanted = build_checkpoint.is_wanted
    assert wanted("tree.3.17", 3, None) and wanted("entries.3.17", 3, 16)
    assert not wanted("tree.2.17", 3, None), "of rows that were renumbered since"
    assert not wanted("tree.3.17", 3, 17), "the index was sealed since"
    for name in ("tree.3.17.tmp", "tree.3", "tree.3.", "rows.3.17", "lists.3", "tree"):
        assert not wanted(name, 3, None)


def test_progress_counts_every_stage_of_a_build(rows: DiskRows, caplog: pytest.LogCaptureFixture) -> None:
    reports: list[tuple[int, int]] = []
    seen: dict[str, int] = {}
    caplog.set_level(logging.INFO, "vecdb")

    def note(name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def twin(*arguments: Any, **named: Any) -> Any:
            value = real(*arguments, **named)
            seen[name] = reports[-1][0] if reports else 0
            return value

        return twin

    patch = pytest.MonkeyPatch()
    for place, name in ((bulk_build, "tree_for"), (bulk_build, "build"), (list_updates, "rebalance")):
        patch.setattr(place, name, note(name, getattr(place, name)))
    try:
        build(rows, progress=lambda done, total: reports.append((done, total)))
    finally:
        patch.undo()
    assert reports[0] == (0, N) and reports[-1] == (N, N)
    assert 0 < seen["tree_for"] < seen["build"] < N
    assert [done for done, _ in reports] == sorted({done for done, _ in reports})
