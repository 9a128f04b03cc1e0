"""A collection and its model side by side: every operation is done to both, every answer compared.

    Twin.<operation>   the database's own call, the same change to a dict, then what the two must agree on; a vector of
                       number -1 stands for none
    Twin.verify        exact search = brute force in float64 (ties allowed); approximate = membership, order, counts
    Twin.saved         the model as bytes: what a killed process had acknowledged; Twin(setup, saved) takes it up

The same twin serves the hypothesis state machine (few steps, shrinking) and the plain seeded driver (many steps).
`small_limits` (setups.py) makes graph, seal, repair and vacuum happen with tens of records.
"""

from __future__ import annotations

import itertools
import pickle
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vecdb
from tests.model.setups import (
    DIM,
    IDS,
    Setup,
    distances_to,
    index_of,
    vector_table,
)
from vecdb import limits
from vecdb.api.database import Database
from vecdb.commit import journal_merge
from vecdb.embedded.open import open_database


def same_vector(found: Any, expected: np.ndarray | None) -> bool:
    """Of a record, also where it has none."""
    if found is None or expected is None:
        return found is expected
    return found.dtype == expected.dtype and np.array_equal(found, expected)


class Twin:
    """See the module's text."""

    def __init__(self, setup: Setup, saved: bytes | None = None) -> None:
        """saved : go on with a database on disk and the model of it, as `saved` gave them."""
        self.setup = setup
        self.table = vector_table(setup)
        self.model: dict[Any, tuple[np.ndarray | None, dict[str, Any]]] = {}
        self.access: dict[Any, set[str]] = {}  # of every record of the model
        self.tenants: set[str] = set()
        self.seen: Counter[str] = Counter()  # what was really exercised
        self.nearest = self.sought = 0  # hits that are among the nearest, of those that were asked for
        self.sequence = 0
        self._fold: tuple[Any, Iterator[Any]] | None = None
        self._copies = 0
        if saved is not None:
            self._take_up(saved)
            return
        self.folder = Path(tempfile.mkdtemp(prefix="vecdb-model-"))
        self.path: Any = ":memory:" if setup.memory else self.folder / "db"
        self.db: Database = self._open()
        self.create()

    def adopt(self, other: Twin) -> None:
        self.model, self.access, self.tenants = other.model, other.access, other.tenants

    def saved(self) -> bytes:
        return pickle.dumps((self.folder, self.path, self._copies, self.model, self.access, self.tenants))

    def _take_up(self, saved: bytes) -> None:
        self.folder, self.path, copies, model, access, tenants = pickle.loads(saved)  # noqa: S301 - our own
        self._copies = copies + 1  # a copy that was being made when the process was killed may be there
        self.db = self._open()
        if "docs" not in self.db.collections():  # killed between a drop and the creation
            self.create()
        self.model, self.access, self.tenants = model, access, tenants
        self.docs = self.db.collection("docs")
        self.sequence = self.docs.stats()["sequence"]

    def ghost(self) -> Twin:
        """A twin in memory with a copy of this one's model: where what a call would have done can be seen."""
        ghost = Twin(replace(self.setup, memory=True))
        for name in sorted(self.tenants):
            ghost.docs.create_tenant(name)
        for one, (vector, fields) in self.model.items():
            ghost.docs.upsert([one], [vector], [fields], [sorted(self.access[one])])
        ghost.model, ghost.tenants = dict(self.model), set(self.tenants)
        ghost.access = {one: set(names) for one, names in self.access.items()}
        ghost.sequence = ghost.docs.stats()["sequence"]
        return ghost

    def holds(self, other: Twin) -> bool:
        """Whether the records of this database, and who may see them, are those of the other's model."""
        model, access = other.model, other.access
        if list(self.docs.tenants()) != sorted(other.tenants):
            return False
        records = {record.id: record for part in self.docs.iter(7, include_vectors=True) for record in part}
        return set(records) == set(model) and all(
            same_vector(records[one].vector, vector)
            and records[one].fields == fields
            and records[one].tenants == sorted(access[one])
            for one, (vector, fields) in model.items()
        )

    def _open(self) -> Database:
        return open_database(self.path, durability=self.setup.durability, maintenance=False)

    def create(self) -> None:
        setup = self.setup
        index = index_of(setup.kind)
        self.docs = self.db.create_collection("docs", setup.dim, setup.metric, index, setup.dtype)
        self.model.clear()
        self.access.clear()
        self.tenants.clear()
        self.sequence = self.docs.stats()["sequence"]

    def close(self) -> None:
        try:
            assert self.db.check() == []
        finally:
            self.db.close()
            shutil.rmtree(self.folder)

    def id(self, number: int) -> Any:
        if self.setup.ids == "int":
            return {0: -(2**63), 1: 2**63 - 1}.get(number, number - 20)
        return {0: "\0", 1: "../x", 2: "é", 3: "é", 4: "x" * 256}.get(number, f"id-{number}")

    # -- writes ------------------------------------------------------------------------------------

    def upsert(
        self,
        numbers: list[int],
        vectors: list[int],
        fields: list[Any] | None = None,
        tenants: list[list[str]] | None = None,
    ) -> None:
        ids = [self.id(number) for number in numbers]
        written = self.docs.upsert(ids, self.given(vectors), fields, tenants)
        assert written == len(set(ids))
        self._put(ids, vectors, fields, tenants)

    def given(self, vectors: list[int]) -> Any:
        """Vectors of the table by number, as a write takes them."""
        if min(vectors) >= 0:
            return self.table[vectors]
        self.seen["writes without vectors"] += 1
        return [None if number < 0 else self.table[number] for number in vectors]

    def near(self, among: set[Any] | None = None) -> set[Any]:
        """Those of some records, or of all, that a search may find."""
        return {one for one in (self.model if among is None else among) if self.model[one][0] is not None}

    def _put(
        self, ids: list[Any], vectors: list[int], fields: list[Any] | None, tenants: list[list[str]] | None = None
    ) -> None:
        for at, one in enumerate(ids):
            self.access.setdefault(one, set())
            if tenants is not None:
                self.access[one] = set(tenants[at])
                self.tenants |= set(tenants[at])
            vector = None if vectors[at] < 0 else self.table[vectors[at]]
            self.model[one] = (vector, dict(fields[at] or {}) if fields else {})
        self.moved()

    def insert(self, numbers: list[int], vectors: list[int]) -> None:
        ids = [self.id(number) for number in numbers]
        if len(set(ids)) < len(ids) or any(one in self.model for one in ids):
            with pytest.raises(vecdb.AlreadyExists):
                self.docs.insert(ids, self.given(vectors), [{}] * len(ids))
            self.unmoved()
            self.seen["insert refused"] += 1
        else:
            assert self.docs.insert(ids, self.given(vectors)) == len(ids)
            self._put(ids, vectors, None)

    def update(self, numbers: list[int], vectors: list[int] | None, fields: list[dict[str, Any]] | None) -> None:
        ids = list(dict.fromkeys(self.id(number) for number in numbers))
        chosen = None if vectors is None else vectors[: len(ids)]
        changes = None if fields is None else fields[: len(ids)]
        array = None if chosen is None else self.table[chosen]
        if any(one not in self.model for one in ids):
            with pytest.raises(vecdb.NotFound):
                self.docs.update(ids, array, changes)
            self.unmoved()
            return
        places = self.docs.stats()["rows"], self.docs.stats()["indexed_rows"]
        assert self.docs.update(ids, array, changes) == len(ids)
        if array is None:
            assert (self.docs.stats()["rows"], self.docs.stats()["indexed_rows"]) == places
            self.seen["updates of fields alone"] += 1
        for at, one in enumerate(ids):
            vector, old = self.model[one]
            merged = {**old, **(changes[at] if changes else {})}
            kept = {name: value for name, value in merged.items() if value is not None} if changes else old
            self.model[one] = (vector if chosen is None else self.table[chosen[at]], kept)
        self.moved()
        self.seen["updates"] += 1

    def delete(self, numbers: list[int]) -> None:
        ids = [self.id(number) for number in numbers]
        present = {one for one in ids if one in self.model}
        assert self.docs.delete(ids) == len(present)
        for one in present:
            del self.model[one], self.access[one]
        if present:
            self.moved()
        else:
            self.unmoved()

    def delete_everything(self) -> None:
        """What is left is dead rows, in the index, in the tail, or both."""
        if self.model:
            assert self.docs.delete(list(self.model)) == len(self.model)
            self.model.clear()
            self.access.clear()
            self.moved()
            self.seen["emptied"] += 1

    def grant(self, numbers: list[int], names: list[str]) -> None:
        self._change_access("grants", numbers, names, names)

    def revoke(self, numbers: list[int], names: list[str]) -> None:
        self._change_access("revokes", numbers, names, sorted(self.tenants & set(names)))

    def _change_access(self, what: str, numbers: list[int], names: list[str], known: list[str]) -> None:
        ids = [self.id(number) for number in numbers]
        change = self.docs.grant if what == "grants" else self.docs.revoke
        if any(one not in self.model for one in ids) or len(set(known)) < len(set(names)):
            with pytest.raises(vecdb.NotFound):
                change(ids, names)
            self.unmoved()
            return
        pairs = {(one, name) for one in ids for name in names}
        there = {pair for pair in pairs if pair[1] in self.access[pair[0]]}
        changed = pairs - there if what == "grants" else there
        assert change(ids, names) == len(changed)
        for one, name in changed:
            (self.access[one].add if what == "grants" else self.access[one].remove)(name)
        self.tenants |= set(names)
        if changed:
            self.moved()
            self.seen[what] += 1
        else:
            self.unmoved()

    def drop_tenant(self, name: str) -> None:
        if name not in self.tenants:
            with pytest.raises(vecdb.NotFound):
                self.docs.drop_tenant(name)
            self.unmoved()
            return
        self.docs.drop_tenant(name)
        self.tenants.remove(name)
        for names in self.access.values():
            names.discard(name)
        self.moved()
        self.seen["tenants dropped"] += 1

    def seen_by(self, names: list[str]) -> set[Any]:
        """Ids of the records that one of these tenants may see."""
        return {one for one, held in self.access.items() if held & set(names)}

    def moved(self) -> None:
        now = self.docs.stats()["sequence"]
        assert now > self.sequence, "a write that changed something is a commit"
        self.sequence = now
        assert self.docs.count() == len(self.model)

    def unmoved(self) -> None:
        """Nothing was written: neither the count nor the sequence has changed."""
        assert self.docs.stats()["sequence"] == self.sequence
        assert self.docs.count() == len(self.model)

    # -- reads -------------------------------------------------------------------------------------

    def get(self, numbers: list[int]) -> None:
        ids = [self.id(number) for number in numbers]
        for one, record in zip(ids, self.docs.get(ids, include_vectors=True), strict=True):
            self._same(one, record)

    def _same(self, one: Any, record: Any) -> None:
        expected = self.model.get(one)
        if expected is None:
            assert record is None, f"{one!r} was never written or is deleted, got {record}"
            return
        assert record is not None, f"{one!r} is live, got None"
        assert record.id == one
        assert same_vector(record.vector, expected[0]), one
        assert record.fields == expected[1], one
        assert record.tenants == sorted(self.access[one]), one

    def iterate(self, batch: int) -> None:
        records = [record for part in self.docs.iter(batch, include_vectors=True) for record in part]
        assert len(records) == len(self.model)
        assert {record.id for record in records} == set(self.model)
        for record in records:
            self._same(record.id, record)

    def limits_now(self) -> list[int]:
        n = len(self.model)
        return sorted({1, max(1, n - 1), max(1, n), n + 1})

    def search_among(self, names: list[str], query: int, limit: int, *, exact: bool) -> None:
        """A search among the records of a union of tenants, and their count."""
        vector = self.table[query].astype(np.float32)
        params = vecdb.SearchParams(exact=True) if exact else None
        tenant = names[0] if len(names) == 1 else names
        if not self.tenants >= set(names):
            for ask in (self.docs.count, lambda tenant: self.docs.search(vector, limit, tenant=tenant)):
                with pytest.raises(vecdb.NotFound):
                    ask(tenant=tenant)
            return
        hits = self.docs.search(vector, limit, params=params, include_vectors=True, explain=True, tenant=tenant)
        among = self.seen_by(names)
        self.seen[f"plan {hits.explain['plan']} among tenants"] += bool(among)
        assert hits.sequence == self.sequence
        self.verify(hits, vector, limit, exact=exact or hits.explain["plan"] == "rows", among=among)
        assert self.docs.count(tenant=tenant) == len(among)

    def search_mixture(
        self,
        positives: list[int],
        limit: int,
        *,
        among: list[str] | None = None,
        components: int = 8,
        others: list[list[int]] | None = None,
        smoothing: float = 0.0,
        exact: bool = False,
    ) -> None:
        """Diverse neighbours of the positives, among all records or those of a union of tenants."""
        if self.setup.dtype == "bits":
            with pytest.raises(vecdb.InvalidArgument, match="vectors of numbers"):
                self.docs.search_mixture([self.id(number) for number in positives], limit)
            return
        liked = [self.id(number) for number in positives]
        histories = None if others is None else [[self.id(number) for number in one] for one in others]
        ask = partial(
            self.docs.search_mixture,
            liked,
            limit,
            histories=histories,
            components=components,
            smoothing=smoothing if histories else 0.0,
            params=vecdb.SearchParams(exact=True) if exact else None,
            include_vectors=True,
            explain=True,
            tenant=None if among is None else among[0] if len(among) == 1 else among,
        )
        visible = set(self.model) if among is None else self.seen_by(among)
        known = among is None or self.tenants >= set(among)
        if not known or not visible >= {*liked, *(one for history in histories or [] for one in history)}:
            with pytest.raises(vecdb.NotFound):
                ask()
            self.unmoved()
            self.seen["mixtures refused"] += 1
            return
        users = {*liked, *(one for history in histories or [] for one in history)}
        if self.near(users) != users:
            with pytest.raises(vecdb.InvalidArgument, match="no vector"):
                ask()
            self.seen["mixtures of records without vectors"] += 1
            return
        hits = ask()
        where = "" if among is None else " among tenants"
        self.seen[f"mixture{where}"] += 1
        self.seen[f"mixture of several components{where}"] += len(hits.explain["weights"]) > 1
        assert hits.sequence == self.sequence
        self._verify_mixture(hits, visible - set(liked), limit, components)

    def _verify_mixture(self, hits: Any, matching: set[Any], limit: int, components: int) -> None:
        ids, component, matching = hits.ids.tolist(), hits.components, self.near(matching)
        made = len(hits.explain["weights"])
        assert len(ids) == min(limit, len(matching)), "exactly min(limit, visible records that are not positives)"
        assert len(set(ids)) == len(ids), "no duplicates"
        assert set(ids) <= matching, f"positive, dead, unknown or foreign ids: {set(ids) - matching}"
        assert 1 <= made <= components and sum(hits.explain["quotas"]) == limit
        assert np.isclose(sum(hits.explain["weights"]), 1.0) or made == components, "weights of all cells, or the most"
        assert len(component) == len(hits.distances) == len(ids)
        assert np.isfinite(hits.distances).all()
        if not ids:
            return
        assert component.min() >= 0 and component.max() < made
        for one in range(made):
            assert (np.diff(hits.distances[component == one]) >= 0).all(), "of each component the nearest first"
        assert np.array_equal(hits.vectors, np.stack([self.model[one][0] for one in ids]))
        assert hits.fields == [self.model[one][1] for one in ids]

    def search(self, query: int, limit: int, *, exact: bool, jitter: float = 0.0) -> None:
        vector = self.table[query].astype(np.float32) + np.float32(0.0 if self.setup.dtype == "bits" else jitter)
        params = vecdb.SearchParams(exact=True) if exact else None
        hits = self.docs.search(vector, limit, params=params, include_vectors=True, explain=True)
        self.seen[f"plan {hits.explain['plan']}"] += 1
        if hits.explain["plan"] != "exact" and hits.explain["tail_rows"]:
            self.seen[f"{hits.explain['plan']} and tail"] += 1
        if hits.explain.get("lists_read"):
            self.seen["lists read"] += 1
        assert hits.sequence == self.sequence
        self.verify(hits, vector, limit, exact=exact or hits.explain["plan"] == "exact")

    def verify(self, hits: Any, vector: np.ndarray, limit: int, *, exact: bool, among: set[Any] | None = None) -> None:
        ids = hits.ids.tolist()
        matching = self.near(among)
        assert len(ids) == min(limit, len(matching)), "exactly min(limit, matching) results"
        assert len(set(ids)) == len(ids), "no duplicates"
        assert set(ids) <= matching, f"dead, unknown or foreign ids: {set(ids) - matching}"
        assert (np.diff(hits.distances) >= 0).all(), "nearest first"
        if not ids:
            return
        vectors = np.stack([self.model[one][0] for one in ids])
        slack = self._slack(vector, vectors)
        true = distances_to(vector, vectors, self.setup.metric)
        assert np.allclose(hits.distances, true, rtol=2e-5, atol=slack), "distances are those of the stored vectors"
        assert np.array_equal(hits.vectors, vectors)
        assert hits.fields == [self.model[one][1] for one in ids]
        everything = np.stack([self.model[one][0] for one in matching])
        best = np.sort(distances_to(vector, everything, self.setup.metric))[: len(ids)]
        near = np.isclose(true, best, rtol=2e-5, atol=slack) | (true < best)
        self.nearest += int((true <= best[-1] + slack + 2e-5 * abs(best[-1])).sum())
        self.sought += len(ids)
        assert near.all() or not exact, "exact search is brute force"

    def _slack(self, vector: np.ndarray, vectors: np.ndarray) -> np.ndarray:
        """float64[n]: float32 sums err by the size of their terms, which cancel in l2 and ip."""
        if self.setup.metric == "cosine":
            return np.full(len(vectors), 2e-6)
        largest = np.maximum(np.abs(vectors.astype(np.float64)).max(axis=1), float(np.abs(vector).max()))
        return np.asarray(1e-6 * DIM * np.maximum(largest**2, 1e-37))

    def search_batch(self, queries: list[int], limit: int, threads: int) -> None:
        """A batch gives each query what it gets alone."""
        vectors = self.table[queries].astype(np.float32)
        for exact in (True, False):
            params = vecdb.SearchParams(exact=exact, threads=threads)
            hits = self.docs.search(vectors, limit, params=params)
            expected = min(limit, len(self.near()))
            assert hits.counts.tolist() == [expected] * len(queries)
            assert (hits.distances[:, expected:] == np.inf).all()
            for at, vector in enumerate(vectors):
                alone = self.docs.search(vector, limit, params=vecdb.SearchParams(exact=exact))
                assert np.array_equal(hits.ids[at, :expected], alone.ids), "a batch gives each query its own answer"
                assert np.array_equal(hits.distances[at, :expected], alone.distances)

    def answers(self) -> list[Any]:
        """Exact answers to fixed queries; what no care of the files may change."""
        out = []
        for query in (0, 17, 61):
            vector = self.table[query].astype(np.float32)
            hits = self.docs.search(vector, limit=IDS + 1, params=vecdb.SearchParams(exact=True))
            out.append(sorted(zip(hits.distances.tolist(), hits.ids.tolist(), strict=True)))
        assert list(self.docs.tenants()) == sorted(self.tenants)
        for name in sorted(self.tenants):
            ids = [record.id for part in self.docs.iter(tenant=name) for record in part]
            assert len(ids) == self.docs.count(tenant=name) and set(ids) == self.seen_by([name]), name
            out.append(sorted(ids, key=repr))
            hits = self.docs.search(vector, IDS + 1, params=vecdb.SearchParams(exact=True), tenant=name)
            assert set(hits.ids.tolist()) == self.near(set(ids)), name
        return out

    # -- care --------------------------------------------------------------------------------------

    def _caring(self, what: str, step: Any) -> None:
        """Care changes no answer and leaves a sound database."""
        before = self.answers()
        step()
        self.seen[what] += 1
        self.sequence = self.docs.stats()["sequence"]
        assert self.answers() == before, f"{what} changed an answer"
        problems = self.db.check()
        assert problems == [], f"{what}: {problems}"

    @property
    def backend(self) -> Any:
        return self.docs._backend

    def index_some(self) -> None:
        self._caring("index steps", lambda: self.backend.jobs.index_tail(1))

    def learn(self) -> None:
        self._caring("widths learned", lambda: self.backend.jobs.learn(1))

    def repair(self) -> None:
        self._caring("repairs", lambda: self.backend.jobs.repair(1))

    def fold_some(self, steps: int) -> None:
        """Some commits of a fold, which goes on at the next call unless the journal has been folded meanwhile."""

        def step() -> None:
            if self._fold is None or self._fold[0] is not self.backend:
                self._fold = self.backend, journal_merge.merge_requests(self.backend.state)
            part = list(itertools.islice(self._fold[1], steps))
            if not all(self.backend.writes.submit(request) for request in part) or len(part) < steps:
                self._fold = None

        self._caring("folds", step)

    def seal(self) -> None:
        self._caring("seals", lambda: self.backend.jobs.seal(1))

    def optimize(self) -> None:
        self._fold = None
        self._caring("optimizes", lambda: self.docs.optimize(threads=2))
        stats = self.docs.stats()
        if stats["rows"] >= limits.flat_rows_max and stats["index"]["kind"] != "flat":
            assert stats["tail_rows"] == 0

    def vacuum(self) -> None:
        changed = self.docs._backend.state.snapshot.state.field_changes is not None
        self._caring("vacuums", self.db.vacuum)
        self.seen["vacuums of changed fields"] += changed
        state = self.docs._backend.state.snapshot.state
        assert self.docs.stats()["deleted"] == 0 and state.field_changes is None

    def reindex(self, kind: str) -> None:
        self._caring("reindexes", lambda: self.docs.reindex(index_of(kind)))

    def reopen(self) -> None:
        if self.setup.memory:
            return

        def step() -> None:
            self.db.close()
            self.db = self._open()
            self.docs = self.db.collection("docs")

        self._caring("reopens", step)

    def backup_restore(self) -> None:
        def step() -> None:
            self._copies += 1
            copy, target = self.folder / f"backup-{self._copies}", self.folder / f"db-{self._copies}"
            self.db.backup(copy)
            self.db.close()
            vecdb.restore(copy, target)
            shutil.rmtree(copy)
            self.path = target
            self.db = self._open()
            self.docs = self.db.collection("docs")

        self._caring("restores", step)

    def drop_and_create(self) -> None:
        self.db.drop_collection("docs")
        with pytest.raises(vecdb.NotFound):
            self.docs.count()
        assert self.db.collections() == []
        self.create()
        self.seen["drops"] += 1
        assert self.docs.count() == 0 and self.docs.get([self.id(5)]) == [None]
