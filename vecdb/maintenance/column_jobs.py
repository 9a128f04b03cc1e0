"""What is done to a collection's columns of fields behind its users: kept up with commits, and sealed.

    extend   records that columns lack -> columns        seal   columns -> immutable file, named in the state

A search that filters reads what columns lack by itself; this takes most of it off its way.
"""

from __future__ import annotations

from contextlib import suppress

from vecdb import limits
from vecdb.columns import column_file
from vecdb.commit.state_requests import PatchState
from vecdb.commit.write_path import WritePath
from vecdb.state.collection_state import CollectionState
from vecdb.state.field_columns import ColumnsMoved
from vecdb.storage.disk import filesystem
from vecdb.storage.kv import catalog

_SEAL_SHARE = 8  # sealed again with 1/8 more rows, or changes of as many


class ColumnMaintenance:
    """The caller holds the lock of the collection's maintenance."""

    def __init__(self, state: CollectionState, writes: WritePath) -> None:
        self._state = state
        self._writes = writes

    def is_due(self) -> bool:
        """Whether columns lack rows, once a bulk load pauses."""
        snapshot = self._state.snapshot
        lacking = snapshot.visibility.row_count - snapshot.generation.columns.view.row_count
        return snapshot.state.has_fields and lacking >= limits.index_step_rows and not self._writes.is_loading()

    def extend(self) -> None:
        """Bring columns up to the newest commit."""
        with suppress(ColumnsMoved):  # fields have changed meanwhile: that commit wakes maintenance again
            snapshot = self._state.current(to_change=True)
            snapshot.generation.columns.at(snapshot.state)

    def seal_is_due(self, rows_min: int = limits.seal_rows_min) -> bool:
        snapshot = self._state.snapshot
        columns, sealed = snapshot.generation.columns, snapshot.state.columns
        view = columns.view
        if not view.paths:
            return False
        if sealed is None:
            return view.row_count >= rows_min
        changed = (view.changes - columns.changes_sealed) * _SEAL_SHARE > sealed.rows
        return changed or view.row_count - sealed.rows >= max(rows_min, sealed.rows // _SEAL_SHARE)

    def seal(self) -> None:
        """Write the columns as an immutable file and name it in the state: data first, then the pointer."""
        state, snapshot = self._state, self._state.current(to_change=True)
        columns, old = snapshot.generation.columns, snapshot.state.columns
        view = columns.view
        name = f"columns.{snapshot.generation.number}.{view.sequence}.{view.row_count}"
        if old is not None and old.file == name:
            return
        state.store.check_there()
        file_bytes = column_file.write(state.folder / name, view, columns.facts())
        sealed = catalog.SealedColumns(name, view.row_count, view.sequence, file_bytes)
        if self._writes.submit(PatchState(state, snapshot.generation.number, {"columns": sealed})):
            columns.changes_sealed = view.changes
            columns.take_sealed(view, sealed)
            if old is not None:
                filesystem.remove(state.folder / old.file)
