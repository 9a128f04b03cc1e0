"""Checks of a collection and of a database: is everything on disk as it was written? Reports, never repairs.

records   what LMDB and the row file hold (check_records.py)
index     the sealed file's checksums, and the live index's own invariants   -> every live row reachable
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from typing import Any

from vecdb.columns import column_file
from vecdb.embedded.check_records import PROBLEMS_MAX, check_records
from vecdb.errors import Corruption
from vecdb.state.collection_state import CollectionState


def check_database(checks: Iterable[tuple[str, Callable[[], list[str]]]]) -> list[str]:
    """Problems of every collection, each line beginning with its name. checks : (name, its check)."""
    problems: list[str] = []
    for name, check in checks:
        try:
            problems += [f"{name}: {problem}" for problem in check()]
        except Corruption as error:
            problems.append(f"{name}: {error}")
    return problems


def check_collection(state: CollectionState, lock: AbstractContextManager[Any]) -> list[str]:
    """Problems of one collection, in words; at most a hundred. lock : while it is held no file is replaced."""
    with lock:
        problems: list[str] = []
        with state.reading() as (txn, generation, committed):
            try:
                problems += check_records(txn, generation, committed)
            except Corruption as error:
                problems.append(str(error))
        problems += _check_index(state)
    return problems[:PROBLEMS_MAX]


def _check_index(state: CollectionState) -> list[str]:
    snapshot = state.snapshot
    if state.writable:
        # rows that were just added may hang on nothing until maintenance connects them: unfinished work, no damage
        snapshot.generation.index.connect_unreachable(1)
    problems = [f"live index: {problem}" for problem in snapshot.generation.index.check()]
    problems += _check_sealed(state) + _check_columns(state)
    if state.index_error is not None:
        problems.append(f"index: {state.index_error} (being rebuilt)")
    return problems


def _check_columns(state: CollectionState) -> list[str]:
    """The sealed columns of fields that the state names. Damaged ones are made again from the records."""
    snapshot = state.current()
    sealed = snapshot.state.columns
    if sealed is None:
        return []
    try:
        column_file.read(state.folder / sealed.file, snapshot.generation.columns.facts())
    except Corruption as error:
        return [str(error)]
    except FileNotFoundError:
        if state.current().state.columns == sealed:
            return [f"{state.folder / sealed.file}: missing; it is made again from the records"]
    return []


def _check_sealed(state: CollectionState) -> list[str]:
    """The sealed file that the state names; in a reading process the writer may name, and leave, another meanwhile."""
    while True:
        snapshot = state.current()
        sealed = snapshot.state.sealed
        if sealed is None:
            return []
        try:
            index = state.open_sealed_index(snapshot, mapped=True)
        except Corruption as error:
            return [str(error)]
        except FileNotFoundError:
            if state.current().state.sealed != sealed:
                continue
            return [f"{state.folder / sealed.file}: missing; it is rebuilt at the next open"]
        problems = [f"{sealed.file}: {problem}" for problem in index.check()]
        index.close()
        return problems
