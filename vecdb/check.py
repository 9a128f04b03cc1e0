"""fsck: does what is on disk agree with itself? Reports, never repairs.

blocks   crc, consecutive rows up to the state's count                      -> every record readable
rows     CRC-32C of every vector against its record                         -> every vector as written
tombs    rows below the count, each once; row_count - tombs = live_count    -> every deletion accounted for
ids      one entry per live row, leading to it, and no other                -> get and search agree
index    the sealed file's checksums, and the live index's own invariants   -> every live row reachable
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from vecdb import catalog
from vecdb.errors import Corruption
from vecdb.generation import Generation, iter_blocks, iter_tombs
from vecdb.kernels.checks import crc_rows
from vecdb.storage import keys
from vecdb.storage.store import Store, Txn
from vecdb.vacuum import id_keys

if TYPE_CHECKING:
    from vecdb.database import Database
    from vecdb.engine import Engine

_PROBLEMS_MAX = 100  # per collection: a damaged disk should not fill memory with its description


def check_database(database: Database) -> list[str]:
    """Problems of every collection, each line beginning with its name."""
    problems: list[str] = []
    for name in database.collections():
        try:
            problems += [f"{name}: {problem}" for problem in database.collection(name).check()]
        except Corruption as error:
            problems.append(f"{name}: {error}")
    return problems


def check_collection(engine: Engine) -> list[str]:
    """Problems of one collection, in words; at most a hundred."""
    with engine.upkeep.lock:  # no vacuum or seal meanwhile: file names stay true
        problems: list[str] = []
        with engine.reading() as (txn, generation, state):
            try:
                problems += _check_records(engine.store, txn, generation, state)
            except Corruption as error:
                problems.append(str(error))
        problems += _check_index(engine)
    return problems[:_PROBLEMS_MAX]


def _check_records(store: Store, txn: Txn, generation: Generation, state: catalog.State) -> list[str]:
    problems: list[str] = []
    dead = np.zeros(state.row_count, bool)
    for sequence, rows in iter_tombs(store, txn, generation.prefix, 0):
        if len(rows) and not 0 <= rows.min() <= rows.max() < state.row_count:
            problems.append(f"commit {sequence} deletes row {rows.max()}, there are {state.row_count}")
            rows = rows[(rows >= 0) & (rows < state.row_count)]
        again = rows[dead[rows]]
        problems += [f"commit {sequence} deletes row {row}, which was dead" for row in again[:3].tolist()]
        dead[rows] = True
    live_count = int(state.row_count - dead.sum())
    if live_count != state.live_count:
        problems.append(f"{live_count} rows have no tomb, the state counts {state.live_count} live records")
    for block in iter_blocks(store, txn, generation.prefix, 0, state.row_count, generation.folder.name):
        rows = np.arange(block.first_row, block.first_row + block.count)
        actual = crc_rows(np.ascontiguousarray(generation.rows.arrays.vectors[rows[0] : rows[-1] + 1]))
        for at in np.flatnonzero(actual != block.row_crc).tolist():
            problems.append(
                f"{generation.rows.path}: row {rows[at]} has crc {int(actual[at]):08x}, "
                f"expected {int(block.row_crc[at]):08x}"
            )
        live = np.flatnonzero(~dead[rows])
        problems += _check_ids(
            store, txn, generation.prefix, block.first_row, live, id_keys(generation.prefix, block, live)
        )
        if len(problems) >= _PROBLEMS_MAX:
            return problems
    entries = _count_ids(store, txn, generation.prefix)
    if entries != live_count:
        problems.append(f"ids has {entries} entries, there are {live_count} live records")
    return problems


def _check_ids(
    store: Store, txn: Txn, prefix: bytes, first_row: int, live: NDArray[np.int64], expected: list[bytes]
) -> list[str]:
    problems = []
    for at, key in zip(live.tolist(), expected, strict=True):
        raw = txn.get(key, db=store.ids)
        row = -1 if raw is None else int.from_bytes(raw, "little")
        if row != first_row + at:
            found = "nothing" if row < 0 else f"row {row}"
            problems.append(f"id {keys.split_id(key)[1]!r} of live row {first_row + at} leads to {found}")
    return problems


def _count_ids(store: Store, txn: Txn, prefix: bytes) -> int:
    cursor = txn.cursor(db=store.ids)
    count = 0
    found = cursor.set_range(prefix)
    while found and bytes(cursor.key()[: len(prefix)]) == prefix:
        count += 1
        found = cursor.next()
    return count


def _check_index(engine: Engine) -> list[str]:
    view = engine.view
    if engine.writable:
        # rows that were just added may hang on nothing until maintenance settles them: unfinished work, no damage
        view.generation.index.settle(1)
    problems = [f"live index: {problem}" for problem in view.generation.index.check()] + _check_sealed(engine)
    if engine.index_error is not None:
        problems.append(f"index: {engine.index_error} (being rebuilt)")
    return problems


def _check_sealed(engine: Engine) -> list[str]:
    """The sealed file that the state names; in a reading process the writer may name, and leave, another meanwhile."""
    while True:
        view = engine.current()
        sealed = view.state.sealed
        if sealed is None:
            return []
        try:
            index = engine.open_sealed(view, mapped=True)
        except Corruption as error:
            return [str(error)]
        except FileNotFoundError:
            if engine.current().state.sealed != sealed:
                continue
            return [f"{engine.folder / sealed.file}: missing; it is rebuilt at the next open"]
        problems = [f"{sealed.file}: {problem}" for problem in index.check()]
        index.close()
        return problems
