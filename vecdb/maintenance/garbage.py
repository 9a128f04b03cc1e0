"""Garbage: files and LMDB entries that no state names, left by a drop, a vacuum or a crash between two of their steps.

It is harmless. It is removed after a drop or a vacuum and at open, a bounded number of entries in one commit, so that
writers never wait long.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vecdb.commit.committer import SLICE_ENTRIES, CommitGroup, Request
from vecdb.errors import Corruption
from vecdb.index.spann import build_checkpoint
from vecdb.storage.disk import filesystem
from vecdb.storage.disk.paths import row_file_name
from vecdb.storage.kv import catalog, keys
from vecdb.storage.kv.store import Store
from vecdb.validate.common import yield_gil

_DELETED_ENTRIES = 5_000  # deleted per commit


@dataclass(slots=True)
class DeleteKeyRange:
    """Delete up to a bounded number of entries under a prefix of some databases. Returns True while there may be
    more.
    """

    prefix: bytes
    databases: tuple[bytes, ...]
    size_bytes: int = 0
    exclusive: bool = False

    def apply(self, group: CommitGroup) -> bool:
        left = _DELETED_ENTRIES
        for name in self.databases:
            cursor = group.txn.cursor(db=group.store.databases[name])
            cursor.set_range(self.prefix)
            while left and bytes(cursor.key()).startswith(self.prefix):
                cursor.delete(dupdata=True)  # and stands at the next
                group.changed = True
                left -= 1
                if left % (SLICE_ENTRIES // 2) == 0:  # a deletion takes about twice as long as a look-up
                    yield_gil()
        return left == 0


def collect_garbage(
    database: Path,
    store: Store,
    submit: Callable[[Request], Any],
    *,
    only_uid: int | None = None,
    keep: tuple[str, ...] = (),
) -> None:
    """Remove files and LMDB entries that no state names, except files of the names `keep`: of one collection, or of
    all.
    """
    states = states_of(store)
    for prefix in _prefixes(store, keys.BY_GENERATION, keys.PREFIX_BYTES):
        uid, generation = keys.split_prefix(prefix)
        state = states.get(uid)
        if (only_uid is None or uid == only_uid) and (state is None or state.generation != generation):
            _delete(submit, DeleteKeyRange(prefix, keys.BY_GENERATION))
    for prefix in _prefixes(store, keys.BY_UID, keys.UID_BYTES):
        uid = int.from_bytes(prefix, "big")
        if (only_uid is None or uid == only_uid) and uid not in states:
            _delete(submit, DeleteKeyRange(prefix, keys.BY_UID))
    remove_unnamed_files(database, store, states, None if only_uid is None else {only_uid}, keep)


def remove_unnamed_files(
    database: Path,
    store: Store,
    states: dict[int, catalog.CommittedState],
    uids: set[int] | None = None,
    keep: tuple[str, ...] = (),
) -> None:
    """Remove the files that no state names, of collections with these numbers, or of all."""
    store.check_there()
    synced = False
    for name in filesystem.list_dir(database / "collections"):
        try:
            uid = int(name, 16)
        except ValueError:
            continue
        if uids is not None and uid not in uids:
            continue
        state = states.get(uid)
        folder = database / "collections" / name
        garbage = [file for file in filesystem.list_dir(folder) if file not in keep and not _is_named(file, state)]
        if (garbage or state is None) and not synced:
            store.sync()  # with durability "relaxed" the commit that stopped naming these files may not be on disk yet
            synced = True
        for file in garbage:
            filesystem.remove(folder / file)
        if state is None:
            filesystem.remove_tree(folder)


def _is_named(file: str, state: catalog.CommittedState | None) -> bool:
    """Whether a state names the file, or it is what a killed build left for the next one."""
    if state is None:
        return False
    sealed = state.sealed
    if file == row_file_name(state.generation) or (sealed is not None and file in sealed.files):
        return True
    if state.columns is not None and file == state.columns.file:
        return True
    return build_checkpoint.is_wanted(file, state.generation, sealed.sequence if sealed is not None else None)


def _delete(submit: Callable[[Request], Any], request: DeleteKeyRange) -> None:
    while submit(request):
        pass


def states_of(store: Store) -> dict[int, catalog.CommittedState]:
    """The state of each collection, by its number."""
    with store.read() as txn:
        entries = [catalog.decode_entry(bytes(raw), str(name)) for name, raw in txn.cursor(db=store.catalog)]
        return {
            entry.uid: catalog.decode_state(txn.get(keys.uid(entry.uid), db=store.state), entry.name)
            for entry in entries
        }


def _prefixes(store: Store, databases: tuple[bytes, ...], prefix_bytes: int) -> list[bytes]:
    """Every prefix of that length that the databases hold, found by jumping from one to the next."""
    found: set[bytes] = set()
    with store.read() as txn:
        for name in databases:
            cursor = txn.cursor(db=store.databases[name])
            found_key, last = cursor.first(), b""
            while found_key:
                prefix = bytes(cursor.key()[:prefix_bytes])
                if len(prefix) < prefix_bytes:
                    raise Corruption(f"LMDB holds a key of {len(prefix)} bytes; restore the database from a backup")
                if prefix <= last:
                    raise Corruption(f"LMDB holds the key {prefix.hex()} after {last.hex()}; restore from a backup")
                last = prefix
                found.add(prefix)
                following = keys.prefix_end(prefix)
                found_key = following is not None and cursor.set_range(following)
    return sorted(found)
