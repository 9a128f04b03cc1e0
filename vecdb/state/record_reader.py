"""Reads records: rows of ids; records, fields and vectors of rows, from the blocks that a transaction sees and the row
file.

Every vector that is returned is a copy, compared with its CRC-32C first. Blocks are views of LMDB's memory, and only
this module uses them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from vecdb.errors import Corruption
from vecdb.index.row_set import RowSet
from vecdb.schema import Id, Record
from vecdb.state.field_changes import changed_metas
from vecdb.state.generation import Generation
from vecdb.state.record_blocks import iter_tombs, record_block, verify_vectors
from vecdb.storage.kv import keys, record_format
from vecdb.storage.kv.catalog import CommittedState
from vecdb.storage.kv.store import Txn
from vecdb.tenancy import tenant_names
from vecdb.tenancy.pairs import distinct, numbers_of, rows_of
from vecdb.validate import IdBatch, decode_fields, tenant_name
from vecdb.validate.common import gil_slices

_SLICE_IDS = 512  # looked up in one bytecode stretch
_NO_ROW = b"\xff" * 8
_NO_ROW_NUMBER = np.uint64(0xFFFFFFFFFFFFFFFF)
_STRIDE = 2_654_435_761  # of stand-ins, which are spread over all rows


def record_block_at(generation: Generation, txn: Txn, row: int) -> record_format.Block:
    """The block that holds `row`, good while `txn` lasts."""
    return record_block(generation.store, txn, generation.prefix, row, generation.entry.name)


def rows_of_ids(generation: Generation, txn: Txn, owner: bytes, id_keys: list[bytes]) -> list[int]:
    """The live row of each id in the state of `txn`, -1 where there is none. An id that exists takes as long as one
    that does not.
    """
    prefix, table, get = keys.owner_prefix(generation.prefix, owner), generation.store.ids, txn.get
    rows: list[int] = []
    for start, stop in gil_slices(len(id_keys), _SLICE_IDS):
        looked_up = [get(prefix + key, None, table) for key in id_keys[start:stop]]
        # a buffer is made for what is not there, too: it takes a quarter of a look-up
        found = b"".join([memoryview(_NO_ROW) if raw is None else raw for raw in looked_up])
        if len(found) != 8 * (stop - start):
            raise Corruption(f"{generation.entry.name}: an id leads to no row number; restore from a backup")
        values = np.frombuffer(found, "<u8")
        rows += np.where(values == _NO_ROW_NUMBER, -1, values.astype(object)).tolist()
    return rows


def rows_seen(
    generation: Generation, txn: Txn, state: CommittedState, rows: list[int], numbers: list[int]
) -> list[int]:
    """`rows`, with -1 in place of those that none of the tenants (by number) may see. No record is read for it, and
    for -1 another row is looked up, so that a row of others and one that is not there cost the same.
    """
    asked = np.array(rows, np.float64)  # row numbers that cannot be are beyond int64
    exists = (asked >= 0) & (asked < state.row_count)
    stand_ins = np.arange(len(rows), dtype=np.int64) * _STRIDE % max(1, state.row_count)
    looked_up = np.where(exists, np.where(exists, asked, 0).astype(np.int64), stand_ins)
    grants, seen = generation.journal.at(txn, state), np.zeros(len(rows), bool)
    for number in numbers:
        seen |= grants.has(number, looked_up)
    found: list[int] = np.where(exists & seen, looked_up, -1).tolist()
    return found


def check_id_matches(generation: Generation, key: bytes, found: Id) -> None:
    """LMDB's pages carry no checksum, a record's block does: what an id's key leads to must say the same id."""
    if keys.id_key_bytes(found) != key:
        raise Corruption(
            f"{generation.entry.name}: key {key!r} of an id leads to record {found!r}; restore from a backup"
        )


def check_seen(generation: Generation, found: Record, tenants: tuple[str, ...]) -> None:
    """The table of tenants' rows carries no checksum, a record's own list does: it must name one of the tenants."""
    if tenants and not set(tenants).intersection(found.tenants):
        raise Corruption(
            f"{generation.entry.name}: record {found.id!r} is listed for a tenant that its access list does not name; "
            "restore from a backup"
        )


def verified_rows_of_ids(
    generation: Generation,
    txn: Txn,
    state: CommittedState,
    owner: bytes,
    ids: IdBatch,
    allowed: RowSet | None = None,
) -> NDArray[np.int64]:
    """int64[n]: `rows_of_ids`, each compared with the id in its block; -1, too, for a row that is not among `allowed`,
    where its id is not looked at. The generation has caught up with `txn`.
    """
    rows = np.array(rows_of_ids(generation, txn, owner, ids.keys), np.int64)
    if len(rows) and int(rows.max()) >= state.row_count:
        raise Corruption(f"{generation.entry.name}: an id leads to row {rows.max()} of {state.row_count}")
    if allowed is not None:
        rows[~allowed.holds(np.maximum(rows, 0))] = -1
    existing = np.flatnonzero(rows >= 0)
    names = generation.ids.take(rows[existing], padded=False).tolist()
    for start, stop in gil_slices(len(existing), _SLICE_IDS):
        for at, name in zip(existing[start:stop].tolist(), names[start:stop], strict=True):
            check_id_matches(generation, ids.keys[at], name)
    return rows


def records(
    generation: Generation, txn: Txn, state: CommittedState, rows: list[int], *, include_vectors: bool
) -> list[Record | None]:
    """A record per row, None for a row of -1."""
    out: list[Record | None] = []
    wanted: list[int] = []  # places of vectors
    crcs: list[int] = []
    tenants = _names_of(generation, txn, state, rows) if state.has_tenants else {}
    changed = _changed_metas(generation, txn, state, rows) if state.field_changes is not None else {}
    for row in rows:
        if row < 0:
            out.append(None)
            continue
        block = record_block_at(generation, txn, row)
        at = row - block.first_row
        owner, fields = record_format.split_meta(changed[row] if row in changed else block.meta(at))
        decoded = decode_fields(fields) if fields else {}
        out.append(Record(block.id(at), decoded, tenants.get(row, []), owner=owner.decode()))
        if include_vectors and (block.bare is None or not block.bare[at]):
            wanted.append(len(out) - 1)
            crcs.append(int(block.row_crc[at]))
    found = _vectors_committed(generation, [rows[i] for i in wanted], crcs) if wanted else []
    for i, vector in zip(wanted, found, strict=True):
        out[i].vector = vector  # type: ignore[union-attr]  # only of those that are there
    return out


def _changed_metas(generation: Generation, txn: Txn, state: CommittedState, rows: list[int]) -> dict[int, bytes]:
    there = [row for row in rows if row >= 0]
    return changed_metas(generation.store, txn, generation.prefix, there, generation.entry.name)


def _names_of(generation: Generation, txn: Txn, state: CommittedState, rows: list[int]) -> dict[int, list[str]]:
    """Names of the tenants of each row that has any, in order; those that were dropped are left out."""
    store, uid, where = generation.store, generation.entry.uid, generation.entry.name
    asked = np.unique(np.asarray(rows, np.int64))
    lists = generation.journal.at(txn, state).lists_of(asked[asked >= 0])
    tenants = tenant_names.tenants_of(store, txn, uid, np.unique(numbers_of(lists)), where)
    names: dict[int, list[str]] = {}
    for row, number in zip(rows_of(lists).tolist(), numbers_of(lists).tolist(), strict=True):
        found = tenants[number]
        if found is not None:
            names.setdefault(row, []).append(found.name.decode())
    return {row: sorted(one) for row, one in names.items()}


def vectors(generation: Generation, rows: NDArray[np.int64]) -> NDArray[Any]:
    """Copies of stored vectors, compared with their crcs."""
    arrays = generation.rows.arrays
    found = np.ascontiguousarray(arrays.vectors[rows])
    verify_vectors(generation.rows.path, rows, found, arrays.crcs[rows])
    return found


def _vectors_committed(generation: Generation, rows: list[int], crcs: list[int]) -> list[NDArray[Any]]:
    """Vectors of rows. crcs : from the blocks that a transaction sees, since memory may lag behind it."""
    numbers = np.asarray(rows, np.int64)
    found = np.ascontiguousarray(generation.rows.arrays.vectors[numbers])
    verify_vectors(generation.rows.path, numbers, found, np.asarray(crcs, np.uint32))
    return list(found)


def rows_of_tenants(
    generation: Generation, txn: Txn, state: CommittedState, names: tuple[str, ...]
) -> NDArray[np.uint32]:
    """uint32[n], ascending: live rows of the union of these tenants, read from `txn` alone. Raises NotFound."""
    store, entry = generation.store, generation.entry
    grants, parts = generation.journal.at(txn, state), []
    for name in names:
        number, _ = tenant_names.tenant_named(store, txn, entry.uid, tenant_name(name), entry.name)
        rows = grants.rows_of(number, state.row_count)
        grants.confirm(number, rows)
        parts.append(rows)
    return distinct(np.concatenate(parts))


def deleted_rows(generation: Generation, txn: Txn, state: CommittedState) -> NDArray[np.bool_]:
    """bool[rows]: dead in the state of `txn`, read from it alone."""
    dead = np.zeros(state.row_count, bool)
    for sequence, rows in iter_tombs(generation.store, txn, generation.prefix, 0):
        if len(rows) and not 0 <= rows.min() <= rows.max() < len(dead):
            raise Corruption(f"{generation.folder.name}: commit {sequence} deletes row {rows.max()} of {len(dead)}")
        dead[rows] = True
    return dead
