"""Checks of a collection's records: does what LMDB and the row file hold agree with itself? Reports, never repairs.

blocks   crc, consecutive rows up to the state's count                      -> every record readable
rows     CRC-32C of every vector against its record                         -> every vector as written
tombs    rows below the count, each once; row_count - tombs = live_count    -> every deletion accounted for
bare     as many live ones as the state counts                              -> what searches may find is counted
changes  crc, rows below the count, as many as counted, each noted by its commit  -> fields as they were last set
access   crc, live rows only, the same pairs as members, journal over both  -> a tenant sees what was granted
tenants  names and numbers lead to one another, numbers below the next      -> no tenant under another's name
requests every one in order has its answer                                  -> a repeated write happens once
ids      one entry per live row, leading to it, and no other                -> get and search agree

All of it is read from one transaction.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vecdb import limits
from vecdb.commit import idempotency
from vecdb.errors import Corruption
from vecdb.kernels.primitives.checksums import crc_rows
from vecdb.state.field_changes import iter_changed, iter_changes
from vecdb.state.generation import Generation
from vecdb.state.record_blocks import id_keys, iter_blocks, iter_tombs
from vecdb.storage.kv import catalog, keys
from vecdb.storage.kv.record_format import Block
from vecdb.storage.kv.store import Store, Txn
from vecdb.tenancy.access_journal import AccessReader
from vecdb.tenancy.pairs import by_tenant, rows_of, rows_of_tenant
from vecdb.tenancy.tenant_names import number_of, tenant

_READ_BYTES = 1 << 22  # of vectors, read at once
PROBLEMS_MAX = 100  # of a collection: a damaged disk should not fill memory with its description


def check_records(txn: Txn, generation: Generation, state: catalog.CommittedState) -> list[str]:
    """Problems of the records that `txn` sees. `state` is what it holds, `generation` has caught up with it. Raises
    Corruption where reading cannot go on.
    """
    store, problems = generation.store, list[str]()
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
    bare_count = 0
    with generation.rows.opened() as read:
        for block in iter_blocks(store, txn, generation.prefix, 0, state.row_count, generation.folder.name):
            rows = np.arange(block.first_row, block.first_row + block.count)
            problems += _check_vectors(generation, block, dead[rows], read)
            live = np.flatnonzero(~dead[rows])
            bare_count += 0 if block.bare is None else int(block.bare[live].sum())
            problems += _check_ids(store, txn, block.first_row, live, id_keys(generation.prefix, block, live))
            if len(problems) >= PROBLEMS_MAX:
                return problems
    if bare_count != state.bare_count:
        problems.append(f"{bare_count} live records have no vector, the state counts {state.bare_count}")
    entries = sum(1 for _ in _keys_under(store.ids, txn, generation.prefix))
    if entries != live_count:
        problems.append(f"ids has {entries} entries, there are {live_count} live records")
    problems += _check_changes(txn, generation, state)
    numbers, found = _check_tenants(store, txn, generation)
    problems += found + _check_access(txn, generation, state, dead, numbers)
    return problems + _check_requests(store, txn, generation)


def _check_vectors(
    generation: Generation, block: Block, dead: NDArray[np.bool_], read: Callable[[int, int], NDArray[Any]]
) -> list[str]:
    """The rows of a block have their checksums. dead : bool[rows of the block].   read : see `Rows.opened`."""
    problems, step = list[str](), max(1, _READ_BYTES // generation.rows.row_bytes)
    for start in range(0, block.count, step):
        stop = min(start + step, block.count)
        vectors = read(block.first_row + start, block.first_row + stop)
        actual, expected = crc_rows(vectors), block.row_crc[start:stop]
        for at in np.flatnonzero(actual != expected).tolist():
            if dead[start + at] and not vectors[at].any():
                continue  # its place was given back (disk_room.py)
            problems.append(
                f"{generation.rows.path}: row {block.first_row + start + at} has crc {int(actual[at]):08x}, "
                f"expected {int(expected[at]):08x}"
            )
    return problems


def _check_changes(txn: Txn, generation: Generation, state: catalog.CommittedState) -> list[str]:
    """Changed fields are those that the state counts, and `changed` notes the rows of each commit that it holds. Takes
    32 bytes a change.
    """
    store, prefix, where = generation.store, generation.prefix, generation.entry.name
    told = state.field_changes or catalog.FieldChanges(0, 0, 0)
    if not store.is_complete:
        return ["the tables of changed fields are missing"] if state.field_changes is not None else []
    try:
        noted = dict(iter_changed(store, txn, prefix, 0, where))
        found = [(row, at) for row, at, _ in iter_changes(store, txn, prefix, 0, limits.rows_max + 1, where)]
    except Corruption as error:
        return [str(error)]
    rows, commits = np.array(found, np.int64).reshape(-1, 2).T
    counted = catalog.FieldChanges(int(max(commits, default=0)), len(rows), sum(map(len, noted.values())))
    problems = [] if counted == told else [f"changed fields: the state counts {told}, there are {counted}"]
    changed = np.concatenate([rows, *noted.values()])
    if len(changed) and not 0 <= changed.min() <= changed.max() < state.row_count:
        problems.append(f"row {changed.max()} has changed fields, there are {state.row_count} rows")
    for commit in np.unique(commits[commits >= min(noted, default=told.last + 1)]).tolist():
        lost = np.setdiff1d(rows[commits == commit], noted.get(commit, rows[:0]))
        problems += [f"commit {commit} changed fields of row {row}, and does not note it" for row in lost[:3].tolist()]
    return problems[:PROBLEMS_MAX]


def _check_tenants(store: Store, txn: Txn, generation: Generation) -> tuple[set[int], list[str]]:
    """Numbers of the tenants that there are, and problems: every name leads to a number and that back to it."""
    uid, where = generation.entry.uid, generation.entry.name
    problems: list[str] = []
    numbers: set[int] = set()
    following = int.from_bytes(txn.get(keys.tenant_next(uid), db=store.tenants) or b"\1", "little")
    head = keys.tenant_numbers(uid)
    for key in _keys_under(store.tenants, txn, head):
        number = int.from_bytes(key[len(head) :], "big")
        try:
            found = tenant(store, txn, uid, number, where)
        except Corruption as error:
            problems.append(str(error))
            continue
        numbers.add(number)
        if found is None or number_of(store, txn, uid, found.name) != number:
            problems.append(f"tenant {number} has a name that does not lead to it")
        if number >= following:
            problems.append(f"tenant {number} is there, the next number is {following}")
    names = sum(1 for _ in _keys_under(store.tenants, txn, keys.tenant_names(uid)))
    if names != len(numbers):
        problems.append(f"there are {names} names of tenants and {len(numbers)} tenants")
    return numbers, problems[:PROBLEMS_MAX]


def _check_requests(store: Store, txn: Txn, generation: Generation) -> list[str]:
    """Every request in order has its answer, and there are as many as were counted."""
    uid, found = generation.entry.uid, 0
    first = keys.requests_in_order(uid)
    for key in _keys_under(store.requests, txn, first):
        known = keys.request_ids(uid) + bytes(txn.get(key, db=store.requests))
        if not idempotency.is_stored_answer(txn.get(known, db=store.requests)):
            return [f"the answer of request {known[keys.UID_BYTES + 1 :]!r} is missing or damaged"]
        found += 1
    answers = sum(1 for _ in _keys_under(store.requests, txn, keys.request_ids(uid)))
    counted = idempotency.request_count(store, txn, uid)
    if not found == answers == counted:
        return [f"there are {answers} answers of requests, {found} in order, {counted} were counted"]
    return []


def _check_access(
    txn: Txn, generation: Generation, state: catalog.CommittedState, dead: NDArray[np.bool_], numbers: set[int]
) -> list[str]:
    """The journal over the two tables gives the same pairs both ways: those of live rows, and of tenants that exist.
    Takes 16 bytes a pair.
    """
    tables, grants = generation.journal.tables, generation.journal.at(txn, state)
    problems: list[str] = []
    entries = sum(1 for _ in _keys_under(tables.store.journal, txn, tables.prefix))
    told = 0 if state.journal is None else state.journal.entries
    if entries != told:
        problems.append(f"the journal has {entries} entries, the state counts {told}")
    sorted_pairs, found = _check_lists(grants, dead)
    problems += found
    for number in _each_once(_numbers_under(tables.store.members, txn, tables.prefix), _tenants_in(sorted_pairs)):
        if len(problems) >= PROBLEMS_MAX:
            break
        if number in numbers:
            problems += _check_rows_of(grants, number, rows_of_tenant(sorted_pairs, number), len(dead))
        elif tables.count_of(txn, number):  # a list may go on naming a tenant that was dropped
            problems.append(f"tenant {number} has rows, and does not exist")
    return problems


def _check_lists(grants: AccessReader, dead: NDArray[np.bool_]) -> tuple[NDArray[np.uint64], list[str]]:
    """Pairs of all lists of live rows, uint64[n], by tenant (`by_tenant`, sorted), and problems of the
    lists.
    """
    tables = grants.tables
    problems: list[str] = []
    parts = [np.empty(0, np.uint64)]
    beyond = np.append(dead, True)
    listed = _numbers_under(tables.store.access, grants.txn, tables.prefix)
    rows = _each_once(listed, np.unique(rows_of(grants.changes.granted)).tolist())
    while (part := list(itertools.islice(rows, limits.block_rows_max))) and len(problems) < PROBLEMS_MAX:
        try:
            lists = grants.lists_of(np.array(part, np.int64))
        except Corruption as error:
            problems.append(str(error))
            continue
        stray = beyond[np.minimum(rows_of(lists), len(dead))]
        if stray.any():
            row = rows_of(lists)[stray][0]
            problems.append(f"there is an access list of row {row}, which is dead or not there")
        parts.append(by_tenant(lists[~stray]))
    sorted_pairs = np.concatenate(parts)
    sorted_pairs.sort()
    return sorted_pairs, problems


def _check_rows_of(grants: AccessReader, number: int, wanted: NDArray[np.uint64], row_count: int) -> list[str]:
    """A tenant's rows are those (ascending) whose lists name it."""
    try:
        found = grants.rows_of(number, row_count)
    except Corruption as error:
        return [str(error)]
    if np.array_equal(found, wanted):
        return []
    lost = np.setdiff1d(wanted, found)
    if len(lost):
        return [f"row {lost[0]} has tenant {number}, which does not have the row"]
    return [f"tenant {number} has {len(found)} rows, not those whose access lists name it"]


def _check_ids(store: Store, txn: Txn, first_row: int, live: NDArray[np.int64], expected: list[bytes]) -> list[str]:
    problems = []
    for at, key in zip(live.tolist(), expected, strict=True):
        raw = txn.get(key, db=store.ids)
        row = -1 if raw is None else int.from_bytes(raw, "little")
        if row != first_row + at:
            found = "nothing" if row < 0 else f"row {row}"
            problems.append(f"id {keys.split_id(key)[1]!r} of live row {first_row + at} leads to {found}")
    return problems


def _keys_under(database: Any, txn: Txn, prefix: bytes) -> Iterator[bytes]:
    """Keys that begin with `prefix`, in order, each once."""
    cursor = txn.cursor(db=database)
    found = cursor.set_range(prefix)
    while found and (key := bytes(cursor.key())).startswith(prefix):
        yield key
        found = cursor.next_nodup()


def _numbers_under(database: Any, txn: Txn, prefix: bytes) -> Iterator[int]:
    """Rows or tenants that a table has something of, ascending."""
    return map(keys.number_of, _keys_under(database, txn, prefix))


def _tenants_in(sorted_pairs: NDArray[np.uint64]) -> Iterator[int]:
    """Tenants of pairs that are sorted by tenant, ascending."""
    at = 0
    while at < len(sorted_pairs):
        number = int(sorted_pairs[at]) >> 32
        yield number
        at += len(rows_of_tenant(sorted_pairs, number))


def _each_once(*ascending: Iterable[int]) -> Iterator[int]:
    """The numbers of all of them, ascending."""
    return (number for number, _ in itertools.groupby(heapq.merge(*ascending)))
