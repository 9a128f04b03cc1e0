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
    with vecdb.open(":memory:", maintenance=False) as db:
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
    "grant": lambda docs, id_: docs.grant([1, 2], {"x", "y"}, request_id=id_),
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


FIELDS = [{"n": 1}, {"n": 2}]
OTHERS: dict[str, tuple[Callable[..., Any], dict[str, Any], list[dict[str, Any]]]] = {
    "upsert": (
        lambda docs, **given: docs.upsert(given.pop("ids"), given.pop("vectors"), **given),
        {"ids": [1, 2], "vectors": [ONE, TWO], "fields": FIELDS, "tenants": [["b"], ["c"]]},
        [
            {"ids": [1, 3]},
            {"ids": [2, 1]},
            {"vectors": [TWO, ONE]},
            {"vectors": [ONE, np.nextafter(TWO, ONE)]},
            {"fields": FIELDS[::-1]},
            {"fields": None},
            {"fields": [{"n": 1}, {"n": 2, "m": None}, {}][:2]},
            {"tenants": [["c"], ["b"]]},
            {"tenants": None},
            {"tenants": []},
            {"keep_tenants": True},
            {"owner": "b"},
        ],
    ),
    "update": (
        lambda docs, **given: docs.update(given.pop("ids"), **given),
        {"ids": [1, 2], "vectors": [ONE, TWO]},
        [{"ids": [2, 1]}, {"vectors": [TWO, ONE]}, {"vectors": None, "fields": FIELDS}, {"fields": FIELDS}],
    ),
    "delete": (
        lambda docs, **given: docs.delete(given.pop("ids"), **given),
        {"ids": [1, 99]},
        [{"ids": [2, 99]}, {"ids": [1]}, {"owner": "b"}],
    ),
    "grant": (
        lambda docs, **given: docs.grant(given.pop("ids"), given.pop("tenants"), **given),
        {"ids": [1, 2], "tenants": [["x"], ["y"]]},
        [{"tenants": [["y"], ["x"]]}, {"ids": [2, 1]}, {"tenants": {"x", "y"}}],
    ),
    "create": (
        lambda docs, **given: docs.create_tenant(given.pop("names"), **given),
        {"names": ["n", "m"]},
        [{"names": ["n"]}, {"records_max": 7}, {"exist_ok": True}],
    ),
}


@pytest.mark.parametrize(
    ("write", "other"), [(name, at) for name, (_, _, others) in OTHERS.items() for at in range(len(others))]
)
def test_an_id_that_comes_again_with_another_write_is_refused_and_changes_nothing(
    docs: vecdb.Collection, write: str, other: int
) -> None:
    docs.upsert([1, 2], [ONE, ONE], tenants=["b"])
    docs.upsert([1, 2], [ONE, ONE], owner="b")
    call, given, others = OTHERS[write]
    first = call(docs, **given, request_id="r")
    sequence = docs.stats()["sequence"]
    with pytest.raises(vecdb.InvalidArgument, match="a write of other content, and this one was not carried out"):
        call(docs, **(given | others[other]), request_id="r")
    assert call(docs, **given, request_id="r") == first and docs.stats()["sequence"] == sequence


def test_an_answer_of_an_earlier_version_has_no_digest_and_is_given_as_before(docs: vecdb.Collection) -> None:
    assert docs.upsert([1, 2], [ONE, ONE], request_id="a") == 2
    backend = docs._backend
    known = keys.request_ids(backend.state.entry.uid) + b"a"
    with backend.state.store.read() as txn:
        raw = bytes(txn.get(known, db=backend.state.store.requests))

    class Shorten:
        size_bytes, exclusive = 0, False

        def apply(self, group: Any) -> None:
            group.txn.put(known, raw[:-16], db=group.store.requests)
            group.changed = True

    backend.writes.submit(Shorten())
    assert docs.upsert([1, 2], [ONE, ONE], request_id="a") == 2
    assert docs.upsert([3], [ONE], request_id="a") == 2  # it was of another write, which nobody can know any more
    assert docs.check() == []


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
