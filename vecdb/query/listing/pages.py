"""Records in an order, as pages or as one list: all of them, or those that match a filter and that tenants see.

    newest state -> rows -> in order, behind the cursor -> records, a page at a time -> the cursor behind each

Without `order_by` the order is that of the rows. Each call reads one committed state, in one read transaction.

Threads: any number of calls at once.
"""

from __future__ import annotations

import time
from bisect import bisect_left
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from vecdb import limits
from vecdb.api.filter_arguments import Page
from vecdb.columns.column_set import ColumnView
from vecdb.errors import InvalidArgument, LimitExceeded
from vecdb.filters.evaluate import value_at
from vecdb.filters.tree import Node
from vecdb.query import filtering
from vecdb.query.listing.cursor import NEXT_IDS, Cursor, Neighbour, Ordering
from vecdb.query.listing.order import (
    Keys,
    OrderedRows,
    PagePlace,
    behind,
    by_columns,
    by_values,
    check_place,
    group_and_value,
)
from vecdb.query.searcher import Searcher
from vecdb.schema import Record
from vecdb.state import record_reader
from vecdb.state.field_columns import ColumnsMoved
from vecdb.state.generation import Generation
from vecdb.state.record_blocks import encoded_fields
from vecdb.state.snapshot import Snapshot, snapshot_of
from vecdb.storage.kv.catalog import CommittedState
from vecdb.storage.kv.store import Txn
from vecdb.validate import decode_fields, field_decoder, ids
from vecdb.validate import owner as owner_name
from vecdb.validate.common import yield_gil

Rows = NDArray[np.int64]
_READ_ROWS = 1_024  # records of one list that are read at once


class ListedState(NamedTuple):
    """One committed state that is read. rows : int64[n], ascending: live, and those that match and may be seen."""

    txn: Txn
    generation: Generation
    state: CommittedState
    rows: Rows

    def records(self, rows: list[int], include_vectors: bool) -> list[Record]:
        found = record_reader.records(self.generation, self.txn, self.state, rows, include_vectors=include_vectors)
        return cast(list[Record], found)

    def each(self, rows: Rows) -> Iterator[Record]:
        for start in range(0, len(rows), _READ_ROWS):
            yield from self.records(rows[start : start + _READ_ROWS].tolist(), False)

    def values(self, rows: Rows, path: str) -> Iterator[Any]:
        """What each row's record has at a path, None where it has nothing."""
        value_of = field_decoder(path) if "." not in path else lambda raw: value_at(decode_fields(raw), path)
        generation, prefix = self.generation, self.generation.prefix
        for start in range(0, len(rows), _READ_ROWS):
            part = rows[start : start + _READ_ROWS].tolist()
            yield from map(
                value_of,
                encoded_fields(
                    generation.store, self.txn, prefix, part, generation.entry.name, self.state.field_changes
                ),
            )
            yield_gil()

    def view(self) -> ColumnView | None:
        """Columns of these rows; None where there is a newer state."""
        try:
            return self.generation.columns.at(self.state)
        except ColumnsMoved:
            return None

    def commit_of(self, row: int) -> int:
        """The commit that wrote a row."""
        return record_reader.record_block_at(self.generation, self.txn, row).sequence

    def first_row_of(self, commit: int) -> int:
        """The first row that this commit or a later one wrote: commits of rows ascend."""
        return bisect_left(range(self.state.row_count), commit, key=self.commit_of)


class _KeptOrder(NamedTuple):
    """Of rows (int64[n]) by a field, as `OrderedRows` has them. what : generation, commit, path."""

    what: tuple[int, int, str]
    rows: Rows
    groups: NDArray[np.uint8]
    keys: Keys


class Listing:
    """Lists of one collection's records."""

    def __init__(self, searcher: Searcher) -> None:
        self._kept: _KeptOrder | None = None  # of the last list whose order the records had to tell
        self._searcher = searcher
        self._state = searcher.state
        self._store = searcher.store

    @contextmanager
    def reading(self, tenants: tuple[str, ...], node: Node | None, *, known: bool = False) -> Iterator[ListedState]:
        """known : the state is one that memory knows, too: its ids and columns."""
        if node is None and not known:
            with self._state.reading() as (txn, generation, state):
                if tenants:
                    rows = record_reader.rows_of_tenants(generation, txn, state, tenants).astype(np.int64)
                else:
                    rows = np.flatnonzero(~record_reader.deleted_rows(generation, txn, state))
                yield ListedState(txn, generation, state, rows)
                return
        while True:
            with self._state.reading() as (txn, generation, state):
                snapshot = self._snapshot_of(generation, state)
                found = None if snapshot is None else self._rows(snapshot, tenants, node)
                if found is not None:
                    yield ListedState(txn, generation, state, found)
                    return
            time.sleep(0.001)  # memory is about to know the commit, or knows of a later one what the filter asks

    def _snapshot_of(self, generation: Generation, state: CommittedState) -> Snapshot | None:
        """What memory knows of a state that a transaction reads, however many commits come meanwhile; None before it
        knows the state.
        """
        newest = self._state.current()
        if newest.generation is not generation or newest.visibility.sequence < state.sequence:
            return None
        return newest if newest.visibility.sequence == state.sequence else snapshot_of(generation, state)

    def _rows(self, snapshot: Snapshot, tenants: tuple[str, ...], node: Node | None) -> NDArray[np.int64] | None:
        """Live rows that the tenants see and the filter lets through; None where only a newer snapshot can tell."""
        if node is None and not tenants:
            return snapshot.generation.live_rows(snapshot.visibility)
        allowed = filtering.rows_at(snapshot, tenants, node)
        return None if allowed is None else allowed.rows.astype(np.int64)

    # -- one list ----------------------------------------------------------------------------------

    def get_matching(
        self,
        node: Node | None,
        limit: int | None,
        owner: bytes | None,
        *,
        include_vectors: bool,
        tenants: tuple[str, ...] = (),
    ) -> list[Record]:
        """The first `limit` records that match, in row order. owner : whose; None: everybody's."""
        wanted = None if owner is None else owner.decode()
        most = limits.get_records_max if limit is None else limit
        found: list[Record] = []
        with self.reading(tenants, node) as listed:
            rows = listed.rows
            if limit is None and wanted is None and len(rows) > most:
                raise _too_many(len(rows))
            for start in range(0, len(rows), _READ_ROWS):
                size = min(_READ_ROWS, most - len(found)) if wanted is None else _READ_ROWS
                part = listed.records(rows[start : start + size].tolist(), include_vectors)
                found += part if wanted is None else [one for one in part if one.owner == wanted]
                if len(found) > most and limit is None:
                    raise _too_many(len(found))
                if len(found) >= most and limit is not None:
                    break
        return found[:most]

    # -- pages -------------------------------------------------------------------------------------

    def iter(
        self,
        batch: int,
        *,
        include_vectors: bool,
        tenants: tuple[str, ...] = (),
        node: Node | None = None,
        after: str | None = None,
        limit: int | None = None,
        order_by: str | None = None,
        descending: bool = False,
    ) -> Iterator[Page]:
        """Pages of `batch` records in order, `limit` in all, from one committed state (held until the iterator is
        done).
        """
        ordering = Ordering(self._state.entry.uid, order_by, descending)
        with self.reading(tenants, node, known=order_by is not None) as listed:
            cursor = None if after is None else Cursor.decode(after, ordering, listed.state.id_kind)
            rows = listed.rows
            if order_by is not None:
                rows = self._in_order(listed, ordering, order_by, cursor, limit)
            elif cursor is not None:
                rows = rows[np.searchsorted(rows, self._row_behind(listed, cursor)) :]
            stop = len(rows) if limit is None else min(limit, len(rows))
            for start in range(0, stop, batch):
                end = min(start + batch, stop)
                page = Page(listed.records(rows[start:end].tolist(), include_vectors))
                if end < len(rows):
                    page.cursor = self._cursor(listed, ordering, rows, end, page[-1]).encode()
                with self._store.parked():
                    yield page
                self._state.check_usable()

    def _cursor(self, listed: ListedState, ordering: Ordering, rows: Rows, end: int, last: Record) -> Cursor:
        """Behind rows[end - 1], which is the record `last`."""
        if ordering.order_by is not None:
            group, value = group_and_value(value_at(last.fields, ordering.order_by))
            return Cursor(**ordering._asdict(), last=Neighbour(last.owner, last.id, 0), group=group, value=value)
        near = rows[end - 1 : end + NEXT_IDS].tolist()
        here, *coming = [
            Neighbour(one.owner, one.id, listed.commit_of(row))
            for row, one in zip(near, listed.records(near, False), strict=True)
        ]
        return Cursor(
            **ordering._asdict(), last=here, generation=listed.generation.number, row=near[0], coming=tuple(coming)
        )

    # -- in the order of a field -------------------------------------------------------------------

    def _in_order(
        self, listed: ListedState, ordering: Ordering, path: str, cursor: Cursor | None, limit: int | None
    ) -> Rows:
        """Rows behind the cursor: all, or at least `limit` and one more, if there are as many."""
        place = None
        if cursor is not None:
            place = check_place(PagePlace(cursor.group, cursor.value, cursor.last.id, cursor.last.owner))
        rows, view = listed.rows, listed.view()
        ordered = None if view is None else by_columns(view, path, rows, place)
        if ordered is None:
            ordered = self._by_records(listed, path, place)
        ids = listed.generation.ids.take(rows, padded=False)

        def owners(at: NDArray[np.int64]) -> list[str]:
            return [one.owner for one in listed.each(rows[at])]

        most = None if limit is None else limit + 1
        return rows[behind(ordered, ids, owners, place, descending=ordering.descending, most=most)]

    def _by_records(self, listed: ListedState, path: str, place: PagePlace | None) -> OrderedRows:
        """Groups and keys of a field whose values are in the records alone; kept for the next page of one state."""
        what = (listed.generation.number, listed.state.sequence, path)
        kept = self._kept
        if kept is None or kept.what != what or not np.array_equal(kept.rows, listed.rows):
            made = by_values(listed.values(listed.rows, path), place)
            self._kept = _KeptOrder(what, listed.rows, made.groups, made.keys)
            return made
        if place is None:
            return OrderedRows(kept.groups, kept.keys)
        [row] = record_reader.rows_of_ids(listed.generation, listed.txn, owner_name(place.owner), ids(place.id).keys)
        at = int(np.searchsorted(kept.rows, row))
        if at == len(kept.rows) or kept.rows[at] != row or self._value_of(listed, row, path) != place[:2]:
            return by_values(listed.values(listed.rows, path), place)
        return OrderedRows(kept.groups, kept.keys, place.group, int(kept.keys[at]))

    def _value_of(self, listed: ListedState, row: int, path: str) -> tuple[int, Any]:
        [value] = listed.values(np.array([row]), path)
        return group_and_value(value)

    # -- in the order of rows ----------------------------------------------------------------------

    def _row_behind(self, listed: ListedState, cursor: Cursor) -> int:
        """The first row behind a cursor. In its own generation rows have kept their numbers; a vacuum gives others, in
        the same order, and keeps the commit of each.
        """
        if listed.generation.number == cursor.generation:
            return cursor.row + 1
        row = self._row_of(listed, cursor.last)
        if row >= 0:
            return row + 1
        first, stop = (listed.first_row_of(commit) for commit in (cursor.last.commit, cursor.last.commit + 1))
        if not ((listed.rows >= first) & (listed.rows < stop)).any():
            return first
        for one in cursor.coming:
            row = self._row_of(listed, one)
            if row >= 0:
                return row
        raise InvalidArgument(
            "after: the records where this cursor stands were deleted or replaced, and a vacuum has come since; begin "
            "again without after, or use order_by, whose cursors always hold"
        )

    def _row_of(self, listed: ListedState, one: Neighbour) -> int:
        """Where the record is, if it was not written again; else -1."""
        key = ids(one.id).keys
        [row] = record_reader.rows_of_ids(listed.generation, listed.txn, owner_name(one.owner), key)
        return row if row >= 0 and listed.commit_of(row) == one.commit else -1


def _too_many(count: int) -> LimitExceeded:
    return LimitExceeded(
        f"get returns at most {limits.get_records_max:,} records, {count:,} match: give a limit, or go through them "
        "with iter"
    )
