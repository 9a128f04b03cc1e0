"""What a copy of a database consists of: the files that a commit needs, and how a copy of them gets its name."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from vecdb.errors import AlreadyExists, Corruption, Unavailable
from vecdb.replication.backups.temporary import TemporaryFolder
from vecdb.replication.counted_files import files_of, row_bytes_of
from vecdb.storage.disk import filesystem, manifest
from vecdb.storage.disk.paths import collection_folder
from vecdb.storage.kv import catalog, keys
from vecdb.storage.kv.store import LMDB_FORMAT, READERS, Store, Txn

LMDB_FILE = "lmdb/data.mdb"


def lies_within(target: Path, database: Path) -> bool:
    """Whether a backup at `target` would lie within the database, links followed."""
    return Path(os.path.realpath(target)).is_relative_to(os.path.realpath(database))


def files_of_collections(store: Store) -> dict[int, dict[str, int]]:
    """The files of each collection, by uid, that what is committed needs, and the bytes of each that count."""
    with store.read() as txn:
        return files_at(store, txn)


def files_at(store: Store, txn: Txn) -> dict[int, dict[str, int]]:
    """The same of what a transaction sees."""
    wanted: dict[int, dict[str, int]] = {}
    for name, raw in txn.cursor(db=store.catalog):
        entry = catalog.decode_entry(bytes(raw), catalog.decode_name(name))
        state = catalog.decode_state(txn.get(keys.uid(entry.uid), db=store.state), entry.name)
        wanted[entry.uid] = files_of(state, row_bytes_of(entry))
    return wanted


def path_in_database(uid: int, name: str) -> str:
    """Where a file of a collection lies, below the directory of the database."""
    return collection_folder(Path(), uid).joinpath(name).as_posix()


def check_list(listed: dict[str, int], copied: Path, where: str) -> None:
    """What a backup lists, besides the two below, must be what the database in it needs, no more and no less.

    copied : a directory with its manifest and LMDB file, verified.   where : the list, for the message.
    """
    if manifest.read(copied, LMDB_FORMAT, upgrading=True).format_version < manifest.FORMAT_VERSION:
        return  # LMDB holds other tables then; `upgrade` looks at them
    store = Store(copied / "lmdb", read_only=True, durability="none", alone=True)
    try:
        wanted = {
            path_in_database(uid, name): length
            for uid, files in files_of_collections(store).items()
            for name, length in files.items()
        }
    finally:
        store.close()
    for name in sorted(wanted.keys() | listed.keys()):
        if wanted.get(name) != listed.get(name):
            raise Corruption(
                f"{where}: {name} has {listed.get(name, 'no')} bytes in the list, the database in the "
                f"backup needs {wanted.get(name, 'none')}"
            )


def check_room(database: Path, wanted: int) -> None:
    """Refuse what does not fit before anything is written. A file may claim to be longer than any disk."""
    there = next(folder for folder in database.parents if filesystem.exists(folder))
    free = filesystem.free_bytes(there)
    if wanted > free:
        raise Unavailable(
            f"no space left while restoring: the backup has {wanted:,} bytes, the disk of {there} has {free:,} left; "
            "free space, or restore to another disk"
        )


def complete_directory(folder: Path, names: set[str]) -> None:
    """What a restored directory has besides its files; all of it durable. names : of the files."""
    filesystem.make_dir(folder / "collections")
    filesystem.touch(folder / READERS)  # the first process that reads locks it
    folders = {(folder / name).parent for name in names} | {folder / "collections", folder}
    for one in sorted(folders, reverse=True):
        filesystem.sync_dir(one)


@contextmanager
def whole_directory(target: Path) -> Iterator[Path]:
    """A directory to fill, which becomes `target` at the end by one rename; on an error it is removed."""
    filesystem.make_dir(target.parent)
    folder = TemporaryFolder(target.parent, f"{target.name}.tmp-")
    try:
        yield folder.path
        try:
            folder.become(target)
        except OSError as error:
            if filesystem.kind_of(target) == "nothing":
                raise
            raise AlreadyExists(f"{target} exists by now; give a new directory") from error
    except BaseException:
        folder.remove()
        raise
    finally:
        filesystem.unlock(folder.lock_fd)
