"""A database that writes its log, the copy that follows it, and what the two must agree on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

import vecdb
from tests.model.setups import Setup
from tests.model.twin import Twin, same_vector
from vecdb.api.database import Database
from vecdb.embedded.local_database import LocalDatabase
from vecdb.embedded.open import open_database
from vecdb.replication.log.following import LogFollower
from vecdb.replication.log.shipping import LogWriter

WAIT_S = 60.0  # for what takes milliseconds; a test that gets there has failed


def backend_of(db: Database) -> LocalDatabase[Any]:
    found: Any = db._backend
    assert isinstance(found, LocalDatabase)
    return found


def log_of(db: Database) -> LogWriter:
    found = backend_of(db)._log
    assert isinstance(found, LogWriter)
    return found


def lapse(db: Database) -> None:
    """The lease of a writer has run out, and is renewed by its commits alone from now on."""
    lease = log_of(db).lease
    assert lease is not None
    lease.close()
    lease._confirmed_at = -float("inf")


def follower_of(db: Database) -> LogFollower:
    found = backend_of(db)._log
    assert isinstance(found, LogFollower)
    return found


def sequence_of(db: Database) -> int:
    return int(db.stats(disk=False)["sequence"])


def brought_up(writer: Database, copy: Database) -> None:
    """The copy has every commit of the writer."""
    assert log_of(writer).flush(WAIT_S), log_of(writer).facts()
    assert follower_of(copy).wait_for(sequence_of(writer), WAIT_S), (
        log_of(writer).facts(),
        follower_of(copy).facts(),
    )


def records_of(docs: Any) -> list[Any]:
    return [
        (one.id, one.fields, one.tenants, one.owner, None if one.vector is None else one.vector.tolist())
        for part in docs.iter(7, include_vectors=True)
        for one in part
    ]


def assert_same(writer: Database, copy: Database) -> None:
    """All collections, records, tenants, aliases, exact answers; and the copy is sound."""
    assert copy.collections() == writer.collections()
    assert copy.aliases() == writer.aliases()
    for name in writer.collections():
        ours, theirs = writer[name], copy[name]
        assert theirs.config == ours.config
        assert records_of(theirs) == records_of(ours)
        assert theirs.count() == ours.count() and list(theirs.tenants()) == list(ours.tenants())
        for tenant in ours.tenants():
            assert theirs.count(tenant=tenant) == ours.count(tenant=tenant)
        if ours.dim:
            queries = np.random.default_rng(3).normal(1, 2, (3, ours.dim)).astype(np.float32)
            params = vecdb.SearchParams(exact=True)
            one, two = (docs.search(queries, 9, params=params) for docs in (ours, theirs))
            assert np.array_equal(one.ids, two.ids) and np.array_equal(one.distances, two.distances)
    assert copy.check() == []


class LoggedTwin(Twin):
    """A model and its database, which writes its log into a bucket, and a copy of that which is compared, too."""

    def __init__(self, setup: Setup, url: str, folder: Path) -> None:
        self.url, self.place = url, folder
        super().__init__(setup)
        self._follow()

    def _follow(self) -> None:
        assert log_of(self.db).flush(WAIT_S)
        log_of(self.db).snapshots.wait()
        self.copy = open_database(self.place / f"copy of {Path(self.path).name}", follow=self._log, staleness_s=None)

    @property
    def _log(self) -> str:
        """What a backup was restored to is another directory, with a log of its own."""
        return f"{self.url}/{Path(self.path).name}"

    def _open(self) -> Database:
        return open_database(
            self.path, durability=self.setup.durability, maintenance=False, log=self._log, staleness_s=None
        )

    def backup_restore(self) -> None:
        super().backup_restore()
        self.copy.close()
        self._follow()

    def compare(self, query: int, *, check: bool) -> None:
        brought_up(self.db, self.copy)
        docs = self.copy["docs"]
        assert list(docs.tenants()) == sorted(self.tenants)
        records = {one.id: one for part in docs.iter(9, include_vectors=True) for one in part}
        assert set(records) == set(self.model)
        for one, (vector, fields) in self.model.items():
            found = records[one]
            assert same_vector(found.vector, vector) and found.fields == fields, one
            assert found.tenants == sorted(self.access[one]), one
        vector = self.table[query].astype(np.float32)
        hits = docs.search(vector, 9, include_vectors=True, explain=True)
        self.seen[f"copy answers by {hits.explain['plan']}"] += 1
        assert hits.sequence == self.sequence
        self.verify(hits, vector, 9, exact=hits.explain["plan"] == "exact")
        for name in sorted(self.tenants):
            found = docs.search(vector, 9, tenant=name, include_vectors=True)
            self.verify(found, vector, 9, exact=False, among=self.seen_by([name]))
        assert docs.count(filter="a == 3") == sum(fields.get("a") == 3 for _, fields in self.model.values())
        if check:
            assert_same(self.db, self.copy)

    def close(self) -> None:
        self.copy.close()
        super().close()
