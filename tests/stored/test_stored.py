"""A database that earlier code wrote opens, answers alike, and remembers the ids of its requests.

`format_2.tar.gz` was written before the names of classes were unhooked from what is stored: five collections of 500
records with every kind of index, sealed, with a tail, tenants, and one request of each kind under a request id.
"""

from __future__ import annotations

import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vecdb
from vecdb import schema

ARCHIVE = Path(__file__).with_name("format_2.tar.gz")
VECTORS = np.random.default_rng(20261129).integers(-100, 100, size=(1200, 8)).astype("float32")
COLLECTIONS = {"hnsw": "hnsw", "auto": None, "spann": "spann", "curator": "curator", "flat": "flat"}
N = 500


@pytest.fixture(scope="module")
def db(tmp_path_factory: pytest.TempPathFactory) -> Iterator[vecdb.Database]:
    folder = tmp_path_factory.mktemp("stored") / "db"
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(folder, filter="data")
    with vecdb.open(folder, maintenance=False) as db:  # whose commits would be taken for those of requests
        yield db


def records() -> dict[int, Any]:
    """The oracle: id -> vector, after the writes that the archive's collections saw."""
    there = dict(enumerate(VECTORS[:N]))
    there |= dict(zip(range(N - 10, N + 10), VECTORS[:20]))
    del there[3], there[4]
    return there


@pytest.mark.parametrize("name", COLLECTIONS)
def test_records_and_answers_are_those_that_were_written(db: vecdb.Database, name: str) -> None:
    docs, there = db.collection(name), records()
    assert docs.count() == len(there) == 508
    assert (docs.config.index.kind if docs.config.index is not None else None) == COLLECTIONS[name]
    assert docs.get(1).fields["n"] == -1 and docs.get(20).fields == {"n": 20, "s": "t6"}
    assert docs.get(3) is None
    assert docs.get(5).tenants == ["new", "t0"] and docs.get(7).tenants == ["new", "t0", "t1"]
    assert docs.get(9).tenants == [] and docs.count(tenant="t1") == 84
    assert sorted(docs.tenants()) == ["made", "made2", "new", "t0", "t1"]
    for id_ in (0, 20, 300, 505):
        vector = np.asarray(docs.get(id_, include_vectors=True).vector, np.float32)
        assert np.allclose(vector, there[id_], rtol=1e-3)
    queries = VECTORS[600:620]
    ids, stored = np.array(list(there)), np.array(list(there.values()), np.float64)
    metric = docs.config.metric
    if metric == "cosine":
        stored = stored / np.linalg.norm(stored, axis=1, keepdims=True)
    for query, found in zip(queries, docs.search(queries, limit=10, params=vecdb.SearchParams(exact=True)).ids):
        distances = -stored @ query if metric != "l2" else ((stored - query) ** 2).sum(axis=1)
        worst = np.sort(distances)[9]
        assert (distances[np.searchsorted(ids, found)] <= worst + 1e-3 * abs(worst)).all()
    approximate = docs.search(queries, limit=10).ids
    exact = docs.search(queries, limit=10, params=vecdb.SearchParams(exact=True)).ids
    assert np.mean([len(set(a) & set(b)) / 10 for a, b in zip(approximate.tolist(), exact.tolist())]) > 0.9


@pytest.mark.parametrize("name", [name for name in COLLECTIONS if name != "flat"])
def test_the_sealed_index_is_taken_as_it_is(db: vecdb.Database, name: str) -> None:
    stats = db.collection(name).stats()
    assert stats["index_error"] is None and stats["sealed_rows"] == stats["indexed_rows"] == N


REPEATED: dict[str, tuple[Callable[[vecdb.Collection, str], Any], Any]] = {
    "tail": (lambda docs, id_: docs.upsert(range(N - 10, N + 10), VECTORS[:20], request_id=id_), 20),
    "update": (lambda docs, id_: docs.update([1, 2], fields=[{"n": -1}] * 2, request_id=id_), 2),
    "delete": (lambda docs, id_: docs.delete([3, 4, 99999], request_id=id_), 2),
    "grant": (lambda docs, id_: docs.grant([5, 6, 7], ["t0", "new"], request_id=id_), 6),
    "revoke": (lambda docs, id_: docs.revoke([9], "t0", request_id=id_), 1),
    "create": (lambda docs, id_: docs.create_tenant(["made", "made2"], request_id=id_), 2),
    "drop": (lambda docs, id_: docs.drop_tenant("t2", request_id=id_), None),
}


@pytest.mark.parametrize("name", COLLECTIONS)
@pytest.mark.parametrize("request_name", REPEATED)
def test_requests_of_then_are_not_carried_out_again(db: vecdb.Database, name: str, request_name: str) -> None:
    docs = db.collection(name)
    write, answer = REPEATED[request_name]
    sequence = docs.stats()["sequence"]
    assert write(docs, f"{name}-{request_name}") == answer
    assert docs.stats()["sequence"] == sequence


def test_the_archive_checks_clean(db: vecdb.Database) -> None:
    assert db.check() == []


def test_a_kind_of_index_is_stored_under_a_name_of_its_own_and_not_under_its_class() -> None:
    kinds = {config: config.kind for config in (schema.Flat, schema.Hnsw, schema.Spann, schema.Curator)}
    assert list(kinds.values()) == ["flat", "hnsw", "spann", "curator"]
