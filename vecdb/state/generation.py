"""One generation of one collection in memory: row file, ids, deletions, tenants, index; and how it is read from LMDB.

    LMDB blocks --crcs, ids-->  Rows.arrays, IdColumn          LMDB tombs --> Rows.arrays.deleted
    sealed file --------------> Index (its rows)               rows since then: the tail, encoded by index.publish_rows

The writer loads it once and then extends it at each commit; a reading process loads it and catches up before each
search. One thread at a time loads, catches up or extends. Searches hold a
`Snapshot` of it (snapshot.py).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vecdb import limits
from vecdb.errors import Corruption
from vecdb.index.contract import Index
from vecdb.kernels.primitives.checksums import crc_rows
from vecdb.schema import Visibility
from vecdb.state import index_factory
from vecdb.storage.disk.growable_arrays import GrowableArrays
from vecdb.storage.disk.id_column import IdColumn
from vecdb.storage.disk.row_file import Rows
from vecdb.storage.kv import keys, record_format
from vecdb.storage.kv.catalog import CollectionEntry, CommittedState
from vecdb.storage.kv.store import Store, Txn
from vecdb.tenancy.access_journal import AccessJournal
from vecdb.tenancy.tenant_cache import TenantRowCache


def collection_folder(database: Path, uid: int) -> Path:
    """Where the files of a collection are."""
    return database / "collections" / f"{uid:08x}"


def row_file_name(generation: int) -> str:
    return f"rows.{generation}"


class Generation:
    """Files and arrays of one generation."""

    def __init__(
        self, store: Store, folder: Path, entry: CollectionEntry, state: CommittedState, *, writable: bool
    ) -> None:
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
            entry.dim,
            self.number,
            writable=writable,
            row_count=state.row_count,
            backing=backing,
        )
        self.ids = IdColumn(backing)
        self.journal = AccessJournal(store, self.prefix, entry.name)
        self.tenants = TenantRowCache(store, entry, self.number, self.journal, writable=writable)
        self.index: Index
        self.access_log: list[NDArray[np.int64]] | None = None  # while a vacuum copies: rows whose tenants have changed
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
                )
            if self.ids.row_count != stop:
                raise Corruption(f"{self.folder.name}: blocks end at row {self.ids.row_count}, the state counts {stop}")
        if state.sequence > self._tombs_seen:
            deleted = self.rows.arrays.deleted
            for sequence, rows in iter_tombs(self.store, txn, self.prefix, self._tombs_seen + 1):
                if len(rows) and not 0 <= int(rows.min()) <= int(rows.max()) < stop:
                    raise Corruption(f"{self.folder.name}: commit {sequence} deletes row {rows.max()} of {stop}")
                deleted[rows] = sequence
            self._tombs_seen = state.sequence

    def ensure(self, row_count: int, id_kind: str, id_bytes: int) -> None:
        """Room for `row_count` rows, whose new ids take `id_bytes`, before anything is committed. Raises OSError."""
        self.rows.ensure(row_count)
        self.ids.ensure(id_kind, row_count, id_bytes)

    def extend(
        self, first_row: int, crcs: NDArray[np.uint32], ints: NDArray[np.int64] | None, blob: Any, ends: Any
    ) -> None:
        """Append the crcs and ids of new rows (`ends`: uint32 end offsets of string ids in `blob`)."""
        assert first_row == self.ids.row_count, (first_row, self.ids.row_count)
        self.rows.arrays.crcs[first_row : first_row + len(crcs)] = crcs
        if ints is not None:
            self.ids.extend_ints(ints)
        else:
            self.ids.extend_strs(blob, ends)

    def delete(self, rows: NDArray[np.int64], sequence: int) -> None:
        """Mark rows as deleted by commit `sequence`; older snapshots go on seeing them."""
        self.rows.arrays.deleted[rows] = sequence
        self._tombs_seen = max(self._tombs_seen, sequence)

    def live_rows(self, visibility: Visibility) -> NDArray[np.int64]:
        """int64[live]: rows visible at `visibility`, ascending."""
        deleted = self.rows.arrays.deleted[: visibility.row_count]
        return np.flatnonzero((deleted == 0) | (deleted > visibility.sequence))

    def attach(self, index: Index) -> None:
        """Searches that begin from now on use this index."""
        self.index = index

    def log_access(self, *, on: bool) -> None:
        """Begin, or end, to note the rows whose tenants change, for a vacuum that copies meanwhile."""
        self.access_log = [] if on else None

    def access_changed(self, *rows: NDArray[np.int64]) -> None:
        """The tenants of these rows have changed."""
        if self.access_log is not None:
            self.access_log += rows

    def close(self) -> None:
        self.rows.close()


def verify_vectors(
    generation: Generation, rows: NDArray[np.int64], vectors: NDArray[Any], crcs: NDArray[np.uint32]
) -> None:
    """Compare copied vectors (stored dtype[n, dim] of `rows`) with their checksums. Raises Corruption, naming the
    first.
    """
    actual = crc_rows(vectors)
    bad = np.flatnonzero(actual != crcs)
    if len(bad):
        at = int(bad[0])
        raise Corruption(
            f"{generation.rows.path}: row {int(rows[at])} has crc {int(actual[at]):08x}, "
            f"expected {int(crcs[at]):08x}; restore the database from a backup"
        )


def iter_blocks(
    store: Store, txn: Txn, prefix: bytes, first: int, stop: int, where: str
) -> Iterator[record_format.Block]:
    """Blocks that hold rows [first, stop), in order. `first` must start a block. Raises Corruption where one is
    missing.
    """
    cursor = txn.cursor(db=store.blocks)
    row = first
    found = cursor.set_range(keys.row_key(prefix, first))
    while row < stop:
        key = bytes(cursor.key()) if found else b""
        if not key.startswith(prefix):
            raise Corruption(f"{where}: no block at row {row}, expected rows up to {stop}; restore from a backup")
        block = record_format.decode_block(cursor.value(), keys.number_of(key), where)
        if block.first_row != row or block.count == 0:
            raise Corruption(
                f"{where}: found the block of row {block.first_row}, expected that of row {row}; restore from a backup"
            )
        yield block
        row += block.count
        found = cursor.next()


def record_block(store: Store, txn: Txn, prefix: bytes, row: int, where: str) -> record_format.Block:
    """The block that holds `row`, not checksummed again: `catch_up` or the commit has seen it.

    From a transaction with buffers the block is a view, good until the transaction ends.
    """
    key, raw = _raw_block(txn.cursor(db=store.blocks), prefix, row, where)
    block = record_format.decode_block(raw, key, where, verify=False)
    if not block.first_row <= row < block.first_row + block.count:
        raise _no_block(row, where)
    return block


def record_metas(store: Store, txn: Txn, prefix: bytes, rows: Iterable[int], where: str) -> list[bytes]:
    """The meta of each row: what `record_block` would give of it."""
    cursor = txn.cursor(db=store.blocks)
    metas = []
    for row in rows:
        key, raw = _raw_block(cursor, prefix, row, where)
        meta = record_format.meta_of(raw, key, row, where)
        if meta is None:
            raise _no_block(row, where)
        metas.append(meta)
    return metas


def _raw_block(cursor: Any, prefix: bytes, row: int, where: str) -> tuple[int, Any]:
    """(first row by its key, value) of the last block that does not begin after `row`."""
    if not 0 <= row <= limits.rows_max:
        raise Corruption(f"{where}: an id leads to row {row}, which cannot be; restore from a backup")
    past = cursor.set_range(keys.row_key(prefix, row + 1))  # the first block that begins after the row, if any
    if not (cursor.prev() if past else cursor.last()):
        raise _no_block(row, where)
    key, raw = cursor.item()
    key = bytes(key)
    if not key.startswith(prefix):
        raise _no_block(row, where)
    return keys.number_of(key), raw


def _no_block(row: int, where: str) -> Corruption:
    return Corruption(f"{where}: no block holds row {row}; restore from a backup")


def iter_tombs(store: Store, txn: Txn, prefix: bytes, first_sequence: int) -> Iterator[tuple[int, NDArray[np.int64]]]:
    """(sequence, rows it deleted: int64[n] ascending) from `first_sequence` on."""
    cursor = txn.cursor(db=store.tombs)
    if not cursor.set_range(keys.row_key(prefix, first_sequence)):
        return
    found = list(_prefixed(cursor.iternext_nodup(keys=True, values=False), prefix))
    pair = np.dtype([("key", f"V{keys.PREFIX_BYTES + 8}"), ("row", "<u8")])
    for key in found:
        raw = cursor.getmulti([key], dupdata=True, dupfixed_bytes=8, keyfixed=True)
        if len(key) != keys.PREFIX_BYTES + 8 or len(raw) % pair.itemsize:
            raise Corruption(f"tombs of commit {key[keys.PREFIX_BYTES :].hex()} are damaged; restore from a backup")
        yield keys.number_of(key), np.frombuffer(raw, pair)["row"].astype(np.int64)


def _prefixed(found: Iterator[Any], prefix: bytes) -> Iterator[bytes]:
    for key in map(bytes, found):  # a buffer where the transaction gives buffers
        if not key.startswith(prefix):
            return
        yield key
