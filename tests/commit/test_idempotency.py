"""A write that is repeated under one request id happens once. Oracle: what the collection holds, the first answer."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vecdb
from vecdb import limits
from vecdb.commit import write_path
from vecdb.storage.kv import keys

ONE = np.ones(4, np.float32)
TWO = np.full(4, 2, np.float32)


@pytest.fixture
def docs() -> Iterator[vecdb.Collection]:
    with vecdb.open(":memory:") as db:
        yield db.create_collection("docs", 4, metric="l2")


def entries(docs: vecdb.Collection) -> int:
    """Of the table of requests, all kinds."""
    store = docs._backend.state.store
    with store.read() as txn:
        return int(txn.stat(store.requests)["entries"])


def test_a_repeated_upsert_writes_nothing_and_answers_as_before(docs: vecdb.Collection) -> None:
    assert docs.upsert([1, 2], [ONE, ONE], request_id="a") == 2
    docs.upsert(1, TWO)
    assert docs.upsert([1, 2], [ONE, ONE], request_id="a") == 2
    assert docs.get(1, include_vectors=True).vector.tolist() == TWO.tolist()
    assert docs.upsert([1, 2], [ONE, ONE], request_id="b") == 2
    assert docs.get(1, include_vectors=True).vector.tolist() == ONE.tolist()


WRITES: dict[str, Callable[[vecdb.Collection, str | None], Any]] = {
    "insert": lambda docs, id_: docs.insert([7, 8], [ONE, ONE], request_id=id_),
    "update": lambda docs, id_: docs.update(1, TWO, request_id=id_),
    "delete": lambda docs, id_: docs.delete([1, 99], request_id=id_),
    "grant": lambda docs, id_: docs.grant([1, 2], ["x", "y"], request_id=id_),
    "revoke": lambda docs, id_: docs.revoke([1, 2], "b", request_id=id_),
    "create_tenant": lambda docs, id_: docs.create_tenant(["n", "m"], request_id=id_),
    "drop_tenant": lambda docs, id_: docs.drop_tenant("b", request_id=id_),
}


@pytest.mark.parametrize("write", WRITES)
def test_every_write_may_be_repeated(docs: vecdb.Collection, write: str) -> None:
    docs.upsert([1, 2], [ONE, ONE], tenants=["b"])
    first = WRITES[write](docs, "r")
    sequence = docs.stats()["sequence"]
    assert WRITES[write](docs, "r") == first
    assert docs.stats()["sequence"] == sequence
    assert docs.check() == []


def test_an_answer_is_there_after_the_database_was_opened_again(tmp_path: Path) -> None:
    with vecdb.open(tmp_path / "db") as db:
        docs = db.create_collection("docs", 4)
        docs.upsert([1, 2, 3], [ONE] * 3)
        assert docs.delete([1, 2], request_id="gone") == 2
    with vecdb.open(tmp_path / "db") as db:
        docs = db.collection("docs")
        docs.upsert(1, ONE)
        assert docs.delete([1, 2], request_id="gone") == 2
        assert docs.count() == 2
        db.vacuum()
        assert docs.delete([1, 2], request_id="gone") == 2
        db.backup(tmp_path / "copy")
    vecdb.restore(tmp_path / "copy", tmp_path / "other")
    with vecdb.open(tmp_path / "other") as db:
        assert db.collection("docs").delete([1, 2], request_id="gone") == 2
        assert db.collection("docs").count() == 2


def test_a_refused_write_may_be_tried_again_under_its_id(docs: vecdb.Collection) -> None:
    with pytest.raises(vecdb.NotFound):
        docs.update(1, TWO, request_id="a")
    docs.upsert(1, ONE)
    assert docs.update(1, TWO, request_id="a") == 1


def test_the_id_of_another_kind_of_write_is_refused(docs: vecdb.Collection) -> None:
    docs.upsert(1, ONE, request_id="a")
    with pytest.raises(vecdb.InvalidArgument, match="another kind"):
        docs.delete(1, request_id="a")
    assert docs.count() == 1


@pytest.mark.parametrize("request_id", ["", 7, b"a", "x" * 129, "\ud800"])
def test_bad_ids_are_refused(docs: vecdb.Collection, request_id: Any) -> None:
    with pytest.raises(vecdb.InvalidArgument):
        docs.upsert(1, ONE, request_id=request_id)
    assert docs.count() == 0


def test_a_call_that_is_split_takes_no_request_id(docs: vecdb.Collection, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(type(docs._backend), "rows_per_call", property(lambda self: 1))
    with pytest.raises(vecdb.InvalidArgument, match="request_id"):
        docs.upsert([1, 2], np.ones((2, 4)), atomic=False, request_id="a")


def test_the_newest_answers_are_kept(docs: vecdb.Collection, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "requests_max", 3)
    for number in range(10):
        docs.upsert(number, ONE, request_id=f"r{number}")
    docs.delete(list(range(10)))
    assert entries(docs) == 2 * 3 + 1
    for number in range(7, 10):
        docs.upsert(number, ONE, request_id=f"r{number}")
    assert docs.count() == 0
    docs.upsert(0, ONE, request_id="r0")
    assert docs.count() == 1


def test_old_answers_go_with_later_writes(docs: vecdb.Collection, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1_000_000.0]
    monkeypatch.setattr(write_path.time, "time", lambda: now[0])
    for number in range(3):
        docs.upsert(number, ONE, request_id=f"r{number}")
    now[0] += limits.request_age_max_s + 1
    docs.upsert(9, ONE, request_id="late")
    assert entries(docs) == 2 + 1


def test_answers_go_with_their_collection(tmp_path: Path) -> None:
    with vecdb.open(tmp_path / "db") as db:
        docs = db.create_collection("docs", 4)
        other = db.create_collection("other", 4)
        for one in (docs, other):
            one.upsert(1, ONE, request_id="same")
        db.drop_collection("docs")
        assert entries(other) == 3
        again = db.create_collection("docs", 4)
        assert again.upsert(1, ONE, request_id="same") == 1
        assert again.count() == 1


def test_a_damaged_answer_is_found(docs: vecdb.Collection) -> None:
    docs.upsert(1, ONE, request_id="a")
    store, uid = docs._backend.state.store, docs._backend.state.entry.uid
    with store.begin_write() as txn:
        txn.put(keys.request_ids(uid) + b"a", b"short", db=store.requests)
    with pytest.raises(vecdb.Corruption):
        docs.upsert(1, ONE, request_id="a")
    assert any("request" in problem for problem in docs.check())
