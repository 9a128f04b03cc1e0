"""The LMDB environment of one database directory, which holds what is committed. The only module that opens LMDB.

Commit = one LMDB write transaction with sync. With durability "relaxed" the meta page is not synced
(`metasync=False`): a power cut may cost the last commit, never more. A temporary database (":memory:") syncs nothing.

Caveats of LMDB that this interface is built around
- Closing unmaps what reads look at: `close` waits for them.
- A buffer is valid as long as its transaction: without `buffers` values are copies, with it they must not leave the
  `with` block.
- A write transaction stays on the thread that began it: only committer.py's thread begins one.
- A reader process that died keeps pages from being reused: `clear_dead_readers` is called at open and each minute.
- LMDB maps its files, and would die of a bus error where they are shorter than it thinks: environment_files.py looks at
  them before.
- A process opens an environment once: its locks belong to the process. Who opens it a second time shares the Store.
- A forked child must not touch the parent's, nor close it, which would give away what the parent's readers hold:
  `abandon` leaves it as it is, for ever.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import signal
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import lmdb

from vecdb import limits
from vecdb.errors import Corruption, Locked, Poisoned, Unavailable
from vecdb.storage.disk import filesystem
from vecdb.storage.disk.filesystem import PAGE
from vecdb.storage.kv import environment_files, keys

LMDB_FORMAT = "0.9"  # data file format of lib_version=0; lmdb 3 can also write an incompatible one
_DATABASES_MAX = 16
READERS = "READERS"  # beside the environment's folder: every process that reads holds it
_COPY_BYTES = 16 << 20  # keys and values that a copy holds in one transaction
_COPY_ENTRIES = 512  # entries per stretch of bytecode
_MAP_BYTES_MIN = 1 << 26
_COMPACT_BYTES_MIN = 1 << 18  # fewer free bytes than this are not worth a copy
_SWAP_WAIT_S = 0.1  # for reads to finish, while those that begin wait
_CALM_WAIT_S = 5.0  # for reads to finish, while others begin
_LOOK_S = 0.1  # how often `close` looks whether reads have finished that did not say so
_DURABILITIES = ("none", "relaxed", "full")
_SPARE_BYTES = 1 << 20  # kept free behind LMDB's last page, so that deletes work on a full disk

Txn = Any  # lmdb.Transaction
MapFullError = lmdb.MapFullError
StoreError = lmdb.Error


class WriteTxn(Protocol):
    """A write transaction that several changes share, on the thread that began it."""

    store: Store
    txn: Txn
    sequence: int  # of the commit that it becomes


class TransactionLog(Protocol):
    """What records write transactions, so that copies of the database can repeat them.

    held_up : set by who commits. Told why a commit waits for the log longer than its callers should, and with None once
        it does so no longer. On the thread that commits.
    """

    held_up: Callable[[str | None], None]

    def recording(self, txn: Txn) -> Txn:
        """The same transaction, of which it is noted what it changes. Raises VecdbError where nothing may be written
        any more.
        """

    def wait_for_copies(self) -> None:
        """Wait until no copy answers without what is committed now. Raises Unavailable where that cannot be known."""


class CompactedCopy(NamedTuple):
    """A copy of LMDB's file without its free pages. transaction : the number of the commit that it shows."""

    folder: Path
    transaction: int


def _is_there() -> None:
    """Nobody looks."""


class _Counted:
    """A block in which a thread may touch the map, so that `close` waits for it.

    Ctrl-C can break in where any function begins, `__exit__` included: then the block has ended once this object is no
    more. It has no `__del__`, in which an interruption would be lost.
    """

    __slots__ = ("__weakref__", "_store")

    def __init__(self, store: Store) -> None:
        self._store = store

    def __enter__(self) -> Any:
        self._store._enter(self)

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        self._store._leave(self)


class _Read(_Counted):
    """A read transaction of a store. A class, since every search of a reading process makes one: a generator takes
    three microseconds more.
    """

    __slots__ = ("_buffers", "_txn")

    def __init__(self, store: Store, buffers: bool) -> None:
        self._store = store
        self._buffers = buffers
        self._txn: Txn | None = None

    def __enter__(self) -> Txn:
        self._store._enter(self)
        try:
            self._txn = self._store._env.begin(buffers=self._buffers)
        except BaseException as error:
            self._store._leave(self)
            if isinstance(error, lmdb.Error):
                raise store_error(error, "beginning a read") from error
            raise
        return self._txn

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        try:
            if self._txn is not None and not self._store._abandoned:  # it would end the parent's, which is the same
                self._txn.abort()
        finally:
            self._store._leave(self)
        if isinstance(error, lmdb.Error):
            raise store_error(error, f"reading {self._store.path}") from error


class Store:
    """One LMDB environment. Reads from any thread; writes from one thread only.

    read_only : nothing is to be made or written. The environment is still opened for writing where that is allowed, so
    that a writer of this process can share it.
    alone : no other process knows of it, so that it needs no lock file.
    """

    def __init__(
        self,
        path: Path,
        *,
        read_only: bool,
        durability: str,
        map_bytes: int = limits.lmdb_map_bytes,
        alone: bool = False,
    ) -> None:
        self.path = path
        self.read_only = read_only
        self._alone = alone
        self._gate_lock = threading.RLock()  # entered by itself: Ctrl-C may break into `__enter__` of a condition
        self._gate = threading.Condition(self._gate_lock)
        # by number of the object, blocks that may touch the map now: the thread that is in it, and the object
        self._reads: dict[int, tuple[int, weakref.ref[_Counted]]] = {}
        self._holders = 0  # of row files as they were at a commit
        self._parked = 0  # read transactions that are open but do not touch the map now
        self._map_bytes = map_bytes
        self._durability = durability
        self._closed = self._abandoned = False
        self._swapping = False  # the file is about to be replaced: reads that begin wait
        self._compacting = threading.Lock()
        self._completing = threading.Lock()
        self.log: TransactionLog | None = None  # set before the first transaction, by who writes
        self.check_there: Callable[[], None] = _is_there  # raises once the directory was removed; set by who writes
        self._open()

    def _open(self) -> None:
        environment_files.check_files(self.path)
        there = filesystem.exists(self.path / environment_files.DATA)
        if self.read_only and not there:
            raise Corruption(f"{self.path / environment_files.DATA} is missing; restore the database from a backup")
        self.writable = not there or (not self._alone and environment_files.may_write(self.path))
        if not self._alone:
            environment_files.allocate_lock_file(self.path)
        try:
            self._env = self._opened(self._map_bytes)
        except lmdb.Error as error:
            raise store_error(error, f"opening {self.path}") from error
        self._open_databases()
        if not self._alone:
            self.clear_dead_readers()
        spared = self.writable and self._durability != "none"
        self._spare_fd = filesystem.open_append(self.path / environment_files.DATA) if spared else -1
        self._allocated_bytes = 0

    def _opened(self, map_bytes: int) -> Any:
        """The environment, with less address space where the process may not have as much (`ulimit -v`)."""
        try:
            return lmdb.open(
                str(self.path),
                map_size=map_bytes,
                max_dbs=_DATABASES_MAX,
                max_readers=limits.lmdb_readers_max,
                mode=filesystem.file_mode_inside(self.path),
                readonly=not self.writable,
                create=not self.read_only,
                lock=not self._alone,
                sync=self._durability != "none",
                metasync=self._durability == "full",
                readahead=False,
                meminit=True,  # uninitialised heap bytes must not reach the disk
                max_spare_txns=64,
                lib_version=0,
            )
        except lmdb.MemoryError:
            if map_bytes // 4 < _MAP_BYTES_MIN:
                raise
            return self._opened(map_bytes // 4)

    def _open_databases(self) -> None:
        try:
            self._name(_open_all(self._env, create=not self.read_only))
        except lmdb.Error as error:
            self._env.close()
            raise store_error(error, f"opening {self.path}") from error

    def _name(self, databases: dict[bytes, Any]) -> None:
        self.databases = databases
        self.catalog, self.state, self.blocks, self.ids, self.tombs, *others = databases.values()
        self.tenants, self.members, self.access, self.requests, self.journal, *later = others
        # a crash may have come between the two: then they are completed by the next that opens it for writing
        self.changes: Any
        self.changed: Any
        self.changes, self.changed = later if len(later) == 2 else (None, None)

    @property
    def is_complete(self) -> bool:
        """Whether it has every database of this version; see `keys.ADDED_LATER`."""
        return self.changed is not None

    def _complete(self) -> None:
        """In a reading process: the writer has added databases since. Transactions that begin from now on see them."""
        with self._counted(), self._completing:
            if not self.is_complete:
                self._look_again()

    def _look_again(self) -> None:
        try:
            self._name(_open_all(self._env, create=not self.read_only))
        except lmdb.Error as error:
            raise store_error(error, f"reading {self.path}") from error

    def join(self, *, read_only: bool, durability: str) -> None:
        """Another user of this process shares the environment. Raises Unavailable where it cannot get what it wants."""
        if not read_only and not self.writable:
            raise Unavailable(f"{self.path} may not be written by this process")
        if not read_only and self.read_only:
            self.read_only = False
            with self._completing:
                self._look_again()
        if read_only or _DURABILITIES.index(durability) <= _DURABILITIES.index(self._durability):
            return  # a reader writes nothing, and the transaction of a writer may be under way
        with self._gate_lock:  # it was opened with less: open it anew
            calm = self._gate.wait_for(lambda: not self._is_read(), _CALM_WAIT_S)
            if not calm or self._parked:
                raise Unavailable(f"{self.path} is being read in this process; end its iterators, then open it again")
            self._env.close()
            self._close_spare()
            self._durability = durability
            self._open()

    # -- transactions ------------------------------------------------------------------------------

    def read(self, *, buffers: bool = False) -> AbstractContextManager[Txn]:
        """A read transaction: one committed state. Values are copies, or with `buffers` views that must not leave
        the block.
        """
        return _Read(self, buffers)

    def read_all(self, *, buffers: bool = False) -> AbstractContextManager[Txn]:
        """`read`, of every database that there is by then."""
        return self.read(buffers=buffers) if self.is_complete else self._read_completed(buffers)

    @contextmanager
    def _read_completed(self, buffers: bool) -> Iterator[Txn]:
        while True:
            complete = self.is_complete  # a transaction does not see databases that this process opens after its begin
            with self.read(buffers=buffers) as txn:
                if complete or txn.get(keys.ADDED_LATER[-1]) is None:  # the name of one is a key of the nameless one
                    yield txn
                    return
            self._complete()

    def _counted(self) -> AbstractContextManager[None]:
        """`close` unmaps the file, so it waits until no thread is inside this block."""
        return _Counted(self)

    def _enter(self, block: _Counted) -> None:
        thread = threading.get_ident()
        with self._gate_lock:
            if self._swapping:
                self._gate.wait_for(lambda: not self._swapping)
            self._refuse_closed()
            self._reads.pop(id(block), None)  # of one that is no more: the order is that in which they began
            self._reads[id(block)] = thread, weakref.ref(block)

    def _leave(self, block: _Counted) -> None:
        with self._gate_lock:
            self._reads.pop(id(block), None)
            if not self._reads or self._closed:
                self._gate.notify_all()

    def _is_read(self, but: int = 0) -> bool:
        """Under the gate: whether a thread, other than `but`, is in such a block."""
        for number, (_, block) in list(self._reads.items()):
            if block() is None:
                del self._reads[number]
        return any(thread != but for thread, _ in self._reads.values())

    @contextmanager
    def parked(self) -> Iterator[None]:
        """Inside `read`, around code that touches neither the transaction nor its buffers and may take long: an
        iterator between two batches. The store may be closed meanwhile; then the end of the block raises Unavailable.
        """
        thread = threading.get_ident()
        with self._gate_lock:
            number = [one for one, (inside, _) in self._reads.items() if inside == thread][-1]  # the innermost
            _, block = self._reads.pop(number)
            self._parked += 1
            self._gate.notify_all()
        try:
            yield
        finally:
            thread = threading.get_ident()  # which may be another
            with self._gate_lock:
                self._reads[number] = thread, block
                self._parked -= 1
        self._refuse_closed()

    def _refuse_closed(self) -> None:
        if self._closed:
            raise self.is_closed()

    def is_closed(self) -> Unavailable:
        """The error for calls after `close`."""
        return Unavailable(f"database {self.path.parent} is closed; open it again")

    def begin_write(self) -> Txn:
        """A write transaction; the caller commits or aborts it on this same thread."""
        txn = self._env.begin(write=True)
        return txn if self.log is None else self.log.recording(txn)

    def ensure_spare_room(self) -> None:
        """Before a transaction that adds: allocate the spare room that only deletions may use up. Raises OSError."""
        used_bytes = (self._env.info()["last_pgno"] + 1) * PAGE
        if self._spare_fd >= 0 and self._allocated_bytes < used_bytes + _SPARE_BYTES:
            filesystem.allocate(self._spare_fd, used_bytes + 2 * _SPARE_BYTES)
            self._allocated_bytes = used_bytes + 2 * _SPARE_BYTES

    def is_poisoned(self) -> bool:
        """Whether LMDB refuses every transaction because writing its meta page failed."""
        try:
            self._env.begin().abort()
            return False
        except lmdb.Error:
            return True

    def is_full(self) -> bool:
        """Whether the file cannot grow. LMDB reports a write that a full disk cut short just as a broken one."""
        try:
            if self._spare_fd >= 0:
                filesystem.allocate(self._spare_fd, filesystem.size(self._spare_fd) + _SPARE_BYTES)
            return False
        except OSError as error:
            return filesystem.is_full(error)

    # -- maintenance --------------------------------------------------------------------------------------

    def clear_dead_readers(self) -> int:
        return int(self._env.reader_check())

    def info(self) -> dict[str, int]:
        with self._counted():
            info = self._env.info()
        return {
            "map_bytes": info["map_size"],
            "used_bytes": (info["last_pgno"] + 1) * PAGE,
            "readers": info["num_readers"],
            "transaction": info["last_txnid"],
        }

    def copy(self, target: Path) -> int:
        """A consistent copy of the environment, without free pages, into the existing folder `target`, while writes
        go on. Not synced. Returns the number of the transaction that it shows.

        Made entry by entry: LMDB 0.9.36's own compacting copy reads beyond its memory, and dies, where the duplicates
        of a key fill pages of their own, as the rows of a tenant do.
        """
        try:
            made = lmdb.open(
                str(target), map_size=self._map_bytes, max_dbs=_DATABASES_MAX, sync=False, readahead=False,
                meminit=True, lock=False, mode=filesystem.file_mode_inside(target), lib_version=0,
            )  # fmt: skip
        except lmdb.Error as error:
            raise _copy_error(error, target) from error
        try:
            with self.read_all() as txn:
                try:
                    copies = _open_all(made, create=True)
                    for name, database in self.databases.items():
                        _copy_entries(txn.cursor(db=database), made, copies[name])
                except lmdb.Error as error:
                    raise _copy_error(error, target) from error
                return int(txn.id())
        finally:
            made.close()

    def write_pages(self, fd: int) -> None:
        """Write the environment's file, as it is at the newest commit, to a descriptor: a pipe, which somebody reads at
        once. Every page is where it is in the file, so that what did not change between two copies is the same in
        both; free pages come along. Reads and writes go on.
        """
        with self._counted():
            # who reads may stop reading: that is an error here, and no end of the process
            before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGPIPE})
            try:
                self._env.copyfd(fd)
            except lmdb.Error as error:
                raise store_error(error, f"copying {self.path}") from error
            finally:
                signal.sigtimedwait({signal.SIGPIPE}, 0)
                signal.pthread_sigmask(signal.SIG_SETMASK, before)

    @contextmanager
    def holding_rows(self) -> Iterator[None]:
        """Within the block nothing gives back pages of row files, whose rows die meanwhile: somebody reads the files
        themselves, as they were at a commit.
        """
        with self._gate_lock:
            self._holders += 1
        try:
            yield
        finally:
            with self._gate_lock:
                self._holders -= 1

    @contextmanager
    def read_by_nobody_else(self) -> Iterator[bool]:
        """Whether no other process, and no iterator or backup of this one, reads; processes that begin to wait for the
        end of the block.
        """
        filesystem.touch(self.path.parent / READERS)
        alone = filesystem.lock_alone(self.path.parent / READERS)
        try:
            yield alone is not None and not self._parked and not self._holders
        finally:
            if alone is not None:
                filesystem.unlock(alone)

    @contextmanager
    def compacted_copy(self) -> Iterator[CompactedCopy | None]:
        """Beside reads and commits: a copy on disk, without free pages, for `swap_for`. None where it would give little
        back, and where somebody reads who keeps the file from being replaced.
        """
        if not self.writable or self._free_bytes() < _COMPACT_BYTES_MIN or not self._compacting.acquire(blocking=False):
            yield None
            return
        folder = self.path / "copy"
        try:
            self.check_there()
            with self.read_by_nobody_else() as alone:
                pass  # asked for the answer alone: who begins to read meanwhile need not wait for the copy
            yield self._compacted_copy(folder) if alone else None
        finally:
            filesystem.remove_tree(folder)
            self._compacting.release()

    def swap_for(self, copy: CompactedCopy) -> bool:
        """Commit thread, between transactions: give the free pages of LMDB's file back to the file system.

        LMDB's file never gets smaller by itself. The copy takes its name in one rename: a crash leaves one or the
        other, both with the same data. This is done only where nothing was committed since the copy, while no other
        process reads (each holds READERS, which a new one waits for) and no iterator of this process is parked. Reads
        that begin wait for it, at most _SWAP_WAIT_S. Returns whether it was done.
        """
        with self.read_by_nobody_else() as alone, self._gate_lock:
            if not alone or self._closed or self._env.info()["last_txnid"] != copy.transaction:
                return False
            self._swapping = True
            try:
                calm = self._gate.wait_for(lambda: not self._is_read(), _SWAP_WAIT_S)
                if not calm or self._parked or self._closed:
                    return False
                self._swap_for(copy.folder)
                return True
            finally:
                self._swapping = False
                self._gate.notify_all()

    def _free_bytes(self) -> int:
        """Bytes of the file that hold nothing."""
        with self.read() as txn:
            trees = (self._env.stat(), *map(txn.stat, self.databases.values()))
            pages = sum(tree["branch_pages"] + tree["leaf_pages"] + tree["overflow_pages"] for tree in trees)
        return int((self._env.info()["last_pgno"] + 1 - pages) * PAGE)

    def _compacted_copy(self, folder: Path) -> CompactedCopy:
        filesystem.remove_tree(folder)
        filesystem.make_dir(folder)
        transaction = self.copy(folder)
        if self._durability != "none":
            fd = filesystem.open_append(folder / environment_files.DATA)
            try:
                filesystem.fsync(fd)
            finally:
                filesystem.close(fd)
        return CompactedCopy(folder, transaction)

    def _swap_for(self, folder: Path) -> None:
        """Under the gate, nobody reading or writing."""
        data = self.path / environment_files.DATA
        self._env.close()
        self._close_spare()
        try:
            filesystem.rename(folder / environment_files.DATA, data)
            if self._durability != "none":
                filesystem.sync_dir(self.path)
        finally:
            self._open()  # the copy, or where the rename failed the file as it was

    def sync(self) -> None:
        with self._counted():
            try:
                self._env.sync(True)
            except lmdb.Error as error:
                raise store_error(error, f"syncing {self.path}") from error

    def close(self, caller: int | None = None) -> None:
        """Wait for reads that are under way, then unmap. caller : the thread that waits for this, None for the present
        one. A read of its own is not under way: Ctrl-C broke in where it would have ended.
        """
        own = caller or threading.get_ident()
        with self._gate_lock:
            self._closed = True
            while self._is_read(but=own):
                self._gate.wait(_LOOK_S)  # a block whose end was broken off tells nobody
            self._env.close()
            self._close_spare()

    def _close_spare(self) -> None:
        if self._spare_fd >= 0:
            filesystem.close(self._spare_fd)
            self._spare_fd = -1

    def abandon(self) -> None:
        """In a forked child: leave the parent's environment as it is, and let this process open its own."""
        self._abandoned = True
        _never_free(self._env)
        _forget_open_files()


def _open_all(env: Any, *, create: bool) -> dict[bytes, Any]:
    """The named databases of an environment, each with its flags. Those added later may be missing, all of them."""
    found = {}
    for name, flags in keys.DATABASES.items():
        try:
            found[name] = env.open_db(name, create=create, **flags)
        except lmdb.NotFoundError:
            if name not in keys.ADDED_LATER:
                raise
            break
    return found


def _copy_entries(source: Any, target: Any, database: Any) -> None:
    """Append all that the cursor `source` walks over, in order, to `database` of the environment `target`."""
    entries = iter(source.iternext())
    more = True
    while more:
        size_bytes = 0
        with target.begin(write=True, db=database) as txn:
            cursor = txn.cursor()
            while more and size_bytes < _COPY_BYTES:
                part = list(itertools.islice(entries, _COPY_ENTRIES))
                cursor.putmulti(part, append=True)
                size_bytes += sum(len(key) + len(value) for key, value in part)
                more = len(part) == _COPY_ENTRIES
                time.sleep(0)  # the interpreter lock is offered to whoever searches


def _copy_error(error: Exception, target: Path) -> Exception:
    """LMDB calls a write that a full disk cut short an error of the disk: then its room is looked at."""
    if "No space" in str(error) or filesystem.free_bytes(target) < _SPARE_BYTES:
        return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(target))
    return store_error(error, f"copying to {target}")


def _never_free(env: Any) -> None:
    """Freeing an environment closes it, and a child that does gives away the slots of the parent's readers."""
    import ctypes

    ctypes.pythonapi.Py_IncRef(ctypes.py_object(env))


def _forget_open_files() -> None:
    """In a forked child: the binding keeps the files that are open, by device and inode, and refuses them a second
    time. Those are the parent's: from now on the child's own have its process number, too.
    """
    with contextlib.suppress(ImportError, AttributeError):
        from lmdb import _envid

        key_of_file: Any = _envid._file_key
        pid = os.getpid()
        _envid._file_key = lambda path: (found := key_of_file(path)) and (*found, pid)


def store_error(error: Exception, doing: str) -> Exception:
    if "already open in this process" in str(error):
        return Locked(f"{doing}: this process has it open already; use that Database, or close it first")
    if isinstance(error, (lmdb.CorruptedError, lmdb.InvalidError, lmdb.PageNotFoundError, lmdb.VersionMismatchError)):
        return Corruption(f"{doing}: LMDB says {error}; restore the database from a backup")
    if isinstance(error, lmdb.PanicError):
        return Poisoned(f"{doing}: a failed write left LMDB unsure ({error}); close the database and open it again")
    if isinstance(error, lmdb.ReadersFullError):
        return Unavailable(f"{doing}: {limits.lmdb_readers_max} readers are active already; close some and try again")
    return Unavailable(f"{doing} failed: {error}")
