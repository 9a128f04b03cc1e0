"""The directory of a copy: what the log says is done to it, in the order that a crash may cut anywhere.

    bytes of files, synced -> one transaction of LMDB: the commits' operations, and where in the log that is
    -> COMMITTED -> files that no state names any more go

Up to the transaction nothing has happened that anybody sees: rows behind those that are counted, files that nothing
names. Whoever opens the directory after a kill goes on from the position that LMDB holds.

Readers, in this process and in others, follow as they follow a writer (state/collection_state.py).
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from pathlib import Path

import msgspec

from vecdb.errors import Corruption, InvalidArgument, Unavailable
from vecdb.maintenance.garbage import remove_unnamed_files, states_of
from vecdb.replication.log import entry
from vecdb.replication.log.entry import DELETE, PUT, Commits, FileRange, Operation, Position, SnapshotPart
from vecdb.replication.log.epochs import FOLLOWED, LogEnd, leads_on, read
from vecdb.replication.log.recording import touched_collections
from vecdb.replication.log.snapshot import SnapshotManifest
from vecdb.replication.objects import Bucket
from vecdb.storage.disk import commit_mark, filesystem, manifest
from vecdb.storage.kv import catalog, counters, keys
from vecdb.storage.kv.store import LMDB_FORMAT, Store, Txn

NOTE = "LOG"  # in the directory: who writes its log
FOLLOWS = "FOLLOWS"  # in a copy: it follows. A backup of a copy has none, and is restored as a database of its own
_NOTE_BYTES_MAX = 1 << 10
_FETCH_BYTES = 8 << 20


class Followed(msgspec.Struct, frozen=True):
    """What a copy knows of its log. database : whose log it is."""

    database: str
    epoch: int
    sequence: int
    object: int


_encoder, _decoder = msgspec.msgpack.Encoder(), msgspec.msgpack.Decoder(Followed)


def followed(path: Path, store: Store, txn: Txn) -> Followed | None:
    """Where a directory is in the log that it follows; None where it follows none. Raises Corruption."""
    raw = txn.get(FOLLOWED, db=store.state)
    if raw is None or filesystem.kind_of(path / FOLLOWS) == "nothing":
        return None
    body = bytes(raw[4:])
    try:
        if zlib.crc32(body).to_bytes(4, "little") != bytes(raw[:4]):
            raise msgspec.ValidationError("its checksum differs")
        return _decoder.decode(body)
    except msgspec.MsgspecError as error:
        raise Corruption(f"{store.path}: the position in the log is damaged ({error}); remove this copy") from None


class CopyDirectory:
    """A directory that follows a log. One process, one thread of it, at a time."""

    def __init__(self, path: Path, store: Store, bucket: Bucket, *, durable: bool, own: Followed | None = None) -> None:
        """own : where the directory is in a log that it has written itself; None: it is a copy.

        Raises InvalidArgument where it is a database of its own.
        """
        self._is_copy = own is None
        self._path = path
        self._store = store
        self._bucket = bucket
        self._durable = durable
        with store.read_all() as txn:
            self._at = own or followed(path, store, txn)
            newest = counters.read(store, txn).sequence
        if self._at is None and newest:
            raise InvalidArgument(
                f"{path} holds a database of its own, with {newest} commits; give an empty directory for the copy"
            )
        self._mark = commit_mark.CommitMark(path, newest, lag=0) if durable else None
        remove_unnamed_files(path, store, states_of(store))  # of a kill

    @property
    def position(self) -> Position | None:
        at = self._at
        return None if at is None else Position(at.epoch, at.sequence, at.object)

    @property
    def database(self) -> str | None:
        return None if self._at is None else self._at.database

    def close(self) -> None:
        if self._mark is not None:
            self._mark.close()

    # -- commits -----------------------------------------------------------------------------------

    def apply(self, found: Commits, number: int) -> None:
        """Apply what an object of the log holds, but for what is applied already. number : of the object.

        Raises Corruption where it does not go on from here.
        """
        at, where = self._at, f"{self._bucket.url}: {entry.log_key(found.epoch, number)}"
        if at is None or found.database != at.database or found.epoch != at.epoch:
            raise Corruption(f"{where}: epoch {found.epoch} of database {found.database}, expected {at}")
        commits = [one for one in found.commits if one.sequence > at.sequence]
        for place, one in enumerate(commits):
            if one.sequence != at.sequence + 1 + place:
                raise Corruption(f"{where}: commit {one.sequence} comes after {at.sequence + place}")
        if not commits:
            return
        self._raise_format(max(one.format_version for one in commits))
        self._write_ranges((range_ for one in commits for range_ in one.ranges), where)
        databases = self._handles(found.databases, where)
        newest = Followed(at.database, at.epoch, commits[-1].sequence, number)

        def change(txn: Txn) -> None:
            for one in commits:
                _apply(txn, databases, one.operations, where)

        self._commit(change, newest)
        touched = touched_collections(operation for one in commits for operation in one.operations)
        remove_unnamed_files(self._path, self._store, states_of(self._store), touched)

    def go_to(self, position: Position) -> None:
        """Another epoch goes on exactly here."""
        assert self._at is not None
        newest = Followed(self._at.database, *position)
        self._commit(lambda txn: None, newest)

    def become_own(self) -> None:
        """The directory is a copy no longer."""
        txn = self._store.begin_write()
        txn.delete(FOLLOWED, db=self._store.state)
        txn.commit()
        filesystem.remove(self._path / FOLLOWS)

    def _commit(self, change: Callable[[Txn], None], newest: Followed) -> None:
        store = self._store
        txn = store.begin_write()
        try:
            change(txn)
            if (found := counters.read(store, txn).sequence) != newest.sequence:
                raise Corruption(f"{self._bucket.url}: commit {newest.sequence} of the log says that it is {found}")
            if self._is_copy:
                body = _encoder.encode(newest)
                txn.put(FOLLOWED, zlib.crc32(body).to_bytes(4, "little") + body, db=store.state)
            txn.commit()
        except BaseException:
            txn.abort()
            raise
        self._at = newest
        if self._mark is not None:
            self._mark.write(newest.sequence)

    def _raise_format(self, version: int) -> None:
        if version > manifest.NEWEST_VERSION:
            raise Unavailable(
                f"the log has commits of format {version}, this vecdb reads up to {manifest.NEWEST_VERSION}; upgrade "
                "vecdb here"
            )
        manifest.raise_to(self._path, version, sync=self._durable)

    def _handles(self, names: Iterable[str], where: str) -> list[object]:
        try:
            return [self._store.databases[name.encode()] for name in names]
        except KeyError as error:
            raise Unavailable(f"{where}: has a database {error}, which this vecdb does not know; upgrade it") from None

    # -- files -------------------------------------------------------------------------------------

    def _write_ranges(self, ranges: Iterable[FileRange], where: str, *, again: bool = False) -> None:
        """Put bytes where they belong, and sync them. again : they may be there already."""
        opened: dict[str, int] = {}
        folders: set[Path] = set()
        with ExitStack() as stack:
            for one in ranges:
                entry.check_range(one, where)
                if one.path not in opened:
                    file = self._path / one.path
                    if filesystem.make_dir(file.parent):
                        folders.add(file.parent.parent)
                    if not filesystem.exists(file):
                        folders.add(file.parent)
                    opened[one.path] = filesystem.open_append(file, create=not filesystem.exists(file))
                    stack.callback(filesystem.close, opened[one.path])
                self._write_range(opened[one.path], one, where, again)
            if self._durable:
                for fd in opened.values():
                    filesystem.fdatasync(fd)
        if self._durable:
            for folder in sorted(folders, reverse=True):
                filesystem.sync_dir(folder)

    def _write_range(self, fd: int, one: FileRange, where: str, again: bool) -> None:
        there = again and filesystem.size(fd) >= one.offset + one.length
        if there and filesystem.crc_of(fd, one.offset, one.length) == one.crc:
            return
        if not one.key:
            if zlib.crc32(one.data) != one.crc:
                raise Corruption(f"{where}: the bytes of {one.path} at {one.offset} are damaged")
            filesystem.pwrite(fd, one.data, one.offset)
            return
        done = crc = 0
        while done < one.length:
            part = self._bucket.read_range(one.key, done, min(_FETCH_BYTES, one.length - done))
            if not part:
                raise Corruption(f"{self._bucket.url}: {one.key} ends at byte {done} of {one.length}")
            crc = zlib.crc32(part, crc)
            filesystem.pwrite(fd, part, one.offset + done)
            done += len(part)
        if crc != one.crc:
            raise Corruption(f"{self._bucket.url}: {one.key} is damaged: crc {crc:08x}, not {one.crc:08x}")

    # -- a snapshot --------------------------------------------------------------------------------

    def install(self, found: SnapshotManifest) -> None:
        """Become what a snapshot holds, in one transaction: of an empty directory, or of an earlier state of the same
        database, whose rows must be those that the snapshot has. Raises Corruption where they are not.
        """
        if filesystem.kind_of(self._path / FOLLOWS) == "nothing":
            filesystem.touch(self._path / FOLLOWS)
            if self._durable:
                filesystem.sync_dir(self._path)
        where = f"{self._bucket.url}: snapshot {found.position[1]} of epoch {found.position[0]}"
        if self._at is not None and self._at.database != found.database:
            raise Corruption(f"{where}: is of database {found.database}, this copy is of {self._at.database}")
        if found.manifest.format_version > manifest.NEWEST_VERSION or found.manifest.lmdb_format != LMDB_FORMAT:
            raise Unavailable(f"{where}: format {found.manifest.format_version}; upgrade vecdb here")

        def change(txn: Txn) -> None:
            for database in self._store.databases.values():
                txn.drop(database, delete=False)
            for key in found.parts:
                self._fill(txn, key, found.database)
            self._check_same_history(txn, where)
            if manifest.read(self._path, LMDB_FORMAT) != found.manifest:
                manifest.write(self._path, found.manifest, sync=self._durable)
            self._write_ranges((one for ranges in found.files.values() for one in ranges), where, again=True)

        self._commit(change, Followed(found.database, *found.position))
        remove_unnamed_files(self._path, self._store, states_of(self._store))

    def _fill(self, txn: Txn, key: str, database: str) -> None:
        where = f"{self._bucket.url}: {key}"
        raw = self._bucket.get(key)
        if raw is None:
            raise Unavailable(f"{where} is gone: another snapshot has taken its place")
        part = entry.decode_as(raw, SnapshotPart, where)
        if part.database != database:
            raise Corruption(f"{where}: is of database {part.database}, expected {database}")
        _apply(txn, self._handles(part.databases, where), part.operations, where)

    def _check_same_history(self, txn: Txn, where: str) -> None:
        """The rows that are counted here must be the first of those that the transaction counts, since readers look at
        them while the rest is written behind.
        """
        store = self._store
        with store.read_all() as before:
            for name, raw in before.cursor(db=store.catalog):
                uid = catalog.decode_entry(bytes(raw), catalog.decode_name(name)).uid
                old, new = (one.get(keys.uid(uid), db=store.state) for one in (before, txn))
                states = [None if one is None else catalog.decode_state(bytes(one), f"{uid:08x}") for one in (old, new)]
                if states[0] is None or states[1] is None or states[0].generation != states[1].generation:
                    continue
                prefix = keys.prefix(uid, states[0].generation)
                cursor = before.cursor(db=store.blocks)
                found = cursor.set_range(prefix)
                while found and bytes(cursor.key()).startswith(prefix):
                    if txn.get(bytes(cursor.key()), db=store.blocks) != bytes(cursor.value()):
                        raise Corruption(
                            f"{where}: collection {catalog.decode_name(name)!r} has other rows there than this "
                            f"copy at {self._path}: the writer was put back to an earlier state. Remove the copy, and "
                            "make it anew"
                        )
                    found = cursor.next()


# -- a writer's own log ----------------------------------------------------------------------------


def note_writer(path: Path, writer: str, *, durable: bool) -> None:
    """Before an epoch begins: note in the directory who writes it."""
    filesystem.write_atomic(path / NOTE, [writer.encode()], sync=durable)


def take_own_tail(bucket: Bucket, path: Path, store: Store, end: LogEnd, *, durable: bool) -> None:
    """Commits that this directory's writer has put into the log, and was killed before it made them here."""
    with store.read_all() as txn:
        sequence = counters.read(store, txn).sequence
    there = filesystem.kind_of(path / NOTE) != "nothing"
    noted = filesystem.read_bytes(path / NOTE, _NOTE_BYTES_MAX).decode("ascii", "replace") if there else ""
    if end.position.sequence <= sequence or not noted or noted != end.last.writer:
        return
    epoch = end.position.epoch
    own = CopyDirectory(
        path, store, bucket, durable=durable, own=Followed(end.database, epoch, sequence, end.position.object)
    )
    try:
        while sequence < end.position.sequence:
            found = read(bucket, entry.log_key(epoch, sequence + 1))
            if not isinstance(found, Commits):
                raise Corruption(f"{bucket.url}: commit {sequence + 1} of epoch {epoch} is not there")
            with store.read_all() as txn:
                if not leads_on(store, txn, found, sequence):
                    raise InvalidArgument(
                        f"the log {bucket.url} and {path} have parted: commit {sequence} of the one is not that of the "
                        "other. Give this directory a prefix of its own"
                    )
            own.apply(found, sequence + 1)
            sequence = found.commits[-1].sequence
    finally:
        own.close()


def _apply(txn: Txn, databases: list[object], operations: list[Operation], where: str) -> None:
    """Do in LMDB what the operations say."""
    for code, number, changed in operations:
        if not 0 <= number < len(databases):
            raise Corruption(f"{where}: names database {number} of {len(databases)}")
        cursor = txn.cursor(db=databases[number])
        if code == PUT:
            cursor.putmulti(list(zip(changed[::2], changed[1::2], strict=True)))
        elif code == DELETE:
            for key in changed:
                if cursor.set_key(key):
                    cursor.delete(dupdata=True)
        else:
            for key, value in zip(changed[::2], changed[1::2], strict=True):
                if cursor.set_key_dup(key, value):
                    cursor.delete()
