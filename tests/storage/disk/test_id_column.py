"""Goal: a row leads to the id it was written with, int or string, through every growth; padding gives -1 and None."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vecdb.storage.disk import id_column
from vecdb.storage.disk.id_column import IdColumn

INTS = st.lists(st.lists(st.integers(-(2**63), 2**63 - 1), max_size=6), min_size=1, max_size=8)
TEXTS = st.lists(
    st.lists(st.text(st.characters(codec="utf-8"), min_size=1, max_size=6), max_size=6), min_size=1, max_size=8
)


def extend(column: IdColumn, ids: list[Any], kind: str) -> None:
    if kind == "int":
        column.extend_ints(np.array(ids, np.int64))
        return
    parts = [one.encode() for one in ids]
    column.extend_strs(b"".join(parts), np.cumsum([len(part) for part in parts], dtype=np.uint32))


@pytest.mark.parametrize("room", [1, 1 << 20], ids=["growing", "roomy"])
@pytest.mark.parametrize(("kind", "batches"), [("int", INTS), ("str", TEXTS)])
def test_rows_lead_to_their_ids(kind: str, batches: Any, room: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(id_column, "_CAPACITY_MIN", room)

    @settings(derandomize=True, max_examples=60)
    @given(batches)
    def compare(drawn: list[list[Any]]) -> None:
        column, expected = IdColumn(), []
        for ids in drawn:
            extend(column, ids, kind)
            expected += ids
        assert column.row_count == len(expected)
        rows = np.arange(len(expected), dtype=np.int64)
        assert column.take(rows).tolist() == expected
        padding = -1 if kind == "int" else None
        if expected:
            picked = np.array([[0, -1], [len(expected) - 1, -1]])
            assert column.take(picked).tolist() == [[expected[0], padding], [expected[-1], padding]]

    compare()


def test_the_types_of_answers() -> None:
    ints, texts = IdColumn(), IdColumn()
    assert ints.take(np.full((2, 3), -1)).tolist() == [[-1] * 3] * 2  # nothing was ever written
    extend(ints, [4], "int")
    extend(texts, ["4"], "str")
    assert ints.take(np.array([0])).dtype == np.int64
    assert texts.take(np.array([0])).dtype == object
    assert (ints.kind, texts.kind) == ("int", "str")


def test_memory_is_what_rows_and_text_take() -> None:
    ints, texts = IdColumn(), IdColumn()
    assert ints.memory_bytes() == 0
    extend(ints, [1, 2, 3], "int")
    extend(texts, ["a", "bcd"], "str")
    assert ints.memory_bytes() == 24
    assert texts.memory_bytes() == 2 * 8 + 4
