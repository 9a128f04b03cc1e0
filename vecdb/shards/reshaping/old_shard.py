"""An old shard, read while others write it: a copy of its directory stands still, and is moved on now and then.

    log --follow, close--> a directory at one commit --pages of records, or those that were touched--> rows by new shard

Whoever restarts it loses nothing but time: the copy is made again, at the same place of the log or a later one.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

import vecdb
from vecdb import validate
from vecdb.api.database import Database
from vecdb.cluster.slots import slots_of
from vecdb.commit import idempotency
from vecdb.embedded.local_database import LocalDatabase
from vecdb.errors import NotFound
from vecdb.replication.bucket import open_bucket
from vecdb.replication.log import epochs
from vecdb.replication.log.applying import followed
from vecdb.replication.log.entry import Position
from vecdb.schema import CollectionConfig, Record
from vecdb.shards.reshaping.log_changes import Touched, place_in, touched_since
from vecdb.shards.rows import RecordRows
from vecdb.shards.servers import directories
from vecdb.state.record_reader import records, rows_of_ids
from vecdb.storage.disk import filesystem
from vecdb.storage.kv import keys

PAGE_ROWS = 8_192
_WAIT_S = 3_600.0


class CollectionSeen(NamedTuple):
    """tenants : (name, quota) of each."""

    config: CollectionConfig
    tenants: tuple[tuple[str, int | None], ...]


class Mark(NamedTuple):
    """Where a shard was read. place : (epoch, sequence) in its log.   collections : (uid, generation) by name."""

    place: tuple[int, int]
    collections: dict[str, tuple[int, int]]


class Changes(NamedTuple):
    """What is to be done in one new shard. rows : by collection.   gone : (owner, id) by collection."""

    rows: dict[str, RecordRows]
    gone: dict[str, list[tuple[str, Any]]]

    @property
    def records(self) -> int:
        return sum(len(one) for one in self.rows.values()) + sum(len(one) for one in self.gone.values())


class OldShard:
    """log : the URL of its log.   work : the folder for the copy.   table : int64[4096], the new shard of each slot.
    numbers : of the new shards.
    """

    def __init__(self, log: str, work: str, table: NDArray[np.int64], numbers: tuple[int, ...]) -> None:
        self._log = log
        self._bucket = open_bucket(log, conditional=True)
        self._path = Path(work) / f"old-{log.rpartition('/')[2]}"
        self._table, self._numbers = table, numbers
        self._db: Database | None = None

    # -- the copy ----------------------------------------------------------------------------------

    def refresh(self) -> Mark:
        """Move the copy to the end of the log, and say where that is."""
        self._close()
        if directories.what_it_holds(self._path) == "own":  # of a fence before
            filesystem.remove_tree(self._path)
        filesystem.make_dir(self._path.parent)
        end = epochs.find_end(self._bucket)
        if end is None:
            raise NotFound(f"{self._log} holds no log: its shard was never written; start its servers first")
        with vecdb.open(self._path, follow=self._log, staleness_s=None, maintenance=False) as db:
            db.wait_for(end.position.sequence, timeout=_WAIT_S)
        return self._mark()

    def fence(self) -> None:
        """End the log for whoever writes it. The copy stands at the end of it from then on."""
        self.refresh()
        self._close()
        vecdb.promote(self._path, self._log)

    def _close(self) -> None:
        if self._db is not None:
            self._db.close()
            self._db = None

    def _opened(self) -> Database:
        if self._db is None:
            if directories.what_it_holds(self._path) == "nothing":
                self.refresh()
            self._db = vecdb.open(self._path, read_only=True)
        return self._db

    def _mark(self) -> Mark:
        db = self._local()
        with db.store.read_all() as txn:
            at = followed(self._path, db.store, txn)
        assert at is not None
        place = place_in(self._bucket, Position(at.epoch, at.sequence, at.object))
        return Mark(place, self._generations())

    def _generations(self) -> dict[str, tuple[int, int]]:
        db, found = self._local(), {}
        for name in db.collections():
            with db._opened(name).state.reading() as (_, generation, _):
                found[name] = (generation.entry.uid, generation.number)
        return found

    def _local(self) -> LocalDatabase[Any]:
        backend = self._opened()._backend
        assert isinstance(backend, LocalDatabase)
        return backend

    # -- what there is -----------------------------------------------------------------------------

    def schema(self) -> tuple[dict[str, CollectionSeen], dict[str, str]]:
        """Collections by name, and aliases."""
        db, found = self._opened(), {}
        for name in db.collections():
            docs = db.collection(name)
            quotas = tuple((one, docs.stats(tenant=one).get("records_max")) for one in docs.tenants())
            found[name] = CollectionSeen(docs.config, quotas)
        return found, db.aliases()

    def counts(self) -> dict[str, int]:
        db = self._opened()
        return {name: len(db.collection(name)) for name in db.collections()}

    def answers(self) -> dict[str, dict[bytes, bytes]]:
        """What writes with a request id were answered, by collection."""
        db = self._local()
        with db.store.read_all() as txn:
            return {
                name: idempotency.answers_of(db.store, txn, db._opened(name).state.entry.uid)
                for name in db.collections()
            }

    def page(self, name: str, after: str | None) -> tuple[Any, ...]:
        """(cursor, or None where it was the last; then the records of a page for each new shard)."""
        docs = self._opened().collection(name)
        page: Any = next(docs.iter(PAGE_ROWS, after=after, include_vectors=True), None)
        found = self._split([] if page is None else list(page), docs.config)
        return None if page is None else page.cursor, *found.values()

    def changes(self, mark: Mark) -> tuple[Any, ...]:
        """What was touched since: (where that ends and the names of collections to be compared as a whole; then what is
        to be done in each new shard). Moves the copy on.
        """
        touched, place = touched_since(self._bucket, mark.place)
        now = self._generations_after(place)
        whole = sorted(name for name, known in now.items() if touched.all or mark.collections.get(name) != known)
        found = {number: Changes({}, {}) for number in self._numbers}
        for name, known in now.items():
            if name not in whole:
                self._collect(name, touched, known, found)
        return (Mark(place, now), whole), *found.values()

    def _generations_after(self, place: tuple[int, int]) -> dict[str, tuple[int, int]]:
        """Of the copy, which has the log up to that place at least."""
        if directories.what_it_holds(self._path) != "own":
            self.refresh()
        return self._generations()

    def _collect(self, name: str, touched: Touched, known: tuple[int, int], into: dict[int, Changes]) -> None:
        ids = set(touched.ids.get(known, ()))
        docs = self._opened().collection(name)
        local = self._local()._opened(name)
        with local.state.reading() as (txn, generation, committed):
            rows = [row for row in touched.rows.get(known, ()) if row < committed.row_count]
            for one in records(generation, txn, committed, rows, include_vectors=False):
                if one is not None:
                    ids.add((one.owner.encode(), keys.id_key_bytes(one.id)))
            there: list[int] = []
            for owner, key in sorted(ids):
                (row,) = rows_of_ids(generation, txn, owner, [key])
                if row >= 0:
                    there.append(row)
                else:
                    id = keys.id_of_bytes(key, committed.id_kind)
                    into[self._number_of(id, owner)].gone.setdefault(name, []).append((owner.decode(), id))
            found = [one for one in records(generation, txn, committed, there, include_vectors=True) if one is not None]
        for number, some in self._split(found, docs.config).items():
            if len(some):
                into[number].rows[name] = some

    # -- by new shard ------------------------------------------------------------------------------

    def _number_of(self, id: Any, owner: bytes) -> int:
        return int(self._table[slots_of(validate.ids(id), owner)[0]])

    def _split(self, found: list[Record], config: CollectionConfig) -> dict[int, RecordRows]:
        rows = rows_of_records(found, config)
        owned = self._table[rows.slots()] if len(rows) else np.empty(0, np.int64)
        return {number: rows.take(np.flatnonzero(owned == number)) for number in self._numbers}


def rows_of_records(found: list[Record], config: CollectionConfig) -> RecordRows:
    bare = np.array([one.vector is None for one in found], bool)
    vectors = np.zeros((len(found), config.elements), config.element_type)
    for at, one in enumerate(found):
        if one.vector is not None:
            vectors[at] = one.vector
    ids: Any = [one.id for one in found]
    if ids and isinstance(ids[0], int):
        ids = np.array(ids, np.int64)
    owners = [one.owner for one in found]
    return RecordRows(
        ids,
        vectors,
        [one.fields for one in found],
        owners if any(owners) else None,
        [one.tenants for one in found],
        bare if bare.any() else None,
    )


def even_table(numbers: tuple[int, ...], slots: int) -> NDArray[np.int64]:
    """int64[slots]: about as many slots for each of the shards, in runs."""
    ends = np.arange(len(numbers) + 1) * slots // len(numbers)
    return np.repeat(np.array(numbers, np.int64), np.diff(ends))


def without_metadata(config: CollectionConfig) -> CollectionConfig:
    """What must be equal for two collections to be of one kind."""
    return dataclasses.replace(config, metadata={}, id_kind=None)
