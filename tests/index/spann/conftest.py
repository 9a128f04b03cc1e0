"""An index over rows on disk, and collections whose searches go by their lists."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from numpy.typing import NDArray

from tests.support.disk_rows import DiskRows
from tests.support.spann.collection import KINDS
from tests.support.spann.index import (
    Make,
)
from vecdb import limits, schema
from vecdb.index.spann.spann_index import SpannIndex
from vecdb.schema import Spann


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    """make(vectors, metric, indexed=rows to index, threads=, **config) -> rows on disk and an index that is well."""
    opened: list[tuple[DiskRows, SpannIndex]] = []

    def one(
        vectors: NDArray[Any], metric: str = "l2", indexed: int | None = None, threads: int = 2, **config: Any
    ) -> tuple[DiskRows, SpannIndex]:
        folder = tmp_path / str(len(opened))
        folder.mkdir()
        rows = DiskRows(folder / "rows.0", vectors)
        index = SpannIndex(schema.Spann(**config), metric, rows, folder)
        opened.append((rows, index))
        index.publish_rows(rows.row_count)
        index.add(rows.row_count if indexed is None else indexed, threads)
        assert index.check() == []
        return rows, index

    yield one
    for rows, index in opened:
        index.close()
        rows.close()


@pytest.fixture
def lists_are_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also in collections that a scan would serve better."""
    monkeypatch.setattr(limits, "flat_rows_max", 64)
    monkeypatch.setattr(limits, "index_step_rows", 32)


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> Spann:
    """Codes in memory, on disk, and the hottest of them in memory."""
    return KINDS[request.param]
