"""One generation of one collection in memory: row file, ids, deletions, tenants, index; and how it is read from LMDB.

    LMDB blocks --crcs, ids-->  Rows.arrays, IdColumn          LMDB tombs --> Rows.arrays.deleted, .gone
    sealed file --------------> Index (its rows)               rows since then: the tail, encoded by index.publish_rows

The writer loads it once and then extends it at each commit; a reading process loads it and catches up before each
search. One thread at a time loads, catches up or extends. Searches hold a `Snapshot` of it (snapshot.py).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vecdb.errors import Corruption
from vecdb.index.contract import Index
from vecdb.kernels.primitives.visibility import visible
from vecdb.schema import Visibility
from vecdb.state import index_factory
from vecdb.state.field_columns import FieldColumns
from vecdb.state.record_blocks import iter_blocks, iter_tombs
from vecdb.storage.disk.growable_arrays import GrowableArrays
from vecdb.storage.disk.id_column import IdColumn
from vecdb.storage.disk.paths import row_file_name
from vecdb.storage.disk.row_file import WITHOUT_VECTOR, Rows
from vecdb.storage.kv import keys
from vecdb.storage.kv.catalog import CollectionEntry, CommittedState
from vecdb.storage.kv.store import Store, Txn
from vecdb.tenancy.access_journal import AccessJournal
from vecdb.tenancy.tenant_cache import TenantRowCache


class Generation:
    """Files and arrays of one generation."""

    def __init__(
        self,
        store: Store,
        folder: Path,
        entry: CollectionEntry,
        state: CommittedState,
        *,
        writable: bool,
        dim: int | None = None,
    ) -> None:
        """dim : of its vectors; None: that of the entry. A collection without one has an empty file of dim 1."""
        self.store = store
        self.folder = folder
        self.entry = entry
        self.number = state.generation
        self.prefix = keys.prefix(entry.uid, self.number)
        kind = index_factory.kind_of(index_factory.config_in(state.index))
        backing = GrowableArrays(folder if kind.has_file_backed_rows else None)
        self.rows = Rows(
            folder / row_file_name(self.number),
            entry.dtype,
            dim or entry.dim or 1,
            self.number,
            writable=writable,
            row_count=state.row_count,
            backing=backing,
        )
        self.ids = IdColumn(backing)
        self.journal = AccessJournal(store, self.prefix, entry.name)
        self.tenants = TenantRowCache(store, entry, self.number, self.journal, writable=writable)
        self.columns = FieldColumns(store, folder, entry, state)
        self.index: Index
        self.access_log: list[NDArray[np.int64]] | None = None  # while a vacuum copies: rows whose tenants have changed
        self.fields_log: list[NDArray[np.int64]] | None = None  # the same of fields
        self._tombs_seen = 0

    def catch_up(self, txn: Txn, state: CommittedState) -> None:
        """Read what `txn` holds and memory does not: blocks of new rows, and deletions of new commits."""
        first, stop = self.ids.row_count, state.row_count
        if stop > first:
            self.rows.ensure(stop)
            for block in iter_blocks(self.store, txn, self.prefix, first, stop, self.folder.name):
                self.extend(
                    block.first_row,
                    block.row_crc,
                    block.int_id_array() if block.int_ids else None,
                    block.ids,
                    block.id_end,
                    block.bare,
                )
            if self.ids.row_count != stop:
                raise Corruption(f"{self.folder.name}: blocks end at row {self.ids.row_count}, the state counts {stop}")
        if state.sequence > self._tombs_seen:
            for sequence, rows in iter_tombs(self.store, txn, self.prefix, self._tombs_seen + 1):
                if len(rows) and not 0 <= int(rows.min()) <= int(rows.max()) < stop:
                    raise Corruption(f"{self.folder.name}: commit {sequence} deletes row {rows.max()} of {stop}")
                self._mark(rows, sequence)
            self._tombs_seen = state.sequence

    def ensure(self, row_count: int, id_kind: str, id_bytes: int) -> None:
        """Room for `row_count` rows, whose new ids take `id_bytes`, before anything is committed. Raises OSError."""
        self.rows.ensure(row_count)
        self.ids.ensure(id_kind, row_count, id_bytes)

    def extend(
        self,
        first_row: int,
        crcs: NDArray[np.uint32],
        ints: NDArray[np.int64] | None,
        blob: Any,
        ends: Any,
        bare: NDArray[np.bool_] | None,
    ) -> None:
        """Append the crcs and ids of new rows (`ends`: uint32 end offsets of string ids in `blob`). bare : bool[n],
        which have no vector; None: each has one.
        """
        assert first_row == self.ids.row_count, (first_row, self.ids.row_count)
        self.rows.arrays.crcs[first_row : first_row + len(crcs)] = crcs
        if bare is not None and bare.any():
            self.rows.tell_bare_apart()
            self.rows.arrays.deleted[first_row + np.flatnonzero(bare)] = WITHOUT_VECTOR
        if ints is not None:
            self.ids.extend_ints(ints)
        else:
            self.ids.extend_strs(blob, ends)

    def delete(self, rows: NDArray[np.int64], sequence: int) -> None:
        """Mark rows as deleted by commit `sequence`; older snapshots go on seeing them."""
        self._mark(rows, sequence)
        self._tombs_seen = max(self._tombs_seen, sequence)

    def _mark(self, rows: NDArray[np.int64], sequence: int) -> None:
        arrays = self.rows.arrays
        arrays.gone[rows] = sequence
        arrays.deleted[rows[arrays.have_vectors(rows)]] = sequence

    def live_rows(self, visibility: Visibility) -> NDArray[np.int64]:
        """int64[live]: rows of records that live at `visibility`, with or without a vector, ascending."""
        return np.flatnonzero(visible(self.rows.arrays.gone[: visibility.row_count], visibility.sequence))

    def live_vectors(self, visibility: Visibility) -> NDArray[np.int64]:
        """int64[any]: those of them that have a vector."""
        return np.flatnonzero(visible(self.rows.arrays.deleted[: visibility.row_count], visibility.sequence))

    def attach(self, index: Index) -> None:
        """Searches that begin from now on use this index."""
        self.index = index

    def log_changes(self, *, on: bool) -> None:
        """Begin, or end, to note the rows whose tenants or fields change, for a vacuum that copies meanwhile."""
        self.access_log = [] if on else None
        self.fields_log = [] if on else None

    def access_changed(self, *rows: NDArray[np.int64]) -> None:
        """The tenants of these rows have changed."""
        if self.access_log is not None:
            self.access_log += rows

    def fields_changed(self, rows: list[NDArray[np.int64]]) -> None:
        """The fields of these rows have changed."""
        if self.fields_log is not None:
            self.fields_log += rows

    def close(self) -> None:
        self.rows.close()
