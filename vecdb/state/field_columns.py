"""Columns of one generation's fields, kept up with its commits by whoever asks.

    blocks of new rows, changes of fields --decode--> ColumnView          a reader asks for a snapshot: what is missing
                                                                          is read then, most of it by maintenance before

Derived: what is lost is made again from the records. The writing process and a reading one do the same.

Threads: any number ask; one at a time reads what is missing.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vecdb.columns.column_set import ColumnView
from vecdb.state.field_changes import rows_changed
from vecdb.state.record_blocks import encoded_fields, iter_blocks
from vecdb.storage.kv import catalog, keys, record_format
from vecdb.storage.kv.store import Store, Txn
from vecdb.validate import decode_fields
from vecdb.validate.common import gil_slices, yield_gil

_BATCH_ROWS = 2_048  # records decoded before another thread may take the interpreter lock
_READ_ROWS = 8_192  # records that are asked for one by one in one transaction


class FieldColumns:
    """generation : its number."""

    def __init__(self, store: Store, entry: catalog.CollectionEntry, generation: int) -> None:
        self._store = store
        self._state_key = keys.uid(entry.uid)
        self._prefix = keys.prefix(entry.uid, generation)
        self._where = entry.name
        self._generation = generation
        self._lock = threading.Lock()
        self.view = ColumnView()

    def at(self, state: catalog.CommittedState) -> ColumnView | None:
        """Columns of at least the rows of a snapshot's state, with its fields. None: the caller is to take a newer
        snapshot.
        """
        view = self.view
        return view if _holds(view, state) else self._caught_up(state)

    def _caught_up(self, state: catalog.CommittedState) -> ColumnView | None:
        with self._lock, self._store.read_all(buffers=True) as txn:
            now = self._state_in(txn)
            if now is None or now.generation != self._generation or now.field_changes != state.field_changes:
                return None  # dropped, renumbered by a vacuum, or with other fields by now
            waiting: list[dict[str, Any]] = []
            view, row_count = self.view, state.row_count
            if _holds(view, state):
                return view
            for block in iter_blocks(self._store, txn, self._prefix, view.row_count, row_count, self._where):
                waiting += _records_of(block)
                stop = block.first_row + block.count
                if len(waiting) >= _BATCH_ROWS or stop >= row_count:
                    view = view.extended(waiting, stop)
                    waiting = []
                    yield_gil()
            last = _last_change(state)
            if view.sequence < last:
                rows = rows_changed(self._store, txn, self._prefix, view.sequence + 1, self._where)
                rows = rows[rows < view.row_count]
                view = view.changed(rows, self._records(txn, rows, now), last)
            self.view = view
            return view

    def _state_in(self, txn: Txn) -> catalog.CommittedState | None:
        raw = txn.get(self._state_key, db=self._store.state)
        return None if raw is None else catalog.decode_state(bytes(raw), self._where)

    def fields_of(self, rows: NDArray[np.int64]) -> Iterable[dict[str, Any]]:
        """Fields of rows, in order, as they are committed now."""
        for start in range(0, len(rows), _READ_ROWS):
            with self._store.read_all(buffers=True) as txn:
                found = self._records(txn, rows[start : start + _READ_ROWS], self._state_in(txn))
            yield from found

    def _records(self, txn: Txn, rows: NDArray[np.int64], state: catalog.CommittedState | None) -> list[dict[str, Any]]:
        """Fields of rows as a transaction sees them, whose state it is."""
        part, found = rows.tolist(), list[dict[str, Any]]()
        changes = None if state is None else state.field_changes
        for first, last in gil_slices(len(part), _BATCH_ROWS):
            raws = encoded_fields(self._store, txn, self._prefix, part[first:last], self._where, changes)
            found += map(decode_fields, raws)
        return found


def _last_change(state: catalog.CommittedState) -> int:
    return 0 if state.field_changes is None else state.field_changes.last


def _holds(view: ColumnView, state: catalog.CommittedState) -> bool:
    return view.row_count >= state.row_count and view.sequence == _last_change(state)


def _records_of(block: record_format.Block) -> list[dict[str, Any]]:
    """Fields of each record of a block."""
    if not len(block.metas):
        return [{}] * block.count
    ends = block.meta_end.tolist()
    metas = bytes(block.metas)
    parts = [metas[start:end] for start, end in zip([0, *ends[:-1]], ends, strict=True)]
    return list(map(decode_fields, record_format.fields_of(parts)))
