"""What must hold of a Curator index: permutation, tree, codes. Pure functions, for `check`."""

from __future__ import annotations

import numpy as np

from vecdb.index.curator.tree_order import CodeArrays
from vecdb.index.curator.tree_search import TreeView

_CHECKED_ROWS = 8_192


def violations(view: TreeView, metric: int, coded_rows: int) -> list[str]:
    """What does not hold, in words; empty when everything does. coded_rows : rows [0, coded_rows) have codes."""
    order, n = view.order, view.order.indexed
    found = []
    rows = order.rows_of[:n]
    if not np.array_equal(np.sort(rows), np.arange(n)) or not np.array_equal(order.slots_of[rows], np.arange(n)):
        found.append("rows and slots are not each other's inverse")
        return found
    tail = np.arange(n, coded_rows)
    if not np.array_equal(order.rows_of[tail], tail) or not np.array_equal(order.slots_of[tail], tail):
        found.append("rows behind the order are not in the slots of their own number")
    if len(order.leaf_ends) != order.leaf_count or order.leaf_ends[-1] != n or (order.leaf_lengths() < 0).any():
        found.append(f"leaves end at slot {order.leaf_ends[-1:]}, expected {n} slots in {order.leaf_count} leaves")
    if order.heads.group_ends[-1] != order.leaf_count:
        found.append(f"groups end at leaf {order.heads.group_ends[-1]} of {order.leaf_count}")
    return found + _wrong_codes(view, metric, coded_rows)


def _wrong_codes(view: TreeView, metric: int, coded_rows: int) -> list[str]:
    """Codes, biases and far rows that are not what encoding the vectors gives: of rows that live, since the place of
    others may have been given back.
    """
    order, wrong, wrongly_far = view.order, 0, 0
    flat_below = order.quantiser.flat_below(metric)
    for first in range(0, coded_rows, _CHECKED_ROWS):
        rows = np.arange(first, min(coded_rows, first + _CHECKED_ROWS))
        n, living = len(rows), view.arrays.living(rows)
        if not living.any():
            continue
        vectors = np.ascontiguousarray(view.arrays.vectors[np.where(living, rows, rows[living][0])])
        coded = CodeArrays.reserve(n, order.quantiser, order.bit_filter, metric)
        far = np.zeros(n, bool)
        far[coded.encode(vectors, metric, 0, n)] = True
        far &= view.arrays.have_vectors(slice(first, first + n))
        listed = np.isin(np.arange(first, first + n), order.far)
        may_be = far | (coded.bias < flat_below) if len(coded.bias) else far
        wrongly_far += int(((far & ~listed | listed & ~may_be) & living).sum())
        at = order.slots_of[first : first + n]
        differs = (coded.codes != order.codes[at]).any(axis=1) | (coded.lines != order.lines[at]).any(axis=1)
        if len(coded.bias):
            differs |= coded.bias != order.bias[at]
        wrong += int((differs & living).sum())
    found = [f"{wrong} codes are not what encoding their rows gives"] if wrong else []
    if len(order.panels) and not np.array_equal(order.panels, order.with_panels().panels):
        found.append("panels are not what their lines give")
    if wrongly_far or len(np.unique(order.far)) < len(order.far):
        found.append("far rows are not those that encoding finds")
    return found
