"""Goal: a tenant sees the records granted to it and no others, whatever happens around it, and damage is loud.

The model tests (tests/model) hold every index kind to a dict of sets over long histories; here is each rule by itself.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

import vecdb
from tests.engine.corpus import EXACT, clustered
from vecdb import limits
from vecdb.api.database import Database
from vecdb.embedded.open import open_database
from vecdb.errors import AlreadyExists, Corruption, InvalidArgument, LimitExceeded, NotFound
from vecdb.maintenance import vacuum
from vecdb.query import planner
from vecdb.schema import Visibility
from vecdb.storage.kv import keys, record_format
from vecdb.storage.kv.catalog import MeasuredRecall
from vecdb.tenancy import access_changes, pairs, tenant_cache
from vecdb.tenancy.pairs import NOTHING, RowTenantPairs

ROOT = Path(__file__).resolve().parents[2]
VECTORS = clustered(400, 8)
KINDS = {
    "flat": vecdb.Flat(),
    "hnsw": vecdb.Hnsw(m=6, ef_construction=40),
    "spann": vecdb.Spann(head_ratio=0.1),
    "curator": vecdb.Curator(leaf_rows=8, scan_max=40, shortlist_max=12),
}


def ids_of(hits: Any) -> list[Any]:
    return sorted(hits.ids.tolist())


def seen(docs: Any, tenant: Any, **more: Any) -> list[Any]:
    """All that a tenant finds."""
    return ids_of(docs.search(VECTORS[0, : docs.dim], 400, tenant=tenant, **more))


@pytest.fixture
def shared(db: Database) -> Any:
    """Ten records: 0 to 4 of acme, 3 to 7 of beta, 8 and 9 of nobody."""
    docs = db.create_collection("docs", 8, "l2")
    lists = [["acme"], ["acme"], ["acme"], ["acme", "beta"], ["beta", "acme"], ["beta"], ["beta"], ["beta"], [], []]
    docs.upsert(range(10), VECTORS[:10], tenants=lists)
    return docs


# -- what a call does ------------------------------------------------------------------------------


def test_a_tenant_finds_its_records_and_a_union_each_once(shared: Any) -> None:
    assert seen(shared, "acme") == [0, 1, 2, 3, 4] and seen(shared, "beta") == [3, 4, 5, 6, 7]
    assert seen(shared, ["acme", "beta"]) == list(range(8)) == seen(shared, ("beta", "acme", "beta"))
    assert ids_of(shared.search(VECTORS[0], 400)) == list(range(10)), "without tenant= everything is searched"
    assert (shared.count(tenant="acme"), shared.count(tenant=["acme", "beta"]), shared.count()) == (5, 8, 10)
    assert [shared.get(one).tenants for one in (0, 4, 8)] == [["acme"], ["acme", "beta"], []]
    assert sorted(record.id for part in shared.iter(2, tenant="beta") for record in part) == [3, 4, 5, 6, 7]
    assert [record.tenants for part in shared.iter(3, tenant=["acme"]) for record in part][4] == ["acme", "beta"]
    assert list(shared.tenants()) == ["acme", "beta"]


@pytest.mark.parametrize("ids", ["int", "str"])
@pytest.mark.parametrize("kind", KINDS)
def test_every_plan_of_every_index_agrees_with_brute_force(
    db: Database, monkeypatch: pytest.MonkeyPatch, kind: str, ids: str
) -> None:
    monkeypatch.setattr(limits, "flat_rows_max", 100)
    monkeypatch.setattr(planner, "_SCAN_SHARE", 1e9)
    docs = db.create_collection("docs", 8, "l2", KINDS[kind])
    names = [one if ids == "int" else f"id-{one}" for one in range(400)]
    lists = [[name for name in ("t2", "t3", "t40") if number % int(name[1:]) == 0] for number in range(400)]
    docs.upsert(names[:350], VECTORS[:350], tenants=lists[:350])
    docs.optimize()
    docs.upsert(names[350:], VECTORS[350:], tenants=lists[350:])  # the tail
    docs.delete(names[::7])
    plans = set()
    for widths in (planner._SCAN_PER_WIDTH, 0.0):
        monkeypatch.setattr(planner, "_SCAN_PER_WIDTH", widths)
        docs.create_tenant(f"of {widths}")  # a commit, after which everything is planned anew
        for tenant in ("t2", "t3", "t40", ["t3", "t40"]):
            wanted = {tenant} if isinstance(tenant, str) else set(tenant)
            rows = [one for one in range(400) if one % 7 and wanted & set(lists[one])]
            for query in VECTORS[:20]:
                best = sorted(rows, key=lambda one: float(((VECTORS[one] - query) ** 2).sum()))[:10]
                exact = docs.search(query, 10, tenant=tenant, params=EXACT)
                assert exact.ids.tolist() == [names[one] for one in best]
                near = docs.search(query, 10, tenant=tenant, explain=True)
                plans.add(near.plan)
                assert len(near.ids) == min(10, len(rows)) and set(near.ids.tolist()) <= {names[one] for one in rows}
                if near.plan == "rows":
                    assert near.ids.tolist() == exact.ids.tolist()
    assert plans == {"flat": {"rows"}, "hnsw": {"rows", "graph"}, "spann": {"rows", "lists"}, "curator": {"tree"}}[kind]
    batch = docs.search(VECTORS[:20], 10, tenant="t3", params=EXACT)
    alone = [docs.search(query, 10, tenant="t3", params=EXACT) for query in VECTORS[:20]]
    assert batch.ids.tolist() == [one.ids.tolist() for one in alone]


def test_upsert_without_tenants_leaves_a_list_alone_and_an_empty_one_clears_it(shared: Any) -> None:
    shared.upsert([0, 3, 8], VECTORS[20:23])
    assert seen(shared, "acme") == [0, 1, 2, 3, 4] and shared.get(3).tenants == ["acme", "beta"]
    shared.update([4, 0], vectors=VECTORS[30:32])
    assert [shared.get(one).tenants for one in (4, 0)] == [["acme", "beta"], ["acme"]]
    shared.update([5], fields=[{"a": 1}])
    assert seen(shared, "beta") == [3, 4, 5, 6, 7] and shared.get(4).tenants == ["acme", "beta"]
    shared.upsert([3], VECTORS[3:4], tenants=[])
    assert shared.get(3).tenants == [] and seen(shared, "beta") == [4, 5, 6, 7]
    shared.upsert([4, 5, 4], VECTORS[:3], tenants=[["x"], [], ["gamma"]])
    assert shared.get(4).tenants == ["gamma"], "of an id that repeats the last counts"
    assert "x" in shared.tenants() and shared.count(tenant="x") == 0 and len(shared.search(VECTORS[0], tenant="x")) == 0
    shared.insert(11, VECTORS[11], tenants="acme")
    assert seen(shared, "acme") == [0, 1, 2, 11]


def test_grant_and_revoke_say_how_many_pairs_changed_and_may_be_repeated(shared: Any) -> None:
    assert shared.grant([0, 8, 9], "beta") == 3 and shared.grant([0, 8, 9], ["beta"]) == 0
    assert shared.grant([0, 8, 8], [["acme", "new"], ["new"], ["new", "new"]]) == 2
    assert shared.get(0).tenants == ["acme", "beta", "new"] and seen(shared, "new") == [0, 8]
    assert shared.revoke([0, 1, 2], [["acme", "beta"], [], ["acme"]]) == 3
    assert shared.revoke([0, 2], ["acme", "beta"]) == 0 and shared.get(0).tenants == ["new"]
    assert seen(shared, "acme") == [1, 3, 4] and shared.revoke(0, "new") == 1 and shared.get(0).tenants == []
    assert shared.grant([], "acme") == 0
    before = shared.stats()["sequence"]
    shared.grant([1], "acme")
    shared.create_tenant("acme", exist_ok=True)
    assert shared.stats()["sequence"] == before, "what changes nothing is no commit"


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (lambda docs: docs.grant([1, 77], "acme"), NotFound),
        (lambda docs: docs.revoke([1, 77], "acme"), NotFound),
        (lambda docs: docs.revoke([1], "nobody"), NotFound),
        (lambda docs: docs.revoke([1, 2], [["acme"], ["nobody"]]), NotFound),
        (lambda docs: docs.insert([50, 1], VECTORS[:2], tenants="unheard"), AlreadyExists),
        (lambda docs: docs.upsert([1, 2], VECTORS[:2], tenants=[["a"]]), InvalidArgument),
        (lambda docs: docs.upsert([1, 2], VECTORS[:2], tenants=["a", ["b"]]), InvalidArgument),
        (lambda docs: docs.upsert([1], VECTORS[:1], tenants=[[3]]), InvalidArgument),
        (lambda docs: docs.upsert([1], VECTORS[:1], tenants=[""]), InvalidArgument),
        (lambda docs: docs.upsert([1], VECTORS[:1], tenants={"a": 1}), InvalidArgument),
        (lambda docs: docs.upsert([1], VECTORS[:1], tenants=["\ud800"]), InvalidArgument),
        (lambda docs: docs.upsert([1], VECTORS[:1], tenants=["x" * 257]), LimitExceeded),
        (lambda docs: docs.grant([1], [["a"], ["b"]]), InvalidArgument),
        (lambda docs: docs.grant([1], "a", owner="somebody"), NotFound),
        (lambda docs: docs.create_tenant("acme"), AlreadyExists),
        (lambda docs: docs.create_tenant(["unheard", "beta"]), AlreadyExists),
        (lambda docs: docs.create_tenant("z", records_max=0), InvalidArgument),
        (lambda docs: docs.create_tenant([]), InvalidArgument),
        (lambda docs: docs.drop_tenant("nobody"), NotFound),
        (lambda docs: docs.search(VECTORS[0], tenant="nobody"), NotFound),
        (lambda docs: docs.search(VECTORS[0], tenant=["acme", "nobody"]), NotFound),
        (lambda docs: docs.search(VECTORS[0], tenant=[]), InvalidArgument),
        (lambda docs: docs.search(VECTORS[0], tenant=""), InvalidArgument),
        (lambda docs: docs.search(VECTORS[0], tenant="\ud800"), InvalidArgument),
        (lambda docs: docs.search(VECTORS[0], tenant=7), InvalidArgument),
        (lambda docs: docs.search(VECTORS[0], tenant=[str(i) for i in range(5_000)]), LimitExceeded),
        (lambda docs: docs.count(tenant="nobody"), NotFound),
        (lambda docs: docs.count(tenant=[]), InvalidArgument),
        (lambda docs: list(docs.iter(tenant="nobody")), NotFound),
        (lambda docs: docs.stats(tenant="nobody"), NotFound),
        (lambda docs: docs.evaluate(VECTORS[:2], tenant="nobody"), NotFound),
        (lambda docs: docs.evaluate(VECTORS[:0], tenant="nobody"), NotFound),
    ],
)
def test_an_error_changes_nothing(shared: Any, call: Callable[[Any], Any], error: type[Exception]) -> None:
    def everything() -> Any:
        records = [(record.id, record.tenants) for part in shared.iter() for record in part]
        return records, list(shared.tenants()), shared.stats()["sequence"]

    before = everything()
    with pytest.raises(error):
        call(shared)
    assert everything() == before


@pytest.mark.parametrize(
    ("tenants", "said"),
    [
        ([3], r"tenants\[0\] must be a name or a list of names, got 3"),
        (["a", None], r"tenants\[1\] must be a name or a list of names, got None"),
        ([b"acme"], r"tenants\[0\] must be a name or a list of names, got b'acme'"),
        (["a", ["b"]], "names and lists of names"),
        ([["a"]], "got 2 ids and 1 lists of tenants"),
        (pd.Series(["a", "b"]), "a column of names, which could be one each or all for all records"),
        (pl.Series([["a"], None]), r"tenants\[1\] must be a name or a list of names, got None"),
    ],
)
def test_a_mistake_in_access_lists_is_named(shared: Any, tenants: Any, said: str) -> None:
    for call in (shared.grant, lambda ids, tenants: shared.upsert(ids, VECTORS[:2], tenants=tenants)):
        with pytest.raises(InvalidArgument, match=said):
            call([0, 1], tenants)
    with pytest.raises(InvalidArgument, match="one bare id must be one list"):
        shared.grant(0, [["a"]])


@pytest.mark.parametrize(
    "column",
    [pd.Series, pl.Series, pa.array, lambda lists: pd.Series([np.array(one, object) for one in lists])],
    ids=["pandas", "polars", "arrow", "pandas arrays"],
)
def test_access_lists_may_be_a_column_of_a_table(db: Database, column: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    lists = [["a"], ["a", "b"], [], ["b"], ["c"]]
    docs = db.create_collection("docs", 8, "l2")
    docs.upsert(range(5), VECTORS[:5], tenants=column(lists))
    assert [record.tenants for record in docs.get(range(5))] == lists
    docs.upsert(range(5), VECTORS[:5], tenants=[])
    monkeypatch.setattr(limits, "batch_rows_max", 2)
    docs.upsert(range(5), VECTORS[:5], tenants=column(lists), atomic=False)
    assert [record.tenants for i in range(5) for record in docs.get([i])] == lists


def test_a_quota_is_held_before_anything_changes(db: Database) -> None:
    docs = db.create_collection("docs", 8, "l2")
    docs.upsert(range(10), VECTORS[:10])
    assert docs.create_tenant("small", records_max=3) == 1
    docs.grant([0, 1], "small")
    for call in (
        lambda: docs.grant([2, 3], "small"),
        lambda: docs.grant([4, 2, 3], [["other"], ["small"], ["small"]]),
        lambda: docs.upsert([20, 21], VECTORS[:2], tenants="small"),
    ):
        with pytest.raises(LimitExceeded, match="'small' would have 4 records, its limit is 3"):
            call()
        assert docs.count(tenant="small") == 2 and docs.count() == 10 and list(docs.tenants()) == ["small"]
    assert docs.grant([0, 1, 2], "small") == 1, "what is there already does not count twice"
    docs.upsert([0, 1], VECTORS[:2])  # rows are replaced, the records are the same
    docs.upsert([0, 1], VECTORS[:2], tenants="small")
    docs.delete(0)
    docs.upsert([30], VECTORS[:1], tenants=["small"])
    assert docs.count(tenant="small") == 3 == docs.stats(tenant="small")["records_max"]
    docs.create_tenant("small", exist_ok=True, records_max=4)
    docs.upsert([1, 31], VECTORS[:2], tenants="small")  # one takes its own place
    docs.delete(31)
    assert docs.grant(4, "small") == 1 and docs.stats(tenant="small")["records"] == 4
    docs.create_tenant("small", exist_ok=True, records_max=limits.tenant_records_max)
    assert docs.stats(tenant="small")["records_max"] is None, "lifted"


def test_bounds_of_a_record_and_of_a_call_are_held(shared: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "tenants_per_record_max", 3)
    with pytest.raises(LimitExceeded, match="a record would have 4 tenants, limit 3"):
        shared.grant([3], ["x", "y"])
    with pytest.raises(LimitExceeded, match="at most 3 tenants"):
        shared.upsert([3], VECTORS[:1], tenants=["w", "x", "y", "z"])
    with pytest.raises(LimitExceeded, match="a record would have 4 tenants, limit 3"):
        shared.upsert([3], VECTORS[:1], tenants=["x", "y"], keep_tenants=True)
    assert shared.grant([3], "x") == 1
    monkeypatch.setattr(limits, "pairs_per_call_max", 5)
    with pytest.raises(LimitExceeded, match="at most 5 pairs"):
        shared.grant([0, 1, 2], ["x", "y"])
    monkeypatch.setattr(limits, "tenants_per_call_max", 2)
    with pytest.raises(LimitExceeded, match="at most 2 tenants"):
        shared.grant([0], ["x", "y", "z"])
    monkeypatch.setattr(limits, "tenants_made_max", 4)
    with pytest.raises(LimitExceeded, match="has made 3 tenants"):
        shared.create_tenant(["p", "q"])
    assert list(shared.tenants()) == ["acme", "beta", "x"]


def test_tenants_that_were_dropped_do_not_count_among_those_of_a_record(
    shared: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "tenants_per_record_max", 2)
    shared.drop_tenant("acme")
    for _ in range(3):
        assert shared.grant([3], "gamma") == 1 and shared.get(3).tenants == ["beta", "gamma"]
        shared.drop_tenant("gamma")
    assert shared.grant([3], "delta") == 1 and shared.get(3).tenants == ["beta", "delta"]
    with pytest.raises(LimitExceeded, match="a record would have 3 tenants, limit 2"):
        shared.grant([3], "epsilon")


def test_owners_have_records_of_their_own_under_one_id(db: Database) -> None:
    docs = db.create_collection("docs", 8, "l2")
    for number, owner in enumerate(("", "ann", "bob")):
        docs.upsert([1], VECTORS[number][None], tenants=["all", f"of-{owner}"], owner=owner)
    assert docs.count(tenant="all") == 3
    assert docs.revoke(1, "all", owner="ann") == 1 and docs.grant(1, "more", owner="bob") == 1
    assert docs.get(1, owner="ann").tenants == ["of-ann"] and docs.get(1, owner="bob").tenants[1:] == ["more", "of-bob"]
    assert docs.get(1).tenants == ["all", "of-"]
    docs.delete(1, owner="bob")
    assert docs.count(tenant="all") == 1 and docs.count(tenant="of-bob") == 0 and db.check() == []


def test_a_dropped_tenant_leaves_nothing_to_the_next_of_its_name(shared: Any, db: Database) -> None:
    assert seen(shared, "acme") == [0, 1, 2, 3, 4] and len(seen(shared, ["acme", "beta"])) == 8
    shared.drop_tenant("acme")
    for tenant in ("acme", ["acme", "beta"]):
        with pytest.raises(NotFound):
            seen(shared, tenant)
    assert list(shared.tenants()) == ["beta"] and shared.get(3).tenants == ["beta"] and shared.count() == 10
    shared.create_tenant("acme")
    assert seen(shared, "acme") == [] and shared.count(tenant="acme") == 0
    shared.upsert([0, 3], VECTORS[:2])  # moves what is left of their lists
    shared.grant([1, 4], "acme")
    assert seen(shared, "acme") == [1, 4] and seen(shared, "beta") == [3, 4, 5, 6, 7] and db.check() == []
    shared.delete([9])
    shared.vacuum()
    engine = shared._engine
    with engine.store.read() as txn:
        uid = engine.entry.uid
        first = access_changes.number_of(engine.store, txn, uid, b"beta")
        assert first == 2 and access_changes.number_of(engine.store, txn, uid, b"acme") == 3, "numbers are never reused"
        held = engine.snapshot.generation.journal.tables.lists_of(txn, np.arange(9))
        assert set(held.numbers.tolist()) == {2, 3}, "vacuum leaves out what is left of dropped tenants"
    assert seen(shared, "acme") == [1, 4] and db.check() == []


def test_many_tenants_are_listed_in_order_and_made_at_once(db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vecdb.query.searcher._NAMES_PAGE", 7)
    docs = db.create_collection("docs", 8, "l2")
    names = [f"n{number}" for number in range(50)] + ["é", "z", "\0", "日本"]
    assert docs.create_tenant(names) == 54 and docs.create_tenant([*names, "one more"], exist_ok=True) == 1
    assert list(docs.tenants()) == sorted([*names, "one more"])
    other = db.create_collection("other", 8, "l2")
    assert list(other.tenants()) == [], "each collection has tenants of its own"
    other.upsert([1], VECTORS[:1], tenants="z")
    assert docs.count(tenant="z") == 0 and db.check() == []
    db.drop_collection("docs")
    with db._home.store.read() as txn:
        assert txn.stat(db._home.store.tenants)["entries"] == 3, "what a dropped collection had is purged"
        assert txn.stat(db._home.store.members)["entries"] == txn.stat(db._home.store.access)["entries"] == 1
    assert seen(other, "z") == [1]


def test_a_tenant_has_figures_of_its_own(shared: Any) -> None:
    assert shared.stats()["tenants_cached"] == 0, "a tenant that nobody searched takes no memory"
    facts = shared.stats(tenant="acme")
    assert (facts["records"], facts["plan"], facts["records_max"]) == (5, "rows", None)
    assert facts["bytes_ram"] >= 20 and shared.stats()["tenants_cached"] == 1
    report = shared.evaluate(VECTORS[:5], 3, tenant=["acme", "beta"])
    assert (report["recall"], report["queries"], report["plan"]) == (1.0, 5, "rows")


def test_evaluate_compares_with_the_best_among_the_tenants_records(db: Database, monkeypatch: Any) -> None:
    monkeypatch.setattr(limits, "flat_rows_max", 100)
    monkeypatch.setattr(planner, "_SCAN_PER_WIDTH", 0.0)
    docs = db.create_collection("docs", 8, "l2", KINDS["hnsw"])
    docs.upsert(range(400), VECTORS, tenants=[["a"] if number % 2 else [] for number in range(400)])
    docs.optimize()
    report = docs.evaluate(VECTORS[:50], 10, tenant="a", params=vecdb.SearchParams(ef=64))
    assert report["plan"] == "graph" and report["recall"] > 0.9


# -- one commit at a time --------------------------------------------------------------------------


def test_a_search_sees_one_commit_of_a_record_that_changes_hands(db: Database) -> None:
    docs = db.create_collection("docs", 8, "l2", vecdb.Flat())
    docs.upsert(range(64), VECTORS[:64], tenants="a")
    docs.create_tenant("b")
    stop, wrong = threading.Event(), []

    def search() -> None:
        while not stop.is_set():
            mine, both = seen(docs, "a"), seen(docs, ["a", "b"])
            if len(mine) not in (0, 64) or both != list(range(64)):
                wrong.append((len(mine), len(both)))

    threads = [threading.Thread(target=search) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        for turn in range(60):
            docs.upsert(range(64), VECTORS[:64], tenants="ba"[turn % 2])
            assert len(seen(docs, "ba"[turn % 2])) == 64 and seen(docs, "ab"[turn % 2]) == []
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert wrong == []


def test_calls_that_share_a_commit_are_seen_as_one(shared: Any) -> None:
    """The commit thread is held until four calls wait for it."""
    committer, held, go = shared._engine._committer, threading.Event(), threading.Event()

    class Hold:
        size_bytes, exclusive = 0, True

        def apply(self, group: Any) -> None:
            held.set()
            go.wait()

    assert seen(shared, "acme") == [0, 1, 2, 3, 4]
    calls: list[Callable[[], Any]] = [
        lambda: committer.submit(Hold()),
        lambda: shared.grant([8, 9], "acme"),
        lambda: shared.revoke([0, 9], "acme"),
        lambda: shared.upsert([1, 2], VECTORS[:2], tenants=[["beta"], ["acme"]]),
        lambda: shared.grant([0, 1], ["late"]),
    ]
    threads = []
    for at, call in enumerate(calls):
        threads.append(threading.Thread(target=call))
        threads[-1].start()
        held.wait()
        while len(committer._queue) < at:
            pass
    before = shared.stats()["sequence"]
    go.set()
    for thread in threads:
        thread.join()
    assert shared.stats()["sequence"] == before + 1
    assert seen(shared, "acme") == [2, 3, 4, 8] and seen(shared, "late") == [0, 1]
    assert seen(shared, "beta") == [1, 3, 4, 5, 6, 7] and shared.check() == []


def test_an_older_snapshot_finds_the_version_before_and_no_other(shared: Any) -> None:
    cache, first = shared._engine.snapshot.generation.tenants, shared._engine.snapshot.visibility
    assert cache.rows_at(("acme",), first).rows.tolist() == [0, 1, 2, 3, 4]
    shared.revoke([0], "acme")
    second = shared._engine.snapshot.visibility
    assert cache.rows_at(("acme",), first).rows.tolist() == [0, 1, 2, 3, 4]
    assert cache.rows_at(("acme",), second).rows.tolist() == [1, 2, 3, 4]
    shared.grant([9], "acme")
    assert cache.rows_at(("acme",), first) is None, "two changes ago: a newer view is to be taken"
    assert cache.rows_at(("acme",), second).rows.tolist() == [1, 2, 3, 4]
    shared.upsert([100], VECTORS[:1])
    assert cache.rows_at(("acme",), shared._engine.snapshot.visibility).rows.tolist() == [1, 2, 3, 4, 9]
    assert cache.rows_at(("acme", "beta"), first) is None
    assert cache.rows_at(("beta",), first).rows.tolist() == [3, 4, 5, 6, 7], "loaded later, the same since then"


def test_a_union_is_kept_while_none_of_its_parts_moves(shared: Any) -> None:
    cache = shared._engine.snapshot.generation.tenants

    def rows() -> Any:
        return cache.rows_at(("acme", "beta"), shared._engine.snapshot.visibility)

    kept = rows()
    shared.upsert([50], VECTORS[:1])
    assert rows() is kept
    shared.revoke([0], "acme")
    assert rows() is not kept and rows().rows.tolist() == [1, 2, 3, 4, 5, 6, 7]


def test_the_cache_holds_to_its_bound(db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    docs = db.create_collection("docs", 8, "l2", vecdb.Flat())
    docs.upsert(range(400), VECTORS, tenants=[[f"t{number % 50}"] for number in range(400)])
    monkeypatch.setattr(limits, "tenant_cache_bytes", 10 * tenant_cache._ENTRY_BYTES)
    monkeypatch.setattr(limits, "tenant_unions_max", 3)
    for _ in range(3):
        for number in range(50):
            assert seen(docs, f"t{number}") == list(range(number, 400, 50))
            assert seen(docs, "t7") == list(range(7, 400, 50))
            assert len(seen(docs, [f"t{number}", f"t{(number + 1) % 50}"])) == 16
            facts = docs.stats()
            assert facts["tenant_cache_bytes"] <= limits.tenant_cache_bytes and facts["tenants_cached"] < 10
        docs.upsert(range(400), VECTORS)


def test_a_bitmap_is_kept_when_asked_for_twice_and_made_anew_when_rows_pass_it() -> None:
    from vecdb.index.row_set import RowSet

    grown: list[int] = []
    allowed = RowSet(np.array([0, 63, 64, 130], np.uint32), grown.append)
    first, second = allowed.bitmap(131), allowed.bitmap(131)
    assert np.array_equal(first, second) and len(grown) == 1 and allowed.bitmap(131) is second
    assert np.flatnonzero(np.unpackbits(second.view(np.uint8), bitorder="little")).tolist() == [0, 63, 64, 130]
    for row_count in range(131, 2_000, 7):
        assert len(allowed.bitmap(row_count)) * 64 >= row_count
    assert allowed.nbytes == 16 + sum(grown)
    assert len(RowSet(np.empty(0, np.uint32)).bitmap(0)) > 0, "an empty bitmap would allow everything"


# -- files and processes ---------------------------------------------------------------------------


def test_grants_revokes_drops_and_deletes_during_a_vacuum_are_in_the_new_generation(
    db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vacuum, "_PIECE_ROWS", 20)
    monkeypatch.setattr(limits, "block_rows_max", 10)
    docs = db.create_collection("docs", 8, "l2", vecdb.Flat())
    names = [f"t{number}" for number in range(6)]
    model = {one: {names[one % 5], names[one % 3]} for one in range(200)}
    docs.upsert(range(200), VECTORS[:200], tenants=[sorted(model[one]) for one in range(200)])
    docs.drop_tenant("t4")
    docs.delete(range(0, 200, 3))
    model = {one: held - {"t4"} for one, held in model.items() if one % 3}
    rng = np.random.default_rng(3)

    def meanwhile(done: int, rows: int) -> None:
        if done >= rows:
            return
        for name, change, meant in (("t1", docs.grant, set.add), ("t2", docs.revoke, set.discard)):
            chosen = rng.choice(sorted(model), 20).tolist()
            change(chosen, name)
            for one in chosen:
                meant(model[one], name)
        gone = rng.choice(sorted(model), 3, replace=False).tolist()
        docs.delete(gone)
        for one in gone:
            del model[one]
        again = rng.choice(sorted(model), 3, replace=False).tolist()
        docs.upsert(again, VECTORS[again], tenants=["new"])
        model.update({one: {"new"} for one in again})
        if "t3" in docs.tenants() and done > 100:
            docs.drop_tenant("t3")
            for held in model.values():
                held.discard("t3")

    docs.vacuum(progress=meanwhile)
    assert docs.stats()["generation"] == 1 and db.check() == []
    assert "t3" not in docs.tenants()
    for name in docs.tenants():
        assert seen(docs, name) == sorted(one for one, held in model.items() if name in held), name
    assert {record.id: set(record.tenants) for part in docs.iter() for record in part} == model


def test_reopening_and_a_backup_keep_tenants_and_quotas(tmp_path: Path) -> None:
    with open_database(tmp_path / "db", maintenance=False) as db:
        docs = db.create_collection("docs", 8, "l2")
        docs.create_tenant("small", records_max=7)
        docs.upsert(
            range(400),
            VECTORS,
            tenants=[["even"] if one % 2 == 0 else ["odd", "small"][: 1 + (one < 9)] for one in range(400)],
        )
        docs.drop_tenant("odd")
        db.backup(tmp_path / "copy")
    vecdb.restore(tmp_path / "copy", tmp_path / "restored")
    for name in ("db", "restored"):
        for read_only in (True, False):
            with open_database(tmp_path / name, maintenance=False, read_only=read_only) as db:
                docs = db["docs"]
                assert list(docs.tenants()) == ["even", "small"] and docs.stats(tenant="small")["records_max"] == 7
                assert seen(docs, "even") == list(range(0, 400, 2)) and seen(docs, "small") == [1, 3, 5, 7]
                assert docs.get(1).tenants == ["small"] and db.check() == []
        with open_database(tmp_path / name, maintenance=False) as db:
            assert db["docs"].create_tenant("odd") == 1 and seen(db["docs"], "odd") == []


def test_another_process_follows_grants_revokes_and_drops(tmp_path: Path) -> None:
    """Both databases are in one process here, each with what it has loaded; tests/model reads from another one."""
    with open_database(tmp_path / "db", maintenance=False) as db:
        docs = db.create_collection("docs", 8, "l2")
        docs.upsert(range(10), VECTORS[:10], tenants=[["a"], ["b"]] * 5)
    script = (
        "import sys, vecdb\n"
        "docs = vecdb.open(sys.argv[1], read_only=True)['docs']\n"
        "for line in sys.stdin:\n"
        "    try:\n"
        "        hits = docs.search([0.0] * 8, 400, tenant=line.split())\n"
        "        print(sorted(hits.ids.tolist()), flush=True)\n"
        "    except vecdb.NotFound:\n"
        "        print('NotFound', flush=True)\n"
    )
    reader = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path / "db")],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT,
    )  # fmt: skip

    def ask(names: str) -> str:
        assert reader.stdin is not None and reader.stdout is not None
        print(names, file=reader.stdin, flush=True)
        return reader.stdout.readline().strip()

    with open_database(tmp_path / "db", maintenance=False) as db:
        docs = db["docs"]
        assert ask("a") == "[0, 2, 4, 6, 8]" and ask("a b") == str(list(range(10)))
        docs.revoke([0], "a")
        assert ask("a") == "[2, 4, 6, 8]" and ask("a b") == str(list(range(1, 10)))
        docs.upsert([20], VECTORS[:1])
        assert ask("a") == "[2, 4, 6, 8]"
        docs.grant([20, 1], "a")
        docs.delete([2])
        assert ask("a") == "[1, 4, 6, 8, 20]"
        docs.vacuum()
        assert ask("a") == "[1, 4, 6, 8, 20]"
        docs.drop_tenant("a")
        assert ask("a") == "NotFound"
        docs.create_tenant("a")
        assert ask("a") == "[]" and ask("b") == "[1, 3, 5, 7, 9]"
    assert reader.stdin is not None
    reader.stdin.close()
    assert reader.wait(60) == 0


def test_a_revoke_that_returned_is_there_after_a_kill(tmp_path: Path) -> None:
    script = (
        "import os, signal, sys, numpy as np, vecdb\n"
        "db = vecdb.open(sys.argv[1])\n"
        "docs = db.create_collection('docs', 8, 'l2')\n"
        "docs.upsert(range(300), np.arange(2400.0).reshape(300, 8), tenants=['a', 'b'])\n"
        "docs.revoke(range(0, 300, 2), 'a')\n"
        "docs.drop_tenant('b')\n"
        "docs.grant([5], 'c')\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path / "db")], cwd=ROOT, check=False)
    assert done.returncode == -signal.SIGKILL, "the kill landed"
    with open_database(tmp_path / "db", maintenance=False) as db:
        docs = db["docs"]
        assert seen(docs, "a") == list(range(1, 300, 2)) and list(docs.tenants()) == ["a", "c"]
        assert seen(docs, "c") == [5] and docs.get(5).tenants == ["a", "c"] and db.check() == []


# -- damage ----------------------------------------------------------------------------------------


def damage_members_added(docs: Any, put: Any, prefix: bytes) -> None:
    put("members", keys.row_key(prefix, 1), (8).to_bytes(8, "little"))


def damage_members_of_a_stranger(docs: Any, put: Any, prefix: bytes) -> None:
    put("members", keys.row_key(prefix, 9), (8).to_bytes(8, "little"))


def damage_members_beyond(docs: Any, put: Any, prefix: bytes) -> None:
    put("members", keys.row_key(prefix, 1), (10).to_bytes(8, "little"))


def damage_access_bit(docs: Any, put: Any, prefix: bytes) -> None:
    [raw] = record_format.encode_access(np.array([1], np.uint64), np.array([1]))
    put("access", keys.row_key(prefix, 0), raw[:-8] + b"\2" + raw[-7:])


def damage_access_missing(docs: Any, put: Any, prefix: bytes) -> None:
    put("access", keys.row_key(prefix, 0), None)


def damage_access_swapped(docs: Any, put: Any, prefix: bytes) -> None:
    [raw] = record_format.encode_access(np.array([2], np.uint64), np.array([1]))
    put("access", keys.row_key(prefix, 0), raw)


def damage_name_elsewhere(docs: Any, put: Any, prefix: bytes) -> None:
    put("tenants", keys.tenant_names(1) + b"acme", (2).to_bytes(8, "little"))


def damage_tenant_bit(docs: Any, put: Any, prefix: bytes) -> None:
    raw = record_format.encode_tenant(1, 0, b"acme")
    put("tenants", keys.row_key(keys.tenant_numbers(1), 1), raw[:-1] + b"E")


def damage_tenant_missing(docs: Any, put: Any, prefix: bytes) -> None:
    put("tenants", keys.row_key(keys.tenant_numbers(1), 1), None)


LOUD = [
    damage_members_added, damage_members_beyond, damage_access_bit, damage_access_missing, damage_access_swapped,
    damage_name_elsewhere, damage_tenant_bit, damage_tenant_missing,
]  # fmt: skip


def hurt(shared: Any, damage: Callable[[Any, Any, bytes], None]) -> None:
    engine = shared._engine
    txn = engine.store.begin_write()

    def put(name: str, key: bytes, value: bytes | None) -> None:
        database = engine.store.databases[name.encode()]
        assert txn.delete(key, db=database) if value is None else txn.put(key, value, db=database)

    damage(shared, put, engine.snapshot.generation.prefix)
    txn.commit()


@pytest.mark.parametrize("damage", LOUD, ids=lambda damage: damage.__name__)
def test_damage_that_would_show_a_tenant_anything_else_is_loud_and_found(
    shared: Any, db: Database, damage: Any
) -> None:
    assert db.check() == []
    hurt(shared, damage)
    with pytest.raises(Corruption):
        seen(shared, "acme")
    with pytest.raises(Corruption):
        list(shared.iter(tenant=["acme"]))
    assert db.check() != []
    assert len(shared.search(VECTORS[0], 400)) == 10 and seen(shared, "beta") == [3, 4, 5, 6, 7]


def test_rows_that_a_tenant_lost_are_found_by_check(shared: Any, db: Database) -> None:
    def lose(docs: Any, put: Any, prefix: bytes) -> None:
        put("members", keys.row_key(prefix, 1), None)

    hurt(shared, lose)
    assert any("row 0 has tenant 1, which does not have the row" in problem for problem in db.check())


def test_rows_of_a_tenant_that_is_not_there_are_found_by_check(shared: Any, db: Database) -> None:
    hurt(shared, damage_members_of_a_stranger)
    assert any("tenant 9 has rows, and does not exist" in problem for problem in db.check())


def test_a_list_of_a_dead_row_is_found_by_check(shared: Any, db: Database) -> None:
    shared.delete([0])
    shared._engine.upkeep.fold()
    [raw] = record_format.encode_access(np.array([1], np.uint64), np.array([1]))
    hurt(shared, lambda docs, put, prefix: put("access", keys.row_key(prefix, 0), raw))
    assert any("dead or not there" in problem for problem in db.check())


def test_check_goes_on_past_a_tenant_whose_rows_are_damaged(shared: Any, db: Database) -> None:
    hurt(shared, damage_members_beyond)
    hurt(shared, damage_members_of_a_stranger)
    found = db.check()
    assert any("tenant 1 has row 10" in problem for problem in found), found
    assert any("tenant 9 has rows, and does not exist" in problem for problem in found), found


def test_check_takes_few_bytes_for_a_pair_of_record_and_tenant(db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    docs = db.create_collection("wide", 8, "l2", index=vecdb.Flat())
    docs.upsert(range(600), VECTORS[np.arange(600) % len(VECTORS)], tenants=[f"tenant {i}" for i in range(256)])
    docs.revoke(range(0, 600, 7), "tenant 3")
    assert db.check() == []
    monkeypatch.setattr(limits, "block_rows_max", 32)  # lists are read in as many pieces as those of a large collection
    tracemalloc.start()
    try:
        assert docs.check() == []
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 24 * 600 * 256


# -- parts -----------------------------------------------------------------------------------------


def test_sets_of_pairs_agree_with_sets() -> None:
    rng = np.random.default_rng(1)
    for size in (0, 1, 30, 200):
        raw = [
            (rng.integers(0, 20, size), rng.integers(1, 2**32 - 1, 9, np.uint64)[rng.integers(0, 9, size)])
            for _ in "ab"
        ]
        a, b = (RowTenantPairs.of(rows, numbers) for rows, numbers in raw)
        one, two = (set(zip(part.rows.tolist(), part.numbers.tolist(), strict=True)) for part in (a, b))
        assert one == set(zip(raw[0][0].tolist(), raw[0][1].tolist(), strict=True)) and len(a) == len(one)
        for made, expected in ((pairs.unite(a, b), one | two), (pairs.subtract(a, b), one - two)):
            assert list(zip(made.rows.tolist(), made.numbers.tolist(), strict=True)) == sorted(expected)
        numbers, rows = a.by_number()
        assert list(zip(numbers.tolist(), rows.tolist(), strict=True)) == sorted((n, r) for r, n in one)
        assert dict(zip(*(part.tolist() for part in a.counts()), strict=True)) == {
            row: sum(r == row for r, _ in one) for row in {r for r, _ in one}
        }


def test_what_is_added_and_taken_away_again_is_no_change() -> None:
    def made(*rows: int) -> RowTenantPairs:
        return RowTenantPairs.of(np.array(rows, np.int64), np.full(len(rows), 5, np.uint64))

    added, removed = pairs.net_changes([made(1, 2), made(3, 1)], [made(1), made(9)])
    assert (added.rows.tolist(), removed.rows.tolist()) == ([1, 2, 3], [9])
    assert [len(part) for part in pairs.net_changes([made(1)], [made(1)])] == [0, 0]
    assert pairs.net_changes([], []) == (NOTHING, NOTHING)


def test_the_planner_scans_a_tenants_rows_until_meeting_them_is_cheaper() -> None:
    visibility = Visibility(1, 100_000, 100_000)

    def plan(config: Any, matching: int | None, **asked: Any) -> planner.Plan:
        params = vecdb.SearchParams(**asked)
        return planner.plan(config, 100_000, visibility, 10, params, (MeasuredRecall(10, 50, 0.99),), None, matching)

    for config, strategy in ((vecdb.Hnsw(), "graph"), (vecdb.Spann(), "lists")):
        assert plan(config, None).strategy == strategy
        assert [plan(config, n).strategy for n in (0, 1, 1_000, 50_000)] == ["rows", "rows", "rows", strategy]
        assert plan(config, 50_000, exact=True).strategy == "rows" and plan(config, 50_000, exact=True).width == 0
        first = next(n for n in range(0, 100_000, 100) if plan(config, n).strategy == strategy)
        assert all(plan(config, n).strategy == strategy for n in range(first, 100_000, 5_000)), "one threshold"
        assert plan(config, 50_000, recall=0.9).width == (50 if strategy == "graph" else 100)
    assert plan(vecdb.Spann(), 50_000, nprobe=128).width == 256, "half of what is met counts: twice as much is read"
    assert plan(vecdb.Flat(), 50_000).strategy == "rows"


def test_a_large_tenants_walk_along_the_tree_is_as_long_as_the_recall_asked_for_takes() -> None:
    visibility, config = Visibility(1, 100_000, 100_000), vecdb.Curator(scan_max=1_000)
    learned = (MeasuredRecall(10, 93, 0.90), MeasuredRecall(10, 145, 0.95), MeasuredRecall(10, 435, 0.99))

    def width(matching: int, known: tuple[MeasuredRecall, ...] = learned, **asked: Any) -> int:
        return planner.plan(config, 100_000, visibility, 10, vecdb.SearchParams(**asked), known, None, matching).width

    assert width(1_000, recall=0.99) == width(1_000, nprobe=7) == 0, "all its rows"
    assert width(1_001) == width(1_001, ()) == planner.PATIENCE
    assert width(1_001, (MeasuredRecall(10, 290, 0.95),)) == 2 * planner.PATIENCE, "what the data needs"
    assert width(1_001, recall=0.95) == planner.PATIENCE and width(1_001, recall=0.99) == 3 * planner.PATIENCE
    for measured, most in ((None, planner.SCAN_ROWS), (500, 500)):
        for told, rows in ((vecdb.Curator(), most), (config, 1_000)):
            given = told, 100_000, visibility, 10, vecdb.SearchParams(), learned, None
            widths = [planner.plan(*given, n, measured).width for n in (rows, rows + 1)]
            assert widths == [0, planner.PATIENCE], "what somebody said goes before what was measured"
    assert 0 < width(1_001, recall=0.8) < planner.PATIENCE and width(1_001, nprobe=7) == 7
    with pytest.raises(vecdb.InvalidArgument, match="has not learned"):
        width(1_001, (), recall=0.99)


def test_a_record_is_read_for_those_that_may_see_it() -> None:
    with vecdb.open(":memory:") as db:
        docs = db.create_collection("docs", 2)
        docs.upsert(["a", "b", "c"], np.ones((3, 2)), tenants=[["x"], ["x", "y"], []])
        assert [one and one.id for one in docs.get(["a", "b", "c", "d"], tenant="x")] == ["a", "b", None, None]
        assert [one and one.id for one in docs.get(["a", "b"], tenant="y")] == [None, "b"]
        assert [one and one.id for one in docs.get(["a", "b", "c"], tenant=["x", "y"])] == ["a", "b", None]
        assert docs.get("a", tenant="y") is None
        docs.revoke("b", "y")
        assert docs.get("b", tenant="y") is None
        with pytest.raises(vecdb.NotFound, match="tenant"):
            docs.get("a", tenant="nobody")
