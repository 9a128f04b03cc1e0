"""Rows that match a filter, at one snapshot.

filter --columns--> bits of rows --deleted rows out--> RowSet      kept with the snapshot (filter_cache.py)
"""

from __future__ import annotations

from typing import Any

import numpy as np

from vecdb.columns.evaluation import Evaluation, check_orders
from vecdb.filters.tree import Node
from vecdb.index.row_set import RowSet
from vecdb.kernels.search import row_bits
from vecdb.state.filter_cache import MatchingRows
from vecdb.state.snapshot import Snapshot


def matching(snapshot: Snapshot, node: Node) -> MatchingRows[Any] | None:
    """The rows of a snapshot that match. None: the caller is to take a newer snapshot. Raises InvalidArgument where an
    order is asked for that the field's values do not have.
    """
    known = snapshot.filtered.get(node)
    if known is not None:
        return known
    generation, visibility = snapshot.generation, snapshot.visibility
    view = generation.columns.at(snapshot.state)
    if view is None:
        return None
    check_orders(node, view)
    evaluation = Evaluation(view, generation.columns.fields_of)
    bits = evaluation.bits(node)
    words = np.zeros(visibility.row_count // 64 + 1, np.uint64)  # one word at least
    raw = words.view(np.uint8)
    raw[: len(bits)] = bits[: len(raw)]
    whole = visibility.live_count == visibility.row_count == view.row_count
    count = (
        int(np.bitwise_count(words).sum())
        if whole
        else row_bits.keep_visible(
            words.view(np.uint32), visibility.row_count, visibility.sequence, generation.rows.arrays.deleted
        )
    )
    entry: MatchingRows[Any] = MatchingRows(
        RowSet.of_bitmap(words, count, snapshot.filtered.grown), evaluation.by_records
    )
    snapshot.filtered.keep(node, entry)
    return entry


def intersection(allowed: RowSet, others: RowSet) -> RowSet:
    """Rows that are in both, such as those of a tenant that match. others : the one that is listed."""
    rows = np.empty(len(others), np.uint32)
    bits = allowed.bitmap(0).view(np.uint32)
    return RowSet(rows[: row_bits.rows_in(bits, others.rows, rows)])
