"""The committed state of one collection in this process: it is loaded, follows new commits, and has an index.

    state in LMDB -> Generation (rows, ids, deletions) + index -> Snapshot      replaced by each commit, never changed

Threads: `snapshot` is replaced by the commit thread (in the writing process) or under `_refresh_lock` (in a reading
one); a search uses the one snapshot that it took.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from vecdb import limits
from vecdb.errors import Corruption, Unavailable, VecdbError
from vecdb.index.contract import Index
from vecdb.index.row_set import RowSet
from vecdb.schema import CollectionConfig
from vecdb.state import index_factory
from vecdb.state.generation import Generation
from vecdb.state.snapshot import Snapshot, snapshot_of
from vecdb.storage.disk import filesystem
from vecdb.storage.disk.paths import collection_folder
from vecdb.storage.disk.row_file import Rows
from vecdb.storage.kv import catalog, keys
from vecdb.storage.kv.store import Store, Txn
from vecdb.validate.not_found import collection_not_found

_log = logging.getLogger("vecdb")
_LOAD_TRIES = 10
_ROW_BYTES = 12  # crc and id, or where its id ends
_WRITTEN_S = 2.0  # a collection that was written to within this time is being written to


class CollectionState:
    """The committed state of one collection. The writing process publishes it, a reading process follows it.

    durable : whether commits are synced to the disk.   dropped : the collection is gone.
    index_error : why its index is being replaced, None while it is sound.
    sealed_damaged : the sealed file that the state names could not be used: it is to be written anew.
    check_usable : raises where the database is closed, this process is a fork of the one that opened it, or what is
    here may be of the past.   check_changes : the same before something is changed: what the log itself refuses may be
    tried.
    wake_maintenance : tells the maintenance thread that there may be work; cheap, from any thread.
    """

    def __init__(
        self,
        database: Path,
        store: Store,
        entry: catalog.CollectionEntry,
        *,
        writable: bool,
        durable: bool,
        check_usable: Callable[[], None],
        check_changes: Callable[[], None],
        wake_maintenance: Callable[[], None],
        memory_budget_bytes: int | None,
    ) -> None:
        self.entry = entry
        self.store = store
        self.database = database
        self.folder = collection_folder(database, entry.uid)
        self.state_key = keys.uid(entry.uid)  # in `store.state`
        self.writable = writable
        self.durable = durable
        self.check_usable, self.check_changes = check_usable, check_changes
        self.wake_maintenance = wake_maintenance
        self.dropped = False
        self.index_error: str | None = None
        self.sealed_damaged = False
        self._memory_budget_bytes = memory_budget_bytes
        self._refresh_lock = threading.Lock()
        self._earlier: list[weakref.ref[Snapshot]] = []
        self._written_at = -_WRITTEN_S  # by the monotonic clock
        self.snapshot, self._raw_state = self._load_newest()

    # -- loading -----------------------------------------------------------------------------------

    def committed(self, txn: Txn) -> catalog.CommittedState:
        """The state that `txn` sees. Raises NotFound where the collection was dropped."""
        return self._committed(txn)[1]

    def _committed(self, txn: Txn) -> tuple[bytes, catalog.CommittedState]:
        """(as stored, decoded)."""
        raw = txn.get(self.state_key, db=self.store.state)
        if raw is None:
            self.dropped = True
            raise collection_not_found(self.entry.name)
        return raw, catalog.decode_state(raw, self.entry.name)

    def _load_newest(self) -> tuple[Snapshot, bytes]:
        """What is committed now, and its state as stored. A reading process may lose a race with a vacuum that removes
        the files: then it tries again.
        """
        tries = 0
        while True:
            tries += 1
            try:
                with self.store.read_all() as txn:
                    return self._load(txn, last_try=tries == _LOAD_TRIES)
            except FileNotFoundError:
                if self.writable or tries == _LOAD_TRIES:
                    raise Corruption(
                        f"{self.folder}: the row file is missing; restore the database from a backup"
                    ) from None

    def _load(self, txn: Txn, *, last_try: bool) -> tuple[Snapshot, bytes]:
        """Read the generation that the state names into memory."""
        raw, state = self._committed(txn)
        if not self.entry.dim:  # perhaps another process has given it one
            self.entry.dim = catalog.entry_of(self.store, txn, self.entry.uid).dim
        self._check_budget(state)
        self.index_error = None
        generation = Generation(self.store, self.folder, self.entry, state, writable=self.writable)
        try:
            generation.catch_up(txn, state)
            generation.rows.cover_holes()
            self._load_index(generation, state, last_try=last_try)
        except BaseException:
            generation.close()
            raise
        return snapshot_of(generation, state), raw

    def _check_budget(self, state: catalog.CommittedState) -> None:
        """Refuse a collection that would not fit, before anything of its size is read."""
        config = index_factory.config_in(state.index)
        kind = index_factory.kind_of(config)
        if kind.follows_memory_budget:
            return
        needed = state.row_count * (_ROW_BYTES + kind.bytes_per_row(config, self.entry.dim))
        if self._memory_budget_bytes is not None and needed > self._memory_budget_bytes:
            raise Unavailable(
                f"collection {self.entry.name!r} needs about {needed:,} bytes of memory, memory_budget_bytes is "
                f"{self._memory_budget_bytes:,}; open the database with a larger budget, vacuum, or reindex to Flat()"
            )

    # -- the newest state --------------------------------------------------------------------------

    def current(self, *, to_change: bool = False) -> Snapshot:
        """The newest committed snapshot. Raises where the database is closed, forked, or the collection dropped.

        to_change : it is for what changes the collection, or keeps it in order, and tells nobody what it holds.
        """
        if to_change:
            self.check_changes()
        else:
            self.check_usable()
        if self.dropped:
            raise collection_not_found(self.entry.name)
        if not self.writable:
            self._refresh()
        return self.snapshot

    def _refresh(self) -> None:
        """A reading process: catch up with what the writer has committed since."""
        with self.store.read_all() as txn:
            raw = txn.get(self.state_key, db=self.store.state)
            if raw == self._raw_state:
                return
            with self._refresh_lock:
                raw, state = self._committed(txn)
                if state.sequence <= self.snapshot.state.sequence:
                    return  # another thread was faster
                if state.generation == self.snapshot.state.generation and state.sealed == self.snapshot.state.sealed:
                    generation = self.snapshot.generation
                    with contextlib.suppress(FileNotFoundError):  # a vacuum has come since: its files are loaded below
                        generation.catch_up(txn, state)
                        generation.index.publish_rows(state.row_count)
                        self.snapshot, self._raw_state = snapshot_of(generation, state), raw
                        return
        with self._refresh_lock:
            old = self.snapshot
            self.snapshot, self._raw_state = self._load_newest()
            old.generation.close()  # its descriptor; searches that hold it keep its arrays

    def publish(self, state: catalog.CommittedState, generation: Generation | None = None) -> None:
        """Commit thread: what searches see from now on. generation : another one, after a vacuum."""
        self._written_at = time.monotonic()
        self._earlier = [one for one in self._earlier if one() is not None]
        self._earlier.append(weakref.ref(self.snapshot))
        self.snapshot = snapshot_of(generation or self.snapshot.generation, state)
        self.wake_maintenance()

    def earlier_snapshot_in_use(self) -> bool:
        """Whether a search of this process looks at an earlier commit of this collection."""
        return any(one() is not None for one in self._earlier)

    def is_written(self) -> bool:
        """Whether this process has committed changes of the collection lately."""
        return time.monotonic() - self._written_at < _WRITTEN_S

    def snapshot_for_tenants(self, tenants: tuple[str, ...]) -> tuple[Snapshot, RowSet]:
        """The newest snapshot, and the rows of the union of these tenants (distinct names) in it. Raises NotFound where
        one is unknown.
        """
        while True:
            snapshot = self.current()
            allowed = snapshot.generation.tenants.rows_at(tenants, snapshot.visibility)
            if allowed is not None:
                return snapshot, allowed
            time.sleep(0)  # commits have come in between, or one is about to be published

    @contextmanager
    def reading(self, *, to_change: bool = False) -> Iterator[tuple[Txn, Generation, catalog.CommittedState]]:
        """A read transaction (with buffers), the loaded generation that it reads, and its state. to_change : it is for
        what changes it.
        """
        while True:
            generation = self.current(to_change=to_change).generation
            with self.store.read_all(buffers=True) as txn:
                raw = txn.get(self.state_key, db=self.store.state)
                if raw is None:
                    raise collection_not_found(self.entry.name)
                state = catalog.decode_state(bytes(raw), self.entry.name)
                if state.generation == generation.number:
                    yield txn, generation, state
                    return
            time.sleep(0.001)  # a vacuum has committed and is about to publish, or published between the two looks

    def config(self) -> CollectionConfig:
        return catalog.config_of(self.entry, self.current(to_change=True).state)

    # -- its index ---------------------------------------------------------------------------------

    def _load_index(self, generation: Generation, state: catalog.CommittedState, *, last_try: bool) -> None:
        """Give `generation` its index: the sealed file where there is a sound one, else an empty structure that is
        built anew.
        """
        if state.sealed is None:
            generation.attach(self.new_index(state.index, generation.rows))
        else:
            try:
                generation.attach(self.open_sealed_index(snapshot_of(generation, state), mapped=not self.writable))
            except (Corruption, FileNotFoundError) as error:
                if isinstance(error, FileNotFoundError) and not self.writable and not last_try:
                    raise  # the writer has sealed anew since: the caller looks again
                # Derived data: the rows are the truth. Answers are exact until maintenance has built the index again.
                self._note_damage(error)
                generation.attach(self.new_index(state.index, generation.rows))
        generation.index.publish_rows(state.row_count)

    def _note_damage(self, error: Exception) -> None:
        self.index_error = str(error)
        self.sealed_damaged = True
        _log.warning("collection %r: index damaged, rebuilding: %s", self.entry.name, error)

    def corrupt_index(self, index: Index, error: Exception) -> None:
        """What an index has on disk turned out to be damaged. A writer begins an empty one, which maintenance builds;
        a reader goes on with exact answers until the writer has sealed another.
        """
        generation = self.snapshot.generation
        with self._refresh_lock:
            if generation.index is not index or self.index_error is not None:
                return  # another thread met it first
            self._note_damage(error)
            if not self.writable:
                return
            sealed = self.snapshot.state.sealed
            for name in set(index.file_names()) - set(sealed.files if sealed is not None else ()):
                filesystem.remove(self.folder / name)
            generation.attach(self.new_index(self.snapshot.state.index, generation.rows))
            generation.index.publish_rows(self.snapshot.visibility.row_count)
        self.wake_maintenance()

    def index_rebuilt(self) -> None:
        """Maintenance: the index covers what it should; a damaged one is replaced."""
        self.index_error = None

    def index_sealed(self) -> None:
        """Maintenance: the state names a sealed file that was written just now."""
        self.sealed_damaged = False

    def install_index(self, index: Index) -> None:
        """Commit thread: put another index over the same rows in the place of the present one."""
        index.publish_rows(self.snapshot.visibility.row_count)
        self.snapshot.generation.attach(index)

    def open_sealed_index(self, snapshot: Snapshot, *, mapped: bool) -> Index:
        """The sealed index that the snapshot's state names. Raises Corruption, or FileNotFoundError."""
        assert snapshot.state.sealed is not None
        path = self.folder / snapshot.state.sealed.file
        return index_factory.open_sealed_index(
            path, snapshot.config, self.entry.metric, snapshot.generation.rows, self._memory_budget_bytes, mapped=mapped
        )

    def new_index(self, config: dict[str, Any] | None, rows: Rows) -> Index:
        """An empty index over `rows`, as the state describes it."""
        chosen = index_factory.config_in(config)
        return index_factory.new_index(chosen, self.entry.metric, rows, self.folder, self._memory_budget_bytes)

    def tail_rows(self) -> int:
        snapshot = self.snapshot
        return snapshot.visibility.row_count - snapshot.generation.index.indexed_rows

    def index_state(self, snapshot: Snapshot) -> str:
        """ready: the graph covers all but a short tail. building: it is catching up. rebuilding: a damaged one is
        being replaced.
        """
        if self.index_error is not None:
            return "rebuilding"
        tail = snapshot.visibility.row_count - snapshot.generation.index.indexed_rows
        return "ready" if tail < limits.seal_rows_min else "building"

    # -- its end -----------------------------------------------------------------------------------

    def mark_dropped(self) -> None:
        """The collection is gone: every later call raises NotFound."""
        self.dropped = True

    def close(self) -> None:
        if isinstance(self.snapshot, NoSnapshot):
            return
        self.snapshot.generation.index.close()
        self.snapshot.generation.close()

    def release(self, error: VecdbError | None = None) -> None:
        """Close what was dropped, and let its rows and index go with the searches that are under way: the caller may
        hold the collection for long. error : what it raises from now on, where it is not that it was dropped.
        """
        self.close()
        self.snapshot = NoSnapshot(error or collection_not_found(self.entry.name))  # type: ignore[assignment]
        self._earlier.clear()


class NoSnapshot:
    """In the place of the snapshot of a collection that was let go: every attribute raises the error."""

    def __init__(self, error: VecdbError) -> None:
        self._error = error

    def __getattr__(self, name: str) -> Any:
        raise type(self._error)(*self._error.args)
