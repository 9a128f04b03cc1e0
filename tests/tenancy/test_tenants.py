"""Goal: a tenant sees the records granted to it and no others, and every call that names tenants does what it says.

The model tests (tests/model) hold every index kind to a dict of sets over long histories; here is each rule by itself.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

import vecdb
from tests.support.corpus import EXACT
from tests.support.planner_costs import set_planner_costs
from tests.support.tenant_records import KINDS, VECTORS, ids_of, seen
from vecdb import limits
from vecdb.api.database import Database
from vecdb.errors import AlreadyExists, InvalidArgument, LimitExceeded, NotFound
from vecdb.index.hnsw import filtered
from vecdb.query import planner
from vecdb.tenancy import tenant_names
from vecdb.tenancy.pairs import numbers_of

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
    set_planner_costs(monkeypatch, scan_share=1e9)
    docs = db.create_collection("docs", 8, "l2", KINDS[kind])
    names = [one if ids == "int" else f"id-{one}" for one in range(400)]
    lists = [[name for name in ("t2", "t3", "t40") if number % int(name[1:]) == 0] for number in range(400)]
    docs.upsert(names[:350], VECTORS[:350], tenants=lists[:350])
    docs.optimize()
    docs.upsert(names[350:], VECTORS[350:], tenants=lists[350:])  # the tail
    docs.delete(names[::7])
    plans = set()
    nearest: dict[Any, list[int]] = {}  # (tenants, number of the query) -> rows
    for widths in (planner.COSTS.scan_rows_per_width, 0.0):
        set_planner_costs(monkeypatch, docs, scan_rows_per_width=widths)
        if not widths:
            set_planner_costs(monkeypatch, docs, scored_rows=0)
            monkeypatch.setattr(filtered, "_SCAN_AT_ONCE", 0.0)  # a graph is walked however few match
        docs.create_tenant(f"of {widths}")  # a commit, after which everything is planned anew
        for tenant in ("t2", "t3", "t40", ["t3", "t40"]):
            wanted = {tenant} if isinstance(tenant, str) else set(tenant)
            rows = [one for one in range(400) if one % 7 and wanted & set(lists[one])]
            for number, query in enumerate(VECTORS[:20]):
                if (asked := (*sorted(wanted), number)) not in nearest:
                    nearest[asked] = sorted(rows, key=lambda one: float(((VECTORS[one] - query) ** 2).sum()))[:10]
                best = nearest[asked]
                exact = docs.search(query, 10, tenant=tenant, params=EXACT)
                assert exact.ids.tolist() == [names[one] for one in best]
                near = docs.search(query, 10, tenant=tenant, explain=True)
                plans.add(near.plan)
                assert len(near.ids) == min(10, len(rows)) and set(near.ids.tolist()) <= {names[one] for one in rows}
                if near.plan == "rows":
                    assert near.ids.tolist() == exact.ids.tolist()
    expected = {"flat": {"rows"}, "hnsw": {"rows", "codes", "graph"}, "spann": {"rows", "lists"}, "curator": {"tree"}}
    assert plans == expected[kind]
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
    assert shared.revoke([0, 2], {"acme", "beta"}) == 0 and shared.get(0).tenants == ["new"]
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
        (["a", "b"], "a list of as many names as there are ids, 2, which could be one each or all for all records"),
        (("a", "a"), "pass a list of lists, .* or a set of names"),
        (np.array(["a", "b"]), "as many names as there are ids"),
        (pl.Series([["a"], None]), r"tenants\[1\] must be a name or a list of names, got None"),
    ],
)
def test_a_mistake_in_access_lists_is_named(shared: Any, tenants: Any, said: str) -> None:
    for call in (shared.grant, lambda ids, tenants: shared.upsert(ids, VECTORS[:2], tenants=tenants)):
        with pytest.raises(InvalidArgument, match=said):
            call([0, 1], tenants)
    with pytest.raises(InvalidArgument, match="one bare id must be one list"):
        shared.grant(0, [["a"]])


def test_names_for_all_are_a_set_or_another_number_of_names_than_ids(
    db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    docs = db.create_collection("docs", 8, "l2")
    docs.upsert([1, 2], VECTORS[:2], tenants={"a", "b"})
    docs.upsert([3, 4, 5], VECTORS[:3], tenants=["a", "b"])
    docs.upsert([6], VECTORS[:1], tenants=["a"])
    docs.upsert(7, VECTORS[0], tenants=["a", "b"])
    assert docs.grant([1, 2], frozenset({"c"})) == 2
    assert [docs.get(i).tenants for i in range(1, 8)] == [["a", "b", "c"]] * 2 + [["a", "b"]] * 3 + [["a"], ["a", "b"]]
    monkeypatch.setattr(limits, "batch_rows_max", 2)
    docs.upsert(range(10, 15), VECTORS[:5], tenants=["x", "y"], atomic=False)  # parts of two ids: not two of five
    assert docs.count(tenant="x") == docs.count(tenant="y") == 5
    with pytest.raises(InvalidArgument, match="as many names as there are ids, 5"):
        docs.upsert(range(20, 25), VECTORS[:5], tenants=list("abcde"), atomic=False)
    assert docs.count() == 12


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
    state = shared._backend.state
    with state.store.read() as txn:
        uid = state.entry.uid
        first = tenant_names.number_of(state.store, txn, uid, b"beta")
        assert first == 2 and tenant_names.number_of(state.store, txn, uid, b"acme") == 3, "numbers are never reused"
        held = state.snapshot.generation.journal.tables.lists_of(txn, np.arange(9))
        assert set(numbers_of(held).tolist()) == {2, 3}, "vacuum leaves out what is left of dropped tenants"
    assert seen(shared, "acme") == [1, 4] and db.check() == []


def test_a_vacuum_leaves_out_dropped_tenants_where_no_row_is_dead(shared: Any, db: Database) -> None:
    shared.drop_tenant("acme")
    state = shared._backend.state
    before = state.snapshot.generation.number
    for _ in range(2):
        shared.vacuum()
        with state.store.read() as txn:
            held = state.snapshot.generation.journal.tables.lists_of(txn, np.arange(10))
            assert set(numbers_of(held).tolist()) == {2}
        assert state.snapshot.generation.number == before + 1, "once is enough"
    assert seen(shared, "beta") == [3, 4, 5, 6, 7] and db.check() == []


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
    with db._backend.store.read() as txn:
        assert txn.stat(db._backend.store.tenants)["entries"] == 3, "what a dropped collection had is purged"
        assert txn.stat(db._backend.store.members)["entries"] == txn.stat(db._backend.store.access)["entries"] == 1
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
    monkeypatch.setattr(filtered, "_SCAN_AT_ONCE", 0.0)
    docs = db.create_collection("docs", 8, "l2", KINDS["hnsw"])
    docs.upsert(range(400), VECTORS, tenants=[["a"] if number % 2 else [] for number in range(400)])
    docs.optimize()
    report = docs.evaluate(VECTORS[:50], 10, tenant="a", params=vecdb.SearchParams(ef=64))
    assert report["plan"] == "graph" and report["recall"] > 0.9


# -- parts -----------------------------------------------------------------------------------------


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
