"""Requests that create, rename and drop collections, and their aliases.

create   row file, synced -> catalog and state in one commit
rename   catalog and aliases in one commit; files are named by uid, and stay
drop     catalog, state and aliases in one commit -> files and LMDB entries, a bounded number a commit (garbage.py)
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from vecdb import limits
from vecdb.commit.committer import CommitGroup
from vecdb.errors import AlreadyExists, InvalidArgument, LimitExceeded
from vecdb.schema import BITS, CollectionConfig
from vecdb.state.collection_state import CollectionState
from vecdb.storage.disk import filesystem, manifest
from vecdb.storage.disk.paths import collection_folder, row_file_name
from vecdb.storage.disk.row_file import Rows
from vecdb.storage.kv import aliases, catalog, keys
from vecdb.validate.not_found import alias_not_found, collection_not_found


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
        found = catalog.find_entry(store, txn, config.name)
        if found is not None:
            self._check_same(found)
            return False
        if txn.stat(store.catalog)["entries"] >= limits.collections_max:
            raise LimitExceeded(f"a database holds at most {limits.collections_max} collections; drop one first")
        uid = group.uid_next
        entry = catalog.CollectionEntry(
            uid, config.name, config.elements, config.metric, config.dtype, config.zero_vectors
        )
        state = catalog.CommittedState(
            sequence=group.sequence, index=catalog.index_to_dict(config.index), metadata=config.metadata
        )
        folder = collection_folder(self.database, uid)
        try:
            store.ensure_spare_room()
            if config.dtype == BITS:
                manifest.raise_to(self.database, manifest.BIT_VECTORS, sync=self.durable)
            filesystem.make_dir(folder)
            Rows.create(folder / row_file_name(0), config.dtype, max(1, config.elements), 0, sync=self.durable)
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
        if config.dim and not entry.dim:
            raise AlreadyExists(f"collection {config.name!r} exists without a dim, which its first write gives it")
        for what, existing, asked in (
            ("dim", catalog.dim_of(entry), config.dim or catalog.dim_of(entry)),
            ("metric", entry.metric, config.metric),
            ("dtype", entry.dtype, config.dtype),
            ("zero_vectors", entry.zero_vectors, config.zero_vectors),
        ):
            if existing != asked:
                raise AlreadyExists(
                    f"collection {config.name!r} exists with {what} {existing}, asked for {what} {asked}"
                )


@dataclass(slots=True)
class RenameCollection:
    """Rename a collection; its aliases lead to the new name. Returns its uid."""

    old: str
    new: str
    size_bytes: int = 0
    exclusive: bool = False

    def apply(self, group: CommitGroup) -> int:
        txn, store = group.txn, group.store
        entry, known = _named(group, self.old, "rename"), aliases.read(store, txn)
        if self.new == self.old:
            return entry.uid
        _refuse_taken(group, self.new, known)
        group.changed = True
        entry.name = self.new
        txn.delete(self.old.encode(), db=store.catalog)
        txn.put(self.new.encode(), catalog.encode(entry), db=store.catalog)
        if self.old in known.values():
            moved = {alias: self.new if name == self.old else name for alias, name in known.items()}
            aliases.write(store, txn, moved)
        return entry.uid


@dataclass(slots=True)
class SetAlias:
    """Make an alias of a collection, or let it lead to another one. collection : a name, or an alias of one."""

    alias: str
    collection: str
    size_bytes: int = 0
    exclusive: bool = False

    def apply(self, group: CommitGroup) -> None:
        txn, store = group.txn, group.store
        known = aliases.read(store, txn)
        if txn.get(self.alias.encode(), db=store.catalog) is not None:
            _refuse_taken(group, self.alias, known)
        found = catalog.find_entry(store, txn, self.collection)
        if found is None:
            raise collection_not_found(self.collection)
        if self.alias not in known and len(known) >= limits.aliases_max:
            raise LimitExceeded(f"a database has at most {limits.aliases_max:,} aliases; drop one first")
        if known.get(self.alias) != found.name:
            group.changed = True
            aliases.write(store, txn, known | {self.alias: found.name})


@dataclass(slots=True)
class DropAlias:
    """Forget an alias; its collection stays."""

    alias: str
    size_bytes: int = 0
    exclusive: bool = False

    def apply(self, group: CommitGroup) -> None:
        known = aliases.read(group.store, group.txn)
        if known.pop(self.alias, None) is None:
            raise alias_not_found(self.alias)
        group.changed = True
        aliases.write(group.store, group.txn, known)


def _named(group: CommitGroup, name: str, doing: str) -> catalog.CollectionEntry:
    """The entry of a collection by its own name. Raises NotFound; InvalidArgument for an alias, which stands for
    another collection tomorrow.
    """
    raw = group.txn.get(name.encode(), db=group.store.catalog)
    if raw is not None:
        return catalog.decode_entry(raw, name)
    target = aliases.read(group.store, group.txn).get(name)
    if target is None:
        raise collection_not_found(name)
    raise InvalidArgument(
        f"{name!r} is an alias of collection {target!r}: to {doing} that, name it so; drop_alias forgets the alias"
    )


def _refuse_taken(group: CommitGroup, name: str, known: dict[str, str]) -> None:
    """Raise AlreadyExists where a name is a collection's or an alias."""
    if name in known:
        raise AlreadyExists(f"{name!r} is an alias of collection {known[name]!r}; drop_alias frees the name")
    if group.txn.get(name.encode(), db=group.store.catalog) is not None:
        raise AlreadyExists(f"collection {name!r} exists; rename or drop it first")


@dataclass(slots=True)
class DropCollection:
    """Drop a collection, and its aliases. Returns its uid. state : None where this process has not opened it."""

    name: str
    state: CollectionState | None
    size_bytes: int = 0
    exclusive: bool = False

    def apply(self, group: CommitGroup) -> int:
        entry, known = _named(group, self.name, "drop"), aliases.read(group.store, group.txn)
        group.changed = True
        if self.name in known.values():
            left = {alias: name for alias, name in known.items() if name != self.name}
            aliases.write(group.store, group.txn, left)
        # writes of this collection that come earlier in the group must not be finished: they would put the state back
        group.participants.pop(self.state, None)
        group.txn.delete(self.name.encode(), db=group.store.catalog)
        group.txn.delete(keys.uid(entry.uid), db=group.store.state)
        if self.state is not None:
            group.published.append(self.state.mark_dropped)
        return entry.uid
