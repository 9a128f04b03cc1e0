"""Goal: a sealed file of columns gives back the view that was written, or is refused as a whole.

Oracle: the view that was written, asked the same filters.
"""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest

from tests.support.filters.column_views import history, rows_that_match, small_blocks
from tests.support.filters.filter_trees import random_record, random_tree
from vecdb.columns import column_file
from vecdb.columns.column_set import ColumnView
from vecdb.errors import Corruption

FACTS = {"kind": "columns", "generation": 3, "collection": 7}


@pytest.mark.parametrize("seed", range(3))
def test_a_view_is_read_back_and_goes_on_growing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    small_blocks(monkeypatch)
    rng = random.Random(seed)
    view, records = history(rng, 9)[-1]
    column_file.write(tmp_path / "columns", view, FACTS)
    again = column_file.read(tmp_path / "columns", FACTS)
    assert (again.row_count, again.sequence, again.missing) == (view.row_count, view.sequence, view.missing)
    more = [random_record(rng) for _ in range(50)]
    grown, records = again.extended(more, len(records) + len(more)), records + more
    changed = np.arange(0, len(records), 3)
    new = [random_record(rng) for _ in changed]
    grown = grown.changed(changed, new, 99)
    other = view.extended(more, len(records)).changed(changed, new, 99)
    for row, record in zip(changed.tolist(), new, strict=True):
        records[row] = record
    for _ in range(60):
        node = random_tree(rng)
        assert rows_that_match(grown, node, records) == rows_that_match(other, node, records), str(node)


def test_damage_and_files_of_others_are_refused(tmp_path: Path) -> None:
    rng = random.Random(1)
    view = ColumnView().extended([random_record(rng) for _ in range(200)], 200)
    path = tmp_path / "columns"
    size = column_file.write(path, view, FACTS)
    with pytest.raises(Corruption, match="generation"):
        column_file.read(path, {**FACTS, "generation": 4})
    whole = path.read_bytes()
    assert len(whole) == size
    for place in [0, 9, 20, *rng.sample(range(size), 40)]:
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0x40]) + whole[place + 1 :])
        with pytest.raises(Corruption):
            column_file.read(path, FACTS)
    for length in (0, 100, 4_096, size - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(Corruption):
            column_file.read(path, FACTS)
