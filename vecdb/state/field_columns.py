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
from vecdb.schema import Visibility
from vecdb.state.record_blocks import iter_blocks, record_metas
from vecdb.storage.kv import catalog, keys, record_format
from vecdb.storage.kv.store import Store
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

    def at(self, visibility: Visibility) -> ColumnView | None:
        """Columns of at least the rows of a snapshot, with its fields. None: the caller is to take a newer snapshot."""
        view = self.view
        return view if view.row_count >= visibility.row_count else self._caught_up(visibility.row_count)

    def _caught_up(self, row_count: int) -> ColumnView | None:
        with self._lock, self._store.read(buffers=True) as txn:
            raw = txn.get(self._state_key, db=self._store.state)
            if raw is None or catalog.decode_state(bytes(raw), self._where).generation != self._generation:
                return None  # dropped, or renumbered by a vacuum
            waiting: list[dict[str, Any]] = []
            view = self.view
            if view.row_count >= row_count:
                return view
            for block in iter_blocks(self._store, txn, self._prefix, view.row_count, row_count, self._where):
                waiting += _records_of(block)
                stop = block.first_row + block.count
                if len(waiting) >= _BATCH_ROWS or stop >= row_count:
                    view = view.extended(waiting, stop)
                    waiting = []
                    yield_gil()
            self.view = view
            return view

    def fields_of(self, rows: NDArray[np.int64]) -> Iterable[dict[str, Any]]:
        """Fields of rows, in order, as they are committed now."""
        for start in range(0, len(rows), _READ_ROWS):
            part = rows[start : start + _READ_ROWS].tolist()
            found: list[dict[str, Any]] = []
            with self._store.read(buffers=True) as txn:
                for first, last in gil_slices(len(part), _BATCH_ROWS):
                    metas = record_metas(self._store, txn, self._prefix, part[first:last], self._where)
                    found += map(decode_fields, record_format.fields_of(metas))
            yield from found


def _records_of(block: record_format.Block) -> list[dict[str, Any]]:
    """Fields of each record of a block."""
    if not len(block.metas):
        return [{}] * block.count
    ends = block.meta_end.tolist()
    metas = bytes(block.metas)
    parts = [metas[start:end] for start, end in zip([0, *ends[:-1]], ends, strict=True)]
    return list(map(decode_fields, record_format.fields_of(parts)))
