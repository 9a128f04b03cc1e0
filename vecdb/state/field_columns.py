"""Columns of one generation's fields, kept up with its commits by whoever asks.

    sealed file, blocks of new rows, changes of fields --> ColumnView

A reader asks for the columns of a snapshot: what is missing is read then; maintenance has read most of it before.
Derived: what is lost or damaged is made again from the records. The writing process and a reading one do the same.

Threads: any number ask; one at a time reads what is missing.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vecdb.columns import column_file
from vecdb.columns.column_set import ColumnView
from vecdb.errors import Corruption
from vecdb.state.field_changes import rows_changed
from vecdb.state.record_blocks import encoded_fields, iter_blocks
from vecdb.storage.kv import catalog, keys, record_format
from vecdb.storage.kv.store import Store, Txn
from vecdb.validate import decode_fields
from vecdb.validate.common import yield_gil

_BATCH_ROWS = 2_048  # records decoded before another thread may take the interpreter lock
_CHANGED_ROWS = 32_768  # whose records are in memory at once
_log = logging.getLogger("vecdb")


class ColumnsMoved(Exception):
    """Another commit has changed fields: what was begun is to be begun again with a newer snapshot."""


class FieldColumns:
    """folder : of the collection's files.   changes_sealed : `view.changes` when the view was last sealed; maintenance
    sets it.
    """

    def __init__(
        self, store: Store, folder: Path, entry: catalog.CollectionEntry, state: catalog.CommittedState
    ) -> None:
        self._store = store
        self._state_key = keys.uid(entry.uid)
        self._prefix = keys.prefix(entry.uid, state.generation)
        self._where = entry.name
        self._uid = entry.uid
        self._generation = state.generation
        self._lock = threading.Lock()
        self._folder = folder
        self.view = ColumnView()
        self.changes_sealed = 0

    def at(self, state: catalog.CommittedState) -> ColumnView:
        """Columns of at least the rows of a snapshot's state, with fields as they are in it. Raises ColumnsMoved where
        there is a newer one.
        """
        view = self.view
        if view.row_count >= state.row_count and view.sequence == _last_change(state):
            return view
        with self._lock:
            view = self._caught_up(state)
        if view.sequence != _last_change(state):
            raise ColumnsMoved
        return view

    def take_sealed(self, view: ColumnView, sealed: catalog.SealedColumns) -> None:
        """Use the file to which `view` was written in its place, unless there is a newer one: what is seldom read is
        in no memory of its own then.
        """
        mapped = self._read(sealed)
        with self._lock:
            if self.view is view and mapped is not None:
                self.view = mapped
                self.changes_sealed = mapped.changes  # which counts anew

    def facts(self) -> dict[str, Any]:
        """What the header of a sealed file says of the collection."""
        return {"kind": "columns", "generation": self._generation, "collection": self._uid}

    def _caught_up(self, state: catalog.CommittedState) -> ColumnView:
        """Under the lock: read what is missing of a state. A batch that was read stays, even if the next one fails."""
        if state.columns is not None and not self.view.row_count:
            self.view = self._read(state.columns) or self.view
        with self._store.read_all(buffers=True) as txn:
            self._check_unchanged(txn, state)
            while self.view.row_count < state.row_count:
                self._extend(txn, state.row_count)
                yield_gil()
            last = _last_change(state)
            if self.view.sequence < last:
                rows = rows_changed(self._store, txn, self._prefix, self.view.sequence + 1, self._where)
                rows, view = rows[rows < self.view.row_count], self.view
                for start in range(0, max(1, len(rows)), _CHANGED_ROWS):
                    part = rows[start : start + _CHANGED_ROWS]
                    view = view.changed(part, list(self._records(txn, part, state)), last)
                self.view = view  # as a whole: it is of a commit
        return self.view

    def _read(self, sealed: catalog.SealedColumns) -> ColumnView | None:
        """What the sealed file has; None where it cannot be used."""
        try:
            view = column_file.read(self._folder / sealed.file, self.facts())
            if (view.row_count, view.sequence) != (sealed.rows, sealed.sequence):
                raise Corruption(f"{sealed.file}: it has {view.row_count} rows, the state says {sealed.rows}")
            return view
        except FileNotFoundError:
            pass  # sealed anew since, or removed by a vacuum
        except Corruption as error:
            _log.warning("collection %r: columns damaged, made again from the records: %s", self._where, error)
        return None

    def _extend(self, txn: Txn, row_count: int) -> None:
        """The next batch of new rows, as their blocks have them."""
        waiting: list[dict[str, Any]] = []
        stop = self.view.row_count
        for block in iter_blocks(self._store, txn, self._prefix, stop, row_count, self._where):
            waiting += _records_of(block)
            stop = block.first_row + block.count
            if len(waiting) >= _BATCH_ROWS:
                break
        self.view = self.view.extended(waiting, stop)

    def _check_unchanged(self, txn: Txn, state: catalog.CommittedState) -> None:
        """Raise ColumnsMoved unless the transaction reads this generation, with the fields of `state`."""
        raw = txn.get(self._state_key, db=self._store.state)
        if raw is not None:
            now = catalog.decode_state(bytes(raw), self._where)
            if now.generation == self._generation and now.field_changes == state.field_changes:
                return
        raise ColumnsMoved

    def fields_of(self, rows: NDArray[np.int64], state: catalog.CommittedState) -> Iterator[dict[str, Any]]:
        """Fields of rows, in order, as they are in a snapshot's state; a batch at a time is in memory. Raises
        ColumnsMoved.
        """
        with self._store.read_all(buffers=True) as txn:
            self._check_unchanged(txn, state)
            yield from self._records(txn, rows, state)

    def _records(self, txn: Txn, rows: NDArray[np.int64], state: catalog.CommittedState) -> Iterator[dict[str, Any]]:
        for start in range(0, len(rows), _BATCH_ROWS):
            part = rows[start : start + _BATCH_ROWS].tolist()
            raws = encoded_fields(self._store, txn, self._prefix, part, self._where, state.field_changes)
            yield from map(decode_fields, raws)
            yield_gil()


def _last_change(state: catalog.CommittedState) -> int:
    return state.field_changes.last if state.field_changes is not None else 0


def _records_of(block: record_format.Block) -> list[dict[str, Any]]:
    """Fields of each record of a block."""
    if not len(block.metas):
        return [{}] * block.count
    ends = block.meta_end.tolist()
    metas = bytes(block.metas)
    parts = [metas[start:end] for start, end in zip([0, *ends[:-1]], ends, strict=True)]
    return list(map(decode_fields, record_format.fields_of(parts)))
