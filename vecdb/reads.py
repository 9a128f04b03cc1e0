"""Records, fields and vectors of rows, out of the blocks that a transaction sees and the row file.

Every vector that leaves is a copy, compared with its CRC-32C first. Blocks are views of LMDB's memory and stay in here.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from vecdb.catalog import State
from vecdb.errors import Corruption
from vecdb.generation import Generation, block_of, iter_tombs, refuse_damaged
from vecdb.schema import Record
from vecdb.storage import codec
from vecdb.storage.store import Txn
from vecdb.validate import decode_fields


def block_at(generation: Generation, txn: Txn, row: int) -> codec.Block:
    """The block that holds `row`, good while `txn` lasts."""
    return block_of(generation.store, txn, generation.prefix, row, generation.entry.name)


def encoded_fields(generation: Generation, txn: Txn, row: int) -> bytes:
    """The fields of one row as msgpack."""
    block = block_at(generation, txn, row)
    return codec.split_meta(block.meta(row - block.first_row))[2]


def records(generation: Generation, txn: Txn, rows: list[int], *, include_vectors: bool) -> list[Record | None]:
    """A record per row, None for a row of -1."""
    out: list[Record | None] = []
    for row in rows:
        if row < 0:
            out.append(None)
            continue
        block = block_at(generation, txn, row)
        at = row - block.first_row
        _, tenants, fields = codec.split_meta(block.meta(at))
        out.append(Record(block.id(at), decode_fields(fields) if fields else {}, tenants))
    if include_vectors:
        present = [i for i, row in enumerate(rows) if row >= 0]
        found = _vectors_committed(generation, txn, [rows[i] for i in present])
        for i, vector in zip(present, found, strict=True):
            record = out[i]
            assert record is not None
            record.vector = vector
    return out


def vectors(generation: Generation, rows: NDArray[np.int64]) -> NDArray[Any]:
    """Copies of stored vectors, compared with their crcs."""
    arrays = generation.rows.arrays
    found = np.ascontiguousarray(arrays.vectors[rows])
    refuse_damaged(generation, rows, found, arrays.crcs[rows])
    return found


def _vectors_committed(generation: Generation, txn: Txn, rows: list[int]) -> list[NDArray[Any]]:
    """Vectors of rows that `txn` counts: their crcs come from the blocks, since memory may lag behind the
    transaction.
    """
    numbers = np.asarray(rows, np.int64)
    found = np.ascontiguousarray(generation.rows.arrays.vectors[numbers])
    crcs = np.empty(len(rows), np.uint32)
    for i, row in enumerate(rows):
        block = block_at(generation, txn, row)
        crcs[i] = block.row_crc[row - block.first_row]
    refuse_damaged(generation, numbers, found, crcs)
    return list(found)


def dead_rows(generation: Generation, txn: Txn, state: State) -> NDArray[np.bool_]:
    """bool[rows]: dead in the state of `txn`, read from it alone."""
    dead = np.zeros(state.row_count, bool)
    for sequence, rows in iter_tombs(generation.store, txn, generation.prefix, 0):
        if len(rows) and not 0 <= rows.min() <= rows.max() < len(dead):
            raise Corruption(f"{generation.folder.name}: commit {sequence} deletes row {rows.max()} of {len(dead)}")
        dead[rows] = True
    return dead
