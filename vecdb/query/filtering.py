"""Rows that match a filter, at one snapshot.

filter --columns--> bits of rows --deleted rows out--> RowSet      kept with the snapshot (filter_cache.py)
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vecdb.columns.evaluation import Evaluation, check_orders
from vecdb.filters.tree import Node, fields_of, held_bytes
from vecdb.index.contract import Neighbors
from vecdb.index.row_set import RowSet
from vecdb.kernels.search import row_bits
from vecdb.state.field_columns import ColumnsMoved
from vecdb.state.filter_cache import MatchingRows
from vecdb.state.snapshot import Snapshot

_SHOWN_MAX = 1_000  # characters of a filter in `explain`


def matching(snapshot: Snapshot, node: Node, *, check: bool = True) -> MatchingRows[Any] | None:
    """The rows of a snapshot that match. None: the caller is to take a newer snapshot.

    check : raise InvalidArgument where an order is asked for that the field's values do not have. Not for a tenant:
    which types a field has is known from everybody's records.
    """
    known = snapshot.filtered.get(node)
    if known is not None and (known.checked or not check):
        return known
    generation, visibility = snapshot.generation, snapshot.visibility
    try:
        view = generation.columns.at(snapshot.state)
        if check:
            check_orders(node, view)
        if known is not None:
            known.checked = True
            return known
        evaluation = Evaluation(view, lambda rows: generation.columns.fields_of(rows, snapshot.state))
        bits = evaluation.bits(node)
    except ColumnsMoved:
        return None
    words = np.zeros(visibility.row_count // 64 + 1, np.uint64)  # one word at least
    raw = words.view(np.uint8)
    raw[: len(bits)] = bits[: len(raw)]
    whole = snapshot.state.live_count == visibility.row_count == view.row_count
    count = (
        int(np.bitwise_count(words).sum())
        if whole
        else row_bits.keep_visible(
            words.view(np.uint32), visibility.row_count, visibility.sequence, generation.rows.arrays.gone
        )
    )
    entry: MatchingRows[Any] = MatchingRows(
        RowSet.of_bitmap(words, count, partial(snapshot.filtered.grown, node)), evaluation.by_records
    )
    entry.checked = check
    snapshot.filtered.keep(node, entry, held_bytes(node))
    return entry


def with_vectors(snapshot: Snapshot, allowed: RowSet | None) -> RowSet | None:
    """What a search may find of rows of records: those without a vector are no neighbours. None: all."""
    if allowed is None or not snapshot.state.bare_count:
        return allowed
    there = snapshot.generation.rows.arrays.have_vectors(allowed.rows)
    return allowed if there.all() else RowSet(allowed.rows[there])


def intersection(allowed: RowSet, others: RowSet) -> RowSet:
    """Rows that are in both, such as those of a tenant that match. others : the one that is listed."""
    rows = np.empty(len(others), np.uint32)
    bits = allowed.bitmap(0).view(np.uint32)
    return RowSet(rows[: row_bits.rows_in(bits, others.rows, rows)])


def rows_at(snapshot: Snapshot, tenants: tuple[str, ...], node: Node | None) -> RowSet | None:
    """Which rows of a snapshot match, and the tenants see; of tenants and a filter at least one is given. None: the
    caller is to take a newer snapshot. Raises NotFound where a tenant is unknown, and what `matching` does.
    """
    of_tenants = None
    if tenants:
        of_tenants = snapshot.generation.tenants.rows_at(tenants, snapshot.visibility)
        if of_tenants is None or node is None:
            return of_tenants
    assert node is not None, "neither tenants nor a filter"
    entry = matching(snapshot, node, check=not tenants)
    if entry is None:
        return None
    return entry.allowed if of_tenants is None else intersection(entry.allowed, of_tenants)


def report(snapshot: Snapshot, node: Node, allowed: RowSet | None) -> dict[str, Any]:
    """What `explain` says of a filter: its text, how many rows may be returned, how many records were looked at, and
    fields that have no column, or one that does not hold their texts.
    """
    entry, view = snapshot.filtered.get(node), snapshot.generation.columns.view
    unmet = [name for name in fields_of(node) if view.lacks(name) or view.is_hashed(name)]
    text = str(node)
    return {
        "filter": text if len(text) <= _SHOWN_MAX else text[:_SHOWN_MAX] + "...",
        "matching": len(allowed or ()),
        "records_read": 0 if entry is None else entry.records_read,
        "unmet_columns": unmet,
    }


# -- a filter for each query -----------------------------------------------------------------------


def places_of(nodes: Iterable[Node | None]) -> dict[Node | None, NDArray[np.int64]]:
    """Which queries each filter is of, ascending, in the order in which filters come."""
    places: dict[Node | None, list[int]] = {}
    for at, node in enumerate(nodes):
        places.setdefault(node, []).append(at)
    return {node: np.array(some, np.int64) for node, some in places.items()}


def laid_out(parts: Sequence[tuple[NDArray[np.int64], Neighbors]], limit: int) -> Neighbors:
    """What was found for some queries each, as the answer to all, in the order of the queries. parts : places of the
    queries, each in one of them, and their answers.
    """
    nq = sum(len(places) for places, _ in parts)
    rows, distances = np.full((nq, limit), -1, np.int64), np.full((nq, limit), np.inf, np.float32)
    counts = np.zeros(nq, np.int64)
    for places, found in parts:
        width = found.rows.shape[1]
        rows[places, :width], distances[places, :width], counts[places] = found.rows, found.distances, found.counts
    last = parts[-1][1].work
    work = np.sum([found.work for _, found in parts if len(found.work) == len(last)], axis=0)
    return Neighbors(rows, distances, counts, work)
