"""Views of columns over random records, with small blocks, for tests of columns."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest

from tests.support.filters.filter_trees import random_record
from vecdb import limits
from vecdb.columns import blocks, column, column_set
from vecdb.columns.column_set import ColumnView
from vecdb.columns.evaluation import Evaluation, rows_of_bits
from vecdb.filters.tree import Node

Records = list[dict[str, Any]]


def small_blocks(monkeypatch: pytest.MonkeyPatch, rows: int = 16) -> None:
    for module in (blocks, column, column_set):
        monkeypatch.setattr(module, "BLOCK_ROWS", rows)
    for module in (blocks, column):
        monkeypatch.setattr(module, "BLOCK_BYTES", rows // 8)
    monkeypatch.setattr(limits, "dictionary_texts_max", 6)
    monkeypatch.setattr(limits, "dictionary_bytes_min", 60)
    monkeypatch.setattr(limits, "dictionary_row_bytes", 1)


def rows_that_match(view: ColumnView, node: Node, records: Records) -> list[int]:
    evaluation = Evaluation(view, lambda rows: [records[row] for row in rows.tolist()])
    return rows_of_bits(evaluation.bits(node)).tolist()


def history(rng: random.Random, steps: int) -> list[tuple[ColumnView, Records]]:
    """Views of records that are added and changed, each beside the records that it is of."""
    view, records = ColumnView(), list[dict[str, Any]]()
    made = []
    for sequence in range(1, steps):
        if records and rng.random() < 0.4:
            chosen = sorted(rng.sample(range(len(records)), rng.randint(1, len(records))))
            new = [random_record(rng) for _ in chosen]
            view = view.changed(np.array(chosen), new, sequence)
            records = list(records)
            for row, record in zip(chosen, new, strict=True):
                records[row] = record
        else:
            records = records + [random_record(rng) for _ in range(rng.randint(1, 40))]
            view = view.extended(records[view.row_count :], len(records))
        made.append((view, records))
    return made
