"""Goal: each kind of index that a user can ask for is known to the registry, with facts that agree with its index."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest

import vecdb
from tests.support.disk_rows import DiskRows
from vecdb.schema import IndexConfig, SearchParams
from vecdb.state import index_factory


@pytest.mark.parametrize("config", get_args(IndexConfig))
def test_the_facts_of_each_kind_agree_with_its_index(config: Any, tmp_path: Path) -> None:
    kind = index_factory.kind_of(config())
    rows: Any = DiskRows(tmp_path / "rows", np.zeros((0, 8), np.float32))
    index = index_factory.new_index(config(), "l2", rows, tmp_path, None)
    assert index.kind == config.kind and index.has_structure == (kind.open_sealed is not None)
    assert index.has_structure == (kind.strategy != "exact") == (kind.width_parameter is not None)
    if kind.width_parameter is not None:
        assert kind.width_of(config(**{kind.width_parameter: 7})) == 7 and hasattr(SearchParams(), kind.width_parameter)
    if kind.scan_limit_parameter is not None:
        assert kind.scan_limit_of(config(**{kind.scan_limit_parameter: 9})) == 9
    assert kind.bytes_per_row(config(), 8) >= 0
    index.close()


def test_a_collection_without_a_budget_has_that_of_its_database(tmp_path: Path) -> None:
    rows: Any = DiskRows(tmp_path / "rows", np.zeros((0, 8), np.float32))

    def budget(config: IndexConfig, of_database: int | None) -> int | None:
        index: Any = index_factory.new_index(config, "l2", rows, tmp_path, of_database)
        index.close()
        return index.config.memory_budget_bytes  # type: ignore[no-any-return]

    assert [budget(vecdb.Spann(), one) for one in (None, 5_000)] == [None, 5_000]
    assert [budget(vecdb.Spann(memory_budget_bytes=0), one) for one in (None, 5_000)] == [0, 0]
