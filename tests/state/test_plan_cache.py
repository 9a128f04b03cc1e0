"""Goal: what is remembered of a search never outlives what it follows from, and keeps nothing alive."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator
from typing import Any

import pytest

import vecdb
from tests.support.corpus import EXACT, clustered
from vecdb import limits
from vecdb.api.database import Database
from vecdb.query import planner

VECTORS = clustered(300, 8)


@pytest.fixture
def docs(db: Database) -> Any:
    """300 records in a tree, every third of the tenant "a", every fifth of "b"."""
    docs = db.create_collection("docs", 8, "l2", vecdb.Curator(leaf_rows=8))
    lists = [[name for name, each in (("a", 3), ("b", 5)) if one % each == 0] for one in range(300)]
    docs.upsert(range(300), VECTORS, tenants=lists)
    docs.optimize()
    return docs


@pytest.fixture
def planned(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    """A plan for each time that one was made."""
    made: list[Any] = []
    plan = planner.plan

    def counted(*given: Any) -> planner.Plan:
        made.append(plan(*given))
        return made[-1]

    monkeypatch.setattr(planner, "plan", counted)
    yield made


def test_the_same_question_is_planned_once_and_each_other_one_by_itself(docs: Any, planned: list[Any]) -> None:
    def ask(**given: Any) -> int:
        for _ in range(3):
            docs.search(VECTORS[0], **({"limit": 5} | given))
        return len(planned)

    params = vecdb.SearchParams(nprobe=7)
    asked = ({}, {"limit": 6}, {"tenant": "a"}, {"tenant": "b"}, {"tenant": ["a", "b"]}, {"params": params})
    for wanted, given in enumerate(asked, 1):
        assert ask(**given) == wanted, given
    assert [ask(**given) for given in asked] == [len(asked)] * len(asked)
    assert ask(limit=5, params=EXACT) == len(asked) + 1 and planned[-1].strategy == "exact"


def test_each_commit_forgets(docs: Any, planned: list[Any]) -> None:
    docs.search(VECTORS[0], 300, tenant="a")
    docs.revoke(0, "a")
    assert 0 not in docs.search(VECTORS[0], 300, tenant="a").ids and len(planned) == 2
    docs.delete(3)
    assert 3 not in docs.search(VECTORS[0], 300, tenant="a").ids and len(planned) == 3
    docs.drop_tenant("a")
    with pytest.raises(vecdb.NotFound):
        docs.search(VECTORS[0], 300, tenant="a")
    docs.create_tenant("a")
    assert len(docs.search(VECTORS[0], 300, tenant="a")) == 0


def test_a_step_of_the_index_is_followed_though_it_is_no_commit(db: Database, planned: list[Any]) -> None:
    docs = db.create_collection("docs", 8, "l2", vecdb.Curator(leaf_rows=8))
    docs.upsert(range(300), VECTORS, tenants="a")
    for limit in (5, 6):
        assert docs.search(VECTORS[0], limit, tenant="a", explain=True).plan == "rows"
    snapshot = docs._backend.state.snapshot
    snapshot.generation.index.add(200)
    assert docs.search(VECTORS[0], 5, tenant="a", explain=True).explain["indexed_rows"] == 200
    assert docs.search(VECTORS[0], 5, tenant="a", explain=True).plan == "tree"
    assert docs._backend.state.snapshot is snapshot
    snapshot.generation.index.add(300)
    found = docs.search(VECTORS[250], 5, tenant="a", explain=True)
    assert found.ids[0] == 250 and len(planned) == 4, "the one of limit 6 was not asked again"
    assert len(snapshot.prepared._kept[2]) == 1, "what was prepared for the index as it was holds none of its memory"


def test_an_eviction_lets_go_of_the_rows_of_tenants(docs: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    docs.search(VECTORS[0], 5, tenant="a")
    searches, tenants = docs._backend.state.snapshot.prepared, docs._backend.state.snapshot.generation.tenants
    assert len(searches._kept[2]) == 1
    monkeypatch.setattr(limits, "tenant_cache_bytes", 1)
    docs.search(VECTORS[0], 5, tenant="b")  # no room for it, and none for the other
    assert not tenants._entries
    docs.search(VECTORS[0], 5)
    assert [asked[2] for asked in searches._kept[2]] == [()]


def test_no_more_searches_are_kept_prepared_than_their_bound(docs: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "prepared_searches_max", 4)
    for limit in range(1, 12):
        docs.search(VECTORS[0], limit)
        assert len(docs._backend.state.snapshot.prepared._kept[2]) <= 4


def test_a_generation_goes_with_its_view(docs: Any) -> None:
    docs.search(VECTORS[0], 5, tenant="a")
    docs.search(VECTORS[0], 5)
    docs.delete(range(100))
    docs.search(VECTORS[0], 5, tenant="a")
    old = weakref.ref(docs._backend.state.snapshot.generation)
    gc.collect()
    gc.disable()
    try:
        docs.vacuum()
        assert old() is None, "only the collector of cycles would have freed it"
    finally:
        gc.enable()
