"""Goal: ids that vecdb makes are new, in order, and never made twice; an insert that skips writes what is not there and
nothing else; an empty batch writes nothing. Beside a dict.
"""

from __future__ import annotations

import threading
import time
import uuid
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vecdb
from vecdb.api.database import Database
from vecdb.commit.record_requests import made_ids
from vecdb.embedded.open import open_database
from vecdb.errors import AlreadyExists, InvalidArgument, LimitExceeded

RNG = np.random.default_rng(11)


def vectors_of(n: int) -> Any:
    return RNG.normal(size=(n, 4)).astype(np.float32)


def all_of(docs: Any) -> dict[Any, Any]:
    return {one.id: (one.fields, one.vector.tolist()) for page in docs.iter(include_vectors=True) for one in page}


def test_ints_go_on_from_the_largest_of_their_owner(db: Database) -> None:
    docs = db.create_collection("docs", 4, "l2")
    vectors = vectors_of(3)
    assert docs.add(vectors, [{"n": n} for n in range(3)]) == [0, 1, 2]
    assert docs.add(vectors[0], {"n": 3}) == 3  # one vector, one id
    docs.upsert([-7, 40], vectors[:2])
    assert docs.add(vectors[:2], tenants=["a"]) == [41, 42]
    assert docs.add(vectors[:1], owner="acme") == [0] and docs.add(vectors[:1], owner="ac") == [0]
    assert docs.get(41).tenants == ["a"] and docs.count(tenant="a") == 2
    docs.delete([41, 42])
    assert docs.add(vectors[:1]) == [41]
    assert docs.get(2, include_vectors=True).vector.tolist() == vectors[2].tolist() and docs.get(2).fields == {"n": 2}
    assert docs.add([]) == [] and docs.add(np.empty((0, 4))) == []
    only = db.create_collection("only", 4, "l2")
    only.upsert(-5, vectors[0])
    assert only.add(vectors[:1]) == [0]
    only.upsert(2**63 - 2, vectors[0])
    assert only.add(vectors[0]) == 2**63 - 1
    with pytest.raises(LimitExceeded, match="no int ids are left"):
        only.add(vectors[:1])
    assert only.count() == 4


def test_uuids_where_ids_are_text(db: Database) -> None:
    docs = db.create_collection("docs", 4, "l2")
    docs.upsert("first", vectors_of(1)[0])
    before = time.time_ns() // 1_000_000
    made = docs.add(vectors_of(300), [{"n": n} for n in range(300)])
    after = time.time_ns() // 1_000_000
    assert made == sorted(made) and len(set(made)) == 300
    for one in made:
        parsed = uuid.UUID(one)
        assert (parsed.version, parsed.variant, str(parsed)) == (7, uuid.RFC_4122, one)
        assert before <= parsed.int >> 80 <= after
    assert [one.fields["n"] for one in docs.get(made)] == list(range(300))
    assert isinstance(docs.add(vectors_of(1)[0]), str)


def test_uuids_carry_from_their_low_bits_to_the_high_ones() -> None:
    for seed in (b"", b"a", b"b"):
        made = [uuid.UUID(str(one)).int for one in made_ids("str", 5, 3, seed)]
        assert made == sorted(set(made)) and {one >> 80 for one in made} == {5}


def test_an_add_that_is_repeated_returns_the_ids_of_the_first(tmp_path: Path) -> None:
    with open_database(tmp_path / "db") as db:
        ints, texts = db.create_collection("ints", 4, "l2"), db.create_collection("texts", 4, "l2")
        texts.upsert("a", vectors_of(1)[0])
        vectors = vectors_of(2)
        first = [docs.add(vectors, request_id="r") for docs in (ints, texts)]
        ints.upsert(90, vectors[0])
        assert [docs.add(vectors, request_id="r") for docs in (ints, texts)] == first
        with pytest.raises(InvalidArgument, match="other content"):
            ints.add(vectors[:1], request_id="r")
        assert texts.add(vectors, request_id="s") != first[1]
    with open_database(tmp_path / "db") as db:
        assert [db[name].add(vectors, request_id="r") for name in ("ints", "texts")] == first
        assert (db["ints"].count(), db["texts"].count()) == (3, 5)
        assert db["ints"].add(vectors[0]) == 91


@pytest.mark.parametrize("first", [None, 5, "a"])
def test_threads_never_make_the_same_id(db: Database, first: Any) -> None:
    docs = db.create_collection("docs", 4, "l2")
    if first is not None:
        docs.upsert(first, vectors_of(1)[0])
    found: dict[Any, float] = {}
    lock = threading.Lock()

    def work(seed: int) -> None:
        vectors = np.random.default_rng(seed).normal(size=(20, 3, 4)).astype(np.float32)
        for part in vectors:
            for id, vector in zip(docs.add(part), part, strict=True):
                with lock:
                    assert id not in found
                    found[id] = float(vector[0])

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    known = all_of(docs)
    known.pop(first, None)
    assert len(found) == 240 and {id: one[1][0] for id, one in known.items()} == found


def test_an_insert_that_skips_beside_a_dict(tmp_path: Path) -> None:
    twin: dict[int, Any] = {}
    rng = np.random.default_rng(4)
    with open_database(tmp_path / "db", durability="relaxed") as db:
        docs = db.create_collection("docs", 4, "l2")
        for step in range(40):
            ids = rng.integers(0, 120, int(rng.integers(0, 12))).tolist()
            vectors, fields = vectors_of(len(ids)), [{"at": (step, place)} for place in range(len(ids))]
            lists = [[f"t{id % 3}"] for id in ids]
            atomic = bool(step % 3)
            written = docs.insert(ids, vectors, fields, lists, on_conflict="skip", atomic=atomic)
            new = {}
            for at, id in enumerate(ids):
                if id not in twin and id not in new:
                    new[id] = ({"at": [step, at]}, vectors[at].tolist())
            twin |= new
            assert written == len(new)
            if step % 7 == 6:
                gone = list(twin)[:3]
                assert docs.delete(gone) == 3
                twin = {id: one for id, one in twin.items() if id not in gone}
        before = db.stats()["sequence"]
        assert docs.insert(list(twin)[:5], vectors_of(5), on_conflict="skip") == 0
        assert db.stats()["sequence"] == before
        with pytest.raises(InvalidArgument, match="on_conflict must be"):
            docs.insert([1], vectors_of(1), on_conflict="ignore")
        with pytest.raises(AlreadyExists):
            docs.insert(list(twin)[:1], vectors_of(1))
    with open_database(tmp_path / "db") as db:
        docs = db["docs"]
        assert all_of(docs) == twin and docs.check() == []
        for tenant in range(3):
            assert docs.count(tenant=f"t{tenant}") == sum(id % 3 == tenant for id in twin)


def test_uuid_objects_are_their_text(db: Database) -> None:
    docs = db.create_collection("docs", 4, "l2")
    ids = [uuid.uuid4() for _ in range(3)]
    assert docs.upsert(ids, vectors_of(3)) == 3
    assert (
        docs.upsert(ids[0], vectors_of(1)[0]) == 1 and docs.upsert([*map(str, ids), uuid.uuid4()], vectors_of(4)) == 4
    )
    assert docs.upsert(np.array(ids, object), vectors_of(3)) == 3
    assert docs.count() == 4 and docs.get(ids[1]).id == str(ids[1]) == docs.get(str(ids[1])).id
    assert ids[2] in docs and str(ids[2]) in docs and uuid.uuid4() not in docs
    assert docs.delete(ids) == 3
    with pytest.raises(InvalidArgument, match="ints or all strings"):
        docs.upsert([ids[0], 1], vectors_of(2))
    with pytest.raises(InvalidArgument, match=r"ids\[1\]"):
        docs.delete([str(ids[0]), 1])


def test_an_empty_batch_writes_nothing(db: Database) -> None:
    docs = db.create_collection("docs", 4, "l2")
    before = db.stats()["sequence"]
    for empty in ([], (), np.empty(0, np.int64), range(0)):
        assert docs.upsert(empty, []) == docs.insert(empty, np.empty((0, 4))) == docs.delete(empty) == 0
        assert docs.upsert(empty) == docs.insert(empty, [], [], on_conflict="skip") == 0
        assert docs.update(empty, []) == docs.update(empty, fields=[]) == docs.grant(empty, "t") == 0
        assert docs.upsert(empty, [], tenants="t", atomic=False) == docs.prepare(empty, [])() == 0
        assert docs.revoke(empty, "t") == 0 and docs.get(empty) == []
    assert db.stats()["sequence"] == before and docs.config.id_kind is None
    with pytest.raises(InvalidArgument, match="0 ids and 1 vectors"):
        docs.upsert([], vectors_of(1))
    with pytest.raises(InvalidArgument, match="empty"):
        docs.upsert([1], [])
    assert isinstance(docs, vecdb.Collection) and docs.count() == 0
