"""Write transactions that note what they change, and files whose new bytes a commit counts.

    Store.begin_write -> RecordingTransaction over LMDB's -> at its commit: operations, ranges of files -> the log

What is to be known of files follows from the states that a commit writes: rows behind those that were counted before,
files that no earlier state named, what was appended to a list file. They are opened while they are there for certain,
before the commit returns, and read by whoever ships them: a seal or a vacuum may remove their names meanwhile.

Threads: one thread writes transactions. `OpenedFile` from any.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vecdb.errors import NotFound
from vecdb.replication.counted_files import files_of, row_bytes_of
from vecdb.replication.log.entry import DELETE, DELETE_PAIR, PUT, Operation
from vecdb.storage.disk import filesystem
from vecdb.storage.disk.paths import collection_folder, row_file_name
from vecdb.storage.kv import catalog, keys
from vecdb.storage.kv.store import Store, Txn

DATABASES = tuple(keys.DATABASES)
DATABASE_NAMES = tuple(name.decode() for name in DATABASES)
_STATE = DATABASES.index(keys.STATE)
_ROW_FILES_OPEN = 16
# what goes to LMDB as it is; a change that nobody records would make copies another database
_READS = frozenset({"abort", "get", "id", "stat"})
_CURSOR_READS = frozenset(
    {
        "close", "count", "first", "first_dup", "get", "getmulti", "item", "iternext", "iternext_dup", "iterprev",
        "key", "last", "last_dup", "next", "next_dup", "next_nodup", "prev", "prev_dup", "prev_nodup", "set_key",
        "set_key_dup", "set_range", "set_range_dup", "value",
    }
)  # fmt: skip


class OpenedFile:
    """A file that stays open, and readable, as long as somebody has it."""

    def __init__(self, path: Path) -> None:
        self.fd = -1
        self.fd = filesystem.open_read(path)

    def __del__(self) -> None:
        fd, self.fd = self.fd, -1
        if fd >= 0:
            filesystem.close(fd)


@dataclass(frozen=True, slots=True)
class NewBytes:
    """A range of a file that a commit counts for the first time. path : inside the database."""

    path: str
    offset: int
    length: int
    file: OpenedFile
    grows: bool  # it is the collection's row file: others belong to this commit alone


@dataclass(slots=True)
class RecordedCommit:
    """What one commit changed. cost_bytes : of memory, roughly."""

    sequence: int
    time_ns: int
    operations: list[Operation]
    cost_bytes: int
    ranges: list[NewBytes] = field(default_factory=list)

    @property
    def file_bytes(self) -> int:
        return sum(one.length for one in self.ranges)


class RecordingTransaction:
    """LMDB's write transaction, and what was changed through it. Reads go through as they are."""

    __slots__ = ("_done", "_numbers", "_txn", "cost_bytes", "operations")

    def __init__(self, txn: Txn, store: Store, done: Callable[[RecordingTransaction], Callable[[bool], None]]) -> None:
        """done(self) : called before the commit; returns what is to be called after it, with whether it succeeded."""
        self._txn = txn
        self._done = done
        self._numbers = {store.databases[name]: number for number, name in enumerate(DATABASES)}
        self.operations: list[Operation] = []
        self.cost_bytes = 0

    def __getattr__(self, name: str) -> Any:
        if name not in _READS:
            raise AttributeError(f"{name} of a transaction is not recorded")
        return getattr(self._txn, name)

    def note(self, code: int, database: Any, changed: list[bytes]) -> None:
        """Note an operation; those of one kind on one database in a row become one."""
        number, made = self._numbers[database], self.operations
        self.cost_bytes += sum(map(len, changed)) + 64 * len(changed)
        if made and made[-1][0] == code and made[-1][1] == number:
            made[-1][2].extend(changed)
        else:
            made.append((code, number, changed))

    def put(self, key: bytes, value: bytes, *, db: Any) -> bool:
        done: bool = self._txn.put(key, value, db=db)
        self.note(PUT, db, [bytes(key), bytes(value)])
        return done

    def delete(self, key: bytes, *, db: Any) -> bool:
        found: bool = self._txn.delete(key, db=db)
        if found:
            self.note(DELETE, db, [bytes(key)])
        return found

    def cursor(self, *, db: Any) -> RecordingCursor:
        return RecordingCursor(self, self._txn.cursor(db=db), db)

    def commit(self) -> None:
        after = self._done(self)
        try:
            self._txn.commit()
        except BaseException:
            after(False)
            raise
        after(True)


class RecordingCursor:
    """A cursor of a transaction that records."""

    __slots__ = ("_cursor", "_database", "_owner", "_pairs")

    def __init__(self, owner: RecordingTransaction, cursor: Any, database: Any) -> None:
        self._owner = owner
        self._cursor = cursor
        self._database = database
        flags = keys.DATABASES[DATABASES[owner._numbers[database]]]
        self._pairs = flags.get("dupsort", False)

    def __getattr__(self, name: str) -> Any:
        if name not in _CURSOR_READS:
            raise AttributeError(f"{name} of a cursor is not recorded")
        return getattr(self._cursor, name)

    def __iter__(self) -> Iterator[Any]:
        return iter(self._cursor)

    def put(self, key: bytes, value: bytes) -> bool:
        done: bool = self._cursor.put(key, value)
        self._owner.note(PUT, self._database, [bytes(key), bytes(value)])
        return done

    def putmulti(self, items: Iterable[tuple[bytes, bytes]]) -> tuple[int, int]:
        items = list(items)
        done: tuple[int, int] = self._cursor.putmulti(items)
        self._owner.note(PUT, self._database, [bytes(part) for item in items for part in item])
        return done

    def delete(self, dupdata: bool = False) -> bool:
        """As LMDB's: what the cursor stands at, and with `dupdata` all that its key has."""
        key = bytes(self._cursor.key())
        if self._pairs and not dupdata:
            code, changed = DELETE_PAIR, [key, bytes(self._cursor.value())]
        else:
            code, changed = DELETE, [key]
        done: bool = self._cursor.delete(dupdata)
        if done:  # it stood at something
            self._owner.note(code, self._database, changed)
        return done


# -- files -----------------------------------------------------------------------------------------


@dataclass(slots=True)
class _KnownCollection:
    generation: int
    row_bytes: int
    files: dict[str, int]


class CountedFiles:
    """Which files, and which bytes of them, the newest commit of each collection counts. Lives on the thread that
    commits.
    """

    def __init__(self, database: Path, store: Store) -> None:
        self._database = database
        self._store = store
        self._known: dict[int, _KnownCollection] = {}
        self._said: dict[int, _KnownCollection | None] = {}  # by a transaction that is about to commit
        self._row_files: OrderedDict[str, OpenedFile] = OrderedDict()
        with store.read() as txn:
            for name, raw in txn.cursor(db=store.catalog):
                entry = catalog.decode_entry(bytes(raw), catalog.decode_name(name))
                state = catalog.decode_state(txn.get(keys.uid(entry.uid), db=store.state), entry.name)
                row_bytes = row_bytes_of(entry)
                self._known[entry.uid] = _KnownCollection(state.generation, row_bytes, files_of(state, row_bytes))

    def new_bytes(self, recorded: RecordingTransaction) -> list[NewBytes]:
        """What the transaction, which is about to commit, counts for the first time. Raises OSError."""
        found: list[NewBytes] = []
        self._said = {}
        for uid, raw in _states_in(recorded.operations).items():
            if raw is None:
                self._said[uid] = None
            else:
                found += self._of_collection(recorded, uid, catalog.decode_state(raw, f"{uid:08x}"))
        return found

    def committed(self) -> None:
        """The transaction that was asked about last has committed."""
        for uid, known in self._said.items():
            before = self._known.pop(uid, None)
            if known is not None:
                self._known[uid] = known
            if before is not None and (known is None or known.generation != before.generation):
                self._row_files.pop(self._path(uid, row_file_name(before.generation)), None)  # its room is given back

    def _of_collection(self, txn: RecordingTransaction, uid: int, state: catalog.CommittedState) -> Iterator[NewBytes]:
        known = self._known.get(uid)
        if known is None or known.generation != state.generation:  # whose rows may have another dim
            row_bytes = row_bytes_of(catalog.entry_of(self._store, txn, uid))
        else:
            row_bytes = known.row_bytes
        files = files_of(state, row_bytes)
        before = {} if known is None else known.files
        self._said[uid] = _KnownCollection(state.generation, row_bytes, files)
        rows = row_file_name(state.generation)
        for name, length in files.items():
            first = before.get(name, 0)
            if length > first:
                path = self._path(uid, name)
                file = self._row_file(path) if name == rows else OpenedFile(self._database / path)
                yield NewBytes(path, first, length - first, file, name == rows)

    def _path(self, uid: int, name: str) -> str:
        return (collection_folder(self._database, uid) / name).relative_to(self._database).as_posix()

    def _row_file(self, path: str) -> OpenedFile:
        """Opening one at each commit would cost more than the rest."""
        opened = self._row_files.get(path)
        if opened is None:
            opened = self._row_files[path] = OpenedFile(self._database / path)
        self._row_files.move_to_end(path)
        while len(self._row_files) > filesystem.open_files_max(_ROW_FILES_OPEN):
            self._row_files.popitem(last=False)
        return opened


def _states_in(operations: Iterable[Operation]) -> dict[int, bytes | None]:
    """By uid, the states that operations leave behind; None of collections that they remove."""
    states: dict[int, bytes | None] = {}
    for code, number, changed in operations:
        if number == _STATE:
            for at in range(0, len(changed), 1 if code == DELETE else 2):
                if len(changed[at]) == keys.UID_BYTES:
                    states[int.from_bytes(changed[at], "big")] = None if code == DELETE else changed[at + 1]
    return states


def touched_collections(operations: Iterable[Operation]) -> set[int]:
    """The collections whose states operations change or remove."""
    return set(_states_in(operations))


def sequence_in(operations: Iterable[Operation]) -> int:
    """The number of the commit that operations make, which every commit writes. Raises NotFound."""
    for code, number, changed in reversed(list(operations)):
        if code == PUT and number == _STATE:
            for at in range(0, len(changed), 2):
                if changed[at] == keys.SEQUENCE:
                    return int.from_bytes(changed[at + 1], "little")
    raise NotFound("a commit without a number")


def _nobody_waits(reason: str | None) -> None:
    """Nobody is told."""


class Recorder:
    """Records the commits of one store, and hands them on in order. All is called on the thread that commits.

    ahead(sequence, commit) : before each commit; what it raises keeps it from being made.
    taken(sequence, commit) : after it; None where it could not be recorded.
    failed(sequence) : it was not made, after `ahead` had let it through.
    check : raises where nothing may be written any more.
    wait_for_copies, held_up : see `TransactionLog`; the former on the caller's thread.
    """

    def __init__(
        self,
        database: Path,
        store: Store,
        ahead: Callable[[int, RecordedCommit | None], None],
        taken: Callable[[int, RecordedCommit | None], None],
        failed: Callable[[int], None],
        check: Callable[[], None],
        wait_for_copies: Callable[[], None],
    ) -> None:
        self._store = store
        self._files = CountedFiles(database, store)
        self._ahead, self._taken, self._failed = ahead, taken, failed
        self._check = check
        self.wait_for_copies = wait_for_copies
        self.held_up: Callable[[str | None], None] = _nobody_waits

    def recording(self, txn: Txn) -> Any:
        try:
            self._check()
        except BaseException:
            txn.abort()
            raise
        return RecordingTransaction(txn, self._store, self._about_to_commit)

    def _about_to_commit(self, recorded: RecordingTransaction) -> Callable[[bool], None]:
        sequence, commit = sequence_in(recorded.operations), None
        try:
            ranges = self._files.new_bytes(recorded)
            commit = RecordedCommit(sequence, time.time_ns(), recorded.operations, recorded.cost_bytes, ranges)
        except OSError:  # too many open files: the log goes on with a snapshot
            pass
        self._ahead(sequence, commit)

        def after(made: bool) -> None:
            if not made:
                self._failed(sequence)
                return
            if commit is not None:
                self._files.committed()
            self._taken(sequence, commit)

        return after
