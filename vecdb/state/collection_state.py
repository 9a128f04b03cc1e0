"""What one collection has committed, as this process holds it: loaded, followed, and given its index.

    state in LMDB -> Generation (rows, ids, deletions) + index -> View        replaced by each commit, never changed

Threads: `snapshot` is replaced by the commit thread (writer) or under `_refresh_lock` (reader); whoever searches uses
the one view that it took.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from vecdb import limits
from vecdb.errors import Corruption, Unavailable
from vecdb.index.contract import Index
from vecdb.index.curator import tree_order
from vecdb.index.curator.curator_index import CuratorIndex
from vecdb.index.flat import FlatIndex
from vecdb.index.hnsw import graph
from vecdb.index.hnsw.hnsw_index import HnswIndex
from vecdb.index.row_set import RowSet
from vecdb.index.spann.spann_index import SpannIndex
from vecdb.schema import CollectionConfig, Curator, Flat, Hnsw, Spann
from vecdb.state.generation import Generation, Snapshot, collection_folder, snapshot_of
from vecdb.storage.disk import filesystem
from vecdb.storage.disk.row_file import Rows
from vecdb.storage.kv import catalog, keys
from vecdb.storage.kv.store import Store, Txn
from vecdb.validate.not_found import collection_not_found

_log = logging.getLogger("vecdb")
_LOAD_TRIES = 10
_ROW_BYTES = 12  # crc and id, or where its id ends


class CollectionState:
    """The committed state of one collection. In a process that writes it is published, in others it is followed.

    dropped : the collection is gone.   index_error : why its index is being replaced, None while it is sound.
    sealed_damaged : the sealed file that the state names could not be used: it is to be written anew.
    """

    def __init__(
        self,
        database: Path,
        store: Store,
        entry: catalog.CollectionEntry,
        *,
        writable: bool,
        guard: Callable[[], None],
        wake_maintenance: Callable[[], None],
        memory_budget_bytes: int | None,
    ) -> None:
        self.entry = entry
        self.store = store
        self.folder = collection_folder(database, entry.uid)
        self.writable = writable
        self.dropped = False
        self.index_error: str | None = None
        self.sealed_damaged = False
        self.memory_budget_bytes = memory_budget_bytes
        self._guard = guard
        self._wake_maintenance = wake_maintenance
        self._refresh_lock = threading.Lock()
        self._raw_state: bytes | None = None
        self._last_try = False
        self.snapshot: Snapshot
        self._load_newest()

    # -- loading -----------------------------------------------------------------------------------

    def _state_in(self, txn: Txn) -> tuple[bytes, catalog.CommittedState]:
        raw = txn.get(keys.uid(self.entry.uid), db=self.store.state)
        if raw is None:
            self.dropped = True
            raise collection_not_found(self.entry.name)
        return raw, catalog.decode_state(raw, self.entry.name)

    def _load_newest(self) -> None:
        """Load what is committed now. A reading process may lose a race with a vacuum that removes the files: then
        once more.
        """
        for attempt in range(_LOAD_TRIES):
            self._last_try = attempt == _LOAD_TRIES - 1
            try:
                with self.store.read() as txn:
                    self._load(txn)
                return
            except FileNotFoundError:
                if self.writable or attempt == _LOAD_TRIES - 1:
                    raise Corruption(
                        f"{self.folder}: the row file is missing; restore the database from a backup"
                    ) from None

    def _load(self, txn: Txn) -> None:
        """Read the generation that the state names into memory and make it the view."""
        raw, state = self._state_in(txn)
        self._check_budget(state)
        self.index_error = None
        generation = Generation(self.store, self.folder, self.entry, state, writable=self.writable)
        try:
            generation.catch_up(txn, state)
            self.load_index(generation, state)
        except BaseException:
            generation.close()
            raise
        old = getattr(self, "snapshot", None)
        self.snapshot = snapshot_of(generation, state)
        self._raw_state = raw
        if old is not None:
            old.generation.close()  # its descriptor; searches that hold it keep its arrays

    def _check_budget(self, state: catalog.CommittedState) -> None:
        """Refuse a collection that would not fit, before anything of its size is read."""
        config = catalog.index_from_dict(state.index) or Hnsw()
        if isinstance(config, Spann):
            return  # what it keeps in memory follows the budget
        per_row = _ROW_BYTES
        if isinstance(config, Hnsw):
            per_row += graph.bytes_per_row(self.entry.dim, config.m)
        elif isinstance(config, Curator):
            per_row += tree_order.bytes_per_row(self.entry.dim)
        needed = state.row_count * per_row
        if self.memory_budget_bytes is not None and needed > self.memory_budget_bytes:
            raise Unavailable(
                f"collection {self.entry.name!r} needs about {needed:,} bytes of memory, memory_budget_bytes is "
                f"{self.memory_budget_bytes:,}; open the database with a larger budget, vacuum, or reindex to Flat()"
            )

    # -- the newest state --------------------------------------------------------------------------

    def current(self) -> Snapshot:
        """The newest committed view. Raises where the database is closed, forked, or the collection dropped."""
        self._guard()
        if self.dropped:
            raise collection_not_found(self.entry.name)
        if not self.writable:
            self._refresh()
        return self.snapshot

    def _refresh(self) -> None:
        """A reading process: catch up with what the writer has committed since."""
        with self.store.read() as txn:
            raw = txn.get(keys.uid(self.entry.uid), db=self.store.state)
            if raw == self._raw_state:
                return
            with self._refresh_lock:
                raw, state = self._state_in(txn)
                if state.sequence <= self.snapshot.state.sequence:
                    return  # another thread was faster
                if state.generation == self.snapshot.state.generation and state.sealed == self.snapshot.state.sealed:
                    generation = self.snapshot.generation
                    generation.catch_up(txn, state)
                    generation.index.publish_rows(state.row_count)
                    self.snapshot = snapshot_of(generation, state)
                    self._raw_state = raw
                    return
        with self._refresh_lock:
            self._load_newest()

    def publish(self, state: catalog.CommittedState, generation: Generation | None = None) -> None:
        """Commit thread: what searches see from now on."""
        self.snapshot = snapshot_of(generation or self.snapshot.generation, state)
        self._wake_maintenance()

    def current_for(self, tenants: tuple[str, ...]) -> tuple[Snapshot, RowSet]:
        """The newest view, and the rows of the union of these tenants (distinct names) in its snapshot. Raises NotFound
        where one is unknown.
        """
        while True:
            snapshot = self.current()
            allowed = snapshot.generation.tenants.rows_at(tenants, snapshot.visibility)
            if allowed is not None:
                return snapshot, allowed
            time.sleep(0)  # commits have come in between, or one is about to be published

    @contextmanager
    def reading(self) -> Iterator[tuple[Txn, Generation, catalog.CommittedState]]:
        """A read transaction (with buffers), the loaded generation that it reads, and its state."""
        while True:
            generation = self.current().generation
            with self.store.read(buffers=True) as txn:
                raw = txn.get(keys.uid(self.entry.uid), db=self.store.state)
                if raw is None:
                    raise collection_not_found(self.entry.name)
                state = catalog.decode_state(bytes(raw), self.entry.name)
                if state.generation == generation.number:
                    yield txn, generation, state
                    return
            time.sleep(0.001)  # a vacuum has committed and is about to publish, or published between the two looks

    def config(self) -> CollectionConfig:
        return catalog.config_of(self.entry, self.current().state)

    @property
    def id_kind(self) -> Literal["int", "str"] | None:
        return self.snapshot.state.id_kind  # type: ignore[return-value]

    # -- its index ---------------------------------------------------------------------------------

    def load_index(self, generation: Generation, state: catalog.CommittedState) -> None:
        """Give `generation` its index: the sealed file where there is a sound one, else an empty structure that is
        built anew.
        """
        rows = generation.rows
        if state.sealed is None:
            generation.index = self.new_index(state.index, rows)
        else:
            try:
                generation.index = self.open_sealed_index(snapshot_of(generation, state), mapped=not self.writable)
            except (Corruption, FileNotFoundError) as error:
                if isinstance(error, FileNotFoundError) and not self.writable and not self._last_try:
                    raise  # the writer has sealed anew since: the caller looks again
                # Derived data: the rows are the truth. Answers are exact until maintenance has built the graph again.
                self.index_error = str(error)
                self.sealed_damaged = True
                _log.warning("collection %r: index damaged, rebuilding: %s", self.entry.name, error)
                generation.index = self.new_index(state.index, rows)
        generation.index.publish_rows(state.row_count)

    def corrupt_index(self, index: Index, error: Exception) -> None:
        """What an index has on disk turned out to be damaged. A writer begins an empty one, which maintenance builds;
        a reader goes on with exact answers until the writer has sealed another.
        """
        generation = self.snapshot.generation
        with self._refresh_lock:
            if generation.index is not index or self.index_error is not None:
                return  # somebody else met it first
            _log.warning("collection %r: index damaged, rebuilding: %s", self.entry.name, error)
            self.index_error = str(error)
            self.sealed_damaged = True
            if not self.writable:
                return
            sealed = self.snapshot.state.sealed
            for name in set(index.file_names()) - set(sealed.files if sealed is not None else ()):
                filesystem.remove(self.folder / name)
            generation.index = self.new_index(self.snapshot.state.index, generation.rows)
            generation.index.publish_rows(self.snapshot.visibility.row_count)
        self._wake_maintenance()

    def open_sealed_index(self, snapshot: Snapshot, *, mapped: bool) -> Index:
        """The sealed index that the view's state names. Raises Corruption, or FileNotFoundError."""
        assert snapshot.state.sealed is not None
        path = self.folder / snapshot.state.sealed.file
        if isinstance(snapshot.config, Spann):
            return SpannIndex.open(
                path, self._budgeted(snapshot.config), self.entry.metric, snapshot.generation.rows, mapped=mapped
            )
        if isinstance(snapshot.config, Curator):
            return CuratorIndex.open(path, snapshot.config, self.entry.metric, snapshot.generation.rows, mapped=mapped)
        assert isinstance(snapshot.config, Hnsw), snapshot.config
        return HnswIndex.open(path, snapshot.config, self.entry.metric, snapshot.generation.rows, mapped=mapped)

    def _budgeted(self, config: Spann) -> Spann:
        """The database's budget where the collection has none of its own: lists beyond it stay on disk."""
        if config.memory_budget_bytes is not None or self.memory_budget_bytes is None:
            return config
        return replace(config, memory_budget_bytes=self.memory_budget_bytes)

    def new_index(self, config: dict[str, Any] | None, rows: Rows) -> Index:
        """An empty index as the state describes it; None is a graph, which is not begun while the collection is
        small.
        """
        chosen = catalog.index_from_dict(config) or Hnsw()
        if isinstance(chosen, Flat):
            return FlatIndex(self.entry.metric, rows)
        if isinstance(chosen, Spann):
            return SpannIndex(self._budgeted(chosen), self.entry.metric, rows, self.folder)
        if isinstance(chosen, Curator):
            return CuratorIndex(chosen, self.entry.metric, rows)
        return HnswIndex(chosen, self.entry.metric, rows)

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

    def close(self) -> None:
        self.snapshot.generation.index.close()
        self.snapshot.generation.close()

    def forget(self) -> None:
        """Close what was dropped, and let its rows and index go with the searches that are under way: whoever has the
        collection may hold it for long.
        """
        self.close()
        self.snapshot = DroppedCollection(self.entry.name)  # type: ignore[assignment]


class DroppedCollection:
    """In the place of a dropped collection's view. Whatever is asked of it raises NotFound."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, name: str) -> Any:
        raise collection_not_found(self._name)
