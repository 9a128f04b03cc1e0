"""Every mistake is the same error, whichever way the database is opened: class, code and message."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest

import vecdb

DIM = 3
GOOD = [1.0, 2.0, 3.0]
MANY = range(10, 1_600_010)  # more than one call takes at once, near and far
Mistake = Callable[[Any, Any], Any]

MISTAKES: dict[str, Mistake] = {
    # what the gate refuses
    "no such name": lambda db, docs: db.create_collection("a/b", 3),
    "dim": lambda db, docs: db.create_collection("new", 0),
    "metric": lambda db, docs: db.create_collection("new", 3, "l7"),
    "index": lambda db, docs: db.create_collection("new", 3, index=vecdb.Hnsw(m=1)),
    "dtype": lambda db, docs: db.create_collection("new", 3, dtype="float64"),
    "ids and vectors": lambda db, docs: docs.upsert([1, 2], [GOOD]),
    "dimension": lambda db, docs: docs.upsert(1, [1.0]),
    "not finite": lambda db, docs: docs.upsert(1, [np.nan] * 3),
    "nothing to write": lambda db, docs: docs.upsert([9], []),
    "mixed ids": lambda db, docs: docs.upsert([1, "a"], [GOOD] * 2),
    "ids of the other kind": lambda db, docs: docs.upsert("a", GOOD),
    "read by the other kind": lambda db, docs: docs.get(["a"]),
    "delete by the other kind": lambda db, docs: docs.delete("a"),
    "grant by the other kind": lambda db, docs: docs.grant("a", "t"),
    "like by the other kind": lambda db, docs: docs.search_mixture(["a"]),
    "huge id": lambda db, docs: docs.upsert(2**63, GOOD),
    "field": lambda db, docs: docs.upsert(1, GOOD, {"a": object()}),
    "field too large": lambda db, docs: docs.upsert(1, GOOD, {"a": "x" * (1 << 20)}),
    "tenants": lambda db, docs: docs.upsert(1, GOOD, tenants=[""]),
    "owner": lambda db, docs: docs.upsert(1, GOOD, owner="x" * 129),
    "request id": lambda db, docs: docs.upsert(1, GOOD, request_id=""),
    "twice in an insert": lambda db, docs: docs.insert([8, 8], [GOOD] * 2),
    "twice in an update": lambda db, docs: docs.update([1, 1], [GOOD] * 2),
    "nothing to update": lambda db, docs: docs.update(1),
    "limit": lambda db, docs: docs.search(GOOD, 0),
    "limit too large": lambda db, docs: docs.search(GOOD, 16_385),
    "query": lambda db, docs: docs.search([1.0]),
    "params": lambda db, docs: docs.search(GOOD, params=vecdb.SearchParams(ef=0)),
    "recall and ef": lambda db, docs: docs.search(GOOD, params=vecdb.SearchParams(ef=9, recall=0.5)),
    "selection": lambda db, docs: docs.search(GOOD, fields=3),
    "no tenants": lambda db, docs: docs.search(GOOD, tenant=[]),
    "tenant of half a character": lambda db, docs: docs.search(GOOD, tenant="\ud800"),
    "flat histories": lambda db, docs: docs.search_mixture([1], histories=[1, 2]),
    "column of names": lambda db, docs: docs.grant([1, 2], pd.Series(["a", "b"])),
    "names that could be one each": lambda db, docs: docs.grant([1, 2], ["a", "b"]),
    "too few vectors for a call that is split": lambda db, docs: docs.upsert(MANY, [GOOD] * 7, atomic=False),
    "too few lists for a call that is split": lambda db, docs: docs.upsert(
        MANY, np.zeros((len(MANY), DIM)), tenants=[["t"]] * 7, atomic=False
    ),
    "batch": lambda db, docs: docs.iter(0),
    "threads": lambda db, docs: docs.optimize(threads=0),
    "smoothing alone": lambda db, docs: docs.search_mixture([1], smoothing=0.5),
    "backup path": lambda db, docs: db.backup(""),
    "long request id": lambda db, docs: docs.upsert(1, GOOD, request_id="ü" * 65),
    "request id of a call that is split": lambda db, docs: docs.upsert(1, GOOD, atomic=False, request_id="one"),
    "no queries": lambda db, docs: docs.search_stream(3),
    "window": lambda db, docs: docs.search_stream([GOOD], window=0),
    "wide window": lambda db, docs: docs.search_stream([GOOD], window=1_025),
    "one query of a stream": lambda db, docs: list(docs.search_stream([GOOD, [1.0]])),
    "tenant of a stream": lambda db, docs: list(docs.search_stream([GOOD], tenant="nobody")),
    "page of tenants": lambda db, docs: docs.tenants(limit=0),
    "page after nobody": lambda db, docs: docs.tenants(after=""),
    "mode": lambda db, docs: docs.prepare(4, GOOD, mode="update"),
    "prepared in vain": lambda db, docs: docs.prepare(1, GOOD, mode="insert")(),
    "no is not False": lambda db, docs: docs.upsert(1, GOOD, tenants="t", keep_tenants="no"),
    "one is not True": lambda db, docs: docs.upsert(1, GOOD, atomic=1),
    "atomic of an insert": lambda db, docs: docs.insert(9, GOOD, atomic=None),
    "kept by what is prepared": lambda db, docs: docs.prepare(1, GOOD, tenants="t", keep_tenants=0),
    "a tenant that may exist": lambda db, docs: docs.create_tenant("small", exist_ok="yes"),
    "a collection that may exist": lambda db, docs: db.create_collection("docs", DIM, "l2", exist_ok=1),
    "vectors of a search": lambda db, docs: docs.search(GOOD, include_vectors="no"),
    "explained": lambda db, docs: docs.search(GOOD, explain=1),
    "exact": lambda db, docs: docs.search(GOOD, params=vecdb.SearchParams(exact="no")),  # type: ignore[arg-type]
    "vectors of a stream": lambda db, docs: docs.search_stream([GOOD], include_vectors="no"),
    "vectors of a mixture": lambda db, docs: docs.search_mixture([1], include_vectors=[]),
    "explained mixture": lambda db, docs: docs.search_mixture([1], explain="no"),
    "vectors of records": lambda db, docs: docs.get(1, include_vectors=None),
    "vectors of all records": lambda db, docs: docs.iter(include_vectors=""),
    # what the engine refuses
    "no such collection": lambda db, docs: db.collection("none"),
    "a collection to drop": lambda db, docs: db.drop_collection("n\u00f6ne"),
    "exists": lambda db, docs: db.create_collection("docs", 3),
    "exists otherwise": lambda db, docs: db.create_collection("docs", 4, exist_ok=True),
    "insert what exists": lambda db, docs: docs.insert([7, 1], [GOOD] * 2),
    "update what does not": lambda db, docs: docs.update([1, 99], [GOOD] * 2),
    "grant what does not": lambda db, docs: docs.grant(99, "t"),
    "revoke of no tenant": lambda db, docs: docs.revoke(1, "nobody"),
    "quota": lambda db, docs: docs.grant([1, 2], "small"),
    "tenant exists": lambda db, docs: docs.create_tenant(["other", "small"]),
    "drop no tenant": lambda db, docs: docs.drop_tenant("nobody"),
    "search of no tenant": lambda db, docs: docs.search(GOOD, tenant="nobody"),
    "count of no tenant": lambda db, docs: docs.count(tenant=["small", "nobody"]),
    "read of no tenant": lambda db, docs: docs.get(1, tenant="nobody"),
    "list of no tenant": lambda db, docs: list(docs.iter(tenant="nobody")),
    "stats of no tenant": lambda db, docs: docs.stats(tenant="nobody"),
    "mixture of no record": lambda db, docs: docs.search_mixture([1, 99]),
    "request id of another kind of write": lambda db, docs: docs.delete(1, request_id="used"),
}


def filled(db: Any) -> Any:
    docs = db.create_collection("docs", DIM, "l2")
    docs.upsert([1, 2], [GOOD] * 2, [{"a": 1}, {}])
    docs.create_tenant("small", records_max=1)
    docs.upsert(3, GOOD, request_id="used")
    return docs


def failure(mistake: Mistake, db: Any, docs: Any) -> tuple[type, str, str]:
    return caught(mistake, db, docs)[:3]


def caught(mistake: Mistake, db: Any, docs: Any) -> tuple[type, str, str, str]:
    """Class, code, message and what is not there."""
    with pytest.raises(vecdb.VecdbError) as raised:
        mistake(db, docs)
    error = raised.value
    return type(error), error.code, str(error), getattr(error, "what", "")


@pytest.fixture(scope="module")
def expected() -> dict[str, tuple[type, str, str]]:
    """What each mistake leads to in a database that is embedded."""
    with vecdb.open(":memory:") as db:
        docs = filled(db)
        return {name: failure(mistake, db, docs) for name, mistake in MISTAKES.items()}


def test_mistakes_lead_to_the_same_errors_and_change_nothing(db: Any, expected: dict[str, Any]) -> None:
    docs = filled(db)
    before = [[one] for batch in docs.iter() for one in batch]
    found = {name: failure(mistake, db, docs) for name, mistake in MISTAKES.items()}
    assert found == expected
    assert [[one] for batch in docs.iter() for one in batch] == before and db.collections() == ["docs"]
    assert list(docs.tenants()) == ["small"]


WHAT: dict[str, Mistake] = {
    "no such collection": lambda db, docs: db.collection("none"),
    "collection": lambda db, docs: db.drop_collection("none"),
    "tenant": lambda db, docs: docs.search(GOOD, tenant="nobody"),
    "tenant to drop": lambda db, docs: docs.drop_tenant("nobody"),
    "tenant of a stream": lambda db, docs: list(docs.search_stream([GOOD], tenant="nobody")),
    "record": lambda db, docs: docs.update([1, 99], [GOOD] * 2),
    "record to grant": lambda db, docs: docs.grant(99, "t"),
    "record of a mixture": lambda db, docs: docs.search_mixture([1, 99]),
}


def test_what_is_not_found_is_told_apart(db: Any) -> None:
    docs = filled(db)
    found = {name: caught(call, db, docs)[3] for name, call in WHAT.items()}
    assert found == {name: name.removeprefix("no such ").split()[0] for name in WHAT}
    error = copy.copy(vecdb.NotFound("gone", "tenant"))
    assert (str(error), error.what, vecdb.NotFound("x").what) == ("gone", "tenant", "path")


def test_a_collection_that_was_dropped(db: Any) -> None:
    docs = filled(db)
    db.drop_collection("docs")
    calls: list[Mistake] = [
        lambda db, docs: docs.search(GOOD),
        lambda db, docs: list(docs.search_stream([GOOD])),
        lambda db, docs: docs.upsert(1, GOOD),
        lambda db, docs: docs.delete(1),
        lambda db, docs: docs.count(),
        lambda db, docs: docs.get(1),
        lambda db, docs: docs.stats(),
        lambda db, docs: docs.config,
        lambda db, docs: list(docs.iter()),
        lambda db, docs: list(docs.tenants()),
        lambda db, docs: docs.optimize(),
        lambda db, docs: db.collection("docs"),
    ]
    said = (vecdb.NotFound, "NOT_FOUND", "no collection 'docs'; collections() lists those that there are")
    assert [failure(call, db, docs) for call in calls] == [said] * len(calls)
    assert issubclass(vecdb.NotFound, LookupError)


def test_a_database_that_is_closed(db: Any) -> None:
    docs = filled(db)
    listed = docs.iter(batch=1)
    next(listed)
    db.close()
    db.close()
    for call in (
        lambda: next(listed),
        lambda: docs.search(GOOD),
        lambda: docs.upsert(9, GOOD),
        docs.count,
        db.collections,
        lambda: list(docs.iter()),
    ):
        with pytest.raises(vecdb.Unavailable, match=rf"^database {re.escape(str(db.path))} is closed; open it again$"):
            call()
    assert "closed" in repr(db)
