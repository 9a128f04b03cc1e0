"""Taking a database as it is at one commit, to copy it at leisure while it changes.

    LMDB's file -> pipe -> pieces of 1 MiB, each hashed; those that are not there yet go to a temporary file
    other files -> open descriptors, which keep what they show when a seal, a vacuum or a drop removes the names

Every page of LMDB's file stays where it is, so pieces without changed pages are the same in every copy. The first two
pages say which commit it is; a read transaction that sees the same commit says which files it needs.

What may change under an open descriptor: row files and list files grow behind what the commit counts; index and column
files never change. Only pages of row files whose rows have died are given back (maintenance/disk_room.py): that waits
(`Store.holding_rows`), or the row of a record that is alive in the copy would read as zeros.

Maintenance waits (`locks`) from before the commit is fixed until the files are open. Where there are more of them than
descriptors, it waits for the collections of the others until the end. Another process does not wait: where it has
removed a file meanwhile, all is begun anew.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from vecdb.errors import Unavailable
from vecdb.replication.backups.contents import files_at, path_in_database
from vecdb.storage.disk import filesystem, manifest
from vecdb.storage.disk.filesystem import PAGE
from vecdb.storage.disk.paths import collection_folder
from vecdb.storage.kv import counters, environment_files, history
from vecdb.storage.kv.history import History
from vecdb.storage.kv.store import LMDB_FORMAT, Store, Txn

LMDB_PIECE_BYTES = 1 << 20
_TRIES = 20
_DESCRIPTORS_MAX = 4_096  # of files that are kept open; fewer where the process may have fewer
_MANIFEST_BYTES_MAX = 1 << 16

IsKnown = Callable[[str, int], bool]
Locks = Callable[[], Iterable[tuple[int, AbstractContextManager[Any]]]]


class FilesMoved(Exception):
    """Another process has removed a file that the commit needs: a vacuum or a seal came in between."""


@dataclass(slots=True)
class TakenFile:
    """fd : -1 where there were no more descriptors; then the file is opened when it is read."""

    path: Path
    length: int
    fd: int
    witness: str

    def read(self, offset: int, view: memoryview) -> None:
        """Fill a buffer from that place. Raises FilesMoved, OSError."""
        fd = self.fd
        try:
            fd = fd if fd >= 0 else filesystem.open_read(self.path)
        except FileNotFoundError:
            raise FilesMoved(str(self.path)) from None
        try:
            done = filesystem.pread_into(fd, view, offset)
        finally:
            if fd != self.fd:
                filesystem.close(fd)
        if done != view.nbytes:
            raise OSError(f"{self.path} ended at byte {offset + done}, {self.length} are counted")


@dataclass(slots=True)
class LmdbPiece:
    """spooled : where it lies in the temporary file; -1 where it need not be sent."""

    sha256: str
    size: int
    spooled: int


@dataclass(slots=True)
class TakenDatabase:
    """What one commit needs. spool_fd : the temporary file."""

    sequence: int = 0
    history: History = field(default_factory=History)
    manifest: dict[str, Any] = field(default_factory=dict)
    files: dict[str, TakenFile] = field(default_factory=dict)
    lmdb: list[LmdbPiece] = field(default_factory=list)
    spool_fd: int = -1

    def witness_of(self, path: str) -> str:
        file = self.files.get(path)
        return "" if file is None else file.witness

    def read_spooled(self, piece: LmdbPiece, view: memoryview) -> None:
        if filesystem.pread_into(self.spool_fd, view, piece.spooled) != piece.size:
            raise OSError("the temporary file of a backup is shorter than what was written to it")


@contextmanager
def taken(path: Path, store: Store, locks: Locks, is_known: IsKnown) -> Iterator[TakenDatabase]:
    """The database at `path` as it is at one commit, until the end of the block.

    locks : of the maintenance of each collection, by uid; none in a process that reads.
    is_known : whether a piece with that sha256 and length need not be kept: it is there already.
    Raises FilesMoved, Unavailable where commits come faster than it can look.
    """
    with ExitStack() as stack:
        stack.enter_context(store.holding_rows())
        held = {uid: stack.enter_context(_Held(lock)) for uid, lock in locks()}
        found = TakenDatabase()
        found.spool_fd = _spool(path)
        stack.callback(filesystem.close, found.spool_fd)
        stack.callback(_close_all, found)
        copy, head = _begin_copy(stack, store, found, lambda txn: _open_files(path, store, txn, found))
        for uid, lock in held.items():
            if all(file.fd >= 0 for name, file in found.files.items() if name.startswith(path_in_database(uid, ""))):
                lock.release()
        _take_pages(copy, head, found, is_known)
        yield found


class _Held(AbstractContextManager["_Held"]):
    """A lock that may be released before its block ends."""

    def __init__(self, lock: AbstractContextManager[Any]) -> None:
        self._stack = ExitStack()
        self._stack.enter_context(lock)

    def release(self) -> None:
        self._stack.close()

    def __exit__(self, *_: Any) -> None:
        self.release()


def _spool(path: Path) -> int:
    try:
        return filesystem.open_unlinked(path)
    except OSError:  # a process that may only read; or the disk is full
        return filesystem.open_unlinked(None)


def _close_all(found: TakenDatabase) -> None:
    for file in found.files.values():
        if file.fd >= 0:
            filesystem.close(file.fd)


class _Copy:
    """LMDB's file, as it comes out of a pipe. The copying runs in a thread of its own."""

    def __init__(self, store: Store) -> None:
        self._read_fd, self._write_fd = filesystem.pipe()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, args=(store,), name="vecdb-backup-lmdb", daemon=True)
        self._thread.start()

    def _run(self, store: Store) -> None:
        try:
            store.write_pages(self._write_fd)
        except BaseException as error:
            self._error = error
        finally:
            filesystem.close(self._write_fd)

    def read(self, view: memoryview) -> int:
        """Fill a buffer; returns how many bytes there were, fewer at the end. Raises what the copying raised."""
        done = filesystem.read_into(self._read_fd, view)
        if done < view.nbytes:
            self._thread.join()
            if self._error is not None:
                raise self._error
        return done

    def close(self) -> None:
        filesystem.close(self._read_fd)  # the copying, where it is not done, ends with an error
        self._thread.join()


def _begin_copy(
    stack: ExitStack, store: Store, found: TakenDatabase, open_files: Callable[[Txn], None]
) -> tuple[_Copy, bytes]:
    """A copy of a commit, and its first two pages; what that commit needs is noted in `found`, its files are open."""
    for _ in range(_TRIES):
        copy = _Copy(store)
        try:
            head = bytearray(2 * PAGE)
            copy.read(memoryview(head))
            newest = environment_files.newest_meta(bytes(head))
            with store.read_all() as txn:
                if newest is not None and txn.id() == newest[1]:
                    found.sequence = counters.read(store, txn).sequence
                    found.history = history.read(store, txn)
                    open_files(txn)
                    stack.callback(copy.close)
                    return copy, bytes(head)
        except BaseException:
            copy.close()
            raise
        copy.close()  # a commit has come in between
    raise Unavailable(f"{store.path}: commits came faster than a backup could begin; try again")


def _open_files(path: Path, store: Store, txn: Txn, found: TakenDatabase) -> None:
    """Open what the commit needs. The directory's manifest is read now: whoever raises its format does so before the
    commit that needs it.
    """
    manifest.read(path, LMDB_FORMAT)
    found.manifest = msgspec.json.decode(filesystem.read_bytes(path / manifest.NAME, _MANIFEST_BYTES_MAX))
    descriptors = filesystem.open_files_max(_DESCRIPTORS_MAX)
    for uid, files in files_at(store, txn).items():
        for name, length in files.items():
            file = collection_folder(path, uid) / name
            try:
                fd = filesystem.open_read(file)
            except FileNotFoundError:
                raise FilesMoved(str(file)) from None
            found.files[path_in_database(uid, name)] = one = TakenFile(file, length, fd, filesystem.witness_of(fd))
            if len(found.files) > descriptors:
                filesystem.close(fd)
                one.fd = -1


def _take_pages(copy: _Copy, head: bytes, found: TakenDatabase, is_known: IsKnown) -> None:
    buffer = memoryview(bytearray(LMDB_PIECE_BYTES))  # one for all: large ones cost searches time when they are freed
    buffer[: len(head)] = head
    size = len(head) + copy.read(buffer[len(head) :])
    spooled = 0
    while size:
        data = buffer[:size]
        sha256 = hashlib.sha256(data).hexdigest()
        known = is_known(sha256, size)
        found.lmdb.append(LmdbPiece(sha256, size, -1 if known else spooled))
        if not known:
            filesystem.pwrite(found.spool_fd, data, spooled)
            spooled += size
        size = copy.read(buffer)
