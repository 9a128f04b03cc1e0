"""A new shard: built in a directory, born into its log, then kept up with the old shards until it takes their place.

Everything that it is given says what a record is, not what happened to it: the same once more changes nothing. Whoever
restarts it before it is born begins anew; after that its log has all that was noted.
"""

from __future__ import annotations

import dataclasses
import uuid
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import vecdb
from vecdb.api.collection import Collection
from vecdb.api.database import Database
from vecdb.cluster.placement import bucket_url, cluster_bucket
from vecdb.commit.idempotency import CarryAnswers, carried
from vecdb.embedded.local_database import LocalDatabase
from vecdb.schema import CollectionConfig, Record
from vecdb.shards.birth import ShardBuilder, new_log
from vecdb.shards.reshaping.job import Progress, note_progress, progress_of
from vecdb.shards.reshaping.old_shard import Changes, CollectionSeen, Mark, without_metadata
from vecdb.shards.rows import RecordRows
from vecdb.shards.servers import directories

Key = tuple[str, Any]  # (owner, id)
_PAGE_ROWS = 8_192


@dataclasses.dataclass(slots=True)
class _Coming:
    """Pages of one collection of one old shard. seen : whose records came; None where there were none before."""

    seen: set[Key] | None
    pages: int = 0


class NewShard:
    """url : of the cluster.   number : of the shard.   work : the folder for its directory."""

    def __init__(self, url: str, number: int, work: str) -> None:
        self._url, self._number = url, number
        self._bucket = cluster_bucket(url, conditional=True)
        self._path = Path(work) / f"new-{number}-{uuid.uuid4().hex[:8]}"
        self._coming: dict[tuple[int, str], _Coming] = {}  # by (old shard, collection)
        self._begun: set[tuple[int, str]] = set()
        self._finished: set[tuple[int, str]] = set()
        self._builder: ShardBuilder | None = None
        progress = progress_of(self._bucket, number)
        if progress is not None:
            self._log = progress.log
            self._db = self._open_born()
        else:
            self._log = new_log(self._bucket, number)
            self._builder = ShardBuilder(self._path, log=self._url_of_log)
            self._db = self._builder.db

    @property
    def _url_of_log(self) -> str:
        return f"{bucket_url(self._url)}/{self._log}"

    def _open_born(self) -> Database:
        directories.take_over(self._path, self._url_of_log)
        # what was noted as done must be in the log
        return vecdb.open(self._path, log=self._url_of_log, durability="remote", maintenance=False)

    def log(self) -> str:
        return self._log

    def is_born(self) -> bool:
        return self._builder is None

    # -- collections -------------------------------------------------------------------------------

    def match(self, schemas: list[tuple[dict[str, CollectionSeen], dict[str, str]]]) -> None:
        """Have the collections, tenants and aliases that the old shards have together."""
        wanted: dict[str, CollectionSeen] = {}
        aliases: dict[str, str] = {}
        for collections, names in schemas:
            for name, seen in collections.items():
                known = wanted.get(name)
                tenants = dict(seen.tenants) | (dict(known.tenants) if known else {})
                wanted[name] = CollectionSeen(_richer(seen.config, known), tuple(sorted(tenants.items())))
            aliases |= names
        for alias in self._db.aliases():
            if alias not in aliases or self._db.aliases()[alias] != aliases[alias]:
                self._db.drop_alias(alias)
        for name in self._db.collections():
            if name not in wanted or _differs(self._db.collection(name).config, wanted[name].config):
                self._db.drop_collection(name)
        for name, seen in wanted.items():
            self._match_one(name, seen)
        for alias, name in aliases.items():
            self._db.set_alias(alias, name)

    def _match_one(self, name: str, seen: CollectionSeen) -> None:
        config = seen.config
        if name not in self._db.collections():
            self._db.create_collection(
                name, config.dim or None, config.metric, config.index, config.dtype,
                metadata=config.metadata or None, zero_vectors=config.zero_vectors,
            )  # fmt: skip
        docs = self._db.collection(name)
        if docs.metadata != config.metadata:
            docs.set_metadata(config.metadata)
        if docs.config.index != config.index:
            docs.reindex(config.index)
        wanted, there = dict(seen.tenants), set(docs.tenants())
        for tenant in there - set(wanted):
            docs.drop_tenant(tenant)
        for tenant, quota in wanted.items():
            if tenant not in there or docs.stats(tenant=tenant).get("records_max") != quota:
                docs.create_tenant(tenant, records_max=quota, exist_ok=True)

    # -- all records of an old shard -----------------------------------------------------------------

    def begin(self, old: int, name: str) -> None:
        """All records of a collection that the old shard has for this one come now, in pages."""
        first = self._builder is not None and (old, name) not in self._begun
        self._begun.add((old, name))
        self._coming[old, name] = _Coming(None if first else set())

    def take(self, old: int, name: str, rows: RecordRows) -> None:
        """Records of a page, which may be none."""
        coming = self._coming.get((old, name))
        if coming is None:
            return  # they began to come to a process that died: `finish` will say that they are not complete
        coming.pages += 1
        if not len(rows):
            return
        docs = self._db.collection(name)
        if coming.seen is not None:
            coming.seen.update(keys_of(rows))
            rows = _different(docs, rows)
        rows.upsert_into(docs)

    def finish(self, old: int, name: str, pages: int, slots: NDArray[np.bool_]) -> bool:
        """Remove records of the old shard's slots that did not come. Returns False, and removes nothing, where not all
        pages came here: then all of them are to come again. slots : bool[4096], those of the old shard.
        """
        coming = self._coming.pop((old, name), None)
        if coming is None or coming.pages != pages:
            return False
        if coming.seen is not None:
            docs, gone = self._db.collection(name), []
            for page in docs.iter(_PAGE_ROWS):
                rows = _keys_as_rows(page)
                keys = zip(keys_of(rows), slots[rows.slots()].tolist(), strict=True)
                gone += [key for key, of_old in keys if of_old and key not in coming.seen]
            _delete(docs, gone)
        self._finished.add((old, name))
        return True

    def bear(self, marks: dict[int, Mark], wanted: set[tuple[int, str]], threads: int | None) -> bool:
        """Put the shard into its log. marks : to where each old shard was read.   wanted : (old shard, collection) of
        all that must have come. Returns False, and does nothing, where they did not come to this process.
        """
        if self._builder is None:
            return True
        if not wanted <= self._finished:
            return False
        self._builder.bear(threads)
        self._builder = None
        note_progress(self._bucket, self._number, Progress(self._log, marks))
        self._db = self._open_born()
        return True

    # -- what was touched since ------------------------------------------------------------------------

    def apply(self, changes: Changes) -> int:
        """Returns how many records were touched."""
        for name, gone in changes.gone.items():
            _delete(self._db.collection(name), gone)
        for name, rows in changes.rows.items():
            rows.upsert_into(self._db.collection(name))
        return changes.records

    def carry(self, answers: list[dict[str, dict[bytes, bytes]]]) -> None:
        """Know which writes the old shards have carried out, so that none of them is repeated here. answers : of each
        old shard, by collection.
        """
        local = self._db._backend
        assert isinstance(local, LocalDatabase)
        for name in self._db.collections():
            collection = local._opened(name)
            known = carried(one.get(name, {}) for one in answers)
            collection.writes.submit(CarryAnswers(collection.state.entry.uid, known))

    def note(self, marks: dict[int, Mark]) -> None:
        """The shard has all up to there."""
        note_progress(self._bucket, self._number, Progress(self._log, marks))

    def counts(self) -> dict[str, int]:
        return {name: len(self._db.collection(name)) for name in self._db.collections()}

    def sequence(self) -> int:
        return int(self._db.sequence())

    def close(self) -> None:
        self._db.close()


def keys_of(rows: RecordRows) -> list[Key]:
    ids = rows.ids.tolist() if isinstance(rows.ids, np.ndarray) else rows.ids
    return list(zip(rows.owners or [""] * len(ids), ids, strict=True))


def _keys_as_rows(page: Iterable[Record]) -> RecordRows:
    found = list(page)
    ids: Any = [one.id for one in found]
    if ids and isinstance(ids[0], int):
        ids = np.array(ids, np.int64)
    owners = [one.owner for one in found]
    return RecordRows(ids, np.empty((len(found), 0)), owners=owners if any(owners) else None)


def _different(docs: Collection, rows: RecordRows) -> RecordRows:
    """The records that the collection does not have just so."""
    other: list[NDArray[np.int64]] = []
    for owner, at in rows.by_owner():
        ids = rows.ids[at] if isinstance(rows.ids, np.ndarray) else [rows.ids[i] for i in at.tolist()]
        known = docs.get(ids, owner=owner, include_vectors=True)
        differs = [not _equal(one, rows, i) for one, i in zip(known, at.tolist(), strict=True)]
        other.append(at[np.array(differs, bool)])
    return rows.take(np.sort(np.concatenate(other)))


def _equal(known: Record | None, rows: RecordRows, at: int) -> bool:
    bare = rows.bare is not None and bool(rows.bare[at])
    if known is None or (known.vector is None) != bare:
        return False
    if known.fields != (rows.fields[at] if rows.fields else {}):
        return False
    if known.tenants != (rows.tenants[at] if rows.tenants else []):
        return False
    return bare or known.vector.tobytes() == np.ascontiguousarray(rows.vectors[at], known.vector.dtype).tobytes()


def _delete(docs: Collection, gone: list[Key]) -> None:
    for owner in dict.fromkeys(owner for owner, _ in gone):
        ids = [id for one, id in gone if one == owner]
        for first in range(0, len(ids), _PAGE_ROWS):
            docs.delete(ids[first : first + _PAGE_ROWS], owner=owner)


def _richer(config: CollectionConfig, known: CollectionSeen | None) -> CollectionConfig:
    """Of two of one collection, the one that knows its dim and kind of ids."""
    return config if known is None or (config.dim and not known.config.dim) else known.config


def _differs(own: CollectionConfig, wanted: CollectionConfig) -> bool:
    """Whether no change makes the one the other. A collection without a dim gets it with its first vectors."""
    own, wanted = (dataclasses.replace(without_metadata(one), index=None) for one in (own, wanted))
    return own != (dataclasses.replace(wanted, dim=own.dim) if not own.dim or not wanted.dim else wanted)
