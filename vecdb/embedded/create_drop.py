"""Requests that create and drop collections.

create   row file, synced -> catalog and state in one commit
drop     catalog and state in one commit -> files and LMDB entries, a bounded number a commit (garbage.py)
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from vecdb import limits
from vecdb.commit.committer import CommitGroup
from vecdb.errors import AlreadyExists, LimitExceeded
from vecdb.schema import CollectionConfig
from vecdb.state.collection_state import CollectionState
from vecdb.storage.disk import filesystem
from vecdb.storage.disk.paths import collection_folder, row_file_name
from vecdb.storage.disk.row_file import Rows
from vecdb.storage.kv import catalog, keys
from vecdb.validate.not_found import collection_not_found


@dataclass(slots=True)
class CreateCollection:
    """Create a collection. Returns True where it was made, False where it existed (`exist_ok`)."""

    database: Path
    config: CollectionConfig
    exist_ok: bool
    durable: bool
    size_bytes: int = 0
    exclusive: bool = False

    def apply(self, group: CommitGroup) -> bool:
        txn, store, config = group.txn, group.store, self.config
        raw = txn.get(config.name.encode(), db=store.catalog)
        if raw is not None:
            self._check_same(catalog.decode_entry(raw, config.name))
            return False
        if txn.stat(store.catalog)["entries"] >= limits.collections_max:
            raise LimitExceeded(f"a database holds at most {limits.collections_max} collections; drop one first")
        uid = group.uid_next
        entry = catalog.CollectionEntry(uid, config.name, config.dim, config.metric, config.dtype)
        state = catalog.CommittedState(sequence=group.sequence, index=catalog.index_to_dict(config.index))
        folder = collection_folder(self.database, uid)
        try:
            store.ensure_spare_room()
            filesystem.make_dir(folder)
            Rows.create(folder / row_file_name(0), config.dtype, config.dim, 0, sync=self.durable)
            if self.durable:
                filesystem.sync_dir(folder.parent)
        except OSError as error:
            raise filesystem.to_vecdb_error(error, f"creating collection {config.name!r}") from error
        group.changed = True
        txn.put(config.name.encode(), catalog.encode(entry), db=store.catalog)
        txn.put(keys.uid(uid), catalog.encode(state), db=store.state)
        group.uid_next = uid + 1
        return True

    def _check_same(self, entry: catalog.CollectionEntry) -> None:
        config = self.config
        if not self.exist_ok:
            raise AlreadyExists(f"collection {config.name!r} exists; use collection({config.name!r}), or exist_ok=True")
        for what, existing, asked in (
            ("dim", entry.dim, config.dim),
            ("metric", entry.metric, config.metric),
            ("dtype", entry.dtype, config.dtype),
        ):
            if existing != asked:
                raise AlreadyExists(
                    f"collection {config.name!r} exists with {what} {existing}, asked for {what} {asked}"
                )


@dataclass(slots=True)
class DropCollection:
    """Drop a collection. Returns its uid. state : None where this process has not opened the collection."""

    name: str
    state: CollectionState | None
    size_bytes: int = 0
    exclusive: bool = False

    def apply(self, group: CommitGroup) -> int:
        raw = group.txn.get(self.name.encode(), db=group.store.catalog)
        if raw is None:
            raise collection_not_found(self.name)
        entry = catalog.decode_entry(raw, self.name)
        group.changed = True
        # writes of this collection that come earlier in the group must not be finished: they would put the state back
        group.participants.pop(self.state, None)
        group.txn.delete(self.name.encode(), db=group.store.catalog)
        group.txn.delete(keys.uid(entry.uid), db=group.store.state)
        if self.state is not None:
            group.published.append(self.state.mark_dropped)
        return entry.uid
